"""DeepViT: beside vit-pytorch (LayerNorm over heads), and identities of the mixing."""

import torch
from torch import nn
from vit_pytorch import deepvit

from tests.proofs import equal, images, randomise, same_as
from vitcourse.config import Config
from vitcourse.papers.deepvit import (
    DeepViT,
    HalvedBlock,
    HeadNorm,
    LateDeepViT,
    ReAttention,
    ScaledReAttention,
)
from vitcourse.vit import Attention, Block, LayerNorm, ViT

SIZES = Config(dim=40, depth=3, heads=5, patch=6, image=(18, 30), classes=7, mlp_ratio=2)
LATE = LateDeepViT.variant(Attention=ScaledReAttention, plain=2)
MODELS = {
    "batch norm": lambda: (DeepViT(SIZES), torch.randn(2, 3, 18, 30)),
    "late": lambda: (LATE(SIZES), torch.randn(2, 3, 18, 30)),
}
OTHER_SIZES = {"batch norm": (24, 12), "late": (24, 12)}
COUNTS = {"deepvit_16": 24_426_664, "deepvit_24": 36_261_448, "deepvit_32": 48_096_232}
COUNTS |= {"deepvit_s": 27_312_632, "deepvit_l": 58_883_708}
MISREPORTED = {"deepvit_l": "the authors' repository builds a larger one than the paper's 55M"}


class LikeVitPytorch(ReAttention):
    """As vit-pytorch writes it: its own norm before, no biases, LayerNorm over the heads."""

    Norm = HeadNorm

    def build(self, dim):
        super().build(dim)
        self.before = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.mix = nn.Conv2d(self.heads, self.heads, kernel_size=1, bias=False)

    def forward(self, x, grid=None):
        return super().forward(self.before(x), grid)


def like_vit_pytorch(state, model):
    """The tensors of vit-pytorch's attention under our names."""
    k = len(state["reattn_weights"])
    return {
        "before.weight": state["norm.weight"],
        "before.bias": state["norm.bias"],
        "qkv.weight": state["to_qkv.weight"],
        "proj.weight": state["to_out.0.weight"],
        "proj.bias": state["to_out.0.bias"],
        # theirs is (from head, to head)
        "mix.weight": state["reattn_weights"].T.reshape(k, k, 1, 1),
        "norm.weight": state["reattn_norm.1.weight"],
        "norm.bias": state["reattn_norm.1.bias"],
    }


def same_as_vit_pytorch():
    """The attention of vit-pytorch, whose model around it is a dialect."""
    theirs, ours = deepvit.Attention(40, heads=5, dim_head=8), LikeVitPytorch(40, 5)
    ours.layouts = {"vit-pytorch": ("reattn_weights", like_vit_pytorch)}
    same_as(theirs, ours, images(2, 7, 40))


def a_mix_that_is_the_identity_is_attention():
    layer, plain = randomise(ReAttention(40, 5)).double(), Attention(40, 5).double()
    plain.load_state_dict({name: layer.state_dict()[name] for name in plain.state_dict()})
    with torch.no_grad():
        layer.mix.weight.copy_(torch.eye(5)[..., None, None])
        layer.mix.bias.zero_()
    layer.norm = nn.Identity()
    x = images(2, 7, 40)
    equal(layer(x), plain(x))


def the_norm_uses_its_statistics():
    """In evaluation, each head's map is shifted and scaled by what was measured in training."""
    layer = randomise(ReAttention(40, 5)).double()
    x = images(2, 7, 40)
    q, k, v = layer.project(x, None)
    mixed = layer.mix((q @ k.transpose(-2, -1) * 8**-0.5).softmax(dim=-1))
    mean, var = (t[:, None, None] for t in (layer.norm.running_mean, layer.norm.running_var))
    scale, shift = (t[:, None, None] for t in (layer.norm.weight, layer.norm.bias))
    wanted = (mixed - mean) / (var + 1e-5).sqrt() * scale + shift
    equal(layer.weights(q, k, None), wanted)


