"""iGPT, faithful to the published model: a decoder like GPT-2 learns images, pixel after pixel.

Generative Pretraining from Pixels, Chen et al. 2020,
https://proceedings.mlr.press/v119/chen20s.html

The question: can a transformer learn from images without labels, and without being told that they
have two dimensions? The change: an image becomes a row of whole numbers.

    palette    each pixel gets the number of the nearest of 512 colours, which k-means has found:
               9 bits for three channels
    raster     row by row from the top left; 32 x 32 pixels are 1024 tokens

A decoder learns to tell the colours, by one of two objectives. Then its features serve a
classifier: a linear probe of any layer, or all is trained on, `Classifier`, with both losses.

    IGPT         the colour of each pixel from the pixels before it
    PixelBert    the colours of hidden pixels from all that are not hidden

The blocks are the ViT's, but no layer has a bias, the norm divides by the root mean square and
subtracts nothing, and x * sigmoid(1.702 x) stands for GELU. The counts that the authors report are
those without biases, for 32 x 32 pixels; the port in transformers has biases (`biases=True`), 9D
numbers more in each block.

Shapes as in vit.py; N pixels are N tokens, and numbers of colours are int64 (B, N).
"""

import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.papers import Paper, Published
from vitcourse.vit import Attention, Block, Mlp, init_weights, truncated_normal_

RMSNorm = partial(nn.RMSNorm, eps=1e-5)

# Images become numbers ----------------------------------------------------------------------------


def find_palette(images, colours, steps=50, seed=0):
    """The colours that stand for all others, by k-means: uint8 (n, C, H, W) -> (colours, C).

    Values are from -1 to 1, colours from dark to bright. The start is drawn from the colours that
    occur. A colour that no pixel is near to stays where it is.
    """
    pixels, counts = as_pixels(images).flatten(0, 1).unique(dim=0, return_counts=True)
    if len(pixels) < colours:
        raise ValueError(f"the images have {len(pixels)} colours, the palette needs {colours}")
    chosen = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))[:colours]
    palette = pixels[chosen]  # (colours, C)
    for _ in range(steps):
        near = nearest(pixels, palette)
        total = counts.new_zeros(colours).index_add(0, near, counts)[:, None]  # (colours, 1)
        sums = torch.zeros_like(palette).index_add(0, near, pixels * counts[:, None])
        palette = torch.where(total > 0, sums / total.clamp(min=1), palette)
    return palette[palette.sum(dim=1).argsort()]


def as_pixels(images):
    """Images with values 0..255, (B, C, H, W) -> pixels with values -1..1, (B, N, C)."""
    return images.permute(0, 2, 3, 1).flatten(1, 2) / 127.5 - 1


def nearest(pixels, palette):
    """The number of the nearest colour: pixels (n, C), palette (colours, C) -> int64 (n,)."""
    return torch.cat([torch.cdist(part, palette).argmin(dim=1) for part in pixels.split(2**16)])


def quantise(images, palette):
    """Images as numbers of colours, row by row: uint8 (B, C, H, W) -> int64 (B, N)."""
    pixels = as_pixels(images)  # (B, N, C)
    return nearest(pixels.flatten(0, 1), palette).unflatten(0, pixels.shape[:2])


def paint(colours, palette, image):
    """The image (height, width) that numbers stand for: (B, N) -> uint8 (B, C, H, W)."""
    pixels = (palette[colours] + 1) * 127.5  # (B, N, C)
    return pixels.round().to(torch.uint8).transpose(1, 2).unflatten(2, image)


# Names of others ----------------------------------------------------------------------------------

NAMES = {
    r"^transformer\.": "",
    r"^h\.": "blocks.",
    r"\.ln_([12])\.": r".norm\1.",
    r"\.attn\.c_attn\.": ".attn.qkv.",
    r"\.attn\.c_proj\.": ".attn.proj.",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
    r"^ln_f\.": "norm.",
    r"^lm_head\.": "head.",
}


def from_transformers(state, model):
    """The names of transformers, where the last of the colours is what stands before the first.

    Its layers multiply from the other side. Biases that are all zero are left out.
    """
    ours = {}
    for name, tensor in state.items():
        if name.endswith(".weight") and "c_" in name:
            tensor = tensor.T
        for pattern, replacement in NAMES.items():
            name = re.sub(pattern, replacement, name)
        if model.sizes.biases or not name.endswith(".bias") or tensor.any():
            ours[name] = tensor
    colours, positions = ours.pop("wte.weight"), ours.pop("wpe.weight")
    ours |= {"colours.weight": colours[:-1], "prefix": colours[None, -1:]}
    return ours | {"position": positions[None]}


# The decoder --------------------------------------------------------------------------------------


