# %% [markdown] name="title"
# # CeiT: convolutions where a ViT lacks them
#
# Yuan et al. 2021,
# [Incorporating Convolution Designs into Visual Transformers](https://arxiv.org/abs/2103.11816).
# Lesson [17 convolutions return](../17-convolutions-return.ipynb).
#
# **The question.** That neighbouring pixels belong together is built into a CNN. A ViT has to learn it, and
# needs many images for that. Can it be told, and remain a ViT?
#
# **The change.** Three parts. Image-to-tokens (I2T): patches are cut from the map of a small convolutional
# stem. LeFF: in the middle of each MLP, a depthwise $3 \times 3$ convolution mixes neighbouring tokens.
# LCA: one more block, in which the class token of the last layer attends to the class tokens of all layers.

# %% name="setup"
import torch

from vitcourse import ViT, data, papers, show, train
from vitcourse.papers.ceit import CeiT, LeFF

# %% [markdown] name="equation"
# ## The equation
#
# The patch tokens $x$, laid out as a map, and a kernel $k$ for each hidden channel:
#
# $$\text{LeFF}(x) = \text{BN}(W_2\ g(\text{BN}(k * g(\text{BN}(W_1 x))))), \qquad g = \text{GELU}$$
#
# The class tokens $c_1, \dots, c_L$ behind the $L$ blocks, each with a learned vector of its layer:
#
# $$c = c_L + \text{Attention}(\text{query } c_L;\ \text{keys and values } c_1, \dots, c_L)$$
#
# then the usual MLP. By hand: one class token and a map of $4 \times 5$ tokens, all of width 1. One place
# holds a 10. All weights are 1. Which tokens know of it after one LeFF?

# %% name="small"
layer = LeFF(1, 1).eval()  # dim, hidden
with torch.no_grad():
    for conv in (layer.conv1, layer.conv2, layer.conv3):
        conv.weight.fill_(1)
        conv.bias.zero_()
    map = torch.zeros(4, 5)
    map[1, 3] = 10
    x = torch.cat([torch.tensor([7.0]), map.flatten()])[None, :, None]  # (B, T, D)
    y = layer(x, (4, 5))
print("class token", round(y[0, 0].item()))
for row in y[0, 1:, 0].reshape(4, 5).round().int().tolist():
    print(row)

# %% [markdown] name="small-answer"
# The nine tokens around it, and itself among them. The class token has no place on the map and passes
# unchanged.
#
# What is then added to it? In the paper: nothing. In the authors' code LeFF receives, as every MLP does,
# what the norm made of the token, and hands that back. So each block turns $c$ into
# $c + \text{LN}(c)$. The published weights need it.
#
# ## The difference
#
# Two slots are filled with other classes, and a block is added behind the last:

# %% name="difference"
print(papers.diff(CeiT))

# %% [markdown] name="cost"
# What does that cost? CeiT-T has the sizes of the ViT-Ti. Let us count what each part adds.

# %% name="count"
cfg = papers.configs()["ceit_t"].sizes
with torch.device("meta"):  # nothing is allocated
    vit, ceit = ViT(cfg), CeiT(cfg)


def count(module):
    return sum(p.numel() for p in module.parameters())


added = {
    "stem": count(ceit.patch_embed) - count(vit.patch_embed),
    "LeFF": 12 * (count(ceit.blocks[0].mlp) - count(vit.blocks[0].mlp)),
    "LCA": count(ceit.lca) + ceit.position_layers.numel(),
}
print(f"{'ViT-Ti':6} {count(vit):9,}")
for name, number in added.items():
    print(f"{name:6} {number:+9,}")
print(f"{'CeiT-T':6} {count(ceit):9,}")
assert count(vit) + sum(added.values()) == count(ceit)
assert count(ceit.lca) == count(vit.blocks[0])
print("ok: that is all; LCA is one more block")

# %% [markdown] name="proof"
# ## The proof
#
# The head reads class tokens only. The last LeFF changes patch tokens only. So who reads what the last
# LeFF computes? The gradient knows.

# %% name="unread"
torch.manual_seed(0)
recipe = train.RECIPES["smoke"].but(model="Nano/4", batch=20)
digits = data.load("digits")
model = train.build_model(recipe, digits, CeiT)
torch.nn.init.normal_(model.head.weight)  # it begins at zero
model(digits.normalise(digits.images[:20])).square().sum().backward()
for i, block in enumerate(model.blocks, start=1):
    gradient = block.mlp.conv1.weight.grad
    print(f"block {i}: its LeFF gets", "a gradient" if gradient.any() else "zeros")
assert not gradient.any()
unread = count(ceit.blocks[-1].mlp) / count(ceit)
print(f"ok: {unread:.1%} of the parameters of CeiT-T never learn")

