"""LeViT: beside timm (Linears and 1x1 convolutions) and transformers, and what `fuse` must keep."""

from dataclasses import replace
from unittest import mock

import torch
from timm.models.levit import LevitDistilled
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from transformers import LevitConfig, LevitForImageClassificationWithTeacher

from tests import proofs
from tests.proofs import TOLERANCE, batch_norms, equal, images, randomise
from vitcourse.papers import levit
from vitcourse.papers.levit import (
    BiasedAttention,
    ConvNorm,
    LeViT,
    LinearNorm,
    NormLinear,
    NormMlp,
    ShrinkAttention,
    ShrinkBlock,
    Sizes,
)
from vitcourse.vit import Attention, DropPath

SIZES = Sizes((32, 48, 64), depths=(1, 2, 1), heads=(2, 3, 5), key=8, image=(96, 144), classes=7)
SMALL = Sizes((16, 40), depths=(2, 1), heads=(3, 5), key=8, patch=2, image=(10, 14), classes=7)
MODELS = {
    "three stages": lambda: (LeViT(SIZES), torch.randn(3, 3, 96, 144)),
    "one convolution": lambda: (LeViT(SMALL), torch.randn(3, 3, 10, 14)),
}
OTHER_SIZES = {"three stages": (48, 80), "one convolution": (8, 6)}
COUNTS = {
    "levit_128s": 7_777_058,
    "levit_128": 9_213_936,
    "levit_192": 10_947_069,
    "levit_256": 18_893_876,
    "levit_384": 39_128_836,
}


def timm(**options):
    """timm's model of the same sizes."""
    sizes = dict(embed_dim=(32, 48, 64), depth=(1, 2, 1), num_heads=(2, 3, 5), key_dim=8)
    return LevitDistilled((96, 144), num_classes=7, **sizes, **options)


def lively(model):
    """Random weights under which tokens stay apart, and no softmax saturates."""
    with torch.no_grad():
        for layer in randomise(model).modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                layer.weight.mul_(2 * layer.weight[0].numel() ** -0.5 / 0.3)
            elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.weight.mul_(2)
    return model


def like(theirs, ours, images, stages=((), ()), run=None):
    """As `same_as`, with lively weights; in float32 the logits alone.

    Where tokens are alike, what a softmax hands back is the small difference of large numbers.
    """
    with mock.patch.object(proofs, "randomise", lively):
        proofs.same_as(theirs, ours, images, stages, run, dtypes=(torch.float64,))
    logits = ours.float()(images.float())
    equal(logits, (run or theirs.float())(images.float()), "float32", TOLERANCE[torch.float32])


def same_as_timm():
    """Logits, every stage, all gradients, on a wide image: maps of 6 x 9, 3 x 5 and 2 x 3."""
    theirs, ours = timm(), LeViT(SIZES)
    like(theirs, ours, images(3, 3, 96, 144), (list(ours.stages), list(theirs.stages)))


def convolutions_of_one_pixel_are_linears():
    """timm's other model: the same names, 1x1 convolutions on a map in place of Linears."""
    like(timm(use_conv=True), LeViT(SIZES), images(3, 3, 96, 144))


def same_as_transformers():
    """Whose stages end with what shrinks the map, and which takes square images only."""
    theirs = LevitForImageClassificationWithTeacher(
        LevitConfig(
            image_size=80,
            hidden_sizes=[32, 48, 64],
            depths=[1, 2, 1],
            num_attention_heads=[2, 3, 5],
            key_dim=[8, 8, 8],
            num_labels=7,
        )
    )

    def run(images):
        for module in theirs.modules():  # in evaluation it keeps biases of another precision
            module.attention_bias_cache = {}
        return theirs.to(images.dtype)(images).logits

    like(theirs, LeViT(replace(SIZES, image=80)), images(3, 3, 80, 80), run=run)


def the_maps_are_timms():
    """What a detector reads: the map of every stage."""
    theirs, ours = randomise(timm()).double(), LeViT(SIZES).double().eval()
    ours.load_state_dict(levit.from_timm(theirs.state_dict(), ours))
    x = images(2, 3, 96, 144)
    _, wanted = theirs.forward_intermediates(x)
    maps = ours.features(x)
    assert [tuple(map.shape[1:]) for map in maps] == [(32, 6, 9), (48, 3, 5), (64, 2, 3)]
    for mine, other in zip(maps, wanted, strict=True):
        equal(mine, other)


# What belongs to a layer ------------------------------------------------------------------------


