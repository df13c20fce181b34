"""Exercises of lesson 11: what a trained model has learned, measured."""

import torch
import torch.nn.functional as F

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.probe import attention_distance, position_similarity, rollout, token_similarity


def attention_maps(generator, *shape):
    """Maps whose rows sum to one, and in which no two rows are alike."""
    return normal(generator, *shape).softmax(dim=-1)


# position similarity ------------------------------------------------------------------------------


def positions_from_the_start(table, grid):
    """The first h*w rows, the class token's among them."""
    h, w = grid
    rows = F.normalize(table[0, : h * w], dim=-1)
    return (rows @ rows.T).reshape(h, w, h, w)


def positions_by_dot_product(table, grid):
    """Long vectors count more."""
    h, w = grid
    rows = table[0, -h * w :]
    return (rows @ rows.T).reshape(h, w, h, w)


def positions_by_feature(table, grid):
    """Each feature has length one, over all places."""
    h, w = grid
    rows = F.normalize(table[0, -h * w :], dim=0)
    return (rows @ rows.T).reshape(h, w, h, w)


def positions_centred(table, grid):
    """What all places share is taken away."""
    return position_similarity(table, grid, centre=True)


def positions_as_distances(table, grid):
    """How far apart two vectors are."""
    h, w = grid
    rows = table[0, -h * w :]
    return torch.cdist(rows, rows).reshape(h, w, h, w)


def positions_exchanged(table, grid):
    """Columns and rows of the grid in each other's place."""
    return position_similarity(table, grid[::-1])


def positions_as_matrix(table, grid):
    """Not cut into rows and columns."""
    N = grid[0] * grid[1]
    return position_similarity(table, grid).reshape(N, N)


def positions_without_first(table, grid):
    """One prefix row, however many there are."""
    rows = F.normalize(table[0, 1:], dim=-1)
    return (rows @ rows.T).reshape(*grid, *grid)


def positions_by_feature_before(table, grid):
    """F.normalize left at axis 1, which are the rows of the table."""
    rows = F.normalize(table)[0, -grid[0] * grid[1] :]
    return (rows @ rows.T).reshape(*grid, *grid)


POSITION_SIMILARITY = Exercise(
    name="position_similarity",
    lesson="11",
    task="How alike are the vectors of two places? From a table (1, R+N, D) and the grid (h, w) make "
    "(h, w, h, w): the cosine of every place with every place. The R rows of prefix tokens come first.",
    minutes=8,
    difficulty=2,
    reference=position_similarity,
    cases=(
        Case(
            about="one class token",
            inputs=lambda g: (normal(g, 1, 1 + 6, 5) + 0.5, (2, 3)),
            shape="h w h w",
            sizes=dict(h=2, w=3, D=5),
        ),
        Case(
            about="no prefix tokens, vectors of other lengths",
            inputs=lambda g: (normal(g, 1, 15, 4) * torch.linspace(0.2, 3, 15)[:, None], (5, 3)),
            shape="h w h w",
            sizes=dict(h=5, w=3, D=4),
        ),
    ),
    hints=(
        "Only places have a place in the grid: which rows of the table do you leave out?",
        "A cosine is the dot product of two vectors of length one. F.normalize(rows, dim=-1) gives each "
        "row that length.",
        "All dot products at once are one matrix product, (N, D) times (D, N).",
        "(rows @ rows.T).reshape(h, w, h, w), with rows the last h * w rows of table[0], normalised.",
    ),
    mistakes=(
        Mistake(
            "prefix counted",
            positions_from_the_start,
            "You took the first h*w rows, and the class token's is one of them: the places are the last ones",
        ),
        Mistake(
            "dot products",
            positions_by_dot_product,
            "These are bare dot products, in which long vectors count more: give each row the length one "
            "first",
        ),
        Mistake(
            "normalised by feature",
            positions_by_feature,
            "You normalised each column of the table: it is the vector of a place, a row, that must get the "
            "length one",
        ),
        Mistake(
            "centred",
            positions_centred,
            "You took away the mean of all places first: that is useful, and comes after this exercise",
        ),
        Mistake(
            "distances",
            positions_as_distances,
            "These are distances between the vectors, small where places are alike: the cosine is asked for",
        ),
        Mistake(
            "grid exchanged",
            positions_exchanged,
            "Rows and columns are exchanged: the grid is (h, w), the rows of patches first",
        ),
        Mistake(
            "left as a matrix",
            positions_as_matrix,
            "The values are right and still lie in one matrix (N, N): reshape it to (h, w, h, w)",
        ),
        Mistake(
            "one prefix token",
            positions_without_first,
            "You left out one row: there may be none before the places, or several, so take the last h * w",
        ),
        Mistake(
            "normalised before the cut",
            positions_by_feature_before,
            "You normalised each column of the table: give F.normalize the axis of the features, dim=-1",
        ),
    ),
)

