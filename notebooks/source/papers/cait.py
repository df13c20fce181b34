# %% [markdown] name="title"
# # CaiT: going deeper
#
# Touvron et al. 2021, [Going deeper with Image Transformers](https://arxiv.org/abs/2103.17239).
# Lesson [15 better attention](../15-better-attention.ipynb).
#
# **The question.** What keeps a ViT of 24 or 36 blocks from learning? And should one and the same block
# let patches exchange what they know, and collect it for the class?
#
# **The change.** Three, and each can be used alone. *LayerScale*: each branch begins near zero. *Talking
# heads*: the heads are mixed, before and after the softmax. *Class attention*: the class token joins
# after the last block of the patches, and reads them in two blocks of its own.

# %% name="setup"
import torch

from vitcourse import ViT, data, papers, probe, show, train
from vitcourse.papers.cait import CaiT, ClassAttention, LayerScaleViT
from vitcourse.parts import LayerScale

# %% [markdown] name="equation"
# ## The equation
#
# LayerScale, with two learned vectors $\gamma$, $\gamma'$ of length $D$ in each block:
#
# $$x \leftarrow x + \gamma \odot \text{Attention}(\text{LN}\,x), \qquad
# x \leftarrow x + \gamma' \odot \text{MLP}(\text{LN}\,x)$$
#
# Talking heads, with two learned matrices $A$, $A'$ of size $K \times K$ that mix the heads:
#
# $$A'\,\text{softmax}\left(A\,\frac{QK^\top}{\sqrt d}\right) V$$
#
# Class attention, with $u = [c; x]$, the class token $c$ before the patches $x$. Only $c$ asks, and only
# $c$ changes:
#
# $$c \leftarrow c + \gamma \odot \text{Attention}(q = \text{LN}\,c,\; kv = \text{LN}\,u), \qquad
# c \leftarrow c + \gamma' \odot \text{MLP}(\text{LN}\,c)$$

# %% [markdown] name="small-question"
# In the paper, $\gamma$ begins at 0.1 up to 18 blocks, at $10^{-5}$ up to 24, at $10^{-6}$ beyond. A
# token of two numbers, and a branch that answers 3 and -2: what does a new block of 24 give?

# %% name="small"
x, branch = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])
for init in (1.0, 0.1, 1e-5):
    with torch.no_grad():
        after = x + LayerScale(2, init)(branch)
    print(f"{init:<6g}", [round(value, 5) for value in after.tolist()])

# %% [markdown] name="small-answer"
# Almost what came in: a new block does nothing, and so do 24. Each channel of each branch then grows as
# far as it helps.
#
# ## The difference
#
# Two slots of the ViT, and two of its methods. The lines that differ:

# %% name="difference"
print(papers.diff(CaiT))

# %% [markdown] name="difference-class"
# `class_block` makes the blocks at the end. Their attention is the plain one, from which one query is
# kept:

# %% name="class-attention"
layer = ClassAttention(40, 5)  # dim, heads
q, k, v = layer.project(torch.randn(2, 7, 40), None)
print("queries", tuple(q.shape), "keys", tuple(k.shape), "(B, K, T, d)")
print("result ", tuple(layer(torch.randn(2, 7, 40)).shape))

# %% [markdown] name="proof"
# ## The proof
#
# The tests compare the whole model, its stages and all gradients with code that others wrote, and count
# six configurations; 11 planted errors are noticed. Two of the identities: LayerScale at one is a ViT, and
# the class token leaves the patches as they are.

# %% name="identity"
torch.manual_seed(0)
digits = data.load("digits")
images = digits.normalise(digits.test_images)
recipe = train.RECIPES["smoke"].but(model="Nano/2")
scaled = train.build_model(recipe, digits, LayerScaleViT.variant(scale_init=1.0))
plain = train.build_model(recipe, digits, ViT)
plain.load_state_dict(scaled.state_dict(), strict=False)
tokens = [model.encode(images[:5])[0] for model in (scaled, plain)]
assert torch.allclose(*tokens, atol=1e-5)
print("ok: LayerScale at one is a ViT")

