# %% [markdown] name="title"
# # 06 · The whole Vision Transformer
#
# You have every part: patches, class token, positions, attention, the block. Here they become one
# model, from pixels to logits. You count what it costs, prove that it is the published one, find an
# error that hides in it, and train it to read digits.
#
# **A question first.** Out of the last block of a ViT-B/16 come 197 tokens of 768 numbers: one class
# token and 196 patches. How many of the 197 does the head read?

# %% name="setup"
import torch
from torch import nn

from vitcourse import check, make_vit, show, vit

# %% name="predict-head"
check.predict("tokens that the head of a ViT-B/16 reads, of the 197", ...)

# %% [markdown] name="equation-1"
# ## Four equations
#
# The paper says the whole model in four lines. Here is each with its code, on 3 grey images of 8 x 12
# pixels in patches of 4 x 4: N = 6 patches of 16 values, T = 7 tokens of width D = 10.
#
# $$\mathbf{z}_0 = [\mathbf{x}_\text{class};\ \mathbf{x}_p^1\mathbf{E};\ \dots;\ \mathbf{x}_p^N\mathbf{E}] + \mathbf{E}_{pos} \qquad (1)$$
#
# $\mathbf{E}$ embeds a patch, the semicolons put tokens one below the other, and $\mathbf{E}_{pos}$ has
# a row for every token, the class token too. So the class token is put in front first, and the
# positions are added after that. (The layers have biases, too; the paper leaves them out here.)

# %% name="run-equation-1"
torch.manual_seed(6)
images = torch.rand(3, 1, 8, 12)  # (B, C, H, W)
patches = vit.patchify(images, 4)  # (B, N, P*P*C)
E, E_pos = torch.randn(16, 10), torch.randn(1, 7, 10)
x_class = torch.randn(1, 1, 10).expand(3, -1, -1)  # (B, 1, D)

z = torch.cat([x_class, patches @ E], dim=1) + E_pos  # (B, T, D)
print("patches", tuple(patches.shape), "-> tokens", tuple(z.shape))

# %% [markdown] name="equation-2"
# $$\mathbf{z}'_\ell = \text{MSA}(\text{LN}(\mathbf{z}_{\ell-1})) + \mathbf{z}_{\ell-1} \qquad (2)$$
#
# Read it from the inside: normalise, let the tokens look at each other, add the result to what was
# there. MSA is multi-head self-attention, here with K = 5 heads of width 2.

# %% name="run-equation-2"
LN_1, MSA = vit.LayerNorm(10), vit.Attention(dim=10, heads=5)
z_prime = MSA(LN_1(z)) + z  # (B, T, D)
print("after attention", tuple(z_prime.shape))

# %% [markdown] name="equation-3"
# $$\mathbf{z}_\ell = \text{MLP}(\text{LN}(\mathbf{z}'_\ell)) + \mathbf{z}'_\ell \qquad (3)$$
#
# The same pattern with another norm and an MLP, which takes each token by itself through 40 hidden
# numbers. Equations 2 and 3 are one block. The model has L of them, each with parameters of its own.

# %% name="run-equation-3"
LN_2, MLP = vit.LayerNorm(10), vit.Mlp(dim=10, hidden=40)
z = MLP(LN_2(z_prime)) + z_prime  # (B, T, D)
print("hidden", tuple(MLP.fc1(z_prime).shape), "-> after the MLP", tuple(z.shape))

# %% [markdown] name="equation-4"
# $$\mathbf{y} = \text{LN}(\mathbf{z}_L^0) \qquad (4)$$
#
# $\mathbf{z}_L^0$ is token 0 of what leaves the last block: the class token. That is the answer to the
# question above: the head reads one token. The patches reach it through attention alone.

# %% name="run-equation-4"
LN = vit.LayerNorm(10)
y = LN(z[:, 0])  # (B, D)
assert torch.allclose(y, LN(z)[:, 0])
print("the image as one vector", tuple(y.shape))
print("ok: to normalise all tokens and then take one gives the same")

# %% [markdown] name="card-class-head"
# ### Exercise: the head
#
# 5 minutes · difficulty 1 of 3
#
# Equation 4 ends before the logits. Write `Head(dim, classes)`, a `Linear` that reads the class token
# of tokens that are normalised already: x (B, T, D) -> logits (B, classes).
#
# A hint: `check.hint("class_head")`. The solution: `check.solution("class_head")`.


