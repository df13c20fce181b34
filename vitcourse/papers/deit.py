"""DeiT, faithful to the published models: a ViT learns from labels and from a teacher.

Training data-efficient image transformers & distillation through attention, Touvron et al. 2020,
https://arxiv.org/abs/2012.12877

The question: can a ViT be trained on ImageNet alone, without hundreds of millions of images? DeiT
is the ViT with strong augmentation. The change in the distilled models: a second prefix token, the
distillation token, with a head of its own that learns what a teacher says.

The paper's text adds up the softmax outputs of both heads; the published models average logits,
which is the default here. `ProbabilityHeads` does as the text says.
"""

import math

import torch
import torch.nn.functional as F

from vitcourse.config import Config
from vitcourse.losses import hard_distillation, soft_distillation
from vitcourse.papers import Paper, Published
from vitcourse.vit import ClassHead, ViT
from vitcourse.weights import from_timm, rename


class TwoHeads(ClassHead):
    """Read the class token and, with weights of its own, the distillation token behind it."""

    prefix_len = 2

    def __init__(self, cfg):
        super().__init__(cfg)
        self.dist = ClassHead(cfg)

    def two_logits(self, x):
        """What each token says: x (B, T, D) -> two of (B, classes)."""
        return super().forward(x), self.dist(x[:, 1:])

    def forward(self, x, grid=None):
        by_class, by_dist = self.two_logits(x)
        return (by_class + by_dist) / 2  # (B, classes)


class ProbabilityHeads(TwoHeads):
    """Two heads whose probabilities are averaged, not their logits: the logarithm of the mean."""

    def forward(self, x, grid=None):
        by_class, by_dist = (F.log_softmax(logits, dim=-1) for logits in self.two_logits(x))
        return torch.logaddexp(by_class, by_dist) - math.log(2)  # (B, classes)


def from_distilled(state, model):
    """timm and the authors' files: the second head stands beside the first."""
    return rename([(r"^head_dist\.", "head.dist.")])(from_timm(state, model), model)


class DistilledDeiT(ViT):
    """A ViT with a distillation token."""

    Head = TwoHeads
    layouts = {"deit": ("head_dist.weight", from_distilled)}

    def two_logits(self, images):
        """What the class token says and what the distillation token says: two of (B, classes)."""
        x, _ = self.encode(images)
        return self.head.two_logits(x)


def distillation(teacher, hard=True, weight=0.5, temperature=1.0):
    """A step for `fit(model, data, recipe, step=distillation(teacher))`.

    The teacher is any module images -> logits; it sees the same augmented images, in evaluation
    mode, and is not trained. (1 - weight) of the loss is about the labels, `weight` about the
    teacher, whose class counts if `hard`, else its probabilities at `temperature`. A distilled
    model learns the first with its class token, the second with its distillation token; any other
    model learns both with its only output. Soft distillation in the paper takes weight=0.1 and
    temperature=3; the defaults are those of the authors' code.
    """

    def step(model, batch):
        with torch.no_grad():
            teacher_logits = teacher.eval()(batch.images)
        if hasattr(model, "two_logits"):
            by_class, by_dist = model.two_logits(batch.images)
        else:
            by_class = by_dist = model(batch.images)
        labelled = F.cross_entropy(by_class, batch.targets)
        if hard:
            taught = hard_distillation(by_dist, teacher_logits)
        else:
            taught = soft_distillation(by_dist, teacher_logits, temperature)
        return (1 - weight) * labelled + weight * taught

    return step


PAPER = Paper(
    name="DeiT",
    title="Training data-efficient image transformers & distillation through attention",
    authors="Touvron et al.",
    year=2020,
    arxiv="2012.12877",
    lesson="13",
    models=(DistilledDeiT,),
    configs={
        "deit_ti": Published(ViT, Config.of("Ti/16"), "5M"),
        "deit_s": Published(ViT, Config.of("S/16"), "22M"),
        "deit_b": Published(ViT, Config.of("B/16"), "86M"),
        "deit_ti_distilled": Published(DistilledDeiT, Config.of("Ti/16"), "6M"),
        "deit_s_distilled": Published(DistilledDeiT, Config.of("S/16"), "22M"),
        "deit_b_distilled": Published(DistilledDeiT, Config.of("B/16"), "87M"),
    },
)
