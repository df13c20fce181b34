"""Figures for lessons, shown by `show.figure`; explorers to be touched; recorded results."""

from vitcourse.show.curves import loss_curves
from vitcourse.show.explorers import explore_attention, explore_patches, explore_positions
from vitcourse.show.figures import figure, patch_grid
from vitcourse.show.pictures import attention_overlay, confusion_matrix
from vitcourse.show.plots import bars, heatmaps, images, lines
from vitcourse.show.recorded import origin, recorded

__all__ = ["attention_overlay", "bars", "confusion_matrix", "explore_attention"]
__all__ += ["explore_patches", "explore_positions", "figure", "heatmaps", "images", "lines"]
__all__ += ["loss_curves", "origin", "patch_grid", "recorded"]
