"""Exercises of lesson 16: many scales."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.papers import swin
from vitcourse.papers.pvt import ReducedAttention

# shifted windows ----------------------------------------------------------------------------------


def package_weights(scores, grid, M, shift):
    """The package's mask."""
    sees = swin.shifted_mask(grid, M, (shift, shift), scores.device)  # (n, T, T)
    return scores.masked_fill(~sees, float("-inf")).softmax(dim=-1)


def shifted_weights(scores, grid, M, shift):
    """Softmax over those keys of a window that are the query's neighbours: (B, n, T, T), the same."""
    h, w = grid
    below = torch.arange(h, device=scores.device) >= h - shift  # (h,), came in from above
    right = torch.arange(w, device=scores.device) >= w - shift  # (w,), came in from the left
    region = 2 * below[:, None] + right  # (h, w), one number for each of four regions
    region = rearrange(region, "(y p) (x q) -> (y x) (p q)", p=M, q=M)  # (n, T)
    apart = region[:, :, None] != region[:, None]  # (n, T, T)
    return scores.masked_fill(apart, float("-inf")).softmax(dim=-1)


def by_region(scores, region, M):
    """A softmax over the keys of the same region: (h, w) -> weights."""
    region = swin.windows(region[None, None].to(scores.device), M)  # (n, T, 1)
    return scores.masked_fill(region != region.mT, float("-inf")).softmax(dim=-1)


def two_axes(grid, shift):
    """Which rows and columns came in again: bool (h, 1), (1, w)."""
    h, w = grid
    return (torch.arange(h) >= h - shift)[:, None], (torch.arange(w) >= w - shift)[None]


def not_masked(scores, grid, M, shift):
    """Attention inside windows."""
    return scores.softmax(dim=-1)


def rows_only(scores, grid, M, shift):
    """What came in from the left is not told apart."""
    below, right = two_axes(grid, shift)
    return by_region(scores, 2 * below + 0 * right, M)


def columns_only(scores, grid, M, shift):
    """What came in from above is not told apart."""
    below, right = two_axes(grid, shift)
    return by_region(scores, 0 * below + 1 * right, M)


def added_up(scores, grid, M, shift):
    """Two regions with one number."""
    below, right = two_axes(grid, shift)
    return by_region(scores, 1 * below + 1 * right, M)


def at_the_other_end(scores, grid, M, shift):
    """The first rows and columns."""
    (h, w), region = grid, 0
    for axis, n in ((0, h), (1, w)):
        first = (torch.arange(n) < shift).long()
        region = 2 * region + (first[:, None] if axis == 0 else first[None])
    return by_region(scores, region, M)


def what_stayed(scores, grid, M, shift):
    """M - shift rows in the place of shift."""
    return package_weights(scores, grid, M, M - shift)


def grid_transposed(scores, grid, M, shift):
    """Rows of h places."""
    return package_weights(scores, grid[::-1], M, shift)


def regions_by_columns(scores, grid, M, shift):
    """Windows column by column."""
    below, right = two_axes(grid, shift)
    region = (2 * below + right).to(scores.device)
    region = rearrange(region, "(y p) (x q) -> (x y) (p q)", p=M, q=M)
    apart = region[:, :, None] != region[:, None]
    return scores.masked_fill(apart, float("-inf")).softmax(dim=-1)


def zero_scores(scores, grid, M, shift):
    """exp(0) is one."""
    sees = swin.shifted_mask(grid, M, (shift, shift), scores.device)
    return (scores * sees).softmax(dim=-1)


def not_shared_out(scores, grid, M, shift):
    """Weights cut after the softmax."""
    sees = swin.shifted_mask(grid, M, (shift, shift), scores.device)
    return scores.softmax(dim=-1) * sees


def over_queries(scores, grid, M, shift):
    """The softmax down the columns."""
    return package_weights(scores.mT, grid, M, shift).mT


