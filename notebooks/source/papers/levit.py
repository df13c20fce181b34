# %% [markdown] name="title"
# # LeViT: built to be fast
#
# Graham et al. 2021,
# [LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference](https://arxiv.org/abs/2104.01136).
# Lesson [17 convolutions return](../17-convolutions-return.ipynb).
#
# **The question.** Papers count multiplications. Who uses a model waits for it. How must a ViT be built if
# the time for an image counts?
#
# **The change.** Nearly all of it. Four convolutions make a map of $14 \times 14$. Attention shrinks it
# twice, and its keys are narrow. Positions are numbers that depend on distance alone. And there is no
# LayerNorm: each layer has a BatchNorm, which can be folded into it once training is over.

# %% name="setup"
import torch
from torch import nn

from vitcourse import ViT, data, papers, show, train
from vitcourse.papers import compare, levit

# %% [markdown] name="equation"
# ## The equation
#
# A token $x$, a matrix $W$, and a BatchNorm with the mean $\mu$, the variance $\sigma^2$, the scale
# $\gamma$ and the shift $\beta$. In evaluation all of them are fixed numbers, and two layers are one:
#
# $$\gamma\, \frac{W x - \mu}{\sigma} + \beta = W' x + b', \qquad
# W' = \frac{\gamma}{\sigma} W, \quad b' = \beta - \frac{\gamma}{\sigma} \mu$$
#
# A LayerNorm cannot be folded: its mean and variance are those of the token at hand.
#
# By hand, with two channels. What are $W'$ and $b'$?

# %% name="small"
layer = levit.LinearNorm(2, 2).eval()
with torch.no_grad():
    layer.linear.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    layer.bn.running_mean.copy_(torch.tensor([1.0, 2.0]))
    layer.bn.running_var.copy_(torch.tensor([4.0, 0.25]))  # sigma is 2 and 1/2
    layer.bn.weight.fill_(3)
    layer.bn.bias.fill_(10)
one = levit.fuse(nn.Sequential(layer).eval())[0]
print(type(one).__name__)
print("weight", [[round(w, 2) for w in row] for row in one.weight.tolist()])
print("bias  ", [round(b, 2) for b in one.bias.tolist()])

# %% [markdown] name="small-answer"
# The first row is divided by 2 and multiplied by 3, the second is multiplied by 6.
#
# The second equation is that of attention. For head $k$, query $q$ at place $(y, x)$ and a key $k'$ at
# $(y', x')$:
#
# $$\text{score} = \frac{q \cdot k'}{\sqrt{d}} + B_k\left[\,|y - y'|,\ |x - x'|\,\right]$$
#
# $B_k$ is a table as large as the map. Here is where each pair of places of a $2 \times 3$ map reads it, if
# its six numbers are counted from 0 to 5:

# %% name="distances"
for row in levit.distances((2, 3), width=3).tolist():
    print(row)

# %% [markdown] name="distances-text"
# Left and right are the same, above and below too. So the table is a quarter as large as one of signed
# offsets, and a mirrored image gets the mirrored scores.
#
# ## The difference
#
# LeViT has a structure of its own. What remains of the core is the attention, whose `project` and `bias`
# are overridden, and the block, whose norms are taken out:

# %% name="difference"
for line in compare.compared(ViT.Block, levit.BareBlock):
    print(line)
print()
for line in compare.compared(ViT.Attention, levit.BiasedAttention):
    print(line)

# %% [markdown] name="stages-text"
# Between two stages every second place of every second row asks, and all places answer: a quarter of the
# tokens is left. What does that make of the published LeViT-128S?

# %% name="stages"
sizes = papers.configs()["levit_128s"].sizes
with torch.device("meta"):  # nothing is allocated
    model = levit.LeViT(sizes).eval()
    maps = model.features(torch.empty(1, 3, 224, 224))
for stage, map in zip(model.stages, maps, strict=True):
    _, D, h, w = map.shape
    attn, depth = stage.blocks[0].attn, len(stage.blocks)
    heads = f"{attn.heads} heads with keys of {attn.key}, values of {attn.value}"
    print(f"{depth} blocks, {h:2} x {w:2} tokens of width {D}, {heads}")

# %% [markdown] name="proof"
# ## The proof
#
# `fuse` must change nothing. New models prove little: their means are 0, their variances 1, and the last
# norm of each branch multiplies by 0. So give every number a value of its own first.

# %% name="identity"
torch.manual_seed(0)
small = levit.Sizes((32, 48, 64), (1, 2, 1), (2, 3, 4), key=8, image=(96, 144))
model = levit.LeViT(small).double().eval()
for name, tensor in model.state_dict().items():
    if tensor.is_floating_point():
        tensor.normal_(std=0.3)
    if name.endswith("running_var"):
        tensor.abs_().add_(0.5)
fused = levit.fuse(model)
for which in (model, fused):
    kinds = [type(module) for module in which.modules()]
    norms = kinds.count(nn.BatchNorm1d) + kinds.count(nn.BatchNorm2d)
    count = sum(p.numel() for p in which.parameters())
    print(f"{norms:2} norms, {count:,} parameters")
images = torch.randn(2, 3, 96, 144).double()
error = (fused(images) - model(images)).abs().max() / model(images).abs().max()
assert error < 1e-10
print("ok: the same logits, without a norm")

