"""Losses of the papers: plain functions (output, target, ...) -> scalar. Logits: (B, classes)."""

import torch
import torch.nn.functional as F

# Distillation: papers/deit.py --------------------------------------------------------------------


def soft_distillation(logits, teacher_logits, temperature=1.0):
    """KL(teacher || student) of softened probabilities, times temperature^2, mean over the batch.

    A temperature above 1 softens both; its square keeps the size of the gradient. The official
    code divides by B * classes, not by B: its loss is smaller by the number of classes.
    """
    student = F.log_softmax(logits / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def hard_distillation(logits, teacher_logits):
    """Cross-entropy with the class that the teacher holds most likely, as if it were the label."""
    return F.cross_entropy(logits, teacher_logits.argmax(dim=-1))


# Token labelling: papers/lv_vit.py ---------------------------------------------------------------


def token_labelling(logits, token_logits, label, token_labels, weight):
    """Cross-entropy of the image, and `weight` times the mean of that of its patches: a scalar.

    logits (B, classes), token_logits (B, N, classes); label and token_labels are soft, same shapes.
    """
    patches = F.cross_entropy(token_logits.flatten(0, 1), token_labels.flatten(0, 1))
    return F.cross_entropy(logits, label) + weight * patches


# Against over-smoothing: papers/oversmoothing.py -------------------------------------------------


def cosine_loss(tokens, absolute=True):
    """How alike two patches of an image are: the mean cosine, tokens (B, N, D) -> a scalar.

    The second version of the paper takes the absolute value of each cosine, the first the cosine.
    """
    N = tokens.shape[1]
    x = F.normalize(tokens, dim=-1)
    cosines = x @ x.transpose(1, 2)  # (B, N, N)
    cosines = cosines.abs() if absolute else cosines
    own = cosines.diagonal(dim1=1, dim2=2).sum()
    return (cosines.sum() - own) / (len(tokens) * N * (N - 1))


def consistency_loss(first, last):
    """Does a patch know itself again? first and last (B, N, D) -> a scalar.

    The cross-entropy of two scores: that of a patch of the first layer with itself in the last, and
    that with the mean of the other patches there. The first layer is the target: no gradient.
    """
    first = first.detach()
    others = (last.sum(dim=1, keepdim=True) - last) / (last.shape[1] - 1)  # (B, N, D)
    return F.softplus((first * (others - last)).sum(dim=-1)).mean()


def mixing_loss(token_logits, target, other, box):
    """Each patch names the image it was cut from: token_logits (B, N, classes) -> a scalar.

    Patches in `box` (h, w), true or false, come from the image of the soft labels `other`
    (B, classes), the rest from that of `target`.
    """
    labels = torch.where(box.flatten()[:, None], other[:, None], target[:, None])  # (B, N, classes)
    return F.cross_entropy(token_logits.flatten(0, 1), labels.flatten(0, 1))
