"""CaiT: the whole model beside timm's, and identities of its three parts."""

import torch
from timm.models.cait import Cait
from torch import nn

from tests.proofs import equal, images, randomise, same_as
from vitcourse.config import Config
from vitcourse.papers.cait import (
    CaiT,
    ClassAttention,
    ClassBlock,
    LayerScaleViT,
    PatchPosition,
    TalkingHeads,
)
from vitcourse.parts import LayerScale
from vitcourse.vit import Attention, Block, LearnedPosition, ViT

SIZES = Config(dim=40, depth=3, heads=5, patch=6, image=(18, 30), classes=7, mlp_ratio=2)
MODELS = {
    "whole": lambda: (CaiT(SIZES), torch.randn(2, 3, 18, 30)),
    "LayerScale alone": lambda: (LayerScaleViT(SIZES), torch.randn(2, 3, 18, 30)),
}
OTHER_SIZES = {"whole": (24, 12), "LayerScale alone": (24, 12)}
COUNTS = {
    "cait_xxs24": 11_956_264,
    "cait_xxs36": 17_299_720,
    "cait_xs24": 26_670_088,
    "cait_s24": 46_916_200,
    "cait_s36": 68_366_632,
    "cait_m36": 271_221_352,
}


def same_as_timm():
    for dtype in (torch.float32, torch.float64):
        theirs = Cait(
            img_size=(18, 30),
            patch_size=6,
            embed_dim=40,
            depth=3,
            num_heads=5,
            mlp_ratio=2,
            mlp_ratio_token_only=2,
            num_classes=7,
        ).to(dtype)
        ours = CaiT(SIZES).to(dtype)
        theirs.eval()
        # softmax ignores what all scores of a query share: this gradient is rounding alone
        for bias in (*biases(theirs, "proj_l"), *biases(ours, "mix_scores")):
            bias.register_hook(torch.zeros_like)
        stages = [
            [*model.blocks, *(block.mlp for block in late), model.norm]
            for model, late in ((ours, ours.class_blocks), (theirs, theirs.blocks_token_only))
        ]
        same_as(theirs, ours, images(2, 3, 18, 30), stages, dtypes=(dtype,))


def biases(model, name):
    """The bias of the layer `name` in each patch block."""
    return [getattr(block.attn, name).bias for block in model.blocks]


def layerscale_of_ones_is_a_vit():
    scaled, plain = randomise(LayerScaleViT(SIZES)).double(), ViT(SIZES).double().eval()
    plain.load_state_dict(scaled.state_dict(), strict=False)
    for module in scaled.modules():
        if isinstance(module, LayerScale):
            nn.init.ones_(module.gamma)
    x = images(2, 3, 18, 30)
    equal(scaled(x), plain(x))


def layerscale_of_zero_is_the_identity():
    """Each of the two numbers closes one branch: with both at zero, a block changes nothing."""
    x = images(2, 15, 40)
    for block in randomise(LayerScaleViT(SIZES)).double().blocks:
        nn.init.zeros_(block.ls1.gamma)
        equal(block(x), x + block.ls2(block.mlp(block.norm2(x))))
        nn.init.zeros_(block.ls2.gamma)
        equal(block(x), x)


def mixtures_that_are_identities_leave_attention():
    layer, plain = randomise(TalkingHeads(40, 5)).double(), Attention(40, 5).double()
    plain.load_state_dict(layer.state_dict(), strict=False)
    for mix in (layer.mix_scores, layer.mix_weights):
        nn.init.eye_(mix.weight)
        nn.init.zeros_(mix.bias)
    x = images(2, 7, 40)
    equal(layer(x), plain(x))


def the_bias_before_the_softmax_does_nothing():
    """And the one after it does something."""
    layer, x = randomise(TalkingHeads(40, 5)).double(), images(2, 7, 40)
    before = layer(x).detach()
    nn.init.normal_(layer.mix_scores.bias)
    equal(layer(x), before)
    nn.init.normal_(layer.mix_weights.bias)
    assert (layer(x) - before).abs().max() > 0.01


def heads_talk_twice():
    """The query of one head reaches all heads' weights, even if one mixture is the identity."""
    for quiet in ("mix_scores", "mix_weights"):
        layer = randomise(TalkingHeads(40, 5)).double()
        nn.init.eye_(getattr(layer, quiet).weight)
        q, k, v = (t.detach() for t in layer.project(images(2, 7, 40), None))
        q.requires_grad_()
        layer.weights(q, k, None)[:, 2, :, 0].sum().backward()
        assert (q.grad.abs().amax(dim=(0, 2, 3)) > 0).all(), quiet


def class_attention_is_one_row_of_attention():
    layer, plain = randomise(ClassAttention(40, 5)).double(), Attention(40, 5).double()
    plain.load_state_dict(layer.state_dict())
    x = images(2, 7, 40)
    equal(layer(x), plain(x)[:, :1])


