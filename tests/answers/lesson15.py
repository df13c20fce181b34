"""Right answers to the exercises of lesson 15, and the truth about its questions."""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import nn

from vitcourse import papers, vit
from vitcourse.papers.attention_as_convolution import quadratic_encoding
from vitcourse.papers.cait import ClassAttention
from vitcourse.papers.sasa import LocalAttention
from vitcourse.probe import record_attention

# talking_heads ------------------------------------------------------------------------------------


def talk_by_einsum(scores, before, after):
    mixed = einsum(before, scores, "j k, b k q t -> b j q t").softmax(dim=-1)
    return einsum(after, mixed, "j k, b k q t -> b j q t")


def talk_by_convolution(scores, before, after):
    """A mixture of heads is a convolution of 1 x 1 over the maps."""
    weights = F.conv2d(scores, before[..., None, None]).softmax(dim=3)
    return F.conv2d(weights, after[..., None, None])


def talk_by_loop(scores, before, after):
    heads = range(scores.shape[1])
    old = [sum(before[j, k] * scores[:, k] for k in heads).softmax(dim=-1) for j in heads]
    return torch.stack([sum(after[j, k] * old[k] for k in heads) for j in heads], dim=1)


# class_attention ----------------------------------------------------------------------------------


class FirstOfAll(vit.Attention):
    """All ask, and the first answer is kept: right, and T times the work."""

    def forward(self, x, grid=None):
        return super().forward(x, grid)[:, :1]


