"""Segmentation: the head beside what it is made of, and mean IoU beside scikit-learn."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import jaccard_score

from tests.proofs import randomise
from vitcourse import Config, data
from vitcourse.pyramid import Pyramid, PyramidConfig
from vitcourse.segment import OneMap, Segmenter, enlarge, guesses, mean_iou, segment
from vitcourse.train import RECIPES, fit

SIZES = PyramidConfig(
    dims=(6, 10, 14),
    depths=(1, 1, 1),
    heads=(2, 2, 2),
    patches=(2, 2, 2),
    mlp_ratios=(2.0, 2.0, 2.0),
    image=(16, 24),
)
COLUMN = Config(dim=12, depth=2, heads=3, patch=4, image=(16, 24))


@pytest.mark.parametrize("backbone", [Pyramid(SIZES), OneMap(COLUMN)], ids=["pyramid", "ViT"])
def test_every_pixel_gets_logits_and_every_map_a_gradient(backbone):
    model = Segmenter(backbone, classes=5, dim=8)
    images = torch.randn(2, 3, 16, 24)
    maps = backbone.features(images)
    assert [map.shape[1] for map in maps] == list(backbone.widths)
    logits = model(images)
    assert logits.shape == (2, 5, 16, 24)
    logits.square().mean().backward()
    assert all(lateral.weight.grad.abs().sum() > 0 for lateral in model.lateral)


def test_a_ViTs_map_is_its_tokens():
    model = OneMap(COLUMN)
    images = torch.randn(2, 3, 16, 24)
    x, grid = model.encode(images)  # (B, N, D), without a prefix
    (map,) = model.features(images)
    assert grid == (4, 6) and torch.equal(map.flatten(2).mT, x)


def test_the_head_adds_what_each_map_knows():
    """With linear maps alone the answer is the sum of what each map would give by itself."""
    model = randomise(Segmenter(Pyramid(SIZES), classes=5, dim=8)).double().eval()
    images = torch.randn(2, 3, 16, 24, dtype=torch.double)
    maps = model.backbone.features(images)
    fine, middle, coarse = (lateral(map) for lateral, map in zip(model.lateral, maps, strict=True))
    x = fine + enlarge(middle + enlarge(coarse, (4, 6)), (8, 12))
    wanted = enlarge(model.head(F.gelu(model.norm(x))), (16, 24))
    torch.testing.assert_close(model(images), wanted, rtol=0, atol=1e-12)
    with torch.no_grad():
        model.lateral[2].weight.zero_()
    assert (model(images) - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("present", [6, 4])
def test_mean_iou_is_scikit_learns(present):
    generator = torch.Generator().manual_seed(present)
    guess, truth = torch.randint(present, (2, 3, 7, 11), generator=generator)
    labels = torch.cat([guess.flatten(), truth.flatten()]).unique().tolist()
    wanted = jaccard_score(truth.flatten(), guess.flatten(), labels=labels, average="macro")
    assert mean_iou(guess, truth, classes=6) == pytest.approx(wanted)
    assert mean_iou(guess, truth, classes=6) != pytest.approx((guess == truth).float().mean())
    assert mean_iou(truth, truth, classes=6) == 1


def test_it_learns_to_find_an_object():
    """After some steps it beats the answer that everything is background."""
    made = data.load("shapes", train=320, test=64)
    masks, test_masks = made.extras["masks"].long(), made.extras["test_masks"].long()
    sizes = dict(dims=(16, 24, 32), heads=(2, 2, 2), image=32)
    torch.manual_seed(0)
    model = Segmenter(Pyramid(PyramidConfig(**(vars(SIZES) | sizes))), classes=2)

    def score(model, made):
        return {"mIoU": mean_iou(guesses(model, made), test_masks, 2)}

    run = fit(
        model,
        made,
        RECIPES["smoke"].but(epochs=8, batch=32),
        step=lambda model, batch: segment(model, batch, masks),
        score=score,
        device="cpu",
        quiet=True,
    )
    nothing = mean_iou(torch.zeros_like(test_masks), test_masks, 2)
    assert run.history[-1]["test_mIoU"] > nothing + 0.2
    assert run.history[-1]["test_mIoU"] == score(run.model, made)["mIoU"]
