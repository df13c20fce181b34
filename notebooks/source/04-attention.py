# %% [markdown] name="title"
# # 04 · Attention
#
# After lesson 03 every token knows its place, and nothing of the others. Attention is the one part of
# a ViT in which tokens take something from each other.
#
# **A question first.** On a map of 14 x 14 places, a 3 x 3 convolution shows each place its eight
# neighbours. How many of them, one behind the other, until the value in one corner depends on the
# opposite corner? How many layers of attention? Write down two numbers. Section 7 counts.
#
# On the way you write attention three times: as a function of queries, keys and values, as a layer,
# and as a layer with several heads, which is the one of the ViT.

# %% name="setup"
import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import check, show

# %% [markdown] name="similar-text"
# ## 1 · How alike are two tokens?
#
# Three patches, with two numbers each: how blue, and how green, compared with the average patch. The
# sky is blue, the grass is green, the lake is some of both.
#
# The dot product multiplies number by number and adds up. Before you run it: which pair gets a
# negative number, and which pair gets zero?

# %% name="similar"
names = ["sky", "lake", "grass"]
tokens = torch.tensor([[2.0, 0.0], [1.0, 1.0], [-1.0, 1.0]])  # (T, D): blue, green
for i in range(3):
    row = [(tokens[i] * tokens[j]).sum().item() for j in range(3)]
    print(f"{names[i]:>5} with sky, lake, grass: {row}")

# %% [markdown] name="softmax-text"
# ## 2 · From scores to shares
#
# Each row of these **scores** belongs to one token that asks, the **query**. The columns are the
# tokens that are asked, the **keys**. Each query is to take something from every key, more from those
# that fit. For that, scores must become **weights**: positive numbers, shares of a whole.
#
# Softmax makes shares of any numbers. It takes exp of each, so that all are positive, and divides by
# their sum:
#
# $$w_j = \frac{e^{s_j}}{\sum_i e^{s_i}}$$
#
# Here it is for the first row. Guess before you run it, in place of the dots.

# %% name="softmax"
row = tokens @ tokens[0]  # (T,), the scores of the sky
grown = row.exp()
shares = grown / grown.sum()
for j in range(3):
    print(f"{row[j]:4.0f} -> {grown[j]:7.3f} -> {shares[j]:.3f} of {names[j]}")
check.predict("sum of one row of attention weights", ...)

# %% [markdown] name="weights-card"
# ### Exercise: turn scores into weights
#
# 5 minutes · difficulty 1 of 3
#
# You have the scores of a batch of images, `scores` (B, T, T): image, query, key. Give back weights of
# the same shape. Each query shares out its attention by softmax. Which axis is that?
#
# A hint: `check.hint("weights")`. The solution: `check.solution("weights")`.


# %% name="weights" tags=["exercise"]
def weights(scores):
    """Scores (B, T, T), a row for each query -> weights (B, T, T)."""
    ...


# %% name="weights-check" tags=["check"]
check.weights(weights)

# %% [markdown] name="axis-text"
# The wrong axis gives a map of the same shape, and nothing complains. So look at both. On the left,
# softmax goes over the keys, and each row sums to one. On the right it goes over the queries, and each
# column does. Rows and columns stand in the order sky, lake, grass.
#
# What a token becomes is a sum: each token times its weight. If a row sums to more than one, the token
# grows, and how much depends on what else is in the picture.

# %% name="axis"
similarity = tokens @ tokens.T  # (T, T)
pair = [similarity.softmax(dim=1), similarity.softmax(dim=0)]
titles = ["over the keys: right", "over the queries: wrong"]
for i in range(2):
    rows = [f"{total:.2f}" for total in pair[i].sum(dim=1)]
    print(f"softmax {titles[i]}, rows sum to {', '.join(rows)}")
    becomes = [round(number, 2) for number in (pair[i] @ tokens)[0].tolist()]
    print(f"    the sky {tokens[0].tolist()} becomes {becomes}")
alt = (
    "Two maps of 3 x 3 weights. In the left one each row sums to one, in the right "
    "one each column: the two are mirror images."
)
show.figure(show.heatmaps(pair, titles, size=2.4, numbers=True), alt)

