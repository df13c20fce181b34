# %% [markdown] name="title"
# # 01 · Patches
#
# A Transformer reads a sequence of vectors. A photograph is not a sequence: it is a grid of pixels in
# three colours. This lesson turns the one into the other.
#
# You cut an image into patches, put it back together, and project every patch to a vector. At the end
# your code gives the same numbers as `PatchEmbed`, the first part of the package's ViT.
#
# **One question first.** Every pixel could be a token by itself, and nothing would have to be cut. What
# speaks against it?

# %% name="setup"
import torch
from einops import rearrange
from sklearn.datasets import load_sample_image

from vitcourse import check, show

# %% [markdown] name="why-text"
# ## Why not one token a pixel?
#
# In attention each token looks at each token, so $T$ tokens make a map of $T \times T$ numbers. BERT, the
# language model that ViT takes after, reads at most 512 tokens. Guess first: write numbers in place of
# the dots, and run the cell. (The photograph of lesson 00 was cut into 260 patches.)

# %% name="why-predict"
check.predict("tokens, if every pixel of an image of 224 x 224 were one", ...)
check.predict("comparisons, if each of 260 patches is compared with every patch", ...)

# %% name="why-count"
inputs = {"BERT": 512, "every pixel": 224 * 224, "patches of 16": (224 // 16) ** 2}
for name, tokens in inputs.items():
    numbers = tokens**2
    megabytes = numbers * 4 / 1e6  # 4 bytes for a float32
    print(f"{name:13} {tokens:6,} tokens  {numbers:13,} numbers  {megabytes:8,.1f} MB")
print(f"pixels against BERT: {224 * 224 / 512:.0f} times the tokens")

# %% [markdown] name="why-answer"
# That is **one** map. ViT-B computes twelve in each of its twelve blocks. One map over all pixels takes
# ten gigabytes. A fused kernel can avoid storing it, but it still has to compute all 2.5 billion
# numbers.
#
# Pixels are many, and one pixel says little. A patch of 16 x 16 pixels says more, and there are 256 times
# fewer of them, so a map has 65,536 times fewer numbers.

# %% [markdown] name="small-text"
# ## An image whose pixels tell where they are
#
# To see what cutting does, take an image of 6 x 10 grey pixels. The value of a pixel is its place: 47
# is row 4, column 7. Patches of 2 x 2 pixels make a grid of $h = 3$ rows and $w = 5$ columns, so
# $N = 15$.

# %% name="small-image"
image = 10 * torch.arange(6)[:, None] + torch.arange(10)  # (H, W)
print(image)

# %% [markdown] name="loop-text"
# ## v1: two loops
#
# Walk over the image, from left to right and from top to bottom, as you read a page. Cut out one square
# after the other and write its pixels in one line, again row by row.


# %% name="loop"
def cut_v1(image, patch):
    patches = []
    for y in range(0, image.shape[0], patch):
        for x in range(0, image.shape[1], patch):
            square = image[y : y + patch, x : x + patch]  # (P, P)
            patches.append(square.flatten())  # (P*P)
    return torch.stack(patches)  # (N, P*P)


patches = cut_v1(image, 2)
print(tuple(patches.shape))
print("patch 0:", patches[0].tolist(), " patch 1:", patches[1].tolist())
print("patch 5:", patches[5].tolist())
squares = patches.unflatten(1, (2, 2))
titles = [f"patch {n}" for n in range(15)]
picture = show.heatmaps(squares, titles, columns=5, size=1.1, numbers=True)
text = "15 patches of 2 x 2 pixels in a grid; patch 5 begins the second row, with 20"
show.figure(picture, alt=text)

# %% [markdown] name="reshape-text"
# ## v2: reshape, permute, reshape
#
# The loops are slow. The same in three steps, without a loop:
#
# 1. Split both sides. An axis of $H = h \cdot P$ pixels is $h$ pieces of $P$.
# 2. Bring the two axes that count patches to the front.
# 3. Join: $h$ and $w$ become $N$, and the two $P$ become $P \cdot P$.
#
# Only the second step changes the order of the numbers. The others give new names to what is there.


# %% name="reshape"
def cut_v2(image, patch):
    h, w = image.shape[0] // patch, image.shape[1] // patch  # new
    x = image.reshape(h, patch, w, patch)  # (h, P, w, P)    # new
    x = x.permute(0, 2, 1, 3)  # (h, w, P, P)                # new
    return x.reshape(h * w, patch * patch)  # (N, P*P)       # new


assert torch.equal(cut_v2(image, 2), cut_v1(image, 2))
print("ok: v2 gives the patches of v1")

# %% [markdown] name="einops-text"
# ## v3: einops
#
# `rearrange` takes the three steps from a pattern. Left of the arrow stands what goes in, right of it
# what comes out. Brackets hold axes that are joined: `(h p)` is a side of $h$ pieces of $p$ pixels, and
# the order in the brackets counts.


# %% name="einops"
def cut_v3(image, patch):
    pattern = "(h p) (w q) -> (h w) (p q)"  # new
    return rearrange(image, pattern, p=patch, q=patch)  # new


assert torch.equal(cut_v3(image, 2), cut_v1(image, 2))
print("ok: v3 gives the patches of v1")

# %% [markdown] name="colour-text"
# ## The order inside a patch of three colours
#
# A pixel has a red, a green and a blue value. Torch stores an image as (C, H, W): all of red, then all of
# green, then all of blue. In a flattened patch, the three values of a pixel stand side by side, and the
# pixels follow row by row. In einops: `(p q C)`. Other orders would do as well, if everybody kept to them.
#
# So an image becomes $N$ rows of $P^2 C$ values. In the paper's letters:
#
# $$N = HW / P^2, \qquad \mathbf{x}_p \in \mathbb{R}^{N \times (P^2 \cdot C)}$$
#
# Look at the order in the next cell. In the one after it, predict three counts.

# %% name="colour-order"
one = [[[f"{c}{y}{x}" for x in range(2)] for y in range(2)] for c in "rgb"]  # (C, P, P)
flat = [one[c][y][x] for y in range(2) for x in range(2) for c in range(3)]  # (P*P*C)
print("stored:", one)
print("patch: ", flat)

# %% name="count-predict"
check.predict("patches of 16 x 16 in an image of 224 x 224", ...)
check.predict("values in a patch of 16 x 16 in three colours", ...)
check.predict("patches of 8 x 8 in an image of 224 x 224", ...)

# %% [markdown] name="patch-values-card"
# ### Exercise: the size of a patch
#
# 3 minutes · difficulty 1 of 3
#
# A colour image of 256 x 256 pixels is cut into patches of 32 x 32. How many values has one patch?
#
# A hint: `check.hint("patch_values")`. The solution: `check.solution("patch_values")`.

# %% name="patch-values-stub" tags=["exercise"]
patch_values = ...

# %% name="patch-values-check" tags=["check"]
check.patch_values(patch_values)

# %% [markdown] name="patchify-card"
# ### Exercise: cut images into patches
#
# 10 minutes · difficulty 2 of 3
#
# Write `patchify(images, patch)` for a whole batch in colour: (B, C, H, W) becomes (B, N, P\*P\*C). The
# patches come row by row; inside a patch the pixels come row by row, the channels of a pixel side by side.
# Use loops, reshape or einops: cutting one grey image, above, is the start.
#
# A hint: `check.hint("patchify")`. The solution: `check.solution("patchify")`.


# %% name="patchify-stub" tags=["exercise"]
def patchify(images, patch):
    """Cut images into patches: (B, C, H, W) -> (B, N, P*P*C)."""
    ...


# %% name="patchify-check" tags=["check"]
check.patchify(patchify)

# %% [markdown] name="unpatchify-card"
# ### Exercise: put the patches back
#
# 10 minutes · difficulty 2 of 3
#
# Write `unpatchify(patches, grid, patch)`: it undoes `patchify`. The patches are (B, N, P\*P\*C), `grid` is
# the pair (h, w), and the images that come out are (B, C, H, W). C is what is left when P\*P is taken
# out of the last axis.
#
# A hint: `check.hint("unpatchify")`. The solution: `check.solution("unpatchify")`.


# %% name="unpatchify-stub" tags=["exercise"]
def unpatchify(patches, grid, patch):
    """Put the patches of a grid (h, w) back: (B, N, P*P*C) -> (B, C, H, W)."""
    ...


# %% name="unpatchify-check" tags=["check"]
check.unpatchify(unpatchify)

# %% [markdown] name="photo-text"
# ## A photograph, cut and put back
#
# From here on the lesson uses the package's versions, so that nobody is stuck. The photograph is 288 x 320
# pixels. Cutting loses nothing: every pixel is in one patch and in no other. In the picture below the next
# cell, point at a patch.

# %% name="photo"
from vitcourse import vit

flower = load_sample_image("flower.jpg")[80:368, 144:464]  # (H, W, C)
photo = torch.tensor(flower).permute(2, 0, 1)[None]  # (B, C, H, W)
pieces = vit.patchify(photo, 32)  # (B, N, P*P*C)
back = vit.unpatchify(pieces, (9, 10), 32)  # (B, C, H, W)
print(f"{tuple(photo.shape)} -> {tuple(pieces.shape)} -> {tuple(back.shape)}")
assert torch.equal(back, photo)
print("ok: every pixel is back in its place")

# %% name="explore"
text = "A dahlia of 288 x 320 pixels, cut into 9 x 10 patches of 32 x 32 pixels"
show.explore_patches(flower, 32, alt=text)

# %% [markdown] name="trap-text"
# ## The wrong patches of the right shape
#
# The paper says that the image is *reshaped* into patches, and articles repeat it. Take the word as torch
# does: one `reshape` makes (1, 90, 3072) of this photograph, which is the shape that `patchify` gives. No
# error appears, and every later layer accepts the result. Predict: what is in these "patches"?

# %% name="trap"
wrong = photo.reshape(1, 90, 32 * 32 * 3)  # no permute
print(tuple(wrong.shape) == tuple(pieces.shape), torch.equal(wrong, pieces))
squares = wrong.reshape(90, 32, 32, 3), pieces.reshape(90, 32, 32, 3)
pictures = [square for kind in squares for square in kind[33:38]]
titles = [f"{kind} {n}" for kind in ("reshape", "patchify") for n in range(33, 38)]
picture = show.images(pictures, titles, columns=5)
text = "Five patches by reshape, grey stripes; and five by patchify, pieces of a flower"
show.figure(picture, alt=text)

# %% [markdown] name="trap-answer"
# The stripes are 3072 values in the order in which they lie in memory: nine rows of pixels and a bit, of
# one colour only. Three neighbours in a row are taken for the red, green and blue of one pixel, hence
# the grey.
#
# A correct shape proves nothing about the order. What does: numbers that tell where they are, a round trip
# with `torch.equal`, or a look at the picture.

# %% [markdown] name="project-text"
# ## From patch to token: one matrix for all
#
# A patch is a list of pixel values. A token is a vector of $D$ numbers that the model chooses. Between them
# stands one learned matrix $\mathbf{E}$, and the same one for every patch. This is a part of the paper's
# equation 1 (the class token and the positions come in lessons 02 and 03):
#
# $$[\,\mathbf{x}_p^1 \mathbf{E};\ \mathbf{x}_p^2 \mathbf{E};\ \dots;\ \mathbf{x}_p^N \mathbf{E}\,],
# \qquad \mathbf{E} \in \mathbb{R}^{(P^2 \cdot C) \times D}$$
#
# In torch it is a `Linear`, which also adds a bias.

# %% name="project"
torch.manual_seed(0)
images = torch.rand(2, 3, 256, 256)
patches = vit.patchify(images, 32)  # (B, N, P*P*C)
for dim in (192, 1000, 1024):
    tokens = torch.nn.Linear(32 * 32 * 3, dim)(patches)  # (B, N, D)
    print(f"D = {dim:4}: {tuple(patches.shape)} -> {tuple(tokens.shape)}")

# %% [markdown] name="width-text"
# ## D is free
#
# Several articles follow this image, 256 pixels in patches of 32, to tokens of 1024 and explain
# $1024 = 32 \cdot 32 \cdot 1$ from the patch. That is a coincidence: a patch has 3072 values, and $D$
# belongs to the model, which is a ViT-L. You saw that 1000 works as well.
#
# Another article says that the 768 inputs of ViT-B/16 depend on the size of the image. They do not: they
# are 16 x 16 x 3, the size of a patch.
#
# Others say that the projection reduces the dimension. Look:

# %% name="width-table"
from vitcourse import Config

for size in ("Ti/16", "B/16", "L/16", "H/14", "B/32", "L/32"):
    cfg = Config.of(size)
    values = cfg.patch**2 * cfg.channels
    change = "reduced" if cfg.dim < values else "raised" if cfg.dim > values else "kept"
    print(f"{size:5} {values:4} values in a patch -> D = {cfg.dim:4}: {change}")

# %% [markdown] name="conv-text"
# ## The same with a convolution
#
# Published code rarely calls `patchify`. It uses a convolution whose stride is as large as its window. Such
# a window never overlaps: it stands on each patch once. There it multiplies pixel by pixel with a filter
# and adds up, which is one column of $\mathbf{E}$. One number by hand:

# %% name="conv-by-hand"
conv = torch.nn.Conv2d(3, 11, kernel_size=32, stride=32)
seen = conv(images)  # (B, D, h, w)
window = images[1, :, 64:96, 160:192]  # row 2, column 5 of the grid: (C, P, P)
by_hand = (window * conv.weight[7]).sum() + conv.bias[7]
assert torch.allclose(seen[1, 7, 2, 5], by_hand, atol=1e-5)
print(f"ok: {tuple(images.shape)} -> {tuple(seen.shape)}, one number checked by hand")

# %% [markdown] name="linear-weight-card"
# ### Exercise: the convolution's weight as a matrix
#
# 10 minutes · difficulty 3 of 3
#
# A convolution stores its weight as (D, C, P, P), a `Linear` as (D, inputs). Write `linear_weight(weight)`,
# which turns the first into the second, (D, P\*P\*C), so that `Linear` does to `patchify`'s patches what the
# convolution does to images. Mind the order inside a patch.
#
# A hint: `check.hint("linear_weight")`. The solution: `check.solution("linear_weight")`.


# %% name="linear-weight-stub" tags=["exercise"]
def linear_weight(weight):
    """The weight of a convolution, for a Linear: (D, C, P, P) -> (D, P*P*C)."""
    ...


# %% name="linear-weight-check" tags=["check"]
check.linear_weight(linear_weight)

# %% [markdown] name="patch-embedding-card"
# ### Exercise: the patch embedding
#
# 10 minutes · difficulty 2 of 3
#
# Write the module `PatchEmbedding(channels, dim, patch)` with one `Conv2d` called `proj`. It turns images
# (B, C, H, W) into tokens (B, N, D), row by row. The convolution alone gives (B, D, h, w): two steps are
# missing.
#
# A hint: `check.hint("patch_embedding")`. The solution: `check.solution("patch_embedding")`.


# %% name="patch-embedding-stub" tags=["exercise"]
class PatchEmbedding(torch.nn.Module):
    """Images (B, C, H, W) -> tokens (B, N, D)."""

    def __init__(self, channels, dim, patch):
        super().__init__()
        ...

    def forward(self, images): ...


# %% name="patch-embedding-check" tags=["check"]
check.patch_embedding(PatchEmbedding)

# %% [markdown] name="proof-text"
# ## Proof: it is the package's
#
# `PatchEmbed` is the convolution. `patchify` and a `Linear` with the same numbers give the same tokens. It
# also returns the grid (h, w), which you need when the tokens are to become a map again.

# %% name="proof"
embed = vit.PatchEmbed(channels=3, dim=1024, patch=32)
tokens, grid = embed(images)  # (B, N, D), (h, w)
matrix = rearrange(embed.proj.weight, "D C p q -> D (p q C)")
ours = patches @ matrix.T + embed.proj.bias  # (B, N, D)
assert torch.allclose(ours, tokens, atol=1e-5)
print(f"{tuple(images.shape)} -> {tuple(tokens.shape)}, grid {grid}")
print("ok: patchify and Linear equal the strided convolution")

# %% [markdown] name="trade-text"
# ## What the size of a patch trades
#
# Smaller patches show more detail and cost more. Some articles add that the patch size changes nothing but
# the computation. Count the parameters of ViT-B with four sizes of patch and see. Predict first: what
# happens to the projection, what to the table of positions (one vector for each token)?

# %% name="trade-predict"
check.predict("parameters of the patch embedding of ViT-B/16", ...)

# %% name="trade"
from vitcourse import make_vit

print("size   tokens  numbers in a map  projection  positions  all parameters")
for patch in (4, 8, 16, 32):
    with torch.device("meta"):  # counts without memory
        model = make_vit(f"B/{patch}")
    first = sum(p.numel() for p in model.patch_embed.parameters())
    places, N = model.position.table.numel(), (224 // patch) ** 2
    parameters = sum(p.numel() for p in model.parameters())
    print(f"B/{patch:<3} {N:8,} {N * N:17,} {first:11,} {places:10,} {parameters:15,}")

# %% [markdown] name="trade-answer"
# Half the side of a patch gives four times the tokens and sixteen times the numbers in a map.
#
# The parameters change too, in both directions: large patches need a large projection, small patches a long
# table of positions. B/16 has 86,567,656 parameters and B/32 has 88,224,232. The cheaper model is the
# larger one. The blocks, which hold nearly all parameters, do not notice the patch size.

# %% [markdown] name="remember"
# ## Remember
#
# - A token a pixel is too many: attention compares all with all, 2.5 billion numbers for one map.
# - $N = HW / P^2$ patches of $P^2 C$ values: 224/16 gives 196 x 768, 256/32 gives 64 x 3072.
# - The right shape is no proof. A reshape without a permute cuts rows of pixels, not patches.
# - One matrix projects every patch to $D$ numbers. $D$ is free; in B/16 it is 768 to 768.
# - A convolution with stride P is the same, if the order inside the patch is kept.
# - The patch size changes the tokens, the cost and the number of parameters.
#
# Before: [00 start here](00-start-here.ipynb). Next: [02 the class token](02-class-token.ipynb).
#
# [Glossary](../docs/glossary.md).
