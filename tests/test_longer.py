"""The benchmarks for a GPU, rehearsed on the CPU and on a device that refuses to meet its tensors.

Their figures are compared with what is known in another way; and the cells of lessons 18 to 20 that
show a record are run on that of a rehearsal.
"""

import copy
import io
import json
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import beside, cifar10, gpu, longer, withstands
from benchmarks.training import random_data
from tests.elsewhere import elsewhere
from vitcourse import detect, show
from vitcourse.data import load
from vitcourse.lab import notebooks
from vitcourse.papers import ipt, mae
from vitcourse.papers.deformable_detr import DeformableDETR

PLACES = {"cpu": nullcontext, "elsewhere": elsewhere}
CPU = torch.device("cpu")


def rehearse(script, folder, name, place, *arguments):
    """The record of a rehearsal, and its calls of `fit`."""
    calls, options = [], ["--data", "shapes", "--rehearse", "--out", str(folder)]
    options += ["--set", "compile=false"]
    with pytest.MonkeyPatch.context() as patch:
        if place == "cpu":
            patch.setattr("vitcourse.train.device.fastest", lambda: CPU)
        patch.setattr(sys, "argv", [script.__name__, *arguments, *options])
        patch.setattr(script, "fit", spy(script.fit, calls))
        with PLACES[place]():
            script.main()
    return json.loads((folder / f"rehearsal{name}-{place}.json").read_text()), calls


def spy(fit, calls):
    """`fit`, whose calls are kept in a list."""

    def spied(model, data, recipe, *given, **options):
        before = copy.deepcopy(model.state_dict())
        run = fit(model, data, recipe, *given, **options)
        step = given[0] if given else options.get("step")
        calls.append(SimpleNamespace(before=before, data=data, recipe=recipe, step=step, run=run))
        return run

    return spied


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """What `rehearse` gives for an experiment of benchmarks/longer.py, each run once."""
    found, folder = {}, tmp_path_factory.mktemp("records")

    def get(what, place):
        if (what, place) not in found:
            found[what, place] = rehearse(longer, folder, f"-longer-{what}", place, what)
        return found[what, place]

    return get


@pytest.fixture(scope="module")
def photographs():
    """The images of a rehearsal."""
    return gpu.few(load("shapes"), 256)


# What is recorded -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", longer.EXPERIMENTS)
def test_a_record_says_where_it_is_from(what, place, rehearsed):
    record, calls = rehearsed(what, place)
    images = [128, 32] if what == "detection" else [256, 256]
    name = "shapes, scenes" if what == "detection" else "CIFAR-10, exact"
    assert record["images"] == images and record["data"] == name
    assert record["recipe"]["epochs"] == 2 and len(record["environment"]["source_sha256"]) == 64
    for call in calls:
        tensors = call.data.images, call.data.test_labels, *call.run.model.parameters()
        assert {tensor.device.type for tensor in tensors} == {place}


@pytest.mark.parametrize("place", PLACES)
def test_without_labels(place, rehearsed, photographs):
    record, calls = rehearsed("without_labels", place)
    error = wrong_by_mean(photographs)
    assert record["error of the mean image"] == pytest.approx(error, rel=1e-4)
    assert [entry["epoch"] for entry in record["pre-training"]] == [1, 2]
    assert all(0 < entry["error"] < 10 for entry in record["pre-training"])
    ways = [(row["labels"], row["way"]) for row in record["rows"]]
    assert ways == [(n, way) for n in (8, 24) for way in ("probe", "fine-tuning", "new")]
    assert {row["steps"] for row in record["rows"]} == {4}
    assert all(0 <= row["accuracy"] <= 1 for row in record["rows"])
    encoder = mae.ViT(calls[0].run.model.cfg)
    assert record["parameters"]["encoder"] == longer.count(encoder) - position_and_head(encoder)


def wrong_by_mean(data):
    """The mean square that the mean training image leaves, of normalised images."""
    images, test = (x.numpy() / 255.0 for x in (data.images, data.test_images))
    deviation = images.std(axis=(0, 2, 3))[:, None, None]
    return (((test - images.mean(axis=0)) / deviation) ** 2).mean()


def position_and_head(vit):
    """What an MAE's encoder does not learn: how many numbers."""
    return sum(p.numel() for part in (vit.position, vit.head) for p in part.parameters())


