"""Write the recorded results into README.md: `python benchmarks/tables.py`. A test compares."""

import json
import re
from pathlib import Path

from vitcourse import papers

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NAMES = ("vitcourse", "timm", "torchvision", "transformers")


def throughput(results=RESULTS):
    """The table of benchmarks/throughput.py, with the machine of each run below it."""
    head = ["model", "what", "where", *NAMES, "ours / fastest other"]
    table, machines = [], []
    for path in sorted(results.glob("throughput-*.json")):
        record = json.loads(path.read_text())
        about = record["environment"]
        versions = [f"{n} {about[n]}" for n in ("torch", "torchvision", "timm", "transformers")]
        machines.append(", ".join([about["device"], about["date"], *versions]))
        for row in record["rows"]:
            how = "compiled" if row["compiled"] else "eager"
            where = f"{row['device']}, {how}, batch {row['batch']}"
            times = [f"{row['milliseconds'][name]:.1f}" for name in NAMES]
            table.append([row["shape"], row["mode"], where, *times, f"{row['ratio']:.3f}"])
    return markdown(head, table) + f"\n\nMilliseconds, measured on: {'; '.join(machines)}."


def digits(results=RESULTS):
    """The table of benchmarks/digits.py."""
    record = json.loads((results / "digits.json").read_text())
    about, rows = record["environment"], {}
    for row in record["rows"]:
        rows.setdefault(row["method"], {})[row["protocol"]] = row
    head = ["method", "parameters", "five-fold", "half split", "CPU-seconds a fit"]
    table = []
    for method, by in rows.items():
        spread = [percent(by[p]["accuracy"], by[p]["spread"]) for p in ("five-fold", "half")]
        parameters = by["half"]["parameters"]
        size = f"{parameters:,}" if parameters else ""
        seconds = f"{by['five-fold']['cpu_seconds_a_fit']:.1f}"
        table.append([method, size, *spread, seconds])
    where = f"{about['processor']}, one thread, {about['date']}, torch {about['torch']}"
    below = f"Mean and spread of {record['seeds']} seeds. Measured on: {where}."
    return f"{markdown(head, table)}\n\n{below}"


def cifar10(results=RESULTS):
    """The table of benchmarks/cifar10.py, and beside.py, of their runs on a GPU."""
    head = ["recipe", "data", "parameters", "accuracy", "seconds of each seed", "on"]
    table = []

    def add(record, recipe, parameters, accuracy, seconds):
        about = record["environment"]
        where = f"{about['gpu']}, {about['date']}, torch {about['torch']}"
        seconds = ", ".join(f"{value:.0f}" for value in seconds)
        table.append([recipe, record["data"], f"{parameters:,}", accuracy, seconds, where])

    for path in sorted(results.glob("cifar10*-cuda.json")):
        record = json.loads(path.read_text())
        accuracy = percent(100 * record["accuracy_mean"], 100 * (record["accuracy_spread"] or 0))
        name = path.stem.removesuffix("-cuda")
        add(record, name, record["parameters"], accuracy, record["seconds"])
    for path in sorted(results.glob("beside-*-cuda.json")):
        record = json.loads(path.read_text())
        for row in record["rows"]:
            accuracy = percent(100 * row["accuracy"])
            add(record, row["recipe"], row["parameters"], accuracy, [row["seconds"]])
    return markdown(head, table) if table else "No CUDA run has been recorded yet."


def percent(accuracy, spread=None):
    """An accuracy in percent, with its spread if it has one."""
    return f"{accuracy:.2f} %" + (f" ± {spread:.2f}" if spread else "")


def markdown(head, rows):
    """A table as README has it."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


TABLES = {"papers": papers.table, "throughput": throughput, "digits": digits, "cifar10": cifar10}


def fill(text):
    """A text with what stands between the marks of each table replaced by the recorded one."""
    for name, table in TABLES.items():
        before, rest = text.split(f"<!-- {name} -->\n", 1)
        after = re.split(r"(?=<!-- end -->)", rest, maxsplit=1)[1]
        text = f"{before}<!-- {name} -->\n{table()}\n{after}"
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text()))
