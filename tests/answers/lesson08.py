"""Answers to the exercises of lesson 08, and what its numbers are."""

import torch

from vitcourse.check import bugs


def row_error_by_loops(weights):
    """One head, one row at a time."""
    B, K, T, _ = weights.shape
    worst = []
    for b in range(B):
        for k in range(K):
            errors = [abs(1 - weights[b, k, i].sum()) for i in range(T)]
            worst.append(torch.stack(errors).max())
    return torch.stack(worst).reshape(B, K)


def row_error_by_product(weights):
    """The sums as a product with ones."""
    ones = torch.ones(weights.shape[-1])
    return torch.maximum(weights @ ones - 1, 1 - weights @ ones).max(dim=-1).values


def score_spread_by_hand(weights):
    """Centred, squared, over T - 1."""
    scores = weights.log()
    centred = scores - scores.mean(dim=-1, keepdim=True)
    variance = centred.square().sum(dim=-1) / (weights.shape[-1] - 1)
    return variance.sqrt().mean(dim=-1)


def score_spread_by_rows(weights):
    """One head at a time."""
    heads = [head.log().std(dim=1).mean() for head in weights.flatten(0, 1)]
    return torch.stack(heads).unflatten(0, weights.shape[:2])


RIGHT = {
    "row_error": [row_error_by_loops, row_error_by_product],
    "score_spread": [score_spread_by_hand, score_spread_by_rows],
    **{f"diagnose_{n}": [f"  {bugs.answer(n).capitalize()} "] for n in (1, 2, 3)},
}

SOURCES = {
    "row_error": """
        def answer(weights):
            sums = weights.sum(dim=-1)
            errors = (sums - 1).abs()
            return errors.amax(dim=-1)
    """,
    "score_spread": """
        def answer(weights):
            scores = weights.log()
            spread = scores.std(dim=-1)
            return spread.mean(dim=-1)
    """,
}

EQUIVALENT = {
    (
        "row_error",
        "errors = (sums - 1).abs() -> errors = (1 - sums).abs()",
    ): "a distance is the same from both ends",
}


def truth():
    """The answers to QUESTIONS, computed."""
    setups = [bugs.broken(name) for name in bugs.BUGS]
    merged = bugs.broken("heads merged by reshape")
    by_scale = bugs.healthy().model.blocks[0].attn.scale
    without = bugs.broken("no scale").model.blocks[0].attn.scale
    return {
        f"bugs of the {len(bugs.BUGS)} that the shape": sum(
            bugs.speaks("shape", setup) for setup in setups
        ),
        "how many times too large": round(without / by_scale),
        "signals, of the eleven": sum(bugs.speaks(name, merged) for name in bugs.FREE),
    }
