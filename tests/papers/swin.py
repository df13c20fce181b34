"""Swin: beside timm, torchvision and transformers; identities of windows, shifts and merging."""

import torch
import torchvision
import transformers
from timm.models import SwinTransformer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.proofs import equal, images, randomise, same_as
from vitcourse import parts
from vitcourse.papers import swin
from vitcourse.papers.swin import PatchMerging, Swin, WindowAttention
from vitcourse.parts import RelativeAttention2D
from vitcourse.probe import record_attention
from vitcourse.pyramid import Pyramid, PyramidConfig
from vitcourse.vit import Attention, LearnedPosition

SIZES = PyramidConfig(
    dims=(12, 24),
    depths=(2, 2),
    heads=(2, 3),
    patches=(2, 2),
    mlp_ratios=(2.0, 2.0),
    image=(16, 32),
    classes=7,
)
FOUR, THREE = Swin.variant(window=4), Swin.variant(window=3)
ODD = 22, 34  # a map of 11 x 17, and then of 6 x 9: windows of 4 do not divide them
MODELS = {
    "shifted": lambda: (FOUR(SIZES), torch.randn(2, 3, 16, 32)),
    "padded": lambda: (Swin.variant(window=(4, 3))(SIZES), torch.randn(2, 3, *ODD)),
}
OTHER_SIZES = {"shifted": (10, 46), "padded": (16, 32)}
COUNTS = {
    "swin_t": 28_288_354,
    "swin_s": 49_606_258,
    "swin_b": 87_768_224,
    "swin_l": 196_532_476,
}


# Beside others' code ------------------------------------------------------------------------------


def timm(image=(16, 32), depths=(2, 2), window=4):
    """timm's Swin of the same sizes."""
    sizes = dict(embed_dim=12, num_heads=(2, 3), mlp_ratio=2, num_classes=7)
    return SwinTransformer(image, 2, depths=depths, window_size=window, **sizes)


def others():
    """torchvision's and transformers', for maps that windows of 3 x 3 do not divide."""
    sizes = dict(embed_dim=12, depths=[2, 2], num_heads=[2, 3], mlp_ratio=2.0)
    visions = torchvision.models.SwinTransformer(
        [2, 2], window_size=[3, 3], stochastic_depth_prob=0.0, num_classes=7, **sizes
    )
    config = transformers.SwinConfig(
        image_size=32, patch_size=2, window_size=3, num_labels=7, drop_path_rate=0.0, **sizes
    )
    return visions, transformers.SwinForImageClassification(config)


def mlps(stages):
    return [block.mlp for stage in stages for block in stage.blocks]


def same_as_timm():
    """Logits, each block, all gradients. The second map, 4 x 8, is shifted in columns alone."""
    theirs, ours = timm(), FOUR(SIZES)
    same_as(theirs, ours, images(2, 3, 16, 32), (mlps(ours.stages), mlps(theirs.layers)))


def same_as_timm_with_a_window_for_each_stage():
    theirs, ours = timm(window=((4, 4), (2, 2))), Swin.variant(window=(4, 2))(SIZES)
    same_as(theirs, ours, images(2, 3, 16, 32), (mlps(ours.stages), mlps(theirs.layers)))


def same_as_torchvision():
    """Maps of 10 x 17 and 5 x 9: padded to windows and for merging. Then 2 x 17, below a window."""
    for image in ((20, 34), (4, 34)):
        same_as(others()[0], THREE(SIZES), images(2, 3, *image))


def same_as_transformers():
    theirs = others()[1]
    same_as(theirs, THREE(SIZES), images(2, 3, 20, 34), run=lambda x: theirs(x).logits)


def the_maps_are_timms():
    """What a detector reads. Without shifts timm pads as others do: 11 x 17 and 6 x 9."""
    for image, depths in (((16, 32), (2, 2)), (ODD, (1, 1))):
        theirs = randomise(timm(image, depths)).double()
        sizes = PyramidConfig((12, 24), depths, (2, 3), (2, 2), (2.0, 2.0), classes=7)
        ours = FOUR(sizes).double().eval()
        ours.load_state_dict(swin.from_timm(theirs.state_dict(), ours))
        x = images(2, 3, *image)
        for mine, other in zip(ours.features(x), theirs.forward_intermediates(x)[1], strict=True):
            equal(mine, other)


