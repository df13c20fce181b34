"""CCT, faithful to the published model: tokens from convolutions, and no class token.

Escaping the Big Data Paradigm with Compact Transformers, Hassani et al. 2021,
https://arxiv.org/abs/2104.05704

The question: can a ViT learn from scratch where there are few images? Three models answer in steps.
ViT-Lite is a small ViT. CVT has no class token: it averages all tokens by weights that it learns.
CCT also makes its tokens with convolutions and pooling, so that neighbours share pixels.

The published weights of all three need two more changes: queries, keys and values have no bias, and
the second norm of a block acts on the sum itself, not on a branch beside it.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.config import Config
from vitcourse.papers import Paper, Published
from vitcourse.vit import Attention, Block, ClassHead, ViT, truncated_normal_
from vitcourse.weights import rename


class ConvTokenizer(nn.Module):
    """Convolution, ReLU and 3x3 max-pooling of stride 2: images (B, C, H, W) -> x (B, N, D), grid.

    That is repeated until a token stands for `patch` x `patch` pixels. All but the last convolution
    have 64 channels.
    """

    kernel, hidden = 3, 64

    def __init__(self, channels, dim, patch):
        super().__init__()
        stride = max(1, self.kernel // 2 - 1)
        shrink = 2 * stride  # a convolution and its pooling
        count = round(math.log(patch, shrink))
        if count < 1 or shrink**count != patch:
            raise ValueError(f"patch is {patch}: it must be {shrink}, {shrink**2}, {shrink**3} ...")
        widths = [channels] + [self.hidden] * (count - 1) + [dim]
        pairs = itertools.pairwise(widths)
        self.convs = nn.ModuleList(ReluConv(a, b, self.kernel, stride) for a, b in pairs)

    def forward(self, images):
        x = images
        for conv in self.convs:
            x = F.max_pool2d(F.relu(conv(x)), kernel_size=3, stride=2, padding=1)
        grid = tuple(x.shape[2:])  # h, w
        x = x.flatten(2).transpose(1, 2)  # (B, N, D)
        return x, grid


class WideConvTokenizer(ConvTokenizer):
    """The tokenizer for large images: each convolution is 7x7 and has stride 2."""

    kernel = 7


class ReluConv(nn.Conv2d):
    """A convolution without bias that keeps the size but for its stride, made for a ReLU."""

    def __init__(self, channels, dim, kernel, stride):
        super().__init__(channels, dim, kernel, stride, padding=kernel // 2, bias=False)

    def reset_parameters(self):
        nn.init.kaiming_normal_(self.weight)


class SinePosition(nn.Module):
    """Fixed waves along the sequence, read row by row: sin and cos in turn. Any length will do."""

    def __init__(self, dim, grid, prefix_len):
        super().__init__()
        table = waves(prefix_len + grid[0] * grid[1], dim)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x, grid):
        table = self.table
        if table.shape[1] != x.shape[1]:
            table = waves(x.shape[1], x.shape[2]).to(table)
        return x + table


def waves(length, dim):
    """The table of SinePosition: (1, T, D)."""
    pair = torch.arange(dim, dtype=torch.float64) // 2 * 2
    angle = (torch.arange(length)[:, None] / 10000 ** (pair / dim)).float()  # (T, D)
    return torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos())[None]


class UnbiasedAttention(Attention):
    """Attention whose queries, keys and values have no bias."""

    def build(self, dim):
        super().build(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)


class RenormBlock(Block):
    """A block whose second norm replaces the sum: what the MLP adds to is normalised, too."""

    def forward(self, x, grid=None):
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), grid)))  # (B, T, D)
        x = self.norm2(x)
        return x + self.drop_path(self.ls2(self.mlp(x, grid)))  # (B, T, D)


class SeqPool(ClassHead):
    """Average all tokens by learned weights, and read the result. No class token is needed."""

    prefix_len = 0

    def __init__(self, cfg):
        super().__init__(cfg)
        self.pool = nn.Linear(cfg.dim, 1)

    def weights(self, x):
        """How much each token counts: (B, T, D) -> (B, T, 1), which sum to one over the tokens."""
        return self.pool(x).softmax(dim=1)

    def forward(self, x, grid=None):
        x = (self.weights(x) * x).sum(dim=1)  # (B, D)
        return F.linear(x, self.weight, self.bias)


def from_official(state, model):
    """The authors' names. Their fixed tables are in the file, ours are computed."""
    if "position.table" not in model.state_dict():
        state = {name: t for name, t in state.items() if name != "classifier.positional_emb"}
    block = r"^classifier\.blocks\.(\d+)\."
    rules = [
        (r"^tokenizer\.conv_layers\.0\.0\.bias$", "patch_embed.proj.bias"),
        (r"^tokenizer\.conv_layers\.(\d+)\.0\.", r"patch_embed.convs.\1."),
        (r"^classifier\.positional_emb$", "position.table"),
        (r"^classifier\.class_emb$", "prefix"),
        (block + r"pre_norm\.", r"blocks.\1.norm1."),
        (block + r"self_attn\.", r"blocks.\1.attn."),
        (block + r"norm1\.", r"blocks.\1.norm2."),
        (block + r"linear([12])\.", r"blocks.\1.mlp.fc\2."),
        (r"^classifier\.norm\.", "norm."),
        (r"^classifier\.attention_pool\.", "head.pool."),
        (r"^classifier\.fc\.", "head."),
    ]
    state = rename(rules)(state, model)
    if "patch_embed.proj.bias" in state:  # no convolutions but the patch embedding
        state["patch_embed.proj.weight"] = state.pop("patch_embed.convs.0.weight")
    return state


