# %% [markdown] name="title"
# # 03 · Positions
#
# Lessons 01 and 02 made an image into tokens. Nothing in a token says where in the image it was cut
# out. This lesson tells it.
#
# **One question first.** Below is a photograph, and the same photograph with its patches shuffled. A ViT
# without positions classifies both. What happens to its answer? Does it get worse, does it become
# chance, or something else?
#
# Six parts: the set, adding, a task that needs positions, the kinds of position, larger images, what a
# table learns. Reading and running them takes half an hour. Of the five exercises, those of parts 2 and 5
# are worth doing today. The three of part 4 can wait.

# %% name="setup"
import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import check, show

# %% [markdown] name="set-text"
# ## 1 · A set
#
# The heart of a Transformer is attention, which is lesson 04. One line is enough for now: each token
# becomes a weighted mean of all tokens. The weights come from dot products, so from what the tokens
# hold, and from nothing else.
#
# Three tokens of two numbers. Then the same three in another order: the last one first. Before you run
# it: which rows of the second result do you know already?


# %% name="set-small"
def mix(x):
    """Every token becomes a mean of all: (T, D) -> (T, D)."""
    return (x @ x.T).softmax(dim=-1) @ x


x = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # (T, D): tokens A, B, C
order = torch.tensor([2, 0, 1])
for name, tokens in {"ABC": x, "CAB": x[order]}.items():
    for letter, row in zip(name, mix(tokens).tolist(), strict=True):
        print(f"{letter}: {row[0]:.3f} {row[1]:.3f}", end="    ")
    print()

# %% [markdown] name="words-text"
# All of them. C becomes what C became before. It stands in another row now, and that is all that
# changed. For this there are two words, and many articles take the wrong one. With $\Pi$ for any
# reordering of the rows:
#
# $$\text{equivariant: } f(\Pi x) = \Pi f(x) \qquad\qquad \text{invariant: } f(\Pi x) = f(x)$$
#
# Self-attention is permutation-**invariant**, they say: shuffle the tokens, and the result stays as it
# was. Which is it? Run both on the package's attention, with random weights.

# %% name="words"
from vitcourse import vit

torch.manual_seed(0)
attention = vit.Attention(12, 3).double()  # dim, heads
x = torch.randn(2, 7, 12).double()  # (B, T, D)
order = torch.randperm(7)
shuffled_before, shuffled_after = attention(x[:, order]), attention(x)[:, order]
print("equivariant:", torch.allclose(shuffled_before, shuffled_after))
print("invariant:  ", torch.allclose(shuffled_before, attention(x)))

# %% [markdown] name="photo-text"
# Attention is equivariant: shuffled tokens in, the same tokens out, shuffled likewise. All other parts of
# a block treat each token by itself (lesson 05), so the whole encoder is equivariant, too.
#
# Where does invariance come from, then? From what is **read** at the end. Here is the photograph of the
# question, for a ViT without positions, `NoPosition`, and for one with them. (`encode` gives back the
# grid of patches, too. It is not needed here.)

# %% name="photo"
from sklearn.datasets import load_sample_image

photo = torch.tensor(load_sample_image("flower.jpg"))[4:420:2, ::2]  # (H, W, C)
image = photo.permute(2, 0, 1)[None] / 255  # (1, C, H, W)
patches = vit.patchify(image, 16)  # (1, N, P*P*C)
order = torch.randperm(13 * 20)
shuffled = vit.unpatchify(patches[:, order], (13, 20), 16)  # (1, C, H, W)
picture = show.images([image[0], shuffled[0]], ["the image", "shuffled"], size=3)
alt = "A flower; beside it the same 260 patches of 16 x 16 pixels in a random order"
show.figure(picture, alt)

# %% name="readout"
from vitcourse import ViT, make_vit
from vitcourse.parts import NoPosition

print("token or mean     no positions  with positions")
same = {}
for cls in (ViT.variant(Position=NoPosition), ViT):
    torch.manual_seed(0)
    model = make_vit("Nano/16", cls, image=(208, 320), classes=5).double()
    a, b = (model.encode(i.double())[0] for i in (image, shuffled))  # (1, T, D)
    reads = {"class token": (a[:, 0], b[:, 0])}
    reads["mean of patches"] = a[:, 1:].mean(1), b[:, 1:].mean(1)
    reads["first patch"] = a[:, 1], b[:, 1]
    for name, (one, two) in reads.items():
        word = "same" if torch.allclose(one, two) else "differs"
        same.setdefault(name, []).append(word)
for name, words in same.items():
    print(f"{name:18}{words[0]:14}{words[1]}")

