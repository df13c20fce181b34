"""Twins-SVT: beside timm, where windows divide maps and where not, and identities of its parts."""

import torch
import torch.nn.functional as F
from timm.models import twins as timm
from torch import nn

from tests.proofs import equal, images, randomise, same_as
from vitcourse.papers import twins
from vitcourse.papers.cpvt import PEG
from vitcourse.papers.pvt import ReducedAttention
from vitcourse.papers.swin import from_windows, windows
from vitcourse.papers.twins import Twins, WindowedAttention
from vitcourse.parts import split
from vitcourse.pyramid import Pyramid, PyramidConfig
from vitcourse.vit import Attention

SIZES = PyramidConfig(
    dims=(26, 42, 60),
    depths=(3, 2, 1),
    heads=(2, 3, 4),
    patches=(4, 2, 2),
    mlp_ratios=(3.0, 2.0, 4.0),
    image=(32, 48),
    classes=7,
)
WIDE = PyramidConfig(**{**vars(SIZES), "image": (32, 64)})
Small = Twins.variant(windows=(5, 3, 2), reductions=(3, 2, 1))
MODELS = {"mean": lambda: (Small(SIZES), torch.randn(2, 3, 32, 48))}
OTHER_SIZES = {"mean": (64, 16)}
COUNTS = {
    "twins_svt_s": 24_060_776,
    "twins_svt_b": 56_070_952,
    "twins_svt_l": 99_271_400,
}
GRID = 5, 7


def theirs_like(sides):
    """timm's Twins of our sizes."""
    return timm.Twins(
        img_size=WIDE.image,
        embed_dims=WIDE.dims,
        num_heads=WIDE.heads,
        mlp_ratios=WIDE.mlp_ratios,
        depths=WIDE.depths,
        wss=sides,
        sr_ratios=Small.reductions,
        num_classes=7,
    )


def same_as_timm():
    """Maps of 8x16, 4x8, 2x4: once windows divide them, once they are filled up with zeros."""
    for sides in ((4, 2, 2), (5, 3, 3)):
        theirs, ours = theirs_like(sides), Small.variant(windows=sides)(WIDE)
        stages = [
            [block for stage in ours.stages for block in stage.blocks],
            [
                block
                for peg, blocks in zip(theirs.pos_block, theirs.blocks, strict=True)
                for block in (blocks[0], peg, *blocks[1:])
            ],
        ]
        same_as(theirs, ours, images(2, 3, 32, 64), stages)


def the_maps_are_timms():
    """What a detector reads: the map of every stage, before the last norm."""
    theirs, ours = randomise(theirs_like((5, 3, 2))).double(), Small(WIDE).double().eval()
    ours.load_state_dict(twins.from_timm(theirs.state_dict(), ours))
    x = images(2, 3, 32, 64)
    _, wanted = theirs.forward_intermediates(x)
    for mine, other in zip(ours.features(x), wanted, strict=True):
        equal(mine, other)


def a_window_as_large_as_the_map_is_attention():
    local = randomise(WindowedAttention(40, 5, window=6)).double()
    plain = Attention(40, 5).double()
    plain.load_state_dict(local.state_dict())
    x = images(2, 36, 40)
    equal(local(x, (6, 6)), plain(x))


def a_window_is_attention_to_its_tokens():
    """Windows of 2x2 on 4x6, by hand: each is attended by itself, and lies where it was."""
    local = randomise(WindowedAttention(40, 5, window=2)).double()
    plain = Attention(40, 5).double()
    plain.load_state_dict(local.state_dict())
    map = images(2, 4, 6, 40)
    wanted = torch.empty_like(map)
    for top in (0, 2):
        for left in (0, 2, 4):
            window = map[:, top : top + 2, left : left + 2]
            attended = plain(window.flatten(1, 2)).unflatten(1, (2, 2))
            wanted[:, top : top + 2, left : left + 2] = attended
    equal(local(map.flatten(1, 2), (4, 6)), wanted.flatten(1, 2))


def zeros_below_the_map_take_part():
    """The window in the corner holds 2x1 tokens. Its softmax also counts seven biases as keys."""
    local = randomise(WindowedAttention(40, 5, window=3)).double()
    x = images(1, 35, 40)
    corner = x.unflatten(1, GRID)[:, 3:, 6:].flatten(1, 2)
    filled = torch.cat([corner, torch.zeros(1, 7, 40).double()], dim=1)
    attended = Attention.forward(local, filled)[:, :2]
    equal(local(x, GRID).unflatten(1, GRID)[:, 3:, 6:].flatten(1, 2), attended)
    alone = Attention.forward(local, corner)
    assert (alone - attended).abs().max() > 0.01