# %% name="stub-class-head" tags=["exercise"]
class Head(nn.Linear):
    """Made by Head(dim, classes), as a Linear is."""

    def forward(self, x):
        """Read the class token: x (B, T, D) -> logits (B, classes)."""
        ...


# %% name="check-class-head" tags=["check"]
check.class_head(Head)

# %% [markdown] name="shapes"
# ## One image through a large model
#
# An RGB image of 256 x 256 pixels, patches of 32 x 32, width 1024, 16 heads, 24 blocks, 1000 classes:
# ViT-L/32. Write down before you run the second cell: how many tokens, how many values in a patch, how
# wide a head, how wide the hidden layer of the MLP?

# %% name="shapes-picture"
from sklearn.datasets import load_sample_image

photo = load_sample_image("flower.jpg")[90:346, 180:436]  # (256, 256, 3)
picture = show.patch_grid(photo, patch=32)
show.figure(picture, alt="A flower; beside it, the same cut into 8 x 8 patches")

# %% name="shapes-table"
from vitcourse.probe import record_attention

with torch.device("meta"):  # shapes without numbers: no memory, no computing
    model, images = make_vit("L/32", image=256), torch.empty(1, 3, 256, 256)


def report(name):
    def hook(module, given, output):  # torch calls it when the module has run
        print(f"{name:<20}{str(tuple(given[0].shape)):>17} -> {tuple(output.shape)}")

    return hook


seen = ["patch_embed.proj", "position", "blocks.0.norm1", "blocks.0.attn.qkv"]
seen += ["blocks.0.attn.proj", "blocks.0.norm2", "blocks.0.mlp.fc1"]
seen += ["blocks.0.mlp.fc2", "blocks.23", "norm", "head"]
for name in seen:
    model.get_submodule(name).register_forward_hook(report(name))

print(f"{'patches':<20}{str(tuple(vit.patchify(images, 32).shape)):>17}")
with record_attention(model) as maps:
    model(images)
print(f"{'attention of block 0':<40}{tuple(maps[0].shape)}")

# %% [markdown] name="shapes-notes"
# The image becomes 64 patches of 32 · 32 · 3 = 3072 values, then 65 tokens of 1024 numbers, and stays
# that until the head. `qkv` makes 3 · 1024 numbers of each token: queries, keys and values, each for 16
# heads of 64. That this is 3072 again is chance.
#
# So is the width. An article that walks through this example computes D = 32 · 32 · 1 = 1024, as
# if the patch decided it. If it did, no other width would run.

# %% name="width-is-free"
with torch.device("meta"):
    narrow = make_vit("L/32", image=256, dim=960)
weight = narrow.patch_embed.proj.weight  # (D, C, P, P)
print("weight of the embedding:", tuple(weight.shape))
print("logits:", tuple(narrow(images).shape))

# %% [markdown] name="card-vit"
# ### Exercise: the whole ViT
#
# 30 minutes · difficulty 3 of 3
#
# Write `ViT(image, patch, channels, dim, depth, heads, classes)`: images (B, C, H, W) -> logits
# (B, classes). `image` is (H, W), the MLP is 4 · dim wide. Call the parameters `prefix` (1, 1, D),
# `position.table` (1, T, D), `patch_embed.proj`, `blocks.0` and so on, `norm`, `head`. You may use
# `vit.PatchEmbed`, `vit.LearnedPosition(dim, grid, prefix_len)`, `vit.Attention`, `vit.Mlp`,
# `vit.Block(dim, attn, mlp)` and `vit.LayerNorm`, or parts of your own with the same names (norms
# with an eps of 1e-6). The package's first two speak of the grid (h, w): `x, grid = patch_embed(images)`
# and `x = position(x, grid)`.
#
# A hint: `check.hint("vit")`. The solution: `check.solution("vit")`.


# %% name="stub-vit" tags=["exercise"]
class ViT(nn.Module):
    """The Vision Transformer."""

    def __init__(self, image, patch, channels, dim, depth, heads, classes):
        super().__init__()
        ...

    def forward(self, images):
        """images (B, C, H, W) -> logits (B, classes)."""
        ...


