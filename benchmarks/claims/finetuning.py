"""What does a trained body save when images are few, and an interpolated table when they grow?

Few images, 10, 30, 100 or 300, and three ways to learn from them: only a new head learns (probe),
all of the trained model learns (fine-tuning), or all of a new model learns (scratch). Where a way
has two learning rates, what counts is the better one on the mean over seeds. Two tasks:

- digits: a Nano/4 has learned the digits 0 to 4 from about 900 images. Now 5 to 9 are to be told
  apart, in 150 steps. All ways are tested on the same 400 digits.
- forms: the trained model `shapes` knows 4 forms in red or blue, from 4000 images. Now the forms
  are to be told apart in two other colours, in 100 steps. All are tested on the same 400 pictures.

Larger images: a Nano/8 learns at 32x32 whether red is left of blue. It is tested at 48x48, with its
position table fitted to the larger grid in three ways, and again after one epoch at 48x48.
"""

import torch
import torch.nn.functional as F

from vitcourse import data, make_vit, weights
from vitcourse.data import Data
from vitcourse.data.digits import digits_all
from vitcourse.train import RECIPES, Recipe, build_model, evaluate, fit
from vitcourse.vit import resize_position

SEEDS = 3
COUNTS = (10, 30, 100, 300)
RATES = {"probe": (0.05,), "fine-tuning": (0.001, 0.004), "scratch": (0.001, 0.004)}
TABLES = ("interpolated in 2-D", "interpolated as a list", "old rows first, then zeros")
LARGE = 48
RELATION = Recipe(model="Nano/8", epochs=8, batch=64, lr=1.5e-3, gain=1.0, position_std=0.5)


def measure(seed):
    """Accuracies on digits 5 to 9, on forms, and on the relation of larger images."""
    return digits(seed) | forms(seed) | larger_images(seed)


