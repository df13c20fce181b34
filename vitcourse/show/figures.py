"""Figures drawn from data. Each carries a text for those who cannot see it."""

import io

import matplotlib
import numpy as np
import torch
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from vitcourse.config import grid_of

# Told apart by all common kinds of colour vision (Okabe and Ito, 2008)
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442"]

DENSITY = 2  # pixels of the PNG for one on the page: sharp on good screens

STYLE = {
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 80,
    "figure.facecolor": "white",
    "font.size": 10,
    "savefig.bbox": "tight",
}


def figure(figure, alt):
    """Show a matplotlib figure in a lesson, as a PNG with the text `alt`.

    The text is what a screen reader says, and what a test of the lesson compares.
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"show.figure takes a matplotlib Figure, not {type(figure).__name__}")
    if not alt.strip():
        raise ValueError("alt is empty: say in a sentence what there is to see")
    shown = picture(figure, alt)
    display(shown.pop("data"), **shown)


def picture(figure, alt):
    """A figure as what IPython's `display` takes: a PNG, and its text for all other purposes."""
    drawn, png = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(drawn, format="png", dpi=DENSITY * STYLE["figure.dpi"])
    image = Image.open(drawn).convert("RGB").quantize(256)  # a third of the size
    image.save(png, format="png", optimize=True)
    width, height = (side // DENSITY for side in image.size)
    return {
        "data": {"image/png": png.getvalue(), "text/plain": alt},
        "metadata": {"image/png": {"alt": alt, "width": width, "height": height}},
        "raw": True,
    }


def to_numpy(values):
    """An array from an array, or from a tensor wherever it lies, with or without a gradient."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def patch_grid(image, patch, gap=4):
    """Draw an image (H, W, C), and beside it the same cut into patches: a matplotlib Figure."""
    image = to_numpy(image)
    height, width, channels = image.shape
    h, w = grid_of((height, width), patch)
    step = patch + gap
    cut = np.full((h * step - gap, w * step - gap, channels), 255, dtype=image.dtype)
    for y in range(h):
        for x in range(w):
            piece = image[y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
            cut[y * step : y * step + patch, x * step : x * step + patch] = piece
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.5 * height / width + 0.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.imshow(image)
        left.set_title(f"{height} x {width} pixels")
        right.imshow(cut)
        right.set_title(f"{h} x {w} = {h * w} patches of {patch} x {patch} pixels")
        for axes in (left, right):
            axes.set_axis_off()
    return figure
