"""Are tokens better that are made of overlapping windows, and better still with layers between?

Digits, enlarged to 16 x 16 pixels, 16 tokens, 4 blocks of width 48, 24 epochs. Three tokenizers
before the same ViT: patches, one soft split (windows of 7 x 7 pixels, 4 apart), and two soft splits
with a layer between. What differs besides: at most 5 % of the parameters. All layers of a tokenizer
begin at 1/sqrt(inputs), as those of patches do.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.claims import comparable
from vitcourse import data
from vitcourse.papers.t2t_vit import T2TViT, TokensToToken
from vitcourse.train import RECIPES, build_model, fit
from vitcourse.vit import PatchEmbed, truncated_normal_

SEEDS = 3


class OneSplit(TokensToToken):
    """Windows overlap, and nothing is between."""

    splits = ((7, 4, 2),)


class TwoSplits(TokensToToken):
    """As published, with one split fewer."""

    splits, width = ((3, 2, 1), (3, 2, 1)), 12


TOKENIZERS = {"patches": PatchEmbed, "one soft split": OneSplit, "two soft splits": TwoSplits}


def enlarged(digits):
    """The same digits, twice as high and wide."""

    def twice(images):
        images = F.interpolate(images.float(), scale_factor=2, mode="bilinear")
        return images.round().to(torch.uint8)

    return replace(digits, images=twice(digits.images), test_images=twice(digits.test_images))


def measure(seed):
    """The accuracy with each tokenizer."""
    digits = enlarged(data.load("digits"))
    recipe = RECIPES["smoke"].but(epochs=24, seed=seed, evaluate_every=24)
    models = {
        name: build_model(recipe, digits, T2TViT.variant(Tokenizer=tokenizer))
        for name, tokenizer in TOKENIZERS.items()
    }
    comparable(*models.values())
    for model in models.values():
        for layer in model.patch_embed.modules():
            if isinstance(layer, nn.Linear):
                truncated_normal_(layer.weight, std=layer.in_features**-0.5)
    return {
        name: fit(model, digits, recipe, device="cpu", quiet=True).accuracy
        for name, model in models.items()
    }


PAIRS = {
    "two soft splits are more accurate than patches": ("two soft splits", "patches"),
    "one soft split is more accurate than patches": ("one soft split", "patches"),
    "two soft splits are more accurate than one": ("two soft splits", "one soft split"),
}
