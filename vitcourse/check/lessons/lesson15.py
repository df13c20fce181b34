"""Exercises of lesson 15: better attention."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.papers.attention_as_convolution import QuadraticAttention, quadratic_encoding
from vitcourse.papers.cait import ClassAttention, across_heads
from vitcourse.vit import Attention

# heads that talk ----------------------------------------------------------------------------------


def talking_heads(scores, before, after):
    """Mix the heads' scores, take the softmax, mix the weights: (B, K, T, T) -> (B, K, T, T)."""
    scores = across_heads(partial(F.linear, weight=before), scores)
    weights = scores.softmax(dim=-1)
    return across_heads(partial(F.linear, weight=after), weights)


def mixed_first_only(scores, before, after):
    """The weights as they are."""
    return across_heads(partial(F.linear, weight=before), scores).softmax(dim=-1)


def mixed_last_only(scores, before, after):
    """The scores as they are."""
    return across_heads(partial(F.linear, weight=after), scores.softmax(dim=-1))


def both_last(scores, before, after):
    """Both mixtures behind the softmax."""
    return across_heads(partial(F.linear, weight=after @ before), scores.softmax(dim=-1))


def no_softmax(scores, before, after):
    """Mixed scores for weights."""
    return across_heads(partial(F.linear, weight=after @ before), scores)


def softmax_last(scores, before, after):
    """Both mixtures, then the softmax."""
    return across_heads(partial(F.linear, weight=after @ before), scores).softmax(dim=-1)


def exchanged(scores, before, after):
    """One mixture in the place of the other."""
    return talking_heads(scores, after, before)


def read_by_columns(scores, before, after):
    """Both matrices transposed."""
    return talking_heads(scores, before.T, after.T)


def over_queries(scores, before, after):
    """The softmax down the columns."""
    return talking_heads(scores.mT, before, after).mT


def over_heads(scores, before, after):
    """The softmax across the heads."""
    scores = across_heads(partial(F.linear, weight=before), scores)
    return across_heads(partial(F.linear, weight=after), scores.softmax(dim=1))


def positive_mixtures(scores, before, after):
    """Mixtures that are averages."""
    return talking_heads(scores, before.softmax(dim=-1), after.softmax(dim=-1))


def made_to_sum_to_one(scores, before, after):
    """Rows divided by their sum in the end."""
    weights = talking_heads(scores, before, after)
    return weights / weights.sum(dim=-1, keepdim=True)


def scores_of_heads(B, K, T):
    """Scores, and two mixtures of K heads."""
    return lambda g: (normal(g, B, K, T, T), normal(g, K, K), 0.7 * normal(g, K, K))


TALKING_HEADS = Exercise(
    name="talking_heads",
    lesson="15",
    task="Mix the scores of the heads with `before`, take the softmax over the keys, mix the weights "
    "with `after`: scores (B, K, T, T), two of (K, K) -> (B, K, T, T). Row j of a matrix says how "
    "much the new head j takes of each old one.",
    minutes=6,
    difficulty=2,
    reference=talking_heads,
    cases=(
        Case(
            about="three heads",
            inputs=scores_of_heads(2, 3, 5),
            shape="B K T T",
            sizes=dict(B=2, K=3, T=5),
        ),
        Case(
            about="four heads",
            inputs=scores_of_heads(3, 4, 6),
            shape="B K T T",
            sizes=dict(B=3, K=4, T=6),
        ),
    ),
    hints=(
        "The new head j is a sum over the old heads k: matrix[j, k] times the map of head k. Queries and "
        "keys stay where they are.",
        'torch.einsum("jk,bkqt->bjqt", before, scores) writes that sum down. The same line mixes the '
        "weights.",
        "Mix the scores, then softmax(dim=-1), then mix what comes out. Nothing follows.",
    ),
    mistakes=(
        Mistake(
            "scores mixed only",
            mixed_first_only,
            "You mixed the scores: the weights after the softmax are mixed, too, with the second matrix",
        ),
        Mistake(
            "weights mixed only",
            mixed_last_only,
            "You mixed the weights: the scores before the softmax are mixed, too, with the first matrix",
        ),
        Mistake(
            "softmax first",
            both_last,
            "Your softmax comes first: `before` mixes the scores, and only then comes the softmax",
        ),
        Mistake(
            "no softmax",
            no_softmax,
            "There is no softmax: it stands between the two mixtures",
        ),
        Mistake(
            "softmax at the end",
            softmax_last,
            "Your softmax comes last: it stands between the two mixtures, and the second one may make "
            "weights negative",
        ),
        Mistake(
            "mixtures exchanged",
            exchanged,
            "You exchanged the two matrices: `before` mixes the scores, `after` the weights",
        ),
        Mistake(
            "matrices transposed",
            read_by_columns,
            "You read the matrices by columns: row j belongs to the new head j",
        ),
        Mistake(
            "softmax over the queries",
            over_queries,
            "Your softmax runs over the queries: for each query, the weights of all keys share one",
        ),
        Mistake(
            "softmax over the heads",
            over_heads,
            "Your softmax runs over the heads: it runs over the keys, in each head by itself",
        ),
        Mistake(
            "mixtures made positive",
            positive_mixtures,
            "You took a softmax of the matrices: they may be negative, which is what a single map cannot "
            "be",
        ),
        Mistake(
            "rows made to sum to one",
            made_to_sum_to_one,
            "You divided each row by its sum: after the second mixture, rows need not sum to one",
        ),
    ),
)

