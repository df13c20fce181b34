"""What the benchmarks for a GPU share: options, a few of the images, how a record is written."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.throughput import RESULTS
from vitcourse.train.environment import environment


def options(about):
    """A parser of the options that all of them have; `about` is the script's docstring."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--name", default="exact", help="what the data are called in the record")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


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


def about(name, data, recipe):
    """What every record begins with: data, recipe, and where it is measured."""
    return {
        "data": name,
        "images": [len(data.labels), len(data.test_labels)],
        "recipe": json.loads(recipe.to_json()),
        "environment": environment(),
    }


def write(record, folder, name, device):
    """Write a record into the folder, as NAME-cuda.json or NAME-cpu.json."""
    path = folder / f"{name}-{device.type}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {path}")
