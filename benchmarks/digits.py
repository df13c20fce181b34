"""How well does a plain ViT, trained from scratch, read 1797 digits of 8x8 pixels?

    python -m benchmarks.digits             three seeds, all methods, both protocols
    python -m benchmarks.digits --quick     one seed, for a look

Two protocols. "five-fold": each digit is tested once, by a model that was trained on the other four
fifths, StratifiedKFold(5, shuffle=True, random_state=0). "half": scikit-learn's own example, the
first 898 images to train on, the other 899 to test.

Every network sees the last epoch, not the best one, and each test image once, as it is. It makes
the steps of a fold of "five-fold" by both protocols: with fewer images, more epochs. The CNN has
about as many parameters as the ViT and the same recipe, which was chosen for the ViT.

The recipes were chosen on the 898 training images of "half" alone, cut into three blocks, each
tested by what the other two had taught, and on folds of StratifiedKFold(5, shuffle=True,
random_state=1). By the protocols above, three earlier ones were measured before the present ones.

One thread; seconds are processor time of this process, for training and testing one model.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from torch import nn
from tqdm import tqdm

from vitcourse.data.base import Data
from vitcourse.data.digits import digits_all
from vitcourse.train import RECIPES, build_model, fit
from vitcourse.train.environment import environment

IMAGES = 1437  # that a fold of "five-fold" trains on
SEEDS = 3  # the usual number; the record says when it was another
RESULTS = Path(__file__).resolve().parent / "results"


def five_fold(labels):
    """Five pairs of indices, to train on and to test on."""
    return list(StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels))


def half(labels):
    """The first half to train on, the rest to test: one pair of indices."""
    return [tuple(train_test_split(np.arange(len(labels)), test_size=0.5, shuffle=False))]


PROTOCOLS = {"five-fold": five_fold, "half": half}


def check_folds(folds, labels):
    """Each image is tested once and never by who saw it; each fold has its share of each class."""
    everything = np.arange(len(labels))
    for train, test in folds:
        assert not set(train) & set(test), "an image is in both parts of a fold"
        assert np.array_equal(np.union1d(train, test), everything), "a fold lacks an image"
        counts = np.bincount(labels[test], minlength=labels.max() + 1)
        shares = np.bincount(labels) / len(folds)
        assert (abs(counts - shares) < 1).all(), "a fold has more or less of a class than its share"
    tested = np.sort(np.concatenate([test for _, test in folds]))
    assert np.array_equal(tested, everything), "an image is not tested once"


class Cnn(nn.Module):
    """Three convolutions with batch normalisation: images (B, C, 8, 8) -> logits (B, classes)."""

    def __init__(self, channels, classes, width):
        super().__init__()
        layers = []
        for out in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            channels = out
        self.layers = nn.Sequential(*layers[:-1])  # the last map is 2x2, and its mean is taken
        self.head = nn.Linear(channels, classes)

    def forward(self, images):
        return self.head(self.layers(images).mean((2, 3)))


def count(model):
    """The number of parameters."""
    return sum(p.numel() for p in model.parameters())


def build_cnn(recipe, data):
    """A new CNN that has about as many parameters as the recipe's ViT."""
    goal = count(build_model(recipe, data))
    sizes = data.channels, len(data.classes)
    width = min(range(4, 129), key=lambda width: abs(count(Cnn(*sizes, width)) - goal))
    torch.manual_seed(recipe.seed)
    return Cnn(*sizes, width)


def network(build, recipe, data, seed):
    """Train a network: how many test images it gets right, and its number of parameters."""
    recipe = RECIPES[recipe]
    epochs = round(recipe.epochs * IMAGES / len(data.labels))
    recipe = recipe.but(seed=seed, epochs=epochs, evaluate_every=epochs)
    model = build(recipe, data)
    run = fit(model, data, recipe, device="cpu", quiet=True)
    return round(run.accuracy * len(data.test_labels)), count(model)