def reach(blocks, x, grid, token):
    """Which tokens change `token` after some blocks."""
    x = x.detach().requires_grad_()
    out = x
    for block in blocks:
        out = block(out, grid)
    out[0, token].square().sum().backward()
    return (x.grad[0].abs().sum(dim=-1) > 0).unflatten(0, grid)


def what_a_token_reads():
    """After LSA its window; after a PEG and LSA the windows around it; after GSA all."""
    config = dict(heads=(5,), patches=(2,), mlp_ratios=(2.0,), image=(40, 48), classes=7)
    cls = Twins.variant(windows=(4,), reductions=(4,))
    model = randomise(cls(PyramidConfig(dims=(40,), depths=(3,), **config))).double()
    first, peg, to_all, local = model.stages[0].blocks
    x, grid = images(1, 20 * 24, 40), (20, 24)
    token = 9 * 24 + 10  # row 9, column 10: in the window of rows 8-11 and columns 8-11
    for blocks, rows, columns in (
        ([first, local], (8, 12), (8, 12)),
        ([first, peg], (8, 12), (8, 12)),
        ([first, peg, local], (4, 16), (4, 16)),
        ([first, to_all], (0, 20), (0, 24)),
        ([to_all], (0, 20), (0, 24)),
    ):
        wanted = torch.zeros(grid, dtype=bool)
        wanted[slice(*rows), slice(*columns)] = True
        assert torch.equal(reach(blocks, x, grid, token), wanted)


def without_gsa_distant_windows_add_up():
    """Left and right are far apart: what changing both does is the sum of what each does."""
    sizes = PyramidConfig((10,), (4,), (2,), (2,), (3.0,), image=(8, 32), classes=7)
    cls = Twins.variant(windows=(4,), reductions=(2,))
    one, two = images(2, 3, 8, 8, seed=1), images(2, 3, 8, 8, seed=2)
    blank = torch.zeros(2, 3, 8, 16).double()

    def mixed_difference(model):
        answer = {
            (i, j): model(torch.cat([left, blank, right], dim=3))
            for i, left in enumerate((one, two))
            for j, right in enumerate((one, two))
        }
        return answer[0, 0] - answer[0, 1] - answer[1, 0] + answer[1, 1]

    class Local(cls):
        def attention(self, s, i):
            return super().attention(s, 0)

    assert mixed_difference(randomise(Local(sizes)).double()).abs().max() < 1e-12
    assert mixed_difference(randomise(cls(sizes)).double()).abs().max() > 1e-5


def even_blocks_are_local():
    """And the second thing in each stage is its PEG."""
    for stage in Small(SIZES).stages:
        assert isinstance(stage.blocks[1], PEG)
        kinds = [type(block.attn) for block in stage.blocks if not isinstance(block, PEG)]
        assert kinds == [WindowedAttention, ReducedAttention, WindowedAttention][: len(kinds)]


def silent_parts_leave_a_plain_pyramid():
    """Whole maps as windows, R = 1 and PEGs of zeros: the pyramid of plain attention, no more."""
    sizes = PyramidConfig(**{**vars(SIZES), "image": (32, 32)})
    model = randomise(Twins.variant(windows=(8, 4, 2), reductions=(1, 1, 1))(sizes)).double()
    parts = {name: getattr(Twins, name) for name in ("Tokenizer", "Downsample", "Position", "Head")}
    plain = Pyramid.variant(**parts)(sizes).double().eval()
    for mine, other in zip(model.stages, plain.stages, strict=True):
        nn.init.zeros_(mine.blocks[1].proj.weight)
        nn.init.zeros_(mine.blocks[1].proj.bias)
        state = nn.ModuleList([mine.blocks[0], *mine.blocks[2:]]).state_dict()
        for name in [name for name in state if ".q." in name]:
            q, kv = state.pop(name), state.pop(name.replace(".q.", ".kv."))
            state[name.replace(".q.", ".qkv.")] = torch.cat([q, kv])
        other.blocks.load_state_dict(state)
        other.patch_embed.load_state_dict(mine.patch_embed.state_dict())
    plain.norm, plain.head = model.norm, model.head
    x = images(2, 3, 32, 32)
    equal(model(x), plain(x))


