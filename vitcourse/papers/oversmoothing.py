"""Against over-smoothing, minimal: three losses keep patches apart; one box mixes a whole batch.

Vision Transformers with Patch Diversification, Gong et al. 2021, https://arxiv.org/abs/2104.12753
(the first version was called Improve Vision Transformers Training by Suppressing Over-smoothing).

The question: in deep blocks the patches of an image become more and more alike; what if training
forbids it? The change is the loss alone: to that of the class token come three, see losses.py.
`cosine_loss` pushes the patches of the last block apart, `consistency_loss` keeps each of them near
what it was after the first block, `mixing_loss` makes each name its image where two are mixed.

Left out are the recipe and models of the paper's results. The box of the mixed images follows the
borders of the patches here, so that each patch has one source.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.losses import consistency_loss, cosine_loss, mixing_loss
from vitcourse.papers import Paper
from vitcourse.vit import ViT


class DiverseViT(ViT):
    """A ViT that shows what leaves its first and its last block, with a head for each patch."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.patch_head = nn.Linear(cfg.dim, cfg.classes)
        nn.init.zeros_(self.patch_head.weight)
        nn.init.zeros_(self.patch_head.bias)

    def tokens(self, images):
        """What leaves the first block and the last, each (B, T, D), and the grid."""
        x, grid = self.patch_embed(images)
        prefix = self.prefix.expand(len(x), -1, -1)  # (B, R, D)
        x = torch.cat([prefix, x], dim=1)  # (B, T, D)
        x = first = self.blocks[0](self.drop(self.position(x, grid)), grid)  # (B, T, D)
        for block in self.blocks[1:]:
            x = block(x, grid)  # (B, T, D)
        return first, x, grid

    def encode(self, images):
        _, last, grid = self.tokens(images)
        return self.norm(last), grid


def step(model, batch, cosine=1.0, consistency=1.0, mixing=1.0, absolute=True):
    """The loss of a DiverseViT on a batch, for train.fit. The numbers weigh the three losses.

    Images are mixed where `mixing` is not None: at 0, the patches are not asked about it.
    """
    images, target = batch.images, batch.targets
    if mixing is not None:
        other, box = target.roll(1, 0), random_box(model.cfg.grid).to(images.device)
        images = paste(images, images.roll(1, 0), box)
        target = torch.lerp(target, other, box.to(target.dtype).mean())  # (B, classes)
    first, last, grid = model.tokens(images)
    normed, R = model.norm(last), model.prefix_len
    loss = F.cross_entropy(model.head(normed, grid), target)
    if cosine:
        loss = loss + cosine * cosine_loss(last[:, R:], absolute)
    if consistency:
        loss = loss + consistency * consistency_loss(first[:, R:], last[:, R:])
    if mixing:
        logits = model.patch_head(normed[:, R:])  # (B, N, classes)
        loss = loss + mixing * mixing_loss(logits, batch.targets, other, box)
    return loss


def random_box(grid):
    """A rectangle of patches, anywhere, of any size and the grid's shape: (h, w), true inside."""
    h, w = grid
    side = torch.rand(()).sqrt()  # so that all areas are equally likely
    height, width = (side * h).round().int(), (side * w).round().int()
    y = torch.arange(h) - torch.randint(h - height + 1, ())  # (h,)
    x = torch.arange(w) - torch.randint(w - width + 1, ())  # (w,)
    rows, columns = (y >= 0) & (y < height), (x >= 0) & (x < width)
    return rows[:, None] & columns  # (h, w)


def paste(images, others, box):
    """Put the patches in `box` (h, w) of the other images into each image: (B, C, H, W)."""
    H, W = images.shape[-2:]
    h, w = box.shape
    inside = box.repeat_interleave(H // h, 0).repeat_interleave(W // w, 1)  # (H, W)
    return torch.where(inside, others, images)  # (B, C, H, W)


PAPER = Paper(
    name="Against over-smoothing",
    title="Vision Transformers with Patch Diversification",
    authors="Gong et al.",
    year=2021,
    arxiv="2104.12753",
    lesson="13",
)
