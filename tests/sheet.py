"""The sheet of shapes in docs/shapes.md: `python -m tests.sheet` writes it anew.

Every number is read off a model: shapes from a traced forward pass, parameters from its layers.
Tensors are of torch's device "meta", which have a shape and no values, so this takes no memory.
"""

from functools import cache
from pathlib import Path

import torch

from vitcourse import make_vit
from vitcourse.probe import record_attention
from vitcourse.vit import patchify

PAGE = Path(__file__).resolve().parents[1] / "docs" / "shapes.md"
MODELS = {"B/16 at 224": ("B/16", 224), "B/32 at 256": ("B/32", 256)}
BATCH = 5  # no other size is 5: where it stands, the sheet says B

# A row of the sheet: what it is, the name of its tensor in `trace`, its shape, its lesson
ROWS = [
    ("images", "images", "B, C, H, W", "01"),
    ("patches, each a list of its pixels", "patches", "B, N, P·P·C", "01"),
    ("a convolution of P x P pixels with stride P", "patch_embed.proj", "B, D, h, w", "01"),
    ("the same as tokens: the patch embedding", "patch_embed", "B, N, D", "01"),
    ("the class token, one for all images", "prefix", "1, R, D", "02"),
    ("the position table", "position.table", "1, T, D", "03"),
    ("class token, then patches; plus positions", "position", "B, T, D", "03"),
    ("**a block**: norm1", "norm1", "B, T, D", "05"),
    ("queries, keys and values, side by side", "attn.qkv", "B, T, 3·D", "04"),
    ("q, k, v, each cut into heads", "q", "B, K, T, d", "04"),
    ("attention weights, each row sums to one", "weights", "B, K, T, T", "04"),
    ("weights times values", "mixed", "B, K, T, d", "04"),
    ("heads side by side, after proj; plus x", "attn", "B, T, D", "04"),
    ("norm2", "norm2", "B, T, D", "05"),
    ("the MLP, wide: fc1 and GELU", "mlp.fc1", "B, T, M", "05"),
    ("the MLP, narrow: fc2; plus x", "mlp", "B, T, D", "05"),
    ("after the last of L blocks: the norm", "norm", "B, T, D", "06"),
    ("the class token, read", "read", "B, D", "06"),
    ("logits", "head", "B, classes", "06"),
]

# What has parameters, the layer's name (in a block: one of L), and how many, as a formula
PARTS = [
    ("patch embedding", "patch_embed", "P·P·C·D + D"),
    ("class token", "prefix", "R·D"),
    ("position table", "position", "T·D"),
    ("norm1", "blocks.0.norm1", "2·D"),
    ("qkv", "blocks.0.attn.qkv", "3·D·D + 3·D"),
    ("proj", "blocks.0.attn.proj", "D·D + D"),
    ("norm2", "blocks.0.norm2", "2·D"),
    ("fc1", "blocks.0.mlp.fc1", "D·M + M"),
    ("fc2", "blocks.0.mlp.fc2", "M·D + D"),
    ("**a block**, the sum of these six", "blocks.0", "12·D·D + 13·D"),
    ("L blocks", "blocks", "L·(12·D·D + 13·D)"),
    ("norm", "norm", "2·D"),
    ("head", "head", "D·classes + classes"),
]

# The letters, what they mean, and what follows from the others
LETTERS = [
    ("B", "images in a batch", None),
    ("C", "channels", None),
    ("H", "pixels from top to bottom", None),
    ("W", "pixels from left to right", None),
    ("P", "side of a patch", None),
    ("h", "rows of patches", "H/P"),
    ("w", "columns of patches", "W/P"),
    ("N", "patches", "h·w"),
    ("R", "tokens in front", None),
    ("T", "tokens", "R + N"),
    ("D", "width of a token", None),
    ("K", "heads", None),
    ("d", "width of a head", "D/K"),
    ("M", "hidden width of the MLP", "4·D"),
    ("L", "blocks", None),
    ("classes", "", None),
]

HEAD = """# Shapes

One page to print: every tensor on its way through a ViT, from the image to the logits. B/16 at 224
is the ViT-B/16 of the paper. B/32 at 256 has 64 patches of 3072 values. `python -m tests.sheet`
writes this page from the models; a test compares.

"""
BELOW = """
D is free, and the patch does not decide it: it is 768 in both. More tokens mean more to compute,
for attention with their square, and no more parameters but in the position table. The head reads
one token of T.
"""


