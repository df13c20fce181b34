"""BotNet: beside torchvision's ResNet with timm's attention, loops, and identities."""

import torch
import torch.nn.functional as F
from timm.layers.bottleneck_attn import BottleneckAttn
from torch import nn
from torchvision.models import resnet50
from torchvision.models.resnet import Bottleneck, ResNet

from tests.proofs import equal, images, randomise, same_as
from vitcourse import papers
from vitcourse.papers import botnet
from vitcourse.papers.botnet import BotNet, MapAttention, Sizes
from vitcourse.vit import Attention

SIZES = Sizes(blocks=(1, 2, 1, 3), width=8, heads=4, image=(64, 96), classes=7)
MODELS = {"small": lambda: (BotNet(SIZES), torch.randn(2, 3, 64, 96))}
OTHER_SIZES = {"small": (50, 33)}
COUNTS = {"botnet_50": 20_852_008}


def same_as_timms_attention():
    """With and without a stride. timm scales what positions add only if it is told to."""
    for stride in (1, 2):
        options = dict(feat_size=(6, 4), stride=stride, num_heads=4, scale_pos_embed=True)
        theirs, ours = BottleneckAttn(32, **options), MapAttention(32, 4, (6, 4), stride)
        ours.layouts = BotNet.layouts
        same_as(theirs, ours, images(2, 32, 6, 4))


def same_as_torchvision_with_timms_attention():
    """Maps of 4x6 and 2x3 places. Random weights let numbers grow, so float32 is not compared."""
    theirs = ResNet(Bottleneck, SIZES.blocks, 7, width_per_group=SIZES.width)
    for block, size in zip(theirs.layer4, ((4, 6), (2, 3), (2, 3)), strict=True):
        dim, stride = block.conv2.in_channels, block.conv2.stride[0]
        options = dict(feat_size=size, stride=stride, num_heads=4, scale_pos_embed=True)
        block.conv2 = BottleneckAttn(dim, **options)
    ours = BotNet(SIZES)
    stages = [
        [m.layer1, m.layer2, m.layer3, *(block.conv2 for block in m.layer4), m.layer4]
        for m in (ours, theirs)
    ]
    same_as(theirs, ours, images(2, 3, 64, 96), stages, dtypes=(torch.float64,))


def layer_of(grid=(4, 5), **options):
    """Attention with random weights, of 3 heads of 4 channels, in float64."""
    return randomise(MapAttention(12, 3, grid, **options)).double()


def same_as_loops_over_queries_and_keys():
    """q.(k + r_h + r_w), divided by two, the root of four channels; offsets from query to key."""
    layer, x = layer_of(), images(2, 12, 4, 5)
    q, k, v = torch.einsum("oc,bchw->bohw", layer.qkv.weight[:, :, 0, 0], x).chunk(3, dim=1)
    wanted = torch.zeros(2, 12, 4, 5).double()
    places = [(y, z) for y in range(4) for z in range(5)]
    for head in range(3):
        mine = slice(4 * head, 4 * head + 4)
        for y, z in places:
            scores = []
            for j, i in places:
                row, column = layer.position_rows[j - y + 3], layer.position_columns[i - z + 4]
                key = k[:, mine, j, i] + row + column
                scores.append((q[:, mine, y, z] * key).sum(dim=1) / 2)
            weights = torch.stack(scores, dim=1).softmax(dim=1)  # (B, N)
            wanted[:, mine, y, z] = (v[:, mine].flatten(2) * weights[:, None]).sum(dim=2)
    equal(layer(x), wanted)


def tables_of_zeros_leave_attention():
    """Without biases, and with nothing after the heads."""
    layer, plain, x = layer_of(), Attention(12, 3).double(), images(2, 12, 4, 5)
    with torch.no_grad():
        plain.qkv.weight.copy_(layer.qkv.weight[:, :, 0, 0])
        plain.qkv.bias.zero_()
        nn.init.eye_(plain.proj.weight)
        plain.proj.bias.zero_()
    wanted = plain(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (4, 5))
    assert (layer(x) - wanted).abs().max() > 0.01
    nn.init.zeros_(layer.position_rows)
    nn.init.zeros_(layer.position_columns)
    equal(layer(x), wanted)


