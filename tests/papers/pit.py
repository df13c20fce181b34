"""PiT: beside timm on square and wide images, and identities of the pooling and the class token."""

import torch
from timm.models.pit import PoolingVisionTransformer
from torch import nn
from torch.nn import functional as F

from tests.proofs import equal, images, randomise, same_as
from vitcourse.papers import pit
from vitcourse.papers.deit import TwoHeads
from vitcourse.papers.pit import DistilledPiT, MapPosition, OverlappingPatches, PiT, Pooling
from vitcourse.pyramid import Pyramid, PyramidConfig

SIZES = PyramidConfig(
    dims=(15, 30, 60),
    depths=(1, 2, 1),
    heads=(3, 6, 12),
    patches=(4, 2, 2),
    mlp_ratios=(2.0, 2.0, 2.0),
    image=(32, 52),
    classes=7,
)
MODELS = {
    "class token": lambda: (PiT(SIZES), torch.randn(2, 3, 32, 52)),
    "distilled": lambda: (DistilledPiT(SIZES), torch.randn(2, 3, 32, 52)),
}
OTHER_SIZES = {"class token": (40, 29)}
COUNTS = {
    "pit_ti": 4_847_272,
    "pit_xs": 10_618_888,
    "pit_s": 23_461_912,
    "pit_b": 73_764_840,
    "pit_ti_distilled": 5_104_336,
}


def timm(image=(32, 52), **options):
    """timm's PiT of the same sizes."""
    sizes = dict(patch_size=8, stride=4, base_dims=(5, 5, 5), depth=(1, 2, 1), heads=(3, 6, 12))
    return PoolingVisionTransformer(image, **sizes, mlp_ratio=2, num_classes=7, **options)


def same_as_timm():
    """Logits, each block, all gradients, on a wide image: maps of 7 x 12, 4 x 6 and 2 x 3."""
    theirs, ours = timm(), PiT(SIZES)
    stages = [
        [block for stage in model for block in stage.blocks]
        for model in (ours.stages, theirs.transformers)
    ]
    same_as(theirs, ours, images(2, 3, 32, 52), stages)


def the_distilled_model_is_timms():
    same_as(timm(distilled=True), DistilledPiT(SIZES), images(2, 3, 32, 52))


def the_maps_are_timms():
    """What a detector reads: the map of every stage, before the last norm."""
    theirs, ours = randomise(timm()).double(), PiT(SIZES).double().eval()
    ours.load_state_dict(pit.from_published(theirs.state_dict(), ours))
    x = images(2, 3, 32, 52)
    _, wanted = theirs.forward_intermediates(x)
    for mine, other in zip(ours.features(x), wanted, strict=True):
        equal(mine, other)


def the_authors_files_have_other_names():
    """There the pools stand beside the stages; the converted tensors are the same."""
    state = randomise(timm()).state_dict()
    official = {
        n.replace("transformers.1.pool.", "pools.0.").replace("transformers.2.pool.", "pools.1."): t
        for n, t in state.items()
    }
    ours, other = pit.from_published(state, None), pit.from_published(official, None)
    assert sum(name.startswith("pools.") for name in official) == 8
    assert ours.keys() == other.keys() == PiT(SIZES).state_dict().keys()
    assert all(torch.equal(ours[name], other[name]) for name in ours)


