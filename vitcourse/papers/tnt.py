"""TNT, faithful to the published model: a small transformer inside every patch of a large one.

Transformer in Transformer, Han et al. 2021, https://arxiv.org/abs/2103.00112

The question: a ViT makes a token of 16x16 pixels by one matrix; is what lies inside them lost? The
change: a patch is a sequence, too, of m = 4x4 pixel tokens of width c. In each block, an inner
block relates the pixel tokens of a patch to each other, never those of two patches. Then a matrix
reads them as one long vector and adds the result to the token of their patch, and the outer block
relates the patches. The class token has no pixels.

    outer      x       (B, T, D)     positions for all T tokens
    inner      pixels  (B*N, m, c)   one table of positions, shared by all patches

There are two published versions, whose weights do not fit each other. TNT is the current one: its
convolution sees one patch at a time, with zeros around it, and what is added is normalised before
and behind its matrix. In LegacyTNT the convolution runs over the whole image, and each pixel token
is normalised by itself, before the matrix alone.
"""

import torch
from einops import rearrange
from torch import nn

from vitcourse.config import Config, grid_of
from vitcourse.papers import Paper, Published
from vitcourse.papers.cct import UnbiasedAttention
from vitcourse.vit import ViT, truncated_normal_
from vitcourse.weights import from_timm, rename


class Fold(nn.Module):
    """Read the pixel tokens of a patch as one vector: pixels (B*N, m, c) -> (B*N, D)."""

    def __init__(self, length, width, dim, bias=False):
        super().__init__()
        self.norm1 = nn.LayerNorm(length * width)
        self.proj = nn.Linear(length * width, dim, bias=bias)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, pixels):
        return self.norm2(self.proj(self.norm1(pixels.flatten(1))))


class LegacyFold(nn.Module):
    """The same with one norm, of each pixel token by itself."""

    def __init__(self, length, width, dim):
        super().__init__()
        self.norm1, self.proj = nn.LayerNorm(width), nn.Linear(length * width, dim)

    def forward(self, pixels):
        return self.proj(self.norm1(pixels).flatten(1))