def files_have_other_names():
    """The authors' merging ends a stage; transformers has older names. Indices are left out."""
    state = randomise(timm()).state_dict()
    wanted = swin.from_timm(state, None)
    authors = {name.replace("head.fc", "head"): tensor for name, tensor in state.items()}
    authors = {n.replace("layers.1.downsample", "layers.0.downsample"): authors[n] for n in authors}
    authors["layers.0.blocks.1.attn_mask"] = torch.zeros(8, 16, 16)
    authors["layers.0.blocks.1.attn.relative_position_index"] = torch.zeros(16, 16)
    same_tensors(swin.from_authors(authors, None), wanted)

    state = randomise(others()[1]).state_dict()
    old = {older(name): tensor for name, tensor in state.items()}
    assert len(old.keys() & state.keys()) < len(state) / 2
    same_tensors(swin.from_transformers(old, None), swin.from_transformers(state, None))


def older(name):
    """The name in release 4 of transformers."""
    for new, before in {
        "relative_position_bias.": "self.",
        "q_proj": "self.query",
        "k_proj": "self.key",
        "v_proj": "self.value",
        "o_proj": "output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }.items():
        name = name.replace(new, before)
    return name


def same_tensors(mine, wanted):
    assert mine.keys() == wanted.keys() == FOUR(SIZES).state_dict().keys()
    assert all(torch.equal(mine[name], wanted[name]) for name in wanted)


# Windows and shifts -------------------------------------------------------------------------------


def layer(window, shift, cls=WindowAttention):
    return randomise(cls(12, 3, window=window, shift=shift)).double()


def windows_are_a_dense_mask():
    """Attention among all tokens, where a loop over pairs says who sees whom, and how far apart.

    Windows form a grid that begins `shift` places in: nothing wraps around.
    """
    for M, shift, h, w in ((4, 2, 8, 12), (3, 1, 9, 6), (4, 0, 8, 12), (4, 2, 4, 8)):
        local, x = layer(M, shift), images(2, h * w, 12)
        down, right = shift if h > M else 0, shift if w > M else 0
        bias = torch.full((3, h * w, h * w), -torch.inf).double()
        for i in range(h * w):
            for j in range(h * w):
                (y, z), (b, c) = divmod(i, w), divmod(j, w)
                same_row = (y - down) // M == (b - down) // M
                if same_row and (z - right) // M == (c - right) // M:
                    bias[:, i, j] = local.position_table[:, y - b + M - 1, z - c + M - 1]
        dense = Attention(12, 3).double()
        dense.load_state_dict(local.state_dict(), strict=False)
        dense.bias = lambda grid, bias=bias: bias[None]
        equal(local(x, (h, w)), dense(x))


def tokens_come_back_to_their_places():
    """Where each token looks at itself alone, nothing changes: on maps that divide, and others."""
    for M, shift, grid in ((4, 2, (8, 12)), (4, 2, (9, 14)), (3, 1, (2, 7)), (5, 0, (5, 13))):
        same = layer(M, shift)
        same.attend = lambda q, k, v, bias: v
        with torch.no_grad():
            same.qkv.weight.copy_(torch.eye(12).repeat(3, 1))
            same.proj.weight.copy_(torch.eye(12))
            same.qkv.bias.zero_()
            same.proj.bias.zero_()
        x = images(2, grid[0] * grid[1], 12)
        assert torch.equal(same(x, grid), x)


def zeros_beyond_the_map_are_tokens():
    """A padded map is the map with tokens of zeros, cut again."""
    local, x = layer(4, 2), images(2, 6 * 9, 12)
    map = torch.zeros(2, 12, 8, 12).double()
    map[..., :6, :9] = x.transpose(1, 2).unflatten(2, (6, 9))
    whole = local(map.flatten(2).transpose(1, 2), (8, 12)).unflatten(1, (8, 12))
    equal(local(x, (6, 9)), whole[:, :6, :9].flatten(1, 2))


def one_window_is_attention():
    """A map no larger than a window is not shifted. Without biases, plain attention remains."""
    local, x = layer(4, 2), images(2, 16, 12)
    relative = RelativeAttention2D.on((4, 4), prefix_len=0)(12, 3).double()
    relative.load_state_dict(local.state_dict())
    equal(local(x, (4, 4)), relative(x, (4, 4)))
    plain = Attention(12, 3).double()
    plain.load_state_dict(local.state_dict(), strict=False)
    nn.init.zeros_(local.position_table)
    equal(local(x, (4, 4)), plain(x))


def the_bias_is_that_of_the_offset():
    """Query minus key. Pairs that lie alike have the same bias, wherever in the window they are."""
    local = layer(3, 0)
    bias, table = local.bias((6, 9))[0], local.position_table
    for i in range(9):
        for j in range(9):
            dy, dx = i // 3 - j // 3, i % 3 - j % 3
            assert torch.equal(bias[:, i, j], table[:, dy + 2, dx + 2])


def unshifted_windows_are_a_bag():
    """Without shifts a stage cannot tell where a window lies: mixed up, the logits are the same."""
    sizes = PyramidConfig((12,), (3,), (2,), (2,), (2.0,), image=(16, 24), classes=7)
    x = images(2, 3, 16, 24)
    order = torch.tensor([3, 5, 0, 4, 2, 1])
    pieces = swin.windows(x, 8).unflatten(0, (2, 6))[:, order].flatten(0, 1)
    mixed = swin.from_windows(pieces, 8, (16, 24))
    fixed = randomise(FOUR.variant(shifted=False)(sizes)).double()
    equal(fixed(mixed), fixed(x))
    shifted = randomise(FOUR(sizes)).double()
    assert (shifted(mixed) - shifted(x)).abs().max() > 1e-3


def tokens_reach_further_with_each_block():
    """How many of 256 tokens the one at (7, 7) depends on, after each block."""
    sizes = PyramidConfig((12,), (4,), (2,), (1,), (2.0,), image=16)
    for shifted, wanted in ((True, [16, 64, 144, 256]), (False, [16] * 4)):
        (stage,) = randomise(FOUR.variant(shifted=shifted)(sizes)).stages
        first = images(1, 256, 12, dtype=torch.float32).requires_grad_()
        reach, x = [], first
        for block in stage.blocks:
            x = block(x, (16, 16))
            (read,) = torch.autograd.grad(x[0, 7 * 16 + 7].sum(), first, retain_graph=True)
            reach.append((read[0] != 0).any(-1).sum().item())
        assert reach == wanted, reach


# Merging, patches, cost ---------------------------------------------------------------------------


def merging_reads_columns_first():
    """Upper left, lower left, upper right, lower right; zeros where an odd map ends."""
    merging = randomise(PatchMerging(4, 6, 2)).double()
    map = images(2, 4, 5, 7)
    x, grid = merging(map)
    assert grid == (3, 4)
    padded = torch.zeros(2, 4, 6, 8).double()
    padded[..., :5, :7] = map
    for y in range(3):
        for z in range(4):
            four = [padded[:, :, 2 * y + b, 2 * z + c] for c in (0, 1) for b in (0, 1)]
            equal(x[:, 4 * y + z], merging.reduction(merging.norm(torch.cat(four, dim=1))))


def operations(model, *inputs):
    """Multiplications, each with its addition. Attention is counted too."""
    with record_attention(model), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return counter.get_total_flops() // 2


def operations_are_those_of_the_formula():
    """The paper's two formulas, and the sum of all layers of Swin-T: 4.5 billion, as reported."""
    h, w, C = 12, 20, 24
    x = images(1, h * w, C)
    for M, shift in ((4, 0), (4, 2), (2, 1)):
        local = WindowAttention(C, 3, window=M, shift=shift).double()
        assert operations(local, x, (h, w)) == 4 * h * w * C**2 + 2 * M**2 * h * w * C
    assert operations(Attention(C, 3).double(), x) == 4 * h * w * C**2 + 2 * (h * w) ** 2 * C

    with torch.device("meta"):
        model, image = Swin(swin.PAPER.configs["swin_t"].sizes).eval(), torch.empty(1, 3, 224, 224)
    total = 56 * 56 * 96 * 48 + 768 * 1000
    for s, depth in enumerate(model.cfg.depths):
        N, C = (56 >> s) ** 2, 96 << s
        total += depth * (12 * N * C**2 + 2 * 49 * N * C) + (N * 2 * C * C if s else 0)
    assert operations(model, image) == total == 4_490_566_656


PROOFS = [
    same_as_timm,
    same_as_timm_with_a_window_for_each_stage,
    same_as_torchvision,
    same_as_transformers,
    the_maps_are_timms,
    files_have_other_names,
    windows_are_a_dense_mask,
    tokens_come_back_to_their_places,
    zeros_beyond_the_map_are_tokens,
    one_window_is_attention,
    the_bias_is_that_of_the_offset,
    unshifted_windows_are_a_bag,
    tokens_reach_further_with_each_block,
    merging_reads_columns_first,
    operations_are_those_of_the_formula,
]


def windows_by_columns(map, M):
    return (
        map.unflatten(3, (-1, M))
        .unflatten(2, (-1, M))
        .permute(0, 2, 4, 5, 3, 1)
        .reshape(-1, M * M, map.shape[1])
    )


def key_minus_query(grid):
    return offset(grid).T


offset = parts.relative_offset


def no_mask(grid, M, shift, device=None):
    return mask(grid, M, shift, device) | True


mask = swin.shifted_mask


def padded_behind_the_roll(self, x, grid):
    (M, _), (h, w) = self.grid, grid
    rows, columns = self.shifts((h + -h % M, w + -w % M))
    map = parts.split(x, grid)[1].roll((-rows, -columns), (2, 3))
    map = nn.functional.pad(map, (0, -w % M, 0, -h % M))
    x = RelativeAttention2D.forward(self, swin.windows(map, M), map.shape[-2:])
    map = swin.from_windows(x, M, map.shape[-2:])[..., :h, :w]
    return map.roll((rows, columns), (2, 3)).flatten(2).transpose(1, 2)


def not_rolled_back(self, x, grid):
    rows, columns = self.shifts(tuple(side + -side % self.grid[0] for side in grid))
    map = window_forward(self, x, grid).unflatten(1, grid).roll((-rows, -columns), (1, 2))
    return map.flatten(1, 2)


window_forward = WindowAttention.forward


def rows_first(self, map):
    return merge(self, map.transpose(2, 3))


merge = PatchMerging.forward


def shift_of_the_first_stage(self, s, i):
    made = attention(self, s, i)
    made.shift = made.shift and self.window[0] // 2
    return made


attention = Swin.attention


def normalised_maps(self, images):
    *maps, last = Pyramid.features(self, images)
    return [*maps, self.norm(last.transpose(1, 3)).transpose(1, 3)]


PLANTED = {
    "windows by columns": ((swin, "windows", windows_by_columns), same_as_timm),
    "key minus query": ((parts, "relative_offset", key_minus_query), same_as_timm),
    "the core's eps": ((Swin, "__init__", Pyramid.__init__), same_as_timm),
    "the first stage's shift": (
        (Swin, "attention", shift_of_the_first_stage),
        same_as_timm_with_a_window_for_each_stage,
    ),
    "padded behind the roll": (
        (WindowAttention, "forward", padded_behind_the_roll),
        same_as_torchvision,
    ),
    "not padded before": (
        (WindowAttention, "forward", padded_behind_the_roll),
        zeros_beyond_the_map_are_tokens,
    ),
    "no mask": ((swin, "shifted_mask", no_mask), same_as_transformers),
    "the last norm in the maps": ((Swin, "features", normalised_maps), the_maps_are_timms),
    "merging where timm has it": ((swin, "from_authors", swin.from_timm), files_have_other_names),
    "wrapped tokens are neighbours": ((swin, "shifted_mask", no_mask), windows_are_a_dense_mask),
    "not rolled back": (
        (WindowAttention, "forward", not_rolled_back),
        tokens_come_back_to_their_places,
    ),
    "a single window is shifted": (
        (WindowAttention, "shifts", lambda self, grid: (self.shift, self.shift)),
        one_window_is_attention,
    ),
    "offsets turned round": (
        (parts, "relative_offset", key_minus_query),
        the_bias_is_that_of_the_offset,
    ),
    "positions": ((Swin, "Position", LearnedPosition), unshifted_windows_are_a_bag),
    "columns are not shifted": (
        (WindowAttention, "shifts", lambda self, grid: (self.shift, 0)),
        tokens_reach_further_with_each_block,
    ),
    "rows first": ((PatchMerging, "forward", rows_first), merging_reads_columns_first),
    "windows of 14": ((Swin, "window", 14), operations_are_those_of_the_formula),
}
