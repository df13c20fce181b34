"""Does a ViT without learned positions and without class token learn as well, or better?

Digits, 16 patches, all 1437 training images or every tenth, the same number of steps. Positions are
learned or waves, the output is read from a class token or from the mean; SimpleViT has waves and
mean. The waves were made for grids of 14 x 14: on 4 x 4, those of a first run made all places
alike, and SimpleViT lost. Hence a second hypothesis: waves that fit the grid help it.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F

from benchmarks.claims import comparable
from vitcourse import ViT, data
from vitcourse.papers.simple_vit import SimpleViT
from vitcourse.parts import MeanHead, SinCosPosition
from vitcourse.train import RECIPES, build_model, fit

SEEDS = 3
EPOCHS = 15


class FittingWaves(SinCosPosition):
    """Waves whose slowest turns by about one radian over the grid: its side in place of 10000."""

    def __init__(self, dim, grid, prefix_len):
        super().__init__(dim, grid, prefix_len)
        places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1]))
        frequency = float(grid[0]) ** -(torch.arange(dim // 4) / (dim // 4 - 1))
        y, x = places.T[..., None] * frequency  # each (N, D/4)
        waves = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)
        self.table = F.pad(waves, (0, 0, prefix_len, 0))[None]


MODELS = {
    "ViT": ViT,
    "SimpleViT": SimpleViT,
    "ViT with waves": ViT.variant(Position=SinCosPosition),
    "ViT with mean": ViT.variant(Head=MeanHead),
    "SimpleViT, waves that fit": SimpleViT.variant(Position=FittingWaves),
}


def measure(seed):
    """The accuracy of each model with all images, and of two with few."""
    digits = data.load("digits")
    few = replace(digits, images=digits.images[::10], labels=digits.labels[::10])
    recipe = RECIPES["smoke"].but(model="Nano/2", epochs=EPOCHS, seed=seed, evaluate_every=EPOCHS)
    models = {name: build_model(recipe, digits, cls) for name, cls in MODELS.items()}
    comparable(*models.values())
    found = {}
    for name, model in models.items():
        found[name] = fit(model, digits, recipe, device="cpu", quiet=True).accuracy
    epochs = 11 * EPOCHS  # an epoch of all images has 11 steps, one of few has one
    recipe = recipe.but(epochs=epochs, evaluate_every=epochs)
    for name in ("ViT", "SimpleViT"):
        model = build_model(recipe, few, MODELS[name])
        run = fit(model, few, recipe, device="cpu", quiet=True)
        found[f"{name}, a tenth of the images"] = run.accuracy
    return found


PAIRS = {
    "SimpleViT is more accurate than the ViT": ("SimpleViT", "ViT"),
    "SimpleViT is more accurate than the ViT, a tenth of the images": (
        "SimpleViT, a tenth of the images",
        "ViT, a tenth of the images",
    ),
    "with a class token, waves are better than learned positions": ("ViT with waves", "ViT"),
    "with learned positions, the mean is better than the class token": ("ViT with mean", "ViT"),
    "waves that fit the grid make SimpleViT more accurate": (
        "SimpleViT, waves that fit",
        "SimpleViT",
    ),
    "with waves that fit, SimpleViT is more accurate than the ViT": (
        "SimpleViT, waves that fit",
        "ViT",
    ),
}
