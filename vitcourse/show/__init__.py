"""Figures for lessons: see figures.py."""

from vitcourse.show.figures import figure, patch_grid

__all__ = ["figure", "patch_grid"]
