# %% [markdown] name="title"
# # 05 · The encoder block
#
# In lesson 04 you built attention: every token gathers from all the others. Now stack twelve such layers,
# one after the other, and nothing else. What leaves the twelfth?
#
# - A: rich tokens, each of which knows the whole image in its own way.
# - B: the same token, over and over.
#
# Decide before you go on. The answer is why a Vision Transformer consists of *blocks*. A block is attention
# with three additions: a path around it, a norm, and a small network for each token. You build it here,
# and at the end it equals the one of the package and the one of PyTorch.

# %% name="setup"
import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import check, show, vit

# %% [markdown] name="average-text"
# ## Attention is an average
#
# Softmax makes the weights of a row positive, with the sum 1. So each new token is an average of the
# values. Here are three tokens of two numbers, and weights that favour the token itself. The same average
# is taken once, twice, four times.

# %% name="average"
tokens = torch.tensor([[0.0, 4.0], [4.0, 0.0], [8.0, 8.0]])  # (T, D)
weights = torch.tensor([[0.50, 0.25, 0.25], [0.25, 0.50, 0.25], [0.25, 0.25, 0.50]])

for times in (0, 1, 2, 4):
    averaged = torch.linalg.matrix_power(weights, times) @ tokens  # (T, D)
    rounded = [[round(value, 2) for value in token] for token in averaged.tolist()]
    print(f"averaged {times} times:", *rounded)

# %% [markdown] name="photo-text"
# Each round brings the tokens four times nearer to their mean, (4, 4). What is lost is what made them
# different.
#
# Now with real attention, as it is before training, and a real image: 11 x 11 patches of a photograph,
# each a token of 64 numbers. The measure is the cosine between two tokens: 1 if they point the same way,
# 0 if they have nothing in common, -1 if they are opposite. The maps compare all patches with the middle
# one.

# %% name="photo"
from sklearn.datasets import load_sample_image

photo = torch.tensor(load_sample_image("china.jpg")[32:384, 96:448] / 255)  # (H, W, C)
photo = (photo - photo.mean((0, 1))) / photo.std((0, 1))
torch.manual_seed(0)
embed = vit.PatchEmbed(3, 64, patch=32)
patches, _ = embed(photo.float().permute(2, 0, 1)[None])  # (B, N, D)
patches = (patches / patches.std()).detach()
attentions = [vit.Attention(64, heads=4).requires_grad_(False) for _ in range(12)]
mlps = [vit.Mlp(64, hidden=256).requires_grad_(False) for _ in range(12)]
print("patches of the photograph:", tuple(patches.shape))

# %% name="photo-maps"
x, maps = patches, []
for attention in attentions[:4]:
    direction = F.normalize(x, dim=-1)[0]  # (N, D)
    maps.append((direction @ direction[60]).view(11, 11))  # the middle one with all
    x = attention(x)

titles = ["the patches", "after 1 attention", "after 2", "after 3"]
alt = (
    "How alike each patch of the photograph is to the middle one. At first sky "
    "and temple stand far apart; after one attention they are nearer; after two "
    "all patches are alike."
)
show.figure(show.heatmaps(maps, titles, columns=4, size=1.9, limits=(-1, 1)), alt)

# %% [markdown] name="alike-question"
# It is B, after two layers. On the left you still see the temple against the sky; then there is nothing
# left to see.
#
# The block of the ViT adds two things that could keep tokens apart. The **MLP** is a small network that
# works on every token. The **path around** carries the token past each layer, so that the layer's result is
# added to it and does not replace it.
#
# Predict: which of the two does it, or does it take both?


# %% name="alike"
def alike(x):
    """The mean cosine between two different tokens of an image: x (B, T, D)."""
    x, T = F.normalize(x, dim=-1), x.shape[1]
    return ((x @ x.transpose(1, 2)).sum((1, 2)) - T).mean().item() / (T * (T - 1))


