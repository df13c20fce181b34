"""PVT: beside transformers on wide images, and identities of the reduction."""

import re

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.proofs import equal, images, randomise, same_as
from vitcourse import weights
from vitcourse.papers import pvt
from vitcourse.papers.pvt import PVT, NormedPatchEmbed, ReducedAttention
from vitcourse.probe import record_attention
from vitcourse.pyramid import PyramidConfig
from vitcourse.vit import Attention

SIZES = PyramidConfig(
    dims=(26, 42, 60),
    depths=(1, 2, 1),
    heads=(2, 3, 4),
    patches=(4, 2, 2),
    mlp_ratios=(3.0, 2.0, 4.0),
    image=(32, 48),
    classes=7,
)
WIDE = PyramidConfig(**{**vars(SIZES), "image": (64, 144)})
Small = PVT.variant(reductions=(5, 3, 1))
MODELS = {"class token": lambda: (Small(SIZES), torch.randn(2, 3, 32, 48))}
OTHER_SIZES = {"class token": (80, 32)}
COUNTS = {"pvt_tiny": 13_229_288, "pvt_small": 24_485_864}
GRID = 7, 11


def port():
    """PVT in transformers, with the eps of the authors. Its tables fit 24x24, 16x36, ... places."""
    config = transformers.PvtConfig(
        image_size=96,
        num_encoder_blocks=3,
        hidden_sizes=list(WIDE.dims),
        depths=list(WIDE.depths),
        num_attention_heads=list(WIDE.heads),
        patch_sizes=[4, 2, 2],
        strides=[4, 2, 2],
        mlp_ratios=[3, 2, 4],
        sequence_reduction_ratios=[5, 3, 1],
        num_labels=7,
    )
    model = transformers.PvtForImageClassification(config)
    for name, layer in model.named_modules():
        if re.search(r"(patch_embeddings\.\d|attention\.self)\.layer_norm$", name):
            layer.eps = 1e-5
    return model


def same_as_transformers():
    """Logits, each block, all gradients: maps of 16x36, 8x18, 4x9; 3x7, 2x6 and 4x9 keys."""
    theirs, ours = port(), Small(WIDE)
    stages = [
        [block for stage in ours.stages for block in stage.blocks],
        [block for stage in theirs.pvt.encoder.block for block in stage],
    ]
    same_as(theirs, ours, images(2, 3, 64, 144), stages, run=lambda x: theirs(x).logits)


def the_maps_are_those_of_transformers():
    """What a detector reads, without the class token of the last stage."""
    theirs, ours = randomise(port()).double(), Small(WIDE).double().eval()
    weights.load(ours, theirs.state_dict())
    x = images(2, 3, 64, 144)
    states = theirs(x, output_hidden_states=True).hidden_states
    for map, wanted in zip(ours.features(x), (states[0], states[2], states[3][:, 1:]), strict=True):
        equal(map.flatten(2).transpose(1, 2), wanted)


def the_authors_files_have_other_names():
    """They count stages from one, and number words."""
    ours = randomise(Small(SIZES)).state_dict()
    words = {
        "patch_embed.": "patch_embed{}.",
        "blocks.": "block{}.",
        "position.table": "pos_embed{}",
    }
    official = {"cls_token": ours["stages.2.carry.prefix"]}
    for name, tensor in ours.items():
        for word, numbered in words.items():
            for s in range(3):
                if name.startswith(f"stages.{s}.{word}"):
                    rest = name.removeprefix(f"stages.{s}.{word}")
                    official[numbered.format(s + 1) + rest] = tensor
        if name.startswith(("norm.", "head.")):
            official[name] = tensor
    assert len(official) == len(ours) and official["block2.1.attn.kv.weight"].shape == (84, 42)
    layout, convert = weights.recognise(official, Small(SIZES))
    renamed = convert(official, Small(SIZES))
    assert layout == "PVT" and renamed.keys() == ours.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in renamed.items())


