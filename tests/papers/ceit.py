"""CeiT: beside the model written out in plain sums, and identities of its three parts.

The authors' code is in no package. What stands for it are its exact numbers of parameters, its
names of tensors, and `written_out`, which shares no line with the package.
"""

import torch
from torch import nn
from torch.nn import functional as F

from tests.proofs import equal, images, randomise
from vitcourse import weights
from vitcourse.config import Config
from vitcourse.papers import ceit
from vitcourse.papers.ceit import (
    BypassLeFF,
    CeiT,
    ImageToTokens,
    LayerAttention,
    LayerBlock,
    LeFF,
)
from vitcourse.vit import Attention, Block, Mlp, ViT, patchify


class NarrowStem(ImageToTokens):
    width = 10


Narrow = CeiT.variant(Tokenizer=NarrowStem)
Bypass = Narrow.variant(Mlp=BypassLeFF)
SIZES = Config(dim=40, depth=3, heads=5, patch=8, image=(24, 40), classes=7, mlp_ratio=2)


def learning(cls):
    """A model whose last LeFF is frozen: nobody reads it, as `only_class_tokens_are_read` shows."""
    model = cls(SIZES)
    model.blocks[-1].mlp.requires_grad_(False)
    model.blocks[-1].norm2.requires_grad_(cls is Narrow)  # the bypass leaves it unread, too
    return model


MODELS = {
    "published": lambda: (learning(Narrow), torch.randn(2, 3, 24, 40)),
    "bypass": lambda: (learning(Bypass), torch.randn(2, 3, 24, 40)),
}
OTHER_SIZES = {"published": (32, 16), "bypass": (16, 48)}
COUNTS = {"ceit_t": 6_356_904, "ceit_s": 24_204_840, "ceit_b": 94_405_416}


def model_of(cls=Narrow):
    """A model with random weights, in float64."""
    return randomise(cls(SIZES)).double()


# The whole model, written out -------------------------------------------------------------------


def authors_names(model):
    """The tensors of a model under the names that they have in the authors' files."""
    names = {
        "prefix": "cls_token",
        "position.table": "pos_embed",
        "position_layers": "pos_layer_embed",
        "patch_embed.proj.patches.": "i2t.proj.",
        "patch_embed.proj.": "i2t.backbone.",
        "lca.mlp.": "lca.feedforward.",
        ".mlp.": ".leff.",
    }
    state = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in names.items():
            if ours in name and not (ours == ".mlp." and name.startswith("lca.")):
                name = name.replace(ours, theirs)
                break
        state[name] = tensor
    return state


