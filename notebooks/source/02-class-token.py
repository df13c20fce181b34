# %% [markdown] name="title"
# # 02 · The class token
#
# An encoder gives back as many vectors as it is given: 196 patches go in, 196 vectors come out. A
# classifier needs one vector for one image.
#
# **One question first.** Which of the 196 would you hand to the classifier? The first? The last? Or is
# there a better choice than any of them?
#
# In this lesson you build the paper's answer, the class token, measure it against the mean of all patches,
# and mend a piece of code that was published with a mistake in it.

# %% name="setup"
import torch
from torch import nn

from vitcourse import Config, ViT, check, make_vit, show

# %% [markdown] name="small-text"
# ## What could a classifier read?
#
# Two images, three patches each, tokens of five numbers. The numbers tell where they are: 124 is image 1,
# patch 2, number 4.

# %% name="small"
image, place, number = torch.arange(2), torch.arange(3), torch.arange(5)
x = 100.0 * image[:, None, None] + 10 * place[:, None] + number  # (B, N, D)
print("one patch, the last:", x[:, -1].tolist())
print("the mean of patches:", x.mean(dim=1).tolist())
print("all, side by side:  ", x.flatten(1)[0].tolist(), "...")

# %% [markdown] name="choice-text"
# - **One patch**, the last, say. A corner of the image has to speak for the whole.
# - **The mean**: every patch has a say, all the same say.
# - **All, side by side**: nothing is left out, but the classifier becomes large and fits one size of
#   image only.
# - **One more token**, which belongs to no place in the image. Attention decides what it takes from each
#   patch.
#
# What does the third choice cost? Count, for a ViT-B/16 with 1000 classes:

# %% name="choice-count"
for side in (224, 384):
    cfg = Config.of("B/16", image=side)
    patches = cfg.grid[0] * cfg.grid[1]
    one, every = cfg.dim * cfg.classes, patches * cfg.dim * cfg.classes
    print(f"{side} pixels: {one:,} weights for one token, {every:,} for all {patches}")

# %% [markdown] name="bert-text"
# ## The idea comes from BERT
#
# BERT puts a token called [CLS] before every sentence. It stands for no word. On its way through the
# blocks it collects from the words what the classifier needs. ViT does the same with patches:
#
# $$\mathbf{z}_0 = [\,\mathbf{x}_\text{class};\ \mathbf{x}_p^1 \mathbf{E};\ \dots;\
# \mathbf{x}_p^N \mathbf{E}\,] + \mathbf{E}_{pos}, \qquad
# \mathbf{x}_\text{class} \in \mathbb{R}^{1 \times D}$$
#
# $$\mathbf{y} = \text{LN}(\mathbf{z}_L^0)$$
#
# The class token is a parameter, learned like any weight. What goes in is the same for every image. What
# comes out, at place 0, is read.

# %% [markdown] name="v1-text"
# ## v1: one image
#
# A sequence (N, D) gets one row more, in front. The class token here is 150 to 154, so that you can find
# it. After the picture, predict two numbers for the real model.

# %% name="v1"
token = 150.0 + torch.arange(5)[None]  # (1, D)
one = torch.cat([token, x[1]], dim=0)  # (N+1, D)
print(f"{tuple(x[1].shape)} -> {tuple(one.shape)}")
titles = ["patches (3, 5)", "with class token (4, 5)"]
picture = show.heatmaps([x[1], one], titles, size=2.6, numbers=True)
text = "Three rows, 100 to 124; and four, the class token 150 to 154 above those three"
show.figure(picture, alt=text)

# %% name="predict"
check.predict("tokens of a 384 image with 16 patches", ...)
check.predict("parameters of the class token of ViT-B/16", ...)

# %% [markdown] name="token-count-card"
# ### Exercise: count the tokens
#
# 3 minutes · difficulty 1 of 3
#
# An image of 224 x 224 pixels is cut into patches of 16 x 16. How many tokens does a ViT with a class token
# make of it?
#
# A hint: `check.hint("token_count")`. The solution: `check.solution("token_count")`.

# %% name="token-count-stub" tags=["exercise"]
token_count = ...

# %% name="token-count-check" tags=["check"]
check.token_count(token_count)

# %% [markdown] name="expand-text"
# ## v2: one token for a whole batch
#
# There is one class token and there are B images. `repeat` copies it B times. `expand` makes a view that
# looks as if it were B copies: every row of it is the same place in memory. For 64 images and D = 768:

