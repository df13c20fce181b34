"""Exercises of lesson 13: better training."""

import torch
import torch.nn.functional as F

from vitcourse import losses
from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.config import Config
from vitcourse.papers.deit import ProbabilityHeads, TwoHeads
from vitcourse.papers.lv_vit import swap
from vitcourse.parts import MeanHead
from vitcourse.vit import ClassHead

# a head for the slot: the mean of the patches ----------------------------------------------------


class MeanOfAll(MeanHead):
    """The prefix in the average, too."""

    def forward(self, x, grid):
        return F.linear(x.mean(dim=1), self.weight, self.bias)


class MeanWithoutFirst(MeanHead):
    """One prefix token, however many there are."""

    def forward(self, x, grid):
        return F.linear(x[:, 1:].mean(dim=1), self.weight, self.bias)


class MeanOfFirst(MeanHead):
    """As many tokens as the grid has places, from the first on."""

    def forward(self, x, grid):
        return F.linear(x[:, : grid[0] * grid[1]].mean(dim=1), self.weight, self.bias)


class SumOfPatches(MeanHead):
    """Not divided."""

    def forward(self, x, grid):
        return F.linear(x[:, -grid[0] * grid[1] :].sum(dim=1), self.weight, self.bias)


class LargestOfPatches(MeanHead):
    """The maximum."""

    def forward(self, x, grid):
        return F.linear(x[:, -grid[0] * grid[1] :].amax(dim=1), self.weight, self.bias)


class MeanOfProbabilities(MeanHead):
    """A softmax for each patch."""

    def forward(self, x, grid):
        logits = F.linear(x[:, -grid[0] * grid[1] :], self.weight, self.bias)
        return logits.softmax(dim=-1).mean(dim=1)


class WithClassToken(ClassHead):
    """As the ViT does it."""


class MeanOfOneRow(MeanHead):
    """The last row of the grid."""

    def forward(self, x, grid):
        return F.linear(x[:, -grid[1] :].mean(dim=1), self.weight, self.bias)


class MeanUnread(MeanHead):
    """No linear layer."""

    def forward(self, x, grid):
        return x[:, -grid[0] * grid[1] :].mean(dim=1)


class MeanWithoutBias(MeanHead):
    """The weights alone."""

    def forward(self, x, grid):
        return x[:, -grid[0] * grid[1] :].mean(dim=1) @ self.weight.T


class MeanToClassHead(ClassHead):
    """The mean (B, D) given to a layer that looks for tokens."""

    def forward(self, x, grid):
        return super().forward(x[:, -grid[0] * grid[1] :].mean(dim=1))


def head_case(about, B, R, grid, D, classes):
    """Tokens for a head of `classes` classes behind a body of width D."""
    h, w = grid
    return Case(
        about=about,
        inputs=lambda g: (normal(g, B, R + h * w, D), grid),
        shape="B classes",
        sizes={"B": B, "classes": classes, "D": D, "h": h, "w": w, "T": R + h * w},
        build=(Config(dim=D, depth=1, heads=2, classes=classes),),
    )