def without_reduction_it_is_attention():
    layer, plain = randomise(ReducedAttention(40, 5)).double(), Attention(40, 5).double()
    state = layer.state_dict()
    for name in ("weight", "bias"):
        state[f"qkv.{name}"] = torch.cat([state.pop(f"q.{name}"), state.pop(f"kv.{name}")])
    plain.load_state_dict(state)
    x = images(2, 3 + 77, 40)
    equal(layer(x, GRID), plain(x))


def a_mean_of_tokens_is_a_mean_of_keys():
    """A convolution that averages, and no norm: attention to the means of plain keys and values."""
    layer, plain = (randomise(ReducedAttention(40, 5, reduction=R)).double() for R in (3, 1))
    plain.load_state_dict(layer.state_dict(), strict=False)
    with torch.no_grad():
        layer.sr.weight.copy_(torch.eye(40).double()[..., None, None] / 9)
        layer.sr.bias.zero_()
    layer.norm = nn.Identity()
    x = images(2, 77, 40)
    q, *keys_and_values = plain.project(x, GRID)
    k, v = (
        F.avg_pool2d(t.transpose(2, 3).reshape(2, 40, *GRID), 3).reshape(2, 5, 8, 6).transpose(2, 3)
        for t in keys_and_values
    )
    mixed = (q @ k.transpose(2, 3) * 8**-0.5).softmax(-1) @ v
    equal(layer(x, GRID), plain.proj(mixed.transpose(1, 2).flatten(2)))


def a_key_is_made_of_one_window():
    """Key 4 of 2x3 is made of rows 3-5 and columns 3-5; no key, of row 6 or of columns 9 and 10."""
    layer, x = (
        randomise(ReducedAttention(40, 5, reduction=3)).double(),
        images(1, 77, 40).requires_grad_(),
    )
    _, k, _ = layer.project(x, GRID)
    for chosen, rows, columns in ((k[:, :, 4], (3, 6), (3, 6)), (k, (0, 6), (0, 9))):
        (gradient,) = torch.autograd.grad(chosen.square().sum(), x, retain_graph=True)
        wanted = torch.zeros(GRID, dtype=bool)
        wanted[slice(*rows), slice(*columns)] = True
        assert torch.equal(gradient[0].abs().sum(dim=-1) > 0, wanted.flatten())


def prefix_tokens_pass_the_convolution_by():
    """Each is a key of its own, and changes no other."""
    layer, x = randomise(ReducedAttention(40, 5, reduction=2)).double(), images(2, 3 + 77, 40)
    q, k, v = layer.project(x, GRID)
    _, k_map, v_map = layer.project(x[:, 3:], GRID)
    first = layer.kv(layer.norm(x[:, :3])).unflatten(-1, (2, 5, 8)).permute(2, 0, 3, 1, 4)
    equal(torch.stack([k, v]), torch.cat([first, torch.stack([k_map, v_map])], dim=3))
    assert q.shape[2] == 80


def the_class_token_is_unseen_before_the_last_stage():
    model, x = randomise(Small(SIZES)).double(), images(2, 3, 32, 48)
    before = model.features(x)
    for name, parameter in model.named_parameters():
        if name.endswith("carry.prefix"):
            parameter.data.neg_()
    changed = [(a - b).abs().max().item() for a, b in zip(model.features(x), before, strict=True)]
    assert changed[:2] == [0, 0] and changed[2] > 1e-3


def attention_costs_r_squared_less():
    """Counted: two projections of T tokens, the convolution, keys and values of S, and T*S."""
    T, D = 12 * 24, 40
    for R in (1, 2, 3, 4):
        S = T // R**2
        layer = ReducedAttention(D, 5, reduction=R)
        with record_attention(layer), FlopCounterMode(display=False) as counter:
            layer(torch.randn(1, T, D), (12, 24))
        convolution = S * R**2 * D**2 if R > 1 else 0
        matrices = 2 * T * D**2 + convolution + 2 * S * D**2
        assert counter.get_total_flops() / 2 == matrices + 2 * T * T * D // R**2


