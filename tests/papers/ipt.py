"""IPT: beside a second one, built of PyTorch's own layers, and identities of each part."""

import math
from dataclasses import replace
from functools import partial
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import nn

from tests.proofs import equal, images, randomise, same_as
from vitcourse.papers import ipt
from vitcourse.papers.ipt import (
    IPT,
    Body,
    DecoderBlock,
    EncoderBlock,
    Look,
    NoBias,
    ResBlock,
    Sizes,
)

# D = 5 * 2 * 2 = 20, N = 3 * 4 = 12
SIZES = Sizes(5, 2, (6, 8), heads=4, depth=2, scales=(2,), mean=(0.4, 0.1, 0.3))
TASKS = replace(SIZES, scales=(1, 3, 4))
MODELS = {
    "twice as large": lambda: (IPT(SIZES), torch.randn(2, 3, 6, 8)),
    "as large": lambda: (IPT(replace(SIZES, scales=(1,), mean=(0.2,))), torch.randn(2, 1, 6, 8)),
    "four times as large": lambda: (IPT(replace(SIZES, scales=(4,))), torch.randn(2, 3, 6, 8)),
}
# the authors count 24 numbers more, which never change: two layers that shift the mean colour
COUNTS = {"ipt_x4": 115_608_155 - 24, "ipt_six_tasks": 118_892_394 - 24}


# The whole, built a second time of PyTorch's layers, with the authors' names ---------------------


class Asked(nn.TransformerDecoderLayer):
    """PyTorch's decoder layer, to whose queries and own keys a task is added."""

    task = 0.0

    def _sa_block(self, x, *masks):
        return self.self_attn(x + self.task, x + self.task, x)[0]

    def _mha_block(self, x, seen, *masks):
        return self.multihead_attn(x + self.task, seen, seen)[0]


def torch_layer(kind, dim, heads):
    """A pre-norm layer of PyTorch, its attention without biases."""
    layer = kind(dim, heads, 4 * dim, dropout=0.0, batch_first=True, norm_first=True)
    for name in ("self_attn", "multihead_attn"):
        if hasattr(layer, name):
            attn = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)
            setattr(layer, name, attn)
    return layer


class TorchBlock(nn.Module):
    """Two 5x5 convolutions and a skip connection, under the authors' names."""

    def __init__(self, width):
        super().__init__()
        first, second = (nn.Conv2d(width, width, 5, padding="same") for _ in range(2))
        self.body = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, x):
        return self.body(x) + x


class TorchBody(nn.Module):
    """The body, of PyTorch's layers; a query is a row of N*D numbers."""

    def __init__(self, s):
        super().__init__()
        N, D, hidden = s.grid[0] * s.grid[1], s.dim, 4 * s.dim
        self.sizes = s
        self.linear_encoding, off = nn.Linear(D, D), nn.Identity
        self.mlp_head = nn.Sequential(
            nn.Linear(D, hidden), off(), nn.ReLU(), nn.Linear(hidden, D), off()
        )
        self.query_embed = nn.Embedding(len(s.scales), N * D)
        self.position_encoding = nn.ModuleDict({"pe": nn.Embedding(N, D)})
        for name, kind in (("encoder", nn.TransformerEncoderLayer), ("decoder", Asked)):
            layers = nn.ModuleList(torch_layer(kind, D, s.heads) for _ in range(s.depth))
            setattr(self, name, nn.ModuleDict({"layers": layers}))

    def forward(self, map, task):
        s = self.sizes
        pattern, sides = "b f (h p) (w q) -> b (h w) (f p q)", dict(p=s.patch, q=s.patch)
        x = rearrange(map, pattern, **sides)
        x = x + self.linear_encoding(x) + self.position_encoding["pe"].weight
        for layer in self.encoder["layers"]:
            x = layer(x)
        seen = x
        for layer in self.decoder["layers"]:
            layer.task = self.query_embed.weight[task].view(-1, s.dim)
            x = layer(x, seen)
        x = x + self.mlp_head(x)
        back = " -> ".join(reversed(pattern.split(" -> ")))
        return rearrange(x, back, h=s.grid[0], f=s.width, **sides)


