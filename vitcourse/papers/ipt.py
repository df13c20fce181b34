"""IPT, faithful to the published model: one transformer undoes many kinds of degradation.

Pre-Trained Image Processing Transformer, Chen et al. 2020, https://arxiv.org/abs/2012.00364

The question: noise, rain, few pixels: each degradation had a network of its own, trained on the few
pairs of images that there were for it. Can one network, trained for all, serve every task? The
change: a good picture can be degraded on purpose, so every picture gives pairs for all tasks. And

    head, tail   each task has its own few convolutions before and after; a tail may enlarge
    body         all tasks share one encoder and one decoder, over patches of a map of features
    query        a learned vector for each place, added in all layers of the decoder, tells the task

Positions are added once, before the encoder. An attention has no biases, an MLP has. Before the
encoder, after the decoder and around the body stands a skip connection. What the authors' code can
switch off is always on here. Of what they count, 24 numbers never change, those of two layers that
subtract and add the mean colour: here they are not counted.

Their code is for using the model, not for training it: degradations and losses follow the paper.
The paper adds rain as streaks drawn over the image, which is done here in a way of our own.

Shapes as in vit.py; C, H, W are those of the images, F is the width of the map of features, and its
patches give the tokens: D = F * P * P. A tail that enlarges s times gives images of sH x sW.
"""

import math
import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.config import grid_of
from vitcourse.papers import Paper, Published
from vitcourse.vit import Attention, Block, LearnedPosition, Mlp

# Heads and tails: one of each for a task ---------------------------------------------------------


class ResBlock(nn.Module):
    """Two convolutions that correct a map: (B, F, H, W) -> (B, F, H, W)."""

    def __init__(self, width):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 5, padding=2) for _ in range(2))

    def forward(self, map):
        return map + self.conv2(F.relu(self.conv1(map)))  # (B, F, H, W)