def patches_are_normalised():
    """Each token has mean 0 and variance 1 over its channels, before scale and shift."""
    layer = randomise(NormedPatchEmbed(3, 40, 4)).double()
    x, _ = layer(images(2, 3, 8, 12))
    x = (x - layer.norm.bias) / layer.norm.weight
    equal(x.var(dim=-1, correction=0), torch.ones(2, 6).double(), tolerance=1e-3)
    equal(x.mean(dim=-1) + 1, torch.ones(2, 6).double())


PROOFS = [
    same_as_transformers,
    the_maps_are_those_of_transformers,
    the_authors_files_have_other_names,
    without_reduction_it_is_attention,
    a_mean_of_tokens_is_a_mean_of_keys,
    a_key_is_made_of_one_window,
    prefix_tokens_pass_the_convolution_by,
    the_class_token_is_unseen_before_the_last_stage,
    attention_costs_r_squared_less,
    patches_are_normalised,
]


def first_tokens(self, images):
    return [
        x[:, : h * w].transpose(1, 2).unflatten(2, (h, w)) for x, (h, w) in self.outputs(images)
    ]


def not_normed(self, x, grid):
    prefix, map = pvt.split(x, grid)
    return pvt.join(prefix, self.sr(map))


def lying(self, x, grid):
    prefix, map = pvt.split(x, grid)
    return self.norm(pvt.join(prefix, self.sr(map.transpose(2, 3)).transpose(2, 3)))


def padded(self, x, grid):
    prefix, map = pvt.split(x, grid)
    R = self.reduction
    map = F.pad(map, (0, -grid[1] % R, 0, -grid[0] % R))
    return self.norm(pvt.join(prefix, self.sr(map)))


def prefix_not_normed(self, x, grid):
    prefix, map = pvt.split(x, grid)
    return torch.cat([prefix, self.norm(pvt.join(prefix[:, :0], self.sr(map)))], dim=1)


def at_every_place(self, x, grid):
    prefix, map = pvt.split(x, grid)
    return self.norm(pvt.join(prefix, F.conv2d(map, self.sr.weight, self.sr.bias)))


def values_first(self, x, grid):
    q, k, v = PROJECT(self, x, grid)
    return q, v, k


def no_norm(self, images):
    return super(NormedPatchEmbed, self).forward(images)


def counted_from_zero(state, model):
    return {re.sub(r"^block(\d)", r"stages.\1.blocks", name): t for name, t in state.items()}


PROJECT = ReducedAttention.project

PLANTED = {
    "the small map is not normalised": (
        (ReducedAttention, "reduced", not_normed),
        same_as_transformers,
    ),
    "rows and columns of a window": ((ReducedAttention, "reduced", lying), same_as_transformers),
    "windows are filled up": ((ReducedAttention, "reduced", padded), same_as_transformers),
    "patches are not normalised": ((NormedPatchEmbed, "forward", no_norm), same_as_transformers),
    "patches, not normalised": ((NormedPatchEmbed, "forward", no_norm), patches_are_normalised),
    "the class token is a place": (
        (PVT, "features", first_tokens),
        the_maps_are_those_of_transformers,
    ),
    "stages are counted from zero": (
        (pvt, "rename", lambda rules: counted_from_zero),
        the_authors_files_have_other_names,
    ),
    "values are keys": (
        (ReducedAttention, "project", values_first),
        without_reduction_it_is_attention,
    ),
    "zeros are averaged": (
        (ReducedAttention, "reduced", padded),
        a_mean_of_tokens_is_a_mean_of_keys,
    ),
    "a last window is filled up": (
        (ReducedAttention, "reduced", padded),
        a_key_is_made_of_one_window,
    ),
    "prefix without norm": (
        (ReducedAttention, "reduced", prefix_not_normed),
        prefix_tokens_pass_the_convolution_by,
    ),
    "the class token enters at once": (
        (PVT, "entry", 0),
        the_class_token_is_unseen_before_the_last_stage,
    ),
    "windows at every place": (
        (ReducedAttention, "reduced", at_every_place),
        attention_costs_r_squared_less,
    ),
}
