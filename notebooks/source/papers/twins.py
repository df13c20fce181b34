# %% [markdown] name="title"
# # Twins-SVT: near, then far
#
# Chu et al. 2021,
# [Twins: Revisiting the Design of Spatial Attention in Vision Transformers](https://arxiv.org/abs/2104.13840).
# Lesson [16 many scales](../16-many-scales.ipynb).
#
# **The question.** Attention inside windows costs little, and nothing leaves its window. Attention to a
# small copy of the map, as in PVT, reaches everything, and sees it coarsely. Must you choose?
#
# **The change.** Take turns. One block attends inside windows, the next to a copy of the whole map.
# Positions come from a PEG, as in CPVT.

# %% name="setup"
import torch

from vitcourse import data, papers, pyramid, show, train, vit
from vitcourse.data.augment import Augment
from vitcourse.papers import compare, swin
from vitcourse.papers.twins import Twins, WindowedAttention

# %% [markdown] name="equation"
# ## The equation
#
# $$\text{LSA}: \ \text{softmax}\left(\frac{Q_{ij}K_{ij}^\top}{\sqrt d}\right)V_{ij}
# \qquad \text{GSA}: \ \text{softmax}\left(\frac{QK'^\top}{\sqrt d}\right)V', \quad
# K', V' \text{ from } \text{LN}(\text{Conv}_{R \times R,\ \text{stride } R}(x))$$
#
# Locally-grouped self-attention (LSA) does so in each window $ij$ of $M \times M$ tokens by itself.
# Globally sub-sampled attention (GSA) is PVT's. Each is followed by an MLP.
#
# A map of $4 \times 6$ tokens, numbered row by row, and windows of $2 \times 2$. Which tokens are in the
# second window, which in the fourth?

# %% name="small"
map = torch.arange(24).reshape(1, 1, 4, 6)  # (B, D, h, w)
for window in swin.windows(map, 2).flatten(1).tolist():
    print(window)

# %% [markdown] name="small-answer"
# Windows are numbered row by row, and so are the tokens of each. To attention, windows are what images
# are: entries of a batch. So LSA is attention with the tokens laid out otherwise.
#
# What do the two cost? Pairs of a query and a key, in the first stage of Twins-SVT:

