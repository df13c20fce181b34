# %% [markdown] name="title"
# # 10 · From one GPU to many
#
# A ViT-B/16 on 14 million images is days of work for one fast GPU. Eight of them do it in an eighth of
# the time, nearly, and learn the same model. This lesson shows why it is the same, on two processes of
# your own computer, what it costs, and where more GPUs stop helping. No GPU is needed.
#
# **A question first.** Of 12 images, one GPU has 8, and the mean of their gradients is -0.75. Another
# has 4, with a mean of 6. What is the gradient of the whole batch? (The gradient of one weight, so that
# it is one number.)

# %% name="setup"
import torch
import torch.distributed as dist
import torch.nn.functional as F

from vitcourse import check, data, make_vit, show
from vitcourse.lab.processes import Team

# %% name="predict-shares"
question = "gradient of all, where 8 images have the mean gradient -0.75 and 4 others 6"
check.predict(question, ...)

# %% [markdown] name="halves-text"
# ## A batch in two halves
#
# The loss of a batch is the mean of its images' losses, so its gradient is the mean of their gradients.
# A mean can be computed in parts. With two processes of B/2 images each:
#
# $$\nabla L = \frac{1}{B}\sum_{i=1}^{B} \nabla \ell_i
# = \frac{1}{2}\left(\frac{2}{B}\sum_{i \le B/2} \nabla \ell_i + \frac{2}{B}\sum_{i > B/2} \nabla \ell_i\right)$$
#
# The smallest model has one weight w and says w · x; the loss is (w · x - y)². Here are 12 images of one
# pixel each, and the gradient of each image's loss.

# %% name="halves"
x = torch.tensor([1.0, 2, 1, 3, 2, 1, 1, 2, 3, 1, 2, 4])
y = torch.tensor([3.0, 1, 0, 4, 2, 5, 2, 0, 1, 1, 3, 2])
w = 1
each = 2 * (w * x - y) * x  # (B,) the gradient of each image's loss
print("images 1 to 6: ", each[:6].int().tolist(), "mean", each[:6].mean().item())
print("images 7 to 12:", each[6:].int().tolist(), "mean", each[6:].mean().item())
print("mean of the two means:", (each[:6].mean() + each[6:].mean()).item() / 2)
print("mean of all:          ", each.mean().item())

# %% [markdown] name="halves-vit-text"
# Nothing in this needs a small model. A ViT has many more weights, and each has such a mean. `gradient`
# gives all of them in one long vector, for a batch of real digits.

# %% name="halves-vit"
digits = data.load("digits")
images, labels = digits.normalise(digits.images[:12]), digits.labels[:12]
torch.manual_seed(10)
model = make_vit("Nano/4", image=8, channels=1, classes=10)


def gradient(model, images, labels):
    loss = F.cross_entropy(model(images), labels)
    each = torch.autograd.grad(loss, model.parameters())
    return torch.cat([g.flatten() for g in each])


whole = gradient(model, images, labels)  # (114778,)
halves = [gradient(model, images[i : i + 6], labels[i : i + 6]) for i in (0, 6)]
assert torch.allclose((halves[0] + halves[1]) / 2, whole, atol=1e-6)
print(f"ok: {len(whole):,} gradients of the whole batch are the means of two halves")

# %% [markdown] name="when-not-text"
# ## When it is not so
#
# 1. **Unequal shares.** In the plain mean of two means, each of 4 images counts for twice as much as
#    each of 8.
# 2. **A loss that is a sum.** Then the gradients add up, and a mean over processes is too small, by the
#    number of processes.
# 3. **A layer that mixes images.** Batch normalisation takes mean and deviation over the batch. Half a
#    batch has others. A ViT has layer normalisation, which takes them over one token.

# %% name="unequal-and-sum"
print("8 and 4 images:", each[:8].mean().item(), "and", each[8:].mean().item())
print("  their mean:  ", (each[:8].mean() + each[8:].mean()).item() / 2, "is wrong")
print("  weighted:    ", (8 * each[:8].mean() + 4 * each[8:].mean()).item() / 12)
print("a sum as loss: ", each[:6].sum().item(), "and", each[6:].sum().item())
print("  their mean:  ", (each[:6].sum() + each[6:].sum()).item() / 2, end="")
print(", but the gradient of the whole sum is", each.sum().item())

