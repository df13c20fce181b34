"""The exercises of lessons 00 to 03: stubs, right answers, mistakes, strange answers, mutants.

A mutant is a right answer with one small thing changed: a sign, a number, the order of two
arguments, a statement or a call left out. The check must refuse it, or it must be equivalent, which
the table EQUIVALENT states, and a test tries.
"""

import ast
import copy
import inspect
import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as TF
from einops import einsum, rearrange, reduce, repeat
from torch import nn
from vit_pytorch.simple_vit import posemb_sincos_2d

from vitcourse import make_vit, parts, vit
from vitcourse.check.lessons import lesson00, lesson01, lesson02, lesson03
from vitcourse.check.runner import judge, size_of

MODULES = (lesson00, lesson01, lesson02, lesson03)
EXERCISES = {e.name: e for module in MODULES for e in module.EXERCISES}
QUESTIONS = {key: value for module in MODULES for key, value in module.QUESTIONS.items()}
NUMBERS = [name for name, e in EXERCISES.items() if e.kind == "number"]
CODE = [name for name, e in EXERCISES.items() if e.kind != "number"]
CLASSES = [name for name in CODE if EXERCISES[name].kind == "module"]
MISTAKES = [(name, m.name) for name, e in EXERCISES.items() for m in e.mistakes]
IDS = ["-".join(pair).replace(" ", "_") for pair in MISTAKES]

# What a learner finds in the notebook -------------------------------------------------------------

STUBS = {
    "first_count": "first_count = ...",
    "patchify": '''
def patchify(images, patch):
    """Images (B, C, H, W) -> patches (B, N, P*P*C)."""
    ...
''',
    "unpatchify": "def unpatchify(patches, grid, patch):\n    ...",
    "patch_values": "patch_values = ...",
    "patch_embedding": """
class PatchEmbedding(nn.Module):
    def __init__(self, channels, dim, patch):
        super().__init__()
        ...

    def forward(self, images):
        ...
""",
    "linear_weight": "def linear_weight(weight):\n    ...",
    "class_token": '''
class ClassToken(nn.Module):
    """Put a learned token before the patches."""

    def __init__(self, dim):
        super().__init__()
        self.prefix = ...

    def forward(self, x):
        """(B, N, D) -> (B, N+1, D)"""
''',
    "token_count": "token_count = ...",
    "read_class_token": "def read_class_token(x):\n    ...",
    "mean_patches": "def mean_patches(x):\n    ...",
    "mend": "def embed(patches, prefix, table):\n    ...",
    "add_position": """
class Position(nn.Module):
    def __init__(self, dim, tokens):
        super().__init__()
        self.table = ...

    def forward(self, x):
        ...
""",
    "position_2d": "def position_2d(columns, rows):\n    ...",
    "sincos": "def sincos(dim, h, w):\n    ...",
    "resize_positions": "def resize_positions(table, old, new):\n    ...",
    "relative_offset": "def relative_offset(h, w):\n    ...",
}

# What a learner may write, in plain torch: from these the mutants are made ------------------------

SOLUTIONS = {
    "patchify": """
def patchify(images, patch):
    B, C, H, W = images.shape
    x = images.reshape(B, C, H // patch, patch, W // patch, patch)
    x = x.permute(0, 2, 4, 3, 5, 1)
    return x.reshape(B, -1, patch * patch * C)
""",
    "unpatchify": """
def unpatchify(patches, grid, patch):
    h, w = grid
    B, N, length = patches.shape
    C = length // patch ** 2
    x = patches.reshape(B, h, w, patch, patch, C)
    x = x.permute(0, 5, 1, 3, 2, 4)
    return x.reshape(B, C, h * patch, w * patch)
""",
    "patch_embedding": """
class PatchEmbedding(nn.Module):
    def __init__(self, channels, dim, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, stride=patch)

    def forward(self, images):
        x = self.proj(images)
        x = x.flatten(2)
        return x.transpose(1, 2)
""",
    "linear_weight": """
def linear_weight(weight):
    x = weight.permute(0, 2, 3, 1)
    return x.flatten(1)
""",
    "class_token": """
class ClassToken(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.prefix = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x):
        B, N, D = x.shape
        prefix = self.prefix.expand(B, 1, D)
        return torch.cat([prefix, x], dim=1)
""",
    "read_class_token": """
def read_class_token(x):
    return x[:, 0]
""",
    "mean_patches": """
def mean_patches(x):
    patches = x[:, 1:]
    return patches.sum(dim=1) / (x.shape[1] - 1)
""",
    "mend": """
def embed(patches, prefix, table):
    B, N, D = patches.shape
    prefix = prefix.expand(B, 1, D)
    x = torch.cat([prefix, patches], dim=1)
    return x + table
""",
    "add_position": """
class Position(nn.Module):
    def __init__(self, dim, tokens):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, tokens, dim))

    def forward(self, x):
        return x + self.table
""",
    "position_2d": """
def position_2d(columns, rows):
    h, w = len(rows), len(columns)
    x = columns.repeat(h, 1)
    y = rows.repeat_interleave(w, 0)
    return torch.cat([x, y], dim=1)
""",
    "sincos": """
def sincos(dim, h, w):
    x = torch.arange(w).repeat(h)
    y = torch.arange(h).repeat_interleave(w)
    steps = dim // 4
    frequency = 1 / 10000 ** (torch.arange(steps) / (steps - 1))
    x = x[:, None] * frequency
    y = y[:, None] * frequency
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)
""",
    "resize_positions": """
def resize_positions(table, old, new):
    prefix = table[:, :1]
    places = table[:, 1:]
    h, w = old
    places = places.reshape(1, h, w, -1)
    places = places.permute(0, 3, 1, 2)
    places = F.interpolate(places, size=new, mode="bicubic", antialias=True)
    places = places.flatten(2).transpose(1, 2)
    return torch.cat([prefix, places], dim=1)
""",
    "relative_offset": """
def relative_offset(h, w):
    y = torch.arange(h).repeat_interleave(w)
    x = torch.arange(w).repeat(h)
    dy = y[:, None] - y[None, :]
    dx = x[:, None] - x[None, :]
    return torch.stack([dy, dx], dim=2)
""",
}