# %% [markdown] name="readout-answer"
# So the answer to the question is: nothing happens. Without positions the class token comes out the
# same, and so does the mean of all patches. (The first patch does not: another one stands there now.) A
# classifier that reads one of them gives both images the same answer, right or wrong. It sees a **set**
# of patches, a bag, and not a picture.
#
# - Attention, and the encoder: equivariant.
# - An encoder without positions, and then the class token or the mean: invariant.
#
# Only the second is what the articles mean.

# %% [markdown] name="add-text"
# ## 2 · A vector for each place
#
# The cure is one line: a learned vector for each place, added to the token that stands there, before
# the first block.
#
# $$\mathbf{z}_0 = [\,\mathbf{x}_\text{class};\ \mathbf{x}_p^1 \mathbf{E};\ \dots;\
# \mathbf{x}_p^N \mathbf{E}\,] + \mathbf{E}_{pos}, \qquad
# \mathbf{E}_{pos} \in \mathbb{R}^{(N+1) \times D}$$
#
# In small: two patches of sky, the same to the last pixel, and one of grass. The sky appears twice. Can
# its two tokens become different?

# %% name="add-small"
sky, grass = [2.0, 0.0], [0.0, 1.0]
x = torch.tensor([sky, grass, sky])  # (T, D)
places = torch.tensor([[0.0, 0.5], [0.0, 0.0], [0.0, -0.5]])  # (T, D)
for name, tokens in {"without": x, "with": x + places}.items():
    rows = [[round(number, 2) for number in row] for row in mix(tokens).tolist()]
    print(f"{name:>7} positions: left {rows[0]}  right {rows[2]}")

# %% [markdown] name="add-card"
# ### Exercise: a vector for each place
#
# 5 minutes · difficulty 1 of 3
#
# Write a module `Position(dim, tokens)` with one parameter, `table` of shape (1, T, D). It adds the table
# to the tokens (B, T, D). The class token has a row, too. Begin with small random numbers.
#
# A hint: `check.hint("add_position")`. The solution: `check.solution("add_position")`.


# %% name="add-stub" tags=["exercise"]
class Position(nn.Module):
    """Add a learned vector for each place: x (B, T, D) -> (B, T, D)."""

    def __init__(self, dim, tokens):
        super().__init__()
        self.table = ...

    def forward(self, x): ...


# %% name="add-check" tags=["check"]
check.add_position(Position)

# %% [markdown] name="table-text"
# How large is such a table for a ViT-B/16, whose tokens are 768 wide? Guess. The next cell but one counts
# it, and shows that the package's `LearnedPosition` does nothing but add.

# %% name="table-predict"
check.predict("numbers in the learned position table of ViT-B/16 at 224 x 224", ...)

# %% name="table-count"
position = vit.LearnedPosition(768, (14, 14), prefix_len=1)
x = torch.randn(2, 197, 768)  # (B, T, D)
assert torch.equal(position(x, (14, 14)), x + position.table)
print("ok: LearnedPosition adds its table")
print(f"{tuple(position.table.shape)}: {position.table.numel():,} numbers")

# %% [markdown] name="why-text"
# ### Does adding not spoil the token?
#
# One could also put the position beside the token, so that the two stay apart. The first thing that
# happens to a token is a linear layer. So compare what the layer sees:
#
# $$W(x + p) = Wx + Wp \qquad\qquad [A\ B]\begin{bmatrix}x\\p\end{bmatrix} = Ax + Bp$$
#
# Both are sums of a part that depends on the content and one that depends on the place. Adding is
# concatenation with $A = B$. It goes the other way, too: if the tokens leave some channels at zero, and
# the positions use only those, then adding **is** concatenation. A model with enough channels can learn
# to keep the two apart. And what would it cost to have twice the channels? The last lines count.

# %% name="why"
torch.manual_seed(0)
W, x, p = torch.randn(3, 4), torch.randn(4), torch.randn(4)
added = W @ (x + p)
assert torch.allclose(added, W @ x + W @ p)
beside = torch.cat([W, W], dim=1) @ torch.cat([x, p])
assert torch.allclose(added, beside, atol=1e-6)
print("ok: a layer on x + p equals a layer [W W] on x and p side by side")
zeros = torch.zeros(4)
apart = torch.cat([x, zeros]) + torch.cat([zeros, p])
assert torch.equal(apart, torch.cat([x, p]))
print("ok: added in channels of their own, x and p stand side by side")
for dim in (768, 2 * 768):
    print(f"width {dim:4}: {3 * dim * dim:,} weights for q, k and v in each block")

# %% [markdown] name="plane-text"
# ### Where does a ViT meet the plane?
#
# The table has a row for each place. Does the model know which places are neighbours? Predict: which of
# these changes can you make up for, by reordering numbers **inside** the model, so that its output stays
# what it was?
#
# 1. In all images, the patches are shuffled, always in the same way.
# 2. In all patches, the values are shuffled, always in the same way.
# 3. In all images, pixels wander from patch to patch, always in the same way.

