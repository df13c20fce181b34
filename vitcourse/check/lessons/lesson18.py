"""Exercises of lesson 18: learning without labels."""

import torch
import torch.nn.functional as F

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.papers.mae import normalise, take

# attention that looks back ------------------------------------------------------------------------


def causal_attention(q, k, v):
    """The last n of N tokens look at themselves and back: q (B, K, n, d), k, v (B, K, N, d)."""
    n, N = q.shape[2], k.shape[2]
    later = torch.ones(n, N, dtype=torch.bool, device=q.device).triu(1 + N - n)
    scores = q @ k.mT * q.shape[-1] ** -0.5  # (B, K, n, N)
    weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)  # (B, K, n, N)
    return weights @ v  # (B, K, n, d)


def masked_scores(q, k, first, value):
    """Scores with a value from the diagonal `first` on."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(first), value)


def no_mask(q, k, v):
    """Everybody looks everywhere."""
    return masked_scores(q, k, k.shape[2], 0.0).softmax(dim=-1) @ v


def looking_ahead(q, k, v):
    """Itself and later."""
    earlier = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
    earlier = earlier.tril(k.shape[2] - q.shape[2] - 1)
    return masked_scores(q, k, k.shape[2], 0.0).masked_fill(earlier, -1e9).softmax(dim=-1) @ v


def not_itself(q, k, v):
    """Before it, without itself."""
    return masked_scores(q, k, k.shape[2] - q.shape[2], -1e9).softmax(dim=-1) @ v


def taken_for_the_first(q, k, v):
    """Query 0 for token 0."""
    return masked_scores(q, k, 1, -torch.inf).softmax(dim=-1) @ v


def zero_scores(q, k, v):
    """A score of 0 for what comes later."""
    return masked_scores(q, k, 1 + k.shape[2] - q.shape[2], 0.0).softmax(dim=-1) @ v


def zero_weights(q, k, v):
    """The mask behind the softmax."""
    weights = masked_scores(q, k, k.shape[2], 0.0).softmax(dim=-1)
    return weights.tril(k.shape[2] - q.shape[2]) @ v


def over_queries(q, k, v):
    """The softmax along the wrong axis."""
    return masked_scores(q, k, 1 + k.shape[2] - q.shape[2], -torch.inf).softmax(dim=-2) @ v


def not_divided(q, k, v):
    """No scale."""
    return causal_attention(q * q.shape[-1] ** 0.5, k, v)


def divided_by_width(q, k, v):
    """By d, not by its root."""
    return causal_attention(q * q.shape[-1] ** -0.5, k, v)


def without_the_past(q, k, v):
    """The last n keys alone."""
    n = q.shape[2]
    return causal_attention(q, k[:, :, -n:], v[:, :, -n:])


def one_too_far(q, k, v):
    """Itself, those before, and the next one."""
    return masked_scores(q, k, 2 + k.shape[2] - q.shape[2], -torch.inf).softmax(dim=-1) @ v


def true_is_seen(q, k, v):
    """A mask of what comes later, given to a function for which True means seen."""
    later = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1 + k.shape[2] - q.shape[2])
    return F.scaled_dot_product_attention(q, k, v, later)


def multiplied(q, k, v):
    """Times the root."""
    return causal_attention(q * q.shape[-1], k, v)


def divided_behind(q, k, v):
    """The weights divided, not the scores."""
    return not_divided(q, k, v) * q.shape[-1] ** -0.5


def causal_case(about, B, K, n, N, d):
    """Queries of the last n of N tokens."""
    sizes = {"B": B, "K": K, "n": n, "d": d} | ({"N": N} if n != N else {})
    return Case(
        about=about,
        inputs=lambda g: (normal(g, B, K, n, d), normal(g, B, K, N, d), normal(g, B, K, N, d)),
        shape="B K n d",
        sizes=sizes,
    )


CAUSAL_ATTENTION = Exercise(
    name="causal_attention",
    lesson="18",
    task="Attention in which a token sees itself and those before it. k and v are those of all N tokens, "
    "(B, K, N, d); q (B, K, n, d) holds the queries of the last n of them. Scores are divided by sqrt(d). "
    "The result is (B, K, n, d).",
    minutes=12,
    difficulty=2,
    reference=causal_attention,
    cases=(
        causal_case("all tokens at once", B=2, K=3, n=5, N=5, d=4),
        causal_case("the last four of seven", B=3, K=2, n=4, N=7, d=5),
        causal_case("one token more", B=2, K=4, n=1, N=6, d=3),
    ),
    hints=(
        "Query i is token N-n+i: it sees the keys 0 to N-n+i, and no others. Compare two rows of numbers: "
        "torch.arange(N) with torch.arange(n)[:, None] + N - n.",
        "What is later must have the weight 0, and the others must still sum to 1: set its score to minus "
        "infinity before the softmax, scores.masked_fill(later, -torch.inf).",
        "later = torch.ones(n, N, dtype=torch.bool).triu(1 + N - n) is True where the key comes after the "
        "query. Then (q @ k.mT / d**0.5).masked_fill(later, -torch.inf).softmax(-1) @ v.",
    ),
    mistakes=(
        Mistake(
            "no mask",
            no_mask,
            "Your tokens see what comes later: with such attention the next pixel is copied, not told",
        ),
        Mistake(
            "ahead",
            looking_ahead,
            "Your mask is turned round: a token sees those before it, not those after it",
        ),
        Mistake(
            "not itself",
            not_itself,
            "Your tokens do not see themselves: the model is fed the pixel before in each place, so what "
            "stands there may be read",
        ),
        Mistake(
            "one too far",
            one_too_far,
            "Your mask begins one place too late: a token sees the one after it, too",
        ),
        Mistake(
            "True is seen",
            true_is_seen,
            "Your mask is turned round: for scaled_dot_product_attention, True means seen",
        ),
        Mistake(
            "multiplied", multiplied, "You multiplied by sqrt(d): the scores are divided by it"
        ),
        Mistake(
            "divided behind",
            divided_behind,
            "You divided by sqrt(d) behind the softmax: divide the scores, before it",
        ),
        Mistake(
            "taken for the first",
            taken_for_the_first,
            "Your mask takes the queries for the first n tokens: they are the last n of N",
        ),
        Mistake(
            "a score of 0",
            zero_scores,
            "You gave a score of 0 to what comes later: after the softmax that is a weight above 0",
        ),
        Mistake(
            "a weight of 0",
            zero_weights,
            "You set weights to 0 behind the softmax: what is left no longer sums to 1",
        ),
        Mistake(
            "along the queries",
            over_queries,
            "Your softmax runs along the queries: the weights of each query sum to 1 over the keys",
        ),
        Mistake("not divided", not_divided, "The scores are not divided by sqrt(d)"),
        Mistake("divided by d", divided_by_width, "You divided by d: it is its root, sqrt(d)"),
        Mistake(
            "the past forgotten",
            without_the_past,
            "You used the last n keys alone: those that came before the queries are seen, too",
        ),
    ),
)

# back to their places -----------------------------------------------------------------------------


def put_back(seen, token, noise):
    """Seen (B, n, D) in the order of their noise (B, N), a token (D,) for each gap -> (B, N, D)."""
    B, n, _ = seen.shape
    order = noise.argsort(dim=1)  # (B, N)
    back = order.argsort(dim=1)  # (B, N), where each patch stands in that order
    gaps = token.expand(B, noise.shape[1] - n, -1)  # (B, N-n, D)
    return take(torch.cat([seen, gaps], dim=1), back)  # (B, N, D)


def filled_up(seen, token, noise):
    """The seen and the gaps behind them."""
    gaps = token.expand(len(seen), noise.shape[1] - seen.shape[1], -1)
    return torch.cat([seen, gaps], dim=1)


def not_put_back(seen, token, noise):
    """As they come."""
    return filled_up(seen, token, noise)


def by_the_order(seen, token, noise):
    """The permutation in place of its inverse."""
    return take(filled_up(seen, token, noise), noise.argsort(dim=1))


def gaps_in_front(seen, token, noise):
    """Mask tokens first."""
    x = filled_up(seen, token, noise).roll(noise.shape[1] - seen.shape[1], dims=1)
    return take(x, noise.argsort(dim=1).argsort(dim=1))


def largest_seen(seen, token, noise):
    """The largest noise for the smallest."""
    return put_back(seen, token, -noise)


def in_raster_order(seen, token, noise):
    """As if those that are seen came row by row."""
    n = seen.shape[1]
    places = noise.argsort(dim=1)[:, :n].sort(dim=1).values[..., None].expand_as(seen)
    return token.expand(*noise.shape, -1).scatter(1, places, seen)


def one_for_all(seen, token, noise):
    """The places of the first image."""
    return put_back(seen, token, noise[:1].expand_as(noise))


def zeros_in_gaps(seen, token, noise):
    """No token."""
    return put_back(seen, torch.zeros_like(token), noise)


def token_added(seen, token, noise):
    """Added to all."""
    return put_back(seen, torch.zeros_like(token), noise) + token


def by_sorted_noise(seen, token, noise):
    """The first n places for those that are seen, turned round."""
    return put_back(seen.flip(1), token, noise)


def noise_above_half(seen, token, noise):
    """Nothing but the order of the noise counts, taken the other way round in the gather."""
    x = filled_up(seen, token, noise)
    order = noise.argsort(dim=1)[..., None].expand_as(x)
    return x.gather(1, x.shape[1] - 1 - order)


def patches_seen(B, n, N, D):
    """Patches that were seen, a mask token, noise."""
    return lambda g: (normal(g, B, n, D), normal(g, D), torch.rand(B, N, generator=g))


PUT_BACK = Exercise(
    name="put_back",
    lesson="18",
    task="`noise` (B, N) holds a number for each patch. The encoder has read the n patches of each image "
    "with the smallest noise, smallest first: `seen` (B, n, D). Put each in its place, and `token` (D,) "
    "in all others: (B, N, D).",
    minutes=10,
    difficulty=2,
    reference=put_back,
    cases=(
        Case(
            about="a quarter is seen",
            inputs=patches_seen(3, 2, 8, 4),
            shape="B N D",
            sizes=dict(B=3, n=2, N=8, D=4),
        ),
        Case(
            about="all but two are seen",
            inputs=patches_seen(2, 5, 7, 3),
            shape="B N D",
            sizes=dict(B=2, n=5, N=7, D=3),
        ),
    ),
    hints=(
        "noise.argsort(dim=1) names the patches, smallest noise first: its first n numbers are the places "
        "of those that are seen.",
        "One way: begin with the token everywhere, token.expand(B, N, D), and scatter the seen patches "
        "into it. Another: put N-n tokens behind the seen ones, and bring all into the right order.",
        "For the second way you need the inverse of a permutation: order.argsort(dim=1). Then "
        "x.take_along_dim(back[..., None], dim=1).",
    ),
    mistakes=(
        Mistake(
            "not put back",
            not_put_back,
            "Your patches stand as they came, the gaps behind them: each goes to its own place",
        ),
        Mistake(
            "the order itself",
            by_the_order,
            "You gathered with the order itself: that sorts once more, and its inverse, "
            "order.argsort(dim=1), puts back",
        ),
        Mistake(
            "gaps in front",
            gaps_in_front,
            "You put the tokens of the gaps in front: in the order of the noise, the seen ones come first",
        ),
        Mistake(
            "largest noise",
            largest_seen,
            "You put what is seen where the noise is largest: it was smallest there",
        ),
        Mistake(
            "row by row",
            in_raster_order,
            "You took the seen patches to come row by row: they come in the order of their noise",
        ),
        Mistake(
            "one for all",
            one_for_all,
            "You used the noise of the first image for all: each image has its own",
        ),
        Mistake("zeros", zeros_in_gaps, "Your gaps hold zeros: they hold the token"),
        Mistake(
            "token added",
            token_added,
            "You added the token to the seen patches, too: it stands in the gaps alone",
        ),
        Mistake(
            "largest first",
            by_sorted_noise,
            "You took the seen patches with the largest noise first: the smallest comes first",
        ),
        Mistake(
            "turned round",
            noise_above_half,
            "You turned the order round and gathered with it: take its inverse, order.argsort(dim=1)",
        ),
    ),
)

# the loss of an MAE -------------------------------------------------------------------------------


def mae_loss(answer, patches, hidden):
    """Mean squared error of hidden patches, each normalised: two of (B, N, V), (B, N) -> scalar."""
    target = normalise(patches.detach())[0]  # (B, N, V)
    error = (answer - target).square().mean(dim=-1)  # (B, N)
    return (error * hidden).sum() / hidden.sum()


def squared(answer, target, hidden):
    """The loss with a target of its own."""
    return (answer - target).square().mean(dim=-1)[hidden].mean()


def of_all(answer, patches, hidden):
    """Seen patches count, too."""
    return mae_loss(answer, patches, torch.ones_like(hidden))


def of_seen(answer, patches, hidden):
    """Seen patches for hidden ones."""
    return mae_loss(answer, patches, ~hidden)


def pixels_as_they_are(answer, patches, hidden):
    """Not normalised."""
    return squared(answer, patches, hidden)


def centred(answer, patches, hidden):
    """The mean subtracted, no more."""
    return squared(answer, patches - patches.mean(dim=-1, keepdim=True), hidden)


def divided_alone(answer, patches, hidden):
    """The mean left in."""
    return squared(answer, patches / normalise(patches)[2], hidden)


def biased(answer, patches, hidden):
    """Divided by V."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True, correction=0)
    return squared(answer, (patches - mean) / (variance + 1e-6).sqrt(), hidden)


