# %% [markdown] name="title"
# # CvT: convolutions make tokens, queries and keys
#
# Wu et al. 2021,
# [CvT: Introducing Convolutions to Vision Transformers](https://arxiv.org/abs/2103.15808).
# Lesson [17 convolutions return](../17-convolutions-return.ipynb).
#
# **The question.** A convolution knows from the start that neighbours belong together. A ViT must learn
# it, and needs a table to know who its neighbours are. Can a ViT have that knowledge built in?
#
# **The change.** Convolutions that overlap make the tokens, three times, of a map that shrinks. And in
# each attention, a small convolution comes before queries, keys and values. Then the table of positions
# goes.

# %% name="setup"
import torch

from vitcourse import ViT, data, papers, show, train
from vitcourse.papers.cvt import ConvAttention, ConvEmbed, ConvProjection, CvT
from vitcourse.parts import NoPosition

# %% [markdown] name="equation"
# ## The equation
#
# $$Q = \text{BN}(\text{DWConv}_{3 \times 3}(X))\,W_Q, \qquad
# K, V = \text{BN}(\text{DWConv}_{3 \times 3,\ \text{stride } 2}(X))\,W_{K, V}$$
#
# For each of the three, the tokens are laid out as a map. A depthwise convolution, which sees each
# channel by itself, and a BatchNorm come before the usual matrix. Each of the three has its own kernels.
# Keys and values come from every second row and column.
#
# A map of $4 \times 4$ tokens that hold their own number, and a kernel of nine ones. What do the keys
# hold?

# %% name="small"
keys = ConvProjection(1, stride=2).eval()  # one channel
with torch.no_grad():
    keys.conv.weight.fill_(1)
    keys.linear.weight.fill_(1)
    keys.linear.bias.zero_()
    x = torch.arange(16.0).reshape(1, 16, 1)  # (B, N, D)
    print("tokens", x.reshape(4, 4).int().tolist())
    print("keys  ", keys(x, (4, 4)).round().reshape(2, 2).int().tolist())

# %% [markdown] name="small-answer"
# Four keys for sixteen tokens. The last is the sum of the nine tokens around number 10, which is 90. The
# first is $0+1+4+5$: beyond the border there are zeros. So a key tells what lies around its place, and
# whether the border is near.
#
# ## The difference
#
# CvT is a `Pyramid`. Beside the pyramid's own parts, it has these:

# %% name="difference"
for slot, part in papers.delta(CvT).items():
    print(f"{slot:10} {part.__name__:14} {part.__doc__.splitlines()[0]}")

# %% [markdown] name="scale-text"
# Two details are not in the table. The class token enters in the last stage. It lies on no map, so it
# passes the matrices alone. And the scores are divided by $\sqrt D$, the width of the token, where the
# ViT divides by $\sqrt d$, the width of a head.
#
# How many scores does a head compute, with 224 x 224 pixels, and what do the convolutions add?

# %% name="cost"
with torch.device("meta"):  # nothing is allocated
    model = papers.build("cvt_13")
    maps = model.features(torch.zeros(1, 3, 224, 224))
for s, (map, stage) in enumerate(zip(maps, model.stages, strict=True)):
    N, rows = map[0, 0].numel(), map.shape[2]
    print(f"stage {s + 1}: {len(stage.blocks):2} blocks, {N} tokens, {N // 4} keys")
total = sum(p.numel() for p in model.parameters())
extra = [m for m in model.modules() if isinstance(m, ConvProjection)]
parts = [part for m in extra for part in (m.conv, m.norm)]
added = sum(p.numel() for part in parts for p in part.parameters())
print(f"{total:,} parameters; {added:,} of them before queries, keys and values")
depths = model.cfg.depths
assert added == sum(3 * 11 * D * L for D, L in zip(model.widths, depths, strict=True))
print("ok: for each channel a kernel of 9, a scale and a shift, three times a block")

# %% [markdown] name="proof"
# ## The proof
#
# Take the convolutions out: a kernel that picks the token in the middle, a norm that does nothing, no
# stride. Attention must remain, with three matrices and CvT's scale.

# %% name="identity"
torch.manual_seed(0)


class Dense(ConvAttention):
    stride = 1


layer, plain = Dense(20, 4).double(), ViT.Attention(20, 4).double()  # dim, heads
three = layer.q, layer.k, layer.v
for part in three:
    torch.nn.init.dirac_(part.conv.weight, groups=20)
    part.norm = torch.nn.Identity()
