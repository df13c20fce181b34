"""Image Transformer, minimal: images drawn value by value, with attention to what is near.

Image Transformer, Parmar et al. 2018, https://arxiv.org/abs/1802.05751

The question: attention to all values that came before costs the square of their number, and even a
small image has thousands. Is it enough to look at those that are near? The change: values are
drawn in blocks, and all queries of a block share one memory, the block and what lies around it.

    1-D    a block is a stretch of the raster order, its memory reaches further back in it
    2-D    a block is a rectangle, its memory reaches up, left and right; blocks are drawn one after
           another, row by row, and so are the values in each, so the order is not that of a raster

In both, a query sees what was drawn before it. Here they are one: 1-D is 2-D on an image that is
laid out in one row. The three channels of a pixel are three neighbours, red before green before
blue: an image is h rows of w * C values. Half of a token's numbers tell the row by sin and cos,
half the column and channel. The norm comes after the branch: add, then normalise.

Left out: the output as a mixture of logistic distributions, for which a softmax over the levels
stands here, classes that are told to the model, and the encoder for larger images.

Shapes as in vit.py, and T = h * w * C values, b blocks of q queries, each with a memory of m.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.papers import Paper
from vitcourse.parts import sincos
from vitcourse.vit import Attention, Block, Mlp, init_weights, truncated_normal_


class Neighbours:
    """Who is drawn after whom, and who sees whom, on a grid (h, w) of values.

    A block is (rows, columns); the memory reaches so many rows up, and columns left and right.

    order      int64 (T,): the places of the grid, row by row, in the order in which they are drawn
    queries    int64 (b, q): the queries of each block, as places in that order, -1 for none
    memory     int64 (b, m): what they share, likewise
    visible    bool (b, q, m): what each of them sees of it: itself, and what was drawn before
    """

    def __init__(self, grid, block, reach):
        h, w = grid
        rows, columns = block
        up, aside = reach
        tops = torch.arange(0, h, rows).repeat_interleave(-(-w // columns))  # (b,)
        lefts = torch.arange(0, w, columns).repeat(-(-h // rows))  # (b,)

        def rectangle(above, beside):
            """The places of each block and its border, -1 outside of the grid: (b, places)."""
            y = tops[:, None, None] + torch.arange(-above, rows)[:, None]  # (b, y, 1)
            x = lefts[:, None, None] + torch.arange(-beside, columns + beside)  # (b, 1, x)
            inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
            return torch.where(inside, y * w + x, -1).flatten(1)

        queries, memory = rectangle(0, 0), rectangle(up, aside)
        self.order = queries[queries >= 0]
        when = torch.full((h * w + 1,), -1)  # the last is for -1
        when[self.order] = torch.arange(h * w)
        queries, memory = when[queries], when[memory]
        visible = (memory >= 0)[:, None] & (memory[:, None] <= queries[:, :, None])
        needed = visible.any(dim=1).any(dim=0)  # (m,)
        self.queries, self.memory = queries, memory[:, needed]
        self.visible = visible[:, :, needed]


class LocalAttention(Attention):
    """Attention in which each block of queries sees its memory: x (B, T, D) -> x (B, T, D).

    Tokens come in the order in which they are drawn. To a recorder, blocks are like images: it gets
    (B*b, K, q, m).
    """

    def __init__(self, dim, heads, neighbours):
        super().__init__(dim, heads)
        queries = neighbours.queries
        visible = neighbours.visible | (queries < 0)[..., None]  # no row is empty
        hidden = torch.zeros(visible.shape).masked_fill(~visible, -torch.inf)
        tables = {
            "queries": queries.clamp(min=0),
            "memory": neighbours.memory.clamp(min=0),
            "hidden": hidden[:, None],
            "drawn": (queries >= 0).flatten().nonzero().flatten(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def attend(self, q, k, v, bias=None):
        B = len(q)

        def gather(x, places):
            """What stands at the places (b, n) of a sequence: (B, K, T, d) -> (B*b, K, n, d)."""
            return x[:, :, places].transpose(1, 2).flatten(0, 1)

        k, v = gather(k, self.memory), gather(v, self.memory)
        bias = self.hidden.to(q.dtype).repeat(B, 1, 1, 1)  # (blocks, 1, q, m)
        x = super().attend(gather(q, self.queries), k, v, bias)  # (blocks, K, q, d)
        x = x.unflatten(0, (B, -1)).transpose(1, 2).flatten(2, 3)
        return x[:, :, self.drawn]  # (B, K, T, d)


class ReluMlp(Mlp):
    """The MLP with ReLU: x (B, T, D) -> x (B, T, D)."""

    def forward(self, x, grid=None):
        x = F.relu(self.fc1(x))  # (B, T, M)
        return self.fc2(x)  # (B, T, D)


class PostNormBlock(Block):
    """Attend, add, normalise; apply the MLP, add, normalise: x (B, T, D), grid -> x (B, T, D)."""

    def __init__(self, dim, attn, mlp, drop):
        super().__init__(dim, attn, mlp)
        self.drop = nn.Dropout(drop)

    def forward(self, x, grid=None):
        x = self.norm1(x + self.drop(self.attn(x, grid)))  # (B, T, D)
        return self.norm2(x + self.drop(self.mlp(x, grid)))  # (B, T, D)


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model. With a block of one number, attention is 1-D, and so is its reach.

    Without a block, attention is full: every value sees all that was drawn before it.
    """

    dim: int
    depth: int
    heads: int
    hidden: int
    image: tuple[int, int]
    channels: int = 3
    levels: int = 256  # the values that a channel can have
    block: int | tuple[int, int] | None = None
    reach: int | tuple[int, int] = 0
    drop: float = 0.0

    @property
    def grid(self):
        """The rows and columns of values (h, w * C)."""
        return self.image[0], self.image[1] * self.channels

    @property
    def neighbours(self):
        """Who sees whom."""
        if self.block is None:
            return Neighbours(self.grid, self.grid, (0, 0))
        if isinstance(self.block, int):
            length = self.grid[0] * self.grid[1]
            return Neighbours((1, length), (1, self.block), (0, self.reach))
        return Neighbours(self.grid, self.block, self.reach)


