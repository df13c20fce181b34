# %% [markdown] name="title"
# # R50+ViT: tokens from a ResNet
#
# Dosovitskiy et al. 2020,
# [An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale](https://arxiv.org/abs/2010.11929).
# Lesson [14 better tokens](../14-better-tokens.ipynb).
#
# **The question.** A patch embedding is one linear map: no pixel meets a pixel of the next patch before
# the first attention. Is it better to look at neighbours first?
#
# **The change.** A ResNet-50, whose last three blocks moved from the fourth stage to the third, turns the
# image into a map whose sides are 16 times smaller.
# Each pixel of the map is a patch of 1x1, and becomes a token. The ViT behind it stays as it is.

# %% name="setup"
import math

import torch
from torch import nn

from vitcourse import ViT, data, papers, show, train
from vitcourse.papers.hybrid import Hybrid, ResNet, ResNetEmbed, StandardConv, pad

# %% [markdown] name="equation"
# ## The equation
#
# $$z_0 = [x_\text{class};\, f(X)_1 E;\, \dots;\, f(X)_N E] + E_\text{pos} \qquad
# \hat W = \frac{W - \text{mean}(W)}{\sqrt{\text{var}(W) + \epsilon}}$$
#
# $f$ is the ResNet, and $f(X)_i$ a pixel of its last map. $E$ is a linear map from 1024 to $D$ numbers.
# The second equation is new, too: every convolution uses its filters standardised, each with mean 0 and
# variance 1. With GroupNorm behind it, nothing depends on the other images of a batch, as a BatchNorm
# would.
#
# Take a filter of four numbers. What is left of it when you multiply it by 10 and add 5?

# %% name="small"
for W in (torch.tensor([1.0, 2, 3, 4]), torch.tensor([15.0, 25, 35, 45])):
    layer = StandardConv(1, 1, 2)  # channels in, channels out, side
    layer.weight.data = W.view(1, 1, 2, 2)
    used = layer.filters().flatten()
    print(W.tolist(), "->", [round(w, 2) for w in used.tolist()])

# %% [markdown] name="small-answer"
# Nothing has changed: scale and offset of a filter do not count, so training cannot lose itself in
# them.
#
# A second detail decides whether published weights work. Where a convolution of 3x3 halves a row of 8
# pixels, one zero is missing at the border. On which side?

# %% name="border"
row = torch.ones(1, 1, 1, 8)
padded = pad(row, kernel=3, stride=2)[0, 0]
print([int(x) for x in padded.amax(dim=0).tolist()])

# %% [markdown] name="border-answer"
# On the right, and below: all zeros that do not divide evenly come last. PyTorch's `padding=1` puts one
# on each side, and shifts every map by a pixel.
#
# ## The difference
#
# One slot. Its class makes the map, then embeds it as the core embeds an image:

# %% name="difference"
print(papers.diff(Hybrid))

# %% [markdown] name="stages-text"
# What happens to an image of 224 x 224 in the published model? Nothing is computed here, only the
# shapes.

# %% name="stages"
with torch.device("meta"):
    images = torch.empty(1, 3, 224, 224)
    for blocks in [(3,), (3, 4), (3, 4, 9)]:
        maps = ResNet(3, blocks, width=64)(images)
        print(f"{str(blocks):9} blocks: {tuple(maps.shape[1:])}")
    model = papers.build("r50_vit_b_16")
both = {"R50+ViT-B/16": model, "its ResNet": model.patch_embed.backbone}
for name, part in both.items():
    count = sum(p.numel() for p in part.parameters())
    print(f"{name:13} {count:,} parameters")

# %% [markdown] name="proof"
# ## The proof
#
# The tests load timm's weights into this model: logits, the output of every convolution block, and all
# gradients are equal, and a file with Google's names is read as timm reads it. Here is what the change
# does: from which pixels does a token in the middle get a gradient? A patch has 8x8 pixels here, and a
# ResNet of two stages stands before it. Once with its norms, and once without.


# %% name="reach"
def reach(embed):
    images = torch.randn(12, 3, 40, 40).requires_grad_()
    tokens, grid = embed(images)  # (B, N, D), (5, 5)
    tokens.unflatten(1, grid)[:, 2, 2].square().sum().backward()
    return (images.grad.abs().amax(dim=(0, 1)) > 0).float()  # (H, W)


