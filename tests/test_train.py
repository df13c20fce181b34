"""Recipes, batches, the loop and its command line, against plain code that does the same."""

import copy
import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.runs import RECIPE, few_digits, train
from vitcourse import cli, probe, weights
from vitcourse.data.augment import Augment
from vitcourse.parts import LearnedPosition2D, NoPosition
from vitcourse.show.curves import caption, loss_curves
from vitcourse.show.pictures import attention_overlay, confusion_matrix
from vitcourse.train import RECIPES, Recipe, build_model, decay_groups, evaluate, fit
from vitcourse.train.batches import Batches, seed_of
from vitcourse.train.device import pick_device, pick_precision
from vitcourse.train.recipe import learning_rate
from vitcourse.vit import ViT

SHORT = RECIPE.but(epochs=2, drop_path=0.0, ema=0.0)


# Recipes ----------------------------------------------------------------------------------------


def test_the_learning_rate():
    recipe = Recipe(lr=1.0, warmup=0.1)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[:11] == pytest.approx([(step + 1) / 11 for step in range(10)] + [1.0])
    assert rates[55] == pytest.approx(0.5) and rates[99] < 0.001
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert learning_rate(recipe.but(warmup=0.0), 0, 100) == 1.0


def test_settings():
    recipe = Recipe().with_settings(["lr=3e-4", "epochs=7", "augment.flip=true", "compile=True"])
    assert (recipe.lr, recipe.epochs, recipe.augment.flip, recipe.compile) == (3e-4, 7, True, True)
    assert Recipe.from_json(recipe.to_json()) == recipe
    augment = Recipe().with_settings(["augment.scale=0.1", "augment.shift=2"]).augment
    assert (augment.scale, augment.shift) == (0.1, 2)


@pytest.mark.parametrize(
    "setting, message",
    [
        ("learning_rate=1", "is no setting.*lr.*augment.flip"),
        ("lr", "is no setting"),
        ("augment.lr=1", "is no setting"),
        ("lr=fast", "lr is 'fast': it must be a number"),
        ("epochs=1.5", "epochs is '1.5': it must be a whole number"),
        ("compile=1", "write true or false"),
        ("epochs=0", "epochs is 0"),
        ("ema=1.0", "ema is 1.0"),
        ("lr=-1", "lr is -1"),
        ("precision=int8", "choose auto, float32, bf16 or fp16"),
        ("accumulate=3", "128 does not divide into 3"),
        ("augment.mixup=-1", "mixup is -1"),
        ("augment.shift=0.5", "augment.shift is '0.5': it must be a whole number"),
        ("position_std=nan", "position_std is nan: it must be above 0"),
        ("position_std=0", "position_std is 0.0: it must be above 0"),
        (f"seed={2**63}", "it must be below"),
    ],
)
def test_bad_settings(setting, message):
    with pytest.raises(ValueError, match=message) as error:
        Recipe().with_settings([setting])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_a_model(name):
    recipe = RECIPES[name]
    assert Recipe.from_json(recipe.to_json()) == recipe
    model = build_model(recipe, few_digits(20))
    assert model.position.table.std().item() == pytest.approx(0.88 * recipe.position_std, rel=0.15)


def test_a_variant_of_another_size_begins_as_the_recipe_says():
    recipe, data = RECIPES["smoke"], few_digits(20)
    model = build_model(recipe, data, ViT.variant(Position=LearnedPosition2D), depth=2, dim=96)
    assert (len(model.blocks), model.cfg.dim, model.cfg.patch) == (2, 96, 4)
    for table in (model.position.rows, model.position.columns):
        assert table.std().item() == pytest.approx(0.88 * recipe.position_std, rel=0.3)
    model = build_model(recipe, data, ViT.variant(Position=NoPosition))
    assert not list(model.position.parameters())
    with pytest.raises(TypeError, match="'width' is not an option"):
        build_model(recipe, data, width=96)


# Batches ----------------------------------------------------------------------------------------


def same(one, other):
    return all(torch.equal(getattr(one, n), getattr(other, n)) for n in one.__dataclass_fields__)