class PixelEmbed(nn.Module):
    """Images (B, C, H, W) -> patch tokens x (B, N, D), their pixel tokens (B*N, m, c), grid."""

    width, stride = 24, 4  # c, and how far apart pixel tokens are in the image

    def __init__(self, channels, dim, patch):
        super().__init__()
        if patch % self.stride:
            raise ValueError(f"patch is {patch}: it must be a multiple of the stride {self.stride}")
        self.patch, self.length = patch, (patch // self.stride) ** 2  # P, m
        self.proj = nn.Conv2d(channels, self.width, 7, self.stride, padding=3)
        self.position = nn.Parameter(torch.empty(1, self.length, self.width))
        self.fold = Fold(self.length, self.width, dim, bias=True)
        truncated_normal_(self.position)

    def forward(self, images):
        grid = grid_of(images.shape[-2:], self.patch)
        pixels = self.pixels(images, *grid) + self.position
        x = self.fold(pixels).unflatten(0, (len(images), -1))  # (B, N, D)
        return x, pixels, grid

    def pixels(self, images, h, w):
        """Cut the images into patches, and apply the convolution to each."""
        patches = rearrange(images, "B C (h P) (w Q) -> (B h w) C P Q", h=h, w=w)
        return rearrange(self.proj(patches), "n c p q -> n (p q) c")


class LegacyPixelEmbed(PixelEmbed):
    """The same with a convolution over the image: at its border a patch sees the next one."""

    def pixels(self, images, h, w):
        return rearrange(self.proj(images), "B c (h p) (w q) -> (B h w) (p q) c", h=h, w=w)


class TNTBlock(nn.Module):
    """Relate pixel tokens inside each patch, add them to their patch token, relate the patches.

    x (B, T, D), pixels (B*N, m, c), grid -> x, pixels
    """

    def __init__(self, inner, fold, outer):
        super().__init__()
        self.inner, self.fold, self.outer = inner, fold, outer

    def forward(self, x, pixels, grid=None):
        token, patches = x[:, :1], x[:, 1:]
        pixels = self.inner(pixels)
        patches = patches + self.fold(pixels).view_as(patches)  # (B, N, D)
        x = torch.cat([token, patches], dim=1)  # (B, T, D)
        return self.outer(x, grid), pixels


PARTS = {"norm_in": "inner.norm1", "attn_in": "inner.attn", "norm_mlp_in": "inner.norm2"}
PARTS |= {"mlp_in": "inner.mlp", "norm1_proj": "fold.norm1", "norm2_proj": "fold.norm2"}
PARTS |= {"proj": "fold.proj", "norm_out": "outer.norm1", "attn_out": "outer.attn"}
PARTS |= {"norm_mlp": "outer.norm2", "mlp": "outer.mlp"}


def from_published(state, model):
    """timm's names, one flat list a block, and its pixel positions, a map (1, c, p, q)."""
    state = dict(state)
    state["pixel_pos"] = state["pixel_pos"].flatten(2).transpose(1, 2)
    for name in [name for name in state if ".qk." in name]:  # queries and keys, then the values
        state[name.replace(".qk.", ".qkv.")] = torch.cat(
            [state.pop(name), state.pop(name.replace(".qk.", ".v."))]
        )
    rules = [
        (r"^patch_pos$", "position.table"),
        (r"^pixel_pos$", "patch_embed.position"),
        (r"^pixel_embed\.", "patch_embed."),
        (r"^(norm1|norm2|proj)(?:_proj)?\.(\w+)$", r"patch_embed.fold.\1.\2"),
        (r"^(blocks\.\d+)\.(\w+)\.", lambda m: f"{m[1]}.{PARTS[m[2]]}."),
    ]
    return rename(rules)(from_timm(state, model), model)


class TNT(ViT):
    """A ViT in which each patch is a sequence of pixel tokens, with blocks of its own.

    The attention recorder sees an inner map (B*N, K, m, m) and an outer one for each block.
    """

    Tokenizer, Attention, Fold = PixelEmbed, UnbiasedAttention, Fold
    inner_heads = 4
    layouts = {"timm": ("pixel_embed.proj.weight", from_published)}

    def __init__(self, cfg):
        super().__init__(cfg)
        for layer in self.modules():
            if isinstance(layer, nn.LayerNorm):
                layer.eps = 1e-5

    def block(self, i):
        outer, cfg = super().block(i), self.cfg
        length, width = self.patch_embed.length, self.patch_embed.width
        attn = self.Attention(width, self.inner_heads, cfg.drop, cfg.attn_drop)
        mlp = self.Mlp(width, 4 * width, cfg.drop)
        inner = self.Block(width, attn, mlp, outer.drop_path.rate)
        return TNTBlock(inner, self.Fold(length, width, cfg.dim), outer)

    def encode(self, images):
        x, pixels, grid = self.patch_embed(images)
        prefix = self.prefix.expand(len(x), -1, -1)  # (B, 1, D)
        x = torch.cat([prefix, x], dim=1)  # (B, T, D)
        x = self.drop(self.position(x, grid))  # (B, T, D)
        for block in self.blocks:
            x, pixels = block(x, pixels, grid)
        return self.norm(x), grid


class LegacyTNT(TNT):
    """The other published version."""

    Tokenizer, Fold = LegacyPixelEmbed, LegacyFold


class WidePixelEmbed(PixelEmbed):
    """The tokenizer of TNT-B."""

    width = 40


SMALL = Config(dim=384, depth=12, heads=6)

PAPER = Paper(
    name="TNT",
    title="Transformer in Transformer",
    authors="Han et al.",
    year=2021,
    arxiv="2103.00112",
    lesson="16",
    models=(TNT,),
    configs={
        "tnt_s": Published(TNT, SMALL, "23.8M"),
        "tnt_s_legacy": Published(LegacyTNT, SMALL, "23.8M"),
        "tnt_b": Published(
            TNT.variant(Tokenizer=WidePixelEmbed), Config(640, depth=12, heads=10), "65.6M"
        ),
    },
)
