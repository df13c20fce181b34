# %% [markdown] name="title"
# # Attention as convolution
#
# Cordonnier et al. 2019,
# [On the Relationship between Self-Attention and Convolutional Layers](https://arxiv.org/abs/1911.03584).
# Lesson [15 better attention](../15-better-attention.ipynb).
#
# **The question.** A convolution looks at fixed places, attention wherever its weights tell it to. Can
# attention do all that a convolution does? And where it is free to learn, does it?
#
# **The change.** Attention with as many heads as a kernel has places, and scores that know only how far a
# key is from the query. This is a layer to prove something with; nobody published a model to be used.

# %% name="setup"
import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import papers, show
from vitcourse.papers.attention_as_convolution import QuadraticAttention, QuadraticViT

# %% [markdown] name="equation"
# ## The equation
#
# Output of a convolution at the pixel $q$, and of attention with heads $h$:
#
# $$y_q = \sum_{c} W_c \; x_{q+c}
# \qquad\qquad
# y_q = \sum_h W_h \sum_k \text{softmax}_k(s^h_{qk}) \; x_k$$
#
# They are the same if the head $h$ has all its weight on one key, $k = q + c_h$. A score that does this,
# for the offset $r = k - q$:
#
# $$s^h_{qk} = v_h \cdot \left(|r|^2, r_1, r_2\right), \quad
# v_h = -\alpha\,(1, -2c_1, -2c_2), \quad
# s^h_{qk} = -\alpha\,|r - c_h|^2 + \text{const}$$
#
# The constant does not matter to the softmax. One row of five pixels, and one head that looks one pixel
# to the right. What does the last pixel look at?

# %% name="small"
head = QuadraticAttention(dim=1, heads=1)
with torch.no_grad():
    head.position_centre.copy_(torch.tensor([[0.0, 1.0]]))  # (down, right)
    for alpha in (0.5, 5.0):
        head.position_sharpness.fill_(alpha).log_()
        maps = head.bias((1, 5)).softmax(dim=-1)[0, 0]
        print(f"alpha {alpha}: what each pixel (row) takes of each (column)")
        print("\n".join("  ".join(f"{p:.2f}" for p in row) for row in maps.tolist()))

# %% [markdown] name="small-answer"
# With $\alpha = 0.5$ the head looks around its place, with $\alpha = 5$ at its place. The last pixel has
# nothing to its right, so it takes the nearest there is: itself. The convolution that this equals pads
# its image by repeating the border.
#
# ## The difference
#
# Three slots of the ViT. Positions are in the attention, so the tokens get none; and without a class
# token each token has its place. The lines that differ:

# %% name="difference"
print(papers.diff(QuadraticViT))

# %% [markdown] name="proof"
# ## The proof
#
# Take a convolution with random weights. Put the nine heads on its nine places, and its kernel into
# `proj`. Where zeros stand around the image in place of a repeated border, only the inside is the same.

# %% name="identity"
torch.manual_seed(0)
x = torch.randn(2, 3, 6, 7).double()  # (B, C, h, w)
for padding in ("replicate", "zeros"):
    conv = nn.Conv2d(3, 5, 3, padding=1, padding_mode=padding).double()
    layer = QuadraticAttention.like(conv, alpha=60)
    y = layer(x.flatten(2).mT, grid=(6, 7)).mT.unflatten(2, (6, 7))
    apart = (y - conv(x)).abs().amax(dim=(0, 1))  # (h, w)
    assert apart[1:-1, 1:-1].max() < 1e-10
    everywhere = bool(apart.max() < 1e-10)
    assert everywhere == (padding == "replicate")
    print(f"{padding:9}  equal inside: True   equal at the border: {everywhere}")
print("ok: nine heads are a 3x3 convolution that repeats its border")