# %% name="check-vit" tags=["check"]
check.vit(ViT)

# %% [markdown] name="parts"
# ## The model as a chain
#
# Here is another way to write it: as a chain of parts that each take x and give x. The parts are those
# of lessons 01 to 05, as short as they get.


# %% name="own-tokens"
class Patches(nn.Module):  # lesson 01: (B, C, H, W) -> (B, N, D)
    def __init__(self, channels, dim, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, stride=patch)

    def forward(self, images):
        return self.proj(images).flatten(2).transpose(1, 2)


class ClassToken(nn.Module):  # lesson 02: (B, N, D) -> (B, T, D)
    def __init__(self, dim):
        super().__init__()
        self.prefix = nn.Parameter(torch.randn(1, 1, dim))

    def forward(self, x):
        return torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1)


class Positions(nn.Module):  # lesson 03: (B, T, D) -> (B, T, D)
    def __init__(self, tokens, dim):
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, tokens, dim))

    def forward(self, x):
        return x + self.table


# %% name="own-block"
class MultiHead(nn.Module):  # lesson 04: (B, T, D) -> (B, T, D)
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, K, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, K, T, d)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):  # lesson 05: (B, T, D) -> (B, T, D)
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.attn = vit.LayerNorm(dim), MultiHead(dim, heads)
        self.norm2, self.mlp = vit.LayerNorm(dim), vit.Mlp(dim, 4 * dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


# %% [markdown] name="versions"
# **v1** has no block: patches, class token, positions, head. It runs, and its shapes are right. Predict
# before you run: how much do its logits for two different images differ?


# %% name="v1"
class First(nn.Module):  # (B, T, D) -> (B, D)
    def forward(self, x):
        return x[:, 0]


torch.manual_seed(6)
images = torch.rand(3, 1, 8, 12)
start = [Patches(1, 10, patch=4), ClassToken(10), Positions(7, 10)]
head = nn.Linear(10, 9)
v1 = nn.Sequential(*start, First(), head)
logits = v1(images)
print(tuple(logits.shape), "difference:", f"{(logits[0] - logits[1]).abs().max():.2f}")

# %% [markdown] name="only-attention"
# Not at all. The class token is the same for each image, and nothing brought the patches to it. The
# blocks are the only way from the pixels to the answer, and in them the attention: the MLP takes each
# token by itself.

# %% name="v2"
blocks = [Block(10, heads=5), Block(10, heads=5)]  # new
v2 = nn.Sequential(*start, *blocks, First(), head)  # new
logits = v2(images)
print(tuple(logits.shape), "difference:", f"{(logits[0] - logits[1]).abs().max():.2f}")

# %% name="v3"
norm = vit.LayerNorm(10)  # new
v3 = nn.Sequential(*start, *blocks, norm, First(), head)  # new
print(tuple(v3(images).shape), sum(p.numel() for p in v3.parameters()), "parameters")

# %% [markdown] name="proof"
# v3 is the ViT. To prove it, give the package's model the same parameters and compare. First all of
# them get random values: a new norm multiplies by 1 and adds 0, so an error in it would stay hidden.

# %% name="equal-to-package"
from vitcourse import Config

for parameter in v3.parameters():
    nn.init.normal_(parameter, std=0.5)
sizes = Config(dim=10, depth=2, heads=5, patch=4, image=(8, 12), channels=1, classes=9)
package = vit.ViT(sizes)
places = {"0.": "patch_embed.", "1.": "", "2.": "position.", "3.": "blocks.0."}
places |= {"4.": "blocks.1.", "5.": "norm.", "7.": "head."}  # First, 6, has none
renamed = {}
for name, tensor in v3.state_dict().items():
    renamed[places[name[:2]] + name[2:]] = tensor  # 0.proj -> patch_embed.proj
package.load_state_dict(renamed)  # refuses a name too many, and one too few
assert torch.allclose(v3(images), package(images), atol=1e-5)
print("ok: the chain and the package's ViT give the same logits")

# %% [markdown] name="grid"
# `places` shows how the two map. One thing differs: the package's parts also hand on the grid (h, w),
# because a sequence of 6 tokens does not say whether it was 2 x 3 or 1 x 6. Its tokenizer gives
# `x, grid`, and every other part takes `x, grid`. The parts that you know do not need it for images of
# the built size. Lesson 13 has parts that do.

# %% name="with-grid"
x, grid = package.patch_embed(images)  # (B, N, D) and (h, w)
print("tokens", tuple(x.shape), "of the grid", grid)
block = package.blocks[0]
assert torch.equal(block(x, grid), block(x))
print("ok: this block does the same with and without the grid")

# %% [markdown] name="sizes"
# ## What it costs
#
# B, L and H are the paper's sizes; Ti and S came with DeiT. The number behind the slash is the patch.
#
# | | Ti | S | B | L | H |
# |---|---|---|---|---|---|
# | width D | 192 | 384 | 768 | 1024 | 1280 |
# | depth L | 12 | 12 | 12 | 24 | 32 |
# | heads K | 3 | 6 | 12 | 16 | 16 |
#
# Many articles print that the patch size changes the computing only. Predict: does B/16 or B/32 have
# more parameters, or do they have as many?

# %% name="count-cost"
from torch.utils.flop_counter import FlopCounterMode


def cost(size):
    """Parameters, and multiply-adds for one image of 224 x 224 pixels."""
    with torch.device("meta"):
        model, images = make_vit(size), torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    parameters = sum(p.numel() for p in model.parameters())
    return parameters, counter.get_total_flops() // 2  # it counts each as two


costs = {size: cost(size) for size in "Ti/16 S/16 B/16 B/32 L/16 L/32 H/14".split()}
for size, (parameters, multiply_adds) in costs.items():
    print(f"{size:6}{parameters:>12,} parameters{multiply_adds / 1e9:>8.2f} G")

# %% name="published-cost"
published = {"Ti/16": 5_717_416, "S/16": 22_050_664, "B/16": 86_567_656}
published |= {"L/16": 304_326_632, "H/14": 632_045_800}
for size, parameters in published.items():
    assert costs[size][0] == parameters
for size, billions in {"Ti/16": 1.3, "S/16": 4.6, "B/16": 17.6}.items():
    assert round(costs[size][1] / 1e9, 1) == billions
print("ok: the published parameters, and the published, rounded multiply-adds")

embedding, table = (32**2 - 16**2) * 3 * 768, (197 - 50) * 768
assert costs["B/32"][0] - costs["B/16"][0] == embedding - table
print(f"B/32: {embedding:,} more in the embedding, {table:,} fewer in the table")

# %% [markdown] name="cost-notes"
# B/32 has more parameters and needs a quarter of the computing: its larger patches have more values to
# embed, and there are fewer of them.
#
# Many tables print 307 million for L. Look at yours: L/16 has 304.3 million, and L/32 has 306.5.

# %% [markdown] name="card-block-parameters"
# ### Exercise: the parameters of a block
#
# 6 minutes · difficulty 2 of 3
#
# How many parameters has one block of width 192, with an MLP four times as wide and a bias wherever
# there can be one? Count on paper: four linear layers and two norms. A linear layer from a to b numbers
# has a · b weights and b biases.
#
# A hint: `check.hint("block_parameters")`. The solution: `check.solution("block_parameters")`.

# %% name="stub-block-parameters" tags=["exercise"]
block_parameters = ...

# %% name="check-block-parameters" tags=["check"]
check.block_parameters(block_parameters)

# %% [markdown] name="by-hand"
# The computing can be counted by hand, too. For each token, a block multiplies by 12 D x D weights. The
# scores and the mixing of values take T · T · D each:
#
# $$N \cdot P^2 C \cdot D \;+\; L\,(12\,T D^2 + 2\,T^2 D) \;+\; D \cdot \text{classes}$$
#
# Attention is said to be slow because it grows with $T^2$. Predict: what share of a B/16's multiply-adds
# at 224 x 224 pixels is in the $T^2$ term?

# %% name="count-by-hand"
D, L, P, classes = 768, 12, 16, 1000


def by_hand(side):
    """All multiply-adds of B/16 for a square image, and those that grow with T*T."""
    N = (side // P) ** 2
    T = N + 1
    pairs = L * 2 * T**2 * D
    return N * P**2 * 3 * D + L * 12 * T * D**2 + pairs + D * classes, pairs


assert by_hand(224)[0] == costs["B/16"][1]
print("ok: the formula gives what the counter gives")
for side in (224, 384, 768, 1536):
    total, pairs = by_hand(side)
    print(f"{side:>4} pixels:{total / 1e9:>8.1f} G, {pairs / total:.0%} of it in T*T")

# %% [markdown] name="weights"
# ## Is it the published model?
#
# The same number of parameters is no proof. Take a ViT that somebody else wrote, give every parameter a
# random value, load them into ours, and compare the logits. `weights.load` knows the names that other
# libraries use. torchvision's ViT comes with the course.

# %% name="torchvision"
from torchvision.models import VisionTransformer

from vitcourse import weights

theirs = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 3}
theirs |= {"hidden_dim": 48, "mlp_dim": 96, "num_classes": 10}  # their names
theirs = VisionTransformer(**theirs).eval()
for parameter in theirs.parameters():
    nn.init.normal_(parameter, std=0.2)
sizes = Config(dim=48, depth=2, heads=3, patch=8, image=32, mlp_ratio=2, classes=10)
ours = vit.ViT(sizes).eval()
print(weights.load(ours, theirs.state_dict()))
images = torch.rand(4, 3, 32, 32)
assert (ours(images) - theirs(images)).abs().max() < 1e-5
print("ok: torchvision's logits are ours, to 1e-5")

# %% [markdown] name="can-fail-text"
# A comparison that cannot fail proves nothing. Spoil one number of your model, a little, and compare
# again.

# %% name="can-fail"
ours.blocks[1].attn.scale *= 1.01
assert (ours(images) - theirs(images)).abs().max() > 1e-5
print("ok: a scale that is wrong by 1 % in one block is noticed")

# %% name="timm"
import importlib.util
import warnings

if importlib.util.find_spec("timm"):
    with warnings.catch_warnings(action="ignore"):  # about bars that it does not need
        import timm
    theirs = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2}
    theirs |= {"num_heads": 3, "mlp_ratio": 2, "num_classes": 10}
    theirs = timm.models.VisionTransformer(**theirs).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours = vit.ViT(sizes).eval()
    print(weights.load(ours, theirs.state_dict()))
    assert (ours(images) - theirs(images)).abs().max() < 1e-5
    print("ok: timm's logits are ours, to 1e-5")