PROOFS = [
    same_as_timm,
    the_maps_are_timms,
    a_window_as_large_as_the_map_is_attention,
    a_window_is_attention_to_its_tokens,
    zeros_below_the_map_take_part,
    what_a_token_reads,
    without_gsa_distant_windows_add_up,
    even_blocks_are_local,
    silent_parts_leave_a_plain_pyramid,
]


def by_columns(x, M, grid):
    """The windows, taken to lie one below the other."""
    rows, columns = grid[0] // M, grid[1] // M
    turned = x.unflatten(0, (-1, columns, rows)).transpose(1, 2).flatten(0, 2)
    return from_windows(turned, M, grid)


def above_and_left(self, x, grid):
    """As attention does that puts the zeros there."""
    (h, w), M = grid, self.window
    map = F.pad(split(x, grid)[1], (-w % M, 0, -h % M, 0))
    x = Attention.forward(self, windows(map, M), (M, M))
    map = from_windows(x, M, map.shape[-2:])
    return map[..., -h:, -w:].flatten(2).transpose(1, 2)


def zeros_ignored(self, x, grid):
    """As attention does that masks the zeros."""
    (h, w), M = grid, self.window
    map = F.pad(split(x, grid)[1], (0, -w % M, 0, -h % M))
    real = F.pad(torch.ones(len(x), 1, h, w), (0, -w % M, 0, -h % M))
    bias = torch.where(windows(real, M).transpose(1, 2) > 0, 0.0, -1e9).to(x)  # (B*n, 1, M*M)
    attended = self.attend(*self.project(windows(map, M), None), bias[:, None])
    x = self.proj(attended.transpose(1, 2).flatten(2))
    map = from_windows(x, M, map.shape[-2:])
    return map[..., :h, :w].flatten(2).transpose(1, 2)


def all_attend(self, x, grid):
    return Attention.forward(self, x)


def peg_first(self, cfg):
    Pyramid.__init__(self, cfg)
    for stage, dim in zip(self.stages, cfg.dims, strict=True):
        stage.blocks.insert(0, PEG(dim))


def odd_blocks_local(self, s, i):
    return ATTENTION(self, s, i + 1)


def never_to_all(self, s, i):
    return ATTENTION(self, s, 0)


def first_window_only(x, M, grid):
    return from_windows(x[:1].expand_as(x), M, grid)


def normed(self, images):
    return [torch.tanh(map) for map in FEATURES(self, images)]


ATTENTION = Twins.attention
FEATURES = Pyramid.features

PLANTED = {
    "windows by columns": ((twins, "from_windows", by_columns), same_as_timm),
    "zeros above and left": ((WindowedAttention, "forward", above_and_left), same_as_timm),
    "zeros are masked": ((WindowedAttention, "forward", zeros_ignored), same_as_timm),
    "maps are changed": ((Pyramid, "features", normed), the_maps_are_timms),
    "scores of the whole width": (
        (WindowedAttention, "forward", lambda self, x, grid: all_attend(self, 2 * x, grid)),
        a_window_as_large_as_the_map_is_attention,
    ),
    "windows of windows by columns": (
        (twins, "from_windows", by_columns),
        a_window_is_attention_to_its_tokens,
    ),
    "all tokens attend to all": (
        (WindowedAttention, "forward", all_attend),
        a_window_is_attention_to_its_tokens,
    ),
    "masked zeros": ((WindowedAttention, "forward", zeros_ignored), zeros_below_the_map_take_part),
    "LSA reads all": ((WindowedAttention, "forward", all_attend), what_a_token_reads),
    "GSA is local": (
        (Twins, "attention", never_to_all),
        what_a_token_reads,
    ),
    "no block is global": ((Twins, "attention", never_to_all), without_gsa_distant_windows_add_up),
    "local windows read all": (
        (WindowedAttention, "forward", all_attend),
        without_gsa_distant_windows_add_up,
    ),
    "odd before even": ((Twins, "attention", odd_blocks_local), even_blocks_are_local),
    "PEG first": ((Twins, "__init__", peg_first), even_blocks_are_local),
    "one window for all": (
        (twins, "from_windows", first_window_only),
        silent_parts_leave_a_plain_pyramid,
    ),
}
