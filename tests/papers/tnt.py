"""TNT: beside timm, both versions, and identities of what meets where."""

import torch
from timm.models import tnt as timm
from torch import nn

from tests.proofs import equal, images, randomise, same_as
from vitcourse.config import Config
from vitcourse.papers.cct import UnbiasedAttention
from vitcourse.papers.tnt import TNT, Fold, LegacyPixelEmbed, LegacyTNT, PixelEmbed, TNTBlock
from vitcourse.vit import ViT, patchify, unpatchify


class SmallPixels(PixelEmbed):
    """Nine pixel tokens for a patch of 6x6."""

    width, stride = 10, 2


class SmallLegacyPixels(LegacyPixelEmbed):
    """The same for the other version."""

    width, stride = 10, 2


SIZES = Config(dim=42, depth=2, heads=3, patch=6, image=(18, 30), classes=7, mlp_ratio=2)
Small = TNT.variant(Tokenizer=SmallPixels, inner_heads=5)
SmallLegacy = LegacyTNT.variant(Tokenizer=SmallLegacyPixels, inner_heads=5)
MODELS = {
    "current": lambda: (Small(SIZES), torch.randn(2, 3, 18, 30)),
    "legacy": lambda: (SmallLegacy(SIZES), torch.randn(2, 3, 18, 30)),
}
OTHER_SIZES = {"current": (24, 12), "legacy": (24, 12)}
COUNTS = {"tnt_s": 23_768_584, "tnt_s_legacy": 23_755_336, "tnt_b": 65_428_680}


def same(model, legacy):
    """Logits, all gradients, and of each block the pixel tokens and the patch tokens."""
    theirs = timm.TNT(
        img_size=(18, 30),
        patch_size=6,
        embed_dim=42,
        inner_dim=10,
        depth=2,
        num_heads_inner=5,
        num_heads_outer=3,
        mlp_ratio=2,
        num_classes=7,
        first_stride=2,
        legacy=legacy,
    )
    stages = (
        [part for block in model.blocks for part in (block.inner, block.outer.norm2)],
        [part for block in theirs.blocks for part in (block, block.norm_mlp)],
    )
    same_as(theirs, model, images(2, 3, 18, 30), stages)


def same_as_timm():
    same(Small(SIZES), legacy=False)


def the_legacy_version_is_timms():
    same(SmallLegacy(SIZES), legacy=True)


class Tokens(nn.Module):
    """The patch tokens of a TNT, without their pixels."""

    def __init__(self, patch_embed):
        super().__init__()
        self.patch_embed = patch_embed

    def forward(self, images):
        x, _, grid = self.patch_embed(images)
        return x, grid


def without_pixels_it_is_a_vit():
    """Where nothing is added to the patch tokens, the outer blocks are those of a ViT."""
    model = randomise(Small(SIZES)).double()
    plain = ViT.variant(Attention=UnbiasedAttention)(SIZES).double().eval()
    for block, outer in zip(model.blocks, plain.blocks, strict=True):
        nn.init.zeros_(block.fold.norm2.weight)
        nn.init.zeros_(block.fold.norm2.bias)
        outer.load_state_dict(block.outer.state_dict())
    for name in ("prefix", "position", "norm", "head"):
        setattr(plain, name, getattr(model, name))
    for module in plain.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    plain.patch_embed = Tokens(model.patch_embed)
    equal(model(images(2, 3, 18, 30)), plain(images(2, 3, 18, 30)))


def last_pixels(model, given):
    """The pixel tokens (B, N, m, c) that leave the last block, and the grid."""
    x, pixels, grid = model.patch_embed(given)
    x = torch.cat([model.prefix.expand(len(x), -1, -1), x], dim=1)
    for block in model.blocks:
        x, pixels = block(x, pixels, grid)
    return pixels.unflatten(0, (len(x), -1)), grid


def where_pixels_look(cls):
    """Where in the image (H, W) the pixel tokens of patch (1, 2) of 3x5 look, after two blocks."""
    model = randomise(cls(SIZES)).double()
    given = images(2, 3, 18, 30).requires_grad_()
    pixels, (_, w) = last_pixels(model, given)
    pixels[0, 1 * w + 2].square().sum().backward()
    assert not given.grad[1].any()
    return given.grad[0].abs().sum(dim=0) > 0


def pixels_never_leave_their_patch():
    """Their gradient is that of one patch, though the outer blocks see all of them."""
    wanted = torch.zeros(18, 30, dtype=torch.bool)
    wanted[6:12, 12:18] = True
    assert torch.equal(where_pixels_look(Small), wanted)


