"""Figures of what a model does to pictures: where it looks, what it confuses."""

import matplotlib
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from vitcourse.show.figures import STYLE, to_numpy


def attention_overlay(image, heat, title=""):
    """A picture (C, H, W) in 0..1, and beside it with a heat map (h, w) over it: a Figure."""
    pixels = to_numpy(image.expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1))
    heat = heat - heat.min()
    heat = heat / heat.max().clamp(min=1e-9)
    height, width = image.shape[-2:]
    finer = -(-256 // max(height, width))  # a small picture keeps its pixels, its heat is smooth
    size = (height * finer, width * finer)
    heat = F.interpolate(heat[None, None].float(), size, mode="bilinear")[0, 0]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.imshow(pixels)
        right.imshow(pixels)
        place = (-0.5, width - 0.5, height - 0.5, -0.5)
        right.imshow(to_numpy(heat), cmap="inferno", alpha=0.55, extent=place)
        left.set_title(title)
        right.set_title("where the class token looks")
        for axes in (left, right):
            axes.set_axis_off()
    return figure


def confusion_matrix(confusion, classes):
    """How often each class (row) was taken for each (column), (classes, classes): a Figure."""
    share = confusion.float() / confusion.sum(dim=1, keepdim=True).clamp(min=1)
    side = max(4.0, 0.45 * len(classes) + 1.5)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.subplots()
        axes.imshow(to_numpy(share.sqrt()), cmap="Blues", vmin=0, vmax=1)
        for row in range(len(classes)) if len(classes) <= 30 else ():
            for column in torch.nonzero(confusion[row]).flatten().tolist():
                colour = "white" if share[row, column] > 0.3 else "black"
                count = str(confusion[row, column].item())
                axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="what the model said", ylabel="what it is")
    return figure
