# %% [markdown] name="title"
# # 07 · Training on a GPU
#
# In lesson 06 you proved that your model is right. A right model still has to learn. Recipes for Vision
# Transformers list the same ingredients again and again: a warm-up and a cosine, weight decay for
# matrices only, augmentation, label smoothing, clipping, an average of the weights, bf16, `compile`.
#
# **A question first.** Begin with a plain loop on handwritten digits and add these one by one. Which of
# them adds most to the accuracy? Which adds nothing? Write your order down. The answer was measured, and
# stands below.

# %% name="setup"
import torch
import torch.nn.functional as F

from vitcourse import check, data, show
from vitcourse.train import RECIPES, build_model

# %% [markdown] name="adamw-text"
# ## One step of AdamW
#
# The smallest model: three weights, all 1. Their gradients are 0.001, -20 and 300, the learning rate is
# 0.1. Predict before you run: where are the three weights after one step?

# %% name="adamw-step"
w = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
optimizer = torch.optim.AdamW([w], lr=0.1, weight_decay=0.0)
w.grad = torch.tensor([0.001, -20.0, 300.0])
optimizer.step()
print([round(value, 2) for value in w.tolist()])

# %% [markdown] name="adamw-notes"
# Each moved by 0.1, against the sign of its gradient. AdamW keeps two running means for each weight, of
# the gradients, $m$, and of their squares, $v$, and divides one by the root of the other:
#
# $$w \leftarrow w - \eta \left( \frac{\hat m}{\sqrt{\hat v} + \epsilon} + \lambda w \right)$$
#
# So the learning rate $\eta$ is about how far a weight moves in a step, whatever the loss is multiplied
# with. In the first steps $m$ and $v$ know one or two batches: the steps are full size, and their
# direction is mostly noise. Keep this in mind for the warm-up. The hats correct the means for having begun
# at zero; $\lambda w$ is the weight decay.

# %% [markdown] name="first-loss-text"
# ## Two losses to know before you train
#
# Lesson 06: a new model's first loss is ln(classes). There is a second number. A model that ignores the
# image can still learn how frequent each class is, and give that answer always. What does it pay?

# %% name="first-loss"
digits = data.load("digits")
images, labels = digits.normalise(digits.images), digits.labels
model = build_model(RECIPES["smoke"], digits)  # a Nano/4
first = F.cross_entropy(model(images[:128]), labels[:128])


def constant(share):
    """The loss of the best answer that is the same for each image: share (classes,)."""
    return -(share * share.log()).sum()


print(f"first loss {first.item():.2f}")
print(f"constant answer, digits: {constant(labels.bincount() / len(labels)):.2f}")
print(f"constant answer, 90 % of one of two: {constant(torch.tensor([0.9, 0.1])):.2f}")

# %% [markdown] name="v1-text"
# The digits are balanced, so both are 2.30. A loss that stays there means that no image is looked at. With
# unbalanced classes a loss that falls at once to the second number, and stays, means the same.
#
# ## v1, plain
#
# `stream` gives shuffled batches, and leaves out the odd rest of an epoch. The loop is the shortest that
# trains: AdamW, one learning rate from the first to the last step, float32.