def test_batches_depend_on_the_step_alone():
    data = few_digits(200)
    whole = list(Batches(data, SHORT).since(0))
    assert len(whole) == 6 and whole[0].images.shape == (64, 1, 8, 8)
    rest = list(Batches(data, SHORT).since(4))
    assert all(same(one, other) for one, other in zip(whole[4:], rest, strict=True))
    for epoch in (whole[:3], whole[3:]):
        seen = torch.cat([batch.index for batch in epoch])
        assert len(seen.unique()) == 192
    assert not torch.equal(whole[0].index, whole[3].index), "each epoch has its own order"
    other = next(Batches(data, SHORT.but(seed=1)).since(0))
    assert not torch.equal(whole[0].index, other.index)


def test_batches_are_normalised():
    data = few_digits(256)
    recipe = SHORT.but(augment=Augment(), batch=256, smoothing=0.1)
    batch = next(Batches(data, recipe).since(0))
    assert batch.images.mean().abs() < 1e-5 and abs(batch.images.std() - 1) < 1e-3
    wanted = (data.images[batch.index].float() / 255 - data.mean) / data.std
    torch.testing.assert_close(batch.images, wanted)
    assert torch.equal(batch.targets.argmax(1), data.labels[batch.index])
    assert batch.targets.max().item() == pytest.approx(0.91)


def test_processes_share_a_batch():
    data = few_digits(200)
    whole = next(Batches(data, SHORT).since(2))
    parts = [next(Batches(data, SHORT, rank=rank, world=4).since(2)) for rank in range(4)]
    for name in whole.__dataclass_fields__:
        assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name)), name
    pieces = whole.pieces(4)
    assert torch.equal(torch.cat([piece.images for piece in pieces]), whole.images)


def test_seeds_have_nothing_in_common():
    seeds = {seed_of(a, word, b) for a in range(50) for b in range(50) for word in ("x", "y")}
    assert len(seeds) == 5000 and seed_of(1, "x") == seed_of(1, "x") < 2**63


# The loop ---------------------------------------------------------------------------------------


