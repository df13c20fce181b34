"""Masked patch prediction, faithful to the trial in the ViT's own paper: BERT's way, with patches.

An Image is Worth 16x16 Words, Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, appendix

The question: can a ViT be pre-trained without labels, as BERT is on text? The change: half of the
patches are corrupted after they were embedded, and the model tells the mean colour of each of them.

    80 %    become a learned mask token
    10 %    become another patch of the image, drawn at random
    10 %    stay as they are, and must be told all the same

All tokens pass through the encoder, corrupted or not. A colour has 3 bits a channel, so there are
512 of them. The authors also tried to predict 4 x 4 colours a patch, and all pixels by squared
error; they report that all of it worked, and the mean colour best. Where the other patch is drawn
from, they do not say: here it is one of the same image, and never the patch itself.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.config import grid_of
from vitcourse.papers import Paper
from vitcourse.vit import ViT, patchify, truncated_normal_

BITS = 3  # of a channel


def mean_colours(images, patch):
    """The number of each patch's mean colour: images (B, C, H, W) in 0..1 -> int64 (B, N).

    Each channel's mean is one of 8 levels: the number's digits to the base 8.
    """
    channels = images.shape[1]
    patches = patchify(images, patch).unflatten(2, (patch**2, channels))
    levels = (patches.mean(dim=2) * 2**BITS).long().clamp(0, 2**BITS - 1)  # (B, N, C)
    base = 2 ** (BITS * torch.arange(channels - 1, -1, -1, device=images.device))
    return (levels * base).sum(dim=-1)  # (B, N)


class ColourHead(nn.Linear):
    """Read each patch: x (B, T, D), grid -> logits of its mean colour (B, N, 8**C)."""

    prefix_len = 1  # the class token, which nobody reads before fine-tuning

    def __init__(self, cfg):
        super().__init__(cfg.dim, 2 ** (BITS * cfg.channels))

    def reset_parameters(self):
        """Start at zero, as the ViT's head."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x, grid):
        return super().forward(x[:, -grid[0] * grid[1] :])


class MaskedPatchViT(ViT):
    """A ViT that tells the colours of corrupted patches: images, noise -> (B, N, colours).

    noise (B, N, 3) lies in 0..1. For each patch, the first number says whether it is corrupted, the
    second how, the third which other patch may stand in for it. Without noise, none is corrupted.
    """

    Head = ColourHead
    corrupted, masked, swapped = 0.5, 0.8, 0.1  # the two last are parts of the first

    def __init__(self, cfg):
        super().__init__(cfg)
        self.prefix_mask = nn.Parameter(torch.empty(1, 1, cfg.dim))  # not to decay
        truncated_normal_(self.prefix_mask)

    def corrupt(self, x, noise):
        """Embedded patches x (B, N, D) -> the same, some of them hidden or exchanged."""
        N = x.shape[1]
        chosen, how, which = noise.unbind(-1)  # each (B, N)
        chosen = chosen < self.corrupted  # (B, N)
        mask = chosen & (how < self.masked)  # (B, N)
        swap = chosen & ~mask & (how < self.masked + self.swapped)  # (B, N)
        step = 1 + (which * (N - 1)).long()  # (B, N), from 1 to N - 1
        other = (torch.arange(N, device=x.device) + step) % N  # (B, N)
        x = torch.where(swap[..., None], x.take_along_dim(other[..., None], dim=1), x)  # (B, N, D)
        return torch.where(mask[..., None], self.prefix_mask, x)  # (B, N, D)

    def encode(self, images, noise=None):
        x, grid = self.patch_embed(images)
        if noise is not None:
            x = self.corrupt(x, noise)
        prefix = self.prefix.expand(len(x), -1, -1)  # (B, R, D)
        x = torch.cat([prefix, x], dim=1)  # (B, T, D)
        x = self.drop(self.position(x, grid))  # (B, T, D)
        for block in self.blocks:
            x = block(x, grid)  # (B, T, D)
        return self.norm(x), grid

    def forward(self, images, noise=None):
        x, grid = self.encode(images, noise)
        return self.head(x, grid)  # (B, N, colours)


# The loss, and what `fit` is given ---------------------------------------------------------------


def draw(model, images, generator=None):
    """New noise for each patch of each image: (B, N, 3), drawn on the CPU."""
    h, w = grid_of(images.shape[-2:], model.cfg.patch)
    return torch.rand(len(images), h * w, 3, generator=generator).to(images.device)


def loss(model, images, colours, noise):
    """Cross-entropy of the colours (B, N) of all corrupted patches, those kept included: a scalar.

    Images as the model reads them; the colours are those that they had before.
    """
    logits = model(images, noise)  # (B, N, colours)
    each = F.cross_entropy(logits.transpose(1, 2), colours, reduction="none")  # (B, N)
    chosen = noise[..., 0] < model.corrupted  # (B, N)
    return (each * chosen).sum() / chosen.sum()


def telling_colours(data):
    """A step for `fit(model, data, recipe, step=telling_colours(data), score=score)`."""

    def step(model, batch):
        mean, std = (t.to(batch.images)[:, None, None] for t in (data.mean, data.std))
        colours = mean_colours(batch.images * std + mean, model.cfg.patch)
        return loss(model, batch.images, colours, draw(model, batch.images))

    return step


def score(model, data):
    """How many colours of corrupted patches are right on the test images: {"colours": number}."""
    images = data.test_images.to(model.prefix.device)
    noise = draw(model, images, torch.Generator().manual_seed(0))
    chosen = noise[..., 0] < model.corrupted
    guesses = model(data.normalise(images), noise).argmax(dim=-1)
    right = guesses == mean_colours(images.float() / 255, model.cfg.patch)
    return {"colours": right[chosen].float().mean().item()}


PAPER = Paper(
    name="Masked patch prediction",
    title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
    authors="Dosovitskiy et al.",
    year=2020,
    arxiv="2010.11929",
    lesson="18",
    models=(MaskedPatchViT,),
)
