"""Results of runs that take too long for a lesson, as benchmarks/results holds them."""

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def recorded(name):
    """What was measured, where and when: `recorded("claim-positions")["figures"]`."""
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        there = ", ".join(sorted(path.stem for path in FOLDER.glob("*.json")))
        raise ValueError(f"nothing is recorded under {name!r}; recorded are: {there}")
    return json.loads(path.read_text())


def recorded_on_gpu(name):
    """What was measured on a GPU, after printing where and when; None, said too, if nothing was."""
    try:
        record = recorded(f"{name}-cuda")
    except ValueError:
        print("no CUDA run recorded yet")
        return None
    about = record["environment"]
    print(f"recorded on {about['date']}, {about['gpu']}: {record['data']}")
    print("code:", about["source_sha256"][:12])
    return record


def origin(record):
    """One line that says where a record comes from, to be printed beside its figures."""
    about = record["environment"]
    where = about.get("gpu") or about["processor"]
    return f"recorded on {about['date']}, {where}, {record['seeds']} seeds: {record['command']}"


def pairs(record):
    """What was expected of pairs of figures, and what was found with each seed, as lines."""
    lines = []
    for text, pair in record["pairs"].items():
        found = "holds with every seed" if pair["holds"] else "negative result"
        differences = "  ".join(f"{difference:+.3f}" for difference in pair["difference"])
        lines.append(f"{found}: {text}\n    {differences}")
    return "\n".join(lines)