def head(channels, width):
    """From images to a map of features: (B, C, H, W) -> (B, F, H, W)."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), ResBlock(width), ResBlock(width))


def enlarger(width, scale):
    """Make a map `scale` times as high and wide: (B, F, H, W) -> (B, F, sH, sW).

    A convolution gives r*r features for each feature, and PixelShuffle makes of them a square of
    r x r places. Scales 2, 4, 8 go by steps of r = 2.
    """
    steps = [3] if scale == 3 else [2] * int(math.log2(scale))
    if math.prod(steps) != scale:
        raise ValueError(f"a scale is {scale}: it must be 1, 2, 3, 4, 8 or a further power of 2")
    layers = []
    for r in steps:
        layers += [nn.Conv2d(width, r * r * width, 3, padding=1), nn.PixelShuffle(r)]
    return nn.Sequential(*layers)


def tail(channels, width, scale):
    """From features back to images: (B, F, H, W) -> (B, C, sH, sW)."""
    return nn.Sequential(enlarger(width, scale), nn.Conv2d(width, channels, 3, padding=1))


# The body: shared by all tasks -------------------------------------------------------------------


class NoBias(Attention):
    """Attention whose layers have no biases: x (B, T, D), grid -> x."""

    def build(self, dim):
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)


class Look(NoBias):
    """The same, its queries, keys and values told apart: three (B, N, D) -> (B, N, D)."""

    def forward(self, queries, keys, values):
        given = zip((queries, keys, values), self.qkv.weight.chunk(3), strict=True)
        q, k, v = (F.linear(x, w).unflatten(-1, (self.heads, -1)) for x, w in given)
        x = self.attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))  # (B, K, N, d)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, N, D)


class ReluMlp(Mlp):
    """The MLP with ReLU: x (B, N, D) -> x (B, N, D)."""

    def forward(self, x, grid=None):
        return self.fc2(F.relu(self.fc1(x)))  # (B, N, D)


class EncoderBlock(Block):
    """The ViT's block, with this paper's attention and MLP: x (B, N, D) -> x (B, N, D)."""

    def __init__(self, dim, heads):
        super().__init__(dim, NoBias(dim, heads), ReluMlp(dim, 4 * dim))
        self.norm1.eps = self.norm2.eps = 1e-5


class DecoderBlock(nn.Module):
    """Places look at each other, then at what the encoder saw: x, seen, query -> x (B, N, D).

    The query (N, D) tells the task to whatever asks or is asked in here, but never to values, nor
    to the keys of what was seen.
    """

    def __init__(self, dim, heads):
        super().__init__()
        self.attn, self.cross_attn = Look(dim, heads), Look(dim, heads)
        self.mlp = ReluMlp(dim, 4 * dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = x + self.attn(y + query, y + query, y)  # (B, N, D)
        x = x + self.cross_attn(self.norm2(x) + query, seen, seen)  # (B, N, D)
        return x + self.mlp(self.norm3(x))  # (B, N, D)


def unfold(map, patch):
    """Cut a map into patches, each feature by feature: (B, F, H, W) -> (B, N, F*P*P)."""
    return F.unfold(map, patch, stride=patch).transpose(1, 2)


def fold(x, size, patch):
    """Put the patches of a map of this size (H, W) back together: the inverse of `unfold`."""
    return F.fold(x.transpose(1, 2), size, patch, stride=patch)


class Body(nn.Module):
    """A map of features, and the number of a task -> patches (B, N, D) of a better map."""

    def __init__(self, sizes):
        super().__init__()
        self.patch, dim, heads = sizes.patch, sizes.dim, sizes.heads
        h, w = sizes.grid
        self.embed = nn.Linear(dim, dim)
        self.position = LearnedPosition(dim, sizes.grid, prefix_len=0)
        self.encoder = nn.ModuleList(EncoderBlock(dim, heads) for _ in range(sizes.depth))
        self.position_queries = nn.Parameter(torch.randn(len(sizes.scales), h * w, dim))
        self.decoder = nn.ModuleList(DecoderBlock(dim, heads) for _ in range(sizes.depth))
        self.mlp = ReluMlp(dim, 4 * dim)

    def encode(self, map):
        """What places have seen, of which the encoder knows no task: (B, F, H, W) -> (B, N, D)."""
        x = unfold(map, self.patch)  # (B, N, D)
        x = self.position(x + self.embed(x), self.position.grid)  # (B, N, D)
        for block in self.encoder:
            x = block(x)  # (B, N, D)
        return x

    def forward(self, map, task):
        seen = x = self.encode(map)  # (B, N, D)
        for block in self.decoder:
            x = block(x, seen, self.position_queries[task])  # (B, N, D)
        return x + self.mlp(x)  # (B, N, D)


# The model ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """The sizes of an IPT. `image` is the size of what it is given, one side or (height, width).

    Each task has its number in `scales`: how many times its images are enlarged. `mean` is the mean
    colour of images; the published weights need pixels from 0 to 255.
    """

    width: int = 64
    patch: int = 3
    image: int | tuple[int, int] = 48
    heads: int = 12
    depth: int = 12  # of the encoder, and of the decoder
    scales: tuple = (4,)
    mean: tuple = (114.444, 111.4605, 103.02)

    def __post_init__(self):
        image = (self.image, self.image) if isinstance(self.image, int) else tuple(self.image)
        object.__setattr__(self, "image", image)

    @property
    def dim(self):
        """The width D of a token: all features of a patch."""
        return self.width * self.patch**2

    @property
    def grid(self):
        """The grid of patches (h, w)."""
        return grid_of(self.image, self.patch)


RULES = [
    (r"^(head\.\d+\.\d)\.body\.0\.", r"\1.conv1."),
    (r"^(head\.\d+\.\d)\.body\.2\.", r"\1.conv2."),
    (r"^body\.linear_encoding\.", "body.embed."),
    (r"^body\.mlp_head\.0\.", "body.mlp.fc1."),
    (r"^body\.mlp_head\.3\.", "body.mlp.fc2."),
    (r"^body\.query_embed\.weight$", "body.position_queries"),
    (r"^body\.position_encoding\.pe\.weight$", "body.position.table"),
    (r"^body\.(en|de)coder\.layers\.", r"body.\1coder."),
    (r"\.self_attn\.", ".attn."),
    (r"\.multihead_attn\.", ".cross_attn."),
    (r"\.in_proj_weight$", ".qkv.weight"),
    (r"\.out_proj\.", ".proj."),
    (r"\.linear([12])\.", r".mlp.fc\1."),
]


def from_authors(state, model):
    """The names of the authors' code, without what it does not learn."""
    wanted, ours = model.state_dict(), {}
    for name, tensor in state.items():
        if name.startswith(("sub_mean.", "add_mean.")) or name.endswith(".position_ids"):
            continue
        for pattern, replacement in RULES:
            name = re.sub(pattern, replacement, name)
        if name in ("body.position_queries", "body.position.table"):
            tensor = tensor.reshape(wanted[name].shape)
        ours[name] = tensor
    return ours


