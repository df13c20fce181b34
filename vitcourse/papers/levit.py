"""LeViT, faithful to the published models: a ViT built to be fast once it is trained.

LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference, Graham et al. 2021,
https://arxiv.org/abs/2104.01136

The question: how must a ViT be built if the time per image counts, and not multiplications? The
changes: four convolutions shrink the image 16 times; three stages of blocks follow, and between two
stages attention itself shrinks the map, for only every second place of each side asks. Keys are
narrow, values wide. Positions are a number for each head and each distance |dy|, |dx|, added to the
scores. Each Linear and convolution has a BatchNorm in place of its bias, and no LayerNorm stands
anywhere: `fuse` makes one layer of the two, and a finished model has no norm left. The last map is
averaged, and two heads read it, for labels and for a teacher; the answer is their mean.

Hardswish is the activation, before the last layer of attention too. A 1x1 convolution on the map
would be the same function as a Linear on the tokens: timm has both, and both load here.
"""

import copy
import math
import re
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.config import grid_of
from vitcourse.papers import Paper, Published
from vitcourse.vit import Attention, Block, PatchEmbed, init_weights
from vitcourse.weights import rename

# A layer and its BatchNorm ----------------------------------------------------------------------


class LinearNorm(nn.Module):
    """A Linear, and a BatchNorm over all tokens of all images: (B, T, C) -> (B, T, D)."""

    def __init__(self, inputs, outputs, gamma=1.0):
        super().__init__()
        self.linear, self.bn = nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)
        nn.init.constant_(self.bn.weight, gamma)

    def forward(self, x):
        x = self.linear(x)
        return self.bn(x.flatten(0, 1)).view_as(x)

    def fused(self):
        """One Linear that does the same in evaluation."""
        factor, shift = factor_and_shift(self.bn)
        return with_numbers(self.linear, factor[:, None] * self.linear.weight, shift)


class ConvNorm(nn.Module):
    """A 3x3 convolution that halves the map, and a BatchNorm: (B, C, h, w) -> (B, D, h/2, w/2)."""

    def __init__(self, channels, out):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x):
        return self.bn(self.conv(x))

    def fused(self):
        """One convolution that does the same in evaluation."""
        factor, shift = factor_and_shift(self.bn)
        return with_numbers(self.conv, factor[:, None, None, None] * self.conv.weight, shift)