class ByEinops(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = rearrange(q[:, 0], "B (K d) -> B K d", K=self.heads)
        k, v = (rearrange(t, "B T (K d) -> B K T d", K=self.heads) for t in (k, v))
        weights = F.softmax(einsum(q, k, "B K d, B K T d -> B K T") / q.shape[-1] ** 0.5, dim=-1)
        token = einsum(weights, v, "B K T, B K T d -> B K d")
        return self.proj(token.flatten(1))[:, None]


class ByHead(nn.Module):
    """One head after the other, with slices of the weights."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.proj, self.qkv = nn.Linear(dim, dim), nn.Linear(dim, 3 * dim)

    def forward(self, x):
        d, D = x.shape[-1] // self.heads, x.shape[-1]
        qkv, results = self.qkv(x), []
        for start in range(0, D, d):
            q, k, v = (qkv[..., part + start : part + start + d] for part in (0, D, 2 * D))
            scores = q[:, :1] @ k.transpose(1, 2) / d**0.5  # (B, 1, T)
            results.append(scores.softmax(-1) @ v)
        return self.proj(torch.cat(results, dim=-1))


# local_weights ------------------------------------------------------------------------------------


def window_by_encoding(scores, grid, side):
    y, x = quadratic_encoding(grid)[..., 1:].abs().unbind(dim=-1)
    outside = torch.maximum(y, x) > side // 2
    return (scores - outside * 1e9).softmax(dim=-1)


def window_by_loop(scores, grid, side):
    (h, w), far = grid, side // 2
    weights = torch.zeros_like(scores)
    for n in range(h * w):
        row, column = divmod(n, w)
        rows = range(max(row - far, 0), min(row + far + 1, h))
        columns = range(max(column - far, 0), min(column + far + 1, w))
        seen = [y * w + x for y in rows for x in columns]
        weights[..., n, seen] = scores[..., n, seen].softmax(dim=-1)
    return weights


def window_by_exponentials(scores, grid, side):
    """A window of ones slid over the grid, and a softmax by hand."""
    h, w = grid
    ones = torch.eye(h * w).view(h * w, 1, h, w)
    seen = F.max_pool2d(ones, side, stride=1, padding=side // 2).flatten(1)
    parts = scores.exp() * seen
    return parts / parts.sum(dim=-1, keepdim=True)


# place_weights ------------------------------------------------------------------------------------


def places_by_encoding(grid, centre, alpha):
    """The dot product of the paper."""
    v = -alpha[:, None] * torch.cat([torch.ones_like(centre[:, :1]), -2 * centre], dim=1)
    return F.softmax(einsum(quadratic_encoding(grid).to(v), v, "q k c, K c -> K q k"), dim=-1)


def places_by_axes(grid, centre, alpha):
    """A softmax along the rows times one along the columns."""
    parts = []
    for axis, n in enumerate(grid):
        place = torch.arange(n)
        r = place - place[:, None]  # (n, n)
        far = (r - centre[:, axis, None, None]).square()
        parts.append((-alpha[:, None, None] * far).softmax(dim=-1))  # (K, n, n)
    maps = einsum(*parts, "K a b, K c d -> K a c b d")
    return maps.flatten(3).flatten(1, 2)


RIGHT = {
    "talking_heads": [talk_by_einsum, talk_by_convolution, talk_by_loop],
    "class_attention": [FirstOfAll, ByEinops, ByHead],
    "local_weights": [window_by_encoding, window_by_loop, window_by_exponentials],
    "place_weights": [places_by_encoding, places_by_axes],
}

SOURCES = {
    "talking_heads": """
def answer(scores, before, after):
    scores = torch.einsum("jk,bkqt->bjqt", before, scores)
    weights = scores.softmax(dim=3)
    weights = torch.einsum("jk,bkqt->bjqt", after, weights)
    return weights
""",
    "class_attention": """
class answer(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=2)
        q = q[:, :1].unflatten(2, (self.heads, -1)).permute(0, 2, 1, 3)
        k = k.unflatten(2, (self.heads, -1)).permute(0, 2, 1, 3)
        v = v.unflatten(2, (self.heads, -1)).permute(0, 2, 1, 3)
        scores = q @ k.mT
        scores = scores / q.shape[3] ** 0.5
        x = scores.softmax(dim=3) @ v
        x = x.permute(0, 2, 1, 3).flatten(2)
        return self.proj(x)
""",
    "local_weights": """
def answer(scores, grid, side):
    h, w = grid
    place = torch.arange(h * w)
    y = place // w
    x = place % w
    rows = (y[:, None] - y).abs()
    columns = (x[:, None] - x).abs()
    scores = scores.masked_fill(rows > side // 2, float("-inf"))
    scores = scores.masked_fill(columns > side // 2, float("-inf"))
    return scores.softmax(dim=3)
""",
    "place_weights": """
def answer(grid, centre, alpha):
    h, w = grid
    places = torch.cartesian_prod(torch.arange(h), torch.arange(w))
    r = places[None] - places[:, None]
    r = r - centre[:, None, None]
    squared = r.square().sum(dim=3)
    scores = -alpha[:, None, None] * squared
    return scores.softmax(dim=2)
""",
}

SIGN = "the sign goes away: rows and columns differ by as many, whichever is subtracted"
SQUARE = "the sign goes away when the difference is squared in the next line"
EQUIVALENT = {
    (
        "local_weights",
        "rows = (y[:, None] - y).abs() -> rows = (y - y[:, None]).abs()",
    ): SIGN,
    (
        "local_weights",
        "columns = (x[:, None] - x).abs() -> columns = (x - x[:, None]).abs()",
    ): SIGN,
    (
        "place_weights",
        "r = r - centre[:, None, None] -> r = centre[:, None, None] - r",
    ): SQUARE,
}


def blocks_that_change_patches():
    """Of all blocks of CaiT-S24, those after which the patches are others."""
    model = papers.build("cait_s24", classes=5, image=32).eval()
    x, grid = torch.randn(1, 5, 384), (2, 2)  # a class token and four patches
    changed = 0
    with torch.no_grad():
        for block in [*model.blocks, *model.class_blocks]:
            for scale in (block.ls1, block.ls2):
                scale.gamma.fill_(1.0)
            changed += not torch.equal(block(x, grid)[:, 1:], x[:, 1:])
    return changed


def weights_of_one_query():
    """The size of one head's map in class attention."""
    layer = ClassAttention(12, heads=3)
    with record_attention(layer) as maps, torch.no_grad():
        layer(torch.randn(1, 197, 12))
    return maps[0][0, 0].numel()


def seen_from_the_corner():
    """Keys with a weight in the window of the first pixel."""
    layer = LocalAttention(4, heads=2, window=7, border="masked")
    with record_attention(layer) as maps, torch.no_grad():
        layer(torch.randn(1, 4, 8, 8))
    return (maps[0][0, 0, 0] > 0).sum().item()


def truth():
    return {
        "blocks of CaiT": blocks_that_change_patches(),
        "attention weights": weights_of_one_query(),
        "pixels that": seen_from_the_corner(),
    }
