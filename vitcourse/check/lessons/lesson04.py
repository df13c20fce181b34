"""Exercises of lesson 04: tokens look at each other."""

import torch.nn.functional as F
from einops import rearrange
from torch import nn

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.vit import Attention

# scores -------------------------------------------------------------------------------------------


def scores(q, k):
    """How well each query fits each key: (B, T, d), (B, T, d) -> (B, T, T)."""
    return q @ k.transpose(1, 2) / q.shape[-1] ** 0.5


def scores_without_scale(q, k):
    """The bare dot products."""
    return q @ k.transpose(1, 2)


def scores_over_width(q, k):
    """Divided by d, without the root."""
    return q @ k.transpose(1, 2) / q.shape[-1]


def scores_times_root(q, k):
    """Multiplied where a division belongs."""
    return q @ k.transpose(1, 2) * q.shape[-1] ** 0.5


def scores_over_tokens(q, k):
    """The root of the number of tokens."""
    return q @ k.transpose(1, 2) / q.shape[1] ** 0.5


def scores_not_transposed(q, k):
    """Two matrices that do not fit."""
    return q @ k / q.shape[-1] ** 0.5


def scores_turned_round(q, k):
    """All axes of the keys exchanged, the batch too."""
    return q @ k.permute(2, 1, 0) / q.shape[-1] ** 0.5


def scores_exchanged(q, k):
    """A row for each key."""
    return scores(k, q)


SCORES = Exercise(
    name="scores",
    lesson="04",
    task="Compute the scores (B, T, T) of queries and keys (B, T, d): dot products over sqrt(d), a row for each query.",
    minutes=8,
    difficulty=1,
    reference=scores,
    cases=(
        Case(
            about="two images of five tokens",
            inputs=lambda g: (normal(g, 2, 5, 3), normal(g, 2, 5, 3)),
            shape="B T T",
            sizes=dict(B=2, T=5, d=3),
        ),
        Case(
            about="heads that are wider than the sequence is long",
            inputs=lambda g: (normal(g, 3, 4, 11), normal(g, 3, 4, 11)),
            shape="B T T",
            sizes=dict(B=3, T=4, d=11),
        ),
    ),
    hints=(
        "A score is the dot product of one query and one key. How many pairs of them are there?",
        "All dot products at once are one matrix product: (T, d) times (d, T). Which of the two must be "
        "transposed, so that the rows belong to the queries?",
        "k.transpose(1, 2) exchanges the tokens and the width of the keys and leaves the batch alone.",
        "Divide q @ k.transpose(1, 2) by the root of the width: q.shape[-1] ** 0.5.",
    ),
    mistakes=(
        Mistake(
            "no scale",
            scores_without_scale,
            "These are the bare dot products: they grow with the width, so divide them by sqrt(d)",
        ),
        Mistake(
            "divided by d",
            scores_over_width,
            "You divided by d itself, which makes wide heads indifferent: divide by its root, sqrt(d)",
        ),
        Mistake(
            "multiplied by the root",
            scores_times_root,
            "You multiplied by sqrt(d), which makes large scores larger still: divide by it",
        ),
        Mistake(
            "scaled by the tokens",
            scores_over_tokens,
            "You divided by the root of the number of tokens: it is the width d of a query that counts",
        ),
        Mistake(
            "not transposed",
            scores_not_transposed,
            "(T, d) times (T, d) do not fit: the keys must be transposed, k.transpose(1, 2)",
        ),
        Mistake(
            "all axes turned round",
            scores_turned_round,
            "On three axes .T exchanges the batch, too: k.transpose(1, 2) exchanges the last two alone",
        ),
        Mistake(
            "exchanged",
            scores_exchanged,
            "Your scores are transposed: row i must hold the scores of query i, so keep q on the left "
            "and transpose k",
        ),
    ),
)

# weights ------------------------------------------------------------------------------------------


def weights(scores):
    """How much each query takes from every token: scores (B, T, T) -> rows that sum to one."""
    return scores.softmax(dim=-1)


def weights_over_queries(scores):
    """Columns that sum to one."""
    return scores.softmax(dim=1)


def weights_over_batch(scores):
    """The images compete with each other."""
    return scores.softmax(dim=0)


def weights_by_sigmoid(scores):
    """Each score by itself."""
    return scores.sigmoid()


def weights_without_exp(scores):
    """Divided by the sum, without the exponential."""
    return scores / scores.sum(dim=-1, keepdim=True)


