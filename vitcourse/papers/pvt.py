"""PVT, faithful to the published model: a pyramid whose large maps attend to small copies.

Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions,
Wang et al. 2021, https://arxiv.org/abs/2102.12122

The question: detectors and segmenters want maps of 4, 8, 16 and 32 pixels a place; can a ViT give
them? At 4 pixels an image of 224 has 3,136 tokens, and attention grows with their square. The
change: four stages, and keys and values from a smaller map. A convolution of RxR with stride R,
and a norm, make it, so that attention costs R^2 times less. Each stage has a table of positions.
The class token enters at the last stage.

The authors' norms of patches and of the small map have eps 1e-5, those of blocks 1e-6. The port in
transformers has one eps for all. Images of another size get their positions by the ViT's bicubic
resizing; the authors' code does so bilinearly.
"""

import re

import torch
from torch import nn

from vitcourse.papers import Paper, Published
from vitcourse.parts import join, split
from vitcourse.pyramid import Pyramid, PyramidConfig
from vitcourse.vit import Attention, PatchEmbed
from vitcourse.weights import rename


class NormedPatchEmbed(PatchEmbed):
    """Patches, projected and normalised: (B, C, H, W) -> x (B, N, D), grid (h, w)."""

    def __init__(self, channels, dim, patch):
        super().__init__(channels, dim, patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images):
        x, grid = super().forward(images)
        return self.norm(x), grid


class ReducedAttention(Attention):
    """Spatial-reduction attention: all T tokens query S others, made of windows of RxR tokens.

    Rows and columns that fill no window are not read. Prefix tokens pass the convolution by.
    """

    def __init__(self, dim, heads, drop=0.0, attn_drop=0.0, reduction=1):
        super().__init__(dim, heads, drop, attn_drop)
        self.reduction = reduction
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, kernel_size=reduction, stride=reduction)
            self.norm = nn.LayerNorm(dim)

    def build(self, dim):
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def project(self, x, grid):
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, K, T, d)
        if self.reduction > 1:
            x = self.reduced(x, grid)  # (B, S, D)
        kv = self.kv(x).unflatten(-1, (2, self.heads, -1))  # (B, S, 2, K, d)
        k, v = kv.permute(2, 0, 3, 1, 4)  # each (B, K, S, d)
        return q, k, v

    def reduced(self, x, grid):
        """What is attended to: x (B, T, D) -> (B, S, D)."""
        (h, w), R = grid, self.reduction
        if min(h, w) < R:
            raise ValueError(f"a map of {h}x{w} tokens holds no window of {R}x{R}")
        prefix, map = split(x, grid)
        return self.norm(join(prefix, self.sr(map)))  # (B, S, D)


def from_official(state, model):
    """The authors' names, which count stages from one."""
    rules = [(r"^cls_token$", f"stages.{model.entry}.carry.prefix")]
    for s in range(len(model.stages)):
        rules += [
            (rf"^patch_embed{s + 1}\.", f"stages.{s}.patch_embed."),
            (rf"^pos_embed{s + 1}$", f"stages.{s}.position.table"),
            (rf"^block{s + 1}\.", f"stages.{s}.blocks."),
        ]
    return rename(rules)(state, model)


def from_transformers(state, model):
    """The port's names, and its separate layers for keys and values."""
    patches, block = r"^patch_embeddings\.(\d+)\.", r"^block\.(\d+)\.(\d+)\."
    rules = [
        (patches + r"projection\.", r"stages.\1.patch_embed.proj."),
        (patches + r"layer_norm\.", r"stages.\1.patch_embed.norm."),
        (patches + r"position_embeddings$", r"stages.\1.position.table"),
        (patches + r"cls_token$", r"stages.\1.carry.prefix"),
        (block + r"layer_norm_([12])\.", r"stages.\1.blocks.\2.norm\3."),
        (block + r"attention\.self\.query\.", r"stages.\1.blocks.\2.attn.q."),
        (block + r"attention\.self\.(key|value)\.", r"stages.\1.blocks.\2.attn.\3."),
        (block + r"attention\.self\.sequence_reduction\.", r"stages.\1.blocks.\2.attn.sr."),
        (block + r"attention\.self\.layer_norm\.", r"stages.\1.blocks.\2.attn.norm."),
        (block + r"attention\.output\.dense\.", r"stages.\1.blocks.\2.attn.proj."),
        (block + r"mlp\.dense([12])\.", r"stages.\1.blocks.\2.mlp.fc\3."),
        (r"^layer_norm\.", "norm."),
        (r"^classifier\.", "head."),
    ]
    state = {re.sub(r"^(pvt\.)?encoder\.", "", name): tensor for name, tensor in state.items()}
    state = rename(rules)(state, model)
    for name in [name for name in state if ".attn.key." in name]:
        key, value = state.pop(name), state.pop(name.replace("key", "value"))
        state[name.replace("key", "kv")] = torch.cat([key, value])
    return state


class PVT(Pyramid):
    """A pyramid whose stages reduce their keys and values, the first most."""

    Tokenizer, Downsample, Attention = NormedPatchEmbed, NormedPatchEmbed, ReducedAttention
    reductions = (8, 4, 2, 1)  # R of each stage
    layouts = {
        "PVT": ("pos_embed1", from_official),
        "transformers": ("patch_embeddings.0.projection.weight", from_transformers),
    }

    def __init__(self, cfg):
        if len(self.reductions) != len(cfg.dims):
            raise ValueError(f"reductions is {self.reductions}: give one for each stage")
        super().__init__(cfg)

    @property
    def entry(self):
        """The class token enters at the last stage."""
        return len(self.cfg.dims) - 1

    def attention(self, s, i):
        cfg = self.cfg
        common = cfg.dims[s], cfg.heads[s], cfg.drop, cfg.attn_drop
        return self.Attention(*common, self.reductions[s])


def sizes(depths):
    """PVT-Tiny and -Small differ in depth alone."""
    return PyramidConfig(
        dims=(64, 128, 320, 512),
        depths=depths,
        heads=(1, 2, 5, 8),
        patches=(4, 2, 2, 2),
        mlp_ratios=(8.0, 8.0, 4.0, 4.0),
    )


TITLE = "Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions"

PAPER = Paper(
    name="PVT",
    title=TITLE,
    authors="Wang et al.",
    year=2021,
    arxiv="2102.12122",
    lesson="16",
    models=(PVT,),
    configs={
        "pvt_tiny": Published(PVT, sizes((2, 2, 2, 2)), "13.2M"),
        "pvt_small": Published(PVT, sizes((3, 4, 6, 3)), "24.5M"),
    },
)
