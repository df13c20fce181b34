# %% [markdown] name="title"
# # Swin: windows that move
#
# Liu et al. 2021,
# [Swin Transformer: Hierarchical Vision Transformer using Shifted Windows](https://arxiv.org/abs/2103.14030).
# Lesson [16 many scales](../16-many-scales.ipynb).
#
# **The question.** Attention among all tokens grows with the square of their number. Small patches of
# a large image make thousands of tokens. Can the cost grow with the image, and no faster?
#
# **The change.** The map is cut into windows of $M \times M$ tokens, and a token attends to its own
# window only. In every second block the windows lie half a window further right and down, so that
# what one window knows gets into the next.

# %% name="setup"
from dataclasses import replace

import torch

from vitcourse import data, papers, pyramid, show, train, vit
from vitcourse.papers import swin
from vitcourse.papers.swin import Swin, WindowAttention

# %% [markdown] name="equation"
# ## The equation
#
# Inside a window, attention has a learned bias $B$, one number for each head and each offset between
# two tokens:
#
# $$\text{softmax}\left(\frac{QK^\top}{\sqrt d} + B\right) V$$
#
# The paper counts multiplications for a map of $h \times w$ tokens of width $C$:
#
# $$\Omega(\text{MSA}) = 4hwC^2 + 2(hw)^2C, \qquad \Omega(\text{W-MSA}) = 4hwC^2 + 2M^2hwC$$
#
# The first term is the projections, the second the scores and the sum of the values. How much do you
# save with $C = 96$ and $M = 7$ where the image has 224 pixels a side? And where it has 896?


# %% name="cost"
def cost(side, C, M=None):
    """Multiplications of one attention layer on a square map, in windows or without."""
    tokens = side**2
    return 4 * tokens * C**2 + 2 * tokens * (M**2 if M else tokens) * C


print("image   tokens   all tokens    windows")
for image in (224, 448, 896):
    side = image // 4
    full, local = cost(side, 96) / 1e9, cost(side, 96, 7) / 1e9
    figures = f"{side**2:8,} {full:8.1f} G {local:8.2f} G  {full / local:4.0f} times"
    print(f"{image:5} {figures}")

# %% [markdown] name="cut-text"
# Twice the side, four times the tokens: windows cost four times as much, full attention sixteen times
# once its second term rules.
#
# Now the smallest map that shows a shift: $4 \times 4$ tokens, numbered row by row, and windows of
# $2 \times 2$. To shift the windows by one, roll the map by one: up and to the left.

# %% name="cut"
numbers = torch.arange(16.0).view(1, 1, 4, 4)  # (B, D, h, w)
shifted = numbers.roll((-1, -1), (2, 3))
for name, map in {"in place": numbers, "shifted": shifted}.items():
    print(f"{name:9}", swin.windows(map, 2)[..., 0].int().tolist())
again = swin.from_windows(swin.windows(shifted, 2), 2, (4, 4))
assert torch.equal(again, shifted)
print("ok: windows can be put together again")

# %% [markdown] name="mask-text"
# The first shifted window has 5, 6, 9, 10: the middle of the map, where four windows met. But the last
# one has 15, 12, 3, 0: the four corners, which are no neighbours at all. A mask says which pairs may
# see each other. Which ones, in the last window?

# %% name="mask"
sees = swin.shifted_mask((4, 4), 2, (1, 1))  # (n, M*M, M*M)
names = ["middle", "left and right", "top and bottom", "corners"]
for name, window in zip(names, sees, strict=True):
    print(f"{name:15}", window.int().tolist())

# %% [markdown] name="difference"
# ## The difference
#
# In the last window each token sees itself alone. So every token still belongs to one window, all
# windows have the same size, and one batch holds them all.
#
# Swin is a `Pyramid` with these parts. What is new stands in one method: `super()` is attention with
# relative positions as you know it, given windows in place of images. Where a token stands, its window's
# biases say, and nothing else.