class ViTLite(ViT):
    """A small ViT, as the authors' code has it."""

    Attention, Block = UnbiasedAttention, RenormBlock
    layouts = {"official": ("tokenizer.conv_layers.0.0.weight", from_official)}

    def __init__(self, cfg):
        super().__init__(cfg)
        for table in self.position.parameters():
            truncated_normal_(table, std=0.2)
        for layer in self.modules():
            if isinstance(layer, nn.LayerNorm):
                layer.eps = 1e-5


class CVT(ViTLite):
    """ViT-Lite with sequence pooling in place of the class token."""

    Head = SeqPool


class CCT(CVT):
    """CVT with a convolutional tokenizer. Fixed positions: `CCT.variant(Position=SinePosition)`."""

    Tokenizer = ConvTokenizer


class WideCCT(CCT):
    """CCT for images of 224 pixels and more."""

    Tokenizer = WideConvTokenizer


def sizes(depth, patch, image=32, classes=10):
    """The number in a name is the depth; width, heads and MLP belong to it."""
    width = {2: (128, 2, 1), 4: (128, 2, 1), 6: (256, 4, 2), 7: (256, 4, 2), 14: (384, 6, 3)}
    dim, heads, mlp_ratio = width[depth]
    drops = dict(attn_drop=0.1, drop_path=0.1)
    sizes = dict(image=image, classes=classes, mlp_ratio=mlp_ratio, **drops)
    return Config(dim, depth, heads, patch, **sizes)


PAPER = Paper(
    name="CCT",
    title="Escaping the Big Data Paradigm with Compact Transformers",
    authors="Hassani et al.",
    year=2021,
    arxiv="2104.05704",
    lesson="14",
    models=(CCT,),
    configs={
        "cct_2_3x2": Published(CCT, sizes(2, patch=4), "0.28M"),
        "cct_4_3x2": Published(CCT, sizes(4, patch=4), "0.48M"),
        "cct_6_3x1": Published(CCT, sizes(6, patch=2), "3.23M"),
        "cct_6_3x2": Published(CCT, sizes(6, patch=4), "3.33M"),
        "cct_7_3x1": Published(CCT, sizes(7, patch=2), "3.76M"),
        "cct_7_3x2": Published(CCT, sizes(7, patch=4), "3.85M"),
        "cct_7_7x2": Published(WideCCT, sizes(7, patch=16, image=224, classes=102)),
        "cct_14_7x2": Published(WideCCT, sizes(14, 16, 224, classes=1000), "22.36M"),
        "compact_cvt_7_4": Published(CVT, sizes(7, patch=4), "3.72M"),
        "vit_lite_7_4": Published(ViTLite, sizes(7, patch=4), "3.72M"),
    },
)
