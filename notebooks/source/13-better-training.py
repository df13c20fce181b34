# %% [markdown] name="title"
# # 13 · Better training
#
# A small ViT learns from 2,000 labelled pictures, too briefly to be good. Its network stays as it is; so
# do the pictures. What improves it most?
#
# - A: a **teacher**, a CNN that has learned from the same pictures and labels, and reads them better. Its
#   answers are a second label.
# - B: a label for each of the picture's 16 patches. They are the truth.
# - C: a rule that knows nothing of pictures: the patches of one shall not be alike.
# - D: nothing new, but twice as many epochs.
#
# Put the four in order. The papers of this lesson ask: **what else can one teach a ViT with, besides the
# label?** First, the words that this and later lessons speak in.

# %% name="setup"
import torch
import torch.nn.functional as F

from vitcourse import ViT, check, data, losses, papers, parts, show, vit
from vitcourse.papers import compare

# %% [markdown] name="slots-text"
# ## Slots: a ViT is six classes
#
# You have built these parts in lessons 01-06. `ViT` holds their classes as attributes, the **slots**. What
# fits a slot:
#
# | slot | takes, and gives |
# |---|---|
# | Tokenizer | images (B, C, H, W) -> x (B, N, D), grid (h, w) |
# | Position | x (B, T, D), grid -> x (B, T, D) |
# | Attention | x (B, T, D), grid -> x (B, T, D) |
# | Mlp | x (B, T, D), grid -> x (B, T, D) |
# | Block | x (B, T, D), grid -> x (B, T, D) |
# | Head | x (B, T, D), grid -> logits (B, classes) |
#
# A Head also says how many tokens it wants before the patches: `prefix_len`, 1 for a class token. The
# ViT makes that many, all in one parameter `prefix` (1, R, D).

# %% [markdown] name="seams-text"
# ## Seams: attention is three functions
#
# A variant of attention seldom changes all of it. It overrides one of three methods, the **seams**:
#
# - `project(x, grid)` makes q, k, v (B, K, T, d)
# - `bias(grid)` is added to the scores, (B, K, T, T) or smaller
# - `weights(q, k, bias)` makes the attention map (B, K, T, T)
#
# Here is one that takes less from what is far away. Each step away in the grid halves the weight. Six
# tokens, all queries and keys zero, and the weights of token 0. Once the tokens are a grid of 2 x 3, once
# of 1 x 6. Which tokens get the same weight in the first, and not in the second?


# %% name="near"
class NearAttention(vit.Attention):
    def bias(self, grid):
        h, w = grid
        y, x = torch.arange(h * w) // w, torch.arange(h * w) % w  # (N,)
        away = (y[:, None] - y).abs() + (x[:, None] - x).abs()  # (N, N)
        return -away * torch.tensor(2.0).log()


near = NearAttention(4, heads=1)  # dim
q = k = torch.zeros(1, 1, 6, 4)  # (B, K, N, d)
for grid in ((2, 3), (1, 6)):
    weights = near.weights(q, k, near.bias(grid))  # (B, K, N, N)
    print(grid, [round(weight, 2) for weight in weights[0, 0, 0].tolist()])

# %% [markdown] name="near-answer"
# Tokens 1 and 3: one is to the right of token 0, the other below it. The sequence does not know that, so
# every part is handed the grid: it says where the tokens lie.
#
# The seams differ in price. With a new `project` or `bias`, `attend` still takes the fused kernel, which
# never stores the map. With new `weights` it must build the map.
#
# `ViT.variant` fills slots. Three functions then say what a class changes: `papers.delta` names the slots,
# `papers.diff` shows the lines, + for new ones, and `papers.build` makes a published model by its name.

