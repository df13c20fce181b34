"""Attention as convolution, minimal: heads that know places alone, no content, no learned table.

On the Relationship between Self-Attention and Convolutional Layers, Cordonnier et al. 2019,
https://arxiv.org/abs/1911.03584

The question: can self-attention do what a convolution does, and does it learn to? The theorem: yes,
with a head for each place of the kernel. A head's score for a key at the offset r from the query is
v . (|r|^2, r_y, r_x), with v = -alpha (1, -2 c_y, -2 c_x). That is -alpha |r - c|^2, and a constant
which the softmax takes away: the head looks around the place c from the query, the more sharply the
larger alpha is. Where alpha grows, each head copies one pixel, and `proj` is the kernel.

A general head has maps W_V and W_O, of d numbers between them, so it can be any place of any kernel
if d is at least the smaller of the channels in and out. Here W_V is the identity, d = D: each
head's W_O is the kernel's matrix for its place. Where q + c is outside the image, the head takes
the nearest pixel inside: the convolution's padding is "replicate".
"""

import math

import torch
from torch import nn

from vitcourse.papers import Paper
from vitcourse.parts import MeanHead, NoPosition
from vitcourse.vit import Attention, ViT


def quadratic_encoding(grid):
    """What tells the offset r of each key from each query: (N, N, 3), of |r|^2, r_y and r_x."""
    h, w = grid
    places = torch.cartesian_prod(torch.arange(h), torch.arange(w))  # (N, 2)
    r = places[None, :] - places[:, None]  # (N, N, 2), key minus query
    return torch.cat([r.square().sum(dim=-1, keepdim=True), r], dim=-1)  # (N, N, 3)


class QuadraticAttention(Attention):
    """Each head looks around a learned place, seen from the query: x (B, N, D), grid -> x.

    A head is as wide as a token: it passes on what it looks at, and `proj` mixes all heads.
    """

    def __init__(self, dim, heads, drop=0.0, attn_drop=0.0):
        super().__init__(heads * dim, heads, drop, attn_drop)

    def build(self, dim):
        self.proj = nn.Linear(dim, dim // self.heads)
        self.position_centre = nn.Parameter(torch.randn(self.heads, 2))  # rows down, columns right
        self.position_sharpness = nn.Parameter(torch.zeros(self.heads))  # ln(alpha)

    @classmethod
    def like(cls, conv, alpha=60.0):
        """The layer that equals a Conv2d with stride 1, as alpha grows."""
        if set(conv.stride) != {1} or conv.groups != 1:
            raise ValueError(f"{conv} has a stride or groups: attention has neither")
        (height, width), (down, right) = conv.kernel_size, conv.dilation
        layer = cls(conv.in_channels, height * width)
        layer.proj = nn.Linear(layer.proj.in_features, conv.out_channels, conv.bias is not None)
        rows = torch.arange(height) * down - (height - 1) * down // 2
        columns = torch.arange(width) * right - (width - 1) * right // 2
        with torch.no_grad():
            layer.position_centre.copy_(torch.cartesian_prod(rows, columns))
            layer.position_sharpness.fill_(math.log(alpha))
            layer.proj.weight.copy_(conv.weight.permute(0, 2, 3, 1).flatten(1))
            if conv.bias is not None:
                layer.proj.bias.copy_(conv.bias)
        return layer.to(conv.weight)

    def project(self, x, grid):
        v = x[:, None].expand(-1, self.heads, -1, -1)  # (B, K, N, D)
        return v, v, v

    def bias(self, grid):
        """-alpha |r - centre|^2 for each query and key, but for a constant: (1, K, N, N)."""
        centre, alpha = self.position_centre, self.position_sharpness.exp()
        v = torch.cat([torch.ones_like(centre[:, :1]), -2 * centre], dim=1)  # (K, 3)
        v = -alpha[:, None] * v  # (K, 3)
        r = quadratic_encoding(grid).to(v)  # (N, N, 3)
        return torch.einsum("hc,qkc->hqk", v, r)[None]

    def weights(self, q, k, bias):
        """Content plays no part: the same maps for all images."""
        return bias.softmax(dim=-1).expand(len(q), -1, -1, -1)  # (B, K, N, N)


class QuadraticViT(ViT):
    """A ViT whose attention knows places alone: no class token, no other positions."""

    Position, Attention, Head = NoPosition, QuadraticAttention, MeanHead


PAPER = Paper(
    name="Attention as convolution",
    title="On the Relationship between Self-Attention and Convolutional Layers",
    authors="Cordonnier et al.",
    year=2019,
    arxiv="1911.03584",
    lesson="15",
    models=(QuadraticViT,),
)
