"""What the README says is so."""

import json
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


def test_a_run_on_a_gpu_fills_its_table(tmp_path):
    assert tables.cifar10(tmp_path) == "No CUDA run has been recorded yet."
    environment = {"gpu": "A GPU", "date": "2026-01-02", "torch": "2.15"}
    record = {"data": "CIFAR-10, JPEG copy", "parameters": 2693578, "environment": environment}
    record |= {"accuracy_mean": 0.93511, "accuracy_spread": 0.0012, "seconds": [70.4, 30, 30.2]}
    (tmp_path / "cifar10-fast-cuda.json").write_text(json.dumps(record))
    (tmp_path / "cifar10-fast-cpu.json").write_text("not read")
    row = {"recipe": "theirs", "parameters": 3186442, "accuracy": 0.8, "seconds": 119.6}
    record = {"data": "CIFAR-10, JPEG copy", "environment": environment, "rows": [row]}
    (tmp_path / "beside-others-cuda.json").write_text(json.dumps(record))
    *_, row, other = tables.cifar10(tmp_path).splitlines()
    assert other == (
        "| theirs | CIFAR-10, JPEG copy | 3,186,442 | 80.00 % | 120 "
        "| A GPU, 2026-01-02, torch 2.15 |"
    )
    assert row == (
        "| cifar10-fast | CIFAR-10, JPEG copy | 2,693,578 | 93.51 % ± 0.12 | 70, 30, 30 "
        "| A GPU, 2026-01-02, torch 2.15 |"
    )


def test_another_figure_is_noticed():
    wrong = re.sub(r"(\| forward \|.*\| )[\d.]+( \|\n)", r"\g<1>0.500\2", README, count=1)
    assert wrong != README and tables.fill(wrong) != wrong
