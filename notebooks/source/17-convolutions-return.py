# %% [markdown] name="title"
# # 17 · Convolutions return
#
# You have 60 handwritten digits to learn from. Beside a plain ViT, there are four that have convolutions:
#
# - A, CvT: queries, keys and values come out of convolutions.
# - B, CeiT: neighbours mix inside the MLP.
# - C, LeViT: convolutions and attention shrink the map.
# - D, BotNet: a CNN keeps its convolutions, only the last ones become attention.
#
# Put the four in order. Then move the test digits by one pixel, as no digit lay in training: which of the
# four does not care? Write both down. **What did the ViT lose when it gave up convolutions, and what of it is
# worth taking back?**

# %% name="setup"
import torch
from torch import nn

from vitcourse import ViT, check, data, papers, probe, show, vit
from vitcourse.papers import compare

# %% [markdown] name="lost"
# ## What was lost
#
# Lesson 12 had the first two of these, for a convolution by itself.
#
# | a convolution | a ViT | taken back by |
# |---|---|---|
# | reads what is near | reads everything alike | CeiT |
# | does the same at every place | adds a row of a table to each place | CvT |
# | shrinks the map step by step, cheaply | cuts once, keeps all tokens | LeViT, CvT |
# | weighs by offset: left is not right | compares tokens | BotNet; LeViT by distance |
#
# ## Near: CeiT
#
# The MLP of a block treats each token by itself. **LeFF**, the locally enhanced feed-forward network, lets
# a token's neighbours in. Five patches in a row hold one number each; a class token, 9, stands in front.
# The kernel has the weights 1, 2, 1, and zeros lie beyond both ends. Two ways to use it:


# %% name="row"
def convolved(row):
    before, after = [0, *row[:-1]], [*row[1:], 0]
    return [a + 2 * b + c for a, b, c in zip(before, row, after, strict=True)]


token, patches = 9, [0, 0, 4, 0, 0]
print("before            ", [token, *patches])
print("patches convolved ", [token, *convolved(patches)])
print("sequence convolved", convolved([token, *patches]))

# %% [markdown] name="leff-text"
# The last line is an error: the class token is no neighbour of the first patch. (And with rows of patches,
# the end of one row is no neighbour of the next one's beginning.) So the patches are laid out as a map, and
# the class token goes around. With $D$ a 3x3 kernel for each channel by itself:
#
# $$\text{LeFF}(x) = W_2 * \rho\left(D * \rho\left(W_1 * x\right)\right), \qquad \rho = \text{GELU}$$
#
# and a BatchNorm behind each of the three. One article has it that CeiT *replaces* the feed-forward network
# by a depthwise convolution. What would that be like? A gradient tells on which places, and on which
# channels, one number of the result depends. ("Near": how much of it lies in the 3x3 places around, which
# are 14 % of all.) Then look at the LeFF of the published CeiT-T.

# %% name="reads"
from vitcourse.papers.ceit import LeFF
from vitcourse.papers.cvt import ConvAttention
from vitcourse.parts import join, split

torch.manual_seed(0)
D, grid, middle = 12, (7, 9), 3 * 9 + 4
conv = nn.Conv2d(D, D, 3, padding=1, groups=D)  # each channel by itself


def depthwise(x, grid):
    prefix, map = split(x, grid)  # (B, R, D), (B, D, h, w)
    return join(prefix, conv(map))  # (B, T, D)


layers = {"MLP": vit.Mlp(D, 48), "depthwise convolution": depthwise}
layers |= {"LeFF": LeFF(D, 48).eval(), "attention": vit.Attention(D, 3)}
layers["attention of CvT"] = ConvAttention(D, 3).eval()
for name, layer in layers.items():
    x = torch.randn(32, 63, D, requires_grad=True)  # (B, N, D), without class token
    layer(x, grid)[:, middle, 0].sum().backward()
    read = x.grad.abs().mean(dim=0)  # (N, D)
    places, channels = ((read.sum(dim=axis) > 0).sum() for axis in (1, 0))
    around = read.sum(dim=1).view(grid)[2:5, 3:6].sum() / read.sum()
    print(f"{name:22}{places:3} places {channels:3} channels, near: {around:.0%}")

# %% name="leff-counts"
with torch.device("meta"):  # nothing is allocated
    ceit = papers.build("ceit_t").eval()
leff = ceit.blocks[0].mlp
total = sum(p.numel() for p in leff.parameters())
for layer in (leff.conv1, leff.conv2, leff.conv3):
    channels, side = layer.weight.shape[1:3]
    count = sum(p.numel() for p in layer.parameters())
    print(f"{side}x{side}, each channel reads {channels:>3}:", end=" ")
    print(f"{count:>7,} numbers, {count / total:.1%}")
