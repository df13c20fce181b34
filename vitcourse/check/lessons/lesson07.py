"""Exercises of lesson 07: training on a GPU.

The references stand here, so that a check need not load all that trains. That they are what the
package computes is tested: its own code is among the right answers in tests/answers/lesson07.py.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.config import Config
from vitcourse.parts import LayerScale, RelativeAttention2D
from vitcourse.vit import Block, ViT

# the learning rate --------------------------------------------------------------------------------


def schedule(step, steps, warm, highest):
    """Up a straight line for `warm` steps, then down a cosine: step (S,) -> rates (S,)."""
    rising = (step + 1) / (warm + 1)
    falling = 0.5 * (1 + torch.cos(torch.pi * (step - warm) / (steps - warm)))
    return highest * torch.where(step < warm, rising, falling)


def cosine(part):
    """From 1 at the part 0 to 0 at the part 1."""
    return 0.5 * (1 + torch.cos(torch.pi * part))


def line_from_zero(step, steps, warm, highest):
    """A warm-up that begins at zero, so that the first step learns nothing."""
    falling = cosine((step - warm) / (steps - warm))
    return highest * torch.where(step < warm, step / max(warm, 1), falling)


def highest_too_early(step, steps, warm, highest):
    """The highest rate one step before the cosine begins."""
    falling = cosine((step - warm) / (steps - warm))
    return highest * torch.where(step < warm, (step + 1) / max(warm, 1), falling)


def cosine_of_all_steps(step, steps, warm, highest):
    """A cosine that is counted from the first step."""
    return highest * torch.where(step < warm, (step + 1) / (warm + 1), cosine(step / steps))


def cosine_not_to_zero(step, steps, warm, highest):
    """A cosine that is cut off before it reaches zero."""
    falling = cosine((step - warm) / steps)
    return highest * torch.where(step < warm, (step + 1) / (warm + 1), falling)


def cosine_below_zero(step, steps, warm, highest):
    """A whole wave: the rate becomes negative."""
    falling = torch.cos(torch.pi * (step - warm) / (steps - warm))
    return highest * torch.where(step < warm, (step + 1) / (warm + 1), falling)


def quarter_wave(step, steps, warm, highest):
    """A quarter of a wave in place of half of one."""
    falling = torch.cos(torch.pi / 2 * (step - warm) / (steps - warm))
    return highest * torch.where(step < warm, (step + 1) / (warm + 1), falling)


def straight_down(step, steps, warm, highest):
    """A straight line down."""
    falling = 1 - (step - warm) / (steps - warm)
    return highest * torch.where(step < warm, (step + 1) / (warm + 1), falling)


def line_from_zero_of_more(step, steps, warm, highest):
    """A warm-up that begins at zero, and counts warm + 1 parts."""
    falling = cosine((step - warm) / (steps - warm))
    return highest * torch.where(step < warm, step / (warm + 1), falling)


def without_highest(step, steps, warm, highest):
    """Parts of the highest rate."""
    return schedule(step, steps, warm, 1.0)


def zero_in_the_last_step(step, steps, warm, highest):
    """A cosine that is zero one step too early."""
    falling = cosine((step - warm) / (steps - warm - 1))
    return highest * torch.where(step < warm, (step + 1) / (warm + 1), falling)


def no_warm_up(step, steps, warm, highest):
    """The cosine from the first step on."""
    return highest * cosine(step / steps)


def constant_after(step, steps, warm, highest):
    """The warm-up, and no cosine."""
    return highest * torch.clamp((step + 1) / (warm + 1), max=1)


SCHEDULE = Exercise(
    name="schedule",
    lesson="07",
    task="The learning rate of steps (S,) -> (S,): `warm` steps up a straight line that reaches `highest` at step `warm`, then a cosine that would reach 0 at step `steps`.",
    minutes=10,
    difficulty=2,
    reference=schedule,
    cases=(
        Case(
            about="5 of 23 steps to warm up",
            inputs=lambda g: (torch.arange(23), 23, 5, 2.5),
            shape="S",
            sizes=dict(S=23),
        ),
        Case(
            about="no warm-up",
            inputs=lambda g: (torch.arange(17), 17, 0, 0.75),
            shape="S",
            sizes=dict(S=17),
        ),
        Case(
            about="a few steps, in no order",
            inputs=lambda g: (torch.tensor([90, 3, 41, 0, 20, 19, 99]), 100, 20, 1.5),
            shape="S",
            sizes=dict(S=7),
        ),
    ),
    hints=(
        "Two formulas, one for the steps before `warm` and one for the rest. torch.where takes from "
        "both, by a condition.",
        "The line: step 0 gets 1 of warm + 1 equal parts of the highest rate, step 1 gets 2 of them, and "
        "step `warm` would get all.",
        "The cosine: the part of the way, (step - warm) / (steps - warm), goes from 0 to 1. "
        "0.5 * (1 + cos(pi * part)) goes from 1 to 0.",
    ),
    mistakes=(
        Mistake(
            "first step lost",
            line_from_zero,
            "Your first step has the rate 0, so it changes nothing: count step + 1 of warm + 1 parts",
        ),
        Mistake(
            "highest too early",
            highest_too_early,
            "Your warm-up is off by one: it is at the highest rate one step too early, divide by warm + 1",
        ),
        Mistake(
            "cosine of all steps",
            cosine_of_all_steps,
            "Your cosine counts from step 0, so the rate jumps down where the warm-up ends: count from "
            "`warm`",
        ),
        Mistake(
            "cosine does not reach zero",
            cosine_not_to_zero,
            "Your cosine does not reach zero: only steps - warm steps are left after the warm-up, divide "
            "by that",
        ),
        Mistake(
            "cosine below zero",
            cosine_below_zero,
            "Your rate becomes negative, which climbs the loss: lift the cosine, 0.5 * (1 + cos(...))",
        ),
        Mistake(
            "quarter of a wave",
            quarter_wave,
            "Your cosine is a quarter of a wave, which drops steeply at the end: take half a wave, "
            "0.5 * (1 + cos(pi * part))",
        ),
        Mistake(
            "straight down",
            straight_down,
            "Your rate falls in a straight line: it must follow a cosine",
        ),
        Mistake(
            "first step lost, of warm + 1",
            line_from_zero_of_more,
            "Your first step has the rate 0, so it changes nothing: count step + 1 of warm + 1 parts",
        ),
        Mistake(
            "without the highest",
            without_highest,
            "Those are parts of the highest rate, from 0 to 1: multiply them by `highest`",
        ),
        Mistake(
            "zero in the last step",
            zero_in_the_last_step,
            "Your last step has the rate 0, so it changes nothing: divide by steps - warm, so that zero "
            "would come one step later",
        ),
        Mistake(
            "no warm-up",
            no_warm_up,
            "The warm-up is missing: before step `warm` the rate rises",
        ),
        Mistake(
            "constant after",
            constant_after,
            "Your rate stays at its highest after the warm-up: it must come down again, by a cosine",
        ),
    ),
)

# soft targets -------------------------------------------------------------------------------------


def smooth_labels(labels, classes, smoothing):
    """Labels (B,) -> targets (B, classes): the part `smoothing` is spread over all classes."""
    right = F.one_hot(labels, classes).float()  # (B, classes)
    return right * (1 - smoothing) + smoothing / classes


def spread_over_others(labels, classes, smoothing):
    """The share spread over the wrong classes only."""
    right = F.one_hot(labels, classes).float()
    return right * (1 - smoothing) + (1 - right) * smoothing / (classes - 1)


def without_own_share(labels, classes, smoothing):
    """The right class without its part of what is spread."""
    right = F.one_hot(labels, classes).float()
    return right * (1 - smoothing) + (1 - right) * smoothing / classes


def nothing_taken(labels, classes, smoothing):
    """Spread, and not taken from the right class."""
    return F.one_hot(labels, classes).float() + smoothing / classes


def taken_from_right_alone(labels, classes, smoothing):
    """Taken from the right class, and not spread."""
    return F.one_hot(labels, classes).float() * (1 - smoothing)


def not_divided(labels, classes, smoothing):
    """Every class given all that is spread."""
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing


def exchanged(labels, classes, smoothing):
    """The share that stays and the share that is spread exchanged."""
    return F.one_hot(labels, classes).float() * smoothing + (1 - smoothing) / classes


def not_smoothed(labels, classes, smoothing):
    """The labels as they are."""
    return F.one_hot(labels, classes).float()


def classes_of_batch(labels, classes, smoothing):
    """As many classes as the batch happens to hold."""
    return F.one_hot(labels).float() * (1 - smoothing) + smoothing / classes


SMOOTH_LABELS = Exercise(
    name="smooth_labels",
    lesson="07",
    task="Labels (B,) -> soft targets (B, classes): the part `smoothing` of each label is spread evenly over all classes, the right one included.",
    minutes=6,
    difficulty=1,
    reference=smooth_labels,
    cases=(
        Case(
            about="five classes, a fifth spread",
            inputs=lambda g: (torch.tensor([2, 0, 3, 3, 1, 2, 0]), 5, 0.2),
            shape="B classes",
            sizes=dict(B=7, classes=5),
        ),
        Case(
            about="eleven classes, a tenth spread",
            inputs=lambda g: (torch.tensor([9, 4, 0]), 11, 0.1),
            shape="B classes",
            sizes=dict(B=3, classes=11),
        ),
    ),
    hints=(
        "Write one row by hand first: 5 classes, the label 2, smoothing 0.2. What is the sum?",
        "Of the 1 in the right place, 1 - smoothing stays. The rest is cut into as many equal pieces as "
        "there are classes, and each class gets one.",
        "F.one_hot(labels, classes) gives the ones; it needs .float(). The right class ends with "
        "1 - smoothing + smoothing / classes.",
    ),
    mistakes=(
        Mistake(
            "spread over the others",
            spread_over_others,
            "You spread it over the other classes, as some articles say: PyTorch and the papers spread it "
            "over all, the right one included",
        ),
        Mistake(
            "without its own share",
            without_own_share,
            "Your rows do not sum to 1: the right class gets its share, smoothing / classes, too",
        ),
        Mistake(
            "nothing taken",
            nothing_taken,
            "Your rows sum to more than 1: what is spread must be taken from the right class first, "
            "1 - smoothing stays",
        ),
        Mistake(
            "nothing given",
            taken_from_right_alone,
            "Your rows sum to less than 1: what you take from the right class must be spread over all",
        ),
        Mistake(
            "not divided",
            not_divided,
            "Every class gets the whole of what is spread: it must be divided by the number of classes",
        ),
        Mistake(
            "exchanged",
            exchanged,
            "You exchanged two parts: `smoothing` is what is spread, 1 - smoothing is what stays",
        ),
        Mistake(
            "not smoothed",
            not_smoothed,
            "Those are the labels as they were, 1 and 0: the part `smoothing` must be spread",
        ),
        Mistake(
            "classes of the batch",
            classes_of_batch,
            "F.one_hot was not told the number of classes, so it took the highest label of this batch: "
            "give it `classes`",
        ),
    ),
)

# what decays --------------------------------------------------------------------------------------


class RelativeBlock(Block):
    """A block whose branches are scaled."""

    def __init__(self, dim, attn, mlp, drop_path=0.0):
        super().__init__(dim, attn, mlp, drop_path, scale=LayerScale)


def plain_model(generator):
    """A ViT of one block."""
    return ViT(Config(dim=10, depth=1, heads=5, patch=2, image=(4, 6), channels=3, classes=7))


def relative_model(generator):
    """A ViT with position tables inside its blocks, and scaled branches."""
    variant = ViT.variant(Attention=RelativeAttention2D.on((2, 3)), Block=RelativeBlock)
    return variant(Config(dim=10, depth=2, heads=5, patch=2, image=(4, 6), channels=3, classes=7))


def other_names(generator):
    """Layers whose names do not say what they are."""
    parts = {"first": nn.LayerNorm(5), "second": nn.Linear(5, 4), "last": nn.Linear(4, 3)}
    return nn.ModuleDict(parts)


def count(make):
    """How many parameters, as tensors, a model has."""
    return len(list(make(None).parameters()))


def decayed(model, weight_decay):
    """How much each parameter decays, in the order of model.parameters(): (parameters,)."""
    found = []
    for name, parameter in model.named_parameters():
        special = any(part.startswith(("prefix", "position")) for part in name.split("."))
        found.append(0.0 if special or parameter.ndim < 2 else weight_decay)
    return torch.tensor(found)


def choose(rule):
    """The decay of every parameter that a rule (name, parameter) -> bool names."""

    def chosen(model, weight_decay):
        found = [weight_decay * rule(name, p) for name, p in model.named_parameters()]
        return torch.tensor(found)

    return chosen


def starts(name, *words):
    """Whether a part of a parameter's name begins with one of the words."""
    return any(part.startswith(words) for part in name.split("."))


