"""Which way of making tokens reads a digit that lies now here, now there: one budget, six ways.

A digit of 12x12 pixels lies at one of the 25 places of a black canvas of 16x16, so patches of 4x4
cut it along other lines each time. Every model learns 320 canvases, and 3200 canvases, in as many
steps, with the same recipe and as many parameters within 5 %. Four of them replace the tokenizer,
or the positions, of the plain ViT and nothing else; the PiT has three stages, which begin with 49
tokens and end with 4, where the others have 16. Convolutions and ResNet are narrow, to fit.

A control more, added when a first run had shown that patches barely begin to learn in these steps:
patches with the many canvases and twice the steps. Operations are the multiplications and additions
for one image, attention counted.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.claims import comparable
from benchmarks.claims.cpvt import pasted
from benchmarks.claims.pit import begun, operations
from benchmarks.claims.t2t_vit import TwoSplits
from vitcourse import ViT, data
from vitcourse.data.augment import Augment
from vitcourse.papers.cct import ConvTokenizer
from vitcourse.papers.cpvt import CPVT
from vitcourse.papers.hybrid import ResNetEmbed
from vitcourse.papers.pit import PiT
from vitcourse.pyramid import PyramidConfig
from vitcourse.train import RECIPES, build_model, fit
from vitcourse.vit import truncated_normal_

SEEDS = 3
FEW, MANY = 320, 3200
SIDE, STEPS, BATCH = 16, 400, 40


class TwoConvs(ConvTokenizer):
    """The tokenizer of CCT with two narrow convolutions."""

    hidden = 12


MODELS = {
    "patches": ViT,
    "convolutions": ViT.variant(Tokenizer=TwoConvs),
    "soft splits": ViT.variant(Tokenizer=TwoSplits),
    "ResNet": ViT.variant(Tokenizer=ResNetEmbed.of(blocks=(1,), width=12)),
    "PEG": CPVT,
}
PYRAMID = PyramidConfig(
    dims=(20, 40, 80),
    depths=(1, 2, 1),
    heads=(2, 4, 8),
    patches=(2, 2, 2),
    mlp_ratios=(3.5,) * 3,
    image=SIDE,
    channels=1,
    classes=10,
)


def larger(images):
    """Half as high and wide again: 12x12 pixels."""
    images = F.interpolate(images.float(), size=(12, 12), mode="bilinear")
    return images.round().to(torch.uint8)


def canvases(count, seed):
    """So many canvases to learn from, each digit as often as another, and 720 to be tested on."""
    digits, generator = data.load("digits"), torch.Generator().manual_seed(seed)
    order = torch.randperm(len(digits.labels), generator=generator)
    chosen, asked = order.repeat(3)[:count], torch.arange(720) % len(digits.test_labels)
    return replace(
        digits,
        images=pasted(larger(digits.images[chosen]), SIDE, seed),
        labels=digits.labels[chosen],
        test_images=pasted(larger(digits.test_images[asked]), SIDE, seed + 1000),
        test_labels=digits.test_labels[asked],
    )


def built(recipe, made):
    """All models, each with the start values of the recipe."""
    models = {name: build_model(recipe, made, cls) for name, cls in MODELS.items()}
    for layer in models["soft splits"].patch_embed.modules():
        if isinstance(layer, nn.Linear):  # begin as patches do
            truncated_normal_(layer.weight, std=layer.in_features**-0.5)
    torch.manual_seed(recipe.seed)
    models["PiT"] = begun(PiT(PYRAMID), recipe)
    comparable(*models.values())
    return models


def measure(seed):
    """Accuracy and operations of all models, and what all but the first gain on average."""
    found = {}
    for count in (FEW, MANY):
        made, epochs = canvases(count, seed), STEPS * BATCH // count
        recipe = RECIPES["smoke"].but(batch=BATCH, seed=seed, augment=Augment())
        models = built(recipe, made)
        if count == MANY:
            models[LONGER] = build_model(recipe, made)
        for name, model in models.items():
            length = 2 * epochs if name == LONGER else epochs
            found[f"{name}, million operations"] = operations(model) / 1e6
            how = recipe.but(epochs=length, evaluate_every=length)
            run = fit(model, made, how, device="cpu", quiet=True)
            found[f"{name}, {count} canvases"] = run.accuracy
        before = found[f"patches, {count} canvases"]
        gains = [found[f"{name}, {count} canvases"] - before for name in OTHERS]
        found[f"mean gain, {count} canvases"] = sum(gains) / len(gains)
    return found


OTHERS, LONGER = ("convolutions", "soft splits", "ResNet", "PEG", "PiT"), "patches, twice the steps"
PAIRS = {
    **{
        f"{count} canvases: {name} better than patches": (
            f"{name}, {count} canvases",
            f"patches, {count} canvases",
        )
        for count in (FEW, MANY)
        for name in OTHERS
    },
    **{
        f"{MANY} canvases: {name} better than patches with twice the steps": (
            f"{name}, {MANY} canvases",
            f"{LONGER}, {MANY} canvases",
        )
        for name in OTHERS
    },
    "on average, the five gain more with few canvases than with many": (
        f"mean gain, {FEW} canvases",
        f"mean gain, {MANY} canvases",
    ),
}
CLAIMS = {
    "the PiT takes the fewest operations": lambda means: all(
        means["PiT, million operations"] < means[f"{name}, million operations"] for name in MODELS
    )
}