def test_the_loop_by_hand():
    """The same training in plain code: schedule, decay, clipping, average."""
    recipe = RECIPE.but(epochs=2, drop_path=0.0, ema=0.9)
    data = few_digits()
    run = train(recipe=recipe)

    model = build_model(recipe, data)
    average = copy.deepcopy(model)
    groups = decay_groups(model, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, recipe.beta2))
    for step, batch in enumerate(Batches(data, recipe).since(0)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, 8)
        optimizer.zero_grad()
        logits = model(batch.images)
        loss = -(batch.targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
        loss.backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters()))
        for parameter in model.parameters():
            parameter.grad *= min(1, recipe.clip / (norm + 1e-6))
        optimizer.step()
        keep = min(recipe.ema, (1 + step) / (10 + step))
        for ours, new in zip(average.parameters(), model.parameters(), strict=True):
            ours.data = keep * ours.data + (1 - keep) * new.data
    for (name, ours), hand in zip(run.model.named_parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(
            ours, hand, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_pieces_give_the_same_result():
    whole, pieces = train(recipe=SHORT), train(recipe=SHORT.but(accumulate=4))
    assert pieces.history[-1]["loss"] == pytest.approx(whole.history[-1]["loss"], rel=1e-5)
    for ours, other in zip(whole.model.parameters(), pieces.model.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-2, atol=2e-4)


@pytest.mark.parametrize("accumulate", [8, 128])
def test_pieces_that_are_not_equal(accumulate):
    """50 images in pieces of 7, and one of 1: each image counts as much."""
    data, recipe = few_digits(50), SHORT.but(batch=128, epochs=4)
    whole = train(recipe=recipe, data=data)
    pieces = train(recipe=recipe.but(accumulate=accumulate), data=data)
    losses = [[entry["loss"] for entry in run.history] for run in (whole, pieces)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_run_learns_and_says_so(tmp_path):
    recipe = Recipe(epochs=15, lr=3e-3, position_std=0.5, evaluate_every=6)
    run = train(tmp_path / "run", recipe=recipe, data=few_digits(1400))
    losses = [entry["loss"] for entry in run.history]
    assert losses[-1] < 0.5 < 1.5 < losses[0]
    tested = [entry["epoch"] for entry in run.history if "test_accuracy" in entry]
    assert tested == [6, 12, 15] and run.accuracy > 0.75 and not run.model.training
    files = {path.name for path in run.out.iterdir() if path.suffix != ".ckpt"}
    assert files == {
        "recipe.json", "environment.json", "data.json", "log.jsonl", "curves.png", "metrics.json",
        "model.safetensors",
    }  # fmt: skip
    assert len(list(run.out.glob("*.ckpt"))) == 2
    metrics = json.loads((run.out / "metrics.json").read_text())
    assert metrics["test_accuracy"] == run.accuracy
    model, about = weights.restore(run.out / "model.safetensors")
    assert evaluate(model, few_digits(1400))["accuracy"] == run.accuracy
    assert about["classes"] == [str(digit) for digit in range(10)]


def test_what_is_not_a_classifier_has_a_score_of_its_own(tmp_path):
    seen = []

    def score(model, data):
        seen.append((model.training, torch.is_grad_enabled()))
        return {"PSNR": torch.tensor(20.0 + len(seen))}

    recipe = SHORT.but(evaluate_every=1)
    model = build_model(recipe, few_digits())
    run = fit(model, few_digits(), recipe, score=score, out=tmp_path, device="cpu", quiet=True)
    assert seen == [(False, False)] * recipe.epochs
    assert [entry["test_PSNR"] for entry in run.history] == [21.0 + i for i in range(recipe.epochs)]
    assert not any("test_accuracy" in entry for entry in run.history)
    assert json.loads((tmp_path / "metrics.json").read_text())["test_PSNR"] == 20.0 + recipe.epochs
    left, right = loss_curves(run.history).axes
    assert right.get_ylabel() == "test PSNR" and len(left.lines) == 1
    assert caption(run.history).endswith(f"test PSNR {20 + recipe.epochs}.000 at the end")


def test_the_seed_decides():
    one, same_seed, other = (train(recipe=SHORT.but(seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(one.model.head.weight, same_seed.model.head.weight)
    assert not torch.equal(one.model.head.weight, other.model.head.weight)


def test_evaluate_by_hand():
    data = few_digits()
    model = train(recipe=SHORT).model
    result = evaluate(model, data, "cpu", batch=7)
    with torch.no_grad():
        logits = model((data.test_images.float() / 255 - data.mean) / data.std)
    guesses = logits.argmax(dim=1)
    assert result["accuracy"] == (guesses == data.test_labels).sum().item() / 100
    assert result["loss"] == pytest.approx(
        F.cross_entropy(logits, data.test_labels).item(), rel=1e-5
    )
    for truth, guess in [(0, 0), (3, 8), (9, 9)]:
        count = ((data.test_labels == truth) & (guesses == guess)).sum()
        assert result["confusion"][truth, guess] == count


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_learns_the_same(precision):
    full = train(recipe=SHORT).history[-1]["loss"]
    low = train(recipe=SHORT.but(precision=precision)).history[-1]["loss"]
    assert low == pytest.approx(full, rel=0.03) and low != full


def test_a_compiled_run(monkeypatch):
    compile = torch.compile
    calls = []

    def quickly(model):
        calls.append(model)
        return compile(model, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", quickly)
    run, plain = train(recipe=SHORT.but(compile=True)), train(recipe=SHORT)
    assert len(calls) == 1
    assert run.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=1e-4)


def test_a_step_of_ones_own():
    seen = []

    def step(model, batch):
        seen.append(batch)
        return F.cross_entropy(model(batch.images), batch.labels) + 0 * batch.index.sum()

    train(recipe=SHORT, step=step)
    assert len(seen) == 8 and seen[0].labels.shape == (64,)


def test_devices():
    assert pick_precision("auto", torch.device("cpu")) == "float32"
    assert pick_precision("bf16", torch.device("cpu")) == "bf16"
    with pytest.raises(ValueError, match="device 'gpu' cannot be used"):
        pick_device("gpu")


@pytest.mark.parametrize("capability, precision", [((7, 5), "fp16"), ((8, 0), "bf16")])
def test_a_t4_gets_fp16(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_precision("auto", torch.device("cuda")) == precision


def test_rollout():
    T, maps = 4, [torch.rand(2, 3, 4, 4).softmax(-1) for _ in range(3)]
    reach = probe.rollout(maps)
    torch.testing.assert_close(reach.sum(-1), torch.ones(2, T))
    wanted = torch.eye(T)
    for weights_ in maps:
        wanted = (weights_.mean(1) + torch.eye(T)) / 2 @ wanted
    torch.testing.assert_close(reach, wanted)
    identity = [torch.eye(T).expand(2, 3, T, T)] * 3
    torch.testing.assert_close(probe.rollout(identity), torch.eye(T).expand(2, T, T))


# Figures, by the data they draw -----------------------------------------------------------------


def test_curves():
    history = [
        {"epoch": 1, "loss": 2.0},
        {"epoch": 2, "loss": 1.0, "test_accuracy": 0.5, "test_loss": 1.5},
    ]
    left, right = loss_curves(history).axes
    assert left.lines[0].get_xydata().tolist() == [[1, 2.0], [2, 1.0]]
    assert left.lines[1].get_xydata().tolist() == [[2, 1.5]]
    assert right.lines[0].get_xydata().tolist() == [[2, 0.5]]
    assert caption(history) == (
        "Curves over 2 epochs: loss from 2.00 to 1.00, test accuracy 50.0% at the end"
    )


@pytest.mark.parametrize("watched", [True, False])
def test_curves_are_live_where_somebody_watches(monkeypatch, watched):
    shown, updates = [], []

    class Handle:
        def update(data, metadata, raw):
            updates.append(data)

    def display(data, **options):
        shown.append(data)
        return Handle

    monkeypatch.setattr("vitcourse.show.curves.in_notebook", lambda: True)
    monkeypatch.setenv("TQDM_DISABLE", "0" if watched else "1")
    monkeypatch.setattr("vitcourse.show.curves.display", display)
    monkeypatch.setattr("vitcourse.show.figures.display", display)
    data = few_digits()
    fit(build_model(SHORT, data), data, SHORT.but(epochs=3), device="cpu")
    assert len(shown) == 1 and len(updates) == (3 if watched else 0)
    last = updates[-1] if watched else shown[0]
    assert last["text/plain"].startswith("Curves over 3 epochs: loss from 2.")
    assert last["image/png"].startswith(b"\x89PNG")


def test_pictures():
    confusion = torch.tensor([[3, 1], [0, 4]])
    axes = confusion_matrix(confusion, ["cat", "dog"]).axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "3", (1, 0): "1", (1, 1): "4"}
    heat = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    left, right = attention_overlay(torch.rand(1, 8, 8), heat, "seven").axes
    drawn = right.images[1].get_array()
    assert left.get_title() == "seven" and drawn[0, -1] == drawn.max() and drawn[-1, 0] == 0


# The command line -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run made by the command itself."""
    folder = tmp_path_factory.mktemp("cli")
    out = vitcourse(folder, "train", "--set", "epochs=2", "--out", "run")
    assert out.returncode == 0, out.stderr
    assert "test accuracy" in out.stdout and "digits: 1437 images" in out.stdout
    return folder / "run"


def vitcourse(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "vitcourse", *arguments], cwd=folder, capture_output=True, text=True
    )


def test_evaluate_on_the_command_line(run, capsys):
    assert cli.main(["evaluate", str(run)]) == 0
    said = capsys.readouterr().out
    accuracy = json.loads((run / "metrics.json").read_text())["test_accuracy"]
    assert f"digits: accuracy {accuracy:.2%}" in said
    assert Image.open(run / "confusion.png").size[0] > 300
    assert cli.main(["evaluate", str(run)]) == 0
    assert (run / "confusion-2.png").exists(), "the first picture must stay"
    assert cli.main(["evaluate", str(run), "--data", "shapes"]) == 2
    assert "has others" in capsys.readouterr().err


def test_predict_on_the_command_line(run, tmp_path, capsys):
    data = few_digits()
    picture = tmp_path / "digit.png"
    Image.fromarray(data.test_images[3, 0].numpy()).resize((80, 60)).convert("RGB").save(picture)
    command = ["predict", str(run), str(picture), "--out", str(tmp_path / "seen"), "--top", "2"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{picture}: ") and said.count("%") == 2
    assert (tmp_path / "seen" / "digit-attention.png").is_file()
    (tmp_path / "text.png").write_text("no picture")
    assert cli.main(["predict", str(run), str(tmp_path / "text.png")]) == 2
    assert cli.main(["predict", str(run), str(tmp_path / "none.png")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "is no picture that can be read" in errors[0] and "there is no picture" in errors[1]


def test_predict_is_right_about_the_training_pictures(tmp_path):
    """The whole way from a file to a class gives what the model gives."""
    from vitcourse.train.predict import read_picture

    data = few_digits()
    pixels = data.test_images[5, 0]
    Image.fromarray(pixels.numpy()).save(tmp_path / "digit.png")
    assert torch.equal(read_picture(tmp_path / "digit.png", 1, (8, 8))[0], pixels / 255)


def lying(path):
    """A picture that is stored lying, with the note that it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(path, exif=exif)


def deep(path):
    Image.fromarray(np.arange(0, 64 * 1000, 1000, dtype=np.uint16).reshape(8, 8)).save(path)


def clear(path):
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(8, 8, 4)).save(path)


def moving(path):
    frames = [Image.new("L", (8, 8), value) for value in (200, 10)]
    frames[0].save(path, save_all=True, append_images=frames[1:], format="GIF")


@pytest.mark.parametrize("make", [lying, deep, clear, moving])
@pytest.mark.parametrize("channels", [1, 3])
def test_predict_sees_what_training_sees(make, channels, tmp_path):
    from vitcourse.data import folder
    from vitcourse.train.predict import read_picture

    make(tmp_path / "a.png")
    seen = read_picture(tmp_path / "a.png", channels, (8, 8))
    learned = torch.from_numpy(folder.read_picture(tmp_path / "a.png", 8, channels))
    assert seen.shape == (channels, 8, 8) and torch.equal(seen, learned / 255)


def test_a_picture_that_is_too_large(run, tmp_path, monkeypatch, capsys):
    lying(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert cli.main(["predict", str(run), str(tmp_path / "a.png")]) == 2
    error = capsys.readouterr().err
    assert "is no picture that can be read" in error and error.count("\n") == 1


def test_other_pictures_are_normalised_as_those_of_training(tmp_path, capsys, monkeypatch):
    for name, light in (("dark", 60), ("bright", 160)):
        generator = torch.Generator().manual_seed(0)
        for kind, level in (("cat", 0), ("dog", 40)):
            (tmp_path / name / kind).mkdir(parents=True)
            for i in range(12):
                noise = torch.randint(30, (8, 8, 3), generator=generator) + level + light
                Image.fromarray(noise.byte().numpy()).save(tmp_path / name / kind / f"{i}.png")
    out, plain = str(tmp_path / "run"), ["model=Nano/4", "epochs=2", "batch=8"]
    settings = [part for setting in plain for part in ("--set", setting)]
    command = ["train", "--data", str(tmp_path / "dark"), "--image", "8", "--out", out, *settings]
    assert cli.main(command) == 0
    seen = []

    def spy(model, data, device):
        seen.append(data)
        return evaluate(model, data, device)

    monkeypatch.setattr("vitcourse.train.evaluate", spy)
    for name in ("dark", "bright"):
        assert cli.main(["evaluate", out, "--data", str(tmp_path / name)]) == 0
    assert seen[1].mean.tolist() == seen[0].mean.tolist() == pytest.approx([0.367] * 3, abs=0.01)


def test_a_run_is_resumed_with_the_data_that_it_began_with(tmp_path, capsys):
    folder, out = tmp_path / "pictures", str(tmp_path / "run")
    for kind in ("cat", "dog"):
        (folder / kind).mkdir(parents=True)
        for i in range(6):
            lying(folder / kind / f"{i}.png")
    command = ["train", "--data", str(folder), "--image", "8", "--set", "epochs=1", "--out", out]
    assert cli.main(command) == 0
    assert cli.main(["train", "--resume", out]) == 0
    capsys.readouterr()
    (folder / "dog" / "3.png").unlink()
    assert cli.main(["train", "--resume", out]) == 2
    (folder / "owl").mkdir()
    lying(folder / "owl" / "1.png"), lying(folder / "owl" / "2.png")
    assert cli.main(["train", "--resume", out]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all("the data are not those with which" in e for e in errors)
    for kind in ("dog", "owl"):
        shutil.rmtree(folder / kind)
    assert cli.main(["train", "--data", str(folder), "--image", "8", "--out", out + "2"]) == 2
    assert "one class, cat: to classify, it needs 2 or more" in capsys.readouterr().err


def test_weights_that_lack_what_a_picture_needs(run, tmp_path, capsys):
    model = build_model(SHORT, few_digits())
    weights.save(model, tmp_path / "bare.safetensors")
    about = dict(classes=list("0123456789"), mean=[0.5], std=[0.5])
    weights.save(model, tmp_path / "named.safetensors", **about)
    lying(tmp_path / "a.png")
    for command, message in [
        (["predict", "bare", "a.png"], "does not hold classes, mean, std: save it with"),
        (["evaluate", "bare"], "does not hold classes, mean, std: save it with"),
        (["evaluate", "named"], "which data it was trained on: give --data"),
        (["predict", "named", "a.png", "--top", "0"], "--top is 0: it must be 1 or more"),
    ]:
        command[1] = str(tmp_path / f"{command[1]}.safetensors")
        command = [str(tmp_path / word) if word == "a.png" else word for word in command]
        assert cli.main(command) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert cli.main(["predict", str(tmp_path / "named.safetensors"), str(tmp_path / "a.png")]) == 0


def test_stopped_before_it_began(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("vitcourse.data.load", stop)
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err == "vitcourse: stopped\n"


def test_resume_on_the_command_line(run, capsys):
    for options, message in [
        (["--model", "Micro/4"], "goes on with a run as it is"),
        (["--data", "shapes"], "goes on with a run as it is"),
        (["--set", "lr=1"], "a run is resumed as it was"),
    ]:
        assert cli.main(["train", "--resume", str(run), *options]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(run), "--set", "accumulate=2"]) == 0
    assert cli.main(["train", "--resume", str(run.parent)]) == 2
    assert "no recipe.json to resume" in capsys.readouterr().err


def test_wrong_words(run, capsys, tmp_path):
    for command, message in [
        (["train", "--out", str(run)], "choose another folder, or --resume"),
        (["train", "--recipe", "best"], "choose from smoke, digits"),
        (["train", "--data", "imagenet"], "digits, shapes, cifar10"),
        (["train", "--model", "S16"], 'for example "S/16"'),
        (["train", "--model", "Nano/3"], "does not divide into patches"),
        (["train", "--set", "lr=fast"], "it must be a number"),
        (["train", "--image", "64"], "are for a folder of pictures, not for digits"),
        (["train", "--data", "shapes", "--stream"], "are for a folder of pictures, not for shapes"),
        (["train", "--device", "gpu"], "cannot be used"),
        (["evaluate", "none"], "no finished run"),
    ]:
        if command[0] == "train" and "--out" not in command:
            command += ["--out", str(tmp_path / "new")]
        assert cli.main(command) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not (tmp_path / "new").exists()


def test_new_names(tmp_path):
    assert cli.new_folder(tmp_path, "digits").name == "digits-1"
    (tmp_path / "digits-1").mkdir()
    assert cli.new_folder(tmp_path, "digits").name == "digits-2"


def test_a_folder_that_streams(tmp_path, capsys):
    """Pictures read by worker processes train the same model as pictures in memory."""
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 12), ("test", 4)):
        for number, name in enumerate(("dark", "light")):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = torch.randint(100, (16, 16, 3), dtype=torch.uint8, generator=generator)
                Image.fromarray((noise + 120 * number).numpy()).save(folder / f"{i}.png")
    command = ["train", "--data", str(tmp_path / "pictures"), "--image", "16", "--model", "Nano/4"]
    # as a stream is augmented part by part, only a run without augmentation is the same
    plain = "epochs=4 batch=8 augment.shift=0 augment.flip=false augment.cutmix=0"
    command += [part for setting in plain.split() for part in ("--set", setting)]
    assert cli.main([*command, "--out", str(tmp_path / "memory")]) == 0
    assert cli.main([*command, "--out", str(tmp_path / "stream"), "--stream"]) == 0
    one, other = (weights.read(tmp_path / n / "model.safetensors") for n in ("memory", "stream"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)
    assert cli.main(["train", "--resume", str(tmp_path / "stream")]) == 0
    assert cli.main(["evaluate", str(tmp_path / "stream")]) == 0
    assert "pictures: accuracy 100.00%" in capsys.readouterr().out


@pytest.mark.gpu
def test_training_on_cuda():
    data = few_digits(1400)
    recipe = Recipe(epochs=30, lr=3e-3, position_std=0.5, compile=True, augment=Augment(shift=1))
    run = fit(build_model(recipe, data), data.to("cuda"), recipe, device="cuda", quiet=True)
    assert run.accuracy > 0.75
