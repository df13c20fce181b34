"""Which of CCT's changes helps where there are few images, the convolutions or the pooling?

Digits, 16 patches. ViT-Lite has a class token; CVT pools the sequence in its place; CCT is CVT with
a convolutional tokenizer. Each learns from 60, 200 and 600 training images, each seed from others,
always in 480 steps of 20 images. Accuracies are those after the last step, on the 360 test images.
A gain is the accuracy minus that of the model without the change.
"""

from dataclasses import replace

import torch

from benchmarks.claims import comparable
from vitcourse import data
from vitcourse.papers.cct import CCT, CVT, ViTLite
from vitcourse.train import RECIPES, build_model, fit

SEEDS = 3
IMAGES = 60, 200, 600
STEPS, BATCH = 480, 20
MODELS = {"ViT-Lite": ViTLite, "CVT": CVT, "CCT": CCT}


def few(digits, images, seed):
    """The digits, with only that many images to train on."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(digits.labels), generator=generator)[:images]
    return replace(digits, images=digits.images[chosen], labels=digits.labels[chosen])


def measure(seed):
    """Accuracies by model and number of training images, and what each change gains."""
    digits, found = data.load("digits"), {}
    for images in IMAGES:
        epochs = STEPS * BATCH // images
        recipe = RECIPES["smoke"].but(model="Nano/2", epochs=epochs, batch=BATCH, seed=seed)
        recipe = recipe.but(evaluate_every=epochs)
        models = {name: build_model(recipe, digits, cls) for name, cls in MODELS.items()}
        comparable(*models.values())
        for name, model in models.items():
            run = fit(model, few(digits, images, seed), recipe, device="cpu", quiet=True)
            found[f"{name}, {images} images"] = run.accuracy
        acc = [found[f"{name}, {images} images"] for name in MODELS]
        found[f"gain of pooling, {images} images"] = acc[1] - acc[0]
        found[f"gain of convolutions, {images} images"] = acc[2] - acc[1]
    for change in ("pooling", "convolutions"):
        gains = [found[f"gain of {change}, {images} images"] for images in IMAGES]
        found[f"gain of {change}"] = sum(gains) / len(gains)
    return found


PAIRS = {
    **{
        f"{images} images: pooling is better than a class token": (
            f"CVT, {images} images",
            f"ViT-Lite, {images} images",
        )
        for images in IMAGES
    },
    **{
        f"{images} images: convolutions are better than patches": (
            f"CCT, {images} images",
            f"CVT, {images} images",
        )
        for images in IMAGES
    },
    "on average, convolutions gain more than pooling": ("gain of convolutions", "gain of pooling"),
    "convolutions gain more with 60 images than with 600": (
        "gain of convolutions, 60 images",
        "gain of convolutions, 600 images",
    ),
}
