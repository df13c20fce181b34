# %% [markdown] name="title"
# # Visual Transformer: tokens that gather
#
# Wu et al. 2020,
# [Visual Transformers: Token-based Image Representation and Processing for Computer Vision](https://arxiv.org/abs/2006.03677).
# Lesson [14 better tokens](../14-better-tokens.ipynb).
#
# **The question.** A map has hundreds of pixels, most of them sky or grass. A picture shows a handful of
# things. Must attention compute with every pixel, or every patch?
#
# **The change.** A few tokens, 16 in the paper, gather the pixels that belong together, wherever they
# lie. A transformer relates these tokens, and a projector hands back to each pixel what it asks for.

# %% name="setup"
import torch

from vitcourse import data, probe, show, train
from vitcourse.papers import visual_transformer as vt
from vitcourse.papers.compare import source

# %% [markdown] name="equation"
# ## The equation
#
# Pixels $X$ (N x D), tokens $T$ (L x D). All four steps are one attention, without a value matrix and
# without $1/\sqrt d$; only who asks whom differs:
#
# $$\begin{aligned}
# T &= \text{softmax}_N(X W_A)^\top X && \text{filters ask pixels} \\
# T &= \text{softmax}_N(X (T_\text{old} W_R)^\top)^\top X && \text{old tokens ask pixels} \\
# T' &= T + \text{softmax}_L((TK)(TQ)^\top)\, T && \text{tokens ask tokens} \\
# X' &= X + \text{softmax}_L((X W_Q)(T W_K)^\top)\, T && \text{pixels ask tokens}
# \end{aligned}$$
#
# Behind the third, each token passes two layers: $T' + \text{ReLU}(T' F_1) F_2$. The first block
# tokenises by filters, each later one by the tokens of the block before.
#
# Four pixels, two filters. The softmax goes over the **pixels**: what does each token hold?

# %% name="small"
X = torch.tensor([[9.0, 0], [7, 0], [0, 5], [0, 1]])  # (N, D)
W_A = torch.tensor([[1.0, 0], [0, 0]])  # (D, L): the second filter asks for nothing
A = (X @ W_A).softmax(dim=0)  # (N, L)
T = A.T @ X  # (L, D)
print("weights", [[round(a, 2) for a in column] for column in A.T.tolist()])
print("tokens ", [[round(t, 2) + 0.0 for t in token] for token in T.tolist()])

# %% [markdown] name="small-answer"
# The first token is almost the first pixel, with a little of the second. The other filter asks for
# nothing and gets the mean of all, as average pooling would.
#
# ## The difference
#
# The structure is its own, but the attention is the core's. This is all that is new in it, and the two
# tokenizers that use it:

# %% name="difference"
for part in (vt.Look, vt.FilterTokenizer, vt.RecurrentTokenizer):
    print(*source(part), sep="\n", end="\n\n")

# %% [markdown] name="cost-text"
# What does that save? Count the scores that attention computes for a map of 14 x 14, and for one whose
# sides are four times as long.

# %% name="cost"
L = 16
for side in (14, 56):
    N = side * side
    here = L * N + L * L + N * L
    print(f"{side}x{side}: pixels ask pixels {N * N:,}, one block here {here:,}")

# %% [markdown] name="proof"
# ## The proof
#
# No code by the authors is at hand to compare with. So each part is reduced to something known, or one
# of its mechanisms is switched off: 19 identities in the tests, with 20 planted errors, all of which are
# noticed. Here are four, one for each equation.

# %% name="identities"
torch.manual_seed(0)
X, T = torch.randn(2, 15, 6).double(), torch.randn(2, 4, 6).double()
filters, recurrent = vt.FilterTokenizer(6, 4), vt.RecurrentTokenizer(6)
transformer, projector = vt.TokenTransformer(6), vt.Projector(6)
for part in (filters, recurrent, transformer, projector):
    part.double()
order = torch.randperm(15)
with torch.no_grad():
    assert torch.allclose(filters(X[:, order]), filters(X))
    recurrent.guide.weight.copy_(torch.eye(6))
    filters.filters.weight.copy_(T[0])
    assert torch.allclose(recurrent(X, T)[0], filters(X)[0])
    transformer.attn.key.weight.zero_()
    transformer.fc2.weight.zero_()
    assert torch.allclose(transformer(T), T + T.mean(dim=1, keepdim=True))
    assert torch.allclose(projector(X, T[:, :1]), X + T[:, :1])
