"""Figures for lessons: drawn by plots.py, figures.py and curves.py, shown by `show.figure`."""

from vitcourse.show.curves import loss_curves
from vitcourse.show.figures import figure, patch_grid
from vitcourse.show.pictures import attention_overlay, confusion_matrix
from vitcourse.show.plots import bars, heatmaps, images, lines
from vitcourse.show.recorded import origin, recorded

__all__ = ["attention_overlay", "bars", "confusion_matrix", "figure", "heatmaps", "images"]
__all__ += ["lines", "loss_curves", "origin", "patch_grid", "recorded"]