# %% name="variant"
NearViT = ViT.variant(Attention=NearAttention, Head=parts.MeanHead)
cfg = vit.Config(dim=24, depth=2, heads=3, patch=4, image=(8, 12), classes=5)
model = NearViT(cfg)
print("logits", tuple(model(torch.zeros(7, 3, 8, 12)).shape))  # (B, classes)
print("prefix", tuple(model.prefix.shape))  # (1, R, D)
for slot, part in compare.slots(ViT).items():
    print(f"{slot:9} {part.__name__:15} -> {getattr(NearViT, slot).__name__}")
print("replaced:", ", ".join(papers.delta(NearViT)))
print(papers.diff(ViT.variant(Attention=NearAttention)))

# %% [markdown] name="card-mean"
# ### Exercise: a head that reads the mean
#
# 6 minutes · difficulty 1 of 3
#
# The variant above has a head without class token. Write it yourself. It averages the patch tokens and
# applies its linear layer: x (B, T, D), grid (h, w) -> logits (B, classes). Before the patches there may
# be other tokens, such as registers, which are not averaged. From `ClassHead` it has the parameters
# `weight` (classes, D) and `bias`. When it is right, try `ViT.variant(Head=MyMeanHead)`.
#
# A hint: `check.hint("mean_head")`. The solution: `check.solution("mean_head")`.


# %% name="stub-mean" tags=["exercise"]
from vitcourse.vit import ClassHead


class MyMeanHead(ClassHead):
    prefix_len = 0  # no class token is needed

    def forward(self, x, grid): ...


# %% name="check-mean" tags=["check"]
check.mean_head(MyMeanHead)

# %% [markdown] name="simple-text"
# ## SimpleViT: less
#
# Beyer et al. ask the question before all others: how good is a plain ViT, if it is trained well? Their
# answer takes things away: no class token, no learned positions, no dropout.
#
# $$\text{logits} = W \cdot \frac{1}{N} \sum_{n=1}^{N} \text{LN}(z_n) + b$$
#
# Positions are waves, the `sincos` of lesson 03. Most of the gain, they report, is in the recipe:
# RandAugment and MixUp, both mild, and batches of 1024 images in place of 4096. So before you believe in a
# new architecture, ask how well the old one was trained.
#
# [Its notebook](papers/simple_vit.ipynb) has the waves and the proof.

# %% name="simple"
from vitcourse.papers.simple_vit import SimpleViT

for slot, part in papers.delta(SimpleViT).items():
    print(f"{slot}: {getattr(ViT, slot).__name__} -> {part.__name__}")
for cls in (ViT, SimpleViT):
    model = cls(cfg)
    table = sum(p.numel() for p in model.position.parameters())
    print(f"{cls.__name__}: {table} numbers learned for positions", end=", ")
    print(f"{model.prefix.shape[1]} prefix tokens")
model = papers.build("simple_vit_s_16", classes=5, image=(32, 48), depth=1)
print("logits", tuple(model(torch.zeros(7, 3, 32, 48)).shape))  # (B, classes)

# %% [markdown] name="teacher-text"
# ## A teacher says more than a label
#
# A picture of a 3. Its label says: class 3, and nothing else. A trained network gives a number to every
# class. Here are the logits that it may have for the classes 3, 8 and 1. Divided by a **temperature**
# $\tau$, they become softer probabilities $\psi(Z / \tau)$, where $\psi$ is the softmax.

# %% name="teacher"
teacher_logits = torch.tensor([6.0, 4.0, 0.0])  # for 3, 8 and 1
print("label        [1, 0, 0]")
for temperature in (1, 3, 10):
    soft = (teacher_logits / temperature).softmax(dim=-1)
    print(f"temperature {temperature:2}", [round(p, 2) for p in soft.tolist()])

# %% [markdown] name="teacher-answer"
# "A 3 that looks somewhat like an 8, and not at all like a 1." That is knowledge about the classes, and
# about this image, which no label holds. A high temperature makes it louder.
#
# The student is to have the same probabilities. How far it is from that, the Kullback-Leibler divergence
# says, and it has a direction:
#
# $$\text{KL}(t \,\|\, s) = \sum_c t_c \log \frac{t_c}{s_c}$$
#
# The DeiT paper, and the articles that follow it, print the student first. Compute both.

