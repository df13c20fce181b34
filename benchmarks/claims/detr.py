"""Does DETR find all objects once each, and does it need the best matching for that?

Scenes of one to four objects, 8,000 images, 1,500 steps. Three ways to say which queries answer
for an object, with everything else alike: the matching of the least sum; greed, which again and
again takes the cheapest pair; and the three cheapest queries of each object, so that each object is
said three times. A duplicate is an answer too many: a score of 0.5 or more, and an overlap (IoU) of
0.5 or more with an object that has another such answer. Kept is the part of the objects of 250 test
images that is matched with the same query as one epoch before.
"""

from functools import partial

import torch
from scipy.optimize import linear_sum_assignment

from vitcourse import data, detect
from vitcourse.data.augment import Augment
from vitcourse.papers import detr
from vitcourse.train import RECIPES, fit

SEEDS = 3
RECIPE = RECIPES["shapes"].but(batch=32, lr=2e-3, weight_decay=1e-4, augment=Augment())
EPOCHS = 6


def greed(cost):
    """Take the cheapest pair of a query and an object, again and again: (Q, n) -> two (n,)."""
    cost, pairs = cost.clone(), []
    for _ in range(min(cost.shape)):
        query, object = divmod(int(cost.argmin()), cost.shape[1])
        pairs.append((query, object))
        cost[query], cost[:, object] = torch.inf, torch.inf
    return torch.tensor(pairs).T


def three(cost):
    """The three cheapest queries of each object: (Q, n) -> two (3n,)."""
    queries = cost.topk(3, dim=0, largest=False).indices  # (3, n)
    return queries.flatten(), torch.arange(cost.shape[1]).repeat(3)


MATCHINGS = {"best": linear_sum_assignment, "greedy": greed, "three": three}


def scenes():
    """The data set of both experiments on detection."""
    return data.load("shapes", task="scenes", train=8000, test=500)


def measure(seed):
    """AP, AP50 and duplicates of each matching; for the best, AP50 and kept queries by epoch."""
    drawn, found = scenes(), {}
    for name, assign in MATCHINGS.items():
        torch.manual_seed(seed)
        model = detr.SmallDETR(detr.SMALL)
        model.set_loss = partial(detr.set_loss, assign=assign)
        history = train(model, drawn, seed, EPOCHS)
        if name == "best":
            for epoch, entry in enumerate(history, 1):
                found[f"AP50 after epoch {epoch}"] = entry["test_AP50"]
                found[f"kept in epoch {epoch}"] = entry["test_kept"]
        for figure in ("AP", "AP50", "duplicates"):
            found[f"{name}, {figure}"] = history[-1][f"test_{figure}"]
    return found


def train(model, drawn, seed, epochs):
    """Train a detector; the history of its scores."""
    truth, objects = detect.targets(drawn, "test_")[:250], detect.objects(drawn)
    images, before = drawn.normalise(drawn.test_images[:250]), []

    def score(model, drawn):
        found, now = detect.guesses(model, drawn), detect.who_answers(model, images, truth)
        scores = detect.average_precision(found, objects)
        scores["duplicates"] = detect.duplicates(found, objects)
        same = torch.cat(now) == torch.cat(before or now)
        scores["kept"] = same.float().mean() if before else 0.0
        before[:] = now
        return scores

    recipe = RECIPE.but(epochs=epochs, seed=seed)
    step = partial(detect.find, truth=detect.targets(drawn))
    return fit(model, drawn, recipe, step=step, score=score, device="cpu", quiet=True).history


CLAIMS = {
    "DETR finds the objects, with an AP50 of 0.80 or more": lambda mean: mean["best, AP50"] >= 0.8,
    "queries learn what to answer for: more objects keep theirs in the last epoch than in the "
    "second": lambda mean: mean[f"kept in epoch {EPOCHS}"] > mean["kept in epoch 2"],
}
PAIRS = {
    "the best matching finds more than the greedy one": ("best, AP50", "greedy, AP50"),
    "one query for an object finds more than three": ("best, AP50", "three, AP50"),
    "three queries for an object say it more often than one": (
        "three, duplicates",
        "best, duplicates",
    ),
}