# %% [markdown] name="scale-text"
# ## 3 · Why there is a root
#
# A dot product of two tokens of width d adds up d products. Wide tokens have large scores, and large
# scores change what softmax does. Below, the scores 2, 1, 0 grow by a factor. Predict: what are the
# weights when the scores are 32, 16, 0? And how much does the first weight then change, if you change
# a score a little? That is its gradient, and without one nothing is learned.

# %% name="saturation"
for factor in (1, 4, 16):
    s = factor * torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    w = s.requires_grad_().softmax(dim=0)
    w[0].backward()
    row = ", ".join(f"{part:.4f}" for part in w)
    print(f"factor {factor:2}: weights {row}; gradient {s.grad[0]:.4f}")

# %% [markdown] name="measured-text"
# Softmax has become a maximum: one key gets all, and no gradient comes back. It is **saturated**.
#
# Does that happen at the widths that heads have? Take random queries and keys, each number with
# variance 1, and 17 keys. Measure for four widths: how much the scores vary, the largest of the 17
# weights (the mean over 400 queries), and the gradient that reaches the scores (the median).


# %% name="measured"
def measure(d, divisor):  # -> variance, largest weight, gradient
    queries, keys = torch.randn(400, d), torch.randn(17, d)
    s = (queries @ keys.T / divisor).requires_grad_()  # (400, 17)
    w = s.softmax(dim=1)
    (w * torch.randn(400, 17)).sum().backward()
    gradient = s.grad.norm(dim=1).median()
    return s.var().item(), w.max(dim=1).values.mean().item(), gradient.item()


torch.manual_seed(0)
widths = (4, 16, 64, 256)
bare = [measure(d, divisor=1) for d in widths]
rooted = [measure(d, divisor=d**0.5) for d in widths]
for name, rows in (("bare", bare), ("divided by the root of d", rooted)):
    print(f"{name}:")
    for d, (variance, most, gradient) in zip(widths, rows, strict=True):
        print(f"  d {d:3}: variance {variance:5.1f}", end=", ")
        print(f"largest weight {most:.2f}, gradient {gradient:.3f}")

# %% name="measured-figure"
series = {
    "bare": (widths, [most for _, most, _ in bare]),
    "divided by the root of d": (widths, [most for _, most, _ in rooted]),
}
alt = (
    "The largest of 17 weights against the width d. Bare scores: it rises from 0.4 at "
    "4 to above 0.9 at 256. Divided by the root of d it stays between 0.2 and 0.3."
)
show.figure(show.lines(series, "width d", "largest of 17 weights", log="x"), alt)

# %% [markdown] name="scale-why"
# The variance of a bare score is about d: d independent products are added, each with mean 0 and
# variance 1.
#
# $$\operatorname{Var}\Big(\sum_{i=1}^{d} q_i k_i\Big) = d
# \qquad\Rightarrow\qquad \operatorname{Var}\Big(\frac{q \cdot k}{\sqrt d}\Big) = 1$$
#
# Divided by $\sqrt d$, the scores vary as much in wide tokens as in narrow ones: the largest weight
# and the gradient hardly change. Bare scores have lost most of their gradient at d = 64, which is the
# width of a head in ViT-B.

# %% [markdown] name="scores-card"
# ### Exercise: the scores
#
# 8 minutes · difficulty 1 of 3
#
# Compute the scores of a batch: queries `q` (B, T, d) and keys `k` (B, T, d) give (B, T, T). Row i
# holds the dot products of query i with every key, divided by $\sqrt d$. Use no loops. Your function
# meets several widths, so read d from a shape.
#
# A hint: `check.hint("scores")`. The solution: `check.solution("scores")`.


# %% name="scores" tags=["exercise"]
def scores(q, k):
    """Queries (B, T, d), keys (B, T, d) -> scores (B, T, T), a row for each query."""
    ...


# %% name="scores-check" tags=["check"]
check.scores(scores)

# %% [markdown] name="attention-text"
# ## 4 · Attention, four times
#
# So far one token played every part. Now each token has three vectors of width d:
#
# - its **query** q: what it looks for,
# - its **key** k: by which it is found,
# - its **value** v: what it gives.
#
# v1 says it in loops, for one image. For each query: score every key, turn the scores into weights,
# add up the values by weight.


