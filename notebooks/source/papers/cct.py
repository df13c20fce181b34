# %% [markdown] name="title"
# # CCT: a ViT for few images
#
# Hassani et al. 2021,
# [Escaping the Big Data Paradigm with Compact Transformers](https://arxiv.org/abs/2104.05704).
# Lesson [14 better tokens](../14-better-tokens.ipynb).
#
# **The question.** A ViT that learns from few images is worse than a CNN. Must it be?
#
# **The change.** Two, one after the other. CVT has no class token: it averages all tokens, by weights that
# it learns. CCT also makes its tokens with convolutions in place of patches, so that neighbouring tokens
# share pixels.

# %% name="setup"
import torch

from vitcourse import ViT, data, papers, show, train
from vitcourse.papers.cct import CCT, CVT, ConvTokenizer, SeqPool, ViTLite
from vitcourse.parts import MeanHead

# %% [markdown] name="equation"
# ## The equation
#
# Tokens from convolutions, repeated once or twice, where each pooling has stride 2:
#
# $$x = \text{MaxPool}(\text{ReLU}(\text{Conv}_{3 \times 3}(\text{image})))$$
#
# Sequence pooling of the last tokens $z_1, \dots, z_N$, with a learned vector $g$ and a number $b$:
#
# $$w = \text{softmax}(z_1 g + b, \dots, z_N g + b) \qquad y = \sum_i w_i z_i$$
#
# The logits come from $y$. By hand: three tokens of two numbers each. $g$ reads the second number. Which
# token counts most? And does $b$ matter?

# %% name="small"
z = torch.tensor([[5.0, 0.0], [1.0, 0.0], [9.0, 2.0]])  # (N, D)
g = torch.tensor([0.0, 1.0])
for b in (0.0, 100.0):
    w = (z @ g + b).softmax(dim=0)
    print("b =", int(b), " w =", [round(p, 2) for p in w.tolist()], end="  ")
    print("y =", [round(v, 2) for v in (w @ z).tolist()])

# %% [markdown] name="small-answer"
# The third token counts most, as its second number is large. $b$ changes nothing: a softmax ignores what
# is added to all scores. It is in the published models all the same.
#
# ## The difference
#
# Four slots are filled with other classes:

# %% name="difference"
print(papers.diff(CCT))

# %% [markdown] name="difference-text"
# Two of the four are the point of the paper. The other two are needed by the published weights: `qkv` has
# no bias, and the second norm of a block acts on the sum itself, not on a branch beside it. ViT-Lite and
# CVT have both as well, so from one model to the next there is one change.
#
# What does it cost? Of 32 x 32 pixels, CCT-7/3x1 makes a token of every 2 x 2 pixels, ViT-Lite-7/4 of
# every 4 x 4.

# %% name="count"
counts = {}
for name in ("vit_lite_7_4", "compact_cvt_7_4", "cct_7_3x2", "cct_7_3x1"):
    with torch.device("meta"):  # nothing is computed
        model = papers.build(name, classes=10)
        x, grid = model.encode(torch.empty(1, 3, 32, 32))
    counts[name] = sum(p.numel() for p in model.parameters())
    T = x.shape[1]
    print(f"{name:16} {counts[name]:,} parameters, {T:3} tokens, {T * T:6} scores")
assert counts["compact_cvt_7_4"] == counts["vit_lite_7_4"] - 2 * 256 + 257
print("ok: a class token and its position go, g and b come")

# %% [markdown] name="cost"
# About the same number of parameters; but CCT-7/3x1 has four times the tokens, and sixteen times the
# scores in each head. CCT-7/3x2 has as many tokens as ViT-Lite.
#
# ## The proof
#
# Two special cases that must hold. With $g = 0$ all tokens count alike, and the pooling is the mean. And a
# token of the convolutions reads more than its own pixels. The tests compare all three models with
# vit-pytorch's, including the gradients, and count all ten configurations; eleven planted errors are
# noticed.

