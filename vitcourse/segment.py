"""What each pixel shows: a backbone, and a head that reads the maps of all its stages.

A backbone is whatever has `features(images)`, a list of maps (B, D, h, w) from fine to coarse, and
`widths`, their numbers of channels: every Pyramid, and a ViT as `OneMap`.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.parts import MeanHead, split
from vitcourse.train.batches import test_batches
from vitcourse.vit import ViT


class OneMap(ViT):
    """A ViT as a backbone: its last tokens are its only map."""

    Head = MeanHead

    def __init__(self, cfg):
        super().__init__(cfg)
        self.widths = (cfg.dim,)

    def features(self, images):
        """Images (B, C, H, W) -> one map (B, D, h, w)."""
        return [split(*self.encode(images))[1]]


class Segmenter(nn.Module):
    """Images (B, C, H, W) -> logits of every pixel (B, classes, H, W).

    From the coarsest map to the finest: enlarge what is known, and add what this map knows.
    """

    def __init__(self, backbone, classes, dim=32):
        super().__init__()
        self.backbone = backbone
        self.lateral = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in backbone.widths)
        self.norm = nn.GroupNorm(1, dim)
        self.head = nn.Conv2d(dim, classes, kernel_size=3, padding=1)

    def forward(self, images):
        maps = self.backbone.features(images)
        maps = [lateral(map) for lateral, map in zip(self.lateral, maps, strict=True)]
        x = maps.pop()  # (B, dim, h, w)
        while maps:
            finer = maps.pop()
            x = finer + enlarge(x, finer.shape[-2:])
        x = self.head(F.gelu(self.norm(x)))  # (B, classes, h, w)
        return enlarge(x, images.shape[-2:])  # (B, classes, H, W)


def enlarge(map, size):
    """A map (B, D, h, w) at another size (H, W), by straight lines between its places."""
    return F.interpolate(map, size=size, mode="bilinear", align_corners=False)


def segment(model, batch, truth):
    """A step for `fit`: cross-entropy of every pixel; truth (n, H, W) of all training images."""
    wanted = truth[batch.index].to(batch.images.device)  # (B, H, W)
    return F.cross_entropy(model(batch.images), wanted)


def mean_iou(guess, truth, classes):
    """Intersection over union of each class, averaged: guess and truth (B, H, W) -> number.

    A class that neither holds does not count.
    """
    pairs = torch.bincount(truth.flatten() * classes + guess.flatten(), minlength=classes**2)
    pairs = pairs.cpu().view(classes, classes).double()  # [truth, guess], in pixels
    both, either = pairs.diagonal(), pairs.sum(0) + pairs.sum(1) - pairs.diagonal()
    return (both / either)[either > 0].mean().item()


@torch.no_grad()
def guesses(model, data):
    """The class of every pixel of the test images: (n, H, W)."""
    device = next(model.parameters()).device
    return torch.cat([model.eval()(x).argmax(1).cpu() for x, _ in test_batches(data, device, 250)])
