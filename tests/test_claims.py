"""What the lessons say of recorded experiments is what the records say."""

import importlib
import json
import sys
import types

import pytest
from torch import nn

from benchmarks.claims import __main__ as claims
from benchmarks.claims import comparable

RECORDED = [name for name in claims.names() if claims.recorded(name)]


def test_every_experiment_is_recorded():
    assert RECORDED == claims.names(), "run make claims"


@pytest.mark.parametrize("name", RECORDED)
def test_a_record_holds_what_it_says(name):
    record = claims.recorded(name)
    experiment = importlib.import_module(f"benchmarks.claims.{name}")
    assert record["claim_sha256"] == claims.code_hash(name), "run make claims"
    assert record["seeds"] == experiment.SEEDS >= 3
    for figure in record["figures"].values():
        assert claims.summary(figure["each"]) == figure and len(figure["each"]) == record["seeds"]
    means = {key: figure["mean"] for key, figure in record["figures"].items()}
    expected = getattr(experiment, "CLAIMS", {})
    assert record["claims"] == {text: True for text in expected}
    for text, holds in expected.items():
        assert holds(means), text
    figures, pairs = record["figures"], getattr(experiment, "PAIRS", {})
    assert expected or pairs
    assert record.get("pairs", {}) == {
        text: claims.paired(figures[one], figures[control])
        for text, (one, control) in pairs.items()
    }


@pytest.mark.parametrize("name", RECORDED)
def test_a_claim_can_fail(name):
    """Each claim is refused by some record: all figures equal, all far apart, or exchanged."""
    experiment = importlib.import_module(f"benchmarks.claims.{name}")
    figures = claims.recorded(name)["figures"]
    means = {key: figure["mean"] for key, figure in figures.items()}
    wrong = [dict.fromkeys(means, value) for value in (-1e9, 0.0, 1e9)]
    wrong.append({key: 10.0 * place for place, key in enumerate(means)})
    wrong.append(dict(zip(means, reversed(means.values()), strict=True)))
    for text, holds in getattr(experiment, "CLAIMS", {}).items():
        assert not all(holds(figures) for figures in wrong), text


EXPERIMENT = '''"""Is two more than one?"""

SEEDS = 3


def measure(seed):
    return {"one": 1 + seed / 10, "two": 2.0}


CLAIMS = {"two is more": lambda mean: mean["two"] > mean["one"], "no": lambda mean: False}
PAIRS = {"two is above": ("two", "one"), "one is above": ("one", "two")}
'''


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """An experiment called `counting`, in a folder of its own."""
    (tmp_path / "counting.py").write_text(EXPERIMENT)
    monkeypatch.setattr(claims, "FOLDER", tmp_path)
    monkeypatch.setattr(claims, "RESULTS", tmp_path / "results")
    module = types.ModuleType("benchmarks.claims.counting")
    exec(EXPERIMENT, module.__dict__)
    monkeypatch.setitem(sys.modules, "benchmarks.claims.counting", module)
    return tmp_path


def test_an_experiment_is_run_and_recorded(experiment, capsys):
    assert claims.state("counting") == "not recorded"
    assert claims.main([]) == 1, "a claim that does not hold"
    record = json.loads((experiment / "results" / "claim-counting.json").read_text())
    assert record["question"] == "Is two more than one?"
    assert record["figures"]["one"] == {"mean": 1.1, "spread": 0.1, "each": [1.0, 1.1, 1.2]}
    assert record["claims"] == {"two is more": True, "no": False}
    assert record["pairs"] == {
        "two is above": {"difference": [1.0, 0.9, 0.8], "holds": True},
        "one is above": {"difference": [-1.0, -0.9, -0.8], "holds": False},
    }
    said = capsys.readouterr().out
    assert "DOES NOT HOLD: no" in said and "negative result: one is above" in said
    assert claims.state("counting") == "recorded"
    assert claims.main([]) == 0, "what is recorded is not run again"
    (experiment / "counting.py").write_text(EXPERIMENT + "\nCHANGED = 1\n")
    assert claims.main(["--list"]) == 0
    assert "counting: stale: the experiment has changed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        claims.main(["nothing"])


def test_a_changed_paper_makes_a_record_stale(experiment, tmp_path, monkeypatch):
    """Also one that only another paper's file imports."""
    folder = tmp_path / "vitcourse" / "papers"
    folder.mkdir(parents=True)
    monkeypatch.setattr(claims, "PACKAGE", tmp_path / "vitcourse")
    (folder / "one.py").write_text("from vitcourse.papers.two import Part\n")
    (folder / "two.py").write_text("Part = 1\n")
    source = "from vitcourse.papers import one\n" + EXPERIMENT
    (experiment / "counting.py").write_text(source)
    before = claims.code_hash("counting")
    (folder / "two.py").write_text('"""Text."""\n\nPart = 1  # more text\n')
    assert claims.code_hash("counting") == before, "text alone changes no result"
    (folder / "two.py").write_text("Part = 2\n")
    assert claims.code_hash("counting") != before


def test_models_of_one_budget():
    comparable(nn.Linear(100, 10), nn.Linear(103, 10))
    with pytest.raises(AssertionError, match="1,110 is not within 5 % of 1,010"):
        comparable(nn.Linear(100, 10), nn.Linear(110, 10))