# %% name="slots"
for slot, part in papers.delta(Swin).items():
    print(f"{slot:10} {part.__name__:16} {part.__doc__.splitlines()[0]}")
print("\n".join(["", *papers.compare.source(WindowAttention.forward)]))


# %% name="stages"
with torch.device("meta"):  # nothing is allocated
    model = papers.build("swin_t")
    maps = model.features(torch.empty(1, 3, 224, 224))
for stage, map in zip(model.stages, maps, strict=True):
    _, D, h, w = map.shape
    shifts = [block.attn.shifts((h, w))[0] for block in stage.blocks]
    print(f"{h:2} x {w:2} tokens of width {D:3}, windows shifted by {shifts}")
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")

# %% [markdown] name="proof"
# The last map is as large as a window, so nothing is shifted there. Between two stages, four neighbours
# become one token: concatenated, normalised, projected.
#
# ## The proof
#
# Shifted windows must equal attention among **all** tokens in which most pairs are forbidden. Windows
# that begin one place in: two tokens belong together if `(row - 1) // M` and `(column - 1) // M` agree.
# Nothing is rolled here.

# %% name="dense"
torch.manual_seed(0)
M, h, w = 3, 6, 9
local = WindowAttention(12, 2, window=M, shift=1).double()  # dim, heads
torch.nn.init.zeros_(local.position_table)  # the mask alone
dense = vit.Attention(12, 2).double()
dense.load_state_dict(local.state_dict(), strict=False)