DECAYED = Exercise(
    name="decayed",
    lesson="07",
    task="A model -> how much each of its parameters decays, in the order of model.named_parameters(): weight_decay for matrices and kernels, 0 for what has one axis and for every prefix and position table.",
    minutes=8,
    difficulty=2,
    reference=decayed,
    cases=(
        Case(
            about="a ViT of one block",
            inputs=lambda g: (plain_model(g), 0.3),
            shape="parameters",
            sizes=dict(parameters=count(plain_model)),
        ),
        Case(
            about="position tables inside the blocks",
            inputs=lambda g: (relative_model(g), 0.7),
            shape="parameters",
            sizes=dict(parameters=count(relative_model)),
        ),
        Case(
            about="names that do not tell a norm from a matrix",
            inputs=lambda g: (other_names(g), 0.2),
            shape="parameters",
            sizes=dict(parameters=count(other_names)),
        ),
    ),
    hints=(
        "for name, parameter in model.named_parameters(): print the names and parameter.ndim of a small "
        "model, and look.",
        "Two reasons not to decay: fewer than two axes, parameter.ndim < 2, or a name that says prefix or "
        "position.",
        "Collect one number for each parameter in a list, weight_decay or 0.0, and return "
        "torch.tensor(list).",
    ),
    mistakes=(
        Mistake(
            "everything",
            choose(lambda name, p: True),
            "Everything decays in yours, biases and norms too: only matrices and kernels should",
        ),
        Mistake(
            "all with two axes",
            choose(lambda name, p: p.ndim >= 2),
            "You went by the axes alone: the prefix and the position tables have two or more, and must "
            "not decay",
        ),
        Mistake(
            "prefix decays",
            choose(lambda name, p: p.ndim >= 2 and not starts(name, "position")),
            "The prefix decays in yours: it has more than one axis, but it is no matrix",
        ),
        Mistake(
            "positions decay",
            choose(lambda name, p: p.ndim >= 2 and not starts(name, "prefix")),
            "The position tables decay in yours: they have more than one axis, but nothing is multiplied "
            "with them",
        ),
        Mistake(
            "positions inside blocks decay",
            choose(lambda name, p: p.ndim >= 2 and not name.startswith(("prefix", "position"))),
            "A position table inside a block decays in yours: the word may stand anywhere in the name, as "
            "in blocks.0.attn.position_table",
        ),
        Mistake(
            "two axes exactly",
            choose(lambda name, p: p.ndim == 2 and not starts(name, "prefix", "position")),
            "The patch embedding does not decay in yours: its kernel has four axes, and is a matrix all "
            "the same",
        ),
        Mistake(
            "by the name weight",
            choose(lambda name, p: name.endswith("weight")),
            "You went by the name `weight`: a norm has a weight too, of one axis, which must not decay",
        ),
        Mistake(
            "the other way round",
            choose(lambda name, p: p.ndim < 2 or starts(name, "prefix", "position")),
            "It is the other way round: matrices decay, the rest does not",
        ),
    ),
)