# %% name="batch-statistics"
from torch import nn

for norm in nn.LayerNorm(20), nn.BatchNorm1d(20):
    torch.manual_seed(10)
    small = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), norm, nn.Linear(20, 10))
    parts = [gradient(small, images[i : i + 6], labels[i : i + 6]) for i in (0, 6)]
    whole = gradient(small, images, labels)
    off = (sum(parts) / 2 - whole).norm() / whole.norm()
    print(f"{type(norm).__name__:<12} the mean of the halves is off by {off:.0%}")

# %% [markdown] name="card-average-gradients"
# ### Exercise: average gradients
#
# 10 minutes · difficulty 2 of 3
#
# Each of n processes has the mean gradient (D, E) of its own images. You get all of them, `gradients`
# (n, D, E), and how many images each process had, `shares` (n,), whole numbers. Give back the mean
# gradient of all images (D, E).
#
# A hint: `check.hint("average_gradients")`. The solution: `check.solution("average_gradients")`.


# %% name="stub-average-gradients" tags=["exercise"]
def average_gradients(gradients, shares):
    """Means (n, D, E) of shares (n,) of the images -> the mean of all (D, E)."""
    ...


# %% name="check-average-gradients" tags=["check"]
check.average_gradients(average_gradients)

# %% [markdown] name="processes-text"
# ## Two real processes
#
# On many GPUs, each GPU has a process of its own, which runs the whole training program. They do not
# share memory. Each knows two numbers: its `rank`, from 0 on, and how many there are, `world`.
#
# `Team(2)` starts two processes on this computer. A new process knows nothing of this notebook, so
# `team.run(function, ...)` sends them the text of a function. They know `torch` and `dist`; what else it
# uses is imported inside.
#
# First comes **v1**, with three steps of gradient descent in one process, here in the notebook.


# %% name="v1"
def v1(rank, world, images, labels):
    from vitcourse import make_vit

    torch.manual_seed(10)
    model = make_vit("Nano/4", image=8, channels=1, classes=10)
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        for p in model.parameters():
            p.data -= 0.1 * p.grad
            p.grad = None
    return torch.cat([p.data.flatten() for p in model.parameters()])


alone = v1(0, 1, images, labels)
print(f"{len(alone):,} weights after 3 steps")

# %% [markdown] name="v2-text"
# **v2** gives each process its share of the batch, and nothing else. All begin with the same weights,
# because all set the same seed. Predict: do they end with the same?


# %% name="v2"
def v2(rank, world, images, labels):
    from vitcourse import make_vit

    torch.manual_seed(10)
    model = make_vit("Nano/4", image=8, channels=1, classes=10)
    images = images.chunk(world)[rank]  # new
    labels = labels.chunk(world)[rank]  # new
    print(len(images), "images")
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        for p in model.parameters():
            p.data -= 0.1 * p.grad
            p.grad = None
    return torch.cat([p.data.flatten() for p in model.parameters()])


team = Team(2)
one, other = team.run(v2, images, labels)
print(f"largest difference between the two: {(one - other).abs().max():.2f}")

# %% [markdown] name="v3-text"
# These are two models, each trained on half of the images. What is missing is one exchange a step.
# `dist.all_reduce(t)` adds up the tensor `t` of all processes, and every process gets the sum, in place.
# Divided by `world`, it is the mean. **v3** has two more lines than v2.


# %% name="v3"
def v3(rank, world, images, labels):
    from vitcourse import make_vit

    torch.manual_seed(10)
    model = make_vit("Nano/4", image=8, channels=1, classes=10)
    images = images.chunk(world)[rank]
    labels = labels.chunk(world)[rank]
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)  # new
            p.grad /= world  # new
            p.data -= 0.1 * p.grad
            p.grad = None
    return torch.cat([p.data.flatten() for p in model.parameters()])


one, other = team.run(v3, images, labels)
assert torch.equal(one, other)
print("ok: both processes have the same weights, to the last bit")
assert torch.allclose(one, alone, atol=1e-6)
print("ok: they are those of one process, up to rounding")