def half_a_window(scores, grid, M, shift):
    """M // 2 in the place of shift."""
    return package_weights(scores, grid, M, M // 2)


def one_too_few(scores, grid, M, shift):
    """> in the place of >=."""
    return package_weights(scores, grid, M, shift - 1)


def cut_in_a_row(scores, grid, M, shift):
    """M*M numbers that follow each other, in the place of a window."""
    below, right = two_axes(grid, shift)
    region = (2 * below + right).reshape(-1, M * M).to(scores.device)
    return scores.masked_fill(region[:, :, None] != region[:, None], float("-inf")).softmax(dim=-1)


def scores_back(scores, grid, M, shift):
    """No softmax."""
    return scores.masked_fill(
        ~swin.shifted_mask(grid, M, (shift, shift), scores.device), float("-inf")
    )


def window_scores(B, grid, M, shift):
    """Scores inside each window of a map."""
    n, T = grid[0] * grid[1] // M**2, M**2
    return lambda g: (normal(g, B, n, T, T), grid, M, shift)


SHIFTED_WEIGHTS = Exercise(
    name="shifted_weights",
    lesson="16",
    task="Attention weights inside the windows of a map (h, w) that was rolled up and left by `shift`: "
    "scores (B, n, T, T) -> weights (B, n, T, T), where T = M*M. A key that stands beside the query only "
    "because the map was rolled gets the weight zero, and rows sum to one. Windows, and the tokens inside "
    "them, follow each other row by row.",
    minutes=15,
    difficulty=3,
    reference=package_weights,
    solution=shifted_weights,
    cases=(
        Case(
            about="windows of 3 x 3, shifted by 1",
            inputs=window_scores(2, (6, 12), 3, 1),
            shape="B n T T",
            sizes={"B": 2, "n": 8, "T": 9, "M": 3, "h": 6, "w": 12},
        ),
        Case(
            about="windows of 4 x 4, shifted by 3",
            inputs=window_scores(3, (8, 12), 4, 3),
            shape="B n T T",
            sizes={"B": 3, "n": 6, "T": 16, "M": 4, "h": 8, "w": 12},
        ),
    ),
    hints=(
        "After the roll, the last `shift` rows are those that left above, and the last `shift` columns "
        "those that left at the left. That cuts the map into four regions. Give each its number: (h, w).",
        "Cut the map of numbers into windows, as patchify cuts an image: (n, T). Two tokens may see "
        "each other if their numbers are equal: region[:, :, None] == region[:, None] is (n, T, T).",
        '2 * below[:, None] + right gives four numbers. masked_fill(apart, float("-inf")) before the '
        "softmax takes keys away, and the others share their part.",
    ),
    mistakes=(
        Mistake(
            "not masked",
            not_masked,
            "All tokens of your windows see each other: those that came in at the other side are no "
            "neighbours",
        ),
        Mistake(
            "rows only",
            rows_only,
            "You told apart what came in from above: what came in from the left counts, too",
        ),
        Mistake(
            "columns only",
            columns_only,
            "You told apart what came in from the left: what came in from above counts, too",
        ),
        Mistake(
            "two regions with one number",
            added_up,
            "Two of your four regions have the same number, 0 + 1 and 1 + 0: count one of the two twice",
        ),
        Mistake(
            "the other end",
            at_the_other_end,
            "You cut off the first rows and columns: a map that is rolled up and left comes in again at "
            "the end",
        ),
        Mistake(
            "what stayed",
            what_stayed,
            "You cut off M - shift rows and columns: `shift` of them came in again",
        ),
        Mistake(
            "half a window",
            half_a_window,
            "You shifted by M // 2: take the number `shift`",
        ),
        Mistake(
            "one too few",
            one_too_few,
            "You left out the first row and column that came in again, h - shift and w - shift: >=, not >",
        ),
        Mistake(
            "cut in a row",
            cut_in_a_row,
            "You cut the map of regions into runs of M*M numbers: cut it into windows, as patchify cuts",
        ),
        Mistake(
            "no softmax",
            scores_back,
            "You gave scores back: their softmax over the keys is missing",
        ),
        Mistake(
            "grid transposed",
            grid_transposed,
            "You exchanged h and w: the map has h rows of w places",
        ),
        Mistake(
            "windows by columns",
            regions_by_columns,
            "Your windows follow each other column by column: they go row by row, as the scores do",
        ),
        Mistake(
            "zero scores",
            zero_scores,
            "You set scores to zero, and exp(0) is one: set them to minus infinity",
        ),
        Mistake(
            "not shared out",
            not_shared_out,
            "You took weights away after the softmax, so rows no longer sum to one: take the scores away "
            "before it",
        ),
        Mistake(
            "softmax over the queries",
            over_queries,
            "Your softmax runs over the queries: it runs over the keys, the last axis",
        ),
    ),
)

# four places become one ---------------------------------------------------------------------------


class PackageMerging(swin.PatchMerging):
    """The package's layer, without the grid."""

    def __init__(self, channels):
        super().__init__(channels, 2 * channels, 2)

    def forward(self, map):
        return super().forward(map)[0]


class Merging(nn.Module):
    """Four neighbours become one token, twice as wide: map (B, C, h, w) -> x (B, N, 2C)."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, map):
        x = rearrange(map, "B C (h p) (w q) -> B (h w) (q p C)", p=2, q=2)  # (B, N, 4C)
        return self.reduction(self.norm(x))  # (B, N, 2C)


class Arranged(PackageMerging):
    """The four in another arrangement."""

    pattern = ""

    def forward(self, map):
        x = rearrange(map, self.pattern, p=2, q=2)
        return self.reduction(self.norm(x))


class RowByRow(Arranged):
    """Upper left, upper right, lower left, lower right."""

    pattern = "B C (h p) (w q) -> B (h w) (p q C)"


class ChannelByChannel(Arranged):
    """The four numbers of a channel side by side."""

    pattern = "B C (h p) (w q) -> B (h w) (C p q)"


class Quarters(Arranged):
    """One from each quarter of the map."""

    pattern = "B C (p h) (q w) -> B (h w) (q p C)"


class TokensByColumns(Arranged):
    """The new tokens counted column by column."""

    pattern = "B C (h p) (w q) -> B (w h) (q p C)"


class Clockwise(PackageMerging):
    """Upper left, upper right, lower right, lower left."""

    def forward(self, map):
        a, b = map[..., ::2, ::2], map[..., ::2, 1::2]
        c, d = map[..., 1::2, 1::2], map[..., 1::2, ::2]
        x = torch.cat([a, b, c, d], dim=1).flatten(2).mT
        return self.reduction(self.norm(x))


class InARow(PackageMerging):
    """Four tokens that follow each other."""

    def forward(self, map):
        x = map.flatten(2).mT.reshape(len(map), -1, 4 * map.shape[1])
        return self.reduction(self.norm(x))


class Reshaped(PackageMerging):
    """Channels and places mixed up on the way out."""

    def forward(self, map):
        x = rearrange(map, "B C (h p) (w q) -> B (q p C) (h w)", p=2, q=2)
        return self.reduction(self.norm(x.reshape(len(map), -1, x.shape[1])))


class NotNormalised(PackageMerging):
    """Without the norm."""

    def forward(self, map):
        x = rearrange(map, "B C (h p) (w q) -> B (h w) (q p C)", p=2, q=2)
        return self.reduction(x)


class EachNormalised(PackageMerging):
    """Each of the four by itself."""

    def forward(self, map):
        x = rearrange(map, "B C (h p) (w q) -> B (h w) (q p) C", p=2, q=2)
        x = F.layer_norm(x, x.shape[-1:]).flatten(2)
        return self.reduction(x * self.norm.weight + self.norm.bias)


class StillAMap(PackageMerging):
    """(B, 2C, h/2, w/2)."""

    def forward(self, map):
        x = super().forward(map)
        return x.mT.unflatten(2, (map.shape[2] // 2, map.shape[3] // 2))


PATCH_MERGING = Exercise(
    name="patch_merging",
    lesson="16",
    task="A module with LayerNorm norm (4C) and Linear reduction (4C to 2C, without bias) that makes one "
    "token of each 2 x 2 places: map (B, C, h, w) -> x (B, N, 2C), N = h/2 * w/2, row by row. The four "
    "stand behind each other column by column: upper left, lower left, upper right, lower right.",
    minutes=10,
    difficulty=2,
    kind="module",
    reference=PackageMerging,
    solution=Merging,
    tolerance=1e-4,
    cases=(
        Case(
            about="a map of 4 x 6",
            build=(5,),
            inputs=lambda g: (normal(g, 2, 5, 4, 6),),
            shape="B N 2*C",
            sizes={"B": 2, "N": 6, "C": 5},
        ),
        Case(
            about="a map of 10 x 4",
            build=(7,),
            inputs=lambda g: (normal(g, 3, 7, 10, 4),),
            shape="B N 2*C",
            sizes={"B": 3, "N": 10, "C": 7},
        ),
    ),
    hints=(
        "map[:, :, ::2, ::2] are the upper left places of all groups: (B, C, h/2, w/2). Take the other "
        "three in the same way.",
        "Put the four behind each other along the channels, in the order of the task: (B, 4C, h/2, w/2). "
        "Then make it a sequence: flatten the places, channels last.",
        "norm comes before reduction, and sees all 4C numbers of a group at once. Nothing follows.",
    ),
    mistakes=(
        Mistake(
            "row by row",
            RowByRow,
            "Your four stand row by row: the published weights want upper left, lower left, upper right, "
            "lower right",
        ),
        Mistake(
            "channel by channel",
            ChannelByChannel,
            "You put the four numbers of each channel together: all channels of the first place come "
            "first, then those of the next",
        ),
        Mistake(
            "quarters of the map",
            Quarters,
            "You put places together that lie half a map apart: the four are neighbours",
        ),
        Mistake(
            "tokens by columns",
            TokensByColumns,
            "Your tokens follow each other column by column: they go row by row",
        ),
        Mistake(
            "clockwise",
            Clockwise,
            "Your four go round in a circle: lower left comes second, and lower right last",
        ),
        Mistake(
            "four in a row",
            InARow,
            "You put four tokens of the sequence together: two of the four lie in the next row",
        ),
        Mistake(
            "reshaped",
            Reshaped,
            "You reshaped a map into tokens: move the channels to the end by a transpose",
        ),
        Mistake(
            "not normalised",
            NotNormalised,
            "Your numbers are not normalised before the reduction",
        ),
        Mistake(
            "each normalised by itself",
            EachNormalised,
            "You normalised each place by itself: the norm sees all 4C numbers of a group at once",
        ),
        Mistake(
            "still a map",
            StillAMap,
            "Your result is still a map: give back a sequence, row by row, channels last",
        ),
    ),
)

# fewer keys ---------------------------------------------------------------------------------------


class PackageReduction(nn.Module):
    """The package's way to the keys."""

    def __init__(self, dim, reduction):
        super().__init__()
        self.reduction = reduction
        self.sr = nn.Conv2d(dim, dim, kernel_size=reduction, stride=reduction)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x, grid):
        return ReducedAttention.reduced(self, x, grid)


