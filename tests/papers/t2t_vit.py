"""T2T-ViT: soft splits beside vit-pytorch, its attention beside torch's, and reductions."""

import torch
from torch import nn
from torch.nn import functional as F
from vit_pytorch import t2t

from tests.proofs import equal, images, randomise
from vitcourse import weights
from vitcourse.config import Config
from vitcourse.papers import t2t_vit
from vitcourse.papers.t2t_vit import T2TViT, TokenAttention, TokenLayer, TokensToToken, soft_split
from vitcourse.vit import Attention, ViT

SIZES = Config(dim=40, depth=2, heads=5, patch=16, image=(48, 80), classes=7, mlp_ratio=2)
MODELS = {"t": lambda: (T2TViT(SIZES), torch.randn(2, 3, 48, 80))}
OTHER_SIZES = {"t": (64, 48)}
COUNTS = {"t2t_vit_t_14": 21_465_422, "t2t_vit_t_19": 39_084_686}


class Narrow(TokensToToken):
    width = 5


class OneSplit(TokensToToken):
    splits = ((6, 6, 0),)


def soft_splits_are_those_of_vit_pytorch():
    """Its tokenizer, whose layers keep their width, with our layers put between its splits."""
    ours = randomise(Narrow(2, 12, 16)).double()
    sizes = dict(image_size=64, channels=2, num_classes=7, dim=12, depth=1, heads=1, mlp_dim=4)
    theirs = t2t.T2TViT(**sizes).to_patch_embedding
    places = [i for i, layer in enumerate(theirs) if isinstance(layer, t2t.Transformer)]
    for place, layer in zip(places, ours.layers, strict=True):
        theirs[place] = layer
    theirs[-1] = ours.proj
    x = images(2, 2, 64, 64)
    equal(ours(x)[0], theirs(x))


def folding_puts_every_pixel_back():
    """All pixels of all tokens, added at their places: the map, times how often each was seen."""
    map = images(2, 3, 20, 28)
    for kernel, stride, padding in TokensToToken.splits:
        x, grid = t2t_vit.soft_split(map, kernel, stride, padding)
        again, often = (
            F.fold(t.transpose(1, 2), (20, 28), kernel, padding=padding, stride=stride)
            for t in (x, t2t_vit.soft_split(torch.ones_like(map), kernel, stride, padding)[0])
        )
        equal(again, map * often)
        assert x.shape[1] == grid[0] * grid[1] and often.min() >= 1 and often.max() > 1


def attention_is_that_of_torch():
    """torch's, for q, k and v of width 8; ours divides by the root of 21, not of 8."""
    layer = randomise(TokenAttention(21, 8)).double()
    x = images(2, 7, 21)
    q, k, v = layer.qkv(x).chunk(3, dim=-1)
    theirs = nn.MultiheadAttention(8, 1, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.eye(8).repeat(3, 1))
        theirs.out_proj.load_state_dict(layer.proj.state_dict())
    equal(layer(x), v + theirs(q * (8 / 21) ** 0.5, k, v)[0])


def a_layer_as_wide_as_its_input_is_attention():
    """Where the values are the tokens themselves, adding the values is the residual path."""
    layer, plain = randomise(TokenLayer(8, 8)).double(), Attention(8, 1).double()
    with torch.no_grad():
        layer.attn.qkv.weight[16:] = torch.eye(8)
        plain.qkv.weight.copy_(layer.attn.qkv.weight)
        plain.qkv.bias.zero_()
        plain.proj.load_state_dict(layer.attn.proj.state_dict())
    x = images(2, 7, 8)
    tokens = layer.norm1(x)
    tokens = tokens + plain(tokens)
    equal(layer(x), tokens + layer.mlp(layer.norm2(tokens)))


def without_layers_there_are_three_convolutions():
    """No norm, no attention, no MLP: what is left is linear, one strided convolution a split."""
    ours = randomise(Narrow(2, 12, 16)).double()
    for layer in ours.layers:
        layer.norm1 = nn.Identity()
        for last in (layer.attn.proj, layer.mlp.fc2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    one, two = (layer.attn.qkv.weight[10:] for layer in ours.layers)  # the values
    x = images(2, 2, 48, 80)
    map = F.conv2d(x, one.view(5, 2, 7, 7), stride=4, padding=2)
    map = F.conv2d(map, two.view(5, 5, 3, 3), stride=2, padding=1)
    weight, bias = ours.proj.weight.view(12, 5, 3, 3), ours.proj.bias
    map = F.conv2d(map, weight, bias, stride=2, padding=1)
    tokens, grid = ours(x)
    assert grid == (3, 5)
    equal(tokens, map.flatten(2).transpose(1, 2))


def a_token_reaches_beyond_its_patch():
    """Without attention 31 x 31 pixels reach a token, 16 pixels from the next; with it, all do."""
    for mixes, wanted in ((False, 31 * 31), (True, 80 * 112)):
        ours = randomise(Narrow(2, 12, 16)).double()
        for layer in ours.layers if not mixes else ():
            nn.init.zeros_(layer.attn.proj.weight)
        x = images(1, 2, 80, 112).requires_grad_()
        tokens, (h, w) = ours(x)
        tokens.unflatten(1, (h, w))[0, 2, 3].sum().backward()
        assert int((x.grad[0].abs().amax(dim=0) > 0).sum()) == wanted


def with_one_hard_split_it_is_a_vit():
    """One split without overlap is a patch embedding; with its positions and no bias, a ViT."""
    sizes = Config(dim=40, depth=2, heads=5, patch=6, image=(18, 30), classes=7, mlp_ratio=2)
    model, plain = randomise(T2TViT.variant(Tokenizer=OneSplit)(sizes)).double(), ViT(sizes)
    state = dict(model.state_dict())
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].view(40, 3, 6, 6)
    state["position.table"] = model.position(torch.zeros(1, 16, 40).double(), (3, 5))
    for i in range(2):
        state[f"blocks.{i}.attn.qkv.bias"] = torch.zeros(120)
    plain.double().eval().load_state_dict(state)
    for layer in plain.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = 1e-5
    x = images(2, 3, 18, 30)
    equal(model(x), plain(x))


