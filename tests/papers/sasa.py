"""SASA: beside the formula as a loop over pixels, beside HaloAttn, and identities."""

import torch
import torch.nn.functional as F
from timm.layers.halo_attn import HaloAttn
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from tests.proofs import TOLERANCE, equal, images, randomise
from vitcourse.papers.sasa import BORDERS, LocalAttention, SasaResNet, Sizes
from vitcourse.vit import Attention

SMALL = Sizes(blocks=(1, 2, 1, 1), width=16, heads=4, window=5, classes=7)
MASKED = Sizes(blocks=(1, 1, 1, 1), width=16, heads=2, window=3, border="masked", classes=7)
MODELS = {
    "zero": lambda: (SasaResNet(SMALL), torch.randn(2, 3, 64, 96)),
    "masked": lambda: (SasaResNet(MASKED), torch.randn(2, 3, 96, 64)),
}
OTHER_SIZES = {"zero": (75, 130), "masked": (66, 90)}
COUNTS = {"sasa_resnet_50": 18_015_504}


def layer_of(*args, **options):
    """A local attention with random weights, in float64."""
    return randomise(LocalAttention(*args, **options)).double()


def by_a_loop(layer, x):
    """The paper's formula, one pixel, one head and one neighbour at a time."""
    q, k, v = torch.einsum("oc,bchw->bohw", layer.qkv.weight[:, :, 0, 0], x).chunk(3, dim=1)
    _, D, h, w = x.shape
    d, reach, out = D // layer.heads, layer.window // 2, torch.zeros_like(x)
    for head in range(layer.heads):
        mine = slice(head * d, (head + 1) * d)
        for i in range(h):
            for j in range(w):
                query, scores, values = q[:, mine, i, j], [], []
                for a in range(i - reach, i + reach + 1):
                    for b in range(j - reach, j + reach + 1):
                        inside = 0 <= a < h and 0 <= b < w
                        if not inside and layer.border == "masked":
                            continue
                        key = k[:, mine, a, b] if inside else torch.zeros_like(query)
                        row = layer.position_rows[a - i + reach]
                        column = layer.position_columns[b - j + reach]
                        r = torch.cat([row, column])
                        scores.append((query * key).sum(1) + query @ r)
                        values.append(v[:, mine, a, b] if inside else torch.zeros_like(query))
                weights = torch.stack(scores).softmax(dim=0)  # (neighbours, B)
                out[:, mine, i, j] = (weights[..., None] * torch.stack(values)).sum(0)
    return out


def same_as_a_loop_over_pixels():
    """Output and all gradients, for both borders."""
    for border in BORDERS:
        layer, x = layer_of(12, 3, window=3, border=border), images(2, 12, 4, 5)
        direction = images(2, 12, 4, 5, seed=1)
        found = []
        for run in (layer, lambda x: by_a_loop(layer, x)):  # noqa: B023
            out = run(x)
            gradients = torch.autograd.grad((out * direction).sum(), list(layer.parameters()))
            found.append([out, *gradients])
        for mine, theirs in zip(*found, strict=True):
            equal(mine, theirs, border)


