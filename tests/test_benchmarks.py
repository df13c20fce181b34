"""The benchmarks run, compare equals, and record what they should. Times are not tested."""

import json
import sys

import pytest
import torch

from benchmarks import throughput, training


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


def test_a_run_that_breaks_off_is_recorded_up_to_there(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["throughput.py", "--device", "cpu", "--out", str(tmp_path)])
    measured = []

    def breaks_off(shape, mode, device, compiled, rounds):
        if mode == "training":
            raise KeyboardInterrupt
        row = {"shape": shape, "mode": mode, "device": device}
        measured.append(row)
        return row

    monkeypatch.setattr(throughput, "measure", breaks_off)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        throughput.main()
    (path,) = tmp_path.iterdir()
    assert path.name == "throughput-cpu.json"
    assert json.loads(path.read_text())["rows"] == measured and len(measured) == 1


@pytest.mark.parametrize("script", [throughput, training])
def test_each_shape_is_compiled_for_itself(script, monkeypatch):
    """What was compiled for another shape is forgotten, or the next is compiled for any size."""
    forgotten = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: forgotten.append(script))
    if script is throughput:
        throughput.measure("tiny", "forward", "cpu", False, 1)
    else:
        monkeypatch.setattr(training, "SHAPES", {"tiny": ("Nano/4", 16, 5, 2, 2)})
        training.measure("tiny", torch.device("cpu"), False, 1)
    assert forgotten == [script]
