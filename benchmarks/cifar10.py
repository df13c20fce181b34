"""How well, and how fast, a plain ViT learns CIFAR-10 from nothing: accuracy against seconds.

    python -m benchmarks.cifar10                                    the exact data, downloaded
    python -m benchmarks.cifar10 --data FOLDER --name "JPEG copy"   pictures in folders
    python -m benchmarks.cifar10 --recipe cifar10-fast --seeds 3
    python -m benchmarks.cifar10 --rehearse                         the whole way in small, on a CPU

What is written is the accuracy after the last epoch, not the best; no test-time augmentation. The
seconds are those of training: evaluation counts, loading the data does not.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.throughput import RESULTS
from vitcourse.data import load
from vitcourse.train import RECIPES, build_model, fit
from vitcourse.train.environment import environment


def few(data, count):
    """Training and test images, `count` of each, drawn at random: folders come class by class."""
    generator = torch.Generator().manual_seed(0)
    parts = {}
    for kind in ("", "test_"):
        labels = getattr(data, f"{kind}labels")
        chosen = torch.randperm(len(labels), generator=generator)[:count]
        parts[f"{kind}images"] = getattr(data, f"{kind}images")[chosen]
        parts[f"{kind}labels"] = labels[chosen]
    return replace(data, **parts)


def main():
    """Train once for each seed, and record accuracy and seconds after every epoch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--name", default="exact", help="what the data are called in the record")
    parser.add_argument("--recipe", default="cifar10-fast")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    recipe = RECIPES[args.recipe].with_settings(args.set)
    data = load(args.data)
    if args.rehearse:
        data, recipe = few(data, 512), recipe.but(epochs=2, batch=64, compile=False)
    if torch.cuda.is_available():
        data = data.to("cuda")
    runs = []
    for seed in range(args.seeds):
        one = recipe.but(seed=seed)
        run = fit(build_model(one, data), data, one)
        runs.append({"seed": seed, "history": run.history})
        print(f"seed {seed}: {run.accuracy:.2%} in {run.history[-1]['seconds']:.0f} s", flush=True)
    last = [run["history"][-1]["test_accuracy"] for run in runs]
    record = {
        "data": f"CIFAR-10, {args.name}",
        "images": [len(data.labels), len(data.test_labels)],
        "recipe": json.loads(recipe.to_json()),
        "parameters": sum(p.numel() for p in build_model(recipe, data).parameters()),
        "environment": environment(),
        "accuracy_mean": round(statistics.mean(last), 5),
        "accuracy_spread": round(statistics.stdev(last), 5) if len(last) > 1 else None,
        "seconds": [run["history"][-1]["seconds"] for run in runs],
        "runs": runs,
    }
    label = "rehearsal" if args.rehearse else args.recipe
    path = args.out / f"{label}-{'cuda' if torch.cuda.is_available() else 'cpu'}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{record['accuracy_mean']:.2%}, written: {path}")


if __name__ == "__main__":
    main()
