"""T2T-ViT, faithful to the published T2T-ViT_t models: neighbouring tokens are joined, three times.

Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet, Yuan et al. 2021,
https://arxiv.org/abs/2101.11986

The question: a ViT cuts an image into patches that know nothing of their neighbours, and learns
badly from ImageNet alone. Are better tokens the cure? The change: each token is a window of tokens
that overlaps the next window (a soft split), three times in turn, and between two soft splits a
small transformer layer looks at all tokens. The ViT behind it is narrow, with fixed positions.

The models without _t in their name have Performer layers in place of the two transformer layers;
they are left out here. The authors' layer divides its scores by the root of the width that goes in
(147 for the first), where attention would take that of its queries (64): published weights need it.
"""

import math

import torch.nn.functional as F
from torch import nn

from vitcourse.config import Config
from vitcourse.papers import Paper, Published
from vitcourse.papers.cct import SinePosition, UnbiasedAttention
from vitcourse.vit import Attention, Mlp, ViT
from vitcourse.weights import rename


def soft_split(map, kernel, stride, padding):
    """Each window of a map becomes one token: (B, C, H, W) -> x (B, N, C*kernel*kernel), grid."""
    grid = tuple((side + 2 * padding - kernel) // stride + 1 for side in map.shape[-2:])
    return F.unfold(map, kernel, padding=padding, stride=stride).transpose(1, 2), grid


class TokenAttention(Attention):
    """One head that also narrows its tokens: x (B, N, D) -> (B, N, width).

    x cannot be added to what is narrower than x, so the values take its place.
    """

    def __init__(self, dim, width):
        self.width = width
        super().__init__(dim, heads=1)  # scores are divided by the root of dim, see above

    def build(self, dim):
        self.qkv = nn.Linear(dim, 3 * self.width, bias=False)
        self.proj = nn.Linear(self.width, self.width)

    def forward(self, x, grid=None):
        q, k, v = self.project(x, grid)  # each (B, 1, N, width)
        return v[:, 0] + self.proj(self.attend(q, k, v)[:, 0])  # (B, N, width)


class TokenLayer(nn.Module):
    """The layer between two soft splits: x (B, N, D) -> (B, N, width)."""

    def __init__(self, dim, width):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), TokenAttention(dim, width)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, width)

    def forward(self, x):
        x = self.attn(self.norm1(x))  # (B, N, width)
        return x + self.mlp(self.norm2(x))


class TokensToToken(nn.Module):
    """Soft splits with a layer between each two: images (B, C, H, W) -> x (B, N, D), grid."""

    splits = ((7, 4, 2), (3, 2, 1), (3, 2, 1))  # kernel, stride, padding
    width = 64

    def __init__(self, channels, dim, patch):
        super().__init__()
        step = math.prod(stride for _, stride, _ in self.splits)
        if step != patch:
            raise ValueError(f"these soft splits make tokens {step} pixels apart, patch is {patch}")
        self.layers = nn.ModuleList()
        for kernel, _, _ in self.splits[:-1]:
            self.layers.append(TokenLayer(channels * kernel**2, self.width))
            channels = self.width
        self.proj = nn.Linear(channels * self.splits[-1][0] ** 2, dim)

    def forward(self, images):
        map = images
        for layer, split in zip(self.layers, self.splits, strict=False):
            x, grid = soft_split(map, *split)
            map = layer(x).transpose(1, 2).unflatten(2, grid)  # a map again
        x, grid = soft_split(map, *self.splits[-1])
        x = self.proj(x)  # (B, N, D)
        return x, grid


def from_official(state, model):
    """The authors' names. Their fixed positions are in the file, ours are computed."""
    rules = [
        (r"^tokens_to_token\.attention1\.", "patch_embed.layers.0."),
        (r"^tokens_to_token\.attention2\.", "patch_embed.layers.1."),
        (r"^tokens_to_token\.project\.", "patch_embed.proj."),
        (r"^cls_token$", "prefix"),
    ]
    return rename(rules)({n: t for n, t in state.items() if n != "pos_embed"}, model)


class T2TViT(ViT):
    """A ViT whose tokens are made step by step, of windows that overlap."""

    Tokenizer, Position, Attention = TokensToToken, SinePosition, UnbiasedAttention
    layouts = {"official": ("tokens_to_token.project.weight", from_official)}

    def __init__(self, cfg):
        super().__init__(cfg)
        for layer in self.modules():
            if isinstance(layer, nn.LayerNorm):
                layer.eps = 1e-5


PAPER = Paper(
    name="T2T-ViT",
    title="Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet",
    authors="Yuan et al.",
    year=2021,
    arxiv="2101.11986",
    lesson="14",
    models=(T2TViT,),
    configs={
        "t2t_vit_t_14": Published(T2TViT, Config(384, 14, 6, mlp_ratio=3), "21.5M"),
        "t2t_vit_t_19": Published(T2TViT, Config(448, 19, 7, mlp_ratio=3), "39.0M"),
    },
)