def without_eps(answer, patches, hidden):
    """The deviation alone."""
    std, mean = torch.std_mean(patches, dim=-1, keepdim=True)
    return squared(answer, (patches - mean) / std, hidden)


def eps_outside(answer, patches, hidden):
    """Added behind the root."""
    std, mean = torch.std_mean(patches, dim=-1, keepdim=True)
    return squared(answer, (patches - mean) / (std + 1e-6), hidden)


def by_variance(answer, patches, hidden):
    """No root."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return squared(answer, (patches - mean) / (variance + 1e-6), hidden)


def by_image(answer, patches, hidden):
    """Mean and deviation of the image."""
    return squared(answer, normalise(patches.flatten(1))[0].view_as(patches), hidden)


def by_layer_norm(answer, patches, hidden):
    """PyTorch's own."""
    return squared(answer, F.layer_norm(patches, patches.shape[-1:]), hidden)


def by_batch(answer, patches, hidden):
    """Mean and deviation of all patches."""
    return squared(answer, normalise(patches.flatten())[0].view_as(patches), hidden)


def summed_up(answer, patches, hidden):
    """The sum over everything."""
    return summed(answer, patches, hidden) * hidden.sum()


def both_normalised(answer, patches, hidden):
    """The answer, too."""
    return mae_loss(normalise(answer)[0], patches, hidden)


