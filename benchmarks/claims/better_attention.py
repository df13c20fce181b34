"""What may be done to the maps of a deep ViT, or around them: one task, one budget, six ways.

Digits, 16 patches, 16 narrow blocks of width 24, 154 steps. Each model differs from the plain ViT
by one thing: its maps are re-attended (DeepViT), its heads talk or its branches are scaled or its
class token comes late (all CaiT), or its maps are convolved (Refiner's layer, in every block). With
class attention, the last two of the 16 are class blocks. LayerScale begins at 0.1, as the paper has
it for up to 18 blocks.

More controls. Re-attention is a mixture and a norm: so, the norm alone. Mixtures begin as random
numbers: so, re-attention and talking heads that begin with each head as it is. And depth itself:
so, a plain ViT of four blocks, twice as wide, with about as many parameters.

How alike patches are is the mean cosine of two of an image; how alike maps are is the cosine of
those of neighbouring blocks, head by head, without what all of them share. Test images, both.
"""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.claims import comparable
from vitcourse import ViT, data
from vitcourse.papers.cait import CaiT, LayerScaleViT, TalkingHeads
from vitcourse.papers.deepvit import DeepViT, ReAttention
from vitcourse.papers.refiner import Refine
from vitcourse.parts import LayerScale
from vitcourse.probe import record_attention, record_tokens, token_similarity
from vitcourse.train import RECIPES, build_model, fit
from vitcourse.vit import Attention, truncated_normal_

SEEDS = 3
DEPTH, DIM = 16, 24
AFTER = 1, 4, 8, 12  # blocks after which patches are compared, and after the last


class RefinedMaps(Attention):
    """Attention whose maps are refined: Refiner's layer by itself."""

    def build(self, dim):
        super().build(dim)
        self.refine = Refine(self.heads)

    def weights(self, q, k, bias):
        return self.refine(super().weights(q, k, bias))


MODELS = {
    "plain": ViT,
    "re-attention": DeepViT,
    "re-attention, silent start": DeepViT,
    "its norm alone": DeepViT,
    "talking heads": ViT.variant(Attention=TalkingHeads),
    "talking heads, silent start": ViT.variant(Attention=TalkingHeads),
    "refined maps": ViT.variant(Attention=RefinedMaps),
    "LayerScale": LayerScaleViT.variant(scale_init=0.1),
    "class attention": CaiT.variant(Attention=Attention, scale_init=1.0),
}


def build(name, recipe, digits):
    """A model of the comparison, with new weights."""
    if name == "four wide blocks":
        return build_model(recipe, digits, ViT, dim=2 * DIM, depth=DEPTH // 4)
    cls = MODELS[name]
    depth = DEPTH - (cls.class_depth if issubclass(cls, CaiT) else 0)
    model = build_model(recipe, digits, cls, dim=DIM, depth=depth)
    for layer in model.modules():
        if isinstance(layer, ReAttention) and name == "re-attention, silent start":
            as_it_is(layer.mix)
        if isinstance(layer, ReAttention) and name == "its norm alone":
            as_it_is(layer.mix).requires_grad_(False)
        if isinstance(layer, TalkingHeads) and name == "talking heads, silent start":
            as_it_is(layer.mix_scores), as_it_is(layer.mix_weights)
        if isinstance(layer, LayerScale) and name == "class attention":
            layer.requires_grad_(False)  # it is one, and stays one
    if name == "class attention":  # its last blocks begin as all blocks do
        for layer in model.class_blocks.modules():
            if isinstance(layer, nn.Linear):
                truncated_normal_(layer.weight, std=recipe.gain * layer.in_features**-0.5)
    return model


@torch.no_grad()
def as_it_is(mix):
    """Let a mixture of heads begin with each head as it is."""
    mix.weight.copy_(torch.eye(len(mix.weight)).view_as(mix.weight))
    mix.bias.zero_()
    return mix


def measure(seed):
    """Accuracy, and how unlike patches and maps are, of each model."""
    digits = data.load("digits")
    recipe = RECIPES["smoke"].but(model="Nano/2", epochs=7, batch=64, seed=seed, evaluate_every=7)
    models = {name: build(name, recipe, digits) for name in (*MODELS, "four wide blocks")}
    comparable(*models.values())
    found = {}
    for name, model in models.items():
        run = fit(model, digits, recipe, device="cpu", quiet=True)
        found[f"{name}, accuracy"] = run.accuracy
        tokens, maps = inside(run.model, digits)
        found[f"{name}, patches unlike"] = 1 - alike(tokens[-1])
        found[f"{name}, maps unlike"] = 1 - neighbours_alike(maps)
        if name != "four wide blocks":
            found |= {f"{name}, patches unlike, block {i}": 1 - alike(tokens[i - 1]) for i in AFTER}
    return found


@torch.no_grad()
def inside(model, digits):
    """The patches after each block, and the maps of all that attend to each other."""
    with record_tokens(model) as tokens, record_attention(model) as maps:
        model(digits.normalise(digits.test_images))
    return [x[:, -16:] for x in tokens], [m for m in maps if m.shape[2] > 1]


def alike(patches):
    """The mean cosine of two patches of an image: (B, N, D)."""
    return token_similarity(patches).mean().item()


def neighbours_alike(maps):
    """The mean cosine of the maps of neighbouring blocks."""
    maps = [weights - weights.mean(dim=-1, keepdim=True) for weights in maps]  # (B, K, T, T)
    cosines = [
        F.cosine_similarity(one.flatten(2), two.flatten(2), dim=-1).mean()
        for one, two in zip(maps, maps[1:], strict=False)
    ]
    return torch.stack(cosines).mean().item()


def more(name, than="plain", what="accuracy"):
    """A pair of figures."""
    return f"{name}, {what}", f"{than}, {what}"


PAIRS = {
    "re-attention beats the plain ViT": more("re-attention"),
    "talking heads beat the plain ViT": more("talking heads"),
    "refined maps beat the plain ViT": more("refined maps"),
    "LayerScale beats the plain ViT": more("LayerScale"),
    "class attention beats the plain ViT": more("class attention"),
    "re-attention beats its norm alone": more("re-attention", "its norm alone"),
    "re-attention with a silent start beats the other": more(
        "re-attention, silent start", "re-attention"
    ),
    "re-attention with a silent start beats the plain ViT": more("re-attention, silent start"),
    "re-attention with a silent start beats its norm alone": more(
        "re-attention, silent start", "its norm alone"
    ),
    "talking heads with a silent start beat the others": more(
        "talking heads, silent start", "talking heads"
    ),
    "talking heads with a silent start beat the plain ViT": more("talking heads, silent start"),
    "four wide blocks beat 16 narrow ones": more("four wide blocks"),
    "LayerScale keeps patches apart": more("LayerScale", what="patches unlike"),
    "so does re-attention": more("re-attention", what="patches unlike"),
    "re-attention keeps maps apart": more("re-attention", what="maps unlike"),
    "so do refined maps": more("refined maps", what="maps unlike"),
}
