"""Detection: average precision by hand, boxes in pixels, and that a detector learns."""

from functools import partial

import pytest
import torch

from tests.proofs import randomise
from vitcourse import data
from vitcourse.data.augment import Augment
from vitcourse.detect import (
    Objects,
    answers,
    average_precision,
    confident,
    duplicates,
    find,
    guesses,
    objects,
    read_inside,
    score,
    targets,
    who_answers,
)
from vitcourse.papers import deformable_detr, detr
from vitcourse.train import RECIPES, fit

DETECTORS = {
    "DETR": lambda: detr.SmallDETR(detr.SMALL),
    "Deformable DETR": lambda: deformable_detr.SmallDeformableDETR(deformable_detr.SMALL),
}


@pytest.fixture(scope="module")
def scenes():
    return data.load("shapes", task="scenes", train=2, test=10)


def seen(*rows):
    """Objects from rows (x1, y1, x2, y2, label, score)."""
    rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Objects(rows[:, :4], rows[:, 4].long(), rows[:, 5])


LEFT, RIGHT = (0, 0, 10, 10), (20, 0, 30, 10)
TRUTH = [seen((*LEFT, 1, 1), (*RIGHT, 1, 1))]
BOTH = (51 + 50 * 2 / 3) / 101  # precision 1 up to a recall of a half, then 2/3