# %% name="plane"
import copy

torch.manual_seed(0)
model = make_vit("Nano/4", image=(16, 24), classes=5).double()
vit.truncated_normal_(model.position.table, std=0.5)
images = torch.randn(2, 3, 16, 24).double()  # (B, C, H, W)
patches = vit.patchify(images, 4)  # (B, N, P*P*C), N = 24, P*P*C = 48
order, inside = torch.randperm(24), torch.randperm(48)
other = copy.deepcopy(model)
changed = vit.unpatchify(patches[:, order][..., inside], (4, 6), 4)
before = model.encode(images)[0][:, 0]  # the class token, (B, D)
print("same class token:", torch.allclose(before, other.encode(changed)[0][:, 0]))
weight = model.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1)  # (D, P*P*C)
weight = weight[:, inside].unflatten(1, (4, 4, 3)).permute(0, 3, 1, 2)
with torch.no_grad():
    other.position.table[:, 1:] = model.position.table[:, 1:][:, order]
    other.patch_embed.proj.weight.copy_(weight)
print("after reordering:", torch.allclose(before, other.encode(changed)[0][:, 0]))

# %% [markdown] name="plane-answer"
# The first two leave nothing to be noticed: reorder the rows of the table, and the weights of the
# projection, and the model gives the same output. So pictures, and pictures that are scrambled in one
# fixed way, are equally hard **to learn**. A ViT starts without any idea of neighbours, rows or columns.
#
# The third cannot be made up for in this way. A patch is a square of pixels that belong together, and
# each token sees one. **Cutting** is the first place where a ViT meets the plane. The second is in part
# 5. In between there is none.

# %% [markdown] name="task-text"
# ## 3 · A task that needs positions
#
# A red and a blue object. The question: is the red one further left? The images come in pairs. In the
# second of a pair the two objects have changed places, and nothing else has changed, so the label is the
# other one.

# %% name="task"
from vitcourse import data

relation = data.load("shapes", task="relation", train=2400, test=400)
names = ["red right", "red left"]
titles = [names[label] for label in relation.test_labels[:8]]
picture = show.images(relation.test_images[:8], titles, size=1.15)
alt = "Four pairs of images: a red and a blue object, which change places in each pair"
show.figure(picture, alt)

# %% [markdown] name="task-predict"
# An object fills at most one patch of 8 x 8 pixels. So the two images of a pair hold the same 16 patches
# in another order.
#
# Take a model without positions. It has any weights whatever, and is tested on these 400 images. What is
# its accuracy? About a half, or exactly a half?

# %% name="task-pairs"
patches = vit.patchify(relation.test_images, 8)  # (B, N, P*P*C)
bags = [sorted(image) for image in patches.tolist()]  # sorted, so without an order
assert bags[0::2] == bags[1::2]
print("ok: the two images of each pair hold the same patches")
images = relation.normalise(relation.test_images).double()  # (B, C, H, W)
for seed in range(3):
    torch.manual_seed(seed)
    cls = ViT.variant(Position=NoPosition)
    model = make_vit("Nano/8", cls, image=32, classes=2).double()
    nn.init.normal_(model.head.weight)  # the head begins at zero: all answers alike
    logits = model(images)  # (B, classes)
    assert torch.allclose(logits[0::2], logits[1::2])
    right = (logits.argmax(dim=1) == relation.test_labels).sum().item()
    print(f"seed {seed}: both images of a pair get one answer, right: {right} of 400")

# %% [markdown] name="train-text"
# Exactly a half: one of each pair is right. No training can change that, no larger model, and no more
# data.
#
# Now with a table. The recipe begins with positions that are far apart (`position_std`); part 4 shows
# why.

# %% name="train" tags=["nbval-ignore-output"]
from vitcourse import train

recipe = train.Recipe(model="Nano/8", epochs=8, batch=64, lr=1e-3, warmup=0.2)
recipe = recipe.but(position_std=0.5, gain=1.0, seed=2, evaluate_every=8)
seer = train.build_model(recipe, relation)
start = seer.position.table.detach().clone()  # (1, T, D)
run = train.fit(seer, relation, recipe, device="cpu", quiet=True)
print(f"with a learned position for each place: {run.accuracy:.2f}")

# %% name="train-bound"
assert run.accuracy > 0.8  # a half by guessing
print("ok: with positions it can tell left from right")

