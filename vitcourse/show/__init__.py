"""Figures for lessons: see figures.py."""

from vitcourse.show.curves import loss_curves
from vitcourse.show.figures import figure, patch_grid

__all__ = ["figure", "loss_curves", "patch_grid"]
