"""The table of exercises in docs/exercises.md: `python -m tests.catalogue` writes it anew."""

from pathlib import Path

from vitcourse.check import EXERCISES
from vitcourse.check.runner import judge

PAGE = Path(__file__).resolve().parents[1] / "docs" / "exercises.md"
HEAD = """# The exercises

What a check knows of each exercise, found by running every catalogued mistake through it: how many
it refuses, calls by their name, and takes for another. `python -m tests.catalogue` writes this;
a test compares it.

"""


def page():
    """The page, from the checks as they are."""
    head = "lesson|exercise|kind|minutes|difficulty|hints|mistakes|refused|named|confused".split(
        "|"
    )
    rows, sums = [head, ["---"] * len(head)], [0] * 4
    for name, exercise in EXERCISES.items():
        found = [(m.name, judge(exercise, m.implementation)) for m in exercise.mistakes]
        refused = sum(verdict.status == "wrong" for _, verdict in found)
        named = sum(verdict.mistake == mistake for mistake, verdict in found)
        confused = sum(verdict.mistake not in (mistake, None) for mistake, verdict in found)
        counts = [len(found), refused, named, confused]
        sums = [total + count for total, count in zip(sums, counts, strict=True)]
        about = [exercise.lesson, f"`{name}`", exercise.kind, exercise.minutes, exercise.difficulty]
        rows.append([*about, len(exercise.hints), *counts])
    rows.append(["all", len(EXERCISES), "", "", "", "", *sums])
    return HEAD + "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page())
