"""Answers to the exercises of lesson 10: from one GPU to many."""

import torch

from vitcourse import make_vit
from vitcourse.check import EXERCISES

# right answers ------------------------------------------------------------------------------------


def average_by_loop(gradients, shares):
    total = torch.zeros_like(gradients[0])
    for gradient, share in zip(gradients, shares.tolist(), strict=True):
        total = total + gradient * share
    return total / sum(shares.tolist())


def average_by_einsum(gradients, shares):
    return torch.einsum("n,nde->de", shares.to(gradients) / shares.sum(), gradients)


def average_by_tensordot(gradients, shares):
    return torch.tensordot(shares.to(gradients), gradients, dims=1) / shares.sum()


def accumulate_by_index(images, labels, gradient_of, at_most):
    sums = []
    for start in range(0, len(images), at_most):
        piece = slice(start, start + at_most)
        sums.append(gradient_of(images[piece], labels[piece]) * len(images[piece]))
    return torch.stack(sums).sum(dim=0) / len(images)


def accumulate_one_by_one(images, labels, gradient_of, at_most):
    singles = zip(images.split(1), labels.split(1), strict=True)
    return sum(gradient_of(*single) for single in singles) / len(images)


def ring_bytes():
    with torch.device("meta"):
        model = make_vit("B/16")
    gradients = sum(p.nbytes for p in model.parameters())
    return sum(gradients // 8 for _ in ("sums", "copies") for _ in range(8 - 1))


RIGHT = {
    "average_gradients": [average_by_loop, average_by_einsum, average_by_tensordot],
    "accumulate": [accumulate_by_index, accumulate_one_by_one],
    "ring_bytes": [ring_bytes(), float(ring_bytes())],
    "global_batch": [1152, 1152.0],
}

# sources to mutate --------------------------------------------------------------------------------

SOURCES = {
    "average_gradients": """
        def answer(gradients, shares):
            total = 0.0
            for i in range(len(shares)):
                total = total + shares[i] * gradients[i]
            return total / shares.sum()
        """,
    "accumulate": """
        def answer(images, labels, gradient_of, at_most):
            total = 0.0
            for some, given in zip(images.split(at_most), labels.split(at_most)):
                total = total + len(some) * gradient_of(some, given)
            return total / len(images)
        """,
}

EQUIVALENT = {}


# what the questions ask ---------------------------------------------------------------------------


def sent(n):
    """The part of all gradients that a GPU sends: two rounds of n - 1 chunks."""
    return 2 * (n - 1) / n


def truth():
    weight = torch.nn.Parameter(torch.zeros(3, 5))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    moments = [t for t in optimizer.state[weight].values() if t.shape == weight.shape]
    kept = [weight, weight.grad, *moments]
    average = EXERCISES["average_gradients"].reference
    gradient = average(torch.tensor([-0.75, 6.0])[:, None, None], torch.tensor([8, 4]))
    return {
        "bytes that a GPU sends": round(sent(1000) / sent(2)),
        "bytes for each parameter": sum(t.nbytes for t in kept) // weight.numel(),
        "gradient of all": gradient.item(),
    }
