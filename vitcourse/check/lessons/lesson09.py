"""Exercises of lesson 09: fine-tuning and higher resolution."""

import torch
import torch.nn.functional as F

from vitcourse.check.exercise import Case, Exercise, Mistake, normal

# the first gradient of a head that starts at zero -------------------------------------------------


def first_gradient(z, labels, classes):
    """The gradient for a zero head's weights: z (B, D), labels (B,) -> (classes, D)."""
    right = F.one_hot(labels, classes).to(z.dtype)  # (B, classes)
    guess = 1 / classes  # of every class, because all logits are zero
    return (guess - right).T @ z / len(z)  # (classes, D)


def gradient_of_sum(z, labels, classes):
    """Not divided by the number of images."""
    return first_gradient(z, labels, classes) * len(z)


def gradient_turned(z, labels, classes):
    """The direction of the step."""
    return -first_gradient(z, labels, classes)


def gradient_without_guess(z, labels, classes):
    """The right classes alone."""
    return -F.one_hot(labels, classes).to(z.dtype).T @ z / len(z)


def gradient_of_guess(z, labels, classes):
    """The guess alone."""
    return z.mean(dim=0).expand(classes, -1) / classes


def gradient_of_means(z, labels, classes):
    """Each class divided by the number of its own images."""
    right = F.one_hot(labels, classes).to(z.dtype)
    means = right.T @ z / right.sum(dim=0)[:, None].clamp(min=1)
    return z.mean(dim=0) / classes - means


def gradient_divided_twice(z, labels, classes):
    """The mean over images and classes."""
    return first_gradient(z, labels, classes) / classes


def gradient_transposed(z, labels, classes):
    """(D, classes)."""
    return first_gradient(z, labels, classes).T


def gradient_of_seen_classes(z, labels, classes):
    """one_hot not told the number of classes."""
    return (1 / classes - F.one_hot(labels).to(z.dtype)).T @ z / len(z)


def gradient_half(z, labels, classes):
    """A guess of one half, as for two classes."""
    return (0.5 - F.one_hot(labels, classes).to(z.dtype)).T @ z / len(z)


FIRST_GRADIENT = Exercise(
    name="first_gradient",
    lesson="09",
    task="A linear head without bias starts at zero. From the class tokens z (B, D) and the labels (B,), compute the first gradient of its weights, (classes, D), for the mean cross-entropy: by a formula, without backward.",
    minutes=10,
    difficulty=2,
    reference=first_gradient,
    gradient=False,
    cases=(
        Case(
            about="seven images of four classes",
            inputs=lambda g: (normal(g, 7, 5), torch.tensor([2, 0, 3, 3, 1, 2, 3]), 4),
            shape="classes D",
            sizes=dict(B=7, classes=4, D=5),
        ),
        Case(
            about="classes that do not occur in the batch",
            inputs=lambda g: (normal(g, 3, 6), torch.tensor([4, 1, 4]), 9),
            shape="classes D",
            sizes=dict(B=3, classes=9, D=6),
        ),
    ),
    hints=(
        "One image first: all logits are zero, so what is the probability of each class? The gradient "
        "for the logits is this minus the one-hot label.",
        "The gradient for the weights is the outer product of that, (classes,), and the token, (D,). "
        "For a batch, take the mean over images.",
        "wrong = 1 / classes - F.one_hot(labels, classes) is (B, classes). wrong.T @ z adds up the outer "
        "products of all images; divide by B.",
    ),
    mistakes=(
        Mistake(
            "sum over images",
            gradient_of_sum,
            "This is the gradient of the sum of all losses: the loss is their mean, so divide by the "
            "number of images",
        ),
        Mistake(
            "turned round",
            gradient_turned,
            "Your sign is turned round, this is the direction of the step: the gradient is the "
            "probability minus the label",
        ),
        Mistake(
            "guess forgotten",
            gradient_without_guess,
            "The probabilities are missing: a zero head gives every class 1 / classes, not zero",
        ),
        Mistake(
            "labels forgotten",
            gradient_of_guess,
            "The labels are missing: the probability of the right class has 1 subtracted from it",
        ),
        Mistake(
            "class means",
            gradient_of_means,
            "You divided each class by the number of its own images: the mean is over all images of "
            "the batch",
        ),
        Mistake(
            "divided twice",
            gradient_divided_twice,
            "You divided by the number of classes, too: the mean is over images alone",
        ),
        Mistake(
            "transposed",
            gradient_transposed,
            "Your axes are exchanged: the weights of a linear layer are (classes, D), a row for each "
            "class",
        ),
        Mistake(
            "classes of the batch",
            gradient_of_seen_classes,
            "F.one_hot was not told the number of classes, so it took the highest label of this "
            "batch: give it `classes`",
        ),
        Mistake(
            "two classes",
            gradient_half,
            "Your probability is one half: with more classes each gets 1 / classes",
        ),
    ),
)

