"""What does learning pixels teach a classifier: pixel after pixel, and hidden pixels?

Digits in five grey levels, 64 pixels a row of 64 numbers. Two models of one size, 3 blocks of width
32, learn all training images without labels for 12 epochs: iGPT each pixel from those before it,
BERT hidden pixels from the others. How well a layer separates the classes is what a linear probe
with 300 labels says on the test images; layer 0 is what the first block reads, layer 3 what the
head reads. Then all of each model is trained on with 10, 30, 100 and 300 labels, 396 to 400 steps;
the control is the same training from new weights, at the learning rate that was best for it with
another seed. Each number of labels is drawn as in mae.py: the same images for one seed.
"""

import copy
from dataclasses import replace
from functools import partial

import torch

from benchmarks.claims import comparable
from vitcourse import data
from vitcourse.papers.igpt import (
    IGPT,
    Classifier,
    PixelBert,
    Sizes,
    find_palette,
    linear_probe,
    quantise,
)
from vitcourse.train import Recipe, fit

SEEDS = 3
MODELS = {"iGPT": IGPT, "BERT": PixelBert}
SIZES = Sizes(dim=32, depth=3, heads=4, colours=5, image=8)
LABELS = 10, 30, 100, 300
MIDDLE = 2  # the layer that is probed early, and without training


def measure(seed):
    """Probes of every layer, and the accuracy after fine-tuning, of both objectives."""
    digits = data.load("digits")
    palette = find_palette(digits.images, SIZES.colours)
    colours, test = (quantise(x, palette) for x in (digits.images, digits.test_images))
    few = {count: balanced(digits.labels, count, seed) for count in LABELS}

    def accuracy(guesses):
        return (guesses == digits.test_labels).double().mean().item()

    def probes(model):
        """The accuracy of a linear probe of each layer."""
        with torch.no_grad():
            pairs = zip(model.features(colours[few[300]]), model.features(test), strict=True)
        labels = digits.labels[few[300]]
        return [accuracy(linear_probe(x.mean(1), labels, y.mean(1))) for x, y in pairs]

    def loss_and_probe(model, _):
        hidden = torch.Generator().manual_seed(0)  # the same pixels each time
        nats = [model.objective(test, hidden) for _ in range(3)]
        return {"nats": torch.stack(nats).mean(), "probe": probes(model)[MIDDLE]}

    def fine_tuned(model, count):
        """The accuracy of a copy that was trained with so many labels."""
        index = few[count]
        some = replace(digits, images=digits.images[index], labels=digits.labels[index])
        batch = min(count, 32)
        epochs = 400 // (count // batch)
        recipe = Recipe(epochs=epochs, batch=batch, lr=1e-2, seed=seed, evaluate_every=epochs)
        run = fit(
            Classifier(copy.deepcopy(model), 10),
            some,
            recipe,
            step=lambda m, given: m.objective(colours[index][given.index], given.labels),
            score=lambda m, _: {"accuracy": accuracy(m(test)[0].argmax(dim=1))},
            device="cpu",
            quiet=True,
        )
        return run.accuracy

    found, new = {}, {}
    for name, cls in MODELS.items():
        torch.manual_seed(seed)
        new[name] = cls(SIZES)
    comparable(*new.values())
    for name, start in new.items():
        recipe = Recipe(epochs=12, batch=64, lr=5e-3, seed=seed, evaluate_every=3)
        run = fit(
            copy.deepcopy(start),
            digits,
            recipe,
            step=lambda model, batch: model.objective(colours[batch.index]),
            score=loss_and_probe,
            device="cpu",
            quiet=True,
        )
        seen = [entry for entry in run.history if "test_nats" in entry]
        for entry in (seen[0], seen[-1]):
            found[f"{name}, nats after {entry['epoch']} epochs"] = entry["test_nats"]
            found[f"{name}, layer {MIDDLE} after {entry['epoch']} epochs"] = entry["test_probe"]
        found[f"{name}, layer {MIDDLE} untrained"] = probes(start)[MIDDLE]
        for layer, probed in enumerate(probes(run.model)):
            found[f"{name}, layer {layer}"] = probed
        for count in LABELS:
            found[f"{name}, {count} labels, from scratch"] = fine_tuned(start, count)
            found[f"{name}, {count} labels, fine-tuned"] = fine_tuned(run.model, count)
    ahead = partial(ahead_of, found, "iGPT", "BERT")
    found["iGPT ahead of BERT, probed"] = ahead("layer 2")
    found["iGPT ahead of BERT, fine-tuned"] = ahead("300 labels, fine-tuned")
    return found


def balanced(labels, count, seed):
    """The first images of a draw that takes one of each class in turn: int64 (count,)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    classes = [order[labels[order] == label] for label in labels.unique()]
    rounds = [torch.stack([c[i] for c in classes]) for i in range(min(map(len, classes)))]
    return torch.cat(rounds)[:count]


def ahead_of(found, one, other, what):
    """By how much the figure of one model is above that of the other."""
    return found[f"{one}, {what}"] - found[f"{other}, {what}"]


PAIRS = {
    f"{name}: a lower loss, a better probe": (
        f"{name}, layer 2 after 12 epochs",
        f"{name}, layer 2 after 3 epochs",
    )
    for name in MODELS
}
PAIRS |= {
    f"{name}: a better probe than untrained": (f"{name}, layer 2", f"{name}, layer 2 untrained")
    for name in MODELS
}
PAIRS |= {
    "iGPT: layer 2 is better probed than the last": ("iGPT, layer 2", "iGPT, layer 3"),
    "iGPT is better probed than BERT": ("iGPT, layer 2", "BERT, layer 2"),
    "iGPT is less ahead of BERT once fine-tuned": (
        "iGPT ahead of BERT, probed",
        "iGPT ahead of BERT, fine-tuned",
    ),
}
PAIRS |= {
    f"{name}, {count} labels: pre-training helps": (
        f"{name}, {count} labels, fine-tuned",
        f"{name}, {count} labels, from scratch",
    )
    for name in MODELS
    for count in LABELS
}
