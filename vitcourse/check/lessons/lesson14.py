"""Exercises of lesson 14: better tokens."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.papers.cpvt import PEG
from vitcourse.parts import join, split

# windows that overlap ------------------------------------------------------------------------------


def soft_split(map, kernel, stride, padding):
    """Each window of a map becomes one token: (B, C, H, W) -> (B, N, C*k*k)."""
    windows = F.unfold(map, kernel, padding=padding, stride=stride)  # (B, C*k*k, N)
    return windows.transpose(1, 2)


def hard_split(map, kernel, stride, padding):
    """No overlap."""
    return soft_split(map, kernel, kernel, padding)


def without_zeros(map, kernel, stride, padding):
    """Nothing around the map."""
    return soft_split(map, kernel, stride, 0)


def by_place(map, kernel, stride, padding):
    """F.unfold's third argument is the dilation."""
    return F.unfold(map, kernel, stride, padding).transpose(1, 2)


def exchanged(map, kernel, stride, padding):
    """Stride and padding."""
    return soft_split(map, kernel, padding, stride)


def not_transposed(map, kernel, stride, padding):
    """As F.unfold leaves it."""
    return soft_split(map, kernel, stride, padding).transpose(1, 2)


def only_reshaped(map, kernel, stride, padding):
    """Numbers in the order of memory."""
    x = soft_split(map, kernel, stride, padding)
    return x.transpose(1, 2).reshape(x.shape)


def channels_last(map, kernel, stride, padding):
    """The order of patchify: p q C."""
    x = soft_split(map, kernel, stride, padding)
    return x.unflatten(2, (map.shape[1], -1)).transpose(2, 3).flatten(2)


def columns_inside(map, kernel, stride, padding):
    """Each window read column by column."""
    x = soft_split(map, kernel, stride, padding)
    return x.unflatten(2, (map.shape[1], kernel, kernel)).transpose(3, 4).flatten(2)


def columns_of_windows(map, kernel, stride, padding):
    """Windows counted column by column."""
    x = soft_split(map, kernel, stride, padding)
    w = (map.shape[3] + 2 * padding - kernel) // stride + 1
    return x.unflatten(1, (-1, w)).transpose(1, 2).flatten(1, 2)


def last_missing(map, kernel, stride, padding):
    """Windows that end before the border of the frame."""
    map = F.pad(map, (padding,) * 4)
    return soft_split(map[:, :, :-1, :-1], kernel, stride, 0)


def border_repeated(map, kernel, stride, padding):
    """The outermost values beyond the border."""
    map = F.pad(map, (padding,) * 4, mode="replicate")
    return soft_split(map, kernel, stride, 0)


def averaged(map, kernel, stride, padding):
    """A window's mean."""
    x = F.avg_pool2d(F.pad(map, (padding,) * 4), kernel, stride)
    return x.flatten(2).transpose(1, 2)