class TorchIPT(nn.Module):
    """An IPT of PyTorch's layers, whose state dict has the authors' names."""

    def __init__(self, s):
        super().__init__()
        width, channels = s.width, len(s.mean)
        self.mean = torch.tensor(s.mean).view(-1, 1, 1)
        self.head = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, width, 3, padding="same"), TorchBlock(width), TorchBlock(width)
            )
            for _ in s.scales
        )
        self.body, self.tail = TorchBody(s), nn.ModuleList()
        for scale in s.scales:
            steps = {1: [], 2: [2], 3: [3], 4: [2, 2]}[scale]
            up = [
                part
                for r in steps
                for part in (nn.Conv2d(width, width * r * r, 3, padding=1), nn.PixelShuffle(r))
            ]
            last = nn.Conv2d(width, channels, 3, padding=1)
            self.tail.append(nn.Sequential(nn.Sequential(*up), last))

    def forward(self, x, task=0):
        x = self.head[task](x - self.mean)
        return self.tail[task](self.body(x, task) + x) + self.mean


def same_as_pytorch_layers():
    """The output of layers and of the whole, and all gradients: three tasks of three scales."""
    for task in range(3):
        theirs, ours = TorchIPT(TASKS), IPT(TASKS)
        for model in (theirs, ours):
            model.forward = partial(type(model).forward, model, task=task)
        encoders = [ours.body.encoder[1]], [theirs.body.encoder["layers"][1]]
        decoders = [ours.body.decoder[0]], [theirs.body.decoder["layers"][0]]
        ends = [ours.head[task], ours.tail[task]], [theirs.head[task], theirs.tail[task]]
        stages = [a + b + c for a, b, c in zip(encoders, decoders, ends, strict=True)]
        same_as(theirs, ours, images(2, 3, 6, 8), stages)


def the_authors_fixed_numbers_are_left_out():
    """A state dict as theirs, with the layers that shift the mean: all else is taken, by name."""
    theirs = randomise(TorchIPT(TASKS)).state_dict()
    more = {"sub_mean.weight": torch.eye(3), "body.position_encoding.position_ids": torch.ones(12)}
    ours = ipt.from_authors(theirs | more, IPT(TASKS))
    assert ours.keys() == IPT(TASKS).state_dict().keys()
    assert ours["body.position_queries"].shape == (3, 12, 20)


# Heads and tails ---------------------------------------------------------------------------------


def new(**changes):
    """A small IPT with random weights."""
    return randomise(IPT(replace(SIZES, **changes))).double()


class Nothing(nn.Module):
    """A body that corrects nothing: zeros, as patches."""

    def forward(self, map, task):
        return ipt.unfold(torch.zeros_like(map), 2)


def without_a_body_the_tail_reads_the_head():
    for scale in (1, 2, 3, 4):
        model, x = new(scales=(scale,)), images(2, 3, 6, 8)
        model.body = Nothing()
        mean = torch.tensor(SIZES.mean).double().view(3, 1, 1)
        wanted = model.tail[0](model.head[0](x - mean)) + mean
        equal(model(x), wanted)
        assert wanted.shape == (2, 3, 6 * scale, 8 * scale)


def a_head_sees_19_by_19_pixels():
    """3x3 and four times 5x5: a pixel of the map reads 9 pixels to each side, in all channels."""
    x = images(1, 3, 25, 27).requires_grad_()
    layers = randomise(ipt.head(3, 5)).double()
    layers(x)[0, :, 12, 13].sum().backward()
    reached = x.grad[0].abs() > 0
    wanted = torch.zeros(3, 25, 27, dtype=torch.bool)
    wanted[:, 12 - 9 : 12 + 10, 13 - 9 : 13 + 10] = True
    assert torch.equal(reached, wanted)


def a_block_corrects_what_it_is_given():
    block, x = randomise(ResBlock(5)).double(), images(2, 5, 6, 8)
    inner = F.conv2d(x, block.conv1.weight, block.conv1.bias, padding=2).clamp(min=0)
    equal(block(x) - x, F.conv2d(inner, block.conv2.weight, block.conv2.bias, padding=2))