def by_depth(mlp, path):
    """How alike the tokens are at the start, and after each of 12 blocks."""
    x, curve = patches, [alike(patches)]
    for i in range(12):
        x = path * x + attentions[i](x)
        if mlp:
            x = path * x + mlps[i](x)
        curve.append(alike(x))
    return curve


# %% name="alike-figure"
curves = {
    "attention alone": by_depth(mlp=False, path=0),
    "with MLP": by_depth(mlp=True, path=0),
    "with a path around": by_depth(mlp=False, path=1),
    "with both": by_depth(mlp=True, path=1),
}
for name, curve in curves.items():
    print(f"{name:18} after 12: {curve[-1]:.2f}")
alt = (
    "Cosine between tokens by depth. Without a path around it reaches 1 after two "
    "blocks, with or without MLP. With a path around it stays below 0.3 for all "
    "twelve."
)
show.figure(show.lines(curves, x="block", y="cosine between tokens"), alt)

# %% [markdown] name="residual-text"
# ## The path around
#
# The path does it; the MLP does not. (All this is before training, with random weights.) The same path has
# a second use. With $f$ for attention or MLP,
#
# $$x' = x + f(x) \qquad\qquad \frac{\partial x'}{\partial x} = 1 + f'(x)$$
#
# Where a layer replaces its input, a gradient that goes back through it is multiplied by $f'$. Where it
# adds, by $1 + f'$: the 1 lets the gradient pass, even if $f'$ is small. Take $f(x) = 0.1\,x$ and 24 layers.
# Then it is $0.1^{24}$ or $1.1^{24}$.

# %% name="residual-numbers"
x = torch.tensor(1.0, requires_grad=True)
replaced = added = x
for _ in range(24):
    replaced = 0.1 * replaced
    added = added + 0.1 * added

print(f"replaced: gradient {torch.autograd.grad(replaced, x)[0].item():.1e}")
print(f"added:    gradient {torch.autograd.grad(added, x)[0].item():.1e}")

# %% [markdown] name="versions-text"
# Now with attention and MLP. Version 1 of the block puts one behind the other. Version 2 adds the paths:
# two lines. We stack 24 of each, compute a loss from the first token, and look at the gradient of each
# block's weights.


# %% name="version-2"
class BlockV1(nn.Module):
    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.attn = vit.Attention(dim, heads)
        self.mlp = vit.Mlp(dim, hidden)

    def forward(self, x):
        return self.mlp(self.attn(x))


class BlockV2(BlockV1):
    def forward(self, x):
        x = x + self.attn(x)  # new
        x = x + self.mlp(x)  # new
        return x


# %% name="gradients"
def stack(kind, depth=24, gain=1.0):
    """Blocks of width 64 as PyTorch starts them, their weights times `gain`."""
    torch.manual_seed(0)
    blocks = nn.Sequential(*(kind(64, 4, 256) for _ in range(depth)))
    for layer in blocks.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data *= gain
    return blocks.double()


def gradients(blocks):
    """The length of the gradient of each block's weights, first block first."""
    torch.manual_seed(1)
    x, head = torch.randn(8, 20, 64).double(), nn.Linear(64, 10).double()
    loss = F.cross_entropy(head(blocks(x)[:, 0]), torch.arange(8))
    loss.backward()
    squares = [[p.grad.square().sum() for p in b.parameters()] for b in blocks]
    return [sum(of_block).sqrt().item() for of_block in squares]


# %% name="gradients-figure"
curves = {
    "without paths (v1)": gradients(stack(BlockV1)),
    "with paths around (v2)": gradients(stack(BlockV2)),
}
for name, curve in curves.items():
    factor = (curve[-1] / curve[0]) ** (1 / 23)
    print(f"{name}: first block {curve[0]:.1e}, divided by {factor:.1f} a block")
alt = (
    "Length of the gradient by block, on a logarithmic axis. Without paths it "
    "falls in a straight line from the last block to 1e-30 at the first; with "
    "paths it is level."
)
show.figure(show.lines(curves, x="block", y="length of the gradient", log="y"), alt)