NAMES = dict(torch=torch, nn=nn, F=F, rearrange=rearrange)  # what a lesson imports


def made(source):
    """What a piece of code defines last."""
    space = dict(NAMES)
    exec(source, space)
    return list(space.values())[-1]


# Right answers that are built differently ---------------------------------------------------------


def patchify_by_loops(images, patch):
    B, C, H, W = images.shape
    tiles = [
        images[:, :, y : y + patch, x : x + patch].movedim(1, -1).reshape(B, -1)
        for y in range(0, H, patch)
        for x in range(0, W, patch)
    ]
    return torch.stack(tiles, 1)


def patchify_by_unfold(bilder, kante):
    columns = F.unfold(bilder, kante, stride=kante)  # (B, C*P*P, N)
    return columns.unflatten(1, (bilder.shape[1], -1)).permute(0, 3, 2, 1).flatten(2)


def unpatchify_by_fold(patches, grid, patch):
    size = grid[0] * patch, grid[1] * patch
    columns = patches.unflatten(2, (patch * patch, -1)).permute(0, 3, 2, 1).flatten(1, 2)
    return F.fold(columns, size, patch, stride=patch)


def unpatchify_by_loops(patches, grid, patch):
    tiles = [tile.unflatten(1, (patch, patch, -1)).movedim(-1, 1) for tile in patches.unbind(1)]
    rows = [torch.cat(tiles[y * grid[1] : (y + 1) * grid[1]], dim=3) for y in range(grid[0])]
    return torch.cat(rows, dim=2)


class EmbedByLinear(nn.Module):
    """patchify and a Linear, whose weight is that of the convolution."""

    def __init__(self, channels, dim, patch):
        super().__init__()
        self.patch, self.proj = patch, nn.Conv2d(channels, dim, patch)

    def forward(self, images):
        weight = rearrange(self.proj.weight, "D C p q -> D (p q C)")
        return F.linear(vit.patchify(images, self.patch), weight, self.proj.bias)


class EmbedByEinsum(nn.Module):
    def __init__(self, kanaele, breite, kante):
        super().__init__()
        self.proj = nn.Conv2d(kanaele, breite, (kante, kante), (kante, kante))

    def forward(self, bilder):
        p = self.proj.kernel_size[0]
        x = rearrange(bilder, "B C (h p) (w q) -> B h w C p q", p=p, q=p)
        x = einsum(x, self.proj.weight, "B h w C p q, D C p q -> B h w D")
        return x.flatten(1, 2) + self.proj.bias


def linear_weight_by_einops(weight):
    return rearrange(weight, "D C p q -> D (p q C)")


def linear_weight_by_patchify(weight):
    # a filter is an image of one patch
    return lesson01.patchify(weight, weight.shape[-1])[:, 0]


