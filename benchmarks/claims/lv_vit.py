"""Does a label for every patch help a ViT to learn what is in one of four places?

A canvas of four digits, two by two; a white corner marks one of them, and that digit is the class.
The same LV-ViT learns 2,000 canvases for 8 epochs: from the classes alone, and with the digit that
each of the 16 patches shows as its label. Both read the same logits. MixToken is off: where the
mark tells what counts, the part of an image that is seen says nothing about its class.

Tried first, with one seed: 4,000 canvases, 12 epochs. There both reach 0.95, and half way, too, one
is as good as the other: enough labels of images make up for those of patches.
"""

import torch
import torch.nn.functional as F

from benchmarks.claims import comparable
from vitcourse import data
from vitcourse.data import Data
from vitcourse.data.augment import Augment
from vitcourse.papers.lv_vit import ConvStem, LVViT, training_step
from vitcourse.train import RECIPES, build_model, fit
from vitcourse.train.loop import classify

SEEDS = 3


class SmallStem(ConvStem):
    """A stem for small pictures."""

    widths = 16, 16, 16


def canvases(images, labels, count, seed):
    """Four digits each, one marked: images (n, 1, 16, 16), classes (n,), digits (n, 2, 2)."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(images), (count, 2, 2), generator=generator)
    marked = torch.randint(4, (count,), generator=generator)
    pictures = images[chosen, 0]  # (n, 2, 2, 8, 8)
    pictures = pictures.permute(0, 1, 3, 2, 4).reshape(count, 1, 16, 16)
    for i, place in enumerate(marked.tolist()):
        y, x = 14 * (place // 2), 14 * (place % 2)
        pictures[i, 0, y : y + 2, x : x + 2] = 255
    digits = labels[chosen]
    return pictures, digits.flatten(1)[torch.arange(count), marked], digits


def of_patches(digits):
    """The digit that each of the 4 x 4 patches shows: (n, 2, 2) -> (n, 16)."""
    return digits.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)


def measure(seed):
    """Accuracy half way and at the end, and how many patches are named as the digit they show."""
    source = data.load("digits")
    images, labels, digits = canvases(source.images, source.labels, 2000, seed)
    test_images, test_labels, test_digits = canvases(
        source.test_images, source.test_labels, 1000, seed + 1000
    )
    made = Data("canvases", images, labels, test_images, test_labels, source.classes)
    taught = F.one_hot(of_patches(digits), 10).float()
    recipe = RECIPES["smoke"].but(epochs=8, seed=seed, evaluate_every=4, augment=Augment())
    steps = {
        "image labels": classify,
        "token labels": training_step(lambda batch: taught[batch.index], mix=False),
    }
    cls = LVViT.variant(Tokenizer=SmallStem)
    comparable(*(build_model(recipe, made, cls) for _ in steps))
    found = {}
    for name, step in steps.items():
        model = build_model(recipe, made, cls)
        run = fit(model, made, recipe, step, device="cpu", quiet=True)
        found[f"{name}, accuracy half way"] = run.history[3]["test_accuracy"]
        found[f"{name}, accuracy"] = run.accuracy
        with torch.no_grad():
            guesses = run.model.tokens(made.normalise(test_images))[1].argmax(-1)
        found[f"{name}, patches named"] = (guesses == of_patches(test_digits)).float().mean()
    return found


PAIRS = {
    "half way, token labels are more accurate": (
        "token labels, accuracy half way",
        "image labels, accuracy half way",
    ),
    "at the end, token labels are more accurate": (
        "token labels, accuracy",
        "image labels, accuracy",
    ),
    "token labels teach the second head which digit a patch shows": (
        "token labels, patches named",
        "image labels, patches named",
    ),
}
