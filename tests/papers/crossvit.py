"""CrossViT: beside timm, with resized, cropped and convolved images, and what a fusion reads."""

import torch
from timm.models import crossvit as timm
from torch import nn

from tests.proofs import equal, images, randomise, same_as
from vitcourse.papers import crossvit
from vitcourse.papers.cait import ClassAttention
from vitcourse.papers.crossvit import (
    ConvBranch,
    ConvPatches,
    CrossConfig,
    CrossViT,
    Fusion,
)
from vitcourse.vit import Attention, LayerNorm, ViT

SIZES = CrossConfig(
    dims=(18, 40),
    depths=(1, 2),
    heads=(3, 5),
    patches=(8, 14),
    images=((32, 48), (28, 42)),
    stages=2,
    mlp_ratio=2,
    classes=7,
)
DAGGER = CrossConfig(
    dims=(20, 44),
    depths=(1, 1),
    heads=(5, 4),
    patches=(12, 16),
    images=((24, 36), (32, 48)),
    stages=2,
    mlp_ratio=2,
    classes=7,
)
Cropped = CrossViT.variant(crop=True)
Convolved = CrossViT.variant(Branch=ConvBranch)
MODELS = {
    "resized": lambda: (CrossViT(SIZES), torch.randn(2, 3, 32, 48)),
    "dagger": lambda: (Convolved(DAGGER), torch.randn(2, 3, 24, 36)),
}
OTHER_SIZES = {"resized": (64, 48), "dagger": (48, 36)}
COUNTS = {
    "crossvit_ti": 7_014_800,
    "crossvit_s": 26_856_272,
    "crossvit_b": 105_025_232,
    "crossvit_9": 8_553_296,
    "crossvit_15": 27_528_464,
    "crossvit_18": 43_271_408,
    "crossvit_9_dagger": 8_776_592,
}


def of_timm(cfg, **options):
    """timm's CrossViT of the same sizes."""
    (height, _), (other, _) = cfg.images
    return timm.CrossVit(
        img_size=cfg.images[0],
        img_scale=(1.0, other / height),
        patch_size=cfg.patches,
        embed_dim=cfg.dims,
        depth=[(*cfg.depths, 0)] * cfg.stages,
        num_heads=cfg.heads,
        mlp_ratio=(2, 2, 1),
        qkv_bias=True,
        num_classes=7,
        **options,
    )


def same(model, **options):
    """Logits, all gradients, each block, and the class tokens that leave each fusion."""
    theirs = of_timm(model.cfg, **options)
    stages = [], []
    for s, block in enumerate(theirs.blocks):
        stages[1].extend([*block.revert_projs, *(b for branch in block.blocks for b in branch)])
        stages[0].extend(fusion.back for fusion in model.fusions[s])
        for branch, depth in zip(model.branches, model.cfg.depths, strict=True):
            stages[0].extend(branch.blocks[s * depth : (s + 1) * depth])
    same_as(theirs, model, images(2, 3, *model.cfg.images[0]), stages)


def same_as_timm():
    same(CrossViT(SIZES))


def the_cropped_model_is_timms():
    same(Cropped(SIZES), crop_scale=True)


def the_dagger_is_timms():
    same(Convolved(DAGGER), multi_conv=True)


def the_maps_are_timms():
    """Fine 4 x 6 and coarse 2 x 3, before the last norms."""
    theirs, ours = randomise(of_timm(SIZES)).double(), CrossViT(SIZES).double().eval()
    ours.load_state_dict(crossvit.from_published(theirs.state_dict(), ours))
    given = images(2, 3, 32, 48)
    _, wanted = theirs.forward_intermediates(given, indices=[1, 3])
    for mine, other in zip(ours.features(given), wanted, strict=True):
        equal(mine, other)


def the_authors_files_have_dots():
    """Their class tokens and positions are numbered by a dot: the same tensors come of it."""
    state = randomise(of_timm(SIZES)).state_dict()
    pairs = {f"{n}_{b}": f"{n}.{b}" for n in ("cls_token", "pos_embed") for b in (0, 1)}
    official = {pairs.get(name, name): tensor for name, tensor in state.items()}
    model = CrossViT(SIZES)
    model.load_state_dict(crossvit.from_published(official, model))
    assert torch.equal(model.branches[1].position.table, state["pos_embed_1"])
    assert torch.equal(model.branches[0].prefix, state["cls_token_0"])


class NoFusion(Fusion):
    """Nothing is read."""

    def forward(self, x, other):
        return x


def without_fusions_two_vits_are_averaged():
    """Each branch is a ViT, and the answer is the mean of theirs."""
    model = randomise(CrossViT.variant(Fusion=NoFusion)(SIZES)).double()
    alone = [ViT(SIZES.branch(b)).double().eval() for b in (0, 1)]
    for plain, branch in zip(alone, model.branches, strict=True):
        plain.load_state_dict(branch.state_dict())
    given = images(2, 3, 32, 48)
    fine, coarse = alone[0](given), alone[1](model.second(given))
    equal(model(given), (fine + coarse) / 2)


def a_fusion():
    """One with random weights, and what it is given: x (B, T, D) and other (B, S, E)."""
    fusion = randomise(Fusion(18, 40, heads=5)).double()
    return fusion, images(2, 7, 18).requires_grad_(), images(2, 11, 40, seed=1).requires_grad_()


