"""What the README says is so."""

import re
from pathlib import Path

from benchmarks import tables

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 3
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_map_marks_the_lessons_that_exist():
    lessons = {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert lessons == set(re.findall(r"\((notebooks/[\w-]+\.ipynb)\)", README))


def test_the_numbers_of_proofs_are_those_of_the_tests():
    from tests import test_papers
    from vitcourse import papers

    words = " ".join(README.split())
    assert f"all {len(papers.names())} published configurations" in words
    assert f"the {len(test_papers.PROOFS)} proofs notices an error" in words


def test_its_code_runs():
    block = re.search(r"```python\n(import torch\n.*?)```", README, re.S)[1]
    names = {}
    exec(block, names)
    assert names["logits"].shape == (8, 10)
    assert names["model"].cfg.grid == (14, 20)


def test_its_tables_are_the_recorded_ones():
    assert tables.fill(README) == README, "run python benchmarks/tables.py"
    assert README.count("| forward |") >= 2


def test_another_figure_is_noticed():
    wrong = re.sub(r"(\| forward \|.*\| )[\d.]+( \|\n)", r"\g<1>0.500\2", README, count=1)
    assert wrong != README and tables.fill(wrong) != wrong