def fusing_changes_nothing():
    """With random weights and statistics: logits and maps; no norm is left, none is lost."""
    for cfg, size in ((SIZES, (96, 144)), (SMALL, (10, 14))):
        model, x = randomise(LeViT(cfg)).double(), images(3, 3, *size)
        wanted = model(x)
        fused = levit.fuse(model)
        assert batch_norms(model) and not batch_norms(fused)
        equal(fused(x), wanted)
        for mine, other in zip(fused.features(x), model.features(x), strict=True):
            equal(mine, other)
        assert torch.equal(model(x), wanted)  # a copy was changed, not the model


def layers_are_fused_as_torch_does():
    """Weight and bias of each of the three kinds of layers."""
    x = images(3, 6, 12)
    layer = randomise(LinearNorm(12, 20)).double()
    compare(layer.fused(), fuse_linear_bn_eval(layer.linear, layer.bn))
    equal(layer.fused()(x), layer(x))
    layer = randomise(ConvNorm(6, 10)).double()
    compare(layer.fused(), fuse_conv_bn_eval(layer.conv, layer.bn))
    layer = randomise(NormLinear(12, 7)).double()
    equal(layer.fused()(x[:, 0]), layer(x[:, 0]))


def compare(mine, theirs):
    assert type(mine) is type(theirs)
    equal(mine.weight, theirs.weight)
    equal(mine.bias, theirs.bias)


def only_statistics_that_stand_still_are_fused():
    """In training each batch has its own: one line says so, also if one layer alone is meant."""
    for part in (lambda model: model, lambda model: model.stages[1].blocks[0].attn):
        model = LeViT(SMALL).eval()
        part(model).train()
        try:
            levit.fuse(model)
        except ValueError as error:
            assert "model.eval()" in str(error) and "\n" not in str(error)
        else:
            raise AssertionError("a model in training mode was fused")


def a_norm_counts_all_tokens_of_all_images():
    """In training: mean and variance over images and places together, for each channel."""
    layer, x = randomise(LinearNorm(12, 20)).double().train(), images(3, 6, 12)
    y = x @ layer.linear.weight.T
    mean, var = y.mean(dim=(0, 1)), y.var(dim=(0, 1), correction=0)
    wanted = (y - mean) / (var + 1e-5).sqrt() * layer.bn.weight + layer.bn.bias
    equal(layer(x), wanted)


# Attention --------------------------------------------------------------------------------------


def weights_by_a_loop():
    """Each score: narrow queries and keys, and the number for |dy|, |dx|. For both kinds."""
    h, w = grid = (3, 5)
    for cls, step in ((BiasedAttention, 1), (ShrinkAttention, 2)):
        layer = randomise(cls(32, 48, 4, 8, grid)).double()
        q, k, v = layer.project(images(2, 15, 32), grid)
        assert v.shape[-1] == {1: 16, 2: 32}[step]
        asking = [(y, x) for y in range(0, h, step) for x in range(0, w, step)]
        seen = [(y, x) for y in range(h) for x in range(w)]
        scores = torch.empty(2, 4, len(asking), len(seen), dtype=torch.float64)
        for i, (y, x) in enumerate(asking):
            for j, (b, a) in enumerate(seen):
                distance = layer.position_table[:, abs(y - b), abs(x - a)]
                scores[..., i, j] = (q[:, :, i] * k[:, :, j]).sum(-1) / 8**0.5 + distance
        equal(layer.weights(q, k, layer.bias(grid)), scores.softmax(dim=-1))


def shrinking_is_attention_at_every_second_place():
    """All places ask, then three quarters of the answers are thrown away: the same."""

    class Everywhere(ShrinkAttention):
        step = 1

    for h, w in ((3, 5), (4, 6)):
        layer = randomise(ShrinkAttention(32, 48, 4, 8, (h, w))).double()
        dense = Everywhere(32, 48, 4, 8, (h, w)).double().eval()
        dense.load_state_dict(layer.state_dict())
        x = images(2, h * w, 32)
        wanted = dense(x, (h, w)).unflatten(1, (h, w))[:, ::2, ::2].flatten(1, 2)
        equal(layer(x, (h, w)), wanted)


def a_mirror_is_not_noticed():
    """Only distances count: a mirrored map gives the mirrored answer. But it is no set."""
    grid = (3, 5)
    for cls, out in ((BiasedAttention, grid), (ShrinkAttention, (2, 3))):
        layer, x = randomise(cls(32, 48, 4, 8, grid)).double(), images(2, 15, 32)
        map, answer = x.unflatten(1, grid), layer(x, grid).unflatten(1, out)
        for axes in ((1,), (2,), (1, 2)):
            mirrored = layer(map.flip(axes).flatten(1, 2), grid)
            equal(mirrored.unflatten(1, out), answer.flip(axes))
        moved = layer(map.roll(1, dims=2).flatten(1, 2), grid).unflatten(1, out)
        assert (moved - answer.roll(1, dims=2)).abs().max() > 0.01


