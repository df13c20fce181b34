"""Swin, faithful to the published model: attention inside windows that move from block to block.

Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, Liu et al. 2021,
https://arxiv.org/abs/2103.14030

The question: attention among all tokens grows with the square of their number. Can a model have
small patches, large images and a map of every scale, at a cost that grows with the image? The
change: a pyramid in which a token attends to the M*M tokens of its window, with a learned bias for
each offset. In every second block the windows lie M/2 further right and down, across the borders of
the ones before, so tokens reach further with each block.

Shapes as in vit.py, and:
    M side of a window    T = M*M tokens of a window    n windows of a map    Bn windows of a batch

A map that windows do not fill gets zeros at the right and below, and tokens attend to them as to
others, as in published models. Where ports differ: zeros are added before the map is shifted, as in
torchvision and transformers, and not after, as in timm. A window that is larger than the map stays
as it is, as in torchvision. Pairs that may not see each other get the score -inf; ports add -100.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.papers import Paper, Published
from vitcourse.papers.pvt import NormedPatchEmbed
from vitcourse.parts import MeanHead, NoPosition, RelativeAttention2D, split
from vitcourse.pyramid import Pyramid, PyramidConfig
from vitcourse.vit import LayerNorm
from vitcourse.weights import fuse_qkv, rename


def windows(map, M):
    """Cut a map into windows, each a sequence of M*M tokens: (B, D, h, w) -> (B*n, M*M, D).

    The n windows of an image follow each other row by row, and so do the tokens of a window.
    """
    h, w = map.shape[-2:]
    if h % M or w % M:
        raise ValueError(f"a map of {h}x{w} does not divide into windows of {M}x{M}: pad it")
    map = map.unflatten(3, (-1, M)).unflatten(2, (-1, M))  # (B, D, y, M, x, M)
    return map.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)


def from_windows(x, M, grid):
    """Put the windows of a map (h, w) back together: (B*n, M*M, D) -> (B, D, h, w)."""
    h, w = grid
    x = x.unflatten(0, (-1, h // M, w // M)).unflatten(3, (M, M))  # (B, y, x, M, M, D)
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def shifted_mask(grid, M, shift, device=None):
    """Which pairs of tokens of a window may see each other: bool (n, M*M, M*M), True if they may.

    For a map (h, w) that was rolled up and left by `shift`, (rows, columns). What left it above
    came in below, so windows at the border hold tokens of both sides, which are no neighbours.
    """
    (h, w), (rows, columns) = grid, shift
    from_above = torch.arange(h, device=device) >= h - rows  # (h,)
    from_left = torch.arange(w, device=device) >= w - columns  # (w,)
    region = 2 * from_above[:, None] + from_left  # (h, w), numbers from 0 to 3
    region = windows(region[None, None], M)  # (n, T, 1)
    return region == region.transpose(1, 2)  # (n, T, T)


class WindowAttention(RelativeAttention2D):
    """Attention among the M*M tokens of each window: x (B, N, D), grid (h, w) -> x (B, N, D).

    The windows lie `shift` places further right and down than the map begins. What that cuts off
    above comes in again below, and left at the right. An axis on which the map is no longer than a
    window is not shifted. Attention maps that are recorded have the windows in the first axis:
    (B*n, K, M*M, M*M).
    """

    prefix_len = 0

    def __init__(self, dim, heads, drop=0.0, attn_drop=0.0, window=7, shift=0):
        self.grid, self.shift = (window, window), shift  # offsets are those inside a window
        super().__init__(dim, heads, drop, attn_drop)

    def forward(self, x, grid):
        (M, _), (h, w) = self.grid, grid
        _, map = split(x, grid)
        map = F.pad(map, (0, -w % M, 0, -h % M))
        whole = tuple(map.shape[-2:])
        rows, columns = self.shifts(whole)
        x = windows(map.roll((-rows, -columns), (2, 3)), M)  # (Bn, T, D)
        x = super().forward(x, whole)  # (Bn, T, D)
        map = from_windows(x, M, whole).roll((rows, columns), (2, 3))
        return map[..., :h, :w].flatten(2).transpose(1, 2)

    def shifts(self, grid):
        """By how many rows and columns the windows of a map (h, w) are shifted."""
        return tuple(self.shift if side > M else 0 for side, M in zip(grid, self.grid, strict=True))

    def bias(self, grid):
        bias = super().bias(self.grid)  # (1, K, T, T)
        if not any(self.shifts(grid)):
            return bias
        sees = shifted_mask(grid, self.grid[0], self.shifts(grid), bias.device)  # (n, T, T)
        return bias.masked_fill(~sees[:, None], -torch.inf)  # (n, K, T, T)

    def attend(self, q, k, v, bias=None):
        if len(bias) > 1:  # one for each window of an image: the same for each image
            bias = bias.repeat(len(q) // len(bias), 1, 1, 1)
        return super().attend(q, k, v, bias)


class PatchMerging(nn.Module):
    """Put P*P neighbours behind each other, normalise, project: map (B, C, h, w) -> x, grid.

    Column by column: with P = 2 upper left, lower left, upper right, lower right. A map that does
    not divide gets zeros at the right and below.
    """

    def __init__(self, channels, dim, patch):
        super().__init__()
        self.patch = patch
        self.norm = LayerNorm(patch * patch * channels)
        self.reduction = nn.Linear(patch * patch * channels, dim, bias=False)

    def forward(self, map):
        P, (h, w) = self.patch, map.shape[-2:]
        map = F.pad(map, (0, -w % P, 0, -h % P))
        map = map.unflatten(3, (-1, P)).unflatten(2, (-1, P))  # (B, C, h, P, w, P)
        x = map.permute(0, 2, 4, 5, 3, 1).flatten(3)  # (B, h, w, P*P*C)
        return self.reduction(self.norm(x)).flatten(1, 2), tuple(x.shape[1:3])


# Published weights --------------------------------------------------------------------------------


def tables(state):
    """Bias tables in our form: ((2M-1)^2, K) -> (K, 2M-1, 2M-1). Indices and masks are left out."""
    ours = {}
    for name, tensor in state.items():
        if name.endswith("relative_position_bias_table"):
            name = name.replace("relative_position_bias_table", "position_table")
            side = math.isqrt(len(tensor))
            tensor = tensor.T.unflatten(1, (side, side))
        if not name.endswith(("relative_position_index", "attn_mask")):
            ours[name] = tensor
    return ours


def stage(add=0):
    """Where others' merging of stage s stands with us: in the stage s + add."""
    return lambda match: f"stages.{int(match[1]) + add}.patch_embed."


