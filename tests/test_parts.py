"""The parts of parts.py, against other implementations, loops, and what must hold of them."""

import pytest
import timm
import torch
import torch.nn.functional as F
import transformers
from vit_pytorch.simple_vit import posemb_sincos_2d

from vitcourse import Config, ViT
from vitcourse.parts import (
    LayerScale,
    LearnedPosition2D,
    MeanHead,
    NoPosition,
    RelativeAttention1D,
    RelativeAttention2D,
    RepresentationHead,
    SinCosPosition,
    join,
    relative_offset,
    sincos,
    split,
)
from vitcourse.probe import record_attention
from vitcourse.vit import Attention, Block

GRID, R, D, K = (3, 5), 2, 40, 5
SIZES = dict(dim=D, depth=2, heads=K, patch=6, image=(18, 30), classes=7)


def randomise(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return module


def test_split_and_join():
    x = torch.randn(2, R + 15, D)
    prefix, map = split(x, GRID)
    assert prefix.shape == (2, R, D) and map.shape == (2, D, 3, 5)
    assert torch.equal(map[:, :, 1, 4], x[:, R + 1 * 5 + 4])
    assert torch.equal(join(prefix, map), x)
    with pytest.raises(ValueError, match="17 tokens cannot fill a grid of 4x5"):
        split(x, (4, 5))


# Positions that are added -----------------------------------------------------------------------


def test_no_position():
    x = torch.randn(2, 17, D)
    assert torch.equal(NoPosition(D, GRID, R)(x, GRID), x)


def test_learned_2d_puts_the_column_first():
    position = randomise(LearnedPosition2D(D, GRID, R))
    out = position(torch.zeros(1, R + 15, D), GRID)
    assert torch.equal(out[:, :R], position.prefix)
    for y in range(3):
        for x in range(5):
            both = torch.cat([position.columns[0, x], position.rows[0, y]])
            assert torch.equal(out[0, R + y * 5 + x], both)


def test_learned_2d_on_another_grid():
    position = randomise(LearnedPosition2D(D, GRID, R))
    out = position(torch.zeros(1, R + 24, D), (4, 6))
    map = split(out, (4, 6))[1][0]  # (D, h, w)
    columns, rows = map[: D // 2], map[D // 2 :]
    torch.testing.assert_close(columns, columns[:, :1].expand(-1, 4, -1))
    torch.testing.assert_close(rows, rows[:, :, :1].expand(-1, -1, 6))
    table = position.columns.transpose(1, 2)[:, :, None]
    wanted = F.interpolate(table, (1, 6), mode="bicubic", antialias=True)[0, :, 0]
    torch.testing.assert_close(columns[:, 0], wanted)


@pytest.mark.parametrize("grid", [(3, 5), (4, 4), (7, 2)])
def test_sincos_is_that_of_simple_vit(grid):
    assert torch.equal(sincos(D, grid), posemb_sincos_2d(*grid, D)[None])
    assert torch.equal(sincos(D, grid, R)[:, :R], torch.zeros(1, R, D))


def test_sincos_is_not_that_of_mae():
    # the same order of the four waves, but the frequencies end before 1/10000
    sizes = dict(image_size=24, patch_size=6, hidden_size=D)
    config = transformers.ViTMAEConfig(**sizes, num_hidden_layers=1, num_attention_heads=K)
    embeddings = transformers.models.vit_mae.modeling_vit_mae.ViTMAEEmbeddings(config)
    embeddings.initialize_weights()
    theirs = embeddings.position_embeddings[:, 1:]
    assert 0.05 < (sincos(D, (4, 4)) - theirs).abs().max() < 0.2


def test_sincos_fits_any_grid_and_trains_nothing():
    position = SinCosPosition(D, GRID, R)
    assert not list(position.parameters()) and not position.state_dict()
    out = position(torch.zeros(1, R + 28, D), (4, 7))
    assert torch.equal(out, sincos(D, (4, 7), R))


@pytest.mark.parametrize("position, dim", [(LearnedPosition2D, 15), (SinCosPosition, 6)])
def test_widths_that_do_not_divide(position, dim):
    with pytest.raises(ValueError, match=f"dim is {dim}"):
        position(dim, GRID, R)


# Positions inside attention ---------------------------------------------------------------------


def test_relative_1d_by_loops():
    attention = randomise(RelativeAttention1D.on(GRID, R)(D, K)).double()
    x = 0.3 * torch.randn(2, 17, D).double()
    with record_attention(attention) as maps:
        explicit = attention(x)
    q, k, v = attention.project(x, GRID)
    scores = torch.empty(2, K, 17, 17).double()
    for query in range(17):
        for key in range(17):
            r = attention.position_table[query - key + 16]
            scores[:, :, query, key] = (q[:, :, query] * (k[:, :, key] + r)).sum(-1) / 8**0.5
    torch.testing.assert_close(maps[0], scores.softmax(-1))
    torch.testing.assert_close(attention(x), explicit)


def test_relative_2d_by_loops():
    attention = randomise(RelativeAttention2D.on(GRID, R)(D, K))
    bias = attention.bias(GRID)
    assert bias.shape == (1, K, 17, 17)
    assert not bias[:, :, :R].any() and not bias[:, :, :, :R].any()
    for query in range(15):
        for key in range(15):
            dy, dx = query // 5 - key // 5, query % 5 - key % 5
            entry = attention.position_table[:, dy + 2, dx + 4]
            assert torch.equal(bias[0, :, R + query, R + key], entry)


def test_relative_2d_is_that_of_timm():
    theirs = timm.create_model(
        "vit_relpos_small_patch16_224",
        img_size=(18, 30),
        patch_size=6,
        embed_dim=D,
        depth=2,
        num_heads=K,
        num_classes=7,
        rel_pos_type="bias",
        qkv_bias=True,
        fc_norm=False,
    )
    randomise(theirs).eval()

    class ScaledBlock(Block):
        def __init__(self, *parts):
            super().__init__(*parts, scale=LayerScale)

    attention = RelativeAttention2D.on(GRID, prefix_len=0)
    ours = ViT.variant(Attention=attention, Position=NoPosition, Block=ScaledBlock, Head=MeanHead)
    ours = ours(Config(**SIZES)).eval()
    state = {"prefix": ours.prefix}
    for name, tensor in theirs.state_dict().items():
        if "relative_position_bias_table" in name:
            name = name.replace("rel_pos.relative_position_bias_table", "position_table")
            tensor = tensor.T.reshape(K, 5, 9)
        state[name] = tensor
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 18, 30)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-4)


