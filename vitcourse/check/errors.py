"""Errors that people make in a ViT, as methods of the package's parts: what `trace` looks for."""

from collections import namedtuple
from functools import partial

import torch
import torch.nn.functional as F

from vitcourse.config import grid_of

Error = namedtuple("Error", "name stage part method function sentence")


def over_keys(scores):
    """The right weights."""
    return scores.softmax(-1)


def attend_by(scores_of, weights_of=over_keys, values="v"):
    """A method `attend` with other scores, other weights, or something else to add up."""

    def attend(self, q, k, v, bias=None):
        weights = weights_of(scores_of(self, q, k))
        return weights @ {"q": q, "k": k, "v": v}[values]

    return attend


def scores(self, q, k, scale=None):
    """The scores, with another scale."""
    return q @ k.transpose(-2, -1) * (self.scale if scale is None else scale)


def one_map(scores):
    """A softmax over a whole map."""
    return scores.flatten(-2).softmax(-1).view(scores.shape)


def hard(scores):
    """All weight for the best key."""
    return F.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores)


def attention_error(name, stage, sentence, *arguments, **options):
    """An error in `attend`."""
    function = attend_by(*arguments, **options)
    return Error(name, stage, "blocks.*.attn", "attend", function, sentence)


def project_by(split, order):
    """A method `project` that cuts qkv in another way."""

    def project(self, x, grid=None):
        qkv = self.qkv(x)
        K, d = self.heads, qkv.shape[-1] // 3 // self.heads
        parts = split(qkv, K, d)  # three of (B, K, T, d)
        return tuple(parts[i] for i in order)

    return project


def rightly(qkv, K, d):
    """(3, K, d)."""
    return qkv.unflatten(-1, (3, K, d)).permute(2, 0, 3, 1, 4)


def width_first(qkv, K, d):
    """(3, d, K)."""
    return qkv.unflatten(-1, (3, d, K)).permute(2, 0, 4, 1, 3)


def heads_first(qkv, K, d):
    """(K, 3, d)."""
    return qkv.unflatten(-1, (K, 3, d)).permute(3, 0, 2, 1, 4)


def last_of_three(qkv, K, d):
    """(K, d, 3)."""
    return qkv.unflatten(-1, (K, d, 3)).permute(4, 0, 2, 1, 3)


def by_view(qkv, K, d):
    """Tokens and heads exchanged by a reshape alone."""
    B, T, _ = qkv.shape
    return [part.reshape(B, K, T, d) for part in qkv.chunk(3, dim=-1)]


def project_error(name, sentence, split=rightly, order=(0, 1, 2)):
    """An error in `project`."""
    function = project_by(split, order)
    return Error(name, "heads", "blocks.*.attn", "project", function, sentence)


def merge_by(merge, last=True):
    """A method `forward` of attention that puts the heads together in another way."""

    def forward(self, x, grid=None):
        x = merge(self.attend(*self.project(x, grid), None))
        return self.proj(x) if last else x

    return forward


def merge_error(name, stage, sentence, merge, last=True):
    """An error behind `attend`."""
    return Error(name, stage, "blocks.*.attn", "forward", merge_by(merge, last), sentence)


def reshaped(x):
    """Heads joined by a reshape alone."""
    B, K, T, d = x.shape
    return x.reshape(B, T, K * d)


def heads_by(number):
    """A method `forward` of attention with another number of heads."""

    def forward(self, x, grid=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, number, -1)).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))

    return forward


def block_error(name, stage, sentence, function):
    """An error in the order of a block: `function(block, x)`."""

    def forward(self, x, grid=None):
        return function(self, x)

    return Error(name, stage, "blocks.*", "forward", forward, sentence)


def norm_after(b, x):
    """Post-norm."""
    x = b.norm1(x + b.attn(x))
    return b.norm2(x + b.mlp(x))


def norm_after_branch(b, x):
    """What a branch gives is normalised."""
    x = x + b.norm1(b.attn(x))
    return x + b.norm2(b.mlp(x))


def first_norm_twice(b, x):
    """norm1 before both branches."""
    x = x + b.attn(b.norm1(x))
    return x + b.mlp(b.norm1(x))


def norms_exchanged(b, x):
    """norm2 first."""
    x = x + b.attn(b.norm2(x))
    return x + b.mlp(b.norm1(x))


def no_norms(b, x):
    """Bare tokens."""
    x = x + b.attn(x)
    return x + b.mlp(x)


def no_first_norm(b, x):
    """Bare tokens for the attention."""
    x = x + b.attn(x)
    return x + b.mlp(b.norm2(x))


def no_second_norm(b, x):
    """Bare tokens for the MLP."""
    x = x + b.attn(b.norm1(x))
    return x + b.mlp(x)


