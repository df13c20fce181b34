"""The Vision Transformer, from pixels to logits, in the order in which lessons 01-06 build it.

An Image is Worth 16x16 Words, Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929

Shapes, here as in the lessons:
    B batch     C channels    H, W pixels    P patch size    h, w grid of patches    N = h*w patches
    R prefix tokens (the class token is one)    T = R+N tokens    D width of a token
    K heads     d = D/K width of a head         M hidden width of the MLP
"""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from vitcourse.config import Config, grid_of, head_width

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


# Lesson 01: an image becomes a sequence of patches


def patchify(images, patch):
    """Cut images into patches, each a list of its pixels: (B, C, H, W) -> (B, N, P*P*C)."""
    grid_of(images.shape[-2:], patch)
    return rearrange(images, "B C (h p) (w q) -> B (h w) (p q C)", p=patch, q=patch)


def unpatchify(patches, grid, patch):
    """Put the patches of a grid (h, w) back together: (B, N, P*P*C) -> (B, C, H, W)."""
    h, w = grid
    return rearrange(patches, "B (h w) (p q C) -> B C (h p) (w q)", h=h, w=w, p=patch, q=patch)


class PatchEmbed(nn.Module):
    """Project every patch to D numbers: images (B, C, H, W) -> x (B, N, D), grid (h, w).

    A convolution whose stride is its size applies one linear map to every patch.
    It equals `patchify` followed by a Linear.
    """

    def __init__(self, channels, dim, patch):
        super().__init__()
        self.channels, self.patch = channels, patch
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, images):
        if images.ndim != 4 or images.shape[1] != self.channels:
            shape, needed = tuple(images.shape), f"(batch, {self.channels}, height, width)"
            raise ValueError(f"images have the shape {shape}, this model needs {needed}")
        grid = grid_of(images.shape[-2:], self.patch)
        x = self.proj(images)  # (B, D, h, w)
        x = x.flatten(2).transpose(1, 2)  # (B, N, D)
        return x, grid


# Lesson 03: a token knows its place


class LearnedPosition(nn.Module):
    """Add a learned vector for each place, and for each prefix token: x (B, T, D), grid -> x."""

    method = "bicubic"  # how the table is fitted to images of another size

    def __init__(self, dim, grid, prefix_len):
        super().__init__()
        self.grid, self.prefix_len = grid, prefix_len
        self.table = nn.Parameter(torch.empty(1, prefix_len + grid[0] * grid[1], dim))
        truncated_normal_(self.table)

    def forward(self, x, grid):
        table = self.table  # (1, T, D) for the grid that the model was built for
        if grid != self.grid:
            table = resize_position(table, self.grid, grid, self.prefix_len, self.method)
        return x + table  # (B, T, D)


def resize_position(table, old, new, prefix_len, method="bicubic"):
    """Fit a table made for the grid `old` to the grid `new`: (1, R+N, D) -> (1, R+N', D).

    Prefix tokens have no place in the image, so their rows stay. "bicubic", with antialiasing, is
    usual today; "bilinear", with aligned corners, is what the authors of the ViT did.
    """
    options = {"bicubic": {"antialias": True}, "bilinear": {"align_corners": True}}
    if method not in options:
        raise ValueError(f"method is {method!r}: choose {' or '.join(options)}")
    prefix, places = table[:, :prefix_len], table[:, prefix_len:]
    places = places.transpose(1, 2).unflatten(2, old)  # (1, D, h, w) of the old grid
    places = places.to(torch.promote_types(table.dtype, torch.float32))
    places = F.interpolate(places, size=new, mode=method, **options[method])
    places = places.flatten(2).transpose(1, 2).to(table.dtype)
    return torch.cat([prefix, places], dim=1)


# Lesson 04: tokens look at each other


class Attention(nn.Module):
    """Multi-head self-attention: x (B, T, D), grid -> x (B, T, D).

    A variant overrides `project`, `bias` or `weights`.
    """

    recorder = None  # a function put here is given every attention map, see probe.py

    def __init__(self, dim, heads, drop=0.0, attn_drop=0.0):
        super().__init__()
        self.heads, self.scale = heads, head_width(dim, heads) ** -0.5
        self.attn_drop, self.drop = attn_drop, nn.Dropout(drop)
        self.build(dim)

    def build(self, dim):
        """Make the layers that `project` and `forward` use."""
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, grid=None):
        q, k, v = self.project(x, grid)  # each (B, K, T, d)
        x = self.attend(q, k, v, self.bias(grid))  # (B, K, T, d)
        x = x.transpose(1, 2).flatten(2)  # (B, T, D)
        return self.drop(self.proj(x))  # (B, T, D)

    def project(self, x, grid):
        """The queries, keys and values of every head: (B, T, D) -> three of (B, K, T, d)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, K, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, K, T, d)
        return q, k, v

    def bias(self, grid):
        """What to add to the scores (B, K, T, T), or None."""
        return None

    def weights(self, q, k, bias):
        """How much each token takes from every token: (B, K, T, T), rows that sum to one."""
        scores = q @ k.transpose(-2, -1) * self.scale  # (B, K, T, T)
        if bias is not None:
            scores = scores + bias
        return scores.softmax(dim=-1)  # (B, K, T, T)

    def attend(self, q, k, v, bias=None):
        """Add up the values by weight. The fused kernel does so without storing the weights."""
        drop = self.attn_drop if self.training else 0.0
        if self.recorder is None and type(self).weights is Attention.weights:
            return F.scaled_dot_product_attention(q, k, v, bias, drop, scale=self.scale)
        weights = self.weights(q, k, bias)  # (B, K, T, T)
        if self.recorder is not None:
            self.recorder(weights)
        return F.dropout(weights, drop) @ v  # (B, K, T, d)


# Lesson 05: the encoder block


class Mlp(nn.Module):
    """Two layers for every token by itself: x (B, T, D), grid -> x (B, T, D)."""

    def __init__(self, dim, hidden, drop=0.0):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x, grid=None):
        x = self.drop(F.gelu(self.fc1(x)))  # (B, T, M)
        return self.drop(self.fc2(x))  # (B, T, D)


class DropPath(nn.Module):
    """Stochastic depth: in training, drop the branch of some images and scale up the others."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0:
            return x
        one_per_image = (len(x),) + (1,) * (x.ndim - 1)
        keep = x.new_empty(one_per_image).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)