# %% name="v1"
def attention_v1(q, k, v):  # three of (T, d) -> (T, d)
    T, d = q.shape
    out = torch.zeros(T, d)
    for i in range(T):  # each query
        grown = [((q[i] * k[j]).sum() / d**0.5).exp() for j in range(T)]
        for j in range(T):  # each key
            weight = grown[j] / sum(grown)
            out[i] += weight * v[j]
    return out


torch.manual_seed(1)
q, k, v = torch.randn(3, 5, 2)  # three of (T, d): 5 tokens, 2 numbers each
for token in attention_v1(q, k, v)[:2]:
    print([round(number, 4) for number in token.tolist()])

# %% [markdown] name="attention-card"
# ### Exercise: attention without loops
#
# 10 minutes · difficulty 2 of 3
#
# Queries, keys and values of a batch, each (B, T, d), give (B, T, d): for every token its mixture of
# the values. Use no loops. You have written two of the three steps already.
#
# A hint: `check.hint("attention")`. The solution: `check.solution("attention")`.


# %% name="attention" tags=["exercise"]
def attention(q, k, v):
    """Queries, keys, values, each (B, T, d) -> (B, T, d)."""
    ...


# %% name="attention-check" tags=["check"]
check.attention(attention)

# %% [markdown] name="equation"
# Vaswani et al. (2017) write all of it in one line. Q, K and V hold the vectors of all tokens, one in
# each row:
#
# $$\operatorname{Attention}(Q, K, V) =
# \operatorname{softmax}\!\left(\frac{Q K^\top}{\sqrt d}\right) V$$
#
# v2 is that line: the two loops become two matrix products. v3 names the axes, and einsum finds out
# what to transpose: `i` counts queries, `j` keys. v4 is one call of PyTorch. It need not store the map
# of weights, so it gives you none to look at.


# %% name="v2"
def attention_v2(q, k, v):  # three of (..., T, d) -> (..., T, d)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (..., T, T)  # new
    return scores.softmax(dim=-1) @ v  # (..., T, d)  # new


# %% name="v3"
def attention_v3(q, k, v):
    scores = torch.einsum("...id,...jd->...ij", q, k) / q.shape[-1] ** 0.5  # new
    return torch.einsum("...ij,...jd->...id", scores.softmax(dim=-1), v)  # new


# %% name="v4"
def attention_v4(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)  # new


first = attention_v1(q, k, v)
for version in (attention_v2, attention_v3, attention_v4):
    assert torch.allclose(version(q, k, v), first, atol=1e-6)
    print(f"ok: {version.__name__} equals the loops")
assert not torch.allclose(attention_v4(q * 2**0.5, k, v), first, atol=1e-2)
print("ok: without the root of d the result is another one")

# %% [markdown] name="projections-text"
# ## 5 · Where q, k and v come from
#
# In section 1 a token was its own query, key and value. Such scores are symmetric: the grass fits the
# lake exactly as well as the lake fits the grass. So let each token make three vectors, by three linear
# maps that are learned. A beak may look for an eye while the eye looks for something else.
#
# Three Linear layers of D to D are one Linear of D to 3D: stack their weights. Because all three come
# from the same x, this is called **self**-attention.

# %% name="projections"
torch.manual_seed(2)
D = 6
to_q, to_k, to_v = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
qkv = nn.Linear(D, 3 * D)
with torch.no_grad():
    qkv.weight.copy_(torch.cat([to_q.weight, to_k.weight, to_v.weight]))  # (3D, D)
    qkv.bias.copy_(torch.cat([to_q.bias, to_k.bias, to_v.bias]))  # (3D,)
x = torch.randn(2, 5, D)  # (B, T, D)
three = torch.cat([to_q(x), to_k(x), to_v(x)], dim=-1)  # (B, T, 3D)
assert torch.allclose(qkv(x), three, atol=1e-6)
print("ok: one Linear of D to 3D is the three of D to D:", tuple(qkv(x).shape))
for name, one, other in (("x with x", x, x), ("q with k", to_q(x), to_k(x))):
    products = one @ other.transpose(1, 2)  # (B, T, T)
    same = torch.allclose(products, products.transpose(1, 2), atol=1e-5)
    print(f"{name}: symmetric {same}")

