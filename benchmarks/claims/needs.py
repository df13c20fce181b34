"""What does a ViT need, data or operations, where a CNN needs less?

Three families on digits: a ViT, a CNN, and a hybrid, which is the same ViT with two convolutions in
place of the patch embedding. Each has a small and a large size, and learns from 100, 300 and 1000
training images, each seed from others. Every model makes the same number of steps of the same size,
so fewer images are seen more often. The recipe is "smoke", which was chosen for a ViT on all 1437
training images. Accuracies are those of the last epoch, on the 360 test images. Operations are the
multiply-adds for one image.
"""

from dataclasses import replace
from functools import cache

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.digits import Cnn
from vitcourse import Config, ViT, data
from vitcourse.train import RECIPES, fit
from vitcourse.vit import truncated_normal_

SEEDS = 3
IMAGES = 100, 300, 1000
STEPS, BATCH = 360, 50


class ConvStem(nn.Module):
    """Two convolutions and a pooling in place of the patch embedding, for patches of 2x2 pixels."""

    def __init__(self, channels, dim, patch):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, dim // 2, 3, padding=1, bias=False),
            nn.BatchNorm2d(dim // 2),
            nn.ReLU(),
            nn.MaxPool2d(patch),
            nn.Conv2d(dim // 2, dim, 3, padding=1),
        )

    def forward(self, images):
        x = self.layers(images)  # (B, D, h, w)
        return x.flatten(2).transpose(1, 2), tuple(x.shape[2:])  # (B, N, D)


Hybrid = ViT.variant(Tokenizer=ConvStem)
SIZES = {"small": dict(dim=24, depth=2, heads=3), "large": dict(dim=48, depth=4, heads=3)}
WIDTHS = {"small": 10, "large": 35}  # about as many parameters as the ViT has
FAMILIES = "ViT", "CNN", "hybrid"
MODELS = [f"{family}, {size}" for family in FAMILIES for size in SIZES]


def build(name, seed=0):
    """A new model of that name, begun as the recipe says."""
    family, size = name.split(", ")
    torch.manual_seed(seed)
    if family == "CNN":
        return Cnn(1, 10, WIDTHS[size])
    cfg = Config(patch=2, image=8, channels=1, classes=10, **SIZES[size])
    model, recipe = (Hybrid if family == "hybrid" else ViT)(cfg), RECIPES["smoke"]
    truncated_normal_(model.position.table, std=recipe.position_std)
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            truncated_normal_(layer.weight, std=recipe.gain * layer.in_features**-0.5)
    return model


@torch.no_grad()
def operations(model):
    """The multiply-adds of a model for one image of 8x8."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 1, 8, 8))
    return counter.get_total_flops() // 2  # it counts a multiplication and an addition as two


@cache
def few(images, seed):
    """The digits, with only that many images to train on."""
    digits = data.load("digits")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(digits.labels), generator=generator)[:images]
    return replace(digits, images=digits.images[chosen], labels=digits.labels[chosen])


def accuracy(name, images, seed):
    """The accuracy on the test images after training on some."""
    epochs = STEPS // (images // BATCH)
    recipe = RECIPES["smoke"].but(epochs=epochs, batch=BATCH, seed=seed, evaluate_every=epochs)
    run = fit(build(name, seed), few(images, seed), recipe, device="cpu", quiet=True)
    return round(run.accuracy, 5)  # as it is recorded, so that the spread is that of the record


def measure(seed):
    """Sizes of all models, and accuracies by model and number of training images."""
    found = {}
    for name in MODELS:
        model = build(name)
        found[f"{name}: operations"] = operations(model)
        found[f"{name}: parameters"] = sum(p.numel() for p in model.parameters())
        for images in IMAGES:
            found[f"{name}: {images} images"] = accuracy(name, images, seed)
    return found


def lead(means, first, second, images):
    """By how much the first model is more accurate than the second."""
    return means[f"{first}: {images} images"] - means[f"{second}: {images} images"]


CLAIMS = {
    "the small CNN is ahead of the small ViT by 2 points or more, with any number of images, and "
    "needs less than a third of its operations": lambda m: (
        all(lead(m, "CNN, small", "ViT, small", n) >= 0.02 for n in IMAGES)
        and 3 * m["CNN, small: operations"] < m["ViT, small: operations"]
    ),
    "the small hybrid is ahead of the small ViT by 2 points or more, with any number of images, "
    "and needs less than a quarter more operations": lambda m: (
        all(lead(m, "hybrid, small", "ViT, small", n) >= 0.02 for n in IMAGES)
        and m["hybrid, small: operations"] < 1.25 * m["ViT, small: operations"]
    ),
    "the fewer the images, the larger the small CNN's lead over the small ViT": lambda m: (
        lead(m, "CNN, small", "ViT, small", 100)
        > lead(m, "CNN, small", "ViT, small", 300)
        > lead(m, "CNN, small", "ViT, small", 1000)
    ),
    "with 1000 images the small CNN leads the large ViT, which needs 30 times its operations": (
        lambda m: (
            lead(m, "CNN, small", "ViT, large", 1000) > 0
            and m["ViT, large: operations"] > 30 * m["CNN, small: operations"]
        )
    ),
    "with any number of images the large CNN and the large hybrid are ahead of the large ViT": (
        lambda m: all(
            lead(m, f"{family}, large", "ViT, large", n) > 0
            for family in ("CNN", "hybrid")
            for n in IMAGES
        )
    ),
}