class IPT(nn.Module):
    """Degraded images (B, C, H, W), and the number of a task -> restored images (B, C, sH, sW)."""

    layouts = {"authors": ("body.linear_encoding.weight", from_authors)}

    def __init__(self, sizes):
        super().__init__()
        self.sizes, channels, width = sizes, len(sizes.mean), sizes.width
        self.head = nn.ModuleList(head(channels, width) for _ in sizes.scales)
        self.body = Body(sizes)
        self.tail = nn.ModuleList(tail(channels, width, scale) for scale in sizes.scales)
        mean = torch.tensor(sizes.mean)[:, None, None]
        self.register_buffer("mean", mean, persistent=False)

    def encode(self, images, task=0):
        """The map of the head (B, F, H, W), and the patches (B, N, D) that the body makes of it."""
        given, needed = tuple(images.shape[1:]), (len(self.mean), *self.sizes.image)
        if given != needed:
            raise ValueError(
                f"images are {given}, this IPT is built for {needed}: `in_pieces` restores larger"
            )
        map = self.head[task](images - self.mean)  # (B, F, H, W)
        return map, self.body(map, task)

    def read(self, map, x, task=0):
        """A map (B, F, H, W) and its correction, patches (B, N, D) -> images (B, C, sH, sW)."""
        map = map + fold(x, self.sizes.image, self.sizes.patch)  # (B, F, H, W)
        return self.tail[task](map) + self.mean

    def forward(self, images, task=0):
        map, x = self.encode(images, task)
        return self.read(map, x, task)


