"""Exercises of lesson 08: which signal gives which bug away."""

import torch

from vitcourse.check import bugs
from vitcourse.check.exercise import Case, Exercise, Mistake, normal

# the rows of attention ----------------------------------------------------------------------------


def error_over_queries(weights):
    """The columns' sums."""
    return (weights.sum(dim=-2) - 1).abs().amax(dim=-1)


def error_with_sign(weights):
    """Rows that are too short are overlooked."""
    return (weights.sum(dim=-1) - 1).amax(dim=-1)


def error_with_the_other_sign(weights):
    """Rows that are too long are overlooked."""
    return (1 - weights.sum(dim=-1)).amax(dim=-1)


def error_on_average(weights):
    """The mean distance."""
    return (weights.sum(dim=-1) - 1).abs().mean(dim=-1)


def error_of_the_mean(weights):
    """Distances that cancel."""
    return (weights.sum(dim=-1).mean(dim=-1) - 1).abs()


def largest_sum(weights):
    """The sum itself."""
    return weights.sum(dim=-1).amax(dim=-1)


def smallest_error(weights):
    """The best row."""
    return (weights.sum(dim=-1) - 1).abs().amin(dim=-1)


ROW_ERROR = Exercise(
    name="row_error",
    lesson="08",
    task="How far is the worst row of each head from summing to one over the keys? weights (B, K, T, T) -> (B, K).",
    minutes=5,
    difficulty=1,
    reference=bugs.row_error,
    gradient=False,
    cases=(
        Case(
            about="a softmax over the queries",
            inputs=lambda g: (normal(g, 2, 3, 5, 5).softmax(dim=-2),),
            shape="B K",
            sizes=dict(B=2, K=3, T=5),
        ),
        Case(
            about="rows that sum to less than one",
            inputs=lambda g: (
                normal(g, 3, 2, 7, 7).softmax(dim=-1)
                * (0.4 + 0.5 * torch.rand(3, 2, 7, 1, generator=g)),
            ),
            shape="B K",
            sizes=dict(B=3, K=2, T=7),
        ),
    ),
    hints=(
        "In weights[b, k, i, j] query i looks at key j: a row belongs to one query.",
        "weights.sum(dim=-1) has a number for each query, (B, K, T): how far is each from 1?",
        "A distance has no sign, .abs(), and the worst query counts, .amax(dim=-1).",
    ),
    mistakes=(
        Mistake(
            "over the queries",
            error_over_queries,
            "You added up over the queries: the weights of one query, over the keys, sum to one",
        ),
        Mistake(
            "with its sign",
            error_with_sign,
            "A row that sums to less than one is overlooked: take the distance without its sign",
        ),
        Mistake(
            "with the other sign",
            error_with_the_other_sign,
            "A row that sums to more than one is overlooked: take the distance without its sign",
        ),
        Mistake(
            "the mean",
            error_on_average,
            "That is the mean distance of the rows: one bad row must not hide among good ones, so take "
            "the largest",
        ),
        Mistake(
            "distance of the mean",
            error_of_the_mean,
            "You averaged the sums first: rows that are too long and too short cancel, so take the "
            "distance of each row",
        ),
        Mistake(
            "the sum itself",
            largest_sum,
            "That is the largest sum: asked is its distance from one",
        ),
        Mistake(
            "the best row",
            smallest_error,
            "That is the row nearest to one: the worst row counts",
        ),
    ),
)

# the size of the scores ---------------------------------------------------------------------------


def spread_of_weights(weights):
    """The logarithm forgotten."""
    return weights.std(dim=-1).mean(dim=-1)


def spread_over_queries(weights):
    """Over the wrong axis."""
    return weights.log().std(dim=-2).mean(dim=-1)


def spread_of_map(weights):
    """Over a whole map."""
    return weights.log().std(dim=(-2, -1))


def variance_of_scores(weights):
    """The root forgotten."""
    return weights.log().var(dim=-1).mean(dim=-1)


def spread_biased(weights):
    """Divided by T."""
    return weights.log().std(dim=-1, unbiased=False).mean(dim=-1)


def spread_to_base_two(weights):
    """Another logarithm."""
    return weights.log2().std(dim=-1).mean(dim=-1)


def largest_spread(weights):
    """The query with the largest."""
    return weights.log().std(dim=-1).amax(dim=-1)