# what a linear probe trains -----------------------------------------------------------------------

PROBE_PARAMETERS = Exercise(
    name="probe_parameters",
    lesson="09",
    task="A linear probe of a ViT-B/16 on 10 classes: the body is frozen, a new linear head with bias is trained. How many parameters are trained?",
    minutes=3,
    difficulty=1,
    kind="number",
    reference=(768 + 1) * 10,
    cases=(),
    hints=(
        "The head reads the class token alone. How many numbers has that in a ViT-B?",
        "Each class has one weight for each of the 768 numbers. Is that all a linear layer has?",
        "768 weights and a bias for each class, and there are 10 classes.",
    ),
    mistakes=(
        Mistake(
            "bias forgotten",
            768 * 10,
            "These are the weights: each class has a bias, too",
        ),
        Mistake(
            "old classes",
            (768 + 1) * 1000,
            "This is a head for the 1000 classes of ImageNet: the new task has 10",
        ),
        Mistake(
            "hidden layer kept",
            768 * 768 + 768 + (768 + 1) * 10,
            "You kept the hidden layer of pre-training: the new head is linear",
        ),
        Mistake(
            "whole model",
            86_567_656 - 769_000 + 7_690,
            "This is the whole model with its new head: in a probe the body is frozen",
        ),
        Mistake(
            "all tokens",
            (197 * 768 + 1) * 10,
            "Your head reads all 197 tokens: it reads the class token alone",
        ),
        Mistake(
            "one bias for all",
            768 * 10 + 1,
            "You counted one bias in all: each of the 10 classes has its own",
        ),
        Mistake(
            "old model",
            86_567_656,
            "This is the whole model with its old head: in a probe only the new head is trained",
        ),
    ),
)

# how long a larger image is -----------------------------------------------------------------------

LONGER_SEQUENCE = Exercise(
    name="longer_sequence",
    lesson="09",
    task="A ViT-B/16 with a class token is fine-tuned on images of 384 x 384. How many tokens T does a block see?",
    minutes=3,
    difficulty=1,
    kind="number",
    reference=(384 // 16) ** 2 + 1,
    cases=(),
    hints=(
        "The patch size stays. How many patches of 16 pixels fit into one side of 384?",
        "24 rows of 24 patches. What else is in the sequence?",
        "24 x 24 patches, and the class token.",
    ),
    mistakes=(
        Mistake(
            "class token forgotten",
            24 * 24,
            "These are the patches: the class token is in the sequence, too",
        ),
        Mistake(
            "as before",
            197,
            "This is the sequence at 224: the patch size stays, so a larger image has more patches",
        ),
        Mistake(
            "one side",
            24 + 1,
            "You counted one row of patches: there are as many rows as columns",
        ),
        Mistake(
            "class token enlarged",
            197 * (384 / 224) ** 2,
            "You enlarged the class token with the image: the patches alone become more",
        ),
        Mistake(
            "two class tokens",
            24 * 24 + 2,
            "That is one too many: the model keeps its one class token, whose row in the table stays",
        ),
        Mistake(
            "by the side",
            196 * 384 // 224 + 1,
            "You let the patches grow like the side: rows and columns both become more, so they grow with its square",
        ),
    ),
)

EXERCISES = (FIRST_GRADIENT, PROBE_PARAMETERS, LONGER_SEQUENCE)

QUESTIONS = {
    "tensors of a ViT-B/16 that must be replaced to go from 224 to 384": (
        1,
        "The position table: it has a row for each token, and there are more tokens. Nothing else "
        "depends on the number of patches.",
        {
            0: "One tensor has a row for each place, and at 384 there are more places.",
            2: "The class token is one vector at any size of the image.",
            13: "A block treats any number of tokens: its weights do not depend on T.",
            152: "Most layers treat one token like the next: which one knows how many there are?",
        },
    ),
    "tensors of the body that the first gradient of a zero head reaches": (
        0,
        "The gradient for the class token is the error times the head's weights, which are zero.",
        {
            1: "The prefix is reached through the head, too. What is the gradient multiplied with there?",
            2: "The final norm is in the body: its gradient comes through the head, too.",
            54: "They are all connected, but on the way back everything is multiplied with the weights "
            "of the head.",
        },
    ),
    "times as many attention weights at 384 as at 224 in a ViT-B/16, rounded": (
        9,
        "(577 / 197) squared is 8.6: attention compares every token with every other.",
        {
            2: "That is the side of the image: the tokens grow with its square, the pairs with its "
            "fourth power.",
            3: "That is how many times as many tokens: attention has a weight for every pair of them.",
            1: "More tokens means more pairs of tokens.",
        },
    ),
}
