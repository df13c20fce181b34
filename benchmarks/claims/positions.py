"""Which kind of position does a small ViT need, and with which numbers must it begin?

Six kinds, one recipe, two tasks: digits in patches of 2x2 pixels, and shapes whose label is whether
red is left or right of blue, in patches of 8x8. Both give a grid of 4x4. Each learned kind is
trained on digits twice: its numbers begin "small", with a standard deviation of 0.02, as usual for
large models, or "wide", with the one in WIDE. The relation task has the wide ones only. The sizes
in WIDE were chosen by a look at seeds 0 and 1, among 0.5 and 2. The relative kinds add nothing to
the tokens. Accuracies are those of the last epoch.
"""

from functools import cache

from torch import manual_seed, nn

from vitcourse import ViT, data, make_vit
from vitcourse.parts import (
    LearnedPosition2D,
    NoPosition,
    RelativeAttention1D,
    RelativeAttention2D,
    SinCosPosition,
)
from vitcourse.train import Recipe, fit
from vitcourse.vit import LearnedPosition, truncated_normal_

SEEDS = 3
GRID = (4, 4)
SMALL = 0.02
WIDE = {"learned 1-D": 0.5, "learned 2-D": 0.5, "relative 1-D": 0.5, "relative 2-D": 2.0}
KINDS = {
    "none": dict(Position=NoPosition),
    "learned 1-D": dict(Position=LearnedPosition),
    "learned 2-D": dict(Position=LearnedPosition2D),
    "sin-cos": dict(Position=SinCosPosition),
    "relative 1-D": dict(Position=NoPosition, Attention=RelativeAttention1D.on(GRID)),
    "relative 2-D": dict(Position=NoPosition, Attention=RelativeAttention2D.on(GRID)),
}
TASKS = {
    "digits": ("Nano/2", dict(), dict(epochs=14, lr=2e-3)),
    "relation": ("Nano/8", dict(task="relation", train=2400), dict(epochs=8, lr=1e-3)),
}


@cache
def load(task):
    """The data of a task."""
    return data.load("digits" if task == "digits" else "shapes", **TASKS[task][1])


def build(task, kind, std, seed):
    """A new model with positions of that kind, whose numbers begin with that deviation."""
    pictures = load(task)
    manual_seed(seed)
    sizes = dict(image=pictures.image, channels=pictures.channels, classes=len(pictures.classes))
    model = make_vit(TASKS[task][0], model=ViT.variant(**KINDS[kind]), **sizes)
    for layer in model.blocks.modules():  # 0.02 is made for layers many times as wide
        if isinstance(layer, nn.Linear):
            truncated_normal_(layer.weight, std=layer.in_features**-0.5)
    for name, table in model.named_parameters():
        if any(part.startswith("position") for part in name.split(".")):
            truncated_normal_(table, std=std)
    return model


def accuracy(task, kind, std, seed):
    """The accuracy on the test images after training, with as many digits as are recorded."""
    recipe = Recipe(batch=64, warmup=0.2, seed=seed, **TASKS[task][2])
    recipe = recipe.but(evaluate_every=recipe.epochs)
    model = build(task, kind, std, seed)
    return round(fit(model, load(task), recipe, device="cpu", quiet=True).accuracy, 5)


def measure(seed):
    """Accuracies by task, kind and start."""
    found = {}
    for task in TASKS:
        for kind in KINDS:
            wide = WIDE.get(kind)
            name = f"{task}, {kind}" + (", wide" if wide else "")
            found[name] = accuracy(task, kind, wide, seed)
            if wide and task == "digits":
                found[f"{task}, {kind}, small"] = accuracy(task, kind, SMALL, seed)
    return found


def wide(means, task):
    """The mean accuracies of the learned kinds that begin wide."""
    return [means[f"{task}, {kind}, wide"] for kind in WIDE]


def quick(means):
    """The mean accuracies on the relation task of all kinds of position but one."""
    learned = [means[f"relation, {kind}, wide"] for kind in WIDE if kind != "relative 2-D"]
    return [*learned, means["relation, sin-cos"]]


CLAIMS = {
    "digits: without positions, 15 points or more are lost to every kind that begins wide, and to "
    "sin-cos": lambda m: m["digits, none"] + 0.15 <= min(*wide(m, "digits"), m["digits, sin-cos"]),
    "digits: the four learned kinds that begin wide lie within 3 points": lambda m: (
        max(wide(m, "digits")) - min(wide(m, "digits")) <= 0.03
    ),
    "digits: each learned kind is better by 2 points or more when it begins wide": lambda m: all(
        m[f"digits, {kind}, wide"] >= m[f"digits, {kind}, small"] + 0.02 for kind in WIDE
    ),
    "digits: begun small, the kinds lie further apart than 5 points": lambda m: (
        max(m[f"digits, {kind}, small"] for kind in WIDE)
        - min(m[f"digits, {kind}, small"] for kind in WIDE)
        > 0.05
    ),
    "relation: without positions the model is right in half of all cases": lambda m: (
        abs(m["relation, none"] - 0.5) < 0.005
    ),
    "relation: every kind but relative 2-D is right in 9 of 10 cases or more": lambda m: (
        min(quick(m)) >= 0.9
    ),
    "relation: relative 2-D is 10 points or more above half, and as far behind every other kind": (
        lambda m: 0.6 <= m["relation, relative 2-D, wide"] <= min(quick(m)) - 0.1
    ),
}
