"""The benchmarks run, compare equals, and record what they should. Times are not tested."""

import json
import sys

import pytest
import torch

from benchmarks import throughput, withstands


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(throughput, "SHAPES", {"tiny": ("Nano/4", 16, 5, 2, 2)})


def test_the_four_models_are_equal():
    models = throughput.build("tiny")
    assert list(models) == ["vitcourse", "timm", "torchvision", "transformers"]
    images = torch.randn(2, 3, 16, 16)
    throughput.assert_equal(models, images)
    with torch.no_grad():
        models["torchvision"].encoder.layers[2].ln_1.weight[0] += 0.5
    with pytest.raises(AssertionError, match="torchvision: logits differ"):
        throughput.assert_equal(models, images)
    models["timm"].head = torch.nn.Identity()
    with pytest.raises(AssertionError, match="timm"):
        throughput.assert_equal(models, images)


def test_a_run_is_recorded(tmp_path, monkeypatch, capsys):
    arguments = ["throughput.py", "--rounds", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    throughput.main()
    record = json.loads((tmp_path / "throughput-cpu.json").read_text())
    assert [row["mode"] for row in record["rows"]] == ["forward", "training"]
    for row in record["rows"]:
        assert row["memory_MB"]["vitcourse"] > 0
        assert row["fastest_other"] != "vitcourse" and 0 < row["ratio"] < 100
    about = record["environment"]
    assert about["torch"] == torch.__version__ and len(about["sources_sha256"]) == 64


@pytest.mark.parametrize("what", ["needs", "disturbed"])
def test_what_models_withstand_is_recorded(what, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(withstands, "WIDTHS", (4, 6))
    arguments = [
        what,
        "--data",
        "shapes",
        "--rehearse",
        "--set",
        "lr=0.004",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", ["withstands.py", *arguments])
    withstands.main()
    record = json.loads((tmp_path / f"rehearsal-{what}-cpu.json").read_text())
    assert record["recipe"]["lr"] == 0.004 and record["width of the CNN"] in (4, 6)
    rows = {(row["model"], row.get("images") or row["what"]): row for row in record["rows"]}
    assert len(rows) == len(record["rows"]) == {"needs": 8, "disturbed": 9 + 2 * 27}[what]
    assert all(0 <= row["accuracy"] <= 1 for row in record["rows"])
    for name in ("ViT", "CNN"):
        if what == "needs":
            assert {n for model, n in rows if model == name} == {5, 26, 102, 256}
        else:
            assert rows[name, "moved, 0"]["accuracy"] == rows[name, "clean"]["accuracy"]