def test_each_way_to_learn_labels_is_what_it_is_called(rehearsed, photographs):
    """Each sees the same, in as many steps; all begin with what was learned, but for the new."""
    _, (pretraining, *taught) = rehearsed("without_labels", "cpu")
    learned = pretraining.run.model.state_dict()
    assert pretraining.run.model.masked == 0.75 and pretraining.recipe.augment.flip
    for place, call in enumerate(taught):
        way = ("probe", "fine-tuning", "new")[place % 3]
        control = taught[place - place % 3]
        assert torch.equal(call.data.images, control.data.images)
        assert call.recipe.but(lr=0) == control.recipe.but(lr=0)
        for ours, whole in zip(call.data.statistics, photographs.statistics, strict=True):
            assert torch.equal(ours, whole)
        counts = call.data.labels.bincount()
        assert counts.tolist() == [len(call.data.labels) // 8] * 8
        name, after = "blocks.0.mlp.fc1.weight", call.run.model.state_dict()
        assert torch.equal(call.before[name], learned[name]) == (way != "new")
        assert torch.equal(call.before[name], after[name]) == (way == "probe")
        assert not call.before["head.weight"].any() and after["head.weight"].any()


@pytest.mark.parametrize("place", PLACES)
def test_detection(place, rehearsed):
    record, calls = rehearsed("detection", place)
    rows = [(row["model"], row["epoch"], row["step"]) for row in record["rows"]]
    names = ("DETR", "Deformable DETR")
    assert rows == [(name, epoch, 2 * epoch) for name in names for epoch in (1, 2)]
    for row in record["rows"]:
        assert 0 <= row["AP"] <= row["AP50"] <= 1 and row["duplicates"] >= 0 < row["seconds"]
    plain, deformable = (call.run.model for call in calls)
    assert not isinstance(plain, DeformableDETR) and deformable.cfg.refine
    assert record["parameters"] == {
        name: longer.count(model) for name, model in zip(names, (plain, deformable), strict=True)
    }


def test_detectors_are_compared_with_the_truth(monkeypatch):
    """They learn what the training images show. Who knows the test images has AP 1."""
    scenes = load("shapes", task="scenes", train=8, test=8)
    recipe, calls = longer.DETECTION.but(epochs=1, batch=8), []
    monkeypatch.setattr(longer, "fit", spy(longer.fit, calls))
    truth = detect.objects(scenes)
    twice = [
        replace(x, **{k: v.repeat_interleave(2, 0) for k, v in vars(x).items()}) for x in truth
    ]
    for said, extra in ((truth, 0), (twice, 1)):
        monkeypatch.setattr(detect, "guesses", lambda model, data, said=said: said)
        for row in longer.detection(scenes, recipe, CPU)["rows"]:
            assert row["duplicates"] == extra and (extra or row["AP"] == row["AP50"] == 1)
    for (labels, boxes), wanted, corners in zip(
        calls[0].step.keywords["truth"],
        scenes.extras["labels"],
        scenes.extras["boxes"],
        strict=True,
    ):
        assert torch.equal(labels, wanted)
        torch.testing.assert_close(boxes[:, 0], (corners[:, 0] + corners[:, 2]) / 64)


@pytest.mark.parametrize("place", PLACES)
def test_restoration(place, rehearsed, photographs):
    record, _ = rehearsed("restoration", place)
    rows = {row["task"]: row for row in record["rows"]}
    for task, value in known_before(photographs).items():
        assert rows[task]["given"] == pytest.approx(value, abs=0.01), task
    assert 20 < rows["noise"]["given"] < 20.5, "of a deviation of 0.1, a little is cut off"
    assert [entry["epoch"] for entry in record["by epoch"]] == [1, 2]
    mean = sum(row["restored"] for row in rows.values()) / 3
    assert record["by epoch"][-1]["PSNR"] == pytest.approx(mean, abs=1e-4)


def known_before(data):
    """The PSNR of what each task is given: numpy and Pillow."""
    clean = data.test_images.float() / 255
    corner, generator = clean[..., :16, :16], torch.Generator().manual_seed(0)
    noisy = corner + 0.1 * torch.randn(corner.shape, generator=generator)
    rainy = ipt.add_rain(corner, generator)
    larger = np.stack([[resized(resized(x, 16), 32) for x in image] for image in clean.numpy()])
    damaged = {"noise": (noisy, corner), "rain": (rainy, corner), "twice as large": (larger, clean)}
    return {task: decibels(*map(np.asarray, both)) for task, both in damaged.items()}


def resized(channel, side):
    """One channel (H, W) as Pillow resizes it: (side, side)."""
    return np.asarray(Image.fromarray(channel).resize((side, side), Image.Resampling.BICUBIC))


def decibels(image, clean):
    """The mean PSNR of images (n, C, H, W)."""
    wrong = ((image.clip(0, 1).astype(float) - clean.astype(float)) ** 2).mean(axis=(1, 2, 3))
    return (10 * np.log10(1 / wrong)).mean()


def test_who_learns_nothing_restores_nothing(photographs, tmp_path):
    """The models begin as copies: what is to be enlarged gets each pixel four times."""
    record, _ = rehearse(
        longer, tmp_path, "-longer-restoration", "cpu", "restoration", "--set", "lr=0"
    )
    rows = {row["task"]: row for row in record["rows"]}
    for task in ("noise", "rain"):
        assert rows[task]["restored"] == pytest.approx(rows[task]["given"], abs=1e-3)
    clean = photographs.test_images.float() / 255
    pixels = np.asarray(ipt.shrink(clean)).repeat(2, 2).repeat(2, 3)
    known = decibels(pixels, np.asarray(clean))
    assert rows["twice as large"]["restored"] == pytest.approx(known, abs=1e-3)


# The other two ----------------------------------------------------------------------------------


@pytest.fixture
def fewer(monkeypatch):
    """Half of the images of a rehearsal, or less, are enough here."""
    for script in (withstands, cifar10):
        monkeypatch.setattr(script, "few", lambda data, count: gpu.few(data, 128))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", ["needs", "disturbed"])
def test_what_models_withstand_is_recorded(what, place, tmp_path, monkeypatch, fewer):
    monkeypatch.setattr(withstands, "WIDTHS", (4, 6))
    arguments = [what, "--set", "lr=0.004"]
    record, calls = rehearse(withstands, tmp_path, f"-{what}", place, *arguments)
    assert {call.data.images.device.type for call in calls} == {place}
    assert record["recipe"]["lr"] == 0.004 and record["width of the CNN"] in (4, 6)
    rows = {(row["model"], row.get("images") or row["what"]): row for row in record["rows"]}
    assert len(rows) == len(record["rows"]) == {"needs": 8, "disturbed": 9 + 2 * 27}[what]
    assert all(0 <= row["accuracy"] <= 1 for row in record["rows"])
    for name in ("ViT", "CNN"):
        if what == "needs":
            assert {n for model, n in rows if model == name} == {3, 13, 51, 128}
        else:
            assert rows[name, "moved, 0"]["accuracy"] == rows[name, "clean"]["accuracy"]


@pytest.mark.parametrize("place", PLACES)
def test_accuracy_on_cifar10_is_recorded(place, tmp_path, fewer):
    arguments = ["--recipe", "smoke", "--seeds", "2", "--name", "a copy"]
    record, calls = rehearse(cifar10, tmp_path, "", place, *arguments)
    assert record["data"] == "CIFAR-10, a copy" and record["images"] == [128, 128]
    last = [run["history"][-1]["test_accuracy"] for run in record["runs"]]
    assert record["accuracy_mean"] == pytest.approx(sum(last) / 2, abs=1e-5)
    assert record["accuracy_spread"] == pytest.approx(abs(last[0] - last[1]) / 2**0.5, abs=1e-5)
    assert record["parameters"] == longer.count(calls[0].run.model)
    assert len(record["seconds"]) == 2 and {c.data.images.device.type for c in calls} == {place}


@pytest.mark.parametrize("place", PLACES)
def test_what_stands_beside_it_is_recorded(place, tmp_path, monkeypatch):
    small = {
        name: (recipe, model, sizes | {"dim": 48, "depth": 1} if sizes else {})
        for name, (recipe, model, sizes) in beside.OTHERS.items()
    }
    monkeypatch.setattr(beside, "OTHERS", small)
    monkeypatch.setattr(beside, "few", lambda data, count: gpu.few(data, 32))
    record, calls = rehearse(beside, tmp_path, "-beside-without", place, "without")
    assert [row["recipe"] for row in record["rows"]] == [
        f"cifar10-fast without {name}" for name in beside.INGREDIENTS
    ]
    whole, *recipes = (call.recipe for call in calls)
    for changes, recipe in zip(list(beside.INGREDIENTS.values())[1:], recipes, strict=True):
        assert recipe == whole.with_settings(changes) != whole
    assert {c.data.images.device.type for c in calls} == {place}
    record, calls = rehearse(beside, tmp_path, "-beside-others", place, "others")
    assert [row["recipe"] for row in record["rows"]] == list(beside.OTHERS)
    for row, call in zip(record["rows"], calls[1::2], strict=True):  # every other measures speed
        assert row["accuracy"] == call.run.accuracy and row["epochs"] == 2
        assert row["parameters"] == longer.count(call.run.model)


def test_others_are_as_large_as_they_say():
    data = random_data(32, 10, 20)
    models = [beside.build_model(r, data, cls, **sizes) for r, cls, sizes in beside.OTHERS.values()]
    _, one, two, lite = map(longer.count, models)
    assert lite == 3_716_874  # "3.72M", and to the last one
    assert 6.25e6 < two < 6.35e6  # "6.3 M"
    block = 4 * 512**2 + 4 * 512 + 2 * 512**2 + 2 * 512 + 4 * 512
    assert one == 6 * block + (48 + 1) * 512 + 66 * 512 + 2 * 512 + 513 * 10


def test_as_many_epochs_as_fit(monkeypatch):
    monkeypatch.setattr(beside, "seconds_an_epoch", lambda *_: 0.4)
    monkeypatch.setattr(beside, "train", lambda name, data, recipe, *_: {"epochs": recipe.epochs})
    rows = beside.others(None, [], CPU, {}, 1.3)
    assert [row["epochs"] for row in rows] == [3, 3, 3, 3]
    assert next(beside.others(None, [], CPU, {}, 0.1))["epochs"] == 1


def test_a_seed_that_breaks_off_leaves_those_before_it(tmp_path, fewer, monkeypatch):
    fit, seeds = cifar10.fit, []

    def breaks_off(model, data, recipe, **options):
        seeds.append(recipe.seed)
        if recipe.seed == 1:
            raise KeyboardInterrupt
        return fit(model, data, recipe, **options)

    monkeypatch.setattr(cifar10, "fit", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        rehearse(cifar10, tmp_path, "", "cpu", "--recipe", "smoke", "--seeds", "3")
    record = json.loads((tmp_path / "rehearsal-cpu.json").read_text())
    assert seeds == [0, 1] and [run["seed"] for run in record["runs"]] == [0]


# What the lessons show of it --------------------------------------------------------------------

LESSONS = {"without_labels": "18", "detection": "19", "restoration": "20"}


def shown(what, folder, monkeypatch, record=None):
    """What the lesson's cell prints of a record, or without one."""
    monkeypatch.setattr(sys.modules["vitcourse.show.recorded"], "FOLDER", folder)
    if record:
        (folder / f"longer-{what}-cuda.json").write_text(json.dumps(record))
    (source,) = (notebooks.NOTEBOOKS / "source").glob(f"{LESSONS[what]}-*.py")
    cells = {cell.id: cell.source for cell in notebooks.read(source).cells}
    with redirect_stdout(io.StringIO()) as said:
        exec(cells["longer"], {"show": show})
    assert f"python -m benchmarks.longer {what}" in cells["longer-text"]
    return said.getvalue()


@pytest.mark.parametrize("what", LESSONS)
def test_a_lesson_shows_a_record(what, rehearsed, tmp_path, monkeypatch):
    assert shown(what, tmp_path, monkeypatch) == "no CUDA run recorded yet\n"
    record = copy.deepcopy(rehearsed(what, "cpu")[0])
    record["environment"]["gpu"] = "a GPU"
    for i, row in enumerate(record["rows"]):  # after so few steps, many are alike
        row |= {name: (1 + i) / 10 + j / 25 for j, name in enumerate(FIGURES[what])}
    said, about = shown(what, tmp_path, monkeypatch, record), record["environment"]
    assert f"recorded on {about['date']}, a GPU: {record['data']}" in said
    assert f"code: {about['source_sha256'][:12]}" in said
    for row in record["rows"]:
        (line,) = [x for x in said.splitlines() if all(key in x for key in keys(row))]
        assert all(f"{row[name]:{form}}" in line for name, form in FIGURES[what].items())


FIGURES = {
    "without_labels": {"accuracy": ".3f"},
    "detection": {"AP": ".3f", "AP50": ".3f", "duplicates": ".2f"},
    "restoration": {"given": ".2f", "restored": ".2f"},
}


def keys(row):
    """What tells one row of a record from the others, as its line begins."""
    if "way" in row:
        return f"{row['labels']:,} labels", row["way"]
    return (row["task"],) if "task" in row else (f"{row['model']:17}{row['epoch']:>5}",)
