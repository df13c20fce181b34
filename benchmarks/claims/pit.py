"""Is a ViT whose map shrinks as accurate as one whose map stays, at a fraction of the work?

Digits, enlarged to 16 x 16 pixels, cut into 7 x 7 patches that overlap; 4 blocks, 10 epochs. One
model keeps 49 tokens of width 60; the PiT has 49, 16 and 4 tokens of widths 24, 48 and 96, and as
many parameters within 5 %. Work is counted in multiplications and additions for one image.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.claims import comparable
from benchmarks.claims.t2t_vit import enlarged
from vitcourse import data
from vitcourse.papers.pit import PiT
from vitcourse.probe import record_attention
from vitcourse.pyramid import PyramidConfig
from vitcourse.train import RECIPES, fit
from vitcourse.vit import Block, truncated_normal_

SEEDS = 3
SIZES = {
    "one stage": dict(dims=(60,), depths=(4,), heads=(5,), patches=(2,), mlp_ratios=(4.0,)),
    "three stages": dict(
        dims=(24, 48, 96),
        depths=(1, 2, 1),
        heads=(2, 4, 8),
        patches=(2, 2, 2),
        mlp_ratios=(4.0,) * 3,
    ),
}


def measure(seed):
    """Accuracy and work of both."""
    digits = enlarged(data.load("digits"))
    recipe = RECIPES["smoke"].but(epochs=10, seed=seed, evaluate_every=10)
    torch.manual_seed(seed)
    models = {
        name: begun(PiT(PyramidConfig(**sizes, image=16, channels=1, classes=10)), recipe)
        for name, sizes in SIZES.items()
    }
    comparable(*models.values())
    found = {}
    for name, model in models.items():
        found[f"{name}, accuracy"] = fit(model, digits, recipe, device="cpu", quiet=True).accuracy
        found[f"{name}, million operations"] = operations(model) / 1e6
    return found


def begun(model, recipe):
    """The model with the start values of the recipe, as build_model gives them to a ViT."""
    for table in model.stages[0].position.parameters():
        truncated_normal_(table, std=recipe.position_std)
    for block in (module for module in model.modules() if isinstance(module, Block)):
        for layer in (module for module in block.modules() if isinstance(module, torch.nn.Linear)):
            truncated_normal_(layer.weight, std=recipe.gain * layer.in_features**-0.5)
    return model


def operations(model):
    """Multiplications and additions for one image of the digits. Attention is counted, too."""
    counter = FlopCounterMode(display=False)
    with record_attention(model), counter:
        model(torch.zeros(1, 1, 16, 16))
    return counter.get_total_flops()


PAIRS = {
    "three stages are more accurate than one": ("three stages, accuracy", "one stage, accuracy")
}
CLAIMS = {
    "three stages take less than a third of the operations": lambda means: (
        means["three stages, million operations"] < means["one stage, million operations"] / 3
    )
}