# %% [markdown] name="self-attention-card"
# ### Exercise: self-attention
#
# 12 minutes · difficulty 2 of 3
#
# Write a module `SelfAttention(dim)`. Its Linear `qkv` makes `dim` numbers into `3 * dim`: first the
# query, then the key, then the value. Then comes attention, with one head as wide as the token. At the
# end stands a Linear `proj` of `dim` to `dim`. Input and output are (B, T, D).
#
# A hint: `check.hint("self_attention")`. The solution: `check.solution("self_attention")`.


# %% name="self-attention" tags=["exercise"]
class SelfAttention(nn.Module):
    """Self-attention with one head: x (B, T, D) -> (B, T, D)."""

    def __init__(self, dim):
        super().__init__()
        ...

    def forward(self, x): ...


# %% name="self-attention-check" tags=["check"]
check.self_attention(SelfAttention)

# %% [markdown] name="why-heads-text"
# ## 6 · Several heads
#
# A token between two neighbours: dark on the left and bright on the right is one edge, the other way
# round is its mirror image. The token has one row of weights, and it wants to look at both neighbours.
#
# Predict: one head takes half of each. Can it tell the two edges apart? Can two heads, one for each
# neighbour?

# %% name="why-heads"
edge, mirrored = torch.tensor([0.0, 8.0]), torch.tensor([8.0, 0.0])  # left, right
one_head = torch.tensor([[0.5, 0.5]])  # (K, T)
two_heads = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # (K, T)
for name, values in (("edge", edge), ("mirrored", mirrored)):
    one, two = (one_head @ values).tolist(), (two_heads @ values).tolist()
    print(f"{name:>8} {values.tolist()}: one head gets {one}, two heads get {two}")

# %% [markdown] name="heads-text"
# Attention takes an average, and an average forgets what came from where. (Shares of 0.3 and 0.7 tell
# these two apart, but then other pairs give the same sum.) So several heads look, each with queries,
# keys and values of its own, and their results stand side by side:
#
# $$\operatorname{head}_i = \operatorname{Attention}(Q_i, K_i, V_i) \qquad
# \operatorname{MSA}(x) = [\operatorname{head}_1; \ldots; \operatorname{head}_K]\, W_O$$
#
# $W_O$ is the Linear `proj`. Only there do the heads meet. K was the matrix of keys; without an index it
# is now the number of heads. They share the width D, so that together they are as wide as one.

# %% [markdown] name="head-width-card"
# ### Exercise: the width of a head
#
# 2 minutes · difficulty 1 of 3
#
# ViT-B has tokens of width 768 and 12 heads. How wide is a query of one head?
#
# A hint: `check.hint("head_width")`. The solution: `check.solution("head_width")`.

# %% name="head-width" tags=["exercise"]
head_width = ...

# %% name="head-width-check" tags=["check"]
check.head_width(head_width)

# %% [markdown] name="published-text"
# Two statements from published articles on ViT-B/16. Find the error in each, before you run the cell.
#
# 1. The tokens, 197 x 768, are split into three equal parts, so that Q, K and V are 197 x 64 each.
# 2. A comment beside code: `qkv(x)` has the shape (B, N, 3 * heads, C / heads). C is our D, N our T.
#
# And a guess: does attention with 12 heads have more numbers to learn than with one?

# %% name="published"
from vitcourse.vit import Attention

big = torch.rand(1, 197, 768)  # (B, T, D)
stacked = Attention(768, heads=12).qkv(big)
print(f"qkv(x): {tuple(stacked.shape)}, not {(1, 197, 3 * 12, 768 // 12)}")
Q, K, V = stacked.chunk(3, dim=-1)
print(f"Q, K, V: {tuple(Q.shape)} each; of one head: {tuple(Q[..., :64].shape)}")
for heads in (1, 3, 12):
    count = sum(p.numel() for p in Attention(768, heads).parameters())
    print(f"heads: {heads:2}, numbers to learn: {count:,}")
check.predict("heads of ViT-B, if each is 64 wide", ...)