# rollout ------------------------------------------------------------------------------------------


def mixed(weights):
    """Half of what attention passes on, and half of what the residual path does."""
    return (weights.mean(dim=1) + torch.eye(weights.shape[-1]).to(weights)) / 2


def rollout_without_residual(maps):
    """The maps alone."""
    reach = maps[0].mean(dim=1)
    for weights in maps[1:]:
        reach = weights.mean(dim=1) @ reach
    return reach


def rollout_backwards(maps):
    """The first layer on the left."""
    return rollout(maps.flip(0))


def rollout_of_sums(maps):
    """Heads are added up."""
    return rollout(maps * maps.shape[2])


def rollout_not_halved(maps):
    """The residual path added, and nothing divided."""
    reach = torch.eye(maps.shape[-1]).to(maps)
    for weights in maps:
        reach = 2 * mixed(weights) @ reach
    return reach


def rollout_of_largest(maps):
    """The largest weight of the heads."""
    return rollout(maps.amax(dim=2, keepdim=True))


def rollout_averaged(maps):
    """Layers are averaged."""
    return torch.stack([mixed(weights) for weights in maps]).mean(dim=0)


def rollout_of_last(maps):
    """The last layer alone."""
    return mixed(maps[-1])


def rollout_transposed(maps):
    """Columns that sum to one."""
    return rollout(maps).transpose(1, 2)


def rollout_elementwise(maps):
    """A product of entries, not of matrices."""
    return torch.stack([mixed(weights) for weights in maps]).prod(dim=0)


def rollout_first_bare(maps):
    """No residual path in the first layer."""
    reach = maps[0].mean(dim=1)
    for weights in maps[1:]:
        reach = mixed(weights) @ reach
    return reach


ROLLOUT = Exercise(
    name="rollout",
    lesson="11",
    task="Multiply the attention of all layers, maps (L, B, K, T, T), into one map (B, T, T): average "
    "the heads, mix each layer half and half with the identity, later layers on the left.",
    minutes=12,
    difficulty=2,
    reference=rollout,
    gradient=False,
    cases=(
        Case(
            about="three layers of five heads",
            inputs=lambda g: (attention_maps(g, 3, 2, 5, 4, 4),),
            shape="B T T",
            sizes=dict(L=3, B=2, K=5, T=4),
        ),
        Case(
            about="two layers with a single head",
            inputs=lambda g: (attention_maps(g, 2, 3, 1, 5, 5),),
            shape="B T T",
            sizes=dict(L=2, B=3, K=1, T=5),
        ),
        Case(
            about="a single layer",
            inputs=lambda g: (attention_maps(g, 1, 2, 3, 6, 6),),
            shape="B T T",
            sizes=dict(L=1, B=2, K=3, T=6),
        ),
    ),
    hints=(
        "Before the first layer every token is itself: which matrix says that?",
        "One layer: the mean over the heads (B, T, T), plus the identity, divided by two. What do its "
        "rows sum to?",
        "A token after layer 2 is a mixture of tokens after layer 1, which are mixtures of tokens before. "
        "Mixtures of mixtures are a matrix product, the later one on the left.",
        "In a loop over maps: reach = (weights.mean(dim=1) + torch.eye(T)) / 2 @ reach",
    ),
    mistakes=(
        Mistake(
            "no residual",
            rollout_without_residual,
            "This is the product of the maps alone: half of each layer is the residual path, so add the "
            "identity and divide by two",
        ),
        Mistake(
            "wrong order",
            rollout_backwards,
            "The layers are multiplied in the wrong order: a later layer mixes what earlier ones made, so it "
            "stands on the left",
        ),
        Mistake(
            "heads summed",
            rollout_of_sums,
            "You added the heads up, so that they outweigh the residual path and rows exceed one: take their "
            "mean",
        ),
        Mistake(
            "not halved",
            rollout_not_halved,
            "You added the identity and did not divide by two: rows double in every layer, and must sum to "
            "one",
        ),
        Mistake(
            "largest head",
            rollout_of_largest,
            "You took the largest weight of the heads, as some code does: then rows no longer sum to one, and "
            "the task says the mean",
        ),
        Mistake(
            "layers averaged",
            rollout_averaged,
            "You averaged the layers: they act one after the other, so multiply them",
        ),
        Mistake(
            "last layer alone",
            rollout_of_last,
            "This is the last layer alone: every layer before it must be multiplied in",
        ),
        Mistake(
            "transposed",
            rollout_transposed,
            "Your map is transposed: a row belongs to the token that comes out, and its shares sum to one",
        ),
        Mistake(
            "entry by entry",
            rollout_elementwise,
            "You multiplied entry by entry: layers follow each other by the matrix product, @",
        ),
        Mistake(
            "first layer bare",
            rollout_first_bare,
            "Your first layer has no residual path: begin with the identity, and mix every layer",
        ),
    ),
)