def classic(model, data):
    """Fit a model of scikit-learn to the values 0..16: how many test images it gets right."""
    train, test = (
        (images.double() * 16 / 255).round().flatten(1).numpy()
        for images in (data.images, data.test_images)
    )
    guesses = model.fit(train, data.labels.numpy()).predict(test)
    return int((guesses == data.test_labels.numpy()).sum()), None


METHODS = {
    "ViT, recipe digits": lambda data, seed: network(build_model, "digits", data, seed),
    "ViT, recipe smoke": lambda data, seed: network(build_model, "smoke", data, seed),
    "CNN, recipe digits": lambda data, seed: network(build_cnn, "digits", data, seed),
    "kNN, k=3": lambda data, seed: classic(KNeighborsClassifier(n_neighbors=3), data),
    "SVM, RBF, gamma=0.001": lambda data, seed: classic(SVC(gamma=0.001), data),
}


def measure(images, labels, seeds):
    """Train and test everything: one row for each protocol and method."""
    classes = tuple(str(digit) for digit in range(10))
    plan = {}
    for protocol, split in PROTOCOLS.items():
        folds = split(labels.numpy())
        if protocol == "five-fold":
            check_folds(folds, labels.numpy())
        for method in METHODS:
            plan[protocol, method] = folds, seeds if "recipe" in method else 1
    rows = []
    with tqdm(total=sum(len(f) * s for f, s in plan.values()), unit="fit") as bar:
        for (protocol, method), (folds, repeats) in plan.items():
            accuracies, seconds = [], []
            for seed in range(repeats):
                right = 0
                for train, test in folds:
                    bar.set_postfix_str(f"{method}, {protocol}, seed {seed}")
                    parts = images[train], labels[train], images[test], labels[test]
                    data = Data("digits", *parts, classes)
                    start = time.process_time()
                    hits, parameters = METHODS[method](data, seed)
                    seconds.append(time.process_time() - start)
                    right += hits
                    bar.update()
                accuracies.append(right / sum(len(test) for _, test in folds))
            rows.append(row(protocol, method, parameters, accuracies, seconds))
            bar.write(show(rows[-1]))
    return rows


def row(protocol, method, parameters, accuracies, seconds):
    """What is recorded of a method under a protocol; accuracies and their spread in per cent."""
    several = len(accuracies) > 1
    return {
        "protocol": protocol,
        "method": method,
        "parameters": parameters,
        "accuracy": round(100 * statistics.mean(accuracies), 3),
        "spread": round(100 * statistics.stdev(accuracies), 3) if several else None,
        "accuracy_of_each_seed": [round(100 * accuracy, 3) for accuracy in accuracies],
        "cpu_seconds_a_fit": round(statistics.mean(seconds), 2),
        "cpu_seconds_longest_fit": round(max(seconds), 2),
    }


def show(row):
    """One line for people."""
    spread = "" if row["spread"] is None else f" +- {row['spread']:.2f}"
    size = "" if row["parameters"] is None else f", {row['parameters']} parameters"
    return (
        f"{row['protocol']:10}{row['method']:24}{row['accuracy']:.2f} %{spread}, "
        f"{row['cpu_seconds_a_fit']:.2f} s a fit{size}"
    )


def main():
    """Measure everything and record it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help="how often each network is trained"
    )
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds is {args.seeds}: it must be 1 or more")
    torch.set_num_threads(1)
    seeds = 1 if args.quick else args.seeds
    about = environment()  # first: the files may change while this runs
    rows = measure(*digits_all(), seeds)
    record = {
        "environment": about | {"scikit-learn": sklearn.__version__},
        "seeds": seeds,
        "seeds_usual": SEEDS,
        "spread": "standard deviation of the accuracy over the seeds of the network, in per cent",
        "recipes": {name: asdict(RECIPES[name]) for name in ("digits", "smoke")},
        "rows": rows,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "digits.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
