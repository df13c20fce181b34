"""How the lessons are compared under `pytest --nbval`: as strictly as the reader's machine allows.

Whole numbers and words must be the same. Decimal numbers may differ by 0.2 %, since their last
digits depend on the processor. The lessons run on the CPU, with one thread, without progress bars,
and without a network.
"""

import os
import re
from collections import defaultdict
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell

os.environ.update(OMP_NUM_THREADS="1", TQDM_DISABLE="1", CUDA_VISIBLE_DEVICES="")
os.environ["VITCOURSE_PROGRESS"] = ""  # a learner's progress is not touched
os.environ["PYTHONPATH"] = str(Path(__file__).parent / "offline")

SECONDS = defaultdict(float)  # by notebook
LIMIT = {"default": 45, "papers": 25, "18": 75, "19": 75, "20": 75}  # of an undisturbed thread
SLACK = 2  # the machine may be busy

DECIMAL = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")


class Text(str):
    """A cell's output, equal to another that differs only in the last digits of decimal numbers."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        if DECIMAL.sub("#", self) != DECIMAL.sub("#", other):
            return False
        mine, theirs = (map(float, DECIMAL.findall(text)) for text in (self, other))
        return all(
            abs(a - b) <= 2e-3 * max(abs(a), abs(b)) for a, b in zip(mine, theirs, strict=True)
        )

    def __ne__(self, other):
        return not self == other


def tolerant(sanitize):
    def wrapped(cell, output):
        clean = sanitize(cell, output)
        if isinstance(clean, str) and "srcdoc=" in clean:
            return ""  # an explorer: what it says in words is compared, its data is not
        return Text(clean) if isinstance(clean, str) else clean

    return wrapped


IPyNbCell.sanitize = tolerant(IPyNbCell.sanitize)


def pytest_runtest_logreport(report):
    if report.nodeid.split("::")[0].endswith(".ipynb"):
        SECONDS[report.nodeid.split("::")[0]] += report.duration


def pytest_terminal_summary(terminalreporter):
    for notebook, seconds in sorted(SECONDS.items()):
        terminalreporter.write_line(f"{notebook}: {seconds:.1f} s")
    for notebook in too_slow():
        terminalreporter.write_line(f"{notebook} is over its time", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if too_slow() and not hasattr(session.config, "workerinput"):
        session.exitstatus = 1


def too_slow():
    """The notebooks that took longer than a lesson may."""
    return [
        notebook for notebook, seconds in SECONDS.items() if seconds > SLACK * limit(Path(notebook))
    ]


def limit(notebook):
    """How many seconds a notebook may take."""
    kind = "papers" if notebook.parent.name == "papers" else notebook.name[:2]
    return LIMIT.get(kind, LIMIT["default"])