# %% [markdown] name="cut-text"
# The tokens are not split: three maps each make 768 new numbers of all 768. It is the 12 heads that
# share those, 64 each. The Linear knows nothing of heads; the reshape behind it does.
#
# That reshape has a classic bug. Below, the number 23 is token 2, place 3. With two heads, head 0
# must get places 0, 1, 2 of every token: (T, D) becomes (K, T, d).
#
# `view` puts the numbers into another shape **in the order in which they lie in memory**. It can cut an
# axis in two, and it can never exchange two axes. Before you run it: which tokens will head 0 see in the
# wrong version?

# %% name="cut"
table = torch.tensor([[10 * t + i for i in range(6)] for t in range(4)])  # (T, D)
by_hand = torch.stack([table[:, :3], table[:, 3:]])  # (K, T, d)
wrong = table.view(2, 4, 3)  # (K, T, d), says the shape
cut = table.view(4, 2, 3)  # (T, K, d): only the last axis is cut
print(f"right shape {tuple(by_hand.shape)}, wrong shape {tuple(wrong.shape)}")
print("head 0, cut by hand:   ", by_hand[0].tolist())
print("head 0, view(2, 4, 3): ", wrong[0].tolist())
print("token 2, view(4, 2, 3):", cut[2].tolist())

# %% [markdown] name="split-heads-card"
# ### Exercise: cut into heads
#
# 8 minutes · difficulty 2 of 3
#
# Cut tokens `x` (B, T, D) into `heads` heads: (B, K, T, d). Head 0 gets the first d numbers of every
# token, head 1 the next d. First cut the width, then exchange two axes. In this order, and in two
# steps: that is why code says `view`, then `transpose`.
#
# A hint: `check.hint("split_heads")`. The solution: `check.solution("split_heads")`.


# %% name="split-heads" tags=["exercise"]
def split_heads(x, heads):
    """Tokens (B, T, D) -> heads (B, K, T, d)."""
    ...


# %% name="split-heads-check" tags=["check"]
check.split_heads(split_heads)

# %% [markdown] name="merge-heads-card"
# ### Exercise: put the heads together
#
# 6 minutes · difficulty 2 of 3
#
# Undo it: heads `x` (B, K, T, d) become tokens (B, T, D), the d numbers of head 0 first. Go back the way
# you came, last step first. After an exchange of axes `view` may refuse, because the numbers no longer
# lie in this order in memory: `reshape` and `flatten` copy them where they must.
#
# A hint: `check.hint("merge_heads")`. The solution: `check.solution("merge_heads")`.


# %% name="merge-heads" tags=["exercise"]
def merge_heads(x):
    """Heads (B, K, T, d) -> tokens (B, T, D)."""
    ...


# %% name="merge-heads-check" tags=["check"]
check.merge_heads(merge_heads)

# %% [markdown] name="multi-head-card"
# ### Exercise: multi-head attention
#
# 20 minutes · difficulty 3 of 3
#
# Write a module `MultiHead(dim, heads)` with two layers: Linear `qkv` of `dim` to `3 * dim`, and Linear
# `proj` of `dim` to `dim`. The output of `qkv` holds the whole query, then the whole key, then the whole
# value. Cut each into heads, let every head attend, put the heads together, and end with `proj`. Input
# and output are (B, T, D). Which width stands under the root now?
#
# A hint: `check.hint("multi_head")`. The solution: `check.solution("multi_head")`.


# %% name="multi-head" tags=["exercise"]
class MultiHead(nn.Module):
    """Self-attention with several heads: x (B, T, D) -> (B, T, D)."""

    def __init__(self, dim, heads):
        super().__init__()
        ...

    def forward(self, x): ...


# %% name="multi-head-check" tags=["check"]
check.multi_head(MultiHead)

# %% [markdown] name="v5-text"
# v5 adds the heads to v4. Two lines of einops cut and merge: the pattern names the axes, so that you can
# read their order. To `attention_v4` heads are one more axis of the batch, and it needs no change.
#
# `Attention` in `vitcourse/vit.py` does the same. The proof gives both the same layers. Beside it runs
# v5 with the wrong cut of above. Its shape is right, so a test of shapes alone lets it pass.

# %% name="v5"
from einops import rearrange


