"""Does a ViT whose positions come from a PEG work on images larger than those it was trained on?

A digit of 8x8 pixels lies on a black canvas. The models learn on canvases of 10x10 pixels, 25
patches, with the digit at a new one of its nine places in each epoch. They are tested on canvases
of 10, 12, 14 and 16, with the digit anywhere. They differ in where positions come from: a learned
table, stretched for larger canvases; a PEG; a PEG on a ring, which has no border and so tells a
token its neighbours but not its place; or nothing.
"""

import torch
import torch.nn.functional as F

from benchmarks.claims import comparable
from vitcourse import ViT, data
from vitcourse.data import Data
from vitcourse.data.augment import Augment
from vitcourse.papers.cpvt import CPVT, PEG
from vitcourse.parts import NoPosition
from vitcourse.train import RECIPES, build_model, fit

SEEDS = 3
SIZES = 10, 12, 14, 16


class RingPEG(PEG):
    """A PEG whose map has no border: its last column is beside its first."""

    def __init__(self, dim):
        super().__init__(dim)
        self.proj.padding_mode = "circular"


MODELS = {
    "table": ViT,
    "PEG": CPVT,
    "ring": CPVT.variant(Peg=RingPEG),
    "none": ViT.variant(Position=NoPosition),
}


def pasted(images, side, seed):
    """Each image somewhere on a black canvas: (n, C, H, W) -> (n, C, side, side)."""
    n, channels, height, width = images.shape
    canvas = images.new_zeros(n, channels, side, side)
    generator = torch.Generator().manual_seed(seed)
    ys = torch.randint(side - height + 1, (n,), generator=generator)
    xs = torch.randint(side - width + 1, (n,), generator=generator)
    for place, image, y, x in zip(canvas, images, ys, xs, strict=True):
        place[:, y : y + height, x : x + width] = image
    return canvas


def measure(seed):
    """Accuracies by model and size of the canvas, and how they change with it."""
    digits = data.load("digits")
    tests = {side: pasted(digits.test_images, side, seed + 1000) for side in SIZES}
    middle = F.pad(digits.images, (1, 1, 1, 1))
    canvas = Data("canvas", middle, digits.labels, tests[10], digits.test_labels, digits.classes)
    recipe = RECIPES["smoke"].but(model="Nano/2", epochs=22, batch=32, seed=seed)
    recipe = recipe.but(augment=Augment(shift=1), evaluate_every=22)
    models = {name: build_model(recipe, canvas, cls, depth=2) for name, cls in MODELS.items()}
    comparable(*models.values())
    found = {}
    for name, model in models.items():
        run = fit(model, canvas, recipe, device="cpu", quiet=True)
        for side, images in tests.items():
            found[f"{name}, {side}x{side}"] = accuracy(run.model, canvas.normalise(images), canvas)
        found[f"{name}, change to 16x16"] = found[f"{name}, 16x16"] - found[f"{name}, 10x10"]
    return found


@torch.no_grad()
def accuracy(model, images, canvas):
    """How many of the test images a model names."""
    return (model(images).argmax(dim=1) == canvas.test_labels).float().mean().item()


PAIRS = {
    **{
        f"canvas {side}x{side}: a PEG is better than a table": (
            f"PEG, {side}x{side}",
            f"table, {side}x{side}",
        )
        for side in SIZES
    },
    "from 10x10 to 16x16 a PEG loses less than a table": (
        "PEG, change to 16x16",
        "table, change to 16x16",
    ),
    "canvas 10x10: a PEG is better than no position": ("PEG, 10x10", "none, 10x10"),
    "canvas 10x10: a PEG is better than one on a ring": ("PEG, 10x10", "ring, 10x10"),
    "canvas 16x16: a PEG is better than one on a ring": ("PEG, 16x16", "ring, 16x16"),
}
