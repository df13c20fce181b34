"""The trained models that come with the course are what their cards say."""

import json

import pytest
import torch

from benchmarks.ship import ship
from tests.proofs import randomise
from vitcourse import make_vit, probe, weights
from vitcourse.data import load, models, trained
from vitcourse.train import Recipe, evaluate
from vitcourse.train.recipe import build_model


def test_there_are_models():
    assert {"digits", "shapes"} <= set(models.names())
    with pytest.raises(ValueError, match="no trained model 'cats': choose from digits"):
        trained("cats")


@pytest.mark.parametrize("name", models.names())
def test_a_model_is_what_its_card_says(name):
    card = models.card(name)
    path = models.path(name)
    assert path.stat().st_size < 6e6
    assert {"data", "recipe", "environment", "metrics", "command"} <= card.keys()
    assert len(card["environment"]["source_sha256"]) == 64
    model = trained(name)
    assert not model.training and len(model.class_names) == model.cfg.classes
    if card["data"] not in ("digits", "shapes"):
        return  # other data are not here
    recipe, data = Recipe(**card["recipe"]), load(card["data"])
    assert model.class_names == list(data.classes)
    new = build_model(recipe, data)
    assert model.cfg == new.cfg
    assert sum(p.numel() for p in model.parameters()) == card["metrics"]["parameters"]
    result = evaluate(model, data, "cpu")
    assert result["accuracy"] == pytest.approx(card["metrics"]["test_accuracy"], abs=0.003)
    with torch.no_grad():  # a model that has forgotten its weights is noticed
        model.head.weight.zero_()
    assert evaluate(model, data, "cpu")["accuracy"] < 0.3


def test_attention_of_the_shapes_model_lies_on_the_shape():
    data, model = load("shapes"), trained("shapes")
    images, masks = data.test_images[:200], data.extras["test_masks"][:200].float()
    with torch.no_grad(), probe.record_attention(model) as maps:
        model(data.normalise(images))
    h, w = model.cfg.grid
    heat = probe.rollout(maps)[:, 0, 1:].reshape(200, h, w)
    share = torch.nn.functional.adaptive_avg_pool2d(masks[:, None], (h, w))[:, 0]
    on_shape = (heat * share).sum((1, 2)) / heat.sum((1, 2))
    by_chance = share.mean((1, 2))
    assert (on_shape / by_chance).mean() > 1.3


@pytest.mark.parametrize("size, stored", [("Nano/4", torch.float32), ("Mini/4", torch.float16)])
def test_a_run_is_shipped(size, stored, tmp_path, monkeypatch):
    """What is too large is stored in half the bytes, and is read as float32, nearly the same."""
    monkeypatch.setattr(models, "FOLDER", tmp_path / "models")
    torch.manual_seed(0)
    model, images = randomise(make_vit(size, image=32, classes=3)).eval(), torch.randn(2, 3, 32, 32)
    run = run_of(model, tmp_path / "run")
    with pytest.raises(ValueError, match="say in a third argument"):
        ship(run, "small")
    ship(run, "small", "three kinds of pictures")
    assert models.path("small").stat().st_size < 6_000_000
    assert {t.dtype for t in weights.read(models.path("small")).values()} == {stored}
    there = models.trained("small")
    assert there.class_names == ["a", "b", "c"] and not there.training
    assert {p.dtype for p in there.parameters()} == {torch.float32}
    wanted, found = model(images), there(images)
    assert (found - wanted).abs().max() / wanted.abs().max() < 0.02
    assert torch.equal(found, wanted) == (stored == torch.float32)
    card = models.card("small")
    assert card["data"] == "three kinds of pictures" and "--data FOLDER" in card["command"]
    assert card["metrics"] == {"test_accuracy": 0.5} and card["seed"] == 7
    assert ("float16" in card.get("stored", "")) == (stored == torch.float16)


def test_what_is_far_too_large_is_not_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "FOLDER", tmp_path / "models")
    run = run_of(make_vit("Ti/4", image=32, classes=3), tmp_path / "run")
    with pytest.raises(ValueError, match="take a smaller model"):
        ship(run, "large", "pictures")
    assert not (tmp_path / "models").exists()


def run_of(model, folder):
    """The folder of a finished run."""
    about = {"data": "pictures", "classes": ["a", "b", "c"]}
    weights.save(model, folder / "model.safetensors", **about)
    parts = {"metrics": {"test_accuracy": 0.5}, "recipe": {"seed": 7}, "environment": {}}
    for name, part in (parts | {"data": {"name": "pictures"}}).items():
        (folder / f"{name}.json").write_text(json.dumps(part))
    return folder