else:
    print("timm is not installed: with `pip install timm` this cell compares it, too")

# %% [markdown] name="pretrained"
# So the weights that others trained run in your model. With a network,
# `model = weights.pretrained("vit_b_16")` downloads torchvision's ImageNet weights once.
# `model.preprocess` prepares a picture as they expect it, and `model.class_names` are the thousand
# classes. This notebook does not do it: it runs without a network.

# %% [markdown] name="card-first-loss"
# ## Does it learn?
#
# ### Exercise: the first loss
#
# 3 minutes · difficulty 1 of 3
#
# The head of a new ViT starts with zeros, so all logits are 0 and 1000 classes are equally likely. What
# is its cross-entropy, with the natural logarithm, whatever the image and its label are?
#
# A hint: `check.hint("first_loss")`. The solution: `check.solution("first_loss")`.

# %% name="stub-first-loss" tags=["exercise"]
first_loss = ...

# %% name="check-first-loss" tags=["check"]
check.first_loss(first_loss)

# %% name="first-loss-seen"
import math

import torch.nn.functional as F

from vitcourse import data

digits = data.load("digits")  # the first test of a new classifier needs one batch
batch, labels = digits.normalise(digits.images[:32]), digits.labels[:32]
torch.manual_seed(6)
sizes = Config(dim=48, depth=2, heads=3, patch=2, image=8, channels=1, classes=10)
model = vit.ViT(sizes)
loss = F.cross_entropy(model(batch), labels)
print(f"first loss {loss:.4f}, ln(10) is {math.log(10):.4f}")

