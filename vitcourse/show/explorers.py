"""Explorers: pictures that answer to mouse, finger and keyboard, without a kernel or a network.

Each is one piece of HTML: a picture, and laid over it a sandboxed frame that holds the data and a
small script (web/). Where Jupyter does not trust a notebook it drops the frame; the picture stays.
"""

import base64
import html
import io
import json
import zlib
from pathlib import Path

import matplotlib
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from vitcourse.config import grid_of, require_count
from vitcourse.show.figures import COLOURS, STYLE, to_numpy

WEB = Path(__file__).parent / "web"
WIDTH = 900  # of an explorer on the page, at most; CSS pixels
NARROW = 640  # below this width the parts stand one under the other
TALLEST = 440  # CSS pixels that a picture may take
LIMIT = 1_000_000  # bytes of HTML
MARK = COLOURS[3]
CHANNELS = {1: ["#444444"], 3: [COLOURS[3], COLOURS[2], COLOURS[0]]}  # of the bars


def explore_patches(image, patch, alt):
    """Show how a picture becomes a sequence of patches, and a patch a list of numbers.

    image  (H, W, C) uint8, C is 1 or 3; an array or a tensor
    patch  the side P of a patch, which divides H and W
    alt    what there is to see, in a sentence, for those who cannot see it
    """
    image = checked_image(image)
    require_count("patch", patch)
    grid = grid_of(image.shape[:2], patch)
    start = busiest_patch(image, grid, patch)
    data = {
        "pixels": pack(steps(image)),
        "size": image.shape,
        "patch": patch,
        "grid": grid,
        "start": start,
    }
    ratio = image.shape[1] / image.shape[0]
    tall = height(ratio, wide=268, narrow=634, least=300)
    show("patches", data, patches_picture(image, grid, patch, start), alt, tall, SMALLER_IMAGE)


def explore_positions(table, grid, alt):
    """Show how alike the position vectors of all places are: cosine similarities.

    table  (h*w, D) position vectors, row by row, without those of prefix tokens
    grid   (h, w)
    alt    what there is to see, in a sentence, for those who cannot see it
    """
    grid = checked_grid(grid)
    similarity = cosines(checked_table(table, grid))
    low, high = min(float(similarity.min()), 0.99), 1.0  # a scale needs two ends
    start = grid[0] // 2 * grid[1] + grid[1] // 2
    data = {
        "similarity": pack(levels(similarity, low, high)),
        "low": low,
        "high": high,
        "grid": grid,
        "start": start,
    }
    tall = height(grid[1] / grid[0], wide=164, narrow=236, stacked=2)
    show("positions", data, positions_picture(similarity, grid, start), alt, tall, SMALLER_GRID)


def explore_attention(image, maps, grid, alt, prefix_len=1):
    """Show where each token looks, in every layer and head.

    image       (H, W, C) uint8, C is 1 or 3; an array or a tensor
    maps        attention weights of one image: (K, T, T) of one layer or (L, K, T, T) of several;
                maps[l, k, i, j] is how much token i takes from token j, T = prefix_len + h*w.
                From `record_attention` with one image: `torch.cat(maps)`
    grid        (h, w)
    alt         what there is to see, in a sentence, for those who cannot see it
    prefix_len  R, how many tokens come before the patches
    """
    image, grid = checked_image(image), checked_grid(grid)
    maps = checked_maps(maps, grid, prefix_len)
    patches = maps[..., prefix_len:]  # (L, K, T, N)
    peaks = patches.max(axis=-1)  # (L, K, T)
    data = {
        "image": image_uri(image),
        "size": image.shape,
        "weights": pack(levels(patches, 0, np.maximum(peaks, 1e-30)[..., None])),
        "peaks": pack(peaks.astype("<f4")),
        "prefix": pack(maps[..., :prefix_len].astype("<f4")),
        "layers": maps.shape[0],
        "heads": maps.shape[1],
        "prefixLen": prefix_len,
        "grid": grid,
        "start": 0 if prefix_len else grid[0] // 2 * grid[1] + grid[1] // 2,
    }
    tall = attention_height(image, *maps.shape[:2], prefix_len)
    picture = attention_picture(image, maps, grid, prefix_len, data["start"])
    show("attention", data, picture, alt, tall, FEWER_MAPS)