# %% [markdown] name="kinds-text"
# ## 4 · Which kind?
#
# | kind | what there is | where it enters |
# |---|---|---|
# | none | nothing | |
# | learned 1-D | a vector for each token | added to the tokens |
# | learned 2-D | half a vector for each column and each row | added to the tokens |
# | sin-cos | fixed waves, nothing learned | added to the tokens |
# | relative 1-D | a vector for each offset in the sequence | in the score |
# | relative 2-D | a number for each offset (dy, dx) and head | in the score |
#
# The table of part 2 is the learned 1-D kind. It knows no columns. One could give them to it: the
# vector of a place is then that of its column, followed by that of its row. Here are columns a, b, c,
# rows 1, 2, and the places that they make.

# %% name="columns"
places = [column + row for row in "12" for column in "abc"]
print("in the order of the patches:", places)
question = "numbers in the tables of columns and rows, for 14 x 14 patches of width 768"
check.predict(question, ...)

# %% [markdown] name="columns-card"
# ### Exercise: columns and rows
#
# 15 minutes · difficulty 3 of 3
#
# Write `position_2d(columns, rows)`. It takes a vector for each column (w, D/2) and for each row (h, D/2),
# and makes the table (h*w, D): row by row, as the patches come. In each vector the half of the column
# comes first. For yourself, loops are fine. Can you do without?
#
# A hint: `check.hint("position_2d")`. The solution: `check.solution("position_2d")`.


# %% name="columns-stub" tags=["exercise"]
def position_2d(columns, rows):
    """Columns (w, D/2) and rows (h, D/2) -> the table of all places (h*w, D)."""
    ...


# %% name="columns-check" tags=["check"]
check.position_2d(position_2d)

# %% [markdown] name="waves-text"
# ### Waves, in which nothing is learned
#
# A fixed table can be made of waves. In one dimension, the vector of place $x$ holds sine and cosine of
# $x$ for several frequencies $\omega_k$, from fast to slow:
#
# $$[\sin(\omega_k x), \cos(\omega_k x)], \qquad \omega_k = 10000^{-k/(n-1)}, \quad k = 0 \dots n-1$$
#
# Each place gets a pattern of its own. And the dot product of two places is
# $\sum_k \cos(\omega_k (x - x'))$: it depends on how far apart they are, and not on where they are. For
# an image, a quarter of the channels each go to $\sin x$, $\cos x$, $\sin y$ and $\cos y$.

# %% name="waves"
n, x = 6, torch.arange(24)[:, None]
frequency = 10000.0 ** -(torch.arange(n) / (n - 1))  # (n,)
waves = torch.cat([(x * frequency).sin(), (x * frequency).cos()], dim=1)  # (24, 2n)
products = waves @ waves.T  # (24, 24)
by_distance = (x - x.T)[..., None].mul(frequency).cos().sum(dim=-1)  # (24, 24)
assert torch.allclose(products, by_distance, atol=1e-3)
print("ok: the product of two places depends on their distance alone")
titles = ["12 channels, 24 places", "products / n"]
picture = show.heatmaps([waves.T, products / n], titles, size=3)
alt = "Left: fast and slow waves. Right: products, the same along each diagonal"
show.figure(picture, alt)

# %% [markdown] name="sincos-card"
# ### Exercise: waves for a grid
#
# 15 minutes · difficulty 3 of 3
#
# Write `sincos(dim, h, w)`, the table (h*w, D). Each row holds [sin x, cos x, sin y, cos y], each for D/4
# frequencies `1 / 10000 ** (k / (D/4 - 1))`. x is the column and y the row, both counted from 0.
#
# Other conventions exist: MAE divides by D/4, timm puts both sines first. So weights that were trained
# with one table do not fit another.
#
# A hint: `check.hint("sincos")`. The solution: `check.solution("sincos")`.


# %% name="sincos-stub" tags=["exercise"]
def sincos(dim, h, w):
    """The fixed table of a grid (h*w, D): sin x, cos x, sin y, cos y."""
    ...


# %% name="sincos-check" tags=["check"]
check.sincos(sincos)

# %% [markdown] name="offset-text"
# ### How far is it from here?
#
# The relative kinds do not say where a token is. They say how far a key is from the query, and add
# something to the score of the two. Counted in the sequence, that can mislead. Six patches in a grid of
# 2 x 3, numbered as they come. 2 and 3 are neighbours in the sequence. In the image?

# %% name="offset-small"
h, w = 2, 3
for query, key in [(1, 0), (3, 2), (3, 0), (4, 1)]:
    (qy, qx), (ky, kx) = divmod(query, w), divmod(key, w)
    offset = (qy - ky, qx - kx)
    print(f"{query} from {key}: {query - key} in the sequence, {offset} in the grid")
check.predict("different offsets (dy, dx) in a grid of 14 x 14", ...)

# %% [markdown] name="offset-card"
# ### Exercise: offsets in a grid
#
# 10 minutes · difficulty 2 of 3
#
# Write `relative_offset(h, w)`. For every query and every key it gives (dy, dx), query minus key, as whole
# numbers (h*w, h*w, 2).
#
# A hint: `check.hint("relative_offset")`. The solution: `check.solution("relative_offset")`.


