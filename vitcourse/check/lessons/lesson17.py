"""Exercises of lesson 17: convolutions return."""

import torch
from torch import nn

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.papers.cvt import ConvProjection
from vitcourse.parts import join, split

# keys from a convolution --------------------------------------------------------------------------


class ConvKeys(nn.Module):
    """A depthwise convolution with a norm, then a Linear: x (B, T, D), grid -> (B, S, D)."""

    def __init__(self, dim, stride):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride, padding=1, groups=dim, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.linear = nn.Linear(dim, dim)

    def forward(self, x, grid):
        prefix, map = split(x, grid)  # (B, R, D), (B, D, h, w)
        map = self.norm(self.conv(map))
        return self.linear(join(prefix, map))  # (B, S, D)


class PrefixDropped(ConvProjection):
    """Patches alone."""

    def forward(self, x, grid):
        return super().forward(x, grid)[:, x.shape[1] - grid[0] * grid[1] :]


class PrefixNotProjected(ConvProjection):
    """The class token goes around the Linear, too."""

    def forward(self, x, grid):
        prefix, _ = split(x, grid)
        return torch.cat([prefix, super().forward(x, grid)[:, prefix.shape[1] :]], dim=1)


class PrefixNormed(ConvProjection):
    """The norm for all tokens."""

    def forward(self, x, grid):
        prefix, map = split(x, grid)
        x = join(prefix, self.conv(map))
        return self.linear(self.norm(x.transpose(1, 2)[..., None])[..., 0].transpose(1, 2))


class PrefixLast(ConvProjection):
    """The last token for the class token."""

    def forward(self, x, grid):
        N = grid[0] * grid[1]
        return super().forward(torch.cat([x[:, N:], x[:, :N]], dim=1), grid)


class FirstTokenForAll(ConvProjection):
    """The class token handed back at the end of the sequence."""

    def forward(self, x, grid):
        return super().forward(x, grid).roll(-1, dims=1)


class EveryPlace(ConvProjection):
    """No stride."""

    def __init__(self, dim, stride):
        super().__init__(dim, 1)


class ShrunkFirst(ConvProjection):
    """Every second place, and a convolution over those."""

    def __init__(self, dim, stride):
        super().__init__(dim, 1)
        self.stride = stride

    def forward(self, x, grid):
        prefix, map = split(x, grid)
        map = map[:, :, :: self.stride, :: self.stride]
        return super().forward(join(prefix, map), map.shape[2:])


class NotPadded(ConvProjection):
    """Without zeros around."""

    def __init__(self, dim, stride):
        super().__init__(dim, stride)
        self.conv.padding = (0, 0)


class GridTransposed(ConvProjection):
    """Rows of h places."""

    def forward(self, x, grid):
        return super().forward(x, grid[::-1])


class MapTransposed(ConvProjection):
    """Handed back column by column."""

    def forward(self, x, grid):
        prefix, map = split(x, grid)
        return self.linear(join(prefix, self.norm(self.conv(map)).mT))


class ReshapedIn(ConvProjection):
    """Channels and places mixed up on the way in."""

    def forward(self, x, grid):
        prefix, _ = split(x, grid)
        map = x[:, prefix.shape[1] :].reshape(len(x), -1, *grid)
        return self.linear(join(prefix, self.norm(self.conv(map))))


class ReshapedOut(ConvProjection):
    """Channels and places mixed up on the way out."""

    def forward(self, x, grid):
        prefix, map = split(x, grid)
        map = self.norm(self.conv(map))
        return self.linear(torch.cat([prefix, map.reshape(len(x), -1, x.shape[2])], dim=1))


class NotNormed(ConvProjection):
    """The norm left out."""

    def forward(self, x, grid):
        prefix, map = split(x, grid)
        return self.linear(join(prefix, self.conv(map)))


class NormFirst(ConvProjection):
    """The norm in front of the convolution."""

    def forward(self, x, grid):
        prefix, map = split(x, grid)
        return self.linear(join(prefix, self.conv(self.norm(map))))


