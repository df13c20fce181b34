"""BotNet, faithful to the published BoT50: the last three 3x3 convolutions become attention.

Bottleneck Transformers for Visual Recognition, Srinivas et al. 2021,
https://arxiv.org/abs/2101.11605

The question: convolutions see far only when many are stacked. Must a network be rebuilt to look at
all of an image at once? The change: in the last stage of a ResNet-50, called c5, attention over the
whole map takes the place of each 3x3 convolution. There are three; the other thirteen stay. A key
counts by what it holds and by how many rows and columns it is away from the query.

Attention has no stride: where the map shrinks, a mean over 2x2 places follows. As with the
convolution, BatchNorm and ReLU come after it, and there is no output projection. What makes the
paper's family S1 is left out: squeeze-excitation, SiLU, and a c5 without stride.

Shapes as in vit.py, but that N counts the places of a map, h*w of them, and there is no prefix.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from vitcourse.papers import Paper, Published
from vitcourse.vit import Attention, truncated_normal_
from vitcourse.weights import rename


class MapAttention(Attention):
    """Each place of a map attends to all: x (B, D, h, w) -> x (B, D, h, w). A stride shrinks it.

    A score is q.k + q.(r_h + r_w), divided by sqrt(d). Each number of rows from query to key has a
    vector r_h, each number of columns a vector r_w, the same for all heads. There are vectors for
    maps of up to `grid` = (h, w).
    """

    def __init__(self, dim, heads, grid, stride=1):
        super().__init__(dim, heads)
        (h, w), d = grid, dim // heads
        self.grid = h, w
        self.position_rows = nn.Parameter(torch.empty(2 * h - 1, d))
        self.position_columns = nn.Parameter(torch.empty(2 * w - 1, d))
        for table in (self.position_rows, self.position_columns):
            truncated_normal_(table, std=d**-0.5)
        self.pool = nn.AvgPool2d(stride, ceil_mode=True)

    def build(self, dim):
        self.qkv = nn.Conv2d(dim, 3 * dim, kernel_size=1, bias=False)
        truncated_normal_(self.qkv.weight, std=dim**-0.5)

    def forward(self, x, grid=None):
        h, w = grid = tuple(x.shape[2:])
        q, k, v = self.project(x, grid)  # each (B, K, N, d)
        x = self.attend(q, k, v, self.relative(q, grid))  # (B, K, N, d)
        x = x.transpose(2, 3).reshape(len(x), -1, h, w)  # (B, D, h, w)
        return self.pool(x)

    def project(self, x, grid):
        qkv = self.qkv(x).flatten(2).unflatten(1, (3, self.heads, -1))  # (B, 3, K, d, N)
        q, k, v = qkv.transpose(3, 4).unbind(1)  # each (B, K, N, d)
        return q, k, v

    def relative(self, q, grid):
        """What is added to the scores: q.(r_h + r_w) / sqrt(d) for each query and key."""
        rows = self.between(self.position_rows, grid[0], self.grid[0])  # (h, h, d)
        columns = self.between(self.position_columns, grid[1], self.grid[1])  # (w, w, d)
        q = q.unflatten(2, grid) * self.scale  # (B, K, h, w, d)
        by_row = torch.einsum("bkyxd, yjd -> bkyxj", q, rows)  # (B, K, h, w, h)
        by_column = torch.einsum("bkyxd, xid -> bkyxi", q, columns)  # (B, K, h, w, w)
        scores = by_row[..., None] + by_column[..., None, :]  # (B, K, h, w, h, w)
        return scores.flatten(4).flatten(2, 3)  # (B, K, h*w, h*w)

    def between(self, table, side, most):
        """The vector for each query and key on one axis, by key minus query: (side, side, d)."""
        if side > most:
            raise ValueError(
                f"a side of the map has {side} places, positions are for {most}: "
                f"build the model for larger images"
            )
        place = torch.arange(side, device=table.device)
        return table[place[None, :] - place[:, None] + most - 1]


@dataclass(frozen=True)
class Sizes:
    """What a BotNet is built from. `image`, a side or (height, width), is the largest it takes."""

    blocks: tuple = (3, 4, 6, 3)
    width: int = 64
    heads: int = 4
    image: int | tuple[int, int] = 224
    classes: int = 1000


def with_attention(block, heads, grid):
    """Put attention in the place of a bottleneck's 3x3 convolution, for maps of up to `grid`."""
    conv = block.conv2
    block.conv2 = MapAttention(conv.in_channels, heads, grid, conv.stride[0])
    return block


from_timm = rename(
    [
        (r"pos_embed\.height_rel$", "position_rows"),
        (r"pos_embed\.width_rel$", "position_columns"),
    ]
)


class BotNet(ResNet):
    """A ResNet with attention in its last stage: images (B, 3, H, W) -> logits (B, classes)."""

    layouts = {"timm": ("pos_embed.height_rel", from_timm)}

    def __init__(self, cfg):
        super().__init__(Bottleneck, cfg.blocks, cfg.classes, width_per_group=cfg.width)
        image = (cfg.image, cfg.image) if isinstance(cfg.image, int) else cfg.image
        for block in self.layer4:
            stride = 16 if block is self.layer4[0] else 32  # of the map that it reads
            with_attention(block, cfg.heads, [-(-side // stride) for side in image])

    def features(self, images):
        """The map of every stage, c2 to c5: (B, 256, H/4, W/4) to (B, 2048, H/32, W/32)."""
        maps = [self.maxpool(self.relu(self.bn1(self.conv1(images))))]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps[1:]


PAPER = Paper(
    name="BotNet",
    title="Bottleneck Transformers for Visual Recognition",
    authors="Srinivas et al.",
    year=2021,
    arxiv="2101.11605",
    lesson="17",
    models=(BotNet,),
    configs={"botnet_50": Published(BotNet, Sizes(), "20.8M")},
)
