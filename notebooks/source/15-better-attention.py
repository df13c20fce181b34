# %% [markdown] name="title"
# # 15 · Better attention
#
# A row of pixels, and a kernel that sharpens it: each pixel three times, minus its two neighbours. A
# convolution does that. Can attention, with one number per pixel and weights of your choice?
#
# - A: one head can.
# - B: one cannot, two can.
# - C: none can. Attention averages, and an average is never sharper.
#
# Write down A, B or C. Five papers of this lesson ask what stands behind it: **what may one do to the map
# of weights, and to what it may see?** Three come from deep ViTs, whose maps and tokens become alike, two
# from convolution.

# %% name="setup"
import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import ViT, check, data, papers, probe, show, vit
from vitcourse.papers import compare

# %% [markdown] name="one-text"
# ## What one map can do
#
# One bright pixel in the dark. The kernel makes its neighbours darker than black. Below it, three maps that
# a head may have: each pixel looks at itself, at itself and its neighbours, at its right neighbour. With
# $W_V$ a single number $c$, the head's output is
#
# $$y_q = c \sum_k a_{qk}\, x_k, \qquad a_{qk} \ge 0, \quad \sum_k a_{qk} = 1$$

# %% name="one-head"
row = torch.tensor([0.0, 0.0, 4.0, 0.0, 0.0, 0.0])  # (N,)
kernel = torch.tensor([-1.0, 3.0, -1.0])
sharp = F.conv1d(row[None, None], kernel[None, None], padding=1)[0, 0]
print("convolution ", [round(y) for y in sharp.tolist()])

same = torch.eye(6)
near = same + same.roll(1, 0) + same.roll(-1, 0)
near[0, 5] = near[5, 0] = 0  # the row does not go round
near = near / near.sum(dim=1, keepdim=True)
right = torch.cat([same[1:], same[5:]])
for name, a in {"itself": same, "near": near, "right": right}.items():
    print(f"{name:12}", [round(y, 1) for y in (a @ row).tolist()])

# %% [markdown] name="one-answer"
# The sum holds no weight below zero, so whatever $c$ is, all outputs have one sign. The convolution needs
# two. One head cannot.
#
# With two heads, `proj` may take one and subtract the other. Or take the difference of the maps first, and
# multiply with the values once:

# %% name="two-heads"
two_heads = 4 * (same @ row) - 3 * (near @ row)  # proj holds 4 and -3
one_mixed = (4 * same - 3 * near) @ row  # the maps are mixed, by the same numbers
assert torch.allclose(two_heads[1:-1], sharp[1:-1], atol=1e-5)
assert torch.allclose(one_mixed, two_heads, atol=1e-5)
print("ok: two heads sharpen, away from the border; so does one mixed map")
mixed = 4 * same - 3 * near
print("row 2 of the mixed map:", [round(a) for a in mixed[2].tolist()])

# %% [markdown] name="places"
# It is B. And a mixed map can do what none of the maps can that it is made of. So here is one block's
# attention, and where each paper changes it:
#
# | in the formula | who | what for |
# |---|---|---|
# | which queries ask | class attention (CaiT) | collect late, by one token |
# | which keys are seen | SASA | near ones, as a convolution |
# | what a score knows | attention as convolution | places alone |
# | scores, before the softmax | talking heads (CaiT) | heads exchange |
# | weights, after the softmax | DeepViT, talking heads | new maps from old |
# | weights, as a picture | Refiner | neighbours exchange |
# | the branch, before it is added | LayerScale (CaiT) | begin near nothing |
#
# ## Thread one: why deeper is not better
#
# Averages of averages become alike. How soon? Take a new ViT of 24 blocks, and let the tokens of 100 digits
# run through its attention alone; through attention that is added to the token, as a block does; and
# through whole blocks. How alike are two patches of one image? Zero: not at all. One: the same
# direction. Guess after how many layers the first reaches one.

# %% name="alike"
from vitcourse.train import RECIPES, build_model

