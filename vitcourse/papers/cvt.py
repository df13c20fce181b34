"""CvT, faithful to the published model: convolutions make the tokens, and the queries and keys.

CvT: Introducing Convolutions to Vision Transformers, Wu et al. 2021,
https://arxiv.org/abs/2103.15808

The question: what a convolution knows, that neighbours belong together and that small things make
up large ones, a ViT must learn. Can it have both? The change: three stages whose tokens are made by
convolutions that overlap; queries, keys and values that are each made by a depthwise convolution
before the usual Linear, keys and values from every second row and column. With these, no positions.

The class token enters in the last stage, and passes the Linears alone. The scores are divided by
sqrt(D), D the whole width, not by sqrt(d). The MLP of the authors' code has x*sigmoid(1.702x); the
port in transformers has a GELU there, as `CvT.variant(Mlp=vit.Mlp)` has. The authors let stochastic
depth rise in the last stage only; here it rises from the first block on.

Shapes as in vit.py. S is the number of keys, those of the prefix tokens too.
"""

import torch
from torch import nn

from vitcourse.papers import Paper, Published
from vitcourse.papers.pit import sequence
from vitcourse.parts import NoPosition, join, split
from vitcourse.pyramid import Pyramid, PyramidConfig
from vitcourse.vit import Attention, Mlp
from vitcourse.weights import rename


class ConvEmbed(nn.Module):
    """Patches that overlap, normalised: images or map (B, C, H, W) -> x (B, N, D), grid."""

    kernel, padding = 3, 1

    def __init__(self, channels, dim, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, self.kernel, stride=patch, padding=self.padding)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images):
        x, grid = sequence(self.proj(images))
        return self.norm(x), grid  # x is (B, N, D)


class FirstEmbed(ConvEmbed):
    """The first patches are larger, of 7x7 pixels."""

    kernel, padding = 7, 2


class ConvProjection(nn.Module):
    """A depthwise convolution, then a Linear: x (B, T, D), grid -> (B, S, D).

    Prefix tokens have no neighbours and pass the Linear alone.
    """

    def __init__(self, dim, stride):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride, padding=1, groups=dim, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.linear = nn.Linear(dim, dim)

    def forward(self, x, grid):
        prefix, map = split(x, grid)
        x = join(prefix, self.norm(self.conv(map)))  # (B, S, D)
        return self.linear(x)


class ConvAttention(Attention):
    """Attention whose queries, keys and values each come from a convolution of their own.

    `stride` is that of keys and values: with 2 there is one key for four tokens, so the recorder
    gets weights (B, K, T, S).
    """

    stride = 2

    def build(self, dim):
        self.q = ConvProjection(dim, stride=1)
        self.k = ConvProjection(dim, self.stride)
        self.v = ConvProjection(dim, self.stride)
        self.proj = nn.Linear(dim, dim)
        self.scale = dim**-0.5

    def project(self, x, grid):
        """Queries (B, K, T, d), and fewer keys and values (B, K, S, d)."""
        made = self.q(x, grid), self.k(x, grid), self.v(x, grid)
        return [x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in made]


class QuickMlp(Mlp):
    """An MLP with x*sigmoid(1.702x), which is near the GELU: x (B, T, D), grid -> x."""

    def forward(self, x, grid=None):
        x = self.fc1(x)  # (B, T, M)
        x = self.drop(x * torch.sigmoid(1.702 * x))  # (B, T, M)
        return self.drop(self.fc2(x))  # (B, T, D)


STAGE, LAYER = r"^.*stages\.(\d+)\.", r"^.*stages\.(\d+)\.layers\.(\d+)\."
QKV = LAYER + r"attention\.attention\."

from_transformers = rename(
    [
        (STAGE + r"cls_token$", r"stages.\1.carry.prefix"),
        (STAGE + r"embedding\.\w+\.projection\.", r"stages.\1.patch_embed.proj."),
        (STAGE + r"embedding\.\w+\.normalization\.", r"stages.\1.patch_embed.norm."),
        (QKV + r"projection_(.)\w+\.", r"stages.\1.blocks.\2.attn.\3.linear."),
        (QKV + r"\w+_(.)\w+\.\w+\.convolution\.", r"stages.\1.blocks.\2.attn.\3.conv."),
        (QKV + r"\w+_(.)\w+\.\w+\.normalization\.", r"stages.\1.blocks.\2.attn.\3.norm."),
        (LAYER + r"attention\.output\.dense\.", r"stages.\1.blocks.\2.attn.proj."),
        (LAYER + r"layernorm_before\.", r"stages.\1.blocks.\2.norm1."),
        (LAYER + r"layernorm_after\.", r"stages.\1.blocks.\2.norm2."),
        (LAYER + r"intermediate\.dense\.", r"stages.\1.blocks.\2.mlp.fc1."),
        (LAYER + r"output\.dense\.", r"stages.\1.blocks.\2.mlp.fc2."),
        (r"^layernorm\.", "norm."),
        (r"^classifier\.", "head."),
    ]
)

from_official = rename(
    [
        (r"^stage(\d+)\.cls_token$", r"stages.\1.carry.prefix"),
        (r"^stage(\d+)\.(.+)\.conv_proj_(.)\.conv\.", r"stages.\1.\2.\3.conv."),
        (r"^stage(\d+)\.(.+)\.conv_proj_(.)\.bn\.", r"stages.\1.\2.\3.norm."),
        (r"^stage(\d+)\.(.+)\.proj_(.)\.", r"stages.\1.\2.\3.linear."),
        (r"^stage(\d+)\.", r"stages.\1."),
    ]
)


class CvT(Pyramid):
    """A ViT in three stages, with convolutions in its tokenizers and in its attention."""

    Tokenizer, Downsample, Position = FirstEmbed, ConvEmbed, NoPosition
    Attention, Mlp = ConvAttention, QuickMlp
    layouts = {
        "transformers": ("embedding.convolution_embeddings.projection.weight", from_transformers),
        "official": ("stage0.patch_embed.proj.weight", from_official),
    }

    def __init__(self, cfg):
        self.entry = len(cfg.dims) - 1  # the class token comes in the last stage
        super().__init__(cfg)
        for layer in self.modules():
            if isinstance(layer, nn.LayerNorm):
                layer.eps = 1e-5


def sizes(*depths):
    """The published models differ in depth alone."""
    return PyramidConfig(
        dims=(64, 192, 384),
        depths=depths,
        heads=(1, 3, 6),
        patches=(4, 2, 2),
        mlp_ratios=(4.0, 4.0, 4.0),
    )


PAPER = Paper(
    name="CvT",
    title="CvT: Introducing Convolutions to Vision Transformers",
    authors="Wu et al.",
    year=2021,
    arxiv="2103.15808",
    lesson="17",
    models=(CvT,),
    configs={
        "cvt_13": Published(CvT, sizes(1, 2, 10), "20M"),
        "cvt_21": Published(CvT, sizes(1, 4, 16), "32M"),
    },
)
