"""Right answers to the exercises of lesson 13, and the truth about its questions."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from vitcourse import papers, vit
from vitcourse.config import Config
from vitcourse.papers.deit import DistilledDeiT
from vitcourse.papers.lv_vit import mix_labels
from vitcourse.parts import split

# mean_head ----------------------------------------------------------------------------------------


class MeanBySplit(vit.ClassHead):
    prefix_len = 0

    def forward(self, x, grid):
        _, map = split(x, grid)
        return nn.Linear.forward(self, map.mean(dim=(2, 3)))


class MeanOfLogits(nn.Module):
    """Linear maps and averages commute."""

    prefix_len = 0

    def __init__(self, cfg):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(cfg.classes, cfg.dim))
        self.bias = nn.Parameter(torch.zeros(cfg.classes))

    def forward(self, x, grid):
        h, w = grid
        patches = x[:, x.shape[1] - h * w :]
        return torch.einsum("bnd,cd->bc", patches, self.weight) / (h * w) + self.bias


# soft_distillation --------------------------------------------------------------------------------


def by_definition(logits, teacher_logits, temperature):
    t = (teacher_logits / temperature).softmax(dim=-1)
    s = (logits / temperature).softmax(dim=-1)
    return (t * (t / s).log()).sum(dim=-1).mean() * temperature**2


def by_entropies(logits, teacher_logits, temperature):
    """With a teacher that gets no gradient."""
    t = (teacher_logits.detach() / temperature).softmax(dim=-1)
    both = F.cross_entropy(logits / temperature, t)
    own = -torch.special.xlogy(t, t).sum(dim=-1).mean()
    return temperature**2 * (both - own)


def by_distributions(logits, teacher_logits, temperature):
    from torch.distributions import Categorical, kl_divergence

    student, teacher = (Categorical(logits=z / temperature) for z in (logits, teacher_logits))
    return kl_divergence(teacher, student).mean() * temperature**2


# two_heads ----------------------------------------------------------------------------------------


class TwoByPlaces(vit.ClassHead):
    prefix_len = 2

    def __init__(self, cfg):
        super().__init__(cfg)
        self.dist = nn.Linear(cfg.dim, cfg.classes)

    def forward(self, x, grid=None):
        return 0.5 * nn.Linear.forward(self, x[:, 0]) + 0.5 * self.dist(x[:, 1])


class TwoByEinsum(vit.ClassHead):
    prefix_len = 2

    def __init__(self, cfg):
        super().__init__(cfg)
        self.dist = nn.Linear(cfg.dim, cfg.classes)

    def forward(self, x, grid=None):
        weight = torch.stack([self.weight, self.dist.weight])
        bias = (self.bias + self.dist.bias) / 2
        return torch.einsum("brd,rcd->bc", x[:, :2], weight) / 2 + bias


# swap_tokens --------------------------------------------------------------------------------------


def swap_on_the_map(x, grid, box):
    top, left, bottom, right = box
    map = rearrange(x, "B (h w) D -> B h w D", h=grid[0]).clone()
    part = map[:, top:bottom, left:right].clone()
    map[:, top:bottom, left:right] = part.flip(0)
    return rearrange(map, "B h w D -> B (h w) D")


def swap_by_loop(x, grid, box):
    top, left, bottom, right = box
    images = []
    for i in range(len(x)):
        tokens = []
        for place in range(grid[0] * grid[1]):
            row, column = divmod(place, grid[1])
            chosen = top <= row < bottom and left <= column < right
            tokens.append(x[len(x) - 1 - i if chosen else i, place])
        images.append(torch.stack(tokens))
    return torch.stack(images)


RIGHT = {
    "mean_head": [MeanBySplit, MeanOfLogits],
    "soft_distillation": [by_definition, by_entropies, by_distributions],
    "two_heads": [TwoByPlaces, TwoByEinsum],
    "swap_tokens": [swap_on_the_map, swap_by_loop],
}

SOURCES = {
    "mean_head": """
class answer(vit.ClassHead):
    prefix_len = 0

    def forward(self, x, grid):
        first = x.shape[1] - grid[0] * grid[1]
        patches = x[:, first:]
        mean = patches.mean(dim=1)
        return F.linear(mean, self.weight, self.bias)
""",
    "soft_distillation": """
def answer(logits, teacher_logits, temperature):
    student = F.log_softmax(logits / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=-1)
    each = teacher.exp() * (teacher - student)
    return each.sum(dim=-1).mean() * temperature**2
""",
    "two_heads": """
class answer(vit.ClassHead):
    prefix_len = 2

    def __init__(self, cfg):
        super().__init__(cfg)
        self.dist = vit.ClassHead(cfg)

    def forward(self, x, grid):
        one = F.linear(x[:, 0], self.weight, self.bias)
        two = F.linear(x[:, 1], self.dist.weight, self.dist.bias)
        return (one + two) / 2
""",
    "swap_tokens": """
def answer(x, grid, box):
    top, left, bottom, right = box
    inside = torch.zeros(grid, dtype=torch.bool, device=x.device)
    inside[top:bottom, left:right] = True
    inside = inside.flatten()
    inside = inside.unsqueeze(1)
    return torch.where(inside, x.flip(0), x)
""",
}

EQUIVALENT = {}


def tokens_of_deit():
    """The length of a distilled DeiT's sequence, from its position table."""
    with torch.device("meta"):
        return papers.build("deit_b_distilled").position.table.shape[1]


def share():
    """What mix_labels takes from the partner."""
    mixed = mix_labels(torch.eye(2), (4, 6), (1, 2, 3, 5))
    return round(100 * mixed[0, 1].item())


def truth():
    assert Config.of("B/16").grid == (14, 14)
    return {
        "slots of the ViT": len(papers.delta(DistilledDeiT)),
        "tokens that enter": tokens_of_deit(),
        "percent of the label": share(),
    }
