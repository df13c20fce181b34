"""Run the experiments and record what they show, in benchmarks/results/claim-NAME.json.

    python -m benchmarks.claims                 those whose code, or the package's, has changed
    python -m benchmarks.claims positions       this one
    python -m benchmarks.claims --list          what is recorded, and what is stale

One thread, no GPU, so that it is the same on every computer. A claim that does not hold is recorded
as such, and the exit code is 1.
"""

import argparse
import hashlib
import importlib
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from vitcourse.train.environment import environment, source_hash

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER.parent / "results"


def names():
    """The names of all experiments."""
    return sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def code_hash(name):
    """A hash of the file of an experiment."""
    return hashlib.sha256((FOLDER / f"{name}.py").read_bytes()).hexdigest()


def recorded(name):
    """What was recorded of an experiment, or None."""
    path = RESULTS / f"claim-{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def state(name):
    """Whether a record is there, and made with the code as it is now."""
    record = recorded(name)
    if record is None:
        return "not recorded"
    if record["claim_sha256"] != code_hash(name):
        return "stale: the experiment has changed"
    if record["environment"]["source_sha256"] != source_hash():
        return "stale: the package has changed"
    return "recorded"


def run(name):
    """Measure with every seed, and write the record."""
    experiment = importlib.import_module(f"benchmarks.claims.{name}")
    about, code, start = environment(), code_hash(name), time.process_time()
    runs = [experiment.measure(seed) for seed in tqdm(range(experiment.SEEDS), desc=name)]
    figures = {key: summary([run[key] for run in runs]) for key in runs[0]}
    means = {key: figure["mean"] for key, figure in figures.items()}
    record = {
        "question": experiment.__doc__.splitlines()[0],
        "command": f"python -m benchmarks.claims {name}",
        "environment": about,
        "claim_sha256": code,
        "seeds": experiment.SEEDS,
        "cpu_seconds": round(time.process_time() - start, 1),
        "figures": figures,
        "claims": {text: bool(holds(means)) for text, holds in experiment.CLAIMS.items()},
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"claim-{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def summary(values):
    """Mean and spread of a figure over the seeds, and the figure of each seed."""
    each = [round(float(value), 5) for value in values]
    spread = statistics.stdev(each) if len(each) > 1 else 0.0
    return {"mean": round(statistics.mean(each), 5), "spread": round(spread, 5), "each": each}


def main(arguments=None):
    """The command line that the head of this file describes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names()))
    parser.add_argument("--list", action="store_true", help="run nothing, say what is recorded")
    args = parser.parse_args(arguments)
    unknown = set(args.names) - set(names())
    if unknown:
        parser.error(f"there is no experiment {', '.join(unknown)}: there are {', '.join(names())}")
    if args.list:
        for name in names():
            print(f"{name}: {state(name)}")
        return 0
    torch.set_num_threads(1)
    failed = []
    for name in args.names or [name for name in names() if state(name) != "recorded"]:
        record = run(name)
        for key, figure in record["figures"].items():
            print(f"{key:40} {figure['mean']:.4f} +- {figure['spread']:.4f}")
        for text, holds in record["claims"].items():
            print(f"{'holds' if holds else 'DOES NOT HOLD'}: {text}")
        failed += [text for text, holds in record["claims"].items() if not holds]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
