"""PiT, faithful to the published model: a ViT whose map shrinks, twice, by a strided convolution.

Rethinking Spatial Dimensions of Vision Transformers, Heo et al. 2021,
https://arxiv.org/abs/2103.16302

The question: CNNs make the map small and the channels many on the way up. Does that help a ViT?
The change: three stages of blocks. Between two stages a convolution halves the map and doubles the
width, each channel by itself; the class token, which has no place on the map, passes a Linear. The
first patches overlap by half. Only they get positions, the class token gets none.

The distilled models have a second token and head, as DeiT, and answer with the mean of both.
"""

import re

import torch
from torch import nn

from vitcourse.papers import Paper, Published
from vitcourse.papers.deit import DistilledDeiT, TwoHeads
from vitcourse.parts import NoPosition
from vitcourse.pyramid import Pyramid, PyramidConfig
from vitcourse.vit import LearnedPosition
from vitcourse.weights import rename


class OverlappingPatches(nn.Module):
    """Patches twice as wide as the step from one to the next: (B, C, H, W) -> x (B, N, D), grid."""

    def __init__(self, channels, dim, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=2 * patch, stride=patch)

    def forward(self, images):
        return sequence(self.proj(images))


class Pooling(nn.Module):
    """Shrink the map, each channel by itself: map (B, C, H, W) -> x (B, N, D), grid.

    Windows overlap. Where D = 2C, channel c makes the new channels 2c and 2c+1.
    """

    def __init__(self, channels, dim, patch):
        super().__init__()
        size = dict(kernel_size=patch + 1, stride=patch, padding=patch // 2)
        self.proj = nn.Conv2d(channels, dim, **size, groups=channels)

    def forward(self, map):
        return sequence(self.proj(map))


def sequence(map):
    """The tokens of a map, row by row: (B, D, h, w) -> x (B, N, D), grid."""
    return map.flatten(2).transpose(1, 2), tuple(map.shape[-2:])


class MapPosition(LearnedPosition):
    """Positions for the map alone: x (B, T, D), grid -> x."""

    def __init__(self, dim, grid, prefix_len):
        super().__init__(dim, grid, prefix_len=0)

    def forward(self, x, grid):
        places = grid[0] * grid[1]
        return torch.cat([x[:, :-places], super().forward(x[:, -places:], grid)], dim=1)


def from_published(state, model):
    """timm's names, and the authors', whose pools stand beside the stages and not in them."""
    state = {
        re.sub(r"^pools\.(\d+)\.", lambda m: f"transformers.{int(m[1]) + 1}.pool.", name): tensor
        for name, tensor in state.items()
    }
    state["pos_embed"] = state["pos_embed"].flatten(2).transpose(1, 2)  # they store (1, D, h, w)
    rules = [
        (r"^patch_embed\.conv\.", "stages.0.patch_embed.proj."),
        (r"^pos_embed$", "stages.0.position.table"),
        (r"^cls_token$", "stages.0.carry.prefix"),
        (r"^transformers\.(\d+)\.pool\.conv\.", r"stages.\1.patch_embed.proj."),
        (r"^transformers\.(\d+)\.pool\.fc\.", r"stages.\1.carry."),
        (r"^transformers\.", "stages."),
        (r"^head_dist\.", "head.dist."),
    ]
    return rename(rules)(state, model)


class PiT(Pyramid):
    """A ViT in three stages, whose class token goes through all of them."""

    Tokenizer, Downsample, Position = OverlappingPatches, Pooling, MapPosition
    layouts = {"PiT": ("patch_embed.conv.weight", from_published)}

    def position(self, s, grid):
        return NoPosition(self.widths[s], grid, self.prefix_len) if s else super().position(s, grid)


class DistilledPiT(PiT):
    """A PiT with a distillation token, to be trained as DeiT."""

    Head = TwoHeads
    two_logits = DistilledDeiT.two_logits


def sizes(width, heads, depths=(2, 6, 4), patch=8):
    """Each stage has twice the heads of the one before; all heads are as wide."""
    return PyramidConfig(
        dims=tuple(width * k for k in heads),
        depths=depths,
        heads=heads,
        patches=(patch, 2, 2),
        mlp_ratios=(4.0, 4.0, 4.0),
    )


TI = sizes(32, (2, 4, 8))

PAPER = Paper(
    name="PiT",
    title="Rethinking Spatial Dimensions of Vision Transformers",
    authors="Heo et al.",
    year=2021,
    arxiv="2103.16302",
    lesson="14",
    models=(PiT,),
    configs={
        "pit_ti": Published(PiT, TI, "4.9M"),
        "pit_xs": Published(PiT, sizes(48, (2, 4, 8)), "10.6M"),
        "pit_s": Published(PiT, sizes(48, (3, 6, 12)), "23.5M"),
        "pit_b": Published(PiT, sizes(64, (4, 8, 16), depths=(3, 6, 4), patch=7), "73.8M"),
        "pit_ti_distilled": Published(DistilledPiT, TI),
    },
)
