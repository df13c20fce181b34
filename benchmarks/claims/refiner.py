"""Do convolutions over attention maps make a deep ViT learn better, and its heads less alike?

Digits, 16 patches, 8 narrow blocks, 8 epochs: the paper's form of Refiner, which refines the map
of every block, and the same model whose convolutions add nothing (they are multiplied by zero and
do not learn; the norm of the maps stays). How alike two heads are is the cosine of their maps over
all test images, without what all tokens share; the figure is the mean over pairs and blocks.
"""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.claims import comparable
from vitcourse import data
from vitcourse.papers.lv_vit import ConvStem
from vitcourse.papers.refiner import Refine, RefinedAttention, Refiner
from vitcourse.probe import record_attention
from vitcourse.train import RECIPES, build_model, fit

SEEDS = 3


class SmallStem(ConvStem):
    """A stem for small pictures."""

    widths = 16, 16, 16


PAPERS = Refiner.variant(Tokenizer=SmallStem, Attention=RefinedAttention, Second=RefinedAttention)


def switch_off(model):
    """Multiply what the convolutions add to the maps by zero, for good."""
    for layer in model.modules():
        if isinstance(layer, Refine):
            nn.init.zeros_(layer.norm3.weight)
            layer.norm3.requires_grad_(False)
    return model


def measure(seed):
    """Accuracy, and how unlike the maps of the heads of one block are, of both models."""
    digits = data.load("digits")
    recipe = RECIPES["smoke"].but(model="Nano/2", epochs=8, seed=seed, evaluate_every=8)
    models = {
        "not refined": switch_off(build_model(recipe, digits, PAPERS, dim=24, depth=8)),
        "refined": build_model(recipe, digits, PAPERS, dim=24, depth=8),
    }
    comparable(*models.values())
    found = {}
    for name, model in models.items():
        run = fit(model, digits, recipe, device="cpu", quiet=True)
        found[f"{name}, accuracy"] = run.accuracy
        found[f"{name}, heads unlike"] = 1 - alike(run.model, digits)
    return found


@torch.no_grad()
def alike(model, digits):
    """The mean cosine of the maps of two heads of one block."""
    with record_attention(model) as maps:
        model(digits.normalise(digits.test_images))
    maps = [weights - weights.mean(dim=-1, keepdim=True) for weights in maps]  # (B, K, T, T)
    cosines = [
        F.cosine_similarity(weights[:, i].flatten(1), weights[:, j].flatten(1), dim=-1).mean()
        for weights in maps
        for i in range(weights.shape[1])
        for j in range(i)
    ]
    return torch.stack(cosines).mean().item()


PAIRS = {
    "refined maps: more accurate": ("refined, accuracy", "not refined, accuracy"),
    "refined maps: heads of one block are less alike": (
        "refined, heads unlike",
        "not refined, heads unlike",
    ),
}