# %% name="direction"
t, s = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.8, 0.1, 0.1])
for name, p, other in (("teacher || student", t, s), ("student || teacher", s, t)):
    terms = [a * (a / b).log() for a, b in zip(p, other, strict=True)]
    print(f"KL({name})", [round(term.item(), 3) for term in terms], end=" sum ")
    print(f"{sum(terms):.3f}")
print(f"F.kl_div(student.log(), teacher)  {F.kl_div(s.log(), t, reduction='sum'):.3f}")

# %% [markdown] name="card-soft"
# Published code computes the first: the teacher weighs the terms. The term of class 8 is large there,
# because the student misses what the teacher thinks possible.
#
# The loss of soft distillation, with the label $y$ and a weight $\lambda$:
#
# $$(1 - \lambda)\, \text{CE}(\psi(Z_s), y) + \lambda \tau^2\,
# \text{KL}\left(\psi(Z_t / \tau) \,\|\, \psi(Z_s / \tau)\right)$$
#
# ### Exercise: soft distillation
#
# 10 minutes · difficulty 2 of 3
#
# Write the last term without $\lambda$. The logits of student and teacher are (B, classes). Both are
# divided by the temperature. The result is the mean over the batch of KL(teacher || student), times the
# temperature squared: a scalar.
#
# A hint: `check.hint("soft_distillation")`. The solution: `check.solution("soft_distillation")`.


# %% name="stub-soft" tags=["exercise"]
def soft_distillation(logits, teacher_logits, temperature):
    """Two of (B, classes), a number -> a scalar."""
    ...


# %% name="check-soft" tags=["check"]
check.soft_distillation(soft_distillation)

# %% [markdown] name="square-text"
# Why the square? The loss is there for its gradient. Predict: as the temperature doubles, what becomes of
# the gradient's length if the square is left out?

# %% name="square"
torch.manual_seed(0)
student, teacher = torch.randn(2, 3, 5)  # each (B, classes)
for temperature in (1.0, 2.0, 4.0, 8.0, 16.0):
    z = student.clone().requires_grad_()
    losses.soft_distillation(z, teacher, temperature).backward()
    length = z.grad.norm().item()
    print(f"temperature {temperature:4.0f}: gradient {length:.3f}", end=", ")
    print(f"without the square {length / temperature**2:.4f}")

# %% [markdown] name="square-answer"
# It falls to a quarter. With the square it keeps its size, and $\lambda$ means the same at every
# temperature. (The authors' program divides by the number of classes, too: its loss is smaller by
# that factor.)
#
# ## DeiT: a token for the teacher
#
# Touvron et al. report that something plainer does better: take the teacher's first choice $y_t$ as if
# it were a label. They give it a token of its own, the **distillation token**, and a layer of its own.
#
# $$\tfrac12 \text{CE}(\psi(Z_{cls}), y) + \tfrac12 \text{CE}(\psi(Z_{dist}), y_t), \qquad
# y_t = \text{argmax}_c\, Z_t(c)$$
#
# The teacher sees the same augmented image as the student. In the end both layers are asked, and their
# logits averaged.

# %% name="predict-deit"
check.predict("slots of the ViT that a distilled DeiT replaces", ...)
question = "tokens that enter the first block of a distilled DeiT-B/16 at 224 x 224"
check.predict(question, ...)

# %% [markdown] name="card-two"
# ### Exercise: two tokens, two layers
#
# 6 minutes · difficulty 2 of 3
#
# Fill in `forward`: x (B, T, D), grid -> logits (B, classes). The class token comes first, then the
# distillation token, then the patches. The head itself, a `ClassHead`, is the layer of the class token,
# `self.dist` that of the distillation token. Average their logits.
#
# A hint: `check.hint("two_heads")`. The solution: `check.solution("two_heads")`.


# %% name="stub-two" tags=["exercise"]
from vitcourse.vit import ClassHead


