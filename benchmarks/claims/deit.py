"""Does a teacher help a ViT whose labels are half random, and what does a distillation token add?

Digits, 16 patches. The students' labels: half of them are replaced by a class drawn at random. The
teachers, a CNN and a ViT of as many parameters, have learned from the true labels. All weights are
those of the authors' code: half of the loss for the labels, half for the teacher, temperature 1;
true labels are smoothed by 0.1. The cosine of the two tokens is the mean over all test images.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F

from benchmarks.claims import comparable
from benchmarks.digits import build_cnn
from vitcourse import ViT, data
from vitcourse.papers.deit import DistilledDeiT, distillation
from vitcourse.probe import record_tokens
from vitcourse.train import RECIPES, build_model, classify, fit

SEEDS = 3
EPOCHS = 22
READOUTS = ("class head", "distillation head", "both heads")


def measure(seed):
    """The accuracy of teachers and students, and how alike their two tokens are by depth."""
    digits = data.load("digits")
    noisy = replace(digits, labels=half_random(digits.labels, seed))
    recipe = RECIPES["smoke"].but(
        model="Nano/2", epochs=EPOCHS, smoothing=0.1, seed=seed, evaluate_every=EPOCHS
    )
    other = recipe.but(seed=seed + 1000)  # no student begins as its teacher began
    teachers = {"CNN": build_cnn(other, digits), "ViT": build_model(other, digits)}
    comparable(*teachers.values())
    found = {}
    for name, teacher in teachers.items():
        run = fit(teacher, digits, other, device="cpu", quiet=True)
        teachers[name], found[f"teacher {name}"] = run.model, run.accuracy
    students = {
        "no distillation": (ViT, classify),
        "soft": (ViT, distillation(teachers["CNN"], hard=False)),
        "hard": (ViT, distillation(teachers["CNN"])),
        "token": (DistilledDeiT, distillation(teachers["CNN"])),
        "token, taught by the ViT": (DistilledDeiT, distillation(teachers["ViT"])),
        "two class tokens": (DistilledDeiT, both_from_labels),
    }
    comparable(*(build_model(recipe, noisy, cls) for cls, _ in students.values()))
    for name, (cls, step) in students.items():
        model = build_model(recipe, noisy, cls)
        run = fit(model, noisy, recipe, step=step, device="cpu", quiet=True)
        found[name] = run.accuracy
        if cls is DistilledDeiT:
            found |= {f"{name}: {key}": value for key, value in look(run.model, digits).items()}
    return found


def half_random(labels, seed):
    """The same labels, half of them replaced by any class."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(len(labels), generator=generator) < 0.5
    return torch.where(chosen, torch.randint(10, labels.shape, generator=generator), labels)


def both_from_labels(model, batch):
    """The control: both tokens learn the labels, each with its own head."""
    one, two = model.two_logits(batch.images)
    return (F.cross_entropy(one, batch.targets) + F.cross_entropy(two, batch.targets)) / 2


@torch.no_grad()
def look(model, digits):
    """The accuracy of each head, and the cosine of the two tokens before and after each block."""
    images, labels = digits.normalise(digits.test_images), digits.test_labels
    with record_tokens(model) as tokens:
        by_class, by_dist = model.two_logits(images)
    read = zip(READOUTS, (by_class, by_dist, (by_class + by_dist) / 2), strict=True)
    found = {name: (x.argmax(1) == labels).float().mean().item() for name, x in read}
    tokens.insert(0, model.prefix + model.position.table[:, :2])
    for i, x in enumerate(tokens):
        found[f"cosine, block {i}"] = F.cosine_similarity(x[:, 0], x[:, 1], dim=-1).mean().item()
    return found


PAIRS = {
    "soft distillation beats none": ("soft", "no distillation"),
    "hard distillation beats none": ("hard", "no distillation"),
    "hard beats soft": ("hard", "soft"),
    "hard with token, both heads, beats hard without": ("token: both heads", "hard"),
    "hard with token, distillation head, beats hard without": ("token: distillation head", "hard"),
    "hard with token: the distillation head beats the class head": (
        "token: distillation head",
        "token: class head",
    ),
    "hard with token: both heads beat the distillation head": (
        "token: both heads",
        "token: distillation head",
    ),
    "a teacher beats a second class token": ("token: both heads", "two class tokens"),
    "a second class token beats one": ("two class tokens", "no distillation"),
    "the CNN teaches better than the ViT": ("token: both heads", "token, taught by the ViT"),
    "class and distillation token are more alike at the output than at the input": (
        "token: cosine, block 4",
        "token: cosine, block 0",
    ),
    "two class tokens are more alike at the output than class and distillation token": (
        "two class tokens: cosine, block 4",
        "token: cosine, block 4",
    ),
}