slots = papers.delta(type(ceit))
print("slots:", {slot: part.__name__ for slot, part in slots.items()})

# %% [markdown] name="ceit-more"
# A depthwise convolution alone mixes no channels. The two pointwise layers stay; what is new is 2.5 % of the
# numbers. The line "attention of CvT" is for later: it has convolutions, and is no more local than any other.
#
# The slot `Tokenizer` holds a stem: a convolution and a max pooling make the image four times smaller before
# it is cut. A third change is no slot: one more block, in which the last class token asks the class tokens
# of all layers (**LCA**). [CeiT's notebook](papers/ceit.ipynb) has all three.
#
# ## The same everywhere: CvT
#
# CvT puts convolutions *before* attention. With $D_q, D_k, D_v$ depthwise, the last two with stride 2:
#
# $$q = W_q\,\text{BN}(D_q * x), \qquad k = W_k\,\text{BN}(D_k * x), \qquad v = W_v\,\text{BN}(D_v * x)$$
#
# The stride, on a map of 4 x 6 numbers, with two kernels:

# %% name="keys-small"
numbers = torch.arange(24.0).view(1, 1, 4, 6)
pick = torch.zeros(1, 1, 3, 3)
pick[..., 1, 1] = 1
print(*numbers[0, 0].int().tolist(), sep="\n")
kernels = {"one in the middle": pick, "nine ones": torch.ones(1, 1, 3, 3)}
for name, kernel in kernels.items():
    keys = nn.functional.conv2d(numbers, kernel, stride=2, padding=1)
    print(f"{name}:", *keys[0, 0].int().tolist())

# %% [markdown] name="card-keys"
# One key for four tokens; it stands at every second row and column, and sums what is around.
#
# ### Exercise: keys from a convolution
#
# 12 minutes · difficulty 2 of 3
#
# A module `ConvKeys(dim, stride)` with `conv`, a 3x3 convolution of each channel by itself, padding 1, no
# bias; `norm`, a BatchNorm2d; `linear`, from dim to dim, with bias. x (B, T, D), grid (h, w) come in. The
# last h·w tokens pass conv and norm as a map. Then all tokens, those in front too, pass the Linear:
# (B, S, D), where S counts what is left.
#
# A hint: `check.hint("conv_keys")`. The solution: `check.solution("conv_keys")`.


# %% name="stub-keys" tags=["exercise"]
class ConvKeys(nn.Module):
    def __init__(self, dim, stride):
        super().__init__()
        ...

    def forward(self, x, grid): ...


# %% name="check-keys" tags=["check"]
check.conv_keys(ConvKeys)

# %% [markdown] name="stages-text"
# CvT is a pyramid, as PVT, Swin and Twins of lesson 16: three stages, each with tokens made by a convolution
# whose windows overlap. Predict what the stride saves. The cell then counts for each stage: places, keys, scores
# of one head, and what they would be if each token were a key. (The class token enters in the last stage.)

# %% name="stages"
question = "scores of the head in the first block of CvT-13, at 224 x 224"
check.predict(question, ...)
with torch.device("meta"):
    cvt = papers.build("cvt_13").eval()
    with probe.record_attention(cvt) as maps:
        features = cvt.features(torch.empty(1, 3, 224, 224))
first = 0
for stage, map in zip(cvt.stages, features, strict=True):
    _, K, T, S = maps[first].shape
    first += len(stage.blocks)
    h, w = map.shape[2:]
    print(f"{len(stage.blocks):2} blocks, map {h} x {w}, {T} queries,", end=" ")
    print(f"{S} keys: {T * S:,} scores, not {T * T:,}")

# %% [markdown] name="moves-text"
# CvT has no positions. So is it equivariant: if the image moves, do its maps move along? It has three maps,
# of one token for 4, 8 and 16 pixels. Four networks with new weights and images of 64 x 64 pixels, moved
# down and to the right by 1, 4, 8, 16 and 32 pixels; what leaves on one side comes in on the other. The
# last one has its convolutions on a **ring**: beyond the border they read the other side, not zeros.
#
# Which entries will be "yes"?


# %% name="moves"
from vitcourse.papers.cvt import CvT
from vitcourse.parts import NoPosition
from vitcourse.pyramid import PyramidConfig


def maps_of(model):
    return lambda images: [split(*model.encode(images))[1]]


torch.manual_seed(0)
plain = vit.Config(16, depth=2, heads=4, patch=4, image=64)
sizes = PyramidConfig((8, 12, 16), (1,) * 3, (2, 3, 4), (4, 2, 2), (2.0,) * 3, image=64)
published, ring = CvT(sizes).eval(), CvT(sizes).eval()
for layer in ring.modules():
    if isinstance(layer, nn.Conv2d):
        layer.padding_mode = "circular"