class CausalAttention(Attention):
    """Attention in which a token sees itself and those before it, never those after it.

    `memory`, where it is not None, holds the keys and values of all tokens that came before: those
    given next go on from there. See `remember`.
    """

    memory = None

    def project(self, x, grid):
        q, k, v = super().project(x, grid)  # each (B, K, T, d)
        if self.memory is not None:
            pairs = zip(self.memory, (k, v), strict=True)
            k, v = (torch.cat([*before, new], dim=2) for before, new in pairs)
            self.memory = [k], [v]
        return q, k, v

    def attend(self, q, k, v, bias=None):
        T, seen = q.shape[2], k.shape[2]
        later = q.new_ones(T, seen, dtype=torch.bool).triu(1 + seen - T)
        bias = q.new_zeros(T, seen).masked_fill(later, -torch.inf)
        return super().attend(q, k, v, bias)


class QuickMlp(Mlp):
    """The MLP with x * sigmoid(1.702 x) for GELU: x (B, T, D) -> x (B, T, D)."""

    def forward(self, x, grid=None):
        x = self.fc1(x)  # (B, T, M)
        return self.fc2(x * torch.sigmoid(1.702 * x))  # (B, T, D)


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model. `image` is one side or (height, width)."""

    dim: int
    depth: int
    heads: int
    colours: int = 512
    image: int | tuple[int, int] = 32
    biases: bool = False

    @property
    def pixels(self):
        """How many pixels an image has: N."""
        height, width = (self.image, self.image) if isinstance(self.image, int) else self.image
        return height * width


class PixelModel(nn.Module):
    """What both objectives share: colours (B, N) -> logits of each pixel's colour, (B, N, colours).

    A subclass says what stands in the place of each pixel (`embed`), which pixels are hidden
    (`hide`), and what is asked for (`loss`).
    """

    Attention = Attention

    def __init__(self, sizes):
        super().__init__()
        self.sizes, D = sizes, sizes.dim
        self.colours = nn.Embedding(sizes.colours, D)
        self.position = nn.Parameter(torch.empty(1, sizes.pixels, D))
        self.blocks = nn.ModuleList(self.block() for _ in range(sizes.depth))
        self.norm = RMSNorm(D)
        self.head = nn.Linear(D, sizes.colours, bias=False)
        self.begin()

    def block(self):
        """A block of the ViT with another norm and another MLP."""
        D = self.sizes.dim
        block = Block(D, self.Attention(D, self.sizes.heads), QuickMlp(D, 4 * D))
        block.norm1, block.norm2 = RMSNorm(D), RMSNorm(D)
        if not self.sizes.biases:
            for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
                layer.bias = None
        return block

    def begin(self):
        """The start values of the authors. At first, all colours are equally likely."""
        D, L = self.sizes.dim, self.sizes.depth
        self.apply(init_weights)
        truncated_normal_(self.colours.weight)
        truncated_normal_(self.position, std=0.01)
        nn.init.zeros_(self.head.weight)
        for block in self.blocks:
            truncated_normal_(block.attn.qkv.weight, std=D**-0.5)
            truncated_normal_(block.attn.proj.weight, std=(D * L) ** -0.5)

    def encode(self, colours, hidden=None):
        """The last features of each pixel: colours (B, N), hidden None or bool (B, N) -> x."""
        if colours.ndim != 2 or colours.shape[1] != self.sizes.pixels:
            needed = f"(batch, {self.sizes.pixels})"
            raise ValueError(f"colours have the shape {tuple(colours.shape)}, not {needed}")
        return self.decode(self.embed(colours, hidden))  # (B, N, D)

    def decode(self, x):
        """All blocks, and the last norm: x (B, T, D) -> x (B, T, D)."""
        for block in self.blocks:
            x = block(x)  # (B, T, D)
        return self.norm(x)  # (B, T, D)

    def forward(self, colours, hidden=None):
        return self.head(self.encode(colours, hidden))  # (B, N, colours)

    def features(self, colours, hidden=None):
        """What each block reads, and what the head reads: depth + 1 times (B, N, D).

        All are normalised. Their means over the pixels are what the authors probe.
        """
        x, found = self.embed(colours, hidden), []
        for block in self.blocks:
            found.append(block.norm1(x))
            x = block(x)  # (B, N, D)
        return [*found, self.norm(x)]

    def objective(self, colours, generator=None):
        """What pre-training makes small: colours (B, N) -> nats for each colour asked for."""
        hidden = self.hide(colours, generator)
        return self.loss(self(colours, hidden), colours, hidden)


class IGPT(PixelModel):
    """Tell the colour of each pixel from the pixels before it."""

    Attention = CausalAttention
    layouts = {"transformers": ("wte.weight", from_transformers)}

    def __init__(self, sizes):
        super().__init__(sizes)
        self.prefix = nn.Parameter(torch.empty(1, 1, sizes.dim))  # stands before the first pixel
        truncated_normal_(self.prefix)

    def embed(self, colours, hidden=None):
        """In the place of each pixel the one before it: (B, n) -> x (B, n, D), with n up to N.

        So the last number is not looked at.
        """
        before = self.colours(colours[:, :-1])
        x = torch.cat([self.prefix.expand(len(colours), -1, -1), before], dim=1)  # (B, n, D)
        return x + self.position[:, : x.shape[1]]  # (B, n, D)

    def hide(self, colours, generator=None):
        """Nothing is hidden but what comes later."""
        return None

    def loss(self, logits, colours, hidden=None):
        """Minus the mean log-likelihood of a pixel, in nats."""
        return F.cross_entropy(logits.flatten(0, 1), colours.flatten())


class PixelBert(PixelModel):
    """Tell the colours of hidden pixels from all others, before and after."""

    share = 0.15  # of the pixels are hidden

    def embed(self, colours, hidden=None):
        """The colour of each pixel, zeros where it is hidden: (B, N) -> x (B, N, D)."""
        x = self.colours(colours)  # (B, N, D)
        if hidden is not None:
            x = x.masked_fill(hidden[..., None], 0)  # (B, N, D)
        return x + self.position  # (B, N, D)

    def hide(self, colours, generator=None):
        """Draw which pixels are hidden, each by itself: bool (B, N)."""
        drawn = torch.rand(colours.shape, device=colours.device, generator=generator)
        return drawn < self.share  # (B, N)

    def loss(self, logits, colours, hidden):
        """The mean over an image's hidden pixels, then over the images, in nats."""
        each = F.cross_entropy(logits.transpose(1, 2), colours, reduction="none")  # (B, N)
        return ((each * hidden).sum(dim=1) / hidden.sum(dim=1).clamp(min=1)).mean()