class Block(nn.Module):
    """Normalise, attend, add; normalise, apply the MLP, add: x (B, T, D), grid -> x (B, T, D).

    `scale(dim)` makes the layer that a branch passes before it is added: LayerScale in parts.py.
    """

    def __init__(self, dim, attn, mlp, drop_path=0.0, scale=nn.Identity):
        super().__init__()
        self.norm1, self.attn, self.ls1 = LayerNorm(dim), attn, scale(dim)
        self.norm2, self.mlp, self.ls2 = LayerNorm(dim), mlp, scale(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x, grid=None):
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), grid)))  # (B, T, D)
        x = x + self.drop_path(self.ls2(self.mlp(self.norm2(x), grid)))  # (B, T, D)
        return x


# Lessons 02 and 06: the class token, and the whole


class ClassHead(nn.Linear):
    """Read the class token: x (B, T, D), grid -> logits (B, classes)."""

    prefix_len = 1  # how many prefix tokens a model needs for this head

    def __init__(self, cfg):
        super().__init__(cfg.dim, cfg.classes)

    def reset_parameters(self):
        """Start at zero: all classes are equally likely, and the first loss is ln(classes)."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x, grid=None):
        return super().forward(x[:, 0])  # (B, classes)


class ViT(nn.Module):
    """The Vision Transformer: images (B, C, H, W) -> logits (B, classes).

    The classes of its parts are attributes. A variant is a subclass that replaces one or two.
    """

    Tokenizer, Position, Attention, Mlp = PatchEmbed, LearnedPosition, Attention, Mlp
    Block, Head = Block, ClassHead
    registers = 0  # prefix tokens beyond those that the head needs

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.prefix_len = self.Head.prefix_len + self.registers
        self.patch_embed = self.Tokenizer(cfg.channels, cfg.dim, cfg.patch)
        self.prefix = nn.Parameter(torch.empty(1, self.prefix_len, cfg.dim))
        self.position = self.Position(cfg.dim, cfg.grid, self.prefix_len)
        self.drop = nn.Dropout(cfg.drop)
        self.blocks = nn.ModuleList(self.block(i) for i in range(cfg.depth))
        self.norm = LayerNorm(cfg.dim)
        self.head = self.Head(cfg)
        truncated_normal_(self.prefix)
        self.apply(init_weights)

    def block(self, i):
        """Make block i. Stochastic depth rises from 0 in the first to `drop_path` in the last."""
        cfg = self.cfg
        attn = self.Attention(cfg.dim, cfg.heads, cfg.drop, cfg.attn_drop)
        mlp = self.Mlp(cfg.dim, cfg.hidden, cfg.drop)
        return self.Block(cfg.dim, attn, mlp, cfg.drop_path * i / max(cfg.depth - 1, 1))

    def encode(self, images):
        """Images (B, C, H, W) -> what the head reads: x (B, T, D), grid (h, w)."""
        x, grid = self.patch_embed(images)
        prefix = self.prefix.expand(len(x), -1, -1)  # (B, R, D)
        x = torch.cat([prefix, x], dim=1)  # (B, T, D)
        x = self.drop(self.position(x, grid))  # (B, T, D)
        for block in self.blocks:
            x = block(x, grid)  # (B, T, D)
        return self.norm(x), grid

    def forward(self, images):
        x, grid = self.encode(images)
        return self.head(x, grid)  # (B, classes)

    @classmethod
    def variant(cls, **parts):
        """The same model with other parts: `ViT.variant(Head=MeanHead)`."""
        for name, part in parts.items():
            if not hasattr(cls, name):
                raise ValueError(f"{cls.__name__} has no part called {name!r}")
            if name[0].isupper() and not isinstance(part, type):
                raise ValueError(f"{name} must be a class, not {part!r}")
        return type(cls.__name__, (cls,), parts)


def truncated_normal_(tensor, std=0.02):
    """Fill with normal numbers, none further than two standard deviations from zero."""
    return nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)


def init_weights(module):
    """Start values of plain layers. Their subclasses, such as ClassHead, keep their own."""
    if type(module) is nn.Linear:
        truncated_normal_(module.weight)
    elif type(module) is nn.Conv2d:
        truncated_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def make_vit(size, model=ViT, **options):
    """Build a model by its size: `make_vit("S/16")`, `make_vit("Ti/4", image=32, classes=10)`."""
    return model(Config.of(size, **options))
