"""Run the experiments and record what they show, in benchmarks/results/claim-NAME.json.

    python -m benchmarks.claims                 those whose code, or the package's, has changed
    python -m benchmarks.claims positions       this one
    python -m benchmarks.claims --list          what is recorded, and what is stale

One thread, no GPU, so that it is the same on every computer. A claim that does not hold is recorded
as such, and the exit code is 1.
"""

import argparse
import ast
import hashlib
import importlib
import io
import json
import statistics
import sys
import time
import tokenize
from pathlib import Path

import torch
from tqdm import tqdm

from vitcourse.train.environment import environment, source_hash

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER.parent / "results"
PACKAGE = FOLDER.parents[1] / "vitcourse"


def names():
    """The names of all experiments."""
    return sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def code_hash(name):
    """A hash of an experiment's code, and of the papers and experiments that it is built from.

    Comments and docstrings do not count.
    """
    digest, files = hashlib.sha256(), [FOLDER / f"{name}.py"]
    for path in files:  # grows while it is read
        text = path.read_text()
        tree = ast.parse(text)
        files += [other for other in built_from(tree) if other not in files]
        digest.update(code_only(text, tree).encode())
    return digest.hexdigest()


def built_from(tree):
    """The files of experiments, papers, losses and stages that a file imports."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for module in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                first, *rest = module.split(".")
                if rest and rest[0] in ("papers", "losses", "pyramid") and first == "vitcourse":
                    found.append(PACKAGE.joinpath(*rest).with_suffix(".py"))
                elif rest and rest[0] == "claims":
                    found.append(FOLDER.joinpath(*rest[1:]).with_suffix(".py"))
    return [path for path in found if path.is_file()]


def code_only(text, tree):
    """A file's text without docstrings, comments and empty lines."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            first, last = node.body[0].lineno, node.body[0].end_lineno
            lines[first - 1 : last] = [""] * (last - first + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


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
        "claims": {
            text: bool(holds(means)) for text, holds in getattr(experiment, "CLAIMS", {}).items()
        },
        "pairs": {
            text: paired(figures[one], figures[control])
            for text, (one, control) in getattr(experiment, "PAIRS", {}).items()
        },
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"claim-{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def summary(values):
    """Mean and spread of a figure over the seeds, and the figure of each seed."""
    each = [round(float(value), 5) for value in values]
    spread = statistics.stdev(each) if len(each) > 1 else 0.0
    return {"mean": round(statistics.mean(each), 5), "spread": round(spread, 5), "each": each}


def paired(figure, control):
    """By how much a figure is above its control with each seed, and whether it is with all."""
    each = [round(a - b, 5) for a, b in zip(figure["each"], control["each"], strict=True)]
    return {"difference": each, "holds": min(each) > 0}


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
        for text, pair in record["pairs"].items():
            print(f"{'holds' if pair['holds'] else 'negative result'}: {text} {pair['difference']}")
        failed += [text for text, holds in record["claims"].items() if not holds]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
