"""What the lessons say of recorded experiments is what the records say."""

import importlib
import json
import sys
import types

import pytest

from benchmarks.claims import __main__ as claims

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
    assert record["claims"] == {text: True for text in experiment.CLAIMS}
    for text, holds in experiment.CLAIMS.items():
        assert holds(means), text


@pytest.mark.parametrize("name", RECORDED)
def test_a_claim_can_fail(name):
    """Each claim is refused by some record: all figures equal, all far apart, or exchanged."""
    experiment = importlib.import_module(f"benchmarks.claims.{name}")
    figures = claims.recorded(name)["figures"]
    means = {key: figure["mean"] for key, figure in figures.items()}
    wrong = [dict.fromkeys(means, value) for value in (-1e9, 0.0, 1e9)]
    wrong.append({key: 10.0 * place for place, key in enumerate(means)})
    wrong.append(dict(zip(means, reversed(means.values()), strict=True)))
    for text, holds in experiment.CLAIMS.items():
        assert not all(holds(figures) for figures in wrong), text


EXPERIMENT = '''"""Is two more than one?"""

SEEDS = 3


def measure(seed):
    return {"one": 1 + seed / 10, "two": 2.0}


CLAIMS = {"two is more": lambda mean: mean["two"] > mean["one"], "no": lambda mean: False}
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
    assert "DOES NOT HOLD: no" in capsys.readouterr().out
    assert claims.state("counting") == "recorded"
    assert claims.main([]) == 0, "what is recorded is not run again"
    (experiment / "counting.py").write_text(EXPERIMENT + "\n# changed\n")
    assert claims.main(["--list"]) == 0
    assert "counting: stale: the experiment has changed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        claims.main(["nothing"])