def legacy_pixels_see_over_the_border():
    """By what a 7x7 filter needs there: three pixels before the patch, two behind it."""
    wanted = torch.zeros(18, 30, dtype=torch.bool)
    wanted[3:14, 9:20] = True
    assert torch.equal(where_pixels_look(SmallLegacy), wanted)


class Nothing(nn.Module):
    """A branch that adds nothing."""

    def forward(self, x):
        return 0 * x


def each_patch_token_gets_its_own_pixels():
    """Without outer branches: the first token stays, each other gains its own vector."""
    model = randomise(Small(SIZES)).double()
    for block in model.blocks:
        block.outer.ls1 = block.outer.ls2 = Nothing()
    given = images(2, 3, 18, 30)
    x, pixels, _ = model.patch_embed(given)
    wanted = x.clone()
    for block in model.blocks:
        pixels = block.inner(pixels)
        for b in range(2):
            for n in range(15):
                vector = pixels[15 * b + n].reshape(1, 90)
                wanted[b, n] += block.fold.norm2(block.fold.proj(block.fold.norm1(vector)))[0]
    wanted = torch.cat([model.prefix.expand(2, -1, -1), wanted], dim=1) + model.position.table
    equal(model.encode(given)[0], model.norm(wanted))


def shuffled_patches_give_the_same_answer():
    """Without outer positions, patches are a set, as in a ViT: all share the inner positions.

    Not so in the legacy version, where new neighbours change what the convolution sees.
    """
    given = images(2, 3, 18, 30)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    shuffled = unpatchify(patchify(given, 6)[:, order], (3, 5), 6)
    for cls, holds in ((Small, True), (SmallLegacy, False)):
        model = randomise(cls(SIZES)).double()
        nn.init.zeros_(model.position.table)
        assert torch.allclose(model(shuffled), model(given), rtol=1e-9) == holds


PROOFS = [
    same_as_timm,
    the_legacy_version_is_timms,
    without_pixels_it_is_a_vit,
    pixels_never_leave_their_patch,
    legacy_pixels_see_over_the_border,
    each_patch_token_gets_its_own_pixels,
    shuffled_patches_give_the_same_answer,
]


def pixels_before_the_inner_block(self, x, pixels, grid=None):
    patches = x[:, 1:] + self.fold(pixels).view_as(x[:, 1:])
    return self.outer(torch.cat([x[:, :1], patches], dim=1), grid), self.inner(pixels)


def one_norm(self, pixels):
    return self.norm2(self.proj(pixels.flatten(1)))


def the_class_token_too(self, x, pixels, grid=None):
    pixels = self.inner(pixels)
    added = self.fold(pixels).unflatten(0, (len(x), -1))
    return self.outer(x + torch.cat([added[:, :1], added], dim=1), grid), pixels


def a_doubled_class_token(self, x, pixels, grid=None):
    return self.outer(torch.cat([2 * x[:, :1], x[:, 1:]], dim=1), grid), self.inner(pixels)


def patches_mixed_inside(self, x, pixels, grid=None):
    everywhere = pixels.reshape(len(x), -1, pixels.shape[-1])
    return self.outer(x, grid), self.inner(everywhere).reshape(pixels.shape)


pixels_alone = PixelEmbed.pixels


def by_columns(self, images, h, w):
    pixels = pixels_alone(self, images, h, w).unflatten(0, (-1, h, w))
    return pixels.transpose(1, 2).flatten(0, 2)


def own_positions(self, images, h, w):
    pixels = pixels_alone(self, images, h, w)
    return pixels + torch.arange(pixels.numel()).sin().view_as(pixels)


PLANTED = {
    "pixels are added before the inner block": (
        (TNTBlock, "forward", pixels_before_the_inner_block),
        same_as_timm,
    ),
    "no norm before the matrix": ((Fold, "forward", one_norm), the_legacy_version_is_timms),
    "a class token that is doubled": (
        (TNTBlock, "forward", a_doubled_class_token),
        without_pixels_it_is_a_vit,
    ),
    "a convolution over the image": (
        (PixelEmbed, "pixels", LegacyPixelEmbed.pixels),
        pixels_never_leave_their_patch,
    ),
    "inner blocks over all patches": (
        (TNTBlock, "forward", patches_mixed_inside),
        pixels_never_leave_their_patch,
    ),
    "a convolution of each patch": (
        (LegacyPixelEmbed, "pixels", PixelEmbed.pixels),
        legacy_pixels_see_over_the_border,
    ),
    "pixels for the class token": (
        (TNTBlock, "forward", the_class_token_too),
        each_patch_token_gets_its_own_pixels,
    ),
    "positions of its own for each patch": (
        (PixelEmbed, "pixels", own_positions),
        shuffled_patches_give_the_same_answer,
    ),
    "patches by columns": ((PixelEmbed, "pixels", by_columns), same_as_timm),
}