networks = {"ViT": maps_of(ViT(plain).eval())}
networks["ViT, no table"] = maps_of(ViT.variant(Position=NoPosition)(plain).eval())
networks |= {"CvT": published.features, "CvT on a ring": ring.features}

# %% name="moves-table"
image = torch.rand(1, 3, 64, 64)
blank = torch.full((1, 3, 64, 64), 0.5)


@torch.no_grad()
def moves_along(features, stage, by):
    before = features(image)[stage]
    after = features(image.roll((by, by), (2, 3)))[stage]
    by = by // (64 // before.shape[2])  # places of the map
    apart = (after - before.roll((by, by), (2, 3))).abs().max()
    return "yes" if apart < 1e-5 * before.abs().max() else "no"


moves = 1, 4, 8, 16, 32
print(f"{'moved by':22}", *(f"{by:>4}" for by in moves), "  kinds")
for name, features in networks.items():
    for stage, map in enumerate(features(blank)):
        along = [moves_along(features, stage, by) for by in moves]
        tokens, side = map[0].flatten(1).mT, map.shape[2]  # (N, D)
        alike = (tokens[:, None] - tokens).abs().amax(dim=-1) < 1e-4  # (N, N)
        kinds = sum(not row[:n].any() for n, row in enumerate(alike))
        label = f"{name}, {side} x {side}"
        print(f"{label:22}", *(f"{answer:>4}" for answer in along), f"{kinds:>8}")

# %% [markdown] name="moves-answer"
# (The last column: how many kinds of token a blank image gives.)
#
# - A ViT with a table: never. Without one: for moves by whole patches.
# - CvT on the ring: each stage needs twice its own step, as keys and values take every second place.
# - CvT as published: never. The zeros beyond its border make nine kinds of token from a blank image:
#   corners, sides, inside. They break equivariance, and tell places, as the PEG of lesson 14 does.
#
# So "CvT has no positions" is half of the truth: it has none that are learned. Does that suffice? The record
# of [its notebook](papers/cvt.ipynb): digits, three seeds, a ViT and one with CvT's convolutions, each with
# a table and without.

# %% name="cvt-record"
record = show.recorded("claim-cvt")
figures = record["figures"]
print(show.origin(record))
for name in ("ViT", "CvT"):
    table, none = (figures[f"{name}, {which}"]["mean"] for which in ("table", "none"))
    print(f"{name}: {table:.3f} with a table, {none:.3f} without")
for text, pair in record["pairs"].items():
    print("holds:   " if pair["holds"] else "negative:", text)

# %% [markdown] name="levit-text"
# ## Cheaper step by step: LeViT
#
# (Without a table, the ViT loses half of what it reads, CvT next to nothing.)
#
# LeViT is built for speed. In front stand small convolutions, each halves the image. Attention shrinks the
# map twice more. At the end, no norm is left.
#
# One article: LeViT replaces *all linear maps* by convolutions. How many layers of LeViT-128S have a
# learned kernel that reads more than one place?

# %% name="levit-kinds"
from vitcourse.papers import levit

question = "layers of LeViT-128S that read more than one place with learned kernels"
check.predict(question, ...)
with torch.device("meta"):
    small = papers.build("levit_128s").eval()
kinds = [type(layer).__name__ for layer in small.modules()]
for kind in ("Conv2d", "Linear", "BatchNorm2d", "BatchNorm1d", "LayerNorm"):
    print(f"{kinds.count(kind):>3} {kind}")

linear, pointwise = nn.Linear(6, 4, bias=False), nn.Conv2d(6, 4, 1, bias=False)
pointwise.load_state_dict({"weight": linear.weight[:, :, None, None]})
map = torch.randn(2, 6, 3, 5)  # (B, C, h, w)
tokens = map.flatten(2).mT  # (B, N, C)
assert torch.allclose(linear(tokens), pointwise(map).flatten(2).mT, atol=1e-6)
print("ok: a 1x1 convolution on a map is a Linear on its tokens")

# %% [markdown] name="stem-text"
# Four, all in the stem. The rest are Linears, each with a BatchNorm. One may write them as 1x1 convolutions,
# and some programs do; it is the same function.
#
# Why four small convolutions in place of one cut? Count operations (multiplications, each with its addition):
# of the stem, layer by layer; of a stem whose layers have 128 channels from the first on; of a patch
# embedding that makes as many tokens, 14 x 14 of width 128. Then of the whole, beside a ViT.

# %% name="stem"
from torch.utils.flop_counter import FlopCounterMode


def operations(layer, images):
    with FlopCounterMode(display=False) as counter:
        out = layer(images)
    return counter.get_total_flops() / 2e6, out


