"""SimpleViT, faithful to the published model: no class token, and positions that are not learned.

Better plain ViT baselines for ImageNet-1k, Beyer et al. 2022, https://arxiv.org/abs/2205.01580

The question: how good is a plain ViT on ImageNet alone, with as little machinery as possible? The
change: fixed waves in place of learned positions, the mean of all tokens in place of a class token,
one linear layer as head, no dropout. Most of the gain is the recipe: RandAugment and MixUp, both
mild, and batches of 1024.

The norm comes before the mean. The authors' JAX code takes the tanh approximation of GELU; here it
is exact, as in all ViTs of this course.
"""

from vitcourse.config import Config
from vitcourse.papers import Paper, Published
from vitcourse.parts import MeanHead, SinCosPosition
from vitcourse.vit import ViT


class SimpleViT(ViT):
    """A ViT without class token whose positions are waves."""

    Position, Head = SinCosPosition, MeanHead


PAPER = Paper(
    name="SimpleViT",
    title="Better plain ViT baselines for ImageNet-1k",
    authors="Beyer et al.",
    year=2022,
    arxiv="2205.01580",
    lesson="13",
    models=(SimpleViT,),
    configs={"simple_vit_s_16": Published(SimpleViT, Config.of("S/16"), "22M")},
)