# %% [markdown] name="gradients-answer"
# A straight line on a logarithmic axis: on its way back, the gradient is divided by about the same factor
# in every block. The first blocks of version 1 learn nothing. (The cell computes in float64. In float32 the
# square of such a number is zero.)

# %% [markdown] name="mlp-text"
# ## The MLP
#
# Attention mixes tokens, but it is linear in the values. What turns a token into something new is the MLP:
# two linear layers, the same for all tokens, each token by itself. The first widens it from $D$ to
# $M = 4D$ numbers, the second brings it back:
#
# $$\mathrm{MLP}(x) = W_2\,\mathrm{GELU}(W_1 x + b_1) + b_2 \qquad \mathrm{GELU}(x) = x \cdot \Phi(x)$$
#
# $\Phi(x)$ is the share of a normal distribution that lies below $x$. Where a ReLU cuts, a GELU fades.
# Without anything between them, two linear layers would be no more than one.

# %% name="gelu-figure"
x = torch.linspace(-4, 4, 41)
curves = {"ReLU": (x, F.relu(x)), "GELU": (x, F.gelu(x))}
for value in (-3.0, -1.0, 1.0, 3.0):
    print(f"GELU({value:4}) = {F.gelu(torch.tensor(value)).item():7.4f}")
alt = "ReLU is zero below zero. GELU dips to about -0.17 there, and meets ReLU above 3."
show.figure(show.lines(curves, x="x", y="result"), alt)

# %% [markdown] name="gelu-task"
# ### Exercise: the exact GELU
#
# 5 minutes · difficulty 1 of 3
#
# Write the GELU without `F.gelu`. The share $\Phi(x)$ is $\frac{1}{2}\,(1 + \mathrm{erf}(x / \sqrt{2}))$,
# and torch has `torch.erf`. Your function takes a tensor of any shape and gives one of the same shape.
#
# A hint: `check.hint("gelu")`. The solution: `check.solution("gelu")`.


# %% name="gelu-stub" tags=["exercise"]
def gelu(x):
    """x times the share of a normal distribution below x: same shape."""
    ...


# %% name="gelu-check" tags=["check"]
check.gelu(gelu)

# %% [markdown] name="tanh-text"
# There are two GELUs. The exact one uses erf; the other replaces it by a formula with tanh. The ViT's
# original code, in JAX, has the one with tanh, which is the default there. timm, torchvision and
# transformers have the exact one, and so has this course: `F.gelu` without arguments. How far apart are
# they?

# %% name="tanh"
x = torch.linspace(-6, 6, 12_001, dtype=torch.float64)
apart = (F.gelu(x) - F.gelu(x, approximate="tanh")).abs()
where = x[apart.argmax()].abs().item()
print(f"largest difference: {apart.max().item():.5f}, where |x| is {where:.1f}")

# %% [markdown] name="mlp-task"
# Little, but enough to fail a test that compares two libraries to five digits.
#
# ### Exercise: the MLP
#
# 6 minutes · difficulty 1 of 3
#
# Write a module `Mlp(dim, hidden)`: a linear layer `fc1` from `dim` to `hidden`, the exact GELU, a linear
# layer `fc2` back. Both have a bias. The input is (B, T, D), and so is the output.
#
# A hint: `check.hint("mlp")`. The solution: `check.solution("mlp")`.


# %% name="mlp-stub" tags=["exercise"]
class Mlp(nn.Module):
    """Two layers for every token by itself: x (B, T, D) -> (B, T, D)."""

    def __init__(self, dim, hidden):
        super().__init__()
        ...

    def forward(self, x): ...


# %% name="mlp-check" tags=["check"]
check.mlp(Mlp)

# %% name="share-predict"
# attention has a matrix qkv and a matrix proj, the MLP has fc1 and fc2
check.predict("hidden width of the MLP in ViT-B", ...)
share = "share of a block's weight matrices, in percent, "
check.predict(share + "that is in the MLP (to the nearest whole)", ...)