def without_biases_and_with_its_widths_it_is_attention():
    """Values as wide as keys, no distance, norms folded in, no activation: the core's layer."""

    class Narrow(BiasedAttention):
        wide = 1

    layer, plain = randomise(Narrow(40, 40, 5, 8, (3, 5))).double(), Attention(40, 5).double()
    with torch.no_grad():
        layer.position_table.fill_(0.7)  # the same for all: the softmax does not notice
        fused = levit.fuse(layer)
        rows = fused.qkv.weight.unflatten(0, (5, 3, 8)).transpose(0, 1).flatten(0, 2)
        plain.qkv.weight.copy_(rows)  # ours are sorted by heads, then by q, k, v
        plain.qkv.bias.copy_(fused.qkv.bias.unflatten(0, (5, 3, 8)).transpose(0, 1).flatten())
    plain.proj = nn.Sequential(nn.Hardswish(), fused.proj.ln)
    x = images(2, 15, 40)
    equal(layer(x, (3, 5)), plain(x))


# The model --------------------------------------------------------------------------------------


def new_blocks_change_nothing():
    """Their last norms begin at zero: a new stage is its stem, or what shrank its map."""
    for training in (False, True):
        model, x = LeViT(SIZES).double().train(training), images(3, 3, 96, 144)
        stem, grid = model.patch_embed(x)
        equal(model.stages[0](stem, grid)[0], stem)
        stage = model.stages[1]
        after, smaller = stage(stem, grid)
        assert smaller == (3, 5)
        equal(after, stage.shrink.attn(stem, grid))


def a_smaller_map_uses_a_part_of_the_table():
    """As a model built for it, whose tables are the first rows and columns."""
    model = randomise(LeViT(SIZES)).double()
    small = LeViT(replace(SIZES, image=(48, 80))).double().eval()
    state = model.state_dict()
    for name, table in small.state_dict().items():
        if name.endswith("position_table"):
            _, h, w = table.shape
            state[name] = state[name][:, :h, :w]
    small.load_state_dict(state)
    x = images(2, 3, 48, 80)
    equal(model(x), small(x))
    try:
        model(images(2, 3, 112, 144))
    except ValueError as error:
        assert "map of 7x9" in str(error) and "\n" not in str(error)
    else:
        raise AssertionError("distances that were never learned were taken from somewhere")


def two_heads_read_the_mean():
    """Each with its BatchNorm; the answer is halfway between both."""
    model, x = randomise(LeViT(SIZES)).double(), images(3, 3, 96, 144)
    tokens = model.features(x)[-1].flatten(2).mean(dim=2)
    by_class, by_dist = model.two_logits(x)
    for head, logits in ((model.head, by_class), (model.head_dist, by_dist)):
        bn = head.bn
        normed = (tokens - bn.running_mean) / (bn.running_var + 1e-5).sqrt() * bn.weight + bn.bias
        equal(logits, normed @ head.linear.weight.T + head.linear.bias)
    equal(model(x), (by_class + by_dist) / 2)


PROOFS = [
    same_as_timm,
    convolutions_of_one_pixel_are_linears,
    same_as_transformers,
    the_maps_are_timms,
    fusing_changes_nothing,
    layers_are_fused_as_torch_does,
    only_statistics_that_stand_still_are_fused,
    a_norm_counts_all_tokens_of_all_images,
    weights_by_a_loop,
    shrinking_is_attention_at_every_second_place,
    a_mirror_is_not_noticed,
    without_biases_and_with_its_widths_it_is_attention,
    new_blocks_change_nothing,
    a_smaller_map_uses_a_part_of_the_table,
    two_heads_read_the_mean,
]

distances, features = levit.distances, LeViT.features


def without_eps(bn):
    factor = bn.weight / bn.running_var.sqrt()
    return factor, bn.bias - bn.running_mean * factor


def mean_not_scaled(bn):
    factor = bn.weight / (bn.running_var + bn.eps).sqrt()
    return factor, bn.bias - bn.running_mean


def norm_of_each_image(self, x):
    return torch.stack([self.bn(tokens) for tokens in self.linear(x)])


