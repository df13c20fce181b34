"""DeiT: model and loss beside timm, and what labels and teacher may reach."""

from types import SimpleNamespace

import timm
import torch
import torch.nn.functional as F
from timm.task import TokenDistillationTask
from torch import nn

from tests.proofs import equal, images, randomise, same_as
from vitcourse import losses, weights
from vitcourse.config import Config
from vitcourse.papers import deit
from vitcourse.papers.deit import DistilledDeiT, ProbabilityHeads, TwoHeads, distillation
from vitcourse.vit import ClassHead, ViT

SIZES = Config(dim=40, depth=3, heads=5, patch=6, image=(18, 30), classes=7, mlp_ratio=2)
THEIR_SIZES = dict(img_size=(18, 30), patch_size=6, embed_dim=40, depth=3, num_heads=5)
THEIR_SIZES |= dict(mlp_ratio=2, num_classes=7)
MODELS = {
    "distilled": lambda: (DistilledDeiT(SIZES), torch.randn(2, 3, 18, 30)),
    "averaged probabilities": lambda: (
        DistilledDeiT.variant(Head=ProbabilityHeads)(SIZES),
        torch.randn(2, 3, 18, 30),
    ),
}
OTHER_SIZES = {"distilled": (24, 12)}
COUNTS = {
    "deit_ti": 5_717_416,
    "deit_s": 22_050_664,
    "deit_b": 86_567_656,
    "deit_ti_distilled": 5_910_800,
    "deit_s_distilled": 22_436_432,
    "deit_b_distilled": 87_338_192,
}
MISREPORTED = {"deit_ti": "the authors cut 5.7 million to 5M"}


def timm_distilled():
    """timm's DeiT-Ti with distillation token, in our sizes."""
    return timm.create_model("deit_tiny_distilled_patch16_224", **THEIR_SIZES)


class Teacher(nn.Module):
    """A small CNN with what differs between training and evaluation."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(), nn.Conv2d(6, 7, 3)
        )

    def forward(self, images):
        return self.layers(images).mean((2, 3))


def batch():
    """A batch as `fit` makes it, with soft targets."""
    targets = images(4, 7, seed=1).softmax(dim=-1)
    return SimpleNamespace(images=images(4, 3, 18, 30), targets=targets)


def pair():
    """A model and a teacher with random weights."""
    return randomise(DistilledDeiT(SIZES)).double(), randomise(Teacher(), seed=2).double()


def same_as_timm():
    oracle, ours = timm_distilled(), DistilledDeiT(SIZES)
    stages = (*ours.blocks, ours.norm, ours.head.dist)
    same_as(
        oracle,
        ours,
        images(2, 3, 18, 30),
        (stages, (*oracle.blocks, oracle.norm, oracle.head_dist)),
    )


def same_two_logits_as_timm():
    """In training, timm returns a pair: class token first."""
    oracle, ours = randomise(timm_distilled()).double(), DistilledDeiT(SIZES).double()
    weights.load(ours, oracle.state_dict())
    oracle.set_distilled_training(True)
    x = images(2, 3, 18, 30)
    for mine, theirs in zip(ours.train().two_logits(x), oracle.train()(x), strict=True):
        equal(mine, theirs)


def without_distillation_it_is_the_vit():
    """DeiT-Ti, -S and -B have nothing of their own: timm's DeiT is our ViT."""
    oracle = timm.create_model("deit_tiny_patch16_224", **THEIR_SIZES)
    same_as(oracle, deit.PAPER.configs["deit_ti"].model(SIZES), images(2, 3, 18, 30))


def same_loss_as_timm():
    """Soft and hard, with their gradients for every parameter."""
    for hard in (True, False):
        oracle, (ours, teacher) = randomise(timm_distilled()).double(), pair()
        weights.load(ours, oracle.state_dict())
        given = batch()
        task = TokenDistillationTask(
            oracle.train(),
            teacher,
            criterion=nn.CrossEntropyLoss(),
            distill_type="hard" if hard else "soft",
            task_loss_weight=0.7,
            temperature=3.0,
            dtype=torch.float64,
            verbose=False,
        )
        theirs = task(given.images, given.targets)["loss"]
        mine = distillation(teacher, hard, weight=0.3, temperature=3.0)(ours.train(), given)
        equal(mine, theirs)
        theirs.backward(), mine.backward()
        gradients = {name: p.grad for name, p in oracle.named_parameters()}
        gradients = weights.recognise(gradients, ours)[1](gradients, ours)
        for name, parameter in ours.named_parameters():
            equal(parameter.grad, gradients[name], name)


def labels_and_teacher_reach_one_head_each():
    """The class head never hears the teacher, the other head never a label."""
    for weight, deaf in ((1.0, "head."), (0.0, "head.dist.")):
        model, teacher = pair()
        distillation(teacher, weight=weight)(model, batch()).backward()
        for name in ("weight", "bias"):
            for head, parameter in (
                ("head.", getattr(model.head, name)),
                ("head.dist.", getattr(model.head.dist, name)),
            ):
                assert bool((parameter.grad == 0).all()) == (head == deaf), head + name


def the_two_tokens_can_change_places():
    """Exchange their vectors, their positions and their heads: the two logits are exchanged."""
    model, _ = pair()
    x = images(2, 3, 18, 30)
    by_class, by_dist = model.two_logits(x)
    assert (by_class - by_dist).abs().max() > 1e-3
    state = model.state_dict()
    swapped = dict(state, prefix=state["prefix"].flip(1))
    table = state["position.table"]
    swapped["position.table"] = torch.cat([table[:, :2].flip(1), table[:, 2:]], dim=1)
    for name in ("weight", "bias"):
        swapped[f"head.{name}"] = state[f"head.dist.{name}"]
        swapped[f"head.dist.{name}"] = state[f"head.{name}"]
    other = DistilledDeiT(SIZES).double().eval()
    other.load_state_dict(swapped)
    for got, wanted in zip(other.two_logits(x), (by_dist, by_class), strict=True):
        equal(got, wanted)
    equal(other(x), model(x))