# %% name="cost"
N, M, R = 56 * 56, Twins.windows[0], Twins.reductions[0]
pairs = {"all to all": N * N, "LSA": N * M * M, "GSA": N * (N // R**2)}
for name, number in pairs.items():
    print(f"{name:10} {number:9,} pairs")

# %% [markdown] name="cost-answer"
# At this size they cost the same, a 64th of all. On larger images LSA grows with the number of tokens
# $N$, GSA with $N^2$.
#
# ## The difference
#
# Twins-SVT is a `Pyramid`. Beside the pyramid's own parts it has these. The method `attention` makes the
# attention of block $i$ of stage $s$, and LSA is two more steps around plain attention:

# %% name="difference"
for slot, part in papers.delta(Twins).items():
    print(f"{slot:10} {part.__name__:16} {part.__doc__.splitlines()[0]}")
for function in (Twins.attention, WindowedAttention.forward):
    print(*compare.source(function), sep="\n")

# %% name="stages"
with torch.device("meta"):  # nothing is allocated
    model = papers.build("twins_svt_s")
for stage, M, R in zip(model.stages, model.windows, model.reductions, strict=True):
    first, peg, second, *rest = stage.blocks
    kinds = [type(part).__name__ for part in (first.attn, peg, second.attn)]
    print(f"M = {M}, R = {R}: {', '.join(kinds)}, {len(rest)} more")

# %% [markdown] name="proof"
# ## The proof
#
# The tests hold the model against the one in timm, where windows divide the maps and where they do not:
# logits, blocks, maps, all gradients. They show that one window as large as the map is plain attention.
# Sixteen planted errors are noticed.
#
# Which tokens does a token read? Those that its gradient reaches. A map of $20 \times 24$, windows of
# $4 \times 4$, one token in the middle of a window:

# %% name="reach"
torch.manual_seed(0)
sizes = pyramid.PyramidConfig((40,), (3,), (5,), (2,), (2.0,), image=(40, 48))
model = Twins.variant(windows=(4,), reductions=(4,))(sizes).double()
first, peg, to_all, local = model.stages[0].blocks
token, grid = 9 * 24 + 10, (20, 24)  # row 9, column 10
orders = {
    "LSA, LSA": [first, local],
    "LSA, PEG, LSA": [first, peg, local],
    "LSA, GSA": [first, to_all],
}
reach = {}
for name, blocks in orders.items():
    x = torch.randn(1, 480, 40, dtype=torch.float64, requires_grad=True)
    out = x
    for block in blocks:
        out = block(out, grid)  # (B, N, D)
    out[0, token].square().sum().backward()
    reach[name] = (x.grad[0].abs().sum(dim=1) > 0).reshape(grid)
    print(f"{name:14} {int(reach[name].sum())} of {len(reach[name].flatten())} tokens")
maps = [tokens.float() for tokens in reach.values()]
picture = show.heatmaps(maps, list(reach), columns=3, size=2)
show.figure(picture, "Tokens that one token reads: its window; nine windows; all")

# %% name="reach-bound"
assert [int(r.sum()) for r in reach.values()] == [16, 9 * 16, 480]
print("ok: windows alone never reach further; a PEG joins neighbours; GSA reaches all")

# %% [markdown] name="proof-answer"
# The PEG is a way out of the window, too: it reads one token beyond the border, and the next LSA hands
# that on to its whole window. There is one PEG in each stage.
#
# ## An experiment
#
# A task that needs distance. A strip of $8 \times 32$ pixels holds a digit 0 or 1 at each end. Is it the
# same digit twice? One stage of $4 \times 16$ tokens: four windows. Without GSA, no token reads both
# digits. The mean over the tokens then adds up what left and right say on their own, and no such sum is
# right for more than three of the four pairs. Why?

# %% name="task"
digits = data.load("digits")


def strips(images, labels, n, seed):
    """Strips (n, 1, 8, 32) with two digits, and whether they are the same."""
    generator = torch.Generator().manual_seed(seed)
    strip, kinds = images.new_zeros(n, 1, 8, 32), torch.arange(n) % 4
    for x, wanted in ((0, kinds // 2), (24, kinds % 2)):
        for digit in (0, 1):
            there, known = wanted == digit, images[labels == digit]
            chosen = torch.randint(len(known), (n // 2,), generator=generator)
            strip[there, :, :, x : x + 8] = known[chosen]
    return strip, (kinds // 2 == kinds % 2).long()


seen = strips(digits.images, digits.labels, 800, 0)
test = strips(digits.test_images, digits.test_labels, 400, 1)
task = data.Data("pairs", *seen, *test, ("different", "same"))
four = torch.nn.functional.pad(task.images[:4], (0, 0, 0, 2), value=128).flatten(0, 2)
title = ", ".join(task.classes[i] for i in task.labels[:4])
picture = show.images([four], [title], size=2.8)
show.figure(picture, "Four strips with a digit at each end: 0 0, 0 1, 1 0 and 1 1")

# %% [markdown] name="why"
# Say that the left digit adds $a_0$ or $a_1$, and the right one $b_0$ or $b_1$. "Same" should have the
# larger sums: $a_0 + b_0$ and $a_1 + b_1$ above $a_0 + b_1$ and $a_1 + b_0$. But the first two and the
# last two have the same total. The model without GSA gets a wider MLP, so that both learn as many
# numbers within 5 %.

# %% name="train" tags=["nbval-ignore-output"]
recipe = train.RECIPES["smoke"].but(epochs=6, batch=32, augment=Augment())
Small = Twins.variant(windows=(4,), reductions=(2,))


class Local(Small):
    def attention(self, s, i):
        return super().attention(s, 0)


accuracy = {}
for name, cls, ratio in (("LSA", Local, 5.0), ("LSA and GSA", Small, 4.0)):
    torch.manual_seed(0)
    shared = dict(image=(8, 32), channels=1, classes=2)
    model = cls(pyramid.PyramidConfig((32,), (4,), (2,), (2,), (ratio,), **shared))
    for layer in model.stages[0].blocks.modules():
        if isinstance(layer, torch.nn.Linear):
            std = recipe.gain * layer.in_features**-0.5
            vit.truncated_normal_(layer.weight, std=std)
    run = train.fit(model, task, recipe, device="cpu", quiet=True)
    accuracy[name] = range(1, 7), [entry["test_accuracy"] for entry in run.history]
    print(f"{name:12} accuracy {run.accuracy:.2f}")
picture = show.lines(accuracy, "epoch", "accuracy")
show.figure(picture, "Accuracy after each epoch, with windows alone and with GSA")

# %% name="train-bound"
assert accuracy["LSA"][1][-1] < 0.8 < accuracy["LSA and GSA"][1][-1]
print("ok: windows alone cannot; with GSA the model can")

# %% [markdown] name="recorded-text"
# With three seeds and twenty epochs. Beside it the model without GSA on strips whose digits lie side by
# side, in windows that the PEG joins:

# %% name="recorded"
record = show.recorded("claim-twins")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# Far apart, GSA makes the difference with every seed, and windows alone stay at chance: where they can
# only add, the best is to answer nothing. Side by side, the same windows learn the task with one seed,
# 89 %, hardly begin with another, 61 %, less than sums may reach, and stay at chance with the third. So the
# route through the PEG is there, and hard to find in twenty epochs: by our rule, every seed, that is a
# negative result. None of this says that GSA is better than shifted windows, another way out.
#
# ## What the authors report
#
# On ImageNet at 224 x 224, Twins-SVT-S reaches 81.7 %, -B 83.2 % and -L 83.7 %, with 24, 56 and 99.2
# million parameters.

# %% [markdown] name="remember"
# ## Remember
#
# - Even blocks (from 0) attend inside windows, odd ones to a copy of the whole map.
# - Windows are entries of a batch: no mask, no bias table, no shift.
# - A PEG behind the first block of each stage gives positions; there is no table and no class token.
# - Where windows do not divide the map, zeros are put below and to the right, behind the norm. They take
#   part in the softmax: their keys and values are the biases.
# - The last stage has $R = 1$: its GSA is plain attention.
