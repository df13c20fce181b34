# %% [markdown] name="title"
# # 16 · Many scales
#
# A ViT-S/16 reads a photograph of 224 x 224 pixels. You give it the same photograph with sides twice as
# long. How many times as many operations does that take?
#
# - A: twice.
# - B: four times.
# - C: more than four times, but not sixteen.
# - D: sixteen times.
#
# Write down A, B, C or D. And: a detector looks for a wheel of ten pixels and a car of two hundred in one
# picture. Why does it not take a ViT as it is? The five papers of this lesson ask: **can a model have small
# patches, large images and a map for every scale, at a price that grows with the image and no faster?**

# %% name="setup"
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitcourse import check, data, make_vit, papers, probe, show, vit

# %% [markdown] name="cost-text"
# ## What a larger image costs
#
# PyTorch can count the operations of a model without computing anything: on the device "meta", tensors have
# a shape and no numbers. In a block, the matrices multiply $12ND^2$ times for N tokens of width D, and
# attention $2N^2D$ times. Multiplication and addition count as two operations.


# %% name="cost"
def operations(model, *inputs):
    counter = FlopCounterMode(display=False)
    with probe.record_attention(model), counter:  # so that attention is counted, too
        model(*inputs)
    return counter.get_total_flops()


first = None
print("             tokens   billion operations   for pairs of tokens")
for size, image in (("S/16", 224), ("S/16", 448), ("S/16", 896), ("S/4", 224)):
    with torch.device("meta"):
        model = make_vit(size, image=image)
        total = operations(model, torch.empty(1, 3, image, image))
    N = (image // model.cfg.patch) ** 2 + 1
    pairs = 4 * N**2 * model.cfg.dim * model.cfg.depth
    first = first or total
    print(f"{size:4} at {image}{N:9,}{total / 1e9:11.1f} =", end="")
    print(f"{total / first:5.1f} x first{pairs / total:14.0%}")

# %% [markdown] name="cost-answer"
# C. The matrices grow as the image does, fourfold; pairs of tokens grow sixteenfold. At 224 they are a small
# part, at 896 the larger one. So the next doubling always costs more than the last.
#
# And the wheel? A ViT-S/16 has one map, with a place for 16 x 16 pixels, so the wheel shares its token with
# what lies around it. Patches of 4 x 4 would do. The last line is their price: as many tokens as an image
# of 896 has.
#
# A CNN gives a detector maps with a place for 4, 8, 16 and 32 pixels. That is what is asked of a
# **backbone**, and what a ViT does not give.

# %% [markdown] name="omega-text"
# Two ways out. **Windows** (Swin): a token meets the $M \times M$ tokens of its window and no others.
# **Spatial reduction** (PVT): all tokens ask, and $R \times R$ of them together make one key. How often
# does a layer multiply, on a map of $h \times w$ tokens of width C?
#
# $$\Omega(\text{MSA}) = 4hwC^2 + 2(hw)^2C$$
# $$\Omega(\text{W-MSA}) = 4hwC^2 + 2M^2hwC$$
# $$\Omega(\text{SRA}) = \left(3 + \frac{2}{R^2}\right)hwC^2 + \frac{2(hw)^2C}{R^2}$$
#
# The first two are Swin's, for full and for windowed attention. Which of the three hold the square of $hw$?
# The first cell compares them with what PyTorch counts, in millions of multiplications. Operations are not
# time: the second has the same three layers as they were measured, on one thread, for one image.

# %% name="omega"
from vitcourse.papers import pvt, swin


def omega(hw, C=96, M=8, R=8):
    full = 4 * hw * C**2 + 2 * hw**2 * C
    windowed = 4 * hw * C**2 + 2 * M**2 * hw * C
    reduced = 3 * hw * C**2 + 2 * hw // R**2 * C**2 + 2 * hw**2 // R**2 * C
    return full, windowed, reduced


with torch.device("meta"):
    full = vit.Attention(96, heads=3)
    windowed = swin.WindowAttention(96, heads=3, window=8, shift=4)
    reduced = pvt.ReducedAttention(96, heads=3, reduction=8)
    print("image, 4 pixels a place       full   windowed   reduced")
    for side in (8, 16, 32, 64, 128):
        x = torch.empty(1, side * side, 96)  # (B, N, D)
        counted = [operations(a, x, (side, side)) for a in (full, windowed, reduced)]
        assert counted == [2 * times for times in omega(side**2)]
        print(f"{4 * side:5} x {4 * side}", end="          ")
        print("".join(f"{count / 2e6:>11,.1f}" for count in counted))
print("ok: the formulas are what is counted")

# %% name="time"
record = show.recorded("claim-many_scales")
figures = record["figures"]
print(show.origin(record))
series = {}
for name, sides in {"full": 4, "windowed": 5, "reduced": 5}.items():
    sides = [8 * 2**i for i in range(sides)]
    found = [figures[f"{name}, {s}x{s}, milliseconds"]["mean"] for s in sides]
    series[name] = [4 * side for side in sides], found
    print(f"{name:9}", "  ".join(f"{ms:8.2f}" for ms in found), "ms")
alt = (
    "Time of three layers against the side of the image, both axes logarithmic. At 32 "
    "pixels full attention is lowest; at 64 all three nearly meet; then it rises "
    "steepest. Reduced attention lies below windowed, and bends up towards it at 512."
)
show.figure(show.lines(series, "pixels a side", "milliseconds", log="xy"), alt)

# %% [markdown] name="masks-text"
# Full attention and reduction hold the square; windows grow as the image does. In time: for 64 tokens, full
# attention is fastest, since rolling, cutting and convolving cost, too. From 128 to 256 pixels a side it takes
# 14 times as long, the others four to five times. From 256 to 512 windows stay at four; reduction is at seven,
# its square comes through.
#
# ## Who may see whom
#
# Any rule about which keys a query sees is a mask, N x N. Six rules for a map of 8 x 8, each a line of code
# about rows y and columns x. **Local** you know from [lesson 15](15-better-attention.ipynb); **axial** sees
# its row and column; **strided** (Sparse Transformer) knows the sequence alone: 7 tokens to each side, and
# every 8th.

# %% name="masks"
y, x = torch.cartesian_prod(torch.arange(8), torch.arange(8)).T  # each (N,)
dy, dx = (y[:, None] - y).abs(), (x[:, None] - x).abs()  # (N, N), query and key
steps = ((8 * y + x)[:, None] - (8 * y + x)).abs()


def same(group):
    return group[:, None] == group


sees = {
    "full": steps >= 0,
    "local": (dy <= 1) & (dx <= 1),
    "axial": same(y) | same(x),
    "strided": (steps < 8) | (steps % 8 == 0),
    "windows": same(y // 4) & same(x // 4),
    "shifted": same((y + 2) // 4) & same((x + 2) // 4),
}
for name, mask in sees.items():
    keys = mask.sum(dim=1)
    print(f"{name:8}{mask.sum():>5} of 4096 pairs,", end="")
    print(f"{keys.min():>3} to {keys.max()} keys a query")

# %% name="masks-figure"
views = [mask[8 * 3 + 4].view(8, 8).float() for mask in sees.values()]
for view in views:
    view[3, 4] = 2  # the token that asks
pictures = [*views, *(mask.float() for mask in sees.values())]
alt = (
    "Two rows of six pictures. Above, the keys of one token of an 8 x 8 map: all; a "
    "square of 3 x 3; a cross; its column and a run along the rows; its quarter of "
    "the map; a square of 4 x 4 in the middle. Below, the same rules as matrices of "
    "64 x 64: all; nine thin diagonals; blocks and diagonals; a band and diagonals; "
    "two chequered blocks along the diagonal; three of them."
)
titles = [*sees, *[""] * 6]
show.figure(show.heatmaps(pictures, titles, columns=6, size=1.4, limits=(0, 2)), alt)

# %% [markdown] name="masks-answer"
# Above: what the token in row 3, column 4 sees. Below: all 64 tokens, queries downwards, keys to the right.
#
# A mask alone saves nothing: the scores are computed, and then thrown away. Windows are the rule that a GPU
# likes. They do not overlap, so one cuts the map into pieces and treats each as an image of a batch.
#
# ## Swin: shifted windows
#
# But nothing leaves a window. So every second block has its windows elsewhere, M/2 further right and down.

# %% [markdown] name="photo-text"
# On a photograph of 8 x 8 tokens, with windows of 4 x 4: on the left those of the first block, in the
# middle those of the second. Count them: there are nine now, of different sizes, which is slow.
#
# The remedy, on the right: **roll** the map up and left by M/2. What leaves it above comes in again below.
# Then four whole windows are enough, but some of them hold pieces that do not belong together. The yellow
# lines are the seams.

# %% name="photo"
from sklearn.datasets import load_sample_image

photo = load_sample_image("china.jpg")[32:384, 96:448].copy()  # (352, 352, 3)
token = 352 // 8


def with_lines(picture, places, colour):
    picture = picture.copy()
    for place in places:
        at = slice(token * place - 3, token * place + 3)
        picture[at], picture[:, at] = colour, colour
    return picture


white, yellow = (255, 255, 255), (255, 220, 0)
rolled = torch.from_numpy(photo).roll((-2 * token, -2 * token), (0, 1)).numpy()
rolled = with_lines(with_lines(rolled, [6], yellow), [4], white)
pictures = [with_lines(photo, [4], white), with_lines(photo, [2, 6], white), rolled]
alt = (
    "A photograph of a temple three times. Left: cut into four windows. Middle: cut "
    "into nine pieces by lines a quarter from each border. Right: rolled up and left, "
    "cut into four windows; yellow lines show where the borders of the photo meet."
)
titles = ["windows", "shifted", "rolled"]
show.figure(show.images(pictures, titles, columns=3, size=2.6), alt)

# %% [markdown] name="roll-text"
# The same with a map of 4 x 6 whose numbers can be read, and windows of 2 x 2. On the left the map, in the
# middle the same rolled by 1. On the right each token has the number of its **region**: 2 if it came in
# from above, plus 1 if it came in from the left.

# %% name="roll"
numbers = torch.arange(24).view(4, 6)
rolled = numbers.roll((-1, -1), (0, 1))
below, right = torch.arange(4) >= 3, torch.arange(6) >= 5
region = 2 * below[:, None] + right  # (h, w)
for row in zip(numbers.tolist(), rolled.tolist(), region.tolist(), strict=True):
    print("     ".join(" ".join(f"{n:2}" for n in part) for part in row))
for top, left in ((0, 0), (0, 4), (2, 0), (2, 4)):
    window = slice(top, top + 2), slice(left, left + 2)
    tokens, regions = (map[window].flatten().tolist() for map in (rolled, region))
    print(f"window at {top}, {left}: tokens {tokens}, regions {regions}")

# %% [markdown] name="roll-answer"
# The last window holds the four corners of the map, which are nobody's neighbours. So two tokens of a
# window may see each other only if they have the same region. (The authors' code counts nine regions, since
# it cuts at the last window, too. Inside a window that changes nothing.)
#
# Here are the masks of the four windows of an 8 x 8 map, rolled by 2, and the regions that they come from.

# %% name="mask-figure"
region = 2 * (torch.arange(8) >= 6)[:, None] + (torch.arange(8) >= 6)
allowed = swin.shifted_mask((8, 8), M=4, shift=(2, 2))  # (n, M*M, M*M)
counts = [sorted(set(mask.sum(dim=1).tolist())) for mask in allowed]
print("keys a query sees, window by window:", *counts)
titles = ["regions", "upper left", "upper right", "lower left", "lower right"]
alt = (
    "Left: four regions of an 8 x 8 map; the last two rows and columns have numbers "
    "of their own. Then four masks of 16 x 16: all; a chequerboard of 2 x 2; two large "
    "blocks; and two blocks that are chequered."
)
pictures = [region / 3, *allowed.float()]
show.figure(show.heatmaps(pictures, titles, columns=5, size=1.7), alt)

# %% [markdown] name="card-mask"
# ### Exercise: weights in shifted windows
#
# 15 minutes · difficulty 3 of 3
#
# `scores` (B, n, T, T) are those inside the n windows of M x M tokens, T = M·M, of a map (h, w) that was
# rolled up and left by `shift`. Return the weights (B, n, T, T): zero for a key that is beside its query
# only because of the roll, and rows that sum to one. Windows, and tokens inside them, go row by row. `shift`
# is at least 1 and below M.
#
# A hint: `check.hint("shifted_weights")`. The solution: `check.solution("shifted_weights")`.


# %% name="stub-mask" tags=["exercise"]
def shifted_weights(scores, grid, M, shift):
    """(B, n, T, T), (h, w), two numbers -> weights (B, n, T, T)."""
    ...


# %% name="check-mask" tags=["check"]
check.shifted_weights(shifted_weights)

# %% [markdown] name="proof-text"
# Is that the rule that the picture with nine pieces shows? Compare the package's layer, which rolls, cuts,
# masks and rolls back, with full attention under a mask made from coordinates: no roll at all.
#
# Swin also adds a learned number for each offset inside a window, one table a head, as in
# [lesson 03](03-positions.ipynb), and has no other positions:
#
# $$\text{Attention}(Q, K, V) = \text{softmax}\left(\frac{QK^\top}{\sqrt d} + B\right) V$$

# %% name="proof"
torch.manual_seed(0)
layer = swin.WindowAttention(12, heads=3, window=4, shift=2)
nn.init.normal_(layer.position_table)
y, x = torch.cartesian_prod(torch.arange(8), torch.arange(12)).T  # each (N,)
allowed = same((y + 2) // 4) & same((x + 2) // 4)  # (N, N)
dy, dx = (a[:, None] - a + 3 for a in (y, x))  # query minus key, from 0 inside a window
bias = layer.position_table[:, dy.clamp(0, 6), dx.clamp(0, 6)]  # (K, N, N)

tokens = torch.randn(2, 96, 12)  # (B, N, D)
q, k, v = layer.project(tokens, (8, 12))  # each (B, K, N, d)
scores = q @ k.mT / 4**0.5 + bias
weights = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
expected = layer.proj((weights @ v).transpose(1, 2).flatten(2))
assert torch.allclose(layer(tokens, (8, 12)), expected, atol=1e-5)
print(f"ok: {int(allowed.sum())} of {allowed.numel()} pairs, and the same result")

# %% [markdown] name="reach-text"
# ### How far does a token see?
#
# A map of 16 x 16, windows of 4 x 4. Whose content can reach the token in row 7, column 7 after one, two,
# three, four blocks? Go back from the token, block by block: all keys of what has been reached so far. The
# cell first asks for your guess.

# %% name="reach"
question = "tokens that reach one in the middle of 16 x 16,"
check.predict(question + " after a block with windows of 4 x 4 and a shifted one", ...)
y, x = torch.cartesian_prod(torch.arange(16), torch.arange(16)).T  # each (N,)
masks = {s: same((y + s) // 4) & same((x + s) // 4) for s in (0, 2)}
reached, titles = [], []
for name, shifts in {"in place": (0, 0, 0, 0), "shifted": (0, 2, 0, 2)}.items():
    for depth in (1, 2, 3, 4):
        seen = torch.arange(256) == 16 * 7 + 7
        for shift in reversed(shifts[:depth]):
            seen = masks[shift][seen].any(dim=0)
        reached.append(seen.view(16, 16).float())
        titles.append(f"{name}, {depth}: {int(seen.sum())}")
    print(f"{name:9}", *(int(map.sum()) for map in reached[-4:]))
alt = (
    "Two rows of four maps of 16 x 16: what reaches one token after one to four "
    "blocks. Above, windows in place: always the same 16 tokens. Below, shifted "
    "windows: 16, 64, 144 and all 256."
)
show.figure(show.heatmaps(reached, titles, columns=4, size=1.3), alt)

# %% [markdown] name="stages-text"
# ## Swin: stages
#
# Windows pay for small patches. Between stages, maps shrink and widen as in a CNN, which makes the maps of
# 4, 8, 16 and 32 pixels. One article says that windows make the "small 2x2 patches" of Swin possible.
# Look at the first line before you believe it.


# %% name="stages"
def slots(cls):
    return {slot: part.__name__ for slot, part in papers.delta(cls).items()}


sizes = papers.configs()["swin_t"].sizes
with torch.device("meta"):
    model = papers.build("swin_t")
    maps = model.features(torch.empty(1, 3, 224, 224))
wide, pixels = 3 * sizes.patches[0] ** 2, 1
for stage, map, patch in zip(model.stages, maps, sizes.patches, strict=True):
    _, C, h, w = map.shape
    pixels *= patch
    print(f"{patch} x {patch}: {wide:4} -> {C} numbers a token,", end=" ")
    print(f"map {h:2} x {w:2}, {pixels:2} pixels a place,", end=" ")
    print(f"{h // 7 * (w // 7):2} windows, {len(stage.blocks)} blocks")
    wide = 4 * C
print(slots(type(model)))

# %% [markdown] name="merging-text"
# The patches are 4 x 4: 48 numbers. What is 2 x 2 is the **merging** before each later stage: four
# neighbours, 4C numbers, a norm, and a matrix to 2C. (The last map is one window, so nothing is shifted
# there.)
#
# $$x' = W\,\text{LN}\,[x_{00};\, x_{10};\, x_{01};\, x_{11}], \qquad W \in \mathbb{R}^{2C \times 4C}$$
#
# In which order do the four stand? Take away norm and matrix, and look.

# %% name="merging"
map = torch.arange(1, 17).view(1, 1, 4, 4)  # (B, C, h, w)
print("\n".join(" ".join(f"{n:2}" for n in row) for row in map[0, 0].tolist()))
merging = swin.PatchMerging(1, 2, 2)
merging.norm = merging.reduction = nn.Identity()
x, grid = merging(map)  # (B, N, 4C)
print("grid", grid, "tokens", *x[0].tolist())

# %% [markdown] name="card-merging"
# Column by column. Any order would do as well, as $W$ is learned; published weights want this one, and an
# image library that puts them row by row gives nonsense without an error.
#
# ### Exercise: patch merging
#
# 10 minutes · difficulty 2 of 3
#
# A module `Merging(channels)` with a LayerNorm `norm` over 4C numbers and a Linear `reduction` from 4C to
# 2C, without bias: map (B, C, h, w) -> x (B, N, 2C), row by row, N = h/2 · w/2. h and w are even. The four
# stand as above.
#
# A hint: `check.hint("patch_merging")`. The solution: `check.solution("patch_merging")`.


# %% name="stub-merging" tags=["exercise"]
class Merging(nn.Module):
    def __init__(self, channels):
        super().__init__()
        ...

    def forward(self, map): ...


# %% name="check-merging" tags=["check"]
check.patch_merging(Merging)

# %% [markdown] name="pvt-text"
# [Swin's notebook](papers/swin.ipynb) has the proof against published implementations, and a model with and
# without shifts.
#
# ## PVT: fewer keys
#
# PVT came a month before, with maps of the same four scales. All tokens ask, so nothing is cut off; what
# they ask is small. R x R neighbours become one key, by a matrix for their $R^2 C$ numbers, which is a
# convolution whose stride is its kernel:
#
# $$\text{SRA}(x) = \text{Attention}\left(xW_Q,\; \bar{x}W_K,\; \bar{x}W_V\right), \qquad
# \bar{x} = \text{LN}(\text{Conv}_{R \times R,\ \text{stride } R}(x))$$

# %% [markdown] name="card-reduce"
# ### Exercise: what PVT attends to
#
# 10 minutes · difficulty 2 of 3
#
# A module `SmallerMap(dim, reduction)` with a Conv2d `sr` (dim to dim, kernel and stride `reduction`) and a
# LayerNorm `norm` (dim). Tokens x (B, N, D) of a grid (h, w), row by row, come in, one token for each window
# comes out, row by row: (B, S, D). Rows and columns that fill no window are not read.
#
# A hint: `check.hint("reduce_map")`. The solution: `check.solution("reduce_map")`.


# %% name="stub-reduce" tags=["exercise"]
class SmallerMap(nn.Module):
    def __init__(self, dim, reduction):
        super().__init__()
        ...

    def forward(self, x, grid): ...


# %% name="check-reduce" tags=["check"]
check.reduce_map(SmallerMap)

# %% name="pvt"
question = "keys that a query in PVT-Tiny's first block has,"
check.predict(question + " for an image of 224 x 224", ...)
with torch.device("meta"):
    model, image = papers.build("pvt_tiny"), torch.empty(1, 3, 224, 224)
with probe.record_attention(model) as maps:
    model(image)
for stage, R, weights in zip((1, 2, 3, 4), model.reductions, maps[::2], strict=True):
    _, K, queries, keys = weights.shape
    print(f"stage {stage}, R = {R}: {queries:5,} queries, {keys} keys, {K} heads")
print(slots(type(model)))

# %% [markdown] name="twins-text"
# About 49 keys everywhere. The last stage has 50 and 50: PVT's class token enters there, in front of
# 7 x 7 tokens that are not reduced. [Its notebook](papers/pvt.ipynb).
#
# ## Twins: near, then far
#
# Swin's windows see near and exactly; PVT's keys far and roughly. Twins takes them in turn: a block of
# windows (LSA), not shifted, then a block with a key for each R x R tokens (GSA). A PEG
# ([lesson 14](14-better-tokens.ipynb)) in each stage tells places. How many tokens reach ours through
# windows, through a summary, through both? The last line names the slots that Twins replaces.

# %% name="twins"
from vitcourse.papers.twins import Twins, WindowedAttention

torch.manual_seed(0)
local = WindowedAttention(12, heads=3, window=4)
summary = pvt.ReducedAttention(12, heads=3, reduction=4)
for name, layers in {
    "windows": [local],
    "summary": [summary],
    "windows, then summary": [local, summary],
}.items():
    start = torch.randn(1, 256, 12, requires_grad=True)  # (B, N, D)
    tokens = start
    with probe.record_attention(nn.ModuleList(layers)) as maps:
        for layer in layers:
            tokens = tokens + layer(tokens, (16, 16))
    tokens[0, 16 * 7 + 7].sum().backward()
    count = int((start.grad.abs().sum(dim=-1) > 0).sum())
    keys = [weights.shape[-1] for weights in maps]
    print(f"{name:22} {count:3} of 256 tokens, through {keys} keys")
print(slots(Twins))

# %% [markdown] name="tnt-text"
# With 16 keys all 256 are heard, as after four blocks of Swin; but a key of the summary is one voice for 16
# tokens. [Its notebook](papers/twins.ipynb).
#
# ## TNT: tokens inside tokens
#
# Keep one map of patches, and look inside each. A patch of 16 x 16 pixels is also a sequence of 4 x 4
# **pixel tokens**, narrow ones. An inner block relates those of one patch; read as one vector, they are
# added to their patch's token; the outer block relates patches:
#
# $$Y^i \leftarrow \text{Inner}(Y^i), \quad Z^i \leftarrow Z^i + W\,\text{vec}(Y^i), \quad
# Z \leftarrow \text{Outer}(Z)$$
#
# The cell counts on how many pixels of an image of 32 x 32, with patches of 8 x 8, the pixel tokens of a
# patch depend, and its patch token behind the outer block.

# %% name="tnt"
from vitcourse.papers.tnt import TNT, LegacyTNT

question = "pixel tokens that the inner blocks of TNT-S see, for an image of 224 x 224"
check.predict(question, ...)
for kind in (TNT, LegacyTNT):
    torch.manual_seed(0)
    model = kind(vit.Config(dim=24, depth=1, heads=3, patch=8, image=32, classes=5))
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    x, pixels, grid = model.patch_embed(images)  # (B, N, D), (B*N, m, c)
    inner = model.blocks[0].inner(pixels)
    (gradient,) = torch.autograd.grad(inner[5].square().sum(), images)
    print(f"{kind.__name__:9} {tuple(x.shape)} and {tuple(pixels.shape)},", end=" ")
    print("pixels read:", int(gradient[0].any(dim=0).sum()), end=" by pixel tokens, ")
    x, grid = model.encode(images)  # (B, T, D)
    (gradient,) = torch.autograd.grad(x[0, 6].square().sum(), images)
    print(int(gradient[0].any(dim=0).sum()), "by the patch token")

# %% [markdown] name="cross-text"
# 64 pixels are the patch itself, 1,024 the image. There are two published versions. In the older one the
# first convolution runs over the whole image, so a patch reads 11 x 11 pixels, three beyond its border
# above and to the left. Weights of one do not fit the other. [The notebook](papers/tnt.ipynb) has both.
#
# ## CrossViT: two ViTs side by side
#
# A narrow ViT with small patches, a wide one with large patches. Now and then, each class token reads the
# *patches of the other branch*, and takes home what it found. With $c$ the class token and $x'$ the other's
# patches:
#
# $$c \leftarrow h\left(u + \text{Attention}(q = u,\; kv = [u;\, x'])\right), \qquad u = g(c)$$
#
# $g$ leads to the other width, $h$ back; each is a norm, a GELU and a matrix. Attention reads normalised
# tokens.

# %% name="cross"
from vitcourse.papers.crossvit import Fusion

torch.manual_seed(0)
fusions = nn.ModuleList([Fusion(12, 20, heads=5), Fusion(20, 12, heads=3)])
fine = torch.randn(2, 1 + 36, 12)  # (B, T, D)
coarse = torch.randn(2, 1 + 9, 20)  # (B, S, E)
with torch.no_grad(), probe.record_attention(fusions) as maps:
    new_fine, new_coarse = fusions[0](fine, coarse), fusions[1](coarse, fine)
assert torch.equal(new_fine[:, 1:], fine[:, 1:])
assert torch.equal(new_coarse[:, 1:], coarse[:, 1:])
print("ok: a fusion changes the class token, and no patch")
for name, weights in zip(("fine", "coarse"), maps, strict=True):
    print(f"{name:6} asks: {weights.shape[2]} x {weights.shape[3]} weights a head")

# %% [markdown] name="compare-text"
# One token asks, so a fusion costs as much as there are patches, not pairs. In the end the logits of both
# branches are averaged. [The notebook](papers/crossvit.ipynb).
#
# ## Side by side
#
# Digits of 8 to 16 pixels, somewhere on a canvas of 16 x 16: 1,280 to learn from, 400 steps, three seeds,
# about 81,000 parameters. The control is a ViT with patches of 4 x 4, the second control one with patches
# of 2 x 2: fine tokens at their full price.
#
# Expected: each of the five beats both; and fine tokens gain more on small digits (8 to 10 pixels) than on
# large ones (14 to 16). A trial with one seed had shown PVT, Swin and Twins ahead, TNT behind: for those it
# is no blind guess.

# %% name="compare"
record = show.recorded("claim-many_scales")
figures = record["figures"]
names = ["ViT", "ViT, mean", "ViT, fine", "PVT", "Swin", "Twins", "TNT", "CrossViT"]
means = {name: figures[f"{name}, accuracy"]["mean"] for name in names}
spread = {name: figures[f"{name}, accuracy"]["spread"] for name in names}
print(show.origin(record))
print(f"{'':10}   accuracy      small   large   million operations")
for name in names:
    small, large = (figures[f"{name}, {s} digits"]["mean"] for s in ("small", "large"))
    work = figures[f"{name}, million operations"]["mean"]
    print(f"{name:10}{means[name]:.2f} +- {spread[name]:.2f}", end="")
    print(f"{small:>11.2f}{large:>8.2f}{work:>14.1f}")
alt = (
    "Accuracy of eight models. Twins is highest at 0.75, then PVT and Swin. The ViTs "
    "with patches of 4 x 4 are near a third, one with a large spread. TNT is at 0.22; "
    "the ViT with fine patches and CrossViT are little above the line of guessing."
)
show.figure(show.bars(means, "accuracy", spread, mark=0.1, limit=1), alt)
print(show.pairs(record))

# %% [markdown] name="compare-answer"
# - **Three of five.** PVT, Swin and Twins beat both controls with every seed, by 24 points or more, and
#   with fewer operations: a fifth or less of what the same tokens cost at one scale.
# - **Not TNT, not CrossViT.** Both lose to the ViT with every seed: two negative results. Like the ViT with
#   fine patches they have barely begun; guessing gives 10 %.
# - **Not where we thought.** The gain is larger on *large* digits with every seed. Small ones stay hard.
# - **Not the readout.** Swin and Twins read a mean, so a ViT that does was added afterwards. It is ahead of
#   the ViT with one seed and behind with two; the three beat it with every seed, by 15 points or more.

# %% [markdown] name="fair"
# ### What this cannot show
#
# - 400 steps are a race: in the end the order may be another. On digits that lie still,
#   [TNT](papers/tnt.ipynb) and ViT are alike.
# - A pyramid is more than scales: windows and strided convolutions are local, Twins has a PEG.
# - One recipe, made for the plain ViT.
# - One block in five of this Swin is shifted. Its last map, as that of Twins, is 2 x 2 in a window of 4 x 4.
#
# ## A backbone
#
# What pyramids were made for: each pixel gets a class, 0 for nothing, or one of eight kinds of form.
# `Segmenter` reads *all* maps of a backbone, from coarse to fine: enlarge what is known, add what the next
# map knows.

# %% name="masks-data"
from vitcourse.segment import Segmenter, guesses, mean_iou, segment

shapes = data.load("shapes", train=960, test=250)


def truth(masks, labels):
    return masks * (labels + 1)[:, None, None]  # (n, H, W), 0 where nothing is


wanted = truth(shapes.extras["masks"], shapes.labels)
test = truth(shapes.extras["test_masks"], shapes.test_labels)
light = torch.linspace(0.4, 1, 4).repeat_interleave(2)[:, None]  # by form
tints = torch.tensor([[1.0, 0.3, 0.2], [0.3, 0.5, 1.0]]).repeat(4, 1)  # by colour
palette = torch.cat([torch.zeros(1, 3), light * tints])  # (9, 3)
print("pixels of nothing:", f"{(test == 0).float().mean():.2f}")
pictures = [*shapes.test_images[:6], *palette[test[:6]].numpy()]
alt = (
    "Above, six images with one red or blue form each on striped ground. Below, what "
    "each pixel shows: black for nothing, red or blue in the brightness of the form."
)
show.figure(show.images(pictures, columns=6, size=1.2), alt)

# %% [markdown] name="iou-text"
# Most pixels are nothing, so accuracy would flatter. **Mean IoU** asks of each class: of all pixels that
# are of it, or are called so, which part is both? Then it averages the classes. Below: three pixels of
# nothing, two of class 1; a guess that finds one of the two, and one that says nothing everywhere.
#
# Then train a Swin of three stages, with maps of 16 x 16, 8 x 8 and 4 x 4, for 150 steps.

# %% name="iou"
true = torch.tensor([[0, 0, 0, 1, 1]])
for guess in ([0, 0, 0, 0, 1], [0, 0, 0, 0, 0]):
    score = mean_iou(torch.tensor([guess]), true, classes=2)
    right = sum(a == b for a, b in zip(guess, true[0].tolist(), strict=True))
    print(guess, f"{right} of 5 pixels right, mean IoU {score:.2f}")
nothing = mean_iou(torch.zeros_like(test), test, classes=9)
print(f"nothing everywhere, on the forms: {nothing:.2f}")

# %% name="train" tags=["nbval-ignore-output"]
from vitcourse.pyramid import PyramidConfig
from vitcourse.train import RECIPES, fit

torch.manual_seed(0)
sizes = dict(dims=(16, 32, 64), depths=(2, 2, 2), heads=(2, 4, 8), patches=(2, 2, 2))
sizes = PyramidConfig(**sizes, mlp_ratios=(2.0, 2.0, 2.0), image=32, classes=9)
backbone = swin.Swin.variant(window=4)(sizes)
for layer in backbone.modules():
    if type(layer) is nn.Linear:  # as the recipe has it for a ViT
        vit.truncated_normal_(layer.weight, std=0.5 * layer.in_features**-0.5)
segmenter = Segmenter(backbone, classes=9)
recipe = RECIPES["smoke"].but(epochs=5, batch=32, evaluate_every=5)
run = fit(
    segmenter,
    shapes,
    recipe.but(augment=data.augment.Augment()),
    step=lambda model, batch: segment(model, batch, wanted),
    score=lambda model, made: {"mIoU": mean_iou(guesses(model, made), test, 9)},
    device="cpu",
    quiet=True,
)
print(f"mIoU {run.history[-1]['test_mIoU']:.2f}")

# %% name="train-bound"
assert run.history[-1]["test_mIoU"] > nothing + 0.06
print("ok: better than nothing everywhere")

# %% name="train-figure"
guess = guesses(segmenter, shapes)  # (n, H, W)
pictures = [*shapes.test_images[:6], *palette[test[:6]].numpy()]
pictures += [*palette[guess[:6]].numpy()]
alt = "Six images, below them their masks, below these the masks that the Swin found"
show.figure(show.images(pictures, columns=6, size=1.2), alt)

# %% [markdown] name="seg-text"
# Where a form is, and its colour, it knows soon; which form, it is only beginning to learn.
#
# The record has 400 steps with 3,200 images, three seeds. Beside the Swin: a ViT with patches of 4 x 4 and
# its one map of 8 x 8; the same Swin, of which the head sees the last map alone; and a Swin whose first
# patches are 4 x 4, too, so that its finest map is as coarse as the ViT's. About 106,000 parameters each.
#
# Expected: all maps beat the ViT and the last map alone, and gain most on small forms (radius up to 6).

# %% name="seg-record"
record = show.recorded("claim-segmentation")
figures = record["figures"]
names = ["ViT", "Swin, all maps", "Swin, last map", "Swin, from 8x8"]
means = {name: figures[f"{name}, mIoU"]["mean"] for name in names}
spread = {name: figures[f"{name}, mIoU"]["spread"] for name in names}
print(show.origin(record))
print(f"{'':16}mIoU           small  large   where   million operations")
for name in names:
    keys = ("mIoU of small forms", "mIoU of large forms", "something or nothing")
    small, large, where = (figures[f"{name}, {key}"]["mean"] for key in keys)
    print(f"{name:16}{means[name]:.2f} +- {spread[name]:.2f}", end="")
    print(f"{small:>8.2f}{large:>7.2f}{where:>8.3f}", end="")
    print(f"{figures[f'{name}, million operations']['mean']:>12.1f}")
alt = (
    "Mean IoU of four backbones. The ViT is at 0.65, the Swin with all maps at 0.60, "
    "with a large spread; its last map alone and the Swin from 8 x 8 are at 0.40."
)
show.figure(show.bars(means, "mean IoU", spread, limit=1), alt)

# %% name="seg-pairs"
print(show.pairs(record))
key = "something or nothing"
both = [figures[f"{name}, {key}"]["each"] for name in ("Swin, all maps", "ViT")]
apart = (f"{a - b:+.3f}" for a, b in zip(*both, strict=True))
print(f"computed afterwards: {key}, all maps minus ViT:", *apart)

# %% [markdown] name="seg-answer"
# - **Read all maps.** The same Swin, read at its last map, loses with every seed, by 7 to 40 points.
# - **Begin fine.** From 8 x 8 a Swin loses to one from 16 x 16, and to the ViT, whose map is as fine, with
#   every seed. Its last map, 2 x 2, is padded to a window of 4 x 4.
# - **Against the ViT: undecided.** Ahead with one seed of three, at three fifths of the operations.
#   It tells something from nothing better with every seed, 99.2 % against 97.8 %, and loses by the names of
#   forms.
# - **Small forms** gain no more than large ones: negative.
#
# At 32 x 32 pixels, 64 tokens that all see each other are cheap: see the first table.

# %% [markdown] name="authors"
# ## What the authors report
#
# On ImageNet at 224 x 224 (CrossViT: 240), in percent, and beyond it:
#
# | | |
# |---|---|
# | PVT-Tiny, -Small | 75.1, 79.8 |
# | Swin-T, -S, -B | 81.2, 83.2, 83.5 |
# | Twins-SVT S, B, L | 81.7, 83.2, 83.7 |
# | TNT-S | 81.5 |
# | CrossViT-Ti | 73.4 |
# | PVT-Small as the backbone of RetinaNet, COCO, boxes (AP) | 40.4 |
# | ResNet-50 in its place | 36.3 |
# | Swin-L, COCO, boxes and masks (AP, test-dev) | 58.7, 51.1 |
# | Swin-L, ADE20K, segmentation (mIoU) | 53.5 |
# | SETR, a ViT, ADE20K, as Swin's authors cite it | 50.3 |
#
# PVT's two lines have the same detector; the authors trained PVT's with AdamW. Swin-L was trained on
# ImageNet-22K first, and a large detector or segmenter stands behind it: those lines compare systems.

# %% name="table"
from vitcourse.papers import compare

for paper in papers.papers().values():
    if paper.lesson == "16":
        print(f"{paper.name}, {paper.authors} {paper.year}: {compare.changes(paper)}")
        for name, config in paper.configs.items():
            count = compare.parameters(name)
            print(f"    {name:18}{count:>12,}   reported {config.reported}")

# %% [markdown] name="remember"
# ## Remember
#
# - Twice the sides: four times the tokens, sixteen times the pairs. How much that costs depends on which of
#   the two is larger.
# - Windows cost as much as the image is large. Spatial reduction divides the square by $R^2$, and keeps it.
# - A shift is a roll, a mask, and a roll back. Two blocks reach 64 tokens where one reaches 16.
# - A pyramid begins narrow with many tokens and ends wide with few. Its maps are what detectors and
#   segmenters read.
# - Say what you compare with: one scale at the same parameters, one scale with patches as fine, the last map
#   alone. What helps may be locality, and not scale.
#
# Before: [15 better attention](15-better-attention.ipynb). Next:
# [17 convolutions return](17-convolutions-return.ipynb).
#
# [Glossary](../docs/glossary.md).