# %% [markdown] name="rounding"
# To the last bit the same as each other, because both add the same sums to the same weights. Up to
# rounding the same as one process, because 12 numbers that are added in another order round
# differently. Weights are never sent: the same start and the same steps keep them equal.
#
# ## DistributedDataParallel
#
# PyTorch has this as a wrapper. **v4** lets it do three things: it sends the weights of process 0 to all
# at the start, so the seeds may differ; it averages the gradients; and it does so while the backward
# pass still computes earlier layers, in buckets of several layers.


# %% name="v4"
def v4(rank, world, images, labels):
    from torch.nn.parallel import DistributedDataParallel

    from vitcourse import make_vit

    torch.manual_seed(10 + rank)  # new: only process 0 has the seed from above
    model = make_vit("Nano/4", image=8, channels=1, classes=10)
    model = DistributedDataParallel(model)  # new
    images = images.chunk(world)[rank]
    labels = labels.chunk(world)[rank]
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()  # new: the gradients are averaged in here
        for p in model.parameters():
            p.data -= 0.1 * p.grad
            p.grad = None
    return torch.cat([p.data.flatten() for p in model.parameters()])


one, other = team.run(v4, images, labels)
assert torch.equal(one, other) and torch.allclose(one, alone, atol=1e-6)
print("ok: DDP gives the weights of one process, up to rounding")
team.stop()

# %% [markdown] name="torchrun"
# ## The package on several GPUs
#
# `fit` wraps its model in the same way when `torchrun` has started it. In a terminal:
#
# ```
# torchrun --nproc-per-node=2 -m vitcourse train --out runs/two
# ```
#
# Process 0 prints what one process would: the data, the model, a line for the accuracy. It alone writes
# the folder. With GPUs, each process takes one, and they talk by NCCL; without, by gloo, as here.
# `batch` in a recipe is the **global** batch: with `batch=128`, each of two processes gets 64 images.
# So the same recipe learns the same on 1, 2 or 8 GPUs, and a test of the package holds that. Many
# other programs mean the batch of one GPU. Look it up before you compare.

# %% [markdown] name="card-global-batch"
# ### Exercise: the global batch
#
# 3 minutes · difficulty 1 of 3
#
# Two computers have four GPUs each. Every GPU holds 48 images at a time, and accumulates 3 times (which
# is the next thing to come: three backward passes before a step). How many images does a step of the
# optimizer learn from?
#
# A hint: `check.hint("global_batch")`. The solution: `check.solution("global_batch")`.

# %% name="stub-global-batch" tags=["exercise"]
global_batch = ...

# %% name="check-global-batch" tags=["check"]
check.global_batch(global_batch)

# %% [markdown] name="accumulate-text"
# ## Many GPUs, one after the other
#
# A mean can also be computed in parts by one GPU, one part after the other. This makes a large batch
# fit into a small memory. `backward` adds to `.grad`, so three passes add up three gradients. Each
# loss is divided by the number of pieces first. That is what `accumulate` in a recipe does.

# %% name="accumulate"
whole = gradient(model, images, labels)
for divisor in 3, 1:
    model.zero_grad()
    for i in 0, 4, 8:
        loss = F.cross_entropy(model(images[i : i + 4]), labels[i : i + 4])
        (loss / divisor).backward()
    added = torch.cat([p.grad.flatten() for p in model.parameters()])
    longer = added.norm() / whole.norm()
    print(f"divided by {divisor}: {longer:.2f} times as long as it should be")
    if divisor == 3:
        assert torch.allclose(added, whole, atol=1e-6)
        print("ok: three pieces of 4 give the gradient of 12")

# %% [markdown] name="adam-hides"
# Without the division the gradient is three times too long. Do you notice? Plain gradient descent takes
# steps that are three times too long, and may diverge. Adam does not show it: it divides the mean
# gradient by its usual size. Its first step, without weight decay, is the learning rate times:

# %% name="adam-first-step"
for name, g in {"right": whole, "three times": 3 * whole}.items():
    g = g[whole.abs() > 1e-4]
    first, second = g, g**2  # both moments have seen one gradient
    step = (first / (second.sqrt() + 1e-8)).abs().mean()
    print(f"{name:<12} gradient {g.abs().mean():.4f}, step {step:.4f}")