class MyTwoHeads(ClassHead):
    prefix_len = 2  # class token and distillation token

    def __init__(self, cfg):
        super().__init__(cfg)
        self.dist = ClassHead(cfg)

    def forward(self, x, grid=None): ...


# %% name="check-two" tags=["check"]
check.two_heads(MyTwoHeads)

# %% [markdown] name="deit-text"
# Some articles put the distillation token at the tail of the sequence. Here is the difference from the
# ViT, and where the published weights expect the second token.

# %% name="deit"
from vitcourse.papers.deit import DistilledDeiT

print(papers.diff(DistilledDeiT))
model = DistilledDeiT(cfg)
torch.nn.init.normal_(model.head.dist.weight)  # it begins at zero
x, grid = model.encode(torch.zeros(1, 3, 8, 12))
x = x.detach().requires_grad_()  # (B, T, D)
model.head.two_logits(x)[1].sum().backward()
(place,) = x.grad.abs().sum(dim=(0, 2)).nonzero().flatten().tolist()
print(f"of {x.shape[1]} tokens, {grid[0] * grid[1]} of them patches,", end=" ")
print(f"the distillation token is number {place}, counted from 0")

# %% [markdown] name="deit-answer"
# One slot, and one method that gives both logits to the training step. `train.fit` takes such a step:
# `fit(model, data, recipe, step=distillation(teacher))`.
#
# [Its notebook](papers/deit.ipynb) trains students whose labels are half random, and compares the losses
# and tokens one by one.
#
# ## LV-ViT: a label for every patch
#
# An image of 16 patches has one label. A patch token that shows something else is told nothing about it.
# To see what that means, take canvases of four digits, one of them marked by a white corner. The marked
# digit is the class. Below, the four digits of each stand above it, upper row first.

# %% name="canvases"
digits = data.load("digits")