# %% name="expand"
prefix = torch.zeros(1, 1, 768)
for name, many in {
    "repeat": prefix.repeat(64, 1, 1),  # (B, 1, D)
    "expand": prefix.expand(64, -1, -1),  # (B, 1, D)
}.items():
    memory = many.untyped_storage().nbytes()
    print(f"{name}: {tuple(many.shape)}, {memory:,} bytes, stride {many.stride()}")

# %% [markdown] name="expand-answer"
# The stride says it: from one image to the next, `expand` moves 0 numbers on in memory. (`torch.cat` then
# copies either into the new sequence. What `expand` saves is the copy before the copy.)
#
# Now training. Suppose that the loss pulls at the class token of three images with the strengths 1, 10 and
# 100. Predict the gradient of the one parameter: the last, the mean, or the sum?

# %% name="gradient"
pull = torch.tensor([1.0, 10.0, 100.0])[:, None, None]  # (B, 1, 1)
for name in ("expand", "repeat"):
    prefix = nn.Parameter(torch.zeros(1, 1, 5))
    many = prefix.expand(3, -1, -1) if name == "expand" else prefix.repeat(3, 1, 1)
    (pull * many).sum().backward()
    print(f"{name}: gradient {prefix.grad.tolist()}")

# %% [markdown] name="gradient-answer"
# The sum: all images of a batch teach the same token. `repeat` computes the same, with more memory. What
# does not work is a parameter of shape (B, 1, D): it would fit one batch size, and each row would learn from
# one image of a batch only.

# %% [markdown] name="class-token-card"
# ### Exercise: put the class token in front
#
# 10 minutes · difficulty 2 of 3
#
# Write the module `ClassToken(dim)`. It has one parameter `prefix` of shape (1, 1, D) and puts it before the
# tokens of every image: (B, N, D) becomes (B, N+1, D).
#
# A hint: `check.hint("class_token")`. The solution: `check.solution("class_token")`.


# %% name="class-token-stub" tags=["exercise"]
class ClassToken(nn.Module):
    """Put a learned token before the patches: x (B, N, D) -> (B, N+1, D)."""

    def __init__(self, dim):
        super().__init__()
        ...

    def forward(self, x): ...


# %% name="class-token-check" tags=["check"]
check.class_token(ClassToken)

# %% [markdown] name="axis-text"
# ## Along which axis?
#
# Some articles say that the class token is concatenated "along the channels". Run it.

# %% name="axis"
prefix = torch.zeros(2, 1, 5)  # (B, 1, D)
for axis, meaning in {1: "tokens", 2: "channels"}.items():
    try:
        longer = torch.cat([prefix, x], dim=axis)
    except RuntimeError as error:
        print(f"along the {meaning}: {error}")
    else:
        print(f"along the {meaning}: {tuple(x.shape)} -> {tuple(longer.shape)}")

# %% [markdown] name="axis-answer"
# The sequence becomes longer, the tokens do not become wider. A wider token would not fit the first
# LayerNorm, which is made for D numbers.

# %% [markdown] name="proof-text"
# ## v3: in a whole model
#
# The package's ViT calls its class token `prefix`, because later models put more than one token in front.
# Here its whole way, step by step, beside `encode`. The lessons 03 to 05 open the parts that are used here.

# %% name="proof"
model = make_vit("Nano/2", image=(6, 8), channels=1, classes=5)
images = torch.rand(7, 1, 6, 8)
tokens, grid = model.patch_embed(images)  # (B, N, D)
prefix = model.prefix.expand(7, -1, -1)  # (B, 1, D)     # new
z = torch.cat([prefix, tokens], dim=1)  # (B, N+1, D)    # new
z = model.position(z, grid)
for block in model.blocks:
    z = block(z, grid)
y = model.norm(z)
assert torch.allclose(y, model.encode(images)[0], atol=1e-5)
print(f"{tuple(tokens.shape)} -> {tuple(z.shape)}")
print("ok: step by step equals ViT.encode")

# %% [markdown] name="read-card"
# ### Exercise: read the class token
#
# 3 minutes · difficulty 1 of 3
#
# Write `read_class_token(x)`: from the tokens (B, T, D) take what the classifier reads, (B, D). Here
# T = N + 1, class token included.
#
# A hint: `check.hint("read_class_token")`. The solution: `check.solution("read_class_token")`.


# %% name="read-stub" tags=["exercise"]
def read_class_token(x):
    """What the head reads: tokens (B, T, D) -> class tokens (B, D)."""
    ...