# %% [markdown] name="proof-tests"
# The paper's table counts them all the same. No package on PyPI holds the authors' model, so the tests
# write it out in plain sums, under the names of the authors' files, and compare logits and gradients. They
# also show that a LeFF whose kernels see one place is the MLP of the ViT, and that LCA is the last token
# of a plain block.
#
# ## An experiment
#
# 200 digits to learn from, enlarged to $16 \times 16$ pixels, 16 tokens. A ViT and the same with LeFF,
# which gets a smaller hidden width, so that both have about as many parameters.


# %% name="models"
def twice(images):
    """Twice as high and wide."""
    upsample = torch.nn.Upsample(scale_factor=2, mode="bilinear")
    return upsample(images.float()).round().byte()


chosen = torch.randperm(len(digits.labels))[:200]
few = data.Data(
    "few digits",
    twice(digits.images[chosen]),
    digits.labels[chosen],
    twice(digits.test_images),
    digits.test_labels,
    digits.classes,
)
recipe = recipe.but(epochs=16, evaluate_every=2)
models = {"MLP": train.build_model(recipe, few)}
cls = ViT.variant(Mlp=LeFF)
models["LeFF"] = train.build_model(recipe, few, cls, mlp_ratio=3.5)
for name, model in models.items():
    print(f"{name:4} {count(model):,} parameters")

# %% name="train" tags=["nbval-ignore-output"]
curves = {}
for name, model in models.items():
    run = train.fit(model, few, recipe, device="cpu", quiet=True)
    entries = [entry for entry in run.history if "test_accuracy" in entry]
    curves[name] = range(2, 17, 2), [entry["test_accuracy"] for entry in entries]
    print(f"{name:4} accuracy {run.accuracy:.2f}")
alt = "Accuracy on test digits over 16 epochs, with the MLP and with LeFF"
show.figure(show.lines(curves, "epoch", "accuracy"), alt)

# %% name="train-bound"
assert min(scores[-1] for _, scores in curves.values()) > 0.4
print("ok: both have learned")

# %% [markdown] name="recorded-text"
# One run says little. The record has three seeds, three numbers of images, and the stem. It also asks about
# LCA, with 600 images: a CeiT of four blocks and LCA, against the same without LCA but with a fifth block.

# %% name="recorded"
record = show.recorded("claim-ceit")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="probe-text"
# How much does each layer's class token know? For each of the first four, a linear map was fitted to the
# training images and asked about the test images. And what does LCA read? Its weights, averaged over heads
# and test images:


# %% name="probe"
def mean(name):
    """The mean of a recorded figure over the seeds."""
    return record["figures"][name]["mean"]


layers = range(1, 5)
print(f"{'layer':14}", *(f"{i:6}" for i in layers))
for name in ("LCA", "one block more"):
    told = [mean(f"{name}, class token {i}") for i in layers]
    print(f"{name:14}", *(f"{100 * t:5.1f}%" for t in told))

# %% name="weights"
weights = {f"layer {i}": mean(f"LCA, weight of layer {i}") for i in layers}
alt = "How much LCA takes from the class token of each of the four layers"
show.figure(show.bars(weights, "weight in LCA", mark=1 / 4), alt)

# %% [markdown] name="recorded-answer"
# LeFF is better than the MLP with every seed, and each number of images. But the ViT itself reads 79 %
# after 60 images, 83 % after 200 and 79 % after 600. All made the same 240 steps, too few for it. So the
# record shows that LeFF learns sooner. Whether it also needs fewer images cannot be told from it, nor whether
# the convolution or the BatchNorms beside it do the work.
#
# The other expectations failed. Behind LeFF, the stem adds nothing that holds with every seed: a digit has
# few fine details. LCA is no better than one block more, and it does not make early class tokens know more,
# though it reads all layers. Four blocks are few: the paper's models have twelve.

# %% [markdown] name="authors"
# ## What the authors report
#
# On ImageNet at 224 x 224: CeiT-T 76.4 %, CeiT-S 82.0 %, with 6.4 and 24.2 million parameters. The paper
# reports that a third of the training iterations of DeiT is enough. For CeiT-T it reports 1.2 billion
# multiplications; counting in its code gives 1.4.

# %% [markdown] name="remember"
# ## Remember
#
# - LeFF keeps both pointwise layers of the MLP and adds a depthwise kernel between them. It does not replace
#   them.
# - A sequence becomes a map by its grid. The authors' code takes $\sqrt N$ for both sides, and so square
#   images only.
# - No activation stands between the stem's norm and its pooling. The pooling's border must then be
#   $-\infty$: zeros would win against what is below zero.
# - In published weights, the class token passes LeFF as what the norm made of it.
# - What nobody reads does not learn: the last LeFF.
