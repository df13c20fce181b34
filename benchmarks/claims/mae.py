"""How much should be hidden? And what is filling gaps worth where labels are few?

Digits, 16 patches of 2x2 pixels, a Nano/2 as encoder. It is pre-trained on all training images
without their labels, unchanged and in batches of 64; the pixels of so small patches are told as
they are, not normalised patch by patch.

How much: 2, 8, 12 or 14 patches are hidden, and all models have the same steps. The error is the
mean square on hidden patches of the test images, beside that of the mean training image; the probe
is a new head alone, trained with 100 labelled images.

Few labels, 10, 30, 100 or 300, as many of each class. With 12 of 16 patches hidden, and a longer
pre-training: only a new head learns (probe), or all learns (fine-tuning); beside it, a new ViT. All
three have 400 steps and the same augmentation. The learning rate of each was chosen with a seed
that is not among those recorded. All are tested on the test images.
"""

import time
from dataclasses import replace

import torch

from vitcourse import data
from vitcourse.data.augment import Augment
from vitcourse.papers import mae
from vitcourse.train import RECIPES, build_model, fit

SEEDS = 3
LABELS = 10, 30, 100, 300
HIDDEN = 2, 8, 12, 14  # of 16 patches
SHORT, LONG = 40, 200  # epochs
STEPS = 400  # with labels
RATES = {"probe": 0.02, "fine-tuning": 0.001, "new": 0.002}


class Decoder(mae.Decoder):
    """One that fits the encoder."""

    dim, depth, heads = 32, 1, 2


def measure(seed):
    """Errors and probes by how much was hidden; accuracies by how many were labelled."""
    digits = data.load("digits")
    found = {"mean image: error": error_of_mean(digits)}
    for count in HIDDEN:
        model, error = pretrained(digits, count, SHORT, seed)
        found[f"{count} hidden: error"] = error
        found[f"{count} hidden: probe"] = taught(model, digits, 100, "probe", seed)
    start = time.process_time()
    model, found["long: error"] = pretrained(digits, 12, LONG, seed)
    found["long: CPU seconds"] = time.process_time() - start
    return found | by_labels(model, digits, seed)


def pretraining(epochs, seed):
    """The recipe of a pre-training."""
    recipe = RECIPES["smoke"].but(model="Nano/2", batch=64, augment=Augment())
    return recipe.but(epochs=epochs, seed=seed, evaluate_every=epochs)


def pretrained(digits, count, epochs, seed):
    """An MAE that has learned without labels, and its error on the test images."""
    model = mae.MAE.variant(Head=Decoder, masked=count / 16, normalised=False)
    recipe = pretraining(epochs, seed)
    model = build_model(recipe, digits, model)
    run = fit(model, digits, recipe, mae.step, score=mae.score, device="cpu", quiet=True)
    return run.model, run.history[-1]["test_error"]


def error_of_mean(digits):
    """The mean square that is left where the mean training image is the answer everywhere."""
    mean = digits.normalise(digits.images).mean(dim=0)
    return (digits.normalise(digits.test_images) - mean).square().mean().item()


def labelled(data, count, seed):
    """The data with `count` training images, as many of each class, drawn by the seed.

    They are normalised by the statistics of all training images, which need no labels. With one
    seed, the images of a small count are among those of a larger.
    """
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))
    each = count // len(data.classes)
    of_class = [order[data.labels[order] == c] for c in range(len(data.classes))]
    chosen = torch.cat([numbers[:each] for numbers in of_class])
    part = replace(data, images=data.images[chosen], labels=data.labels[chosen])
    return part.normalised_by(*data.statistics)


def by_labels(model, digits, seed):
    """The accuracy of each way to learn with each number of labels, and ten points above new."""
    found = {}
    for count in LABELS:
        for way in RATES:
            found[f"{count} labels: {way}"] = taught(model, digits, count, way, seed)
        found[f"{count} labels: new, plus 0.1"] = found[f"{count} labels: new"] + 0.1
    return found


def taught(model, digits, count, way, seed):
    """The accuracy of a pre-trained encoder, or of a new ViT, after its steps with labels."""
    few, batch = labelled(digits, count, seed), min(count, 50)
    recipe = RECIPES["smoke"].but(model="Nano/2", batch=batch, epochs=STEPS * batch // count)
    recipe = recipe.but(lr=RATES[way], seed=seed, evaluate_every=recipe.epochs)
    new = build_model(recipe, few)
    vit = new if way == "new" else mae.as_vit(model, len(few.classes))
    vit.requires_grad_(way != "probe")
    vit.head.requires_grad_()
    return fit(vit, few, recipe, device="cpu", quiet=True).accuracy


def worth(counts=LABELS):
    """What is expected of pre-training, for each number of labels."""
    expected = {}
    for count in counts:
        for way in ("fine-tuning", "probe"):
            pair = f"{count} labels: {way}", f"{count} labels: new"
            expected[f"with {count} labels, {way} beats a new model"] = pair
        pair = f"{count} labels: fine-tuning", f"{count} labels: new, plus 0.1"
        expected[f"with {count} labels, fine-tuning is worth ten points"] = pair
    return expected


PAIRS = {
    "with 2 hidden, the gaps are filled better than with 12": (
        "12 hidden: error",
        "2 hidden: error",
    ),
    "with 14 hidden, they are filled better than by the mean image": (
        "mean image: error",
        "14 hidden: error",
    ),
    "to a probe, 8 hidden are worth more than 2": ("8 hidden: probe", "2 hidden: probe"),
    "to a probe, 12 hidden are worth more than 2": ("12 hidden: probe", "2 hidden: probe"),
    "to a probe, 12 hidden are worth more than 14": ("12 hidden: probe", "14 hidden: probe"),
    **worth(),
}