def no_first_residual(b, x):
    """The attention alone."""
    x = b.attn(b.norm1(x))
    return x + b.mlp(b.norm2(x))


def no_second_residual(b, x):
    """The MLP alone."""
    x = x + b.attn(b.norm1(x))
    return b.mlp(b.norm2(x))


def normalised_residual(b, x):
    """Normalised tokens go around."""
    x = b.norm1(x)
    x = x + b.attn(x)
    x = b.norm2(x)
    return x + b.mlp(x)


def parallel(b, x):
    """Both branches read the same tokens."""
    return x + b.attn(b.norm1(x)) + b.mlp(b.norm2(x))


def mlp_first(b, x):
    """The other order."""
    x = x + b.mlp(b.norm2(x))
    return x + b.attn(b.norm1(x))


def no_mlp(b, x):
    """The attention only."""
    return x + b.attn(b.norm1(x))


def mlp_error(name, sentence, activation, last=None, stage="hidden"):
    """An error in the MLP."""

    def forward(self, x, grid=None):
        return (last or same)(self.fc2(activation(self.fc1(x))))

    return Error(name, stage, "blocks.*.mlp", "forward", forward, sentence)


def norm_by(eps=1e-6, unbiased=False):
    """A method `forward` of a layer norm, with another eps or variance."""

    def forward(self, x):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=unbiased)
        return (x - mean) / (variance + eps).sqrt() * self.weight + self.bias

    return forward


def norm_errors(name, sentence, function):
    """The same error in every norm."""
    parts = {"norm 1": "blocks.*.norm1", "norm 2": "blocks.*.norm2", "norm": "norm"}
    return [
        Error(name, stage, part, "forward", function, sentence) for stage, part in parts.items()
    ]


def same(x):
    """Nothing done."""
    return x


def whole_error(
    name, stage, sentence, begin=None, order=None, end=None, norm=None, read=None, apart=False
):
    """An error in how the parts of a whole ViT follow each other."""

    def forward(self, images):
        x, grid = self.patch_embed(images)
        x = (begin or in_order)(self, x, grid)
        begun = x
        for block in (order or list)(self.blocks):
            x = block(begun if apart else x, grid)
        x = (norm or self.norm)(x)
        token = (read or first_token)(x)
        return (end or same)(F.linear(token, self.head.weight, self.head.bias))

    return Error(name, stage, "", "forward", forward, sentence)


def first_token(x):
    """What the head reads."""
    return x[:, 0]


def in_order(m, x, grid):
    """Class token, patches, positions."""
    return m.position(torch.cat([m.prefix.expand(len(x), -1, -1), x], dim=1), grid)


def class_behind(m, x, grid):
    """Patches, class token, positions."""
    return m.position(torch.cat([x, m.prefix.expand(len(x), -1, -1)], dim=1), grid)


def columns_later(m, x, grid):
    """Patches put in another order after the embedding."""
    return in_order(m, x.unflatten(1, grid).transpose(1, 2).flatten(1, 2), grid)


def no_positions(m, x, grid):
    """Class token and patches."""
    return torch.cat([m.prefix.expand(len(x), -1, -1), x], dim=1)


def patch_positions(m, x, grid, first=1):
    """Positions added before the class token comes."""
    table = m.position.table[:, first : first + x.shape[1]]
    return torch.cat([m.prefix.expand(len(x), -1, -1), x + table], dim=1)


def positions_twice(m, x, grid):
    """Positions added again."""
    return m.position(in_order(m, x, grid), grid)


def normed_first(m, x, grid):
    """The final norm at the beginning."""
    return m.norm(in_order(m, x, grid))


def without_prefix(m, x, grid):
    """Zeros for the class token."""
    zeros = torch.zeros_like(m.prefix).expand(len(x), -1, -1)
    return m.position(torch.cat([zeros, x], dim=1), grid)


def by_columns(self, images):
    """The patches column by column."""
    grid = grid_of(images.shape[-2:], self.patch)
    return self.proj(images).transpose(2, 3).flatten(2).transpose(1, 2), grid


def reshaped_patches(self, images):
    """A reshape where the width and the patches must be exchanged."""
    grid, x = grid_of(images.shape[-2:], self.patch), self.proj(images)
    return x.reshape(len(x), grid[0] * grid[1], -1), grid


