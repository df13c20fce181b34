"""Refiner: its steps computed once more with plain sums, and identities of what blocks pass on.

No package has it, so nothing here is compared with code of others but the counts and the names.
"""

import torch
import torch.nn.functional as F
from torch import nn

from tests.proofs import equal, images, randomise
from vitcourse import weights
from vitcourse.config import Config
from vitcourse.papers import refiner
from vitcourse.papers.lv_vit import ConvStem
from vitcourse.papers.refiner import (
    PassingAttention,
    PassingBlock,
    RefinedAttention,
    Refiner,
    ScaledMlp,
    SharedAttention,
)
from vitcourse.probe import record_attention
from vitcourse.vit import Attention, Block, LayerNorm, Mlp

SIZES = Config(dim=20, depth=4, heads=5, patch=6, image=(18, 30), classes=7, mlp_ratio=3)
SMALL = Refiner.variant(Tokenizer=type("SmallStem", (ConvStem,), {"widths": (6, 8, 9)}))
OWN = SMALL.variant(Attention=RefinedAttention, Second=RefinedAttention)
MODELS = {
    "pairs": lambda: (SMALL(SIZES), torch.randn(2, 3, 18, 30)),
    "every block": lambda: (OWN(SIZES), torch.randn(2, 3, 18, 30)),
}
OTHER_SIZES = {"pairs": (24, 12), "every block": (24, 12)}
COUNTS = {
    "refiner_vit_s": 25_408_656,
    "refiner_vit_m": 55_450_932,
    "refiner_vit_l": 81_150_192,
}


def statistics(norm, x):
    """A batch norm in evaluation, written out: x (B, C, T, T)."""
    mean, var, scale, shift = (
        t[:, None, None] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def the_steps_of_refining():
    """Each new number, summed by hand: over heads, over nine neighbours, over heads again."""
    layer = randomise(refiner.Refine(4)).double()
    maps = 300 * images(2, 4, 7, 9).sigmoid()  # so large that some reach the top of relu6
    expand, local, reduce = (c.weight.flatten(1) for c in (layer.expand, layer.local, layer.reduce))
    more = statistics(layer.norm1, torch.einsum("bkij,mk->bmij", maps, expand)).clamp(0, 6)
    padded = F.pad(more, (1, 1, 1, 1))
    more = sum(
        padded[:, :, i : i + 7, j : j + 9] * local[:, 3 * i + j][:, None, None]
        for i in range(3)
        for j in range(3)
    )
    more = statistics(layer.norm2, more).clamp(0, 6)
    less = statistics(layer.norm3, torch.einsum("bmij,km->bkij", more, reduce))
    equal(layer(maps), statistics(layer.norm4, maps + less))


def a_pair_sees_its_neighbours_in_all_heads():
    """The refined weight of one pair depends on the nine pairs around it, of every head."""
    layer = randomise(refiner.Refine(4)).double()
    maps = images(1, 4, 7, 9).sigmoid().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(maps)[0, 2, 3, 5], maps)
    reached = torch.zeros(7, 9, dtype=torch.bool)
    reached[2:5, 4:7] = True
    assert torch.equal(gradient[0].abs().sum(0) > 0, reached)
    assert (gradient[0].abs().amax((1, 2)) > 0).all()


def without_refining_it_is_attention():
    """What the convolutions add is multiplied by zero, and no map came before."""
    layer, plain = randomise(RefinedAttention(40, 5)).double(), Attention(40, 5).double()
    plain.load_state_dict({name: layer.state_dict()[name] for name in plain.state_dict()})
    nn.init.zeros_(layer.refine.norm3.weight)
    nn.init.zeros_(layer.refine.norm3.bias)
    layer.refine.norm4 = nn.Identity()
    x = images(2, 7, 40)
    equal(layer(x)[0], plain(x))