# %% [markdown] name="suspect-text"
# The second test: can the model learn one batch by heart? If it cannot, something is broken.
#
# Test two models. One is yours. The other follows a sentence in an article, which says that attention
# and MLP are *followed* by layer norm, above code that has it before. Predict: which of the two tests
# does it fail?


# %% name="suspect"
class NormAfter(vit.Block):
    def forward(self, x, grid=None):
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


torch.manual_seed(6)
suspect = vit.ViT.variant(Block=NormAfter)(sizes)  # a ViT with other blocks
print("logits", tuple(suspect(batch).shape))
print(f"first loss {F.cross_entropy(suspect(batch), labels):.4f}")


# %% name="overfit" tags=["nbval-ignore-output"]
def overfit(model, steps=100):
    """Train on one batch again and again: the loss of each step."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=5e-3), []
    for _ in range(steps):
        loss = F.cross_entropy(model(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


curves = {"norm before": overfit(model), "norm after": overfit(suspect)}
picture = show.lines(curves, "step", "loss on the one batch")
show.figure(picture, alt="Two curves of the loss over 100 steps; both fall to nearly 0")
for name, losses in curves.items():
    print(f"{name}: {losses[0]:.2f} -> {losses[-1]:.2f}")

# %% name="overfit-bound"
assert all(losses[-1] < 0.3 for losses in curves.values())
assert sum(curves["norm after"]) < sum(curves["norm before"])
print("ok: both learn 32 digits by heart, the suspect even faster")

# %% [markdown] name="trace-text"
# Neither. Shapes, first loss and one batch say nothing against it. What finds the error is a comparison
# with a reference, stage by stage. `check.trace` gives both models the same weights and an image, and
# names the first stage that departs. Run it on your own `ViT` from above, too.

# %% name="trace"
found = check.trace(suspect, batch[:2])
assert found.mistake == "norm after instead of before"

# %% [markdown] name="train-text"
# ## Train it
#
# The sound model, on all 1437 training digits, with the course's smallest recipe: 15 times through the
# data, with patches of 2 x 2 pixels, so 16 patches. Lesson 07 explains the recipe. This cell takes
# about ten seconds.

# %% name="train" tags=["nbval-ignore-output"]
from vitcourse.train import RECIPES, build_model, fit

recipe = RECIPES["smoke"].but(model="Nano/2", epochs=15)
run = fit(build_model(recipe, digits), digits, recipe, device="cpu")
print(f"right: {run.accuracy:.3f} of {len(digits.test_labels)} test digits")

# %% name="train-bound"
assert run.accuracy > 0.9
print("ok: more than 9 of 10 digits that it never saw are read")

# %% [markdown] name="picture-text"
# ## One picture, all the way
#
# A test digit goes in, ten probabilities come out. Take the digit of which the model is least sure. The
# bars show between which answers it wavers; the heat map, which patches the class token takes from,
# over all blocks.

# %% name="picture" tags=["nbval-ignore-output"]
from vitcourse.probe import rollout

images = digits.normalise(digits.test_images)  # (360, 1, 8, 8)
with torch.no_grad(), record_attention(run.model) as maps:
    chances = run.model(images).softmax(dim=-1)  # (360, classes)
sure = chances.max(dim=-1).values  # (360,)
least = sure.argmin().item()
bars = dict(zip(digits.classes, chances[least].tolist(), strict=True))
picture = show.bars(bars, "probability")
show.figure(picture, alt="Ten bars, one for each digit; several share the probability")
heat = rollout(maps)[least, 0, 1:].reshape(4, 4)  # a weight for each of 4 x 4 patches
title = f"the truth: {digits.test_labels[least]}"
picture = show.attention_overlay(digits.test_images[least] / 255, heat, title)
show.figure(picture, alt="A handwritten digit; beside it, the weights of its patches")
print(f"least sure: {sure[least]:.2f}, half of all digits: {sure.median():.2f} or more")

# %% name="picture-bound"
assert sure[least] < 0.7 and sure.median() > 0.9
print("ok: it wavers here, and is more than 90 % sure of half of the digits")

# %% [markdown] name="remember"
# ## Remember
#
# - Four equations: embed, attend, think, read. The head reads one token of T.
# - The blocks' attention is the only way from the patches to the class token.
# - Width, depth and heads are free. The patch sets N and the size of the embedding, so the patch changes
#   the parameters, too.
# - At 224 pixels the $T^2$ term is a few percent of the computing; it takes over in large images.
# - Right shapes, a first loss of ln(classes) and one batch learnt by heart are needed, and do not prove
#   a model. Equal logits with random weights do.
#
# Before: [05 the encoder block](05-encoder-block.ipynb). Next: [07 training on a GPU](07-training.ipynb).
#
# [Glossary](../docs/glossary.md).