# %% [markdown] name="proof-text"
# The tests do the same for kernels of other sizes and with gaps, compare all gradients, show that the
# error falls as $e^{-\alpha}$, and put convolutions in the place of all attention of a whole model.
# Eight planted errors are noticed.
#
# ## An experiment
#
# So attention can. Does it learn to? Nine heads start at random places. Show them noise, and what a
# random 3x3 convolution makes of it. Where will they look after 600 steps?

# %% name="imitate" tags=["nbval-ignore-output"]
torch.manual_seed(0)
conv = nn.Conv2d(8, 8, 3, padding=1, padding_mode="replicate").requires_grad_(False)
layer, grid = QuadraticAttention(8, heads=9), (8, 8)
optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)


def around_the_query():
    maps = layer.bias((5, 5)).softmax(dim=-1)[0, :, 12]  # the pixel in the middle
    return maps.detach().unflatten(1, (5, 5))  # (K, 5, 5)


before = around_the_query()
for _ in range(600):
    images = torch.randn(16, 8, *grid)
    wanted = conv(images)
    loss = F.mse_loss(layer(images.flatten(2).mT, grid).mT, wanted.flatten(2))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
explained = 1 - (loss / wanted.var()).item()
print(f"share of the convolution's output that is explained: {explained:.3f}")
alt = "Weights of nine heads around the query: above when new, below after training"
show.figure(show.heatmaps([*before, *around_the_query()], columns=9, size=0.9), alt)

# %% name="imitate-bound"
assert explained > 0.9  # a new layer explains nothing
places = {tuple(place) for place in layer.position_centre.detach().round().tolist()}
assert len(places & {(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)}) >= 6
print("ok: it does almost what the convolution does, with heads on its places")

# %% [markdown] name="imitate-answer"
# All heads come into the 3x3 window and spread there, much like those in the paper's figures. Look
# closely: many look at two pixels or four, not at one. They need not be exact: `proj` can take nine
# different mixtures of nine pixels apart again.
#
# And when nobody shows them a convolution? Two ViTs of four blocks with nine heads learn to read digits,
# a token a pixel, three seeds each: one with these layers, one with a learned relative position for each
# offset, and with content.

# %% name="recorded"
record = show.recorded("claim-attention_as_convolution")
print(show.origin(record))
print(show.pairs(record))

# %% name="distances"
figures = record["figures"]
lines = {}
for name in ("quadratic", "learned"):
    keys = [f"{name}, distance, block {block}" for block in range(1, 5)]
    lines[name] = range(1, 5), [figures[key]["mean"] for key in keys]
    accuracy = figures[f"{name}, accuracy"]["mean"]
    print(f"{name:9} accuracy {accuracy:.2f}")
alt = "How far the heads look on average, in pixels, by block, in both models"
show.figure(show.lines(lines, "block", "distance in pixels"), alt)

# %% [markdown] name="recorded-answer"
# **Grids.** Shown what a convolution does, heads go to its places with every seed. Reading digits, they
# do not: after training, the heads of the first block cover no more of the 3x3 places than before. So in
# our short run the grid does not come by itself.
#
# **Distance.** With quadratic positions it grows with depth, from about 1.9 to 3.0 pixels: local first,
# wide in the end, as the authors find. With learned positions and content the sign is the same, but all
# blocks look about as far as a head that sees every pixel alike. That model reads half of the digits: its
# training was too short to tell you more.

# %% [markdown] name="reported"
# ## What the authors report
#
# On CIFAR-10, with six layers and nine heads on pixels joined 2 x 2, the paper reports that the heads of
# the first layers form grids around the query, and that those of deep layers look further away.

# %% [markdown] name="remember"
# ## Remember
#
# - Attention with $K^2$ heads can be a $K \times K$ convolution: a head for each place. Each head must
#   be at least as wide as the smaller number of channels, in or out.
# - At the border it repeats the nearest pixel. For zeros, put a frame of zeros around the image.
# - That it can be a convolution does not say that training makes it one. Measure it.
# - As written here, the maps have $N^2$ numbers for each head: for many pixels, a convolution is by far
#   the cheaper way to be a convolution.