def attention_v5(x, qkv, proj, heads):
    cut, merge = "B T (K d) -> B K T d", "B K T d -> B T (K d)"  # new
    parts = qkv(x).chunk(3, dim=-1)  # each (B, T, D)
    q, k, v = (rearrange(part, cut, K=heads) for part in parts)  # new
    x = attention_v4(q, k, v)  # (B, K, T, d)
    return proj(rearrange(x, merge))  # (B, T, D)  # new


def attention_wrong(x, qkv, proj, heads):
    B, T, D = x.shape
    q, k, v = (p.reshape(B, heads, T, -1) for p in qkv(x).chunk(3, dim=-1))
    return proj(rearrange(attention_v4(q, k, v), "B K T d -> B T (K d)"))


# %% name="proof"
torch.manual_seed(3)
layer = Attention(12, heads=3)
x = torch.randn(2, 5, 12)  # (B, T, D)
ours = attention_v5(x, layer.qkv, layer.proj, heads=3)
wrong = attention_wrong(x, layer.qkv, layer.proj, heads=3)
assert torch.allclose(ours, layer(x), atol=1e-6)
print("ok: attention_v5 equals vitcourse.vit.Attention")
assert wrong.shape == ours.shape and not torch.allclose(wrong, ours, atol=1e-2)
print("ok: the wrong cut has the same shape, and other values")

# %% [markdown] name="reach-text"
# ## 7 · How far one layer reaches
#
# Now to the question at the start. Take one place of the output and ask by the gradient: which places of
# the input does it depend on? One, two and three convolutions, and one layer of attention, all with
# random weights. Each map is divided by its largest value; drawn is the root, so that small values show.


# %% name="reach"
class AttentionOnMap(Attention):
    def forward(self, image):  # (B, D, h, w) -> (B, D, h, w)
        tokens = image.flatten(2).transpose(1, 2)  # (B, N, D)
        return super().forward(tokens).transpose(1, 2).unflatten(2, image.shape[-2:])


def influence(layer, row, column):  # of each input place on one output place
    image = torch.randn(1, 8, 14, 14, dtype=torch.float64, requires_grad=True)
    layer.double()(image)[0, :, row, column].sum().backward()
    return image.grad[0].abs().sum(dim=0)  # (h, w)


def convolutions(count):
    return nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(count)))


# %% name="reach-figure"
torch.manual_seed(4)
layers = {f"convolutions, {n} in a row": convolutions(n) for n in (1, 2, 3)}
layers["attention, 1 layer"] = AttentionOnMap(8, heads=2)
reached = [influence(one, row=4, column=5) for one in layers.values()]
for name, heat in zip(layers, reached, strict=True):
    print(f"{name}: {(heat > 0).sum():3} of {heat.numel()} places reach the output")
heats = [(heat / heat.max()).sqrt() for heat in reached]
alt = (
    "Four maps of 14 x 14 places. One, two and three convolutions reach squares of 3, "
    "5 and 7 places around row 4, column 5. Attention reaches all places: its own "
    "most, the others unevenly, far ones as much as near ones."
)
show.figure(show.heatmaps(heats, list(layers), size=2), alt)

# %% name="corner"
depth, corner = 0, 0.0
while corner == 0:
    depth += 1
    corner = influence(convolutions(depth), row=0, column=0)[13, 13]
print(f"from corner to corner: {depth} convolutions")
assert influence(AttentionOnMap(8, heads=2), row=0, column=0)[13, 13] > 0
print("ok: from corner to corner: 1 layer of attention")

# %% [markdown] name="order-text"
# Each convolution adds one place on every side, so 13 of them cross 14 places. Attention reaches
# everything at once. Its own place counts most, because it also makes the query; among the others, near
# is not more than far. What is near, a convolution knows from the start, and attention must learn. What a
# model assumes before it has seen any data is called its **inductive bias**.
#
# Nor does it know an order. Many articles call attention permutation-**in**variant: shuffle the tokens,
# and the result stays the same. Run it. (Lesson 03 shows what that means for a whole ViT.)