def a_class_block_changes_the_class_token_only():
    """As a plain block changes it; the patches leave as they came."""
    block = randomise(CaiT(SIZES)).double().class_blocks[0]
    plain = Block(40, Attention(40, 5), ViT.Mlp(40, 80), scale=LayerScale).double()
    plain.load_state_dict(block.state_dict())
    x = images(2, 15, 40)
    equal(block(x)[:, :1], plain(x)[:, :1])
    assert torch.equal(block(x)[:, 1:], x[:, 1:])


def patches_never_see_the_class_token():
    model, x = randomise(CaiT(SIZES)).double(), images(2, 3, 18, 30)
    tokens, _ = model.encode(x)
    (reaches,) = torch.autograd.grad(tokens[:, 1:].square().sum(), model.prefix, allow_unused=True)
    assert reaches is None or not reaches.any()
    assert torch.autograd.grad(model(x).sum(), model.prefix)[0].any()


def the_class_token_has_no_position():
    """With no positions, places do not count: shuffled patches give the same logits."""
    model, x = randomise(CaiT(SIZES)).double(), images(2, 3, 18, 30)
    assert model.position.table.shape == (1, 15, 40)
    nn.init.zeros_(model.position.table)
    model.blocks.insert(0, Shuffled(torch.randperm(15)))
    shuffled = model(x)
    del model.blocks[0]
    equal(shuffled, model(x))


class Shuffled(nn.Module):
    """The patches in another order."""

    def __init__(self, order):
        super().__init__()
        self.order = order

    def forward(self, x, grid=None):
        return x[:, self.order]


PROOFS = [
    same_as_timm,
    layerscale_of_ones_is_a_vit,
    layerscale_of_zero_is_the_identity,
    mixtures_that_are_identities_leave_attention,
    the_bias_before_the_softmax_does_nothing,
    heads_talk_twice,
    class_attention_is_one_row_of_attention,
    a_class_block_changes_the_class_token_only,
    patches_never_see_the_class_token,
    the_class_token_has_no_position,
]


def only_scores(self, q, k, bias):
    scores = q @ k.transpose(-2, -1) * self.scale
    return self.mix_scores(scores.movedim(1, -1)).movedim(-1, 1).softmax(dim=-1)


def only_weights(self, q, k, bias):
    return self.mix_weights(Attention.weights(self, q, k, bias).movedim(1, -1)).movedim(-1, 1)


def both_after(self, q, k, bias):
    weights = Attention.weights(self, q, k, bias).movedim(1, -1)
    return self.mix_weights(self.mix_scores(weights)).movedim(-1, 1)


def no_scale(self, q, k, bias):
    scores = self.mix_scores((q @ k.transpose(-2, -1)).movedim(1, -1)).movedim(-1, 1)
    return self.mix_weights(scores.softmax(dim=-1).movedim(1, -1)).movedim(-1, 1)


def class_block_without_patches(self, x, grid=None):
    token = x[:, :1]
    token = token + self.ls1(self.attn(self.norm1(token)))
    token = token + self.ls2(self.mlp(self.norm2(token)))
    return torch.cat([token, x[:, 1:]], dim=1)


def one_scale(self, x, grid=None):
    x = x + self.ls1(self.attn(self.norm1(x), grid))
    return x + self.ls1(self.mlp(self.norm2(x), grid))


def token_from_the_start(self, images):
    x, grid = self.patch_embed(images)
    x = torch.cat([self.prefix.expand(len(x), -1, -1), self.position(x, grid)], dim=1)
    for block in (*self.blocks, *self.class_blocks):
        x = block(x, grid)
    return self.norm(x), grid


def first_patch_asks(self, x, grid):
    q, k, v = Attention.project(self, x, grid)
    return q[:, :, 1:2], k, v


PLANTED = {
    "heads are mixed after the softmax alone": (
        (TalkingHeads, "weights", only_weights),
        same_as_timm,
    ),
    "the class token is there from the start": (
        (CaiT, "encode", token_from_the_start),
        same_as_timm,
    ),
    "the scale is one plus what is learned": (
        (LayerScale, "forward", lambda self, x: x * (1 + self.gamma)),
        layerscale_of_ones_is_a_vit,
    ),
    "both branches have the first scale": (
        (Block, "forward", one_scale),
        layerscale_of_zero_is_the_identity,
    ),
    "no 1/sqrt(d)": (
        (TalkingHeads, "weights", no_scale),
        mixtures_that_are_identities_leave_attention,
    ),
    "both mixtures after the softmax": (
        (TalkingHeads, "weights", both_after),
        the_bias_before_the_softmax_does_nothing,
    ),
    "one mixture": ((TalkingHeads, "weights", only_scores), heads_talk_twice),
    "the first patch asks": (
        (ClassAttention, "project", first_patch_asks),
        class_attention_is_one_row_of_attention,
    ),
    "the class token sees itself alone": (
        (ClassBlock, "forward", class_block_without_patches),
        a_class_block_changes_the_class_token_only,
    ),
    "patches see the class token": (
        (CaiT, "encode", token_from_the_start),
        patches_never_see_the_class_token,
    ),
    "the class token has a position": (
        (PatchPosition, "__init__", LearnedPosition.__init__),
        the_class_token_has_no_position,
    ),
}
