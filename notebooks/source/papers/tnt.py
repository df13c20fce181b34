# %% [markdown] name="title"
# # TNT: a transformer in a transformer
#
# Han et al. 2021, [Transformer in Transformer](https://arxiv.org/abs/2103.00112).
# Lesson [16 many scales](../16-many-scales.ipynb).
#
# **The question.** A ViT turns the 768 numbers of a $16 \times 16$ patch into one token with one matrix.
# From then on, what lies inside the patch is fixed. Is something lost that later blocks could use?
#
# **The change.** Keep the inside. Each patch is also a sequence of 16 small tokens, one for each
# $4 \times 4$ pixels. In each block they attend to each other, inside their own patch. Then they are
# read as one long vector, which is added to the token of the patch.

# %% name="setup"
import inspect
from dataclasses import replace

import torch

from vitcourse import ViT, data, papers, show, train, vit
from vitcourse.papers.tnt import TNT, LegacyTNT, PixelEmbed, TNTBlock

# %% [markdown] name="equation"
# ## The equation
#
# Patch $i$ has a token $z^i$ of width $D$, and $m$ pixel tokens of width $c$, the rows of $Y^i$. One
# block does three things:
#
# $$Y^i \leftarrow \text{Inner}(Y^i), \qquad z^i \leftarrow z^i + W\,\text{Vec}(Y^i), \qquad
# Z \leftarrow \text{Outer}(Z)$$
#
# $\text{Inner}$ and $\text{Outer}$ are encoder blocks as you know them. $\text{Vec}$ lays the rows of
# $Y^i$ behind each other, $mc$ numbers. Nothing goes back from $z$ to $Y$.
#
# Two patches with two pixel tokens of width two, and a $W$ that keeps the first and the last number.
# Which rows of $Z$ change?

# %% name="small"
pixels = torch.arange(1.0, 9).reshape(2, 2, 2)  # (N, m, c)
W = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]])  # (D, m*c)
Z = torch.zeros(3, 2)  # the class token and two patches
Z[1:] += pixels.flatten(1) @ W.T
names = "class token", "patch 1", "patch 2"
for name, row in zip(names, Z.int().tolist(), strict=True):
    print(f"{name:11} {row}")

# %% [markdown] name="small-answer"
# The class token has no patch, so it has no pixels and gets nothing here.
#
# ## The difference
#
# The tokenizer gives pixel tokens beside patch tokens, and each block of the ViT becomes three parts. The
# outer one is the ViT's own. This is what such a block does:

# %% name="difference"
print(inspect.getsource(TNTBlock.forward))

# %% [markdown] name="cost"
# `pixels` holds the pixel tokens of all patches as $B \cdot N$ short sequences, so that the inner block
# is a plain `Block` and cannot mix patches. What does the inside cost?

# %% name="count"
sizes = papers.configs()["tnt_s"].sizes
with torch.device("meta"):  # nothing is allocated
    blocks = papers.build("tnt_s").blocks
N, m, c, D = 196, 16, 24, sizes.dim
work = {
    "inner": N * (12 * m * c**2 + 2 * m**2 * c),
    "fold": N * m * c * D,
    "outer": 12 * (N + 1) * D**2 + 2 * (N + 1) ** 2 * D,
}
for name, multiplications in work.items():
    count = sum(p.numel() for p in getattr(blocks[0], name).parameters())
    millions = multiplications / 1e6
    print(f"{name:6}{count:10,} parameters {millions:6.1f} M multiplications")
more = (work["inner"] + work["fold"]) / work["outer"]
print(f"a block of TNT-S costs {more:.0%} more than one of a ViT of its width")

# %% [markdown] name="proof"
# ## The proof
#
# Pixel tokens never leave their patch; patch tokens see everything. Gradients show it: from which
# patches of the image does one patch, in the middle of $3 \times 3$, learn in two blocks?

# %% name="reach"
torch.manual_seed(0)
small = dict(dim=24, depth=2, heads=3, patch=8, image=24, channels=1, classes=10)
model = TNT(vit.Config(**small)).eval()
image = torch.randn(1, 1, 24, 24, requires_grad=True)
x, pixels, grid = model.patch_embed(image)
x = torch.cat([model.prefix, x], dim=1)  # (1, T, D)
for block in model.blocks:
    x, pixels = block(x, pixels, grid)
seen = {}
for name, number in {
    "pixels": pixels[4].square().sum(),
    "token": x[0, 5].square().sum(),
}.items():
    (gradient,) = torch.autograd.grad(number, image, retain_graph=True)
    in_patches = vit.patchify(gradient, 8)[0].abs().sum(dim=1)  # (N,)
    seen[name] = (in_patches > 0).int().reshape(3, 3)
    print(f"{name}:", seen[name].tolist())
