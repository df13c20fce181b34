"""R50+ViT: beside timm, with the small ResNet of the tests and the published one; identities."""

import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.layers import GroupNormAct, HybridEmbed, StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tests.proofs import equal, images, randomise, same_as
from vitcourse import weights
from vitcourse.config import Config
from vitcourse.papers import hybrid
from vitcourse.papers.hybrid import Bottleneck, Hybrid, ResNetEmbed, StandardConv
from vitcourse.vit import PatchEmbed, ViT

Small = Hybrid.variant(Tokenizer=ResNetEmbed.of(blocks=(1, 2), width=8))
SIZES = Config(dim=20, depth=2, heads=5, patch=16, image=(48, 80), classes=7, mlp_ratio=3)
MODELS = {"small": lambda: (Small(SIZES), torch.randn(2, 3, 48, 80))}
OTHER_SIZES = {"small": (64, 32)}
COUNTS = {"r50_vit_b_16": 98_659_112}


def timms():
    """timm's model of the same sizes: two stages, then patches of 2x2 pixels of the maps."""
    backbone = ResNetV2(
        layers=(1, 2),
        channels=(32, 64),
        stem_chs=8,
        num_classes=0,
        global_pool="",
        preact=False,
        stem_type="same",
        conv_layer=partial(StdConv2dSame, eps=1e-8),
        norm_layer=partial(GroupNormAct, num_groups=4),
    )
    return VisionTransformer(
        img_size=(48, 80),
        patch_size=2,
        embed_dim=20,
        depth=2,
        num_heads=5,
        mlp_ratio=3,
        num_classes=7,
        embed_layer=partial(HybridEmbed, backbone=backbone),
    )


def same_as_timm():
    theirs, ours = timms(), Small(SIZES)
    backbones = [m.patch_embed.backbone for m in (ours, theirs)]
    stages = [
        [b.stem.conv, *(unit for stage in b.stages for unit in stage.blocks), model.blocks[0]]
        for b, model in zip(backbones, (ours, theirs), strict=True)
    ]
    same_as(theirs, ours, images(2, 3, 48, 80), stages)


def same_as_the_published_resnet():
    """3, 4 and 9 blocks of the published widths, before a small ViT: all tensors, and logits."""
    sizes = dict(embed_dim=18, depth=1, num_heads=3, num_classes=5)
    theirs = timm.create_model("vit_base_r50_s16_224", img_size=(16, 32), **sizes).double().eval()
    ours = Hybrid(Config(18, 1, 3, image=(16, 32), classes=5)).double().eval()
    with torch.no_grad():
        theirs.head.weight.normal_()
        for norm in [m for m in theirs.modules() if isinstance(m, nn.GroupNorm)]:
            norm.weight.uniform_(0.5, 1.5)
    weights.load(ours, theirs.state_dict())
    x = images(2, 3, 16, 32)
    equal(ours(x), theirs(x))


def googles():
    """The arrays of a Google file for the small model, filled with random numbers."""
    numbers = np.random.default_rng(0)
    shapes = {"cls": (1, 1, 20), "Transformer/posembed_input/pos_embedding": (1, 16, 20)}
    shapes |= {"embedding/kernel": (2, 2, 64, 20), "embedding/bias": (20,)}
    shapes |= {"head/kernel": (20, 7), "head/bias": (7,)}
    shapes |= {f"Transformer/encoder_norm/{part}": (20,) for part in ("scale", "bias")}
    for i in range(2):
        block = f"Transformer/encoderblock_{i}/"
        attention = block + "MultiHeadDotProductAttention_1/"
        for part in ("query", "key", "value"):
            shapes[f"{attention}{part}/kernel"] = (20, 5, 4)
            shapes[f"{attention}{part}/bias"] = (5, 4)
        shapes |= {attention + "out/kernel": (5, 4, 20), attention + "out/bias": (20,)}
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}{norm}/{part}": (20,) for part in ("scale", "bias")}
        for name, shape in (("Dense_0", (20, 60)), ("Dense_1", (60, 20))):
            shapes[f"{block}MlpBlock_3/{name}/kernel"] = shape
            shapes[f"{block}MlpBlock_3/{name}/bias"] = shape[1:]
    convolutions = {"root": (7, 7, 3, 8)}
    for block, unit, before, mid in ((1, 1, 8, 8), (2, 1, 32, 16), (2, 2, 64, 16)):
        start = f"block{block}/unit{unit}/"
        convolutions[start + "1"] = (1, 1, before, mid)
        convolutions[start + "2"] = (3, 3, mid, mid)
        convolutions[start + "3"] = (1, 1, mid, 4 * mid)
        if unit == 1:
            convolutions[start + "_proj"] = (1, 1, before, 4 * mid)
    for name, shape in convolutions.items():
        start, _, end = name.rpartition("/")
        start, end = (start + "/", end) if start else ("", "_root")
        shapes[f"{start}conv{end}/kernel"] = shape
        shapes |= {f"{start}gn{end}/{part}": (1, 1, 1, shape[3]) for part in ("scale", "bias")}
    return {name: numbers.standard_normal(shape).astype("f") for name, shape in shapes.items()}


def a_google_file_is_read_as_timm_reads_it():
    theirs, ours = timms().eval(), Small(SIZES).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        np.savez(path, **googles())
        theirs.load_pretrained(str(path))
        weights.load(ours, path)
    wanted = weights.from_timm(theirs.state_dict(), ours)
    assert ours.state_dict().keys() == wanted.keys()
    for name, tensor in ours.state_dict().items():
        equal(tensor, wanted[name], name, tolerance=0)