digits = data.load("digits")
images = digits.normalise(digits.test_images[:100])
recipe = RECIPES["smoke"].but(model="Nano/2")
deep = dict(dim=24, depth=24)
model = build_model(recipe, digits, **deep)
steps = {
    "attention alone": lambda block, x: block.attn(block.norm1(x)),
    "x + attention": lambda block, x: x + block.attn(block.norm1(x)),
    "whole block": lambda block, x: block(x),
}
with torch.no_grad():
    patches, grid = model.patch_embed(images)
    start = torch.cat([model.prefix.expand(100, -1, -1), patches], dim=1)
    start = model.position(start, grid)  # (B, T, D)
    for name, step in steps.items():
        x, alike = start, []
        for block in model.blocks:
            x = step(block, x)
            alike.append(probe.token_similarity(x[:, 1:]).mean().item())
        shown = [f"{n}: {round(alike[n - 1], 2) + 0.0:.2f}" for n in (1, 2, 6, 12, 24)]
        print(f"{name:16}", *shown)

# %% [markdown] name="alike-answer"
# After two. What keeps patches apart is the residual path: each token keeps what it was. Even so, likeness
# creeps in with depth.
#
# What training makes of it, the comparison below will show. The authors of DeepViT report that a plain ViT
# stops getting better as it gets deeper, and that the maps of its deep blocks are nearly copies of each
# other. A block that looks where the last one looked adds little.
#
# ## DeepViT: new maps from old
#
# $$\text{Re-Attention}(Q, K, V) = \text{Norm}\left(\Theta^\top
# \text{softmax}\left(\frac{QK^\top}{\sqrt d}\right)\right) V$$
#
# Within one block, they find, the heads still differ. So each new head takes a learned mixture of all of
# them. That is `one_mixed` from above.

# %% name="deepvit"
from vitcourse.papers.deepvit import DeepViT

print(papers.diff(DeepViT))

# %% [markdown] name="card-talking"
# $\Theta$ has $K \times K$ numbers. The paper leaves the norm open; the published models have a BatchNorm,
# one for each head. [The notebook](papers/deepvit.ipynb) has the proof and an experiment.
#
# ## CaiT, first part: heads that talk
#
# Why only after the softmax? **Talking heads** mix twice, with two matrices:
#
# $$A'\,\text{softmax}\left(A\,\frac{QK^\top}{\sqrt d}\right) V$$
#
# ### Exercise: heads that talk
#
# 6 minutes · difficulty 2 of 3
#
# Given scores (B, K, T, T), divided by $\sqrt d$ already, and the matrices `before` and `after`, both
# (K, K): return the mixed weights (B, K, T, T). Row j of a matrix says how much the new head j takes of
# each old one.
#
# A hint: `check.hint("talking_heads")`. The solution: `check.solution("talking_heads")`.


# %% name="stub-talking" tags=["exercise"]
def talking_heads(scores, before, after):
    """(B, K, T, T), (K, K), (K, K) -> weights (B, K, T, T)."""
    ...


# %% name="check-talking" tags=["check"]
check.talking_heads(talking_heads)

# %% [markdown] name="sides-text"
# On which side of the softmax it stands makes a difference. One matrix, three heads, mixed once before and
# once after. Look at the smallest weight, and at what the rows of each head sum to.

# %% name="sides"
torch.manual_seed(0)
scores = torch.randn(1, 3, 5, 5)  # (B, K, T, T)
theta = torch.tensor([[1.0, 0.5, 0.0], [-1.0, 1.0, 0.5], [0.0, -0.5, 0.5]])


def mix(maps):
    return torch.einsum("jk,bkqt->bjqt", theta, maps)


sides = {"before": mix(scores).softmax(dim=-1), "after": mix(scores.softmax(dim=-1))}
for name, weights in sides.items():
    sums = weights.sum(dim=-1)[0]  # (K, T)
    assert torch.allclose(sums, sums[:, :1].expand(-1, 5), atol=1e-5)
    sums = [round(total, 1) + 0.0 for total in sums[:, 0].tolist()]
    negative = (weights < 0).float().mean().item()
    print(f"mixed {name:7} rows sum to {sums}, negative: {negative:.0%} of the weights")