class NormLinear(nn.Module):
    """A BatchNorm, and a Linear behind it: (B, D) -> (B, classes)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.bn, self.linear = nn.BatchNorm1d(inputs), nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.linear(self.bn(x))

    def fused(self):
        """One Linear that does the same in evaluation."""
        factor, shift = factor_and_shift(self.bn)
        weight, bias = self.linear.weight, self.linear.bias
        return with_numbers(self.linear, weight * factor, bias + weight @ shift)


def factor_and_shift(bn):
    """What a BatchNorm does in evaluation, x * factor + shift: two of (C,)."""
    factor = bn.weight / (bn.running_var + bn.eps).sqrt()
    return factor, bn.bias - bn.running_mean * factor


def with_numbers(layer, weight, bias):
    """A copy of a layer with another weight and bias."""
    layer = copy.deepcopy(layer)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


@torch.no_grad()
def fuse(model):
    """A copy of a model in evaluation mode, without norms: same outputs, less to compute."""
    if any(module.training for module in model.modules()):
        raise ValueError("only a model in evaluation mode can be fused: call model.eval() first")
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if hasattr(layer, "fused"):
                setattr(parent, name, layer.fused())
    return model


# The parts --------------------------------------------------------------------------------------


class Stem(PatchEmbed):
    """Convolutions that each halve the image: (B, C, H, W) -> x (B, N, D), grid.

    `patch`, a power of two, is how much they shrink it in all.
    """

    def __init__(self, channels, dim, patch):
        count = patch.bit_length() - 1
        if patch < 2 or patch != 2**count:
            raise ValueError(f"patch is {patch}: the stem halves, so it must be 2, 4, 8, 16, ...")
        super().__init__(channels, dim, patch)
        layers = OrderedDict()
        for i in reversed(range(count)):  # the last one makes dim channels
            layers[f"conv{count - i}"] = ConvNorm(channels, dim // 2**i)
            if i:
                layers[f"act{count - i}"] = nn.Hardswish()
            channels = dim // 2**i
        self.proj = nn.Sequential(layers)


class BiasedAttention(Attention):
    """Attention with narrow keys, wide values and a bias by distance: x (B, N, D), grid -> x."""

    wide = 2  # a value is as wide as that many keys
    step = 1  # how far apart the places are that ask

    def __init__(self, dim, out, heads, key, grid):
        super().__init__(heads * key, heads)
        self.grid, self.key, self.value = grid, key, self.wide * key
        self.make(dim, heads * self.key, heads * self.value, out)
        self.position_table = nn.Parameter(torch.zeros(heads, *grid))
        offset = distances(grid, grid[1], self.step)
        self.register_buffer("offset", offset, persistent=False)

    def build(self, dim):
        """Nothing: `make` knows all widths."""

    def make(self, dim, keys, values, out):
        """Make the layers: `dim` and `out` are as wide as tokens, the others as all heads."""
        self.qkv = LinearNorm(dim, 2 * keys + values)
        # the branch begins at zero: a new block changes nothing
        ln = LinearNorm(values, out, gamma=0.0)
        self.proj = nn.Sequential(OrderedDict(act=nn.Hardswish(), ln=ln))

    def project(self, x, grid):
        qkv = self.qkv(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, K, N, width)
        return qkv.split([self.key, self.key, self.value], dim=-1)

    def bias(self, grid):
        """What each head adds for the distance of each key (1, K, T, N)."""
        offset = self.offset
        if grid != self.grid:
            if grid[0] > self.grid[0] or grid[1] > self.grid[1]:
                raise ValueError(
                    f"a map of {grid[0]}x{grid[1]} has distances that this model, built for "
                    f"{self.grid[0]}x{self.grid[1]}, never learned: build it with a larger `image`"
                )
            offset = distances(grid, self.grid[1], self.step).to(offset.device)
        # on a CPU several times as fast as table[:, offset]
        table = self.position_table.flatten(1).index_select(1, offset.flatten())
        return table.unflatten(1, offset.shape)[None]


def distances(grid, width, step=1):
    """For each place that asks and each place, where |dy|, |dx| stand in a flat table: ints (T, N).

    A row of the table has `width` numbers; `step` is how far apart the places are that ask.
    """
    y, x = (torch.arange(side) for side in grid)
    dy = (y[::step, None] - y).abs()  # (t, h)
    dx = (x[::step, None] - x).abs()  # (u, w)
    offset = dy[:, None, :, None] * width + dx[None, :, None, :]  # (t, u, h, w)
    return offset.flatten(2).flatten(0, 1)


class ShrinkAttention(BiasedAttention):
    """Attention in which every second place of each side asks: x (B, N, C), grid -> x (B, T, D)."""

    wide, step = 4, 2

    def make(self, dim, keys, values, out):
        self.q, self.kv = LinearNorm(dim, keys), LinearNorm(dim, keys + values)
        ln = LinearNorm(values, out)
        self.proj = nn.Sequential(OrderedDict(act=nn.Hardswish(), ln=ln))

    def project(self, x, grid):
        asking = x.unflatten(1, grid)[:, :: self.step, :: self.step].flatten(1, 2)  # (B, T, C)
        q = self.q(asking).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, K, T, k)
        kv = self.kv(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, K, N, width)
        return q, *kv.split([self.key, self.value], dim=-1)


class NormMlp(nn.Module):
    """Two layers for every token, each with its BatchNorm: x (B, T, D), grid -> x (B, T, D)."""

    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = LinearNorm(dim, hidden), LinearNorm(hidden, dim, gamma=0.0)

    def forward(self, x, grid=None):
        return self.fc2(F.hardswish(self.fc1(x)))  # (B, T, D)


class BareBlock(Block):
    """A block without norms of its own."""

    def __init__(self, dim, attn, drop_path):
        super().__init__(dim, attn, NormMlp(dim, 2 * dim), drop_path)
        self.norm1, self.norm2 = nn.Identity(), nn.Identity()


class ShrinkBlock(BareBlock):
    """A block that makes a quarter of the tokens: x (B, N, C), grid -> x (B, T, D).

    Nothing can be added to what attention returns, for there are fewer tokens, and they are wider.
    """

    def forward(self, x, grid):
        x = self.attn(x, grid)  # (B, T, D)
        return x + self.drop_path(self.mlp(x))  # (B, T, D)


# Published weights ------------------------------------------------------------------------------


def from_timm(state, model):
    """timm's names, of its models of Linears and of 1x1 convolutions."""
    rules = [
        (r"^stem\.(conv\d)\.linear\.", r"patch_embed.proj.\1.conv."),
        (r"^stem\.", "patch_embed.proj."),
        (r"\.downsample\.attn_downsample\.q\.ln\.", ".shrink.attn.q."),
        (r"\.downsample\.attn_downsample\.", ".shrink.attn."),
        (r"\.downsample\.", ".shrink."),
    ]
    state = {re.sub(r"\.mlp\.ln([12])\.", r".mlp.fc\1.", n): t for n, t in state.items()}
    return reshaped(rename(rules)(state, model), model)


def from_transformers(state, model):
    """transformers' names. There, a stage ends with what shrinks its map."""
    depths = model.cfg.depths

    def layer(match):
        s, number = int(match[1]), int(match[2])
        if number < 2 * depths[s]:  # attention and MLP in turn
            place, number = f"stages.{s}.blocks.{number // 2}", number % 2
        else:
            place, number = f"stages.{s + 1}.shrink", number - 2 * depths[s]
        return f"{place}.{('attn', 'mlp')[number]}."

    names = {
        "batch_norm": "bn",
        "convolution": "conv",
        "queries_keys_values": "qkv",
        "keys_values": "kv",
        "queries": "q",
        "projection": "proj.ln",
        "linear_up": "fc1",
        "linear_down": "fc2",
        "classifier_distill": "head_dist",
        "classifier": "head",
    }
    rules = [
        (r"^levit\.patch_embeddings\.embedding_layer_", "patch_embed.proj.conv"),
        (r"^levit\.encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:module\.)?", layer),
    ]
    ours = {}
    for name, tensor in rename(rules)(state, model).items():
        ours[".".join(names.get(part, part) for part in name.split("."))] = tensor
    return reshaped(ours, model)