# the average of the weights -----------------------------------------------------------------------


@torch.no_grad()
def ema(average, weights, step, keep):
    """The next average, of which a part stays and the rest is new: all of one shape."""
    part = min(keep, (1 + step) / (10 + step))
    return part * average + (1 - part) * weights


def ema_exchanged(average, weights, step, keep):
    """The parts of the past and of the present exchanged."""
    part = min(keep, (1 + step) / (10 + step))
    return (1 - part) * average + part * weights


def ema_from_the_start(average, weights, step, keep):
    """The past kept in full from the first step."""
    return keep * average + (1 - keep) * weights


def ema_of_larger(average, weights, step, keep):
    """The larger of the two parts."""
    part = max(keep, (1 + step) / (10 + step))
    return part * average + (1 - part) * weights


def ema_of_step_alone(average, weights, step, keep):
    """A part that only grows with the steps."""
    part = (1 + step) / (10 + step)
    return part * average + (1 - part) * weights


def ema_all_new(average, weights, step, keep):
    """All of the present added."""
    part = min(keep, (1 + step) / (10 + step))
    return part * average + weights


def ema_one_late(average, weights, step, keep):
    """A part that is one step behind."""
    part = min(keep, step / (9 + step))
    return part * average + (1 - part) * weights


def pair(generator, step, keep):
    """An average and new weights, a step and how much to keep."""
    return normal(generator, 3, 7), normal(generator, 3, 7), step, keep