with torch.device("meta"):
    x = images = torch.empty(1, 3, 224, 224)
    for layer in small.patch_embed.proj:
        millions, x = operations(layer, x)
        if millions:
            print(f"stem, to {str(tuple(x.shape[1:])):16}{millions:>8.1f} M")
    wide = [nn.Conv2d(c, 128, 3, stride=2, padding=1) for c in (3, 128, 128, 128)]
    others = {"all of it 128 wide": nn.Sequential(*wide)}
    others |= {"one cut": vit.PatchEmbed(3, 128, patch=16)}
    others |= {"LeViT-128S": small, "ViT-Ti/16": vit.make_vit("Ti/16").eval()}
    for name, layer in others.items():
        count = sum(p.numel() for p in layer.parameters())
        millions, _ = operations(layer, images)
        print(f"{name:25}{millions:>8.1f} M {count:>12,} parameters")

# %% [markdown] name="shrink-text"
# The stem costs more than a cut, but little, for its first layers are narrow: where the map is large, the
# channels are few. A LeViT-128S has more parameters than a ViT-Ti and takes a quarter of the operations. Its
# map shrinks on: 14 x 14, 7 x 7, 4 x 4.
#
# It shrinks in attention. All places are keys; only every second one of each side asks. And the scores get
# a number for each head and each **distance**:
#
# $$a_{qk} = \text{softmax}_k\left(\frac{q_q \cdot k_k}{\sqrt{d}} + B_{|y_q - y_k|,\,|x_q - x_k|}\right),
# \qquad y_q, x_q \in \{0, 2, 4, \dots\}$$
#
# The cell counts the scores of LeViT-128S. Then a map of 3 x 4 places, where four ask: number the entries of
# the table $B$ from 0 to 11, row by row. The pictures show which of them each key gets.

# %% name="distance-figure"
with torch.device("meta"), probe.record_attention(small) as maps:
    small(images)
for K, T, N in dict.fromkeys(tuple(weights.shape[1:]) for weights in maps):
    print(f"{K:>2} heads, {T:>3} ask, {N:>3} are asked: {T * N:>6,} scores a head")
offset = levit.distances((3, 4), width=4, step=2)  # (T, N)
titles = [f"asks: row {y}, column {x}" for y in (0, 2) for x in (0, 2)]
drawing = show.heatmaps(offset.view(4, 3, 4), titles, columns=4, size=1.9, numbers=True)
alt = (
    "Four maps of 3 x 4 places, one for each place that asks, in rows 0 and 2 and "
    "columns 0 and 2. The asking place itself has number 0, its neighbours to the left "
    "and right have 1, those above and below 4."
)
show.figure(drawing, alt)

# %% [markdown] name="fuse-text"
# ### A norm that vanishes
#
# A LayerNorm computes a mean and a variance for each token. A BatchNorm, once trained, has fixed numbers:
#
# $$\text{BN}(y) = \gamma \frac{y - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta$$
#
# Nearly all of LeViT's BatchNorms stand behind a Linear. Two outputs, by hand, with $\epsilon = 0$: first both
# layers, then one layer that does the same. Where do its numbers come from?

# %% name="fuse-hand"
x = torch.tensor([3.0, 5.0])
weight = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
gamma, beta = torch.tensor([6.0, 2.0]), torch.tensor([1.0, 0.0])
mean, variance = torch.tensor([1.0, 3.0]), torch.tensor([9.0, 4.0])
y = weight @ x
normed = gamma * (y - mean) / variance.sqrt() + beta
print("Linear", y.tolist(), "then norm", normed.tolist())
one_weight = torch.tensor([[4.0, 0.0], [1.0, 1.0]])
one_bias = torch.tensor([-1.0, -3.0])
print("one Linear", (one_weight @ x + one_bias).tolist())

# %% [markdown] name="card-fuse"
# ### Exercise: fuse a norm into its Linear
#
# 8 minutes · difficulty 2 of 3
#
# `weight` (M, D) of a Linear without bias; `gamma`, `beta`, `mean`, `var`, each (M,), and the number `eps`
# of the BatchNorm behind it. Return one Linear for both: its weight, and its bias as one column more, the
# last: (M, D+1).
#
# A hint: `check.hint("fuse_norm")`. The solution: `check.solution("fuse_norm")`.


# %% name="stub-fuse" tags=["exercise"]
def fuse_norm(weight, gamma, beta, mean, var, eps):
    """(M, D), four of (M,), a number -> (M, D+1)."""
    ...


# %% name="check-fuse" tags=["check"]
check.fuse_norm(fuse_norm)

