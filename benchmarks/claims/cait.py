"""Which of CaiT's parts lets 24 blocks learn: LayerScale, talking heads, class attention?

Digits, 16 patches, 24 narrow blocks, 132 steps: a plain ViT, the same with LayerScale, and with
each of the other parts beside it. With class attention, the last two of the 24 are class blocks.
How alike patches are is the mean cosine of two of them after the last block that changes them.
"""

import torch
from torch import nn

from benchmarks.claims import comparable
from vitcourse import ViT, data
from vitcourse.papers.cait import CaiT, LayerScaleViT, TalkingHeads
from vitcourse.probe import record_tokens, token_similarity
from vitcourse.train import RECIPES, build_model, fit
from vitcourse.vit import Attention, truncated_normal_

SEEDS = 3
MODELS = {
    "plain": (ViT, 24),
    "LayerScale": (LayerScaleViT, 24),
    "talking heads": (LayerScaleViT.variant(Attention=TalkingHeads), 24),
    "class attention": (CaiT.variant(Attention=Attention), 22),
}


def measure(seed):
    """Accuracy, and how unlike the patches of an image are in the end, of each model."""
    digits = data.load("digits")
    recipe = RECIPES["smoke"].but(model="Nano/2", epochs=6, batch=64, seed=seed, evaluate_every=6)
    models = {
        name: build_model(recipe, digits, cls, dim=24, depth=depth)
        for name, (cls, depth) in MODELS.items()
    }
    for layer in models["class attention"].class_blocks.modules():  # they begin as all blocks do
        if isinstance(layer, nn.Linear):
            truncated_normal_(layer.weight, std=recipe.gain * layer.in_features**-0.5)
    comparable(*models.values())
    found = {}
    for name, model in models.items():
        run = fit(model, digits, recipe, device="cpu", quiet=True)
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
    "LayerScale is more accurate": ("LayerScale, accuracy", "plain, accuracy"),
    "with LayerScale, patches are less alike": (
        "LayerScale, patches unlike",
        "plain, patches unlike",
    ),
    "talking heads beside LayerScale are more accurate": (
        "talking heads, accuracy",
        "LayerScale, accuracy",
    ),
    "class attention beside LayerScale is more accurate": (
        "class attention, accuracy",
        "LayerScale, accuracy",
    ),
}