BY_HAND = {
    "all right": ([seen((*LEFT, 1, 0.9), (*RIGHT, 1, 0.2))], 1.0, 1.0),
    "nothing": ([seen()], 0.0, 0.0),
    "one of two": ([seen((*LEFT, 1, 0.9))], 51 / 101, 51 / 101),
    "another class": ([seen((*LEFT, 2, 0.9), (*RIGHT, 1, 0.2))], 51 / 101, 51 / 101),
    "wrong before right": (
        [seen((*LEFT, 1, 0.3), (*RIGHT, 1, 0.2), (40, 0, 50, 10, 1, 0.9))],
        (51 * 2 / 3 + 50 * 2 / 3) / 101,
        (51 * 2 / 3 + 50 * 2 / 3) / 101,
    ),
    "wrong after right": (
        [seen((*LEFT, 1, 0.9), (*RIGHT, 1, 0.8), (40, 0, 50, 10, 1, 0.3))],
        1.0,
        1.0,
    ),
    "an object said twice": (
        [seen((*LEFT, 1, 0.9), (*LEFT, 1, 0.8), (*RIGHT, 1, 0.7))],
        BOTH,
        BOTH,
    ),
    "an overlap of 2/3": (
        [seen((0, 0, 10, 20 / 3, 1, 0.9), (20, 0, 30, 20 / 3, 1, 0.9))],
        4 / 10,  # right at thresholds of 0.5, 0.55, 0.6 and 0.65
        1.0,
    ),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_average_precision_by_hand(case, capsys):
    found, AP, AP50 = BY_HAND[case]
    measured = average_precision(found, TRUTH)
    assert measured == {"AP": pytest.approx(AP), "AP50": pytest.approx(AP50)}
    assert capsys.readouterr().out == ""


def test_average_precision_orders_the_answers_to_all_images():
    """An answer in an image without objects is wrong; a class without objects does not count."""
    truth = [seen((*LEFT, 1, 1)), seen()]
    for sure, AP50 in ((0.9, 0.5), (0.1, 1.0)):
        found = [seen((*LEFT, 1, 0.5)), seen((*LEFT, 1, sure), (*LEFT, 5, 0.99))]
        assert average_precision(found, truth)["AP50"] == pytest.approx(AP50)
    two = [seen((*LEFT, 1, 1), (*RIGHT, 3, 1))]
    assert average_precision([seen((*LEFT, 1, 0.5))], two)["AP50"] == pytest.approx(0.5)
    assert average_precision([seen((*LEFT, 1, 0.5))], [seen()]) == {"AP": 0.0, "AP50": 0.0}


def test_duplicates():
    found = [seen((*LEFT, 1, 0.9), (1, 0, 11, 10, 2, 0.6), (*LEFT, 1, 0.4), (*RIGHT, 1, 0.9))]
    assert duplicates(found, TRUTH) == 1 / 2
    assert duplicates(found, TRUTH, least=0.3) == 2 / 2
    assert duplicates([seen()], TRUTH) == 0
    assert confident(found[0]).labels.tolist() == [1, 2, 1]


def test_boxes_in_parts_and_in_pixels_are_the_same(scenes):
    """What is said with the truth's own boxes is right, and is found where it was drawn."""
    truth = objects(scenes)
    for image, (labels, boxes) in zip(truth, targets(scenes, "test_"), strict=True):
        assert torch.equal(image.labels, labels) and image.scores.eq(1).all()
        assert boxes.min() > 0 and boxes.max() < 1
        torch.testing.assert_close(detr.corners(boxes) * 32, image.boxes)
    assert average_precision(truth, truth) == {"AP": 1.0, "AP50": 1.0}


@pytest.mark.parametrize("name", DETECTORS)
def test_answers(name):
    """Each query's box and most likely class, in pixels of an image that is no square."""
    model = randomise(DETECTORS[name]())
    images = torch.randn(2, 3, 32, 48)
    logits, boxes = model(images)
    for b, found in enumerate(answers(model.train(), images)):
        assert found.boxes.shape == (10, 4) and not model.training
        centre = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        torch.testing.assert_close(centre, boxes[b, :, :2] * torch.tensor([48, 32]))
        likely = model.probabilities(logits)[b]
        assert likely.shape == (10, 8)
        assert torch.equal(found.labels, likely.argmax(-1))
        torch.testing.assert_close(found.scores, likely.amax(-1))


@pytest.mark.parametrize("name", DETECTORS)
def test_it_learns(name):
    """A few steps on a few images: the loss falls, and the score is that of the last model."""
    torch.manual_seed(0)
    scenes = data.load("shapes", task="scenes", train=16, test=4)
    model = DETECTORS[name]()
    recipe = RECIPES["smoke"].but(epochs=16, batch=8, lr=2e-3, augment=Augment(), evaluate_every=16)
    step = partial(find, truth=targets(scenes))
    run = fit(model, scenes, recipe, step=step, score=score, device="cpu", quiet=True)
    assert run.history[-1]["loss"] < 0.7 * run.history[0]["loss"]
    assert run.history[-1]["test_AP"] == score(run.model, scenes)["AP"]
    assert len(guesses(run.model, scenes)) == 4


def test_earlier_layers_are_trained_too():
    model = DETECTORS["DETR"]().train()
    batch = type("Batch", (), {"images": torch.randn(2, 3, 32, 32), "index": torch.tensor([1, 0])})
    truth = [(torch.tensor([k]), torch.tensor([[0.5, 0.5, 0.2, 0.3]])) for k in (3, 4)]
    last, all_layers = find(model, batch, truth, auxiliary=False), find(model, batch, truth)
    each = [model.set_loss(*answer, truth[::-1]) for answer in model.predictions(batch.images)]
    torch.testing.assert_close(all_layers, sum(each))
    torch.testing.assert_close(last, each[-1])


@pytest.mark.parametrize("name", DETECTORS)
def test_who_answers(name, scenes):
    """A query for each object, in the order of the objects; each answers for one at most."""
    model, truth = randomise(DETECTORS[name]()), targets(scenes, "test_")
    images = scenes.normalise(scenes.test_images)
    found = who_answers(model, images, truth)
    for queries, (labels, _) in zip(found, truth, strict=True):
        assert len(set(queries.tolist())) == len(queries) == len(labels)
    turned = [(labels.flip(0), boxes.flip(0)) for labels, boxes in truth]
    pairs = zip(who_answers(model, images, turned), found, strict=True)
    assert all(torch.equal(one.flip(0), two) for one, two in pairs)


def test_what_is_read_inside():
    """Of queries that read their points alone, those whose point lies in the object's box."""
    model = randomise(DETECTORS["Deformable DETR"]()).eval()
    with torch.no_grad():
        offset = model.decoder[-1].cross_attn.offset
        offset.weight.zero_(), offset.bias.zero_()
        points = model.point(model.position_queries.chunk(2, dim=-1)[0]).sigmoid()
    images, labels = torch.randn(1, 3, 32, 32), torch.arange(4)
    for side, count in ((2.0, 4), (1e-6, 0)):
        truth = [(labels, torch.tensor([[0.5, 0.5, side, side]]).expand(4, -1))]
        assert read_inside(model, images, truth) == pytest.approx(count / 4)
    boxes = torch.cat([points[:4], torch.full((4, 2), 1e-3)], dim=-1)
    (queries,) = who_answers(model, images, [(labels, boxes)])
    right = (queries == labels).float().mean()
    assert read_inside(model, images, [(labels, boxes)]) == pytest.approx(right)