# %% name="share"
block = BlockV2(dim=768, heads=12, hidden=4 * 768)  # the sizes of ViT-B
counts = {name: p.numel() for name, p in block.named_parameters() if p.ndim == 2}
for name, count in counts.items():
    print(f"{name:16} {count:>9,}")
in_mlp = sum(count for name, count in counts.items() if "mlp" in name)
print(f"in the MLP: {in_mlp / sum(counts.values()):.0%}")

# %% [markdown] name="norm-text"
# ## The norm
#
# Version 2 adds and adds. Nothing bounds the sum: larger tokens make larger branches, which make larger
# tokens. How fast depends on the weights, and training changes them. In the digits model that comes with
# this course, the weights of one `fc2` are about twice as large as PyTorch starts them.
#
# Below is the size of the tokens (their standard deviation, 1 at the start) after 24 blocks, with weights
# as PyTorch starts them, and with larger ones. Beside version 2 stands the finished block, which has norms.

# %% name="sizes"
from vitcourse import data

fc2 = data.trained("digits").blocks[1].mlp.fc2
fresh = nn.Linear(fc2.in_features, fc2.out_features)
print(f"trained fc2 / fresh fc2: {fc2.weight.std() / fresh.weight.std():.1f}")


def finished(dim, heads, hidden):
    return vit.Block(dim, vit.Attention(dim, heads), vit.Mlp(dim, hidden))


torch.manual_seed(1)
start = torch.randn(8, 20, 64).double()  # (B, T, D)
print("weights   version 2   with norms")
for gain in (1.0, 1.5, 2.0):
    plain, normed = (stack(kind, gain=gain)(start) for kind in (BlockV2, finished))
    print(f"x {gain}   {plain.std().item():11.2g}   {normed.std().item():10.2g}")

# %% [markdown] name="norm-equation"
# LayerNorm gives each token mean 0 and variance 1, over its own $D$ numbers, and then a learned scale
# $\gamma$ and shift $\beta$ for each of the $D$:
#
# $$\mathrm{LN}(x) = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} \cdot \gamma + \beta \qquad
# \mu = \frac{1}{D} \sum_i x_i \qquad \sigma^2 = \frac{1}{D} \sum_i (x_i - \mu)^2$$
#
# The variance is divided by $D$ and not by $D - 1$, and $\varepsilon$ is $10^{-6}$ in Vision Transformers.
# One token with four numbers, and the same a hundred times larger:

# %% name="norm-numbers"
for numbers in ([1, 3, 5, 7], [100, 300, 500, 700]):
    mean = sum(numbers) / 4
    variance = sum((n - mean) ** 2 for n in numbers) / 4
    normed = [round((n - mean) / (variance + 1e-6) ** 0.5, 3) for n in numbers]
    print(f"mean {mean:.0f}, variance {variance:,.0f}: {numbers} -> {normed}")

check.predict("means that one layer norm computes for 2 images of 197 tokens", ...)

# %% [markdown] name="layer-norm-task"
# ### Exercise: layer norm
#
# 10 minutes · difficulty 2 of 3
#
# Write the equation for a batch of tokens x (B, T, D): every token is normalised by itself, with the
# biased variance and $\varepsilon = 10^{-6}$ under the root, then multiplied by `weight` (D,), which is
# $\gamma$, and `bias` (D,), which is $\beta$, is added. Do not use torch's own.
#
# A hint: `check.hint("layer_norm")`. The solution: `check.solution("layer_norm")`.


# %% name="layer-norm-stub" tags=["exercise"]
def layer_norm(x, weight, bias):
    """Normalise each token: x (B, T, D), weight (D,), bias (D,) -> (B, T, D)."""
    ...


# %% name="layer-norm-check" tags=["check"]
check.layer_norm(layer_norm)

