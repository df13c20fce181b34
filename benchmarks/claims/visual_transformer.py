"""How many tokens does a Visual Transformer need to count, and must it choose their pixels?

Scenes of 32x32 pixels with one to four objects, 2000 of them; the answer is their number. A small
ResNet makes a map of 8x8 pixels, two token blocks read it, 15 epochs. With 1, 4 and 8 tokens from
learned filters, and with 8 tokens that are the means of 2x4 equal cells of the map.
"""

import torch
import torch.nn.functional as F

from benchmarks.claims import comparable
from vitcourse import data
from vitcourse.papers.visual_transformer import Look, Sizes, VisualTransformer
from vitcourse.train import RECIPES, fit

SEEDS = 3


class CellTokenizer(Look):
    """The means of 2x4 cells of a map of 8x8 pixels: the tokens have fixed places."""

    def __init__(self, dim, tokens):
        super().__init__(dim)

    def forward(self, pixels, tokens=None):
        map = pixels.mT.unflatten(2, (8, 8))  # (B, D, h, w)
        return F.adaptive_avg_pool2d(map, (2, 4)).flatten(2).mT  # (B, L, D)


class WithCells(VisualTransformer):
    """A Visual Transformer whose first tokens are cells."""

    Tokenizer = CellTokenizer


MODELS = {
    "1 token": (VisualTransformer, 1),
    "4 tokens": (VisualTransformer, 4),
    "8 tokens": (VisualTransformer, 8),
    "8 cells": (WithCells, 8),
}


def measure(seed):
    """The accuracy of all models."""
    scenes = data.load("shapes", task="scenes", train=2000, test=1000)
    recipe = RECIPES["smoke"].but(epochs=15, batch=64, lr=3e-3, seed=seed, evaluate_every=15)
    recipe = recipe.but(augment=RECIPES["shapes"].augment)
    models = {}
    for name, (cls, tokens) in MODELS.items():
        torch.manual_seed(seed)
        models[name] = cls(Sizes(tokens=tokens, depth=2, resnet=(1,), width=12, classes=4))
    comparable(*models.values())
    return {
        f"{name}, accuracy": fit(model, scenes, recipe, device="cpu", quiet=True).accuracy
        for name, model in models.items()
    }


PAIRS = {
    "8 tokens count better than one": ("8 tokens, accuracy", "1 token, accuracy"),
    "8 tokens count better than four": ("8 tokens, accuracy", "4 tokens, accuracy"),
    "tokens that choose their pixels count better than cells": (
        "8 tokens, accuracy",
        "8 cells, accuracy",
    ),
}
