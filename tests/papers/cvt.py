"""CvT: beside transformers on a wide image, and identities of its two kinds of convolutions."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import CvtConfig, CvtForImageClassification
from transformers.activations import QuickGELUActivation

from tests.proofs import equal, images, randomise, same_as
from vitcourse import papers, weights
from vitcourse.papers import cvt
from vitcourse.papers.cvt import ConvAttention, ConvEmbed, ConvProjection, CvT, FirstEmbed, QuickMlp
from vitcourse.parts import join, split
from vitcourse.pyramid import Pyramid, PyramidConfig
from vitcourse.vit import Attention, ClassHead, Mlp, PatchEmbed

SIZES = PyramidConfig(
    dims=(12, 20, 30),
    depths=(1, 2, 3),
    heads=(2, 4, 5),
    patches=(4, 2, 2),
    mlp_ratios=(2.0, 3.0, 1.5),
    image=(44, 60),
    classes=7,
)


class AllHead(ClassHead):
    """The mean of all tokens, so that every parameter counts: see the last proof."""

    def forward(self, x, grid=None):
        return super().forward(x.mean(dim=1, keepdim=True))


MODELS = {"three stages": lambda: (CvT.variant(Head=AllHead)(SIZES), torch.randn(2, 3, 44, 60))}
OTHER_SIZES = {"three stages": (53, 38)}
COUNTS = {"cvt_13": 19_997_480, "cvt_21": 31_622_696}
GRID = 5, 6


def transformers():
    """The model of transformers with the same sizes."""
    sizes = dict(embed_dim=[12, 20, 30], depth=[1, 2, 3], num_heads=[2, 4, 5])
    return CvtForImageClassification(CvtConfig(**sizes, mlp_ratio=[2.0, 3.0, 1.5], num_labels=7))


def blocks(stages, name):
    return [block for stage in stages for block in getattr(stage, name)]


def compare(theirs, ours):
    """Logits, the outputs of all blocks and all gradients; maps of 11x15, 6x8 and 3x4 tokens.

    What a key's bias gets is rounding, as a proof below shows, and is not compared.
    """
    for name, parameter in theirs.named_parameters():
        first = not name.startswith("cvt.encoder.stages.2")
        if name.endswith("projection_key.bias"):
            parameter.register_hook(torch.zeros_like)
        if first and "projection_key" in name and name.endswith("normalization.bias"):
            parameter.register_hook(torch.zeros_like)
    stages = [blocks(ours.stages, "blocks"), blocks(theirs.cvt.encoder.stages, "layers")]
    same_as(theirs, ours, images(2, 3, 44, 60), stages, run=lambda x: theirs(x).logits)


def same_as_transformers():
    """With the GELU that transformers has."""
    compare(transformers(), CvT.variant(Mlp=Mlp)(SIZES))


def with_the_authors_activation_it_is_the_same_too():
    """With x*sigmoid(1.702x), as transformers has it for other models."""
    theirs = transformers()
    for layer in blocks(theirs.cvt.encoder.stages, "layers"):
        layer.intermediate.activation = QuickGELUActivation()
    compare(theirs, CvT(SIZES))


def the_maps_are_transformers():
    """What a detector reads, on images that do not divide."""
    theirs, ours = randomise(transformers()).double(), CvT.variant(Mlp=Mlp)(SIZES).double().eval()
    weights.load(ours, theirs.state_dict())
    x = images(2, 3, 53, 38)
    wanted = theirs(x, output_hidden_states=True).hidden_states
    for mine, other in zip(ours.features(x), wanted, strict=True):
        equal(mine, other)


PARTS = ["patch_embed.proj.weight", "blocks.1.norm1.bias", "blocks.1.attn.proj.weight"]
OFFICIAL = {name: name for name in PARTS}
for part in "qkv":
    theirs, ours = "blocks.1.attn.conv_proj_" + part, "blocks.1.attn." + part
    OFFICIAL[f"{theirs}.conv.weight"] = f"{ours}.conv.weight"
    OFFICIAL[f"{theirs}.bn.running_mean"] = f"{ours}.norm.running_mean"
    OFFICIAL[f"blocks.1.attn.proj_{part}.bias"] = f"{ours}.linear.bias"
OFFICIAL["cls_token"] = "carry.prefix"


def the_authors_files_have_other_names():
    """Each kind of tensor, of a stage with 10 and more blocks, too."""
    state = {f"stage2.{name}": torch.empty(0) for name in OFFICIAL}
    state |= {name.replace("blocks.1", "blocks.12"): t for name, t in state.items()}
    state |= {"stage0.patch_embed.proj.weight": torch.empty(0), "head.bias": torch.empty(0)}
    layout, convert = weights.recognise(state, CvT(SIZES))
    assert layout == "official"
    wanted = {f"stages.2.{name}" for name in OFFICIAL.values()}
    wanted |= {name.replace("blocks.1", "blocks.12") for name in wanted}
    assert convert(state, None).keys() == wanted | {"stages.0.patch_embed.proj.weight", "head.bias"}
    with torch.device("meta"):
        known = papers.build("cvt_21").state_dict()
    assert wanted <= known.keys()


def plain(projection):
    """Leave the Linear alone: a kernel of one in the middle, and a norm that does nothing."""
    with torch.no_grad():
        projection.conv.weight.zero_()
        projection.conv.weight[:, :, 1, 1] = 1
    projection.norm = nn.Identity()
    return projection.linear


def kernels_that_pick_the_middle_leave_attention():
    """With stride 1: three Linears in place of the one, and sqrt(D) in place of sqrt(d)."""

    class Dense(ConvAttention):
        stride = 1

    layer, other = randomise(Dense(20, 4)).double(), Attention(20, 4).double()
    linears = [plain(projection) for projection in (layer.q, layer.k, layer.v)]
    with torch.no_grad():
        other.qkv.weight.copy_(torch.cat([linear.weight for linear in linears]))
        other.qkv.bias.copy_(torch.cat([linear.bias for linear in linears]))
        other.proj.load_state_dict(layer.proj.state_dict())
    other.scale = 20**-0.5
    x = images(2, 1 + 30, 20)
    equal(layer(x, GRID), other(x, GRID))


def keys_are_sums_over_nine_tokens_of_one_channel():
    """Written out: the key in row y and column x from the places around (2y, 2x)."""
    layer, x = randomise(ConvProjection(8, stride=2)).double(), images(2, 30, 8)
    padded = F.pad(x.transpose(1, 2).unflatten(2, GRID), (1, 1, 1, 1))
    sums = torch.zeros(2, 3, 3, 8).double()
    for y in range(3):
        for z in range(3):
            window = padded[:, :, 2 * y : 2 * y + 3, 2 * z : 2 * z + 3]
            sums[:, y, z] = (window * layer.conv.weight[:, 0]).sum(dim=(2, 3))
    norm = layer.norm
    normed = (sums - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
    wanted = normed.flatten(1, 2) @ layer.linear.weight.T + layer.linear.bias
    equal(layer(x, GRID), wanted)


def patches_side_by_side_are_patch_embed_and_norm():
    """Where the kernel is as large as the step, with nothing around the image."""

    class SideBySide(ConvEmbed):
        kernel, padding = 3, 0

    layer, other = randomise(SideBySide(2, 12, 3)).double(), PatchEmbed(2, 12, 3).double()
    other.proj.load_state_dict(layer.proj.state_dict())
    x = images(2, 2, 12, 15)
    mine, grid = layer(x)
    theirs, wanted = other(x)
    assert grid == wanted == (4, 5)
    centred = theirs - theirs.mean(dim=-1, keepdim=True)
    normed = centred / (centred.square().mean(dim=-1, keepdim=True) + layer.norm.eps).sqrt()
    equal(mine, normed * layer.norm.weight + layer.norm.bias)


def patches_overlap():
    """The first token but those at the border reads 7x7 pixels, the next begins 4 further."""
    layer = randomise(FirstEmbed(1, 12, 4)).double()
    image = images(1, 1, 20, 24).requires_grad_()
    x, grid = layer(image)
    assert grid == (5, 6)
    for y, z in ((1, 1), (1, 2), (3, 4)):
        (gradient,) = torch.autograd.grad(x[0, 6 * y + z].square().sum(), image, retain_graph=True)
        read = (gradient[0, 0] != 0).nonzero()
        assert read.min(0).values.tolist() == [4 * y - 2, 4 * z - 2]
        assert len(read) == 49


def the_class_token_passes_linears_alone():
    """No convolution changes it, and it reaches no key, query or value of the map."""
    for stride in (1, 2):
        layer, x = randomise(ConvProjection(20, stride)).double(), images(2, 1 + 30, 20)
        equal(layer(x, GRID)[:, :1], layer.linear(x[:, :1]))
        other = torch.cat([2 * x[:, :1], x[:, 1:]], dim=1)
        equal(layer(other, GRID)[:, 1:], layer(x, GRID)[:, 1:])
        equal(layer(x, GRID)[:, 1:], layer(x[:, 1:], GRID))


def it_enters_in_the_last_stage():
    """The maps of the stages before do not know it; the logits read nothing else."""
    model, x = randomise(CvT(SIZES)).double(), images(2, 3, 44, 60)
    before, logits = model.features(x), model(x)
    with torch.no_grad():
        model.stages[2].carry.prefix.neg_()
    after = model.features(x)
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])
    assert (before[2] - after[2]).abs().max() > 1e-3
    assert (model(x) - logits).abs().max() > 1e-3
    tokens, _ = model.outputs(x)[-1]
    equal(model(x), model.head(model.norm(tokens[:, :1])))


def a_bias_of_the_keys_changes_nothing():
    """All scores of a query rise alike. So neither the Linear's bias counts, nor the norm's."""
    layer, x = randomise(ConvAttention(20, 4)).double(), images(2, 30, 20)
    before = layer(x, GRID)
    with torch.no_grad():
        layer.k.linear.bias.add_(images(20, seed=1))
        layer.k.norm.bias.add_(images(20, seed=2))
    equal(layer(x, GRID), before)
    with torch.no_grad():
        layer.q.norm.bias.add_(images(20, seed=2))
    assert (layer(x, GRID) - before).abs().max() > 0.01


def only_the_convolutions_know_the_order():
    """Shuffled tokens give the same class token, once all kernels pick the middle."""

    class Dense(ConvAttention):
        stride = 1

    model = randomise(CvT.variant(Attention=Dense)(ONE)).double()
    stage, x = model.stages[0], images(2, 30, 20)
    stage.patch_embed.forward = lambda given: (given, GRID)
    shuffled = x[:, torch.randperm(30)]
    assert (model(x) - model(shuffled)).abs().max() > 0.01
    for block in stage.blocks:
        for projection in (block.attn.q, block.attn.k, block.attn.v):
            plain(projection)
    equal(model(x), model(shuffled))


def the_last_queries_of_the_map_are_for_nothing():
    """Only the class token of the last block is read, and its query passes no convolution."""
    model = randomise(CvT(SIZES)).double()
    model(images(2, 3, 44, 60)).square().sum().backward()
    idle = {name for name, parameter in model.named_parameters() if not parameter.grad.any()}
    kernels = {name for name in idle if name.endswith("conv.weight")}
    assert kernels == {"stages.2.blocks.2.attn.q.conv.weight"}


ONE = PyramidConfig((20,), (2,), (4,), (2,), (2.0,), image=(10, 12), classes=7)

PROOFS = [
    same_as_transformers,
    with_the_authors_activation_it_is_the_same_too,
    the_maps_are_transformers,
    the_authors_files_have_other_names,
    kernels_that_pick_the_middle_leave_attention,
    keys_are_sums_over_nine_tokens_of_one_channel,
    patches_side_by_side_are_patch_embed_and_norm,
    patches_overlap,
    the_class_token_passes_linears_alone,
    it_enters_in_the_last_stage,
    a_bias_of_the_keys_changes_nothing,
    only_the_convolutions_know_the_order,
    the_last_queries_of_the_map_are_for_nothing,
]

build, project, embed = ConvAttention.build, ConvAttention.project, ConvEmbed.forward


def scale_of_a_head(self, dim):
    build(self, dim)
    self.scale = (dim / self.heads) ** -0.5


def one_convolution_for_both(self, x, grid):
    self.v.conv = self.k.conv
    return project(self, x, grid)


def queries_as_keys(self, x, grid):
    q, k, v = project(self, x, grid)
    return k.mean(dim=2, keepdim=True).expand_as(q), q, q


def norm_before(self, x, grid):
    prefix, map = split(x, grid)
    return self.linear(join(prefix, self.conv(self.norm(map))))


def class_token_in_the_map(self, x, grid):
    prefix, map = split(x, grid)
    return self.linear(join(prefix, self.norm(self.conv(map + prefix.sum(1)[..., None, None]))))


def transposed(self, x, grid):
    prefix, map = split(x, grid)
    map = self.norm(self.conv(map.transpose(2, 3))).transpose(2, 3)
    return self.linear(join(prefix, map))


def from_every_second(self, x, grid):
    """Places (2y+1, 2x+1) in place of (2y, 2x)."""
    prefix, map = split(x, grid)
    return self.linear(join(prefix, self.norm(self.conv(map.roll((-1, -1), (2, 3))))))


def no_norm(self, images):
    return cvt.sequence(self.proj(images))


def at_the_border(self, images):
    return embed(self, images.roll((1, 1), (2, 3)))


def mean_of_the_map(self, images):
    x, grid = self.encode(images)
    return self.head(x.mean(dim=1, keepdim=True), grid)


def keys_with_a_bias(self, q, k, bias):
    return Attention.weights(self, q, k + 0.1, bias) + k.mean(dim=-1)[:, :, None] / 10


def in_order(self, q, k, bias):
    place = torch.linspace(0, 1, k.shape[2], dtype=k.dtype)
    return Attention.weights(self, q, k, place)


PLANTED = {
    "divided by sqrt(d)": ((ConvAttention, "build", scale_of_a_head), same_as_transformers),
    "one convolution for keys and values": (
        (ConvAttention, "project", one_convolution_for_both),
        same_as_transformers,
    ),
    "the other activation": (
        (QuickMlp, "forward", Mlp.forward),
        with_the_authors_activation_it_is_the_same_too,
    ),
    "three pixels around the image": ((FirstEmbed, "padding", 3), the_maps_are_transformers),
    "no norm of the tokens": ((ConvEmbed, "forward", no_norm), the_maps_are_transformers),
    "names as they are": (
        (CvT, "layouts", {"official": ("stage0.patch_embed.proj.weight", weights.rename([]))}),
        the_authors_files_have_other_names,
    ),
    "queries and keys exchanged": (
        (ConvAttention, "project", queries_as_keys),
        kernels_that_pick_the_middle_leave_attention,
    ),
    "the norm before the convolution": (
        (ConvProjection, "forward", norm_before),
        keys_are_sums_over_nine_tokens_of_one_channel,
    ),
    "rows and columns of the kernel": (
        (ConvProjection, "forward", transposed),
        keys_are_sums_over_nine_tokens_of_one_channel,
    ),
    "keys half a step further": (
        (ConvProjection, "forward", from_every_second),
        same_as_transformers,
    ),
    "tokens that are not normalised": (
        (ConvEmbed, "forward", no_norm),
        patches_side_by_side_are_patch_embed_and_norm,
    ),
    "a pixel too far": ((ConvEmbed, "forward", at_the_border), patches_overlap),
    "the map reads the class token": (
        (ConvProjection, "forward", class_token_in_the_map),
        the_class_token_passes_linears_alone,
    ),
    "the head reads all tokens": (
        (Pyramid, "forward", mean_of_the_map),
        it_enters_in_the_last_stage,
    ),
    "a key's bias counts": (
        (ConvAttention, "weights", keys_with_a_bias),
        a_bias_of_the_keys_changes_nothing,
    ),
    "all tokens are read": (
        (Pyramid, "forward", mean_of_the_map),
        the_last_queries_of_the_map_are_for_nothing,
    ),
    "the score knows the place": (
        (ConvAttention, "weights", in_order),
        only_the_convolutions_know_the_order,
    ),
}
