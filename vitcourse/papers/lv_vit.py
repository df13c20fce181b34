"""LV-ViT, faithful to the published model: every token learns from a label of its own.

All Tokens Matter: Token Labeling for Training Better Vision Transformers, Jiang et al. 2021,
https://arxiv.org/abs/2104.10858

The question: only the class token is told what is in the picture; could the other tokens be told,
too? The change: a teacher gives each patch a soft label, a second head reads the patch tokens, and
both losses are added (`losses.token_labelling`). MixToken mixes two images after the stem, so that
each token still shows one image alone. The model begins with convolutions and divides its branches.

The paper weighs the tokens' loss by 0.5, as `training_step` does; the official program's own
default is 1. In evaluation the published model adds half of the tokens' largest logits.
"""

from collections import OrderedDict

import torch
from torch import nn

from vitcourse.config import Config, grid_of
from vitcourse.losses import token_labelling
from vitcourse.papers import Paper, Published
from vitcourse.papers.cct import UnbiasedAttention
from vitcourse.vit import ClassHead, PatchEmbed, ViT
from vitcourse.weights import from_timm, rename


class ConvStem(PatchEmbed):
    """Convolutions at half the size of the image, then patches of what they made.

    The first is 7x7 with stride 2, the others are 3x3; images (B, C, H, W) -> x (B, N, D), grid.
    """

    widths = 64, 64, 64  # the channels after each convolution

    def __init__(self, channels, dim, patch):
        if patch % 2:
            raise ValueError(f"patch is {patch}: the stem halves the image, so it must be even")
        super().__init__(channels, dim, patch)
        layers = OrderedDict()
        for i, width in enumerate(self.widths, start=1):
            size, stride = (7, 2) if i == 1 else (3, 1)
            layers[f"conv{i}"] = nn.Conv2d(channels, width, size, stride, size // 2, bias=False)
            layers[f"bn{i}"], layers[f"relu{i}"] = nn.BatchNorm2d(width), nn.ReLU()
            channels = width
        layers["patches"] = nn.Conv2d(channels, dim, patch // 2, patch // 2)
        self.proj = nn.Sequential(layers)


class WideConvStem(ConvStem):
    """The stem of LV-ViT-L."""

    widths = 128, 128, 128


class Divide(nn.Module):
    """Divide a branch by a fixed number."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x / self.by


class TokenHead(ClassHead):
    """Read the class token, and each patch token with a layer that they share.

    x (B, T, D), grid -> logits (B, classes): the class token's, and half of the largest that any
    patch gives to each class.
    """

    def __init__(self, cfg):
        super().__init__(cfg)
        self.aux = nn.Linear(cfg.dim, cfg.classes)

    def both(self, x, grid):
        """The logits of the class token (B, classes), and those of each patch (B, N, classes)."""
        return super().forward(x), self.aux(x[:, -grid[0] * grid[1] :])

    def forward(self, x, grid):
        logits, token_logits = self.both(x, grid)
        return logits + 0.5 * token_logits.amax(dim=1)  # (B, classes)


def from_tlt(state, model):
    """The names in the authors' files."""
    rules = [
        (r"^patch_embed\.(conv|bn)", r"patch_embed.proj.\1"),
        (r"^patch_embed\.proj\.", "patch_embed.proj.patches."),
        (r"^aux_head\.", "head.aux."),
    ]
    return rename(rules)(from_timm(state, model), model)


class LVViT(ViT):
    """A ViT with a stem of convolutions, divided branches, and a head for every token."""

    Tokenizer, Attention, Head = ConvStem, UnbiasedAttention, TokenHead
    divisor = 2.0  # what is added to a token is divided by it
    eps = 1e-5  # of the norms
    layouts = {"tlt": ("patch_embed.conv1.weight", from_tlt)}

    def __init__(self, cfg):
        super().__init__(cfg)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = self.eps

    def block(self, i):
        block = super().block(i)
        block.ls1 = block.ls2 = Divide(self.divisor)
        return block

    def encode(self, images, box=None):
        """As in the ViT; with a box (top, left, bottom, right), the images of a batch are mixed."""
        x, grid = self.patch_embed(images)
        if box is not None:
            x = swap(x, grid, box)
        prefix = self.prefix.expand(len(x), -1, -1)  # (B, R, D)
        x = torch.cat([prefix, x], dim=1)  # (B, T, D)
        x = self.drop(self.position(x, grid))  # (B, T, D)
        x = self.through(x, grid)  # (B, T, D)
        return self.norm(x), grid

    def through(self, x, grid):
        """Apply all blocks: x (B, T, D) -> x (B, T, D)."""
        for block in self.blocks:
            x = block(x, grid)
        return x

    def tokens(self, images, box=None):
        """What training compares: logits of images (B, classes) and of patches (B, N, classes).

        After mixing, the logits of each patch stand again with the image that it is from.
        """
        x, grid = self.encode(images, box)
        logits, token_logits = self.head.both(x, grid)
        return logits, token_logits if box is None else swap(token_logits, grid, box)


# MixToken ---------------------------------------------------------------------------------------


def random_box(grid):
    """A box (top, left, bottom, right) of patches, its area and centre by chance.

    It is clipped to the grid, so the part that is swapped must be computed from the box.
    """
    h, w = grid
    area, y, x = torch.rand(3).tolist()
    side = area**0.5
    half_h, half_w = int(h * side) // 2, int(w * side) // 2
    y, x = int(h * y), int(w * x)
    return max(y - half_h, 0), max(x - half_w, 0), min(y + half_h, h), min(x + half_w, w)


def swap(x, grid, box):
    """Exchange what lies in the box between image i and image B-1-i: x (B, N, D), same shape."""
    top, left, bottom, right = box
    inside = torch.zeros(grid, dtype=torch.bool, device=x.device)
    inside[top:bottom, left:right] = True
    return torch.where(inside.flatten()[:, None], x.flip(0), x)


def mix_labels(label, grid, box):
    """Mix the labels (B, classes) of image i and B-1-i by the area of the box that was swapped."""
    top, left, bottom, right = box
    part = (bottom - top) * (right - left) / (grid[0] * grid[1])
    return (1 - part) * label + part * label.flip(0)


# Training ---------------------------------------------------------------------------------------


def training_step(token_labels, weight=0.5, mix=True):
    """A step for `train.fit`; `token_labels(batch)` gives labels (B, N, classes).

    With `mix`, each batch is mixed by MixToken.
    """

    def step(model, batch):
        grid = grid_of(batch.images.shape[-2:], model.cfg.patch)
        label, box = batch.targets, random_box(grid) if mix else None
        logits, token_logits = model.tokens(batch.images, box)
        if mix:
            label = mix_labels(label, grid, box)
        return token_labelling(logits, token_logits, label, token_labels(batch), weight)

    return step


def labels_from(teacher):
    """Token labels for `training_step`: what a trained LVViT says of each patch."""

    @torch.no_grad()
    def token_labels(batch):
        return teacher.eval().tokens(batch.images)[1].softmax(dim=-1)  # (B, N, classes)

    return token_labels


def sizes(depth, dim, heads):
    """LV-ViT's sizes."""
    return Config(dim=dim, depth=depth, heads=heads, mlp_ratio=3)


PAPER = Paper(
    name="LV-ViT",
    title="All Tokens Matter: Token Labeling for Training Better Vision Transformers",
    authors="Jiang et al.",
    year=2021,
    arxiv="2104.10858",
    lesson="13",
    models=(LVViT,),
    configs={
        "lv_vit_t": Published(LVViT.variant(divisor=1.0), sizes(12, 240, 4), "8.53M"),
        "lv_vit_s": Published(LVViT, sizes(16, 384, 6), "26.15M"),
        "lv_vit_m": Published(LVViT, sizes(20, 512, 8), "55.83M"),
        "lv_vit_l": Published(
            LVViT.variant(Tokenizer=WideConvStem, divisor=3.0), sizes(24, 768, 12), "150M"
        ),
    },
)
