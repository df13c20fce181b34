"""CPVT, faithful to the published model: positions come from a convolution over the tokens.

Conditional Positional Encodings for Vision Transformers, Chu et al. 2021,
https://arxiv.org/abs/2102.10882

The question: a table of positions belongs to one image size; must a ViT have one? The change: no
table. After the first block the tokens are laid out as a map, and a depthwise 3x3 convolution adds
to each what is around it. The zeros beyond the border tell a token how far the border is.

The paper tries several places and numbers of such convolutions: `CPVT.variant(pegs=(0, 1, 2))` has
one before the first block, one behind it, and one behind the second.
"""

from torch import nn

from vitcourse.config import Config
from vitcourse.papers import Paper, Published
from vitcourse.parts import MeanHead, NoPosition, join, split
from vitcourse.vit import ViT


class PEG(nn.Module):
    """Add to each token a weighted sum of its 3x3 neighbours, channel by channel.

    x (B, T, D), grid -> x. Prefix tokens have no neighbours and pass unchanged.
    """

    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, x, grid):
        prefix, places = split(x, grid)
        places = places + self.proj(places)  # (B, D, h, w)
        return join(prefix, places)  # (B, T, D)


class CPVT(ViT):
    """A ViT without a position table, and with a PEG behind its first block."""

    Position, Peg = NoPosition, PEG
    pegs = (1,)  # before each PEG stand that many blocks

    def __init__(self, cfg):
        super().__init__(cfg)
        for place in sorted(self.pegs, reverse=True):
            self.blocks.insert(place, self.Peg(cfg.dim))


class CPVTMean(CPVT):
    """CPVT-GAP: the mean of the tokens in place of a class token."""

    Head = MeanHead


PAPER = Paper(
    name="CPVT",
    title="Conditional Positional Encodings for Vision Transformers",
    authors="Chu et al.",
    year=2021,
    arxiv="2102.10882",
    lesson="14",
    models=(CPVT,),
    configs={"cpvt_ti": Published(CPVT, Config.of("Ti/16"), "6M")},
)
