"""Does a pyramid lose accuracy when its large maps attend to small copies, and what does it save?

Digits, enlarged to 16 x 16 pixels; three stages of 256, 64 and 16 tokens; 12 epochs. In both models
all tokens query. In one, keys and values are made from all tokens, too; in the other from windows
of 4 x 4, 2 x 2 and 1 x 1. Nothing else differs but the convolutions that make them: less than 5 %
of the parameters. Operations are multiplications and additions for one image, attention included.
"""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.claims import comparable
from benchmarks.claims.t2t_vit import enlarged
from vitcourse import data
from vitcourse.papers.pvt import PVT
from vitcourse.probe import record_attention
from vitcourse.pyramid import PyramidConfig
from vitcourse.train import RECIPES, fit
from vitcourse.vit import truncated_normal_

SEEDS = 3
REDUCTIONS = {"full": (1, 1, 1), "reduced": (4, 2, 1)}
SIZES = PyramidConfig(
    dims=(12, 24, 64),
    depths=(1, 1, 2),
    heads=(2, 3, 4),
    patches=(1, 2, 2),
    mlp_ratios=(4.0, 4.0, 4.0),
    image=16,
    channels=1,
    classes=10,
)


def measure(seed):
    """Accuracy and work of both."""
    digits = enlarged(data.load("digits"))
    recipe = RECIPES["smoke"].but(epochs=12, seed=seed, evaluate_every=12)
    models = {name: begun(PVT.variant(reductions=R), recipe) for name, R in REDUCTIONS.items()}
    comparable(*models.values())
    found = {}
    for name, model in models.items():
        found[f"{name}, accuracy"] = fit(model, digits, recipe, device="cpu", quiet=True).accuracy
        found[f"{name}, million operations"] = operations(model) / 1e6
    return found


def begun(cls, recipe):
    """A model with the start values of the recipe, as build_model gives them to a ViT."""
    torch.manual_seed(recipe.seed)
    model = cls(SIZES)
    for stage in model.stages:
        for table in stage.position.parameters():
            truncated_normal_(table, std=recipe.position_std)
        for layer in stage.blocks.modules():
            if isinstance(layer, nn.Linear):
                truncated_normal_(layer.weight, std=recipe.gain * layer.in_features**-0.5)
    return model


def operations(model):
    """Multiplications and additions for one image."""
    with record_attention(model), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, 16, 16))
    return counter.get_total_flops()


PAIRS = {
    "full attention is more accurate than reduced": ("full, accuracy", "reduced, accuracy"),
}
CLAIMS = {
    "reduced attention takes less than two thirds of the operations": lambda means: (
        means["reduced, million operations"] < means["full, million operations"] * 2 / 3
    )
}