EMA = Exercise(
    name="ema",
    lesson="07",
    task="The next average of the weights, a new tensor: the part min(keep, (1 + step) / (10 + step)) of the average stays, the rest comes from the weights.",
    minutes=6,
    difficulty=1,
    reference=ema,
    cases=(
        Case(
            about="a late step",
            inputs=lambda g: pair(g, 2000, 0.75),
            shape="D M",
            sizes=dict(D=3, M=7),
        ),
        Case(
            about="an early step",
            inputs=lambda g: pair(g, 4, 0.75),
            shape="D M",
            sizes=dict(D=3, M=7),
        ),
    ),
    hints=(
        "First one number: the part that stays. Python's min gives the smaller of two.",
        "If `part` of the average stays, 1 - part comes from the new weights, so that both make one.",
        "part * average + (1 - part) * weights. It is a new tensor: .mul_ and .add_ would change the "
        "average that you were given.",
    ),
    mistakes=(
        Mistake(
            "exchanged",
            ema_exchanged,
            "You exchanged average and weights: the average keeps the large part, and the new weights add "
            "the small one",
        ),
        Mistake(
            "keep from the start",
            ema_from_the_start,
            "You keep the full part from the first step on, so the first, untrained weights stay for long: "
            "take the smaller of keep and (1 + step) / (10 + step), and mind its parentheses",
        ),
        Mistake(
            "the larger part",
            ema_of_larger,
            "You took the larger of the two parts: early the average must follow faster, so take the "
            "smaller",
        ),
        Mistake(
            "of the step alone",
            ema_of_step_alone,
            "Your part comes from the step alone, and grows to 1: `keep` is its limit",
        ),
        Mistake(
            "all of the new",
            ema_all_new,
            "Your parts sum to more than 1, so the average grows: of the weights take 1 - part",
        ),
        Mistake(
            "one step late",
            ema_one_late,
            "Your early steps are off by one: (1 + step) / (10 + step), with steps that count from 0",
        ),
    ),
)