# %% [markdown] name="refiner-text"
# Before it, a map stays an average, made from other scores. After it, it is none: the rows of new head $j$
# sum to the sum of row $j$ of $\Theta$, zero for the last. Such a head tells *differences*.
#
# ## Refiner: a map is a picture
#
# The maps of a block are $T \times T$ pixels with a channel for each head. Refiner convolves them:
#
# $$A' = \text{BN}\left(A + W_{out} * \rho(D * \rho(W_{in} * A))\right)$$
#
# $W_{in}$ expands $K$ heads to $3K$, $D$ is a 3x3 kernel for each of them, $\rho$ cuts at 0 and at 6. One
# article tells of the expansion and of the kernels, and stops there. Try it: two heads, five tokens.

# %% name="refiner"
from vitcourse.papers.refiner import Refine

layer = Refine(heads=2).eval()
maps = torch.rand(1, 2, 5, 5)  # (B, K, T, T)
values = torch.rand(1, 2, 5, 4)  # (B, K, T, d)
wide = layer.local(layer.expand(maps))  # (B, 3K, T, T)
print("expanded, convolved:", tuple(wide.shape))
try:
    wide @ values
except RuntimeError as error:
    print("times values:", error)
print("reduced:", tuple(layer.reduce(wide).shape))


class RefinedMaps(vit.Attention):
    def build(self, dim):
        super().build(dim)
        self.refine = Refine(self.heads)

    def weights(self, q, k, bias):
        return self.refine(super().weights(q, k, bias))


# %% [markdown] name="refiner-answer"
# A reduction to $K$ heads must follow, then a norm, and the old map is added.
#
# `RefinedMaps` is the idea as one seam of attention. The published models also pass maps from block to
# block, and refine in every second one: [its notebook](papers/refiner.ipynb).
#
# ## CaiT, second part: begin near nothing
#
# LayerScale leaves the map alone. A learned vector $\gamma$ multiplies what attention (and likewise the
# MLP) adds to the token:
#
# $$x \leftarrow x + \gamma \odot \text{Attention}(\text{LN}\,x)$$
#
# In the paper, $\gamma$ begins at 0.1 for up to 18 blocks, at $10^{-5}$ for up to 24, at $10^{-6}$ beyond.
# The 24 new blocks again: how far have they moved a patch in the end, as a share of its length?

# %% name="scale"
from vitcourse.papers.cait import LayerScaleViT

for init in (1.0, 0.1, 1e-5):
    model = build_model(recipe, digits, LayerScaleViT.variant(scale_init=init), **deep)
    with torch.no_grad():
        x = start
        for block in model.blocks:
            x = block(x)
    moved = ((x - start).norm(dim=-1) / start.norm(dim=-1))[:, 1:].mean().item()
    print(f"gamma begins at {init:<6g} moved by {moved:.1g} of its length")

# %% [markdown] name="class-text"
# With $\gamma$ near zero, 24 new blocks are none, and each channel of each branch grows as far as it helps.
#
# ## CaiT, third part: the class token comes late
#
# In a ViT each block serves two ends: patches learn about each other, and the class token collects. CaiT
# takes them apart. Patches run through all blocks alone. Then the class token joins, and in the last blocks
# it alone asks and changes. With $u = [c; x]$:
#
# $$c \leftarrow c + \gamma \odot \text{Attention}(q = \text{LN}\,c,\; kv = \text{LN}\,u)$$
#
# One article lets patches attend to each other in the front half of the network. CaiT-S24 has 26 blocks in
# all. Guess:

# %% name="predict-class"
check.predict("blocks of CaiT-S24 in which patches change", ...)
question = "attention weights that a head of a class block computes for 197 tokens"
check.predict(question, ...)