def absolute(answer, patches, hidden):
    """Distances, not squares."""
    return (answer - normalise(patches)[0]).abs().mean(dim=-1)[hidden].mean()


def images_alike(answer, patches, hidden):
    """A mean for each image, then one of those."""
    error = (answer - normalise(patches)[0]).square().mean(dim=-1)
    return ((error * hidden).sum(dim=1) / hidden.sum(dim=1)).mean()


def summed(answer, patches, hidden):
    """The sum over the values of a patch."""
    return patches.shape[-1] * mae_loss(answer, patches, hidden)


def divided_by_all(answer, patches, hidden):
    """The mean over all patches, zeros for those that are seen."""
    return mae_loss(answer, patches, hidden) * hidden.float().mean()


def patches_hidden(B, N, V, counts):
    """An answer, patches of which some are nearly flat, and so many hidden in each image."""

    def make(g):
        patches = normal(g, B, N, V)
        flat = torch.rand(B, N, 1, generator=g) < 0.5
        patches = torch.where(flat, 0.3 + 0.001 * patches, patches)
        rank = torch.rand(B, N, generator=g).argsort(dim=1).argsort(dim=1)
        return normal(g, B, N, V), patches, rank < torch.tensor(counts)[:, None]

    return make


MAE_LOSS = Exercise(
    name="mae_loss",
    lesson="18",
    task="The loss of an MAE. Each patch of `patches` (B, N, V) is normalised by itself: minus its mean, "
    "divided by sqrt(var + 1e-6), where var is divided by V-1. The squared differences to `answer` (B, N, V) "
    "are averaged over all values of all patches that are True in `hidden` (B, N): a scalar.",
    minutes=10,
    difficulty=2,
    reference=mae_loss,
    cases=(
        Case(
            about="as many hidden in each image",
            inputs=patches_hidden(2, 8, 5, (6, 6)),
            shape="",
            sizes=dict(B=2, N=8, V=5),
        ),
        Case(
            about="not as many hidden in each",
            inputs=patches_hidden(3, 6, 4, (1, 5, 3)),
            shape="",
            sizes=dict(B=3, N=6, V=4),
        ),
    ),
    hints=(
        "patches.mean(dim=-1, keepdim=True) is (B, N, 1), a mean for each patch. torch.var along the same "
        "axis divides by V-1 unless told otherwise.",
        "The error of a patch is the mean over its values, (B, N). A sum of error * hidden counts the "
        "hidden ones alone; divide it by their number.",
        "error[hidden].mean() is the same: a mask of booleans takes the hidden patches out, of all images "
        "together.",
    ),
    mistakes=(
        Mistake(
            "all patches", of_all, "Your loss counts patches that are seen: copying is no task"
        ),
        Mistake("seen patches", of_seen, "Your loss counts the seen patches: it is the others"),
        Mistake(
            "not normalised",
            pixels_as_they_are,
            "Your target is the pixels as they are: each patch is normalised by its own mean and deviation",
        ),
        Mistake("mean alone", centred, "You subtracted the mean, but did not divide"),
        Mistake("mean left in", divided_alone, "You divided, but did not subtract the mean"),
        Mistake(
            "divided by V",
            biased,
            "Your variance is divided by V: the published one is divided by V-1",
        ),
        Mistake("no eps", without_eps, "1e-6 is forgotten: it is added to the variance"),
        Mistake(
            "eps behind the root",
            eps_outside,
            "You added 1e-6 to the deviation: it belongs to the variance, under the root",
        ),
        Mistake("no root", by_variance, "You divided by the variance: take its root"),
        Mistake(
            "by image",
            by_image,
            "You took mean and variance of the whole image: each patch has its own",
        ),
        Mistake(
            "layer norm",
            by_layer_norm,
            "This is what layer_norm gives: it divides the variance by V, and adds 1e-5",
        ),
        Mistake(
            "by batch",
            by_batch,
            "You took one mean and variance for all patches: each patch has its own",
        ),
        Mistake(
            "summed up", summed_up, "You summed over all values: take the mean of the hidden ones"
        ),
        Mistake(
            "answer normalised",
            both_normalised,
            "You normalised the answer, too: the model must tell the normalised pixels itself",
        ),
        Mistake("absolute", absolute, "You took absolute differences: they are squared"),
        Mistake(
            "images alike",
            images_alike,
            "You averaged image by image: each hidden patch of the batch counts alike",
        ),
        Mistake("summed", summed, "You summed over the values of a patch: take their mean"),
        Mistake(
            "divided by all",
            divided_by_all,
            "You divided by the number of all patches: divide by that of the hidden ones",
        ),
    ),
)