def from_timm(state, model):
    """timm: a stage begins with its merging."""
    rules = [
        (r"^patch_embed\.", "stages.0.patch_embed."),
        (r"^layers\.(\d+)\.downsample\.", stage()),
        (r"^layers\.", "stages."),
        (r"^head\.fc\.", "head."),
    ]
    return rename(rules)(tables(state), model)


def from_authors(state, model):
    """The authors' files: a stage ends with the merging that leads to the next."""
    state = rename([(r"^layers\.(\d+)\.downsample\.", stage(1))])(state, model)
    return from_timm(state, model)


def from_torchvision(state, model):
    """torchvision: one list that alternates between merging (even) and blocks (odd)."""
    block = r"^features\.(\d*[13579])\.(\d+)\."

    def to(name):
        return lambda match: f"stages.{int(match[1]) // 2}.blocks.{match[2]}.{name}"

    rules = [
        (r"^features\.0\.0\.", "stages.0.patch_embed.proj."),
        (r"^features\.0\.2\.", "stages.0.patch_embed.norm."),
        (block + r"mlp\.0\.", to("mlp.fc1.")),
        (block + r"mlp\.3\.", to("mlp.fc2.")),
        (block, to("")),
        (r"^features\.(\d+)\.", lambda match: f"stages.{int(match[1]) // 2}.patch_embed."),
    ]
    return rename(rules)(tables(state), model)