def test_relative_2d_on_another_grid():
    attention = randomise(RelativeAttention2D.on(GRID, R)(D, K))
    bias = attention.bias((5, 6))[0, :, R:, R:]
    offset = relative_offset((5, 6))
    for same in range(offset.max() + 1):  # one number for each offset, whatever the places
        entries = bias[:, offset == same]
        torch.testing.assert_close(entries, entries[:, :1].expand_as(entries))
    with pytest.raises(ValueError, match="for 17 tokens, not 20"):
        RelativeAttention1D.on(GRID, R)(D, K)(torch.randn(1, 20, D))


@pytest.mark.parametrize("relative", [RelativeAttention1D, RelativeAttention2D])
def test_relative_attention_with_an_empty_table_is_attention(relative):
    attention, plain = relative.on(GRID, R)(D, K), Attention(D, K)
    torch.nn.init.zeros_(attention.position_table)
    plain.qkv, plain.proj = attention.qkv, attention.proj
    x = torch.randn(2, 17, D)
    torch.testing.assert_close(attention(x, GRID), plain(x, GRID))
    randomise(attention)
    plain.qkv, plain.proj = attention.qkv, attention.proj
    assert (attention(x, GRID) - plain(x, GRID)).abs().max() > 0.1


@pytest.mark.parametrize("relative", [RelativeAttention1D, RelativeAttention2D])
def test_relative_attention_compiles_and_autocasts(relative):
    # with a class token, the last block's 2-D table would have no say: only that token is read
    model = ViT.variant(Attention=relative.on(GRID, 0), Head=MeanHead)(Config(**SIZES))
    randomise(model).eval()
    images = torch.randn(2, 3, 18, 30)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images).isfinite().all()
    model(images).sum().backward()
    assert all(block.attn.position_table.grad.any() for block in model.blocks)


# Blocks and heads -------------------------------------------------------------------------------


def test_layer_scale():
    block = Block(D, Attention(D, K), torch.nn.Identity(), scale=lambda dim: LayerScale(dim, 0.5))
    block.mlp.forward = lambda x, grid: x
    x = torch.randn(2, 17, D)
    y = x + 0.5 * block.attn(block.norm1(x))
    torch.testing.assert_close(block(x), y + 0.5 * block.norm2(y))


def test_mean_head_leaves_registers_out():
    head = randomise(MeanHead(Config(**SIZES)))
    x = torch.randn(2, R + 15, D)
    torch.testing.assert_close(head(x, GRID), x[:, R:].mean(1) @ head.weight.T + head.bias)


def test_representation_head():
    head = randomise(RepresentationHead(Config(**SIZES)))
    x = torch.randn(2, 16, D)
    hidden = torch.tanh(x[:, 0] @ head.pre_logits.weight.T + head.pre_logits.bias)
    torch.testing.assert_close(head(x), hidden @ head.weight.T + head.bias)


def test_heads_begin_at_zero():
    for head in (ViT.Head, MeanHead, RepresentationHead):
        model = ViT.variant(Head=head)(Config(**SIZES))
        assert not model(torch.randn(2, 3, 18, 30)).any()
    assert model.head.pre_logits.weight.any(), "the hidden layer must not begin at zero"