class TokenByRepeat(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.prefix = nn.Parameter(torch.randn(1, 1, dim))

    def forward(self, x):
        return torch.hstack([repeat(self.prefix, "1 1 D -> B 1 D", B=x.shape[0]), x])


class TokenByPadding(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.prefix = nn.Parameter(torch.ones(1, 1, width))

    def forward(self, tokens):
        first = F.one_hot(torch.tensor(0), tokens.shape[1] + 1)[:, None]  # (N+1, 1)
        return F.pad(tokens, (0, 0, 1, 0)) + first * self.prefix


def read_by_index(tokens):
    return torch.index_select(tokens, 1, torch.tensor([0])).squeeze(1)


def read_by_einsum(x):
    return einsum(x, torch.eye(x.shape[1])[0], "B T D, T -> B D")


def mean_by_loop(x):
    total = torch.zeros_like(x[:, 0])
    for token in x.unbind(1)[1:]:
        total = total + token
    return total / (x.shape[1] - 1)


def mean_by_reduce(x):
    return reduce(x[:, 1:], "B N D -> B D", "mean")


def embed_in_parts(patches, prefix, table):
    class_token = (prefix + table[:, :1]).repeat(len(patches), 1, 1)
    return torch.cat([class_token, patches + table[:, 1:]], dim=1)


def embed_by_loops(patches, prefix, table):
    images = [torch.cat([prefix[0], image]) + table[0] for image in patches]
    return torch.stack(images)


class PositionByLoop(nn.Module):
    def __init__(self, dim, tokens):
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, tokens, dim))

    def forward(self, x):
        return torch.stack([x[:, i] + self.table[0, i] for i in range(x.shape[1])], dim=1)


class PositionByEmbedding(nn.Module):
    def __init__(self, breite, anzahl):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, anzahl, breite))

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1]).expand(len(tokens), -1)
        return tokens.add(F.embedding(places, self.table[0]))


def position_2d_by_loops(columns, rows):
    return torch.stack([torch.cat([x, y]) for y in rows for x in columns])


def position_2d_by_grid(columns, rows):
    h, w = rows.shape[0], columns.shape[0]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.hstack([columns[x.flatten()], rows[y.flatten()]])