# %% [markdown] name="proof-tests"
# The tests hold the model against timm's and transformers': logits, every stage and all gradients, on a
# wide image. timm has a second LeViT, of 1x1 convolutions on the map in place of Linears on the tokens:
# its weights load too, and give the same logits. "All Linears become convolutions" is thus a matter of
# spelling. Only the stem's convolutions see neighbours.
#
# ## An experiment
#
# Digits, enlarged to $16 \times 16$ pixels, 16 tokens. A ViT of four blocks, and a LeViT of three stages
# with a block each and as many parameters.


# %% name="models"
def twice(images):
    """Twice as high and wide."""
    upsample = nn.Upsample(scale_factor=2, mode="bilinear")
    return upsample(images.float()).round().byte()


digits = data.load("digits")
parts = twice(digits.images), digits.labels
parts += twice(digits.test_images), digits.test_labels
large = data.Data("large digits", *parts, digits.classes)
recipe = train.RECIPES["smoke"].but(model="Nano/4", epochs=6)
models = {"ViT": train.build_model(recipe, large)}
torch.manual_seed(0)
shared = dict(patch=4, image=16, channels=1, classes=10)
sizes = levit.Sizes((32, 48, 56), (1, 1, 1), (2, 3, 4), key=8, **shared)
models["LeViT"] = levit.LeViT(sizes)
for name, model in models.items():
    print(f"{name:5} {sum(p.numel() for p in model.parameters()):,} parameters")

# %% name="train" tags=["nbval-ignore-output"]
accuracy = {}
for name, model in models.items():
    run = train.fit(model, large, recipe, device="cpu", quiet=True)
    accuracy[name] = [entry["test_accuracy"] for entry in run.history]
    print(f"{name:5} accuracy {run.accuracy:.2f}")
curves = {name: (range(1, 7), values) for name, values in accuracy.items()}
alt = "Accuracy on test digits after each epoch, for the ViT and for the LeViT"
show.figure(show.lines(curves, "epoch", "accuracy"), alt)

# %% name="train-bound"
assert min(values[-1] for values in accuracy.values()) > 0.4
print("ok: both have learned")

# %% [markdown] name="tables"
# What has each head learned about distance? Its table, with the query at the upper left corner, $|dy|$
# downwards and $|dx|$ to the right. Red: look there more.

# %% name="tables-figure" tags=["nbval-ignore-output"]
stages = models["LeViT"].stages
attns = stages[0].blocks[0].attn, stages[1].shrink.attn
tables = [table for attn in attns for table in attn.position_table.detach()]
titles = [f"block, {k}" for k in (1, 2)] + [f"shrink, {k}" for k in (1, 2, 3, 4)]
alt = "Learned 4 x 4 tables: two heads of a block, four of what shrinks the map"
show.figure(show.heatmaps(tables, titles), alt)

# %% name="tables-bound"
assert max(table.abs().max() for table in tables) > 0.01
print("ok: the tables began at zero, and have moved")

# %% [markdown] name="recorded-text"
# And the time? It was recorded, for machines differ: LeViT-128S, the same fused, and a ViT of width 96 with
# ten blocks, which multiplies as often. One thread of a CPU, processor time, medians over many rounds. A
# "seed" is a repetition, the differences are images a second; those of the last line are accuracies on
# digits after ten epochs.

# %% name="recorded"
record = show.recorded("claim-levit")
print(show.origin(record))
print(show.pairs(record))

# %% name="recorded-figure"
speed = {}
for batch in (1, 64):
    for name in ("ViT", "LeViT", "fused LeViT"):
        figure = record["figures"][f"{name}, images a second, batches of {batch}"]
        speed[f"{name}, batches of {batch}"] = figure["mean"]
alt = "Images a second of ViT, LeViT and fused LeViT, for batches of 1 and 64"
show.figure(show.bars(speed, "images a second"), alt)

# %% [markdown] name="recorded-answer"
# Fusing pays for single images with every repetition, for batches of 64 not with every one; it saves no
# multiplication that is counted here. But the ViT that multiplies as often is faster than LeViT: a negative
# result. So multiplications are not time. LeViT has six times the parameters to read and more kinds of
# steps between its matrices; and its attention, with values wider than keys, stores its scores, where that
# of the ViT runs in one fused kernel.
#
# What one may not conclude: that LeViT is slow for what it knows. The authors compare at equal accuracy,
# and this ViT has 1.3 million parameters. On digits, LeViT is more accurate with every seed, at a
# quarter of the multiplications.

# %% [markdown] name="authors"
# ## What the authors report
#
# The paper reports 76.6 % on ImageNet for LeViT-128S, with 7.8 million parameters and 305 million
# multiplications; counting here gives the same two numbers. It also reports that at 80 % LeViT is five
# times as fast on a CPU as an EfficientNet. All models learned with a teacher, as in DeiT.

# %% [markdown] name="remember"
# ## Remember
#
# - A BatchNorm behind a layer costs nothing once it is folded in. A LayerNorm cannot be folded.
# - Fold in evaluation mode only: in training, the statistics are those of the batch, over all tokens.
# - The last norm of each branch begins at zero, so a new block changes nothing. Compare ports with random
#   numbers, or any error in a branch stays hidden.
# - The tables of distances belong to one map. A smaller map finds all it needs in them, a larger one does
#   not.
# - Measure time. Multiplications predict it badly.