MEAN_HEAD = Exercise(
    name="mean_head",
    lesson="13",
    task="A head that averages all patch tokens and applies its linear layer to the result, whatever "
    "prefix stands before them: x (B, T, D), grid (h, w) -> logits (B, classes).",
    minutes=6,
    difficulty=1,
    kind="module",
    reference=MeanHead,
    cases=(
        head_case("patches alone", B=2, R=0, grid=(3, 4), D=10, classes=5),
        head_case("a class token before them", B=2, R=1, grid=(3, 5), D=8, classes=7),
        head_case("four registers before them", B=3, R=4, grid=(5, 2), D=6, classes=8),
    ),
    hints=(
        "How many tokens are patches? The grid says so: h * w. They are the last ones of the sequence.",
        "x[:, -h * w :] are the patches, whatever stands before them. Average over the tokens, which "
        "are axis 1: (B, D).",
        "ClassHead is a linear layer, with self.weight (classes, D) and self.bias: F.linear(mean, "
        "self.weight, self.bias) applies it.",
    ),
    mistakes=(
        Mistake(
            "the prefix averaged, too",
            MeanOfAll,
            "You averaged all tokens: class token and registers are no patches, so take the last h * w",
        ),
        Mistake(
            "one prefix token",
            MeanWithoutFirst,
            "You left out one token: there may be none before the patches, or several, and the grid says "
            "how many patches there are",
        ),
        Mistake(
            "the first tokens",
            MeanOfFirst,
            "You took the first h * w tokens: the prefix stands in front, so the patches are the last "
            "ones",
        ),
        Mistake(
            "the sum",
            SumOfPatches,
            "You added the patches up: divide by their number, or larger images get larger logits",
        ),
        Mistake(
            "the largest",
            LargestOfPatches,
            "You took the largest value of each feature: an average was asked for",
        ),
        Mistake(
            "probabilities averaged",
            MeanOfProbabilities,
            "You applied a softmax: a head gives logits, and the loss does the rest",
        ),
        Mistake(
            "the class token",
            WithClassToken,
            "You read the first token, as ClassHead does: average the patches",
        ),
        Mistake(
            "one row",
            MeanOfOneRow,
            "You averaged the last row of the grid: it has h * w places in all",
        ),
        Mistake(
            "no linear layer",
            MeanUnread,
            "That is the mean token, of width D: the linear layer makes logits of it",
        ),
        Mistake(
            "no bias",
            MeanWithoutBias,
            "The bias is missing: add self.bias, or use F.linear",
        ),
        Mistake(
            "a token too few",
            MeanToClassHead,
            "ClassHead reads the first token of (B, T, D), and your mean is (B, D): keep the axis with keepdim=True, or use F.linear",
        ),
    ),
)

# a teacher's probabilities ------------------------------------------------------------------------


def soft_distillation(logits, teacher_logits, temperature):
    """The package's, for a teacher that does not learn: with or without detach is right."""
    return losses.soft_distillation(logits, teacher_logits.detach(), temperature)


def from_student_to_teacher(logits, teacher_logits, temperature):
    """KL(student || teacher)."""
    return losses.soft_distillation(teacher_logits, logits, temperature)


def not_squared(logits, teacher_logits, temperature):
    """Without temperature^2."""
    return losses.soft_distillation(logits, teacher_logits, temperature) / temperature**2


def multiplied_once(logits, teacher_logits, temperature):
    """Times the temperature."""
    return losses.soft_distillation(logits, teacher_logits, temperature) / temperature


def over_classes_too(logits, teacher_logits, temperature):
    """Divided by B * classes."""
    return losses.soft_distillation(logits, teacher_logits, temperature) / logits.shape[1]


def summed_over_batch(logits, teacher_logits, temperature):
    """Not divided by B."""
    return losses.soft_distillation(logits, teacher_logits, temperature) * len(logits)


def softmax_twice(logits, teacher_logits, temperature):
    """Probabilities taken for logits."""
    one, two = (z.div(temperature).softmax(dim=-1) for z in (logits, teacher_logits))
    return losses.soft_distillation(one, two, 1.0) * temperature**2


def sharp_student(logits, teacher_logits, temperature):
    """The temperature for the teacher alone."""
    return losses.soft_distillation(logits * temperature, teacher_logits, temperature)


def sharp_teacher(logits, teacher_logits, temperature):
    """The temperature for the student alone."""
    return losses.soft_distillation(logits, teacher_logits * temperature, temperature)


def cross_entropy(logits, teacher_logits, temperature):
    """The teacher's entropy not taken away."""
    teacher = (teacher_logits / temperature).softmax(dim=-1)
    return F.cross_entropy(logits / temperature, teacher) * temperature**2


def times_temperature(logits, teacher_logits, temperature):
    """Sharper, not softer."""
    return losses.soft_distillation(logits, teacher_logits, 1 / temperature) * temperature**4