# %% name="order"
torch.manual_seed(5)
order = torch.randperm(5)
shuffled_first, shuffled_last = layer(x[:, order]), layer(x)[:, order]
assert torch.allclose(shuffled_first, shuffled_last, atol=1e-6)
assert not torch.allclose(shuffled_first, layer(x), atol=1e-2)
print("ok: shuffled tokens give the same outputs, shuffled")
print("    that is equivariant; invariant would be: not shuffled")

# %% [markdown] name="cost-text"
# ## 8 · What it costs
#
# Everything with everything has a price. Guess three numbers, in place of the dots.

# %% name="cost-predict"
check.predict("numbers in one attention map of ViT-B/16 at 224 pixels", ...)
check.predict("attention maps in one forward pass of ViT-B, for one image", ...)
check.predict(
    "how many times as many numbers in an attention map when the side of the image "
    "doubles (patches only)",
    ...,
)

# %% name="map-numbers"
small, large = 197**2, (2 * 14) ** 4 / 14**4
print(f"one map: {small:,}; 12 layers of 12 heads: {12 * 12} maps, {144 * small:,}")
print(f"a side twice as long: {large:.0f} times as many")

# %% [markdown] name="count-text"
# Now the multiplications, each with its addition. For N tokens of width D:
#
# - `qkv` makes 3D numbers of D, and `proj` D of D, for each token: $4 N D^2$.
# - $Q K^\top$ and the product with V each meet every pair of tokens: $2 N^2 D$.
#
# PyTorch can count what a layer really does, without computing it, on the device `meta`. It counts
# multiplication and addition as two.

# %% name="count"
from torch.utils.flop_counter import FlopCounterMode

N, D = 197, 768
projections, pairs = 4 * N * D**2, 2 * N**2 * D
with torch.device("meta"), FlopCounterMode(display=False) as counter:
    Attention(D, heads=12)(torch.empty(1, N, D))
assert counter.get_total_flops() == 2 * (projections + pairs)
print(f"projections {projections:,}")
print(f"pairs {pairs:,}, {pairs / (projections + pairs):.0%} of all")
print("ok: PyTorch counts the same")

# %% [markdown] name="cross-text"
# At 224 pixels the famous quadratic part is the small one. It grows with $N^2$, so at some size it
# takes over. Where? $2 N^2 D = 4 N D^2$ holds at $N = 2D$. The cell finds the first side of an image, in
# patches of 16 x 16 and without class token, at which the pairs cost more than the projections.