# attention distance -------------------------------------------------------------------------------


def apart(grid, patch, p=2.0):
    """How far apart two patches are: (N, N) in pixels."""
    places = torch.cartesian_prod(*(torch.arange(float(side)) for side in grid))
    return torch.cdist(places, places, p) * patch


def distance_from_the_start(weights, grid, patch):
    """The first h*w tokens, the class token among them."""
    N = grid[0] * grid[1]
    return attention_distance(weights[..., :N, :N], grid, patch)


def distance_not_renormalised(weights, grid, patch):
    """What goes to prefix tokens counts as distance zero."""
    N = grid[0] * grid[1]
    return (weights[..., -N:, -N:] * apart(grid, patch)).sum(dim=-1).mean(dim=-1)


def distance_in_patches(weights, grid, patch):
    """A patch as the unit."""
    return attention_distance(weights, grid)


def distance_squared(weights, grid, patch):
    """Far patches count too much."""
    N = grid[0] * grid[1]
    among = weights[..., -N:, -N:]
    among = among / among.sum(dim=-1, keepdim=True)
    return (among * apart(grid, patch) ** 2).sum(dim=-1).mean(dim=-1)


def distance_by_blocks(weights, grid, patch):
    """Rows plus columns."""
    N = grid[0] * grid[1]
    among = weights[..., -N:, -N:]
    among = among / among.sum(dim=-1, keepdim=True)
    return (among * apart(grid, patch, 1.0)).sum(dim=-1).mean(dim=-1)


def distance_exchanged(weights, grid, patch):
    """Columns and rows of the grid in each other's place."""
    return attention_distance(weights, grid[::-1], patch)


def distance_to_strongest(weights, grid, patch):
    """To the patch of the largest weight."""
    N = grid[0] * grid[1]
    best = weights[..., -N:, -N:].argmax(dim=-1, keepdim=True)
    far = apart(grid, patch).expand(*weights.shape[:2], -1, -1)
    return far.gather(-1, best).squeeze(-1).mean(dim=-1)


def distance_not_averaged(weights, grid, patch):
    """Queries are added up."""
    return attention_distance(weights, grid, patch) * (grid[0] * grid[1])


def distance_of_mean_head(weights, grid, patch):
    """One number for all heads."""
    return attention_distance(weights, grid, patch).mean(dim=1)