def the_second_of_a_pair_makes_values_only():
    """Its output is linear in its input, whose queries and keys it does not have."""
    layer = randomise(SharedAttention(40, 5)).double()
    x, y, maps = images(2, 7, 40), images(2, 7, 40, seed=1), images(2, 5, 7, 7).softmax(-1)
    zero = layer(0 * x, None, maps)[0]
    got, passed = layer(2 * x - 3 * y, None, maps)
    equal(got - zero, 2 * (layer(x, None, maps)[0] - zero) - 3 * (layer(y, None, maps)[0] - zero))
    assert passed is maps
    v = layer.qkv(x).view(2, 7, 5, 8)
    wanted = torch.einsum("bkij,bjkd->bikd", layer.refine(maps), v).flatten(2) / 8**0.5
    equal(layer(x, None, maps)[0], layer.proj(wanted))


def maps_grow_along_the_pairs():
    """Rows of the first map of each pair sum to 1, then to 1 + s, then to 1 + s + s * s."""
    model = randomise(SMALL(Config(**{**vars(SIZES), "depth": 6}))).double()
    with record_attention(model) as maps:
        model(images(2, 3, 18, 30))
    s = (20 / 5) ** -0.5
    for pair, wanted in enumerate((1, 1 + s, 1 + s + s * s)):
        rows = maps[2 * pair].sum(-1)
        equal(rows, torch.full_like(rows, wanted))


def a_passing_block_is_a_block():
    """Half of the input, twice the branch, and a number for each channel of the MLP: the core's."""
    block = randomise(PassingBlock(40, PassingAttention(40, 5), ScaledMlp(40, 80))).double()
    block.ls1 = block.ls2 = randomise(SMALL(SIZES)).blocks[0].ls1
    plain = Block(40, Attention(40, 5), Mlp(40, 80)).double()
    state = block.state_dict()
    gamma = state.pop("mlp.scale.gamma")
    plain.load_state_dict(state)
    plain.norm1.eps = plain.norm2.eps = 4 * LayerNorm(1).eps
    for layer, factor in ((plain.attn.proj, 2), (plain.mlp.fc2, 2 * gamma)):
        layer.weight.data *= factor if isinstance(factor, int) else factor[:, None]
        layer.bias.data *= factor
    x = 1e-3 * images(2, 7, 40)  # so small that the eps counts
    equal(block(x)[0], plain(x))


def published_names_fit():
    """The names and shapes of the authors' files: two blocks, one of each kind."""
    model = Refiner(Config(dim=20, depth=2, heads=5, image=32, classes=7, mlp_ratio=3))
    shapes = {"cls_token": (1, 1, 20), "pos_embed": (1, 5, 20)}
    stem = {"conv1": (32, 3, 7, 7), "conv2": (64, 32, 3, 3), "conv3": (128, 64, 3, 3)}
    shapes |= {f"patch_embed.{name}.weight": shape for name, shape in stem.items()}
    shapes |= {"patch_embed.proj.weight": (20, 128, 8, 8), "patch_embed.proj.bias": (20,)}
    norms = {f"patch_embed.bn{i}": width for i, width in enumerate((32, 64, 128), start=1)}
    for i, rows in enumerate((60, 20)):
        layers = {"attn.qkv": (rows, 20), "attn.proj": (20, 20)}
        layers |= {"mlp.fc1": (60, 20), "mlp.fc2": (20, 60)}
        for name, shape in layers.items():
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"blocks.{i}.{name}"] = (20,)
        shapes[f"blocks.{i}.mlp.scale_channel"] = (20,)
    dla = "blocks.1.attn.DLA"
    shapes |= {f"{dla}.conv_exp.weight": (15, 5, 1, 1), f"{dla}.conv_pro.weight": (5, 15, 1, 1)}
    shapes |= {f"{dla}.depth_sep_conv.weight": (15, 1, 3, 3)}
    norms |= {f"{dla}.bn1": 15, f"{dla}.bn2": 15, f"{dla}.bn3": 5, "blocks.1.attn.adapt_bn": 5}
    for name, width in norms.items():
        parts = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{name}.{part}": (width,) for part in parts}
        shapes |= {f"{name}.num_batches_tracked": ()}
    shapes |= {"norm.weight": (20,), "norm.bias": (20,)}
    for head in ("head", "aux_head"):
        shapes |= {f"{head}.weight": (7, 20), f"{head}.bias": (7,)}
    state = {name: torch.rand(shape) for name, shape in shapes.items()}
    report = weights.load(model, state)
    assert report.tensors == len(state) == len(model.state_dict())
    attn, theirs = model.blocks[1].attn, "blocks.1.attn"
    for ours, name in {
        attn.refine.expand.weight: f"{dla}.conv_exp.weight",
        attn.refine.norm2.running_var: f"{dla}.bn2.running_var",
        attn.refine.norm3.weight: f"{dla}.bn3.weight",
        attn.refine.norm4.weight: f"{theirs}.adapt_bn.weight",
    }.items():
        assert torch.equal(ours, state[name]), name


