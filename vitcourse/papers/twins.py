"""Twins-SVT, faithful to the published model: attention in windows, then to a summary of the map.

Twins: Revisiting the Design of Spatial Attention in Vision Transformers, Chu et al. 2021,
https://arxiv.org/abs/2104.13840

The question: attention inside windows is cheap, but nothing leaves a window; must windows be
shifted? The change: blocks come in pairs. The first attends inside windows (LSA), the second to a
few keys made from the whole map (GSA), which is PVT's attention. A PEG behind the first block of
each stage takes the place of position tables, and the mean of all tokens that of the class token.

Where windows do not divide a map, zeros are put below and to its right, behind the norm, and take
part in the softmax: their keys and values are the biases. So the published code does it.
"""

import torch.nn.functional as F

from vitcourse.papers import Paper, Published
from vitcourse.papers.cpvt import PEG
from vitcourse.papers.pvt import NormedPatchEmbed, ReducedAttention
from vitcourse.papers.swin import from_windows, windows
from vitcourse.parts import MeanHead, NoPosition, split
from vitcourse.pyramid import Pyramid, PyramidConfig
from vitcourse.vit import Attention
from vitcourse.weights import rename


class WindowedAttention(Attention):
    """Locally-grouped self-attention (LSA): tokens attend inside their window of MxM alone.

    The recorder gets one (B*n, K, M*M, M*M) for all n windows. There can be no prefix tokens.
    """

    def __init__(self, dim, heads, drop=0.0, attn_drop=0.0, window=7):
        super().__init__(dim, heads, drop, attn_drop)
        self.window = window

    def forward(self, x, grid):
        (h, w), M = grid, self.window
        _, map = split(x, grid)
        map = F.pad(map, (0, -w % M, 0, -h % M))  # (B, D, H, W)
        x = super().forward(windows(map, M), (M, M))  # (Bn, T, D)
        map = from_windows(x, M, map.shape[-2:])
        return map[..., :h, :w].flatten(2).transpose(1, 2)  # (B, N, D)


def from_timm(state, model):
    """timm's names, which are the authors' too. Our PEGs stand among the blocks."""
    rules = [
        (r"^patch_embeds\.(\d+)\.", r"stages.\1.patch_embed."),
        (r"^pos_block\.(\d+)\.proj\.0\.", r"stages.\1.blocks.1.proj."),
        (r"^blocks\.(\d+)\.0\.", r"stages.\1.blocks.0."),
        (r"^blocks\.(\d+)\.(\d+)\.", lambda m: f"stages.{m[1]}.blocks.{int(m[2]) + 1}."),
    ]
    return rename(rules)(state, model)


class Twins(Pyramid):
    """A pyramid whose blocks attend by turns inside windows and to a summary of the map."""

    Tokenizer, Downsample, Position = NormedPatchEmbed, NormedPatchEmbed, NoPosition
    Local, Attention, Peg, Head = WindowedAttention, ReducedAttention, PEG, MeanHead
    windows, reductions = (7, 7, 7, 7), (8, 4, 2, 1)  # M and R of each stage
    layouts = {"timm": ("patch_embeds.0.proj.weight", from_timm)}

    def __init__(self, cfg):
        for name in ("windows", "reductions"):
            if len(getattr(self, name)) != len(cfg.dims):
                raise ValueError(f"{name} is {getattr(self, name)}: give one for each stage")
        super().__init__(cfg)
        for stage, dim in zip(self.stages, cfg.dims, strict=True):
            stage.blocks.insert(1, self.Peg(dim))

    def attention(self, s, i):
        cfg = self.cfg
        common = cfg.dims[s], cfg.heads[s], cfg.drop, cfg.attn_drop
        if i % 2 == 0:
            return self.Local(*common, self.windows[s])
        return self.Attention(*common, self.reductions[s])


def sizes(width, depths):
    """Each stage is twice as wide as the one before; all heads are 32 wide."""
    dims = width, 2 * width, 4 * width, 8 * width
    return PyramidConfig(
        dims=dims,
        depths=depths,
        heads=tuple(dim // 32 for dim in dims),
        patches=(4, 2, 2, 2),
        mlp_ratios=(4.0, 4.0, 4.0, 4.0),
    )


PAPER = Paper(
    name="Twins-SVT",
    title="Twins: Revisiting the Design of Spatial Attention in Vision Transformers",
    authors="Chu et al.",
    year=2021,
    arxiv="2104.13840",
    lesson="16",
    models=(Twins,),
    configs={
        "twins_svt_s": Published(Twins, sizes(64, (2, 2, 10, 4)), "24M"),
        "twins_svt_b": Published(Twins, sizes(96, (2, 2, 18, 2)), "56M"),
        "twins_svt_l": Published(Twins, sizes(128, (2, 2, 18, 2)), "99.2M"),
    },
)
