"""The pyramid: one stage is a ViT; many stages give maps; what is wrong is refused or noticed."""

from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import nn

from tests.proofs import equal, images, randomise
from tests.shapes import ShapeComments
from vitcourse import papers, pyramid
from vitcourse.config import Config
from vitcourse.parts import MeanHead, NoPosition, join, split
from vitcourse.probe import record_attention, record_tokens
from vitcourse.pyramid import Pyramid, PyramidConfig, Stage
from vitcourse.vit import Attention, Block, ClassHead, PatchEmbed, ViT

SIZES = PyramidConfig(
    dims=(10, 18, 28),
    depths=(2, 1, 3),
    heads=(2, 3, 4),
    patches=(3, 2, 2),
    mlp_ratios=(3.0, 2.0, 1.5),
    image=(24, 60),
    classes=7,
)
ONE = PyramidConfig((40,), (2,), (5,), (6,), (2.0,), image=(18, 30), classes=7)


def one_stage_is_a_vit():
    """With the same weights: logits, what the head reads, and the start values of all layers."""
    for Head in (ClassHead, MeanHead):
        plain = ViT.variant(Head=Head)(Config(40, 2, 5, 6, (18, 30), classes=7, mlp_ratio=2))
        model = Pyramid.variant(Head=Head)(ONE)
        mine = {name.replace("stages.0.", "").replace("carry.", "") for name in model.state_dict()}
        assert mine == {n for n, tensor in plain.state_dict().items() if tensor.numel()}
        randomise(plain).double()
        state = {
            name: plain.state_dict()[name.replace("stages.0.", "").replace("carry.", "")]
            for name in model.state_dict()
        }
        model.double().eval().load_state_dict(state)
        for size in ((18, 30), (24, 12)):
            x = images(2, 3, *size)
            equal(model(x), plain(x))
            equal(model.encode(x)[0], plain.encode(x)[0])


def maps_are_what_stages_say():
    """Each map is what leaves the last block of its stage, without prefix, at its place."""
    model = randomise(Pyramid(SIZES)).double()
    x = images(2, 3, 24, 60)
    with record_tokens(model) as tokens:
        maps = model.features(x)
    for map, last in zip(maps, (1, 2, 5), strict=True):
        equal(map.flatten(2).transpose(1, 2), tokens[last][:, 1:])


def stages_are_a_chain():
    """By hand: each stage reads the map of the one before, and its tokens carried by a Linear."""
    model = randomise(Pyramid(SIZES)).double()
    x = images(2, 3, 24, 60)
    map, prefix = x, None
    for s, stage in enumerate(model.stages):
        tokens, grid = stage.patch_embed(map)
        enters = stage.carry(prefix) if s else stage.carry.prefix.expand(2, -1, -1)
        tokens = torch.cat([enters, tokens], dim=1) + stage.position.table
        for block in stage.blocks:
            tokens = block(tokens, grid)
        prefix, map = split(tokens, grid)
    equal(model(x), model.head(model.norm(join(prefix, map))))


def later_prefix_is_unseen_before():
    """Tokens that enter in the last stage change nothing in the maps of the stages before."""
    model = randomise(Pyramid.variant(entry=2)(SIZES)).double()
    assert all(isinstance(stage.carry, pyramid.Prefix) for stage in model.stages)
    x = images(2, 3, 24, 60)
    before = model.features(x)
    with torch.no_grad():
        model.stages[2].carry.prefix.neg_()
    after = model.features(x)
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])
    assert (before[2] - after[2]).abs().max() > 1e-3


PROOFS = [
    one_stage_is_a_vit,
    maps_are_what_stages_say,
    stages_are_a_chain,
    later_prefix_is_unseen_before,
]


@pytest.mark.parametrize("proof", PROOFS)
def test_proof(proof):
    proof()


def no_position(self, map, prefix):
    x, grid = self.patch_embed(map)
    x = torch.cat([self.carry(prefix), x], dim=1)
    for block in self.blocks:
        x = block(x, grid)
    return x, grid


def prefix_behind(self, map, prefix):
    x, grid = self.patch_embed(map)
    x = self.position(torch.cat([x, self.carry(prefix)], dim=1), grid)
    for block in self.blocks:
        x = block(x, grid)
    return x, grid


def first_tokens(x, grid):
    h, w = grid
    return x[:, h * w :], x[:, : h * w].transpose(1, 2).unflatten(2, grid)


def map_by_columns(x, grid):
    h, w = grid
    prefix, map = split(x, grid)
    return prefix, map.flatten(2).unflatten(2, (w, h)).transpose(2, 3)


def all_prefixes(self, before):
    return self.prefix.sum() + self.prefix.expand(len(before), -1, -1)


def not_normalised(self, images):
    return self.outputs(images)[-1]