def normed(x, state, name):
    """LayerNorm, as a formula."""
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / (var + 1e-6).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def standard(map, state, name):
    """BatchNorm in evaluation, as a formula, for a map (B, C, h, w)."""
    parts = (state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
    mean, var, scale, shift = (part[:, None, None] for part in parts)
    return (map - mean) / (var + 1e-5).sqrt() * scale + shift


def linear(x, state, name):
    weight = state[f"{name}.weight"]
    return x @ weight.flatten(1).T + state[f"{name}.bias"]


def attended(x, state, name, heads, asks=slice(None)):
    """Attention, head by head: the tokens `asks` look at all."""
    q, k, v = linear(x, state, f"{name}.qkv").chunk(3, dim=-1)
    d, found = q.shape[-1] // heads, []
    for head in range(heads):
        mine = slice(head * d, (head + 1) * d)
        scores = torch.einsum("bqd,bkd->bqk", q[:, asks, mine], k[..., mine]) / d**0.5
        found.append(scores.softmax(-1) @ v[..., mine])
    return linear(torch.cat(found, dim=-1), state, f"{name}.proj")


def leff(tokens, grid, state, name):
    """The patch tokens (B, N, D) of one LeFF, the depthwise sum place by place."""
    h, w = grid

    def as_map(x):
        return x.transpose(1, 2).unflatten(2, grid)

    def as_tokens(map):
        return map.flatten(2).transpose(1, 2)

    map = F.gelu(standard(as_map(linear(tokens, state, f"{name}.conv1")), state, f"{name}.bn1"))
    kernel, summed = state[f"{name}.conv2.weight"], torch.zeros_like(map)
    for y in range(h):
        for x in range(w):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < h and 0 <= x + dx < w:
                        near = map[:, :, y + dy, x + dx]
                        summed[:, :, y, x] += near * kernel[:, 0, dy + 1, dx + 1]
    summed = summed + state[f"{name}.conv2.bias"][:, None, None]
    map = F.gelu(standard(summed, state, f"{name}.bn2"))
    map = standard(as_map(linear(as_tokens(map), state, f"{name}.conv3")), state, f"{name}.bn3")
    return as_tokens(map)


def stem(x, state):
    """The map of the stem, (B, width, H/4, W/4): a convolution by windows, then the largest."""
    kernel = state["i2t.backbone.conv.weight"]
    windows = F.pad(x, (3, 3, 3, 3)).unfold(2, 7, 2).unfold(3, 7, 2)
    map = torch.einsum("bchwyx,ocyx->bohw", windows, kernel)
    map = standard(map, state, "i2t.backbone.bn")
    around = F.pad(map, (1, 1, 1, 1), value=-torch.inf)
    return around.unfold(2, 3, 2).unfold(3, 3, 2).amax(dim=(-2, -1))


def written_out(state, x, heads, depth, bypass=False):
    """The logits of a CeiT with the authors' names."""
    patches = state["i2t.proj.weight"]
    map, side = stem(x, state), patches.shape[-1]
    grid = map.shape[2] // side, map.shape[3] // side
    kernel = patches.permute(0, 2, 3, 1).flatten(1)  # as patchify orders the numbers of a patch
    x = patchify(map, side) @ kernel.T + state["i2t.proj.bias"]
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1) + state["pos_embed"]
    tokens = []
    for i in range(depth):
        name = f"blocks.{i}"
        x = x + attended(normed(x, state, f"{name}.norm1"), state, f"{name}.attn", heads)
        y = normed(x, state, f"{name}.norm2")
        patches = x[:, 1:] + leff(y[:, 1:], grid, state, f"{name}.leff")
        token = x[:, :1] if bypass else x[:, :1] + y[:, :1]
        x = torch.cat([token, patches], dim=1)
        tokens.append(token)
    x = torch.cat(tokens, dim=1) + state["pos_layer_embed"]
    last = x[:, -1:] + attended(normed(x, state, "lca.norm1"), state, "lca.attn", heads, [-1])
    y = F.gelu(linear(normed(last, state, "lca.norm2"), state, "lca.feedforward.fc1"))
    last = last + linear(y, state, "lca.feedforward.fc2")
    return linear(normed(last, state, "norm"), state, "head")[:, 0]


def same_as_written_out():
    """Logits and all gradients, of the published model and of the paper's bypass."""
    for cls in (Narrow, Bypass):
        model, x = model_of(cls), images(2, 3, 24, 40)
        leaves = {n: t.clone() for n, t in authors_names(model).items()}
        learned = [n for n, t in authors_names(model).items() if t.is_floating_point()]
        for name in learned:
            leaves[name].requires_grad_("running" not in name)
        logits = written_out(leaves, x, heads=5, depth=3, bypass=cls is Bypass)
        equal(model(x), logits)
        direction = torch.linspace(-1, 1, 14).double().view(2, 7)
        (logits * direction).sum().backward()
        (model(x) * direction).sum().backward()
        gradients = {n: t.grad for n, t in leaves.items() if t.grad is not None}
        gradients = ceit.from_authors(gradients, model)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and parameter.grad.any():
                equal(parameter.grad, gradients[name], name, 1e-9)


