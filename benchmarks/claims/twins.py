"""Can attention inside windows compare what is far apart, or does it take the attention to all?

A strip of 8 x 32 pixels holds two digits, each 0 or 1. Is it the same digit twice? All four pairs
are equally frequent. One stage of 4 x 16 tokens, four windows of 4 x 4, four blocks. Where the
digits lie at both ends, no token of a model without GSA reads both, in spite of its PEG; the mean
of the tokens then adds up what each end says, and such a sum is right for three of the four pairs
at most. Where they lie side by side, the PEG joins their windows. The model without GSA has wider
MLPs, so that both learn as many numbers within 5 %.
"""

from dataclasses import replace

import torch
from torch import nn

from benchmarks.claims import comparable
from vitcourse import data
from vitcourse.data import Data
from vitcourse.data.augment import Augment
from vitcourse.papers.twins import Twins
from vitcourse.pyramid import PyramidConfig
from vitcourse.train import RECIPES, fit
from vitcourse.vit import truncated_normal_

SEEDS = 3
PLACES = {"far": (0, 24), "near": (8, 16)}  # the first column of each digit
RECIPE = RECIPES["smoke"].but(epochs=20, batch=32, evaluate_every=20, augment=Augment())
SIZES = PyramidConfig(
    dims=(32,),
    depths=(4,),
    heads=(2,),
    patches=(2,),
    mlp_ratios=(4.0,),
    image=(8, 32),
    channels=1,
    classes=2,
)
Small = Twins.variant(windows=(4,), reductions=(2,))


class Local(Small):
    """All blocks attend inside windows."""

    def attention(self, s, i):
        return super().attention(s, 0)


MODELS = {"LSA": (Local, replace(SIZES, mlp_ratios=(5.0,))), "LSA and GSA": (Small, SIZES)}


def strips(images, labels, places, n, seed):
    """Strips (n, 1, 8, 32) with two digits, each 0 or 1, and whether they are the same."""
    generator = torch.Generator().manual_seed(seed)
    strip, kinds = images.new_zeros(n, 1, 8, 32), torch.arange(n) % 4
    for x, wanted in zip(places, (kinds // 2, kinds % 2), strict=True):
        for digit in (0, 1):
            there, known = wanted == digit, images[labels == digit]
            chosen = torch.randint(len(known), (int(there.sum()),), generator=generator)
            strip[there, :, :, x : x + 8] = known[chosen]
    return strip, (kinds // 2 == kinds % 2).long()


def measure(seed):
    """Accuracies by model and by where the digits lie."""
    found = {}
    for where, names in (("far", MODELS), ("near", ["LSA"])):
        models = {name: begun(*MODELS[name], seed) for name in names}
        comparable(*models.values())
        for name, model in models.items():
            recipe = RECIPE.but(seed=seed)
            run = fit(model, task(where, seed), recipe, device="cpu", quiet=True)
            found[f"{name}, {where}"] = run.accuracy
    return found


def task(where, seed):
    """800 strips to train on and 400 of other digits to test on."""
    digits, places = data.load("digits"), PLACES[where]
    train = strips(digits.images, digits.labels, places, 800, seed)
    test = strips(digits.test_images, digits.test_labels, places, 400, seed + 1000)
    return Data("pairs", *train, *test, ("different", "same"))


def begun(cls, sizes, seed):
    """A model with the start values of the recipe, as build_model gives them to a ViT."""
    torch.manual_seed(seed)
    model = cls(sizes)
    for layer in model.stages[0].blocks.modules():
        if isinstance(layer, nn.Linear):
            truncated_normal_(layer.weight, std=RECIPE.gain * layer.in_features**-0.5)
    return model


PAIRS = {
    "far apart: with GSA the model is more accurate": ("LSA and GSA, far", "LSA, far"),
    "windows alone are more accurate where the digits are near": ("LSA, near", "LSA, far"),
}
CLAIMS = {
    "far apart, windows alone stay below four of five": lambda means: means["LSA, far"] < 0.8,
}