print("ok: where a pixel lies does not count")
print("ok: without a guide, the old tokens are the filters")
print("ok: without scores, the mean of the tokens is added")
print("ok: a single token goes to every pixel, whatever is asked")

# %% [markdown] name="proof-answer"
# The first says something about the whole: no equation knows where a pixel lies. What the tokens know of
# places, the convolutions before have put into the pixels.
#
# ## An experiment
#
# Scenes of 32x32 pixels with one to four objects. How many are there? A small ResNet makes a map of 8x8
# pixels, and two token blocks with 8 tokens read it.

# %% name="train" tags=["nbval-ignore-output"]
scenes = data.load("shapes", task="scenes", train=1500, test=500)
recipe = train.RECIPES["smoke"].but(epochs=15, batch=64, lr=3e-3, evaluate_every=15)
recipe = recipe.but(augment=train.RECIPES["shapes"].augment)
torch.manual_seed(0)
sizes = vt.Sizes(tokens=8, depth=2, resnet=(1,), width=12, classes=4)
run = train.fit(vt.VisualTransformer(sizes), scenes, recipe, device="cpu", quiet=True)
print(f"accuracy {run.accuracy:.2f}")

# %% name="train-bound"
assert run.accuracy > 0.4  # guessing: 0.25
print("ok: it has learned to count")

# %% [markdown] name="look-text"
# Where does each token gather? The tokenizer is an attention, so its maps can be recorded: one 8x8 map
# for each token, for one image. Which tokens take more of the objects, which more of the background?

# %% name="look" tags=["nbval-ignore-output"]
three = scenes.test_images[scenes.test_labels == 2]  # three objects in each
with torch.no_grad(), probe.record_attention(run.model) as maps:
    run.model(scenes.normalise(three))
gathers = maps[0][:, 0].unflatten(2, (8, 8))  # (B, L, 8, 8)
picture = show.images(three[:1], size=1.6)
show.figure(picture, "The image: three objects on a background")
titles = [f"token {i + 1}" for i in range(8)]
picture = show.heatmaps(list(gathers[0]), titles, columns=4)
alt = "For each of eight tokens, how much it takes from each of 8x8 pixels of the map"
show.figure(picture, alt)
peak = gathers.amax(dim=(1, 2, 3)).mean() * 64
print(f"the highest weight of an image is {peak:.1f} times the mean, on average")

# %% name="look-bound"
assert torch.allclose(gathers.sum(dim=(2, 3)), torch.ones(len(three), 8))
assert peak > 2  # before training: 1.3
print("ok: each map sums to one, and has become sharper than by chance")

# %% [markdown] name="recorded-text"
# With three seeds, more images, and three controls: one token, four tokens, and eight tokens that are
# the means of 2x4 equal cells of the map.

# %% name="recorded"
record = show.recorded("claim-visual_transformer")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# Three negative results. One token counts as well as eight: in the mean of a map, four objects weigh
# more than one, so nothing must be kept apart. Equal cells are worse with two seeds, better with one.
# This says nothing of photographs. A task must need several things at once before several tokens can
# show what they are good for.
#
# ## What the authors report
#
# The paper reports, on ImageNet with the usual training, 72.0 % for VT-ResNet-18 beside 69.9 % for the
# ResNet-18, with 11.6 and 11.7 million parameters. Pooled cells in place of the first filters reach
# 70.6 %, no projectors 70.9 %, and 64 tokens no more than 16. With a stronger recipe, it reports 4.6 to
# 7 points above ResNets of the same depth.

# %% [markdown] name="remember"
# ## Remember
#
# - The tokenizer's softmax goes over the pixels, that of the transformer and the projector over the
#   tokens.
# - A bias in $W_A$ would do nothing: it is the same for all pixels of a map.
# - There is no value matrix, no scale and no position. What a token takes is what it looks at.
# - The cost is linear in the pixels: $L \cdot N$ scores, not $N^2$.
# - The head reads tokens, so the last block needs no projector. A task with an answer for each pixel
#   does.