def the_authors_names_are_known():
    """A file as theirs, with layers attention1 and attention2, and the table that we compute."""
    model = randomise(T2TViT(SIZES))
    theirs = {"pos_embed": torch.zeros(1, 16, 40), "cls_token": model.prefix}
    for name, tensor in model.state_dict().items():
        for ours, official in (
            ("patch_embed.layers.0", "tokens_to_token.attention1"),
            ("patch_embed.layers.1", "tokens_to_token.attention2"),
            ("patch_embed.proj", "tokens_to_token.project"),
        ):
            name = name.replace(ours, official)
        if name != "prefix":
            theirs[name] = tensor
    other = T2TViT(SIZES).eval()
    assert weights.load(other, theirs).layout == "official"
    x = images(2, 3, 48, 80, dtype=torch.float32)
    equal(other(x), model(x), tolerance=0)


PROOFS = [
    soft_splits_are_those_of_vit_pytorch,
    folding_puts_every_pixel_back,
    attention_is_that_of_torch,
    a_layer_as_wide_as_its_input_is_attention,
    without_layers_there_are_three_convolutions,
    a_token_reaches_beyond_its_patch,
    with_one_hard_split_it_is_a_vit,
    the_authors_names_are_known,
]


def by_columns(map, kernel, stride, padding):
    x, grid = soft_split(map.transpose(2, 3), kernel, stride, padding)
    return x, grid[::-1]


def shifted(map, kernel, stride, padding):
    return soft_split(map.roll(1, dims=3), kernel, stride, padding)


def without_values(self, x, grid=None):
    q, k, v = self.project(x, grid)
    return self.proj(self.attend(q, k, v)[:, 0])


def scale_of_queries(self, x, grid=None):
    q, k, v = self.project(x, grid)
    return v[:, 0] + self.proj(self.attend(q * (21 / 8) ** 0.5, k, v)[:, 0])


def values_after_projection(self, x, grid=None):
    q, k, v = self.project(x, grid)
    return self.proj(v[:, 0] + self.attend(q, k, v)[:, 0])


def no_residual_of_the_mlp(self, x):
    return self.mlp(self.norm2(self.attn(self.norm1(x))))


def one_norm(self, x):
    x = self.attn(self.norm1(x))
    return x + self.mlp(x)


def projections_confused(state, model):
    layer = r"^patch_embed\.layers\.{}\.attn\.proj".format
    name = "patch_embed.layers.{}.attn.proj".format
    swap = [(layer(0), name(1)), (layer(1), name(0))]
    return weights.rename(swap)(t2t_vit.from_official(state, model), model)


MARK = "tokens_to_token.project.weight"
PLANTED = {
    "columns first": ((t2t_vit, "soft_split", by_columns), soft_splits_are_those_of_vit_pytorch),
    "windows beside their place": (
        (t2t_vit, "soft_split", shifted),
        without_layers_there_are_three_convolutions,
    ),
    "windows moved, in a ViT": ((t2t_vit, "soft_split", shifted), with_one_hard_split_it_is_a_vit),
    "no values added": ((TokenAttention, "forward", without_values), attention_is_that_of_torch),
    "scale of the queries": (
        (TokenAttention, "forward", scale_of_queries),
        attention_is_that_of_torch,
    ),
    "values pass the projection": (
        (TokenAttention, "forward", values_after_projection),
        a_layer_as_wide_as_its_input_is_attention,
    ),
    "no second norm": (
        (TokenLayer, "forward", one_norm),
        a_layer_as_wide_as_its_input_is_attention,
    ),
    "no residual around the MLP": (
        (TokenLayer, "forward", no_residual_of_the_mlp),
        without_layers_there_are_three_convolutions,
    ),
    "a small window": (
        (TokensToToken, "splits", ((4, 4, 0), (2, 2, 0), (2, 2, 0))),
        a_token_reaches_beyond_its_patch,
    ),
    "windows moved": ((t2t_vit, "soft_split", shifted), folding_puts_every_pixel_back),
    "projections confused": (
        (T2TViT, "layouts", {"official": (MARK, projections_confused)}),
        the_authors_names_are_known,
    ),
}