SMALLER_IMAGE = "give a smaller image, cropped or resized"
SMALLER_GRID = "give a smaller grid, see resize_position"
FEWER_MAPS = "give fewer layers, such as maps[-1:], or a smaller image"


# What is refused --------------------------------------------------------------------------------


def checked_image(image):
    """The image as an array (H, W, C) uint8, or an error that says what to do."""
    image = to_numpy(image)
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        hint = ", call image.permute(1, 2, 0)" if image.shape[:1] in ((1,), (3,)) else ""
        raise ValueError(f"image has the shape {image.shape}, it needs (height, width, 3){hint}")
    if image.dtype != np.uint8:
        raise ValueError(
            f"image holds {image.dtype}, it needs whole numbers from 0 to 255: "
            "for values in 0..1, call (image * 255).round().to(torch.uint8)"
        )
    return image


def checked_grid(grid):
    """The grid as (h, w), or an error that says what to do."""
    grid = tuple(grid) if isinstance(grid, (tuple, list)) else grid
    if not (isinstance(grid, tuple) and len(grid) == 2 and all(type(n) is int for n in grid)):
        raise ValueError(f"grid is {grid!r}: give (rows, columns), two whole numbers")
    if min(grid) < 1:
        raise ValueError(f"grid is {grid!r}: it needs at least one row and one column")
    return grid


def checked_table(table, grid):
    """The table as an array (h*w, D), or an error that says what to do."""
    table, places = to_numpy(table).astype(float), grid[0] * grid[1]
    if table.ndim != 2:
        raise ValueError(f"table has the shape {table.shape}, it needs (places, width)")
    if len(table) != places:
        more = len(table) - places
        hint = f": leave out rows of prefix tokens, table[{more}:]" if more in range(1, 6) else ""
        raise ValueError(
            f"table has {len(table)} rows, a grid of {grid[0]}x{grid[1]} has {places} places{hint}"
        )
    if not np.isfinite(table).all():
        raise ValueError("table holds nan or infinity")
    zero = np.flatnonzero(~table.any(axis=1))
    if len(zero):
        raise ValueError(f"row {zero[0]} of table is all zeros: it has no direction to compare")
    return table


def checked_maps(maps, grid, prefix_len):
    """The maps as an array (L, K, T, T), or an error that says what to do."""
    if not isinstance(prefix_len, int) or prefix_len < 0:
        raise ValueError(f"prefix_len is {prefix_len!r}: it must be a whole number, 0 or more")
    maps, T = to_numpy(maps).astype(float), prefix_len + grid[0] * grid[1]
    if maps.ndim not in (3, 4) or 0 in maps.shape:
        raise ValueError(f"maps has the shape {maps.shape}, it needs (heads, T, T) of one layer")
    if maps.shape[-2:] != (T, T):
        raise ValueError(
            f"maps is for {maps.shape[-2]}x{maps.shape[-1]} tokens, a grid of {grid[0]}x{grid[1]} "
            f"and prefix_len={prefix_len} make {T}"
        )
    sums = maps.sum(axis=-1)
    if not (np.abs(sums - 1) < 0.01).all() or maps.min() < 0:
        raise ValueError(
            f"maps is no attention: its rows sum to {sums.min():.2f} up to {sums.max():.2f}, not "
            "to one; what a token takes from each token stands in the last dimension"
        )
    return maps.reshape(-1, *maps.shape[-3:])


# From arrays to text ----------------------------------------------------------------------------


