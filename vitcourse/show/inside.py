"""Figures of what goes on inside a model: its attention maps, and how far its heads look."""

import matplotlib
import torch
from matplotlib.figure import Figure

from vitcourse.probe import record_attention
from vitcourse.show.explorers import explore_attention
from vitcourse.show.figures import COLOURS, STYLE, to_numpy
from vitcourse.show.plots import bare

LEAST = 256  # pixels of the longer side of a picture in an explorer


def attention(model, image, alt, normalise=None, layers=None):
    """Show where every token of one picture looks, in every layer and head of a model.

    image      (C, H, W) uint8, of the size that the model was built for
    alt        what there is to see, in a sentence, for those who cannot see it
    normalise  makes what the model takes of pictures (1, C, H, W): `data.normalise`. Models that
               `weights.pretrained` loads know it themselves
    layers     the numbers of the layers to show; all, if none are given
    """
    if not isinstance(image, torch.Tensor) or image.ndim != 3 or image.dtype != torch.uint8:
        kind = tuple(getattr(image, "shape", ())), getattr(image, "dtype", type(image).__name__)
        raise ValueError(f"image is {kind[0]} of {kind[1]}, it needs (C, H, W) of torch.uint8")
    if tuple(image.shape[1:]) != model.cfg.image:
        needed = " x ".join(map(str, model.cfg.image))
        raise ValueError(
            f"image has {image.shape[1]} x {image.shape[2]} pixels, this model reads {needed}"
        )
    normalise = normalise or as_pretrained(model)
    device = next(model.parameters()).device
    with torch.no_grad(), record_attention(model) as maps:
        model(normalise(image[None].to(device)))
    maps = torch.cat(maps)  # (L, K, T, T)
    maps = maps if layers is None else maps[list(layers)]
    explore_attention(enlarged(image), maps, model.cfg.grid, alt, model.prefix_len)


def as_pretrained(model):
    """What `weights.pretrained` says of the pictures that its models take, as a function."""
    preset = getattr(model, "preprocess", None)
    if preset is None:
        raise ValueError("normalise is not given: with data.load(...) it is data.normalise")

    def normalise(images):
        mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in statistics)
        return (images / 255 - mean) / std

    statistics = preset.mean, preset.std
    return normalise


def enlarged(image):
    """A picture (C, H, W) as (H, W, C), each pixel a square, at least 256 pixels wide or high."""
    finer = -(-LEAST // max(image.shape[1:]))
    image = image.repeat_interleave(finer, dim=1).repeat_interleave(finer, dim=2)
    return image.permute(1, 2, 0)


def attention_maps(image, maps, grid, token=0, prefix_len=1):
    """Where one token looks, a row of maps for each layer and a map for each head: a Figure.

    image  (C, H, W) uint8 or 0..1, shown on the left
    maps   (L, K, T, T) of this picture; each map has its own scale, from zero to its largest weight
    token  which token looks; 0 is the class token where there is one
    """
    L, K = maps.shape[:2]
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(1.2 * (K + 2) + 0.4, 1.3 * L), layout="constrained")
        axes = drawing.subplot_mosaic(
            [["picture", "picture", *(f"{i} {k}" for k in range(K))] for i in range(L)]
        )
        pixels = to_numpy(image.permute(1, 2, 0).squeeze(-1))
        top = 255 if image.dtype == torch.uint8 else 1
        axes["picture"].imshow(pixels, cmap="gray", vmin=0, vmax=top, interpolation="nearest")
        bare(axes["picture"])
        heat = to_numpy(maps[:, :, token, prefix_len:].unflatten(-1, tuple(grid)))  # (L, K, h, w)
        for layer in range(L):
            for head in range(K):
                place, values = axes[f"{layer} {head}"], heat[layer, head]
                place.imshow(values, cmap="viridis", vmin=0, interpolation="nearest")
                bare(place)
                if layer == 0:
                    place.set_title(f"head {head}", fontsize=9)
            axes[f"{layer} 0"].set_ylabel(f"layer {layer}", fontsize=9)
    return drawing


def head_distances(series, everywhere, label="distance in pixels"):
    """How far each head looks, by layer, one dot a head: a Figure.

    series      maps a title to its distances (L, K), each in a plot of its own
    everywhere  maps the same titles to the distance of a head that looks at all patches alike
    """
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(2.7 * len(series) + 0.6, 3), layout="constrained")
        plots = drawing.subplots(1, len(series), sharey=True, squeeze=False)[0]
        for axes, (title, distances) in zip(plots, series.items(), strict=True):
            for layer, row in enumerate(distances.tolist()):
                axes.plot([layer] * len(row), row, "o", color=COLOURS[0], alpha=0.8)
            axes.axhline(everywhere[title], color="black", linestyle="--", linewidth=1)
            axes.set(title=title, xlabel="layer", xticks=range(len(distances)))
            axes.set_xlim(-0.5, len(distances) - 0.5)
        plots[0].set_ylabel(label)
        plots[0].set_ylim(bottom=0)
    return drawing
