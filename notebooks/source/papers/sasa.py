# %% [markdown] name="title"
# # SASA: attention in place of convolution
#
# Ramachandran et al. 2019,
# [Stand-Alone Self-Attention in Vision Models](https://arxiv.org/abs/1906.05909).
# Lesson [15 better attention](../15-better-attention.ipynb).
#
# **The question.** Attention had been added to convolutional networks. Can it stand in their place, with
# no 3x3 convolution left?
#
# **The change.** In a ResNet, each 3x3 convolution becomes attention: a pixel asks the pixels in a window
# around it. Where a convolution has a matrix for each place in its window, attention has weights that
# depend on what the pixels hold, and on where they stand.

# %% name="setup"
import inspect

import torch
from torch import nn

from vitcourse import data, papers, show
from vitcourse.papers.sasa import LocalAttention, SasaResNet

# %% [markdown] name="equation"
# ## The equation
#
# Pixel $(i, j)$, and the pixels $(a, b)$ of its window $\mathcal{N}$. Convolution and local attention:
#
# $$y_{ij} = \sum_{(a,b) \in \mathcal{N}} W_{a-i,\,b-j}\; x_{ab}
# \qquad\qquad
# y_{ij} = \sum_{(a,b) \in \mathcal{N}} \text{softmax}_{ab}\left(q_{ij} \cdot k_{ab}
# + q_{ij} \cdot r_{a-i,\,b-j}\right) v_{ab}$$
#
# On the left the place chooses the matrix $W$. On the right all places share the matrices that make $q$,
# $k$ and $v$, and the place adds a vector $r$ to the key: half of it is for the row $a-i$, half for the
# column $b-j$. The formula does not divide by $\sqrt d$.
#
# At the border of the image, part of the window is outside. All pixels hold a one, and all scores are
# equal. What comes out in the corner?


# %% name="small"
def averages(border):
    layer = LocalAttention(dim=2, heads=1, window=3, border=border)
    with torch.no_grad():
        layer.qkv.weight.zero_()  # queries of zero: all scores are equal
        layer.qkv.weight[4:, :, 0, 0] = torch.eye(2)  # a value is what the pixel holds
        return layer(torch.ones(1, 2, 4, 5))[0, 0]


for border in ("zero", "masked"):
    print(border)
    for row in averages(border).tolist():
        print("  ".join(f"{y:.2f}" for y in row))

# %% [markdown] name="small-answer"
# With the border "zero", pixels outside are zeros that take part in the softmax: of nine weights in the
# corner, five fall on nothing. So the layer can tell where the border is, as a padded convolution can.
# With "masked", they get no weight. The paper does not say which it takes; here "zero" is the default.
#
# ## The difference
#
# The model is torchvision's ResNet. A loop over its blocks replaces one layer in each. Attention has no
# stride: where the map shrinks, a mean over 2 x 2 pixels follows.

# %% name="difference"
print(inspect.getsource(SasaResNet))

# %% [markdown] name="cost"
# What does a layer learn? A convolution of $C$ channels has $s^2 C^2$ numbers for a window of side $s$.
# Attention has $3 C^2$, and $s \cdot d$ for the tables, which all heads share. So a larger window costs
# next to no parameters:


# %% name="count"
def count(model):
    return sum(p.numel() for p in model.parameters())


with torch.device("meta"):  # nothing is allocated
    for s in (3, 7, 11):
        conv = count(nn.Conv2d(256, 256, s, bias=False))
        attention = count(LocalAttention(256, heads=8, window=s))
        print(f"window {s:2}: convolution {conv:10,}   attention {attention:8,}")
        assert attention == 3 * 256**2 + s * 256 // 8
    model = papers.build("sasa_resnet_50")
layers = [m for m in model.modules() if isinstance(m, LocalAttention)]
print(f"SASA-ResNet-50: {count(model):,} parameters, {len(layers)} layers of attention")

# %% [markdown] name="proof"
# ## The proof
#
# Without $r$, attention sees its window as a bag: shuffle the neighbours of a pixel, and the pixel's
# output stays. With $r$ it changes. The tests hold the layer against the formula written as a loop over
# pixels, against code that others wrote (with its scale), and against attention, which it must be where
# the window covers the image; nine planted errors are noticed.

