"""CaiT, faithful to the published model: branches start small, the class token comes late.

Going deeper with Image Transformers, Touvron et al. 2021, https://arxiv.org/abs/2103.17239

The question: what keeps a ViT of 24 or 36 blocks from learning, and what does the class token do in
it? The changes, each usable by itself:

    LayerScale       each branch is multiplied, channel by channel, by learned numbers near zero
    TalkingHeads     heads are mixed before and after the softmax, as in arXiv 2003.02436
    ClassAttention   the patches run through all blocks alone; then the class token joins them, and
                     two blocks change nothing but the class token

The paper starts LayerScale at 0.1 up to 18 blocks, at 1e-5 up to 24, at 1e-6 beyond. The authors'
code has 1e-5 for XXS36, too. It gives the mixtures biases, and all blocks one rate of stochastic
depth, the class blocks none: so does this file.
"""

import re

import torch
from torch import nn

from vitcourse.config import Config
from vitcourse.papers import Paper, Published
from vitcourse.parts import LayerScale
from vitcourse.vit import Attention, Block, LearnedPosition, ViT, init_weights
from vitcourse.weights import from_timm, fuse_qkv


class LayerScaleViT(ViT):
    """A ViT in which each branch passes LayerScale, and all blocks drop paths alike."""

    scale_init = 1e-5

    def scale(self, dim):
        """The layer that a branch passes before it is added."""
        return LayerScale(dim, self.scale_init)

    def block(self, i):
        cfg = self.cfg
        attn = self.Attention(cfg.dim, cfg.heads, cfg.drop, cfg.attn_drop)
        mlp = self.Mlp(cfg.dim, cfg.hidden, cfg.drop)
        return self.Block(cfg.dim, attn, mlp, cfg.drop_path, self.scale)


class TalkingHeads(Attention):
    """Attention whose heads are mixed twice: their scores, and their weights."""

    def build(self, dim):
        super().build(dim)
        self.mix_scores = nn.Linear(self.heads, self.heads)
        self.mix_weights = nn.Linear(self.heads, self.heads)

    def weights(self, q, k, bias):
        scores = q @ k.transpose(-2, -1) * self.scale  # (B, K, T, T)
        if bias is not None:
            scores = scores + bias
        weights = across_heads(self.mix_scores, scores).softmax(dim=-1)  # (B, K, T, T)
        return across_heads(self.mix_weights, weights)  # (B, K, T, T), rows need not sum to one


def across_heads(mix, maps):
    """Apply a Linear to the K numbers that the heads have for a pair of tokens: (B, K, T, T)."""
    return mix(maps.movedim(1, -1)).movedim(-1, 1)


class ClassAttention(Attention):
    """Attention in which the class token alone asks: x (B, T, D) -> x (B, 1, D)."""

    def project(self, x, grid):
        q, k, v = super().project(x, grid)  # each (B, K, T, d)
        return q[:, :, :1], k, v


class ClassBlock(Block):
    """A block that changes the class token only: x (B, T, D), grid -> x (B, T, D)."""

    def forward(self, x, grid=None):
        token, patches = x[:, :1], x[:, 1:]
        token = token + self.drop_path(self.ls1(self.attn(self.norm1(x), grid)))  # (B, 1, D)
        token = token + self.drop_path(self.ls2(self.mlp(self.norm2(token), grid)))  # (B, 1, D)
        return torch.cat([token, patches], dim=1)  # (B, T, D)


class PatchPosition(LearnedPosition):
    """Positions for the patches alone: the class token is not there yet."""

    def __init__(self, dim, grid, prefix_len):
        super().__init__(dim, grid, 0)


NAMES = {
    "blocks_token_only.": "class_blocks.",
    ".attn.q.": ".attn.query.",
    ".attn.k.": ".attn.key.",
    ".attn.v.": ".attn.value.",
    ".proj_l.": ".mix_scores.",
    ".proj_w.": ".mix_weights.",
}


def from_authors(state, model):
    """The names of the authors' code, which timm has kept."""
    pattern = "|".join(map(re.escape, NAMES))
    ours = {re.sub(pattern, lambda m: NAMES[m[0]], name): t for name, t in state.items()}
    return fuse_qkv(from_timm(ours, model))


class CaiT(LayerScaleViT):
    """Patches attend to each other in `depth` blocks, then a class token reads them in two more."""

    Position, Attention = PatchPosition, TalkingHeads
    class_depth = 2
    layouts = {"authors": ("blocks_token_only.0.norm1.weight", from_authors)}

    def __init__(self, cfg):
        super().__init__(cfg)
        self.prefix_len = 0  # tokens before the patches in `blocks`
        self.class_blocks = nn.ModuleList(self.class_block() for _ in range(self.class_depth))
        self.class_blocks.apply(init_weights)

    def class_block(self):
        """Make a block that changes the class token."""
        attn = ClassAttention(self.cfg.dim, self.cfg.heads)
        mlp = self.Mlp(self.cfg.dim, self.cfg.hidden)
        return ClassBlock(self.cfg.dim, attn, mlp, scale=self.scale)

    def encode(self, images):
        x, grid = self.patch_embed(images)
        x = self.drop(self.position(x, grid))  # (B, N, D)
        for block in self.blocks:
            x = block(x, grid)  # (B, N, D)
        prefix = self.prefix.expand(len(x), -1, -1)  # (B, 1, D)
        x = torch.cat([prefix, x], dim=1)  # (B, T, D)
        for block in self.class_blocks:
            x = block(x, grid)  # (B, T, D)
        return self.norm(x), grid


def sizes(dim, depth, image=224):
    """A published CaiT: heads are 48 wide, in all of them."""
    return Config(dim=dim, depth=depth, heads=dim // 48, image=image)


Deeper = CaiT.variant(scale_init=1e-6)

PAPER = Paper(
    name="CaiT",
    title="Going deeper with Image Transformers",
    authors="Touvron et al.",
    year=2021,
    arxiv="2103.17239",
    lesson="15",
    models=(CaiT,),
    configs={
        "cait_xxs24": Published(CaiT, sizes(192, 24), "12.0M"),
        "cait_xxs36": Published(CaiT, sizes(192, 36), "17.3M"),
        "cait_xs24": Published(CaiT, sizes(288, 24, image=384), "27M"),
        "cait_s24": Published(CaiT, sizes(384, 24), "47M"),
        "cait_s36": Published(Deeper, sizes(384, 36, image=384), "68M"),
        "cait_m36": Published(Deeper, sizes(768, 36, image=384), "271M"),
    },
)
