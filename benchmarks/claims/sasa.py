"""Can local attention stand in for convolutions, and does it need to know where a neighbour is?

Digits, pixel by pixel, and three layers with a view of 3x3 pixels, each with batch norm and ReLU,
then the mean over all places. The layers are convolutions, attention, or attention without
positions. Attention gets more channels than the convolutions, so that all learn about as many
numbers.
"""

import torch
from torch import nn

from benchmarks.claims import comparable
from vitcourse import data
from vitcourse.papers.sasa import LocalAttention
from vitcourse.train import RECIPES, fit

SEEDS = 3


def convolution(dim):
    """What attention stands in for."""
    return nn.Conv2d(dim, dim, kernel_size=3, padding=1, bias=False)


def attention(dim):
    """Four heads that look at 3x3 pixels."""
    return LocalAttention(dim, heads=4, window=3)


def without_positions(dim):
    """The same, with tables that are zero and stay so."""
    layer = attention(dim)
    for table in (layer.position_rows, layer.position_columns):
        table.requires_grad_(False).zero_()
    return layer


MODELS = {
    "convolution": (convolution, 19),
    "attention": (attention, 32),
    "without positions": (without_positions, 32),
}


def network(layer, dim):
    """Three layers between a linear map of each pixel and a mean over the image."""
    layers = [nn.Conv2d(1, dim, kernel_size=1)]
    for _ in range(3):
        layers += [layer(dim), nn.BatchNorm2d(dim), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(dim, 10))


def measure(seed):
    """The accuracy of the three networks."""
    digits = data.load("digits")
    recipe = RECIPES["smoke"].but(epochs=12, seed=seed, evaluate_every=12)
    models = {}
    for name, (layer, dim) in MODELS.items():
        torch.manual_seed(seed)
        models[name] = network(layer, dim)
    comparable(*models.values())
    return {
        name: fit(model, digits, recipe, device="cpu", quiet=True).accuracy
        for name, model in models.items()
    }


PAIRS = {
    "attention is more accurate than convolution": ("attention", "convolution"),
    "positions make attention more accurate": ("attention", "without positions"),
}