# Draw images --------------------------------------------------------------------------------------


@contextmanager
def remember(model):
    """Inside, attention keeps its keys and values: tokens can be given one after another."""
    layers = [module for module in model.modules() if isinstance(module, CausalAttention)]
    try:
        for layer in layers:
            layer.memory = [], []
        yield
    finally:
        for layer in layers:
            layer.memory = None


@torch.no_grad()
def sample(model, known, generator=None, temperature=1.0):
    """Draw the pixels that are not known, each given all before it: (B, n) -> (B, N).

    `known` holds the first n colours of each image, which may be none. A temperature below 1 makes
    likely colours likelier.
    """
    colours, seen = known, 0
    with remember(model):
        while colours.shape[1] < model.sizes.pixels:
            x = model.embed(F.pad(colours, (0, 1)))[:, seen:]  # what is new
            seen += x.shape[1]
            logits = model.head(model.decode(x)[:, -1]) / temperature  # (B, colours)
            drawn = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)  # (B, 1)
            colours = torch.cat([colours, drawn], dim=1)
    return colours


# Use what was learned -----------------------------------------------------------------------------


class Classifier(nn.Module):
    """A pre-trained model whose mean features tell the class: colours (B, N) -> two tensors.

    Logits of the classes (B, classes), and of the colours (B, N, colours).
    """

    def __init__(self, model, classes):
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.sizes.dim, classes, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, colours, hidden=None):
        x = self.model.encode(colours, hidden)  # (B, N, D)
        return self.head(x.mean(dim=1)), self.model.head(x)

    def objective(self, colours, labels, generator=None):
        """The loss of fine-tuning: that of pre-training, and the cross-entropy of the labels."""
        hidden = self.model.hide(colours, generator)
        classes, logits = self(colours, hidden)
        return self.model.loss(logits, colours, hidden) + F.cross_entropy(classes, labels)


def linear_probe(features, labels, others):
    """What one linear layer learns from features: (n, D), labels (n,), (m, D) -> guesses (m,).

    Each feature is scaled to mean 0 and deviation 1. The layer minimises the sum of the
    cross-entropies and half the sum of its squared weights: logistic regression, to the end.
    """
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0).clamp(min=1e-6)
    features, others = ((x - mean).double() / std for x in (features, others))
    shape = int(labels.max()) + 1, features.shape[1]
    weight = torch.zeros(shape, dtype=torch.float64, device=features.device, requires_grad=True)
    bias = torch.zeros_like(weight[:, 0], requires_grad=True)
    descent = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

    def loss():
        descent.zero_grad()
        wrong = F.cross_entropy(F.linear(features, weight, bias), labels, reduction="sum")
        total = (wrong + weight.square().sum() / 2) / len(labels)
        total.backward()
        return total

    with torch.enable_grad():
        descent.step(loss)
    return F.linear(others, weight, bias).argmax(dim=1)


PAPER = Paper(
    name="iGPT",
    title="Generative Pretraining from Pixels",
    authors="Chen et al.",
    year=2020,
    arxiv="",
    url="https://proceedings.mlr.press/v119/chen20s.html",
    lesson="18",
    models=(IGPT,),
    configs={
        "igpt_s": Published(IGPT, Sizes(dim=512, depth=24, heads=8), "76M"),
        "igpt_m": Published(IGPT, Sizes(dim=1024, depth=36, heads=8), "455M"),
        "igpt_l": Published(IGPT, Sizes(dim=1536, depth=48, heads=16), "1362M"),
        "igpt_xl": Published(IGPT, Sizes(dim=3072, depth=60, heads=16), "6801M"),
    },
)