DISTANCE = Exercise(
    name="attention_distance",
    lesson="11",
    task="How far does each head look, in pixels? From maps (B, K, T, T), the grid (h, w) and the patch "
    "size make (B, K). Prefix tokens are left out, and rows are made to sum to one again.",
    minutes=15,
    difficulty=3,
    reference=attention_distance,
    gradient=False,
    cases=(
        Case(
            about="one class token, patches of 4 x 4 pixels",
            inputs=lambda g: (attention_maps(g, 2, 3, 7, 7), (2, 3), 4),
            shape="B K",
            sizes=dict(B=2, K=3, T=7),
        ),
        Case(
            about="no prefix tokens",
            inputs=lambda g: (attention_maps(g, 3, 2, 8, 8), (4, 2), 5),
            shape="B K",
            sizes=dict(B=3, K=2, T=8),
        ),
        Case(
            about="two prefix tokens",
            inputs=lambda g: (attention_maps(g, 2, 4, 17, 17), (3, 5), 2),
            shape="B K",
            sizes=dict(B=2, K=4, T=17),
        ),
    ),
    hints=(
        "First the distances of all pairs of patches, (N, N): the places are torch.cartesian_prod of rows "
        "and columns, and torch.cdist measures between them.",
        "The class token has no place. Keep the last h * w rows and columns of a map, and let every row sum "
        "to one again.",
        "The mean distance from one query is the sum over the keys of weight times distance. Then take the "
        "mean over the queries.",
        "(among * apart).sum(dim=-1).mean(dim=-1), with apart = torch.cdist(places, places) * patch.",
    ),
    mistakes=(
        Mistake(
            "class token left in",
            distance_from_the_start,
            "You kept the first h*w tokens, and the class token is one of them: the patches come last",
        ),
        Mistake(
            "not renormalised",
            distance_not_renormalised,
            "What goes to the class token counts as distance zero here: after cutting it off, let the rows "
            "sum to one again",
        ),
        Mistake(
            "in patches",
            distance_in_patches,
            "Your unit is the patch: multiply by its side to get pixels",
        ),
        Mistake(
            "squared",
            distance_squared,
            "These are squared distances, in which far patches count too much: take the root before you "
            "average",
        ),
        Mistake(
            "by blocks",
            distance_by_blocks,
            "You added rows and columns, as one walks in a city: the straight distance is asked for, the root "
            "of the sum of squares",
        ),
        Mistake(
            "grid exchanged",
            distance_exchanged,
            "Rows and columns of the grid are exchanged: (h, w) has h rows of w patches",
        ),
        Mistake(
            "strongest alone",
            distance_to_strongest,
            "This is the distance to the one patch with the largest weight: every patch counts, by its weight",
        ),
        Mistake(
            "queries added",
            distance_not_averaged,
            "You added the queries up: take their mean",
        ),
        Mistake(
            "heads averaged",
            distance_of_mean_head,
            "You averaged the heads, and near ones hide behind far ones: each head gets a number",
        ),
    ),
)

# token similarity ---------------------------------------------------------------------------------


def cosines(x):
    """Of every token with every token: (B, T, T)."""
    x = F.normalize(x, dim=-1)
    return x @ x.transpose(1, 2)


def similarity_with_itself(x):
    """Each token with itself counts, too."""
    return cosines(x).mean(dim=(1, 2))


def similarity_by_dot_product(x):
    """Bare dot products."""
    T = x.shape[1]
    products = x @ x.transpose(1, 2)
    return (products.sum(dim=(1, 2)) - (x * x).sum(dim=(1, 2))) / (T * (T - 1))


def similarity_over_all(x):
    """The pairs of one token with itself left out above, and counted below."""
    T = x.shape[1]
    return (cosines(x).sum(dim=(1, 2)) - T) / T**2


def similarity_of_half(x):
    """Each pair once above, and twice below."""
    return token_similarity(x) / 2


def similarity_by_feature(x):
    """Each feature has length one, over all tokens."""
    T = x.shape[1]
    x = F.normalize(x, dim=1)
    return ((x @ x.transpose(1, 2)).sum(dim=(1, 2)) - (x * x).sum(dim=(1, 2))) / (T * (T - 1))


def similarity_of_size(x):
    """Without the sign."""
    T = x.shape[1]
    return (cosines(x).abs().sum(dim=(1, 2)) - T) / (T * (T - 1))


def similarity_to_the_mean(x):
    """Each token with the mean of all."""
    return F.cosine_similarity(x, x.mean(dim=1, keepdim=True), dim=-1).mean(dim=1)


def similarity_of_all_images(x):
    """One number for all images."""
    return token_similarity(x).mean()


def similarity_not_normalised(x):
    """The formula for cosines, with bare dot products."""
    T = x.shape[1]
    return ((x @ x.transpose(1, 2)).sum(dim=(1, 2)) - T) / (T * (T - 1))


