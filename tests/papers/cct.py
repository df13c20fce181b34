"""CCT, CVT and ViT-Lite beside vit-pytorch, whose parts are the authors'."""

import torch
from torch import nn
from vit_pytorch import cct

from tests.proofs import equal, images, randomise, same_as
from vitcourse.config import Config
from vitcourse.papers import cct as cct_file
from vitcourse.papers.cct import (
    CCT,
    CVT,
    ConvTokenizer,
    RenormBlock,
    SeqPool,
    SinePosition,
    UnbiasedAttention,
    ViTLite,
    WideCCT,
)
from vitcourse.parts import MeanHead, NoPosition
from vitcourse.vit import Attention, Block, Mlp, PatchEmbed

SIZES = Config(dim=40, depth=2, heads=5, patch=4, image=(12, 20), classes=7, mlp_ratio=2)
MODELS = {
    "CCT": lambda: (CCT(SIZES), torch.randn(2, 3, 12, 20)),
    "CCT, wide": lambda: (WideCCT(SIZES), torch.randn(2, 3, 12, 20)),
    "CCT, sine": lambda: (
        CCT.variant(Position=SinePosition)(SIZES),
        torch.randn(2, 3, 12, 20),
    ),
    "CVT": lambda: (CVT(SIZES), torch.randn(2, 3, 12, 20)),
    "ViT-Lite": lambda: (ViTLite(SIZES), torch.randn(2, 3, 12, 20)),
}
OTHER_SIZES = {"CCT": (13, 22), "CCT, wide": (9, 17), "CCT, sine": (8, 31), "ViT-Lite": (8, 24)}
COUNTS = {
    "cct_2_3x2": 283_723,
    "cct_4_3x2": 482_123,
    "cct_6_3x1": 3_233_803,
    "cct_6_3x2": 3_326_923,
    "cct_7_3x1": 3_760_139,
    "cct_7_3x2": 3_853_259,
    "cct_7_7x2": 4_573_735,
    "cct_14_7x2": 22_367_273,
    "compact_cvt_7_4": 3_716_619,
    "vit_lite_7_4": 3_716_874,
}