with torch.no_grad():
    plain.qkv.weight.copy_(torch.cat([part.linear.weight for part in three]))
    plain.qkv.bias.copy_(torch.cat([part.linear.bias for part in three]))
plain.proj, plain.scale = layer.proj, 20**-0.5
x = torch.randn(2, 1 + 30, 20).double()  # a class token, and a map of 5 x 6
assert torch.allclose(layer(x, (5, 6)), plain(x))
print("ok: with kernels that pick the middle, this is attention")

# %% [markdown] name="proof-more"
# The tests compare the model with the one in transformers: logits, all blocks, the maps of all stages and
# all gradients, on images that are not square. transformers has a GELU where the authors' code has
# $x\,\sigma(1.702x)$; both are compared. Seventeen planted errors are noticed.
#
# One thing that they show is odd. Which kernels does the loss never reach?

# %% name="idle"
small = papers.build("cvt_13", classes=10, image=64, depths=(1, 2, 3))
torch.nn.init.normal_(small.head.weight)  # at zero, where it starts, nothing gets one
small(torch.randn(2, 3, 64, 64)).square().sum().backward()
kernels = {n: p for n, p in small.named_parameters() if n.endswith("conv.weight")}
idle = [name for name, kernel in kernels.items() if not kernel.grad.any()]
print(len(kernels), "kernels; without a gradient:", *idle)
assert idle == ["stages.2.blocks.2.attn.q.conv.weight"]

# %% [markdown] name="idle-answer"
# In the last block, only the class token is read. Its query passes no convolution, so the convolution of
# the other queries is computed for nothing. The published models carry it along.
#
# ## An experiment
#
# Digits, 16 patches. A ViT with a table of positions, the same without, and one with CvT's two kinds of
# convolutions and no table. They fit into the slots of a ViT. Six epochs each. Which comes first?

# %% name="train" tags=["nbval-ignore-output"]
digits = data.load("digits")
recipe = train.RECIPES["smoke"].but(model="Nano/2", epochs=6)
Flat = ViT.variant(Tokenizer=ConvEmbed, Attention=ConvAttention, Position=NoPosition)
models = {
    "ViT, table": ViT,
    "ViT, none": ViT.variant(Position=NoPosition),
    "CvT, none": Flat,
}
curves = {}
for name, cls in models.items():
    model = train.build_model(recipe, digits, cls, dim=96, depth=2)
    run = train.fit(model, digits, recipe, device="cpu", quiet=True)
    accuracy = [entry["test_accuracy"] for entry in run.history]
    curves[name] = range(1, 7), accuracy
    print(f"{name:10} accuracy {run.accuracy:.2f}")
picture = show.lines(curves, "epoch", "accuracy")
alt = "Accuracy after each epoch: a ViT with and without positions, and a CvT without"
show.figure(picture, alt)

# %% name="train-bound"
assert curves["CvT, none"][1][-1] > 0.6
print("ok: without a table, the CvT has learned")

# %% [markdown] name="recorded-text"
# One run says little. The same with three seeds and ten epochs, and with one kind of convolutions alone:

# %% name="recorded"
record = show.recorded("claim-cvt")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# Without its table, the ViT loses 40 points and more with every seed, the CvT next to nothing. Each kind
# of convolutions helps alone. Those before queries, keys and values do more; tokens that overlap are not
# enough.
#
# Why? The record cannot tell what a token learns from its convolutions: who its neighbours are, or how
# near the border is. And all of this is on digits, where ten epochs are few for a ViT. It does not say
# that positions are of no use to a CvT with more data.
#
# ## What the authors report
#
# On ImageNet at 224 x 224, CvT-13 reaches 81.6 % with 20 million parameters, and CvT-21 82.5 % with 32
# million. Our models have 19,997,480 and 31,622,696.

# %% [markdown] name="remember"
# ## Remember
#
# - Three convolutions a block, depthwise, each with a BatchNorm: for queries, for keys, for values. Keys
#   and values come from every second row and column, so there are four times fewer scores.
# - BatchNorm inside attention: in training, an image's output depends on the others in its batch.
# - The scale is $1 / \sqrt D$ of the whole width.
# - The class token enters in the last stage and passes no convolution.
# - Authors' code and port differ in the activation of the MLP. Load weights with the one that they were
#   trained with.
