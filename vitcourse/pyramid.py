"""The pyramid: stages of a tokenizer and blocks over a map that shrinks. Shapes as in vit.py.

A ViT keeps one width and one grid. A pyramid begins with many narrow tokens and ends with few wide
ones, and gives what detectors and segmenters need: a map of every stage.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul

import torch
from torch import nn

from vitcourse.config import Config, require_count
from vitcourse.parts import split
from vitcourse.vit import (
    Attention,
    Block,
    ClassHead,
    LayerNorm,
    LearnedPosition,
    Mlp,
    PatchEmbed,
    ViT,
    init_weights,
    truncated_normal_,
)

PER_STAGE = ("dims", "depths", "heads", "patches", "mlp_ratios")
SHARED = ("channels", "classes", "drop", "attn_drop", "drop_path")


@dataclass(frozen=True)
class PyramidConfig:
    """The sizes of a pyramid, one number a stage. `patches`: by how much each shrinks its map."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    patches: tuple[int, ...]
    mlp_ratios: tuple[float, ...]
    image: int | tuple[int, int] = 224
    channels: int = 3
    classes: int = 1000
    drop: float = 0.0
    attn_drop: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self):
        for name in PER_STAGE:
            if not isinstance(getattr(self, name), (tuple, list)):
                raise ValueError(f"{name} is {getattr(self, name)!r}: give one number a stage")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        lengths = {name: len(getattr(self, name)) for name in PER_STAGE}
        if len(set(lengths.values())) > 1 or not self.dims:
            has = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"each stage needs one number of each, these are: {has}")
        for patch in self.patches:
            require_count("patches", patch)
        stages = [self.stage(s) for s in range(len(self.dims))]  # refuses what a ViT refuses
        object.__setattr__(self, "image", stages[0].image)

    def stage(self, s):
        """The sizes of the blocks of stage s, as a ViT would have them. Here a patch is a token."""
        sizes = self.dims[s], self.depths[s], self.heads[s], 1, self.image
        shared = {name: getattr(self, name) for name in SHARED}
        return Config(*sizes, mlp_ratio=self.mlp_ratios[s], **shared)


class Prefix(nn.Module):
    """Where prefix tokens enter: whatever stood there before, they stand there now (B, R, D)."""

    def __init__(self, dim, prefix_len):
        super().__init__()
        prefix = torch.empty(1, prefix_len, dim)
        if prefix_len:
            self.prefix = nn.Parameter(truncated_normal_(prefix))
        else:  # nothing to learn, to save or to load
            self.register_buffer("prefix", prefix, persistent=False)

    def forward(self, before):
        return self.prefix.expand(len(before), -1, -1)


class Stage(nn.Module):
    """One level: map (B, C, H, W) and prefix tokens of the level before -> x (B, T, D), grid."""

    def __init__(self, tokenizer, carry, position, drop, blocks):
        super().__init__()
        self.patch_embed, self.carry, self.position = tokenizer, carry, position
        self.drop, self.blocks = nn.Dropout(drop), nn.ModuleList(blocks)

    def forward(self, map, prefix):
        x, grid = self.patch_embed(map)  # x is (B, N, D)
        x = torch.cat([self.carry(prefix), x], dim=1)  # (B, T, D)
        x = self.drop(self.position(x, grid))  # (B, T, D)
        for block in self.blocks:
            x = block(x, grid)  # (B, T, D)
        return x, grid


class Pyramid(nn.Module):
    """Images (B, C, H, W) -> logits (B, classes). A variant replaces parts, as with the ViT.

    `Tokenizer` reads the image; `Downsample`, a tokenizer too, reads the map of the stage before.
    Prefix tokens enter at the stage `entry`, and each stage after it carries them by a Linear.
    """

    Tokenizer, Downsample, Position = PatchEmbed, PatchEmbed, LearnedPosition
    Attention, Mlp, Block, Head = Attention, Mlp, Block, ClassHead
    entry = 0
    variant = classmethod(ViT.variant.__func__)

    def __init__(self, cfg):
        super().__init__()
        self.cfg, self.widths, self.prefix_len = cfg, cfg.dims, self.Head.prefix_len
        self.strides = tuple(accumulate(cfg.patches, mul))
        if not 0 <= self.entry < len(cfg.dims):
            raise ValueError(f"entry is {self.entry}: the stages are 0 to {len(cfg.dims) - 1}")
        self.stages, grid = nn.ModuleList(), cfg.image
        for s, (before, dim) in enumerate(pairwise((cfg.channels, *cfg.dims))):
            tokenizer = (self.Downsample if s else self.Tokenizer)(before, dim, cfg.patches[s])
            grid = grid_from(tokenizer, before, grid)
            carry = Prefix(dim, self.prefix_len if s == self.entry else 0)
            if self.prefix_len and s > self.entry:
                carry = nn.Linear(before, dim)
            blocks = [self.block(s, i) for i in range(cfg.depths[s])]
            self.stages.append(Stage(tokenizer, carry, self.position(s, grid), cfg.drop, blocks))
        self.norm = LayerNorm(cfg.dims[-1])
        self.head = self.Head(cfg.stage(-1))
        self.apply(init_weights)

    def position(self, s, grid):
        """Make the positions of stage s."""
        return self.Position(self.cfg.dims[s], grid, self.prefix_len if s >= self.entry else 0)

    def attention(self, s, i):
        """Make the attention of block i of stage s."""
        cfg = self.cfg
        return self.Attention(cfg.dims[s], cfg.heads[s], cfg.drop, cfg.attn_drop)

    def block(self, s, i):
        """Make block i of stage s. Stochastic depth rises from the very first to the very last."""
        cfg, depths = self.cfg.stage(s), self.cfg.depths
        mlp = self.Mlp(cfg.dim, cfg.hidden, cfg.drop)
        rate = cfg.drop_path * (sum(depths[:s]) + i) / max(sum(depths) - 1, 1)
        return self.Block(cfg.dim, self.attention(s, i), mlp, rate)

    def outputs(self, images):
        """What leaves each stage: a list of x (B, T, D), grid (h, w)."""
        map, prefix, found = images, images.new_empty(len(images), 0, 0), []
        for stage in self.stages:
            x, grid = stage(map, prefix)
            prefix, map = split(x, grid)
            found.append((x, grid))
        return found

    def features(self, images):
        """The map (B, D, h, w) of every stage, as wide as `widths`, `strides` pixels a place."""
        return [split(x, grid)[1] for x, grid in self.outputs(images)]

    def encode(self, images):
        """Images (B, C, H, W) -> what the head reads: x (B, T, D), grid of the last stage."""
        x, grid = self.outputs(images)[-1]
        return self.norm(x), grid

    def forward(self, images):
        x, grid = self.encode(images)
        return self.head(x, grid)  # (B, classes)


@torch.no_grad()
def grid_from(tokenizer, channels, size):
    """The grid (h, w) that a tokenizer makes of a map of this size. It is tried."""
    training = tokenizer.training
    _, grid = tokenizer.eval()(torch.zeros(1, channels, *size))
    tokenizer.train(training)
    return grid
