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


TABLES = {"papers": papers.table, "throughput": throughput, "digits": digits}


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