PROOFS = [
    the_steps_of_refining,
    a_pair_sees_its_neighbours_in_all_heads,
    without_refining_it_is_attention,
    the_second_of_a_pair_makes_values_only,
    maps_grow_along_the_pairs,
    a_passing_block_is_a_block,
    published_names_fit,
]


def with_relu(self, maps):
    more = F.relu(self.norm1(self.expand(maps)))
    more = F.relu(self.norm2(self.local(more)))
    return self.norm4(maps + self.norm3(self.reduce(more)))


def without_skip(self, maps):
    more = F.relu6(self.norm1(self.expand(maps)))
    more = F.relu6(self.norm2(self.local(more)))
    return self.norm4(self.norm3(self.reduce(more)))


def no_neighbours(self, maps):
    more = F.relu6(self.norm2(F.relu6(self.norm1(self.expand(maps)))))
    return self.norm4(maps + self.norm3(self.reduce(more)))


def not_scaled(self, q, k, earlier):
    maps = self.weights(q, k, None)
    return maps if earlier is None else maps + earlier


def refined_is_passed_on(self, x, grid=None, earlier=None):
    v = self.qkv(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
    maps = self.scale * self.refine(earlier)
    return self.average(maps, v), maps


def input_not_halved(self, x, grid=None, earlier=None):
    branch, maps = self.attn(self.norm1(x), grid, earlier)
    x = x + self.ls1(branch)
    return x + self.ls2(self.mlp(self.norm2(x), grid)), maps


def norms_in_another_order(state, model):
    renamed = {name.replace("DLA.bn3.", "DLA.bn4."): t for name, t in state.items()}
    renamed = {name.replace("adapt_bn.", "DLA.bn3."): t for name, t in renamed.items()}
    return refiner.from_official(renamed, model)


PLANTED = {
    "relu has no top": ((refiner.Refine, "forward", with_relu), the_steps_of_refining),
    "neighbours are left out": (
        (refiner.Refine, "forward", no_neighbours),
        a_pair_sees_its_neighbours_in_all_heads,
    ),
    "nothing is added to": (
        (refiner.Refine, "forward", without_skip),
        without_refining_it_is_attention,
    ),
    "the refined map is passed on": (
        (SharedAttention, "forward", refined_is_passed_on),
        the_second_of_a_pair_makes_values_only,
    ),
    "the earlier map is not scaled": (
        (PassingAttention, "maps", not_scaled),
        maps_grow_along_the_pairs,
    ),
    "the input is not halved": (
        (PassingBlock, "forward", input_not_halved),
        a_passing_block_is_a_block,
    ),
    "two norms are exchanged": (
        (Refiner, "layouts", {"official": ("pos_embed", norms_in_another_order)}),
        published_names_fit,
    ),
}
