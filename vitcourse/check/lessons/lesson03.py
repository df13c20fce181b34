"""Exercises of lesson 03: a token knows its place."""

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.parts import sincos
from vitcourse.vit import resize_position

# a learned vector for each place -------------------------------------------------------------------


class Position(nn.Module):
    """Add a learned vector for each place: x (B, T, D) -> (B, T, D)."""

    def __init__(self, dim, tokens):
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(1, tokens, dim))

    def forward(self, x):
        return x + self.table


class PositionMultiplied(Position):
    """Multiplied."""

    def forward(self, x):
        return x * self.table


class PositionAsChannels(Position):
    """Put beside the tokens."""

    def forward(self, x):
        return torch.cat([x, self.table.expand_as(x)], dim=2)


class PositionAsTokens(Position):
    """Put behind the tokens."""

    def forward(self, x):
        return torch.cat([x, self.table.expand_as(x)], dim=1)


class SamePosition(Position):
    """The first row for every token."""

    def forward(self, x):
        return x + self.table[:, :1]


class PositionOfPatches(Position):
    """The class token without a position."""

    def forward(self, x):
        return torch.cat([x[:, :1], x[:, 1:] + self.table[:, 1:]], dim=1)


class PositionOfFirstImage(Position):
    """The other images without positions."""

    def forward(self, x):
        return torch.cat([x[:1] + self.table, x[1:]])


class PositionAlone(Position):
    """The table in place of the tokens."""

    def forward(self, x):
        return self.table.expand_as(x)


ADD_POSITION = Exercise(
    name="add_position",
    lesson="03",
    task="A module Position(dim, tokens) that adds its parameter table (1, T, D) to the tokens (B, T, D).",
    minutes=5,
    difficulty=1,
    kind="module",
    reference=Position,
    cases=(
        Case(
            about="three images",
            build=(7, 6),
            inputs=lambda g: (normal(g, 3, 6, 7),),
            shape="B T D",
            sizes=dict(B=3, T=6, D=7),
        ),
    ),
    hints=(
        "Each place has a vector of its own, as wide as a token, and it is the same for all images.",
        "The table is an nn.Parameter of shape (1, tokens, dim). The 1 lets it be added to any number of "
        "images.",
        "In __init__: self.table = nn.Parameter(0.02 * torch.randn(1, tokens, dim)). In forward: "
        "return x + self.table.",
    ),
    mistakes=(
        Mistake(
            "multiplied",
            PositionMultiplied,
            "You multiplied by the positions: they are added, so that a small table leaves the tokens "
            "almost as they were",
        ),
        Mistake(
            "beside the tokens",
            PositionAsChannels,
            "You put the positions beside the tokens, which makes every token twice as wide: they are added",
        ),
        Mistake(
            "behind the tokens",
            PositionAsTokens,
            "You put the positions behind the tokens, as more tokens: they are added to those that are there",
        ),
        Mistake(
            "one for all",
            SamePosition,
            "Every token got the first row of the table, so none can tell its place: each place has its own "
            "row",
        ),
        Mistake(
            "patches only",
            PositionOfPatches,
            "Only the patches got a position: the class token has one, too, the first row of the table",
        ),
        Mistake(
            "first image only",
            PositionOfFirstImage,
            "Only the first image got positions: the same table is added to every image",
        ),
        Mistake(
            "positions alone",
            PositionAlone,
            "Your result holds the positions and no image: add them to the tokens",
        ),
    ),
)

# one vector for each column and row ---------------------------------------------------------------


def position_2d(columns, rows):
    """A table of places from columns (w, D/2) and rows (h, D/2), X first: (h*w, D)."""
    h, w = len(rows), len(columns)
    columns = columns[None].expand(h, -1, -1)  # (h, w, D/2)
    rows = rows[:, None].expand(-1, w, -1)  # (h, w, D/2)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1)  # (h*w, D)


