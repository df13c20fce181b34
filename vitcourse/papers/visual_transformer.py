"""Visual Transformer, minimal: the paper's equations behind a ResNet, without the dense decoder.

Visual Transformers: Token-based Image Representation and Processing for Computer Vision,
Wu et al. 2020, https://arxiv.org/abs/2006.03677

The question: a map has hundreds of pixels, an image shows a handful of things. Why compute with the
pixels? The change: a few tokens, 16 in the paper, gather what belongs together wherever it lies.
A transformer relates them, and a projector hands the result back to the pixels.

Each of the four equations is one attention, and none has a value matrix or a scale:

    filter tokenizer       learned filters ask the pixels
    recurrent tokenizer    the tokens of the block before ask the pixels
    transformer            tokens ask tokens
    projector              pixels ask the tokens

The backbone is the ResNet of hybrid.py, where the paper has one with BatchNorm. Its published
models cannot be built from the equations alone: with the widths that the text gives, VT-R18 would
have a third of the 11.6 million numbers that its table says. So there are no configurations here.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from vitcourse.papers import Paper
from vitcourse.papers.hybrid import ResNet
from vitcourse.vit import Attention, init_weights


class Look(Attention):
    """Take from what is seen, by how well it answers: queries, seen (B, T, D) -> (B, T', D)."""

    def __init__(self, dim):
        super().__init__(dim, heads=1)

    def build(self, dim):
        self.scale = 1.0

    def look(self, queries, keys, values):
        """Add up the values (B, T, D) for each query (B, T', D): (B, T', D)."""
        q, k, v = queries[:, None], keys[:, None], values[:, None]  # one head
        return self.attend(q, k, v)[:, 0]


class FilterTokenizer(Look):
    """L learned filters, the same for all images: pixels (B, N, D) -> tokens (B, L, D)."""

    def __init__(self, dim, tokens):
        super().__init__(dim)
        self.filters = nn.Linear(dim, tokens, bias=False)

    def forward(self, pixels, tokens=None):
        queries = self.filters.weight.expand(len(pixels), -1, -1)  # (B, L, D)
        return self.look(queries, pixels, pixels)  # (B, L, D)


class RecurrentTokenizer(Look):
    """Filters made from the tokens before: pixels (B, N, D), tokens (B, L, D) -> tokens."""

    def build(self, dim):
        super().build(dim)
        self.guide = nn.Linear(dim, dim, bias=False)

    def forward(self, pixels, tokens):
        return self.look(self.guide(tokens), pixels, pixels)  # (B, L, D)


class TokenAttention(Look):
    """Tokens ask tokens: (B, L, D) -> (B, L, D). What the paper calls key asks the query."""

    def build(self, dim):
        super().build(dim)
        self.key, self.query = (nn.Linear(dim, dim, bias=False) for _ in range(2))

    def forward(self, tokens):
        return self.look(self.key(tokens), self.query(tokens), tokens)  # (B, L, D)


class TokenTransformer(nn.Module):
    """Relate the tokens, then two layers for each, all of one width: (B, L, D) -> (B, L, D)."""

    def __init__(self, dim):
        super().__init__()
        self.attn = TokenAttention(dim)
        self.fc1, self.fc2 = (nn.Linear(dim, dim, bias=False) for _ in range(2))

    def forward(self, tokens):
        tokens = tokens + self.attn(tokens)  # (B, L, D)
        return tokens + self.fc2(F.relu(self.fc1(tokens)))  # (B, L, D)


class Projector(Look):
    """Add to each pixel what it asks for: pixels (B, N, D), tokens (B, L, D) -> pixels."""

    def build(self, dim):
        super().build(dim)
        self.query, self.key = (nn.Linear(dim, dim, bias=False) for _ in range(2))

    def forward(self, pixels, tokens):
        return pixels + self.look(self.query(pixels), self.key(tokens), tokens)  # (B, N, D)


class TokenBlock(nn.Module):
    """Tokenizer, transformer, projector: pixels (B, N, D), tokens (B, L, D) -> both."""

    def __init__(self, dim, tokenizer, project):
        super().__init__()
        self.tokenizer, self.transformer = tokenizer, TokenTransformer(dim)
        self.projector = Projector(dim) if project else None

    def forward(self, pixels, tokens=None):
        tokens = self.transformer(self.tokenizer(pixels, tokens))  # (B, L, D)
        if self.projector is not None:
            pixels = self.projector(pixels, tokens)  # (B, N, D)
        return pixels, tokens


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model. The ResNet decides the width D = 4 * width * 2^(stages - 1)."""

    tokens: int = 16
    depth: int = 2
    resnet: tuple = (2, 2, 2)  # the blocks of each stage
    width: int = 16
    channels: int = 3
    classes: int = 1000

    @property
    def dim(self):
        """The width D of pixels and tokens."""
        return 4 * self.width * 2 ** (len(self.resnet) - 1)


class VisualTransformer(nn.Module):
    """A ResNet that ends in token blocks: images (B, C, H, W) -> logits (B, classes).

    The head reads the tokens, so the last block needs no projector.
    """

    Tokenizer = FilterTokenizer  # of the first block

    def __init__(self, sizes):
        super().__init__()
        self.sizes, dim, last = sizes, sizes.dim, sizes.depth - 1
        self.backbone = ResNet(sizes.channels, sizes.resnet, sizes.width)
        first = self.Tokenizer(dim, sizes.tokens)
        tokenizers = [first, *(RecurrentTokenizer(dim) for _ in range(last))]
        self.blocks = nn.ModuleList(TokenBlock(dim, t, i < last) for i, t in enumerate(tokenizers))
        self.head = nn.Linear(dim, sizes.classes)
        self.apply(init_weights)

    def encode(self, images):
        """Images (B, C, H, W) -> the last pixels (B, N, D) and tokens (B, L, D), and the grid."""
        map = self.backbone(images)  # (B, D, h, w)
        pixels, tokens = map.flatten(2).transpose(1, 2), None
        for block in self.blocks:
            pixels, tokens = block(pixels, tokens)
        return pixels, tokens, tuple(map.shape[2:])

    def forward(self, images):
        _, tokens, _ = self.encode(images)
        return self.head(tokens.mean(dim=1))  # (B, classes)


PAPER = Paper(
    name="Visual Transformer",
    title="Visual Transformers: Token-based Image Representation and Processing "
    "for Computer Vision",
    authors="Wu et al.",
    year=2020,
    arxiv="2006.03677",
    lesson="14",
    models=(VisualTransformer,),
)