def same_as_halo_attention():
    """timm's HaloAttn, with blocks of one pixel.

    It divides by sqrt(d), and its two tables are as wide as a head: half of each is set to zero.
    """
    K, d, s = 4, 8, 3
    for dtype, tolerance in TOLERANCE.items():
        theirs = HaloAttn(K * d, num_heads=K, block_size=1, halo_size=1, scale_pos_embed=True)
        theirs, ours = theirs.to(dtype), randomise(LocalAttention(K * d, K, s)).to(dtype)
        ours.scale = d**-0.5
        q, k, v = ours.qkv.weight.chunk(3)
        with torch.no_grad():
            theirs.q.weight.copy_(q)
            kv = torch.cat([k.unflatten(0, (K, d)), v.unflatten(0, (K, d))], dim=1)
            theirs.kv.weight.copy_(kv.flatten(0, 1))
            for table, part, mine in (
                (theirs.pos_embed.height_rel, slice(0, d // 2), ours.position_rows),
                (theirs.pos_embed.width_rel, slice(d // 2, d), ours.position_columns),
            ):
                table.zero_()
                table[s - 1 :, part] = mine
        mine, other = (images(2, K * d, 5, 7, dtype=dtype).requires_grad_() for _ in range(2))
        a, b = ours(mine), theirs(other)
        a.square().sum().backward()
        b.square().sum().backward()
        equal(a, b, "output", tolerance)
        equal(mine.grad, other.grad, "gradient of the images", 10 * tolerance)
        rows = theirs.pos_embed.height_rel.grad[s - 1 :, : d // 2]
        equal(ours.position_rows.grad, rows, "gradient of the rows", 10 * tolerance)


def queries_of_zero_average_the_values():
    """Zeros beyond the border take part in the mean, masked pixels do not."""
    for border in BORDERS:
        layer, x = layer_of(12, 3, window=5, border=border), images(2, 12, 6, 7)
        with torch.no_grad():
            layer.qkv.weight[:12] = 0
        values = F.conv2d(x, layer.qkv.weight[24:])
        equal(layer(x), F.avg_pool2d(values, 5, 1, 2, count_include_pad=border == "zero"))


def a_window_over_the_whole_image_is_attention():
    """Without positions, with masked borders, and with attention's scale."""
    layer, plain = layer_of(12, 3, window=13, border="masked"), Attention(12, 3).double()
    layer.scale, x = plain.scale, images(2, 12, 5, 7)
    with torch.no_grad():
        layer.position_rows.zero_()
        layer.position_columns.zero_()
        plain.qkv.weight.copy_(layer.qkv.weight[:, :, 0, 0])
        plain.qkv.bias.zero_()
        plain.proj.weight.copy_(torch.eye(12))
        plain.proj.bias.zero_()
    wanted = plain(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (5, 7))
    equal(layer(x), wanted)


def only_positions_tell_the_order_in_a_window():
    """The middle pixel does not notice that its neighbours are shuffled, but for the tables."""
    layer, x = layer_of(12, 3, window=3), images(2, 12, 3, 3)
    order = torch.tensor([2, 0, 5, 7, 4, 1, 8, 3, 6])  # pixel 4, the query, stays
    shuffled = x.flatten(2)[..., order].unflatten(2, (3, 3))
    with torch.no_grad():
        assert (layer(shuffled) - layer(x))[..., 1, 1].abs().max() > 0.01
        layer.position_rows.zero_()
        layer.position_columns.zero_()
        equal(layer(shuffled)[..., 1, 1], layer(x)[..., 1, 1])


def nothing_comes_from_outside_the_window():
    """The gradient of one output pixel reaches s x s pixels."""
    for border in BORDERS:
        layer, x = layer_of(12, 3, window=5, border=border), images(2, 12, 9, 8).requires_grad_()
        layer(x)[:, :, 3, 4].sum().backward()
        reached = x.grad.abs().amax(dim=(0, 1)) > 0
        wanted = torch.zeros(9, 8, dtype=torch.bool)
        wanted[1:6, 2:7] = True
        assert torch.equal(reached, wanted)


def a_window_of_one_pixel_leaves_a_resnet():
    """With values that are the pixels, the model is torchvision's, its 3x3 kernels set by hand.

    Where the map shrinks, a kernel of four quarters is the mean over 2 x 2 pixels.
    """
    sizes = Sizes(blocks=(1, 2, 1, 1), width=16, heads=4, window=1, classes=7)
    ours = randomise(SasaResNet(sizes)).double()
    plain = ResNet(Bottleneck, sizes.blocks, 7, width_per_group=16).double().eval()
    for module in ours.modules():
        if isinstance(module, LocalAttention):
            D = module.qkv.in_channels
            module.qkv.weight.data[2 * D :, :, 0, 0] = torch.eye(D)
    kernels = {name: t for name, t in plain.state_dict().items() if "conv2.weight" in name}
    shared = {name: t for name, t in ours.state_dict().items() if "conv2" not in name}
    plain.load_state_dict({**shared, **kernels})
    for block in plain.modules():
        if isinstance(block, Bottleneck):
            nn.init.dirac_(block.conv2.weight)
            if block.conv2.stride == (2, 2):
                middle = block.conv2.weight.data[:, :, 1:2, 1:2] / 4
                block.conv2.weight.data[:, :, 1:, 1:] = middle
    x = images(2, 3, 64, 96)
    equal(ours(x), plain(x))


PROOFS = [
    same_as_a_loop_over_pixels,
    same_as_halo_attention,
    queries_of_zero_average_the_values,
    a_window_over_the_whole_image_is_attention,
    only_positions_tell_the_order_in_a_window,
    nothing_comes_from_outside_the_window,
    a_window_of_one_pixel_leaves_a_resnet,
]

project, offsets, attend = LocalAttention.project, LocalAttention.offsets, LocalAttention.attend


def positions_on_values(self, x, grid):
    q, k, v = project(self, x, grid)
    return q, k - offsets(self), v + offsets(self)


def divided(self, q, k, v, bias):
    return attend(self, q * q.shape[-1] ** -0.5, k, v, bias)


def columns_first(self):
    return offsets(self).roll(self.position_rows.shape[1], dims=-1)


def dilated(self, map, side):
    x = F.unfold(map, side, padding=side // 2 * 2, dilation=2)
    x = x.unflatten(1, (self.heads, -1, side * side))
    return x.permute(0, 4, 1, 3, 2).flatten(0, 1)


def heads_interleaved(self, map, side):
    x = F.unfold(map, side, padding=side // 2)
    x = x.unflatten(1, (-1, self.heads, side * side)).transpose(1, 2)
    return x.permute(0, 4, 1, 3, 2).flatten(0, 1)


PLANTED = {
    "scores divided by sqrt(d)": ((LocalAttention, "attend", divided), same_as_a_loop_over_pixels),
    "positions on the values, as a published port": (
        (LocalAttention, "project", positions_on_values),
        same_as_a_loop_over_pixels,
    ),
    "columns before rows": ((LocalAttention, "offsets", columns_first), same_as_a_loop_over_pixels),
    "offsets from key to query": (
        (LocalAttention, "offsets", lambda self: offsets(self).flip(0)),
        same_as_halo_attention,
    ),
    "the border is never masked": (
        (LocalAttention, "bias", lambda self, grid: None),
        queries_of_zero_average_the_values,
    ),
    "channels of the heads interleaved": (
        (LocalAttention, "cut", heads_interleaved),
        a_window_over_the_whole_image_is_attention,
    ),
    "no positions": (
        (LocalAttention, "offsets", lambda self: 0 * offsets(self)),
        only_positions_tell_the_order_in_a_window,
    ),
    "a window with gaps": ((LocalAttention, "cut", dilated), nothing_comes_from_outside_the_window),
    "the largest of four pixels in place of their mean": (
        (nn, "AvgPool2d", nn.MaxPool2d),
        a_window_of_one_pixel_leaves_a_resnet,
    ),
}