def heads_see_each_other():
    """The gradient of one head's map reaches the queries of all heads, not only its own."""
    for cls, reached in ((ReAttention, 5), (Attention, 1)):
        layer = randomise(cls(40, 5)).double()
        q, k, v = (t.detach() for t in layer.project(images(2, 7, 40), None))
        q.requires_grad_()
        layer.weights(q, k, None)[:, 2, :, 0].sum().backward()
        assert int((q.grad.abs().amax(dim=(0, 2, 3)) > 0).sum()) == reached


def a_deepvit_without_mixing_is_a_vit():
    """With the plain weights put back, the whole model is the ViT with the same parameters."""
    model = randomise(DeepViT(SIZES)).double()
    plain = ViT(SIZES).double().eval()
    plain.load_state_dict({n: model.state_dict()[n] for n in plain.state_dict()})
    for block in model.blocks:
        nn.init.dirac_(block.attn.mix.weight)
        nn.init.zeros_(block.attn.mix.bias)
        block.attn.norm = nn.Identity()
    x = images(2, 3, 18, 30)
    equal(model(x), plain(x))


def a_halved_block_is_a_block():
    """Half of the input and twice the branch: four times the eps, and twice the last layers."""
    block = randomise(HalvedBlock(40, Attention(40, 5), ViT.Mlp(40, 80))).double()
    plain = Block(40, Attention(40, 5), ViT.Mlp(40, 80)).double()
    plain.load_state_dict(block.state_dict())
    plain.norm1.eps = plain.norm2.eps = 4 * LayerNorm(1).eps
    for layer in (plain.attn.proj, plain.mlp.fc2):
        layer.weight.data *= 2
        layer.bias.data *= 2
    x = 1e-3 * images(2, 7, 40)  # so small that the eps counts
    equal(block(x), plain(x))


def only_late_blocks_mix():
    """The first two have plain attention; in the third, maps are divided by sqrt(d)."""
    model = randomise(LATE(SIZES)).double()
    assert [type(b.attn) for b in model.blocks] == [Attention, Attention, ScaledReAttention]
    late, plain = model.blocks[2].attn, randomise(ReAttention(40, 5)).double()
    plain.load_state_dict(late.state_dict())
    q, k, _ = late.project(images(2, 7, 40), None)
    equal(late.weights(q, k, None), plain.weights(q, k, None) / 8**0.5)


PROOFS = [
    same_as_vit_pytorch,
    a_mix_that_is_the_identity_is_attention,
    the_norm_uses_its_statistics,
    heads_see_each_other,
    a_deepvit_without_mixing_is_a_vit,
    a_halved_block_is_a_block,
    only_late_blocks_mix,
]


def norm_before_mix(self, q, k, bias):
    return self.mix(self.norm(Attention.weights(self, q, k, bias)))


def mix_before_softmax(self, q, k, bias):
    return self.norm(self.mix(q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1))


def no_mix(self, q, k, bias):
    return self.norm(Attention.weights(self, q, k, bias))


def no_norm(self, q, k, bias):
    return self.mix(Attention.weights(self, q, k, bias))


def halved_output_only(self, x, grid=None):
    x = x + 2 * self.attn(self.norm1(x), grid)
    return x + 2 * self.mlp(self.norm2(x), grid)


PLANTED = {
    "the norm before the mix": ((ReAttention, "weights", norm_before_mix), same_as_vit_pytorch),
    "scores are mixed, not weights": (
        (ReAttention, "weights", mix_before_softmax),
        same_as_vit_pytorch,
    ),
    "mixed scores, identity": (
        (ReAttention, "weights", lambda self, q, k, b: self.mix(q @ k.transpose(-2, -1))),
        a_mix_that_is_the_identity_is_attention,
    ),
    "no norm": ((ReAttention, "weights", no_norm), the_norm_uses_its_statistics),
    "no mixing": ((ReAttention, "weights", no_mix), heads_see_each_other),
    "the map is used twice": (
        (ReAttention, "weights", lambda self, q, k, b: no_norm(self, q, k, b) ** 2),
        a_deepvit_without_mixing_is_a_vit,
    ),
    "the input is not halved": (
        (HalvedBlock, "forward", halved_output_only),
        a_halved_block_is_a_block,
    ),
    "mixing in every block": ((LATE, "plain", 0), only_late_blocks_mix),
    "maps are not scaled": (
        (ScaledReAttention, "weights", ReAttention.weights),
        only_late_blocks_mix,
    ),
}
