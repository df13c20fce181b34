# %% [markdown] name="title"
# # Against over-smoothing: patches that stay apart
#
# Gong et al. 2021, [Vision Transformers with Patch Diversification](https://arxiv.org/abs/2104.12753).
# Lesson [13 better training](../13-better-training.ipynb).
#
# **The question.** Attention averages, block after block. In a deep ViT, the patches of an image become
# more and more alike: over-smoothing. Little is left to tell one from another. What if training forbids
# it?
#
# **The change.** The model stays. To the loss of the class token come three losses on the patches of the
# last block.

# %% name="setup"
from functools import partial

import torch

from vitcourse import data, losses, papers, probe, show, train
from vitcourse.papers.oversmoothing import DiverseViT, paste, random_box, step

# %% [markdown] name="equation"
# ## The equation
#
# $h_i$ is patch $i$ after the last block, $h^1_i$ the same patch after the first, $N$ the number of
# patches; the class token is left out.
#
# $$L_\text{cos} = \frac{1}{N(N-1)} \sum_{i \ne j} \left|\cos(h_i, h_j)\right|$$
#
# $$L_\text{cons} = -\frac1N \sum_i \log
# \frac{e^{h^1_i \cdot h_i}}{e^{h^1_i \cdot h_i} + e^{h^1_i \cdot m_i}}, \qquad
# m_i = \frac{1}{N-1} \sum_{j \ne i} h_j$$
#
# $$L_\text{mix} = \frac1N \sum_i \text{CE}\left(W h_i, y_{s(i)}\right)$$
#
# For $L_\text{mix}$, a box of one image is pasted into another. $s(i)$ is the image that patch $i$ comes
# from, $y$ its label, $W$ a head for patches.

# %% [markdown] name="small-question"
# Three patches of width 2: the second is twice the first, the third points the other way. Which is the
# mean cosine of the three pairs, and which the mean absolute one?

# %% name="small"
patches = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]]])  # (B, N, D)
for absolute in (False, True):
    loss = losses.cosine_loss(patches, absolute)
    print(f"absolute={absolute}: {loss:.2f}")

# %% [markdown] name="small-answer"
# The pairs have 1, -1 and -1. The first version of the paper takes the cosine: two patches that point
# against each other are as good as it gets. The second takes the absolute value: such a pair says the
# same thing twice, and the best is a right angle.
#
# ## The difference
#
# The model is a ViT that returns what leaves its first and its last block, with a head for patches:

# %% name="difference"
print(papers.diff(DiverseViT))

# %% [markdown] name="difference-step"
# The losses belong to the training step. `train.fit` takes any `step(model, batch)`; each of the three
# can be switched off. Images are mixed by a box of patches, so that each patch has one source:

# %% name="box"
torch.manual_seed(4)
digits = data.load("digits")
one, other = digits.test_images[:1] / 255, digits.test_images[1:2] / 255
box = random_box((4, 4))  # patches
mixed = paste(one, other, box)
titles = ["one", "the other", "the box", "mixed"]
enlarged = box.float().repeat_interleave(2, 0).repeat_interleave(2, 1)
picture = show.images([one[0], other[0], enlarged, mixed[0]], titles)
alt = "Two digits, a box of patches, and the first digit with that box of the other"
show.figure(picture, alt)

# %% [markdown] name="proof"
# ## The proof
#
# There is no other implementation to compare with: the authors' published code differs from their
# formulas. So the tests compare each loss with its definition, written as loops, and check identities;
# 14 planted errors are noticed. Three of the identities:

# %% name="identity"
torch.manual_seed(0)
first, last = torch.randn(2, 2, 7, 40).double()  # each (B, N, D)
first.requires_grad_()
equal = last[:, :1].expand(-1, 7, -1)  # all patches of an image are one
assert torch.isclose(losses.cosine_loss(equal), torch.tensor(1.0).double())
print("ok: of equal patches, the cosine loss is 1")
log_two = torch.tensor(2.0).double().log()
assert torch.isclose(losses.consistency_loss(first, equal), log_two)
print("ok: where no patch stands out, the consistency loss is log 2")
losses.consistency_loss(first, last.requires_grad_()).backward()
assert first.grad is None and last.grad is not None
print("ok: it moves the last layer, never the first")

# %% [markdown] name="experiment"
# ## An experiment
#
# Digits, cut into 16 patches, and a ViT of 12 blocks of width 24. It is trained without the losses and
# with the cosine loss. How alike are the patches of an image, block by block?

# %% name="train" tags=["nbval-ignore-output"]
recipe = train.RECIPES["smoke"].but(model="Nano/2", epochs=5, evaluate_every=5)
images = digits.normalise(digits.test_images)
none = dict(cosine=0, consistency=0, mixing=None)
alike = {}
for name, cosine in {"plain": 0, "with the cosine loss": 1}.items():
    model = train.build_model(recipe, digits, DiverseViT, dim=24, depth=12)
    mine = partial(step, **none | {"cosine": cosine})
    run = train.fit(model, digits, recipe, mine, device="cpu", quiet=True)
    with torch.no_grad(), probe.record_tokens(run.model) as tokens:
        run.model(images)
    values = [probe.token_similarity(x[:, 1:]).mean().item() for x in tokens]
    alike[name] = range(1, 13), values
    print(f"{name:21} last block {values[-1]:.2f}, accuracy {run.accuracy:.2f}")
picture = show.lines(alike, "block", "mean cosine of two patches")
alt = "How alike the patches of an image are after each block, for both models"
show.figure(picture, alt)

# %% name="train-bound"
plain, apart = (values[-1] for _, values in alike.values())
assert plain > apart + 0.1
print("ok: after the last block, the loss keeps patches further apart")

# %% [markdown] name="recorded-text"
# Three seeds, ten epochs, and the other two losses. Each line is the difference to the control; for the
# mixing loss, the control is trained on mixed images, too, and only its patches are not asked:

# %% name="recorded"
record = show.recorded("claim-oversmoothing")
print(show.origin(record))
for name, figure in record["figures"].items():
    print(f"{name:32} {figure['mean']:.2f}")
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# The cosine loss does both with every seed: patches differ, and the model learns sooner. The other two
# show nothing of the kind here. With the mixing loss, patches are even more alike; a likely reason is
# that all patches from one image are asked for one label. The consistency loss may find little to do: a
# residual path keeps each patch near what it was, and products of long tokens are large.
#
# So the cosine loss helps a deep, narrow ViT over its first steps. You may not conclude that the other
# two are useless: neither longer training nor other weights were tried.

# %% [markdown] name="reported"
# ## What the authors report
#
# In their repository, a ViT of 12 blocks of the base size reaches 82.9 % on ImageNet, one of 24 blocks
# 83.3 %. The abstract of the paper's first version reports 85.0 % for their best model, without a further
# teacher.

# %% [markdown] name="remember"
# ## Remember
#
# - Over-smoothing is measured by the cosine of two patches; a loss can act on what is measured.
# - That patches differ is not yet that the model is right: look at both figures.
# - The consistency loss takes products, not cosines. Wide tokens give large numbers, and `softplus` is
#   the form of this loss that stands them.
# - The target is the **output** of the first block, held fixed. The class token takes no part.
# - The losses cost nothing when the model is used: they end with training.