# %% name="cross"
def costs(side, dim):
    N = (side // 16) ** 2
    return 4 * N * dim**2, 2 * N**2 * dim  # projections, pairs


for size, dim in (("Ti", 192), ("S", 384), ("B", 768)):
    side = 16
    while costs(side, dim)[1] <= costs(side, dim)[0]:
        side += 16
    print(f"{size}/16, D = {dim}: {side} pixels, {(side // 16) ** 2:,} patches")

sides = range(224, 1025, 32)
series = {
    "projections": (sides, [costs(side, 768)[0] / 1e9 for side in sides]),
    "pairs": (sides, [costs(side, 768)[1] / 1e9 for side in sides]),
}
x_label, y_label = "side of the image in pixels", "billions of multiply-adds"
alt = (
    "Multiply-adds of one layer of ViT-B/16 against the side of the image. The pairs "
    "start below the projections, overtake them between 600 and 650 pixels, and cost "
    "more than twice as much at 1024."
)
show.figure(show.lines(series, x_label, y_label), alt)

# %% [markdown] name="trained-text"
# ## 9 · Where a trained model looks
#
# A small ViT comes with the course: 4 layers, 3 heads, 32 x 32 pixels in patches of 4 x 4. It has
# learned to name a form and its colour. `record_attention` keeps the weights of every layer, (B, K, T,
# T).
#
# Below, each test picture is lit by the weights of the class token in layer 2, counted from 0: the more
# a patch gives, the brighter it is.

# %% name="trained"
from vitcourse import data
from vitcourse.probe import record_attention

shapes, model = data.load("shapes"), data.trained("shapes")
with torch.no_grad(), record_attention(model) as maps:
    logits = model(shapes.normalise(shapes.test_images))
print(f"{len(maps)} layers, each {tuple(maps[2].shape)}")

# %% name="trained-figure"
pictures, titles = [], []
for label in (3, 0, 4):
    i = (shapes.test_labels == label).nonzero()[0].item()  # the first of its class
    picture = shapes.test_images[i] / 255  # (C, H, W)
    heat = maps[2][i, :, :1, 1:].unflatten(2, (8, 8))[:, 0]  # (K, h, w)
    heat = heat / heat.amax(dim=(1, 2), keepdim=True)
    light = F.interpolate(heat[:, None], size=(32, 32))  # (K, 1, H, W)
    pictures += [picture, *(picture * (0.1 + 0.9 * light))]
    answer = shapes.classes[logits[i].argmax()]
    titles += [f"it says: {answer}", "head 0", "head 1", "head 2"]
alt = (
    "Three pictures, each beside three copies lit by one head. On the blue square "
    "heads 0 and 1 light patches inside, head 2 the right edge. On the red circle and "
    "the red triangle each head lights one or two patches at the edge."
)
show.figure(show.images(pictures, titles, columns=4, size=1.6), alt)

# %% [markdown] name="share-text"
# Three pictures may be luck. These shapes were drawn by the course, so the truth is known: which patches
# the object touches. How much of the class token's attention falls on them, over 1,000 test pictures?
# Two yardsticks stand beside it: how many patches these are, and a model that has learned nothing.

# %% name="share"
from vitcourse import make_vit

masks = shapes.extras["test_masks"][:, None].float()  # (B, 1, H, W)
touched = F.max_pool2d(masks, 4).flatten(2)  # (B, 1, N)


def share_on_object(maps):  # -> (L, K), the mean over the pictures
    return torch.stack([(w[:, :, 0, 1:] * touched).sum(-1).mean(0) for w in maps])


torch.manual_seed(6)
untrained = make_vit("Nano/4", image=32, classes=8).eval()
with torch.no_grad(), record_attention(untrained) as untrained_maps:
    untrained(shapes.normalise(shapes.test_images))
before, after = share_on_object(untrained_maps), share_on_object(maps)
print(f"patches that the object touches: {touched.mean():.2f} of all")
for i in range(4):
    old, new = ([f"{part:.2f}" for part in row[i]] for row in (before, after))
    print(f"layer {i}: untrained {', '.join(old)}; trained {', '.join(new)}")
assert after[2].min() > 3 * touched.mean() and before.max() < 0.3
print("ok: in layer 2 every head looks mostly at the object; untrained, none does")

# %% [markdown] name="explore-text"
# Nobody told the model where the object is. It was told names.
#
# Below are all layers and heads for the blue square. Choose a token, and see what it takes from where.
# In layer 2, find the head by which the class token looks at the right edge of the square. Then compare
# a patch on the square with one on the background.
#
# One warning: a weight says how much of a value is taken, not what the value does afterwards. Lesson 11
# asks how far one may trust such maps.

# %% name="explore"
i = (shapes.test_labels == 3).nonzero()[0].item()
picture = shapes.test_images[i].permute(1, 2, 0).numpy()  # (H, W, C)
picture = picture.repeat(8, axis=0).repeat(8, axis=1)  # 256 x 256 pixels
square = torch.stack([w[i] for w in maps])  # (L, K, T, T)
alt = (
    "A blue square, and how much a chosen token takes from each patch, for each of 4 "
    "layers and 3 heads."
)
show.explore_attention(picture, square, (8, 8), alt=alt)

# %% [markdown] name="remember"
# ## Remember
#
# - Attention is a weighted sum of values; the weights are a softmax over the keys, so rows sum to one.
# - Scores are divided by $\sqrt d$, the width of a head: else softmax saturates and the gradient dies.
# - q, k and v come from one Linear of D to 3D. Heads share D, and add nothing to learn.
# - Cut the width, then exchange axes. A reshape alone has the right shape and mixes tokens.
# - One layer reaches everything. The price is $N^2$, which rules only beyond N = 2D.
# - Attention is permutation-equivariant: shuffled tokens give the same outputs, shuffled.
#
# Before: [03 positions](03-positions.ipynb). Next: [05 the encoder block](05-encoder-block.ipynb).
#
# [Glossary](../docs/glossary.md).
