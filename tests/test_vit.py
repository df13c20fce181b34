"""What must hold of the core, whatever its weights are."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import Config, ViT, make_vit
from vitcourse.parts import LearnedPosition2D, MeanHead, NoPosition, SinCosPosition
from vitcourse.probe import record_attention, record_tokens
from vitcourse.train.recipe import decay_groups
from vitcourse.vit import Attention, DropPath, PatchEmbed, patchify, resize_position, unpatchify

SIZES = dict(dim=40, depth=3, heads=5, patch=6, image=(18, 30), classes=7, mlp_ratio=2)


def build(model=ViT, **options):
    """A small model in which no parameter is zero and no two axes have the same size."""
    model = model(Config(**{**SIZES, **options})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return model


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


# Sizes ------------------------------------------------------------------------------------------

# what the authors' own code counts, at 224 pixels and with 1000 classes
COUNTS = {
    "Ti/16": 5_717_416,
    "S/16": 22_050_664,
    "S/32": 22_878_952,
    "B/8": 86_576_872,
    "B/16": 86_567_656,
    "B/32": 88_224_232,
    "L/16": 304_326_632,
    "L/32": 306_535_400,
    "H/14": 632_045_800,
}
COUNTS_WITH_MEAN = {
    "S/16": 22_049_896,
    "S/32": 22_878_184,
    "B/16": 86_566_120,
    "B/32": 88_222_696,
}


@pytest.mark.parametrize("size", COUNTS)
def test_parameter_counts(size):
    with torch.device("meta"):
        assert count(make_vit(size)) == COUNTS[size]


@pytest.mark.parametrize("size", COUNTS_WITH_MEAN)
def test_parameter_counts_with_a_mean(size):
    with torch.device("meta"):
        assert count(make_vit(size, model=ViT.variant(Head=MeanHead))) == COUNTS_WITH_MEAN[size]


# Patches ----------------------------------------------------------------------------------------


def test_patchify_by_loops():
    images = torch.randn(2, 3, 12, 20)
    patches = patchify(images, 4)
    assert patches.shape == (2, 15, 48)
    for b in range(2):
        for n in range(15):
            y, x = n // 5 * 4, n % 5 * 4
            pixels = [images[b, :, y + i, x + j] for i in range(4) for j in range(4)]
            assert torch.equal(patches[b, n], torch.cat(pixels))
    assert torch.equal(unpatchify(patches, (3, 5), 4), images)


def test_patch_embedding_is_a_linear_layer_on_patches():
    embed, images = PatchEmbed(3, 10, 4).double(), torch.randn(2, 3, 12, 20).double()
    x, grid = embed(images)
    weight = embed.proj.weight.permute(0, 2, 3, 1).flatten(1)  # (D, P*P*C)
    assert grid == (3, 5)
    torch.testing.assert_close(x, F.linear(patchify(images, 4), weight, embed.proj.bias))
    naive = embed.proj.weight.flatten(1)  # (D, C*P*P): the right shape, the wrong order
    assert (x - F.linear(patchify(images, 4), naive, embed.proj.bias)).abs().max() > 0.1


# Positions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method, corners", [("bicubic", False), ("bilinear", True)])
def test_resized_positions(method, corners):
    table = torch.randn(1, 2 + 3 * 5, 8)
    resized = resize_position(table, (3, 5), (6, 4), 2, method)
    assert resized.shape == (1, 2 + 6 * 4, 8)
    assert torch.equal(resized[:, :2], table[:, :2]), "prefix rows have no place and must stay"
    grid = table[:, 2:].reshape(1, 3, 5, 8).permute(0, 3, 1, 2)
    wanted = F.interpolate(
        grid, size=(6, 4), mode=method, align_corners=corners, antialias=method == "bicubic"
    )
    torch.testing.assert_close(resized[:, 2:].reshape(1, 6, 4, 8).permute(0, 3, 1, 2), wanted)


def test_bilinear_is_the_zoom_of_the_original():
    zoom = pytest.importorskip("scipy.ndimage").zoom
    table = torch.randn(1, 1 + 4 * 4, 8)
    ours = resize_position(table, (4, 4), (7, 7), 1, "bilinear")
    theirs = zoom(table[0, 1:].reshape(4, 4, 8).numpy(), (7 / 4, 7 / 4, 1), order=1)
    torch.testing.assert_close(ours[0, 1:].reshape(7, 7, 8), torch.from_numpy(theirs))


def test_images_of_other_sizes():
    model, images = build(), torch.randn(2, 3, 36, 24)
    assert model(images).shape == (2, 7)
    fitted = build(image=(36, 24))
    state = model.state_dict()
    state["position.table"] = resize_position(model.position.table, (3, 5), (6, 4), 1)
    fitted.load_state_dict(state)
    torch.testing.assert_close(model(images), fitted(images))


# Attention --------------------------------------------------------------------------------------


def test_fused_attention_is_the_explicit_one():
    model, images = build().double(), torch.randn(2, 3, 18, 30).double()
    fused = model(images)
    with record_attention(model) as maps:
        explicit = model(images)
    torch.testing.assert_close(fused, explicit, rtol=1e-12, atol=1e-12)
    assert len(maps) == 3
    for weights in maps:
        assert weights.shape == (2, 5, 16, 16) and (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5, 16).double())
        assert (weights.sum(-2) - 1).abs().max() > 0.1, "the columns must not sum to one"
    assert all(block.attn.recorder is None for block in model.blocks)


def test_recording_stops_after_an_error():
    model = build()
    with pytest.raises(RuntimeError), record_attention(model), record_tokens(model):
        raise RuntimeError
    with record_tokens(model) as tokens:
        model(torch.randn(2, 3, 18, 30))
    assert [tuple(x.shape) for x in tokens] == [(2, 16, 40)] * 3
    assert all(block.attn.recorder is None for block in model.blocks)
    assert not any(block._forward_hooks for block in model.blocks)


def test_a_variant_of_the_weights_leaves_the_fast_path():
    class Uniform(Attention):
        def weights(self, q, k, bias):
            return torch.full((*q.shape[:3], k.shape[2]), 1 / k.shape[2])

    attention, x = Uniform(12, 3), torch.randn(2, 5, 12)
    mean = attention.qkv(x)[..., 24:].mean(dim=1, keepdim=True).expand_as(x)
    torch.testing.assert_close(attention(x), attention.proj(mean))


def test_attention_dropout_is_for_training_only():
    attention, x = Attention(12, 3, drop=0.5, attn_drop=0.5), torch.randn(2, 5, 12)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_attention_dropout_on_both_paths():
    # with v = 1 everywhere, a row's output is the sum of the weights that were kept, scaled up
    attention = Attention(12, 3, attn_drop=0.25).train()
    q, k, v = torch.randn(64, 3, 5, 4), torch.randn(64, 3, 5, 4), torch.ones(64, 3, 5, 4)
    for recorder in (None, lambda weights: None):
        attention.recorder = recorder
        out = attention.attend(q, k, v)
        assert out.std() > 0.1 and abs(out.mean() - 1) < 0.05


# The set view -----------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [ViT.Head, MeanHead])
def test_without_positions_the_tokens_are_a_set(head):
    model = build(ViT.variant(Position=NoPosition, Head=head)).double()
    images = torch.randn(2, 3, 18, 30).double()
    order = torch.randperm(15)
    shuffled = unpatchify(patchify(images, 6)[:, order], (3, 5), 6)
    tokens, grid = model.encode(images)
    moved, _ = model.encode(shuffled)
    R = model.prefix_len
    torch.testing.assert_close(moved[:, R:], tokens[:, R:][:, order])
    torch.testing.assert_close(model(shuffled), model(images))
    assert (moved[:, R:] - tokens[:, R:]).abs().max() > 0.1, "equivariant, not invariant"


@pytest.mark.parametrize("position", [ViT.Position, LearnedPosition2D, SinCosPosition])
def test_with_positions_they_are_not(position):
    model, images = build(ViT.variant(Position=position)), torch.randn(2, 3, 18, 30)
    shuffled = unpatchify(patchify(images, 6).flip(1), (3, 5), 6)
    assert (model(shuffled) - model(images)).abs().max() > 1e-3


# Start values and training ----------------------------------------------------------------------


def test_the_first_loss_is_ln_classes():
    model = make_vit("Nano/4", image=32, classes=10)
    logits = model(torch.randn(5, 3, 32, 32))
    assert F.cross_entropy(logits, torch.arange(5)).item() == pytest.approx(math.log(10))


def test_start_values():
    model = make_vit("Ti/16")
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.full_like(parameter, float("weight" in name))), name
        elif name.endswith("bias") or name.startswith("head"):
            assert not parameter.any(), name
        else:
            std = 768**-0.5 if "patch_embed" in name else 0.02
            assert parameter.abs().max() <= 2 * std, name
            assert parameter.std().item() == pytest.approx(0.88 * std, rel=0.1), name
    first, second = (block.attn.qkv.weight for block in model.blocks[:2])
    assert not torch.equal(first, second), "blocks must not begin as copies"


def test_every_parameter_gets_a_gradient():
    model = build(drop=0.1, attn_drop=0.1, drop_path=0.1).train()
    model(torch.randn(8, 3, 18, 30)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_drop_path_keeps_the_mean():
    drop, x = DropPath(0.3), torch.ones(20_000, 2, 3)
    out = drop(x)
    assert out.unique().tolist() == [0, pytest.approx(1 / 0.7)]
    assert (out.amax((1, 2)) == out.amin((1, 2))).all(), "an image is dropped as a whole"
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(drop.eval()(x), x)


def test_drop_path_grows_with_depth():
    rates = [block.drop_path.rate for block in build(depth=5, drop_path=0.2).blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_decay_groups():
    model = build(ViT.variant(registers=2, Position=LearnedPosition2D))
    decay, keep = decay_groups(model, 0.05)
    assert (decay["weight_decay"], keep["weight_decay"]) == (0.05, 0)
    ids = [id(parameter) for group in (decay, keep) for parameter in group["params"]]
    assert len(ids) == len(set(ids)) and set(ids) == set(map(id, model.parameters()))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(parameter)] for parameter in decay["params"]}
    kernels = {name for name in names.values() if name.endswith("weight") and "norm" not in name}
    assert decayed == kernels
    assert {"prefix", "position.rows", "position.columns", "position.prefix"} <= set(
        names[id(parameter)] for parameter in keep["params"]
    )


@pytest.mark.parametrize("model", [ViT, ViT.variant(Position=SinCosPosition, Head=MeanHead)])
def test_compiles_as_one_graph(model):
    model, images = build(model, drop_path=0.1), torch.randn(2, 3, 18, 30)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), model(images))
    compiled.train()(images).sum().backward()
    assert model.blocks[0].attn.qkv.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision(dtype):
    model, images = build(), torch.randn(2, 3, 36, 24)  # another size: positions are resized
    low = build()
    low.load_state_dict(model.state_dict())
    wanted = model(images)
    with torch.autocast("cpu", dtype):
        assert (low(images) - wanted).abs().max() < 0.05 * wanted.abs().max()
    assert low.to(dtype)(images.to(dtype)).dtype == dtype


# Variants and bad arguments ---------------------------------------------------------------------


def test_registers_are_tokens_that_nobody_reads():
    model = build(ViT.variant(registers=3))
    assert model.prefix.shape == (1, 4, 40) and model.position.table.shape == (1, 19, 40)
    x, grid = model.encode(torch.randn(2, 3, 18, 30))
    torch.testing.assert_close(model.head(x, grid), nn.Linear.forward(model.head, x[:, 0]))


def test_variants_do_not_change_the_original():
    assert ViT.variant(Head=MeanHead).Head is MeanHead and ViT.Head is not MeanHead


BAD = {
    "an image that the patch does not divide": (dict(image=32, patch=5), "30x30"),
    "heads that do not divide dim": (dict(dim=40, heads=3), "40 .* 3 heads"),
    "no classes": (dict(classes=0), "classes is 0"),
    "half a block": (dict(depth=1.5), "depth is 1.5"),
    "a negative size": (dict(dim=-40), "dim is -40"),
    "three sides": (dict(image=(18, 30, 3)), "height, width"),
    "a side of zero": (dict(image=(0, 30)), "image is 0"),
    "a patch larger than the image": (dict(image=4, patch=6), "6x6"),
    "a rate of one": (dict(drop_path=1.0), "drop_path is 1.0"),
    "a negative rate": (dict(drop=-0.1), "drop is -0.1"),
    "an MLP without width": (dict(mlp_ratio=0.01), "mlp_ratio is 0.01"),
    "an MLP of any width": (dict(mlp_ratio=float("nan")), "mlp_ratio is nan"),
    "a ratio in quotes": (dict(mlp_ratio="4"), "mlp_ratio is '4'"),
    "a rate in quotes": (dict(drop="0.1"), "drop is '0.1': a rate is"),
    "no image": (dict(image=None), "image is None: give one side"),
    "an image of 22.5 pixels": (dict(image=22.5), "image is 22.5: give one side"),
}


@pytest.mark.parametrize("what", BAD)
def test_impossible_sizes(what):
    options, message = BAD[what]
    with pytest.raises(ValueError, match=message) as error:
        Config(**{**SIZES, **options})
    assert "\n" not in str(error.value)


def test_bad_arguments():
    with pytest.raises(ValueError, match='for example "S/16"'):
        make_vit("S16")
    with pytest.raises(ValueError, match="Ti, S, B"):
        make_vit("XL/16")
    with pytest.raises(TypeError, match="'num_classes' is not an option.*classes"):
        make_vit("S/16", num_classes=10)
    with pytest.raises(ValueError, match="no part called 'Positions'"):
        ViT.variant(Positions=NoPosition)
    with pytest.raises(ValueError, match="Head must be a class"):
        ViT.variant(Head=MeanHead(Config(**SIZES)))
    model = build()
    with pytest.raises(ValueError, match=r"\(2, 1, 18, 30\).*\(batch, 3, height, width\)"):
        model(torch.randn(2, 1, 18, 30))
    with pytest.raises(ValueError, match=r"\(3, 18, 30\)"):
        model(torch.randn(3, 18, 30))
    with pytest.raises(ValueError, match="18x31 pixels .* 18x30"):
        model(torch.randn(2, 3, 18, 31))
    with pytest.raises(ValueError, match="does not divide"):
        patchify(torch.randn(2, 3, 10, 12), 4)
    with pytest.raises(ValueError, match="bicubic or bilinear"):
        resize_position(torch.randn(1, 5, 8), (2, 2), (3, 3), 1, "nearest")
    with (
        pytest.raises(ValueError, match="no attention to record"),
        record_attention(nn.Linear(2, 2)),
    ):
        pass


# On a GPU ---------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize("compiled", [False, True])
def test_on_cuda(dtype, tolerance, compiled):
    model, images = build().double(), torch.randn(2, 3, 18, 30).double()
    wanted = model(images)
    torch.backends.cuda.matmul.allow_tf32 = False
    model = model.to("cuda", dtype)
    run = torch.compile(model, fullgraph=True) if compiled else model
    got = run(images.to("cuda", dtype)).double().cpu()
    assert (got - wanted).abs().max() / wanted.abs().max() < tolerance