def sizes(model):
    """What each letter stands for in a model."""
    cfg = model.cfg
    (H, W), (h, w), R, N = cfg.image, cfg.grid, model.prefix_len, cfg.grid[0] * cfg.grid[1]
    found = [BATCH, cfg.channels, H, W, cfg.patch, h, w, N, R, R + N, cfg.dim, cfg.heads]
    found += [cfg.dim // cfg.heads, cfg.hidden, cfg.depth, cfg.classes]
    return {letter: size for (letter, *_), size in zip(LETTERS, found, strict=True)}


def value(formula, letters):
    """The number that a formula such as 3·D gives."""
    return eval(formula.replace("·", "*").replace("/", "//"), {}, letters)


@cache
def build(size, image):
    """A model without values."""
    with torch.device("meta"):
        return make_vit(size, image=image)


@cache
def trace(model):
    """The shape of every tensor of ROWS, from one forward pass through the model."""
    seen, cfg, block = {}, model.cfg, model.blocks[0]

    def watch(name, module):
        def keep(_module, _inputs, out):
            seen[name] = out[0] if isinstance(out, tuple) else out

        module.register_forward_hook(keep)

    for name in ("patch_embed", "patch_embed.proj", "position", "norm", "head"):
        watch(name, model.get_submodule(name))
    for name in ("norm1", "attn.qkv", "attn", "norm2", "mlp.fc1", "mlp"):
        watch(name, block.get_submodule(name))
    images = torch.empty(BATCH, cfg.channels, *cfg.image, device="meta")
    with record_attention(model) as maps:
        model(images)
    q, k, v = block.attn.project(seen["norm1"], cfg.grid)
    assert q.shape == k.shape == v.shape and len(maps) == cfg.depth
    seen |= {"images": images, "patches": patchify(images, cfg.patch), "prefix": model.prefix}
    seen |= {"position.table": model.position.table, "q": q, "weights": maps[0]}
    seen |= {"mixed": maps[0] @ v, "read": seen["norm"][:, 0]}
    return {name: tuple(tensor.shape) for name, tensor in seen.items()}


def count(model, name):
    """How many parameters a layer has, or the model, if the name is empty."""
    parts = dict(model.named_parameters())
    return sum(p.numel() for n, p in parts.items() if f"{n}.".startswith(name and f"{name}."))


def shape_rows(models):
    """The table of shapes, each formula compared with what was traced."""
    traced = [trace(model) for model in models]
    for text, tensor, symbols, lesson in ROWS:
        cells = []
        for model, shapes in zip(models, traced, strict=True):
            said = tuple(value(axis, sizes(model)) for axis in symbols.split(", "))
            if said != shapes[tensor]:
                raise ValueError(f"{text}: ({symbols}) is {said}, the model has {shapes[tensor]}")
            cells.append(", ".join("B" if n == BATCH else f"{n}" for n in shapes[tensor]))
        yield [text, symbols, *cells, lesson]


def part_rows(models):
    """The table of parameters, each formula compared with the layers."""
    for text, layer, formula in PARTS:
        counts = [count(model, layer) for model in models]
        said = [value(formula, sizes(model)) for model in models]
        if said != counts:
            raise ValueError(f"{text}: {formula} is {said}, the models have {counts}")
        yield [text, formula, *(f"{n:,}" for n in counts)]
    totals = [f"{count(model, ''):,}" for model in models]
    yield ["**all**", "", *(f"**{n}**" for n in totals)]


def table(head, rows):
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def legend(models):
    """What each letter means, and its number in the models."""
    for letter, meaning, formula in LETTERS:
        found = [sizes(model)[letter] for model in models]
        if formula and found != [value(formula, sizes(model)) for model in models]:
            raise ValueError(f"{letter} is not {formula} but {found}")
        numbers = "any" if letter == "B" else " and ".join(dict.fromkeys(map(str, found)))
        said = ", ".join(part for part in (meaning, formula) if part)
        yield f"**{letter}** {said}: {numbers}".replace("** :", "**:")


def page():
    """The sheet, from the models as they are."""
    models = [build(*model) for model in MODELS.values()]
    letters = " · ".join(legend(models)) + "\n\n"
    shapes = table(["tensor", "shape", *MODELS, "lesson"], shape_rows(models))
    parts = table(["parameters", "formula", *MODELS], part_rows(models))
    return HEAD + letters + shapes + "\n" + parts + BELOW


if __name__ == "__main__":
    PAGE.write_text(page())