class SmallerMap(nn.Module):
    """What SRA attends to: x (B, N, D), grid (h, w) -> (B, S, D)."""

    def __init__(self, dim, reduction):
        super().__init__()
        self.sr = nn.Conv2d(dim, dim, kernel_size=reduction, stride=reduction)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x, grid):
        map = x.mT.unflatten(2, grid)  # (B, D, h, w)
        map = self.sr(map)  # (B, D, h/R, w/R)
        return self.norm(map.flatten(2).mT)  # (B, S, D)


class Unnormalised(PackageReduction):
    """Without the norm."""

    def forward(self, x, grid):
        return self.sr(x.mT.unflatten(2, grid)).flatten(2).mT


class NormalisedBefore(PackageReduction):
    """The norm first."""

    def forward(self, x, grid):
        return self.sr(self.norm(x).mT.unflatten(2, grid)).flatten(2).mT


class MapTransposed(PackageReduction):
    """w rows of h places."""

    def forward(self, x, grid):
        return super().forward(x, grid[::-1])


class Reshaped(PackageReduction):
    """Channels and places mixed up on the way in."""

    def forward(self, x, grid):
        map = x.reshape(len(x), -1, *grid)
        return self.norm(self.sr(map).flatten(2).mT)


class ReshapedBack(PackageReduction):
    """Channels and places mixed up on the way out."""

    def forward(self, x, grid):
        map = self.sr(x.mT.unflatten(2, grid))
        return self.norm(map.reshape(len(x), -1, x.shape[-1]))


