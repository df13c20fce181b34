"""Parts that fit the slots of a ViT, shared by lessons and papers. Shapes as in vit.py."""

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.vit import Attention, ClassHead, resize_position, truncated_normal_

# Between a sequence of tokens and a map --------------------------------------------------------


def split(x, grid):
    """Take a sequence apart: x (B, T, D), grid (h, w) -> prefix (B, R, D), map (B, D, h, w)."""
    h, w = grid
    prefix_len = x.shape[1] - h * w
    if prefix_len < 0:
        raise ValueError(f"{x.shape[1]} tokens cannot fill a grid of {h}x{w}")
    return x[:, :prefix_len], x[:, prefix_len:].transpose(1, 2).unflatten(2, (h, w))


def join(prefix, map):
    """Put it together again: prefix (B, R, D), map (B, D, h, w) -> x (B, T, D)."""
    return torch.cat([prefix, map.flatten(2).transpose(1, 2)], dim=1)


# Positions: what is added to the tokens, x (B, T, D), grid -> x ----------------------------------


class NoPosition(nn.Module):
    """Add nothing. The tokens are then a set: shuffled patches give the same class output."""

    def __init__(self, dim, grid, prefix_len):
        super().__init__()

    def forward(self, x, grid):
        return x


class LearnedPosition2D(nn.Module):
    """One learned vector for each column (X) and each row (Y), each half as wide as a token.

    The place (y, x) gets the two, X first, one behind the other: h + w vectors where
    LearnedPosition has h * w. Prefix tokens have a full vector of their own.
    """

    def __init__(self, dim, grid, prefix_len):
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim is {dim}: half of it describes the column, so it must be even")
        self.grid, (h, w) = grid, grid
        self.columns = nn.Parameter(torch.empty(1, w, dim // 2))
        self.rows = nn.Parameter(torch.empty(1, h, dim // 2))
        self.prefix = nn.Parameter(torch.empty(1, prefix_len, dim))
        for table in self.parameters():
            truncated_normal_(table)

    def forward(self, x, grid):
        h, w = grid
        rows, columns = self.rows, self.columns
        if grid != self.grid:
            columns = resize_position(columns, (1, self.grid[1]), (1, w), 0)
            rows = resize_position(rows, (self.grid[0], 1), (h, 1), 0)
        columns = columns[:, None].expand(-1, h, -1, -1)  # (1, h, w, D/2)
        rows = rows[:, :, None].expand(-1, -1, w, -1)  # (1, h, w, D/2)
        places = torch.cat([columns, rows], dim=-1).flatten(1, 2)  # (1, N, D)
        return x + torch.cat([self.prefix, places], dim=1)


class SinCosPosition(nn.Module):
    """Fixed waves of D/4 frequencies: sin and cos of the column, then sin and cos of the row.

    Nothing is learned, so any grid will do. Prefix tokens get zeros.
    """

    def __init__(self, dim, grid, prefix_len):
        super().__init__()
        self.grid, self.prefix_len = grid, prefix_len
        self.register_buffer("table", sincos(dim, grid, prefix_len), persistent=False)

    def forward(self, x, grid):
        table = self.table
        if grid != self.grid:
            table = sincos(x.shape[-1], grid, self.prefix_len).to(table)
        return x + table


def sincos(dim, grid, prefix_len=0):
    """The table of SinCosPosition: (1, R+N, D)."""
    if dim % 4 or dim < 8:
        raise ValueError(f"dim is {dim}: sin-cos positions need a multiple of 4, at least 8")
    h, w = grid
    y = torch.arange(h).repeat_interleave(w)  # (N,)
    x = torch.arange(w).repeat(h)  # (N,)
    frequency = 1 / 10000.0 ** (
        torch.arange(dim // 4) / (dim // 4 - 1)
    )  # (D/4,), from 1 to 1/10000
    x, y = x[:, None] * frequency, y[:, None] * frequency  # (N, D/4)
    places = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)  # (N, D)
    return F.pad(places, (0, 0, prefix_len, 0))[None]


# Positions inside attention: how far a key is from the query ------------------------------------


class RelativeAttention1D(Attention):
    """Relative positions as in the ViT paper's appendix: each query reads its offset to each key.

    Each offset (query - key) in the sequence, prefix tokens included, has a vector r and adds
    q . r / sqrt(d) to the score. The paper's figure for relative positions, 64.0 % 5-shot accuracy
    on ImageNet, belongs to this variant; beside it stand 61.4 without positions, 64.2 for learned
    1-D and 64.0 for learned 2-D ones.
    """

    length = None  # T, set by `on`

    @classmethod
    def on(cls, grid, prefix_len=1):
        """The class for sequences of `prefix_len` + h*w tokens, ready for a slot."""
        return type(cls.__name__, (cls,), {"length": prefix_len + grid[0] * grid[1]})

    def build(self, dim):
        super().build(dim)
        self.position_table = nn.Parameter(torch.empty(2 * self.length - 1, dim // self.heads))
        truncated_normal_(self.position_table)

    def attend(self, q, k, v, bias=None):
        T = q.shape[2]
        if T != self.length:
            raise ValueError(f"the relative 1-D positions are for {self.length} tokens, not {T}")
        by_offset = q @ self.position_table.T * self.scale  # (B, K, T, 2T-1)
        place = torch.arange(T, device=q.device)
        offset = place[:, None] - place[None, :] + T - 1  # (T, T), from 0 to 2T-2
        bias = by_offset.gather(-1, offset.expand(*q.shape[:3], T))  # (B, K, T, T)
        return super().attend(q, k, v, bias)


class RelativeAttention2D(Attention):
    """A learned number for every head and every offset (dy, dx), added to the score, as in Swin.

    Prefix tokens have no place, so nothing is added to their scores.
    """

    grid = prefix_len = None  # set by `on`

    @classmethod
    def on(cls, grid, prefix_len=1):
        """The class for a grid (h, w) of patches behind `prefix_len` tokens, ready for a slot."""
        return type(cls.__name__, (cls,), {"grid": tuple(grid), "prefix_len": prefix_len})

    def build(self, dim):
        super().build(dim)
        h, w = self.grid
        self.position_table = nn.Parameter(torch.empty(self.heads, 2 * h - 1, 2 * w - 1))
        self.register_buffer("offset", relative_offset(self.grid), persistent=False)
        truncated_normal_(self.position_table)

    def bias(self, grid):
        table, offset = self.position_table, self.offset
        if grid != self.grid:
            size = 2 * grid[0] - 1, 2 * grid[1] - 1
            table = F.interpolate(table[None], size=size, mode="bicubic")[0]
            offset = relative_offset(grid).to(offset.device)
        bias = table.flatten(1)[:, offset]  # (K, N, N)
        return F.pad(bias, (self.prefix_len, 0, self.prefix_len, 0))[None]  # (1, K, T, T)


def relative_offset(grid):
    """For each query and key, where (dy, dx) stands in a flat table (2h-1, 2w-1): ints (N, N)."""
    h, w = grid
    y = torch.arange(h).repeat_interleave(w)  # (N,)
    x = torch.arange(w).repeat(h)  # (N,)
    dy = y[:, None] - y[None, :] + h - 1  # (N, N), from 0 to 2h-2
    dx = x[:, None] - x[None, :] + w - 1  # (N, N), from 0 to 2w-2
    return dy * (2 * w - 1) + dx


# Inside a block --------------------------------------------------------------------------------


class LayerScale(nn.Module):
    """Multiply each channel of a branch by a learned number that starts small: (B, T, D)."""

    def __init__(self, dim, init=1e-5):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x):
        return x * self.gamma


# Heads: x (B, T, D), grid -> logits (B, classes) --------------------------------------------------


class MeanHead(ClassHead):
    """Average all patch tokens and read the result. No class token is needed."""

    prefix_len = 0

    def forward(self, x, grid):
        places = x[:, -grid[0] * grid[1] :]  # (B, N, D), without registers
        return F.linear(places.mean(dim=1), self.weight, self.bias)


class RepresentationHead(ClassHead):
    """The head of pre-training: one hidden layer with tanh between class token and logits.

    For fine-tuning the paper throws the hidden layer away and starts again from ClassHead, at zero.
    """

    def __init__(self, cfg):
        super().__init__(cfg)
        self.pre_logits = nn.Linear(cfg.dim, cfg.dim)

    def forward(self, x, grid=None):
        x = torch.tanh(self.pre_logits(x[:, 0]))  # (B, D)
        return F.linear(x, self.weight, self.bias)