def canvases(images, labels, count, seed):
    """Images (n, 1, 16, 16), classes (n,), what each patch shows (n, 4, 4)."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(images), (count, 2, 2), generator=generator)
    marked = torch.randint(4, (count,), generator=generator)
    pictures = images[chosen, 0].transpose(2, 3).reshape(count, 1, 16, 16)
    for i, place in enumerate(marked.tolist()):
        y, x = 14 * (place // 2), 14 * (place % 2)
        pictures[i, :, y : y + 2, x : x + 2] = 255
    classes = labels[chosen].flatten(1)[torch.arange(count), marked]
    shown = labels[chosen].repeat_interleave(2, 1).repeat_interleave(2, 2)
    return pictures, classes, shown


train = canvases(digits.images, digits.labels, 2000, seed=0)
test = canvases(digits.test_images, digits.test_labels, 500, seed=1)
made = data.Data("canvases", *train[:2], *test[:2], digits.classes)

# %% name="canvas-figure"
titles = []
for i in range(4):
    four = test[2][i, ::2, ::2].tolist()
    four = " / ".join(" ".join(map(str, row)) for row in four)
    titles.append(f"{four}: class {test[1][i]}")
picture = show.images(test[0][:4], titles, columns=4, size=1.7)
alt = "Four canvases of four digits each; a white corner marks the digit that counts"
show.figure(picture, alt)

# %% [markdown] name="token-text"
# Jiang et al. let a trained network name what each patch shows: a soft label $y_i$ for each. A second
# head reads the patch tokens, $X_i$, and learns these:
#
# $$L = \text{CE}(X_{cls}, y) + \beta\, \frac1N \sum_{i=1}^{N} \text{CE}(X_i, y_i)$$
#
# The paper reports $\beta = 0.5$. Labels of patches want images mixed by patches, too. **MixToken** swaps
# a box of tokens between image $i$ and image $B-1-i$ of a batch. Here are the first and the last of four
# images, whose tokens carry their letter:

# %% name="letters"
h, w = 4, 6
top, left, bottom, right = box = (1, 2, 3, 5)
batch = "ABCD"
for i in (0, 3):
    for y in range(h):
        row = [batch[i]] * w
        if top <= y < bottom:
            row[left:right] = batch[-1 - i] * (right - left)
        print("".join(row), end="\n" if y < h - 1 else "\n\n")

# %% [markdown] name="letters-answer"
# Each token is still from one image, so its label stays right. CutMix, which pastes pixels, leaves patches
# at the edge of the box with two owners.
#
# The label of the whole image is mixed by area. (A box that reaches over the border is clipped, and its
# area counted after that.)

# %% name="predict-mix"
question = "percent of the label that an image gets from its partner"
check.predict(question + " if 2 x 3 of 4 x 6 patches are swapped", ...)

# %% [markdown] name="card-swap"
# ### Exercise: swap a box of tokens
#
# 10 minutes · difficulty 2 of 3
#
# x (B, N, D) are the patch tokens of a batch, row by row of the grid (h, w). Exchange those in the box
# (top, left, bottom, right) between image i and image B-1-i. As in a slice, `bottom` and `right` are the
# first row and column outside. The result is (B, N, D); x stays as it is.
#
# A hint: `check.hint("swap_tokens")`. The solution: `check.solution("swap_tokens")`.


# %% name="stub-swap" tags=["exercise"]
def swap_tokens(x, grid, box):
    """(B, N, D), (h, w), (top, left, bottom, right) -> (B, N, D)."""
    ...


# %% name="check-swap" tags=["check"]
check.swap_tokens(swap_tokens)

# %% name="again"
from vitcourse.papers.lv_vit import LVViT, mix_labels, swap, training_step

x = torch.randn(5, 24, 7)  # (B, N, D)
assert torch.equal(swap(swap(x, (4, 6), box), (4, 6), box), x)
print("ok: the same one, once more")
mixed = mix_labels(torch.eye(5), (4, 6), box)
print("label of image 0:", [round(part, 2) for part in mixed[0].tolist()])

# %% [markdown] name="train-text"
# After the last block, the patches' logits are swapped back, by the same function, before they meet their
# labels.
#
# Now teach the patches of the canvases. Their labels are the truth, as no teacher is better. The model is
# the ViT with LV-ViT's head: the other slots are put back. Images are not mixed here, because a box may
# carry the mark away.

# %% name="train" tags=["nbval-ignore-output"]
from vitcourse.train import RECIPES, build_model, fit

Labelled = LVViT.variant(Tokenizer=ViT.Tokenizer, Attention=ViT.Attention, divisor=1.0)
plain = data.augment.Augment()  # images as they are
recipe = RECIPES["smoke"].but(epochs=8, evaluate_every=8, augment=plain)
taught = F.one_hot(train[2].flatten(1), 10).float()  # (n, N, classes)
step = training_step(lambda batch: taught[batch.index], weight=0.5, mix=False)
model = build_model(recipe, made, Labelled)
run = fit(model, made, recipe, step, device="cpu", quiet=True)
with torch.no_grad():
    _, token_logits = run.model.tokens(made.normalise(test[0]))  # (n, N, classes)
named = token_logits.argmax(dim=-1).view(-1, 4, 4)  # (n, h, w)
right = (named == test[2]).float().mean().item()
print(f"{run.accuracy:.2f} of the images named, {right:.2f} of the patches")
for rows in zip(*named[:4].tolist(), strict=True):
    print("      ".join(" ".join(map(str, row)) for row in rows))

# %% name="train-bound"
assert right > 0.5
print("ok: most patches are named as the digit that they show")

# %% [markdown] name="train-answer"
# The four grids belong to the four canvases above. A class label never says where anything is; a model
# that was told so can point at it.
#
# [Its notebook](papers/lv_vit.ipynb) has the rest: the stem of convolutions, the divided branches, and
# the proof against the authors' program.
#
# ## Against over-smoothing: a rule, and no teacher
#
# Attention averages. Two tokens that point in different directions; each block leaves three quarters of
# a token and takes one quarter of the other. How alike are they after three blocks?

# %% name="smooth"
x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # (B, N, D)
mixing = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
for block in range(4):
    cosine = losses.cosine_loss(x).item()
    print(f"blocks passed: {block}, tokens {x[0].tolist()}, cosine {cosine:.2f}")
    x = mixing @ x

# %% [markdown] name="smooth-answer"
# Residual connections and MLPs work against that. Gong et al. report that in deep ViTs patches become
# alike all the same, **over-smoothed**. They add three losses on the patches $h_i$ of the last block:
#
# $$L_\text{cos} = \frac{1}{N(N-1)} \sum_{i \ne j} \left|\cos(h_i, h_j)\right|$$
#
# keeps them apart (the paper's first version had no absolute value). $L_\text{cons}$ keeps each near
# what it was after the first block. $L_\text{mix}$ pastes a box of one image into another, and asks each
# patch which class its image has.
#
# That sounds like token labels. Is it? Take any logits, labels and box:

# %% name="same"
torch.manual_seed(0)
logits, token_logits = torch.randn(2, 10), torch.randn(2, 24, 10)
label, other = torch.eye(10)[[3, 7]], torch.eye(10)[[7, 3]]  # (B, classes)
inside = torch.rand(4, 6) < 0.3  # (h, w)
source = torch.where(inside.flatten()[:, None], other[:, None], label[:, None])
with_tokens = losses.token_labelling(logits, token_logits, label, source, weight=1.0)
mixing = losses.mixing_loss(token_logits, label, other, inside)
assert torch.isclose(with_tokens, F.cross_entropy(logits, label) + mixing)
print("ok: the mixing loss is token labelling, where a patch's label is its image's")

# %% [markdown] name="same-answer"
# So the four papers are one family. They differ in who says what to which token:
#
# | | who | says what | to whom |
# |---|---|---|---|
# | ViT, SimpleViT | the data | the class | class token, or the mean |
# | DeiT | a teacher | the class that it sees | distillation token |
# | LV-ViT | a teacher | what a patch shows | each patch |
# | cosine, consistency | nobody | lie apart; stay what you were | each patch |
# | mixing | the data | the class of your image | each patch |
#
# [The notebook](papers/oversmoothing.ipynb) on over-smoothing has all three losses and a deep ViT.

# %% [markdown] name="compare-text"
# ## Side by side
#
# One task, one budget: 2,000 canvases, 12 epochs, three seeds. Six students of about 115,000 parameters,
# which differ from the ViT by two slots at most. The teacher is a CNN of that size, which has seen the
# same canvases and labels, for as long. Token labels are the truth. What counts in the end is the answer
# about the image; the head for patches is not asked.
#
# Two more controls. DeiT costs two trainings: so, a ViT with twice the steps. Token labels tell four digits
# a canvas: so, a ViT with four times as many canvases, in as many steps.
#
# Is your order still the one that you wrote down at the top? The dashed line is chance.

# %% name="compare"
record = show.recorded("claim-better_training")
accuracy = {
    name.removesuffix(", accuracy"): figure
    for name, figure in record["figures"].items()
    if name.endswith(", accuracy")
}
accuracy = dict(sorted(accuracy.items(), key=lambda item: item[1]["mean"]))
means = {name: figure["mean"] for name, figure in accuracy.items()}
spread = {name: figure["spread"] for name, figure in accuracy.items()}
print(show.origin(record))
for name, mean in means.items():
    print(f"{name:26} {mean:.3f} +- {spread[name]:.3f}")
picture = show.bars(means, "accuracy", spread, mark=0.1, limit=1)
alt = (
    "Accuracy of nine models, three seeds. SimpleViT is lowest. Then come ViT, four "
    "times the images, consistency loss, DeiT and token labels, close together. Cosine "
    "loss and teacher are near 0.9; the ViT with twice the steps is highest"
)
show.figure(picture, alt)

# %% name="pairs"
print(show.pairs(record))
longer = accuracy["ViT, twice the steps"]["each"]
for name in ("ViT", "cosine loss"):
    pairs = zip(longer, accuracy[name]["each"], strict=True)
    print(f"computed afterwards: the ViT with twice the steps, minus {name}")
    print("   ", *(f" {a - b:+.3f}" for a, b in pairs))
other = show.recorded("claim-deit")["pairs"]["hard distillation beats none"]
print("from the notebook on DeiT: a teacher where labels are half random, minus none")
print("   ", *(f" {difference:+.3f}" for difference in other["difference"]))

# %% [markdown] name="compare-answer"
# By the mean, it is D, C, B, A; the seeds disagree between D and C, and between B and A.
#
# - **Twice the steps** bring 10 to 16 points: this is a race. DeiT, whose teacher cost as much, stays behind
#   with every seed.
# - **The cosine loss** brings 7 to 16, without any information. That patches differ is measured, not why.
# - **Token labels** bring 2 to 7. Against four times the canvases it is undecided.
# - **DeiT:** undecided. In its own notebook labels are half random, and the teacher knows the right ones:
#   there it brings 7 to 10.
# - **SimpleViT** loses. Its waves were made for larger grids; by
#   [its notebook](papers/simple_vit.ipynb) that is less than half of it.

# %% [markdown] name="fair"
# ### What is fair here, and what is not
#
# - Equal: data, steps, batch, parameters within 5 %, no tuning. But the recipe was chosen for the plain ViT.
# - Unequal: information. Token labels name four digits a canvas, the label one.
# - Unequal: computing. The teacher must be trained, and asked at every step.
# - Two seeds of one model differ by up to 14 points (DeiT). Small differences cannot be seen.
#
# Nothing here says what happens after 300 epochs on a million photographs: what learns sooner need not end
# higher. The DeiT paper reports gains from a teacher that has seen the same images. This neither confirms
# nor refutes it.
#
# ## The papers in a table
#
# Computed from the package's code, beside the parameters that the authors report:

# %% name="table"
for paper in papers.papers().values():
    if paper.lesson == "13":
        print(f"{paper.name}, {paper.authors} {paper.year}: {compare.changes(paper)}")
        for name, config in paper.configs.items():
            count = compare.parameters(name)
            print(f"    {name:18}{count:>12,}   reported {config.reported}")

# %% [markdown] name="authors"
# What the authors report for ImageNet at 224 x 224, in percent:
#
# | | |
# |---|---|
# | DeiT Ti, S, B | 72.2, 79.9, 81.8 |
# | the same, distilled | 74.5, 81.2, 83.4 |
# | LV-ViT T, S, M | 79.1, 83.3, 84.0 |
# | against over-smoothing, B of 12 and 24 blocks | 82.9, 83.3 |
#
# For SimpleViT S/16 the paper reports 80 % after 300 epochs. Models, epochs and augmentation differ from
# row to row, so the table is no comparison. The first two rows are one: a distilled DeiT gains 1.3 to 2.3
# points.

# %% [markdown] name="remember"
# ## Remember
#
# - A variant fills slots, or overrides a seam of attention: `project`, `bias`, `weights`. Only `weights`
#   costs the fused kernel. `grid` tells a part where the tokens lie.
# - Soft distillation is KL(teacher || student), times the temperature squared. Hard distillation takes the
#   teacher's first choice as a label.
# - The distillation token is second, has a layer of its own, and in the end the logits are averaged.
# - Token labels teach every patch; MixToken swaps tokens, so that each keeps one label.
# - A rule such as the cosine loss adds no information, and may still help: look how alike patches are.
# - Compare on one budget, count the teacher's share, and train the control for longer.
#
# Before: [12 what it withstands](12-what-it-withstands.ipynb). Next:
# [14 better tokens](14-better-tokens.ipynb).
#
# [Glossary](../docs/glossary.md).