# one query ----------------------------------------------------------------------------------------


class OneQuery(nn.Module):
    """The class token asks, all tokens answer: x (B, T, D) -> (B, 1, D)."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, K, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, K, T, d)
        q = q[:, :, :1]  # (B, K, 1, d)
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)  # (B, K, 1, T)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))  # (B, 1, D)


class AllTokensAsk(Attention):
    """Attention as it is."""


class LastTokenAsks(Attention):
    """The query of the last token."""

    def project(self, x, grid):
        q, k, v = super().project(x, grid)
        return q[:, :, -1:], k, v


class MeanAsks(Attention):
    """The mean of all queries."""

    def project(self, x, grid):
        q, k, v = super().project(x, grid)
        return q.mean(dim=2, keepdim=True), k, v


class SeesPatchesOnly(ClassAttention):
    """Its own key and value left out."""

    def project(self, x, grid):
        q, k, v = super().project(x, grid)
        return q, k[:, :, 1:], v[:, :, 1:]


class AsksOfItsOwnKey(Attention):
    """The class token's key in the place of its query."""

    def project(self, x, grid):
        q, k, v = super().project(x, grid)
        return k[:, :, :1], k, v


class NotScaled(ClassAttention):
    """Scores not divided."""

    def __init__(self, dim, heads):
        super().__init__(dim, heads)
        self.scale = 1.0


class ScaledByWidth(ClassAttention):
    """Divided by sqrt(D)."""

    def __init__(self, dim, heads):
        super().__init__(dim, heads)
        self.scale = dim**-0.5


class AddsToken(ClassAttention):
    """With the residual that belongs to the block."""

    def forward(self, x, grid=None):
        return x[:, :1] + super().forward(x)


class NotProjected(ClassAttention):
    """Without proj."""

    def forward(self, x, grid=None):
        q, k, v = self.project(x, grid)
        return self.attend(q, k, v).transpose(1, 2).flatten(2)


class SoftmaxOverQuery(ClassAttention):
    """A softmax over one number."""

    def attend(self, q, k, v, bias=None):
        return (q @ k.mT * self.scale).softmax(dim=-2) @ v


