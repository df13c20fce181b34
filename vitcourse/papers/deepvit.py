"""DeepViT, faithful to the published model: attention maps are mixed across the heads.

DeepViT: Towards Deeper Vision Transformer, Zhou et al. 2021, https://arxiv.org/abs/2103.11886

The question: why does a ViT stop getting better when it gets deeper? The authors found that the
attention maps of deep blocks become alike. The change: a learned K x K matrix makes each head's map
from those of all heads, and a norm over the heads keeps the new maps apart.

The paper leaves the norm open. The published models take a BatchNorm; HeadNorm, a LayerNorm over
the heads, is what others read. DeepViT-S and -L begin with convolutions, re-attend only in their
last blocks, and every branch reads half of its input and is added twice.
"""

from torch import nn

from vitcourse.config import Config
from vitcourse.papers import Paper, Published
from vitcourse.papers.lv_vit import ConvStem
from vitcourse.vit import Attention, Block, ViT


class HeadNorm(nn.LayerNorm):
    """Normalise the numbers that the heads give to one pair of tokens: (B, K, T, T)."""

    def forward(self, maps):
        return super().forward(maps.movedim(1, -1)).movedim(-1, 1)


class ReAttention(Attention):
    """Attention whose maps are mixed across the heads before they weigh the values."""

    Norm = nn.BatchNorm2d

    def build(self, dim):
        super().build(dim)
        self.mix = nn.Conv2d(self.heads, self.heads, kernel_size=1)
        self.norm = self.Norm(self.heads)

    def weights(self, q, k, bias):
        maps = super().weights(q, k, bias)  # (B, K, T, T)
        return self.norm(self.mix(maps))  # (B, K, T, T), rows need not sum to one


class DeepViT(ViT):
    """A ViT with re-attention in every block."""

    Attention = ReAttention


class ScaledReAttention(ReAttention):
    """The re-attention of DeepViT-S: its maps are divided by sqrt(d)."""

    def weights(self, q, k, bias):
        return super().weights(q, k, bias) * self.scale  # (B, K, T, T)


class ShortStem(ConvStem):
    """The stem of DeepViT-S and -L."""

    widths = 64, 64


class HalvedBlock(Block):
    """A block whose branches read half of their input, and are added twice."""

    def forward(self, x, grid=None):
        x = x + 2 * self.drop_path(self.attn(self.norm1(x / 2), grid))  # (B, T, D)
        x = x + 2 * self.drop_path(self.mlp(self.norm2(x / 2), grid))  # (B, T, D)
        return x


class LateDeepViT(DeepViT):
    """DeepViT-L: a stem of convolutions, and re-attention only in the last blocks."""

    Tokenizer, Block = ShortStem, HalvedBlock
    plain = 20  # how many blocks come before the first with re-attention

    def block(self, i):
        block, cfg = super().block(i), self.cfg
        if i < self.plain:
            block.attn = Attention(cfg.dim, cfg.heads, cfg.drop, cfg.attn_drop)
        return block


def sizes(depth, dim=384):
    """DeepViT-16, -24 and -32 differ in depth alone."""
    return Config(dim=dim, depth=depth, heads=12, mlp_ratio=3)


PAPER = Paper(
    name="DeepViT",
    title="DeepViT: Towards Deeper Vision Transformer",
    authors="Zhou et al.",
    year=2021,
    arxiv="2103.11886",
    lesson="15",
    models=(DeepViT,),
    configs={
        "deepvit_16": Published(DeepViT, sizes(16), "24.5M"),
        "deepvit_24": Published(DeepViT, sizes(24), "36.3M"),
        "deepvit_32": Published(DeepViT, sizes(32), "48.1M"),
        "deepvit_s": Published(
            LateDeepViT.variant(Attention=ScaledReAttention, plain=11), sizes(16, 396), "27M"
        ),
        "deepvit_l": Published(LateDeepViT, sizes(32, 420), "55M"),
    },
)