def signed(grid, width, step=1):
    y, x = (torch.arange(side) for side in grid)
    dy, dx = y[::step, None] - y, x[::step, None] - x
    offset = dy[:, None, :, None] * width + dx[None, :, None, :]
    return offset.flatten(2).flatten(0, 1) % (grid[0] * width)


def only_their_sum(grid, width, step=1):
    offset = distances(grid, width, step)
    return offset // width + offset % width


def own_rows(grid, width, step=1):
    return distances(grid, grid[1], step)


def counted_in_steps(grid, width, step=1):
    (h, w), rows = grid, distances(grid, width)
    return rows.unflatten(0, grid)[: -(-h // step), : -(-w // step)].flatten(0, 1)


def by_columns(self, images):
    maps = features(self, images)
    return [map.flatten(2).unflatten(2, map.shape[:1:-1]).transpose(2, 3) for map in maps]


def divided_by_values(self, q, k, v, bias):
    return Attention.attend(self, q * (q.shape[-1] / v.shape[-1]) ** 0.5, k, v, bias)


def keys_before_queries(self, x, grid):
    qkv = self.qkv(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
    k, q, v = qkv.split([self.key, self.key, self.value], dim=-1)
    return q, k, v


def heads_last(self, x, grid):
    qkv = self.qkv(x).unflatten(-1, (-1, self.heads)).movedim(-1, 1)
    return qkv.split([self.key, self.key, self.value], dim=-1)


def added_to_its_input(self, x, grid):
    y = self.attn(x, grid)
    y = y + x[:, : y.shape[1], :1]
    return y + self.drop_path(self.mlp(y))


def gelu(self, x, grid=None):
    return self.fc2(nn.functional.gelu(self.fc1(x)))


def one_head(self, images):
    return self.two_logits(images)[0]


def fused_in_place(model):
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if hasattr(layer, "fused"):
                setattr(parent, name, layer.fused())
    return model


def max_pooled(self, images):
    x = self.features(images)[-1].amax(dim=(2, 3))
    return self.head(x), self.head_dist(x)


def not_a_branch(self, x):
    return 0.5 * x + 0.5


PLANTED = {
    "GELU in place of Hardswish": ((NormMlp, "forward", gelu), same_as_timm),
    "keys and queries exchanged": (
        (BiasedAttention, "project", keys_before_queries),
        same_as_timm,
    ),
    "what shrinks is added to its input": (
        (ShrinkBlock, "forward", added_to_its_input),
        same_as_timm,
    ),
    "scores divided by the width of values": (
        (BiasedAttention, "attend", divided_by_values),
        convolutions_of_one_pixel_are_linears,
    ),
    "channels of the heads interleaved": (
        (BiasedAttention, "project", heads_last),
        same_as_transformers,
    ),
    "maps by columns": ((LeViT, "features", by_columns), the_maps_are_timms),
    "fused without eps": ((levit, "factor_and_shift", without_eps), fusing_changes_nothing),
    "the mean is not scaled": (
        (levit, "factor_and_shift", mean_not_scaled),
        fusing_changes_nothing,
    ),
    "the model itself is fused": ((levit, "fuse", fused_in_place), fusing_changes_nothing),
    "one layer without eps": (
        (levit, "factor_and_shift", without_eps),
        layers_are_fused_as_torch_does,
    ),
    "fused in training mode": (
        (levit, "fuse", fused_in_place),
        only_statistics_that_stand_still_are_fused,
    ),
    "a norm for each image": (
        (LinearNorm, "forward", norm_of_each_image),
        a_norm_counts_all_tokens_of_all_images,
    ),
    "only |dy| + |dx| counts": ((levit, "distances", only_their_sum), weights_by_a_loop),
    "distances of those that ask in steps of two": (
        (levit, "distances", counted_in_steps),
        shrinking_is_attention_at_every_second_place,
    ),
    "offsets with a sign": ((levit, "distances", signed), a_mirror_is_not_noticed),
    "interleaved heads, no bias": (
        (BiasedAttention, "project", heads_last),
        without_biases_and_with_its_widths_it_is_attention,
    ),
    "branches that do not begin at zero": (
        (DropPath, "forward", not_a_branch),
        new_blocks_change_nothing,
    ),
    "rows of the table as long as those of the map": (
        (levit, "distances", own_rows),
        a_smaller_map_uses_a_part_of_the_table,
    ),
    "one head": ((LeViT, "forward", one_head), two_heads_read_the_mean),
    "the largest in place of the mean": (
        (LeViT, "two_logits", max_pooled),
        two_heads_read_the_mean,
    ),
}
