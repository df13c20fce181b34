"""CrossViT, faithful to the published model: two ViTs whose class tokens read each other's patches.

CrossViT: Cross-Attention Multi-Scale Vision Transformer for Image Classification, Chen et al. 2021,
https://arxiv.org/abs/2103.14899

The question: small patches show more and cost more; can a model have small ones and large ones? The
change: two branches, a narrow ViT with fine patches and a wide one with coarse patches. Three times
on their way, a fusion lets each class token read the patches of the other branch:

    there    norm, GELU and a matrix give the class token the width of the other branch
    read     what it takes from [itself; the patches of the other branch] is added to it
    back     norm, GELU and a matrix give it its own width again

A fusion changes class tokens only and reads patches only, so neither of the two sees what the other
did. It has no MLP. One token asks, so its cost grows with the patches, not with their pairs. In the
end the logits of both branches are averaged.

The published models take 240 x 240 pixels, cut into patches of 12, and resize them to 224 x 224 for
patches of 16. Those with a dagger make patches by three convolutions. In training, each branch has
the ViT's own rates of stochastic depth; the authors give the fine one those of the coarse one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.config import Config, require_count
from vitcourse.papers import Paper, Published
from vitcourse.papers.cait import ClassAttention
from vitcourse.parts import split
from vitcourse.vit import DropPath, LayerNorm, PatchEmbed, ViT, init_weights
from vitcourse.weights import fuse_qkv, rename


@dataclass(frozen=True)
class CrossConfig:
    """The sizes of a CrossViT. Pairs are (fine, coarse).

    A stage is `depths` blocks of each branch and a fusion. The model takes images of the first size
    and makes the second itself.
    """

    dims: tuple[int, int]
    depths: tuple[int, int]
    heads: tuple[int, int]
    patches: tuple[int, int] = (12, 16)
    images: tuple = (240, 224)  # each one side or (height, width)
    stages: int = 3
    mlp_ratio: float = 4.0
    channels: int = 3
    classes: int = 1000
    drop: float = 0.0
    attn_drop: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self):
        require_count("stages", self.stages)
        for name in ("dims", "depths", "heads", "patches", "images"):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)) or len(value) != 2:
                raise ValueError(f"{name} is {value!r}: give one for each of two branches")
        sizes = tuple(self.branch(b).image for b in (0, 1))  # refuses what a ViT refuses
        object.__setattr__(self, "images", sizes)

    def branch(self, b):
        """The sizes of branch b, which is a ViT."""
        depth = self.stages * self.depths[b]
        sizes = self.dims[b], depth, self.heads[b], self.patches[b], self.images[b]
        shared = ("channels", "classes", "mlp_ratio", "drop", "attn_drop", "drop_path")
        return Config(*sizes, **{name: getattr(self, name) for name in shared})


class Branch(ViT):
    """A ViT whose blocks are run one stage after the other."""

    def embed(self, images):
        """Images (B, C, H, W) -> what the first block reads: x (B, T, D), grid."""
        x, grid = self.patch_embed(images)
        prefix = self.prefix.expand(len(x), -1, -1)  # (B, 1, D)
        x = torch.cat([prefix, x], dim=1)  # (B, T, D)
        return self.drop(self.position(x, grid)), grid

    def stage(self, s, stages, x, grid):
        """Apply the blocks of stage s: x (B, T, D), grid -> x (B, T, D)."""
        depth = len(self.blocks) // stages
        for block in self.blocks[s * depth : (s + 1) * depth]:
            x = block(x, grid)
        return x


class ConvPatches(PatchEmbed):
    """Three convolutions that make patches of 12 or of 16 pixels."""

    def __init__(self, channels, dim, patch):
        strides = {12: (3, 1), 16: (2, 2)}  # of the second and the third
        if patch not in strides:
            raise ValueError(f"patch is {patch}: these convolutions make patches of 12 or of 16")
        super().__init__(channels, dim, patch)
        second, third = strides[patch]
        self.proj = nn.Sequential(
            nn.Conv2d(channels, dim // 4, kernel_size=7, stride=4, padding=3),
            nn.ReLU(),
            nn.Conv2d(dim // 4, dim // 2, kernel_size=3, stride=second, padding=3 - second),
            nn.ReLU(),
            nn.Conv2d(dim // 2, dim, kernel_size=3, stride=third, padding=1),
        )


class ConvBranch(Branch):
    """The branch of the models with a dagger."""

    Tokenizer = ConvPatches


def projection(dim, other):
    """Norm, GELU and a matrix: (B, T, D) -> (B, T, other)."""
    return nn.Sequential(LayerNorm(dim), nn.GELU(), nn.Linear(dim, other))


class Fusion(nn.Module):
    """The class token reads the patches of the other branch: x (B, T, D), other (B, S, E) -> x.

    The recorder sees one map (B, K, 1, S) a fusion.
    """

    def __init__(self, dim, other, heads, drop=0.0, attn_drop=0.0, drop_path=0.0):
        super().__init__()
        self.there, self.back = projection(dim, other), projection(other, dim)
        self.norm1, self.attn = LayerNorm(other), ClassAttention(other, heads, drop, attn_drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x, other):
        token, patches = self.there(x[:, :1]), x[:, 1:]
        read = torch.cat([token, other[:, 1:]], dim=1)  # (B, S, E)
        token = token + self.drop_path(self.attn(self.norm1(read)))  # (B, 1, E)
        return torch.cat([self.back(token), patches], dim=1)  # (B, T, D)


def from_published(state, model):
    """timm's names, and the authors', who write a dot before the number of a branch."""

    def block(match):
        s, b, i = map(int, match.groups())
        return f"branches.{b}.blocks.{s * model.cfg.depths[b] + i}."

    rules = [
        (r"^cls_token[._](\d)$", r"branches.\1.prefix"),
        (r"^pos_embed[._](\d)$", r"branches.\1.position.table"),
        (r"^(patch_embed|norm|head)\.(\d)\.", r"branches.\2.\1."),
        (r"^blocks\.(\d+)\.blocks\.(\d)\.(\d+)\.", block),
        (r"^blocks\.(\d+)\.projs\.(\d)\.", r"fusions.\1.\2.there."),
        (r"^blocks\.(\d+)\.revert_projs\.(\d)\.", r"fusions.\1.\2.back."),
        (r"^blocks\.(\d+)\.fusion\.(\d)\.", r"fusions.\1.\2."),
    ]
    for part, name in (("wq", "query"), ("wk", "key"), ("wv", "value")):
        state = {key.replace(f".attn.{part}.", f".attn.{name}."): t for key, t in state.items()}
    return fuse_qkv(rename(rules)(state, model))


class CrossViT(nn.Module):
    """Two ViTs joined by fusions: images (B, C, H, W) -> logits (B, classes)."""

    Branch, Fusion = Branch, Fusion
    crop = False  # cut the second branch's image out of the middle instead of resizing
    variant = classmethod(ViT.variant.__func__)
    layouts = {"timm": ("blocks.0.projs.0.0.weight", from_published)}

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.branches = nn.ModuleList(self.Branch(cfg.branch(b)) for b in (0, 1))
        self.fusions = nn.ModuleList(
            nn.ModuleList(self.fusion(s, b) for b in (0, 1)) for s in range(cfg.stages)
        )
        self.fusions.apply(init_weights)

    def fusion(self, s, b):
        """Make the fusion of stage s for branch b. It is dropped as often as the block before."""
        cfg, other = self.cfg, 1 - b
        rate = self.branches[1].blocks[(s + 1) * cfg.depths[1] - 1].drop_path.rate
        drops = cfg.drop, cfg.attn_drop, rate
        return self.Fusion(cfg.dims[b], cfg.dims[other], cfg.heads[other], *drops)

    def second(self, images):
        """The images for the coarse branch: larger or smaller, by the ratio of the built sizes."""
        (H, W), (one, two) = images.shape[-2:], self.cfg.images
        high, wide = H * two[0] // one[0], W * two[1] // one[1]
        if self.crop:
            top, left = round((H - high) / 2), round((W - wide) / 2)
            return images[..., top : top + high, left : left + wide]
        if (high, wide) == (H, W):
            return images
        return F.interpolate(images, size=(high, wide), mode="bicubic")

    def outputs(self, images):
        """What leaves the last fusion, fine and coarse: x (B, T, D), grid of each."""
        one, two = self.branches
        fine, grid = one.embed(images)
        coarse, coarse_grid = two.embed(self.second(images))
        for s, (to_fine, to_coarse) in enumerate(self.fusions):
            fine = one.stage(s, self.cfg.stages, fine, grid)
            coarse = two.stage(s, self.cfg.stages, coarse, coarse_grid)
            fine, coarse = to_fine(fine, coarse), to_coarse(coarse, fine)
        return (fine, grid), (coarse, coarse_grid)

    def features(self, images):
        """The map (B, D, h, w) of each branch."""
        return [split(x, grid)[1] for x, grid in self.outputs(images)]

    def forward(self, images):
        outputs = zip(self.branches, self.outputs(images), strict=True)
        one, two = (branch.head(branch.norm(x), grid) for branch, (x, grid) in outputs)
        return (one + two) / 2  # (B, classes)


def sizes(dim, depth, heads, mlp_ratio=3):
    """A published CrossViT: the coarse branch is twice as wide, the fine has one block a stage."""
    return CrossConfig((dim, 2 * dim), (1, depth), (heads, heads), mlp_ratio=mlp_ratio)


Dagger = CrossViT.variant(Branch=ConvBranch)

PAPER = Paper(
    name="CrossViT",
    title="CrossViT: Cross-Attention Multi-Scale Vision Transformer for Image Classification",
    authors="Chen et al.",
    year=2021,
    arxiv="2103.14899",
    lesson="16",
    models=(CrossViT,),
    configs={
        "crossvit_ti": Published(CrossViT, sizes(96, 4, heads=3, mlp_ratio=4), "6.9M"),
        "crossvit_s": Published(CrossViT, sizes(192, 4, heads=6, mlp_ratio=4), "26.7M"),
        "crossvit_b": Published(CrossViT, sizes(384, 4, heads=12, mlp_ratio=4), "104.7M"),
        "crossvit_9": Published(CrossViT, sizes(128, 3, heads=4), "8.6M"),
        "crossvit_15": Published(CrossViT, sizes(192, 5, heads=6), "27.4M"),
        "crossvit_18": Published(CrossViT, sizes(224, 6, heads=7), "43.3M"),
        "crossvit_9_dagger": Published(Dagger, sizes(128, 3, heads=4), "8.8M"),
    },
)