# %% name="fuse-all"
torch.manual_seed(0)
sizes = levit.Sizes((32, 48), (1, 1), (3, 4), key=8, patch=4, image=24, classes=7)
model = levit.LeViT(sizes).eval()
for layer in model.modules():
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        for numbers in (layer.weight, layer.running_var):
            nn.init.uniform_(numbers, 0.5, 1.5)
        for numbers in (layer.bias, layer.running_mean):
            nn.init.uniform_(numbers, -0.5, 0.5)
fused = levit.fuse(model)
images = torch.randn(5, 3, 24, 24)
assert torch.allclose(fused(images), model(images), rtol=1e-4, atol=1e-4)
print("ok: the same logits")
for name, network in {"before": model, "fused": fused}.items():
    kinds = [type(layer).__name__ for layer in network.modules()]
    count = kinds.count("BatchNorm1d") + kinds.count("BatchNorm2d")
    print(f"{name}: {count} BatchNorms")
try:
    levit.fuse(model.train())
except ValueError as error:
    print(error)

# %% [markdown] name="latency-text"
# `levit.fuse` did it for a whole model. (A new norm has mean 0 and variance 1, which would hide an error: so
# the cell gave each of them other numbers.) In evaluation only: in training, mean and variance are those
# of the batch.
#
# Does it pay? Time depends on the machine. So here is the record of [LeViT's notebook](papers/levit.ipynb):
# images a second on one thread, one at a time and 64 at once, beside a ViT with as many operations.

# %% name="latency"
record = show.recorded("claim-levit")
figures = record["figures"]
print(show.origin(record))
for batch in (1, 64):
    print(f"images a second, {batch} at once")
    for name in ("ViT", "LeViT", "fused LeViT"):
        speed = figures[f"{name}, images a second, batches of {batch}"]
        print(f"    {name:12}{speed['mean']:>4.0f} +- {speed['spread']:.0f}")

# %% [markdown] name="botnet-text"
# Fusing pays for single images, each time; 64 at once, the gain is lost in the noise. But the ViT with as
# many operations, only 96 wide, is faster still: a negative result, on one processor and one thread.
# Operations are not time. (The paper's own comparison is at equal accuracy. In the same record, on digits,
# LeViT is ahead in that.)
#
# ## Left is not right: BotNet
#
# Now from the other side. What does a CNN lack? Its windows are small; it sees far only when many are
# stacked. BotNet takes a ResNet-50, and attention over the whole map takes the place of its 3x3
# convolutions. Of all of them? One article reads like that. SASA (lesson 15) replaced them all.

# %% name="botnet-counts"
from torchvision.models.resnet import resnet50

question = "of the sixteen 3x3 convolutions of ResNet-50's blocks,"
check.predict(f"{question} those that BotNet-50 keeps", ...)
with torch.device("meta"):
    models = {"ResNet-50": resnet50(), "BotNet-50": papers.build("botnet_50")}
    models |= {"SASA": papers.build("sasa_resnet_50")}
for name, model in models.items():
    kept = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        sizes = [getattr(layer, "kernel_size", None) for layer in stage.modules()]
        kept.append(sizes.count((3, 3)))
    count = sum(p.numel() for p in model.parameters())
    print(f"{name:10} 3x3 convolutions by stage: {kept}, {count:>10,} parameters")

# %% [markdown] name="relative-text"
# Three are gone, those of the last stage, where the map is 14 x 14 or smaller. All else stays a CNN.
#
# A convolution has a weight for each offset: left is not right. Plain attention has none. BotNet gives each
# offset a vector, that of its rows and that of its columns, and *the query meets it*:
#
# $$s_{qk} = \frac{q_q \cdot (k_k + r_{y_k - y_q} + r_{x_k - x_q})}{\sqrt d}$$
#
# A row of four places. For the offset $x_k - x_q$, let $r$ be (offset, -offset). Two tokens ask from
# place 1: one is (1, 0), the other (0, 1). What does each prefer?

# %% name="relative-row"
for query in ((1, 0), (0, 1), (1, 1)):
    scores = []
    for key in range(4):
        r = key - 1, 1 - key  # the query stands at place 1
        scores.append(query[0] * r[0] + query[1] * r[1])
    print(f"query {query}: {scores}")

# %% [markdown] name="card-relative"
# The first prefers what is to its right, the second what is to its left, the third does not care. The token
# decides.
#
# ### Exercise: scores that know how far it is
#
# 12 minutes · difficulty 3 of 3
#
# For queries q (B, K, N, d) of a grid (h, w), places row by row, return q · (r_h + r_w) for each query and
# key, (B, K, N, N), without dividing. `rows` (2h-1, d) holds $r_h$ for dy = key minus query, from -(h-1) to
# h-1, `columns` (2w-1, d) holds $r_w$ likewise. All heads share them.
#
# A hint: `check.hint("relative_logits")`. The solution: `check.solution("relative_logits")`.