PLANTED = {
    "no position": ((Stage, "forward", no_position), one_stage_is_a_vit),
    "no norm": ((Pyramid, "encode", not_normalised), one_stage_is_a_vit),
    "prefix behind the map": ((Stage, "forward", prefix_behind), one_stage_is_a_vit),
    "first tokens are the map": ((pyramid, "split", first_tokens), maps_are_what_stages_say),
    "map by columns": ((pyramid, "split", map_by_columns), stages_are_a_chain),
    "prefix moved": ((pyramid.Prefix, "forward", all_prefixes), stages_are_a_chain),
    "enters at once": (
        (Pyramid, "variant", classmethod(lambda cls, entry: cls)),
        later_prefix_is_unseen_before,
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_an_error_is_noticed(name):
    patch, proof = PLANTED[name]
    with mock.patch.object(*patch), pytest.raises(AssertionError):
        proof()


def test_every_proof_can_fail():
    assert {proof for _, proof in PLANTED.values()} == set(PROOFS)


def test_maps_widths_strides():
    model = Pyramid(SIZES).eval()
    assert model.widths == (10, 18, 28) and model.strides == (3, 6, 12)
    for size in ((24, 60), (48, 36)):
        for map, D, stride in zip(
            model.features(torch.randn(2, 3, *size)), model.widths, model.strides, strict=True
        ):
            assert map.shape == (2, D, size[0] // stride, size[1] // stride)


def test_attention_is_recorded():
    model = Pyramid(SIZES).eval()
    with record_attention(model) as maps:
        model(torch.randn(2, 3, 24, 60))
    tokens = [161, 161, 41, 11, 11, 11]
    assert [tuple(m.shape) for m in maps] == [
        (2, K, T, T) for K, T in zip((2, 2, 3, 4, 4, 4), tokens, strict=True)
    ]


def test_every_parameter_gets_a_gradient():
    for options in ({}, {"Head": MeanHead}, {"entry": 2}):
        model = randomise(Pyramid.variant(**options)(SIZES)).train()
        model(torch.randn(2, 3, 24, 60)).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert not parameter.numel() or parameter.grad.abs().max() > 0, name


def test_it_compiles():
    model, x = randomise(Pyramid(SIZES)), torch.randn(2, 3, 24, 60)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


def test_stochastic_depth_rises_over_all_stages():
    model = Pyramid(replace(SIZES, drop_path=0.5))
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_a_layer_is_made_for_its_stage_and_block():
    """What a paper that alternates two kinds of attention overrides."""

    class Local(Attention):
        pass

    class Alternating(Pyramid):
        def attention(self, s, i):
            return Local(self.widths[s], 2) if i % 2 else super().attention(s, i)

    kinds = [type(b.attn) for stage in Alternating(SIZES).stages for b in stage.blocks]
    assert kinds == [Attention, Local, Attention, Attention, Local, Attention]


def test_the_grid_of_positions_comes_from_the_tokenizer():
    """Nobody needs to know how a tokenizer counts; trying it leaves no trace."""

    class Overlapping(PatchEmbed):
        def __init__(self, channels, dim, patch):
            super().__init__(channels, dim, patch)
            self.proj = nn.Conv2d(channels, dim, 2 * patch - 1, patch, patch - 1, bias=False)
            self.norm = nn.BatchNorm2d(dim)

        def forward(self, images):
            x = self.norm(self.proj(images))
            return x.flatten(2).transpose(1, 2), tuple(x.shape[-2:])

    cls = Pyramid.variant(Tokenizer=Overlapping, Downsample=Overlapping)
    model = cls(replace(SIZES, image=(20, 31)))
    assert [stage.position.grid for stage in model.stages] == [(7, 11), (4, 6), (2, 3)]
    assert model.stages[0].patch_embed.norm.num_batches_tracked == 0
    assert model.training and model.stages[0].patch_embed.norm.training
    assert model.eval()(torch.randn(2, 3, 20, 31)).shape == (2, 7)


def test_the_papers_tools_know_it():
    class Small(Pyramid):
        Position = NoPosition

    assert papers.delta(Small) == {"Position": NoPosition}
    assert "Position: LearnedPosition -> NoPosition" in papers.diff(Small)
    slots = papers.compare.slots(Pyramid)
    assert slots["Downsample"] is PatchEmbed and slots["Block"] is Block and len(slots) == 7
    assert Pyramid.variant(Head=MeanHead)(SIZES).prefix_len == 0
    with pytest.raises(ValueError, match="no part called 'Neck'"):
        Pyramid.variant(Neck=PatchEmbed)
    for entry in (-1, 3):
        with pytest.raises(ValueError, match=f"entry is {entry}: the stages are 0 to 2"):
            Pyramid.variant(entry=entry)(SIZES)


@pytest.mark.parametrize(
    "bad, message",
    [
        (dict(depths=(2, 1)), "one number of each, these are: dims 3, depths 2, heads 3"),
        (dict(dims=(), depths=(), heads=(), patches=(), mlp_ratios=()), "dims 0"),
        (dict(patches=4), "patches is 4: give one number a stage"),
        (dict(patches=(3, 0, 2)), "patches is 0: it must be a whole number above 0"),
        (dict(heads=(2, 3, 5)), "dim=28 does not divide into 5 heads"),
        (dict(mlp_ratios=(2.0, 0.01, 2.0)), "mlp_ratio is 0.01"),
        (dict(image=(24, 60, 3)), "give one side, or"),
        (dict(drop_path=1.5), "drop_path is 1.5"),
        (dict(classes=0), "classes is 0"),
    ],
)
def test_bad_sizes(bad, message):
    with pytest.raises(ValueError, match=message) as error:
        replace(SIZES, **bad)
    assert "\n" not in str(error.value)


def test_bad_images():
    with pytest.raises(ValueError, match="24x62 pixels does not divide into patches of 3x3"):
        Pyramid(replace(SIZES, image=(24, 62)))
    with pytest.raises(ValueError, match="does not divide into patches of 2x2"):
        Pyramid(SIZES)(torch.randn(1, 3, 21, 60))
    with pytest.raises(ValueError, match="this model needs"):
        Pyramid(SIZES)(torch.randn(1, 1, 24, 60))


def test_shape_comments():
    comments = ShapeComments(pyramid)
    with comments.tracing(each_call=True):
        Pyramid(SIZES)(torch.randn(2, 3, 24, 60))
    assert not comments.errors, "\n".join(comments.errors)
    assert not comments.unseen, f"never executed: lines {sorted(comments.unseen)}"
