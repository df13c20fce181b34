"""SASA, faithful to the published ResNet with a convolutional stem: local attention, 3x3 for 3x3.

Stand-Alone Self-Attention in Vision Models, Ramachandran et al. 2019,
https://arxiv.org/abs/1906.05909

The question: attention had been added to convolutions; can it stand in their place? The change:
every 3x3 convolution of a ResNet becomes attention in a window of 7x7 pixels around each pixel. A
key is what the pixel holds plus where it stands in the window; a value is only what it holds.

The paper is silent about pixels outside the image. Here they are zeros that take part in the
softmax ("zero", as in a padded convolution); with the border "masked" they get no weight. The
paper's formula does not divide by sqrt(d): `scale` is 1. Its other stem, of attention, is left out.

Shapes as in vit.py, but that N counts pixels, h*w of them. BN is B*N, those of all images; s is the
side of a window and n = s*s the pixels in it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from vitcourse.papers import Paper, Published
from vitcourse.vit import Attention, truncated_normal_

BORDERS = ("zero", "masked")


class LocalAttention(Attention):
    """Each pixel attends to the s x s pixels around it: x (B, D, h, w) -> x (B, D, h, w).

    Every pixel is a query with a window of its own, so the recorder gets weights (BN, K, 1, n).
    """

    def __init__(self, dim, heads, window=7, border="zero"):
        super().__init__(dim, heads)
        d = dim // heads
        if d % 2:
            raise ValueError(f"a head is {d} wide: half of it is for the row, so make it even")
        if window % 2 == 0:
            raise ValueError(f"window is {window}: its side must be odd, to have a middle")
        if border not in BORDERS:
            raise ValueError(f"border is {border!r}: choose {' or '.join(BORDERS)}")
        self.window, self.border, self.scale = window, border, 1.0
        self.position_rows = nn.Parameter(torch.empty(window, d // 2))  # for all heads
        self.position_columns = nn.Parameter(torch.empty(window, d // 2))
        truncated_normal_(self.position_rows)
        truncated_normal_(self.position_columns)

    def build(self, dim):
        self.qkv = nn.Conv2d(dim, 3 * dim, kernel_size=1, bias=False)

    def forward(self, x, grid=None):
        B, D, h, w = x.shape
        q, k, v = self.project(x, (h, w))
        bias = self.bias((h, w))
        if bias is not None:
            bias = bias.repeat(B, 1, 1, 1)  # (BN, 1, 1, n)
        x = self.attend(q, k, v, bias)  # (BN, K, 1, d)
        return x.reshape(B, h * w, D).transpose(1, 2).unflatten(2, (h, w))  # (B, D, h, w)

    def project(self, x, grid):
        """A query for each pixel (BN, K, 1, d), keys and values of its window (BN, K, n, d)."""
        q, k, v = self.qkv(x).chunk(3, dim=1)  # each (B, D, h, w)
        k = self.cut(k, self.window) + self.offsets()
        return self.cut(q, 1), k, self.cut(v, self.window)

    def cut(self, map, side):
        """The pixels around each pixel: (B, D, h, w) -> (BN, K, n, d)."""
        x = F.unfold(map, side, padding=side // 2)  # (B, Kdn, N)
        x = x.unflatten(1, (self.heads, -1, side * side))  # (B, K, d, n, N)
        return x.permute(0, 4, 1, 3, 2).flatten(0, 1)  # (B*N, K, n, d)

    def offsets(self):
        """What a key gets for its place in the window: half by its row, half by its column."""
        rows = self.position_rows[:, None].expand(-1, self.window, -1)  # (s, s, half)
        columns = self.position_columns[None].expand(self.window, -1, -1)  # (s, s, half)
        return torch.cat([rows, columns], dim=-1).flatten(0, 1)  # (s*s, 2*half)

    def bias(self, grid):
        """0 for the pixels of a window, -inf for those outside the image: (N, 1, 1, n)."""
        if self.border == "zero":
            return None
        inside = self.position_rows.new_ones(1, 1, *grid)
        inside = F.unfold(inside, self.window, padding=self.window // 2)  # (1, n, N)
        return inside[0].T[:, None, None].log()


@dataclass(frozen=True)
class Sizes:
    """What a SASA-ResNet is built from. `width` is that of its first attention layers."""

    blocks: tuple = (3, 4, 6, 3)
    width: int = 64
    heads: int = 8
    window: int = 7
    border: str = "zero"
    classes: int = 1000


class SasaResNet(ResNet):
    """A ResNet in which all 3x3 convolutions are local attention: (B, 3, H, W) -> (B, classes)."""

    def __init__(self, cfg):
        super().__init__(Bottleneck, cfg.blocks, cfg.classes, width_per_group=cfg.width)
        for block in [module for module in self.modules() if isinstance(module, Bottleneck)]:
            conv = block.conv2
            block.conv2 = LocalAttention(conv.in_channels, cfg.heads, cfg.window, cfg.border)
            if conv.stride != (1, 1):  # attention has no stride: shrink its output
                shrink = nn.AvgPool2d(conv.stride, ceil_mode=True)
                block.conv2 = nn.Sequential(block.conv2, shrink)


PAPER = Paper(
    name="SASA",
    title="Stand-Alone Self-Attention in Vision Models",
    authors="Ramachandran et al.",
    year=2019,
    arxiv="1906.05909",
    lesson="15",
    models=(SasaResNet,),
    configs={"sasa_resnet_50": Published(SasaResNet, Sizes(), "18.0M")},
)
