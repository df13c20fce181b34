"""Right answers to the exercises of lesson 07, and the truth about its questions."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import Config, ViT, make_vit
from vitcourse.check.lessons.lesson07 import B_16
from vitcourse.data.augment import one_hot
from vitcourse.train import Recipe, decay_groups
from vitcourse.train.loop import State
from vitcourse.train.recipe import learning_rate

# the package's own code ---------------------------------------------------------------------------


def package_schedule(step, steps, warm, highest):
    recipe = Recipe(lr=highest, warmup=warm / steps)
    rates = [learning_rate(recipe, number, steps) for number in step.tolist()]
    return torch.tensor(rates, device=step.device)


def package_decay(model, weight_decay):
    groups = decay_groups(model, weight_decay)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    return torch.tensor([decay[id(p)] for p in model.parameters()])


class One(nn.Module):
    """A model of one tensor."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights.detach().clone())


def package_average(average, weights, step, keep):
    state = State(One(weights), One(average), None, None)
    state.step = step
    state.update_average(keep)
    return state.average.weights.detach()


# others -------------------------------------------------------------------------------------------


def schedule_by_loop(step, steps, warm, highest):
    rates = []
    for number in step.tolist():
        if number < warm:
            rates.append(highest * (number + 1) / (warm + 1))
        else:
            part = (number - warm) / (steps - warm)
            rates.append(highest * 0.5 * (1 + math.cos(math.pi * part)))
    return torch.tensor(rates, device=step.device)


def schedule_by_torch(step, steps, warm, highest):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=highest)
    down = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warm)
    rates = [highest * (number + 1) / (warm + 1) for number in range(warm)]
    for _ in range(steps - warm):
        rates.append(down.get_last_lr()[0])
        optimizer.step()
        down.step()
    return torch.tensor(rates, device=step.device)[step]


def smooth_by_lerp(labels, classes, smoothing):
    right = torch.eye(classes, device=labels.device)[labels]
    return torch.lerp(right, torch.full_like(right, 1 / classes), smoothing)


def smooth_by_scatter(labels, classes, smoothing):
    targets = torch.full((len(labels), classes), smoothing / classes, device=labels.device)
    share = 1 - smoothing + smoothing / classes
    return targets.scatter(1, labels[:, None], share)


def decayed_by_words(model, weight_decay):
    decay = torch.full((len(list(model.parameters())),), weight_decay)
    for i, (name, parameter) in enumerate(model.named_parameters()):
        if parameter.ndim < 2 or "prefix" in name or "position" in name:
            decay[i] = 0
    return decay


def decayed_by_modules(model, weight_decay):
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    return torch.tensor([weight_decay * (id(p) in matrices) for p in model.parameters()])


def ema_by_lerp(average, weights, step, keep):
    return torch.lerp(average, weights, 1 - min(keep, (1 + step) / (10 + step)))


def ema_by_difference(average, weights, step, keep):
    move = max(1 - keep, 9 / (10 + step))
    return average + move * (weights - average)


RIGHT = {
    "schedule": [package_schedule, schedule_by_loop, schedule_by_torch],
    "smooth_labels": [one_hot, smooth_by_lerp, smooth_by_scatter],
    "decayed": [package_decay, decayed_by_words, decayed_by_modules],
    "ema": [package_average, ema_by_lerp, ema_by_difference],
    "adamw_bytes": [],
}

SOURCES = {
    "schedule": """
def answer(step, steps, warm, highest):
    rising = (step + 1) / (warm + 1)
    part = (step - warm) / (steps - warm)
    falling = 0.5 * (1 + torch.cos(torch.pi * part))
    rate = torch.where(step < warm, rising, falling)
    return highest * rate
""",
    "smooth_labels": """
def answer(labels, classes, smoothing):
    right = F.one_hot(labels, classes).float()
    stays = right * (1 - smoothing)
    share = smoothing / classes
    return stays + share
""",
    "decayed": """
def answer(model, weight_decay):
    found = []
    for name, parameter in model.named_parameters():
        special = "prefix" in name or "position" in name
        if special or parameter.ndim < 2:
            found.append(0.0)
        else:
            found.append(weight_decay)
    return torch.tensor(found)
""",
    "ema": """
def answer(average, weights, step, keep):
    part = (1 + step) / (10 + step)
    part = min(keep, part)
    old = part * average
    new = (1 - part) * weights
    return old + new
""",
}

PART = "part = (step - warm) / (steps - warm)"
EVEN = "the cosine of a number and of its negative are the same"

EQUIVALENT = {
    ("schedule", f"{PART} -> part = (warm - step) / (steps - warm)"): EVEN,
    ("schedule", f"{PART} -> part = (step - warm) / (warm - steps)"): EVEN,
    ("ema", "part = min(keep, part) -> part = min(part, keep)"): "the smaller of two is the same",
}


def adamw_share():
    """The bytes that AdamW keeps for a small model, in those of its weights, rounded."""
    model = ViT(Config(dim=10, depth=1, heads=5, patch=2, image=4, channels=1, classes=7))
    optimizer = torch.optim.AdamW(model.parameters())
    F.cross_entropy(model(torch.rand(3, 1, 4, 4)), torch.arange(3)).backward()
    optimizer.step()
    kept = [t for state in optimizer.state.values() for t in state.values() if t.ndim]
    return round(sum(t.nbytes for t in kept) / sum(p.nbytes for p in model.parameters()))


def truth():
    with torch.device("meta"):
        weights = sum(p.nbytes for p in make_vit("B/16").parameters())
    assert adamw_share() * weights == 8 * B_16
    labels = torch.tensor([7])
    first = F.cross_entropy(torch.zeros(1, 10), labels, label_smoothing=0.1).item()
    target = torch.full((10,), 0.01)
    target[7] = 0.91
    lowest = F.cross_entropy(target.log()[None], labels, label_smoothing=0.1).item()
    return {
        "first loss of": round(first, 2),
        "lowest possible loss": round(lowest, 2),
        "steps done twice": 17 - 17 // 11 * 11,
    }