class Averaged(PackageReduction):
    """A mean in the place of the convolution."""

    def forward(self, x, grid):
        map = F.avg_pool2d(x.mT.unflatten(2, grid), self.reduction)
        return self.norm(map.flatten(2).mT)


class EachStep(PackageReduction):
    """A convolution that moves by one."""

    def forward(self, x, grid):
        map = F.conv2d(x.mT.unflatten(2, grid), self.sr.weight, self.sr.bias)
        return self.norm(map.flatten(2).mT)


class ChannelsBeforeKeys(PackageReduction):
    """(B, D, S)."""

    def forward(self, x, grid):
        return super().forward(x, grid).mT


class Activated(PackageReduction):
    """A GELU that nobody asked for."""

    def forward(self, x, grid):
        map = F.gelu(self.sr(x.mT.unflatten(2, grid)))
        return self.norm(map.flatten(2).mT)


class EveryOther(PackageReduction):
    """One place of each window, and the matrices of the others left out."""

    def forward(self, x, grid):
        map = F.conv2d(
            x.mT.unflatten(2, grid), self.sr.weight[..., :1, :1], self.sr.bias, self.reduction
        )
        h, w = (side // self.reduction for side in grid)
        return self.norm(map[..., :h, :w].flatten(2).mT)


def tokens_case(about, B, grid, dim, reduction):
    """Tokens of a map for a layer of that width."""
    S = grid[0] // reduction * (grid[1] // reduction)
    return Case(
        about=about,
        build=(dim, reduction),
        inputs=lambda g: (normal(g, B, grid[0] * grid[1], dim), grid),
        shape="B S D",
        sizes={"B": B, "N": grid[0] * grid[1], "S": S, "D": dim},
    )


REDUCE_MAP = Exercise(
    name="reduce_map",
    lesson="16",
    task="What PVT attends to: a module with Conv2d sr (dim to dim, kernel and stride `reduction`) and "
    "LayerNorm norm (dim). Tokens x (B, N, D) of a grid (h, w), row by row, come in; a token for each "
    "window comes out, row by row: (B, S, D).",
    minutes=10,
    difficulty=2,
    kind="module",
    reference=PackageReduction,
    solution=SmallerMap,
    tolerance=1e-4,
    cases=(
        tokens_case("windows of 2 x 2", B=2, grid=(4, 6), dim=5, reduction=2),
        tokens_case("windows of 3 x 3", B=3, grid=(6, 12), dim=7, reduction=3),
        tokens_case("a map that windows do not fill", B=2, grid=(7, 9), dim=5, reduction=2),
    ),
    hints=(
        "A convolution wants a map (B, D, h, w). The tokens are (B, N, D): put the channels first, "
        "x.mT, then cut N into the grid, unflatten(2, grid).",
        "What comes out of sr is a map (B, D, h/R, w/R). Make it a sequence again: flatten(2), and the "
        "channels back to the end.",
        "norm comes last, over the channels of each key. Rows and columns that fill no window are left "
        "out by the convolution itself.",
    ),
    mistakes=(
        Mistake(
            "norm forgotten",
            Unnormalised,
            "Your keys are not normalised: norm comes after the convolution",
        ),
        Mistake(
            "norm first",
            NormalisedBefore,
            "You normalised the tokens before the convolution: norm comes after it",
        ),
        Mistake(
            "grid transposed",
            MapTransposed,
            "You exchanged h and w: the map has h rows of w places",
        ),
        Mistake(
            "reshaped on the way in",
            Reshaped,
            "You reshaped tokens into a map: move the channels to the front first, or they are mixed up "
            "with places",
        ),
        Mistake(
            "reshaped on the way out",
            ReshapedBack,
            "You reshaped the map into tokens: move the channels to the end by a transpose",
        ),
        Mistake(
            "averaged",
            Averaged,
            "You took the mean of each window: sr weighs each of its places by a matrix of its own",
        ),
        Mistake(
            "step by step",
            EachStep,
            "Your convolution moves by one: its windows do not overlap, so its stride is `reduction`",
        ),
        Mistake(
            "channels first",
            ChannelsBeforeKeys,
            "Your channels come before the keys: give back a sequence, channels last",
        ),
        Mistake(
            "an activation",
            Activated,
            "You put an activation behind the convolution: there is none",
        ),
        Mistake(
            "one place of each window",
            EveryOther,
            "Your kernel reads one place of each window: it reads all of them",
        ),
    ),
)

EXERCISES = (SHIFTED_WEIGHTS, PATCH_MERGING, REDUCE_MAP)

QUESTIONS = {
    "tokens that reach one in the middle of 16 x 16, after a block with windows of 4 x 4 and a shifted one": (
        64,
        "The shifted window holds parts of four windows, and each of them has 16 tokens.",
        {
            16: "That is one block: the second window reaches into others.",
            32: "Two windows? The second one is shifted both ways, so it meets four.",
            49: "That would be a window of 7 x 7 around it: whole windows are reached.",
            144: "That is after three blocks.",
            256: "That is the whole map: it takes four blocks.",
        },
    ),
    "keys that a query in PVT-Tiny's first block has, for an image of 224 x 224": (
        49,
        "56 x 56 tokens, one key for each 8 x 8 of them: 7 x 7.",
        {
            3136: "Those are the tokens: keys are made of windows of 8 x 8.",
            392: "You divided by 8 once: a window is 8 high and 8 wide.",
            64: "Those are the tokens that one key is made of.",
            7: "That is one row of keys.",
            196: "Those are the patches of 16 x 16: PVT begins with 4 x 4.",
        },
    ),
    "pixel tokens that the inner blocks of TNT-S see, for an image of 224 x 224": (
        3136,
        "196 patches, 4 x 4 pixel tokens in each.",
        {
            196: "Those are the patches: how many pixel tokens has each?",
            16: "Those are the pixel tokens of one patch.",
            50176: "Those are the pixels: a pixel token stands for 4 x 4 of them.",
            3137: "The class token has no pixels.",
        },
    ),
}