# %% name="norm-axes"
# PyTorch has it, too: which averages are zero afterwards, and what does eps do?
torch.manual_seed(0)
x = 3 + 2 * torch.randn(2, 5, 64)  # (B, T, D)
normed = nn.LayerNorm(64, eps=1e-6)(x)
for axis, over in enumerate(("images", "tokens of an image", "features of a token")):
    print(f"largest mean over the {over}: {normed.mean(axis).abs().max().item():.2f}")
variance = normed.var(-1, unbiased=False)
print(f"variance of each token: {variance.min():.3f} to {variance.max():.3f}")

faint = 0.001 * (x - 3)  # tokens that hardly vary
for eps in (1e-6, 1e-5):
    size = nn.LayerNorm(64, eps=eps)(faint).std().item()
    print(f"faint tokens with eps {eps:.0e}: size {size:.2f}")

# %% [markdown] name="norm-axes-answer"
# Only the last axis is normalised: no token knows of another, nor any image. That is the difference from a
# batch norm, and why a LayerNorm does the same in training and in evaluation.
#
# `nn.LayerNorm` has eps $10^{-5}$ unless told otherwise. For tokens that hardly vary that is another result.

# %% [markdown] name="order-text"
# ## Where the norm stands
#
# Equations 2 and 3 of the ViT paper, for block $\ell$:
#
# $$z'_\ell = \mathrm{MSA}(\mathrm{LN}(z_{\ell-1})) + z_{\ell-1} \qquad
# z_\ell = \mathrm{MLP}(\mathrm{LN}(z'_\ell)) + z'_\ell$$
#
# ```
# ViT, norm before:      x ─┬─ norm1 ─ attention ─(+)─┬─ norm2 ─ MLP ─(+)─
#                           └──────────────────────┘  └────────────────┘
#
# Transformer of 2017,   x ─┬─ attention ─(+)─ norm1 ─┬─ MLP ─(+)─ norm2 ─
# norm after:               └──────────────┘          └────────┘
# ```
#
# In the first drawing nothing stands on the path around. Articles get this wrong. One says that attention
# and MLP are *followed* by a layer norm, above code in which they are not. In another, comments place
# `norm1` behind the attention, and the line below them calls it first.

# %% [markdown] name="block-task"
# ### Exercise: the block
#
# 12 minutes · difficulty 2 of 3
#
# Write version 3: a module `Block(dim, heads, hidden)` with `norm1`, `attn`, `norm2` and `mlp`, after
# equations 2 and 3. Take `vit.Attention(dim, heads)` and `vit.Mlp(dim, hidden)`, as version 2 does, and
# `nn.LayerNorm` with its eps set to 1e-6. Input and output are (B, T, D).
#
# A hint: `check.hint("block")`. The solution: `check.solution("block")`.


# %% name="block-stub" tags=["exercise"]
class Block(nn.Module):
    """Normalise, attend, add; normalise, MLP, add: x (B, T, D) -> (B, T, D)."""

    def __init__(self, dim, heads, hidden):
        super().__init__()
        ...

    def forward(self, x): ...


# %% name="block-check" tags=["check"]
check.block(Block)


# %% name="version-3"
class BlockV3(BlockV2):
    def __init__(self, dim, heads, hidden):
        super().__init__(dim, heads, hidden)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)  # new
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)  # new

    def forward(self, x):
        x = x + self.attn(self.norm1(x))  # new
        x = x + self.mlp(self.norm2(x))  # new
        return x


# %% name="proof"
# our version 3 lends its weights to the package's block
torch.manual_seed(0)
x = torch.randn(2, 7, 15)  # (B, T, D)
ours = BlockV3(dim=15, heads=5, hidden=23)
package = finished(dim=15, heads=5, hidden=23)
for parameter in ours.parameters():
    nn.init.normal_(parameter, std=0.5)  # the norms, too: 1 and 0 would hide mistakes
package.load_state_dict(ours.state_dict())
assert torch.allclose(ours(x), package(x), atol=1e-5)
print("ok: version 3 is the same as vitcourse.vit.Block")