SCORE_SPREAD = Exercise(
    name="score_spread",
    lesson="08",
    task="Get the scores back from the weights by a logarithm: torch's std over the keys, then the mean over the queries. weights (B, K, T, T) -> (B, K).",
    minutes=6,
    difficulty=2,
    reference=bugs.score_spread,
    gradient=False,
    cases=(
        Case(
            about="scores of size one",
            inputs=lambda g: (normal(g, 2, 3, 5, 5).softmax(dim=-1),),
            shape="B K",
            sizes=dict(B=2, K=3, T=5),
        ),
        Case(
            about="scores that are too large",
            inputs=lambda g: ((3 * normal(g, 3, 2, 7, 7)).softmax(dim=-1),),
            shape="B K",
            sizes=dict(B=3, K=2, T=7),
        ),
    ),
    hints=(
        "softmax is exp(score) over the sum of the row: its logarithm is the score minus one number for the row.",
        "A number that a whole row shares does not change the row's standard deviation.",
        "weights.log().std(dim=-1) has a number for each query, (B, K, T): average over the last axis.",
    ),
    mistakes=(
        Mistake(
            "of the weights",
            spread_of_weights,
            "That is the spread of the weights: take their logarithm first, to have the scores",
        ),
        Mistake(
            "over the queries",
            spread_over_queries,
            "You compared the queries with each other: a row's shared number is gone only within a row, "
            "over the keys",
        ),
        Mistake(
            "over the map",
            spread_of_map,
            "You took all scores of a head together: each row has its own shared number, so take the "
            "deviation row by row",
        ),
        Mistake(
            "the variance",
            variance_of_scores,
            "That is the variance: the standard deviation is its root",
        ),
        Mistake(
            "divided by T",
            spread_biased,
            "Your variance is divided by T: torch's std divides by T - 1, unless told otherwise",
        ),
        Mistake(
            "base two",
            spread_to_base_two,
            "That is the logarithm to base 2: softmax is made of e, so its inverse is .log()",
        ),
        Mistake(
            "the largest",
            largest_spread,
            "That is the query whose scores lie furthest apart: take the mean of the queries",
        ),
    ),
)

# hidden bugs ---------------------------------------------------------------------------------------


def against(guess, truth):
    """What speaks against a guess: one sentence."""
    wrong, right = bugs.BUGS[guess], bugs.BUGS[truth]
    for signal in wrong.signals:
        if signal not in right.signals:
            bad = bugs.SIGNALS[signal].bad
            return f"With {guess!r} {bad}, and here the signal {signal!r} is silent"
    for signal in right.signals:
        if signal not in wrong.signals:
            return f"With {guess!r} the signal {signal!r} is silent, and here it speaks"
    where = f"it departs at {wrong.stage!r}" if wrong.stage else "it finds nothing"
    return f"With {guess!r} the trace says that {where}, and here it says something else"


def evidence(name):
    """What speaks for a bug."""
    bug = bugs.BUGS[name]
    heard = " and ".join(repr(signal) for signal in bug.signals)
    speaks = f"of all signals {heard} alone speaks" if heard else "no signal speaks"
    found = f"departs at {bug.stage!r}" if bug.stage else "finds nothing"
    return f"Verified: {speaks}; the trace {found}. Here {bug.sentence}"


def diagnose(number, minutes, difficulty, hints):
    """The exercise of a hidden bug."""
    truth = bugs.answer(number)
    return Exercise(
        name=f"diagnose_{number}",
        lesson="08",
        task=f"Which bug has bugs.hidden({number})? Answer with its name in bugs.BUGS.",
        minutes=minutes,
        difficulty=difficulty,
        kind="name",
        reference=truth,
        evidence=evidence(truth),
        cases=(),
        hints=hints,
        mistakes=tuple(
            Mistake(name, name, against(name, truth)) for name in bugs.BUGS if name != truth
        ),
    )


FIRST = diagnose(
    1,
    4,
    1,
    (
        "Begin with what costs nothing: [s for s in bugs.FREE if bugs.speaks(s, bugs.hidden(1))]",
        "bugs.SIGNALS[...].bad says what the signal that speaks has seen.",
        "Patches in another order give the same answer: what is it that tells a token its place?",
    ),
)
SECOND = diagnose(
    2,
    6,
    2,
    (
        "Run all of bugs.FREE: one of them speaks.",
        "What comes twice, and differs? The images, or the logits of the same images?",
        "Which layer of a ViT is random, and what switches it off?",
    ),
)
THIRD = diagnose(
    3,
    8,
    3,
    (
        "Run all of bugs.FREE, then bugs.one_batch: that a signal is silent excludes bugs, too.",
        "What is left is in the model: bugs.departs(bugs.hidden(3)) compares it with the package's.",
        "The stage is the one between the values of the heads and the last layer of attention.",
    ),
)

EXERCISES = (ROW_ERROR, SCORE_SPREAD, FIRST, SECOND, THIRD)

QUESTIONS = {
    "bugs of the 18 that the shape of the logits gives away": (
        0,
        "Every one of them gives logits (B, classes).",
        {
            1: "Which one would it be? A reshape in the wrong place keeps the shape, too.",
            2: "Which two? A reshape in the wrong place keeps the shape, and so does a wrong axis.",
            18: "Then nobody would ever have trained one of them.",
        },
    ),
    "how many times too large are the scores of a head of width 16 without the scale": (
        4,
        "The root of 16, by which they are not divided.",
        {
            16: "They are divided by the root of the width, not by the width.",
            7: "The head's own width counts, not that of the model.",
            48: "That is the width of the model: a head has 16, and the root of it counts.",
            2: "The root is taken once.",
        },
    ),
    "signals, of the eleven that need no training, that hear heads merged by reshape": (
        0,
        "Shapes, sums, sizes and gradients are all as they should be.",
        {
            1: "Which one? The weights are right, and so are the sizes: the numbers are in wrong places.",
            2: "Which two? The weights are right, and so are the sizes.",
            11: "The shape, for one, is right.",
        },
    ),
}