def sincos_by_numpy(dim, h, w):
    frequency = 10000.0 ** -np.linspace(0, 1, dim // 4)
    table = []
    for y in range(h):
        for x in range(w):
            table.append([f(v * q) for v in (x, y) for f in (np.sin, np.cos) for q in frequency])
    return torch.tensor(table, dtype=torch.float32)


def sincos_by_exp(dim, h, w):
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    frequency = torch.exp(torch.linspace(0, -np.log(10000), dim // 4))
    angles = torch.stack([x.flatten(), y.flatten()], 1)[:, :, None, None] * frequency
    return torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)


def sincos_of_vit_pytorch(dim, h, w):
    return posemb_sincos_2d(h, w, dim)


def resize_by_torchvision(table, old, new):
    places = rearrange(table[:, 1:], "1 (h w) D -> D h w", h=old[0])
    places = TF.resize(places, list(new), TF.InterpolationMode.BICUBIC, antialias=True)
    return torch.cat([table[:, :1], rearrange(places, "D h w -> 1 (h w) D")], dim=1)


# sums over all old places, with the cubic weights written out
def resize_by_sums(table, old, new):
    y, x = cubic_weights(old[0], new[0]), cubic_weights(old[1], new[1])
    places = table[:, 1:].unflatten(1, old)
    places = torch.einsum("ph,qw,bhwd->bpqd", y, x, places).flatten(1, 2)
    return torch.cat([table[:, :1], places], dim=1)


def cubic_weights(old, new):
    scale = old / new
    width = max(scale, 1)  # antialiasing: the wave becomes wider when the picture shrinks
    centre = (torch.arange(new) + 0.5) * scale
    t = ((torch.arange(old) + 0.5 - centre[:, None]) / width).abs()
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = torch.where(t < 1, near, torch.where(t < 2, far, 0))
    return weights / weights.sum(dim=1, keepdim=True)


def offset_by_loops(h, w):
    places = [(y, x) for y in range(h) for x in range(w)]
    return torch.tensor([[(a - c, b - d) for c, d in places] for a, b in places])


def offset_by_grid(h, w):
    place = torch.cartesian_prod(torch.arange(h), torch.arange(w))
    return rearrange(place, "n c -> n 1 c") - place


OTHERS = {
    "patchify": (patchify_by_loops, patchify_by_unfold),
    "unpatchify": (unpatchify_by_fold, unpatchify_by_loops),
    "patch_embedding": (EmbedByLinear, EmbedByEinsum),
    "linear_weight": (linear_weight_by_einops, linear_weight_by_patchify),
    "class_token": (TokenByRepeat, TokenByPadding),
    "read_class_token": (read_by_index, read_by_einsum),
    "mean_patches": (mean_by_loop, mean_by_reduce),
    "mend": (embed_in_parts, embed_by_loops),
    "add_position": (PositionByLoop, PositionByEmbedding),
    "position_2d": (position_2d_by_loops, position_2d_by_grid),
    "sincos": (sincos_by_numpy, sincos_by_exp, sincos_of_vit_pytorch),
    "resize_positions": (resize_by_torchvision, resize_by_sums),
    "relative_offset": (offset_by_loops, offset_by_grid),
}
RIGHT = [(name, other) for name, others in OTHERS.items() for other in others]

# The exercises themselves -------------------------------------------------------------------------


def test_nothing_is_left_out():
    assert set(STUBS) == set(EXERCISES)
    assert set(SOLUTIONS) == set(OTHERS) == set(CODE)
    assert all(len(others) >= 2 for others in OTHERS.values())
    assert len(EXERCISES) == sum(len(module.EXERCISES) for module in MODULES)
    assert len(QUESTIONS) == sum(len(module.QUESTIONS) for module in MODULES)
    for number, module in enumerate(MODULES):
        assert {exercise.lesson for exercise in module.EXERCISES} == {f"0{number}"}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_a_card_is_complete(exercise):
    assert exercise.task.endswith(".") and len(exercise.task) < 200
    assert 1 <= exercise.minutes <= 20 and exercise.difficulty in (1, 2, 3)
    assert len(set(exercise.hints)) >= 3 and len(exercise.mistakes) >= 3
    assert len({m.name for m in exercise.mistakes}) == len(exercise.mistakes)
    assert len({m.sentence for m in exercise.mistakes}) == len(exercise.mistakes)
    assert all(hint.endswith((".", "?")) for hint in exercise.hints)
    for mistake in exercise.mistakes:
        assert mistake.sentence[0].isupper() or mistake.sentence.startswith("squeeze()")
        assert not re.search(r"[.!?]$|[.!?] [A-Z]|!", mistake.sentence), mistake.sentence
        assert not re.search(r"\b(bad|stupid|obvious|just|simply)", mistake.sentence)


@pytest.mark.parametrize("name", CODE)
def test_no_two_axes_can_be_confused(name):
    exercise = EXERCISES[name]
    assert len({case.about for case in exercise.cases}) == len(exercise.cases)
    for case in exercise.cases:
        tensors = [a for a in case.arguments() if isinstance(a, torch.Tensor)]
        shapes = [list(t.shape) for t in tensors if name != "linear_weight"]  # its P is there twice
        if name != "relative_offset":  # queries and keys are the same places
            shapes.append([size_of(axis, case.sizes) for axis in case.shape.split()])
        for shape in shapes:
            long = [length for length in shape if length > 1]
            assert len(set(long)) == len(long), case.about
        for one, two in zip(case.arguments(), case.arguments(), strict=True):
            if isinstance(one, torch.Tensor):
                assert one is not two and torch.equal(one, two) and one.std() > 0.5


@pytest.mark.parametrize("name", EXERCISES)
def test_the_stub_is_not_attempted(name):
    verdict = judge(EXERCISES[name], made(STUBS[name]))
    assert verdict.status == "not attempted" and name in verdict.message
    assert judge(EXERCISES[name], None).status == "not attempted"


@pytest.mark.parametrize("name", EXERCISES)
def test_the_reference_is_right(name):
    exercise = EXERCISES[name]
    verdict = judge(exercise, exercise.reference)
    assert verdict.status == "right", verdict.message
    for case in exercise.cases:
        assert case.about in verdict.message


@pytest.mark.parametrize("name", EXERCISES)
def test_the_printed_solution_solves_the_stub(name):
    answer = made(EXERCISES[name].solution_source())
    assert judge(EXERCISES[name], answer).status == "right"


@pytest.mark.parametrize("name", CODE)
def test_the_solution_fits_the_stub(name):
    stub, solution = made(STUBS[name]), made(EXERCISES[name].solution_source())
    assert list(inspect.signature(stub).parameters) == list(inspect.signature(solution).parameters)


@pytest.mark.parametrize("name", CODE)
def test_a_solution_in_plain_torch_is_right(name):
    verdict = judge(EXERCISES[name], made(SOLUTIONS[name]))
    assert verdict.status == "right", verdict.message


@pytest.mark.parametrize(("name", "answer"), RIGHT, ids=[a.__name__ for _, a in RIGHT])
def test_an_answer_that_is_built_differently_is_right(name, answer):
    verdict = judge(EXERCISES[name], answer)
    assert verdict.status == "right", verdict.message


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_may_be_of_any_kind(name):
    right = EXERCISES[name].reference
    for answer in (float(right), np.int64(right), torch.tensor(right), torch.tensor([right])):
        assert judge(EXERCISES[name], answer).status == "right"


@pytest.mark.parametrize(("name", "which"), MISTAKES, ids=IDS)
def test_a_known_mistake_is_refused_and_named(name, which):
    exercise = EXERCISES[name]
    mistake = next(m for m in exercise.mistakes if m.name == which)
    verdict = judge(exercise, mistake.implementation)
    assert verdict.status == "wrong"
    assert verdict.mistake == which, verdict.message
    assert mistake.sentence in verdict.message
    for other in exercise.mistakes:
        assert other is mistake or other.sentence not in verdict.message


# The exercises agree with the package, and with each other ----------------------------------------


def test_the_matrix_equals_the_convolution():
    conv, images = nn.Conv2d(3, 5, 4, stride=4), torch.randn(2, 3, 8, 20)
    x = F.linear(vit.patchify(images, 4), lesson01.linear_weight(conv.weight), conv.bias)
    assert torch.allclose(x, conv(images).flatten(2).transpose(1, 2), atol=1e-5)
    ours, package = lesson01.PatchEmbedding(3, 5, 4), vit.PatchEmbed(3, 5, 4)
    package.load_state_dict(ours.state_dict())
    assert torch.equal(ours(images), package(images)[0])


def test_the_parts_are_those_of_the_package():
    position = parts.LearnedPosition2D(8, (3, 5), 0)
    table = lesson03.position_2d(position.columns[0], position.rows[0])
    assert torch.equal(table, position(torch.zeros(1, 15, 8), (3, 5))[0])
    dy, dx = lesson03.relative_offset(3, 5).unbind(-1)
    assert torch.equal((dy + 2) * 9 + dx + 4, parts.relative_offset((3, 5)))
    x, learned = torch.randn(2, 16, 8), vit.LearnedPosition(8, (3, 5), 1)
    ours = lesson03.Position(8, 16)
    ours.load_state_dict(learned.state_dict())
    assert torch.equal(ours(x), learned(x, (3, 5)))


def test_the_class_token_is_that_of_the_model():
    model = make_vit("Ti/16", image=32, classes=3).eval()
    model.blocks, model.norm = nn.ModuleList(), nn.Identity()
    images = torch.randn(2, 3, 32, 32)
    x = lesson02.embed(model.patch_embed(images)[0], model.prefix, model.position.table)
    assert torch.allclose(x, model.encode(images)[0])
    nn.init.normal_(model.head.weight)
    logits = F.linear(lesson02.read_class_token(x), model.head.weight)
    assert torch.allclose(logits, model(images), atol=1e-5)
    mean = F.linear(lesson02.mean_patches(x), model.head.weight)
    head = parts.MeanHead(model.cfg)
    head.load_state_dict(model.head.state_dict())
    assert torch.allclose(head(x, (2, 2)), mean, atol=1e-5)


# Wrong answers outside the catalogue --------------------------------------------------------------


def changed(name, change):
    """The reference, with its result changed."""
    reference = EXERCISES[name].reference
    if EXERCISES[name].kind == "module":

        class Changed(reference):
            def forward(self, *arguments):
                return change(super().forward(*clones(arguments)), *arguments)

        return Changed
    return lambda *arguments: change(reference(*clones(arguments)), *arguments)


def clones(arguments):
    return [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]


def refusal(name, change):
    verdict = judge(EXERCISES[name], changed(name, change))
    assert verdict.status == "wrong", verdict
    assert verdict.mistake is None
    return verdict.message


@pytest.mark.parametrize("name", CODE)
def test_a_wrong_shape(name):
    shape = EXERCISES[name].cases[0].shape.split()
    more = f"the result has {len(shape) + 1} axes"
    assert more in refusal(name, lambda x, *_: x[None])
    longer = refusal(name, lambda x, *_: torch.cat([x, x, x], dim=-1))
    assert f"axis {len(shape) - 1} should be {shape[-1]}" in longer and "needed" in longer


@pytest.mark.parametrize("name", CODE)
def test_a_wrong_dtype(name):
    right = "int64" if name == "relative_offset" else "float32"
    assert refusal(name, lambda x, *_: x.double()) == (
        f"the result has the dtype float64, it must be {right}"
    )


@pytest.mark.parametrize("name", CODE)
def test_nothing_given_back(name):
    assert "is the return missing" in refusal(name, lambda x, *_: None)
    assert "a NumPy array" in refusal(name, lambda x, *_: x.detach().numpy())
    assert "a tuple of 2" in refusal(name, lambda x, *_: (x, x))


@pytest.mark.parametrize("name", [name for name in CODE if name != "relative_offset"])
def test_nan(name):
    assert "NaN or infinity" in refusal(name, lambda x, *_: x * float("nan"))
    assert "NaN or infinity" in refusal(name, lambda x, *_: x / 0)


@pytest.mark.parametrize("name", CODE)
def test_a_constant(name):
    assert "every value of the result is the same" in refusal(name, lambda x, *_: x * 0 + 3)


@pytest.mark.parametrize("name", CODE)
def test_other_values(name):
    text = refusal(name, lambda x, *_: x * 7)
    assert "the shape is right, the values are not" in text and "The first is at" in text
    text = refusal(name, lambda x, *_: x.flip(-1) + 2)
    assert "needed" in text


@pytest.mark.parametrize("name", CODE)
def test_an_exception(name):
    def fall(x, *_):
        raise KeyError("a name")

    text = refusal(name, fall)
    assert "it stops with KeyError: 'a name'" in text
    assert 'raise KeyError("a name")' in text and EXERCISES[name].cases[0].about in text


@pytest.mark.parametrize("name", [n for n in CODE if n not in ("sincos", "relative_offset")])
def test_no_gradient(name):
    text = refusal(name, lambda x, *_: x.detach())
    assert "the values are right, but no gradient reaches" in text

    def half(x, *_):
        return x.detach() + (x - x.detach()) / 2

    assert "the values are right, but the gradient for" in refusal(name, half)


@pytest.mark.parametrize("name", [n for n in CODE if n not in ("sincos", "relative_offset")])
def test_an_input_changed_in_place(name):
    def afterwards(x, *arguments):
        x = x.clone()
        arguments[0].add_(1)
        return x

    assert "input 1 is not what it was" in refusal(name, afterwards)


def test_plus_equals_is_noticed():
    class InPlace(lesson03.Position):
        def forward(self, x):
            x += self.table
            return x

    assert "input 1 is not what it was" in judge(EXERCISES["add_position"], InPlace).message


@pytest.mark.parametrize("name", CLASSES)
def test_a_module_that_is_no_module(name):
    exercise = EXERCISES[name]
    made_one = exercise.reference(*exercise.cases[0].build)
    assert "give the class itself" in judge(exercise, made_one).message
    assert "give the class itself" in judge(exercise, 3).message

    class Other(exercise.reference):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.other = nn.Parameter(torch.zeros(1))

    assert "a parameter other too many" in judge(exercise, Other).message


@pytest.mark.parametrize("name", [name for name in CODE if name not in CLASSES])
def test_a_function_that_was_called(name):
    exercise = EXERCISES[name]
    result = exercise.reference(*exercise.cases[0].arguments())
    assert "give the function itself" in judge(exercise, result).message


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_is_wrong(name):
    exercise = EXERCISES[name]
    right, known = exercise.reference, {m.implementation for m in exercise.mistakes}
    assert right not in known
    for wrong in {right + 1, right - 1, 2 * right, right / 2, -right, 0} - known:
        verdict = judge(exercise, wrong)
        assert verdict.status == "wrong" and verdict.mistake is None
        assert ("too large" if wrong > right else "too small") in verdict.message
    for wrong in (str(right), [right], True, torch.tensor([right, right]), float("nan")):
        assert judge(exercise, wrong).status == "wrong"


def test_the_published_code_stops_with_the_learners_line():
    published = """
def embed(patches, prefix, table):
    x = patches + table
    return torch.cat([prefix.expand(len(x), -1, -1), x], dim=1)
"""
    verdict = judge(EXERCISES["mend"], made(published))
    assert verdict.status == "wrong" and verdict.mistake == "as published"
    assert verdict.message.endswith("In your line 3")


# Mutants ------------------------------------------------------------------------------------------


class Mutator(ast.NodeVisitor):
    """Change one thing at a time: every mutant is the whole code with one change."""

    SWAP = {
        ast.Add: [ast.Sub, ast.Mult],
        ast.Sub: [ast.Add],
        ast.Mult: [ast.Div, ast.Add],
        ast.Div: [ast.Mult],
        ast.FloorDiv: [ast.Mult],
        ast.Pow: [ast.Mult],
    }

    def __init__(self, source):
        self.tree, self.mutants = ast.parse(source), []
        self.original = ast.unparse(self.tree)
        self.visit(self.tree)

    def keep(self):
        """Note the code as it is now, with the line that has changed."""
        text = ast.unparse(self.tree)
        before, after = self.original.splitlines(), text.splitlines()
        pairs = zip(before, after, strict=False)
        place = next((i for i, (old, new) in enumerate(pairs) if old != new), len(after) - 1)
        if len(after) < len(before):
            self.mutants.append(("without " + before[place].strip(), text))
        elif text != self.original:
            self.mutants.append((after[place].strip(), text))

    def attempt(self, node, field, value):
        old = getattr(node, field)
        setattr(node, field, value)
        self.keep()
        setattr(node, field, old)

    def exchange(self, node, field):
        """Exchange two neighbours of a list of nodes."""
        old = getattr(node, field)
        for i in range(len(old) - 1):
            self.attempt(node, field, [*old[:i], old[i + 1], old[i], *old[i + 2 :]])

    def drop(self, node, field):
        """Leave out one statement."""
        old = getattr(node, field)
        for i in range(len(old)):
            if not isinstance(old[i], (ast.FunctionDef, ast.ClassDef)):
                self.attempt(node, field, [*old[:i], *old[i + 1 :]] or [ast.Pass()])

    def visit_FunctionDef(self, node):
        self.drop(node, "body")
        self.generic_visit(node)

    def visit_BinOp(self, node):
        for other in self.SWAP.get(type(node.op), []):
            self.attempt(node, "op", other())
        if not isinstance(node.op, (ast.Add, ast.Mult)):
            left, right = copy.deepcopy((node.left, node.right))
            node.left, node.right = right, left
            self.keep()
            node.left, node.right = left, right
        self.generic_visit(node)

    def visit_Constant(self, node):
        if isinstance(node.value, bool):
            self.attempt(node, "value", not node.value)
        elif isinstance(node.value, int):
            self.attempt(node, "value", node.value + 1)
            self.attempt(node, "value", node.value - 1)

    def visit_Call(self, node):
        self.exchange(node, "args")
        for i, keyword in enumerate(node.keywords):
            if keyword.arg not in ("size",):
                self.attempt(node, "keywords", [*node.keywords[:i], *node.keywords[i + 1 :]])
        self.generic_visit(node)

    def visit_Attribute(self, node):
        twins = dict(sin="cos", cos="sin", repeat="repeat_interleave", repeat_interleave="repeat")
        if node.attr in twins:
            self.attempt(node, "attr", twins[node.attr])
        self.generic_visit(node)

    def visit_List(self, node):
        self.exchange(node, "elts")
        self.generic_visit(node)

    visit_Tuple = visit_List

    def visit_Slice(self, node):
        for field in ("lower", "upper"):
            if getattr(node, field) is not None:
                self.attempt(node, field, None)
        self.generic_visit(node)

    def visit_Return(self, node):
        self.attempt(node, "value", None)
        self.generic_visit(node)


def mutants(name):
    """(line, function, mutant) for everything that was written for an exercise."""
    plain = SOLUTIONS[name]
    for line, text in Mutator(plain).mutants:
        yield line, made(plain), made(text)
    for answer in OTHERS[name]:
        for line, text in Mutator(inspect.getsource(answer)).mutants:
            space = dict(globals())
            exec(text, space)
            yield line, answer, space[answer.__name__]


# Mutants that are right, with the reason: they are no mistakes.
EQUIVALENT = {
    ("patch_embedding", "return x.transpose(2, 1)"): "an exchange has no order",
    ("patch_embedding", "p = self.proj.kernel_size[1]"): "the kernel is square",
    ("patch_embedding", "p = self.proj.kernel_size[-1]"): "the kernel is square",
    (
        "linear_weight",
        "return lesson01.patchify(weight, weight.shape[-2])[:, 0]",
    ): "the kernel is square",
    (
        "linear_weight",
        "return lesson01.patchify(weight, weight.shape[-1])[:, -1]",
    ): "a filter is one patch, the first and the last",
    ("mean_patches", "total = torch.zeros_like(x[:, 1])"): "zeros are alike",
    ("mean_patches", "total = torch.zeros_like(x[:, -1])"): "zeros are alike",
    (
        "mend",
        "images = [torch.cat([prefix[-1], image]) + table[0] for image in patches]",
    ): "the axis has length 1",
    (
        "mend",
        "images = [torch.cat([prefix[0], image]) + table[-1] for image in patches]",
    ): "the axis has length 1",
    (
        "add_position",
        "return torch.stack([x[:, i] + self.table[-1, i] for i in range(x.shape[1])], dim=1)",
    ): "the axis has length 1",
    (
        "add_position",
        "return tokens.add(F.embedding(places, self.table[-1]))",
    ): "the axis has length 1",
    (
        "position_2d",
        "y, x = torch.meshgrid(torch.arange(h), torch.arange(w))",
    ): '"ij" is what meshgrid does if it is not told',
    (
        "sincos",
        "y, x = torch.meshgrid(torch.arange(h), torch.arange(w))",
    ): '"ij" is what meshgrid does if it is not told',
    (
        "sincos",
        "return torch.cat([angles.sin(), angles.cos()], dim=3).flatten(1)",
    ): "axis 2 has length 1, so joining along axis 3 puts the numbers in the same order",
    (
        "resize_positions",
        "places = places.flatten(2).transpose(2, 1)",
    ): "an exchange has no order",
    (
        "resize_positions",
        "places = TF.resize(places, list(new), TF.InterpolationMode.BICUBIC)",
    ): "torchvision's antialias is True if it is not told",
}


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("name", CODE)
def test_no_mutant_is_taken_for_right(name):
    accepted, count = [], 0
    for line, _, mutant in mutants(name):
        count += 1
        verdict = judge(EXERCISES[name], mutant)
        assert verdict.message and verdict.status in ("right", "wrong", "not attempted")
        if verdict.status == "right":
            accepted.append(line)
    assert count >= 10
    assert sorted(accepted) == sorted(line for other, line in EQUIVALENT if other == name)


def random_inputs(name):
    """What a class is built with, and inputs: of any size."""
    a, b, c, d, e = (random.randint(1, 6) for _ in range(5))
    return {
        "patch_embedding": lambda: ((a, b, c), (torch.randn(2, a, c * d, c * e),)),
        "linear_weight": lambda: ((), (torch.randn(a, b, c, c),)),
        "mean_patches": lambda: ((), (torch.randn(a, b + 1, c),)),
        "mend": lambda: (
            (),
            (torch.randn(a, b, c), torch.randn(1, 1, c), torch.randn(1, b + 1, c)),
        ),
        "add_position": lambda: ((a, b), (torch.randn(c, b, a),)),
        "position_2d": lambda: ((), (torch.randn(a, c), torch.randn(b, c))),
        "sincos": lambda: ((), (4 * a + 4, b, c)),
        "resize_positions": lambda: ((), (torch.randn(1, 1 + a * b, c), (a, b), (d, e))),
    }[name]()


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("name", sorted({name for name, _ in EQUIVALENT}))
def test_what_is_called_equivalent_is(name):
    random.seed(0)
    tried = 0
    for line, answer, mutant in mutants(name):
        if (name, line) not in EQUIVALENT:
            continue
        tried += 1
        for _ in range(200):
            build, inputs = random_inputs(name)
            one, other = answer, mutant
            if name in CLASSES:
                one, other = answer(*build), mutant(*build)
                other.load_state_dict(one.state_dict())
            assert torch.equal(one(*inputs), other(*inputs)), (line, build, inputs)
    assert tried == sum(other == name for other, _ in EQUIVALENT)


# Questions ----------------------------------------------------------------------------------------


def counted():
    """The answers, counted on real models and tensors."""
    with torch.device("meta"):
        model = make_vit("B/16")
        large = make_vit("B/16", image=384)
    embedding = vit.PatchEmbed(3, 768, 16)
    position = parts.LearnedPosition2D(768, (14, 14), 0)
    image = torch.zeros(1, 3, 224, 224)
    wide = lesson03.relative_offset(14, 14).flatten(0, 1)
    return {
        "tokens, if every pixel of an image of 224 x 224 were one": vit.patchify(image, 1).shape[1],
        "comparisons, if each of 260 patches is compared with every patch": torch.zeros(260, 260),
        "how many times as many comparisons, if both sides of an image double": (28**2) ** 2
        // (14**2) ** 2,
        "patches of 16 x 16 in an image of 224 x 224": vit.patchify(image, 16).shape[1],
        "patches of 8 x 8 in an image of 224 x 224": vit.patchify(image, 8).shape[1],
        "values in a patch of 16 x 16 in three colours": vit.patchify(image, 16).shape[2],
        "parameters of the patch embedding of ViT-B/16": embedding,
        "tokens of a 224 image with 16 patches": model.position.table.shape[1],
        "tokens of a 384 image with 16 patches": large.position.table.shape[1],
        "parameters of the class token of ViT-B/16": model.prefix,
        "numbers in the learned position table of ViT-B/16 at 224 x 224": model.position,
        "numbers in the tables of columns and rows, for 14 x 14 patches of width 768": position,
        "different offsets (dy, dx) in a grid of 14 x 14": len(wide.unique(dim=0)),
    }


def test_the_answers_to_the_questions_are_right():
    assert len(QUESTIONS) >= 8
    found = counted()
    assert set(found) == set(QUESTIONS)
    for question, answer in found.items():
        if isinstance(answer, nn.Module):
            answer = sum(p.numel() for p in answer.parameters())
        elif isinstance(answer, torch.Tensor):
            answer = answer.numel()
        right, why, rules = QUESTIONS[question]
        assert right == answer, question
        assert why.endswith(".") and len(rules) >= 3 and right not in rules
        assert all(rule.endswith(".") for rule in rules.values())
        assert len(set(rules.values())) >= len(rules) - 1


def test_the_numbers_are_right():
    count = {
        "first_count": vit.patchify(torch.zeros(1, 3, 416, 640), 32).shape[1],
        "patch_values": vit.patchify(torch.zeros(1, 3, 256, 256), 32).shape[2],
        "token_count": make_vit("Ti/16", image=224).position.table.shape[1],
    }
    assert count == {name: EXERCISES[name].reference for name in NUMBERS}