def only_positions_know_the_order():
    """Without them, the places of the map are a set: shuffled, they give a shuffled map."""
    layer, x, order = layer_of(), images(2, 12, 4, 5), torch.randperm(20)

    def shuffled(map):
        return map.flatten(2)[..., order].unflatten(2, (4, 5))

    assert (layer(shuffled(x)) - shuffled(layer(x))).abs().max() > 0.01
    nn.init.zeros_(layer.position_rows)
    nn.init.zeros_(layer.position_columns)
    equal(layer(shuffled(x)), shuffled(layer(x)))


def what_positions_add_moves_with_the_map():
    """One row down and two columns to the right: the same scores there, between the same places."""
    layer, q = layer_of(), images(2, 3, 20, 4)
    moved = q.unflatten(2, (4, 5)).roll((1, 2), (2, 3)).flatten(2, 3)
    before = layer.relative(q, (4, 5)).unflatten(3, (4, 5)).unflatten(2, (4, 5))
    after = layer.relative(moved, (4, 5)).unflatten(3, (4, 5)).unflatten(2, (4, 5))
    equal(after[:, :, 1:, 2:, 1:, 2:], before[:, :, :3, :3, :3, :3])
    assert (after[:, :, 1:, 2:] - before[:, :, :3, :3]).abs().max() > 0.1


def one_row_and_one_column_add_up():
    """What is added has no term of its own for a pair of row and column."""
    layer, q = layer_of(), images(2, 3, 20, 4)
    added = layer.relative(q, (4, 5)).unflatten(3, (4, 5))  # (B, K, N, h, w)
    rows, columns = added.mean(dim=4, keepdim=True), added.mean(dim=3, keepdim=True)
    equal(added, rows + columns - added.mean(dim=(3, 4), keepdim=True))
    assert rows.var() > 0.01 and columns.var() > 0.01


def a_smaller_map_takes_the_middle_of_the_tables():
    """A larger one is refused: nothing was learned for places that far apart."""
    large, small = layer_of((6, 8)), layer_of((4, 5))
    with torch.no_grad():
        small.qkv.load_state_dict(large.qkv.state_dict())
        small.position_rows.copy_(large.position_rows[2:-2])
        small.position_columns.copy_(large.position_columns[3:-3])
    x = images(2, 12, 4, 5)
    equal(large(x), small(x))
    try:
        small(images(2, 12, 4, 6))
        refused = ""
    except ValueError as error:
        refused = str(error)
    assert refused.startswith("a side of the map has 6 places, positions are for 5")


def a_stride_is_a_mean_after_attention():
    """Over two by two places; at an odd border, over those that there are."""
    layer, x = layer_of(stride=2), images(2, 12, 4, 5)
    layer.pool, pool = nn.Identity(), layer.pool
    full = layer(x)
    layer.pool = pool
    equal(layer(x)[..., :2], F.avg_pool2d(full, 2))
    equal(layer(x)[..., 2], full[..., 4].unflatten(2, (2, 2)).mean(dim=3))


def c5_sees_all_of_the_map():
    """One place of its first layer gets something from everywhere; of a convolution, from 3x3."""
    x = images(2, 12, 4, 5).requires_grad_()
    for layer, count in ((layer_of(), 20), (nn.Conv2d(12, 12, 3, padding=1).double(), 9)):
        (gradient,) = torch.autograd.grad(layer(x)[:, :, 1, 2].square().sum(), x)
        assert (gradient.abs().amax(dim=(0, 1)) > 0).sum() == count


def three_convolutions_change_and_nothing_else():
    """Of the 16 convolutions of 3x3 in a ResNet-50, those of c5; all other tensors are as large."""
    with torch.device("meta"):
        theirs, ours = resnet50(), papers.build("botnet_50")
    kernels = {name for name, m in theirs.named_modules() if getattr(m, "kernel_size", 0) == (3, 3)}
    attention = {name for name, m in ours.named_modules() if isinstance(m, Attention)}
    assert len(kernels) == 16 and attention == {f"layer4.{i}.conv2" for i in range(3)}
    before, after = (
        {n: t.shape for n, t in m.state_dict().items() if not n.startswith(tuple(attention))}
        for m in (theirs, ours)
    )
    assert before == after and attention < kernels