def the_teacher_stays_as_it_is():
    """It may come in training mode: no dropout, no new statistics, no gradient."""
    model, teacher = pair()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    step = distillation(teacher.train())
    one, two = step(model, batch()), step(model, batch())
    (one + two).backward()
    equal(one, two)
    assert all(torch.equal(t, before[name]) for name, t in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def a_model_with_one_output_learns_both():
    """A plain ViT: its only logits meet labels and teacher."""
    model, (_, teacher) = randomise(ViT(SIZES)).double(), pair()
    given = batch()
    logits, labels = model(given.images), teacher(given.images).argmax(dim=1)
    both = F.cross_entropy(logits, given.targets) + F.cross_entropy(logits, labels)
    equal(distillation(teacher)(model, given), both / 2)


def soft_is_the_divergence_from_the_teacher():
    """sum p_t (log p_t - log p_s), by hand, and not the other way round; zero for one's own."""
    student, teacher = images(4, 7), images(4, 7, seed=1)
    p_t, p_s = (teacher / 3).softmax(dim=-1), (student / 3).softmax(dim=-1)
    wanted = 9 * (p_t * (p_t.log() - p_s.log())).sum(dim=-1).mean()
    equal(losses.soft_distillation(student, teacher, 3.0), wanted)
    assert losses.soft_distillation(student, student, 3.0).abs() < 1e-12


def a_certain_teacher_is_a_hard_one():
    student, teacher = images(4, 7), images(4, 7, seed=1)
    soft = losses.soft_distillation(student, 1e5 * teacher, 1.0)
    equal(soft, losses.hard_distillation(student, teacher))


def probabilities_can_be_averaged():
    """With ProbabilityHeads, softmax(logits) is the mean of both heads' softmax."""
    model = randomise(DistilledDeiT.variant(Head=ProbabilityHeads)(SIZES)).double()
    x = images(2, 3, 18, 30)
    both = sum(logits.softmax(dim=-1) for logits in model.two_logits(x)) / 2
    equal(model(x).exp(), both)


PROOFS = [
    same_as_timm,
    same_two_logits_as_timm,
    without_distillation_it_is_the_vit,
    same_loss_as_timm,
    labels_and_teacher_reach_one_head_each,
    the_two_tokens_can_change_places,
    the_teacher_stays_as_it_is,
    a_model_with_one_output_learns_both,
    soft_is_the_divergence_from_the_teacher,
    a_certain_teacher_is_a_hard_one,
    probabilities_can_be_averaged,
]


def both_read_the_class_token(self, x):
    return ClassHead.forward(self, x), self.dist(x)


def exchanged(self, x):
    return self.dist(x[:, 1:]), ClassHead.forward(self, x)


def sum_of_logits(self, x, grid=None):
    return sum(self.two_logits(x))


def reversed_divergence(logits, teacher_logits, temperature=1.0):
    return SOFT(teacher_logits, logits, temperature)


def divided_by_classes(logits, teacher_logits, temperature=1.0):
    return SOFT(logits, teacher_logits, temperature) / logits.shape[1]


def averaged_logits_for_all(self, images):
    logits = self(images)
    return logits, logits


def only_the_first_moves(self, x, grid):
    return x + self.table * (torch.arange(x.shape[1]) != 1)[:, None]


SOFT = losses.soft_distillation
PLANTED = {
    "both heads read the class token": (
        (TwoHeads, "two_logits", both_read_the_class_token),
        same_as_timm,
    ),
    "the heads are exchanged": ((TwoHeads, "two_logits", exchanged), same_two_logits_as_timm),
    "logits are added, not averaged": ((TwoHeads, "forward", sum_of_logits), same_as_timm),
    "the mean of all tokens": (
        (ClassHead, "forward", lambda self, x, g=None: F.linear(x.mean(1), self.weight, self.bias)),
        without_distillation_it_is_the_vit,
    ),
    "soft distillation is divided by the classes": (
        (deit, "soft_distillation", divided_by_classes),
        same_loss_as_timm,
    ),
    "both heads learn both": (
        (DistilledDeiT, "two_logits", averaged_logits_for_all),
        labels_and_teacher_reach_one_head_each,
    ),
    "the second token has no position": (
        (ViT.Position, "forward", only_the_first_moves),
        the_two_tokens_can_change_places,
    ),
    "the teacher is in training mode": (
        (nn.Module, "eval", lambda self: self.train()),
        the_teacher_stays_as_it_is,
    ),
    "the teacher's least likely class": (
        (deit, "hard_distillation", lambda s, t: losses.hard_distillation(s, -t)),
        a_model_with_one_output_learns_both,
    ),
    "KL the other way round": (
        (losses, "soft_distillation", reversed_divergence),
        soft_is_the_divergence_from_the_teacher,
    ),
    "hard: the student's own class": (
        (losses, "hard_distillation", lambda s, t: F.cross_entropy(s, s.argmax(dim=-1))),
        a_certain_teacher_is_a_hard_one,
    ),
    "logits are averaged after all": (
        (ProbabilityHeads, "forward", TwoHeads.forward),
        probabilities_can_be_averaged,
    ),
}
