# %% [markdown] name="title"
# # DeepViT: maps that stay apart
#
# Zhou et al. 2021, [DeepViT: Towards Deeper Vision Transformer](https://arxiv.org/abs/2103.11886).
# Lesson [15 better attention](../15-better-attention.ipynb).
#
# **The question.** A ViT gets better with more blocks, but soon hardly any more. Why? The authors look
# at the attention maps: in deep blocks, each is almost the one before. A block that looks where the
# block before has looked adds little.
#
# **The change.** The heads of one block still differ. So make new maps out of them: each head gets a
# learned mixture of all heads' maps.

# %% name="setup"
import torch
import torch.nn.functional as F

from vitcourse import ViT, data, papers, probe, show, train
from vitcourse.papers.deepvit import DeepViT, ReAttention

# %% [markdown] name="equation"
# ## The equation
#
# $$\text{Re-Attention}(Q, K, V) = \text{Norm}\left(\Theta^\top
# \text{softmax}\left(\frac{QK^\top}{\sqrt d}\right)\right) V$$
#
# $\Theta$ is a $K \times K$ matrix. For each pair of tokens it mixes the $K$ numbers that the heads have
# for that pair. The norm acts on the mixed maps: BatchNorm in the published models, one mean and one
# variance for each head.
#
# Three tokens, two heads, and a mixture by hand. The second new head is the first old one minus the
# second. Do its rows sum to one?

# %% name="small"
maps = torch.tensor(
    [[[0.8, 0.1, 0.1], [0.2, 0.6, 0.2]], [[0.4, 0.4, 0.2], [0.5, 0.4, 0.1]]]
)  # (K, 2 queries, T)
theta = torch.tensor([[1.0, 1.0], [0.0, -1.0]])  # (old head, new head)
mixed = torch.einsum("kqt,kj->jqt", maps, theta)
print("new head 2:", [[round(x, 1) for x in row] for row in mixed[1].tolist()])
print("its rows sum to", [round(x, 1) + 0.0 for x in mixed[1].sum(-1).tolist()])

# %% [markdown] name="small-answer"
# They sum to zero, and some weights are negative. A mixed map no longer says how an average is made. It
# can say: more of this token than the other head takes, and less of that.
#
# ## The difference
#
# One slot of the ViT is filled with another class. The lines that differ:

# %% name="difference"
print(papers.diff(DeepViT))

# %% [markdown] name="cost"
# What does that cost? In each block a matrix of $K \times K$ numbers and $K$ biases, and the scale and
# shift of the norm.

# %% name="count"
sizes = papers.configs()["deepvit_16"].sizes
with torch.device("meta"):  # nothing is allocated
    models = {"ViT": ViT(sizes), "DeepViT-16": papers.build("deepvit_16")}
counts = {n: sum(p.numel() for p in model.parameters()) for n, model in models.items()}
for name, count in counts.items():
    print(f"{name:11} {count:,} parameters")
K, L = sizes.heads, sizes.depth
assert counts["DeepViT-16"] - counts["ViT"] == L * (K * K + K + 2 * K)
print(f"ok: {L} blocks, each K*K + K numbers for the mixture and 2*K for the norm")

# %% [markdown] name="proof"
# ## The proof
#
# Where the mixture is the identity and the norm is left out, attention must remain. The tests show this
# for a whole model, compare the layer with code that others wrote, and count all configurations; nine
# planted errors are noticed. Here is the first identity:

# %% name="identity"
torch.manual_seed(0)
layer = ReAttention(40, 5).double().eval()  # dim, heads
plain = ViT.Attention(40, 5).double()
plain.load_state_dict(layer.state_dict(), strict=False)
with torch.no_grad():
    layer.mix.weight.copy_(torch.eye(5)[..., None, None])
    layer.mix.bias.zero_()
layer.norm = torch.nn.Identity()
x = torch.randn(2, 7, 40).double()  # (B, T, D)
assert torch.allclose(layer(x), plain(x))
print("ok: with the identity as mixture, re-attention is attention")

# %% [markdown] name="experiment"
# ## An experiment
#
# Digits, cut into 16 patches. The same deep and narrow ViT, 12 blocks of width 24, with attention and
# with re-attention. Both train for the same 12 epochs. How alike are the maps of neighbouring blocks?

# %% name="train" tags=["nbval-ignore-output"]
digits = data.load("digits")
recipe = train.RECIPES["smoke"].but(model="Nano/2", epochs=12, evaluate_every=12)
images = digits.normalise(digits.test_images)
accuracy, unlike = {}, {}
for name, cls in {"attention": ViT, "re-attention": DeepViT}.items():
    model = train.build_model(recipe, digits, cls, dim=24, depth=12)
    run = train.fit(model, digits, recipe, device="cpu", quiet=True)
    with torch.no_grad(), probe.record_attention(run.model) as maps:
        run.model(images)
    maps = [(m - m.mean(-1, keepdim=True)).flatten(2) for m in maps]  # (B, K, T*T)
    accuracy[name] = run.accuracy
    pairs = zip(maps, maps[1:], strict=False)  # a block and the next
    cosines = [F.cosine_similarity(a, b, dim=-1).mean().item() for a, b in pairs]
    unlike[name] = range(2, 13), [1 - cosine for cosine in cosines]
    print(f"{name:13} accuracy {accuracy[name]:.2f}")
picture = show.lines(unlike, "block", "how unlike the block before")
alt = "How unlike the maps of each block are to those before, for both, over the depth"
show.figure(picture, alt)

# %% name="train-bound"
assert min(accuracy.values()) > 0.5
print("ok: both have learned")

# %% [markdown] name="recorded-text"
# One run says little. The same with three seeds, each time re-attention minus attention:

# %% name="recorded"
record = show.recorded("claim-deepvit")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# On this task, re-attention learns faster with every seed. That its maps differ more from block to block
# is not so with every seed: our plain ViT of 12 narrow blocks does not suffer from the collapse that the
# authors describe. So what helps here may be the mixing, or the norm, or both. This experiment cannot
# tell.
#
# ## What the authors report
#
# On ImageNet at 224 x 224, DeepViT-16 reaches 82.3 % and DeepViT-32 83.1 %, with 24.5 and 48.1 million
# parameters. A ViT with 16 blocks and their first recipe has 78.9 %.

# %% [markdown] name="remember"
# ## Remember
#
# - Re-attention mixes the maps of the heads **after** the softmax. The mixed weights may be negative.
# - Its BatchNorm measures in training what it uses in evaluation, so it has statistics to be saved.
# - It needs the whole map, so the fused kernel cannot be used: memory grows with the square of the
#   tokens.