@torch.no_grad()
def begin_as_copy(model):
    """Start values with which every task repeats what it is given, pixel by pixel; returns model.

    No skip connection leads around the whole IPT, so a new one has to learn what an image is before
    it can repair one. A short training starts better from here: colours pass through the first
    features, and branches add nothing yet. (The authors train for long, from random values.)
    """
    for module in model.modules():
        if isinstance(module, ResBlock):
            module.conv2.apply(to_zero)
        elif isinstance(module, NoBias):
            module.proj.apply(to_zero)
        elif isinstance(module, ReluMlp):
            module.fc2.apply(to_zero)
    model.body.embed.apply(to_zero)
    model.body.position.table.zero_()
    channels = len(model.mean)
    for head, tail in zip(model.head, model.tail, strict=True):
        pass_on(head[0], channels, 1)
        for conv in tail[0][::2]:
            pass_on(conv, channels, conv.out_channels // conv.in_channels)
        tail[1].apply(to_zero)
        pass_on(tail[1], channels, 1)
        tail[1].weight /= 2  # the body repeats its map, and the map is added
    return model


def to_zero(layer):
    """Set a layer's weight, and its bias if it has one, to zero."""
    for parameter in layer.parameters():
        parameter.zero_()


def pass_on(conv, channels, copies):
    """Let a convolution pass its first channels on as they are, each `copies` times."""
    conv.weight[: channels * copies].zero_()
    conv.bias[: channels * copies].zero_()
    middle = conv.kernel_size[0] // 2
    for out in range(channels * copies):
        conv.weight[out, out // copies, middle, middle] = 1


@torch.no_grad()
def in_pieces(model, images, task=0, margin=4):
    """Restore images (B, C, H, W) that are larger than the model's: (B, C, sH, sW).

    Pieces overlap. From inner edges of a piece, at least `margin` pixels are cut off: there, the
    model has seen less around a pixel than elsewhere.
    """
    (h, w), s = model.sizes.image, model.sizes.scales[task]
    B, C, H, W = images.shape
    if min(H - h, W - w) < 0 or 2 * margin >= min(h, w):
        raise ValueError(f"pieces of {h}x{w} with a margin of {margin} do not fit {H}x{W} pixels")
    restored = images.new_empty(B, C, s * H, s * W)
    for top in starts(H, h, margin):
        for left in starts(W, w, margin):
            piece = model(images[..., top : top + h, left : left + w], task)
            y, x = margin * (top > 0), margin * (left > 0)
            rows = slice(s * (top + y), s * (top + h))
            columns = slice(s * (left + x), s * (left + w))
            restored[..., rows, columns] = piece[..., s * y :, s * x :]
    return restored


def starts(length, piece, margin):
    """Where pieces begin along a side, so that each pixel lies far enough inside one of them."""
    return [*range(0, length - piece, piece - 2 * margin), length - piece]


# Degradations: clean images (B, C, H, W), values 0 to 1 -> what a model is given. What is random is
# drawn from the generator, or from PyTorch's own -------------------------------------------------


def add_noise(images, generator=None, sigma=0.2):
    """Add a normal number to each value, `sigma` times a standard one."""
    return images + sigma * torch.randn(images.shape, generator=generator).to(images)


def add_rain(images, generator=None, drops=0.04, length=5, light=0.7):
    """Add streaks of rain that fall to the right: one step aside for two steps down.

    A streak begins at each pixel with probability `drops`; it adds up to `light` to all colours.
    """
    y = torch.arange(length)
    streak = torch.zeros(1, 1, length, (length + 1) // 2)
    streak[0, 0, y, y // 2] = 1
    B, _, H, W = images.shape
    size = B, 1, H + streak.shape[2] - 1, W + streak.shape[3] - 1
    chance, strength = (torch.rand(size, generator=generator) for _ in range(2))
    # conv2d reads ahead; what falls comes from behind
    rain = F.conv2d((chance < drops) * strength * light, streak.flip(2, 3))  # (B, 1, H, W)
    return (images + rain.to(images)).clamp(max=1)


def shrink(images, generator=None, scale=2):
    """Make images `scale` times less high and wide; nothing is random."""
    return bicubic(images, 1 / scale)


def bicubic(images, scale):
    """Resize by bicubic interpolation: to enlarge so is what super-resolution is measured against.

    The kernel is as wide as the coarser pixels, so that finer detail is lost, not distorted.
    """
    size = [round(side * scale) for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bicubic", antialias=True)


# Learning, and measuring -------------------------------------------------------------------------


def patch_contrast(x):
    """Patches of one image should be alike, those of two images not: x (B, N, D) -> a scalar.

    For two patches of image i: the cosine of the two, against the cosines of the first with the
    patch that has the second's place in every other image, of which there must be one at least.
    Image i itself does not stand in the denominator, so the loss may fall below zero.
    """
    x = F.normalize(x, dim=-1)
    cosine = torch.einsum("imd,knd->ikmn", x, x)  # (B, B, N, N)
    own = cosine.diagonal(dim1=0, dim2=1).permute(2, 0, 1)  # (B, N, N)
    same = torch.eye(len(x), dtype=torch.bool, device=x.device)[:, :, None, None]
    others = cosine.masked_fill(same, -math.inf).logsumexp(dim=1)  # (B, N, N)
    return (others - own).mean()


def psnr(restored, clean):
    """Peak signal-to-noise ratio in dB, images of values 0 to 1: (B, C, H, W) twice -> (B,).

    What lies outside 0 to 1 is cut off, as a screen does.
    """
    error = (restored.clamp(0, 1) - clean).square().mean(dim=(1, 2, 3))
    return -10 * error.log10()


def pairs(model, clean, degradations, generator=None):
    """For each task, by its number, what the model is given and what it should answer: a list.

    `degradations` are functions (images, generator) -> images, one for each task. The answer of a
    task that does not enlarge is as small as what is given: the upper left of the clean images.
    """
    h, w = model.sizes.image
    answers = [clean[..., : s * h, : s * w] for s in model.sizes.scales]
    both = zip(degradations, answers, strict=True)
    return [(degrade(x, generator), x) for degrade, x in both]


def to_pixels(images, data):
    """Normalised images -> values 0 to 1."""
    mean, std = (t.to(images.device)[:, None, None] for t in (data.mean, data.std))
    return images * std + mean


def repair(model, batch, data, degradations, contrast=0.0):
    """A step for `fit`: degrade the images for every task, and compare what is restored.

    The loss is the mean over tasks of the L1 distance, and `contrast` times patch_contrast.
    """
    loss, clean = 0, to_pixels(batch.images, data)
    for task, (given, answer) in enumerate(pairs(model, clean, degradations)):
        map, x = model.encode(given, task)
        loss = loss + F.l1_loss(model.read(map, x, task), answer)
        if contrast:
            loss = loss + contrast * patch_contrast(x)
    return loss / len(degradations)


@torch.no_grad()
def quality(model, data, degradations):
    """A score for `fit`: the mean PSNR of the restored test images, over all tasks.

    They are degraded in the same way at each call.
    """
    found = qualities(model, data, degradations)
    return {"PSNR": sum(found) / len(found)}


@torch.no_grad()
def qualities(model, data, degradations):
    """The mean PSNR of the restored test images, of each task: a list of numbers."""
    clean = data.test_images.to(model.mean.device).float() / 255
    tasks = enumerate(pairs(model, clean, degradations, torch.Generator().manual_seed(0)))
    return [psnr(model(given, task), answer).mean().item() for task, (given, answer) in tasks]


PAPER = Paper(
    name="IPT",
    title="Pre-Trained Image Processing Transformer",
    authors="Chen et al.",
    year=2020,
    arxiv="2012.00364",
    lesson="20",
    models=(IPT,),
    configs={
        "ipt_x4": Published(IPT, Sizes(), "115.5M"),
        "ipt_six_tasks": Published(IPT, Sizes(scales=(2, 3, 4, 1, 1, 1))),
    },
)