assert seen["pixels"].nonzero().tolist() == [[1, 1]] and seen["token"].all()
print("ok: the pixel tokens of a patch see that patch, its token sees all patches")

# %% [markdown] name="versions"
# The tests hold the model against timm's: logits, pixel tokens and patch tokens of each block, all
# gradients, on a wide image, for both published versions. There is a trap: those two do not fit each
# other. The older one runs its first convolution over the whole image, the newer one over each patch
# alone, with zeros around it. Without outer positions, is the image still a set of patches?

# %% name="shuffled"
torch.manual_seed(0)
images = torch.randn(1, 1, 24, 24, dtype=torch.float64)
patches = vit.patchify(images, 8)
shuffled = vit.unpatchify(patches[:, torch.randperm(9)], (3, 3), 8)
same = {}
for name, cls in {"current": TNT, "legacy": LegacyTNT}.items():
    model = cls(vit.Config(**small)).double().eval()
    model.position.table.data.zero_()
    (a, _), (b, _) = model.encode(images), model.encode(shuffled)
    same[name] = torch.allclose(a[:, 0], b[:, 0])
    print(f"{name}: the class token is the same: {same[name]}")
assert same == {"current": True, "legacy": False}
print("ok: only the legacy version sees which patches are neighbours")

# %% [markdown] name="experiment"
# ## An experiment
#
# Where should an inner transformer help most? Where patches are coarse. Digits, enlarged to
# $16 \times 16$ pixels, in four patches of $8 \times 8$; 200 images to learn from. A TNT with 16 pixel
# tokens a patch, and a ViT with about as many parameters. Before you run it: which one wins, and by how
# much?


# %% name="models"
def twice(images):
    """Twice as high and wide."""
    upsample = torch.nn.Upsample(scale_factor=2, mode="bilinear")
    return upsample(images.float()).round().byte()


class Pixels(PixelEmbed):
    """16 pixel tokens of width 12 for a patch of 8 x 8."""

    width, stride = 12, 2


full = data.load("digits")
images, labels = twice(full.images[:200]), full.labels[:200]
test_images = twice(full.test_images)
digits = replace(full, images=images, labels=labels, test_images=test_images)
recipe = train.RECIPES["smoke"].but(epochs=20, batch=20, evaluate_every=4)
recipe = recipe.but(model="Nano/8")

# %% name="train" tags=["nbval-ignore-output"]
cls = TNT.variant(Tokenizer=Pixels)
models = {
    "ViT": train.build_model(recipe, digits, ViT, dim=40, heads=4, mlp_ratio=4.5),
    "TNT": train.build_model(recipe, digits, cls, dim=32, heads=4),
}
vit.truncated_normal_(models["TNT"].patch_embed.position, std=recipe.position_std)
curves = {}
for name, model in models.items():
    run = train.fit(model, digits, recipe, device="cpu", quiet=True)
    accuracy = [e["test_accuracy"] for e in run.history if "test_accuracy" in e]
    curves[name] = range(4, 21, 4), accuracy
    count = sum(p.numel() for p in model.parameters())
    print(f"{name}: {count:,} parameters, accuracy {run.accuracy:.2f}")
picture = show.lines(curves, "epoch", "accuracy")
show.figure(picture, "Accuracy on the test images over 20 epochs, for a ViT and a TNT")

# %% name="train-bound"
assert min(accuracy[-1] for _, accuracy in curves.values()) > 0.5  # guessing: 0.1
print("ok: both have learned")

# %% [markdown] name="recorded-text"
# One run says little. The same with three seeds, each with other images, and more than twice as many
# steps. A third model tells the parts of TNT apart: a ViT with its tokenizer, which folds the pixel
# tokens once, at the start.

# %% name="recorded"
record = show.recorded("claim-tnt")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# A negative result. With no seed is the TNT more accurate than the ViT, and no difference is larger than
# three test images of 360. It cannot be the tokenizer either: with it, a plain ViT is as good. A guess:
# on digits, a matrix from 64 pixels to 40 numbers loses nothing that matters, so there is nothing for
# the inner blocks to win back. What you may not conclude: that they do not help with photographs, where
# a patch holds 768 numbers.
#
# ## What the authors report
#
# The paper reports, on ImageNet at $224 \times 224$, 81.5 % for TNT-S with 23.8 million parameters and
# 82.9 % for TNT-B with 65.6 million.

# %% [markdown] name="remember"
# ## Remember
#
# - Two kinds of tokens: $N$ wide ones, and $Nm$ narrow ones that attend inside their patch only.
# - Information goes from the pixels to the patches, never back. The class token gets no inner term.
# - The inner blocks have few parameters, and they are not free: TNT-S computes 14 % more a block.
# - All patches share one table of inner positions; the outer table is the ViT's.
# - Two published versions exist. Before you load weights, ask which one they belong to.
