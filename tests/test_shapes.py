"""The shape comments in the core are true: each is executed and compared."""

import importlib.util

import pytest
import torch

from tests.shapes import ShapeComments
from vitcourse import parts, vit
from vitcourse.parts import MeanHead, RelativeAttention1D, RelativeAttention2D, RepresentationHead
from vitcourse.probe import record_attention
from vitcourse.vit import Config, ViT

CONFIG = Config(dim=40, depth=2, heads=5, patch=6, image=(18, 30), classes=7, mlp_ratio=2)
SIZES = dict(B=2, C=3, H=18, W=30, h=3, w=5, N=15, R=1, T=16, D=40, K=5, d=8, M=80, classes=7)


def forward(comments, model, **sizes):
    images = torch.randn(2, 3, 18, 30)
    with comments.tracing(**{**SIZES, **sizes}):
        model(images)


def assert_true(comments):
    assert not comments.errors, "\n".join(comments.errors)
    assert not comments.unseen, f"never executed: lines {sorted(comments.unseen)}"


def test_vit():
    comments = ShapeComments(vit)
    assert len(comments.statements) > 20
    model = ViT(CONFIG)
    forward(comments, model)
    with record_attention(model):
        forward(comments, model)
    with comments.tracing(D=40, h=2, w=4):
        vit.resize_position(torch.randn(1, 9, 40), (2, 4), (3, 5), 1)
    assert_true(comments)


def test_parts():
    comments = ShapeComments(parts)
    grid = CONFIG.grid
    forward(comments, ViT.variant(Position=parts.LearnedPosition2D)(CONFIG))
    forward(comments, ViT.variant(Attention=RelativeAttention1D.on(grid))(CONFIG))
    forward(comments, ViT.variant(Attention=RelativeAttention2D.on(grid))(CONFIG))
    forward(comments, ViT.variant(Head=MeanHead)(CONFIG), R=0, T=15)
    forward(comments, ViT.variant(Head=RepresentationHead)(CONFIG))
    with comments.tracing(N=15, D=40):
        parts.sincos(40, grid)
        parts.relative_offset(grid)
    assert_true(comments)


@pytest.mark.parametrize("wrong", ["(B, D, T)", "(B, T)", "(B, T+1, D)"])
def test_a_wrong_comment_is_noticed(wrong, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(f"def f(x):\n    y = x + 1  # {wrong}\n    return y * 2  # (B, T, D)\n")
    spec = importlib.util.spec_from_file_location("wrong", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    comments = ShapeComments(module)
    with comments.tracing(B=2, T=3, D=4):
        module.f(torch.zeros(2, 3, 4))
    assert [error.split(":")[0] for error in comments.errors] == ["line 2"]
