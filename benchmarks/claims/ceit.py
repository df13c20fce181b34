"""Do convolutions inside the MLPs, and before them, help where there are few images?

Digits, enlarged to 16 x 16 pixels, 16 tokens, 4 blocks. A ViT; the same with LeFF in place of its
MLPs; and that with the stem of convolution and pooling in place of its patches. All learn about as
many numbers: the hidden width of LeFF is smaller for it. Each learns from 60, 200 and 600 training
images, each seed from others, always in 240 steps of 20 images. Accuracies are those after the last
step, on the 360 test images.

Then LCA, with 600 images: a CeiT of 4 blocks and its LCA, and a ViT with stem and LeFF of 5 blocks.
How well does the class token behind each of the first four blocks tell the classes? A linear map,
fitted to one-hot labels of the training images by least squares, says it of the test images.
"""

import torch
import torch.nn.functional as F

from benchmarks.claims import comparable
from benchmarks.claims.cct import few
from benchmarks.claims.t2t_vit import enlarged
from vitcourse import ViT, data
from vitcourse.papers.ceit import CeiT, ImageToTokens, LeFF
from vitcourse.probe import record_attention, record_tokens
from vitcourse.train import RECIPES, build_model, fit

SEEDS = 3
IMAGES = 60, 200, 600
STEPS, BATCH = 240, 20


class NarrowStem(ImageToTokens):
    """The stem, as wide as digits need it."""

    width = 24


Stemmed = ViT.variant(Mlp=LeFF, Tokenizer=NarrowStem)
Full = CeiT.variant(Tokenizer=NarrowStem)
SLIM = dict(mlp_ratio=3.5)
MODELS = {
    "ViT": (ViT, {}),
    "LeFF": (ViT.variant(Mlp=LeFF), SLIM),
    "LeFF and stem": (Stemmed, SLIM),
}
PROBED = {"one block more": (Stemmed, dict(depth=5, **SLIM)), "LCA": (Full, SLIM)}


def trained(models, digits, images, seed):
    """The runs of these models, each from the same few images."""
    epochs = STEPS * BATCH // images
    recipe = RECIPES["smoke"].but(model="Nano/4", epochs=epochs, batch=BATCH, seed=seed)
    recipe = recipe.but(evaluate_every=epochs)
    some = few(digits, images, seed)
    models = {n: build_model(recipe, digits, cls, **sizes) for n, (cls, sizes) in models.items()}
    comparable(*models.values())
    return {n: fit(m, some, recipe, device="cpu", quiet=True) for n, m in models.items()}, some


def measure(seed):
    """Accuracies by model and number of images; what class tokens tell, and what LCA reads."""
    digits, found = enlarged(data.load("digits")), {}
    for images in IMAGES:
        runs, _ = trained(MODELS, digits, images, seed)
        found |= {f"{name}, {images} images": run.accuracy for name, run in runs.items()}
    runs, some = trained(PROBED, digits, 600, seed)
    for name, run in runs.items():
        found[f"{name}, accuracy"] = run.accuracy
        told = [told_by(tokens) for tokens in class_tokens(run.model, some)]
        found |= {f"{name}, class token {i}": told[i - 1] for i in (1, 2, 3, 4)}
        found[f"{name}, first two class tokens"] = sum(told[:2]) / 2
    with torch.no_grad(), record_attention(runs["LCA"].model) as maps:
        runs["LCA"].model(digits.normalise(digits.test_images))
    weights = maps[-1].mean(dim=(0, 1, 2)).tolist()  # one a layer
    return found | {f"LCA, weight of layer {i}": weight for i, weight in enumerate(weights, 1)}


@torch.no_grad()
def class_tokens(model, digits):
    """Behind each block: class tokens and labels, of training and test images."""
    parts = (digits.images, digits.labels), (digits.test_images, digits.test_labels)
    layers = []
    for images, labels in parts:
        with record_tokens(model) as tokens:
            model(digits.normalise(images))
        layers.append([(x[:, 0], labels) for x in tokens])
    return zip(*layers, strict=True)


def told_by(parts):
    """The accuracy on test images of a linear map, fitted to training images."""
    (x, labels), (test_x, test_labels) = parts
    mean, std = x.mean(dim=0), x.std(dim=0)
    x, test_x = (F.pad((t - mean) / std, (0, 1), value=1.0).double() for t in (x, test_x))
    ridge = torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(x.T @ x + ridge, x.T @ F.one_hot(labels, 10).double())
    return ((test_x @ weight).argmax(dim=1) == test_labels).double().mean().item()


PAIRS = {
    **{
        f"{images} images: LeFF is better than the MLP": (
            f"LeFF, {images} images",
            f"ViT, {images} images",
        )
        for images in IMAGES
    },
    **{
        f"{images} images: with LeFF, the stem is better than patches": (
            f"LeFF and stem, {images} images",
            f"LeFF, {images} images",
        )
        for images in IMAGES
    },
    "LCA is better than one block more": ("LCA, accuracy", "one block more, accuracy"),
    "with LCA, the first two class tokens tell more": (
        "LCA, first two class tokens",
        "one block more, first two class tokens",
    ),
}