SOFT_SPLIT = Exercise(
    name="soft_split",
    lesson="14",
    task="Take windows of kernel x kernel places from a map, `stride` apart, with `padding` zeros "
    "around the map, row by row. Each becomes a token of all its values, channel by channel and row by "
    "row: (B, C, H, W) -> (B, N, C*kernel*kernel).",
    minutes=10,
    difficulty=2,
    reference=soft_split,
    cases=(
        Case(
            about="windows of 5 x 5, two apart, two zeros around",
            inputs=lambda g: (normal(g, 2, 3, 7, 10), 5, 2, 2),
            shape="B N C*k*k",
            sizes=dict(B=2, N=20, C=3, k=5),
        ),
        Case(
            about="windows of 4 x 4, three apart, nothing around",
            inputs=lambda g: (normal(g, 5, 3, 13, 7), 4, 3, 0),
            shape="B N C*k*k",
            sizes=dict(B=5, N=8, C=3, k=4),
        ),
    ),
    hints=(
        "First put the zeros around: F.pad(map, (padding,) * 4). Then the window in row y and column x "
        "of windows begins at the place (y * stride, x * stride).",
        "One window is map[:, :, top : top + kernel, left : left + kernel]; flatten(1) makes (B, "
        "C*kernel*kernel) of it, channel by channel. torch.stack puts the windows on axis 1.",
        "torch.nn.functional.unfold does all of it, and gives (B, C*kernel*kernel, N). Name its "
        "arguments padding= and stride=, and exchange its last two axes.",
    ),
    mistakes=(
        Mistake(
            "no overlap",
            hard_split,
            "Your windows stand a kernel apart, as patches do: from one to the next it is the stride",
        ),
        Mistake(
            "no zeros",
            without_zeros,
            "The zeros around the map are missing: that is what padding asks for",
        ),
        Mistake(
            "arguments by their place",
            by_place,
            "The third argument of F.unfold is the dilation, not the stride: give padding= and stride= by "
            "name",
        ),
        Mistake(
            "stride and padding exchanged",
            exchanged,
            "Stride and padding are exchanged: the stride is the step from window to window, the padding "
            "the zeros around",
        ),
        Mistake(
            "not transposed",
            not_transposed,
            "You have the tokens on the last axis, as F.unfold gives them: exchange the last two axes",
        ),
        Mistake(
            "reshaped",
            only_reshaped,
            "You reshaped (B, C*k*k, N) to (B, N, C*k*k), which mixes the windows: transpose the two axes",
        ),
        Mistake(
            "channels last",
            channels_last,
            "Your tokens hold all channels of a place, then the next place, as patchify does: here it is "
            "channel by channel, as in the weights of a convolution",
        ),
        Mistake(
            "windows read by columns",
            columns_inside,
            "Each window is read column by column: go along its rows",
        ),
        Mistake(
            "windows counted by columns",
            columns_of_windows,
            "Your windows are counted column by column: go along the rows of the map",
        ),
        Mistake(
            "last window missing",
            last_missing,
            "Your last window of a row or column is missing: the last that fits begins at the length "
            "minus the kernel, and range leaves out its end, so add 1",
        ),
        Mistake(
            "border repeated",
            border_repeated,
            "You repeated the border: beyond it there are zeros",
        ),
        Mistake(
            "averaged",
            averaged,
            "You averaged each window: a soft split keeps all its values, one behind the other",
        ),
    ),
)

# a position from the neighbours --------------------------------------------------------------------


class MyPEG(nn.Module):
    """Add to each patch token a weighted sum of its 3x3 neighbours: x (B, T, D), grid -> x."""

    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, x, grid):
        count = grid[0] * grid[1]
        prefix, places = x[:, :-count], x[:, -count:]  # (B, R, D), (B, N, D)
        map = places.transpose(1, 2).unflatten(2, grid)  # (B, D, h, w)
        moved = self.proj(map).flatten(2).transpose(1, 2)  # (B, N, D)
        return torch.cat([prefix, places + moved], dim=1)


class NoResidual(PEG):
    """The convolution alone."""

    def forward(self, x, grid):
        prefix, places = split(x, grid)
        return join(prefix, self.proj(places))


class PrefixConvolved(PEG):
    """The first tokens laid out, whatever they are."""

    def forward(self, x, grid):
        count = grid[0] * grid[1]
        places, rest = x[:, :count], x[:, count:]
        return torch.cat([super().forward(places, grid), rest], dim=1)


class GridTransposed(PEG):
    """Width for height."""

    def forward(self, x, grid):
        return super().forward(x, grid[::-1])


class BareReshape(PEG):
    """(B, N, D) read as if it were (B, D, N)."""

    def forward(self, x, grid):
        prefix, places = x[:, : -grid[0] * grid[1]], x[:, -grid[0] * grid[1] :]
        moved = self.proj(places.reshape(len(x), -1, *grid)).reshape(places.shape)
        return torch.cat([prefix, places + moved], dim=1)


class ReshapedBack(PEG):
    """(B, D, h, w) read as if it were (B, N, D)."""

    def forward(self, x, grid):
        prefix, places = split(x, grid)
        moved = places + self.proj(places)
        return torch.cat([prefix, moved.reshape(len(x), -1, x.shape[2])], dim=1)


class PatchesDoubled(PEG):
    """The residual inside, and outside."""

    def forward(self, x, grid):
        prefix, places = split(x, grid)
        return join(prefix, 2 * places + self.proj(places))


class Rooted(PEG):
    """The square root of N."""

    def forward(self, x, grid):
        side = math.isqrt(grid[0] * grid[1])
        places = x[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, (side, side))
        return join(x[:, : -grid[0] * grid[1]], places + self.proj(places))


class OnePrefixToken(PEG):
    """One, however many there are."""

    def forward(self, x, grid):
        places = x[:, 1:].transpose(1, 2).unflatten(2, grid)
        return join(x[:, :1], places + self.proj(places))


