"""Plain plots that several lessons need: pictures in a row, heat maps, lines, bars."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitcourse.show.figures import STYLE, to_numpy


def images(pictures, titles=(), columns=8, size=1.3):
    """Pictures side by side, each (H, W), (C, H, W) or (H, W, C), uint8 or 0..1: a Figure."""
    drawing, axes = tiles(len(pictures), columns, size, titles)
    for place, image in zip(axes, pictures, strict=True):
        pixels = to_numpy(image)
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
            pixels = pixels.transpose(1, 2, 0)
        if pixels.dtype != np.uint8:
            pixels = pixels.clip(0, 1)
        top = 255 if pixels.dtype == np.uint8 else 1
        place.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=top, interpolation="nearest")
        bare(place)
    return drawing


def heatmaps(maps, titles=(), columns=8, size=1.6, limits=None, numbers=False):
    """Matrices (h, w) as heat maps on one scale: a Figure.

    Maps that have values below zero get two colours and a scale with zero in the middle. `limits`
    sets the scale; `numbers` writes every value into its cell, for small matrices.
    """
    drawing, axes = tiles(len(maps), columns, size, titles)
    values = [to_numpy(map).astype(float) for map in maps]
    low = min(map.min() for map in values)
    high = max(map.max() for map in values)
    colours = "viridis"
    if low < 0:
        colours, high = "RdBu_r", max(-low, high)
        low = -high
    low, high = limits or (low, high)
    for place, map in zip(axes, values, strict=True):
        shown = place.imshow(map, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        bare(place)
        if numbers:
            write_numbers(place, map, shown)
    drawing.colorbar(shown, ax=axes, shrink=0.8, aspect=15)
    return drawing


def bare(axes):
    """Take away what is not the picture."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def tiles(count, columns, size, titles):
    """A Figure with `count` square axes in rows of `columns`, each with its title."""
    if count == 0:
        raise ValueError("there is nothing to draw: the list is empty")
    if titles and len(titles) != count:
        raise ValueError(f"{count} pictures have {len(titles)} titles: give one for each, or none")
    columns = min(columns, count)
    rows = -(-count // columns)
    with matplotlib.rc_context(STYLE):
        height = size + (0.25 if titles else 0.05)
        drawing = Figure(figsize=(columns * size, rows * height), layout="constrained")
        axes = drawing.subplots(rows, columns, squeeze=False).flatten().tolist()
        for place, title in zip(axes, titles, strict=False):
            place.set_title(title, fontsize=9)
        for place in axes[count:]:
            place.set_axis_off()
    return drawing, axes[:count]


def write_numbers(axes, map, shown):
    """Write the values of a heat map into its cells, dark on light and light on dark."""
    for row, column in np.ndindex(map.shape):
        red, green, blue, _ = shown.cmap(shown.norm(map[row, column]))
        dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
        text = f"{map[row, column]:.2f}".rstrip("0").rstrip(".")
        colour = "white" if dark else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)


def lines(series, x, y, log=""):
    """Lines in one plot: `series` maps a name to its values, or to a pair (xs, values): a Figure.

    `x` and `y` are the labels; `log` names the axes with a logarithmic scale: "x", "y" or "xy".
    """
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(6, 3.2), layout="constrained")
        axes = drawing.subplots()
        for name, values in series.items():
            xs, values = values if isinstance(values, tuple) else (range(len(values)), values)
            axes.plot(list(xs), [float(v) for v in values], label=name, marker=".", markersize=5)
        axes.set(xlabel=x, ylabel=y)
        if all(float(place).is_integer() for line in axes.lines for place in line.get_xdata()):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if "x" in log:
            axes.set_xscale("log")
            if len(set(xs)) < 8:
                axes.set_xticks(list(xs), [f"{x:g}" for x in xs], minor=False)
                axes.minorticks_off()
        if "y" in log:
            axes.set_yscale("log")
        if len(series) > 1:
            axes.legend(frameon=False)
    return drawing


def bars(values, label, spread=None, mark=None, limit=None):
    """Horizontal bars: `values` maps a name to its height; `spread` to its error: a Figure.

    `mark` draws a dashed line, such as chance, across all bars; the scale ends at `limit`.
    """
    names = list(values)
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(6, 0.5 + 0.33 * len(names)), layout="constrained")
        axes = drawing.subplots()
        errors = [spread[name] for name in names] if spread else None
        axes.barh(names, [float(values[name]) for name in names], xerr=errors, height=0.65)
        axes.invert_yaxis()
        axes.set(xlabel=label, xlim=(0, limit))
        if mark is not None:
            axes.axvline(mark, color="black", linestyle="--", linewidth=1)
    return drawing
