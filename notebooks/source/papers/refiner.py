# %% [markdown] name="title"
# # Refiner: attention maps as pictures
#
# Zhou et al. 2021,
# [Refiner: Refining Self-attention for Vision Transformers](https://arxiv.org/abs/2106.03714).
# Lesson [15 better attention](../15-better-attention.ipynb).
#
# **The question.** The maps of a deep ViT are alike from block to block, and from head to head. Can they be
# made better, at little cost?
#
# **The change.** The maps of one block are a picture: $T \times T$ pixels, a channel for each head. Treat
# it as such. Expand it to more channels, convolve each with a 3x3 kernel, and reduce it again.

# %% name="setup"
import inspect

import torch

from vitcourse import ViT, data, papers, show, train
from vitcourse.papers.refiner import Refine, RefinedAttention, Refiner, SharedAttention

# %% [markdown] name="equation"
# ## The equation
#
# $$A' = \text{BN}\left(A + W_{out} * \rho(D * \rho(W_{in} * A))\right), \qquad Y = A' V$$
#
# $A$ holds the maps of the $K$ heads. $W_{in}$ makes $3K$ of them: a convolution of 1x1. $D$ convolves each
# with a 3x3 kernel of its own. $W_{out}$ reduces to $K$. After each of the three stands a BatchNorm, and
# $\rho$ is ReLU6, cut at 0 and at 6.
#
# What does a convolution over a map do to the output? Take one head, four tokens, and a kernel that
# reaches along the keys only. Spread the map, then weigh the values; or weigh values that were averaged
# with their neighbours:

# %% name="small"
A = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]])  # (2 queries, 4 keys)
V = torch.tensor([[0.0], [8.0], [4.0], [0.0]])  # (4, 1)
kernel = torch.tensor([[[0.25, 0.5, 0.25]]])
spread = torch.conv1d(A[:, None], kernel, padding=1)[:, 0]
averaged = torch.conv1d(V.T[:, None], kernel, padding=1)[:, 0].T
print("map, spread:", spread.tolist())
print("spread map, values:  ", (spread @ V).flatten().tolist())
print("map, averaged values:", (A @ averaged).flatten().tolist())

# %% [markdown] name="small-answer"
# The two are equal: a local average of values, which attention then collects from far away. The authors
# call it distributed local attention. In their layer the kernel also reaches along the queries, and ReLU6
# stands between, so the two are no longer the same there.
#
# Token 5 and token 6 of a grid are neighbours in the map. So are the last token of a row and the first of
# the next, which are not neighbours in the image.
#
# ## The difference
#
# The layer, and what stands in the slots:

# %% name="difference"
print(inspect.getsource(Refine.forward))
for slot, part in papers.delta(Refiner).items():
    print(f"{slot} = {part.__name__}")

# %% [markdown] name="pairs-of-blocks"
# The paper refines the map of each block. The published models go another way. Their blocks come in
# pairs. The first makes a map with queries and keys, adds that of the pair before, divided by $\sqrt d$,
# and uses it as it is. The second has no queries and no keys: it refines the map of the first.

# %% name="shared"
print(inspect.getsource(SharedAttention.forward))
with torch.device("meta"):  # nothing is allocated
    model = papers.build("refiner_vit_s")
for i in (0, 1):
    count = sum(p.numel() for p in model.blocks[i].attn.parameters())
    print(f"block {i}: {type(model.blocks[i].attn).__name__:17} {count:,} parameters")
refine = model.blocks[1].attn.refine
print(f"of these, refining takes {sum(p.numel() for p in refine.parameters()):,}")

# %% [markdown] name="proof"
# ## The proof
#
# No package holds this model. The counts of the three published sizes are the authors' to the last
# number, the names in their files fit, and the tests compute each step of the layer once more with plain
# sums. Seven planted errors are noticed. One identity here: where the convolutions add zero and no map
# came before, attention remains.

# %% name="identity"
torch.manual_seed(0)
layer = RefinedAttention(40, 5).double().eval()  # dim, heads
plain = ViT.Attention(40, 5).double()
plain.load_state_dict(layer.state_dict(), strict=False)
torch.nn.init.zeros_(layer.refine.norm3.weight)
layer.refine.norm4 = torch.nn.Identity()
x = torch.randn(2, 7, 40).double()  # (B, T, D)
assert torch.allclose(layer(x)[0], plain(x))
print("ok: with nothing added to its maps, it is attention")

# %% [markdown] name="experiment"
# ## An experiment
#
# Digits, cut into 16 patches, and eight narrow blocks in the paper's form: each refines its own map. After
# eight epochs, look at one head of the fourth block, before and after it is refined. The first row and the
# first column belong to the class token. What is refined is a softmax and a part of the map before it,
# refined already: so it has negative weights, too.

# %% name="train" tags=["nbval-ignore-output"]
digits = data.load("digits")
stem = type("SmallStem", (Refiner.Tokenizer,), {"widths": (16, 16, 16)})
attention = {"Attention": RefinedAttention, "Second": RefinedAttention}
own = Refiner.variant(Tokenizer=stem, **attention)
recipe = train.RECIPES["smoke"].but(model="Nano/2", epochs=8, evaluate_every=8)
model = train.build_model(recipe, digits, own, dim=24, depth=8)
run = train.fit(model, digits, recipe, device="cpu", quiet=True)
kept = []
layer = run.model.blocks[3].attn.refine
hook = layer.register_forward_hook(lambda _, given, made: kept.extend([*given, made]))
with torch.no_grad():
    run.model(digits.normalise(digits.test_images[:100]))
hook.remove()
before, after = (maps.mean(0)[0] for maps in kept)  # (T, T), mean of 100 digits, head 0
low, high = after.min(), after.max()
print(f"accuracy {run.accuracy:.2f}, weights from {low:.1f} to {high:.1f}")
figure = show.heatmaps([before, after], ["before", "after"], columns=2, size=3)
show.figure(figure, "The map of one head before and after it is refined")

# %% name="train-bound"
assert run.accuracy > 0.3
rows = after.sum(-1)
assert (rows - rows.mean()).abs().max() > 1e-3
print("ok: it has learned, and the rows of a refined map sum to different numbers")

# %% [markdown] name="recorded-text"
# Does refining help? With three seeds, against the same model whose convolutions add zero for good. The
# BatchNorm of the maps and the passing on of maps stay:

# %% name="recorded"
record = show.recorded("claim-refiner")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# A negative result, twice. With every seed the refined model is less accurate, with one of them by far;
# and its heads are less alike with two seeds of three. In so few steps refining slows the model down.
# Whether it helps a large model that is trained for long, this experiment does not tell. Nor does it
# test the published pairs of blocks.
#
# ## What the authors report
#
# On ImageNet at 224 x 224, Refiner-ViT-S reaches 83.6 %, M 84.6 % and L 84.9 %; L at 448 x 448 reaches
# 86.0 %. They have 25, 55 and 81 million parameters. These models were trained with token labels and
# MixToken, as [LV-ViT](lv_vit.ipynb) was, which has 83.3 % and 84.0 % with 26 and 56 million.

# %% [markdown] name="remember"
# ## Remember
#
# - Refining stands **after** the softmax. Weights may be negative, and rows need not sum to one.
# - The published models refine in every second block, and those have no queries and keys.
# - The authors' program takes a ratio of heads for size S; its shared blocks do not read it, and use 3.
# - Maps are kept from block to block, so the fused kernel cannot be used: memory grows with $T^2$, and
#   with $3K$ maps in the middle.
# - Neighbours in the map are neighbours in the sequence, not always in the image.