# %% name="offset-stub" tags=["exercise"]
def relative_offset(h, w):
    """Offsets (dy, dx) of all queries and keys: whole numbers (h*w, h*w, 2)."""
    ...


# %% name="offset-check" tags=["check"]
check.relative_offset(relative_offset)

# %% [markdown] name="cost-text"
# ### What they cost
#
# All six for the sizes of a ViT-B/16 at 224 x 224. What is added to tokens is there once. What enters the
# score is there in each of the 12 blocks.

# %% name="cost"
from vitcourse import parts

grid = (14, 14)
added = dict(none=parts.NoPosition)
added |= {"learned 1-D": vit.LearnedPosition, "learned 2-D": parts.LearnedPosition2D}
added |= {"sin-cos": parts.SinCosPosition}
for name, cls in added.items():
    numbers = sum(table.numel() for table in cls(768, grid, 1).parameters())
    print(f"{name:12} {numbers:8,}")
for cls in (parts.RelativeAttention1D, parts.RelativeAttention2D):
    name = "relative " + cls.__name__[-2] + "-D"
    attention = cls.on(grid)(768, 12)
    print(f"{name:12} {12 * attention.position_table.numel():8,}")

# %% [markdown] name="paper-text"
# (The 10,752 of your prediction and 768 more: the class token has a vector of its own.)
#
# ### Which is best?
#
# The authors of ViT compared. These are their figures, from the paper's appendix: per cent right on
# ImageNet, five examples a class, ViT-B/16.
#
# | none | learned 1-D | learned 2-D | relative 1-D |
# |---|---|---|---|
# | 61.4 | 64.2 | 64.0 | 64.0 |
#
# Articles conclude: any position is better than none, and which one hardly matters. Is it so in a small
# model, too? Predict: on digits of 8 x 8 pixels, in 16 patches, how far behind is the model without
# positions? And does it matter how large the numbers of a table are when training begins?

# %% name="claim"
record = show.recorded("claim-positions")
print(show.origin(record))
mean = {name: figure["mean"] for name, figure in record["figures"].items()}
spread = {name: figure["spread"] for name, figure in record["figures"].items()}
digits = [name for name in mean if name.startswith("digits")]
means, errors = ({n[8:]: d[n] for n in digits} for d in (mean, spread))
picture = show.bars(means, "accuracy on digits", errors)
alt = (
    "Accuracy on digits. None 0.74. Begun wide, the four learned kinds reach 0.96 to "
    "0.97, begun small 0.74 to 0.89. Sin-cos reaches 0.91."
)
show.figure(picture, alt)
kinds = ["learned 1-D", "learned 2-D", "relative 1-D", "relative 2-D"]
wide = [means[f"{kind}, wide"] for kind in kinds]
small = [means[f"{kind}, small"] for kind in kinds]
gains = [a - b for a, b in zip(wide, small, strict=True)]
print(f"the four kinds begun wide differ by  {max(wide) - min(wide):.3f}")
print(f"the four kinds begun small differ by {max(small) - min(small):.3f}")
print(f"begun wide, each gains at least      {min(gains):.3f}")
print(f"the best is ahead of none by         {max(wide) - means['none']:.3f}")

# %% [markdown] name="claim-answer"
# Here it is different, in three ways.
#
# - No positions cost more: over 15 points against sin-cos and every kind that begins wide, where the paper
#   has three.
# - "All are close" holds for the four learned kinds, **if** their numbers begin wide: with a standard
#   deviation of 0.5, and of 2 for relative 2-D. Begun at 0.02, as in large models, they lie far apart,
#   and relative 2-D is no better than none.
# - How a table begins matters more than its kind.
#
# The reason is likely the length of training: 308 steps, in which numbers of 0.02 have little time to
# grow. Carry neither result over to a model of another size without measuring.

# %% [markdown] name="relation-text"
# The same kinds on the task of part 3, all begun wide, the same short training for all. One of them
# surprises.

# %% name="claim-relation"
names = [name for name in mean if name.startswith("relation")]
means, errors = ({n[10:]: d[n] for n in names} for d in (mean, spread))
picture = show.bars(means, "accuracy: red left or right of blue", errors, mark=0.5)
alt = (
    "Accuracy on left or right. None is at a half, dashed. Four kinds are at about "
    "0.98 or above; relative 2-D is at 0.74 with a wide spread."
)
show.figure(picture, alt)
seeds = record["figures"]["relation, relative 2-D, wide"]["each"]
print("relative 2-D, seed by seed:", [round(accuracy, 2) for accuracy in seeds])