def the_maps_are_what_the_head_reads():
    """Four of them; the logits are the mean of the last, through the Linear."""
    model, x = randomise(BotNet(SIZES)).double(), images(2, 3, 64, 96)
    maps = model.features(x)
    assert [tuple(map.shape[1:]) for map in maps] == [
        (width, 16 // n, 24 // n) for n, width in ((1, 256), (2, 512), (4, 1024), (8, 2048))
    ]
    for map, before, stage in zip(
        maps[1:], maps, (model.layer2, model.layer3, model.layer4), strict=False
    ):
        equal(map, stage(before))
    equal(model(x), model.fc(maps[-1].mean(dim=(2, 3))))


PROOFS = [
    same_as_timms_attention,
    same_as_torchvision_with_timms_attention,
    same_as_loops_over_queries_and_keys,
    tables_of_zeros_leave_attention,
    only_positions_know_the_order,
    what_positions_add_moves_with_the_map,
    one_row_and_one_column_add_up,
    a_smaller_map_takes_the_middle_of_the_tables,
    a_stride_is_a_mean_after_attention,
    c5_sees_all_of_the_map,
    three_convolutions_change_and_nothing_else,
    the_maps_are_what_the_head_reads,
]

build, forward, relative = MapAttention.build, MapAttention.forward, MapAttention.relative
between, features, with_attention = MapAttention.between, BotNet.features, botnet.with_attention


def not_scaled(self, q, grid):
    return relative(self, q, grid) / self.scale


def query_minus_key(self, table, side, most):
    return between(self, table, side, most).transpose(0, 1)


def rows_as_columns(self, q, grid):
    return relative(self, q, grid).unflatten(3, grid).transpose(3, 4).flatten(3)


def by_place_of_the_key(self, table, side, most):
    return between(self, table, side, most)[:1].expand(side, -1, -1)


def from_the_start(self, table, side, most):
    return between(self, table, side, side)


def one_more_for_pairs(self, q, grid):
    added = relative(self, q, grid)
    return added + added.square()


def scale_of_the_width(self, dim):
    build(self, dim)
    self.scale = dim**-0.5


def pooled_before(self, x, grid=None):
    self.pool, pool = nn.Identity(), self.pool
    return forward(self, pool(x))


def next_to_it(self, q, grid):
    added, (h, w) = relative(self, q, grid), grid
    y, x = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)
    far = ((y[:, None] - y).abs() > 1) | ((x[:, None] - x).abs() > 1)
    return added.masked_fill(far, -torch.inf)


def wider(block, heads, grid):
    block.conv1 = nn.Conv2d(block.conv1.in_channels, block.conv1.out_channels, 3, padding=1)
    return with_attention(block, heads, grid)


def before_each_stage(self, images):
    maps = features(self, images)
    return [self.maxpool(self.relu(self.bn1(self.conv1(images)))), *maps[:-1]]


PLANTED = {
    "positions are not scaled, as timm's default": (
        (MapAttention, "relative", not_scaled),
        same_as_timms_attention,
    ),
    "offsets from key to query": (
        (MapAttention, "between", query_minus_key),
        same_as_torchvision_with_timms_attention,
    ),
    "rows and columns exchanged": (
        (MapAttention, "relative", rows_as_columns),
        same_as_loops_over_queries_and_keys,
    ),
    "scores divided by sqrt(D)": (
        (MapAttention, "build", scale_of_the_width),
        tables_of_zeros_leave_attention,
    ),
    "positions of keys": (
        (MapAttention, "between", by_place_of_the_key),
        what_positions_add_moves_with_the_map,
    ),
    "a term for pairs": (
        (MapAttention, "relative", one_more_for_pairs),
        one_row_and_one_column_add_up,
    ),
    "the first rows of the tables": (
        (MapAttention, "between", from_the_start),
        a_smaller_map_takes_the_middle_of_the_tables,
    ),
    "the mean before attention": (
        (MapAttention, "forward", pooled_before),
        a_stride_is_a_mean_after_attention,
    ),
    "only neighbours": ((MapAttention, "relative", next_to_it), c5_sees_all_of_the_map),
    "no order at all": (
        (MapAttention, "relative", lambda self, q, grid: 0 * relative(self, q, grid)),
        only_positions_know_the_order,
    ),
    "another convolution changes": (
        (botnet, "with_attention", wider),
        three_convolutions_change_and_nothing_else,
    ),
    "what enters each stage": (
        (BotNet, "features", before_each_stage),
        the_maps_are_what_the_head_reads,
    ),
}
