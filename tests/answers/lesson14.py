"""Right answers to the exercises of lesson 14, and the truth about its questions."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from vitcourse import papers
from vitcourse.papers import t2t_vit
from vitcourse.papers.pit import OverlappingPatches
from vitcourse.papers.visual_transformer import FilterTokenizer, TokenBlock
from vitcourse.probe import record_attention

# soft_split ---------------------------------------------------------------------------------------


def split_by_loop(map, kernel, stride, padding):
    map = F.pad(map, (padding,) * 4)
    tops = range(0, map.shape[2] - kernel + 1, stride)
    lefts = range(0, map.shape[3] - kernel + 1, stride)
    windows = [map[:, :, y : y + kernel, x : x + kernel] for y in tops for x in lefts]
    return torch.stack([window.flatten(1) for window in windows], dim=1)


def split_by_views(map, kernel, stride, padding):
    map = F.pad(map, (padding,) * 4)
    windows = map.unfold(2, kernel, stride).unfold(3, kernel, stride)  # (B, C, h, w, k, k)
    return rearrange(windows, "B C h w p q -> B (h w) (C p q)")


def split_by_convolution(map, kernel, stride, padding):
    values = map.shape[1] * kernel**2
    pick = torch.eye(values, device=map.device).view(values, -1, kernel, kernel)
    return F.conv2d(map, pick, stride=stride, padding=padding).flatten(2).mT


# peg ----------------------------------------------------------------------------------------------


class PegByEinops(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x, grid):
        h, w = grid
        prefix, places = x.split([x.shape[1] - h * w, h * w], dim=1)
        map = rearrange(places, "B (h w) D -> B D h w", h=h)
        around = rearrange(self.proj(map), "B D h w -> B (h w) D")
        return torch.cat([prefix, places + around], dim=1)


class PegByShifts(nn.Module):
    """Nine moved copies of the map, each times its weight."""

    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x, grid):
        h, w = grid
        prefix_len = x.shape[1] - h * w
        map = x[:, prefix_len:].unflatten(1, grid)  # (B, h, w, D)
        framed = F.pad(map, (0, 0, 1, 1, 1, 1))
        added = map + self.proj.bias
        for y in range(3):
            for z in range(3):
                moved = framed[:, y : y + h, z : z + w]
                added = added + moved * self.proj.weight[:, 0, y, z]
        return torch.cat([x[:, :prefix_len], added.flatten(1, 2)], dim=1)


# gather_tokens ------------------------------------------------------------------------------------


def gather_by_einsum(pixels, filters):
    weights = torch.einsum("bnd,ld->bln", pixels, filters).softmax(dim=-1)
    return torch.einsum("bln,bnd->bld", weights, pixels)


def gather_by_kernel(pixels, filters):
    queries = filters.expand(len(pixels), -1, -1)
    return F.scaled_dot_product_attention(queries, pixels, pixels, scale=1.0)


def gather_by_loop(pixels, filters):
    tokens = []
    for filter in filters:
        scores = (pixels * filter).sum(dim=-1, keepdim=True)  # (B, N, 1)
        weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        tokens.append((weights * pixels).sum(dim=1))
    return torch.stack(tokens, dim=1)


RIGHT = {
    "soft_split": [split_by_loop, split_by_views, split_by_convolution],
    "peg": [PegByEinops, PegByShifts],
    "gather_tokens": [gather_by_einsum, gather_by_kernel, gather_by_loop],
    "overlapping_tokens": [],
}

SOURCES = {
    "soft_split": """
def answer(map, kernel, stride, padding):
    windows = F.unfold(map, kernel, 1, padding, stride)
    return windows.mT
""",
    "peg": """
class answer(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x, grid):
        count = grid[0] * grid[1]
        prefix = x[:, :-count]
        places = x[:, -count:]
        map = places.mT.unflatten(2, grid)
        map = map + self.proj(map)
        places = map.flatten(2).mT
        return torch.cat([prefix, places], dim=1)
""",
    "gather_tokens": """
def answer(pixels, filters):
    scores = pixels @ filters.T
    weights = scores.softmax(dim=1)
    return weights.mT @ pixels
""",
}

EQUIVALENT = {}


def first_split():
    """The tokens of T2T-ViT's first soft split, for an image of 224 x 224."""
    image = torch.zeros(1, 3, 224, 224)
    x, _ = t2t_vit.soft_split(image, *t2t_vit.TokensToToken.splits[0])
    return x.shape[1]


def peg_numbers():
    """The parameters of CPVT-Ti's PEG."""
    model = papers.build("cpvt_ti")
    (peg,) = (block for block in model.blocks if isinstance(block, model.Peg))
    return sum(p.numel() for p in peg.parameters())


def block_scores():
    """The attention scores that one block of a Visual Transformer computes."""
    block = TokenBlock(6, FilterTokenizer(6, 16), project=True)
    with torch.no_grad(), record_attention(block) as maps:
        block(torch.randn(1, 196, 6))
    return sum(weights.numel() for weights in maps)


def truth():
    assert OverlappingPatches(3, 4, 8)(torch.zeros(1, 3, 224, 224))[0].shape[1] == 729
    return {
        "tokens that the first soft split": first_split(),
        "numbers that the PEG": peg_numbers(),
        "attention scores in one block": block_scores(),
    }