# %% [markdown] name="relation-answer"
# Without positions, a half, as it must be. Relative 2-D was among the best on digits, and here one run has
# learned nothing, and one half of it. A token with an offset still does not know where it is: red has to
# find blue, and notice in which direction it found it. That can be learned, as the best run shows, but
# the way there is long.
#
# In relative 1-D the class token takes part in the count. Its offset to a patch **is** the patch's place,
# so this kind has absolute positions in disguise.

# %% [markdown] name="larger-text"
# ## 5 · A larger image
#
# A ViT-B/16 is trained at 224 x 224, so its table has 14 x 14 rows, and one for the class token. At 384 x
# 384 there are 24 x 24 patches. Everything else in it works for any number of tokens. The table has too
# few rows.
#
# The remedy: look at the table as a picture of 14 x 14 pixels with D channels, and enlarge it. But how?
# Enlarge a single row of four numbers to eight, in five ways that published code uses.

# %% name="conventions"
from scipy.ndimage import zoom

ways = {
    "bilinear": dict(mode="bilinear"),
    "bilinear, aligned": dict(mode="bilinear", align_corners=True),
    "bicubic": dict(mode="bicubic"),
    "bicubic, antialias": dict(mode="bicubic", antialias=True),
}
row = torch.tensor([[[[0.0, 10.0, 20.0, 90.0]]]])  # (1, D, h, w)
results = {way: F.interpolate(row, (1, 8), **ways[way]) for way in ways}
results["scipy zoom"] = torch.tensor(zoom(row.numpy(), (1, 1, 1, 2), order=1))
for way, numbers in results.items():
    print(f"{way:19}", " ".join(f"{n + 0.0:6.1f}" for n in numbers.flatten().tolist()))

# %% [markdown] name="conventions-text"
# "Aligned" places the first and the last number on the ends. The others treat numbers as pixels with a
# width. Antialiasing is there for making smaller, and changes the cubic curve when you make larger, too.
#
# Now a whole table, 14 x 14 to 24 x 24, of normal random numbers. The largest difference of any two:

# %% name="differences"
torch.manual_seed(0)
table = torch.randn(1, 6, 14, 14)  # (1, D, h, w)
results = {way: F.interpolate(table, (24, 24), **ways[way]) for way in ways}
factors = (1, 1, 24 / 14, 24 / 14)
results["scipy zoom"] = torch.tensor(zoom(table.numpy(), factors, order=1))
print(" " * 21 + "     ".join(str(number) for number in range(1, 6)))
for number, (way, one) in enumerate(results.items(), 1):
    row = [(one - other).abs().max().item() for other in results.values()]
    print(f"{number} {way:18}", "  ".join(f"{value:.2f}" for value in row))

# %% [markdown] name="differences-answer"
# The authors of ViT used scipy's zoom, which is bilinear with aligned corners. Articles print PyTorch
# code that is said to do the same, with corners that are not aligned. timm uses bicubic with
# antialiasing, and so does this package, unless you ask for `method = "bilinear"`.
#
# None is wrong. But whoever loads somebody's weights and wants their accuracy to the last digit has to
# take their way.

# %% [markdown] name="resize-card"
# ### Exercise: fit a table to a larger image
#
# 15 minutes · difficulty 3 of 3
#
# Write `resize_positions(table, old, new)`: the table (1, 1+h*w, D) of the grid `old` becomes that of the
# grid `new`, both (h, w). Bicubic, with antialiasing. The class token has no place in the image, so its
# row, the first, stays as it is.
#
# A hint: `check.hint("resize_positions")`. The solution: `check.solution("resize_positions")`.


# %% name="resize-stub" tags=["exercise"]
def resize_positions(table, old, new):
    """A table (1, 1+h*w, D) of the grid old -> one of the grid new."""
    ...


# %% name="resize-check" tags=["check"]
check.resize_positions(resize_positions)

# %% [markdown] name="square-text"
# ### A published mistake
#
# The code in two articles does not ask for the old grid. It takes the root of the number of rows. (It
# also writes to a `_logger` that is defined nowhere, so it does not run as printed.) Here is that step,
# on a table for 2 x 8 patches, whose vectors hold their own (y, x). Enlarged to 4 x 16, which place will
# the patch in the top right corner get?

# %% name="square"
y, x = torch.arange(2).repeat_interleave(8), torch.arange(8).repeat(2)
places = torch.stack([y, x], dim=1).float()  # (N, D), D = 2
side = int(len(places) ** 0.5)
for name, grid in {"published": (side, side), "as it is ": (2, 8)}.items():
    plane = places.T.unflatten(1, grid)[None]  # (1, D, h, w)
    larger = F.interpolate(plane, (4, 16), mode="bicubic", antialias=True)[0]
    last = [round(number, 1) + 0.0 for number in larger[:, 0, -1].tolist()]
    print(f"{name}: grid {grid}, top right corner is (y, x) = {last}")