row, column = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)  # (N,)
window = torch.stack([(row - 1) // M, (column - 1) // M])  # (2, N)
together = (window[:, :, None] == window[:, None]).all(dim=0)  # (N, N)
forbidden = torch.zeros(h * w, h * w).double().masked_fill(~together, -torch.inf)
dense.bias = lambda grid: forbidden
x = torch.randn(2, h * w, 12).double()  # (B, N, D)
assert torch.allclose(local(x, (h, w)), dense(x))
print("ok: roll, windows and mask are a mask over all tokens")

# %% [markdown] name="experiment"
# The tests show this with the bias too, and hold the whole model against those of timm, torchvision and
# transformers: logits, blocks, all gradients, on wide images and on maps that windows do not divide.
# They count the operations: the two formulas are exact, and Swin-T takes 4.49 billion for an image of
# $224 \times 224$.
#
# ## An experiment
#
# First without training. A map of $16 \times 16$ tokens, windows of $4 \times 4$, four blocks. On how
# many tokens does the one in row 7 and column 7 depend after each block? A gradient that is not zero
# tells. Make a guess for both.


# %% name="reach"
def reach(shifted):
    """Which of 16 x 16 tokens the one at (7, 7) depends on, after each block."""
    torch.manual_seed(0)
    sizes = pyramid.PyramidConfig((16,), (4,), (2,), (1,), (4.0,), image=16)
    (stage,) = Swin.variant(window=4, shifted=shifted)(sizes).stages
    first, found = torch.randn(1, 256, 16, requires_grad=True), []
    x = first
    for block in stage.blocks:
        x = block(x, (16, 16))  # (B, N, D)
        (read,) = torch.autograd.grad(x[0, 7 * 16 + 7].sum(), first, retain_graph=True)
        found.append((read[0] != 0).any(dim=-1).view(16, 16))
    return found


reached = {"fixed": reach(False), "shifted": reach(True)}
for name, maps in reached.items():
    print(f"{name:8}", [int(map.sum()) for map in maps])
flat = [0.2 + 0.6 * map.float() for maps in reached.values() for map in maps]
titles = [f"{name}, block {i}" for name in reached for i in range(1, 5)]
alt = "The tokens that one depends on: a square that stays, and a square that grows"
show.figure(show.images(flat, titles, columns=4), alt)

# %% [markdown] name="bag-text"
# With fixed windows, more blocks do not help: no window ever hears of another. So mix up the windows of
# an image. What does the model say?

# %% name="bag"
torch.manual_seed(0)
one = (32,), (4,), (2,), (2,), (4.0,)  # dims, depths, heads, patches, mlp_ratios
sizes = pyramid.PyramidConfig(*one, image=16, channels=1, classes=10)
models = {"fixed": Swin.variant(window=2, shifted=False)(sizes)}
models |= {"shifted": Swin.variant(window=2)(sizes)}
image = torch.randn(1, 1, 16, 16)
pieces = swin.windows(image, 4)[torch.randperm(16)]  # 4 pixels are 2 tokens
mixed = swin.from_windows(pieces, 4, (16, 16))
for name, model in models.items():
    answers = [model.encode(x)[0].mean(dim=1) for x in (image, mixed)]  # (B, D) each
    same = torch.allclose(*answers, atol=1e-5)
    print(f"{name:8}", "the same" if same else "different")

# %% [markdown] name="train-text"
# For fixed windows an image is a bag of pieces. How much does that cost? Digits, enlarged to
# $16 \times 16$ pixels: $8 \times 8$ tokens, windows of $2 \times 2$, both models above, three epochs.


# %% name="train" tags=["nbval-ignore-output"]
def twice(images):
    """Twice as high and wide."""
    upsample = torch.nn.Upsample(scale_factor=2, mode="bilinear")
    return upsample(images.float()).round().byte()


small = data.load("digits")
images, test_images = twice(small.images), twice(small.test_images)
digits = replace(small, images=images, test_images=test_images)
recipe = train.RECIPES["smoke"].but(epochs=3, batch=32, evaluate_every=3)
accuracy = {}
for name, model in models.items():
    for layer in model.stages[0].blocks.modules():  # as train.build_model begins a ViT
        if isinstance(layer, torch.nn.Linear):
            std = recipe.gain * layer.in_features**-0.5
            vit.truncated_normal_(layer.weight, std=std)
        elif isinstance(layer, WindowAttention):
            vit.truncated_normal_(layer.position_table, std=2.0)
    run = train.fit(model, digits, recipe, device="cpu", quiet=True)
    accuracy[name] = run.accuracy
    print(f"{name:8} accuracy {run.accuracy:.2f}")
alt = "Accuracy after three epochs with fixed and with shifted windows, beside guessing"
show.figure(show.bars(accuracy, "accuracy", mark=0.1), alt)

# %% name="train-bound"
assert accuracy["shifted"] > 0.25
print("ok: with shifts, it has learned")

# %% [markdown] name="recorded-text"
# One run says little. The same with three seeds and nine epochs, and with a third model: one window of
# $8 \times 8$, which is full attention. Each line is the first minus the second:

# %% name="recorded"
record = show.recorded("claim-swin")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# With every seed, shifted windows read more digits than fixed ones. Full attention was expected to be
# better still; it is with one seed and not with two, so nothing is decided. All three were stopped
# before they had learned digits well. The record shows that windows must exchange what they see, and
# not that shifts replace full attention.
#
# ## What the authors report
#
# On ImageNet at $224 \times 224$, Swin-T reaches 81.2 %, Swin-S 83.2 % and Swin-B 83.5 %, with 28, 50
# and 88 million parameters and 4.5, 8.7 and 15.4 billion operations. Pre-trained on ImageNet-22K,
# Swin-L reaches 86.3 %, and 87.3 % at $384 \times 384$. With Swin-L they report 58.7 box AP and 51.1
# mask AP on COCO test-dev, and 53.5 mIoU on the validation images of ADE20K.

# %% [markdown] name="remember"
# ## Remember
#
# - In windows of fixed size, the cost of attention grows with the number of tokens, not with its square.
# - Fixed windows alone make an image a bag of pieces. Shifts, every second block, connect them.
# - Roll, cut, mask, attend, roll back: all windows have one size, and the batch holds them.
# - A pair that came together by rolling is no pair of neighbours. Forget the mask, and the shapes are
#   right and the model is wrong.
# - The order in which merging concatenates its four neighbours, and the sign of an offset (query minus
#   key), are conventions: other weights need the same ones.
