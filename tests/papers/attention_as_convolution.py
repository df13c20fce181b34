"""Attention as convolution: beside torch's convolution, beside a loop, and identities."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.proofs import equal, images, randomise
from vitcourse.config import Config
from vitcourse.papers import attention_as_convolution
from vitcourse.papers.attention_as_convolution import (
    QuadraticAttention,
    QuadraticViT,
    quadratic_encoding,
)
from vitcourse.vit import LearnedPosition

SIZES = Config(dim=18, depth=3, heads=9, patch=6, image=(18, 30), classes=7, mlp_ratio=2)
MODELS = {"quadratic": lambda: (QuadraticViT(SIZES), torch.randn(2, 3, 18, 30))}
OTHER_SIZES = {"quadratic": (24, 12)}
KERNELS = [((3, 3), (1, 1)), ((3, 5), (1, 1)), ((1, 3), (1, 2)), ((2, 3), (2, 1))]


def convolution(size, dilation=(1, 1), channels=(3, 5), padding="replicate"):
    """A convolution that keeps the size of the image, with random weights."""
    options = dict(dilation=dilation, padding="same", padding_mode=padding)
    return randomise(nn.Conv2d(*channels, size, **options)).double()


def on_map(layer, map):
    """An attention layer applied to the pixels of a map: (B, C, h, w) -> (B, D, h, w)."""
    x = layer(map.flatten(2).transpose(1, 2), map.shape[-2:])
    return x.transpose(1, 2).unflatten(2, map.shape[-2:])


def it_is_the_convolution():
    """Kernels of all sorts, and the gradients of the image and of the kernel."""
    for size, dilation in KERNELS:
        conv = convolution(size, dilation)
        layer = QuadraticAttention.like(conv)
        mine, other = (images(2, 3, 6, 7).requires_grad_() for _ in range(2))
        a, b = on_map(layer, mine), conv(other)
        direction = images(*b.shape, seed=1)
        (a * direction).sum().backward()
        (b * direction).sum().backward()
        equal(a, b, f"{size}")
        equal(mine.grad, other.grad, f"{size}, gradient of the image")
        kernel = conv.weight.grad.permute(0, 2, 3, 1).flatten(1)
        equal(layer.proj.weight.grad, kernel, f"{size}, gradient of the kernel")


def zeros_must_stand_outside():
    """With a frame of zeros it is the zero-padded convolution; without, only inside."""
    conv, x = convolution((3, 3), padding="zeros"), images(2, 3, 6, 7)
    layer, wanted = QuadraticAttention.like(conv), conv(x)
    equal(on_map(layer, F.pad(x, (1, 1, 1, 1)))[..., 1:-1, 1:-1], wanted)
    apart = (on_map(layer, x) - wanted).abs().amax(dim=(0, 1))
    assert apart[1:-1, 1:-1].max() < 1e-10 and apart[0].min() > 0.01 and apart[:, -1].min() > 0.01


def it_comes_nearer_as_alpha_grows():
    """The error falls by e^-alpha; at alpha = 0 all heads see the mean of the image."""
    conv, x = convolution((3, 3)), images(2, 3, 6, 7)
    errors = [(on_map(QuadraticAttention.like(conv, a), x) - conv(x)).abs().max() for a in (2, 8)]
    ratio = (errors[0] / errors[1]).log().item()
    assert 5 < ratio < 7, ratio
    flat = on_map(QuadraticAttention.like(conv, 1e-300), x)
    kernel = conv.weight.sum(dim=(2, 3))
    mean = x.mean(dim=(2, 3)) @ kernel.T + conv.bias
    equal(flat, mean[..., None, None].expand_as(flat))


def its_maps_are_bells():
    """The weight of each key, computed one by one from its distance to the place looked at."""
    layer, (h, w) = randomise(QuadraticAttention(6, 4)).double(), (3, 5)
    found = layer.weights(torch.zeros(2, 4, 15, 6), None, layer.bias((h, w)))
    wanted = torch.zeros(4, h * w, h * w).double()
    for head in range(4):
        down, right = layer.position_centre[head]
        alpha = layer.position_sharpness[head].exp()
        for query in range(h * w):
            for key in range(h * w):
                dy = key // w - query // w - down
                dx = key % w - query % w - right
                wanted[head, query, key] = (-alpha * (dy**2 + dx**2)).exp()
    equal(found, (wanted / wanted.sum(-1, keepdim=True)).expand(2, -1, -1, -1))


def it_is_linear_in_the_image():
    """Content decides nothing, so the layer without its bias adds and scales like a convolution."""
    layer = randomise(QuadraticAttention(6, 4)).double()
    a, b, grid = images(2, 15, 6), images(2, 15, 6, seed=1), (3, 5)
    nothing = layer(0 * a, grid)
    equal(layer(2 * a - 3 * b, grid) - nothing, 2 * layer(a, grid) - 3 * layer(b, grid) + nothing)


def a_vit_with_heads_on_a_grid_is_a_convolutional_network():
    """The whole model, with nn.Conv2d in place of its attention."""
    ours = randomise(QuadraticViT(SIZES)).double()
    x = images(2, 3, 18, 30)
    convs = [convolution((3, 3), channels=(18, 18)) for _ in ours.blocks]
    for block, conv in zip(ours.blocks, convs, strict=True):
        block.attn = QuadraticAttention.like(conv)
    y = ours.patch_embed.proj(x)  # (B, D, h, w)
    for block, conv in zip(ours.blocks, convs, strict=True):
        normed = block.norm1(y.movedim(1, -1)).movedim(-1, 1)
        y = y + conv(normed)
        y = y + block.mlp(block.norm2(y.movedim(1, -1))).movedim(-1, 1)
    y = ours.norm(y.movedim(1, -1)).mean(dim=(1, 2))
    equal(ours(x), F.linear(y, ours.head.weight, ours.head.bias))


PROOFS = [
    it_is_the_convolution,
    zeros_must_stand_outside,
    it_comes_nearer_as_alpha_grows,
    its_maps_are_bells,
    it_is_linear_in_the_image,
    a_vit_with_heads_on_a_grid_is_a_convolutional_network,
]

bias, like = QuadraticAttention.bias, QuadraticAttention.like


def on_the_other_side(self, grid):
    return bias(self, grid).transpose(-2, -1)


def on_a_torus(grid):
    size = torch.tensor(grid)
    r = (quadratic_encoding(grid)[..., 1:] + size // 2) % size - size // 2
    return torch.cat([r.square().sum(dim=-1, keepdim=True), r], dim=-1)


def sharpness_as_it_is(self, grid):
    alpha = self.position_sharpness[:, None, None]
    return bias(self, grid) / alpha.exp() * alpha


def kernel_turned(conv, alpha=60.0):
    layer = like(conv, alpha)
    layer.proj.weight.data.copy_(conv.weight.permute(0, 3, 2, 1).flatten(1))
    return layer


def mirrored(conv, alpha=60.0):
    layer = like(conv, alpha)
    layer.position_centre.data.neg_()
    return layer


def with_content(self, q, k, bias):
    return (bias + q @ k.transpose(-2, -1)).softmax(dim=-1)


PLANTED = {
    "query minus key": ((QuadraticAttention, "bias", on_the_other_side), it_is_the_convolution),
    "columns of the kernel before rows": (
        (QuadraticAttention, "like", kernel_turned),
        it_is_the_convolution,
    ),
    "the left edge looks at the right one": (
        (attention_as_convolution, "quadratic_encoding", on_a_torus),
        it_is_the_convolution,
    ),
    "the kernel upside down": ((QuadraticAttention, "like", mirrored), zeros_must_stand_outside),
    "alpha grows half as fast": (
        (QuadraticAttention, "bias", lambda self, grid: 0.5 * bias(self, grid)),
        it_comes_nearer_as_alpha_grows,
    ),
    "alpha is not its logarithm's exponential": (
        (QuadraticAttention, "bias", sharpness_as_it_is),
        its_maps_are_bells,
    ),
    "the softmax runs over the queries": (
        (
            QuadraticAttention,
            "weights",
            lambda self, q, k, b: b.softmax(-2).expand(len(q), -1, -1, -1),
        ),
        its_maps_are_bells,
    ),
    "content takes part": (
        (QuadraticAttention, "weights", with_content),
        it_is_linear_in_the_image,
    ),
    "positions are added to the tokens": (
        (QuadraticViT, "Position", LearnedPosition),
        a_vit_with_heads_on_a_grid_is_a_convolutional_network,
    ),
}