def standard_filters_are_used_as_they_are():
    layer, plain = StandardConv(6, 10, 3, 2).double(), nn.Conv2d(6, 10, 3, 2, bias=False).double()
    weight = images(10, 6, 3, 3)
    weight = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
    weight = weight / weight.std(dim=(1, 2, 3), keepdim=True, correction=0)
    layer.weight.data, plain.weight.data, layer.eps = weight, weight, 0.0
    x = images(2, 6, 9, 8)  # of 9 rows, 5 remain: one of zeros on each side; of 8, 4: one behind
    equal(layer(x), plain(F.pad(x, (0, 1, 1, 1))))


def scale_and_offset_of_a_filter_do_not_count():
    """Nor is there a gradient in these two directions."""
    layer = randomise(StandardConv(6, 10, 3)).double()
    layer.eps = 0.0
    x = images(2, 6, 9, 8)
    before = layer(x)
    (before * images(*before.shape, seed=1)).sum().backward()
    size = layer.weight.grad.abs().sum(dim=(1, 2, 3))
    for direction in (torch.ones_like(layer.weight), layer.weight.detach()):
        along = (layer.weight.grad * direction).sum(dim=(1, 2, 3))
        assert (along.abs() <= 1e-12 * size).all()
    with torch.no_grad():
        layer.weight.mul_(3.0).add_(0.7)
    equal(layer(x), before)


def at_the_start_a_block_passes_on_what_it_gets():
    block, x = Bottleneck(24, 24, 1, 3).double(), images(2, 24, 5, 7).relu()
    equal(block(x), x)


def reach(model):
    """The pixels (H, W) from which the token in the middle, at (2, 2), gets a gradient."""
    x = images(12, 3, 40, 40).requires_grad_()
    tokens, grid = model.patch_embed(x)
    tokens.unflatten(1, grid)[:, 2, 2].square().sum().backward()
    return x.grad.abs().amax(dim=(0, 1)) > 0


def a_token_sees_its_neighbourhood():
    """Without norms, 27x27 pixels, where a patch has 8x8. With them, the statistics of all."""
    sizes = Config(dim=20, depth=1, heads=5, patch=8, image=40, classes=7)
    Two = Hybrid.variant(Tokenizer=ResNetEmbed.of(blocks=(1, 1), width=16))
    model = randomise(Two(sizes)).double()
    assert reach(model).all()
    with mock.patch.object(nn.GroupNorm, "forward", lambda self, x: x):
        seen = reach(model)
    # 7 in the stem, +2*2 by the pooling, +2*4 by each stage's 3x3 convolution
    rows, columns = (seen.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
    assert rows == columns == list(range(rows[0], rows[0] + 7 + 2 * 2 + 2 * 4 + 2 * 4))
    plain = reach(randomise(ViT(sizes)).double())
    assert plain[16:24, 16:24].all() and plain.sum() == 64


PROOFS = [
    same_as_timm,
    same_as_the_published_resnet,
    a_google_file_is_read_as_timm_reads_it,
    standard_filters_are_used_as_they_are,
    scale_and_offset_of_a_filter_do_not_count,
    at_the_start_a_block_passes_on_what_it_gets,
    a_token_sees_its_neighbourhood,
]


def unbiased(self):
    var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
    return (self.weight - mean) * (var + self.eps).rsqrt()


def no_mean(self):
    return self.weight * (self.weight.var(dim=(1, 2, 3), keepdim=True) + self.eps).rsqrt()


def over_everything(self):
    var, mean = torch.var_mean(self.weight, correction=0)
    return (self.weight - mean) * (var + self.eps).rsqrt()


def on_both_sides(x, kernel, stride):
    return F.pad(x, [kernel // 2] * 4)


def relu_before_the_sum(self, x):
    y = F.relu(self.norm1(self.conv1(x)))
    y = F.relu(self.norm2(self.conv2(y)))
    return self.downsample(x) + F.relu(self.norm3(self.conv3(y)))


def no_shortcut(self, x):
    y = F.relu(self.norm1(self.conv1(x)))
    y = F.relu(self.norm2(self.conv2(y)))
    return F.relu(self.norm3(self.conv3(y)))


def patches(self, images):
    """The first pixel of each patch, and nothing beside it."""
    return PatchEmbed.forward(self, self.backbone(images[..., ::8, ::8].repeat(1, 1, 8, 8)))


def wrong_norm(state, model):
    moved = {name.replace("gn2", "gn1"): t for name, t in state.items()}
    return hybrid.from_google_hybrid(moved | {k: t for k, t in state.items() if "gn2" in k}, model)


PLANTED = {
    "the same zeros on both sides": ((hybrid, "pad", on_both_sides), same_as_timm),
    "the ReLU before the sum": (
        (Bottleneck, "forward", relu_before_the_sum),
        same_as_the_published_resnet,
    ),
    "one norm of a unit read as another": (
        (Hybrid, "layouts", {"google hybrid": ("conv_root/kernel", wrong_norm)}),
        a_google_file_is_read_as_timm_reads_it,
    ),
    "the variance of a sample": (
        (StandardConv, "filters", unbiased),
        standard_filters_are_used_as_they_are,
    ),
    "the mean stays": (
        (StandardConv, "filters", no_mean),
        scale_and_offset_of_a_filter_do_not_count,
    ),
    "one variance for all filters": ((StandardConv, "filters", over_everything), same_as_timm),
    "no shortcut": (
        (Bottleneck, "forward", no_shortcut),
        at_the_start_a_block_passes_on_what_it_gets,
    ),
    "a token sees single pixels": (
        (ResNetEmbed, "forward", patches),
        a_token_sees_its_neighbourhood,
    ),
}