# %% name="read-check" tags=["check"]
check.read_class_token(read_class_token)

# %% [markdown] name="mean-card"
# ### Exercise: read the mean of the patches
#
# 5 minutes · difficulty 1 of 3
#
# The rival. Write `mean_patches(x)`: from the same tokens (B, T, D), class token included, compute the mean
# of the patches alone, (B, D).
#
# A hint: `check.hint("mean_patches")`. The solution: `check.solution("mean_patches")`.


# %% name="mean-stub" tags=["exercise"]
def mean_patches(x):
    """The mean of the patches, without the class token: (B, T, D) -> (B, D)."""
    ...


# %% name="mean-check" tags=["check"]
check.mean_patches(mean_patches)

# %% [markdown] name="published-text"
# ## A published mistake
#
# One article has the step below, in its code and once more in its text: first the positions, then the
# class token. The table has a row for each of the N+1 tokens. What will happen?


# %% name="published"
def embed_published(patches, prefix, table):
    x = patches + table  # positions
    return torch.cat([prefix.expand(len(x), -1, -1), x], dim=1)  # class token


patches, table = torch.rand(2, 196, 768), torch.rand(1, 197, 768)
try:
    embed_published(patches, torch.rand(1, 1, 768), table)
except RuntimeError as error:
    print(error)
else:
    print("it runs")

# %% [markdown] name="mend-card"
# ### Exercise: mend it
#
# 10 minutes · difficulty 2 of 3
#
# Write `embed(patches, prefix, table)` as it should be: patches (B, N, D), prefix (1, 1, D) and table
# (1, N+1, D) make (B, N+1, D). Row 0 of the table belongs to the class token. Careful: several changes make
# the error go away, and one of them is right.
#
# A hint: `check.hint("mend")`. The solution: `check.solution("mend")`.


# %% name="mend-stub" tags=["exercise"]
def embed(patches, prefix, table):
    """Class token and positions: (B, N, D), (1, 1, D), (1, N+1, D) -> (B, N+1, D)."""
    ...


# %% name="mend-check" tags=["check"]
check.mend(embed)

# %% [markdown] name="mend-remark"
# Is the order itself a mistake? No. Google's later code base adds positions first and the class token
# afterwards, with a table of N rows: the class token then has no position. Either way fits together. What
# was published mixes the two and cannot run.

# %% [markdown] name="training-text"
# ## Class token against mean, in training
#
# Two models for digits of 8 x 8 pixels, cut into four patches. They differ in the head only: the default
# reads the class token, `MeanHead` averages the patches and has no class token at all. Both train for ten
# epochs with the same recipe.

# %% name="training" tags=["nbval-ignore-output"]
from vitcourse import data, train
from vitcourse.parts import MeanHead

digits = data.load("digits")
recipe = train.RECIPES["smoke"].but(epochs=10, evaluate_every=10)
accuracy = {}
for name, cls in {"class token": ViT, "mean": ViT.variant(Head=MeanHead)}.items():
    torch.manual_seed(0)
    model = make_vit("Nano/4", cls, image=8, channels=1, classes=10)
    accuracy[name] = train.fit(model, digits, recipe, quiet=True).accuracy
    in_front = model.prefix_len
    print(f"{name:11}  tokens in front: {in_front}  accuracy: {accuracy[name]:.2f}")

# %% name="training-bound"
assert min(accuracy.values()) > 0.6  # a tenth by guessing
print("ok: both learn to read digits")

# %% [markdown] name="claim-text"
# ## More than one run
#
# One run of each proves little. The recorded experiment trains both on five folds, so that every one of the
# 1797 digits is tested once, and at several learning rates. The rates matter: the paper's appendix reports
# that averaging looked much worse at first, until it got a learning rate of its own.

# %% name="claim"
record = show.recorded("claim-class_token")
heads = ("class token", "mean of patches")
measured = {4: (0.001, 0.002, 0.004, 0.008), 16: (0.004, 0.008)}  # patches: rates
series = {head: (measured[4], []) for head in heads}
print("mean +- standard deviation of five folds, in %")
for patches, rates in measured.items():
    for rate in rates:
        line = f"{patches:2} patches, rate {rate}:"
        for head in heads:
            figure = record["figures"][f"{head}, {patches} patches, rate {rate}"]
            mean, spread = 100 * figure["mean"], 100 * figure["spread"]
            line += f"  {head} {mean:.1f} +- {spread:.1f}"
            if patches == 4:
                series[head][1].append(mean)
        print(line)