def pooling_is_a_sum_over_one_channel():
    """Written out: new channel o from the nine places around (2y, 2x) of channel o // 2."""
    layer = randomise(Pooling(3, 6, 2)).double()
    map = images(2, 3, 5, 7)
    x, grid = layer(map)
    assert grid == (3, 4)
    padded, wanted = F.pad(map, (1, 1, 1, 1)), torch.empty(2, 6, 3, 4).double()
    for o in range(6):
        for y in range(3):
            for z in range(4):
                window = padded[:, o // 2, 2 * y : 2 * y + 3, 2 * z : 2 * z + 3]
                weight, bias = layer.proj.weight[o, 0], layer.proj.bias[o]
                wanted[:, o, y, z] = (window * weight).sum(dim=(1, 2)) + bias
    equal(x, wanted.flatten(2).transpose(1, 2))


def overlapping_patches_are_patches_of_two_by_two_steps():
    """A filter that picks one pixel of its patch finds it where the image has it."""
    layer = OverlappingPatches(1, 4, 3).double()
    with torch.no_grad():
        layer.proj.weight.zero_()
        layer.proj.bias.zero_()
        for o, (y, x) in enumerate([(0, 0), (0, 3), (3, 0), (5, 5)]):
            layer.proj.weight[o, 0, y, x] = 1
    image = images(1, 1, 12, 15)
    x, grid = layer(image)
    assert grid == (3, 4)
    for token, (h, w) in zip(x[0], [(h, w) for h in range(3) for w in range(4)], strict=True):
        top, left = 3 * h, 3 * w
        corners = [(top, left), (top, left + 3), (top + 3, left), (top + 5, left + 5)]
        equal(token, torch.stack([image[0, 0, y, x] for y, x in corners]))


def the_class_token_passes_linears_alone():
    """Without what the blocks add, it never meets the image: it goes through the two Linears."""
    model = randomise(PiT(SIZES)).double()
    for block in (block for stage in model.stages for block in stage.blocks):
        block.ls1 = block.ls2 = Nothing()
    one, two, three = (stage.carry for stage in model.stages)
    wanted = model.norm(three(two(one.prefix)))
    x, _ = model.encode(images(2, 3, 32, 52))
    equal(x[:, :1], wanted.expand(2, -1, -1))


class Nothing(nn.Module):
    def forward(self, x):
        return 0 * x


def the_class_token_has_no_place():
    """Where the table is, only the map's tokens change, and each by its own row."""
    layer = randomise(MapPosition(8, (3, 4), 2)).double()
    x = images(2, 14, 8)
    moved = layer(x, (3, 4)) - x
    assert not moved[:, :2].any()
    equal(moved[:, 2:], layer.table.expand(2, -1, -1))


def both_heads_are_averaged():
    """The distilled model's answer is the mean of what its two tokens say, each with its head."""
    model = randomise(DistilledPiT(SIZES)).double()
    x, _ = model.encode(images(2, 3, 32, 52))
    by_class = x[:, 0] @ model.head.weight.T + model.head.bias
    by_dist = x[:, 1] @ model.head.dist.weight.T + model.head.dist.bias
    equal(model(images(2, 3, 32, 52)), (by_class + by_dist) / 2)


PROOFS = [
    same_as_timm,
    the_distilled_model_is_timms,
    the_maps_are_timms,
    the_authors_files_have_other_names,
    pooling_is_a_sum_over_one_channel,
    overlapping_patches_are_patches_of_two_by_two_steps,
    the_class_token_passes_linears_alone,
    the_class_token_has_no_place,
    both_heads_are_averaged,
]


def by_columns(map):
    return map.transpose(2, 3).flatten(2).transpose(1, 2), tuple(map.shape[-2:])


def first_token_is_a_place(self, images):
    return [
        x[:, : h * w].transpose(1, 2).unflatten(2, (h, w)) for x, (h, w) in self.outputs(images)
    ]


def row_for_the_class_token(self, x, grid):
    places = grid[0] * grid[1]
    return x + F.pad(self.table, (0, 0, x.shape[1] - places, 0), value=1.0)


def only_the_class_token(self, x, grid=None):
    return self.two_logits(x)[0]


def pools_as_stages(state, model):
    return {name.replace("pools.", "stages."): tensor for name, tensor in state.items()}


def other_channel(self, map):
    return pit.sequence(self.proj(map.roll(1, dims=1)))


def lying_patches(self, images):
    return pit.sequence(self.proj(images.transpose(2, 3)).transpose(2, 3))


PLANTED = {
    "tokens by columns": ((pit, "sequence", by_columns), same_as_timm),
    "one of two heads": ((TwoHeads, "forward", only_the_class_token), the_distilled_model_is_timms),
    "no mean": ((TwoHeads, "forward", only_the_class_token), both_heads_are_averaged),
    "prefix taken for a place": ((Pyramid, "features", first_token_is_a_place), the_maps_are_timms),
    "pools renamed only": (
        (pit, "from_published", pools_as_stages),
        the_authors_files_have_other_names,
    ),
    "a pool reads another channel": (
        (Pooling, "forward", other_channel),
        pooling_is_a_sum_over_one_channel,
    ),
    "rows and columns of a patch": (
        (OverlappingPatches, "forward", lying_patches),
        overlapping_patches_are_patches_of_two_by_two_steps,
    ),
    "the class token gets a position": (
        (MapPosition, "forward", row_for_the_class_token),
        the_class_token_passes_linears_alone,
    ),
    "a row for the class token": (
        (MapPosition, "forward", row_for_the_class_token),
        the_class_token_has_no_place,
    ),
}