# %% name="stub-relative" tags=["exercise"]
def relative_logits(q, rows, columns, grid):
    """(B, K, N, d), (2h-1, d), (2w-1, d), (h, w) -> (B, K, N, N)."""
    ...


# %% name="check-relative" tags=["check"]
check.relative_logits(relative_logits)

# %% [markdown] name="kinds-text"
# Three ways for a score to know an offset; each with random numbers in its table, for the query in the
# middle of 7 x 7 places: LeViT's; a number for each head and offset, as Swin has it; BotNet's, for two
# tokens that hold something else. Which pictures are symmetric, which two differ though the table is one?

# %% name="kinds-figure"
from vitcourse.papers.botnet import MapAttention
from vitcourse.parts import RelativeAttention2D

torch.manual_seed(1)
grid, middle = (7, 7), 24
by_distance = levit.BiasedAttention(4, 4, 1, 4, grid)
by_offset = RelativeAttention2D.on(grid, prefix_len=0)(4, 1)
by_query = MapAttention(4, 1, grid)
for layer in (by_distance, by_offset):
    nn.init.normal_(layer.position_table)
two = torch.randn(2, 1, 1, 4).expand(2, 1, 49, 4)  # (B, K, N, d), each at all places
with torch.no_grad():
    pictures = [by_distance.bias(grid)[0, 0], by_offset.bias(grid)[0, 0]]
    pictures += [2 * scores[0] for scores in by_query.relative(two, grid)]
titles = ["LeViT", "Swin", "BotNet, one token", "another"]
pictures = [picture[middle].view(grid) for picture in pictures]
drawing = show.heatmaps(pictures, titles, columns=4, size=1.9)
alt = (
    "What four scores get by the place of the key. LeViT's map is its own mirror "
    "image, left to right and top to bottom. Swin's has no order. Each of BotNet's "
    "two is made of rows and columns that cross, and the two differ."
)
show.figure(drawing, alt)

# %% [markdown] name="kinds-answer"
# LeViT knows how far, not which way. Swin knows both, the same for every token. BotNet's depends on who
# asks; its rows and columns add up.
#
# What does it see that convolutions miss? The record of [BotNet's notebook](papers/botnet.ipynb): strips with
# two marks, are they alike? In the network of convolutions, no place sees both marks if they are 16 pixels
# apart or more.

# %% name="botnet-record"
record = show.recorded("claim-botnet")
figures = record["figures"]
print(show.origin(record))
for name in ("convolutions", "attention"):
    seen = [figures[f"{name}, {where} view"]["mean"] for where in ("in", "out of")]
    print(f"{name:13} marks in view {seen[0]:.2f}, out of view {seen[1]:.2f}")

# %% [markdown] name="canvas-text"
# Where windows end, convolutions guess, as a coin does. Attention over the whole map is always right.
#
# ## Take one thing back
#
# Now to our own training. Digits, enlarged to 12 x 12 pixels, in the middle of a canvas of 16 x 16; the test
# also moves them. A slot is enough to take one thing back: `ViT.variant(Mlp=LeFF)`, with a hidden width that
# is a little smaller, so that both have about as many parameters. Two runs of 240 steps, on 200 digits that
# all lie in the middle.
#
# First, one digit at rest and moved, with the lines along which the ViT cuts.

# %% name="canvas"
digits = data.load("digits")


def canvases(images):
    large = nn.functional.interpolate(images.float(), size=(12, 12), mode="bilinear")
    return nn.functional.pad(large.round().byte(), (2, 2, 2, 2))


test = canvases(digits.test_images)
grid = torch.full((3, 19, 19), 128, dtype=torch.uint8)
inside = torch.arange(16) + torch.arange(16) // 4  # a line behind each four pixels
for by, picture in enumerate(grid):
    picture[inside[:, None], inside] = test[7, 0].roll((by, by), (0, 1))
titles = ["in the middle", "moved by 1", "moved by 2"]
alt = "A digit three times, each further down and to the right, cut by grey lines."
show.figure(show.images(grid, titles, columns=3, size=1.8), alt)

# %% name="train" tags=["nbval-ignore-output"]
from vitcourse.data.augment import Augment
from vitcourse.train import RECIPES, build_model, fit

