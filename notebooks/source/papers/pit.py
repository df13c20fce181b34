# %% [markdown] name="title"
# # PiT: a map that shrinks
#
# Heo et al. 2021,
# [Rethinking Spatial Dimensions of Vision Transformers](https://arxiv.org/abs/2103.16302).
# Lesson [14 better tokens](../14-better-tokens.ipynb).
#
# **The question.** On its way up, a CNN makes its map smaller and its channels more. A ViT keeps 196
# tokens of one width from the first block to the last. Is that a strength, or is it waste?
#
# **The change.** Three stages of blocks. Between two stages a convolution halves the map in height and
# width, and doubles the width of the tokens. The first blocks see many narrow tokens, the last see few
# wide ones.

# %% name="setup"
from dataclasses import replace

import torch

from vitcourse import data, papers, show, train, vit
from vitcourse.papers.pit import PiT, Pooling
from vitcourse.pyramid import PyramidConfig

# %% [markdown] name="equation"
# ## The equation
#
# Between two stages, the map $X$ and the class token $c$ go different ways:
#
# $$X' = \text{Conv}_{3 \times 3,\ \text{stride } 2}(X), \qquad c' = W c + b$$
#
# The convolution is depthwise: of each channel it makes two new ones, and no channel sees another. The
# class token has no place on the map, so it gets a matrix of its own.
#
# One map of $4 \times 4$, with a 1 in one place, and filters of ones. Which new places see it?

# %% name="small"
pool = Pooling(1, 2, 2)  # channels, dim, patch
with torch.no_grad():
    pool.proj.weight.copy_(torch.stack([torch.ones(1, 3, 3), -torch.ones(1, 3, 3)]))
    pool.proj.bias.zero_()
    map = torch.zeros(1, 1, 4, 4)
    map[0, 0, 1, 1] = 1
    x, (h, w) = pool(map)  # (B, N, D)
for channel in x[0].T.reshape(2, h, w).int().tolist():
    print(channel)

# %% [markdown] name="small-answer"
# All four see it: windows of $3 \times 3$, two apart, overlap. The second new channel is the first with
# another filter.
#
# What does a block cost? With $N$ tokens of width $D$, its matrices take $12ND^2$ multiplications, and
# attention $2N^2D$. Now make the map half as high and wide and the tokens twice as wide:


# %% name="cost"
def cost(N, D):
    """Multiplications of the matrices of a block, and of its attention."""
    return 12 * N * D**2, 2 * N**2 * D


for N, D in ((196, 192), (49, 384)):
    matrices, attention = cost(N, D)
    print(f"{N:3} tokens of {D}: {matrices / 1e6:.1f} M + {attention / 1e6:.2f} M")
assert cost(196, 192)[0] == cost(49, 384)[0]
assert cost(196, 192)[1] == 8 * cost(49, 384)[1]
print("ok: the matrices cost the same, attention an eighth")

# %% [markdown] name="cost-answer"
# So a stage with four times the parameters a block costs no more than the stage before.
#
# ## The difference
#
# PiT is not a ViT with another slot. It is a `Pyramid`: stages, each with a tokenizer and blocks. Beside
# the pyramid's own parts, it has these:

# %% name="difference"
for slot, part in papers.delta(PiT).items():
    print(f"{slot:10} {part.__name__:18} {part.__doc__.splitlines()[0]}")

# %% name="stages"
with torch.device("meta"):  # nothing is allocated
    model = papers.build("pit_s")
    maps = model.features(torch.empty(1, 3, 224, 224))
for stage, map in zip(model.stages, maps, strict=True):
    _, D, h, w = map.shape
    print(f"{len(stage.blocks)} blocks, {h:2} x {w:2} + 1 tokens of width {D}")
print("pixels from one token to the next:", model.strides)

# %% [markdown] name="proof"
# ## The proof
#
# Why 27 and not 28? The first patches have $16 \times 16$ pixels and stand 8 apart, with nothing around
# the image. The tests hold the model against timm's: logits, every block, all gradients, on a wide image.
# Here is the trap that a port can fall into: which old channel does a new one read?

# %% name="channels"
pool = Pooling(3, 6, 2).double()
map = torch.randn(1, 3, 4, 6, dtype=torch.float64, requires_grad=True)
x, _ = pool(map)
reads = []
for channel in range(6):
    (gradient,) = torch.autograd.grad(x[..., channel].sum(), map, retain_graph=True)
    reads.append(gradient[0].abs().sum(dim=(1, 2)).nonzero().flatten().tolist())