# %% [markdown] name="torch-text"
# PyTorch has a block of its own, `nn.TransformerEncoderLayer`, with a switch for the order. It gets the same
# weights, the exact GELU and the same eps. Which setting is the ViT? Predict, then run: this settles what
# the articles disagree on.

# %% name="torch"
theirs = {"attn.qkv.": "self_attn.in_proj_", "attn.proj": "self_attn.out_proj"}
theirs |= {"mlp.fc1": "linear1", "mlp.fc2": "linear2"}
state = ours.state_dict()
for mine, name in theirs.items():
    state = {key.replace(mine, name): value for key, value in state.items()}

options = dict(activation="gelu", layer_norm_eps=1e-6, dropout=0, batch_first=True)
for norm_first in (True, False):
    layer = nn.TransformerEncoderLayer(15, 5, 23, norm_first=norm_first, **options)
    layer.load_state_dict(state)
    equal = torch.allclose(ours(x), layer(x), atol=1e-5)
    assert equal == norm_first
    print(f"norm_first={norm_first}: {'equals' if equal else 'is not'} the ViT's block")

# %% [markdown] name="order-gradients-text"
# What difference does the order make? Below are the gradients of 24 blocks before training, for both
# orders. Behind the blocks with the norm before stands one more norm, as in the ViT, because nothing has
# normalised their sum. (Behind the others it changes nothing.)
#
# A third line asks whether norms can replace the path around: version 1, with a norm before each branch.


# %% name="order-kinds"
class NormAfter(BlockV3):  # the order of 2017
    def forward(self, x):
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


class NormsOnly(BlockV3):
    def forward(self, x):
        return self.mlp(self.norm2(self.attn(self.norm1(x))))


kinds = {"norm before": BlockV3, "norm after": NormAfter, "norms, no paths": NormsOnly}
print("how alike the tokens are after 24 blocks:")
for name, kind in kinds.items():
    print(f"  {name:15} {alike(stack(kind)(start).detach()):.2f}")


# %% name="order-gradients"
def with_norm(kind, depth=24):
    return nn.Sequential(*stack(kind, depth), nn.LayerNorm(64).double())


curves = {name: gradients(with_norm(kind))[:-1] for name, kind in kinds.items()}
print("gradient of the last block\nblocks   norm before   norm after")
for depth in (3, 6, 12, 24, 48):
    a, b = (gradients(with_norm(kind, depth))[-2] for kind in (BlockV3, NormAfter))
    print(f"{depth:6}   {a:11.2f}   {b:10.2f}")
alt = (
    "Length of the gradient by block. Norm after: nearly level. Norm before: the "
    "same at the first block, falling to about half at the last. Without paths: "
    "several times larger, and uneven."
)
show.figure(show.lines(curves, x="block", y="length of the gradient", log="y"), alt)

# %% [markdown] name="order-gradients-answer"
# Norms without paths keep the gradient from vanishing, but not the tokens from becoming alike. Norms do not
# replace the path.
#
# Of the two orders, the norm before has the smaller gradients, most of all late, and the deeper the stack,
# the smaller: each branch is one part of a longer sum. With the norm after, the last block's gradient
# does not shrink with depth. [Xiong et al. 2020](https://arxiv.org/abs/2002.04745) derive both, and
# conclude that the norm after needs a learning rate that begins small and rises, a *warm-up*.
#
# Before training the difference is modest. Does it matter in training? Predict what happens to 12 narrow
# blocks on the digits, with each order, with and without a warm-up, at two learning rates.

# %% name="order-claim"
record = show.recorded("claim-prenorm")
print(show.origin(record))
figures = record["figures"]
means = {name: figure["mean"] for name, figure in figures.items()}
spread = {name: figure["spread"] for name, figure in figures.items()}
for name, figure in figures.items():
    print(f"{name:34}", *(f"{value:.2f}" for value in figure["each"]))
