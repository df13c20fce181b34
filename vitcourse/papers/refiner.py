"""Refiner, faithful to the published model: attention maps are refined by convolutions.

Refiner: Refining Self-attention for Vision Transformers, Zhou et al. 2021,
https://arxiv.org/abs/2106.03714

The question: can the attention maps of a deep ViT be made better, at little cost? The change: a map
is treated as a picture with one channel for each head. It is expanded to more heads, each is
convolved with a 3x3 kernel of its own, and the result is reduced to the old number of heads.

The paper refines the map of every block. In the published models the blocks come in pairs: the
first makes a map, to which it adds that of the pair before; the second makes only values, and
weighs them with the refined map of the first. `Refiner.variant(Attention=RefinedAttention,
Second=RefinedAttention)` is the paper's form. Stem, heads and training are those of LV-ViT.
"""

import torch.nn.functional as F
from torch import nn

from vitcourse.config import Config
from vitcourse.papers import Paper, Published
from vitcourse.papers.lv_vit import ConvStem, LVViT, from_tlt
from vitcourse.parts import LayerScale
from vitcourse.vit import Attention, Block, Mlp
from vitcourse.weights import rename


class Refine(nn.Module):
    """Expand, look at neighbouring pairs of tokens, reduce: maps (B, K, Tq, Tk), same shape."""

    ratio = 3  # of the M heads between to the K heads

    def __init__(self, heads):
        super().__init__()
        more = self.ratio * heads
        self.expand = nn.Conv2d(heads, more, kernel_size=1, bias=False)
        self.local = nn.Conv2d(more, more, kernel_size=3, padding=1, groups=more, bias=False)
        self.reduce = nn.Conv2d(more, heads, kernel_size=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(more), nn.BatchNorm2d(more)
        self.norm3, self.norm4 = nn.BatchNorm2d(heads), nn.BatchNorm2d(heads)

    def forward(self, maps):
        more = F.relu6(self.norm1(self.expand(maps)))  # (B, M, Tq, Tk)
        more = F.relu6(self.norm2(self.local(more)))  # (B, M, Tq, Tk)
        return self.norm4(maps + self.norm3(self.reduce(more)))  # (B, K, Tq, Tk)


class PassingAttention(Attention):
    """Attention that adds to its own maps those of a block before, and passes them on.

    x (B, T, D), grid, earlier (B, K, T, T) or None -> x (B, T, D), maps (B, K, T, T).
    """

    def forward(self, x, grid=None, earlier=None):
        q, k, v = self.project(x, grid)  # each (B, K, T, d)
        maps = self.maps(q, k, earlier)  # (B, K, T, T)
        return self.average(maps, v), maps

    def maps(self, q, k, earlier):
        """The map of every head, and a little of the earlier one: (B, K, T, T)."""
        maps = self.weights(q, k, None)
        if earlier is not None:
            maps = maps + self.scale * earlier
        return F.dropout(maps, self.attn_drop, self.training)

    def average(self, maps, v):
        """Add up the values by weight: maps (B, K, T, T), v (B, K, T, d) -> x (B, T, D)."""
        if self.recorder is not None:
            self.recorder(maps)
        x = (maps @ v).transpose(1, 2).flatten(2)  # (B, T, D)
        return self.drop(self.proj(x))


class RefinedAttention(PassingAttention):
    """Attention whose own maps are refined: the paper's form."""

    def build(self, dim):
        super().build(dim)
        self.refine = Refine(self.heads)

    def maps(self, q, k, earlier):
        return self.refine(super().maps(q, k, earlier))  # rows need not sum to one


class SharedAttention(RefinedAttention):
    """Values only, weighed with the refined maps of the block before, which are passed on as is."""

    def build(self, dim):
        super().build(dim)
        self.qkv = nn.Linear(dim, dim)

    def forward(self, x, grid=None, earlier=None):
        v = self.qkv(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, K, T, d)
        return self.average(self.scale * self.refine(earlier), v), earlier


class ScaledMlp(Mlp):
    """An MLP whose result is multiplied by a learned number for each channel: (B, T, D)."""

    def __init__(self, dim, hidden, drop=0.0):
        super().__init__(dim, hidden, drop)
        self.scale = LayerScale(dim)

    def forward(self, x, grid=None):
        return self.scale(super().forward(x, grid))


class PassingBlock(Block):
    """A block that hands on maps, and whose branches read half of their input.

    x (B, T, D), grid, earlier (B, K, T, T) or None -> x (B, T, D), maps (B, K, T, T).
    """

    def forward(self, x, grid=None, earlier=None):
        branch, maps = self.attn(self.norm1(x / 2), grid, earlier)
        x = x + self.drop_path(self.ls1(branch))  # (B, T, D)
        x = x + self.drop_path(self.ls2(self.mlp(self.norm2(x / 2), grid)))  # (B, T, D)
        return x, maps


class GrowingStem(ConvStem):
    """The stem of Refiner."""

    widths = 32, 64, 128


def from_official(state, model):
    """The names in the authors' files."""
    block = r"^(blocks\.\d+\.attn)\."
    rules = [
        (block + r"DLA\.conv_exp\.", r"\1.refine.expand."),
        (block + r"DLA\.depth_sep_conv\.", r"\1.refine.local."),
        (block + r"DLA\.conv_pro\.", r"\1.refine.reduce."),
        (block + r"DLA\.bn(\d)\.", r"\1.refine.norm\2."),
        (block + r"adapt_bn\.", r"\1.refine.norm4."),
        (r"\.scale_channel$", ".scale.gamma"),
    ]
    return from_tlt(rename(rules)(state, model), model)


class Refiner(LVViT):
    """An LV-ViT whose blocks pass their attention maps on, and refine them."""

    Tokenizer, Mlp, Block = GrowingStem, ScaledMlp, PassingBlock
    Attention, Second = PassingAttention, SharedAttention  # of blocks 0, 2, ... and of 1, 3, ...
    divisor, eps = 0.5, 1e-6
    layouts = {"official": ("patch_embed.conv1.weight", from_official)}

    def block(self, i):
        block, cfg = super().block(i), self.cfg
        if i % 2:
            block.attn = self.Second(cfg.dim, cfg.heads, cfg.drop, cfg.attn_drop)
        return block

    def through(self, x, grid):
        maps = None
        for block in self.blocks:
            x, maps = block(x, grid, maps)
        return x


def sizes(depth, dim, heads):
    """Refiner-ViT's sizes."""
    return Config(dim=dim, depth=depth, heads=heads, mlp_ratio=3)


PAPER = Paper(
    name="Refiner",
    title="Refiner: Refining Self-attention for Vision Transformers",
    authors="Zhou et al.",
    year=2021,
    arxiv="2106.03714",
    lesson="15",
    models=(Refiner,),
    configs={
        "refiner_vit_s": Published(Refiner, sizes(16, 384, 12), "25M"),
        "refiner_vit_m": Published(Refiner, sizes(32, 420, 12), "55M"),
        "refiner_vit_l": Published(Refiner, sizes(32, 512, 16), "81M"),
    },
)
