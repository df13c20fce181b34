"""Does a deep, narrow ViT train with the norm after its branches as it does with the norm before?

Twelve blocks of width 32 on the digits, eight epochs, two learning rates, with and without a
warm-up over a fifth of the steps. Nothing else differs. The last norm, before the head, stays in
both: behind a norm it changes nothing but its own scale and shift.

The layers start with the standard deviation 1 / sqrt(inputs). When this was chosen, half of that
was tried too, with one seed: the norm after was behind there as well, and learned nothing at 0.005,
with and without warm-up.
"""

import torch
from torch import nn

from vitcourse import Config, ViT, data, vit
from vitcourse.train import Recipe, fit

SEEDS = 3
EPOCHS = 8
SIZES = dict(dim=32, depth=12, heads=4, patch=2, image=8, channels=1, classes=10, mlp_ratio=2)
RATES = (0.002, 0.005)
WARMUPS = {"no warm-up": 0.0, "warm-up": 0.2}


class NormAfter(vit.Block):
    """The order of the first Transformer: add, then normalise."""

    def forward(self, x, grid=None):
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


BLOCKS = {"before": vit.Block, "after": NormAfter}


def build(block):
    """A ViT of such blocks, whose layers keep the size of what they read, as recipes here do."""
    model = ViT.variant(Block=block)(Config(**SIZES))
    vit.truncated_normal_(model.position.table, std=0.5)
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            vit.truncated_normal_(layer.weight, std=layer.in_features**-0.5)
    return model


def name(order, rate, warmup):
    """What a figure is called."""
    return f"norm {order}, lr {rate}, {warmup}"


def measure(seed):
    """The test accuracy after the last epoch, for each order, learning rate and warm-up."""
    digits, found = data.load("digits"), {}
    for order, block in BLOCKS.items():
        for rate in RATES:
            for warmup, part in WARMUPS.items():
                torch.manual_seed(seed)
                recipe = Recipe(
                    epochs=EPOCHS,
                    batch=64,
                    lr=rate,
                    warmup=part,
                    seed=seed,
                    evaluate_every=EPOCHS,
                    checkpoint_every=EPOCHS,
                )
                run = fit(build(block), digits, recipe, quiet=True, device="cpu")
                found[name(order, rate, warmup)] = round(run.accuracy, 5)
    return found


def means_of(means, order, warmup):
    """The mean accuracies at both learning rates."""
    return [means[name(order, rate, warmup)] for rate in RATES]


def gains(means, order):
    """What the warm-up adds at both learning rates."""
    none, some = (means_of(means, order, warmup) for warmup in WARMUPS)
    return [b - a for a, b in zip(none, some, strict=True)]


NONE, SOME = WARMUPS

CLAIMS = {
    "norm before: above 0.9 at both rates without a warm-up": (
        lambda m: min(means_of(m, "before", NONE)) > 0.9
    ),
    "norm before: a warm-up changes less than 0.05": (
        lambda m: max(map(abs, gains(m, "before"))) < 0.05
    ),
    "norm after: below 0.5 at both rates without a warm-up": (
        lambda m: max(means_of(m, "after", NONE)) < 0.5
    ),
    "norm after: at chance at the higher rate without a warm-up": (
        lambda m: means_of(m, "after", NONE)[1] < 0.15
    ),
    "norm after: a warm-up adds more than 0.3": lambda m: min(gains(m, "after")) > 0.3,
    "norm after: with a warm-up still below the norm before": (
        lambda m: min(means_of(m, "before", SOME)) > max(means_of(m, "after", SOME)) + 0.03
    ),
}
