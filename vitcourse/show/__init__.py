"""Figures for lessons, shown by `show.figure`; explorers to be touched; recorded results."""

from vitcourse.show.curves import loss_curves
from vitcourse.show.explorers import explore_attention, explore_patches, explore_positions
from vitcourse.show.figures import figure, patch_grid
from vitcourse.show.inside import attention, attention_maps, head_distances
from vitcourse.show.pictures import attention_overlay, confusion_matrix
from vitcourse.show.plots import bars, heatmaps, images, lines
from vitcourse.show.recorded import origin, pairs, recorded, recorded_on_gpu

__all__ = ["attention", "attention_maps", "attention_overlay", "bars", "confusion_matrix"]
__all__ += ["explore_attention", "explore_patches", "explore_positions", "figure"]
__all__ += ["head_distances", "heatmaps", "images", "lines", "loss_curves", "origin"]
__all__ += ["pairs", "patch_grid", "recorded", "recorded_on_gpu"]