# %% [markdown] name="card-class"
# ### Exercise: one query
#
# 12 minutes · difficulty 2 of 3
#
# A module `OneQuery(dim, heads)` with two layers, `qkv` from dim to 3 dim and `proj` from dim to dim, both
# with bias. Tokens x (B, T, D) come in, the class token is the first. It alone asks, all T tokens answer:
# (B, 1, D) comes out, without a residual. Head 0 takes the first $d$ numbers of q, head 1 the next.
#
# A hint: `check.hint("class_attention")`. The solution: `check.solution("class_attention")`.


# %% name="stub-class" tags=["exercise"]
class OneQuery(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        ...

    def forward(self, x): ...


# %% name="check-class" tags=["check"]
check.class_attention(OneQuery)

# %% name="class-blocks"
from vitcourse.papers.cait import CaiT, ClassAttention

sizes = papers.configs()["cait_s24"].sizes
with torch.device("meta"):  # nothing is allocated
    cait = CaiT(sizes)
kinds = [type(block.attn).__name__ for block in [*cait.blocks, *cait.class_blocks]]
for kind in dict.fromkeys(kinds):
    print(f"{kinds.count(kind):2} blocks with {kind}")

x = torch.randn(2, 7, 12)  # (B, T, D)
plain, late = vit.Attention(12, heads=3), ClassAttention(12, heads=3)
late.load_state_dict(plain.state_dict())
assert torch.allclose(late(x), plain(x)[:, :1], atol=1e-6)
print("ok: one row of attention, 1 x 7 weights in place of 7 x 7")

# %% [markdown] name="local-text"
# The trunk is 24 of 26 blocks, not half of them. [CaiT's notebook](papers/cait.ipynb) has the proof, and all
# three parts in a model of 24 blocks.
#
# ## Thread two: attention and convolution
#
# Now to what a map may see. Side by side, for the pixel $q$ and its window, with $r$ the offset of a key:
#
# $$y_q = \sum_r W_r\, x_{q+r}
# \qquad\qquad
# y_q = \sum_r \text{softmax}_r\left(q_q \cdot (k_{q+r} + \rho_r)\right) W_V\, x_{q+r}$$
#
# Left: a matrix for each place, whatever the pixels hold. Right, **SASA** (stand-alone self-attention): one
# matrix, and a weight that depends on what the pixels hold, $k$, and on the place, $\rho_r$. That is
# attention with a smaller view.

# %% [markdown] name="card-local"
# ### Exercise: a window is a mask
#
# 10 minutes · difficulty 2 of 3
#
# `scores` (B, K, N, N) are those of all queries and keys of a grid (h, w), tokens row by row. Let each query
# see the `side` x `side` places around it, as far as they are in the grid, and return the weights
# (B, K, N, N). `side` is odd. What is not seen gets the weight zero, and rows sum to one.
#
# A hint: `check.hint("local_weights")`. The solution: `check.solution("local_weights")`.


# %% name="stub-local" tags=["exercise"]
def local_weights(scores, grid, side):
    """(B, K, N, N), (h, w), odd number -> weights (B, K, N, N)."""
    ...


# %% name="check-local" tags=["check"]
check.local_weights(local_weights)

# %% [markdown] name="border-text"
# At the border, part of the window is outside. The paper does not say what happens there. Two conventions:
# pixels outside are **masked**, as in the exercise, or they are **zeros** that take part in the softmax, as
# in a padded convolution. How many pixels of a 3 x 5 picture does each one see in a window of 3 x 3, and
# how much of its weight lies on the picture, if all scores are equal? Then guess for a larger one.

# %% name="border"
from vitcourse.papers.sasa import LocalAttention

for border in ("masked", "zero"):
    layer = LocalAttention(2, heads=1, window=3, border=border)
    torch.nn.init.zeros_(layer.qkv.weight)  # all scores are equal
    with torch.no_grad(), probe.record_attention(layer) as maps:
        layer(torch.ones(1, 2, 3, 5))  # (B, D, h, w)
    ones = F.unfold(torch.ones(1, 1, 3, 5), 3, padding=1)[0].T  # (N, n), 1 where inside
    inside = (maps[0][:, 0, 0] * ones).sum(dim=-1).view(3, 5)
    seen = ones.sum(dim=-1).view(3, 5)
    print(border)
    for counts, shares in zip(seen.tolist(), inside.tolist(), strict=True):
        cells = zip(counts, shares, strict=True)
        print("   ", "  ".join(f"{n:.0f} pixels: {share:.2f}" for n, share in cells))
question = "pixels that the corner of an 8 x 8 picture sees in a window of 7 x 7"
check.predict(question, ...)

# %% name="window-is-mask"
torch.manual_seed(0)
local = LocalAttention(12, heads=3, window=3, border="masked")
for table in (local.position_rows, local.position_columns):
    torch.nn.init.zeros_(table)  # content only
x = torch.randn(2, 12, 4, 6)  # (B, D, h, w)
qkv = local.qkv(x).flatten(2).unflatten(1, (3, 3, 4)).mT  # (B, 3, K, N, d)
q, k, v = qkv.unbind(1)  # each (B, K, N, d)
places = torch.cartesian_prod(torch.arange(4), torch.arange(6))  # (N, 2)
far = (places[:, None] - places).abs().amax(dim=-1) > 1  # (N, N)
weights = (q @ k.mT).masked_fill(far, float("-inf")).softmax(dim=-1)
merged = (weights @ v).mT.flatten(1, 2).unflatten(2, (4, 6))  # (B, D, h, w)
assert torch.allclose(local(x), merged, atol=1e-5)
print("ok: SASA with a masked border is attention over all pixels, under a mask")

# %% [markdown] name="convolution-text"
# So one layer is the other with most weights forbidden; the window saves the work. [SASA's
# notebook](papers/sasa.ipynb) has the offsets $\rho$, and trains it against convolution.
#
# ## Heads that form a grid
#
# Can attention *be* a convolution? Let a score know places alone. For the offset $r$ from query to key, and
# a place $c$ that the head prefers:
#
# $$s_{qk} = v \cdot (|r|^2, r_1, r_2), \quad v = -\alpha\,(1, -2c_1, -2c_2)
# \quad\Rightarrow\quad s_{qk} = -\alpha\,|r - c|^2 + \text{const}$$
#
# The larger $\alpha$, the more of the weight is on the one key at $q + c$.

# %% [markdown] name="card-place"
# ### Exercise: look at a place
#
# 10 minutes · difficulty 3 of 3
#
# The maps of K such heads on a grid (h, w): the softmax over the keys of $-\alpha |r - c|^2$, where $r$ is
# key minus query, in rows down and columns to the right. `centre` (K, 2) holds the places $c$, `alpha` (K,)
# the sharpness. The result is (K, N, N), rows are queries.
#
# A hint: `check.hint("place_weights")`. The solution: `check.solution("place_weights")`.


# %% name="stub-place" tags=["exercise"]
def place_weights(grid, centre, alpha):
    """(h, w), (K, 2), (K,) -> weights (K, N, N)."""
    ...


# %% name="check-place" tags=["check"]
check.place_weights(place_weights)

# %% [markdown] name="grow-text"
# Back to the row and its kernel. Three heads, at the places -1, 0, 1; `proj` holds the kernel -1, 3, -1. Let
# $\alpha$ grow, and move the bright pixel to the border, too.

# %% name="grow"
from vitcourse.papers.attention_as_convolution import QuadraticAttention


def report(name, y):
    print(f"{name:24}", [round(v, 1) + 0.0 for v in y.flatten().tolist()])


torch.set_grad_enabled(False)  # nothing is trained from here on
for bright in (2, 0):
    x = 4 * F.one_hot(torch.tensor([[bright]]), 6).float()  # (B, C, w)
    for padding in ("zeros", "replicate"):
        conv = nn.Conv2d(1, 1, (1, 3), padding=(0, 1), padding_mode=padding, bias=False)
        conv.weight.copy_(kernel.view(1, 1, 1, 3))
        report(f"convolution, {padding}", conv(x[:, None]))
    for alpha in (0.5, 2.0, 8.0):
        layer = QuadraticAttention.like(conv, alpha)
        report(f"heads, alpha {alpha:g}", layer(x.mT, grid=(1, 6)))  # (B, N, 1)

# %% [markdown] name="grow-answer"
# That is the theorem of Cordonnier et al. on its smallest example: heads at the places of a kernel are that
# kernel, as $\alpha$ grows. And the border: a head whose place lies outside takes the nearest pixel there
# is. So the convolution repeats its border; one that pads with zeros is equal only inside.
#
# In two dimensions, a 3x3 kernel takes nine heads. Here they are, above for a query in the middle of 5 x 5
# pixels, below for one in the corner. Which heads peak at the same pixel in the corner?

# %% name="grid-figure"
conv = nn.Conv2d(3, 5, 3, padding=1, padding_mode="replicate")
layer = QuadraticAttention.like(conv, alpha=1.5)
maps = layer.bias((5, 5)).softmax(dim=-1)[0]  # (K, N, N)
middle, corner = maps[:, 12].view(9, 5, 5), maps[:, 0].view(9, 5, 5)
alt = (
    "Two rows of nine maps. Above, each head has its peak at another place of the 3x3 "
    "window in the middle. Below, for the corner, four heads peak at the corner pixel, "
    "two at the pixel to its right, two at the one below, one at the one diagonal."
)
show.figure(show.heatmaps([*middle, *corner], columns=9, size=0.9), alt)

# %% [markdown] name="trained-text"
# ## Do trained networks do that?
#
# That they *can* does not say that they *do*. One article takes the paper's figures as proof that attention,
# put to images, learns the patterns of convolution. The record of [its
# notebook](papers/attention_as_convolution.ipynb) tried: nine heads, four blocks, a token a pixel, digits.
# "quadratic" knows places alone, "learned" has content and a number for each offset.

# %% name="trained-record"
record = show.recorded("claim-attention_as_convolution")
figures = record["figures"]
print(show.origin(record))
names = ("digits, places of a new first block", "digits, places of the first block")
new, after = (figures[name]["mean"] for name in names)
print(f"of 3x3 places, block 1 covers {new:.1f} when new, {after:.1f} after training")
for name in ("quadratic", "learned"):
    far = [figures[f"{name}, distance, block {i}"]["mean"] for i in range(1, 5)]
    print(f"{name:9} distance by block:", *(f"{d:.1f}" for d in far), "pixels")

# %% [markdown] name="share-text"
# No grid in our short run. That deep blocks look further than early ones is there for places alone; with
# content, hardly.
#
# There is another way to ask how much of a convolution is in a network. A convolution's map is the same
# for every image. So split a head's maps, less the even map of $1/N$, into their mean over images and the
# rest. The **share of places** is the part of the mean: one for a convolution, near zero for a head that
# looks at content wherever it lies. First where the answer is known, then for the trained ViT of lesson
# 11, which names forms at any place.


# %% name="share"
def share_of_places(maps):  # (B, K, N, N) -> (K,)
    rest = maps / maps.sum(dim=-1, keepdim=True) - 1 / maps.shape[-1]
    same = rest.mean(dim=0).square().sum(dim=(1, 2))
    return same / rest.square().sum(dim=(2, 3)).mean(dim=0)


torch.manual_seed(0)
fixed = middle.flatten(1)[:, None].expand(300, 9, 25, 25)
print(f"places alone   {share_of_places(fixed).min():.2f}")
by_chance = torch.randn(300, 3, 25, 25).softmax(dim=-1)
print(f"by chance      {share_of_places(by_chance).max():.2f}")
shapes, trained = data.load("shapes"), data.trained("shapes")
with probe.record_attention(trained) as maps:
    trained(shapes.normalise(shapes.test_images[:300]))
for number, weights in enumerate(maps, start=1):
    shares = share_of_places(weights[:, :, 1:, 1:])  # patches alone
    print(f"block {number}, 3 heads", *(f"{share:.2f}" for share in shares.tolist()))

# %% [markdown] name="share-answer"
# A few percent, early and deep alike: this ViT looks at what is in the picture, wherever it lies. It has not
# become a convolution, nor does it begin as one in its first block.
#
# That does not refute the authors. Their networks have relative positions in the scores and natural images;
# ours has absolute positions, four blocks, and forms at random places. It refutes the short sentence
# "attention learns convolution". Some do, some do not: measure it.

# %% [markdown] name="compare-text"
# ## Side by side
#
# One task, one budget: digits, 16 patches, 154 steps, three seeds, about 117,000 parameters. The control is
# a plain ViT, deep and narrow: 16 blocks of width 24. Each other model changes one thing.
#
# More controls:
#
# - Re-attention is a mixture and a norm: so, **its norm alone**.
# - Mixtures begin as random numbers: so, both also with a **silent start**, each head as it is.
# - Is depth worth it? So, a plain ViT of **four wide blocks**.
#
# Which comes first, which last? Guess before you look. Behind the accuracies follow the tokens, block by
# block: a cosine of one says that all patches of an image point the same way.

# %% name="compare"
record = show.recorded("claim-better_attention")
figures = record["figures"]
names = [name.removesuffix(", accuracy") for name in figures if "accuracy" in name]
names.sort(key=lambda name: figures[f"{name}, accuracy"]["mean"])
means = {name: figures[f"{name}, accuracy"]["mean"] for name in names}
spread = {name: figures[f"{name}, accuracy"]["spread"] for name in names}
print(show.origin(record))
print(f"{'':30}{'accuracy':>14}   patches unlike   maps unlike")
for name in names:
    unlike = [figures[f"{name}, {what} unlike"]["mean"] for what in ("patches", "maps")]
    print(f"{name:30}{means[name]:.2f} +- {spread[name]:.2f}", end="")
    print("".join(f"{value:>15.2f}" for value in unlike))
alt = (
    "Accuracy of ten models, three seeds. Talking heads are lowest, then those with a "
    "silent start, with a large spread, the plain ViT, class attention, re-attention, "
    "that with a silent start, its norm alone, LayerScale; four wide blocks and "
    "refined maps are near 0.9."
)
show.figure(show.bars(means, "accuracy", spread, mark=0.1, limit=1), alt)

# %% name="depth-figure"
after = (1, 4, 8, 12, 16)
lines = {}
for name in ("plain", "refined maps", "class attention", "LayerScale", "re-attention"):
    keys = [f"{name}, patches unlike, block {block}" for block in after[:-1]]
    unlike = [figures[key]["mean"] for key in [*keys, f"{name}, patches unlike"]]
    lines[name] = after, [1 - value for value in unlike]
alt = (
    "Mean cosine of two patches after blocks 1 to 16. The plain ViT rises from zero to "
    "0.6, refined maps to 0.2, class attention to 0.1; LayerScale and re-attention "
    "stay near zero."
)
show.figure(show.lines(lines, "block", "mean cosine of two patches"), alt)

# %% name="pairs"
print(show.pairs(record))
print("computed afterwards, not expected before:")
for one, other in (
    ("refined maps", "four wide blocks"),
    ("LayerScale", "four wide blocks"),
    ("refined maps", "its norm alone"),
    ("its norm alone", "plain"),
):
    both = [figures[f"{name}, accuracy"]["each"] for name in (one, other)]
    apart = (f"{a - b:+.3f}" for a, b in zip(*both, strict=True))
    print(f"    {one}, minus {other}:", *apart)

# %% [markdown] name="compare-answer"
# - **Remedies help.** The plain, deep ViT's patches become alike. LayerScale, re-attention and refined maps
#   each bring accuracy, and keep patches or maps apart, with every seed.
# - **Depth does not pay here.** Four wide blocks, no remedy, are ahead of LayerScale with every seed. Against
#   refined maps: undecided.
# - **The norm is enough.** Re-attention loses to its norm alone, which beats the plain ViT, each with every
#   seed. A silent start brings 2 to 16 points; against the norm alone that is undecided. So what
#   a mixture adds to its norm is not shown.
# - **Talking heads** lose with every seed. A silent start helps two seeds of three, and stays behind the
#   plain ViT in two.
# - **Class attention:** undecided; its seeds differ by 39 points.

# %% [markdown] name="fair"
# ### What this cannot show
#
# - 154 steps are a race. In the end the order may be another.
# - *Alike* is not *bad*: re-attention keeps patches further apart than the wide ViT, and is less accurate.
# - In the authors' model, every block refined, refining [loses](papers/refiner.ipynb) with every seed. Their
#   pairs of blocks were not tried.
# - Four wide blocks are shallow *and* wide.
# - Three heads are few to mix. Refining computes three times as many maps.
#
# So three remedies help a deep, narrow ViT to learn. That deep beats shallow is not shown.
#
# ## The papers in a table
#
# Computed from the code, beside what the authors report. (Their program builds a larger DeepViT-L.) Below:
# what each change adds to a ViT of 16 blocks, 12 heads.

# %% name="table"
from vitcourse.papers.cait import TalkingHeads

for paper in papers.papers().values():
    if paper.lesson == "15":
        print(f"{paper.name}, {paper.authors} {paper.year}: {compare.changes(paper)}")
        for name, config in paper.configs.items():
            count = compare.parameters(name)
            print(f"    {name:16}{count:>12,}   reported {config.reported}")

changes = {"plain": ViT, "re-attention": DeepViT, "LayerScale": LayerScaleViT}
changes["talking heads"] = ViT.variant(Attention=TalkingHeads)
changes["refined maps"] = ViT.variant(Attention=RefinedMaps)
base = []
for name, cls in changes.items():
    with torch.device("meta"):  # nothing is allocated
        model = cls(papers.configs()["deepvit_16"].sizes)
    count = sum(p.numel() for p in model.parameters())
    base.append(count)
    fused = cls.Attention.weights is vit.Attention.weights
    kernel = "fused kernel" if fused else "builds its maps"
    print(f"{name:14}{count - base[0]:>+8,}   {kernel}")

# %% [markdown] name="authors"
# Parameters are next to nothing. The price is the map: whoever touches `weights` gives up the fused kernel,
# and stores $K \times T \times T$ numbers a block, for every image.
#
# What the authors report for ImageNet, in percent:
#
# | | |
# |---|---|
# | ViT of 16 blocks, first recipe of DeepViT's authors | 78.9 |
# | DeepViT-16, -32 | 82.3, 83.1 |
# | CaiT-S24 at 224, M48 at 448 | 83.5, 86.5 |
# | Refiner-ViT S, M, L | 83.6, 84.6, 84.9 |
# | ResNet-50 with convolutions | 76.9 |
# | the same with SASA, 29 % fewer parameters | 77.4 to 77.6 |
#
# Recipes differ: teachers in CaiT, token labels in Refiner. So the table is no comparison.

# %% [markdown] name="remember"
# ## Remember
#
# - One map averages: no weight below zero, rows that sum to one. Two heads, or a map mixed after the softmax,
#   can subtract.
# - Attention alone makes tokens alike in two layers. The residual path holds against it, LayerScale leans on
#   that.
# - Class attention is one row of attention: one query, all keys.
# - Local attention is attention under a mask. Say what happens at the border.
# - Heads that know places alone can be any convolution, border repeated. That they can does not say that they
#   do.
# - Compare a deep model with a shallow, wide one of the same size, and a mixture with its norm alone.
#
# Before: [14 better tokens](14-better-tokens.ipynb). Next:
# [16 many scales](16-many-scales.ipynb).
#
# [Glossary](../docs/glossary.md).