def an_enlarger_fills_squares():
    """With a kernel of one pixel, feature f of a place becomes its square of r x r, row by row."""
    for r in (2, 3):
        layers = randomise(ipt.enlarger(5, r)).double()
        conv, x = layers[0], images(2, 5, 6, 8)
        conv.weight.data[..., [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
        out, many = layers(x), torch.einsum("of,bfhw->bohw", conv.weight[..., 1, 1], x)
        many = many + conv.bias.view(-1, 1, 1)
        for f, y, x in np.ndindex(5, r, r):
            equal(out[:, f, y::r, x::r], many[:, f * r * r + y * r + x])


def a_copy_repeats_pixels():
    """From these start values, each task repeats pixels: nearest-neighbour enlargement."""
    model = ipt.begin_as_copy(randomise(IPT(replace(SIZES, scales=(1, 2, 3, 4)))).double())
    x = images(2, 3, 6, 8)
    for task, scale in enumerate((1, 2, 3, 4)):
        equal(model(x, task), F.interpolate(x, scale_factor=scale, mode="nearest"))


# The body ----------------------------------------------------------------------------------------


def patches_come_back():
    """fold undoes unfold; weights on patches are weights on the map; features come first."""
    map, weight = images(2, 5, 6, 8), images(1, 5, 6, 8, seed=1)
    x = ipt.unfold(map, 2)
    equal(ipt.fold(x, (6, 8), 2), map)
    equal(ipt.fold(x * ipt.unfold(weight, 2), (6, 8), 2), map * weight)
    equal(x[:, 6].unflatten(1, (5, 2, 2)), map[:, :, 2:4, 4:6])  # row 1, column 2 of 3 x 4
    equal(ipt.fold(x, (6, 8), 2), F.pixel_shuffle(x.transpose(1, 2).unflatten(2, (3, 4)), 2))


def by_hand(layer, queries, keys, values):
    """Attention of four heads of width 5, without biases, head by head."""
    out = []
    q, k, v = (
        x @ w.T for x, w in zip((queries, keys, values), layer.qkv.weight.chunk(3), strict=True)
    )
    for h in range(4):
        part = slice(5 * h, 5 * h + 5)
        weights = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(5)).softmax(dim=-1)
        out.append(weights @ v[..., part])
    return torch.cat(out, dim=-1) @ layer.proj.weight.T


def norm(x, layer):
    """Layer normalisation with eps 1e-5, written out."""
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * layer.weight + layer.bias


def mlp(x, layer):
    x = (x @ layer.fc1.weight.T + layer.fc1.bias).clamp(min=0)
    return x @ layer.fc2.weight.T + layer.fc2.bias


def an_encoder_block_by_hand():
    """Norm, attention, skip; norm, MLP, skip: small inputs, so that eps counts."""
    block, x = randomise(EncoderBlock(20, 4)).double(), 1e-2 * images(2, 12, 20)
    y = norm(x, block.norm1)
    wanted = x + by_hand(block.attn, y, y, y)
    equal(block(x), wanted + mlp(norm(wanted, block.norm2), block.mlp))


def a_decoder_block_by_hand():
    """The query joins queries and own keys; what was seen is normed no more."""
    block = randomise(DecoderBlock(20, 4)).double()
    x, seen, query = 1e-2 * images(2, 12, 20), images(2, 12, 20, seed=1), images(12, 20, seed=2)
    y = norm(x, block.norm1)
    wanted = x + by_hand(block.attn, y + query, y + query, y)
    y = norm(wanted, block.norm2)
    wanted = wanted + by_hand(block.cross_attn, y + query, seen, seen)
    equal(block(x, seen, query), wanted + mlp(norm(wanted, block.norm3), block.mlp))


def looking_at_one_thing_is_its_value():
    """Where all places saw the same, each gets that value, whatever it asks."""
    layer = randomise(Look(20, 4)).double()
    x, thing = images(2, 12, 20), images(2, 1, 20, seed=1)
    wanted = thing @ layer.qkv.weight.chunk(3)[2].T @ layer.proj.weight.T
    equal(layer(x, thing.expand(-1, 12, -1), thing.expand(-1, 12, -1)), wanted.expand(-1, 12, -1))


def values_and_keys_are_told_apart():
    """Doubled values double the result; keys that are all moved by one vector change nothing."""
    layer = randomise(Look(20, 4)).double()
    queries, keys, values = (images(2, 12, 20, seed=s) for s in range(3))
    once = layer(queries, keys, values)
    equal(layer(queries, keys, 2 * values), 2 * once)
    equal(layer(queries, keys + images(20, seed=4), values), once)
    plain = randomise(NoBias(20, 4)).double()
    equal(layer(keys, keys, keys), plain(keys))


def only_the_decoder_knows_the_task():
    """Its row of the query gets a gradient, those of others none; the encoder has none to give."""
    model = new(scales=(1, 1, 1))
    map, queries = images(2, 5, 6, 8), model.body.position_queries
    assert torch.autograd.grad(model.body.encode(map).sum(), queries, allow_unused=True) == (None,)
    model(images(2, 3, 6, 8), 1).square().sum().backward()
    used = {n: p.grad is not None and bool(p.grad.any()) for n, p in model.named_parameters()}
    rows = queries.grad.abs().amax(dim=2) > 0
    assert rows.tolist() == [[False] * 12, [True] * 12, [False] * 12]
    for name, got in used.items():
        own = name.split(".")[1] == "1" if name.startswith(("head", "tail")) else True
        assert got == own, name


def tasks_that_share_all_else_differ_by_the_query():
    """The same head and tail: with equal queries the same answer, with others another."""
    model, x = new(scales=(2, 2)), images(2, 3, 6, 8)
    model.head[1], model.tail[1] = model.head[0], model.tail[0]
    assert (model(x, 0) - model(x, 1)).abs().max() > 1e-3
    model.body.position_queries.data[1] = model.body.position_queries.data[0]
    equal(model(x, 0), model(x, 1))


def without_places_the_body_is_blind_to_order():
    """Zero positions and one query for all places: shuffled patches give shuffled patches."""
    body, map, order = new().body, images(2, 5, 6, 8), torch.randperm(12)
    shuffled = ipt.fold(ipt.unfold(map, 2)[:, order], (6, 8), 2)
    assert (body(shuffled, 0) - body(map, 0)[:, order]).abs().max() > 1e-3
    body.position.table.data.zero_()
    body.position_queries.data[:] = body.position_queries.data[:, :1].clone()
    equal(body(shuffled, 0), body(map, 0)[:, order])


def positions_are_added_once():
    """What positions add can as well be in the encoder's first input, and nowhere else."""
    body, map = new().body, images(2, 5, 6, 8)
    wanted, table = body(map, 0), body.position.table.data.clone()
    body.position.table.data.zero_()
    first = body.encoder[0].forward
    with mock.patch.object(body.encoder[0], "forward", lambda x: first(x + table)):
        equal(body(map, 0), wanted)


# Pieces ------------------------------------------------------------------------------------------


def pieces_are_as_the_whole():
    """Head and tail alone see 11 pixels far: with that margin, pieces give what the whole gives."""
    model = randomise(IPT(replace(SIZES, image=(26, 28), scales=(2,)))).double()
    x = images(2, 3, 45, 59)
    model.body = Nothing()
    found = ipt.in_pieces(model, x, margin=11)
    mean = model.mean
    equal(found, model.tail[0](model.head[0](x - mean)) + mean)
    try:
        model(x)
        raise AssertionError("an image of another size is taken")
    except ValueError as error:
        assert "(3, 45, 59)" in str(error) and "in_pieces" in str(error)


# Degradations, losses, measures ------------------------------------------------------------------


def bicubic_is_pillows():
    """To half and to double size, as Pillow does it, which has the usual kernel."""
    picture = images(8, 12).float()
    for scale in (1 / 2, 2):
        h, w = round(8 * scale), round(12 * scale)
        theirs = Image.fromarray(picture.numpy()).resize((w, h), Image.BICUBIC)
        ours = ipt.bicubic(picture[None, None], scale)[0, 0]
        equal(ours, torch.tensor(np.array(theirs)), tolerance=1e-5)


def noise_has_its_sigma():
    """The difference is normal, of this deviation; a seed gives the same; the PSNR is its size."""
    clean = torch.full((2, 3, 60, 70), 0.5)
    one, two = (ipt.add_noise(clean, torch.Generator().manual_seed(s), 0.05) for s in (0, 0))
    assert torch.equal(one, two)
    added = (one - clean) / 0.05
    assert abs(added.std() - 1) < 0.02 and abs(added.mean()) < 0.02
    assert abs((added**4).mean() / 3 - 1) < 0.1, "not normal"
    assert (ipt.psnr(one, clean) + 20 * math.log10(0.05)).abs().max() < 0.2


def rain_falls_in_streaks():
    """Streaks brighten, all colours alike; each goes two steps down for one to the right."""
    clean = images(2, 3, 40, 42).sigmoid().float() / 4
    generator = torch.Generator().manual_seed(0)
    added = ipt.add_rain(clean, drops=0.01, light=0.2, generator=generator) - clean
    assert added.min() > -1e-6 and added.max() > 0.1
    equal(added[:, :1].expand(-1, 3, -1, -1), added, tolerance=1e-5)
    rain = added[:, 0].double()
    down = (rain[:, 1:] * rain[:, :-1]).mean()
    right = (rain[:, 2:, 1:] * rain[:, :-2, :-1]).mean()
    left = (rain[:, 2:, :-1] * rain[:, :-2, 1:]).mean()
    chance = rain.mean() ** 2
    assert min(down, right) > 5 * chance and left < right / 3
    assert ipt.add_rain(clean, light=9, generator=generator).max() == 1


def psnr_by_hand():
    clean, found = images(2, 3, 6, 8).sigmoid(), images(2, 3, 6, 8, seed=1)
    for image in range(2):
        error = (found[image].clamp(0, 1) - clean[image]).flatten()
        wanted = 10 * math.log10(1 / (error @ error / 144))
        assert abs(ipt.psnr(found, clean)[image].item() - wanted) < 1e-9


def contrast_by_hand():
    """Four loops; three images that are all alike give ln 2; lengths do not matter."""
    x = images(3, 4, 5)
    cosine = F.cosine_similarity
    total = 0.0
    for i, a, b in np.ndindex(3, 4, 4):
        own = cosine(x[i, a], x[i, b], dim=0)
        others = sum(cosine(x[i, a], x[k, b], dim=0).exp() for k in range(3) if k != i)
        total -= math.log(own.exp() / others)
    assert abs(ipt.patch_contrast(x).item() - total / 48) < 1e-10
    equal(ipt.patch_contrast(x * images(3, 4, 1).abs()), ipt.patch_contrast(x))
    one = x[:1].expand(3, -1, -1)
    assert abs(ipt.patch_contrast(one).item() - math.log(2)) < 1e-10


def each_task_has_its_pairs():
    """Answers are clean, as large as the task makes them; the loss is the mean L1 over tasks."""
    model = new(scales=(1, 2))
    clean = images(2, 3, 12, 16).sigmoid()
    degradations = [lambda x, g: x / 2, ipt.shrink]
    (dark, small), (few, whole) = ipt.pairs(model, clean, degradations)
    equal(small, clean[..., :6, :8])
    equal(dark, small / 2)
    equal(whole, clean)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).double(), torch.tensor([0.5, 0.6, 0.7]).double()
    data = mock.Mock(mean=mean, std=std)
    batch = mock.Mock(images=(clean - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    loss = (model(dark, 0) - small).abs().mean() / 2 + (model(few, 1) - whole).abs().mean() / 2
    equal(ipt.repair(model, batch, data, degradations), loss)
    x = [model.encode(given, task)[1] for task, given in enumerate((dark, few))]
    contrast = sum(map(ipt.patch_contrast, x)) / 2
    equal(ipt.repair(model, batch, data, degradations, contrast=0.1), loss + 0.1 * contrast)
    data.test_images = (clean * 255).round().to(torch.uint8)
    clean = data.test_images.double() / 255
    model.float()
    scores = [
        ipt.psnr(model(g.float(), i), a).mean()
        for i, (g, a) in enumerate(ipt.pairs(model, clean, degradations))
    ]
    assert abs(ipt.quality(model, data, degradations)["PSNR"] - sum(scores).item() / 2) < 1e-4


PROOFS = [
    same_as_pytorch_layers,
    the_authors_fixed_numbers_are_left_out,
    without_a_body_the_tail_reads_the_head,
    a_head_sees_19_by_19_pixels,
    a_block_corrects_what_it_is_given,
    an_enlarger_fills_squares,
    a_copy_repeats_pixels,
    patches_come_back,
    an_encoder_block_by_hand,
    a_decoder_block_by_hand,
    looking_at_one_thing_is_its_value,
    values_and_keys_are_told_apart,
    only_the_decoder_knows_the_task,
    tasks_that_share_all_else_differ_by_the_query,
    without_places_the_body_is_blind_to_order,
    positions_are_added_once,
    pieces_are_as_the_whole,
    bicubic_is_pillows,
    noise_has_its_sigma,
    rain_falls_in_streaks,
    psnr_by_hand,
    contrast_by_hand,
    each_task_has_its_pairs,
]


# Errors ------------------------------------------------------------------------------------------


def query_joins_values(self, x, seen, query):
    y = self.norm1(x) + query
    x = x + self.attn(y, y, y)
    x = x + self.cross_attn(self.norm2(x) + query, seen, seen)
    return x + self.mlp(self.norm3(x))


def query_joins_seen_keys(self, x, seen, query):
    y = self.norm1(x)
    x = x + self.attn(y + query, y + query, y)
    x = x + self.cross_attn(self.norm2(x) + query, seen + query, seen)
    return x + self.mlp(self.norm3(x))


def no_query(self, x, seen, query):
    return DECODER(self, x, seen, 0 * query)


def no_last_skip(self, map, task):
    seen = x = self.encode(map)
    for block in self.decoder:
        x = block(x, seen, self.position_queries[task])
    return self.mlp(x)


def first_query(self, map, task):
    return BODY(self, map, 0)


def position_to_what_was_seen(self, map, task):
    seen = x = self.encode(map)
    for block in self.decoder:
        x = block(x, self.position(seen, self.position.grid), self.position_queries[task])
    return x + self.mlp(x)


def task_in_the_encoder(self, map):
    x = ENCODE(self, map)
    return x + self.position_queries[0]


def row_major_patches(map, patch):
    return rearrange(map, "B F (h p) (w q) -> B (h w) (p q F)", p=patch, q=patch)


def no_skip_around(self, map, x, task=0):
    map = ipt.fold(x, self.sizes.image, self.sizes.patch)
    return self.tail[task](map) + self.mean


def norm_after(self, x, grid=None):
    x = self.norm1(x + self.attn(x))
    return self.norm2(x + self.mlp(x))


def values_are_keys(self, queries, keys, values):
    return LOOK(self, queries, keys, keys)


def keys_ask(self, queries, keys, values):
    return LOOK(self, keys, queries, values)


def not_antialiased(images, scale):
    return F.interpolate(images, scale_factor=scale, mode="bicubic")


def uniform(images, generator=None, sigma=0.2):
    return images + sigma * math.sqrt(12) * (torch.rand(images.shape, generator=generator) - 0.5)


def rain_to_the_left(images, *args, **options):
    return RAIN(images.flip(-1), *args, **options).flip(-1)


def with_own(x):
    x = F.normalize(x, dim=-1)
    cosine = torch.einsum("imd,knd->ikmn", x, x)
    own = cosine.diagonal(dim1=0, dim2=1).permute(2, 0, 1)
    return (cosine.logsumexp(dim=1) - own).mean()


def at_the_lower_right(model, clean, degradations, generator=None):
    h, w = model.sizes.image
    answers = [clean[..., -s * h :, -s * w :] for s in model.sizes.scales]
    return [(degrade(x, generator), x) for degrade, x in zip(degradations, answers, strict=True)]


DECODER, BODY, ENCODE = DecoderBlock.forward, Body.forward, Body.encode
LOOK, RAIN, PSNR = Look.forward, ipt.add_rain, ipt.psnr
RULES = [rule for rule in ipt.RULES if "position_encoding" not in rule[0]]

PLANTED = {
    "the query joins values": (
        (DecoderBlock, "forward", query_joins_values),
        same_as_pytorch_layers,
    ),
    "the query joins the seen keys": (
        (DecoderBlock, "forward", query_joins_seen_keys),
        a_decoder_block_by_hand,
    ),
    "patches with features last": ((ipt, "unfold", row_major_patches), same_as_pytorch_layers),
    "no skip around the last MLP": ((Body, "forward", no_last_skip), same_as_pytorch_layers),
    "positions keep their name": ((ipt, "RULES", RULES), the_authors_fixed_numbers_are_left_out),
    "no skip around the body": (
        (IPT, "read", no_skip_around),
        without_a_body_the_tail_reads_the_head,
    ),
    "kernels of 3x3": (
        (ipt, "ResBlock", lambda width: nn.Conv2d(width, width, 3, padding=1)),
        a_head_sees_19_by_19_pixels,
    ),
    "no skip in a block": (
        (ResBlock, "forward", lambda self, map: self.conv2(F.relu(self.conv1(map)))),
        a_block_corrects_what_it_is_given,
    ),
    "squares turned": (
        (nn.PixelShuffle, "forward", lambda self, x: turned(x, self.upscale_factor)),
        an_enlarger_fills_squares,
    ),
    "the map is not added twice": ((IPT, "read", no_skip_around), a_copy_repeats_pixels),
    "patches in another order": ((ipt, "unfold", row_major_patches), patches_come_back),
    "the norm after": ((EncoderBlock, "forward", norm_after), an_encoder_block_by_hand),
    "keys are values": ((Look, "forward", values_are_keys), values_and_keys_are_told_apart),
    "queries are values": (
        (Look, "forward", lambda self, q, k, v: LOOK(self, q, k, q)),
        looking_at_one_thing_is_its_value,
    ),
    "keys ask": ((Look, "forward", keys_ask), a_decoder_block_by_hand),
    "the first task's query for all": (
        (Body, "forward", first_query),
        only_the_decoder_knows_the_task,
    ),
    "the encoder knows the task": (
        (Body, "encode", task_in_the_encoder),
        only_the_decoder_knows_the_task,
    ),
    "no query": (
        (DecoderBlock, "forward", no_query),
        tasks_that_share_all_else_differ_by_the_query,
    ),
    "places are told once more": (
        (Body, "forward", position_to_what_was_seen),
        positions_are_added_once,
    ),
    "places are told by the grid": (
        (ipt, "unfold", lambda map, patch: UNFOLD(map, patch) * torch.linspace(1, 2, 12)[:, None]),
        without_places_the_body_is_blind_to_order,
    ),
    "pieces without a margin": (
        (ipt, "starts", lambda length, piece, margin: STARTS(length, piece, 0)),
        pieces_are_as_the_whole,
    ),
    "finer detail is kept": ((ipt, "bicubic", not_antialiased), bicubic_is_pillows),
    "uniform noise": ((ipt, "add_noise", uniform), noise_has_its_sigma),
    "rain to the left": ((ipt, "add_rain", rain_to_the_left), rain_falls_in_streaks),
    "nothing is cut off": (
        (ipt, "psnr", lambda a, b: -10 * (a - b).square().mean(dim=(1, 2, 3)).log10()),
        psnr_by_hand,
    ),
    "the image itself is counted": ((ipt, "patch_contrast", with_own), contrast_by_hand),
    "answers from another corner": ((ipt, "pairs", at_the_lower_right), each_task_has_its_pairs),
}


def turned(x, r):
    """Pixel shuffle, rows and columns of a square exchanged."""
    return rearrange(x, "b (f q p) h w -> b f (h p) (w q)", p=r, q=r)


UNFOLD, STARTS = ipt.unfold, ipt.starts
