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
    table, machines = [head, ["---"] * len(head)], []
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
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    return "\n".join([*lines, "", f"Milliseconds, measured on: {'; '.join(machines)}."])


def digits(results=RESULTS):
    """The table of benchmarks/digits.py."""
    record = json.loads((results / "digits.json").read_text())
    about, rows = record["environment"], {}
    for row in record["rows"]:
        rows.setdefault(row["method"], {})[row["protocol"]] = row
    head = ["method", "parameters", "five-fold", "half split", "CPU-seconds a fit"]
    table = [head, ["---"] * len(head)]
    for method, by in rows.items():
        spread = [
            f"{by[p]['accuracy']:.2f} %" + (f" ± {by[p]['spread']:.2f}" if by[p]["spread"] else "")
            for p in ("five-fold", "half")
        ]
        parameters = by["half"]["parameters"]
        size = f"{parameters:,}" if parameters else ""
        seconds = f"{by['five-fold']['cpu_seconds_a_fit']:.1f}"
        table.append([method, size, *spread, seconds])
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    where = f"{about['processor']}, one thread, {about['date']}, torch {about['torch']}"
    below = f"Mean and spread of {record['seeds']} seeds. Measured on: {where}."
    return "\n".join([*lines, "", below])


def cifar10(results=RESULTS):
    """The table of benchmarks/cifar10.py, and beside.py, of their runs on a GPU."""
    head = ["recipe", "data", "parameters", "accuracy", "seconds of each seed", "on"]
    table = [head, ["---"] * len(head)]
    for path in sorted(results.glob("cifar10*-cuda.json")):
        record = json.loads(path.read_text())
        spread, name = record["accuracy_spread"], path.stem.removesuffix("-cuda")
        accuracy = f"{100 * record['accuracy_mean']:.2f} %"
        accuracy += f" ± {100 * spread:.2f}" if spread else ""
        seconds = ", ".join(f"{value:.0f}" for value in record["seconds"])
        table.append([name, record["data"], f"{record['parameters']:,}", accuracy, seconds])
        table[-1].append(place(record))
    for path in sorted(results.glob("beside-*-cuda.json")):
        record = json.loads(path.read_text())
        for row in record["rows"]:
            accuracy, seconds = f"{100 * row['accuracy']:.2f} %", f"{row['seconds']:.0f}"
            table.append([row["recipe"], record["data"], f"{row['parameters']:,}", accuracy])
            table[-1] += [seconds, place(record)]
    if len(table) == 2:
        return "No CUDA run has been recorded yet."
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def place(record):
    """Where a record of a GPU was measured."""
    about = record["environment"]
    return f"{about['gpu']}, {about['date']}, torch {about['torch']}"


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