def weights_all_together(scores):
    """One softmax over a whole map."""
    return scores.flatten(1).softmax(dim=-1).view(scores.shape)


def weights_of_whole_batch(scores):
    """One sum for all."""
    return scores.exp() / scores.exp().sum()


def weights_without_axis(scores):
    """The axis of the keys lost in the sum."""
    return scores.exp() / scores.exp().sum(dim=-1)


def weights_not_divided(scores):
    """The exponential alone."""
    return scores.exp()


WEIGHTS = Exercise(
    name="weights",
    lesson="04",
    task="Turn scores (B, T, T), a row for each query, into weights: positive, and every row sums to one.",
    minutes=5,
    difficulty=1,
    reference=weights,
    cases=(
        Case(
            about="two maps of five tokens",
            inputs=lambda g: (normal(g, 2, 5, 5),),
            shape="B T T",
            sizes=dict(B=2, T=5),
        ),
        Case(
            about="scores of which all are negative",
            inputs=lambda g: (-0.5 - normal(g, 3, 7, 7).abs(),),
            shape="B T T",
            sizes=dict(B=3, T=7),
        ),
    ),
    hints=(
        "The weights of one query are shares of a whole. What do the numbers in its row sum to?",
        "Softmax makes shares of any numbers: it takes exp of each, and divides by the sum of a row.",
        "The axes are (batch, query, key). The sum goes over the keys: which axis is that?",
        "scores.softmax(dim=...) does it in one call; the last axis is dim=-1.",
    ),
    mistakes=(
        Mistake(
            "over the queries",
            weights_over_queries,
            "Your columns sum to one: each query shares out its attention, so the softmax goes over "
            "the keys, the last axis",
        ),
        Mistake(
            "over the batch",
            weights_over_batch,
            "Your softmax goes over the batch, so that images compete: it goes over the keys, the last "
            "axis",
        ),
        Mistake(
            "sigmoid",
            weights_by_sigmoid,
            "A sigmoid looks at each score by itself: the scores of one query must compete, with softmax",
        ),
        Mistake(
            "no exponent",
            weights_without_exp,
            "You divided by the sum but left out the exponential, so negative scores give negative "
            "shares: take exp first",
        ),
        Mistake(
            "all together",
            weights_all_together,
            "Your whole map sums to one: each query has attention of its own, so every row must",
        ),
        Mistake(
            "whole batch",
            weights_of_whole_batch,
            "You divided by the sum of all numbers, of all images: every row must sum to one, so sum over "
            "the keys alone, sum(dim=-1, keepdim=True)",
        ),
        Mistake(
            "axis lost",
            weights_without_axis,
            "The sum of a row lost its axis, so it no longer stands beside its row: pass keepdim=True",
        ),
        Mistake(
            "not divided",
            weights_not_divided,
            "You took the exponential and stopped there: divide by the sum of the row",
        ),
    ),
)

# attention ----------------------------------------------------------------------------------------


def attention(q, k, v):
    """Each token's mixture of values: three of (B, T, d) -> (B, T, d)."""
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5  # (B, T, T)
    return scores.softmax(dim=-1) @ v  # (B, T, d)


def attention_without_scale(q, k, v):
    """Bare dot products."""
    return (q @ k.transpose(1, 2)).softmax(dim=-1) @ v


def attention_over_width(q, k, v):
    """Divided by d."""
    return (q @ k.transpose(1, 2) / q.shape[-1]).softmax(dim=-1) @ v


def attention_over_queries(q, k, v):
    """Columns that sum to one."""
    return scores(q, k).softmax(dim=1) @ v


def attention_over_batch(q, k, v):
    """The images compete with each other."""
    return scores(q, k).softmax(dim=0) @ v


def attention_to_queries(q, k, v):
    """A mixture of queries."""
    return attention(q, k, q)


def attention_to_keys(q, k, v):
    """A mixture of keys."""
    return attention(q, k, k)


def attention_exchanged(q, k, v):
    """The keys ask."""
    return attention(k, q, v)


def attention_hard(q, k, v):
    """The value of the best key alone."""
    return F.one_hot(scores(q, k).argmax(dim=-1), k.shape[1]).to(v) @ v


def attention_not_weighted(q, k, v):
    """Scores in place of weights."""
    return scores(q, k) @ v