few = canvases(digits.images[:200]), digits.labels[:200]
made = data.Data("canvases", *few, test, digits.test_labels, digits.classes)
recipe = RECIPES["smoke"].but(batch=20, epochs=24, evaluate_every=24, augment=Augment())
models = {"ViT": (ViT, 4.0), "ViT with LeFF": (ViT.variant(Mlp=LeFF), 3.5)}
accuracy = {}
for name, (cls, mlp_ratio) in models.items():
    model = build_model(recipe, made, cls, mlp_ratio=mlp_ratio)
    run = fit(model, made, recipe, device="cpu", quiet=True)
    accuracy[name] = []
    for by in (0, 1, 2):
        moved = made.normalise(test.roll((by, by), (2, 3)))
        right = run.model(moved).argmax(dim=1) == made.test_labels
        accuracy[name].append(right.float().mean().item())
    print(f"{name:14}", *(f"{share:.2f}" for share in accuracy[name]))

# %% name="train-bound"
assert min(shares[0] for shares in accuracy.values()) > 0.5
assert all(shares[2] < shares[0] - 0.2 for shares in accuracy.values())
print("ok: both read digits that lie as in training, and much worse those that moved")

# %% [markdown] name="compare-text"
# (Accuracy at rest, moved down and to the right by 1, by 2.) One pixel, and most is lost. That is one
# run. Now the record.
#
# ## Side by side
#
# 60, 200 or 600 digits, 240 steps of 20, parameters within 5 % of 115,000, three seeds. The four are as
# published, but small; the control is the plain ViT. Beside BotNet stands its CNN, a ResNet with all its
# convolutions. Digits move to eight sides. With 200, there are also ViTs with one part more: LeFF; CvT's
# convolutions for queries, keys and values; LeViT's stem; relative scores, a number for each head and offset.
#
# Expected: each is ahead of the ViT, by more where images are few, and by more on digits that moved. Is your
# order the same?

# %% name="compare"
record = show.recorded("claim-convolutions_return")
figures = record["figures"]
names = ("ViT", "CvT", "CeiT", "LeViT", "BotNet", "ResNet")
tests = [f"{count} digits" for count in (60, 200, 600)]
tests += [f"600 digits, moved by {by}" for by in (1, 2)]
print(show.origin(record))
heads = [test.replace("600 digits, ", "") for test in tests]
print(f"{'':8}", *(f"{head:>12}" for head in heads))
lines = {}
for name in names:
    row = [figures[f"{name}, {test}"] for test in tests]
    cells = [f"{figure['mean']:.2f} +- {figure['spread']:.2f}" for figure in row]
    print(f"{name:8}", *cells)
    lines[name] = [figure["mean"] for figure in row[2:]]
alt = (
    "Accuracy after 600 digits, at rest, moved by one and by two pixels. At rest all "
    "are at 0.89 to 0.97. Moved by one, CvT has 0.65, CeiT and ResNet about 0.55, the "
    "rest less than half. Moved by two, ResNet and CeiT have nearly 0.4, the ViT 0.15."
)
drawing = show.lines(lines, "moved by, pixels", "accuracy")
drawing.axes[0].set(xticks=[0, 1, 2], ylim=(0, 1))
show.figure(drawing, alt)


# %% name="pairs"
def each(differences):
    return "  ".join(f"{difference:+.3f}" for difference in differences)


for text, pair in record["pairs"].items():
    found = "holds   " if pair["holds"] else "negative"
    print(found, each(pair["difference"]), text, sep="  ")
print("computed afterwards, not expected before: 200 digits, moved by 1, minus the ViT")
for name in ("LeFF", "convolved keys", "stem", "relative scores"):
    tests = [f"{who}, 200 digits, moved by 1" for who in (name, "ViT")]
    one, other = (figures[test]["each"] for test in tests)
    print(" " * 8, each(a - b for a, b in zip(one, other, strict=True)), name, sep="  ")

# %% [markdown] name="compare-answer"
# - **All four pay**, with every seed, by 4 to 12 points on average.
# - **The CNN is as good.** BotNet against its ResNet: undecided where digits lie still. Where they moved, after
#   200 or 600, the ResNet leads with every seed (found afterwards).
# - **More with few images:** in two seeds of three, a negative result.
# - **One pixel costs each** 30 points or more. CvT keeps most of the four; after two pixels, CeiT. LeViT
#   against the ViT, after one: undecided.
# - **One at a time**, 200 digits: convolved queries, keys and values help with every seed, LeFF and stem with
#   two, relative scores with none.
#
# What lets neighbours into the block helps most. Equivariant layers do not make an invariant network.

# %% [markdown] name="fair"
# ### What this cannot show
#
# - With 600 digits, 240 steps are eight epochs. Part of the lead may be a head start.
# - All four have BatchNorms, and so have three of the single parts; the ViT has none.
# - CvT begins with 49 tokens, the ViT with 16.
# - No training image moves. With moved ones, the order may be another.
# - Little in a digit is far, so attention may have nothing to add to a CNN.
#
# ## The whole family
#
# You have met 24 systems in five lessons. What does each replace? Computed from their code: slots; functions;
# all of it, with a structure of its own; or nothing but the loss. And which have convolutions that overlap,
# over pixels, tokens or attention maps?