class PrefixDropped(PEG):
    """The map alone."""

    def forward(self, x, grid):
        return super().forward(x[:, -grid[0] * grid[1] :], grid)


class PrefixBehind(PEG):
    """The prefix at the end."""

    def forward(self, x, grid):
        count = grid[0] * grid[1]
        return super().forward(x, grid).roll(count, 1)


class PrefixDoubled(PEG):
    """A residual around all of it."""

    def forward(self, x, grid):
        prefix, places = split(x, grid)
        return x + join(prefix, self.proj(places))


class OnRing(PEG):
    """No border."""

    def __init__(self, dim):
        super().__init__(dim)
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, padding_mode="circular")


class Shrinking(PEG):
    """No padding."""

    def __init__(self, dim):
        super().__init__(dim)
        self.proj.padding = (0, 0)


def peg_case(about, B, R, grid, D):
    """Tokens of a grid behind R prefix tokens."""
    h, w = grid
    return Case(
        about=about,
        inputs=lambda g: (normal(g, B, R + h * w, D), grid),
        shape="B T D",
        sizes=dict(B=B, T=R + h * w, D=D, h=h, w=w),
        build=(D,),
    )


PEG_EXERCISE = Exercise(
    name="peg",
    lesson="14",
    task="Lay the patch tokens out as a map of the grid (h, w), add to each what a depthwise 3x3 "
    "convolution `proj` with zeros beyond the border makes of its neighbours, and put them back behind "
    "the prefix, which passes unchanged: x (B, T, D), grid -> (B, T, D).",
    minutes=12,
    difficulty=2,
    kind="module",
    reference=PEG,
    solution=MyPEG,
    cases=(
        peg_case("a class token", B=2, R=1, grid=(3, 5), D=6),
        peg_case("no prefix", B=3, R=0, grid=(4, 2), D=5),
        peg_case("a class token and four registers", B=2, R=5, grid=(6, 3), D=4),
    ),
    hints=(
        "Depthwise means groups=dim: each channel has a kernel of its own, so the weight of "
        "nn.Conv2d(dim, dim, ...) has the shape (D, 1, 3, 3). padding=1 keeps the size of the map.",
        "The patches are the last h * w tokens. places.transpose(1, 2).unflatten(2, grid) makes the map "
        "(B, D, h, w) of them; `split` in vitcourse.parts does both.",
        "Add self.proj(map) to the map. Then flatten(2).transpose(1, 2), and torch.cat with the prefix in "
        "front; that is what `join` does.",
    ),
    mistakes=(
        Mistake(
            "no residual",
            NoResidual,
            "Your tokens are replaced by what is around them: add the convolution to the map",
        ),
        Mistake(
            "class token convolved",
            PrefixConvolved,
            "You laid out the first h * w tokens, the class token among them: the patches are the last "
            "ones, and the prefix has no place on the map",
        ),
        Mistake(
            "grid transposed",
            GridTransposed,
            "Height and width are exchanged: the grid is (h, w), and tokens go row by row",
        ),
        Mistake(
            "reshaped",
            BareReshape,
            "You reshaped (B, N, D) to (B, D, h, w), which mixes tokens and channels: transpose first",
        ),
        Mistake(
            "reshaped back",
            ReshapedBack,
            "You reshaped (B, D, h, w) to (B, N, D) at the end, which mixes tokens and channels: "
            "flatten(2), then transpose",
        ),
        Mistake(
            "patches doubled",
            PatchesDoubled,
            "Your patches count twice: x is added to the map once",
        ),
        Mistake(
            "square root",
            Rooted,
            "You took the square root of the number of patches: a map need not be square, the grid says "
            "what it is",
        ),
        Mistake(
            "one prefix token",
            OnePrefixToken,
            "You took the prefix to be one token: there may be none, or several, and the patches are the "
            "last h * w",
        ),
        Mistake(
            "prefix dropped",
            PrefixDropped,
            "The prefix is gone: put it in front again, unchanged",
        ),
        Mistake(
            "prefix behind",
            PrefixBehind,
            "Your prefix stands behind the patches: it comes first",
        ),
        Mistake(
            "prefix doubled",
            PrefixDoubled,
            "You added x to the whole, so the prefix counts twice: add to the patches alone",
        ),
        Mistake(
            "no border",
            OnRing,
            "Your map is a ring, whose last column lies beside its first: with zeros beyond the border a "
            "token can tell where it is",
        ),
        Mistake(
            "no padding",
            Shrinking,
            "Your map shrinks: padding=1 keeps its size, so that it can be added",
        ),
    ),
)

