"""Visual Transformer: no code by others is at hand, so identities for each of its four parts."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.proofs import equal, images, randomise
from vitcourse.papers.visual_transformer import (
    FilterTokenizer,
    Look,
    Projector,
    RecurrentTokenizer,
    Sizes,
    TokenAttention,
    TokenTransformer,
    VisualTransformer,
)
from vitcourse.vit import Attention

SIZES = Sizes(tokens=5, depth=3, resnet=(1, 2), width=4, classes=7)  # D = 32
MODELS = {"three blocks": lambda: (VisualTransformer(SIZES), torch.randn(2, 3, 24, 40))}
OTHER_SIZES = {"three blocks": (32, 16)}
COUNTS = {}
D, L, N = 6, 4, 15


def made(part, *sizes):
    return randomise(part(D, *sizes)).double()


def pixels(seed=1):
    return images(2, N, D, seed=seed)


def tokens(seed=2):
    return images(2, L, D, seed=seed)


def set_to(layer, value):
    """Make a layer multiply with a number, or with a matrix (in, out) as the paper writes it."""
    matrix = value if isinstance(value, torch.Tensor) else value * torch.eye(*layer.weight.T.shape)
    layer.weight.data = matrix.T.to(layer.weight)


def shuffle(x, seed=0):
    order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(seed))
    return x[:, order]


def all_parts():
    """Every part as a function of pixels and tokens."""
    attention = made(TokenTransformer)
    return {
        "filter": made(FilterTokenizer, L),
        "recurrent": made(RecurrentTokenizer),
        "transformer": lambda pixels, tokens: attention(tokens),
        "projector": made(Projector),
    }


# All parts


def the_four_equations():
    """As the paper writes them, one matrix product after the other."""
    x, t, parts = pixels(), tokens(), all_parts()
    W_A = parts["filter"].filters.weight.T
    equal(parts["filter"](x), (x @ W_A).softmax(dim=1).mT @ x)
    W_R = t @ parts["recurrent"].guide.weight.T  # (B, L, D)
    equal(parts["recurrent"](x, t), (x @ W_R.mT).softmax(dim=1).mT @ x)
    transformer = made(TokenTransformer)
    K, Q = (getattr(transformer.attn, name).weight.T for name in ("key", "query"))
    between = t + ((t @ K) @ (t @ Q).mT).softmax(dim=2) @ t
    F1, F2 = transformer.fc1.weight.T, transformer.fc2.weight.T
    equal(transformer(t), between + (between @ F1).relu() @ F2)
    W_Q, W_K = (getattr(parts["projector"], name).weight.T for name in ("query", "key"))
    equal(parts["projector"](x, t), x + ((x @ W_Q) @ (t @ W_K).mT).softmax(dim=2) @ t)


def where_a_pixel_lies_does_not_count():
    """Shuffled pixels make the same tokens, and each gets the same back from the projector."""
    x, t, parts = pixels(), tokens(), all_parts()
    for name in ("filter", "recurrent"):
        equal(parts[name](shuffle(x), t), parts[name](x, t), name)
    equal(parts["projector"](shuffle(x), t), shuffle(parts["projector"](x, t)))
    model = randomise(VisualTransformer(SIZES)).double()
    model.backbone = nn.Identity()
    map = images(2, 32, 3, 5)
    shuffled = shuffle(map.flatten(2).mT).mT.unflatten(2, (3, 5))
    equal(model(shuffled), model(map))


def the_order_of_the_tokens_does_not_count():
    """Shuffled tokens stay shuffled, and pixels find them wherever they are."""
    x, t, parts = pixels(), tokens(), all_parts()
    for name in ("recurrent", "transformer"):
        equal(parts[name](x, shuffle(t)), shuffle(parts[name](x, t)), name)
    equal(parts["projector"](x, shuffle(t)), parts["projector"](x, t))


# Filter tokenizer


def filters_of_zero_take_the_mean():
    part = made(FilterTokenizer, L)
    set_to(part.filters, 0.0)
    equal(part(pixels()), pixels().mean(dim=1, keepdim=True).expand(-1, L, -1))


def a_strong_filter_takes_one_pixel():
    """The one that answers it most."""
    part = made(FilterTokenizer, L)
    best = part.filters(pixels()).argmax(dim=1)  # (B, L)
    set_to(part.filters, 1e5 * part.filters.weight.T.detach())
    equal(part(pixels()), torch.stack([x[i] for x, i in zip(pixels(), best, strict=True)]))


def what_all_pixels_share_does_not_steer_a_filter():
    """The softmax is over the pixels: a shift of all shifts the tokens, the weights stay."""
    part, shift = made(FilterTokenizer, L), images(1, 1, D, seed=3)
    equal(part(pixels() + shift), part(pixels()) + shift)


def each_pixel_twice_makes_the_same_tokens():
    part = made(FilterTokenizer, L)
    equal(part(pixels().repeat(1, 2, 1)), part(pixels()))


# Recurrent tokenizer


def tokens_as_filters():
    """With the identity as guide, the tokens are the filters of a filter tokenizer."""
    recurrent, static = made(RecurrentTokenizer), made(FilterTokenizer, L)
    set_to(recurrent.guide, 1.0)
    t = tokens()
    for i in range(2):
        set_to(static.filters, t[i].T)
        equal(recurrent(pixels(), t)[i], static(pixels())[i])


def each_image_has_its_own_filters():
    """The same pixels beside other tokens give other tokens; the filters do not see any."""
    x, t = pixels()[:1].expand(2, -1, -1), tokens()
    recurrent, static = made(RecurrentTokenizer)(x, t), made(FilterTokenizer, L)(x, t)
    assert (recurrent[0] - recurrent[1]).abs().max() > 0.1
    equal(static[0], static[1])


def a_token_guides_its_successor_alone():
    """The gradient of the new token 2 reaches the old token 2, and no other."""
    t = tokens().requires_grad_()
    made(RecurrentTokenizer)(pixels(), t)[:, 2].square().sum().backward()
    reached = t.grad.abs().amax(dim=(0, 2)) > 1e-12
    assert reached.tolist() == [False, False, True, False]


# Transformer


def a_transformer_is_attention():
    """The core's attention with the identity for values and output, whose scale is undone."""
    part, core = made(TokenAttention), Attention(D, 1).double()
    key, query = part.key.weight, part.query.weight
    with torch.no_grad():
        core.qkv.weight.copy_(torch.cat([key * D**0.5, query, torch.eye(D).double()]))
        core.proj.weight.copy_(torch.eye(D))
        core.qkv.bias.zero_()
        core.proj.bias.zero_()
    equal(part(tokens()), core(tokens()))