def without_log(logits, teacher_logits, temperature):
    """Probabilities where kl_div wants their logarithm."""
    student = (logits / temperature).softmax(dim=-1)
    teacher = (teacher_logits / temperature).softmax(dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean") * temperature**2


def over_the_batch(logits, teacher_logits, temperature):
    """The softmax down the wrong axis."""
    student = (logits / temperature).log_softmax(dim=0)
    teacher = (teacher_logits / temperature).log_softmax(dim=0)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def not_softened(logits, teacher_logits, temperature):
    """The temperature nowhere but in the factor."""
    return losses.soft_distillation(logits, teacher_logits, 1.0) * temperature**2


def no_temperature(logits, teacher_logits, temperature):
    """The temperature nowhere."""
    return losses.soft_distillation(logits, teacher_logits, 1.0)


def two_logits(B, classes, temperature):
    """What a student and a teacher say."""
    return lambda g: (2 * normal(g, B, classes), 2 * normal(g, B, classes), temperature)


SOFT_DISTILLATION = Exercise(
    name="soft_distillation",
    lesson="13",
    task="Divide the logits of student and teacher, each (B, classes), by the temperature. Give "
    "KL(teacher || student) of their probabilities, its mean over the batch, times the square of the "
    "temperature: a scalar.",
    minutes=10,
    difficulty=2,
    reference=soft_distillation,
    solution=losses.soft_distillation,
    cases=(
        Case(
            about="temperature 3",
            inputs=two_logits(4, 6, 3.0),
            shape="",
            sizes=dict(B=4, classes=6),
        ),
        Case(
            about="temperature 1",
            inputs=two_logits(3, 5, 1.0),
            shape="",
            sizes=dict(B=3, classes=5),
        ),
    ),
    hints=(
        "For each image: the sum over the classes of t * (log t - log s), where t and s are the "
        "probabilities of teacher and student.",
        "F.log_softmax(logits / temperature, dim=-1) gives the logarithms of the student, and does so "
        "without overflow. The same for the teacher; t is its exponential.",
        "Sum over the classes, then the mean over the batch, then times temperature**2. Or: F.kl_div("
        'student, teacher, reduction="batchmean", log_target=True), which takes the student first.',
    ),
    mistakes=(
        Mistake(
            "the wrong direction",
            from_student_to_teacher,
            "That is KL(student || teacher): the teacher's probabilities are the weights, and F.kl_div "
            "takes the student first",
        ),
        Mistake(
            "not squared",
            not_squared,
            "The factor temperature**2 is missing: without it the gradient shrinks as the temperature "
            "rises",
        ),
        Mistake(
            "multiplied once",
            multiplied_once,
            "You multiplied by the temperature once: both the logits and the gradient are divided by it, "
            "so it takes the square",
        ),
        Mistake(
            "divided by the classes",
            over_classes_too,
            "You averaged over the classes, too: a divergence is their sum, and the mean is over the "
            'batch, reduction="batchmean"',
        ),
        Mistake(
            "summed over the batch",
            summed_over_batch,
            "You added up the images: take their mean",
        ),
        Mistake(
            "softmax twice",
            softmax_twice,
            "You applied the softmax twice: log_softmax takes logits, not probabilities",
        ),
        Mistake(
            "the student not softened",
            sharp_student,
            "Only the teacher is softened: divide the student's logits by the temperature as well",
        ),
        Mistake(
            "the teacher not softened",
            sharp_teacher,
            "Only the student is softened: divide the teacher's logits by the temperature as well",
        ),
        Mistake(
            "cross-entropy",
            cross_entropy,
            "That is the cross-entropy with the teacher: its gradient is the same, but the divergence is "
            "less by the teacher's own entropy, so that it is zero where both agree",
        ),
        Mistake(
            "multiplied by the temperature",
            times_temperature,
            "You multiplied the logits by the temperature: divide them, a high temperature softens",
        ),
        Mistake(
            "no logarithm",
            without_log,
            "You gave F.kl_div probabilities of the student: it wants their logarithms, F.log_softmax",
        ),
        Mistake(
            "softmax over the batch",
            over_the_batch,
            "Your softmax runs over the images: each image has probabilities of its own, dim=-1",
        ),
        Mistake(
            "nothing softened",
            not_softened,
            "Neither is softened: divide the logits of both by the temperature",
        ),
        Mistake(
            "no temperature",
            no_temperature,
            "The temperature is not used: divide both logits by it, and multiply the result by its square",
        ),
    ),
)

# two tokens, two heads ----------------------------------------------------------------------------


class BothClassToken(TwoHeads):
    """Both layers read the first token."""

    def forward(self, x, grid=None):
        return (ClassHead.forward(self, x) + self.dist(x)) / 2


class DistillationLast(TwoHeads):
    """The distillation token sought at the end."""

    def forward(self, x, grid=None):
        return (ClassHead.forward(self, x) + self.dist(x[:, -1:])) / 2


class Exchanged(TwoHeads):
    """Each layer reads the other's token."""

    def forward(self, x, grid=None):
        return (ClassHead.forward(self, x[:, 1:]) + self.dist(x)) / 2


class Summed(TwoHeads):
    """Not divided by two."""

    def forward(self, x, grid=None):
        return sum(self.two_logits(x))


class OneLayer(TwoHeads):
    """The mean of both tokens, read by the first layer."""

    def forward(self, x, grid=None):
        return ClassHead.forward(self, x[:, :2].mean(dim=1, keepdim=True))


class FirstLayerForBoth(TwoHeads):
    """The second layer's weights without use, its bias with."""

    def forward(self, x, grid=None):
        return F.linear(x[:, :2].mean(dim=1), self.dist.weight, self.dist.bias)


class ClassAlone(TwoHeads):
    """As if there were no teacher."""

    def forward(self, x, grid=None):
        return self.two_logits(x)[0]


class DistillationAlone(TwoHeads):
    """The teacher's side."""

    def forward(self, x, grid=None):
        return self.two_logits(x)[1]


class CountedFromOne(TwoHeads):
    """Tokens 1 and 2."""

    def forward(self, x, grid=None):
        return super().forward(x[:, 1:])


class SoftmaxAveraged(TwoHeads):
    """Probabilities, as the paper's text has it."""

    def forward(self, x, grid=None):
        return ProbabilityHeads.forward(self, x).exp()


class LogOfProbabilities(TwoHeads):
    """Their logarithm."""

    def forward(self, x, grid=None):
        return ProbabilityHeads.forward(self, x)


class GivenOneToken(TwoHeads):
    """A token (B, D) given to a head that looks for tokens."""

    def forward(self, x, grid=None):
        return (ClassHead.forward(self, x) + self.dist(x[:, 1])) / 2


class HalfOfSecond(TwoHeads):
    """The brackets forgotten."""

    def forward(self, x, grid=None):
        one, two = self.two_logits(x)
        return one + two / 2


TWO_HEADS = Exercise(
    name="two_heads",
    lesson="13",
    task="A head for a class token and a distillation token, which is second: each is read by a linear "
    "layer of its own, `self` and `self.dist`, and the two logits are averaged: x (B, T, D), grid -> "
    "(B, classes).",
    minutes=6,
    difficulty=2,
    kind="module",
    reference=TwoHeads,
    cases=(
        head_case("a grid of 3 x 4", B=2, R=2, grid=(3, 4), D=10, classes=5),
        head_case("a grid of 5 x 2", B=3, R=2, grid=(5, 2), D=6, classes=7),
    ),
    hints=(
        "x[:, 0] is the class token, x[:, 1] the distillation token, both (B, D). Patches come behind.",
        "super().forward(x) is what ClassHead makes of the class token. self.dist is a ClassHead, too: it "
        "reads the first token of what it is given.",
        "So give it the sequence without its first token, self.dist(x[:, 1:]), and average the two.",
    ),
    mistakes=(
        Mistake(
            "both read the class token",
            BothClassToken,
            "Both layers read the class token: the second one's is x[:, 1]",
        ),
        Mistake(
            "the last token",
            DistillationLast,
            "You took the last token, which is a patch: the distillation token is not at the tail, as some "
            "articles write, but second",
        ),
        Mistake(
            "exchanged",
            Exchanged,
            "Each layer reads the other's token: self.dist is for the distillation token, x[:, 1]",
        ),
        Mistake(
            "summed",
            Summed,
            "You added the logits up: take their average",
        ),
        Mistake(
            "one layer for both",
            OneLayer,
            "You read both tokens with one layer: the distillation token has weights of its own, "
            "self.dist",
        ),
        Mistake(
            "the second layer for both",
            FirstLayerForBoth,
            "You read both tokens with self.dist: the class token's layer is the head itself",
        ),
        Mistake(
            "the class token alone",
            ClassAlone,
            "You use the class token alone: in the end both are asked, and averaged",
        ),
        Mistake(
            "the distillation token alone",
            DistillationAlone,
            "You use the distillation token alone: in the end both are asked, and averaged",
        ),
        Mistake(
            "counted from one",
            CountedFromOne,
            "You read tokens 1 and 2: counting begins at 0, with the class token",
        ),
        Mistake(
            "probabilities averaged",
            SoftmaxAveraged,
            "You averaged probabilities: a head gives logits, and the published models average those",
        ),
        Mistake(
            "logarithm of probabilities",
            LogOfProbabilities,
            "You averaged probabilities, as the paper's text says: the published models average logits, "
            "and so does this exercise",
        ),
        Mistake(
            "a token, not a sequence",
            GivenOneToken,
            "self.dist is a ClassHead and takes tokens (B, T, D): give it x[:, 1:], of which it reads the first",
        ),
        Mistake(
            "half of the second",
            HalfOfSecond,
            "You halved the second logits alone: put the sum in brackets",
        ),
    ),
)

# MixToken -----------------------------------------------------------------------------------------


def inside(x, grid, box):
    """True for each patch in the box: (N, 1)."""
    top, left, bottom, right = box
    chosen = torch.zeros(grid, dtype=torch.bool, device=x.device)
    chosen[top:bottom, left:right] = True
    return chosen.flatten()[:, None]


def with_next(x, grid, box):
    """The neighbour in the batch in place of the partner."""
    return torch.where(inside(x, grid, box), x.roll(1, 0), x)


def outside_swapped(x, grid, box):
    """All but the box."""
    return swap(x, grid, box).flip(0)


def x_before_y(x, grid, box):
    """Left and right taken for top and bottom."""
    top, left, bottom, right = box
    return swap(x, grid, (left, top, right, bottom))


def size_in_box(x, grid, box):
    """The last two numbers taken for height and width."""
    top, left, bottom, right = box
    return swap(x, grid, (top, left, top + bottom, left + right))


def one_too_many(x, grid, box):
    """The end included."""
    top, left, bottom, right = box
    return swap(x, grid, (top, left, bottom + 1, right + 1))


def whole_rows(x, grid, box):
    """Over the full width."""
    return swap(x, grid, (box[0], 0, box[2], grid[1]))


def columns_first(x, grid, box):
    """Places counted by columns."""
    top, left, bottom, right = box
    return swap(x, grid[::-1], (left, top, right, bottom))


def box_cut_out(x, grid, box):
    """Zeros in the box."""
    return torch.where(inside(x, grid, box), 0.0, x)


def one_way(x, grid, box):
    """The first half of the batch has changed when the second half looks."""
    x, chosen = x.clone(), inside(x, grid, box)
    for i in range(len(x)):
        x[i] = torch.where(chosen, x[-1 - i], x[i])
    return x


def averaged(x, grid, box):
    """Half of each."""
    return torch.where(inside(x, grid, box), (x + x.flip(0)) / 2, x)


def order_reversed(x, grid, box):
    """Tokens flipped, not images."""
    return torch.where(inside(x, grid, box), x.flip(1), x)


def everything(x, grid, box):
    """The box not looked at."""
    return x.flip(0)


def from_first_to_last(x, grid, box):
    """All numbers from the first corner of the box to the last."""
    top, left, bottom, right = box
    n = torch.arange(x.shape[1])[:, None]
    return torch.where(
        (n >= top * grid[1] + left) & (n < (bottom - 1) * grid[1] + right), x.flip(0), x
    )


SWAP_TOKENS = Exercise(
    name="swap_tokens",
    lesson="13",
    task="Exchange the patch tokens in a box between image i and image B-1-i: x (B, N, D), grid (h, w), "
    "box (top, left, bottom, right), where bottom and right are the first row and column outside -> "
    "(B, N, D).",
    minutes=10,
    difficulty=2,
    reference=swap,
    cases=(
        Case(
            about="four images",
            inputs=lambda g: (normal(g, 4, 15, 6), (3, 5), (1, 1, 3, 4)),
            shape="B N D",
            sizes=dict(B=4, N=15, D=6, h=3, w=5),
        ),
        Case(
            about="five images, of which the middle one is its own partner",
            inputs=lambda g: (normal(g, 5, 24, 7), (6, 4), (0, 1, 4, 3)),
            shape="B N D",
            sizes=dict(B=5, N=24, D=7, h=6, w=4),
        ),
    ),
    hints=(
        "Which patches lie in the box? Make a map of the grid, False everywhere, and set rows top to "
        "bottom and columns left to right to True.",
        "x.flip(0) is the batch in reverse order: at place i it has image B-1-i.",
        "torch.where(inside, other, x) takes from other where inside is true. Flattened to (N, 1), the map "
        "fits (B, N, D).",
    ),
    mistakes=(
        Mistake(
            "the neighbour",
            with_next,
            "You took the neighbour in the batch: the partner of image i is image B-1-i, x.flip(0)",
        ),
        Mistake(
            "the outside swapped",
            outside_swapped,
            "You exchanged what lies outside the box: what lies inside goes to the partner",
        ),
        Mistake(
            "x before y",
            x_before_y,
            "Your box is turned: it says top, left, bottom, right, so rows come first",
        ),
        Mistake(
            "taken for a size",
            size_in_box,
            "You took the last two numbers for height and width: they are where the box ends",
        ),
        Mistake(
            "one row too many",
            one_too_many,
            "Your box has one row and one column too many: bottom and right are the first outside, as in "
            "a slice",
        ),
        Mistake(
            "whole rows",
            whole_rows,
            "You exchanged whole rows: the box has a left and a right end, too",
        ),
        Mistake(
            "columns first",
            columns_first,
            "Your places are counted column by column: in the sequence they go row by row",
        ),
        Mistake(
            "cut out",
            box_cut_out,
            "You put zeros in the box: what belongs there is the partner's",
        ),
        Mistake(
            "one way",
            one_way,
            "Half of the images got their own tokens back: their partners had been overwritten before "
            "they were read, so read from the old tokens",
        ),
        Mistake(
            "averaged",
            averaged,
            "You averaged the two: that is another method, mixup; here each token is from one image",
        ),
        Mistake(
            "tokens in reverse order",
            order_reversed,
            "You reversed the tokens of each image: flip axis 0, the batch",
        ),
        Mistake(
            "everything",
            everything,
            "You exchanged whole images: only the tokens in the box go to the partner",
        ),
        Mistake(
            "from corner to corner",
            from_first_to_last,
            "You exchanged all tokens between two corners of the box, in the order of the sequence: in each row, only those from left to right",
        ),
    ),
)

EXERCISES = (MEAN_HEAD, SOFT_DISTILLATION, TWO_HEADS, SWAP_TOKENS)

QUESTIONS = {
    "slots of the ViT that a distilled DeiT replaces": (
        1,
        "The head alone: it says that it reads two prefix tokens, and the ViT makes as many.",
        {
            0: "The second token needs a layer that reads it: which slot is that?",
            2: "The second token is a row of `prefix`, which every ViT has: no slot is needed for it.",
            3: "One row more of `prefix`, one more of the position table: but are those other classes?",
        },
    ),
    "tokens that enter the first block of a distilled DeiT-B/16 at 224 x 224": (
        198,
        "196 patches, the class token and the distillation token.",
        {
            196: "Those are the patches: what stands before them?",
            197: "That is the ViT's sequence: the distillation token comes on top.",
            199: "One too many: the patches are 14 x 14.",
        },
    ),
    "percent of the label that an image gets from its partner if 2 x 3 of 4 x 6 patches are swapped": (
        25,
        "6 patches of 24.",
        {
            75: "That is what it keeps of its own.",
            50: "Each side of the box is half of the grid's, its area is a half of a half.",
            6: "That is the number of patches: which part of all of them is it?",
        },
    ),
}