def rows_first(columns, rows):
    """Y before X."""
    D = 2 * rows.shape[1]
    return position_2d(columns, rows).roll(D // 2, dims=1)


def places_by_columns(columns, rows):
    """The places column by column."""
    places = position_2d(columns, rows).unflatten(0, (len(rows), len(columns)))
    return places.transpose(0, 1).flatten(0, 1)


def halves_added(columns, rows):
    """Column and row added, half as wide as a token."""
    return (columns[None] + rows[:, None]).flatten(0, 1)


def halves_woven(columns, rows):
    """The numbers of column and row in turn."""
    x, y = position_2d(columns, rows).chunk(2, dim=1)
    return torch.stack([x, y], dim=2).flatten(1)


def both_slow(columns, rows):
    """Column and row both stay for a while before they move on."""
    h, w = len(rows), len(columns)
    columns, rows = columns.repeat_interleave(h, dim=0), rows.repeat_interleave(w, dim=0)
    return torch.cat([columns, rows], dim=1)


def both_fast(columns, rows):
    """Column and row both move at every place."""
    h, w = len(rows), len(columns)
    return torch.cat([columns.repeat(h, 1), rows.repeat(w, 1)], dim=1)


def still_a_grid(columns, rows):
    """Not flattened."""
    return position_2d(columns, rows).unflatten(0, (len(rows), len(columns)))


POSITION_2D = Exercise(
    name="position_2d",
    lesson="03",
    task="Make the table of a grid (h*w, D) from vectors for its columns (w, D/2) and rows (h, D/2): the "
    "column's half first.",
    minutes=15,
    difficulty=3,
    reference=position_2d,
    cases=(
        Case(
            about="a grid of patches, wider than high",
            inputs=lambda g: (normal(g, 5, 4), normal(g, 3, 4)),
            shape="h*w D",
            sizes=dict(h=3, w=5, D=8),
        ),
        Case(
            about="a single row of patches",
            inputs=lambda g: (normal(g, 5, 4), normal(g, 1, 4)),
            shape="h*w D",
            sizes=dict(h=1, w=5, D=8),
        ),
        Case(
            about="a single column of patches",
            inputs=lambda g: (normal(g, 1, 4), normal(g, 6, 4)),
            shape="h*w D",
            sizes=dict(h=6, w=1, D=8),
        ),
    ),
    hints=(
        "Write down the places of a grid of 2 x 3 in the order of the patches: (y, x) = (0, 0), (0, 1), "
        "(0, 2), (1, 0), ... Which of the two changes at every step?",
        "Give both tables the axes of the grid, (h, w, D/2): the columns are the same in every row, and the "
        "rows are the same in every column.",
        "columns[None].expand(h, -1, -1) and rows[:, None].expand(-1, w, -1), then torch.cat along the last "
        "axis, columns first, then flatten(0, 1).",
    ),
    mistakes=(
        Mistake(
            "rows first",
            rows_first,
            "The two halves are exchanged: that of the column, X, comes first",
        ),
        Mistake(
            "by columns",
            places_by_columns,
            "Your places come column by column: the patches come row by row, so x changes at every step",
        ),
        Mistake(
            "added",
            halves_added,
            "You added column and row: they stand one behind the other, each half as wide as a token",
        ),
        Mistake(
            "woven",
            halves_woven,
            "The numbers of column and row take turns: the whole half of the column comes first, then that "
            "of the row",
        ),
        Mistake(
            "both slow",
            both_slow,
            "You repeated both in the same way, each vector several times in a row: x changes at every "
            "step, so the columns are repeated as a whole",
        ),
        Mistake(
            "both fast",
            both_fast,
            "You repeated both in the same way, as a whole: y changes only when a row is over, so each "
            "row's vector is repeated w times",
        ),
        Mistake(
            "still a grid",
            still_a_grid,
            "The places are right and still lie in a grid (h, w, D): flatten its first two axes into one",
        ),
    ),
)

# fixed waves --------------------------------------------------------------------------------------


def sincos_table(dim, h, w):
    """Waves of the columns and rows of a grid: (h*w, D)."""
    return sincos(dim, (h, w))[0]


def waves(dim, h, w, last=1, start=0):
    """sin x, cos x, sin y, cos y: each (h*w, D/4). Used to make mistakes."""
    frequency = 10000.0 ** -(torch.arange(dim // 4) / (dim // 4 - last))
    x = (torch.arange(w) + start).repeat(h)[:, None] * frequency
    y = (torch.arange(h) + start).repeat_interleave(w)[:, None] * frequency
    return x.sin(), x.cos(), y.sin(), y.cos()


def sincos_of_mae(dim, h, w):
    """D/4 steps of frequency, the last of which is never reached."""
    return torch.cat(waves(dim, h, w, last=0), dim=1)


def sincos_rows_first(dim, h, w):
    """Y before X."""
    a, b, c, d = waves(dim, h, w)
    return torch.cat([c, d, a, b], dim=1)


def sincos_of_timm(dim, h, w):
    """Both sines, then both cosines, Y first."""
    a, b, c, d = waves(dim, h, w)
    return torch.cat([c, a, d, b], dim=1)


def sines_together(dim, h, w):
    """Both sines, then both cosines."""
    a, b, c, d = waves(dim, h, w)
    return torch.cat([a, c, b, d], dim=1)


def cosines_first(dim, h, w):
    """Cosine before sine."""
    a, b, c, d = waves(dim, h, w)
    return torch.cat([b, a, d, c], dim=1)


def sincos_in_turn(dim, h, w):
    """Sine and cosine of one frequency side by side, as for words."""
    a, b, c, d = waves(dim, h, w)
    return torch.cat([torch.stack(pair, 2).flatten(1) for pair in ((a, b), (c, d))], dim=1)


def sincos_from_one(dim, h, w):
    """Columns and rows counted from 1."""
    return torch.cat(waves(dim, h, w, start=1), dim=1)


def sincos_by_columns(dim, h, w):
    """The places column by column."""
    return sincos_table(dim, h, w).unflatten(0, (h, w)).transpose(0, 1).flatten(0, 1)


SINCOS = Exercise(
    name="sincos",
    lesson="03",
    task="Make the fixed table (h*w, D) with [sin x, cos x, sin y, cos y] in each row, and D/4 frequencies "
    "from 1 to 1/10000: 1/10000**(k/(D/4-1)).",
    minutes=15,
    difficulty=3,
    reference=sincos_table,
    solution=(sincos, sincos_table),
    cases=(
        Case(
            about="a grid of patches, wider than high",
            inputs=lambda g: (16, 3, 5),
            shape="h*w D",
            sizes=dict(h=3, w=5, D=16),
        ),
        Case(
            about="a long row of patches",
            inputs=lambda g: (12, 1, 90),
            shape="h*w D",
            sizes=dict(h=1, w=90, D=12),
        ),
        Case(
            about="a long column of patches",
            inputs=lambda g: (16, 70, 1),
            shape="h*w D",
            sizes=dict(h=70, w=1, D=16),
        ),
    ),
    hints=(
        "Three steps: the column x and the row y of each place, the D/4 frequencies, and their products.",
        "x = torch.arange(w).repeat(h) and y = torch.arange(h).repeat_interleave(w) are the places, row by "
        "row. The frequencies have D/4 steps k = 0, 1, ..., the last of which is D/4-1.",
        "frequency = 1 / 10000 ** (torch.arange(dim // 4) / (dim // 4 - 1)), then x[:, None] * frequency is "
        "(h*w, D/4), the same for y, and torch.cat joins the two sines and cosines in the order asked for.",
    ),
    mistakes=(
        Mistake(
            "a quarter of D",
            sincos_of_mae,
            "You divided k by D/4, as MAE does, so the last frequency is not 1/10000: k goes up to D/4-1, so "
            "divide by that",
        ),
        Mistake(
            "rows first",
            sincos_rows_first,
            "Your rows are right, but the waves of y come first: those of x do",
        ),
        Mistake(
            "both sines first, y before x",
            sincos_of_timm,
            "This is timm's order, [sin y, sin x, cos y, cos x]: asked for is [sin x, cos x, sin y, cos y]",
        ),
        Mistake(
            "both sines first",
            sines_together,
            "You put both sines before both cosines: sine and cosine of x come first, then those of y",
        ),
        Mistake(
            "cosines first",
            cosines_first,
            "Your cosines come before the sines: it is the other way round",
        ),
        Mistake(
            "in turn",
            sincos_in_turn,
            "Sine and cosine take turns in your table, as is usual for words: here all sines of x come "
            "first, then all cosines of x",
        ),
        Mistake(
            "from one",
            sincos_from_one,
            "You counted columns and rows from 1: they are counted from 0",
        ),
        Mistake(
            "by columns",
            sincos_by_columns,
            "Your places come column by column: the patches come row by row, so x changes at every step",
        ),
    ),
)

# a table for images of another size ---------------------------------------------------------------


def resize_positions(table, old, new):
    """Fit a table with one class token to another grid: (1, 1+h*w, D) -> (1, 1+h'*w', D)."""
    return resize_position(table, old, new, prefix_len=1)


def resized(table, old, new, **options):
    """Interpolate all rows but the first. Used to make mistakes."""
    places = table[:, 1:].transpose(1, 2).unflatten(2, old)
    places = F.interpolate(places, size=new, **options)
    return torch.cat([table[:, :1], places.flatten(2).transpose(1, 2)], dim=1)


def resized_as_sequence(table, old, new):
    """The class token interpolated with the rest, along the sequence."""
    tokens = 1 + new[0] * new[1]
    return F.interpolate(table.transpose(1, 2), size=tokens, mode="linear").transpose(1, 2)


def resized_without_class(table, old, new):
    """The row of the class token lost."""
    return resize_positions(table, old, new)[:, 1:]


def resized_class_last(table, old, new):
    """The row of the class token put behind the others."""
    return resize_positions(table, old, new).roll(-1, dims=1)


def resized_nearest(table, old, new):
    """What interpolate does if it is not told how."""
    return resized(table, old, new)


def resized_bilinear(table, old, new):
    """Bilinear."""
    return resized(table, old, new, mode="bilinear")


def resized_bilinear_aligned(table, old, new):
    """Bilinear with aligned corners."""
    return resized(table, old, new, mode="bilinear", align_corners=True)


def resized_without_antialias(table, old, new):
    """Bicubic only."""
    return resized(table, old, new, mode="bicubic")


def resized_aligned(table, old, new):
    """Bicubic with aligned corners."""
    return resized(table, old, new, mode="bicubic", align_corners=True)


def resized_exchanged(table, old, new):
    """Both grids on their sides."""
    return resize_positions(table, old[::-1], new[::-1])


def resized_old_exchanged(table, old, new):
    """The old grid on its side."""
    return resize_positions(table, old[::-1], new)


def resized_square(table, old, new):
    """The old grid taken for a square one."""
    side = int((table.shape[1] - 1) ** 0.5)
    return resize_positions(table, (side, side), new)


def resized_reshaped(table, old, new):
    """A reshape in place of a transpose."""
    places = table[:, 1:].reshape(1, -1, *old)
    places = F.interpolate(places, size=new, mode="bicubic", antialias=True)
    return torch.cat([table[:, :1], places.flatten(2).transpose(1, 2)], dim=1)


RESIZE_POSITIONS = Exercise(
    name="resize_positions",
    lesson="03",
    task="Fit a table (1, 1+h*w, D) from the grid old to the grid new, both (h, w): the class token's row "
    "stays, the others are interpolated, bicubic and with antialiasing.",
    minutes=15,
    difficulty=3,
    reference=resize_positions,
    solution=(resize_position, resize_positions),
    # 16 and 36 places, so that a grid taken for a square gives a result, and can be recognised
    cases=(
        Case(
            about="a larger image",
            inputs=lambda g: (normal(g, 1, 17, 5), (2, 8), (3, 12)),
            shape="B R+N D",
            sizes=dict(B=1, R=1, N=36, D=5, old_T=17),
        ),
        Case(
            about="a smaller image",
            inputs=lambda g: (normal(g, 1, 37, 5), (3, 12), (2, 8)),
            shape="B R+N D",
            sizes=dict(B=1, R=1, N=16, D=5, old_T=37),
        ),
        Case(
            about="an image of another form",
            inputs=lambda g: (normal(g, 1, 17, 5), (2, 8), (9, 4)),
            shape="B R+N D",
            sizes=dict(B=1, R=1, N=36, D=5, old_T=17),
        ),
    ),
    hints=(
        "Take the row of the class token off first: it has no place in the image. Put it back at the end.",
        "F.interpolate wants a picture, (1, D, h, w). The rows (1, h*w, D) become one by transpose(1, 2) and "
        "unflatten(2, old); flatten(2) and transpose(1, 2) lead back.",
        'F.interpolate(places, size=new, mode="bicubic", antialias=True) does the work, and '
        "torch.cat([table[:, :1], places], dim=1) puts the class token's row back.",
    ),
    mistakes=(
        Mistake(
            "as a sequence",
            resized_as_sequence,
            "You stretched the whole sequence, the row of the class token included: take that row off, and "
            "interpolate the others as a grid of rows and columns",
        ),
        Mistake(
            "class token lost",
            resized_without_class,
            "The row of the class token is lost: put it back in front of the others",
        ),
        Mistake(
            "class token last",
            resized_class_last,
            "The row of the class token stands behind the others: it comes first",
        ),
        Mistake(
            "nearest",
            resized_nearest,
            "This is what F.interpolate does when it is not told how, a copy of the nearest row: pass "
            'mode="bicubic" and antialias=True',
        ),
        Mistake(
            "bilinear",
            resized_bilinear,
            'This is bilinear: pass mode="bicubic" and antialias=True',
        ),
        Mistake(
            "bilinear, aligned",
            resized_bilinear_aligned,
            "This is bilinear with aligned corners, which is what the authors of the ViT did: asked for here "
            "is bicubic with antialiasing",
        ),
        Mistake(
            "no antialiasing",
            resized_without_antialias,
            "This is bicubic without antialiasing: pass antialias=True, which changes enlarging, too",
        ),
        Mistake(
            "aligned",
            resized_aligned,
            "This is bicubic with aligned corners: leave align_corners out and pass antialias=True",
        ),
        Mistake(
            "both on their sides",
            resized_exchanged,
            "Both grids lie on their sides: a grid is (h, w), the height comes first",
        ),
        Mistake(
            "old one on its side",
            resized_old_exchanged,
            "The old grid lies on its side: old is (h, w), the height comes first, and so does a picture "
            "(1, D, h, w)",
        ),
        Mistake(
            "square",
            resized_square,
            "You took the old grid for a square, from the root of the number of its places: it need not be "
            "one, so use old",
        ),
        Mistake(
            "reshaped",
            resized_reshaped,
            "A reshape to (1, D, h, w) mixes the numbers of different places: move the channels to the "
            "front with transpose first",
        ),
    ),
)

# how far a key is from the query ------------------------------------------------------------------


def relative_offset(h, w):
    """The offset (dy, dx) from each key to each query, in patches: whole numbers (h*w, h*w, 2)."""
    y = torch.arange(h).repeat_interleave(w)  # (h*w,)
    x = torch.arange(w).repeat(h)  # (h*w,)
    place = torch.stack([y, x], dim=-1)  # (h*w, 2)
    return place[:, None] - place[None, :]  # (h*w, h*w, 2)


def offset_of_key(h, w):
    """The other direction."""
    return -relative_offset(h, w)


def offset_x_first(h, w):
    """dx before dy."""
    return relative_offset(h, w).flip(-1)


def offset_in_sequence(h, w):
    """How far apart two tokens are in the sequence."""
    place = torch.arange(h * w)
    return place[:, None] - place[None, :]


def offset_by_columns(h, w):
    """The places counted column by column."""
    x = torch.arange(w).repeat_interleave(h)
    y = torch.arange(h).repeat(w)
    place = torch.stack([y, x], dim=-1)
    return place[:, None] - place[None, :]


def offset_without_sign(h, w):
    """The distance."""
    return relative_offset(h, w).abs()


def offset_as_index(h, w):
    """Moved up, so that none is below zero."""
    return relative_offset(h, w) + torch.tensor([h - 1, w - 1])


def offset_axes_first(h, w):
    """The two directions as the first axis."""
    return relative_offset(h, w).permute(2, 0, 1)


RELATIVE_OFFSET = Exercise(
    name="relative_offset",
    lesson="03",
    task="For every query and every key of a grid (h, w), make the offset (dy, dx), query minus key: whole "
    "numbers (h*w, h*w, 2).",
    minutes=10,
    difficulty=2,
    reference=relative_offset,
    cases=(
        Case(
            about="a grid of patches, wider than high",
            inputs=lambda g: (3, 5),
            shape="query key yx",
            sizes=dict(query=15, key=15, yx=2),
        ),
        Case(
            about="a single row of patches",
            inputs=lambda g: (1, 5),
            shape="query key yx",
            sizes=dict(query=5, key=5, yx=2),
        ),
        Case(
            about="a single column of patches",
            inputs=lambda g: (4, 1),
            shape="query key yx",
            sizes=dict(query=4, key=4, yx=2),
        ),
    ),
    hints=(
        "Begin with one list: the row y and the column x of every place, in the order of the patches.",
        "y = torch.arange(h).repeat_interleave(w) and x = torch.arange(w).repeat(h), each (h*w,). "
        "torch.stack puts them side by side, y first.",
        "All differences at once: place[:, None] - place[None, :] subtracts every key from every query.",
    ),
    mistakes=(
        Mistake(
            "key minus query",
            offset_of_key,
            "Your signs are turned round, this is key minus query: subtract the key's place from the query's",
        ),
        Mistake(
            "x first",
            offset_x_first,
            "Your offsets are right, but dx comes first: the order is (dy, dx), as in (h, w)",
        ),
        Mistake(
            "in the sequence",
            offset_in_sequence,
            "This is how far apart two tokens are in the sequence: a grid has two directions, dy and dx",
        ),
        Mistake(
            "by columns",
            offset_by_columns,
            "You counted the places column by column: the patches come row by row, so x changes at every "
            "step",
        ),
        Mistake(
            "without sign",
            offset_without_sign,
            "These are distances without a sign: left and right, above and below must differ",
        ),
        Mistake(
            "moved up",
            offset_as_index,
            "You added h-1 and w-1, which makes places in a table of them: asked for are the offsets "
            "themselves, 0 for a token and itself",
        ),
        Mistake(
            "directions in front",
            offset_axes_first,
            "Your two directions are the first axis: they are the last, (h*w, h*w, 2), as torch.stack gives "
            "with dim=-1",
        ),
    ),
)

EXERCISES = (ADD_POSITION, POSITION_2D, SINCOS, RESIZE_POSITIONS, RELATIVE_OFFSET)

QUESTIONS = {
    "numbers in the learned position table of ViT-B/16 at 224 x 224": (
        151296,
        "197 tokens, the class token among them, with 768 numbers each.",
        {
            150528: "The class token has a position, too.",
            197: "Each of the 197 places has a vector as wide as a token.",
            768: "That is one place: there are 197.",
            38809: "That is every token with every token: the table has one vector for each token.",
        },
    ),
    "numbers in the tables of columns and rows, for 14 x 14 patches of width 768": (
        10752,
        "14 columns and 14 rows, each half as wide as a token.",
        {
            150528: "That is a vector for each place: here columns and rows have one each.",
            21504: "Each half describes one direction, so it is half as wide as a token.",
            5376: "Both the columns and the rows have a table.",
            75264: "Columns and rows are added here, not multiplied: 14 + 14 vectors.",
        },
    ),
    "different offsets (dy, dx) in a grid of 14 x 14": (
        729,
        "27 x 27: each direction goes from -13 to 13.",
        {
            27: "That is one direction: each dy goes with each dx.",
            196: "An offset can be negative, too: from -13 to 13.",
            169: "Offsets of 0 and negative ones count, too: from -13 to 13.",
            784: "From -13 to 13 there are 27 numbers, not 28.",
            38416: "That is every query with every key: many of these pairs have the same offset.",
        },
    ),
}