ORDER = "the thirds of qkv are taken in another order: first the queries, then keys, then values"
ERRORS = [
    Error(
        "patches column by column",
        "patches",
        "patch_embed",
        "forward",
        by_columns,
        "the patches come column by column: they go row by row",
    ),
    Error(
        "patches reshaped",
        "patches",
        "patch_embed",
        "forward",
        reshaped_patches,
        "a reshape mixes the numbers of different patches: flatten(2), then transpose(1, 2)",
    ),
    whole_error(
        "patches column by column",
        "+ class",
        "the patches come column by column: they go row by row",
        columns_later,
    ),
    whole_error(
        "class token behind",
        "+ class",
        "the class token stands behind the patches: it comes first",
        class_behind,
    ),
    whole_error(
        "class token behind, and read there",
        "+ class",
        "the class token stands behind the patches: it comes first",
        class_behind,
        read=lambda x: x[:, -1],
    ),
    whole_error(
        "no class token",
        "+ class",
        "the class token is all zeros: expand the parameter prefix over the batch",
        without_prefix,
    ),
    whole_error(
        "no positions",
        "+ position",
        "no positions are added: without them the patches are a set",
        no_positions,
    ),
    whole_error(
        "positions only for patches",
        "+ position",
        "the class token gets no position: concatenate first, then add the whole table",
        patch_positions,
    ),
    whole_error(
        "positions shifted",
        "+ position",
        "the patches get rows of the table from 0 on: row 0 belongs to the class token",
        partial(patch_positions, first=0),
    ),
    whole_error(
        "positions twice",
        "+ position",
        "the positions are added twice",
        positions_twice,
    ),
    whole_error(
        "norm before the blocks",
        "block 1, norm 1",
        "the final norm stands before the blocks: it belongs behind the last one",
        normed_first,
        norm=same,
    ),
    *norm_errors(
        "eps of 1e-5",
        "the eps of the norm is 1e-5, torch's default: here it is 1e-6",
        norm_by(eps=1e-5),
    ),
    *norm_errors(
        "unbiased variance",
        "the variance of the norm is divided by D - 1: divide by D",
        norm_by(unbiased=True),
    ),
    attention_error(
        "no scale",
        "scores",
        "the scores are not divided by sqrt(d)",
        partial(scores, scale=1.0),
    ),
    attention_error(
        "divided by d",
        "scores",
        "the scores are divided by d: it must be its root",
        lambda self, q, k: scores(self, q, k, 1 / q.shape[-1]),
    ),
    attention_error(
        "scale by the whole width",
        "scores",
        "the scores are divided by the root of the whole width: a head's own width d counts",
        lambda self, q, k: scores(self, q, k, (q.shape[-1] * self.heads) ** -0.5),
    ),
    attention_error(
        "multiplied by the root",
        "scores",
        "the scores are multiplied by sqrt(d): divide by it",
        lambda self, q, k: scores(self, q, k, q.shape[-1] ** 0.5),
    ),
    attention_error(
        "scaled by the tokens",
        "scores",
        "the scores are divided by the root of the number of tokens: the head's width d counts",
        lambda self, q, k: scores(self, q, k, q.shape[-2] ** -0.5),
    ),
    attention_error(
        "queries and keys exchanged",
        "scores",
        "queries and keys are exchanged: a row of the scores belongs to a query",
        lambda self, q, k: scores(self, k, q),
    ),
    attention_error(
        "softmax over the queries",
        "weights",
        "the softmax goes over the queries: it goes over the keys, dim=-1",
        scores,
        partial(torch.softmax, dim=-2),
    ),
    attention_error(
        "softmax over the heads",
        "weights",
        "the softmax goes over the heads: it goes over the keys, dim=-1",
        scores,
        partial(torch.softmax, dim=1),
    ),
    attention_error(
        "softmax over the batch",
        "weights",
        "the softmax goes over the batch: it goes over the keys, dim=-1",
        scores,
        partial(torch.softmax, dim=0),
    ),
    attention_error(
        "softmax over the whole map",
        "weights",
        "the softmax goes over a whole map: every row must sum to one",
        scores,
        one_map,
    ),
    attention_error("no softmax", "weights", "the softmax is missing", scores, same),
    attention_error(
        "sigmoid",
        "weights",
        "a sigmoid stands where the scores of a query must compete, with softmax",
        scores,
        torch.sigmoid,
    ),
    attention_error("hard", "weights", "only the best key counts: use softmax", scores, hard),
    attention_error(
        "queries for values",
        "values",
        "the weights add up the queries: they belong on the values",
        scores,
        values="q",
    ),
    attention_error(
        "keys for values",
        "values",
        "the weights add up the keys: they belong on the values",
        scores,
        values="k",
    ),
    project_error(
        "heads cut in the wrong order",
        "the heads are cut in the wrong order: the width is (K, d), not (d, K)",
        width_first,
    ),
    project_error(
        "heads before q, k, v",
        "each head has its q, k and v side by side: here the split is (3, K, d)",
        heads_first,
    ),
    project_error(
        "q, k, v interleaved",
        "every third number goes to the queries: the first D are the queries",
        last_of_three,
    ),
    project_error(
        "heads cut by a reshape",
        "the heads are cut by a reshape alone: split the width, then transpose",
        by_view,
    ),
    *(
        project_error("q, k, v in another order", ORDER, order=order)
        for order in ((0, 2, 1), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    ),
    *(
        Error(
            "another number of heads",
            "heads",
            "blocks.*.attn",
            "forward",
            heads_by(number),
            f"the width is cut into {number} heads, which is not the number that was given",
        )
        for number in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
    ),
    merge_error(
        "heads merged without a transpose",
        "merge",
        "the heads are joined by a reshape alone: exchange heads and tokens first",
        reshaped,
    ),
    merge_error(
        "heads merged in the wrong order",
        "merge",
        "the numbers of the heads alternate: each head's d numbers stay together",
        lambda x: x.permute(0, 2, 3, 1).flatten(2),
    ),
    merge_error(
        "no projection",
        "projection",
        "proj is missing: without it the heads are never mixed",
        lambda x: x.transpose(1, 2).flatten(2),
        last=False,
    ),
    block_error(
        "norm after instead of before",
        "norm 1",
        "the norm comes after adding: it belongs before each branch",
        norm_after,
    ),
    block_error(
        "norm after the branch",
        "norm 1",
        "the norm stands behind the branch: it belongs before",
        norm_after_branch,
    ),
    block_error(
        "norms exchanged",
        "norm 1",
        "the two norms are exchanged: norm1 belongs to the attention",
        norms_exchanged,
    ),
    block_error("no norms", "norm 1", "both norms are missing", no_norms),
    block_error("no first norm", "norm 1", "norm1 is missing before the attention", no_first_norm),
    block_error(
        "MLP before attention",
        "norm 1",
        "the MLP comes first: the attention does",
        mlp_first,
    ),
    block_error(
        "no first residual",
        "+ attention",
        "the attention replaces the tokens: add its result to x",
        no_first_residual,
    ),
    block_error(
        "residual of the normalised",
        "+ attention",
        "the normalised tokens go around the branches: keep x as it was",
        normalised_residual,
    ),
    block_error(
        "in parallel",
        "+ attention",
        "the MLP reads the tokens from before the attention",
        parallel,
    ),
    block_error(
        "the first norm used twice",
        "norm 2",
        "norm1 stands before the MLP, too: that is norm2's place",
        first_norm_twice,
    ),
    block_error("no second norm", "norm 2", "norm2 is missing before the MLP", no_second_norm),
    mlp_error("no activation", "there is no GELU between fc1 and fc2", same),
    mlp_error("relu", "this is ReLU: use GELU", F.relu),
    mlp_error("silu", "this is SiLU: use GELU", F.silu),
    mlp_error(
        "tanh in place of erf in GELU",
        "GELU is approximated with tanh: use the exact one",
        partial(F.gelu, approximate="tanh"),
    ),
    mlp_error(
        "quick GELU",
        "GELU is approximated with a sigmoid: use the exact one",
        lambda x: x * torch.sigmoid(1.702 * x),
    ),
    mlp_error(
        "activation at the end",
        "a GELU stands behind fc2, too",
        F.gelu,
        F.gelu,
        stage="MLP",
    ),
    block_error("no MLP", "+ MLP", "the MLP is missing, or its result is not added", no_mlp),
    block_error(
        "no second residual",
        "+ MLP",
        "the MLP replaces the tokens: add its result to x",
        no_second_residual,
    ),
    whole_error(
        "no final norm",
        "norm",
        "the final norm is missing between the last block and the head",
        norm=same,
    ),
    whole_error(
        "last block left out",
        "last block, norm 1",
        "the last block does not run",
        order=lambda blocks: blocks[:-1],
    ),
    whole_error(
        "first block left out",
        "block 1, norm 1",
        "the first block does not run",
        order=lambda blocks: blocks[1:],
    ),
    whole_error(
        "blocks side by side",
        "block 2, norm 1",
        "every block reads the same tokens: hand on the result, x = block(x)",
        apart=True,
    ),
    whole_error(
        "blocks in reverse",
        "block 1, norm 1",
        "the blocks run from the last to the first",
        order=lambda blocks: list(blocks)[::-1],
    ),
    whole_error(
        "mean of all",
        "logits",
        "the head reads the mean of all tokens: it reads x[:, 0]",
        read=lambda x: x.mean(1),
    ),
    whole_error(
        "mean of patches",
        "logits",
        "the head reads the mean of the patches: it reads x[:, 0]",
        read=lambda x: x[:, 1:].mean(1),
    ),
    whole_error(
        "last token",
        "logits",
        "the head reads the last patch: it reads x[:, 0]",
        read=lambda x: x[:, -1],
    ),
    whole_error(
        "first patch",
        "logits",
        "the head reads the first patch: it reads x[:, 0]",
        read=lambda x: x[:, 1],
    ),
    whole_error(
        "softmax at the end",
        "logits",
        "a softmax follows the head: logits are the bare numbers",
        end=partial(torch.softmax, dim=-1),
    ),
]