alt = (
    "Accuracy on digits for eight ways to train. All four with the norm before "
    "are above 0.9. With the norm after, both without warm-up are below 0.5, one "
    "at chance; with warm-up they reach 0.88 and 0.71."
)
fig = show.bars(means, "accuracy on test digits", spread=spread, mark=0.1)
show.figure(fig, alt)

# %% [markdown] name="order-claim-answer"
# The dashed line is chance; the thin lines are the spread over three seeds. What was measured, for these
# sizes, these rates and eight epochs:
#
# - With the norm before, every run learns, with or without warm-up. The warm-up changes little.
# - With the norm after and no warm-up, training fails: in two of three seeds at the lower rate, in all at
#   the higher.
# - A warm-up rescues much of it, but the norm after stays behind, and its seeds differ widely.
#
# It does not say that the norm after cannot be trained: the Transformer of 2017 was, with a warm-up.

# %% [markdown] name="drop-path-text"
# ## DropPath
#
# The path around makes one more trick possible. In training, leave out a whole branch for some of the
# images: they go around. The branches that stay are scaled up, so that the sum keeps its expected value:
#
# $$x' = x + \frac{m}{1 - r}\,f(x) \qquad m = 0 \text{ with probability } r, \text{ else } 1$$
#
# There is one $m$ for each image, not for each token or number, as in dropout. Eight images, whose branch
# has the value 6, and the rate $r = 0.25$: the random number of an image decides.

# %% name="drop-path-numbers"
rate = 0.25
numbers = [0.62, 0.11, 0.94, 0.27, 0.35, 0.05, 0.81, 0.48]  # one for each image
branches = [6 / (1 - rate) if number >= rate else 0.0 for number in numbers]
print(branches)
print("mean:", sum(branches) / len(branches))

# %% [markdown] name="drop-path-task"
# ### Exercise: DropPath
#
# 8 minutes · difficulty 2 of 3
#
# The same for tensors, without a loop. x (B, T, D) is a branch, `noise` (B,) has a number between 0 and 1
# for each image. The branch of image b becomes zero where `noise[b] < rate`; all others are divided by
# `1 - rate`. The result is (B, T, D).
#
# A hint: `check.hint("drop_path")`. The solution: `check.solution("drop_path")`.


# %% name="drop-path-stub" tags=["exercise"]
def drop_path(x, rate, noise):
    """Drop some images' branches, scale up the rest: x (B, T, D), noise (B,)."""
    ...


# %% name="drop-path-check" tags=["check"]
check.drop_path(drop_path)

# %% [markdown] name="drop-path-package-text"
# The package's layer draws the random numbers itself. It does so in training only, and its rate rises
# from block to block: early blocks see all images, the last drops the most.

# %% name="drop-path-package"
from vitcourse import make_vit

torch.manual_seed(0)
drop, branch = vit.DropPath(0.25), torch.ones(20_000, 3, 2)  # (B, T, D)
out = drop(branch)
print("values:", [round(value, 3) for value in out.unique().tolist()])
assert (out == out[:, :1, :1]).all() and abs(out.mean() - 1) < 0.02
print("ok: an image is kept or dropped as a whole, and the mean stays 1, to 2 %")
drop.eval()
assert torch.equal(drop(branch), branch)
print("ok: in evaluation nothing is dropped")

model = make_vit("Nano/16", drop_path=0.1)
print("rates of 4 blocks:", [round(block.drop_path.rate, 3) for block in model.blocks])

# %% [markdown] name="local-text"
# ## Who looks where
#
# Which parts of a block see one token, and which see all? Change token 4 of 9 and see whose output moves.
# Then shuffle the tokens and see whether the outputs are shuffled alike: that is equivariance. A shift of
# the image by one patch is such a shuffle, as long as nothing leaves the image.