ATTENTION = Exercise(
    name="attention",
    lesson="04",
    task="Give every token its mixture of the values: queries, keys and values (B, T, d) -> (B, T, d).",
    minutes=10,
    difficulty=2,
    reference=F.scaled_dot_product_attention,
    solution=attention,
    cases=(
        Case(
            about="two images of five tokens",
            inputs=lambda g: tuple(normal(g, 2, 5, 3) for _ in range(3)),
            shape="B T d",
            sizes=dict(B=2, T=5, d=3),
        ),
        Case(
            about="heads that are wider than the sequence is long",
            inputs=lambda g: tuple(0.7 * normal(g, 3, 4, 11) for _ in range(3)),
            shape="B T d",
            sizes=dict(B=3, T=4, d=11),
        ),
    ),
    hints=(
        "Three steps: scores, weights, and the sum of values by weight. You have written two of them.",
        "A query's new token is a weighted sum of all values: weight 1 times value 1, and so on.",
        "Rows of weights times the matrix of values do all the sums at once: (T, T) @ (T, d).",
        "weights(scores(q, k)) @ v",
    ),
    mistakes=(
        Mistake(
            "no scale",
            attention_without_scale,
            "This is exactly what you get without dividing the scores by sqrt(d)",
        ),
        Mistake(
            "divided by d",
            attention_over_width,
            "The scores are divided by d: it must be the root, sqrt(d)",
        ),
        Mistake(
            "over the queries",
            attention_over_queries,
            "The softmax goes over the queries: the weights of one query must sum to one, so it goes "
            "over the keys",
        ),
        Mistake(
            "over the batch",
            attention_over_batch,
            "The softmax goes over the batch, as F.softmax does with three axes and no dim: it goes over "
            "the keys, dim=-1",
        ),
        Mistake(
            "queries for values",
            attention_to_queries,
            "You mixed the queries: the weights belong on the values v",
        ),
        Mistake(
            "keys for values",
            attention_to_keys,
            "You mixed the keys: they only decide the weights, which belong on the values v",
        ),
        Mistake(
            "exchanged",
            attention_exchanged,
            "Queries and keys are exchanged: a row of the scores belongs to a query, so it is q @ k "
            "transposed",
        ),
        Mistake(
            "hard",
            attention_hard,
            "You took the value of the best key alone, through which no gradient can flow: let softmax "
            "share out the weights",
        ),
        Mistake(
            "no softmax",
            attention_not_weighted,
            "The values are added up by bare scores: softmax must turn the scores into weights first",
        ),
    ),
)

# head width ---------------------------------------------------------------------------------------

HEAD_WIDTH = Exercise(
    name="head_width",
    lesson="04",
    task="ViT-B has tokens of width 768 and 12 heads: how wide is a query of one head?",
    minutes=2,
    difficulty=1,
    kind="number",
    reference=64,
    cases=(),
    hints=(
        "The heads share the width of a token: nothing is added, and nothing is left over.",
        "Each head gets an equal part: d = D / K.",
        "D is 768 and K is 12.",
    ),
    mistakes=(
        Mistake(
            "divided by three",
            256,
            "768 / 3 would share one token's width among q, k and v: each of them is 768 wide, and it is "
            "the 12 heads that share it",
        ),
        Mistake(
            "not divided",
            768,
            "That is the width of the whole query: the 12 heads share it",
        ),
        Mistake(
            "the number of heads",
            12,
            "That is how many heads there are: the question is how wide each one is",
        ),
    ),
)

# split heads --------------------------------------------------------------------------------------


