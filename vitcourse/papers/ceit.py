"""CeiT, faithful to the published model: convolutions before the blocks and inside their MLPs.

Incorporating Convolution Designs into Visual Transformers, Yuan et al. 2021,
https://arxiv.org/abs/2103.11816

The question: a ViT needs many images to learn that neighbouring pixels belong together. Can it be
told, and remain a ViT? Three changes. Image-to-tokens: patches are cut from the map of a small
convolutional stem. LeFF: the MLP lays its hidden tokens out as a map, and a depthwise 3x3
convolution mixes neighbours. LCA: one more block, in which the last class token attends to the
class tokens of all layers.

The class token goes around the LeFF in the paper. The authors' code hands back what the norm made
of it, so a block turns a class token c into c + LN(c). The published weights need that;
`CeiT.variant(Mlp=BypassLeFF)` is the paper's. What the last LeFF makes of the patches is read by
nobody: its numbers are counted, and never learn. L is the depth, M the hidden width.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.config import Config
from vitcourse.papers import Paper, Published
from vitcourse.parts import join, split
from vitcourse.vit import Attention, Block, Mlp, PatchEmbed, ViT, init_weights
from vitcourse.weights import from_timm, rename


class ImageToTokens(PatchEmbed):
    """Patches of a map that a convolution and a max pooling made four times smaller.

    Images (B, C, H, W) -> x (B, N, D), grid. `patch` is the side of a token in pixels.
    """

    width = 64  # the channels of the map

    def __init__(self, channels, dim, patch):
        if patch % 4:
            raise ValueError(f"patch is {patch}: the stem shrinks by 4, so it must be a multiple")
        super().__init__(channels, dim, patch)
        self.proj = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(channels, self.width, 7, stride=2, padding=3, bias=False),
                bn=nn.BatchNorm2d(self.width),
                pool=nn.MaxPool2d(3, stride=2, padding=1),
                patches=nn.Conv2d(self.width, dim, patch // 4, stride=patch // 4),
            )
        )


class LeFF(nn.Module):
    """An MLP whose hidden tokens see their 3x3 neighbours: x (B, T, D), grid -> x (B, T, D).

    Prefix tokens have no neighbours and pass unchanged. Nothing is dropped, as with the authors.
    """

    bypass = False  # prefix tokens are not even passed on: nothing will be added to them

    def __init__(self, dim, hidden, drop=0.0):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(dim, hidden, 1), nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3, self.bn3 = nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim)

    def forward(self, x, grid):
        prefix, map = split(x, grid)
        map = F.gelu(self.bn1(self.conv1(map)))  # (B, M, h, w)
        map = F.gelu(self.bn2(self.conv2(map)))  # (B, M, h, w)
        map = self.bn3(self.conv3(map))  # (B, D, h, w)
        if self.bypass:
            prefix = torch.zeros_like(prefix)
        return join(prefix, map)  # (B, T, D)


class BypassLeFF(LeFF):
    """The LeFF of the paper, which leaves the class token as it is."""

    bypass = True


class LayerAttention(Attention):
    """Attention in which the last token alone asks: x (B, L, D) -> x (B, 1, D)."""

    def project(self, x, grid):
        q, k, v = super().project(x, grid)  # each (B, K, L, d)
        return q[:, :, -1:], k, v


class LayerBlock(Block):
    """A block that keeps the last token only: x (B, L, D) -> x (B, 1, D)."""

    def forward(self, x, grid=None):
        x = x[:, -1:] + self.attn(self.norm1(x))  # (B, 1, D)
        return x + self.mlp(self.norm2(x))  # (B, 1, D)


def from_authors(state, model):
    """The names in the authors' files."""
    rules = [
        (r"^i2t\.backbone\.", "patch_embed.proj."),
        (r"^i2t\.proj\.", "patch_embed.proj.patches."),
        (r"\.leff\.", ".mlp."),
        (r"^lca\.feedforward\.", "lca.mlp."),
        (r"^pos_layer_embed$", "position_layers"),
    ]
    return from_timm(rename(rules)(state, model), model)


class CeiT(ViT):
    """A ViT with a convolutional stem and LeFF, whose head reads the class tokens of all layers."""

    Tokenizer, Mlp = ImageToTokens, LeFF
    layouts = {"CeiT": ("pos_layer_embed", from_authors)}

    def __init__(self, cfg):
        super().__init__(cfg)
        attn = LayerAttention(cfg.dim, cfg.heads, cfg.drop, cfg.attn_drop)
        self.lca = LayerBlock(cfg.dim, attn, Mlp(cfg.dim, cfg.hidden, cfg.drop))
        self.lca.apply(init_weights)
        self.position_layers = nn.Parameter(torch.zeros(1, cfg.depth, cfg.dim))

    def class_tokens(self, images):
        """The class token behind each block: images (B, C, H, W) -> (B, L, D), grid."""
        x, grid = self.patch_embed(images)
        prefix = self.prefix.expand(len(x), -1, -1)  # (B, 1, D)
        x = torch.cat([prefix, x], dim=1)  # (B, T, D)
        x, found = self.drop(self.position(x, grid)), []
        for block in self.blocks:
            x = block(x, grid)  # (B, T, D)
            found.append(x[:, 0])
        return torch.stack(found, dim=1), grid

    def encode(self, images):
        x, grid = self.class_tokens(images)
        x = self.lca(x + self.position_layers)  # (B, 1, D)
        return self.norm(x), grid


PAPER = Paper(
    name="CeiT",
    title="Incorporating Convolution Designs into Visual Transformers",
    authors="Yuan et al.",
    year=2021,
    arxiv="2103.11816",
    lesson="17",
    models=(CeiT,),
    configs={
        "ceit_t": Published(CeiT, Config.of("Ti/16"), "6.4M"),
        "ceit_s": Published(CeiT, Config.of("S/16"), "24.2M"),
        "ceit_b": Published(CeiT, Config.of("B/16"), "94.4M"),
    },
)