def without_scores_the_mean_is_added():
    part = made(TokenTransformer)
    set_to(part.attn.key, 0.0)
    set_to(part.fc2, 0.0)
    equal(part(tokens()), tokens() + tokens().mean(dim=1, keepdim=True))


def tokens_that_know_themselves_double():
    """Strong scores between unlike tokens: each takes itself, which is added to it."""
    part = made(TokenTransformer)
    set_to(part.attn.key, 1e3)
    set_to(part.attn.query, 1.0)
    set_to(part.fc2, 0.0)
    unlike = torch.eye(D).double()[None, :L]
    equal(part(unlike), 2 * unlike)


def two_layers_see_one_token():
    """Without attention, the gradient of token 2 reaches token 2 alone; the ReLU is its gate."""
    part = made(TokenTransformer)
    part.attn = nn.Identity()  # adds each token to itself
    t = tokens().requires_grad_()
    out = part(t)
    out[:, 2].sum().backward()
    open_ = ((2 * t[:, 2]) @ part.fc1.weight.T > 0).double()  # (B, D)
    wanted = 2 + 2 * (open_ * part.fc2.weight.sum(dim=0)) @ part.fc1.weight
    equal(t.grad[:, 2], wanted)
    assert not t.grad[:, [0, 1, 3]].any()


# Projector


def one_token_goes_to_every_pixel():
    """A single token has the weight one: the same is added everywhere, as with squeeze-excite."""
    token = tokens()[:, :1]
    equal(made(Projector)(pixels(), token), pixels() + token)


def like_tokens_cannot_be_told_apart():
    """Whatever the scores: weights sum to one over the tokens."""
    alike = tokens()[:, :1].expand(-1, L, -1)
    equal(made(Projector)(pixels(), alike), pixels() + alike[:, :1])


def pixels_that_ask_nothing_get_the_mean():
    part = made(Projector)
    set_to(part.query, 0.0)
    equal(part(pixels(), tokens()), pixels() + tokens().mean(dim=1, keepdim=True))


def a_pixel_asks_for_itself():
    """The gradient of pixel 3 reaches pixel 3, no other pixel, and all tokens."""
    x, t = pixels().requires_grad_(), tokens().requires_grad_()
    made(Projector)(x, t)[:, 3].square().sum().backward()
    assert (x.grad.abs().amax(dim=(0, 2)) > 0).nonzero().flatten().tolist() == [3]
    assert (t.grad.abs().amax(dim=(0, 2)) > 0).all()


# The whole


def one_plain_token_is_average_pooling():
    """One token, no filters, no layers: the head reads twice the mean of the map, as a ResNet's."""
    sizes = Sizes(tokens=1, depth=1, resnet=(1, 2), width=4, classes=7)
    model = randomise(VisualTransformer(sizes)).double()
    block, x = model.blocks[0], images(2, 3, 24, 40)
    set_to(block.tokenizer.filters, 0.0)
    set_to(block.transformer.fc2, 0.0)
    equal(model(x), model.head(2 * F.adaptive_avg_pool2d(model.backbone(x), 1).flatten(1)))