# ------------------------------------------------------------------------------------------------

EXERCISES = (CAUSAL_ATTENTION, PUT_BACK, MAE_LOSS)

QUESTIONS = {
    "tokens that an iGPT reads of an image of 32 x 32 pixels in three colours": (
        1024,
        "A pixel is one token: the palette makes one number of its three.",
        {
            3072: "So many numbers has the image: the palette makes one of three.",
            1025: "The start stands in front, but the last pixel is told, not read.",
            1023: "All pixels but the last are read, and the start before them.",
            512: "That is how many colours the palette has.",
            4: "So many a ViT with patches of 16 x 16 would read.",
            64: "iGPT has no patches: each pixel is a token.",
        },
    ),
    "tokens that the encoder of MAE-B/16 reads of an image of 224 x 224": (
        50,
        "There are 14 x 14 patches, a quarter of them is 49, and a class token stands in front.",
        {
            49: "A class token stands in front.",
            147: "Those are hidden: the encoder reads the others.",
            148: "It reads what is seen, a quarter, not what is hidden.",
            196: "So many patches there are: three quarters are hidden.",
            197: "So many a ViT reads. Here, three quarters are not even shown.",
        },
    ),
    "of 196 patches, those whose colours masked patch prediction asks for, on average": (
        98,
        "Half of the patches are corrupted, and each of them must be told, those too that stay as they are.",
        {
            78: "So many become mask tokens: others are exchanged, or kept, and must be told as well.",
            88: "Some of those that are asked for are kept as they are.",
            196: "The others are read, but nobody asks for them.",
            147: "That is MAE, where three quarters are hidden.",
            29: "BERT hides 15 %, here it is half.",
        },
    ),
}