print(show.origin(record))

# %% name="claim-picture"
picture = show.lines(series, "learning rate", "accuracy with 4 patches, %", log="x")
text = "Two curves: the class token leads at the lowest rate, and the mean catches up"
show.figure(picture, alt=text)

# %% [markdown] name="claim-answer"
# Mind the scale: the whole axis is little more than one point. At a rate of 0.001 the class token is ahead.
# Each at its best rate, the two are less than half a per cent apart, and the folds differ by more.
#
# With 16 patches, whoever tried 0.004 alone would report that the class token wins, and whoever tried 0.008
# alone that it does not. So a comparison at one rate tells which head likes that rate. On these digits,
# neither head came out better. The paper reports the same: both do well, with different learning rates.

# %% [markdown] name="look-text"
# ## What the class token gathers
#
# The course ships a ViT that reads digits well. Its class token goes in the same for every image. Of the
# image it can know only what attention brings. How much do the class tokens of different images differ after
# each block? And how much does a class token take from itself, how much from the four patches? A map of
# attention has a row for each token, and row 0 says it.

# %% name="gather"
from vitcourse import probe

model = data.trained("digits")
images = digits.normalise(digits.test_images)  # (B, C, H, W)
with torch.no_grad(), probe.record_tokens(model) as tokens:
    with probe.record_attention(model) as maps:
        logits = model(images)  # (B, classes)
right = (logits.argmax(dim=-1) == digits.test_labels).float().mean()
print(f"digits read rightly: {right:.0%}")
going_in = model.prefix.expand(len(images), -1, -1)  # (B, 1, D)
print(f"going in:      differ by {going_in.std(dim=0).mean():.2f}")
rows = torch.stack(maps)[:, :, :, 0]  # (L, B, K, T), what the class token takes
for block in range(2):
    differ = tokens[block][:, 0].std(dim=0).mean()
    itself = rows[block, :, :, 0].mean()
    print(f"after block {block}: differ by {differ:.2f}", end=", ")
    print(f"took {itself:.2f} from itself, {1 - itself:.2f} from patches")

# %% [markdown] name="heads-text"
# Now one digit and its four patches, and below it, for both blocks and all four heads, what the class token
# takes from these patches.

# %% name="heads"
digit = digits.test_images[2, 0]  # (H, W)
squares = digit.unflatten(0, (2, 4)).unflatten(2, (2, 4))  # (h, P, w, P)
squares = squares.permute(0, 2, 1, 3).flatten(0, 1)  # (N, P, P)
titles = ["the digit", "patch 0", "patch 1", "patch 2", "patch 3"]
picture = show.images([digit, *squares], titles, size=1.2)
show.figure(picture, alt="A handwritten 2 of 8 x 8 pixels, and its four patches")
shares = rows[:, 2, :, 1:].reshape(8, 2, 2)  # both blocks, all heads
titles = [f"block {block}, head {head}" for block in range(2) for head in range(4)]
picture = show.heatmaps(shares, titles, columns=4, limits=(0, 1), numbers=True)
text = "Eight maps of 2 x 2: each head weighs the four patches in its own way"
show.figure(picture, alt=text)
print(f"between images a weight differs by {rows[..., 1:].std(dim=1).mean():.2f}")

# %% [markdown] name="heads-answer"
# Most heads have one patch that they prefer. In block 0, head 2 has two, and head 3 takes more from the
# class token itself than from all patches. A mean would weigh each patch with 0.25. That is the difference
# between the two ways of reading: weights that are learned and depend on the image, against weights that
# are fixed.
#
# Why, then, did the mean read digits as well? Its patches are not alone either. They have looked at each
# other in every block, before the mean is taken. That is attention, and lesson 04 builds it.

# %% [markdown] name="remember"
# ## Remember
#
# - The class token is one learned vector, the same for every image, put in front of the patches: T = N + 1.
# - It is joined along the tokens, not along the channels: (B, N, D) becomes (B, N+1, D).
# - `expand` shows one token to a whole batch without a copy, and the gradients of all images add up in it.
# - First the class token, then the positions, if the table has N+1 rows.
# - The head reads place 0. The mean of the patches is the other common way. On digits neither
#   is better, once each has its own learning rate.
#
# Before: [01 patches](01-patches.ipynb). Next: [03 positions](03-positions.ipynb).
#
# [Glossary](../docs/glossary.md).