# %% name="tree"
rows = ["Tokenizer", "Downsample", "Position", "Attention", "Mlp", "Block", "Head"]
rows += ["a function", "own structure", "the loss", "convolutions"]


def overlaps(layer):
    return isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > max(layer.stride)


def marks(paper):
    found = {slot for cls in paper.models for slot in compare.delta(cls)}
    found |= {part for part in rows if compare.changes(paper) == part}
    if "." in compare.changes(paper):
        found.add("a function")
    for config in list(paper.configs.values())[:1]:
        with torch.device("meta"):
            model = config.model(config.sizes)
        if any(overlaps(layer) for layer in model.modules()):
            found.add("convolutions")
    return found


systems = [p for p in papers.papers().values() if "13" <= p.lesson <= "17"]
tree = {paper.name: marks(paper) for paper in systems}
for part in rows:
    print(f"{part:14}{sum(part in found for found in tree.values()):>3}")

# %% name="tree-figure"
import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

with matplotlib.rc_context(show.figures.STYLE):
    drawing = Figure(figsize=(9, 5), layout="constrained")
place = drawing.subplots()
for column, (paper, found) in enumerate(zip(systems, tree.values(), strict=True)):
    colour = show.figures.COLOURS[int(paper.lesson) - 13]
    for row, part in enumerate(rows):
        shade = colour if part in found else "0.93"
        place.add_patch(Rectangle((column, row), 0.9, 0.9, color=shade))
    if column == 0 or systems[column - 1].lesson != paper.lesson:
        place.text(column, -0.2, f"lesson {paper.lesson}", color=colour)
place.set(xlim=(0, len(systems)), ylim=(len(rows), -1), aspect="equal")
names = [paper.name.replace(" ", "\n", 1) for paper in systems]
place.set_xticks([n + 0.45 for n in range(len(systems))], names, rotation=90)
place.set_yticks([n + 0.45 for n in range(len(rows))], rows)
place.tick_params(length=0)
place.spines[:].set_visible(False)
alt = (
    "24 systems and what each replaces. Tokenizer and attention are replaced most "
    "often, MLP and block hardly. Convolutions stand in all four of lesson 17."
)
show.figure(drawing, alt)

# %% [markdown] name="tree-answer"
# Tokenizer and attention are where most papers worked; hardly one touches the block. The MLP is replaced by
# three: for neighbours (CeiT), for an activation (CvT), for a scale (Refiner). A filled square says
# that code differs, not that it is the idea.
#
# Kernels that overlap stand in 13 of the 21 systems that have a published configuration. (The Visual
# Transformer, which has none here, stands on a CNN.) The first of them, the hybrid, is in the ViT paper
# itself: convolutions were never quite gone.
#
# ## The papers in a table

# %% name="table"
for paper in systems:
    if paper.lesson == "17":
        print(f"{paper.name}, {paper.authors} {paper.year}: {compare.changes(paper)}")
        for name, config in paper.configs.items():
            count = compare.parameters(name)
            print(f"    {name:12}{count:>12,}   reported {config.reported}")

# %% [markdown] name="authors"
# What the authors report for ImageNet, in percent:
#
# | | |
# |---|---|
# | CvT-13, CvT-21 | 81.6, 82.5 |
# | CeiT-T, -S | 76.4, 82.0 |
# | LeViT-128S, with a teacher | 76.6 |
# | BotNet, the family S1 | 84.7 |
#
# The BotNet paper also reports 1.2 points more for a detector that stands on it. The family S1 has more than
# attention: other activations, squeeze-excitation. LeViT learns from a teacher (lesson 13). So this is no
# comparison.

# %% [markdown] name="remember"
# ## Remember
#
# - LeFF is an MLP with a depthwise convolution inside, on patches as a map. The class token goes around.
# - CvT convolves before attention. A stride of 2 for keys and values leaves a quarter of the scores; zeros
#   beyond the border tell places.
# - Layers are equivariant for moves by their step, without a border. A network is not: one pixel cost 30
#   points.
# - A 1x1 convolution is a Linear. A BatchNorm behind a Linear goes into its rows and its bias.
# - Operations are not time.
# - A score may know the distance (LeViT), the offset (Swin), or ask the query (BotNet).
# - Convolutions paid. The CNN was no worse: put it beside.
#
# Before: [16 many scales](16-many-scales.ipynb). Next:
# [18 learning without labels](18-learning-without-labels.ipynb).
#
# [Glossary](../docs/glossary.md).