class LinearFirst(ConvProjection):
    """The Linear in front of the convolution."""

    def forward(self, x, grid):
        prefix, map = split(self.linear(x), grid)
        return join(prefix, self.norm(self.conv(map)))


class NotProjected(ConvProjection):
    """Without the Linear."""

    def forward(self, x, grid):
        prefix, map = split(x, grid)
        return join(prefix, self.norm(self.conv(map)))


class Added(ConvProjection):
    """As a PEG: what the convolution makes is added to the map."""

    def __init__(self, dim, stride):
        super().__init__(dim, stride)
        self.stride = stride

    def forward(self, x, grid):
        prefix, map = split(x, grid)
        kept = map[:, :, :: self.stride, :: self.stride]
        return self.linear(join(prefix, kept + self.norm(self.conv(map))))


def keys_case(about, B, grid, R, dim, stride):
    """Tokens of a grid behind R prefix tokens."""
    h, w = grid
    S = R + -(-h // stride) * -(-w // stride)
    return Case(
        about=about,
        build=(dim, stride),
        inputs=lambda g: (normal(g, B, R + h * w, dim), grid),
        shape="B S D",
        sizes={"B": B, "S": S, "D": dim, "h": h, "w": w},
    )


CONV_KEYS = Exercise(
    name="conv_keys",
    lesson="17",
    task="A module with `conv`, a 3x3 convolution for each channel by itself, padding 1, without bias; "
    "`norm`, a BatchNorm2d; `linear`, dim to dim. The patches, the last h*w tokens, pass conv and norm "
    "as a map; then all tokens pass the Linear: x (B, T, D), grid (h, w) -> (B, S, D).",
    minutes=12,
    difficulty=2,
    kind="module",
    reference=ConvProjection,
    solution=ConvKeys,
    tolerance=1e-4,
    cases=(
        keys_case("a key for four tokens", B=2, grid=(4, 6), R=1, dim=5, stride=2),
        keys_case("a key for each token", B=2, grid=(3, 4), R=1, dim=6, stride=1),
        keys_case("sides that are odd", B=3, grid=(5, 7), R=1, dim=4, stride=2),
    ),
    hints=(
        "A convolution that treats each channel by itself has groups=dim. With a 3x3 kernel, padding=1 "
        "and the given stride, a side of 6 becomes 3 and a side of 5 becomes 3, too.",
        "split(x, grid) from vitcourse.parts gives the prefix (B, R, D) and the map (B, D, h, w); "
        "join(prefix, map) puts them together, whatever the size of the map is by then.",
        "Split, conv and norm on the map, join, linear on the whole: the class token passes the Linear "
        "alone.",
    ),
    mistakes=(
        Mistake(
            "class token lost",
            PrefixDropped,
            "Your class token is gone: it is a key, too, and stands in front of the others",
        ),
        Mistake(
            "class token not projected",
            PrefixNotProjected,
            "Your class token goes around the Linear: it goes around the convolution and the norm alone",
        ),
        Mistake(
            "class token normed",
            PrefixNormed,
            "Your norm treats the class token, too: it belongs to the convolution, which the class token "
            "does not pass",
        ),
        Mistake(
            "patches taken from the front",
            PrefixLast,
            "You took the patches from the front of the sequence: the class token stands there, the "
            "patches are the last h*w tokens",
        ),
        Mistake(
            "class token at the end",
            FirstTokenForAll,
            "You put the class token behind the patches: it comes first, as before",
        ),
        Mistake(
            "no stride",
            EveryPlace,
            "Your convolution stands at every place: give it the stride",
        ),
        Mistake(
            "shrunk before the convolution",
            ShrunkFirst,
            "You took every second place first, and convolved those: the convolution reads all places, "
            "and has the stride",
        ),
        Mistake(
            "no padding",
            NotPadded,
            "Your convolution has no zeros around the map: padding=1",
        ),
        Mistake(
            "grid turned",
            GridTransposed,
            "You laid the tokens out in w rows of h: the grid is (h, w), h rows of w",
        ),
        Mistake(
            "column by column",
            MapTransposed,
            "You handed the map back column by column: tokens lie row by row",
        ),
        Mistake(
            "reshaped on the way in",
            ReshapedIn,
            "You reshaped tokens into a map: move the channels to the front first, or they are mixed up "
            "with places",
        ),
        Mistake(
            "reshaped on the way out",
            ReshapedOut,
            "You reshaped the map into tokens: move the channels to the end by a transpose",
        ),
        Mistake("no norm", NotNormed, "The norm is left out: it follows the convolution"),
        Mistake(
            "norm before the convolution",
            NormFirst,
            "Your norm stands in front of the convolution: it follows it",
        ),
        Mistake(
            "Linear before the convolution",
            LinearFirst,
            "Your Linear stands in front of the convolution: it comes last",
        ),
        Mistake("no Linear", NotProjected, "The Linear is left out: all tokens pass it in the end"),
        Mistake(
            "added",
            Added,
            "You added the tokens to what the convolution makes of them, as a PEG does: here it takes "
            "their place",
        ),
    ),
)

# scores that know how far it is -------------------------------------------------------------------


def relative_logits(q, rows, columns, grid):
    """q (B, K, N, d) . (r_h + r_w) for each query and key: (B, K, N, N)."""
    h, w = grid
    place = torch.arange(h * w, device=q.device)
    y, x = place // w, place % w  # (N,)
    dy = y[None, :] - y[:, None] + h - 1  # (N, N), key minus query, from 0 to 2h-2
    dx = x[None, :] - x[:, None] + w - 1  # (N, N), from 0 to 2w-2
    offset = rows[dy] + columns[dx]  # (N, N, d)
    return torch.einsum("bkqd,qjd->bkqj", q, offset)


def query_minus_key(q, rows, columns, grid):
    """The sign turned."""
    return relative_logits(q, rows.flip(0), columns.flip(0), grid)


def rows_turned(q, rows, columns, grid):
    """The sign turned for the rows."""
    return relative_logits(q, rows.flip(0), columns, grid)


def columns_turned(q, rows, columns, grid):
    """The sign turned for the columns."""
    return relative_logits(q, rows, columns.flip(0), grid)


def keys_by_queries(q, rows, columns, grid):
    """Keys downwards, queries to the right."""
    return relative_logits(q, rows, columns, grid).mT


def rows_alone(q, rows, columns, grid):
    """Columns forgotten."""
    return relative_logits(q, rows, torch.zeros_like(columns), grid)


def columns_alone(q, rows, columns, grid):
    """Rows forgotten."""
    return relative_logits(q, torch.zeros_like(rows), columns, grid)


def divided(q, rows, columns, grid):
    """Divided by sqrt(d)."""
    return relative_logits(q, rows, columns, grid) * q.shape[-1] ** -0.5


def not_shifted(q, rows, columns, grid):
    """Negative numbers count from the end."""
    rows, columns = (table.roll(len(table) // 2, 0) for table in (rows, columns))
    return relative_logits(q, rows, columns, grid)


def by_absolute_place(q, rows, columns, grid):
    """The key's own row and column."""
    h, w = grid
    place = torch.arange(h * w)
    return q @ (rows[place // w] + columns[place % w]).T


def vectors_of_the_key(q, rows, columns, grid):
    """The vectors meet the query at the key's place."""
    return relative_logits(q, rows.flip(0), columns.flip(0), grid).mT


def by_distance(q, rows, columns, grid):
    """Above and below alike."""
    middle = [len(table) // 2 for table in (rows, columns)]
    both = [
        torch.cat([t[m + 1 :].flip(0), t[m:]]) for t, m in zip((rows, columns), middle, strict=True)
    ]
    return relative_logits(q, *both, grid)


def multiplied(q, rows, columns, grid):
    """One times the other."""
    first = relative_logits(q, rows, torch.zeros_like(columns), grid)
    return first * relative_logits(q, torch.zeros_like(rows), columns, grid)


def turned_grid(q, rows, columns, grid):
    """Places column by column."""
    h, w = grid
    order = torch.arange(h * w).view(w, h).T.flatten()
    back = order.argsort()
    return relative_logits(q[:, :, order], rows, columns, grid)[:, :, back][..., back]


def softened(q, rows, columns, grid):
    """The softmax already."""
    return relative_logits(q, rows, columns, grid).softmax(dim=-1)


def queries_of_grid(B, K, grid, d):
    """Queries of all places, and the two tables."""
    h, w = grid
    tables = (2 * h - 1, d), (2 * w - 1, d)
    return lambda g: (normal(g, B, K, h * w, d), *(normal(g, *table) for table in tables), grid)


RELATIVE_LOGITS = Exercise(
    name="relative_logits",
    lesson="17",
    task="What the distance adds to the scores: q . (r_h + r_w), not divided, for each query and each "
    "key of a grid (h, w), places row by row. `rows` holds r_h for dy = key minus query, from -(h-1) to "
    "h-1, `columns` r_w likewise: q (B, K, N, d), (2h-1, d), (2w-1, d), grid -> (B, K, N, N).",
    minutes=12,
    difficulty=3,
    reference=relative_logits,
    tolerance=1e-4,
    cases=(
        Case(
            about="a grid of 3 x 4",
            inputs=queries_of_grid(2, 5, (3, 4), 6),
            shape="B K N N",
            sizes=dict(B=2, K=5, N=12, d=6, h=3, w=4),
        ),
        Case(
            about="a grid of 5 x 2",
            inputs=queries_of_grid(4, 3, (5, 2), 7),
            shape="B K N N",
            sizes=dict(B=4, K=3, N=10, d=7, h=5, w=2),
        ),
    ),
    hints=(
        "Place n stands in row n // w and column n % w. Subtract: y[None, :] - y[:, None] is (N, N), the "
        "rows from each query to each key.",
        "dy goes from -(h-1) to h-1, the rows of the table from 0 to 2h-2: add h-1. Then rows[dy + h - 1] "
        "is (N, N, d), a vector for each query and key. The same with columns.",
        'Add the two, and multiply with the query: torch.einsum("bkqd,qjd->bkqj", q, offset). The query '
        "is that of row q, whatever the key.",
    ),
    mistakes=(
        Mistake(
            "query minus key",
            query_minus_key,
            "Your offsets are query minus key: the tables are for key minus query",
        ),
        Mistake(
            "rows the other way",
            rows_turned,
            "Your rows are query minus key: a key that lies below its query has a positive dy",
        ),
        Mistake(
            "columns the other way",
            columns_turned,
            "Your columns are query minus key: a key that lies to the right has a positive dx",
        ),
        Mistake(
            "keys by queries",
            keys_by_queries,
            "Your result has the keys in the third axis: queries come first, keys last",
        ),
        Mistake("rows alone", rows_alone, "The columns are forgotten: add r_w to r_h"),
        Mistake("columns alone", columns_alone, "The rows are forgotten: add r_h to r_w"),
        Mistake(
            "divided",
            divided,
            "You divided by sqrt(d): that happens later, to the sum of both parts of the score",
        ),
        Mistake(
            "table not shifted",
            not_shifted,
            "A negative index counts from the end of the table: add h-1 to dy and w-1 to dx",
        ),
        Mistake(
            "the key's own place",
            by_absolute_place,
            "You took the vectors of the key's own row and column: they belong to the offset from query "
            "to key",
        ),
        Mistake(
            "the query of the key",
            vectors_of_the_key,
            "You multiplied the vectors with the query that stands at the key's place: take the query "
            "that asks",
        ),
        Mistake(
            "by distance",
            by_distance,
            "Your offsets have lost their sign: a key above is not a key below",
        ),
        Mistake(
            "multiplied",
            multiplied,
            "You multiplied what rows and columns give: their vectors are added",
        ),
        Mistake(
            "column by column",
            turned_grid,
            "You numbered the places column by column: they lie row by row, n is in row n // w",
        ),
        Mistake(
            "a softmax",
            softened,
            "You took a softmax: these are scores, and q.k is still to be added",
        ),
    ),
)

# a norm that goes into its Linear -----------------------------------------------------------------


def fuse_norm(weight, gamma, beta, mean, var, eps):
    """One Linear for a Linear without bias and a BatchNorm: (M, D) -> (M, D+1), the bias last."""
    factor = gamma / (var + eps).sqrt()  # (M,)
    bias = beta - mean * factor  # (M,)
    return torch.cat([factor[:, None] * weight, bias[:, None]], dim=1)


def divided_by_variance(weight, gamma, beta, mean, var, eps):
    """No root."""
    return fuse_norm(weight, gamma, beta, mean, (var + eps).square() - eps, eps)


def without_eps(weight, gamma, beta, mean, var, eps):
    """The variance alone."""
    return fuse_norm(weight, gamma, beta, mean, var, 0.0)


def eps_outside(weight, gamma, beta, mean, var, eps):
    """Added behind the root."""
    return fuse_norm(weight, gamma, beta, mean, (var.sqrt() + eps).square(), 0.0)


def beta_alone(weight, gamma, beta, mean, var, eps):
    """The mean forgotten."""
    return fuse_norm(weight, gamma, beta, torch.zeros_like(mean), var, eps)


def mean_alone(weight, gamma, beta, mean, var, eps):
    """Beta forgotten."""
    return fuse_norm(weight, gamma, torch.zeros_like(beta), mean, var, eps)


def mean_without_gamma(weight, gamma, beta, mean, var, eps):
    """Gamma forgotten in the bias."""
    fused = fuse_norm(weight, gamma, beta, mean, var, eps)
    return torch.cat([fused[:, :-1], (beta - mean / (var + eps).sqrt())[:, None]], dim=1)


def mean_as_it_is(weight, gamma, beta, mean, var, eps):
    """The mean not multiplied."""
    fused = fuse_norm(weight, gamma, beta, mean, var, eps)
    return torch.cat([fused[:, :-1], (beta - mean)[:, None]], dim=1)


def mean_added(weight, gamma, beta, mean, var, eps):
    """The sign turned."""
    return fuse_norm(weight, gamma, beta, -mean, var, eps)


def beta_multiplied(weight, gamma, beta, mean, var, eps):
    """Beta, too, by the factor."""
    return fuse_norm(weight, gamma, beta * gamma / (var + eps).sqrt(), mean, var, eps)


def gamma_forgotten(weight, gamma, beta, mean, var, eps):
    """One in its place."""
    return fuse_norm(weight, torch.ones_like(gamma), beta, mean, var, eps)


def weight_as_it_is(weight, gamma, beta, mean, var, eps):
    """The bias alone is new."""
    fused = fuse_norm(weight, gamma, beta, mean, var, eps)
    return torch.cat([weight, fused[:, -1:]], dim=1)


def bias_first(weight, gamma, beta, mean, var, eps):
    """The bias in front."""
    return fuse_norm(weight, gamma, beta, mean, var, eps).roll(1, dims=1)


def multiplied_by_root(weight, gamma, beta, mean, var, eps):
    """Times the root."""
    return fuse_norm(weight, gamma * (var + eps), beta, mean, var, eps)


def along_inputs(weight, gamma, beta, mean, var, eps):
    """The factor along the other axis."""
    factor = gamma / (var + eps).sqrt()
    return torch.cat([weight * factor, (beta - mean * factor)[:, None]], dim=1)


def numbers_of_norm(M, D):
    """A weight, and what a BatchNorm has learned and counted."""

    def make(g):
        var = 0.05 + torch.rand(M, generator=g)
        return normal(g, M, D), normal(g, M), normal(g, M), normal(g, M), var, 0.1

    return make


FUSE_NORM = Exercise(
    name="fuse_norm",
    lesson="17",
    task="A Linear without bias, `weight` (M, D), and a BatchNorm in evaluation behind it, with `gamma`, "
    "`beta`, `mean`, `var`, each (M,), and `eps`. Make one Linear of the two: its weight, and its bias "
    "as one column more, (M, D+1).",
    minutes=8,
    difficulty=2,
    reference=fuse_norm,
    cases=(
        Case(
            about="four outputs",
            inputs=numbers_of_norm(4, 3),
            shape="M D+1",
            sizes=dict(M=4, D=3),
        ),
        Case(
            about="five outputs",
            inputs=numbers_of_norm(5, 7),
            shape="M D+1",
            sizes=dict(M=5, D=7),
        ),
    ),
    hints=(
        "In evaluation a BatchNorm has fixed numbers: y -> gamma (y - mean) / sqrt(var + eps) + beta. "
        "Write it as y * factor + something that does not depend on y.",
        "factor is gamma / sqrt(var + eps), the rest is beta - mean * factor. With y = W x, the factor "
        "of output m multiplies row m of W.",
        "torch.cat([factor[:, None] * weight, bias[:, None]], dim=1) puts both side by side.",
    ),
    mistakes=(
        Mistake(
            "no root",
            divided_by_variance,
            "You divided by the variance: a BatchNorm divides by its root",
        ),
        Mistake("eps forgotten", without_eps, "eps is forgotten: it is added to the variance"),
        Mistake(
            "eps behind the root",
            eps_outside,
            "You added eps to the root: it belongs to the variance, under the root",
        ),
        Mistake(
            "mean forgotten",
            beta_alone,
            "Your bias is beta alone: the mean is subtracted, too, times the factor",
        ),
        Mistake(
            "mean not multiplied",
            mean_as_it_is,
            "Your bias is beta minus the mean: the mean is multiplied by the factor, as the output is",
        ),
        Mistake("beta forgotten", mean_alone, "beta is forgotten: it is added in the end"),
        Mistake(
            "gamma forgotten in the bias",
            mean_without_gamma,
            "gamma is forgotten in your bias: the mean is multiplied by the whole factor, as the weight is",
        ),
        Mistake("mean added", mean_added, "You added the mean: a BatchNorm subtracts it"),
        Mistake(
            "beta multiplied",
            beta_multiplied,
            "You multiplied beta by the factor: it is added as it is, in the end",
        ),
        Mistake(
            "gamma forgotten",
            gamma_forgotten,
            "gamma is forgotten: it is a part of the factor, for the weight and for the mean",
        ),
        Mistake(
            "weight as it was",
            weight_as_it_is,
            "Your weight is as it was: each row is multiplied by its factor",
        ),
        Mistake(
            "bias in front",
            bias_first,
            "Your bias is the first column: it is the last one",
        ),
        Mistake(
            "multiplied by the root",
            multiplied_by_root,
            "You multiplied by the root of the variance: divide by it",
        ),
        Mistake(
            "along the inputs",
            along_inputs,
            "Your factor runs along the inputs: each output, a row of the weight, has one, factor[:, None]",
        ),
    ),
)

# ------------------------------------------------------------------------------------------------

EXERCISES = (CONV_KEYS, RELATIVE_LOGITS, FUSE_NORM)

QUESTIONS = {
    "scores of the head in the first block of CvT-13, at 224 x 224": (
        2458624,
        "56 x 56 queries, and a key for every second row and column of them: 28 x 28.",
        {
            9834496: "That is what it would be if each of the 56 x 56 tokens were a key.",
            614656: "Queries keep their number: the stride is that of keys and values.",
            4917248: "Keys have a stride along rows and along columns.",
            38809: "So many has a ViT-B/16, whose patches are 16 pixels wide: here a token stands for 4.",
            3136: "That is the number of queries.",
        },
    ),
    "of the sixteen 3x3 convolutions of ResNet-50's blocks, those that BotNet-50 keeps": (
        13,
        "Attention takes the place of those of the last stage, and it has three blocks.",
        {
            0: "That would be SASA, of lesson 15.",
            3: "That is how many it replaces.",
            16: "Some are replaced.",
            12: "The last stage has three blocks, not four.",
            10: "The stage before, with six blocks, stays as it is.",
        },
    ),
    "layers of LeViT-128S that read more than one place with learned kernels": (
        4,
        "The stem has four convolutions of 3 x 3. All other layers treat each place by itself.",
        {
            0: "The stem is made of convolutions.",
            1: "The stem has more than one: each halves the image.",
            3: "The stem makes an image 16 times smaller, by two each time.",
            6: "Between two stages it is attention that shrinks the map, with no kernel.",
            5: "A ViT has one, its patches: LeViT has four small ones in their place.",
        },
    ),
}