# %% [markdown] name="square-answer"
# Nothing complains, since 2 x 8 and 4 x 4 are both 16. But the first row of the wrong grid ends at x = 3,
# in the middle of the image. (The right one is a little beyond 7: bicubic curves overshoot.)
#
# ### On a trained model
#
# Back to the model of part 3, which needs its positions. It knows 4 x 4 patches. Make larger pictures of 8
# x 8 patches: each of the 16 patches goes to every other place, and the gaps are filled with the
# background. The question stays: is red left of blue? (Both are drawn at one size here. A patch has 8 x 8
# pixels in both.)

# %% name="large"
cells = vit.patchify(relation.test_images, 8)  # (B, 16, P*P*C)
empty = cells.median(dim=1).values  # (B, P*P*C), the background: most patches hold it
large = empty[:, None, None].repeat(1, 8, 8, 1)  # (B, 8, 8, P*P*C)
large[:, ::2, ::2] = cells.unflatten(1, (4, 4))
large = vit.unpatchify(large.flatten(1, 2), (8, 8), 8)  # (B, C, 64, 64)
titles = ["4 x 4 patches", "8 x 8 patches"]
picture = show.images([relation.test_images[0], large[0]], titles, size=2.2)
alt = "A red and a blue object; beside it a picture of 8 x 8 patches with the same two"
show.figure(picture, alt)

# %% [markdown] name="large-text"
# Four tables for the larger picture. `resize_position` treats the rows as a plane, and leaves that of the
# class token alone. The second stretches the whole sequence of 17 rows to 65. The third repeats the 16
# rows until there are enough. The fourth has zeros where rows are missing. Rank them first. Can one be
# worse than guessing?

# %% name="large-tables" tags=["nbval-ignore-output"]
table = seer.position.table.detach()  # (1, 17, D)
sequence = F.interpolate(table.transpose(1, 2), 65, mode="linear").transpose(1, 2)
tables = {
    "as a plane": vit.resize_position(table, (4, 4), (8, 8), prefix_len=1),
    "as a sequence": sequence,
    "repeated": torch.cat([table[:, :1], table[:, 1:].repeat(1, 4, 1)], dim=1),
    "zeros": F.pad(table, (0, 0, 0, 48)),
}
accuracy = {}
for name, larger in tables.items():
    model = copy.deepcopy(seer)
    model.position.grid = (8, 8)
    model.position.table = nn.Parameter(larger)  # (1, 65, D)
    with torch.no_grad():
        hits = model(relation.normalise(large)).argmax(dim=1) == relation.test_labels
    accuracy[name] = hits.float().mean().item()
    print(f"{name:14} {accuracy[name]:.2f}")

# %% name="large-bound"
assert accuracy["as a plane"] > 0.8
assert max(accuracy["repeated"], accuracy["zeros"]) < 0.8
assert accuracy["as a sequence"] < 0.5  # worse than guessing
print("ok: interpolated as a plane, the table serves pictures of four times the size")

# %% [markdown] name="large-why"
# As a plane, the model answers for pictures that it was never trained on. Why is the sequence worse than
# guessing? Look where a row of the larger picture takes its positions from.

# %% name="large-origin"
for column in (0, 2, 4, 6):  # where the 4 patches of a row went; this is row 2
    place = 1 + 2 * 8 + column  # in the sequence of 65
    old = (place + 0.5) * 17 / 65 - 0.5 - 1  # where that is among the 16 patches
    row, rest = divmod(old, 4)
    print(f"column {column}: from row {row:.0f}, column {rest:.1f}")

# %% [markdown] name="large-answer"
# The row of the class token takes its share of the sequence and moves all others along. The left edge gets
# the position of the right edge of the row above. Left and right have changed sides, and the model
# answers accordingly.
#
# So this is the second place where a ViT meets the plane. **Cutting and interpolating**: all else that it
# knows of rows and columns, it has learned. A real larger photograph also shows other things in a patch
# than a small one, so a little fine-tuning follows. That is lesson 09.

# %% [markdown] name="learned-text"
# ## 6 · What a table learns
#
# The usual picture: for each place, how alike its vector and those of all others are, by cosine. One
# reads that near places get similar vectors, and that rows and columns show.
#
# Take the model of part 3, on its 4 x 4 patches. Its table began with random numbers, so look at what
# training has **added** to them. Predict: its task was left or right. Will rows show, or columns, or
# both?

# %% name="learned" tags=["nbval-ignore-output"]
from vitcourse import probe