def digits(seed):
    """From the digits 0 to 4 to the digits 5 to 9."""
    images, labels = digits_all()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    images, labels = images[order], labels[order]
    low, high = labels < 5, labels >= 5
    old = Data("0-4", images[low], labels[low], images[low], labels[low], tuple("01234"))
    images, labels = images[high], labels[high] - 5
    recipe = RECIPES["smoke"].but(epochs=30, seed=seed, evaluate_every=1000)
    trained = fit(build_model(recipe, old), old, recipe, device="cpu", quiet=True).model
    found = {}
    for count in COUNTS:
        part = (images[:count], labels[:count], images[-400:], labels[-400:])
        new = Data("5-9", *part, tuple("56789"))
        batch = min(count, 50)
        ours = recipe.but(batch=batch, epochs=150 * batch // count)
        for name, accuracy in three_ways(trained, new, ours).items():
            found[f"digits, {count} images, {name}"] = accuracy
    return found


def forms(seed):
    """From forms in red and blue to forms in two other colours."""
    drawn = data.load("shapes", train=max(COUNTS), test=400, seed=10 + seed)
    images, test_images = (x[:, [1, 2, 0]] for x in (drawn.images, drawn.test_images))
    labels, test_labels = drawn.labels // 2, drawn.test_labels // 2
    recipe = Recipe(gain=0.5, position_std=0.5, warmup=0.2, seed=seed, evaluate_every=1000)
    found = {}
    for count in COUNTS:
        part = (images[:count], labels[:count], test_images, test_labels)
        new = Data("forms", *part, ("circle", "square", "triangle", "cross"))
        batch = min(count, 20)
        ours = recipe.but(batch=batch, epochs=100 * batch // count)
        for name, accuracy in three_ways(data.trained("shapes"), new, ours).items():
            found[f"forms, {count} images, {name}"] = accuracy
    return found


def three_ways(trained, new, recipe):
    """The accuracy of each way to learn the new task, at each of its rates."""
    found = {}
    for way, rates in RATES.items():
        for rate in rates:
            model = build_model(recipe, new)
            if way != "scratch":
                weights.load(model, without_head(trained.state_dict()))
            model.requires_grad_(way != "probe")
            model.head.requires_grad_()
            run = fit(model, new, recipe.but(lr=rate), device="cpu", quiet=True)
            found[f"{way}, rate {rate}"] = run.accuracy
    return found


def without_head(state):
    """All but the head: what goes from one task to another."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


def larger_images(seed):
    """The accuracy at 32x32, at 48x48 with each table, and there after an epoch."""
    small = data.load("shapes", task="relation", train=2400, test=1000)
    recipe = RELATION.but(seed=seed, evaluate_every=1000)
    run = fit(build_model(recipe, small), small, recipe, device="cpu", quiet=True)
    state, found = run.model.state_dict(), {"32x32": run.accuracy}
    large = Data(
        "larger",
        enlarge(small.images),
        small.labels,
        enlarge(small.test_images),
        small.test_labels,
        small.classes,
    )
    for how in TABLES:
        model = make_vit("Nano/8", image=LARGE, classes=2)
        weights.load(model, {**state, "position.table": fitted(state["position.table"], how)})
        found[f"48x48, {how}"] = evaluate(model, large, "cpu")["accuracy"]
        again = recipe.but(epochs=1, lr=3e-4)
        run = fit(model, large, again, device="cpu", quiet=True)
        found[f"48x48, {how}, one epoch"] = run.accuracy
    return found


def enlarge(images):
    """Pictures uint8 (n, C, 32, 32) -> (n, C, 48, 48)."""
    larger = F.interpolate(images.float(), size=LARGE, mode="bilinear", antialias=True)
    return larger.round().clamp(0, 255).to(torch.uint8)


def fitted(table, how):
    """The table (1, 1+16, D) for a grid of 6x6: (1, 1+36, D)."""
    if how == TABLES[0]:
        return resize_position(table, (4, 4), (6, 6), 1)
    token, places = table[:, :1], table[:, 1:].transpose(1, 2)  # (1, D, 16)
    if how == TABLES[1]:
        places = F.interpolate(places, size=36, mode="linear")
    else:
        places = F.pad(places, (0, 36 - 16))
    return torch.cat([token, places.transpose(1, 2)], dim=1)


def best(means, task, count, way):
    """The accuracy of a way at its better rate."""
    return max(means[f"{task}, {count} images, {way}, rate {rate}"] for rate in RATES[way])


def lead(means, task, count, way):
    """By how much a way is ahead of a new model."""
    return best(means, task, count, way) - best(means, task, count, "scratch")


CLAIMS = {
    "digits: a new model is as good as fine-tuning, or better, within one per cent": (
        lambda means: all(
            lead(means, "digits", n, "fine-tuning") < 0.01
            and best(means, "digits", n, "scratch") > 0.7
            for n in COUNTS
        )
    ),
    "digits: a probe is behind the other two by more than a tenth": (
        lambda means: all(
            best(means, "digits", n, "probe") < best(means, "digits", n, way) - 0.1
            for n in COUNTS
            for way in ("fine-tuning", "scratch")
        )
    ),
    "forms: from 30 images on, fine-tuning and a probe are ahead of a new model by over a fifth": (
        lambda means: all(
            lead(means, "forms", n, way) > 0.2
            for n in COUNTS[1:]
            for way in ("fine-tuning", "probe")
        )
    ),
    "48x48: a table interpolated in 2-D loses something, and less than a tenth": (
        lambda means: 0 < means["32x32"] - means[f"48x48, {TABLES[0]}"] < 0.1
    ),
    "48x48: the two other tables lose more than a fifth, and an epoch does not make that good": (
        lambda means: all(
            means[f"48x48, {how}"] < means["32x32"] - 0.2
            and means[f"48x48, {how}, one epoch"] < means[f"48x48, {TABLES[0]}"]
            for how in TABLES[1:]
        )
    ),
}