# %% [markdown] name="card-accumulate"
# ### Exercise: accumulate
#
# 12 minutes · difficulty 2 of 3
#
# A device has room for `at_most` images. `gradient_of(images, labels)` gives the mean gradient (C, E) of
# as many or fewer, and raises an error for more. Compute the mean gradient over all B images (B, C),
# with labels (B,). B need not be a multiple of `at_most`.
#
# A hint: `check.hint("accumulate")`. The solution: `check.solution("accumulate")`.


# %% name="stub-accumulate" tags=["exercise"]
def accumulate(images, labels, gradient_of, at_most):
    """images (B, C), labels (B,) -> the mean gradient over the batch (C, E)."""
    ...


# %% name="check-accumulate" tags=["check"]
check.accumulate(accumulate)

# %% [markdown] name="ring-text"
# ## How all get the sum
#
# In `all_reduce`, n GPUs each hold a vector of gradients, and all need the sum. One could collect: the
# others send theirs to GPU 0, which adds and sends back. Then GPU 0 receives n - 1 whole vectors, and
# everybody waits for it.
#
# A **ring** shares the work. Each vector is cut into n chunks, and each GPU talks to its right neighbour
# alone. In each of n - 1 rounds every GPU passes on one chunk, and the neighbour adds it. The numbers
# here show who is in: GPU 0 has ones, GPU 1 tens, GPU 2 hundreds.


# %% name="ring-sums"
def pass_on(held, first, add):
    """One round: GPU i sends one chunk, GPU 0 chunk `first`, to its right neighbour."""
    n = len(held)
    sent = [(i, (i + first) % n, held[i, (i + first) % n].clone()) for i in range(n)]
    for i, chunk, values in sent:  # all at once: what is sent was copied before
        right = (i + 1) % n
        held[right, chunk] = held[right, chunk] + values if add else values


held = torch.tensor([[1.0, 2, 3], [10, 20, 30], [100, 200, 300]])  # (GPUs, chunks)
for turn in range(2):
    pass_on(held, -turn, add=True)
    print(f"after round {turn + 1}:", held.int().tolist())

# %% [markdown] name="ring-half"
# Look for the complete sums, 111, 222 and 333: after n - 1 rounds each GPU has one of them. This half
# has a name, **reduce-scatter**. In the other half, **all-gather**, the complete chunks go round, and
# nobody adds.

# %% name="ring-copies"
for turn in range(2):
    pass_on(held, 1 - turn, add=False)
    print(f"after round {turn + 3}:", held.int().tolist())

counts = torch.ones(3, 3)  # how many GPUs' numbers each chunk holds
states = [counts.clone()]
for first, add in (0, True), (-1, True), (1, False), (0, False):
    pass_on(counts, first, add)
    states.append(counts.clone())
titles = ["start", "1: add", "2: add", "3: copy", "4: copy"]
picture = show.heatmaps(states, titles, limits=(0, 3), numbers=True)
alt = "Five tables of 3 GPUs by 3 chunks, at the start all ones; after two rounds "
alt += "each row has one 3; after four rounds there are only threes"
show.figure(picture, alt=alt)

# %% [markdown] name="ring-cost-text"
# Rows are GPUs, columns are chunks, and the figure shows of how many GPUs a chunk holds the sum. In each
# of 2 (n - 1) rounds a GPU sends one chunk, an n-th of its vector. So each GPU sends, of `size` bytes of
# gradients,
#
# $$\frac{2\,(n-1)}{n} \cdot \text{size}$$
#
# Predict before you go on: in a ring of 1000 GPUs in place of 2, how many times as many bytes does each
# of them send?

# %% name="predict-ring"
question = "bytes that a GPU sends in a ring of 1000, over those in one of 2, rounded"
check.predict(question, ...)