print("new channels 0 to 5 read", reads)
assert reads == [[o // 2] for o in range(6)]
print("ok: channel o reads channel o // 2, and no other")

# %% [markdown] name="experiment"
# ## An experiment
#
# Digits, enlarged to $16 \times 16$ pixels: 49 tokens that overlap. One model has one stage of 4 blocks.
# The other has three stages of 1, 2 and 1 blocks, with 49, 16 and 4 tokens. Both learn about as many
# numbers, and both see the same images. Which is more accurate after four epochs, and at what cost?


# %% name="models"
def twice(images):
    """Twice as high and wide."""
    upsample = torch.nn.Upsample(scale_factor=2, mode="bilinear")
    return upsample(images.float()).round().byte()


small = data.load("digits")
images, test_images = twice(small.images), twice(small.test_images)
digits = replace(small, images=images, test_images=test_images)
recipe = train.RECIPES["smoke"].but(epochs=4)
sizes = {  # dims, depths, heads, patches, mlp_ratios
    "one stage": ((60,), (4,), (5,), (2,), (4.0,)),
    "three stages": ((24, 48, 96), (1, 2, 1), (2, 4, 8), (2, 2, 2), (4.0, 4.0, 4.0)),
}
torch.manual_seed(0)
shared = dict(image=16, channels=1, classes=10)
models = {name: PiT(PyramidConfig(*s, **shared)) for name, s in sizes.items()}
tokens = {}
for name, model in models.items():
    maps = model.features(torch.zeros(1, 1, 16, 16))
    tokens[name] = [map[0, 0].numel() for map in maps]
    count = sum(p.numel() for p in model.parameters())
    print(f"{name:12} {count:,} parameters, tokens {tokens[name]}")

# %% name="work"
work = {}
for name, (dims, depths, *_) in sizes.items():
    stages = zip(depths, tokens[name], dims, strict=True)
    work[name] = sum(depth * sum(cost(N + 1, D)) for depth, N, D in stages)
    print(f"{name:12} {work[name] / 1e6:.1f} M multiplications in the blocks, an image")

# %% [markdown] name="start"
# `train.build_model` gives a ViT the start values of the recipe. A pyramid needs them too.

# %% name="train" tags=["nbval-ignore-output"]
curves = {}
for name, model in models.items():
    for table in model.stages[0].position.parameters():
        vit.truncated_normal_(table, std=recipe.position_std)
    for stage in model.stages:
        for layer in stage.blocks.modules():
            if isinstance(layer, torch.nn.Linear):
                std = recipe.gain * layer.in_features**-0.5
                vit.truncated_normal_(layer.weight, std=std)
    run = train.fit(model, digits, recipe, device="cpu", quiet=True)
    accuracy = [entry["test_accuracy"] for entry in run.history]
    epoch = work[name] * len(images) / 1e9
    curves[name] = [epoch * n for n in range(1, 5)], accuracy
    print(f"{name:12} accuracy {run.accuracy:.2f}")
picture = show.lines(curves, "billion multiplications, forwards", "accuracy")
alt = "Accuracy after each epoch against the work done, for one stage and for three"
show.figure(picture, alt)

# %% name="train-bound"
assert min(accuracy[-1] for _, accuracy in curves.values()) > 0.4
print("ok: both have learned")

# %% [markdown] name="recorded-text"
# One run says little. The same with three seeds and ten epochs, each time three stages minus one:

# %% name="recorded"
record = show.recorded("claim-pit")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# With every seed the three stages are more accurate, with less than a third of the work. Parameters,
# blocks and images are the same for both. Widths are not: the last block of the PiT is wider than any
# of the other. So the record shows that shrinking the map pays here, in all, and not which part of it
# pays. And digits have few details to lose: where small things count, fewer tokens may cost more.
#
# ## What the authors report
#
# On ImageNet at 224 x 224, PiT-Ti reaches 73.0 %, PiT-S 80.9 % and PiT-B 82.0 %; with a distillation
# token, as in DeiT, 74.6 %, 81.9 % and 84.0 %. They have 4.9, 23.5 and 73.8 million parameters.

# %% [markdown] name="remember"
# ## Remember
#
# - Half the height and width, twice the channels: a block's matrices cost the same, its attention an
#   eighth.
# - The class token is no place of the map. At each pooling it passes a Linear of its own, and it gets no
#   position.
# - The poolings are depthwise: new channel $o$ reads old channel $\lfloor o/2 \rfloor$.
# - A pyramid gives a map for every scale, which is what detectors ask for.