PROOFS = [
    the_four_equations,
    where_a_pixel_lies_does_not_count,
    the_order_of_the_tokens_does_not_count,
    filters_of_zero_take_the_mean,
    a_strong_filter_takes_one_pixel,
    what_all_pixels_share_does_not_steer_a_filter,
    each_pixel_twice_makes_the_same_tokens,
    tokens_as_filters,
    each_image_has_its_own_filters,
    a_token_guides_its_successor_alone,
    a_transformer_is_attention,
    without_scores_the_mean_is_added,
    tokens_that_know_themselves_double,
    two_layers_see_one_token,
    one_token_goes_to_every_pixel,
    like_tokens_cannot_be_told_apart,
    pixels_that_ask_nothing_get_the_mean,
    a_pixel_asks_for_itself,
    one_plain_token_is_average_pooling,
]


def over_the_queries(self, queries, keys, values):
    """The softmax over the wrong axis."""
    return (queries @ keys.mT).softmax(dim=1) @ values


def sums(self, queries, keys, values):
    """Weights that do not compete."""
    return (queries @ keys.mT).sigmoid() @ values


def scaled(self, queries, keys, values):
    return Attention.attend(self, queries[:, None] * D**-0.5, keys[:, None], values[:, None])[:, 0]


def keys_as_values(self, queries, keys, values):
    return (queries @ keys.mT).softmax(dim=-1) @ keys


def rows(self, pixels, tokens=None):
    """Bands of pixels in place of groups that the filters find."""
    L = len(self.filters.weight)
    return F.adaptive_avg_pool1d(pixels.mT, L).mT + 0 * self.filters.weight.sum()


def each_by_place(self, queries, keys, values):
    """A score that depends on where a pixel or a token stands."""
    place = torch.linspace(0, 1, keys.shape[1]).to(keys)
    return (queries @ keys.mT + place).softmax(dim=-1) @ values


def sequential(self, tokens):
    """The two layers read the attention alone, and tokens are added at the end."""
    new = self.attn(tokens)
    return tokens + new + self.fc2(F.relu(self.fc1(new)))


def over_tokens(self, tokens):
    tokens = tokens + self.attn(tokens)
    return tokens + self.fc2(F.relu(self.fc1(tokens.roll(1, dims=1))))


def no_residual(self, pixels, tokens):
    return self.look(self.query(pixels), self.key(tokens), tokens)


def blurred(self, pixels, tokens):
    asked = self.query(pixels + pixels.mean(dim=1, keepdim=True))
    return pixels + self.look(asked, self.key(tokens), tokens)


def asks_with_the_mean(self, pixels, tokens):
    guide = self.guide(tokens + tokens.mean(dim=1, keepdim=True))
    return self.look(guide, pixels, pixels)


def same_for_all(self, pixels, tokens):
    guide = self.guide(tokens[:1].expand_as(tokens))
    return self.look(guide, pixels, pixels)


look = Look, "look"
PLANTED = {
    "the scale of attention": ((*look, scaled), the_four_equations),
    "no competition": ((*look, sums), filters_of_zero_take_the_mean),
    "pixels by their place": ((*look, each_by_place), where_a_pixel_lies_does_not_count),
    "tokens by their place": ((*look, each_by_place), the_order_of_the_tokens_does_not_count),
    "the mean of everything": (
        (*look, lambda self, q, k, v: v.mean(dim=1, keepdim=True).expand_as(q)),
        a_strong_filter_takes_one_pixel,
    ),
    "tokens compete for a pixel": (
        (*look, over_the_queries),
        what_all_pixels_share_does_not_steer_a_filter,
    ),
    "a pixel counts for itself": ((*look, sums), each_pixel_twice_makes_the_same_tokens),
    "filters that know the whole batch": (
        (RecurrentTokenizer, "forward", same_for_all),
        tokens_as_filters,
    ),
    "one image's tokens for all": (
        (RecurrentTokenizer, "forward", same_for_all),
        each_image_has_its_own_filters,
    ),
    "the mean of the tokens asks": (
        (RecurrentTokenizer, "forward", asks_with_the_mean),
        a_token_guides_its_successor_alone,
    ),
    "keys for values": ((*look, keys_as_values), a_transformer_is_attention),
    "no mean": ((*look, sums), without_scores_the_mean_is_added),
    "no token is found": (
        (TokenAttention, "forward", lambda self, t: t.mean(dim=1, keepdim=True)),
        tokens_that_know_themselves_double,
    ),
    "the layers see a neighbour": (
        (TokenTransformer, "forward", over_tokens),
        two_layers_see_one_token,
    ),
    "the layers skip the tokens": ((TokenTransformer, "forward", sequential), the_four_equations),
    "nothing to add to": ((Projector, "forward", no_residual), one_token_goes_to_every_pixel),
    "tokens without competition": ((*look, sums), like_tokens_cannot_be_told_apart),
    "pixels compete for a token": (
        (*look, over_the_queries),
        pixels_that_ask_nothing_get_the_mean,
    ),
    "a pixel asks with the mean": ((Projector, "forward", blurred), a_pixel_asks_for_itself),
    "bands of pixels": (
        (FilterTokenizer, "forward", lambda self, x, t=None: rows(self, x[:, :-3])),
        one_plain_token_is_average_pooling,
    ),
}
