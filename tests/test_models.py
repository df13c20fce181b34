"""The trained models that come with the course are what their cards say."""

import pytest
import torch

from vitcourse import probe
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
    recipe, data = Recipe(**card["recipe"]), load(card["data"])
    assert not model.training and model.class_names == list(data.classes)
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