cait = train.build_model(recipe, digits, CaiT)
tokens, _ = cait.encode(images[:5])
own = torch.autograd.grad(tokens[:, 0, 0].sum(), cait.prefix, retain_graph=True)[0]
patches = torch.autograd.grad(tokens[:, 1:, 0].sum(), cait.prefix)[0]
assert own.any() and not patches.any()
print("ok: the class token reads the patches, and they never read it")

# %% [markdown] name="bias-question"
# One trap is in the published weights. The mixture before the softmax has a bias: one number for each
# head, the same for all keys. What does it do?

# %% name="bias"
attn = cait.blocks[0].attn
x = torch.randn(2, 16, 48)
with torch.no_grad():
    before = attn(x)
    attn.mix_scores.bias.add_(torch.tensor([5.0, -3.0, 1.0]))
    assert torch.allclose(attn(x), before, atol=1e-6)
print("ok: nothing, for a softmax ignores what all scores share")

# %% [markdown] name="experiment"
# ## An experiment
#
# Digits, cut into 16 patches, and 24 blocks of width 24: a plain ViT, and one with LayerScale. Both
# train for 66 steps. That is too few to compare what they know. It is enough to see what becomes of the
# patches: how alike are those of one image, after each block?

# %% name="train" tags=["nbval-ignore-output"]
recipe = recipe.but(epochs=3, batch=64, evaluate_every=3)
alike = {}
for name, cls in {"plain": ViT, "LayerScale": LayerScaleViT}.items():
    model = train.build_model(recipe, digits, cls, dim=24, depth=24)
    run = train.fit(model, digits, recipe, device="cpu", quiet=True)
    with torch.no_grad(), probe.record_tokens(run.model) as tokens:
        run.model(images)
    values = [probe.token_similarity(x[:, 1:]).mean().item() for x in tokens]
    alike[name] = range(1, 25), values
    print(f"{name:11} last block {values[-1]:.2f}")
picture = show.lines(alike, "block", "mean cosine of two patches")
alt = "How alike the patches of an image are after each block, for both models"
show.figure(picture, alt)

# %% name="train-bound"
plain, scaled = (values[-1] for _, values in alike.values())
assert plain > 0.3 > scaled + 0.1
print("ok: the plain ViT makes patches alike, LayerScale keeps them apart")

# %% [markdown] name="recorded-text"
# Three seeds, and twice the steps. Talking heads and class attention are each added to the model with
# LayerScale, and compared with it. With class attention, the last two of the 24 blocks are class blocks:

# %% name="recorded"
record = show.recorded("claim-cait")
print(show.origin(record))
for name, figure in record["figures"].items():
    print(f"{name:32} {figure['mean']:.2f}")
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# With LayerScale, 24 blocks learn sooner and keep patches apart, with every seed. Class attention goes
# both ways: no result. Talking heads are worse with every seed. One possible reason: their mixtures begin
# as random numbers, and each head must first learn what to take.
#
# A first run with half the steps was set aside, since the plain ViT and the one with LayerScale were
# still near chance. There, class attention was ahead with every seed, and LayerScale with one of three.
# So the order of these models depends on how long they train. You may conclude that LayerScale helps a
# deep, narrow ViT to begin; not that the other two do not help in the end.

# %% [markdown] name="reported"
# ## What the authors report
#
# On ImageNet, CaiT-S24 with 47 million parameters reaches 83.5 % at 224 x 224, and the
# largest, M48, 86.5 % at 448 x 448. Both are trained with a teacher.

# %% [markdown] name="remember"
# ## Remember
#
# - LayerScale begins so near zero that a new block is almost the identity. How near depends on the depth
#   of the whole model.
# - The class token comes late: it has no position, and the patches never read it. So patches work for
#   each other, and two blocks collect.
# - There is one query in class attention: its map is $1 \times T$, and its cost grows with $T$, not with
#   $T^2$.
# - Talking heads need the whole map, so the patches' blocks cannot use the fused kernel.
# - All blocks drop paths at one rate. In the ViT, it rises with the depth.