def from_transformers(state, model):
    """transformers: names of its release 4, which are in the files, or of its release 5."""
    block = r"^encoder\.layers\.(\d+)\.blocks\.(\d+)\."
    rules = [
        (r"^embeddings\.patch_embeddings\.projection\.", "stages.0.patch_embed.proj."),
        (r"^embeddings\.norm\.", "stages.0.patch_embed.norm."),
        (r"^encoder\.layers\.(\d+)\.downsample\.", stage(1)),
        (block + r"layernorm_before\.", r"stages.\1.blocks.\2.norm1."),
        (block + r"layernorm_after\.", r"stages.\1.blocks.\2.norm2."),
        (block + r"attention\.self\.(query|key|value)\.", r"stages.\1.blocks.\2.attn.\3."),
        (block + r"attention\.q_proj\.", r"stages.\1.blocks.\2.attn.query."),
        (block + r"attention\.k_proj\.", r"stages.\1.blocks.\2.attn.key."),
        (block + r"attention\.v_proj\.", r"stages.\1.blocks.\2.attn.value."),
        (block + r"attention\..*position_table$", r"stages.\1.blocks.\2.attn.position_table"),
        (block + r"attention\.(?:output\.dense|o_proj)\.", r"stages.\1.blocks.\2.attn.proj."),
        (block + r"(?:intermediate\.dense|mlp\.fc1)\.", r"stages.\1.blocks.\2.mlp.fc1."),
        (block + r"(?:output\.dense|mlp\.fc2)\.", r"stages.\1.blocks.\2.mlp.fc2."),
        (r"^layernorm\.", "norm."),
        (r"^classifier\.", "head."),
    ]
    state = {name.removeprefix("swin."): tensor for name, tensor in tables(state).items()}
    return fuse_qkv(rename(rules)(state, model))


# The model ----------------------------------------------------------------------------------------


class Swin(Pyramid):
    """A pyramid whose tokens attend inside windows, shifted in every second block of a stage.

    `window` is M, or a tuple with one for each stage. `shifted=False` leaves all windows in place.
    """

    Tokenizer, Downsample, Position = NormedPatchEmbed, PatchMerging, NoPosition
    Attention, Head = WindowAttention, MeanHead
    window, shifted = 7, True
    layouts = {
        "transformers": ("embeddings.patch_embeddings.projection.weight", from_transformers),
        "authors": ("layers.0.downsample.reduction.weight", from_authors),
        "timm": ("patch_embed.proj.weight", from_timm),
        "torchvision": ("features.0.0.weight", from_torchvision),
    }

    def __init__(self, cfg):
        super().__init__(cfg)
        for layer in self.modules():
            if isinstance(layer, nn.LayerNorm):
                layer.eps = 1e-5

    def attention(self, s, i):
        cfg, M = self.cfg, self.window
        M = M[s] if isinstance(M, tuple) else M
        shift = M // 2 if self.shifted and i % 2 else 0
        return self.Attention(cfg.dims[s], cfg.heads[s], cfg.drop, cfg.attn_drop, M, shift)


def sizes(dim, depth, drop_path):
    """The four published models differ in width, in the depth of the third stage, and in drop_path.

    All heads are 32 wide.
    """
    widths = dim, 2 * dim, 4 * dim, 8 * dim
    return PyramidConfig(
        dims=widths,
        depths=(2, 2, depth, 2),
        heads=tuple(width // 32 for width in widths),
        patches=(4, 2, 2, 2),
        mlp_ratios=(4.0,) * 4,
        drop_path=drop_path,
    )


PAPER = Paper(
    name="Swin",
    title="Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
    authors="Liu et al.",
    year=2021,
    arxiv="2103.14030",
    lesson="16",
    models=(Swin,),
    configs={
        "swin_t": Published(Swin, sizes(96, 6, drop_path=0.2), "28M"),
        "swin_s": Published(Swin, sizes(96, 18, drop_path=0.3), "50M"),
        "swin_b": Published(Swin, sizes(128, 18, drop_path=0.5), "88M"),
        "swin_l": Published(Swin, sizes(192, 18, drop_path=0.2), "197M"),
    },
)
