"""What does each ingredient of the training recipe add, on the digits?

Lesson 07 builds its loop in steps. Here each step is trained for 210 steps of the optimizer: a
Nano/4, half of the digits to train on and the other half to test on, 30 epochs. The split, the
first weights and the order of the images are those of the seed, the same in every row. The rows
that begin with "+" have all ingredients of the row before and one more. Three rows stand beside
them: the plain loop at a quarter of the rate, the plain loop with the average of its weights, and
all ingredients but the augmentation.

The learning rate 0.004, the augmentation and the start values are those of the recipe "smoke",
which was made for this model; the other values are usual ones and were not searched for.
"""

import copy
from functools import cache

import torch
import torch.nn.functional as F

from vitcourse.data import Data
from vitcourse.data.augment import Augment
from vitcourse.data.base import split
from vitcourse.data.digits import digits_all
from vitcourse.train import RECIPES, build_model, decay_groups, evaluate
from vitcourse.train.batches import Batches
from vitcourse.train.recipe import learning_rate

SEEDS = 5
PLAIN = RECIPES["smoke"].but(epochs=30, clip=0.0, augment=Augment())
STEPS = {
    "plain": dict(),
    "+ warm-up, cosine": dict(schedule=True),
    "+ decay groups": dict(groups=True),
    "+ augmentation": dict(augment=RECIPES["smoke"].augment),
    "+ smoothing": dict(smoothing=0.1),
    "+ clipping": dict(clip=1.0),
    "+ average": dict(ema=0.98),
}
WHOLE = {name: value for step in STEPS.values() for name, value in step.items()}
BESIDE = {
    "plain, rate / 4": dict(lr=PLAIN.lr / 4),
    "plain, average": dict(ema=0.98),
    "whole, no augmentation": {**WHOLE, "augment": Augment()},
}


def rows():
    """The settings of every row, by its name."""
    found, settings = {}, {}
    for name, step in STEPS.items():
        settings = {**settings, **step}
        found[name] = settings
    return found | BESIDE


@cache
def halves(seed):
    """The digits, one half to train on and one to test on."""
    images, labels = digits_all()
    train, test = split(labels, fraction=0.5, seed=seed)
    classes = tuple(str(digit) for digit in range(10))
    return Data("digits", images[train], labels[train], images[test], labels[test], classes)


def train(data, recipe, schedule=False, groups=False):
    """The loop of lesson 07, with what the row switches on: accuracy and loss on the test half."""
    model = build_model(recipe, data)
    average = copy.deepcopy(model).requires_grad_(False) if recipe.ema else None
    alike = [{"params": list(model.parameters()), "weight_decay": recipe.weight_decay}]
    parameters = decay_groups(model, recipe.weight_decay) if groups else alike
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, fused=True)
    batches = Batches(data, recipe)
    for step, batch in enumerate(batches.since(0)):
        if schedule:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step, batches.steps)
        F.cross_entropy(model(batch.images), batch.targets).backward()
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        if average:
            part = 1 - min(recipe.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for mine, new in zip(average.parameters(), model.parameters(), strict=True):
                    mine.lerp_(new, part)
    return evaluate(average or model, data, "cpu")


def measure(seed):
    """Accuracy and loss on the test half, for every row."""
    data, found = halves(seed), {}
    for name, settings in rows().items():
        loop = {key: settings[key] for key in ("schedule", "groups") if key in settings}
        values = {key: value for key, value in settings.items() if key not in loop}
        result = train(data, PLAIN.but(seed=seed, **values), **loop)
        found[name] = result["accuracy"]
        found[f"loss, {name}"] = result["loss"]
    return found


def gain(means, name, over):
    """How much more accurate one row is than another."""
    return means[name] - means[over]


NAMES = list(STEPS)
SMALL_STEPS = ("+ decay groups", "+ smoothing", "+ clipping")

CLAIMS = {
    "all ingredients together add more than 0.015": (
        lambda m: gain(m, "+ average", "plain") > 0.015
    ),
    "warm-up and cosine add more than 0.005": (
        lambda m: gain(m, "+ warm-up, cosine", "plain") > 0.005
    ),
    "without augmentation the whole loses more than 0.005": (
        lambda m: gain(m, "+ average", "whole, no augmentation") > 0.005
    ),
    "decay groups, smoothing and clipping change less than 0.005 each": (
        lambda m: all(abs(gain(m, n, NAMES[NAMES.index(n) - 1])) < 0.005 for n in SMALL_STEPS)
    ),
    "on top of the cosine the average changes less than 0.002": (
        lambda m: abs(gain(m, "+ average", "+ clipping")) < 0.002
    ),
    "on the plain loop the average adds more than 0.005": (
        lambda m: gain(m, "plain, average", "plain") > 0.005
    ),
    "smoothing doubles the loss on the test half, and no accuracy is lost": (
        lambda m: (
            m["loss, + smoothing"] > 2 * m["loss, + augmentation"]
            and gain(m, "+ smoothing", "+ augmentation") > -0.002
        )
    ),
}