class HeadsLast(ClassAttention):
    """The width of a head before the heads."""

    def project(self, x, grid):
        D, K = x.shape[-1], self.heads
        qkv = self.qkv(x).unflatten(-1, (3, D // K, K))  # (B, T, 3, d, K)
        q, k, v = qkv.permute(2, 0, 4, 1, 3)  # each (B, K, T, d)
        return q[:, :, :1], k, v


class HeadsBeforeKinds(ClassAttention):
    """q, k and v cut inside each head."""

    def project(self, x, grid):
        qkv = self.qkv(x).unflatten(-1, (self.heads, 3, -1))  # (B, T, K, 3, d)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)  # each (B, K, T, d)
        return q[:, :, :1], k, v


class ReshapedToHeads(ClassAttention):
    """(B, T, D) read as (B, K, T, d)."""

    def project(self, x, grid):
        B, T, D = x.shape
        q, k, v = (t.reshape(B, self.heads, T, -1) for t in self.qkv(x).chunk(3, dim=-1))
        return q[:, :, :1], k, v


class OneHead(ClassAttention):
    """All in one head."""

    def __init__(self, dim, heads):
        super().__init__(dim, 1)


def tokens_case(about, B, T, dim, heads):
    """Tokens for a layer of that width."""
    return Case(
        about=about,
        build=(dim, heads),
        inputs=lambda g: (normal(g, B, T, dim),),
        shape="B 1 D",
        sizes={"B": B, "T": T, "D": dim, "K": heads},
    )


CLASS_ATTENTION = Exercise(
    name="class_attention",
    lesson="15",
    task="A module with Linear qkv (dim to 3 dim) and proj (dim to dim) in which only the class token, "
    "the first one, asks, and all tokens answer: x (B, T, D) -> (B, 1, D).",
    minutes=12,
    difficulty=2,
    kind="module",
    reference=ClassAttention,
    solution=OneQuery,
    tolerance=1e-4,
    cases=(
        tokens_case("three heads", B=2, T=7, dim=12, heads=3),
        tokens_case("five heads", B=3, T=6, dim=20, heads=5),
    ),
    hints=(
        "Begin as in lesson 04: qkv(x), cut into q, k and v, and each into heads: (B, K, T, d). qkv gives "
        "all of q first, then all of k, then all of v.",
        "Of the queries keep that of the class token: q[:, :, :1] has the shape (B, K, 1, d). Keys and "
        "values stay as many as they are, the class token's among them.",
        "The scores are (B, K, 1, T), divided by sqrt(d), the softmax runs over T. Times v, put the heads "
        "side by side, (B, 1, D), then proj. The block adds the token, not this layer.",
    ),
    mistakes=(
        Mistake(
            "all tokens ask",
            AllTokensAsk,
            "All tokens ask in your layer: keep one query, that of the class token",
        ),
        Mistake(
            "the last token asks",
            LastTokenAsks,
            "The last token asks in your layer: the class token is the first one",
        ),
        Mistake(
            "the mean asks",
            MeanAsks,
            "The mean of all queries asks in your layer: take the query of the class token alone",
        ),
        Mistake(
            "patches alone answer",
            SeesPatchesOnly,
            "Your class token sees the patches alone: its own key and value take part, too",
        ),
        Mistake(
            "key for query",
            AsksOfItsOwnKey,
            "You took the class token's key for its query: qkv gives the queries first",
        ),
        Mistake(
            "not scaled",
            NotScaled,
            "Your scores are not divided by sqrt(d)",
        ),
        Mistake(
            "scaled by the width",
            ScaledByWidth,
            "You divided by the root of the whole width: each head is d = dim / heads wide",
        ),
        Mistake(
            "token added",
            AddsToken,
            "You added the class token to the result: the block does that, the layer gives its branch "
            "alone",
        ),
        Mistake(
            "proj forgotten",
            NotProjected,
            "The heads stand side by side, but `proj` has not mixed them",
        ),
        Mistake(
            "softmax over the query",
            SoftmaxOverQuery,
            "Your softmax runs over the one query, so every weight is one: it runs over the keys",
        ),
        Mistake(
            "heads cut the other way",
            HeadsLast,
            "Your heads take every K-th number: head 0 has the first d numbers, head 1 the next",
        ),
        Mistake(
            "heads before q, k and v",
            HeadsBeforeKinds,
            "You cut qkv into heads first, and each head into q, k and v: all of q comes first, then "
            "all of k, then all of v",
        ),
        Mistake(
            "reshaped to heads",
            ReshapedToHeads,
            "You reshaped (B, T, D) to (B, K, T, d), which mixes tokens and heads: cut the last axis "
            "into (K, d), then exchange T and K",
        ),
        Mistake(
            "one head",
            OneHead,
            "You made one head of all: cut q, k and v into heads before you compare them",
        ),
    ),
)

# a window is a mask -------------------------------------------------------------------------------


def offsets(grid):
    """How many rows and columns each key lies from each query: two of (N, N)."""
    _, y, x = quadratic_encoding(grid).unbind(dim=-1)
    return y, x


def within(scores, seen):
    """A softmax over those keys that are seen: bool (N, N)."""
    return scores.masked_fill(~seen.to(scores.device), float("-inf")).softmax(dim=-1)


def local_weights(scores, grid, side):
    """Softmax over the side x side places around each query: (B, K, N, N) -> the same."""
    h, w = grid
    place = torch.arange(h * w, device=scores.device)
    y, x = place // w, place % w  # (N,)
    rows, columns = (y[:, None] - y).abs(), (x[:, None] - x).abs()  # (N, N)
    outside = (rows > side // 2) | (columns > side // 2)
    return scores.masked_fill(outside, float("-inf")).softmax(dim=-1)


def along_the_sequence(scores, grid, side):
    """A window of the sequence."""
    place = torch.arange(grid[0] * grid[1])
    return within(scores, (place[:, None] - place).abs() <= side // 2)


def twice_as_wide(scores, grid, side):
    """`side` places to every side."""
    y, x = offsets(grid)
    return within(scores, (y.abs() <= side) & (x.abs() <= side))


def diamond(scores, grid, side):
    """As many steps along rows and columns in all."""
    y, x = offsets(grid)
    return within(scores, y.abs() + x.abs() <= side // 2)


def cross(scores, grid, side):
    """Near in rows or in columns."""
    y, x = offsets(grid)
    return within(scores, (y.abs() <= side // 2) | (x.abs() <= side // 2))


def no_abs(scores, grid, side):
    """Differences with their sign: all keys below and to the right are near."""
    y, x = offsets(grid)
    return within(scores, (y >= -(side // 2)) & (x >= -(side // 2)))


def no_abs_reversed(scores, grid, side):
    """All keys above and to the left are near."""
    y, x = offsets(grid)
    return within(scores, (y <= side // 2) & (x <= side // 2))


def outside_seen(scores, grid, side):
    """The mask the other way round."""
    y, x = offsets(grid)
    return within(scores, (y.abs() > side // 2) | (x.abs() > side // 2))


def without_its_rim(scores, grid, side):
    """Less than, for at most."""
    y, x = offsets(grid)
    return within(scores, (y.abs() < side // 2) & (x.abs() < side // 2))


def columns_only(scores, grid, side):
    """Near in columns, anywhere in rows."""
    _, x = offsets(grid)
    return within(scores, x.abs() <= side // 2)


def rows_only(scores, grid, side):
    """Near in rows, anywhere in columns."""
    y, _ = offsets(grid)
    return within(scores, y.abs() <= side // 2)


def grid_transposed(scores, grid, side):
    """Rows of h places."""
    return local_weights(scores, grid[::-1], side)


def tiles(scores, grid, side):
    """Windows that do not overlap."""
    h, w = grid
    place = torch.arange(h * w)
    tile = place // w // side * w + place % w // side
    return within(scores, tile[:, None] == tile)


def around_the_edge(scores, grid, side):
    """The grid as a ring."""
    (h, w), (y, x) = grid, offsets(grid)
    rows, columns = (torch.minimum(d % n, -d % n) for d, n in ((y, h), (x, w)))
    return within(scores, (rows <= side // 2) & (columns <= side // 2))


def not_shared_out(scores, grid, side):
    """Weights cut after the softmax."""
    y, x = offsets(grid)
    seen = (y.abs() <= side // 2) & (x.abs() <= side // 2)
    return scores.softmax(dim=-1) * seen.to(scores)


def zero_scores(scores, grid, side):
    """A score of zero outside."""
    y, x = offsets(grid)
    seen = (y.abs() <= side // 2) & (x.abs() <= side // 2)
    return (scores * seen.to(scores)).softmax(dim=-1)


def without_itself(scores, grid, side):
    """The middle left out."""
    y, x = offsets(grid)
    seen = (y.abs() <= side // 2) & (x.abs() <= side // 2) & ((y != 0) | (x != 0))
    return within(scores, seen)


def window_over_queries(scores, grid, side):
    """The softmax down the columns."""
    return local_weights(scores.mT, grid, side).mT


def grid_of_scores(B, K, grid):
    """Scores between all places of a grid."""
    return lambda g: normal(g, B, K, grid[0] * grid[1], grid[0] * grid[1])


LOCAL_WEIGHTS = Exercise(
    name="local_weights",
    lesson="15",
    task="Attention weights in which each query sees only the side x side places around it, as far as "
    "they are in the grid (h, w): scores (B, K, N, N) of all queries and keys -> weights (B, K, N, N). "
    "Tokens lie row by row, and `side` is odd.",
    minutes=10,
    difficulty=2,
    reference=local_weights,
    cases=(
        Case(
            about="windows of 3 x 3",
            inputs=lambda g: (grid_of_scores(2, 3, (4, 6))(g), (4, 6), 3),
            shape="B K N N",
            sizes=dict(B=2, K=3, N=24, h=4, w=6),
        ),
        Case(
            about="windows of 5 x 5",
            inputs=lambda g: (grid_of_scores(3, 2, (7, 6))(g), (7, 6), 5),
            shape="B K N N",
            sizes=dict(B=3, K=2, N=42, h=7, w=6),
        ),
    ),
    hints=(
        "Where does token n stand? In row n // w and column n % w. Make both for all N tokens.",
        "y[:, None] - y[None, :] is (N, N): by how many rows a query and a key differ. A key is in the "
        "window if rows and columns both differ by no more than side // 2.",
        'masked_fill(outside, float("-inf")) before the softmax takes a key away, and the others share '
        "its part.",
    ),
    mistakes=(
        Mistake(
            "along the sequence",
            along_the_sequence,
            "Your window lies along the sequence: token n and token n + w are neighbours, too, one below "
            "the other",
        ),
        Mistake(
            "twice as wide",
            twice_as_wide,
            "Your window reaches `side` places to each side: it is `side` wide in all, so side // 2",
        ),
        Mistake(
            "a diamond",
            diamond,
            "Your window lacks its corners: in a square one, rows and columns are each compared by "
            "themselves, neither added up nor made one distance",
        ),
        Mistake(
            "a cross",
            cross,
            "A key that is near in its row or in its column is not yet in the window: it must be near in "
            "both",
        ),
        Mistake(
            "no absolute value",
            no_abs,
            "Your window is open on two sides: a difference may be negative, so compare its abs()",
        ),
        Mistake(
            "no absolute value, reversed",
            no_abs_reversed,
            "Your window is open on two sides: a difference may be negative, so compare its abs()",
        ),
        Mistake(
            "mask the other way round",
            outside_seen,
            "You hid the window and left the rest: masked_fill hides where the mask is True",
        ),
        Mistake(
            "without its rim",
            without_its_rim,
            "Your window lacks its rim: a key that is side // 2 away is still seen, so <=, not <",
        ),
        Mistake(
            "columns only",
            columns_only,
            "Your window has whole columns: the rows must be near, too",
        ),
        Mistake(
            "rows only",
            rows_only,
            "Your window has whole rows: the columns must be near, too",
        ),
        Mistake(
            "grid transposed",
            grid_transposed,
            "You exchanged h and w: a row has w places, so token n is in row n // w",
        ),
        Mistake(
            "tiles",
            tiles,
            "You cut the grid into windows that do not overlap: here each query has a window of its own, "
            "with itself in the middle",
        ),
        Mistake(
            "around the edge",
            around_the_edge,
            "Your window goes on at the other side of the grid: at the border it is smaller",
        ),
        Mistake(
            "not shared out",
            not_shared_out,
            "You took weights away after the softmax, so rows no longer sum to one: take the scores away "
            "before it",
        ),
        Mistake(
            "zero scores",
            zero_scores,
            "You set the scores outside to zero, and exp(0) is one: set them to minus infinity",
        ),
        Mistake(
            "without itself",
            without_itself,
            "Your query does not see itself: the middle belongs to the window",
        ),
        Mistake(
            "softmax over the queries",
            window_over_queries,
            "Your softmax runs over the queries: for each query, the weights of its keys sum to one",
        ),
    ),
)

# a head that knows places alone -------------------------------------------------------------------


def package_place_weights(grid, centre, alpha):
    """The package's layer, with these places."""
    layer = QuadraticAttention(1, len(centre)).to(centre.device)
    del layer.position_centre, layer.position_sharpness
    layer.position_centre, layer.position_sharpness = centre, alpha.log()
    return layer.bias(grid).softmax(dim=-1)[0]


def place_weights(grid, centre, alpha):
    """Softmax over the keys of -alpha |r - centre|^2: (K, 2), (K,) -> (K, N, N)."""
    h, w = grid
    places = torch.cartesian_prod(torch.arange(h), torch.arange(w)).to(centre)  # (N, 2)
    r = places[None] - places[:, None]  # (N, N, 2), key minus query
    squared = (r - centre[:, None, None]).square().sum(dim=-1)  # (K, N, N)
    return (-alpha[:, None, None] * squared).softmax(dim=-1)


def query_minus_key(grid, centre, alpha):
    """The offset the other way round."""
    return place_weights(grid, -centre, alpha)


def columns_first(grid, centre, alpha):
    """Right before down."""
    return place_weights(grid, centre.flip(dims=(1,)), alpha)


def from_the_corner(grid, centre, alpha):
    """A place of the image, not of the query."""
    h, w = grid
    places = torch.cartesian_prod(torch.arange(h), torch.arange(w)).to(centre)
    squared = (places - centre[:, None]).square().sum(dim=-1)  # (K, N)
    weights = (-alpha[:, None] * squared).softmax(dim=-1)
    return weights[:, None].repeat(1, h * w, 1)


def places_transposed(grid, centre, alpha):
    """A grid of w rows."""
    return place_weights(grid[::-1], centre, alpha)


def without_alpha(grid, centre, alpha):
    """All heads alike sharp."""
    return place_weights(grid, centre, torch.ones_like(alpha))


def not_squared(grid, centre, alpha):
    """The distance itself."""
    h, w = grid
    places = torch.cartesian_prod(torch.arange(h), torch.arange(w)).to(centre)
    r = places[None] - places[:, None]
    distance = (r - centre[:, None, None]).square().sum(dim=-1).sqrt()
    return (-alpha[:, None, None] * distance).softmax(dim=-1)


def looks_away(grid, centre, alpha):
    """The sign forgotten."""
    return place_weights(grid, centre, -alpha)


def by_queries(grid, centre, alpha):
    """Keys in the rows."""
    return place_weights(grid, centre, alpha).mT


def softmax_down(grid, centre, alpha):
    """Softmax over the queries."""
    h, w = grid
    places = torch.cartesian_prod(torch.arange(h), torch.arange(w)).to(centre)
    r = places[None] - places[:, None]
    squared = (r - centre[:, None, None]).square().sum(dim=-1)
    return (-alpha[:, None, None] * squared).softmax(dim=-2)


def divided_by_alpha(grid, centre, alpha):
    """A width in place of a sharpness."""
    return place_weights(grid, centre, 1 / alpha)


def scores_only(grid, centre, alpha):
    """No softmax."""
    h, w = grid
    places = torch.cartesian_prod(torch.arange(h), torch.arange(w)).to(centre)
    r = places[None] - places[:, None]
    return -alpha[:, None, None] * (r - centre[:, None, None]).square().sum(dim=-1)


def encoding_halved(grid, centre, alpha):
    """-alpha (|r|^2 - r . centre)."""
    return place_weights(grid, centre / 2, alpha)


def heads_somewhere(grid, heads):
    """A grid, and heads with places and sharpness of their own."""

    def inputs(g):
        return grid, normal(g, heads, 2), 0.2 + 0.4 * torch.rand(heads, generator=g)

    return inputs


PLACE_WEIGHTS = Exercise(
    name="place_weights",
    lesson="15",
    task="The maps of K heads that know places alone: the softmax over the keys of -alpha |r - c|^2, "
    "where r is how far the key lies from the query, (down, right). grid (h, w), centre (K, 2), alpha "
    "(K,) -> (K, N, N).",
    minutes=10,
    difficulty=3,
    reference=package_place_weights,
    solution=place_weights,
    cases=(
        Case(
            about="three heads",
            inputs=heads_somewhere((4, 5), 3),
            shape="K N N",
            sizes=dict(K=3, N=20, h=4, w=5),
        ),
        Case(
            about="two heads on a high grid",
            inputs=heads_somewhere((6, 3), 2),
            shape="K N N",
            sizes=dict(K=2, N=18, h=6, w=3),
        ),
    ),
    hints=(
        "Where do the tokens stand? torch.cartesian_prod(torch.arange(h), torch.arange(w)) lists (row, "
        "column) of all N, row by row.",
        "places[None] - places[:, None] is (N, N, 2): for each query (axis 0) and key (axis 1), key minus "
        "query.",
        "Give `centre` two more axes, centre[:, None, None], so that it meets (N, N, 2): square, add up "
        "the last axis, times -alpha[:, None, None], softmax(dim=-1).",
    ),
    mistakes=(
        Mistake(
            "query minus key",
            query_minus_key,
            "Each of your heads looks the other way: r is key minus query, and the centre is subtracted "
            "from it",
        ),
        Mistake(
            "right before down",
            columns_first,
            "You exchanged down and right: the first number of a centre counts rows",
        ),
        Mistake(
            "from the corner",
            from_the_corner,
            "All your queries look at one place of the image: a centre is seen from the query",
        ),
        Mistake(
            "grid transposed",
            places_transposed,
            "You exchanged h and w: the grid has h rows of w places",
        ),
        Mistake(
            "alpha left out",
            without_alpha,
            "All your heads are alike sharp: multiply by alpha, which each head has for itself",
        ),
        Mistake(
            "not squared",
            not_squared,
            "You took the distance: the score falls with its square",
        ),
        Mistake(
            "the sign",
            looks_away,
            "Your heads look away from their places: the score is minus alpha times the squared distance",
        ),
        Mistake(
            "queries and keys exchanged",
            by_queries,
            "Your rows are keys: a row holds what one query takes from all keys, and sums to one",
        ),
        Mistake(
            "softmax over the queries",
            softmax_down,
            "Your softmax runs over the queries: it runs over the keys, the last axis",
        ),
        Mistake(
            "divided by alpha",
            divided_by_alpha,
            "You divided by alpha: a larger alpha makes a head sharper, so multiply",
        ),
        Mistake(
            "scores",
            scores_only,
            "Those are the scores: the weights are their softmax",
        ),
        Mistake(
            "the 2 forgotten",
            encoding_halved,
            "Your heads look half as far as they should: in |r - c|^2, the product of r and c counts twice",
        ),
    ),
)

EXERCISES = (TALKING_HEADS, CLASS_ATTENTION, LOCAL_WEIGHTS, PLACE_WEIGHTS)

QUESTIONS = {
    "blocks of CaiT-S24 in which patches change": (
        24,
        "All 24, then two more blocks in which only the class token changes.",
        {
            12: "Half of them? The class token joins after all the blocks that the name counts.",
            13: "Half of the 26? The class token joins later.",
            22: "The class blocks are not among the 24: they come on top.",
            26: "In the last two, the patches stay as they are.",
        },
    ),
    "attention weights that a head of a class block computes for 197 tokens": (
        197,
        "One query, 197 keys.",
        {
            38809: "That is 197 x 197: how many tokens ask?",
            196: "The class token is among the keys, too.",
            394: "That is for both class blocks: count one.",
            1: "There is one query: how many keys are there?",
        },
    ),
    "pixels that the corner of an 8 x 8 picture sees in a window of 7 x 7": (
        16,
        "Three to the right, three down, and itself in both: 4 x 4.",
        {
            49: "That is the whole window: most of it lies outside.",
            9: "The corner's own row and column count, too: 3 + 1 each.",
            12: "Only one side is cut off? The corner loses rows and columns.",
            28: "Only one side is cut off? The corner loses rows and columns.",
            64: "That is the whole picture: the window reaches three pixels.",
        },
    ),
}
