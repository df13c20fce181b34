"""The lessons as texts."""

import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.lessons import faults
from vitcourse import papers
from vitcourse.lab import notebooks

SOURCES = [source for source in notebooks.sources() if source.parent.name == "source"]
NAMES = [source.stem for source in SOURCES]
FILES = {f"{name}.ipynb" for name in NAMES} | {"../docs/glossary.md"}
PAPERS = [source for source in notebooks.sources() if source.parent.name == "papers"]
PAPER_NAMES = [source.stem for source in PAPERS]
PARTS = ["The equation", "The difference", "The proof", "An experiment"]
PARTS += ["What the authors report", "Remember"]


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_the_text(source):
    files = FILES | {f"papers/{name}.ipynb" for name in PAPER_NAMES}
    assert not list(faults(notebooks.read(source), source.stem[:2], files))


@pytest.mark.parametrize("source", PAPERS, ids=PAPER_NAMES)
def test_the_text_of_a_paper(source):
    notebook = notebooks.read(source)
    files = {f"{name}.ipynb" for name in PAPER_NAMES} | {f"../{name}" for name in FILES}
    assert not list(faults(notebook, "paper", files))
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert re.findall(r"^#+ (.+)$", text, re.M)[1:] == PARTS
    paper = papers.papers()[source.stem]
    for part in (paper.title, paper.link, "$$", "**The question.**", f"../{paper.lesson}-"):
        assert part in text, part


def test_each_paper_has_its_notebook():
    assert set(PAPER_NAMES) == set(papers.papers())


@pytest.mark.parametrize("source", SOURCES + PAPERS, ids=NAMES + PAPER_NAMES)
def test_spelling(source):
    run = subprocess.run(
        [sys.executable, "-m", "codespell_lib", source], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_spelling_error_is_noticed(tmp_path):
    (tmp_path / "lesson.py").write_text("# the atention of teh tokens\n")
    command = [sys.executable, "-m", "codespell_lib", tmp_path / "lesson.py"]
    assert subprocess.run(command, capture_output=True).returncode != 0


def text_of(name):
    """The text of a lesson, as it was written."""
    return (notebooks.NOTEBOOKS / "source" / f"{name}.py").read_text()


def test_the_90_minutes_add_up():
    minutes = re.findall(r"^# ## \d · .* · (\d+) minutes$", text_of("90-minutes"), re.M)
    assert sum(map(int, minutes)) == 90


def test_the_rubric_is_the_one_that_is_filled_in():
    text = text_of("capstone")
    table = re.findall(r"^# \| ([^|]+) \|.*\| (\d+) \|$", text, re.M)
    assert table == re.findall(r'^    "([^"]+)": \(0, (\d+)\),$', text, re.M)
    assert sum(int(points) for _, points in table) == 20 and "rubric of 20 points" in text


# The rules themselves ---------------------------------------------------------------------------

CARD = """### Exercise: count
3 minutes · difficulty 1 of 3

Hint: `check.hint("first_count")`. Solution: `check.solution("first_count")`."""


def good():
    """A lesson 00 without a fault."""
    cells = [
        new_markdown_cell("# A lesson\n\n[the next one](01-patches.ipynb)", id="title"),
        new_code_cell("import torch", id="setup"),
        new_markdown_cell(CARD, id="card"),
        new_code_cell("count = ...", id="stub", metadata={"tags": ["exercise"]}),
        new_code_cell("check.first_count(count)", id="check", metadata={"tags": ["check"]}),
        new_code_cell("print(run)", id="run", metadata={"tags": ["nbval-ignore-output"]}),
        new_code_cell("assert run > 0.9", id="bound"),
    ]
    return new_notebook(cells=cells)


PLANTED = {
    "more than 25": (1, "x = 1\n" * 26),
    "more than 88 characters": (1, f"x = '{'y' * 90}'"),
    "more than 5 lines": (1, "import torch\n" * 6),
    "words, more than 130": (0, "word " * 131),
    "filler: simply": (0, "You simply add"),
    "filler: !": (0, "It works!"),
    "an emoji": (0, "Well done \U0001f389"),
    "leads nowhere": (0, "[there](07-nowhere.ipynb)"),
    "not a link": (0, "see https://example.org"),
    "not public: _fill": (1, "torch._fill(1)"),
    "not public: vitcourse._lab": (1, "from vitcourse._lab import doctor"),
    "another notation: embed_dim": (1, "f(embed_dim=3)"),
    "another notation: num_heads": (1, "num_heads = 3"),
    "exercise first_count is not in": (4, "check.patchify(count)"),
    "one line": (4, "check.first_count(count)\nprint(1)"),
    "not the stub of count": (3, "answer = ..."),
    "the card does not say: 3 minutes": (2, CARD.replace("3 minutes", "9 minutes")),
    "does not say: check.hint": (2, CARD.replace("check.hint", "hint")),
    "asserts nothing": (6, "print(run)"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named(fault):
    notebook = good()
    assert not list(faults(notebook, "00", {"01-patches.ipynb"}))
    place, source = PLANTED[fault]
    notebook.cells[place].source = source
    found = list(faults(notebook, "00", {"01-patches.ipynb"}))
    assert any(fault in text for text in found), found


def test_a_stored_lesson_is_what_a_site_shows():
    """Without running: each code cell that shows something has its output stored."""
    for source in SOURCES:
        stored = nbformat.read(notebooks.target(source), as_version=4)
        shows = [c for c in stored.cells if c.cell_type == "code" and "show.figure(" in c.source]
        assert all(
            any("image/png" in output.get("data", {}) for output in cell.outputs) for cell in shows
        )
