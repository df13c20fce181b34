"""Right answers to the exercises of lesson 16, and the truth about its questions."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from vitcourse import papers
from vitcourse.papers.swin import WindowAttention
from vitcourse.probe import record_attention

# shifted_weights ----------------------------------------------------------------------------------


def weights_of_nine_regions(scores, grid, M, shift):
    """As the authors number them: three slices of each axis."""
    region, number = torch.zeros(grid), 0
    cuts = slice(0, -M), slice(-M, -shift), slice(-shift, None)
    for rows in cuts:
        for columns in cuts:
            region[rows, columns] = number
            number += 1
    region = F.unfold(region[None, None], M, stride=M)[0].T  # (n, T)
    apart = region[:, None] - region[:, :, None] != 0
    return F.softmax(scores - 1e9 * apart, dim=-1)


def weights_of_places(scores, grid, M, shift):
    """Where each token stood before the roll: neighbours are less than M apart."""
    h, w = grid
    y = ((torch.arange(h) + shift) % h)[:, None].expand(h, w)
    x = ((torch.arange(w) + shift) % w)[None].expand(h, w)
    y, x = (F.unfold(a[None, None].float(), M, stride=M)[0].T for a in (y, x))  # (n, T)
    far = [(a[:, :, None] - a[:, None]).abs() >= M for a in (y, x)]
    parts = scores.exp() * ~(far[0] | far[1])
    return parts / parts.sum(dim=-1, keepdim=True)


# patch_merging ------------------------------------------------------------------------------------


class MergingBySlices(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(4 * channels, eps=1e-6)

    def forward(self, map):
        x = map.permute(0, 2, 3, 1)
        parts = [x[:, p::2, q::2] for q in (0, 1) for p in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, dim=-1)).flatten(1, 2))


class MergingByConvolution(nn.Module):
    """The matrix as a kernel, over groups that were normalised."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, map):
        cut = F.unfold(map, 2, stride=2).mT  # (B, N, C*2*2), each channel row by row
        cut = rearrange(cut, "B N (C p q) -> B N (q p C)", p=2, q=2)
        return F.linear(self.norm(cut), self.reduction.weight)


# reduce_map ---------------------------------------------------------------------------------------


class KeysByEinops(nn.Module):
    def __init__(self, dim, reduction):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.sr = nn.Conv2d(dim, dim, reduction, reduction)

    def forward(self, x, grid):
        map = self.sr(rearrange(x, "B (h w) D -> B D h w", h=grid[0]))
        return self.norm(rearrange(map, "B D h w -> B (h w) D"))


class KeysByLinear(nn.Module):
    """A window as one vector, and the kernel as one matrix."""

    def __init__(self, dim, reduction):
        super().__init__()
        self.sr = nn.Conv2d(dim, dim, reduction, stride=reduction)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x, grid):
        windows = F.unfold(x.mT.unflatten(2, grid), self.sr.kernel_size, stride=self.sr.stride)
        return self.norm(F.linear(windows.mT, self.sr.weight.flatten(1), self.sr.bias))


RIGHT = {
    "shifted_weights": [weights_of_nine_regions, weights_of_places],
    "patch_merging": [MergingBySlices, MergingByConvolution],
    "reduce_map": [KeysByEinops, KeysByLinear],
}

SOURCES = {
    "shifted_weights": """
def answer(scores, grid, M, shift):
    h, w = grid
    below = torch.arange(h) >= h - shift
    right = torch.arange(w) >= w - shift
    region = 2 * below[:, None] + right
    region = region.reshape(h // M, M, w // M, M)
    region = region.permute(0, 2, 1, 3)
    region = region.reshape(-1, M * M)
    apart = region[:, :, None] != region[:, None]
    scores = scores.masked_fill(apart, float("-inf"))
    return scores.softmax(dim=3)
""",
    "patch_merging": """
class answer(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, map):
        upper = map[:, :, 0::2]
        lower = map[:, :, 1::2]
        parts = [upper[..., 0::2], lower[..., 0::2], upper[..., 1::2], lower[..., 1::2]]
        x = torch.cat(parts, dim=1)
        x = x.flatten(2).mT
        x = self.norm(x)
        return self.reduction(x)
""",
    "reduce_map": """
class answer(nn.Module):
    def __init__(self, dim, reduction):
        super().__init__()
        self.sr = nn.Conv2d(dim, dim, reduction, stride=reduction)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x, grid):
        x = x.mT
        x = x.unflatten(2, (grid[0], grid[1]))
        x = self.sr(x)
        x = x.flatten(2).mT
        x = self.norm(x)
        return x
""",
}

EQUIVALENT = {
    (
        "shifted_weights",
        "region = 2 * below[:, None] + right -> region = 3 * below[:, None] + right",
    ): "the four regions still have four numbers, 0, 1, 3 and 4, and only equality is asked",
}


def reached_after_two_blocks():
    """Places whose gradient is not zero, behind a block of windows and one of shifted windows."""
    torch.manual_seed(0)
    layers = [WindowAttention(8, heads=2, window=4, shift=shift) for shift in (0, 2)]
    x = torch.randn(1, 256, 8, requires_grad=True)
    y = x
    for layer in layers:
        y = layer(y, (16, 16))
    y[0, 7 * 16 + 7].square().sum().backward()
    return (x.grad.abs().sum(dim=-1) > 0).sum().item()


def keys_of_pvt():
    """The columns of the first attention map."""
    return recorded("pvt_tiny")[0].shape[-1]


def pixels_of_tnt():
    """Queries in the first inner map of TNT-S."""
    windows, _, tokens, _ = recorded("tnt_s")[0].shape
    return windows * tokens


def recorded(name):
    """The attention maps of a published model, as shapes alone."""
    with torch.device("meta"):
        model, image = papers.build(name), torch.empty(1, 3, 224, 224)
    with record_attention(model) as maps:
        model(image)
    return maps


def truth():
    return {
        "tokens that reach": reached_after_two_blocks(),
        "keys that a query": keys_of_pvt(),
        "pixel tokens that": pixels_of_tnt(),
    }