# %% name="local"
torch.manual_seed(0)
x, table, other = torch.randn(3, 1, 9, 64)  # each (B, T, D)
changed = torch.cat([x[:, :4], other[:, 4:5], x[:, 5:]], dim=1)  # another token 4
order = torch.tensor([8, 3, 0, 5, 1, 7, 2, 6, 4])
block = BlockV3(dim=64, heads=4, hidden=256)
parts = {"norm": block.norm1, "MLP": block.mlp, "attention": block.attn, "block": block}
parts["position"] = lambda x: x + table

print("part        outputs that move   shuffled alike")
for name, part in parts.items():
    moved = (part(changed) - part(x)).abs().amax(-1)[0] > 1e-6  # (T,)
    same = torch.allclose(part(x[:, order]), part(x)[:, order], atol=1e-5)
    print(f"{name:11} {''.join('.#'[m] for m in moved):19} {same}")

# %% [markdown] name="local-answer"
# Norm and MLP act on each token by itself. The paper says that in a ViT only the MLP layers are local and
# translation-equivariant, and that attention is global. The table is more exact: attention is equivariant,
# too, but it is not local. One token changes every output, so what enters or leaves the image is felt
# everywhere. What ties a token to its place is none of these: it is the position table of lesson 03.

# %% [markdown] name="decoder-text"
# ## What became of the decoder
#
# The Transformer of 2017 translates sentences. It has an encoder, which reads, and a decoder, which writes
# one word after the other. A decoder's block has two attentions: one *masked*, so that a word sees only
# those before it, and one to the encoder's output, *cross-attention*. A classifier writes nothing, so the
# ViT keeps the encoder alone, and its attention has no mask.

# %% name="decoder"
for layer in (nn.TransformerEncoderLayer(32, 4), nn.TransformerDecoderLayer(32, 4)):
    parts = [name for name, _ in layer.named_children()]
    print(f"{type(layer).__name__}:", *(p for p in parts if "attn" in p or "norm" in p))

mask = nn.Transformer.generate_square_subsequent_mask(4)  # -inf: may not look there
print("a decoder's mask, 1 where a word may look:")
print((mask == 0).int())

# %% [markdown] name="depth-text"
# ## As deep as you like
#
# A block takes (B, T, D) and gives (B, T, D), so any number of them fits together. Count the parameters of
# one with the MLP four times as wide: $12 D^2$ in the matrices, $13 D$ in biases and norms. (The $13 D$:
# 3 for qkv, 1 for proj, 4 for fc1, 1 for fc2, 2 for each of two norms.)

# %% name="depth"
from vitcourse import Config

for depth in (1, 2, 12):
    out = stack(BlockV3, depth)(start)
    print(f"{depth:2} blocks: {tuple(start.shape)} -> {tuple(out.shape)}")

for size in ("Ti", "S", "B", "L"):
    cfg = Config.of(f"{size}/16")
    block = finished(cfg.dim, cfg.heads, cfg.hidden)
    count = sum(p.numel() for p in block.parameters())
    assert count == 12 * cfg.dim**2 + 13 * cfg.dim
    total = f"{cfg.depth} blocks {count * cfg.depth:>11,}"
    print(f"{size:2} D = {cfg.dim:4}: one block {count:>10,}, {total}")
print("ok: all are 12 D D + 13 D")

# %% [markdown] name="remember"
# ## Remember
#
# - Attention alone averages: stacked, it makes all tokens alike. The path around prevents that, and lets
#   the gradient pass to the first block.
# - LayerNorm: each token by itself, over its D features, biased variance, eps 1e-6.
# - The ViT normalises before each branch, and nothing stands on the path around:
#   `x + attn(norm1(x))`, then `x + mlp(norm2(x))`. PyTorch calls it `norm_first=True`.
# - The MLP widens each token to 4D and back, with GELU between. It holds two thirds of the weights.
# - DropPath leaves out branches, by image, in training only.
# - Shape in equals shape out, hence any depth: 12 D² + 13 D parameters a block.
#
# Before: [04 attention](04-attention.ipynb). Next: [06 the whole ViT](06-vision-transformer.ipynb).
#
# [Glossary](../docs/glossary.md).
