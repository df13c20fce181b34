"""CPVT: the PEG beside timm's, and what zeros beyond the border do."""

import torch
from timm.models.twins import PosConv
from torch import nn

from tests.proofs import equal, images, randomise, same_as
from vitcourse.config import Config
from vitcourse.papers.cpvt import CPVT, PEG, CPVTMean
from vitcourse.parts import NoPosition, join, split
from vitcourse.vit import ViT

SIZES = Config(dim=20, depth=3, heads=5, patch=6, image=(18, 30), classes=7, mlp_ratio=2)
MODELS = {
    "class token": lambda: (CPVT(SIZES), torch.randn(2, 3, 18, 30)),
    "mean": lambda: (CPVTMean(SIZES), torch.randn(2, 3, 18, 30)),
    "three PEGs": lambda: (CPVT.variant(pegs=(0, 1, 2))(SIZES), torch.randn(2, 3, 18, 30)),
}
OTHER_SIZES = {"class token": (24, 12), "mean": (6, 42)}
COUNTS = {"cpvt_ti": 5_681_512}
GRID = 4, 6


def same_as_timm():
    """The PEG of timm's Twins, on a map that is not square."""
    theirs = PosConv(16, 16)
    ours = PEG(16)
    ours.forward = lambda x: PEG.forward(ours, x, GRID)
    ours.layouts = {"twins": ("proj.0.weight", lambda s, m: {n.replace(".0", ""): s[n] for n in s})}
    same_as(theirs, ours, images(2, 24, 16), run=lambda x: theirs(x, GRID))


def the_class_token_passes():
    """Prefix tokens leave as they came, and reach no other token."""
    peg, x = randomise(PEG(16)).double(), images(2, 3 + 24, 16)
    other = torch.cat([2 * x[:, :3], x[:, 3:]], dim=1)
    equal(peg(x, GRID)[:, :3], x[:, :3])
    equal(peg(other, GRID)[:, 3:], peg(x, GRID)[:, 3:])
    equal(peg(x, GRID)[:, 3:], peg(x[:, 3:], GRID))


def a_token_reads_its_neighbours_by_channel():
    """The token in row 1 and column 2 reads three rows and three columns, of its own channel."""
    peg, x = randomise(PEG(16)).double(), images(1, 1 + 24, 16).requires_grad_()
    _, places = split(peg(x, GRID), GRID)
    places[0, 5, 1, 2].backward()
    _, read = split(x.grad != 0, GRID)
    wanted = torch.zeros_like(read)
    wanted[0, 5, 0:3, 1:4] = True
    assert torch.equal(read, wanted)


def rolled(x, by):
    """The tokens, moved around the map as on a ring."""
    prefix, places = split(x, GRID)
    return join(prefix, places.roll(by, (2, 3)))


def only_the_border_tells_where_a_token_is():
    """On a ring a PEG cannot tell one place from another. With zeros beyond the border it can."""
    peg, x = randomise(PEG(16)).double(), images(2, 1 + 24, 16)
    moved = peg(rolled(x, (1, 2)), GRID) - rolled(peg(x, GRID), (1, 2))
    assert split(moved, GRID)[1].abs().amax(dim=(0, 1, 3)).min() > 0.1
    peg.proj.padding_mode = "circular"
    equal(peg(rolled(x, (1, 2)), GRID), rolled(peg(x, GRID), (1, 2)))


def equal_tokens_become_nine_kinds():
    """A map of equal tokens: four corners, four edges and the inside have different sums."""
    peg = randomise(PEG(16)).double()
    x = peg(images(1, 1, 16).expand(1, 24, 16), GRID)[0]
    assert len(torch.unique((x * 1e6).round(), dim=0)) == 9


def silent_pegs_leave_a_vit_without_positions():
    """With all kernels at zero, CPVT is the ViT with no position, wherever the PEGs stand."""
    for pegs in ((1,), (0, 2, 3)):
        model = randomise(CPVT.variant(pegs=pegs)(SIZES)).double()
        plain = ViT.variant(Position=NoPosition)(SIZES).double().eval()
        kept = [m for m in model.blocks if not isinstance(m, PEG)]
        plain.blocks.load_state_dict(nn.ModuleList(kept).state_dict())
        state = model.state_dict()
        others = {n: t for n, t in state.items() if not n.startswith("blocks.")}
        plain.load_state_dict(others, strict=False)
        x = images(2, 3, 18, 30)
        assert (model(x) - plain(x)).abs().max() > 0.01
        for layer in model.modules():
            if isinstance(layer, PEG):
                nn.init.zeros_(layer.proj.weight)
                nn.init.zeros_(layer.proj.bias)
        equal(model(x), plain(x))


def the_first_block_does_not_see_order():
    """Shuffled patches leave the first block shuffled, and the logits of the model change."""
    model, order = randomise(CPVT(SIZES)).double(), torch.randperm(15)
    first, peg = model.blocks[0], model.blocks[1]
    assert isinstance(peg, PEG) and len(model.blocks) == SIZES.depth + 1
    x = images(2, 15, 20)
    equal(first(x[:, order]), first(x)[:, order])
    tokens, grid = model.patch_embed(images(2, 3, 18, 30))
    model.patch_embed.forward = lambda given: (given, grid)
    assert (model(tokens) - model(tokens[:, order])).abs().max() > 0.01


PROOFS = [
    same_as_timm,
    the_class_token_passes,
    a_token_reads_its_neighbours_by_channel,
    only_the_border_tells_where_a_token_is,
    equal_tokens_become_nine_kinds,
    silent_pegs_leave_a_vit_without_positions,
    the_first_block_does_not_see_order,
]


def no_residual(self, x, grid):
    prefix, places = split(x, grid)
    return join(prefix, self.proj(places))


def exchanged(self, x, grid):
    prefix, places = split(x, (grid[1], grid[0]))
    return join(prefix, places + self.proj(places))


def prefix_added(self, x, grid):
    prefix, places = split(x, grid)
    return join(prefix + places.mean(dim=(2, 3))[:, None], places + self.proj(places))


def prefix_read(self, x, grid):
    prefix, places = split(x, grid)
    return join(prefix, places + self.proj(places) + prefix.sum(dim=1)[..., None, None])


def twice(self, x, grid):
    prefix, places = split(x, grid)
    return join(prefix, places + self.proj(self.proj(places)))


def no_convolution(self, x, grid):
    return x


def as_a_ring(self, x, grid):
    self.proj.padding_mode = "circular"
    prefix, places = split(x, grid)
    return join(prefix, places + self.proj(places))


PLANTED = {
    "no residual": ((PEG, "forward", no_residual), same_as_timm),
    "rows and columns exchanged": ((PEG, "forward", exchanged), same_as_timm),
    "the prefix gets the mean": ((PEG, "forward", prefix_added), the_class_token_passes),
    "the prefix is read": ((PEG, "forward", prefix_read), the_class_token_passes),
    "two convolutions": ((PEG, "forward", twice), a_token_reads_its_neighbours_by_channel),
    "no convolution": ((PEG, "forward", no_convolution), only_the_border_tells_where_a_token_is),
    "a ring": ((PEG, "forward", as_a_ring), only_the_border_tells_where_a_token_is),
    "a ring has one kind of place": (
        (PEG, "forward", as_a_ring),
        equal_tokens_become_nine_kinds,
    ),
    "a position table is left": (
        (CPVT, "Position", ViT.Position),
        silent_pegs_leave_a_vit_without_positions,
    ),
    "before the first block": ((CPVT, "pegs", (0,)), the_first_block_does_not_see_order),
}
