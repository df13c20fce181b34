"""Right answers to the exercises of lesson 09, and the truth about its questions."""

import torch
import torch.nn.functional as F

from vitcourse import Config, ViT, make_vit
from vitcourse.vit import ClassHead


def gradient_by_backward(z, labels, classes):
    head = ClassHead(Config(dim=z.shape[1], depth=1, heads=1, classes=classes))
    loss = F.cross_entropy(head.to(z.device)(z[:, None]), labels)
    return torch.autograd.grad(loss, head.weight, create_graph=True)[0]


def gradient_by_loop(z, labels, classes):
    total = 0.0
    for token, label in zip(z, labels, strict=True):
        wrong = torch.full((classes,), 1 / classes, device=z.device)
        wrong[label] -= 1
        total = total + torch.outer(wrong, token)
    return total / len(z)


def gradient_by_sums(z, labels, classes):
    of_class = z.new_zeros(classes, z.shape[1]).index_add(0, labels, z)
    return z.mean(dim=0) / classes - of_class / len(z)


RIGHT = {
    "first_gradient": [gradient_by_backward, gradient_by_loop, gradient_by_sums],
    "probe_parameters": [7690, 7690.0],
    "longer_sequence": [577, 577.0],
}

SOURCES = {
    "first_gradient": """
def answer(z, labels, classes):
    right = F.one_hot(labels, classes)
    guess = 1 / classes
    wrong = guess - right
    total = wrong.T @ z
    return total / len(z)
""",
}

EQUIVALENT = {}


def replaced():
    """How many tensors of a ViT-B/16 have another shape at 384."""
    with torch.device("meta"):
        small, large = (make_vit("B/16", image=side).state_dict() for side in (224, 384))
    assert large["position.table"].shape[1] == 577
    with torch.device("meta"):
        probe = make_vit("B/16", classes=10).head
    assert sum(p.numel() for p in probe.parameters()) == 7690
    return sum(small[name].shape != large[name].shape for name in small)


def reached():
    """How many tensors of the body the first gradient of a zero head reaches."""
    torch.manual_seed(0)
    model = ViT(Config(dim=10, depth=4, heads=5, patch=2, image=(4, 6), channels=3, classes=7))
    body = [p for name, p in model.named_parameters() if not name.startswith("head.")]
    assert len(body) == 54
    F.cross_entropy(model(torch.rand(3, 3, 4, 6)), torch.arange(3)).backward()
    return sum(p.grad.any().item() for p in body)


def truth():
    return {
        "tensors of a ViT-B/16": replaced(),
        "tensors of the body": reached(),
        "times as many attention": round((577 / 197) ** 2),
    }