def theirs(kernel, convs, positions):
    """vit-pytorch's CCT of our sizes."""
    return cct.CCT(
        img_size=(12, 20),
        embedding_dim=40,
        n_conv_layers=convs,
        kernel_size=kernel,
        stride=max(1, kernel // 2 - 1),
        padding=kernel // 2,
        num_layers=2,
        num_heads=5,
        mlp_ratio=2,
        num_classes=7,
        positional_embedding=positions,
    )


def fix(module, name):
    """Make a constant of a parameter: it gets no random value, and its gradient is not compared."""
    value = getattr(module, name).detach()
    delattr(module, name)
    module.register_buffer(name, value)


def same(oracle, ours):
    """Compare the tokens with their positions, each block, the logits and the gradients."""
    if ours.prefix_len == 0:
        fix(ours, "prefix")  # it is empty, and they have none
        # a softmax ignores what is added to all scores: this gradient is nothing but rounding
        fix(ours.head.pool, "bias")
        fix(oracle.classifier.attention_pool, "bias")
    stages = [
        (ours.drop, *ours.blocks, ours.norm),
        (oracle.classifier.dropout, *oracle.classifier.blocks, oracle.classifier.norm),
    ]
    same_as(oracle, ours, images(2, 3, 12, 20), stages=stages)


def cct_is_vit_pytorchs():
    same(theirs(kernel=3, convs=2, positions="learnable"), CCT(SIZES))


def cct_of_wide_kernels_is_vit_pytorchs():
    """Kernels of 7x7, and the fixed positions of the run of 5000 epochs."""
    ours = WideCCT.variant(Position=SinePosition)(SIZES)
    oracle = theirs(kernel=7, convs=1, positions="sine")
    fix(oracle.classifier, "positional_emb")
    same(oracle, ours)


class TheirParts(nn.Module):
    """What vit-pytorch has no model for: its parts, put together as CVT and ViT-Lite."""

    def __init__(self, seq_pool):
        super().__init__()
        self.tokenizer = cct.Tokenizer(
            4, 4, 0, n_output_channels=40, max_pool=False, conv_bias=True
        )
        self.classifier = cct.TransformerClassifier(
            seq_pool, 40, 2, 5, 2.0, 7, positional_embedding="learnable", sequence_length=15
        )

    def forward(self, images):
        return self.classifier(self.tokenizer(images))


def cvt_is_vit_pytorchs():
    same(TheirParts(seq_pool=True), CVT(SIZES))


def vit_lite_is_vit_pytorchs():
    same(TheirParts(seq_pool=False), ViTLite(SIZES))


def a_pool_without_opinion_is_the_mean():
    pool, mean = randomise(SeqPool(SIZES)).double(), MeanHead(SIZES).double()
    mean.load_state_dict(pool.state_dict(), strict=False)
    nn.init.zeros_(pool.pool.weight)
    x = images(2, 15, 40)
    equal(pool(x, (3, 5)), mean(x, (3, 5)))


def a_pool_that_is_sure_takes_one_token():
    """With large scores, each image gives the token whose score is highest."""
    pool, x = randomise(SeqPool(SIZES)).double(), images(2, 15, 40)
    best = pool.pool(x)[..., 0].argmax(dim=1)
    with torch.no_grad():
        pool.pool.weight *= 1e4
    chosen = x[torch.arange(2), best]
    equal(pool(x), chosen @ pool.weight.T + pool.bias)


def the_second_norm_ends_the_stream():
    """Without attention and MLP a block is its second norm, where that of a ViT passes x on."""
    for cls in (RenormBlock, Block):
        block = cls(40, UnbiasedAttention(40, 5), Mlp(40, 80))
        block = randomise(block).double()
        for layer in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        x = images(2, 15, 40)
        equal(block(x), block.norm2(x) if cls is RenormBlock else x)


def read_by(tokenizer, row, column, size=(24, 28)):
    """Which pixels the token at that place reads: the rows and the columns, over many images."""
    pixels = images(40, 3, *size).requires_grad_()
    x, (h, w) = tokenizer(pixels)
    x.unflatten(1, (h, w))[:, row, column].sum().backward()
    read = pixels.grad.abs().sum(dim=(0, 1)) > 0
    return [torch.where(read.any(dim=axis))[0].tolist() for axis in (1, 0)]


def tokens_overlap():
    """A token reads 13 pixels by 13 after two convolutions, though 4 lie between tokens."""
    torch.manual_seed(0)
    rows, columns = read_by(ConvTokenizer(3, 40, 4).double(), row=2, column=3)
    assert rows == list(range(8 - 6, 8 + 7)) and columns == list(range(12 - 6, 12 + 7))
    rows, columns = read_by(PatchEmbed(3, 40, 4).double(), row=2, column=3)
    assert rows == list(range(8, 12)) and columns == list(range(12, 16))


def tokens_in_any_order():
    """Without positions, CCT cannot tell in which order its tokens came."""
    model = randomise(CCT.variant(Position=NoPosition)(SIZES)).double()
    x, order = images(2, 15, 40), torch.randperm(15)
    model.patch_embed.forward = lambda tokens: (tokens, (3, 5))
    equal(model(x[:, order]), model(x))


PROOFS = [
    cct_is_vit_pytorchs,
    cct_of_wide_kernels_is_vit_pytorchs,
    cvt_is_vit_pytorchs,
    vit_lite_is_vit_pytorchs,
    a_pool_without_opinion_is_the_mean,
    a_pool_that_is_sure_takes_one_token,
    the_second_norm_ends_the_stream,
    tokens_overlap,
    tokens_in_any_order,
]


def no_pooling(self, images):
    x = images
    for conv in self.convs:
        x = conv(x).relu()[..., ::2, ::2]
    return x.flatten(2).transpose(1, 2), tuple(x.shape[2:])


def no_relu(self, images):
    x = images
    for conv in self.convs:
        x = nn.functional.max_pool2d(conv(x), kernel_size=3, stride=2, padding=1)
    return x.flatten(2).transpose(1, 2), tuple(x.shape[2:])


def cosine_first(length, dim):
    pair = torch.arange(dim) // 2 * 2
    angle = torch.arange(length)[:, None] / 10000 ** (pair / dim)
    return torch.where(torch.arange(dim) % 2 == 1, angle.sin(), angle.cos())[None]


def over_channels(self, x):
    return self.pool(x).softmax(dim=2)


def norm_in_the_branch(self, x, grid=None):
    return Block.forward(self, x, grid)


def no_dividing(self, q, k, v, bias=None):
    self.scale = 1.0
    return Attention.attend(self, q, k, v, bias)


def reads_the_first(self, x, grid=None):
    return nn.functional.linear(x[:, 0], self.weight, self.bias)


PLANTED = {
    "no ReLU": ((ConvTokenizer, "forward", no_relu), cct_is_vit_pytorchs),
    "every second place, no pooling": (
        (ConvTokenizer, "forward", no_pooling),
        cct_of_wide_kernels_is_vit_pytorchs,
    ),
    "every second place overlaps less": ((ConvTokenizer, "forward", no_pooling), tokens_overlap),
    "cosine before sine": (
        (cct_file, "waves", cosine_first),
        cct_of_wide_kernels_is_vit_pytorchs,
    ),
    "weights over channels": ((SeqPool, "weights", over_channels), cvt_is_vit_pytorchs),
    "the sum of the tokens": (
        (SeqPool, "weights", over_channels),
        a_pool_without_opinion_is_the_mean,
    ),
    "the mean whatever the scores": (
        (SeqPool, "weights", lambda self, x: 0 * self.pool(x) + 1 / x.shape[1]),
        a_pool_that_is_sure_takes_one_token,
    ),
    "the norm in the branch": ((RenormBlock, "forward", norm_in_the_branch), cct_is_vit_pytorchs),
    "the norm in the branch, alone": (
        (RenormBlock, "forward", norm_in_the_branch),
        the_second_norm_ends_the_stream,
    ),
    "no division by the root of d": (
        (UnbiasedAttention, "attend", no_dividing),
        vit_lite_is_vit_pytorchs,
    ),
    "the first token is read": ((SeqPool, "forward", reads_the_first), tokens_in_any_order),
}