# a handful of tokens -------------------------------------------------------------------------------


def gather_tokens(pixels, filters):
    """Each filter gathers one token: pixels (B, N, D), filters (L, D) -> tokens (B, L, D)."""
    scores = pixels @ filters.T  # (B, N, L)
    weights = scores.softmax(dim=1)  # over the pixels
    return weights.transpose(1, 2) @ pixels  # (B, L, D)


def gathered(weights, pixels):
    """Weights (B, N, L) and pixels -> tokens."""
    return weights.transpose(1, 2) @ pixels


def over_tokens(pixels, filters):
    """Each pixel is shared out among the tokens."""
    return gathered((pixels @ filters.T).softmax(dim=2), pixels)


def over_images(pixels, filters):
    """The softmax down the batch."""
    return gathered((pixels @ filters.T).softmax(dim=0), pixels)


def no_softmax(pixels, filters):
    """Scores for weights."""
    return gathered(pixels @ filters.T, pixels)


def sigmoids(pixels, filters):
    """Weights that do not sum to one."""
    return gathered((pixels @ filters.T).sigmoid(), pixels)


def scaled(pixels, filters):
    """As attention does it."""
    scores = pixels @ filters.T * filters.shape[1] ** -0.5
    return gathered(scores.softmax(dim=1), pixels)


def mean_taken(pixels, filters):
    """Divided by N once more."""
    return gather_tokens(pixels, filters) / pixels.shape[1]


def best_pixel(pixels, filters):
    """The pixel with the highest score."""
    best = (pixels @ filters.T).argmax(dim=1)  # (B, L)
    return pixels.gather(1, best[..., None].expand(-1, -1, pixels.shape[2]))


def all_alike(pixels, filters):
    """The mean of the pixels for every token."""
    return pixels.mean(dim=1, keepdim=True).expand(-1, len(filters), -1) + 0 * filters


def asked_back(pixels, filters):
    """Filters in place of pixels."""
    weights = (pixels @ filters.T).softmax(dim=1)  # (B, N, L)
    return weights.sum(dim=1)[..., None] * filters


def handed_back(pixels, filters):
    """What a projector does."""
    return (pixels @ filters.T).softmax(dim=2) @ filters


def transposed(pixels, filters):
    """(B, D, L)."""
    return gather_tokens(pixels, filters).transpose(1, 2)


GATHER_TOKENS = Exercise(
    name="gather_tokens",
    lesson="14",
    task="Each of L filters scores all pixels by a dot product. A softmax makes weights of its scores, "
    "which sum to one over the pixels, and the token is the sum of the pixels by these weights: pixels "
    "(B, N, D), filters (L, D) -> tokens (B, L, D).",
    minutes=8,
    difficulty=2,
    reference=gather_tokens,
    cases=(
        Case(
            about="four filters",
            inputs=lambda g: (normal(g, 2, 11, 5), normal(g, 4, 5)),
            shape="B L D",
            sizes=dict(B=2, L=4, D=5, N=11),
        ),
        Case(
            about="one filter",
            inputs=lambda g: (normal(g, 3, 7, 6), normal(g, 1, 6)),
            shape="B L D",
            sizes=dict(B=3, L=1, D=6, N=7),
        ),
    ),
    hints=(
        "Scores first: every pixel with every filter, (B, N, L).",
        "Which axis must sum to one? A token is a mixture of pixels: for each token, the weights of all N "
        "pixels sum to one.",
        "scores.softmax(dim=1), then transpose(1, 2) makes the weights (B, L, N), and a product with the "
        "pixels (B, N, D) gives the tokens.",
    ),
    mistakes=(
        Mistake(
            "softmax over tokens",
            over_tokens,
            "Your softmax runs over the tokens, so that each pixel is shared out among them: the weights "
            "of one token must sum to one over the pixels",
        ),
        Mistake(
            "softmax over images",
            over_images,
            "Your softmax runs over the images of the batch: each image has weights of its own, dim=1",
        ),
        Mistake(
            "no softmax",
            no_softmax,
            "You took the scores themselves for weights: a softmax over the pixels makes weights of them",
        ),
        Mistake(
            "sigmoid",
            sigmoids,
            "You took a sigmoid, so the weights of a token do not sum to one: take a softmax over the "
            "pixels",
        ),
        Mistake(
            "divided by the root of D",
            scaled,
            "You divided the scores by the root of D, as attention does: the equation here has no scale",
        ),
        Mistake(
            "divided by N",
            mean_taken,
            "You divided by the number of pixels, too: the weights sum to one, so add up",
        ),
        Mistake(
            "the best pixel",
            best_pixel,
            "You took the pixel with the highest score alone: all pixels count, by their weights, and "
            "only so the filters get a gradient",
        ),
        Mistake(
            "the mean",
            all_alike,
            "All your tokens are the mean of the pixels: let the filters weigh them",
        ),
        Mistake(
            "filters added up",
            asked_back,
            "You added up filters: the token is made of pixels",
        ),
        Mistake(
            "pixels ask",
            handed_back,
            "You let the pixels ask, which is what the projector does at the end: here the filters ask",
        ),
        Mistake(
            "axes exchanged",
            transposed,
            "Your tokens are columns, (B, D, L): exchange the last two axes",
        ),
    ),
)