def patches_pass_untouched():
    """The patches leave as they came; what was read changes the class token alone."""
    fusion, x, other = a_fusion()
    fused = fusion(x, other)
    equal(fused[:, 1:], x[:, 1:])
    (seen,) = torch.autograd.grad(fused[:, 1:].sum(), other, allow_unused=True, retain_graph=True)
    assert seen is None or not seen.any()
    own, seen = torch.autograd.grad(fused[:, :1].square().sum(), (x, other))
    assert not own[:, 1:].any() and own[:, 0].any(), "its own patches are not read"
    assert not seen[:, 0].any() and seen[:, 1:].any(dim=-1).all(), "of the other, patches only"


def a_fusion_that_takes_nothing_is_two_projections():
    """Norm, GELU and matrix there, norm, GELU and matrix back: the other branch is not needed."""
    fusion, x, other = a_fusion()
    nn.init.zeros_(fusion.attn.proj.weight)
    nn.init.zeros_(fusion.attn.proj.bias)
    token = x[:, :1]
    for norm, _, matrix in (fusion.there, fusion.back):
        token = nn.functional.gelu(norm(token)) @ matrix.weight.T + matrix.bias
    equal(fusion(x, other), torch.cat([token, x[:, 1:]], dim=1))


def the_class_token_alone_asks():
    """What it takes is the first row of full attention among [class token; other patches]."""
    fusion, x, other = a_fusion()
    full = Attention(40, heads=5).double()
    full.load_state_dict(fusion.attn.state_dict())
    token = fusion.there(x[:, :1])
    taken = full(fusion.norm1(torch.cat([token, other[:, 1:]], dim=1)))[:, :1]
    equal(fusion(x, other)[:, :1], fusion.back(token + taken))


def neither_fusion_sees_the_other():
    """Patches are read and class tokens are changed: which fusion comes first does not matter."""
    model = randomise(CrossViT(SIZES)).double()
    to_fine, to_coarse = model.fusions[0]
    fine, coarse = images(2, 25, 18), images(2, 7, 40)
    equal(to_coarse(coarse, to_fine(fine, coarse)), to_coarse(coarse, fine))
    equal(to_fine(fine, to_coarse(coarse, fine)), to_fine(fine, coarse))


PROOFS = [
    same_as_timm,
    the_cropped_model_is_timms,
    the_dagger_is_timms,
    the_maps_are_timms,
    the_authors_files_have_dots,
    without_fusions_two_vits_are_averaged,
    patches_pass_untouched,
    a_fusion_that_takes_nothing_is_two_projections,
    the_class_token_alone_asks,
    neither_fusion_sees_the_other,
]


def no_gelu(dim, other):
    return nn.Sequential(LayerNorm(dim), nn.Identity(), nn.Linear(dim, other))


def sum_of_logits(self, images):
    outputs = zip(self.branches, self.outputs(images), strict=True)
    return sum(branch.head(branch.norm(x), grid) for branch, (x, grid) in outputs)


def corner(self, images):
    return images[..., :28, :42]


def one_convolution(self, images):
    return ViT.Tokenizer.forward(self, images.flip(-1))


def map_by_columns(x, grid):
    h, w = grid
    return x[:, :1], x[:, 1:].transpose(1, 2).unflatten(2, (w, h)).transpose(2, 3)


def with_own_patches(self, x, other):
    read = torch.cat([self.there(x), other[:, 1:]], dim=1)
    token = self.there(x[:, :1]) + self.attn(self.norm1(read))
    return torch.cat([self.back(token), x[:, 1:]], dim=1)


def with_the_other_class_token(self, x, other):
    token = self.there(x[:, :1])
    token = token + self.attn(self.norm1(torch.cat([token, other], dim=1)))
    return torch.cat([self.back(token), x[:, 1:]], dim=1)


def skip_around(self, x, other):
    token = self.there(x[:, :1])
    read = torch.cat([token, other[:, 1:]], dim=1)
    back = x[:, :1] + self.back(token + self.attn(self.norm1(read)))
    return torch.cat([back, x[:, 1:]], dim=1)


def not_itself(self, x, grid):
    q, k, v = Attention.project(self, x, grid)
    return q[:, :, :1], k[:, :, 1:], v[:, :, 1:]


published = crossvit.from_published


def its_own_class_token(state, model):
    return published(state, model) | {"branches.0.prefix": model.branches[0].prefix}


PLANTED = {
    "no GELU": ((crossvit, "projection", no_gelu), same_as_timm),
    "the other class token is read, too": (
        (Fusion, "forward", with_the_other_class_token),
        neither_fusion_sees_the_other,
    ),
    "logits are added": (
        (CrossViT, "forward", sum_of_logits),
        without_fusions_two_vits_are_averaged,
    ),
    "a corner, not the middle": ((CrossViT, "second", corner), the_cropped_model_is_timms),
    "a mirrored image": ((ConvPatches, "forward", one_convolution), the_dagger_is_timms),
    "maps by columns": ((crossvit, "split", map_by_columns), the_maps_are_timms),
    "its own patches are read, too": (
        (Fusion, "forward", with_own_patches),
        patches_pass_untouched,
    ),
    "a skip around the fusion": (
        (Fusion, "forward", skip_around),
        a_fusion_that_takes_nothing_is_two_projections,
    ),
    "the class token does not see itself": (
        (ClassAttention, "project", not_itself),
        the_class_token_alone_asks,
    ),
    "the class token of the file is left out": (
        (crossvit, "from_published", its_own_class_token),
        the_authors_files_have_dots,
    ),
}