def similarity_normalised_over_tokens(x):
    """The formula for cosines, with F.normalize left at axis 1."""
    return similarity_not_normalised(F.normalize(x))


SIMILARITY = Exercise(
    name="token_similarity",
    lesson="11",
    task="How alike are the tokens of an image? Tokens x (B, T, D) -> (B,): the mean cosine of two "
    "different tokens.",
    minutes=8,
    difficulty=2,
    reference=token_similarity,
    gradient=False,
    cases=(
        Case(
            about="two images of five tokens",
            inputs=lambda g: (normal(g, 2, 5, 3) + 0.4,),
            shape="B",
            sizes=dict(B=2, T=5, D=3),
        ),
        Case(
            about="three images of two tokens, which are unlike",
            inputs=lambda g: (normal(g, 3, 2, 7) * torch.tensor([[1.0], [-2.0]]),),
            shape="B",
            sizes=dict(B=3, T=2, D=7),
        ),
    ),
    hints=(
        "A cosine is the dot product of two vectors of length one: first give every token that length.",
        "x @ x.transpose(1, 2) holds all pairs, (B, T, T). What stands on its diagonal, and does that "
        "belong to the question?",
        "Of T * T pairs, T are a token with itself. How many are left?",
        "(pairs.sum(dim=(1, 2)) - T) / (T * (T - 1))",
    ),
    mistakes=(
        Mistake(
            "with itself",
            similarity_with_itself,
            "You counted each token with itself, which always gives one: leave the diagonal out",
        ),
        Mistake(
            "dot products",
            similarity_by_dot_product,
            "These are bare dot products, which grow with the length of the tokens: normalise each token "
            "first",
        ),
        Mistake(
            "divided by all",
            similarity_over_all,
            "You left the diagonal out of the sum and divided by T * T all the same: T * (T - 1) pairs are "
            "left",
        ),
        Mistake(
            "half",
            similarity_of_half,
            "This is half of it: if you add each pair once, divide by T * (T - 1) / 2",
        ),
        Mistake(
            "normalised by feature",
            similarity_by_feature,
            "You normalised each feature over the tokens: it is each token, the last axis, that must get the "
            "length one",
        ),
        Mistake(
            "without the sign",
            similarity_of_size,
            "You dropped the sign: tokens that point in opposite ways are not alike, so let them count "
            "negative",
        ),
        Mistake(
            "with the mean",
            similarity_to_the_mean,
            "You compared each token with the mean of all, which every token is a part of: compare two tokens "
            "at a time",
        ),
        Mistake(
            "one for all",
            similarity_of_all_images,
            "You averaged over the images, too: each image gets a number",
        ),
        Mistake(
            "not normalised",
            similarity_not_normalised,
            "You took bare dot products, so the diagonal does not add up to T: normalise each token first",
        ),
        Mistake(
            "normalised over the tokens",
            similarity_normalised_over_tokens,
            "You normalised each feature over the tokens: give F.normalize the last axis, dim=-1",
        ),
    ),
)

EXERCISES = (POSITION_SIMILARITY, ROLLOUT, DISTANCE, SIMILARITY)

QUESTIONS = {
    "what rollout leaves of a token itself at least, after 4 blocks": (
        0.0625,
        "each block keeps half of it for the residual path, so (1/2) ** 4 is left, and what attention "
        "brings back comes on top.",
        {
            0.5: "Half is what one block keeps. The next one keeps half of that.",
            0.25: "That is (1/2) ** 2, two blocks. There are four.",
            0.125: "That is (1/2) ** 3, three blocks. There are four.",
            0: "The residual path passes every token on, so something of it is left.",
        },
    ),
    "distance in whole pixels of a head that weighs 8 x 8 patches of 4 x 4 alike": (
        17,
        "16.55, rounded: the mean distance of two patches out of the 64, half the side of the image.",
        {
            4: "4 pixels is to a direct neighbour. This head looks at all patches.",
            32: "32 pixels is the side of the image. Few pairs of patches are that far apart.",
            16: "Near, but it is a little more than half of the side: 16.55.",
            8: "In patches the mean distance is 4.14. Multiply by the side of a patch.",
        },
    ),
}