# %% name="v1"
def stream(epochs, seed=0):
    """Batches of 128: images (B, C, H, W), labels (B,)."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=generator)
        for index in order.split(128)[:-1]:
            yield images[index], labels[index]


def train_v1(model, stream, lr):
    weights = model.parameters()
    # fused: one kernel changes all weights
    optimizer = torch.optim.AdamW(weights, lr, weight_decay=0.05, fused=True)
    losses = []
    for x, target in stream:
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())  # .item() would make a GPU wait, each step
    return torch.stack(losses)


# %% name="v1-run" tags=["nbval-ignore-output"]
losses = train_v1(build_model(RECIPES["smoke"], digits), stream(epochs=6), lr=4e-3)
picture = show.lines({"v1": losses}, "step", "loss of the batch")
show.figure(picture, alt="The loss of 66 steps; it falls from 2.3 to about 0.1")
print(f"{losses[0]:.2f} -> {losses[-11:].mean():.2f}, the mean of the last epoch")

# %% name="v1-bound"
assert losses[-11:].mean() < 1
print("ok: it looks at the images")

# %% [markdown] name="schedule-text"
# ## v2, warm-up and cosine
#
# First small steps, while AdamW's means know little. Then large ones, to get far. Then smaller and smaller
# ones, to come to rest: with one rate the weights keep jumping about. Of $S$ steps the first $W$ warm up:
#
# $$\eta_s = \eta \cdot \begin{cases} \dfrac{s + 1}{W + 1} & s < W \\[2ex]
# \dfrac12 \left(1 + \cos \pi \dfrac{s - W}{S - W}\right) & s \ge W \end{cases}$$

# %% name="schedule-picture"
from vitcourse.train import Recipe
from vitcourse.train.recipe import learning_rate

recipe = Recipe(lr=4e-3, warmup=0.2)
rates = [learning_rate(recipe, step, 100) for step in range(100)]
picture = show.lines({"v1": [4e-3] * 100, "v2": rates}, "step", "learning rate")
alt = "v1: a flat line. v2: a straight rise to step 20, then half a wave down to zero"
show.figure(picture, alt=alt)
for step in (0, 19, 20, 99):
    print(f"step {step:2}: {rates[step]:.6f}")

# %% [markdown] name="card-schedule"
# ### Exercise: the learning rate
#
# 10 minutes · difficulty 2 of 3
#
# Write the equation for many steps at once: `schedule(step, steps, warm, highest)`, with `step` (S,), whole
# numbers from 0 on. It returns the rates (S,). `warm` is the number of steps to warm up, and may be 0.
#
# A hint: `check.hint("schedule")`. The solution: `check.solution("schedule")`.


# %% name="stub-schedule" tags=["exercise"]
def schedule(step, steps, warm, highest):
    """step (S,) -> the learning rates (S,)."""
    ...


# %% name="check-schedule" tags=["check"]
check.schedule(schedule)


# %% name="v2"
def train_v2(model, stream, recipe, steps):
    weights, lr = model.parameters(), recipe.lr
    optimizer = torch.optim.AdamW(weights, lr, weight_decay=0.05, fused=True)
    for step, (x, target) in enumerate(stream):
        for group in optimizer.param_groups:  # new
            group["lr"] = learning_rate(recipe, step, steps)  # new
        F.cross_entropy(model(x), target).backward()
        optimizer.step()
        optimizer.zero_grad()


train_v2(build_model(recipe, digits), stream(epochs=1), recipe, steps=11)

# %% [markdown] name="decay-text"
# ## v3, what decays
#
# $\lambda w$ draws a weight a little towards zero in each step: after $S$ steps without a gradient
# $\prod_s (1 - \eta_s \lambda)$ of it is left. For a matrix that is a brake. A norm's scale should stay near
# 1, and a position table says where a token is; drawn towards zero, they say less and less.
#
# How much is left? Once for 210 steps on the digits, once for the recipe of the DeiT paper: 300 epochs of
# 1,251 steps at a highest rate of 0.001.

# %% name="decay-left"
import math


def left(recipe, steps):
    rates = (learning_rate(recipe, step, steps) for step in range(steps))
    return math.prod(1 - rate * 0.05 for rate in rates)


print(f"digits: {left(recipe, 210):.3f}")
print(f"DeiT:   {left(Recipe(lr=1e-3, warmup=5 / 300), 300 * 1251):.5f}")

# %% [markdown] name="card-decayed"
# On the digits nothing much happens; in a long run the decay wipes out what no gradient holds.
#
# ### Exercise: what decays
#
# 8 minutes · difficulty 2 of 3
#
# Write `decayed(model, weight_decay)`: one number for each parameter, in the order of
# `model.named_parameters()`, as a tensor. Matrices and kernels get `weight_decay`. What has one axis gets 0,
# and so does each parameter whose name has a part that begins with `prefix` or `position`, wherever it
# stands.
#
# A hint: `check.hint("decayed")`. The solution: `check.solution("decayed")`.


# %% name="stub-decayed" tags=["exercise"]
def decayed(model, weight_decay):
    """How much each parameter decays: (parameters,)."""
    ...


# %% name="check-decayed" tags=["check"]
check.decayed(decayed)

# %% name="v3-groups"
from vitcourse.train import decay_groups

names = {id(p): name for name, p in model.named_parameters()}
for group in decay_groups(model, weight_decay=0.05):
    shown = [names[id(p)] for p in group["params"]]
    outside = [name for name in shown if not name.startswith("blocks")]
    first_block = [name[9:] for name in shown if name.startswith("blocks.0")]
    print(f"decay {group['weight_decay']}: {', '.join(outside)}")
    print(f"   each block: {', '.join(first_block)}")


# %% name="v3"
def train_v3(model, stream, recipe, steps):
    groups = decay_groups(model, recipe.weight_decay)  # new
    optimizer = torch.optim.AdamW(groups, recipe.lr, fused=True)  # new
    for step, (x, target) in enumerate(stream):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, steps)
        F.cross_entropy(model(x), target).backward()
        optimizer.step()
        optimizer.zero_grad()


train_v3(build_model(recipe, digits), stream(epochs=1), recipe, steps=11)

# %% [markdown] name="augment-text"
# ## v4, other images: augmentation
#
# A digit that is turned a little is the same digit, so each epoch may show another version of it.
# `Augment` changes a whole batch at once, on the device where it lies: the data set can stay on the GPU, and
# no process has to feed it. The numbers are drawn from one generator, so the same seed gives the same images
# on each device.

# %% name="augment-digits"
from vitcourse.data.augment import Augment, one_hot

augment = Augment(rotate=8, scale=0.08, shear=8, translate=0.05)  # of "smoke"
before = digits.images[8:16].float() / 255  # (B, C, H, W), 0..1
generator = torch.Generator().manual_seed(7)
after, _ = augment(before, one_hot(labels[8:16], 10), generator)
picture = show.images(torch.cat([before, after]), columns=8, size=0.9)
alt = "Eight digits; below each the same one, turned, slanted and moved a little"
show.figure(picture, alt=alt)

# %% [markdown] name="photo-text"
# For photographs the recipe of CIFAR-10 shifts, mirrors, and fills a box from another image: CutMix. Which
# of the three would be wrong for digits? Mirroring: a mirrored 2 is no digit, and nobody writes it. An
# augmentation says what may change without changing the answer, so it depends on the task.
#
# CutMix changes the answer, too: two classes share the target, by area.

# %% name="augment-photo"
shapes = data.load("shapes", train=64, test=16)
before = shapes.images[:8].float() / 255  # (8, 3, 32, 32)
targets = one_hot(shapes.labels[:8], len(shapes.classes))
generator = torch.Generator().manual_seed(1)
after, mixed = RECIPES["cifar10-fast"].augment(before, targets, generator)
picture = show.images(torch.cat([before, after]), columns=8, size=0.9)
alt = "Eight drawn objects; below, each moved, some mirrored, with a box of another"
show.figure(picture, alt=alt)
for target in mixed[:3]:
    shares = {shapes.classes[i]: round(target[i].item(), 2) for i in target.nonzero()}
    print(shares)

# %% [markdown] name="card-smooth-labels"
# ## And other targets: label smoothing
#
# A target of 1 asks for logits that grow without end. Smoothing asks for less.
#
# ### Exercise: smooth labels
#
# 6 minutes · difficulty 1 of 3
#
# Write `smooth_labels(labels, classes, smoothing)`: labels (B,) -> targets (B, classes). Of each label's 1
# the part `smoothing` is taken and spread evenly over all classes, the right one included.
#
# A hint: `check.hint("smooth_labels")`. The solution: `check.solution("smooth_labels")`.


# %% name="stub-smooth-labels" tags=["exercise"]
def smooth_labels(labels, classes, smoothing):
    """labels (B,) -> targets (B, classes)."""
    ...


# %% name="check-smooth-labels" tags=["check"]
check.smooth_labels(smooth_labels)

# %% [markdown] name="smooth-article"
# An article that compares distillation with smoothing says: the right label gets $1 - \varepsilon$, the
# rest goes to the *other* classes. Compare both with PyTorch's `label_smoothing`.

# %% name="smooth-compare"
torch.manual_seed(7)
logits, answers = 2 * torch.randn(3, 5), torch.tensor([2, 0, 4])
torchs = F.cross_entropy(logits, answers, label_smoothing=0.2)
right = F.one_hot(answers, 5).float()  # (B, classes)
article = 0.8 * right + 0.2 / 4 * (1 - right)
print("over all:   ", [round(t, 2) for t in one_hot(answers, 5, 0.2)[0].tolist()])
print("over others:", [round(t, 2) for t in article[0].tolist()])
assert torch.allclose(F.cross_entropy(logits, one_hot(answers, 5, 0.2)), torchs)
assert not torch.allclose(F.cross_entropy(logits, article), torchs, atol=0.01)
print("ok: PyTorch spreads over all classes, and not over the others alone")

# %% [markdown] name="smooth-predict-text"
# The two differ little, and can be had from each other by another $\varepsilon$. But the two numbers that
# you check a run with need the right one. Guess both.

# %% name="smooth-predict"
first = "first loss of a new ViT with 10 classes and label smoothing 0.1, to two digits"
check.predict(first, ...)
lowest = "lowest possible loss with 10 classes and label smoothing 0.1, to two digits"
check.predict(lowest, ...)


# %% name="v4-stream"
def stream_v4(epochs, recipe):
    """Augmented batches with soft targets: (B, C, H, W), (B, classes)."""
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(epochs):
        for index in torch.randperm(len(labels), generator=generator).split(128)[:-1]:
            x = digits.images[index].float() / 255
            targets = one_hot(labels[index], 10, recipe.smoothing)  # new
            x, targets = recipe.augment(x, targets, generator)  # new
            yield digits.normalise(255 * x), targets


recipe = RECIPES["smoke"].but(smoothing=0.1, ema=0.98)
x, targets = next(stream_v4(1, recipe))
print("images", tuple(x.shape), "targets", tuple(targets.shape))
loss = F.cross_entropy(build_model(recipe, digits)(x), targets)
lowest = -(targets * targets.log()).sum(dim=1).mean()
print(f"first loss {loss.item():.2f}, the lowest possible {lowest.item():.2f}")

# %% [markdown] name="clip-text"
# Augment first, normalise afterwards: then the zeros that come in at the edge are black, and not grey. The
# loop stays as it is: `F.cross_entropy` takes soft targets, too.
#
# ## v5, clipping, and an average of the weights
#
# Clipping shortens the gradient, taken as one long vector over all parameters, if it is longer than a limit.
# Its direction stays.

# %% name="clip"
p, q = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
p.grad, q.grad = torch.tensor([6.0, 0.0]), torch.tensor([0.0, 8.0])
length = torch.nn.utils.clip_grad_norm_([p, q], 1.0)
shorter = [round(g, 2) for g in (*p.grad.tolist(), *q.grad.tolist())]
print(f"{length:.0f} long ->", shorter)

# %% [markdown] name="clip-why-text"
# AdamW hardly minds how long gradients are, as you saw. Does it mind one that is much longer than the
# others? One weight has 20 gradients of 1, then one of 1 or of 100, then 40 of 1. Predict: how far does it
# move in the last step?


# %% name="clip-why"
def moves(gradients):
    """How far AdamW moves a weight in each step, at the rate 0.1."""
    w, found = torch.nn.Parameter(torch.zeros(1)), []
    optimizer = torch.optim.AdamW([w], lr=0.1, weight_decay=0.0)
    for gradient in gradients:
        before, w.grad = w.item(), torch.tensor([gradient])
        optimizer.step()
        found.append(before - w.item())
    return found


for peak in (1.0, 100.0):
    found = moves([1.0] * 20 + [peak] + [1.0] * 40)
    print(f"peak {peak:3.0f}: before it {found[19]:.3f}, last {found[-1]:.3f}")

# %% [markdown] name="ema-text"
# One long gradient enters $v$, which forgets slowly, and makes all later steps small. Clipping keeps it out.
#
# The average (EMA) is a second model that follows the first: of each of its weights a part stays, the rest
# comes from the weights as they are now. Here is one weight that jumps about 0, as at a high learning rate,
# and its average with a part of 0.95.

# %% name="ema-picture"
torch.manual_seed(7)
jumping, average, followed = torch.randn(150) + 3 * 0.93 ** torch.arange(150), 3.0, []
for value in jumping:
    average = torch.lerp(value, torch.as_tensor(average), 0.95)
    followed.append(average)
picture = show.lines({"weight": jumping, "average": followed}, "step", "value")
alt = "A line that jumps widely, and a smooth one that comes down to 0 behind it"
show.figure(picture, alt=alt)
print(f"spread over the last 75 steps: weight {jumping[75:].std():.2f},", end=" ")
print(f"average {torch.stack(followed)[75:].std():.2f}")

# %% [markdown] name="card-ema"
# The average is smooth, and late. So in the beginning, where the weights move fast, a smaller part should
# stay: $\min(k, (1 + s) / (10 + s))$ at step $s$.
#
# ### Exercise: the average
#
# 6 minutes · difficulty 1 of 3
#
# Write `ema(average, weights, step, keep)`: the next average, a new tensor of the same shape. The part
# above, with `keep` for $k$, stays; the rest comes from `weights`.
#
# A hint: `check.hint("ema")`. The solution: `check.solution("ema")`.


# %% name="stub-ema" tags=["exercise"]
def ema(average, weights, step, keep):
    """The next average, of the same shape."""
    ...


# %% name="check-ema" tags=["check"]
check.ema(ema)

# %% name="v5"
import copy


def train_v5(model, stream, recipe, steps):
    average = copy.deepcopy(model).requires_grad_(False)  # new
    averaged = list(average.parameters())  # new
    groups = decay_groups(model, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, recipe.lr, fused=True)
    for step, (x, target) in enumerate(stream):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, steps)
        F.cross_entropy(model(x), target).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)  # new
        optimizer.step()
        optimizer.zero_grad()
        part = min(recipe.ema, (1 + step) / (10 + step))  # new
        with torch.no_grad():  # new
            for old, now in zip(averaged, model.parameters(), strict=True):  # new
                old.lerp_(now, 1 - part)  # new
    return average.eval()


# %% [markdown] name="proof-text"
# That is all of `vitcourse.train.fit` that decides what is learned. The proof: the same batches, two epochs,
# and the same logits for all test images.

# %% name="proof"
from vitcourse.train import fit
from vitcourse.train.batches import Batches

short = recipe.but(epochs=2)
batches = Batches(digits, short)
pairs = ((batch.images, batch.targets) for batch in batches.since(0))
ours = train_v5(build_model(short, digits), pairs, short, batches.steps)
run = fit(build_model(short, digits), digits, short, device="cpu", quiet=True)
tests = digits.normalise(digits.test_images)
with torch.no_grad():
    assert torch.allclose(ours(tests), run.model(tests), atol=1e-4)
print("ok: v5 and fit give the same logits after", batches.steps, "steps")

# %% [markdown] name="claim-text"
# ## What each of them adds
#
# Now to the question. The loop was trained with one ingredient more each time: half of the digits to train
# on, half to test, 210 steps, five seeds. A seed sets the split, the first weights and the order, the same
# for each row. So like is compared with like: a row minus the row before it, seed by seed.

# %% name="claim"
from itertools import pairwise

record = show.recorded("claim-training_steps")
figures = record["figures"]


def gain(label, name, base):
    """Percentage points that a row has more than another: each seed, and the mean."""
    before, after = (torch.tensor(figures[row]["each"]) for row in (base, name))
    each = 100 * (after - before)  # (seeds,)
    row = " ".join(f"{value:+6.2f}" for value in each.tolist())
    print(f"{label:18} {row}   mean {each.mean():+.2f}")
    return each.mean().item()


rows = [name for name in figures if name == "plain" or name.startswith("+")]
print(show.origin(record))
print(f"plain: {figures['plain']['mean']:.3f} right; and then, in percentage points:")
gains = {name: gain(name, name, base) for base, name in pairwise(rows)}
picture = show.bars(gains, "mean gain in percentage points")
alt = "Six bars: warm-up and cosine longest, then augmentation; the others near 0"
show.figure(picture, alt=alt)

# %% [markdown] name="claim-notes"
# Warm-up and cosine add most, but with one seed nothing. They came in together: these rows do not tell how
# much each of them gave. Augmentation comes second. Decay groups and smoothing gain with some seeds and lose
# with others; clipping adds little: five seeds cannot tell them from nothing. The average adds nothing to a
# cosine, which comes to rest by itself.
#
# Four more comparisons. Over the plain loop: the same with a quarter of the rate, the same with the average.
# Then the whole over the whole without its augmentation, and the whole over the plain loop.

# %% name="claim-beside"
gain("a quarter the rate", "plain, rate / 4", "plain")
gain("average", "plain, average", "plain")
gain("augmentation", "+ average", "whole, no augmentation")
gain("the whole", "+ average", "plain")
for name in ("+ augmentation", "+ smoothing"):
    print(f"{name:18} loss on the test half {figures[f'loss, {name}']['mean']:.2f}")
for what, holds in record["claims"].items():
    print("holds:" if holds else "FAILS:", what)

# %% [markdown] name="claim-beside-notes"
# With every seed the whole beats the plain loop, and needs its augmentation. The average does help a loop
# whose rate stays high. And two warnings:
#
# - A quarter of the rate, and no schedule, gives the plain loop most of the schedule's mean gain, though two
#   seeds lose. A part of what an ingredient "adds" may be a badly chosen number that it repairs.
# - Smoothing doubles the test loss while the accuracy stays. Losses compare only between runs with the same
#   targets.
#
# None of this says what happens at ImageNet's size. There you saw what decay does in 375,300 steps.

# %% [markdown] name="bf16-text"
# ## Two that change the speed
#
# bf16 has the range of float32 and 8 significant bits: half the bytes, and GPUs have units that multiply such
# matrices faster. `autocast` computes matrix products in it and keeps weights, norms and loss in
# float32. Why not the weights, too?

# %% name="bf16"
weight = torch.tensor(1.0)
print("float32: 1 + 0.001 =", round((weight + 0.001).item(), 4))
print("bf16:    1 + 0.001 =", (weight.bfloat16() + 0.001).item())
small = torch.tensor(1e-8)
for half in (torch.bfloat16, torch.float16):
    print(f"1e-8 in {half}: {small.to(half).item():.0e}")
with torch.autocast("cpu", torch.bfloat16):  # new in the loop: these two lines
    logits = ours(images[:128])
    loss = F.cross_entropy(logits, labels[:128])
for name, tensor in {"logits": logits, "loss": loss}.items():
    print(name, tensor.dtype)
print("weights", ours.head.weight.dtype)

# %% [markdown] name="compile-text"
# A weight of 1 would never learn from steps of 0.001. fp16, for older GPUs, has more digits and a small
# range: small gradients become 0, so the loss is scaled up before `backward` and the gradients down after
# it (`GradScaler`). bf16 needs none of this.
#
# `torch.compile` reads the model's operations as one graph, and builds kernels that do several at once. To
# build them takes long. The graph can be had without them.


# %% name="compile"
def look(graph, inputs):
    graphs.append(graph)
    return graph.forward  # run it as it is; the default builds kernels


graphs = []
compiled = torch.compile(ours, backend=look, fullgraph=True)
with torch.no_grad():
    assert torch.allclose(compiled(images[:9]), ours(images[:9]), atol=1e-5)
print("ok: the same logits, from", len(graphs), "graph")

# %% [markdown] name="live-text"
# ## The whole recipe, live
#
# `fit` is this loop with what long runs need: precision, checkpoints, a log, several GPUs. The recipe is one
# object; `.but(...)` changes a copy. 30 epochs, about ten seconds. Guess the accuracy on the 360 test digits.
#
# The training loss is against smoothed targets, so it stays above 0.50. The test loss is against plain
# labels, and may fall below.

# %% name="live" tags=["nbval-ignore-output"]
recipe = RECIPES["smoke"].but(epochs=30, smoothing=0.1, ema=0.98, evaluate_every=2)
run = fit(build_model(recipe, digits), digits, recipe, device="cpu", quiet=True)
picture = show.loss_curves(run.history)
alt = "The training loss falls to 0.5, the test loss below it; the accuracy nears 1"
show.figure(picture, alt=alt)
print(f"right: {run.accuracy:.3f} of {len(digits.test_labels)} test digits")

# %% name="live-bound"
assert run.accuracy > 0.95
assert 0.5 < run.history[-1]["loss"] < 1
print("ok: more than 95 % are right, and the loss stays above its lowest value, 0.50")

# %% [markdown] name="cifar-text"
# ## The same call on a GPU
#
# Nothing changes but the recipe and the data. `data.load("cifar10")` downloads the images once, so this
# notebook does not run it:
#
# ```python
# recipe = RECIPES["cifar10-fast"].but(compile=True)
# cifar = data.load("cifar10").to("cuda")
# run = fit(build_model(recipe, cifar), cifar, recipe, out="runs/cifar10")
# ```
#
# `device="auto"` takes CUDA, else a Mac's GPU, else the CPU; `precision="auto"` takes bf16 on CUDA from
# Ampere on, fp16 on older ones, and float32 elsewhere. What was recorded on a GPU, with
# `python -m benchmarks.cifar10 --set compile=true`, is shown below: recorded, not run here. The seconds of
# the first seed include compiling.

# %% name="cifar-recorded"
fast, curves = RECIPES["cifar10-fast"], {}
rates = [learning_rate(fast, epoch, fast.epochs) for epoch in range(fast.epochs)]
curves["part of the highest rate"] = [rate / fast.lr for rate in rates]
record = show.recorded_on_gpu("cifar10-fast")
if record:
    for one in record["runs"]:
        tested = [entry for entry in one["history"] if "test_accuracy" in entry]
        values = [entry["test_accuracy"] for entry in tested]
        name = f"accuracy, seed {one['seed']}"
        curves[name] = ([entry["epoch"] - 1 for entry in tested], values)
        print(f"{name}: {values[-1]:.4f} in {one['history'][-1]['seconds']:.0f} s")
else:
    print("the figure shows the schedule alone")
picture = show.lines(curves, "epoch", "part")
alt = "The schedule over 50 epochs, and the test accuracy of each run that is recorded"
show.figure(picture, alt=alt)

# %% [markdown] name="card-adamw-bytes"
# ## What the memory holds
#
# ### Exercise: bytes
#
# 4 minutes · difficulty 1 of 3
#
# ViT-B/16 has 86,567,656 parameters, in float32. How many bytes does AdamW keep for them from step to step,
# beside the weights and their gradients? An expression such as `3 * 86_567_656` is an answer, too. The few
# bytes in which it counts its steps do not count.
#
# A hint: `check.hint("adamw_bytes")`. The solution: `check.solution("adamw_bytes")`.

# %% name="stub-adamw-bytes" tags=["exercise"]
adamw_bytes = ...

# %% name="check-adamw-bytes" tags=["check"]
check.adamw_bytes(adamw_bytes)

# %% [markdown] name="activations-text"
# Weights, gradients and AdamW are there in each step, whatever the batch. The rest is activations: what the
# forward pass leaves behind for the backward pass. PyTorch tells what it saves. Per image and block we
# expect, in units of T · D: the inputs of both norms, of `qkv` and of `fc1` (4), q, k and v (3), the
# attention's output (1), the hidden layer before and after GELU (4 + 4). Together 16, and a few numbers for
# each token. The cell takes a model of two blocks, and one of one block, and subtracts.


# %% name="activations"
from vitcourse import Config, ViT


def saved(depth, B, N, D, K):
    """How many numbers a forward pass leaves behind, apart from the parameters."""
    sizes = dict(patch=2, image=(2, 2 * N), channels=1, classes=9)
    model, kept = ViT(Config(dim=D, depth=depth, heads=K, **sizes)), {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes() / 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.rand(B, 1, 2, 2 * N))
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(kept.values())


for B, N, D, K in [(3, 28, 40, 5), (3, 28, 60, 5), (2, 98, 64, 4)]:
    one_block = saved(2, B, N, D, K) - saved(1, B, N, D, K)
    units = one_block / (B * (N + 1) * D)
    assert abs(units - 16) < 1
    print(f"B {B}, T {N + 1}, D {D}: {units:.1f} times B · T · D")

# %% name="activations-b16"
B, T, D, L = 64, 197, 768, 12
states = 4 * 4 * 86_567_656  # weights, gradients, m, v: 4 bytes each
activations = 16 * B * T * D * L * 4  # bytes in float32
maps = 12 * B * T * T * L * 4  # 12 heads; the fused kernel does not keep them
print(f"weights, gradients, AdamW: {states / 1e9:.1f} GB")
print(f"activations of 64 images:  {activations / 1e9:.1f} GB")
print(f"attention maps, if kept:   {maps / 1e9:.1f} GB more")

# %% [markdown] name="accumulate-text"
# The first line depends on the model, the second on the batch: too little memory means a smaller batch. Or
# the same batch in pieces: gradients add up until `zero_grad`, and the activations of a piece are freed
# before the next. Divide each loss by the number of pieces, since a mean of the whole is wanted, and not
# a sum of means.

# %% name="accumulate"
x, targets = next(stream_v4(1, RECIPES["smoke"]))
model = run.model.requires_grad_(True)
model.zero_grad()
F.cross_entropy(model(x), targets).backward()
whole = [p.grad.clone() for p in model.parameters()]
model.zero_grad()
for piece, target in zip(x.chunk(4), targets.chunk(4), strict=True):
    (F.cross_entropy(model(piece), target) / 4).backward()
pieces = [p.grad for p in model.parameters()]
for one, other in zip(whole, pieces, strict=True):
    assert torch.allclose(one, other, atol=1e-5)
print("ok: 4 pieces of", len(piece), "give the gradient of one batch of", len(x))

# %% [markdown] name="kill-text"
# `Recipe(accumulate=4)` does this.
#
# ## Kill it, and go on
#
# Long runs get killed: the power fails, the time on the cluster ends. With `out=`, a folder, `fit` writes a
# checkpoint after each epoch, here 11 steps. Let the power fail after step 17 of 33. How many steps have to
# be done twice?

# %% name="kill-predict"
question = "steps done twice if a run that saves every 11 steps is killed after step 17"
check.predict(question, ...)

# %% name="kill"
import tempfile
from pathlib import Path

from vitcourse.train import classify


class PowerCut(BaseException):
    """Nobody in fit catches it: what is not on the disk is lost, as in a kill."""


def step_17(model, batch):
    done.append(len(batch.labels))
    if len(done) > 17:
        raise PowerCut
    return classify(model, batch)


short, done = recipe.but(epochs=3), []
out = Path(tempfile.mkdtemp()) / "run"
try:
    model = build_model(short, digits)
    fit(model, digits, short, step_17, out, device="cpu", quiet=True)
except PowerCut:
    print("the power failed; on the disk:", *sorted(p.name for p in out.iterdir()))


# %% name="resume"
def counted(model, batch):
    done.append(len(batch.labels))
    return classify(model, batch)


done = []
other = build_model(short.but(seed=5), digits)  # its weights are replaced
resumed = fit(other, digits, short, counted, out, resume=True, device="cpu", quiet=True)
print(len(done), "steps after the power cut")
whole = fit(build_model(short, digits), digits, short, device="cpu", quiet=True)
ours, theirs = resumed.model.state_dict(), whole.model.state_dict()
assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
print("ok: the same weights as without the power cut, to the bit")

# %% [markdown] name="resume-notes"
# Weights alone would not do: the checkpoint also holds AdamW's means, the average and the number of the
# step. Order and augmentation need no state, because `fit` draws them from the seed and the number of the
# step.
#
# Try it with a real kill. In a terminal, start `vitcourse train --data digits --out runs/mine`, end the
# process while it trains, then go on with `vitcourse train --resume runs/mine`.

# %% [markdown] name="remember"
# ## Remember
#
# - AdamW moves each weight by about the learning rate, whatever the gradient's length. So the rate, and how
#   it changes, comes first.
# - Know the first loss, the constant answer's loss, and the lowest loss that smoothing allows.
# - Matrices decay; norms, biases, prefix and positions do not.
# - An ingredient adds what it adds to *this* model, data and length. Measure over seeds, against the row
#   before.
# - Memory: four times the weights, and 16 · T · D numbers for each image and block.
# - A run that can be resumed to the bit keeps the optimizer, and draws its batches from the step's number.
#
# Before: [06 the whole Vision Transformer](06-vision-transformer.ipynb). Next: [08 break it](08-break-it.ipynb).
#
# [Glossary](../docs/glossary.md).
