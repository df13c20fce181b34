"""Is a class token read better than the mean of all patches?

Digits, five folds: each seed tests on another fifth, so every digit is tested once by each model.
Both models are the same ViT but for the head, and get the same recipe: "smoke", with fewer epochs.
They are compared at several learning rates, because the two heads may want different ones.

Images are cut into 4 patches of 4x4 pixels, at four rates, or into 16 of 2x2, at two. Every model
trains for 20 epochs.
"""

import torch
from torch import nn

from benchmarks.digits import five_fold
from vitcourse import ViT, make_vit
from vitcourse.data import Data
from vitcourse.data.digits import digits_all
from vitcourse.parts import MeanHead
from vitcourse.train import RECIPES, fit
from vitcourse.vit import truncated_normal_

SEEDS = 5  # one for each fold
HEADS = {"class token": ViT, "mean of patches": ViT.variant(Head=MeanHead)}
RATES = {("Nano/4", 4): (0.001, 0.002, 0.004, 0.008), ("Nano/2", 16): (0.004, 0.008)}
RUNS = [(*cut, rate) for cut, rates in RATES.items() for rate in rates]


def measure(seed):
    """The accuracy of both heads on fold number `seed`, at every learning rate."""
    images, labels = digits_all()
    train, test = five_fold(labels.numpy())[seed]
    classes = tuple(str(digit) for digit in range(10))
    data = Data("digits", images[train], labels[train], images[test], labels[test], classes)
    found = {}
    for size, patches, rate in RUNS:
        recipe = RECIPES["smoke"].but(model=size, epochs=20, lr=rate, seed=seed, evaluate_every=20)
        for head, cls in HEADS.items():
            run = fit(build(cls, recipe, data), data, recipe, device="cpu", quiet=True)
            found[f"{head}, {patches} patches, rate {rate}"] = run.accuracy
    return found


def build(cls, recipe, data):
    """A new model that starts as the recipe says."""
    torch.manual_seed(recipe.seed)
    options = dict(image=data.image, channels=data.channels, classes=len(data.classes))
    model = make_vit(recipe.model, cls, **options)
    truncated_normal_(model.position.table, std=recipe.position_std)
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            truncated_normal_(layer.weight, std=recipe.gain * layer.in_features**-0.5)
    return model


def lead(means, patches, rate):
    """By how much the class token is ahead of the mean at a learning rate."""
    run = f"{patches} patches, rate {rate}"
    return means[f"class token, {run}"] - means[f"mean of patches, {run}"]


def best_lead(means, patches):
    """By how much it is ahead if each of the two has its best rate."""
    one, other = (
        max(value for name, value in means.items() if name.startswith(f"{head}, {patches} "))
        for head in HEADS
    )
    return one - other


CLAIMS = {
    "4 patches: each at its best rate, the heads are less than half a per cent apart": (
        lambda means: abs(best_lead(means, 4)) < 0.005
    ),
    "16 patches: each at its better rate, the heads are less than half a per cent apart": (
        lambda means: abs(best_lead(means, 16)) < 0.005
    ),
    "4 patches: at the lowest rate the class token is ahead": (
        lambda means: lead(means, 4, 0.001) > 0
    ),
    "16 patches: at a rate of 0.004 the class token is ahead, at 0.008 it is not": (
        lambda means: lead(means, 16, 0.004) > 0 >= lead(means, 16, 0.008)
    ),
}