def split_heads(x, heads):
    """Cut the width into heads: (B, T, D) -> (B, K, T, d)."""
    B, T, D = x.shape
    x = x.reshape(B, T, heads, D // heads)  # (B, T, K, d)
    return x.transpose(1, 2)  # (B, K, T, d)


def split_by_view(x, heads):
    """The right shape by a reshape alone."""
    B, T, D = x.shape
    return x.reshape(B, heads, T, D // heads)


def split_interleaved(x, heads):
    """Every K-th number goes to the same head."""
    return rearrange(x, "B T (d K) -> B K T d", K=heads)


def split_without_transpose(x, heads):
    """Heads behind the tokens."""
    return rearrange(x, "B T (K d) -> B T K d", K=heads)


def split_behind(x, heads):
    """Heads at the very end."""
    return rearrange(x, "B T (K d) -> B T d K", K=heads)


SPLIT_HEADS = Exercise(
    name="split_heads",
    lesson="04",
    task="Cut tokens (B, T, D) into heads (B, K, T, d): head 0 gets the first d numbers of every token.",
    minutes=8,
    difficulty=2,
    reference=split_heads,
    cases=(
        Case(
            about="two images, five heads",
            inputs=lambda g: (normal(g, 2, 7, 15), 5),
            shape="B K T d",
            sizes=dict(B=2, K=5, T=7, d=3, D=15),
        ),
        Case(
            about="two heads, wider than there are tokens",
            inputs=lambda g: (normal(g, 3, 4, 10), 2),
            shape="B K T d",
            sizes=dict(B=3, K=2, T=4, d=5, D=10),
        ),
    ),
    hints=(
        "The width D is K heads of d numbers each, one behind the other: split that axis in two.",
        "After the split you have (B, T, K, d). Which two axes are in each other's place?",
        "x.reshape(B, T, heads, D // heads) splits, transpose(1, 2) exchanges tokens and heads. A reshape "
        "straight to (B, K, T, d) would mix tokens.",
    ),
    mistakes=(
        Mistake(
            "only reshaped",
            split_by_view,
            "This is what reshape alone gives: the shape is right by accident and the heads hold pieces "
            "of other tokens, so split the width first and then transpose",
        ),
        Mistake(
            "interleaved",
            split_interleaved,
            "Neighbouring numbers went to different heads: D is K times d, in this order, so split it "
            "into (K, d) and not (d, K)",
        ),
        Mistake(
            "heads behind the tokens",
            split_without_transpose,
            "Each head is cut out rightly, but the tokens stand before the heads: exchange the two axes "
            "with transpose(1, 2)",
        ),
        Mistake(
            "heads at the end",
            split_behind,
            "The heads stand at the end: they must come right after the batch, (B, K, T, d)",
        ),
    ),
)

# merge heads --------------------------------------------------------------------------------------


def merge_heads(x):
    """Put the heads side by side again: (B, K, T, d) -> (B, T, D)."""
    return x.transpose(1, 2).flatten(2)


def merge_by_reshape(x):
    """The right shape by a reshape alone."""
    B, K, T, d = x.shape
    return x.reshape(B, T, K * d)


def merge_interleaved(x):
    """The first numbers of all heads, then the second ones."""
    return rearrange(x, "B K T d -> B T (d K)")


def merge_wide_tokens(x):
    """Every head a row of tokens."""
    return rearrange(x, "B K T d -> B K (T d)")


def merge_long(x):
    """The heads one behind the other, as if they were tokens."""
    return rearrange(x, "B K T d -> B (K T) d")


def merge_by_sum(x):
    """The heads added up."""
    return x.sum(dim=1)


MERGE_HEADS = Exercise(
    name="merge_heads",
    lesson="04",
    task="Put heads (B, K, T, d) side by side again: (B, T, D), so that it undoes split_heads.",
    minutes=6,
    difficulty=2,
    reference=merge_heads,
    cases=(
        Case(
            about="two images, five heads",
            inputs=lambda g: (normal(g, 2, 5, 7, 3),),
            shape="B T D",
            sizes=dict(B=2, T=7, D=15, K=5, d=3),
        ),
        Case(
            about="two heads, wider than there are tokens",
            inputs=lambda g: (normal(g, 3, 2, 4, 5),),
            shape="B T D",
            sizes=dict(B=3, T=4, D=10, K=2, d=5),
        ),
    ),
    hints=(
        "Go back the way you came: undo the last step of split_heads first.",
        "The numbers of one token must lie side by side before you join axes: (B, T, K, d).",
        "x.transpose(1, 2) brings the heads next to their widths; flatten(2) joins the last two axes.",
    ),
    mistakes=(
        Mistake(
            "only reshaped",
            merge_by_reshape,
            "This is what reshape alone gives: the shape is right by accident, and each token holds "
            "pieces of others, so exchange heads and tokens first",
        ),
        Mistake(
            "interleaved",
            merge_interleaved,
            "The numbers of the heads alternate: each head's d numbers must stay together, in the order "
            "(K d)",
        ),
        Mistake(
            "tokens joined",
            merge_wide_tokens,
            "You joined the tokens with the width: join the heads with the width, and keep the tokens",
        ),
        Mistake(
            "heads as tokens",
            merge_long,
            "The heads stand one behind the other, as if there were K times as many tokens: put them "
            "side by side in the width",
        ),
        Mistake(
            "added up",
            merge_by_sum,
            "You added the heads up, so that they cannot be told apart: put them side by side",
        ),
    ),
)

# one head -----------------------------------------------------------------------------------------


class OneHead(Attention):
    """The package's attention, with one head."""

    def __init__(self, dim):
        super().__init__(dim, heads=1)


class SelfAttention(nn.Module):
    """Self-attention with one head: x (B, T, D) -> (B, T, D)."""

    def __init__(self, dim):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # each (B, T, D)
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5  # (B, T, T)
        return self.proj(scores.softmax(dim=-1) @ v)  # (B, T, D)


class OneHeadWithoutScale(SelfAttention):
    """Bare dot products."""

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(attention_without_scale(q, k, v))


class OneHeadWithoutProj(SelfAttention):
    """The last layer made, and not used."""

    def forward(self, x):
        return attention(*self.qkv(x).chunk(3, dim=-1))


class OneHeadExchanged(SelfAttention):
    """The keys first."""

    def forward(self, x):
        k, q, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(attention(q, k, v))


class OneHeadOfInputs(SelfAttention):
    """The tokens themselves in place of values."""

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(attention(q, k, x))


class OneHeadOverQueries(SelfAttention):
    """Columns that sum to one."""

    def forward(self, x):
        return self.proj(attention_over_queries(*self.qkv(x).chunk(3, dim=-1)))


class OneHeadOverBatch(SelfAttention):
    """The images compete with each other."""

    def forward(self, x):
        return self.proj(attention_over_batch(*self.qkv(x).chunk(3, dim=-1)))


class OneHeadWithoutSoftmax(SelfAttention):
    """Bare scores."""

    def forward(self, x):
        return self.proj(attention_not_weighted(*self.qkv(x).chunk(3, dim=-1)))


class OneHeadInterleaved(SelfAttention):
    """Every third number of qkv."""

    def forward(self, x):
        return self.proj(attention(*self.qkv(x).unflatten(-1, (-1, 3)).unbind(dim=-1)))


SELF_ATTENTION = Exercise(
    name="self_attention",
    lesson="04",
    task="A module SelfAttention(dim) with one head: Linear qkv gives queries, keys and values in this order, Linear proj ends it.",
    minutes=12,
    difficulty=2,
    kind="module",
    reference=OneHead,
    solution=SelfAttention,
    cases=(
        Case(
            about="two images of five tokens",
            build=(6,),
            inputs=lambda g: (0.7 * normal(g, 2, 5, 6),),
            shape="B T D",
            sizes=dict(B=2, T=5, D=6),
        ),
        Case(
            about="a width that is not even",
            build=(7,),
            inputs=lambda g: (0.7 * normal(g, 3, 4, 7),),
            shape="B T D",
            sizes=dict(B=3, T=4, D=7),
        ),
    ),
    hints=(
        "Queries, keys and values are three linear maps of the same tokens. One Linear can do all three.",
        "self.qkv makes D numbers into 3 D. Cut the result in three along the last axis: chunk(3, dim=-1).",
        "Then comes what attention(q, k, v) does; with one head, d is the whole width.",
        "The last step is a linear map of the result: return self.proj(attention(q, k, v)).",
    ),
    mistakes=(
        Mistake(
            "no scale",
            OneHeadWithoutScale,
            "This is exactly what you get without dividing the scores by the root of the width",
        ),
        Mistake(
            "proj forgotten",
            OneHeadWithoutProj,
            "The attention is right, but proj is missing: the result must pass that last linear layer",
        ),
        Mistake(
            "exchanged",
            OneHeadExchanged,
            "Queries and keys are exchanged: the first third of qkv are the queries, the second the keys",
        ),
        Mistake(
            "values not projected",
            OneHeadOfInputs,
            "You added up the tokens themselves: the values are the last third of qkv",
        ),
        Mistake(
            "over the queries",
            OneHeadOverQueries,
            "The softmax goes over the queries: each query's weights must sum to one, so it goes over "
            "the keys",
        ),
        Mistake(
            "over the batch",
            OneHeadOverBatch,
            "The softmax goes over the batch, as F.softmax does with three axes and no dim: it goes over "
            "the keys, dim=-1",
        ),
        Mistake(
            "no softmax",
            OneHeadWithoutSoftmax,
            "The values are added up by bare scores: softmax must turn the scores into weights first",
        ),
        Mistake(
            "interleaved",
            OneHeadInterleaved,
            "You gave every third number to the queries: the first D numbers of qkv are the queries, "
            "then D of keys, then D of values",
        ),
    ),
)

# several heads ------------------------------------------------------------------------------------


class MultiHead(nn.Module):
    """Self-attention with several heads: x (B, T, D) -> (B, T, D)."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        B, T, D = x.shape
        qkv = self.qkv(x).reshape(B, T, 3, self.heads, D // self.heads)  # (B, T, 3, K, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, K, T, d)
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5  # (B, K, T, T)
        x = scores.softmax(dim=-1) @ v  # (B, K, T, d)
        x = x.transpose(1, 2).reshape(B, T, D)  # (B, T, D)
        return self.proj(x)


class ScaledByWholeWidth(Attention):
    """The root of D."""

    def __init__(self, dim, heads):
        super().__init__(dim, heads)
        self.scale = dim**-0.5


class WithoutScale(Attention):
    """Bare dot products."""

    def __init__(self, dim, heads):
        super().__init__(dim, heads)
        self.scale = 1.0


class MergedWithoutTranspose(Attention):
    """The heads put together by a reshape alone."""

    def forward(self, x):
        heads = self.attend(*self.project(x, None))
        return self.proj(heads.reshape(x.shape))


class MergedInterleaved(Attention):
    """The numbers of the heads in turn."""

    def forward(self, x):
        return self.proj(merge_interleaved(self.attend(*self.project(x, None))))


class CutInterleaved(Attention):
    """The width cut into (d, K)."""

    def project(self, x, grid):
        qkv = self.qkv(x).unflatten(-1, (3, -1, self.heads))
        return qkv.permute(2, 0, 4, 1, 3)


class CutByReshape(Attention):
    """Heads cut by a reshape alone."""

    def project(self, x, grid):
        return tuple(split_by_view(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))


class HeadsFirst(Attention):
    """Each head's queries, keys and values together."""

    def project(self, x, grid):
        return self.qkv(x).unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)


class HeadsOverQueries(Attention):
    """Columns that sum to one."""

    def attend(self, q, k, v, bias=None):
        return (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-2) @ v


class HeadsOfOneToken(Attention):
    """Tokens and heads not exchanged: the heads of each token look at each other."""

    def forward(self, x):
        q, k, v = (part.transpose(1, 2) for part in self.project(x, None))  # (B, T, K, d)
        return self.proj(self.attend(q, k, v).flatten(2))


class HeadsOverHeads(Attention):
    """The heads compete."""

    def attend(self, q, k, v, bias=None):
        return (q @ k.transpose(-2, -1) * self.scale).softmax(dim=1) @ v


class HeadsWithoutSoftmax(Attention):
    """Bare scores."""

    def attend(self, q, k, v, bias=None):
        return q @ k.transpose(-2, -1) * self.scale @ v


class HeadsWithoutProj(Attention):
    """The last layer made, and not used."""

    def forward(self, x):
        return merge_heads(self.attend(*self.project(x, None)))


class HeadsExchanged(Attention):
    """The keys ask."""

    def project(self, x, grid):
        q, k, v = super().project(x, grid)
        return k, q, v


MULTI_HEAD = Exercise(
    name="multi_head",
    lesson="04",
    task="A module MultiHead(dim, heads) with Linear qkv and Linear proj: qkv holds q, k and v in this order, each cut into heads.",
    minutes=20,
    difficulty=3,
    kind="module",
    reference=Attention,
    solution=MultiHead,
    cases=(
        Case(
            about="two images, five heads",
            build=(15, 5),
            inputs=lambda g: (0.7 * normal(g, 2, 7, 15),),
            shape="B T D",
            sizes=dict(B=2, T=7, D=15, K=5, d=3),
        ),
        Case(
            about="two heads, wider than there are tokens",
            build=(10, 2),
            inputs=lambda g: (0.6 * normal(g, 3, 4, 10),),
            shape="B T D",
            sizes=dict(B=3, T=4, D=10, K=2, d=5),
        ),
    ),
    hints=(
        "Begin as with one head. Then cut q, k and v into heads, and let every head attend by itself.",
        "With q, k and v of shape (B, K, T, d), q @ k.transpose(2, 3) gives a map (B, K, T, T) for every "
        "head. What is the width under the root now?",
        "Cut: self.qkv(x).reshape(B, T, 3, heads, D // heads), then permute(2, 0, 3, 1, 4) puts the three "
        "in front, and the heads before the tokens.",
        "At the end, transpose(1, 2) and reshape(B, T, D) put the heads side by side, and proj mixes them.",
    ),
    mistakes=(
        Mistake(
            "scaled by the whole width",
            ScaledByWholeWidth,
            "You divided by the root of the whole width D: a head's queries have only d = D / K numbers, "
            "so divide by sqrt(d)",
        ),
        Mistake(
            "no scale",
            WithoutScale,
            "This is exactly what you get without dividing the scores by sqrt(d)",
        ),
        Mistake(
            "merged without transpose",
            MergedWithoutTranspose,
            "The heads were put together by a reshape alone, which mixes tokens: exchange heads and "
            "tokens before you join heads and widths",
        ),
        Mistake(
            "merged interleaved",
            MergedInterleaved,
            "The heads were put together number by number in turn: each head's d numbers stay together",
        ),
        Mistake(
            "cut interleaved",
            CutInterleaved,
            "The heads were cut in the wrong order: the width is K heads of d numbers, (K, d), not (d, K)",
        ),
        Mistake(
            "cut by reshape",
            CutByReshape,
            "The heads were cut by a reshape alone, which mixes tokens: reshape to (B, T, K, d) and "
            "transpose",
        ),
        Mistake(
            "heads before q, k, v",
            HeadsFirst,
            "You gave each head its own q, k and v side by side: here all queries come first, then all "
            "keys, then all values, so the split is (3, K, d)",
        ),
        Mistake(
            "over the queries",
            HeadsOverQueries,
            "The softmax goes over the queries: each query's weights must sum to one, so it goes over "
            "the keys, dim=-1",
        ),
        Mistake(
            "heads of one token",
            HeadsOfOneToken,
            "The heads of each token looked at each other, and no token at another: after the cut, exchange "
            "tokens and heads, (B, T, K, d) to (B, K, T, d)",
        ),
        Mistake(
            "over the heads",
            HeadsOverHeads,
            "The softmax goes over the heads, as F.softmax does with four axes and no dim: it goes over the "
            "keys, dim=-1",
        ),
        Mistake(
            "no softmax",
            HeadsWithoutSoftmax,
            "The values are added up by bare scores: softmax must turn the scores into weights first",
        ),
        Mistake(
            "proj forgotten",
            HeadsWithoutProj,
            "The heads are right, but proj is missing: without it they are never mixed",
        ),
        Mistake(
            "exchanged",
            HeadsExchanged,
            "Queries and keys are exchanged: the first third of qkv are the queries, the second the keys",
        ),
    ),
)

EXERCISES = (
    SCORES,
    WEIGHTS,
    ATTENTION,
    HEAD_WIDTH,
    SPLIT_HEADS,
    MERGE_HEADS,
    SELF_ATTENTION,
    MULTI_HEAD,
)

QUESTIONS = {
    "numbers in one attention map of ViT-B/16 at 224 pixels": (
        38809,
        "197 queries times 197 keys: 196 patches and the class token look at each other.",
        {
            38416: "That is 196 squared: the class token looks and is looked at, too.",
            197: "That is one row: every one of the 197 tokens asks.",
            465708: "That is the map of all 12 heads: the question is about one.",
        },
    ),
    "attention maps in one forward pass of ViT-B, for one image": (
        144,
        "12 blocks with 12 heads each.",
        {
            12: "That is one block: there are 12 of them.",
            24: "Heads and blocks multiply: every block has all its heads.",
        },
    ),
    "heads of ViT-B, if each is 64 wide": (
        12,
        "The heads share the width of a token: 768 / 64.",
        {
            64: "That is the width of one head: how many of them fill 768?",
            36: "q, k and v have 768 numbers each, so three times the width changes nothing.",
        },
    ),
    "how many times as many numbers in an attention map when the side of the image doubles "
    "(patches only)": (
        16,
        "Four times as many patches, and each looks at four times as many.",
        {
            2: "Both sides double, so there are four times as many patches, and they look in pairs.",
            4: "That is how the number of patches grows: the map has a number for each pair.",
            8: "Four times as many queries and four times as many keys: 4 times 4.",
        },
    ),
    "sum of one row of attention weights": (
        1,
        "Softmax makes shares of a whole.",
        {
            0: "Weights are positive, so they cannot sum to nothing.",
            197: "That would be one for every key: they share one.",
        },
    ),
}