# %% name="identity"
torch.manual_seed(0)
sizes = papers.configs()["cct_2_3x2"].sizes
pool, mean = SeqPool(sizes), MeanHead(sizes)
torch.nn.init.normal_(pool.weight)
mean.load_state_dict(pool.state_dict(), strict=False)
torch.nn.init.zeros_(pool.pool.weight)
z = torch.randn(2, 15, sizes.dim)  # (B, N, D)
assert torch.allclose(pool(z), mean(z, (3, 5)), atol=1e-5)
print("ok: with g = 0, pooling is the mean")

# %% name="overlap"
torch.manual_seed(0)
for cls in (ViT.Tokenizer, ConvTokenizer):
    tokenizer, pixels = cls(1, 16, 2), torch.randn(40, 1, 12, 12, requires_grad=True)
    x, (h, w) = tokenizer(pixels)
    x.unflatten(1, (h, w))[:, 3, 3].sum().backward()
    read = pixels.grad.abs().sum(dim=(0, 1)) > 0
    rows = torch.where(read.any(dim=1))[0]
    print(f"{cls.__name__:14} token (3, 3) reads rows {rows.min()} to {rows.max()}")

# %% [markdown] name="experiment"
# ## An experiment
#
# Digits, but only 200 of them to learn from, cut into 16 patches or made into 16 tokens by one
# convolution and one pooling. Three models of one size. Each makes 240 steps of 20 images.

# %% name="train" tags=["nbval-ignore-output"]
digits = data.load("digits")
parts = digits.images[:200], digits.labels[:200], digits.test_images, digits.test_labels
few = data.Data("few", *parts, digits.classes)
recipe = train.RECIPES["smoke"].but(model="Nano/2", batch=20)
recipe = recipe.but(epochs=24, evaluate_every=4)
accuracy = {}
for cls in (ViTLite, CVT, CCT):
    name = cls.__name__
    model = train.build_model(recipe, few, cls)
    run = train.fit(model, few, recipe, device="cpu", quiet=True)
    seen = [h for h in run.history if "test_accuracy" in h]
    accuracy[name] = [h["epoch"] for h in seen], [h["test_accuracy"] for h in seen]
    print(f"{name:8} accuracy {run.accuracy:.2f}")
picture = show.lines(accuracy, "epoch", "accuracy")
show.figure(picture, "Test accuracy over the epochs, for the three models")

# %% name="train-bound"
assert accuracy["CCT"][1][-1] > 0.5
print("ok: CCT has learned")

# %% [markdown] name="recorded-text"
# One run says little: with so few steps it can be chance which model begins to learn first. With three
# seeds, each from other images, and with 60, 200 and 600 of them, for twice as many steps. A gain is
# the accuracy minus that of the model before: CVT minus ViT-Lite for pooling, CCT minus CVT for
# convolutions.

# %% name="recorded"
record = show.recorded("claim-cct")
print(show.origin(record))
print(show.pairs(record))

# %% name="recorded-picture"
series, sizes = {}, (60, 200, 600)
for name in ("ViT-Lite", "CVT", "CCT"):
    figures = [record["figures"][f"{name}, {size} images"] for size in sizes]
    series[name] = sizes, [figure["mean"] for figure in figures]
picture = show.lines(series, "training images", "mean accuracy", log="x")
show.figure(picture, "Accuracy over the number of images, for the three models")

# %% [markdown] name="recorded-answer"
# The convolutions help with every seed and every number of images, most with 60. The pooling does not:
# with 60 images it is below the class token with every seed, with more of them it depends on the seed. So
# here the tokenizer is what helps.
#
# This is one data set of small pictures, and one narrow model. It does not say that pooling never helps.
# Nor does it say why the convolutions do: they share pixels, have a ReLU more, and a maximum over
# neighbours.
#
# ## What the authors report
#
# On CIFAR-10, from scratch and without other data, CCT-7/3x1 reaches 98.00 % after 5000 epochs, with 3.76
# million parameters.

# %% [markdown] name="remember"
# ## Remember
#
# - Sequence pooling replaces a token that asks by a vector that asks: one dot product for each token, one
#   softmax over all tokens.
# - In a name such as 7/3x1 stand the depth, the size of the kernels and the number of convolutions. Each
#   convolution with kernels of 3 x 3 halves the sides of the map.
# - One convolution leaves four times the tokens that two leave: about the same parameters, sixteen times
#   the scores.
# - Tokens from convolutions also work where image sides do not divide by the patch.