def pack(values):
    """An array as text: its bytes, compressed, in base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 9)).decode()


def levels(values, low, high):
    """Numbers from low to high as 256 levels."""
    return ((values - low) / (high - low) * 255).round().astype(np.uint8)


def steps(image):
    """An image (H, W, C) as the differences of each pixel to the one before: it packs smaller."""
    pixels = image.reshape(-1, image.shape[2])
    return np.diff(pixels, axis=0, prepend=np.zeros_like(pixels[:1]))


def image_uri(image):
    """An image (H, W, C) as the address of itself: PNG, or JPEG where that would be large."""
    picture, file = (
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image),
        io.BytesIO(),
    )
    picture.save(file, "PNG", optimize=True)
    kind = "png"
    if file.tell() > 40_000:
        kind, file = "jpeg", io.BytesIO()
        picture.save(file, "JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


# What is computed -------------------------------------------------------------------------------


def busiest_patch(image, grid, patch):
    """The number of the patch whose pixels differ most."""
    h, w = grid
    patches = image.reshape(h, patch, w, patch, -1).transpose(0, 2, 1, 3, 4).reshape(h * w, -1)
    return int(patches.std(axis=1).argmax())


def cosines(table):
    """How alike the vectors (N, D) are: (N, N), one where they point the same way."""
    table = table / np.abs(table).max(axis=1, keepdims=True)
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    return (table @ table.T).clip(-1, 1)


def attention_height(image, layers, heads, prefix_len):
    """How tall `explore_attention` is: pictures, texts, and as many rows of buttons as needed."""
    tokens = [100] if prefix_len == 1 else [110] * prefix_len  # widths of buttons, CSS pixels
    layers = [42] * layers if layers > 1 else []
    heads = [42] * heads + [125]
    rows = {
        space: sum(-(-sum(widths) // space) for widths in (tokens, layers, heads))
        for space in (480, 230)  # beside their names, at the least
    }
    ratio = image.shape[1] / image.shape[0]
    return height(ratio, 158 + 36 * rows[480], 226 + 36 * rows[230], stacked=2)


# The picture that stays where the frame is dropped ------------------------------------------------


def panels(ratio, widths=(1, 1)):
    """A matplotlib Figure with axes side by side, for pictures of that width to height."""
    with matplotlib.rc_context({**STYLE, "font.size": 8}):
        height = min(3.4 / ratio, 4.4) + 0.5
        drawing = Figure(figsize=(7.5, height), layout="constrained")
        axes = drawing.subplots(1, len(widths), width_ratios=widths)
    for place in axes:
        place.set_axis_off()
    return drawing, axes


def outline(axes, number, grid, extent):
    """Mark the patch of that number on a picture that spans `extent` (height, width)."""
    row, column = divmod(number, grid[1])
    height, width = extent[0] / grid[0], extent[1] / grid[1]
    corner = column * width - 0.5, row * height - 0.5
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=MARK, linewidth=2))


def patches_picture(image, grid, patch, number):
    """The picture cut into patches, one of them enlarged, and the first of its numbers."""
    row, column = divmod(number, grid[1])
    piece = image[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
    drawing, (left, middle, right) = panels(image.shape[1] / image.shape[0], (2, 1, 1.6))
    left.imshow(image, cmap="gray", vmin=0, vmax=255)
    for y in range(1, grid[0]):
        left.axhline(y * patch - 0.5, color="white", linewidth=0.5)
    for x in range(1, grid[1]):
        left.axvline(x * patch - 0.5, color="white", linewidth=0.5)
    outline(left, number, grid, image.shape)
    left.set_title(f"{grid[0]} x {grid[1]} patches")
    middle.imshow(piece, cmap="gray", vmin=0, vmax=255)
    middle.set_title(f"patch {number}:\nrow {row}, column {column}")
    values = piece.flatten()
    first = values[:24]
    colours = CHANNELS[image.shape[2]]
    right.bar(
        range(len(first)), first, color=[colours[i % len(colours)] for i in range(len(first))]
    )
    right.set_title(f"the first {len(first)} of\nits {len(values)} values")
    right.set_axis_on()
    right.set_ylim(0, 255)
    return drawing


def positions_picture(similarity, grid, number):
    """The similarities of every place to every other, as a grid of grids, and one of them."""
    h, w = grid
    tiles = np.full((h, h + 1, w, w + 1), np.nan)
    tiles[:, :h, :, :w] = similarity.reshape(h, w, h, w).transpose(0, 2, 1, 3)
    drawing, (left, right) = panels(w / h)
    scale = {"cmap": "viridis", "vmin": similarity.min(), "vmax": 1, "interpolation": "nearest"}
    left.imshow(tiles.reshape(h * (h + 1), w * (w + 1))[:-1, :-1], **scale)
    left.set_title("every place's similarity to all places")
    outline(left, number, grid, (h * (h + 1), w * (w + 1)))
    shown = right.imshow(similarity[number].reshape(h, w), **scale)
    right.set_title(f"place {number}: row {number // w}, column {number % w}")
    drawing.colorbar(shown, ax=right, shrink=0.8, label="cosine similarity")
    return drawing


def attention_picture(image, maps, grid, prefix_len, token):
    """The picture, and where one token looks: the mean of the heads of the last layer."""
    weights = maps[-1].mean(axis=0)[token, prefix_len:].reshape(grid)
    height, width = image.shape[:2]
    drawing, (left, right) = panels(width / height)
    left.imshow(image, cmap="gray", vmin=0, vmax=255)
    right.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    shown = right.imshow(weights, cmap="viridis", alpha=0.7, vmin=0, extent=extent)
    drawing.colorbar(shown, ax=right, shrink=0.8, label="weight")
    if token >= prefix_len:
        outline(left, token - prefix_len, grid, (height, width))
    name = "the class token" if token < prefix_len else f"patch {token - prefix_len}"
    heads = "mean of heads" if len(maps) == 1 else "last layer, mean of heads"
    right.set_title(f"where {name} looks\n({heads})")
    return drawing


def png(drawing):
    """A matplotlib Figure as the bytes of a PNG."""
    drawn, file = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(STYLE):
        drawing.savefig(drawn, format="png", dpi=2 * STYLE["figure.dpi"])
    image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(file, format="png", optimize=True)
    return file.getvalue()


# The page ---------------------------------------------------------------------------------------


def height(ratio, wide, narrow, stacked=1, least=0):
    """How tall an explorer is at every width, in CSS: pictures scale, text and buttons do not.

    ratio    width to height of a picture, which takes half the width, or all of a narrow one
    wide     CSS pixels above and below pictures, where parts stand side by side
    narrow   the same, where they stand one under the other
    stacked  how many pictures then stand one under the other
    least    CSS pixels that what stands beside the picture needs
    """
    half = f"max(min((50cqw - 20px) / {ratio:.4f}, {TALLEST}px), {least}px)"
    whole = f"min((100cqw - 24px) / {ratio:.4f}, {TALLEST}px)"
    switch = f"({NARROW}px - 100cqw) * 999"
    wide = f"{wide}px + max(0px, 760px - 100cqw) * 0.3"  # texts take more lines
    narrow = f"{narrow}px + max(0px, 360px - 100cqw) * 1.5"
    return f"clamp({half} + {wide}, {switch}, {stacked} * {whole} + {narrow})"


def show(name, data, drawing, alt, tall, advice):
    """Show an explorer: a picture, and over it the frame that holds the data and the script."""
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("alt is empty: say in a sentence what there is to see")
    text = page(name, data, png(drawing), alt, tall)
    if len(text) > LIMIT:
        raise ValueError(
            f"this explorer would take {len(text) / 1e6:.1f} MB of the notebook, "
            f"more than {LIMIT / 1e6:.0f} MB: {advice}"
        )
    display({"text/html": text, "text/plain": alt}, raw=True)


def page(name, data, picture, alt, tall):
    """An explorer as HTML."""
    uri = "data:image/png;base64," + base64.b64encode(picture).decode()
    over = "position:absolute;top:0;left:0;width:100%;height:100%;border:0"
    return (
        f'<div style="position:relative;width:100%;max-width:{WIDTH}px;container-type:inline-size">'
        f'<img alt="{attribute(alt)}" src="{attribute(uri)}" width="{WIDTH}" '
        f'style="display:block;width:100%;height:{tall};object-fit:contain">'
        f'<iframe sandbox="allow-scripts" title="Explorer: {attribute(alt)}" style="{over}" '
        f'srcdoc="{attribute(frame(name, data, alt))}"></iframe></div>'
    )


def frame(name, data, alt):
    """The document inside the frame: style, data, script, and what is this explorer's own."""
    files = "common.css", "common.js", f"{name}.html"
    style, common, own = ((WEB / file).read_text(encoding="utf-8") for file in files)
    data = json.dumps(data).replace("<", "\\u003c")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(alt)}</title><style>{style}</style>"
        f"<script>const DATA = {data};\n{common}</script>{own}"
    )


def attribute(text):
    """Text as the value of an attribute. Two slashes of base64 shall not look like an address."""
    return html.escape(text).replace("//", "/&#47;")
