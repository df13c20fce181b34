"""A backbone: do the maps of a pyramid tell better what each pixel shows than the one map of a ViT?

Images of 32x32 pixels, one form in each: every pixel is nothing, or one of eight kinds of form.
3,200 images, 400 steps, no augmentation, one recipe, parameters within 5 %. The head reads all maps
that a backbone has. What differs is the backbone:

    ViT                 patches of 4x4, one scale: a map of 8x8
    Swin, all maps      patches of 2x2, three stages: maps of 16x16, 8x8, 4x4
    Swin, last map      the same backbone, of which the head sees the map of 4x4 alone
    Swin, from 8x8      patches of 4x4, three stages: maps of 8x8, 4x4, 2x2

The last one is there to tell the pyramid from its fine first map. Measured: mean IoU on 500 test
images, also on those with a small form (radius 4 to 6) and with a large one (7 to 9) by themselves,
and the share of pixels for which "nothing" or "something" is right.
"""

import torch

from benchmarks.claims import comparable
from benchmarks.claims.many_scales import begun, operations
from vitcourse import Config, data
from vitcourse.papers.swin import Swin
from vitcourse.pyramid import PyramidConfig
from vitcourse.segment import OneMap, Segmenter, guesses, mean_iou, segment
from vitcourse.train import RECIPES, fit

SEEDS = 3
CLASSES = 9
SMALL = 6.5  # forms with a smaller radius are small


class SmallSwin(Swin):
    """Windows of 4x4."""

    window = 4


class LastMap(SmallSwin):
    """The same, of which a head sees the last map alone."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.widths = self.widths[-1:]

    def features(self, images):
        return super().features(images)[-1:]


def stages(first):
    """Three stages; the first has patches of that size."""
    return PyramidConfig(
        dims=(16, 32, 64),
        depths=(2, 2, 2),
        heads=(2, 4, 8),
        patches=(first, 2, 2),
        mlp_ratios=(2.0,) * 3,
        image=32,
        classes=CLASSES,
    )


BACKBONES = {
    "ViT": lambda: OneMap(Config(dim=44, depth=4, heads=4, patch=4, image=32, classes=CLASSES)),
    "Swin, all maps": lambda: SmallSwin(stages(2)),
    "Swin, last map": lambda: LastMap(stages(2)),
    "Swin, from 8x8": lambda: SmallSwin(stages(4)),
}


def truth(masks, labels):
    """The class of each pixel, 0 where nothing is: masks (n, H, W), labels (n,) -> (n, H, W)."""
    return masks * (labels + 1)[:, None, None]


def measure(seed):
    """Mean IoU and operations of all backbones."""
    made = data.load("shapes", train=3200, test=500, seed=seed)
    wanted = truth(made.extras["masks"], made.labels)
    test = truth(made.extras["test_masks"], made.test_labels)
    boxes = made.extras["test_boxes"]
    small = (boxes[:, 2] - boxes[:, 0] - 1) / 2 < SMALL
    recipe = RECIPES["smoke"].but(epochs=4, batch=32, seed=seed, evaluate_every=4)
    recipe = recipe.but(augment=data.augment.Augment())
    models = {}
    for name, build in BACKBONES.items():
        torch.manual_seed(seed)
        models[name] = Segmenter(begun(build(), recipe), CLASSES)
    comparable(*models.values())
    found = {}
    for name, model in models.items():
        found[f"{name}, million operations"] = operations(model, (3, 32, 32)) / 1e6
        run = fit(
            model,
            made,
            recipe,
            step=lambda model, batch: segment(model, batch, wanted),
            score=lambda model, made: {"mIoU": mean_iou(guesses(model, made), test, CLASSES)},
            device="cpu",
            quiet=True,
        )
        guess = guesses(run.model, made)
        found[f"{name}, mIoU"] = mean_iou(guess, test, CLASSES)
        found[f"{name}, mIoU of small forms"] = mean_iou(guess[small], test[small], CLASSES)
        found[f"{name}, mIoU of large forms"] = mean_iou(guess[~small], test[~small], CLASSES)
        found[f"{name}, something or nothing"] = ((guess > 0) == (test > 0)).float().mean().item()
    for size in ("small", "large"):
        key = f"mIoU of {size} forms"
        found[f"gain of the maps, {size} forms"] = (
            found[f"Swin, all maps, {key}"] - found[f"ViT, {key}"]
        )
    return found


def more(one, other, what="mIoU"):
    """A pair of figures."""
    return f"{one}, {what}", f"{other}, {what}"


PAIRS = {
    "all maps of a Swin beat the one map of a ViT": more("Swin, all maps", "ViT"),
    "all maps beat the last one alone": more("Swin, all maps", "Swin, last map"),
    "with maps from 16x16 it beats maps from 8x8": more("Swin, all maps", "Swin, from 8x8"),
    "maps from 8x8 beat the ViT, whose map is 8x8": more("Swin, from 8x8", "ViT"),
    "over the ViT, all maps gain more on small forms than on large ones": (
        "gain of the maps, small forms",
        "gain of the maps, large forms",
    ),
}
CLAIMS = {
    "the Swin from 16x16 takes fewer operations than the ViT": lambda means: (
        means["Swin, all maps, million operations"] < means["ViT, million operations"]
    )
}
