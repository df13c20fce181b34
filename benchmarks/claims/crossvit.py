"""Is it better to fuse two ViTs on their way than to average what both say in the end?

Digits, enlarged to 16 x 16 pixels: a branch with 64 patches of 2 x 2, and one with 16 patches of 4
x 4. CrossViT has two stages; its control has the same two branches without fusions, and wider MLPs
to make up for their parameters. Both average the logits of the branches, and both learn from 200
images, each seed from others, in 480 steps of 20 images.
"""

import torch
from torch import nn

from benchmarks.claims import comparable
from benchmarks.claims.cct import BATCH, STEPS, few
from benchmarks.claims.t2t_vit import enlarged
from vitcourse import data
from vitcourse.papers.crossvit import CrossConfig, CrossViT, Fusion
from vitcourse.train import RECIPES, fit
from vitcourse.vit import Block, truncated_normal_

SEEDS = 3
IMAGES = 200
SHARED = dict(patches=(2, 4), images=(16, 16), stages=2, channels=1, classes=10)
SIZES = dict(dims=(20, 40), depths=(1, 2), heads=(2, 4), **SHARED)


class NoFusion(Fusion):
    """Each class token keeps to its own branch. There is nothing to learn."""

    def __init__(self, *sizes):
        nn.Module.__init__(self)

    def forward(self, x, other):
        return x


def models(recipe):
    """Both, with the start values of the recipe."""
    fused = CrossViT(CrossConfig(**SIZES, mlp_ratio=2))
    apart = CrossViT.variant(Fusion=NoFusion)(CrossConfig(**SIZES, mlp_ratio=3.6))
    for model in (fused, apart):
        for branch in model.branches:
            truncated_normal_(branch.position.table, std=recipe.position_std)
        for part in model.modules():
            for layer in part.modules() if isinstance(part, (Block, Fusion)) else ():
                if isinstance(layer, nn.Linear):
                    truncated_normal_(layer.weight, std=recipe.gain * layer.in_features**-0.5)
    return {"apart": apart, "fused": fused}


def measure(seed):
    """The accuracy of both."""
    digits = few(enlarged(data.load("digits")), IMAGES, seed)
    epochs = STEPS * BATCH // IMAGES
    recipe = RECIPES["smoke"].but(epochs=epochs, batch=BATCH, seed=seed, evaluate_every=epochs)
    torch.manual_seed(seed)
    both = models(recipe)
    comparable(*both.values())
    return {
        f"{name}, accuracy": fit(model, digits, recipe, device="cpu", quiet=True).accuracy
        for name, model in both.items()
    }


PAIRS = {
    "fused branches are more accurate than branches apart": ("fused, accuracy", "apart, accuracy")
}