def the_authors_files_load():
    """Every tensor finds its place by the authors' names, and nothing is left over."""
    model, other = model_of(), Narrow(SIZES).double().eval()
    report = weights.load(other, authors_names(model))
    assert report.layout == "CeiT" and report.tensors == len(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    x = images(2, 3, 24, 40)
    equal(other(x), model(x))


# LeFF -------------------------------------------------------------------------------------------


def a_leff_of_single_places_is_an_mlp():
    """Kernels that see their own place only, no norms, and a second GELU on its straight side."""
    layer, plain = randomise(LeFF(40, 70)).double(), Mlp(40, 70).double()
    with torch.no_grad():
        nn.init.dirac_(layer.conv2.weight, groups=70)
        layer.conv2.bias.fill_(100)  # far above zero, where GELU(x) = x
        plain.fc1.weight.copy_(layer.conv1.weight[:, :, 0, 0])
        plain.fc1.bias.copy_(layer.conv1.bias)
        plain.fc2.weight.copy_(layer.conv3.weight[:, :, 0, 0])
        plain.fc2.bias.copy_(layer.conv3.bias)
        layer.conv3.bias -= 100 * plain.fc2.weight.sum(dim=1)
    layer.bn1 = layer.bn2 = layer.bn3 = nn.Identity()
    x = images(2, 16, 40)
    equal(layer(x, (3, 5))[:, 1:], plain(x)[:, 1:])


def a_token_sees_its_neighbours_in_the_map():
    """The gradient of one place reaches 3 x 3 places and no other token; the prefix only itself."""
    layer, x = randomise(LeFF(40, 70)).double(), images(2, 37, 40).requires_grad_()
    y = layer(x, (5, 7))  # two prefix tokens and 35 places
    (reach,) = torch.autograd.grad(y[:, 2 + 2 * 7 + 6].sum(), x, retain_graph=True)
    reached = reach.abs().amax(dim=(0, 2)) > 0
    wanted = torch.zeros(5, 7, dtype=torch.bool)
    wanted[1:4, 5:7] = True  # a place at the right border
    assert torch.equal(reached, torch.cat([torch.zeros(2).bool(), wanted.flatten()]))
    (reach,) = torch.autograd.grad(y[:, :2].sum(), x)
    equal(reach[:, :2], torch.ones(2, 2, 40).double())
    assert not reach[:, 2:].any()


def the_class_token_is_normed_or_bypasses():
    """Without attention, a block makes c + LN(c) of it; with the paper's LeFF it stays c."""
    x = images(2, 16, 40)
    for part, bypass in ((LeFF, False), (BypassLeFF, True)):
        block = randomise(Block(40, Attention(40, 5), part(40, 70))).double()
        nn.init.zeros_(block.attn.proj.weight)
        nn.init.zeros_(block.attn.proj.bias)
        c = x[:, :1]
        equal(block(x, (3, 5))[:, :1], c if bypass else c + block.norm2(c))


# LCA --------------------------------------------------------------------------------------------


def the_last_of_a_plain_block():
    """All class tokens through the ViT's own block, of which the last is kept: the same."""
    block = randomise(LayerBlock(40, LayerAttention(40, 5), Mlp(40, 70))).double()
    plain = Block(40, Attention(40, 5), Mlp(40, 70)).double().eval()
    plain.load_state_dict(block.state_dict())
    x = images(2, 6, 40)
    equal(block(x), plain(x)[:, -1:])


def only_class_tokens_are_read():
    """What the last block makes of the patches reaches no logit: its LeFF gets no gradient."""
    model, x, kept = model_of(), images(2, 3, 24, 40), []

    def keep(module, inputs, output):
        output.retain_grad()
        kept.append(output)

    for block in model.blocks:
        block.register_forward_hook(keep)
    model(x).square().sum().backward()
    patches = [tokens.grad[:, 1:].abs().max().item() for tokens in kept]
    assert patches[0] > 0 and patches[1] > 0 and patches[2] == 0
    last = [p.grad for p in model.blocks[-1].mlp.parameters()]
    assert all(grad is None or not grad.any() for grad in last)
    for tokens in kept:
        assert tokens.grad[:, 0].abs().max() > 0


def every_layer_is_read_at_once():
    """A class token reaches the head directly: with its way through later blocks cut, it counts."""
    model = model_of()
    tokens, _ = model.class_tokens(images(2, 3, 24, 40))
    tokens = tokens.detach().requires_grad_()
    x = model.lca(tokens + model.position_layers)
    model.head(model.norm(x)).square().sum().backward()
    reached = tokens.grad.abs().amax(dim=(0, 2))
    assert (reached > 0).all() and (reached[-1] > reached[:-1]).all()


def without_the_table_layers_have_no_order():
    """All but the last may change places: only the table tells one layer from another."""
    model = model_of()
    tokens, _ = model.class_tokens(images(2, 3, 24, 40))
    order = [1, 0, 2]
    with torch.no_grad():
        with_table = (model.lca(x + model.position_layers) for x in (tokens, tokens[:, order]))
        one, other = with_table
        assert (one - other).abs().max() > 1e-3
        equal(model.lca(tokens[:, order]), model.lca(tokens))
        model.position_layers.zero_()
        equal(model.encode(images(2, 3, 24, 40))[0], model.norm(model.lca(tokens)))


def without_lca_it_is_a_vit():
    """With branches that add nothing and an empty table, the head reads the last class token."""
    model, x = model_of(), images(2, 3, 24, 40)
    plain = ViT.variant(Tokenizer=NarrowStem, Mlp=LeFF)(SIZES).double().eval()
    plain.load_state_dict({n: model.state_dict()[n] for n in plain.state_dict()})
    with torch.no_grad():
        model.position_layers.zero_()
        for layer in (model.lca.attn.proj, model.lca.mlp.fc2):
            layer.weight.zero_()
            layer.bias.zero_()
    equal(model(x), plain(x))


# The stem ---------------------------------------------------------------------------------------


def the_stem_is_its_parts():
    """Windows of 7x7, the norm's formula, the largest of 3x3, and `patchify` with a Linear.

    No activation follows the norm, so numbers are below zero, and what lies outside is no zero.
    """
    for size in ((24, 40), (16, 8)):
        embed, x = randomise(NarrowStem(3, 40, 8)).double(), images(2, 3, *size)
        state = {f"i2t.backbone.{n}": t for n, t in embed.proj.state_dict().items()}
        map = stem(x, state)
        assert map.shape[2:] == (size[0] // 4, size[1] // 4) and map.min() < 0
        kernel = embed.proj.patches.weight.permute(0, 2, 3, 1).flatten(1)
        tokens, grid = embed(x)
        assert grid == (size[0] // 8, size[1] // 8)
        equal(tokens, patchify(map, 2) @ kernel.T + embed.proj.patches.bias)


def a_token_sees_beyond_its_patch():
    """Patches of 8 pixels, 2 of the map: the stem sees 5 more on each side, the last but 4."""
    embed = randomise(ImageToTokens(1, 40, 8)).double()
    x = images(8, 1, 48, 56).requires_grad_()
    tokens, (h, w) = embed(x)
    (reach,) = torch.autograd.grad(tokens.unflatten(1, (h, w))[:, 2, 3].abs().sum(), x)
    rows = (reach.abs().amax(dim=(0, 1, 3)) > 0).nonzero().flatten()
    columns = (reach.abs().amax(dim=(0, 1, 2)) > 0).nonzero().flatten()
    # place (2, 3) of the tokens is place (4..5, 6..7) of the map, each from 4i - 5 to 4i + 5
    assert (rows[0], rows[-1]) == (16 - 5, 20 + 5) and len(rows) == 15
    assert (columns[0], columns[-1]) == (24 - 5, 28 + 5) and len(columns) == 15


PROOFS = [
    same_as_written_out,
    the_authors_files_load,
    a_leff_of_single_places_is_an_mlp,
    a_token_sees_its_neighbours_in_the_map,
    the_class_token_is_normed_or_bypasses,
    the_last_of_a_plain_block,
    only_class_tokens_are_read,
    every_layer_is_read_at_once,
    without_the_table_layers_have_no_order,
    without_lca_it_is_a_vit,
    the_stem_is_its_parts,
    a_token_sees_beyond_its_patch,
]

split, leff_forward = ceit.split, LeFF.forward


def by_columns(x, grid):
    h, w = grid
    prefix, map = split(x, grid)
    return prefix, map.flatten(2).unflatten(2, (w, h)).transpose(2, 3)


def norms_exchanged(self, x, grid):
    self.bn1, self.bn2 = self.bn2, self.bn1
    return leff_forward(self, x, grid)


def activation_at_the_end(self, x, grid):
    x = leff_forward(self, x, grid)
    return torch.cat([x[:, :1], F.gelu(x[:, 1:])], dim=1)


def class_token_through_the_layers(self, x, grid):
    one = leff_forward(self, x[:, :1], (1, 1))
    return torch.cat([one, leff_forward(self, x, grid)[:, 1:]], dim=1)


def no_first_activation(self, x, grid):
    prefix, map = split(x, grid)
    map = F.gelu(self.bn2(self.conv2(self.bn1(self.conv1(map)))))
    return ceit.join(prefix, self.bn3(self.conv3(map)))


def first_token_asks(self, x, grid):
    q, k, v = Attention.project(self, x, grid)
    return q[:, :, :1], k, v


def first_token_is_kept(self, x, grid=None):
    x = x[:, :1] + self.attn(self.norm1(x))
    return x + self.mlp(self.norm2(x))


def only_the_last(self, x, grid=None):
    x = x[:, -1:] + self.attn(self.norm1(x[:, -1:]))
    return x + self.mlp(self.norm2(x))


def last_token_alone(self, x, grid=None):
    x = x[:, -1:]
    return x + self.mlp(self.norm2(x))


def patches_are_read(self, images):
    x, grid = self.patch_embed(images)
    x, found = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1), []
    x = self.position(x, grid)
    for block in self.blocks:
        x = block(x, grid)
        found.append(x.mean(dim=1))
    return torch.stack(found, dim=1), grid


def table_in_the_block(self, x, grid=None):
    L, D = x.shape[1:]
    x = x + torch.outer(torch.arange(L).to(x), torch.linspace(-1, 1, D).to(x))
    return Block.forward(self, x)[:, -1:]


def zeros_around(self, x):
    return F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)


def not_overlapping(self, x):
    return F.max_pool2d(x, 2, 2)


def wrong_norms(state, model):
    state = {n.replace("bn1", "bn0").replace("bn2", "bn1"): t for n, t in state.items()}
    state = {n.replace("bn0", "bn2"): t for n, t in state.items()}
    return ceit.from_authors(state, model)


PLANTED = {
    "the map by columns": ((ceit, "split", by_columns), same_as_written_out),
    "two norms exchanged": ((LeFF, "forward", norms_exchanged), same_as_written_out),
    "an activation behind the last norm": (
        (LeFF, "forward", activation_at_the_end),
        same_as_written_out,
    ),
    "the first layer asks": ((LayerAttention, "project", first_token_asks), same_as_written_out),
    "LCA does not look at other layers": (
        (LayerBlock, "forward", last_token_alone),
        same_as_written_out,
    ),
    "two norms take each other's numbers": (
        (CeiT, "layouts", {"CeiT": ("pos_layer_embed", wrong_norms)}),
        the_authors_files_load,
    ),
    "no activation before the kernel": (
        (LeFF, "forward", no_first_activation),
        a_leff_of_single_places_is_an_mlp,
    ),
    "neighbours by columns": (
        (ceit, "split", by_columns),
        a_token_sees_its_neighbours_in_the_map,
    ),
    "the class token passes the layers": (
        (LeFF, "forward", class_token_through_the_layers),
        the_class_token_is_normed_or_bypasses,
    ),
    "no bypass": ((BypassLeFF, "bypass", False), the_class_token_is_normed_or_bypasses),
    "the first token is kept": (
        (LayerBlock, "forward", first_token_is_kept),
        the_last_of_a_plain_block,
    ),
    "the mean of all tokens is read": (
        (CeiT, "class_tokens", patches_are_read),
        only_class_tokens_are_read,
    ),
    "LCA reads the last layer alone": (
        (LayerBlock, "forward", only_the_last),
        every_layer_is_read_at_once,
    ),
    "an order beside the table": (
        (LayerBlock, "forward", table_in_the_block),
        without_the_table_layers_have_no_order,
    ),
    "the first layer is kept": (
        (LayerBlock, "forward", first_token_is_kept),
        without_lca_it_is_a_vit,
    ),
    "zeros around the map": ((nn.MaxPool2d, "forward", zeros_around), the_stem_is_its_parts),
    "windows that do not overlap": (
        (nn.MaxPool2d, "forward", not_overlapping),
        a_token_sees_beyond_its_patch,
    ),
}