# %% name="ring"
def ring(vectors):
    """The sums, one row for each GPU, and how many numbers each GPU sent."""
    n, numbers = vectors.shape
    held = vectors.unflatten(1, (n, numbers // n)).clone()  # (GPUs, chunks, values)
    for turn in range(n - 1):
        pass_on(held, -turn, add=True)
    for turn in range(n - 1):
        pass_on(held, 1 - turn, add=False)
    return held.flatten(1), 2 * (n - 1) * (numbers // n)


torch.manual_seed(10)
for n in 2, 3, 8, 30:
    vectors = torch.randn(n, 240)
    sums, sent = ring(vectors)
    assert torch.allclose(sums, vectors.sum(dim=0).expand(n, -1), atol=1e-5)
    assert sent == 2 * (n - 1) / n * 240
    print(f"ok: {n:>2} GPUs, 240 gradients: all have the sum, each sent {sent}")

# %% [markdown] name="card-ring-bytes"
# ### Exercise: bytes in a ring
#
# 6 minutes · difficulty 2 of 3
#
# Eight GPUs train a ViT-B/16 of 86,567,656 parameters, and average their gradients, in float32, in a
# ring. How many bytes does each GPU send in one step?
#
# A hint: `check.hint("ring_bytes")`. The solution: `check.solution("ring_bytes")`.

# %% name="stub-ring-bytes" tags=["exercise"]
ring_bytes = ...

# %% name="check-ring-bytes" tags=["check"]
check.ring_bytes(ring_bytes)

# %% [markdown] name="assumed-text"
# ## What it costs: assumptions
#
# From here on you compute on paper. None of these numbers was measured here. Peak, memory and link
# speeds are what vendors print, in one direction; 40 % of the peak, the price and the time between
# failures are guesses of a usual size; 90 epochs and a batch of 4096 are our choice. **Change them, and run
# what follows again.**

# %% name="assumed"
from dataclasses import dataclass


@dataclass
class Assumed:
    images: int = 14_000_000  # ImageNet-21k, about
    classes: int = 21_843
    epochs: int = 90
    batch: int = 4096  # global
    peak: float = 989e12  # operations a second: H100, bf16, dense
    used: float = 0.40  # the part of the peak that training reaches
    memory: float = 80e9  # bytes
    nvlink: float = 450e9  # bytes a second, between the 8 GPUs of a computer
    infiniband: float = 50e9  # between computers
    ethernet: float = 1.25e9
    price: float = 3.0  # dollars for a GPU and an hour
    failure: float = 50_000  # hours until one GPU fails, on average


assumed = Assumed()

# %% [markdown] name="flops-text"
# How many operations is an image? torch counts a forward pass on the `meta` device, which knows shapes
# alone. It counts a multiplication and an addition as two. The backward pass computes two products
# for each one of the forward pass, the gradients for the weights and for the input, so training costs
# about three forward passes.

# %% name="flops"
from torch.utils.flop_counter import FlopCounterMode

with torch.device("meta"):
    model = make_vit("B/16", image=224)
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224))
forward = counter.get_total_flops()
flops = 3 * forward  # for one image of training
size = sum(p.nbytes for p in model.parameters())  # of all gradients in float32, too
print(f"forward {forward / 1e9:.2f} GFLOPs, or {forward / 2e9:.2f} G multiply-adds")
print(f"training {flops / 1e9:.1f} GFLOPs an image; gradients {size / 1e6:.0f} MB")

# %% [markdown] name="links-text"
# Eight GPUs have 64 images each. Which takes longer, computing or sending?

# %% name="links"
computing = 64 * flops / (assumed.peak * assumed.used)
names = ["nvlink", "infiniband", "ethernet"]
sending = {name: 2 * 7 / 8 * size / getattr(assumed, name) for name in names}
print(f"computing {1000 * computing:.1f} ms")
for name, seconds in sending.items():
    share = seconds / computing
    print(f"{name:<10} {1000 * seconds:>6.1f} ms to send, {share:.2f} as long")

# %% [markdown] name="links-notes"
# DDP sends while it computes, so sending that is shorter than the computing can be hidden behind
# it, in the best case. Ethernet cannot be hidden. There are ways to send less: a larger batch (as many
# bytes, more computing), accumulation (one exchange a step; DDP's `no_sync` skips the others), gradients
# in bf16 (half as many bytes).
#
# ## Who holds what
#
# In DDP every GPU holds everything. Predict how much, for each parameter.

# %% name="predict-memory"
question = "bytes for each parameter, with AdamW, all in float32, before any image"
check.predict(question, ...)

# %% [markdown] name="sharding-text"
# All n GPUs hold the same moments and compute the same update, n times over. AdamW treats each weight by
# itself, so the work can be shared: each GPU keeps the moments of an n-th of the weights, updates these,
# and sends them to the others.
#
# | name | shared out among n GPUs |
# |---|---|
# | DDP | nothing |
# | ZeRO-1 | moments |
# | ZeRO-2 | moments and gradients |
# | ZeRO-3, FSDP | moments, gradients and weights |
#
# In ZeRO-3 a GPU fetches the weights of a layer when it needs them, and drops them again.


# %% name="adamw-in-parts"
def adamw(weight, gradients):
    """The weights (12,) after three steps, with gradients (3, 12)."""
    weight = weight.clone().requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    for g in gradients:
        weight.grad = g.clone()
        optimizer.step()
    return weight.detach()


torch.manual_seed(10)
weight, gradients = torch.randn(12), torch.randn(3, 12)
parts = [adamw(weight[i : i + 4], gradients[:, i : i + 4]) for i in (0, 4, 8)]
assert torch.allclose(torch.cat(parts), adamw(weight, gradients))
print("ok: three GPUs, each with a third of weights and moments, make the same steps")

# %% name="sharding"
parameters = size // 4


def bytes_held(n, name):
    """Bytes on each GPU: weights, gradients and two moments, 4 bytes each."""
    weights = 4 / n if name == "ZeRO-3" else 4
    gradients = 4 / n if name in ("ZeRO-2", "ZeRO-3") else 4
    moments = 8 if name == "DDP" else 8 / n
    return parameters * (weights + gradients + moments)


names = ["DDP", "ZeRO-1", "ZeRO-2", "ZeRO-3"]
print("MB on each GPU " + "".join(f"{name:>8}" for name in names))
for n in 1, 8, 64:
    held = [bytes_held(n, name) / 1e6 for name in names]
    print(f"{n:>6} GPUs    " + "".join(f"{size:>8.0f}" for size in held))
counts = [1, 2, 4, 8, 16, 32, 64]
shown = {name: (counts, [bytes_held(n, name) / 1e6 for n in counts]) for name in names}
picture = show.lines(shown, x="GPUs", y="MB on each, ViT-B/16", log="xy")
alt = "DDP is flat; ZeRO-1 and ZeRO-2 fall and level off; ZeRO-3 keeps halving"
show.figure(picture, alt=alt)

# %% [markdown] name="sharding-notes"
# ZeRO-1 and ZeRO-2 send no more than DDP: a reduce-scatter gives each GPU the sums of its part, and an
# all-gather hands round the new weights. These are the two halves of the ring. ZeRO-3 gathers the
# weights twice, for the forward and for the backward pass, so it sends one and a half times as much.
#
# A ViT-B/16 gains little: 1.4 GB fit everywhere. The activations need more. Count them: for each token a
# block keeps, for its backward pass, two inputs of norms, two outputs of norms, q, k, v, the attended
# values, and the MLP's hidden layer, which is four times as wide, before GELU and after.

# %% name="activations"
kept = 2 + 2 + 3 + 1 + 2 * 4  # rows of D numbers for each token, in each block
image = 2 * kept * 768 * 197 * 12  # bytes, in bf16
print(f"{kept} rows; {image / 1e6:.0f} MB an image, {64 * image / 1e9:.1f} GB for 64")
room = (assumed.memory - bytes_held(1, "DDP")) / image
print(f"beside the model there is room for {room:.0f} images, at best")
largest = assumed.memory / 16 / 1e9
print(f"{largest:.0f} billion parameters, at 16 bytes, fill a GPU by themselves")


# %% name="activations-proof"
def saved(depth):
    """The bytes that torch keeps for the backward pass of one image, in float32."""
    torch.manual_seed(10)
    model = make_vit("B/16", depth=depth)
    own, found = {p.data_ptr() for p in model.parameters()}, {}

    def look(tensor):
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in own:
            found[memory.data_ptr()] = memory.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        model(torch.rand(1, 3, 224, 224))
    return sum(found.values())


block = saved(2) - saved(1)
assert abs(block / (4 * kept * 768 * 197) - 1) < 0.05
print("ok: torch keeps as much for a block, within 5 %")

# %% [markdown] name="rate-text"
# ## A larger batch needs another learning rate
#
# With n times as many images there are n times fewer steps. To get as far, each must be longer. The
# **linear rule** makes the learning rate n times as high: n steps that all see nearly the same gradient
# equal one step of n times the length. The **square-root rule** takes $\sqrt{n}$, which keeps the noise
# of a step the same, and is often used with Adam. Both are rules of thumb. Here the linear one meets
# the model with one weight: four steps on 3 images each, against one of four times the rate on all 12.

# %% name="linear-rule"
for rate in 0.001, 0.01, 0.1:
    w = 1.0
    for i in 0, 3, 6, 9:
        x_part, y_part = x[i : i + 3], y[i : i + 3]
        w = w - rate * (2 * (w * x_part - y_part) * x_part).mean().item()
    large = 1.0 - 4 * rate * each.mean().item()
    moved = f"four steps move w by {w - 1:.4f}, one large one by {large - 1:.4f}"
    print(f"rate {rate:<5}: {moved}")

# %% [markdown] name="noise-text"
# For short steps the rule holds. For long ones it does not: the gradient changes on the way.
#
# There is a second limit. A batch's gradient is an estimate of that of all images, and its squared error
# falls like 1/B. Once the error is smaller than the gradient itself, more images hardly change the
# direction. The batch at which both are equal is the **noise scale**, the sum of the variances over the
# squared length. For a linear model on the digits every image's gradient can be written down:

# %% name="noise"
pixels = digits.normalise(digits.images).flatten(1)  # (B, 64)
wanted = F.one_hot(digits.labels, 10)


def gradients_of_images(weight):
    wrong = (pixels @ weight).softmax(dim=1) - wanted  # (B, 10)
    return (pixels[:, :, None] * wrong[:, None, :]).flatten(1)  # (B, 640)


weight, scales = torch.zeros(64, 10), {}
for step in range(301):
    if step in (0, 10, 30, 100, 300):
        rows = gradients_of_images(weight)
        scales[step] = (rows.var(dim=0).sum() / rows.mean(dim=0).square().sum()).item()
    wrong = (pixels @ weight).softmax(dim=1) - wanted
    weight = weight - 0.1 * pixels.T @ wrong / len(pixels)
for step, scale in scales.items():
    print(f"after {step:>3} steps: noise scale {scale:>7.1f} images")

# %% name="noise-of-batches"
start = gradients_of_images(torch.zeros(64, 10))
truth = start.mean(dim=0)
torch.manual_seed(10)
for count in 4, 16, 64, 256:
    chosen = torch.randint(len(start), (400, count))  # 400 batches
    batches = torch.stack([start[c].mean(dim=0) for c in chosen])
    error = (batches - truth).square().sum(dim=1).mean() / truth.square().sum()
    print(f"batches of {count:>3}: squared error {error:.2f} of the squared gradient")
    assert abs(error * count / scales[0] - 1) < 0.2
print("ok: it is the noise scale over B, within 20 %")

# %% [markdown] name="noise-notes"
# At the start the images agree, and 40 of them tell where to go. Later they pull in different directions,
# and a larger batch pays. So there is no batch that is right for the whole training, and no rule that gives
# the learning rate: scale it, warm it up, and measure.
#
# ## On paper: ViT-B/16 on ImageNet-21k
#
# One GPU first. Every number follows from the assumptions.

# %% name="one-gpu"
work = assumed.images * assumed.epochs * flops
hours = work / (assumed.peak * assumed.used) / 3600
steps = assumed.images * assumed.epochs // assumed.batch
more = 768 * (assumed.classes - 1000) + assumed.classes - 1000  # a larger head
print(f"{work:.2e} operations, {steps:,} steps")
print(f"{hours:.1f} hours, {hours / 24:.1f} days, {hours * assumed.price:.0f} dollars")
print(f"model with its larger head, AdamW: {16 * (parameters + more) / 1e9:.2f} GB")
pieces = -(-assumed.batch // int(0.8 * room))
print(f"{assumed.batch} images fit in {pieces} pieces, with a fifth of memory spare")

# %% [markdown] name="thousand-text"
# Now 1000 GPUs. If all went well, it would take a thousandth of the hours and cost as much. Guess the
# speed-up before you run the cell. The batch is 4096 images; in the last row each GPU has 64. Sending
# begins when computing has ended: nothing is hidden.


# %% name="thousand"
def run_on(n, batch):
    """Of a step: ms of computing, and of sending. Of the whole training: hours."""
    computing = batch / n * flops / (assumed.peak * assumed.used)
    speed = assumed.nvlink if n <= 8 else assumed.infiniband
    sending = 2 * (n - 1) / n * 4 * (parameters + more) / speed
    steps = assumed.images * assumed.epochs / batch
    return 1000 * computing, 1000 * sending, steps * (computing + sending) / 3600


print(" GPUs   batch  images each  compute ms  send ms   hours  speed-up  dollars")
alone = run_on(1, 4096)[2]
for n, batch in (1, 4096), (8, 4096), (64, 4096), (1000, 4096), (1000, 64_000):
    computing, sending, hours = run_on(n, batch)
    row = f"{n:>5}{batch:>8}{batch / n:>13.1f}{computing:>12.1f}{sending:>9.1f}"
    row += f"{hours:>8.2f}{alone / hours:>10.1f}{n * hours * assumed.price:>9.0f}"
    print(row)

# %% name="speed-up"
counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
series = {
    "ideal": (counts, counts),
    "64 images each": (counts, [alone / run_on(n, 64 * n)[2] for n in counts]),
    "4096 in all": (counts, [alone / run_on(n, 4096)[2] for n in counts]),
}
picture = show.lines(series, x="GPUs", y="speed-up, nothing hidden", log="xy")
alt = "Up to 8 GPUs three lines nearly agree; beyond, 64 images each keep half of "
alt += "the ideal, and 4096 in all level off below 70"
show.figure(picture, alt=alt)

# %% [markdown] name="thousand-notes"
# **The batch is the limit.** With 4 images each, a GPU sends for fifteen times as long as it computes;
# hiding the one behind the other gains little. (So few images would not reach 40 % of the peak, either.)
# With 64 each nearly all sending could be hidden, but the global batch is 64,000. There are sixteen times
# fewer steps then, and whether they reach as far nobody can tell from paper.
#
# The formula leaves out that each of the ring's 2 · 999 rounds has to begin. Libraries therefore use
# trees, too, and add up inside a computer first.
#
# Two more things grow with n: the slowest GPU sets the pace, and some GPU fails.

# %% name="stragglers"
torch.manual_seed(10)
times = 1 + 0.05 * torch.randn(2000, 1000)  # of 2000 steps, on up to 1000 GPUs
print("GPUs   slowest of them   hours until one fails   a week without failure")
for n in 1, 8, 64, 1000:
    slowest = times[:, :n].max(dim=1).values.mean()
    week = torch.tensor(-168 * n / assumed.failure).exp()
    print(f"{n:>4}{slowest:>14.2f} x{assumed.failure / n:>21.1f}{week:>21.1%}")

# %% [markdown] name="failures-notes"
# Here each GPU's step takes 1 with a standard deviation of 5 %, which is assumed, too. A step takes as
# long as its slowest GPU: 1000 GPUs are slower by about a sixth, without any fault. And one failure
# stops all, since every process takes part in every exchange. A run of a week on 1000 GPUs gets through
# without one a few times in a hundred, and lives by its checkpoints. `torchrun` ends all
# processes when one has gone; `vitcourse train --resume` goes on.
#
# What was not assumed away: reading and decoding images, which must keep up with all GPUs.

# %% [markdown] name="remember"
# ## Remember
#
# - Data parallel: same start, each its share, the mean of the gradients, the same step. The weights equal
#   those of one process, up to rounding.
# - It holds for equal shares, a mean as loss, and no batch statistics. Otherwise weigh by shares.
# - A ring sends 2 (n - 1)/n times the gradients from each GPU, however many there are.
# - Sharding splits moments, gradients and weights; 16 bytes a parameter become 16/n.
# - Accumulation is the same sum, one part after the other. Divide.
# - The global batch limits how many GPUs help. Learning-rate rules are rules of thumb.
#
# Before: [09 fine-tuning](09-fine-tuning.ipynb). Next: [11 looking inside](11-looking-inside.ipynb).
#
# [Glossary](../docs/glossary.md).