def reshaped(state, model):
    """Tensors in our shapes: others have tables in one row, and filters of one pixel."""
    state = {n.replace("attention_biases", "position_table"): t for n, t in state.items()}
    wanted = model.state_dict()
    return {
        n: t.reshape(wanted[n].shape) if n in wanted and t.numel() == wanted[n].numel() else t
        for n, t in state.items()
    }


# The model --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """What a LeViT is built from, one number a stage; `key` is the width of a head's keys.

    `patch` is how much the stem shrinks the image.
    """

    dims: tuple = (128, 256, 384)
    depths: tuple = (4, 4, 4)
    heads: tuple = (4, 8, 12)
    key: int = 16
    patch: int = 16
    image: int | tuple[int, int] = 224
    channels: int = 3
    classes: int = 1000
    drop_path: float = 0.0  # the same in all blocks

    def __post_init__(self):
        if not len(self.dims) == len(self.depths) == len(self.heads):
            raise ValueError(
                f"dims {self.dims}, depths {self.depths}, heads {self.heads}: one number a stage"
            )


class Stage(nn.Module):
    """Blocks over one map, behind the one that shrinks it: x (B, N, D), grid -> x, grid."""

    def __init__(self, shrink, blocks):
        super().__init__()
        self.shrink, self.blocks = shrink, nn.ModuleList(blocks)

    def forward(self, x, grid):
        if self.shrink is not None:
            x, grid = self.shrink(x, grid), half(grid)
        for block in self.blocks:
            x = block(x, grid)  # (B, T, D)
        return x, grid


def half(grid):
    """The grid of every second place: a side that is odd is rounded up."""
    return tuple(math.ceil(side / 2) for side in grid)


class LeViT(nn.Module):
    """Images (B, C, H, W) -> logits (B, classes)."""

    layouts = {
        "timm": ("stem.conv1.linear.weight", from_timm),
        "transformers": (
            "patch_embeddings.embedding_layer_1.convolution.weight",
            from_transformers,
        ),
    }

    def __init__(self, cfg):
        super().__init__()
        image = (cfg.image, cfg.image) if isinstance(cfg.image, int) else tuple(cfg.image)
        self.cfg, self.widths = cfg, cfg.dims
        self.strides = tuple(cfg.patch * 2**s for s in range(len(cfg.dims)))
        self.patch_embed = Stem(cfg.channels, cfg.dims[0], cfg.patch)
        self.stages, grid = nn.ModuleList(), grid_of(image, cfg.patch)
        for s, dim in enumerate(cfg.dims):
            shrink = None
            if s:
                before = cfg.dims[s - 1]
                attn = ShrinkAttention(before, dim, before // cfg.key, cfg.key, grid)
                shrink, grid = ShrinkBlock(dim, attn, cfg.drop_path), half(grid)
            blocks = []
            for _ in range(cfg.depths[s]):
                attn = BiasedAttention(dim, dim, cfg.heads[s], cfg.key, grid)
                blocks.append(BareBlock(dim, attn, cfg.drop_path))
            self.stages.append(Stage(shrink, blocks))
        self.head = NormLinear(cfg.dims[-1], cfg.classes)
        self.head_dist = NormLinear(cfg.dims[-1], cfg.classes)
        self.apply(init_weights)

    def features(self, images):
        """The map (B, D, h, w) of every stage, as wide as `widths`, `strides` pixels a place."""
        x, grid = self.patch_embed(images)
        maps = []
        for stage in self.stages:
            x, grid = stage(x, grid)
            maps.append(x.transpose(1, 2).unflatten(2, grid))
        return maps

    def two_logits(self, images):
        """What the head for labels and the head for a teacher say: two of (B, classes)."""
        x = self.features(images)[-1].mean(dim=(2, 3))  # (B, D)
        return self.head(x), self.head_dist(x)

    def forward(self, images):
        by_class, by_dist = self.two_logits(images)
        return (by_class + by_dist) / 2  # (B, classes)


PAPER = Paper(
    name="LeViT",
    title="LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference",
    authors="Graham et al.",
    year=2021,
    arxiv="2104.01136",
    lesson="17",
    models=(LeViT,),
    configs={
        "levit_128s": Published(LeViT, Sizes(depths=(2, 3, 4), heads=(4, 6, 8)), "7.8M"),
        "levit_128": Published(LeViT, Sizes(), "9.2M"),
        "levit_192": Published(LeViT, Sizes((192, 288, 384), heads=(3, 5, 6), key=32), "10.9M"),
        "levit_256": Published(LeViT, Sizes((256, 384, 512), heads=(4, 6, 8), key=32), "18.9M"),
        "levit_384": Published(
            LeViT, Sizes((384, 512, 768), heads=(6, 9, 12), key=32, drop_path=0.1), "39.1M"
        ),
    },
)
