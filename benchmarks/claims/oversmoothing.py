"""Does a loss that keeps patches apart do so, and does it help a deep ViT?

Digits, 16 patches, 12 narrow blocks, 10 epochs: one model, trained with the usual loss, and with
each of three others added to it by the weight 1 that the paper reports. The control of the mixing
loss sees mixed images, too. How alike patches are is the mean cosine of two of them after the last
block.
"""

from functools import partial

import torch

from vitcourse import data
from vitcourse.papers.oversmoothing import DiverseViT, step
from vitcourse.probe import record_tokens, token_similarity
from vitcourse.train import RECIPES, build_model, fit

SEEDS = 3
LOSSES = {
    "plain": dict(cosine=0, consistency=0, mixing=None),
    "cosine": dict(cosine=1, consistency=0, mixing=None),
    "consistency": dict(cosine=0, consistency=1, mixing=None),
    "mixed images": dict(cosine=0, consistency=0, mixing=0),
    "mixing": dict(cosine=0, consistency=0, mixing=1),
}


def measure(seed):
    """Accuracy, and how unlike the patches of an image are after the last block, of each."""
    digits = data.load("digits")
    recipe = RECIPES["smoke"].but(model="Nano/2", epochs=10, seed=seed, evaluate_every=10)
    found = {}
    for name, losses in LOSSES.items():
        model = build_model(recipe, digits, DiverseViT, dim=24, depth=12)
        run = fit(model, digits, recipe, partial(step, **losses), device="cpu", quiet=True)
        found[f"{name}, accuracy"] = run.accuracy
        found[f"{name}, patches unlike"] = 1 - alike(run.model, digits)
    return found


@torch.no_grad()
def alike(model, digits):
    """The mean cosine of two patches of an image after the last block, over all test images."""
    with record_tokens(model) as tokens:
        model(digits.normalise(digits.test_images))
    return token_similarity(tokens[-1][:, 1:]).mean().item()


PAIRS = {
    "with the cosine loss, patches are less alike": (
        "cosine, patches unlike",
        "plain, patches unlike",
    ),
    "with the consistency loss, patches are less alike": (
        "consistency, patches unlike",
        "plain, patches unlike",
    ),
    "with the mixing loss, patches are less alike": (
        "mixing, patches unlike",
        "mixed images, patches unlike",
    ),
    "the cosine loss makes it more accurate": ("cosine, accuracy", "plain, accuracy"),
    "the consistency loss makes it more accurate": ("consistency, accuracy", "plain, accuracy"),
    "the mixing loss makes it more accurate": ("mixing, accuracy", "mixed images, accuracy"),
}
