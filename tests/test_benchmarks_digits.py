"""The benchmark on digits: its folds are sound, its pieces work. No accuracy or time is tested."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import digits
from vitcourse.data.base import Data
from vitcourse.data.digits import digits_all
from vitcourse.train import RECIPES, build_model


@pytest.fixture(scope="module")
def everything():
    return digits_all()


@pytest.fixture
def tiny(everything, monkeypatch):
    images, labels = everything[0][:200], everything[1][:200]
    monkeypatch.setattr(digits, "digits_all", lambda: (images, labels))
    recipes = {name: RECIPES[name].but(epochs=1, batch=100) for name in ("digits", "smoke")}
    monkeypatch.setattr(digits, "RECIPES", recipes)
    classes = tuple("0123456789")
    return Data("tiny", images[:100], labels[:100], images[100:], labels[100:], classes)


def test_the_folds_are_sound(everything):
    labels = everything[1].numpy()
    folds = digits.five_fold(labels)
    assert [len(test) for _, test in folds] == [360, 360, 359, 359, 359]
    digits.check_folds(folds, labels)


def test_a_wrong_fold_is_noticed(everything):
    labels = everything[1].numpy()
    train, test = digits.five_fold(labels)[0]
    rest = digits.five_fold(labels)[1:]
    both = np.append(train, test[0]), test
    lacking = train[1:], test
    twice = rest[0]
    order = np.argsort(labels, kind="stable")
    by_class = [(np.setdiff1d(order, part), part) for part in np.array_split(order, 5)]
    for folds, message in (
        ([both, *rest], "both parts"),
        ([lacking, *rest], "lacks an image"),
        ([twice, *rest], "not tested once"),
        (by_class, "share"),
    ):
        with pytest.raises(AssertionError, match=message):
            digits.check_folds(folds, labels)


def test_the_half_split_is_that_of_scikit_learn(everything):
    [(train, test)] = digits.half(everything[1].numpy())
    assert train.tolist() == list(range(898)) and test.tolist() == list(range(898, 1797))


def test_the_cnn_is_as_large_as_the_vit(tiny):
    recipe = RECIPES["digits"]
    ours, theirs = build_model(recipe, tiny), digits.build_cnn(recipe, tiny)
    assert theirs(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert digits.count(theirs) == pytest.approx(digits.count(ours), rel=0.05)


def test_the_svm_gets_the_values_it_was_made_for(tiny):
    class Look:
        def fit(self, images, labels):
            self.values = np.unique(images)
            return self

        def predict(self, images):
            return np.zeros(len(images))

    look = Look()
    right, _ = digits.classic(look, tiny)
    assert look.values.tolist() == list(range(17))
    assert right == (tiny.test_labels == 0).sum()


def test_a_run_is_recorded(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["digits.py", "--seeds", "2", "--out", str(tmp_path)])
    digits.main()
    record = json.loads((tmp_path / "digits.json").read_text())
    assert record["seeds"] == 2 and record["environment"]["threads"] == 1
    assert len(record["rows"]) == len(digits.PROTOCOLS) * len(digits.METHODS)
    for row in record["rows"]:
        network = "recipe" in row["method"]
        assert len(row["accuracy_of_each_seed"]) == (2 if network else 1)
        assert (row["spread"] is not None) == (row["parameters"] is not None) == network
        assert 0 <= row["accuracy"] <= 100
    assert str(tmp_path) not in json.dumps(record)