# numbers -------------------------------------------------------------------------------------------

SIDE = (224 - 16) // 8 + 1

OVERLAPPING_TOKENS = Exercise(
    name="overlapping_tokens",
    lesson="14",
    task="The first patches of PiT-S have 16 x 16 pixels and stand 8 apart, with nothing around the "
    "image: how many does an image of 224 x 224 have?",
    minutes=4,
    difficulty=1,
    kind="number",
    reference=SIDE**2,
    cases=(),
    hints=(
        "Along one side: the first window begins at pixel 0. Where does the last one begin that still "
        "fits?",
        "It begins at 224 - 16 = 208. They begin at 0, 8, 16, ... 208: how many is that?",
        "(224 - 16) // 8 + 1 along each side. There are as many rows of them as columns.",
    ),
    mistakes=(
        Mistake(
            "as if padded",
            (224 // 8) ** 2,
            "You divided 224 by 8: the last window would begin at 216 and end at 232, beyond the image",
        ),
        Mistake(
            "no overlap",
            (224 // 16) ** 2,
            "Those are patches side by side: here they stand 8 pixels apart",
        ),
        Mistake(
            "one side",
            SIDE,
            "That is how many stand along one side: the image has two",
        ),
        Mistake(
            "class token",
            SIDE**2 + 1,
            "You counted the class token, too: it is no patch",
        ),
        Mistake(
            "the first forgotten",
            (SIDE - 1) ** 2,
            "That is the number of steps along a side, squared: there is one window more than steps",
        ),
    ),
)

EXERCISES = (SOFT_SPLIT, PEG_EXERCISE, GATHER_TOKENS, OVERLAPPING_TOKENS)

QUESTIONS = {
    "tokens that the first soft split of T2T-ViT makes of an image of 224 x 224": (
        3136,
        "Windows of 7 x 7, 4 apart, 2 zeros around: (224 + 4 - 7) // 4 + 1 = 56 along each side.",
        {
            196: "So many there are after the third split.",
            784: "So many there are after the second split.",
            56: "That is the number along one side.",
            3025: "Without the zeros around the image it would be 55 along each side.",
            1024: "The windows are 7 wide, but from one to the next it is 4 pixels.",
        },
    ),
    "numbers that the PEG of CPVT-Ti learns, where D is 192": (
        1920,
        "Each channel has nine weights and a bias.",
        {
            1728: "Nine weights for each channel: each has a bias, too.",
            331968: "So many it would be if each channel saw all channels: it sees itself alone.",
            331776: "So many weights it would have if each channel saw all channels.",
            37824: "That is the position table that goes: 197 rows of 192.",
            10: "So many for each channel.",
        },
    ),
    "attention scores in one block of the Visual Transformer, with 16 tokens and 196 pixels": (
        6528,
        "Filters ask pixels, 16 x 196; tokens ask tokens, 16 x 16; pixels ask tokens, 196 x 16.",
        {
            38416: "That is what it would be if pixels asked pixels.",
            3136: "That is the tokenizer: tokens also ask tokens, and pixels ask tokens.",
            6272: "Tokenizer and projector: between them tokens ask tokens.",
            256: "That is the transformer alone.",
            3392: "Tokenizer and transformer: in the end the pixels ask the tokens.",
        },
    ),
}
