"""Do windows have to pass on what they see, and do shifts do that as well as full attention?

Digits, enlarged to 16 x 16 pixels: a map of 8 x 8 tokens, one stage of 4 blocks, 9 epochs. Windows
of 2 x 2 tokens, shifted by 1 in every second block; the same without shifts; and one window of
8 x 8, which is full attention. The same layers; only the tables of biases differ in size. With
shifts, a token of the last block depends on a region of up to 8 x 8 tokens, without on 2 x 2.

Tables begin as wide as in the experiment on positions, and batches have 32 images: with 0.5 and 128
as in the recipe, full attention read less than half of the digits after 10 epochs.
"""

import torch

from benchmarks.claims import comparable
from benchmarks.claims.pit import begun
from benchmarks.claims.positions import WIDE
from benchmarks.claims.t2t_vit import enlarged
from vitcourse import data
from vitcourse.papers.swin import Swin, WindowAttention
from vitcourse.pyramid import PyramidConfig
from vitcourse.train import RECIPES, fit
from vitcourse.vit import truncated_normal_

SEEDS = 3
SIZES = PyramidConfig((32,), (4,), (2,), (2,), (4.0,), image=16, channels=1, classes=10)
MODELS = {
    "shifted windows": Swin.variant(window=2),
    "fixed windows": Swin.variant(window=2, shifted=False),
    "full attention": Swin.variant(window=8),
}


def measure(seed):
    """The accuracy of each."""
    digits = enlarged(data.load("digits"))
    recipe = RECIPES["smoke"].but(epochs=9, batch=32, seed=seed, evaluate_every=9)
    models = {}
    for name, cls in MODELS.items():
        torch.manual_seed(seed)
        models[name] = begun(cls(SIZES), recipe)
        for layer in (m for m in models[name].modules() if isinstance(m, WindowAttention)):
            truncated_normal_(layer.position_table, std=WIDE["relative 2-D"])
    comparable(models["full attention"], *models.values())
    return {
        name: fit(model, digits, recipe, device="cpu", quiet=True).accuracy
        for name, model in models.items()
    }


PAIRS = {
    "shifted windows are more accurate than fixed ones": ("shifted windows", "fixed windows"),
    "full attention is more accurate than fixed windows": ("full attention", "fixed windows"),
    "full attention is more accurate than shifted windows": ("full attention", "shifted windows"),
}
