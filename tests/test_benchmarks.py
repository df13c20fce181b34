"""The benchmarks run, compare equals, and record what they should. Times are not tested."""

import json
import sys

import pytest
import torch

from benchmarks import throughput


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
