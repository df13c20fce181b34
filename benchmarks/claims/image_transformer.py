"""How much must a pixel see of those before it, and in which shape?

Digits in five grey levels, 64 pixels, 5 epochs. One Image Transformer, 3 blocks of width 32, with
blocks of 4, 8 or 16 pixels in a row whose memory reaches as far back again (1-D), with rectangles
of 4 (2 x 2) or 8 (2 x 4) pixels whose border lets a pixel see about as many as in 1-D, and with
full attention. All have the same parameters. Bits are those of a pixel of the test images, so fewer
are better; pixels seen are a mean over the image, the pixel itself included.
"""

import math

import torch

from benchmarks.claims import comparable
from vitcourse import data
from vitcourse.papers.igpt import find_palette, quantise
from vitcourse.papers.image_transformer import ImageTransformer, Sizes
from vitcourse.train import Recipe, fit

SEEDS = 3
LEVELS = 5
ATTENTION = {
    "1-D 4": {"block": 4, "reach": 4},
    "1-D 8": {"block": 8, "reach": 8},
    "1-D 16": {"block": 16, "reach": 16},
    "2-D 4": {"block": (2, 2), "reach": (1, 1)},
    "2-D 8": {"block": (2, 4), "reach": (1, 2)},
    "full": {},
}


def measure(seed):
    """Bits for each kind of attention, and how many pixels one sees."""
    digits = data.load("digits")
    palette = find_palette(digits.images, LEVELS)
    levels, test = (
        quantise(x, palette).unflatten(1, (1, 8, 8)) for x in (digits.images, digits.test_images)
    )
    models = {}
    for name, attention in ATTENTION.items():
        torch.manual_seed(seed)
        sizes = Sizes(32, 3, 4, 64, (8, 8), channels=1, levels=LEVELS, **attention)
        models[name] = ImageTransformer(sizes)
    comparable(*models.values())
    found = {}
    for name, model in models.items():
        run = fit(
            model,
            digits,
            Recipe(epochs=5, batch=64, lr=4e-3, seed=seed, evaluate_every=5),
            step=lambda model, batch: model.loss(levels[batch.index]),
            score=lambda model, _: {"bits": model.loss(test) / math.log(2)},
            device="cpu",
            quiet=True,
        )
        found[f"{name}, bits"] = run.history[-1]["test_bits"]
        visible = model.sizes.neighbours.visible
        found[f"{name}, pixels seen"] = visible.sum().item() / test[0].numel()
    return found


PAIRS = {
    "1-D 4 needs fewer bits than full attention": ("full, bits", "1-D 4, bits"),
    "1-D 8 needs fewer bits than 1-D 4": ("1-D 4, bits", "1-D 8, bits"),
    "1-D 16 needs fewer bits than 1-D 8": ("1-D 8, bits", "1-D 16, bits"),
    "2-D 4 needs fewer bits than 1-D 4": ("1-D 4, bits", "2-D 4, bits"),
    "2-D 8 needs fewer bits than 1-D 8": ("1-D 8, bits", "2-D 8, bits"),
}