# bytes --------------------------------------------------------------------------------------------

B_16 = 86_567_656

ADAMW_BYTES = Exercise(
    name="adamw_bytes",
    lesson="07",
    task="ViT-B/16 has 86,567,656 parameters, in float32. How many bytes does AdamW keep for them from step to step, beside the weights and their gradients?",
    minutes=4,
    difficulty=1,
    kind="number",
    reference=8 * B_16,
    cases=(),
    hints=(
        "A number in float32 has 32 bits: 4 bytes.",
        "Look at the update rule at the beginning of the lesson: which letters with hats does AdamW "
        "remember?",
        "m and v: the mean of the gradients and the mean of their squares, each as large as the weights.",
    ),
    mistakes=(
        Mistake(
            "one of two",
            4 * B_16,
            "That is one number for each parameter: AdamW keeps two, the mean of the gradients and the "
            "mean of their squares",
        ),
        Mistake(
            "with the gradients",
            12 * B_16,
            "You counted the gradients, too: asked is what AdamW keeps beside them",
        ),
        Mistake(
            "with everything",
            16 * B_16,
            "That is everything, with weights and gradients: asked is what AdamW keeps beside them",
        ),
        Mistake(
            "numbers, not bytes",
            2 * B_16,
            "Those are numbers: each has 4 bytes in float32",
        ),
        Mistake(
            "bits",
            64 * B_16,
            "Those are bits: 8 of them are a byte",
        ),
    ),
)

EXERCISES = (SMOOTH_LABELS, SCHEDULE, DECAYED, EMA, ADAMW_BYTES)

QUESTIONS = {
    "first loss of a new ViT with 10 classes and label smoothing 0.1, to two digits": (
        2.3,
        "ln(10), as without smoothing: if all logits are equal, any targets that sum to 1 cost the same.",
        {
            2.07: "That is 0.9 of ln(10), but the part that is spread over the classes costs ln(10), too.",
            2.4: "Smoothing adds nothing here: all classes have the same probability.",
            0: "A loss of 0 belongs to a model that is certain and right.",
        },
    ),
    "lowest possible loss with 10 classes and label smoothing 0.1, to two digits": (
        0.5,
        "The best answer is the target itself, 0.91 and nine times 0.01, and that costs its entropy.",
        {
            0: "A model that is certain pays for the nine classes to which the target gives 0.01.",
            0.1: "That is the part that is spread: the loss is -sum(target * ln(target)).",
            0.09: "That is -ln(0.91) alone: nine classes of 0.01 cost something, too.",
        },
    ),
    "steps done twice if a run that saves every 11 steps is killed after step 17": (
        6,
        "The checkpoint of step 11 is on the disk; steps 12 to 17 are done again.",
        {
            17: "It does not begin anew: the checkpoint of step 11 is on the disk.",
            0: "Nothing is written when a process is killed: what happened since step 11 is lost.",
            5: "Steps 12 to 17, both counted.",
            11: "Those are the steps that are kept.",
        },
    ),
}