class ImageTransformer(nn.Module):
    """Values int64 (B, C, H, W) -> logits of each value's level (B, C, H, W, levels).

    The logits of a value depend on those alone that are drawn before it.
    """

    def __init__(self, sizes):
        super().__init__()
        self.sizes, D = sizes, sizes.dim
        neighbours = sizes.neighbours
        self.embed = nn.Embedding(sizes.channels * sizes.levels, D)  # one table for each channel
        self.prefix = nn.Parameter(torch.empty(1, 1, D))  # stands before the first value
        self.blocks = nn.ModuleList(
            PostNormBlock(
                D,
                LocalAttention(D, sizes.heads, neighbours),
                ReluMlp(D, sizes.hidden),
                sizes.drop,
            )
            for _ in range(sizes.depth)
        )
        self.head = nn.Linear(D, sizes.levels)
        places = {"order": neighbours.order, "when": neighbours.order.argsort()}
        for name, table in (places | {"position": sincos(D, sizes.grid)}).items():
            self.register_buffer(name, table, persistent=False)
        for table in (self.prefix, self.embed.weight):
            truncated_normal_(table, std=D**-0.5)
        self.apply(init_weights)

    def forward(self, images):
        C, (H, W) = self.sizes.channels, self.sizes.image
        if images.shape[1:] != (C, H, W):
            needed = f"(batch, {C}, {H}, {W})"
            raise ValueError(f"images have the shape {tuple(images.shape)}, not {needed}")
        first = torch.arange(C, device=images.device) * self.sizes.levels
        values = images.permute(0, 2, 3, 1) + first  # (B, H, W, C)
        x = self.embed(values.flatten(1)[:, self.order[:-1]])
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1)  # (B, T, D)
        x = x + self.position[:, self.order].to(x.dtype)  # (B, T, D)
        for block in self.blocks:
            x = block(x)  # (B, T, D)
        logits = self.head(x)[:, self.when]  # (B, T, levels)
        return logits.unflatten(1, (H, W, C)).movedim(3, 1)  # (B, C, H, W, levels)

    def loss(self, images):
        """Minus the mean log-likelihood of a value, in nats; divided by log 2, it is bits."""
        return F.cross_entropy(self(images).flatten(0, 3), images.flatten())


@torch.no_grad()
def complete(model, images, known, generator=None, temperature=1.0):
    """Draw the pixels that are not known: images (B, C, H, W), known bool (H, W) -> images.

    One value after another, in the model's order, each given those drawn before it. Values that are
    known stay as they are.
    """
    images = images.clone()
    C, W = images.shape[1], images.shape[3]
    for place in model.order.tolist():
        y, x, c = place // (W * C), place // C % W, place % C
        if not known[y, x]:
            logits = model(images)[:, c, y, x] / temperature  # (B, levels)
            drawn = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)  # (B, 1)
            images[:, c, y, x] = drawn[:, 0]
    return images


PAPER = Paper(
    name="Image Transformer",
    title="Image Transformer",
    authors="Parmar et al.",
    year=2018,
    arxiv="1802.05751",
    lesson="18",
    models=(ImageTransformer,),
)