added = seer.position.table.detach() - start  # (1, 17, D)
alike = probe.position_similarity(added, (4, 4))  # (h, w, h, w)
picture = show.heatmaps(alike.flatten(0, 1), columns=4, size=1.0, limits=(-1, 1))
alt = "16 maps of 4 x 4: most places on one side are alike, and unlike the other side"
show.figure(picture, alt)
y, x = torch.arange(4).repeat_interleave(4), torch.arange(4).repeat(4)
same_row, same_column, pairs = y[:, None] == y, x[:, None] == x, alike.reshape(16, 16)
in_column = pairs[same_column & ~same_row].mean().item()
in_row = pairs[same_row & ~same_column].mean().item()
print(f"two places of one column: {in_column:.2f}, of one row: {in_row:.2f}")

# %% name="learned-bound"
assert in_column > 0.3 and in_row < 0.2
print("ok: it has learned columns, and no rows")

# %% [markdown] name="learned-answer"
# Each small map belongs to one place. In most of them the columns on the same side are red, those on the
# other side are blue, and one row looks like the next. The outer columns are the clearest: red in the first
# column is left of blue, wherever blue is. **The table has learned what the task needs.**
#
# So what about a task for which places hardly matter? The course's `shapes` model names the form and
# colour of one object that lies anywhere. Here is its table of 8 x 8 places, beside one before training
# and beside waves.

# %% name="shapes"
torch.manual_seed(0)
shapes = data.trained("shapes").position.table.detach()[:, 1:]  # (1, N, D)
fresh = make_vit("Nano/4", image=32, classes=8).position.table.detach()[:, 1:]
tables = {"new": fresh, "shapes": shapes, "sin-cos": parts.sincos(48, (8, 8))}
y, x = torch.arange(8).repeat_interleave(8), torch.arange(8).repeat(8)
steps = (y[:, None] - y).abs() + (x[:, None] - x).abs()  # (N, N), from place to place
maps = []
print("steps apart  " + "  ".join(f"{k:4}" for k in (1, 2, 3, 5)))
for name, table in tables.items():
    alike = probe.position_similarity(table, (8, 8))  # (h, w, h, w)
    maps.append(alike[2, 3])
    near = [alike.reshape(64, 64)[steps == k].mean().item() for k in (1, 2, 3, 5)]
    print(f"{name:11}  " + "  ".join(f"{round(v, 2) + 0.0:4.2f}" for v in near))
picture = show.heatmaps(maps, list(tables), size=2.2, limits=(-1, 1))
alt = (
    "How alike the place in row 2, column 3 is to all others. New: to none. Shapes: a "
    "little to most. Sin-cos: to all, most to its own row and column."
)
show.figure(picture, alt)

# %% [markdown] name="shapes-answer"
# A new table knows nothing: the cosines are near zero. That of `shapes` has learned a little: neighbours
# are somewhat more alike than places further off. The waves have near and far built in, before any
# training.
#
# Move through the table of `shapes` yourself: point at a place, or use the arrow keys. Compare a place at
# the edge with one inside.

# %% name="explore"
alt = (
    "The similarity of one place to all 8 x 8 others, for a place that can be chosen. "
    "Places at the edge are more like each other than like those inside."
)
show.explore_positions(shapes[0], (8, 8), alt=alt)
edge = (y % 7 == 0) | (x % 7 == 0)
alike = probe.position_similarity(shapes, (8, 8)).reshape(64, 64)
for name, part in {"edge": edge, "inside": ~edge}.items():
    pairs = part[:, None] & part & (steps > 0)
    print(f"{name:6}: two places are alike by {alike[pairs].mean():.2f}")
accuracy = data.models.card("shapes")["metrics"]["test_accuracy"]
print(f"accuracy of this model on its test images: {accuracy:.3f}")

# %% [markdown] name="edge-answer"
# The edge is a frame of its own kind. Rows and columns hardly show, and the model does without.
#
# The picture that articles show, with rows and columns in every map, is Figure 7 of the paper, for a
# ViT-L/32. It is a finding about a large model after long training. It is no law, and no property of the
# table.

# %% [markdown] name="remember"
# ## Remember
#
# - Attention and the encoder are permutation-**equivariant**. Invariant is only what reads the class token
#   or the mean of a model without positions: it sees a bag of patches.
# - Positions are added. Concatenation is a special case of it, with more channels.
# - On left or right, a model without positions is right in exactly half of all cases.
# - "All kinds are close" depends on size, training and how the numbers begin.
# - A ViT meets the plane in two places: cutting and interpolating. The row of the class token stays, and
#   whose convention a table follows matters.
# - A table learns what its task needs.
#
# Before: [02 the class token](02-class-token.ipynb). Next: [04 attention](04-attention.ipynb), the one
# line of part 1 at its full size.
#
# [Glossary](../docs/glossary.md).