# %% name="shuffle"
torch.manual_seed(0)
layer = LocalAttention(12, heads=3, window=3).double()
nn.init.normal_(layer.position_rows)
nn.init.normal_(layer.position_columns)
x = torch.randn(2, 12, 3, 3).double()  # the pixel in the middle, and its neighbours
order = torch.tensor([2, 0, 5, 7, 4, 1, 8, 3, 6])  # pixel 4 stays
shuffled = x.flatten(2)[..., order].unflatten(2, (3, 3))
middle = (slice(None), slice(None), 1, 1)
with torch.no_grad():
    assert not torch.allclose(layer(x)[middle], layer(shuffled)[middle])
    layer.position_rows.zero_()
    layer.position_columns.zero_()
    assert torch.allclose(layer(x)[middle], layer(shuffled)[middle])
print("ok: only r tells the order of the neighbours")

# %% [markdown] name="experiment"
# ## An experiment
#
# One layer is to move digits by one pixel to the right. A 3x3 convolution can, with eight of its nine
# places at zero. Attention that knows where a neighbour stands can learn to look to the left. And
# attention without $r$? Guess before you run it.

# %% name="train" tags=["nbval-ignore-output"]
digits = data.load("digits")
moved, explained = {}, {}
for name in ("with r", "without r"):
    torch.manual_seed(0)
    layer = LocalAttention(16, heads=2, window=3)
    if name == "without r":
        for table in (layer.position_rows, layer.position_columns):
            table.requires_grad_(False).zero_()
    net = nn.Sequential(nn.Conv2d(1, 16, 1), layer, nn.Conv2d(16, 1, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(250):
        chosen = torch.randint(len(digits.images), (32,))
        images = digits.normalise(digits.images[chosen])
        loss = (net(images)[..., 1:] - images[..., :-1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images = digits.normalise(digits.test_images)
    moved[name] = net(images).detach()
    rest = (moved[name][..., 1:] - images[..., :-1]).square().mean() / images.var()
    explained[name] = 1 - rest.item()
    print(f"{name:9}  share of the target explained: {explained[name]:.2f}")

# %% name="train-bound"
assert explained["with r"] > 0.8  # a new layer explains nothing
assert explained["without r"] < explained["with r"] - 0.1
print("ok: only with r does the layer move the digits")

# %% name="moved" tags=["nbval-ignore-output"]
pictures = {"a digit": images[0, 0], **{name: y[0, 0] for name, y in moved.items()}}
alt = "A digit, and what both layers make of it: with r moved right, without r blurred"
show.figure(show.heatmaps(list(pictures.values()), titles=list(pictures)), alt)

# %% name="moved-bound"
apart = (moved["with r"][0, 0, :, 1:] - images[0, 0, :, :-1]).abs().max().item()
assert apart < 0.5  # pixels are from about -1 to 2
print("ok: with r, each pixel of this digit is near the one to its left")

# %% [markdown] name="recorded-text"
# That was made for $r$. What of a task that was not? Three networks read digits, three layers each:
# convolutions of 3x3, attention in 3x3, and the same without $r$. Attention gets more channels, so that
# all learn about as many numbers. Twelve epochs, three seeds:

# %% name="recorded"
record = show.recorded("claim-sasa")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# Positions help with every seed. That attention does better than convolution is not so here, and by a
# wide margin: after 12 epochs the convolutions are far ahead. You may conclude that on small images, with
# a 3x3 window and little training, the convolution's fixed places are the better start. You may not
# conclude that it stays so: the paper trains much longer, with 7x7 windows, on a million images.
#
# ## What the authors report
#
# The paper reports for ResNet-50 on ImageNet 29 % fewer parameters and 12 % fewer operations than with
# convolutions, and 77.4 to 77.6 % in place of 76.9 %, by the kind of stem. Our model has the stem of
# convolutions. Its 18,015,504 parameters agree with the 18.0 million of the paper.

# %% [markdown] name="remember"
# ## Remember
#
# - A convolution has a matrix for each place; attention has one set of matrices and a vector for each
#   place.
# - Say what happens at the border: zeros that take part in the softmax, or a mask.
# - Some published code multiplies $q$ and $k$ channel by channel, without a sum, and adds $r$ to the
#   value. That is another layer.
# - Parameters hardly grow with the window. Memory does: each pixel needs its own copy of $s^2$ keys and
#   values.