torch.manual_seed(0)
resnet = ResNetEmbed.of(blocks=(1, 1), width=16)(3, 20, patch=8)
for norm in [m for m in resnet.modules() if isinstance(m, nn.GroupNorm)]:
    nn.init.ones_(norm.weight)  # some start at zero
seen = {"patches": reach(ViT.Tokenizer(3, 20, patch=8)), "ResNet": reach(resnet)}
for part in list(resnet.modules()):
    for name, child in part.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(part, name, nn.Identity())
seen["ResNet, no norms"] = reach(resnet)
sides = {name: int(map.amax(dim=0).sum()) for name, map in seen.items()}
print({name: f"{side}x{side}" for name, side in sides.items()})
wide = 7 + 2 * 2 + 2 * 4 + 2 * 4
assert sides == {"patches": 8, "ResNet": 40, "ResNet, no norms": wide}
print("ok: 7 from the stem, 4 from the pooling, 8 from each stage")

# %% [markdown] name="reach-answer"
# The convolutions see 27x27 pixels, more than three patches. The norms see all: GroupNorm divides by the
# variance of the whole map, so that each token knows a little of the whole image.
#
# ## An experiment
#
# Shapes of 32x32 pixels, 16 tokens. A ViT of 4 blocks on patches, and one of 3 blocks on the maps of a
# small ResNet. Both have as many parameters, within 5 %, and see the same images. First, 220 steps: the
# beginning of training. Who knows the colour and guesses among the four forms has the loss
# $\ln 4 = 1.39$.

# %% name="train" tags=["nbval-ignore-output"]
shapes = data.load("shapes", train=1000, test=500)
recipe = train.RECIPES["smoke"].but(model="Nano/8", epochs=14, batch=64, lr=3e-3)
recipe = recipe.but(augment=train.RECIPES["shapes"].augment, evaluate_every=14)
Small = Hybrid.variant(Tokenizer=ResNetEmbed.of(blocks=(1, 1), width=16))
losses, accuracy = {}, {}
for name, (cls, depth) in {"patches": (ViT, 4), "ResNet": (Small, 3)}.items():
    model = train.build_model(recipe, shapes, cls, depth=depth)
    run = train.fit(model, shapes, recipe, device="cpu", quiet=True)
    losses[name] = range(1, 15), [entry["loss"] for entry in run.history]
    accuracy[name] = run.accuracy
    count = sum(p.numel() for p in model.parameters())
    print(f"{name:8} {count:,} parameters, accuracy {run.accuracy:.2f}")
losses["colour known, form guessed"] = [1, 14], [math.log(4)] * 2
picture = show.lines(losses, "epoch", "loss in training")
alt = "The loss of both models over the epochs, beside that of knowing the colour alone"
show.figure(picture, alt)

# %% name="train-bound"
assert min(accuracy.values()) > 0.2  # guessing: 0.125
print("ok: both have learned")

# %% [markdown] name="recorded-text"
# Colours come first, and forms take longer, for both. Who leads at that point says little: the same
# models with twice the images, 620 steps and three seeds. A second figure: all test images are moved by
# 1 to 4 pixels. How often does the answer stay the same?

# %% name="recorded"
record = show.recorded("claim-hybrid")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# With every seed, tokens from maps are better, and a move changes fewer answers. That fits the cause: a
# patch begins where the grid says, and a ResNet looks across its border.
#
# What you may not conclude: that it is so at every size. Here are 2000 images and 16 tokens. And the
# same number of parameters is not the same work, since a filter of a convolution is used at each pixel.
#
# ## What the authors report
#
# The paper reports that hybrids are a little better than ViTs where little is computed, and that the
# difference vanishes for larger models. No number of parameters is reported for R50+ViT-B/16: it is
# 98,659,112 with a head for 1000 classes.

# %% [markdown] name="remember"
# ## Remember
#
# - The tokenizer is all that changes. The grid, the positions and the encoder do not know of it.
# - Weights fit only with the same borders: zeros on the right and below.
# - GroupNorm and standardised filters take the place of BatchNorm: no statistics to save, and nothing
#   depends on the batch.
# - Blocks are normalised after each convolution. Libraries call this ResNet "v2", which elsewhere means
#   norms that come first.
