# %% [markdown] name="title"
# # 18 · Learning without labels
#
# You have 1,437 handwritten digits. Somebody has to say of each which digit it is, and has done so for ten.
# The rest are images and nothing else. What can one ask of an image itself?
#
# - A, iGPT: the colour of each pixel, from the pixels before it.
# - B, MAE: the pixels of three quarters of the patches, from the other quarter.
# - C, masked patch prediction: the mean colours of patches that were corrupted.
#
# Nobody needs these answers. They are a preparation: then come the ten labels. With ten, does each of the
# three help? By how much? And with 300? Write down your guess. **What does a network learn about digits, if
# it is never told that there are any?**

# %% name="setup"
import torch
import torch.nn.functional as F

from vitcourse import check, data, papers, show, vit
from vitcourse.papers import compare

# %% [markdown] name="chain-text"
# ## One pixel after another
#
# The smallest images: three pixels, each 0 or 1. There are three of them, equally frequent. Go through an
# image from the left, and ask of each pixel: how often does this value follow what came before? Multiply the
# three answers. What will come out?

# %% name="chain"
images = ["011", "010", "111"]
for image in images:
    shares = []
    for place, value in enumerate(image):
        before = [other for other in images if other[:place] == image[:place]]
        same = [other for other in before if other[place] == value]
        shares.append(len(same) / len(before))
    product = torch.tensor(shares).prod()
    print(image, *(f"{share:.2f}" for share in shares), f"  product {product:.2f}")

# %% [markdown] name="chain-answer"
# A third, each time: how frequent the image is. This is no accident:
#
# $$p(x) = \prod_{i=1}^{N} p(x_i \mid x_1, \dots, x_{i-1}), \qquad
# \mathcal L = -\frac{1}{N} \sum_{i=1}^{N} \log p(x_i \mid x_1, \dots, x_{i-1})$$
#
# So whoever can tell every next pixel knows the whole distribution, and can draw from it. And no factor is
# free: to tell the last rows of a digit, it pays to know which digit it is. That is the hope.
#
# **iGPT** (Chen et al. 2020) takes a decoder for texts, GPT-2, and gives it pixels, row by row. A text has a
# vocabulary. So each pixel gets the number of the nearest of 512 colours, a **palette** that k-means finds.
# How much is lost?

# %% name="palette"
from sklearn.datasets import load_sample_image

from vitcourse.papers import igpt

names = ("china.jpg", "flower.jpg")
photos = [torch.from_numpy(load_sample_image(name).copy()) for name in names]
photos = torch.stack(photos).permute(0, 3, 1, 2)[..., :416, 112:528].float()
many = F.interpolate(photos, (96, 96), mode="area").round().byte()
small = F.interpolate(photos, (32, 32), mode="area").round().byte()  # (2, C, 32, 32)
pictures, titles = list(small), ["32 x 32", ""]
for colours in (512, 16, 4):
    palette = igpt.find_palette(many, colours, steps=10)
    numbers = igpt.quantise(small, palette)  # (B, N)
    painted = igpt.paint(numbers, palette, (32, 32))
    apart = (painted.float() - small.float()).square().mean().sqrt()
    print(f"{colours:3} colours, {numbers.shape[1]} numbers, off by {apart:4.1f}")
    pictures += [*painted]
    titles += [f"{colours} colours", ""]
alt = (
    "Two photographs of 32 x 32 pixels, and the same with 512, 16 and 4 colours. With "
    "512 hardly a difference is seen, with 4 only areas are left."
)
show.figure(show.images(pictures, titles, columns=8), alt)

# %% [markdown] name="sizes-text"
# (Off: of 255, root mean square.) With 512 colours, little.
#
# What does a network on pixels cost? Guess the tokens first. One article that lists the models leaves the
# parameters of iGPT-L blank. They can be computed from its sizes. The cell also counts the scores of one
# head, at 32 x 32 and at 64 x 64 pixels, beside those of a ViT-B/16 at 224 x 224.

# %% name="sizes"
question = "tokens that an iGPT reads of an image of 32 x 32 pixels in three colours"
check.predict(question, ...)
shapes = {"a photograph": (224, 224, 3), "made small": (32, 32, 3), "palette": (32, 32)}
for name, shape in shapes.items():
    values = torch.tensor(shape).prod().item()
    print(f"{name:13}{' x '.join(map(str, shape)):14}{values:>8,} numbers")
for name in ("igpt_s", "igpt_m", "igpt_l", "igpt_xl"):
    sizes = papers.configs()[name].sizes
    count = compare.parameters(name) / 1e6
    print(f"{name:8}{sizes.depth} layers of {sizes.dim:4}, {count:>7,.0f} M parameters")
for name, tokens in {"iGPT, 32": 32**2, "iGPT, 64": 64**2, "ViT-B/16": 197}.items():
    print(f"{name}: {tokens:>5,} tokens, {tokens**2:>10,} scores a head")

# %% [markdown] name="card-causal"
# No token may see what it has to tell. In the place of each pixel, the model is given the one *before*; a
# learned start stands in the first. Then token $i$ may look at tokens up to $i$, itself included.
#
# ### Exercise: attention that looks back
#
# 12 minutes · difficulty 2 of 3
#
# k and v (B, K, N, d) are those of all tokens, q (B, K, n, d) holds the queries of the *last n* of them.
# Return (B, K, n, d), attention divided by $\sqrt d$ in which each sees itself and those before. (When a
# pixel is drawn, n is 1: the keys before it are remembered.)
#
# A hint: `check.hint("causal_attention")`. The solution: `check.solution("causal_attention")`.


# %% name="stub-causal" tags=["exercise"]
def causal_attention(q, k, v):
    """(B, K, n, d), (B, K, N, d), (B, K, N, d) -> (B, K, n, d)."""
    ...


# %% name="check-causal" tags=["check"]
check.causal_attention(causal_attention)

# %% [markdown] name="train-text"
# ## Watch it learn
#
# Digits have 8 x 8 pixels: a row of 64 numbers, here with five greys. A small iGPT learns all training images;
# it gets no label. Two things to compare with: all greys equally likely; each as likely as it is frequent,
# wherever it stands.

# %% name="train-igpt" tags=["nbval-ignore-output"]
from vitcourse.train import Recipe, fit

digits = data.load("digits")
palette = igpt.find_palette(digits.images, 5)
greys, test = (igpt.quantise(x, palette) for x in (digits.images, digits.test_images))
torch.manual_seed(0)
reader = igpt.IGPT(igpt.Sizes(dim=48, depth=3, heads=4, colours=5, image=8))
run = fit(
    reader,
    digits,
    Recipe(epochs=6, batch=64, lr=3e-3, evaluate_every=6),
    step=lambda model, batch: model.objective(greys[batch.index]),
    score=lambda model, _: {"nats": model.objective(test)},
    device="cpu",
    quiet=True,
)
share = greys.flatten().bincount() / greys.numel()
nats = {"equally likely": torch.tensor(5.0).log().item()}
nats["by frequency"] = -share.log()[test].mean().item()
nats["iGPT"] = float(run.history[-1]["test_nats"])
for name, value in nats.items():
    print(f"{name:15}{value:.2f} nats a pixel")

# %% name="train-igpt-bound"
assert nats["iGPT"] < 0.8 * nats["by frequency"]
print("ok: the pixels before tell much of the next one")

# %% [markdown] name="sample-text"
# A model that tells next pixels can draw: draw the first, give it back to the model, draw the second, and so
# on. Or begin with what is known: the upper half of six test digits is given, and the rest drawn, three times.
# Before you look: which of 0, 3, 4, 5, 7, 9 have an upper half that leaves a choice? In the last row, nothing is
# given.
#
# (All logits are divided by a **temperature** of 0.8 before the softmax: likely greys become likelier.)

# %% name="samples" tags=["nbval-ignore-output"]
chosen = [int((digits.test_labels == d).nonzero()[0]) for d in (0, 3, 4, 5, 7, 9)]
given = test[chosen]  # (6, N)
half, nothing = given[:, :32], given[:, :0]
rows, right = [given, F.pad(half, (0, 32))], []
for known in (half, half, half, nothing):
    generator = torch.Generator().manual_seed(len(rows))
    rows.append(igpt.sample(reader, known, generator, temperature=0.8))
    right.append((rows[-1] == given)[:, 32:].float().mean().item())
edge = (rows[-1].view(-1, 8, 8)[:, :, 0] == 0).float().mean().item()
names = ("image", "given", "1st", "2nd", "3rd", "free")
titles = [name for name in names for _ in chosen]
pictures = igpt.paint(torch.cat(rows), palette, (8, 8))
alt = (
    "Six digits, their upper halves, three completions of each, which differ from each "
    "other, and six pictures drawn from nothing, with strokes like those of digits."
)
show.figure(show.images([*pictures], titles, columns=6, size=1.0), alt)
print(f"lower pixels that are those of the image: {sum(right[:3]) / 3:.0%}")
print(f"drawn from nothing, dark pixels in the first column: {edge:.0%}")

# %% name="samples-bound"
assert sum(right[:3]) / 3 > 0.4 and edge > 0.8  # by chance, one in five
print("ok: it completes what is given, and leaves the left edge dark")

# %% [markdown] name="layers-text"
# ## What each layer knows
#
# Nothing in this asked for classes. Are they in the features all the same? Take the features of one layer,
# their mean over the pixels, and let **one linear layer** learn from 300 labels: a **linear probe**. The
# network itself does not learn any more.
#
# The authors compare with a second objective, BERT's: 15 % of the pixels are hidden, the model tells them from
# all the others, before and behind. Which is read better by a probe? And at which layer: the first, the
# middle, the last? The record of [iGPT's notebook](papers/igpt.ipynb), with three blocks, three seeds.
# Layer 0 is what the first block reads, layer 3 what the head reads:

# %% name="layers"
record = show.recorded("claim-igpt")
figures = record["figures"]
print(show.origin(record))
lines = {}
for name in ("iGPT", "BERT"):
    row = [figures[f"{name}, layer {layer}"] for layer in range(4)]
    lines[name] = [figure["mean"] for figure in row]
    untrained = figures[f"{name}, layer 2 untrained"]["mean"]
    print(f"{name}:", *(f"{f['mean']:.2f} +- {f['spread']:.2f}" for f in row), sep="  ")
    print(f"      layer 2, untrained: {untrained:.2f}")
drawing = show.lines(lines, "layer that is probed, 3 is the last", "accuracy")
drawing.axes[0].set(xticks=range(4), ylim=(0, 1))
alt = (
    "Accuracy of a probe at four layers, which rises from layer to layer: iGPT's from "
    "0.72 to 0.78, BERT's from 0.64 to 0.76, level from layer 2 on."
)
show.figure(drawing, alt)
for text, pair in record["pairs"].items():
    if "labels" not in text:
        found = "holds   " if pair["holds"] else "negative"
        print(found, "  ".join(f"{x:+.3f}" for x in pair["difference"]), text)

# %% [markdown] name="layers-answer"
# (Differences, one for each seed; "holds": with all three.)
#
# - **Pixels teach classes.** Untrained, layer 2 gives half of the digits; after twelve epochs, three quarters.
#   The lower the loss, the better the probe: with every seed, as the paper reports.
# - **The last layer is best** for iGPT, with every seed. The paper reports a middle one, near the 20th of 48: a
#   negative result. Three blocks may be too few for a middle: in a deep network the last layers must turn back
#   to pixels.
# - **iGPT against BERT:** undecided. The paper reports iGPT far ahead at a probe, and BERT level with it once
#   fine-tuned. Here neither is ahead at a probe with every seed, and BERT is not behind once fine-tuned.

# %% [markdown] name="near-text"
# ## Only what is near
#
# Two years before iGPT, the **Image Transformer** (Parmar et al. 2018) drew images value by value. Must a
# pixel look at *all* that came before? Here values are drawn in blocks; all queries of a block share one
# memory, the block and what lies around it.
#
# - 1-D: a block is a stretch of the raster, the memory reaches further back in it.
# - 2-D: a block is a rectangle; the memory reaches up, left and right.
#
# In a picture of 8 x 8, what does the pixel in row 5, column 4 see? (Counted from 0. Itself is brightest. In
# 2-D, blocks are 2 x 4.) Then the pixels are numbered in the order in which they are drawn. What is odd about
# 2-D?

# %% name="near"
from vitcourse.papers import image_transformer

place = 5 * 8 + 4
kinds = {"1-D, 8": (8, 8), "2-D, 2 x 4": ((2, 4), (1, 2)), "full": (None, 0)}
seen, orders = [], []
for block, reach in kinds.values():
    sizes = image_transformer.Sizes(
        32, 3, 4, 64, (8, 8), channels=1, levels=5, block=block, reach=reach
    )
    near = sizes.neighbours
    when = near.order.argsort()  # (N,), the step in which each place is drawn
    b, q = (near.queries == when[place]).nonzero()[0]
    shown = near.memory[b][near.visible[b, q]]  # steps that it sees
    map = torch.zeros(64)
    map[near.order[shown]] = 1
    map[place] = 2
    seen.append(map.view(8, 8))
    orders.append(when.view(8, 8))
    print(f"{int(map.count_nonzero())} pixels seen of {int(when[place]) + 1} so far")
alt = (
    "Three maps of 8 x 8 pixels. In 1-D a pixel sees its row and the one above; in "
    "2-D what lies around it above and to the left; in full all rows above."
)
show.figure(show.heatmaps(seen, [*kinds], columns=3, size=1.9), alt)

# %% name="order"
titles = ["drawn in 1-D", "drawn in 2-D, 2 x 4"]
drawing = show.heatmaps(orders[:2], titles, columns=2, size=2.9, numbers=True)
alt = (
    "The order in which pixels are drawn. In 1-D row by row; in 2-D the eight pixels "
    "of one block come first, then those of the block to its right."
)
show.figure(drawing, alt)

# %% [markdown] name="near-answer"
# 2-D does not follow the raster: the second row of a block, from 4 on, comes before the first row of the block
# to its right, from 8 on. This is allowed. The product above holds in any order, if it is always the same one.
#
# What does it save? An image of 32 x 32 pixels in three channels has 3,072 values: here no palette makes one
# number of three, red is drawn before green before blue.

# %% name="near-cost"
grid = (32, 96)  # 32 x 32 pixels in three channels: 3072 values
sizes = {"full": (grid, grid, (0, 0)), "2-D, 8 x 24": (grid, (8, 24), (8, 24))}
sizes["1-D, 256"] = (1, 3072), (1, 256), (0, 256)
for name, (grid, block, reach) in sizes.items():
    near = image_transformer.Neighbours(grid, block, reach)
    blocks, queries = near.queries.shape
    scores = blocks * queries * near.memory.shape[1]
    print(f"{name:12}{blocks:>3} blocks, {scores:>9,} scores a head")

# %% [markdown] name="cost-answer"
# Full attention pays for the square of the length: twice the pixels, four times the scores. Blocks pay for the
# length. And a value still hears of what is far: what its neighbours saw in the layer before, it sees in this
# one.
#
# Does it learn as well? The record of [its notebook](papers/image_transformer.ipynb): digits, three blocks of
# width 32, the same parameters and steps. Bits a pixel, fewer are better. Expected, before it was run: near beats
# full; among the near ones, the more is seen, the fewer bits; rectangles beat stretches.

# %% name="near-record"
record = show.recorded("claim-image_transformer")
figures = record["figures"]
print(show.origin(record))
for name in ("1-D 4", "1-D 8", "1-D 16", "2-D 4", "2-D 8", "full"):
    bits, count = figures[f"{name}, bits"], figures[f"{name}, pixels seen"]["mean"]
    shown = f"{bits['mean']:.3f} +- {bits['spread']:.3f}"
    print(f"{name:7} {shown} bits, {count:4.1f} pixels seen")
print(show.pairs(record))

# %% [markdown] name="near-record-answer"
# - **A stretch of four beats full** attention with every seed, by 0.065 bits or so. The rectangle of 2 x 2
#   loses to it with every seed: near is not enough.
# - **In a row, the more is seen, the worse:** a negative result. 16 need more bits than 8 with every seed, 8 more
#   than 4 with two of three.
# - **Rectangles:** 2 x 2 loses to a stretch of 4 with every seed, a negative result; 2 x 4 beats a stretch of 8
#   with every seed, by less than 0.01.
#
# After five epochs, the row that sees least is ahead. It need not stay so.

# %% [markdown] name="mae-text"
# ## Look at a quarter, tell the rest
#
# A pixel differs little from its neighbour: most of what iGPT is asked can be copied, and each pixel costs a
# token. **MAE** (He et al. 2021) asks harder questions at a lower price. The image is cut into patches, three
# quarters are hidden, and the encoder, a ViT, *does not get them*, not even as mask tokens. A small decoder
# puts mask tokens into the gaps and tells their pixels.
#
# Which are hidden? Each patch gets a random number, its **noise**; those with the smallest are seen. Six
# patches, two are seen. By hand, before you run the cell: which two, in which order? Where do they go
# afterwards?

# %% name="noise"
from vitcourse.papers import mae

noise = torch.tensor([[0.8, 0.3, 0.9, 0.5, 0.1, 0.6]])
patches = torch.arange(10.0, 16.0).view(1, 6, 1)  # (B, N, D)
order = noise.argsort(dim=1)  # (B, N)
seen = mae.take(patches, order[:, :2])
print("what the encoder is given", seen.flatten().tolist())
decoder = [11.0 if n == 1 else 14.0 if n == 4 else 0.0 for n in range(6)]
print("what the decoder needs   ", decoder)

# %% [markdown] name="card-put-back"
# ### Exercise: back to their places
#
# 10 minutes · difficulty 2 of 3
#
# `noise` (B, N) holds a number for each patch. The encoder has read the n patches of each image with the
# smallest noise, the smallest first: `seen` (B, n, D). Put each back in its place, and `token` (D,) in all
# other places: (B, N, D). In the example above, with a token of 0, the result is the last line.
#
# A hint: `check.hint("put_back")`. The solution: `check.solution("put_back")`.


# %% name="stub-put-back" tags=["exercise"]
def put_back(seen, token, noise):
    """(B, n, D), (D,), (B, N) -> (B, N, D)."""
    ...


# %% name="check-put-back" tags=["check"]
check.put_back(put_back)

# %% [markdown] name="mae-cost-text"
# Only then positions are added, once more: a mask token knows nothing but where it stands. What is saved?
# Guess the tokens, then see where the operations are: encoder, decoder, and a ViT that reads all patches.

# %% name="mae-cost"
from torch.utils.flop_counter import FlopCounterMode

question = "tokens that the encoder of MAE-B/16 reads of an image of 224 x 224"
check.predict(question, ...)
with torch.device("meta"):
    model, photo = papers.build("mae_b_16").eval(), torch.empty(1, 3, 224, 224)
    order, seen = model.choose(photo, torch.empty(1, 196))
    kinds = {"a ViT, all patches": lambda: model.encode(photo)}
    kinds["encoder, a quarter"] = lambda: model.encode(photo, seen)
    x, grid = model.encode(photo, seen)
    kinds["decoder, all places"] = lambda: model.head(x, grid, order)
    for name, work in kinds.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            work()
        print(f"{name:20} {counter.get_total_flops() / 2e9:5.1f} G operations")
parts = {"decoder": model.head, "all": model}
count = {name: sum(p.numel() for p in m.parameters()) for name, m in parts.items()}
print(f"the encoder reads {x.shape[1]} tokens of {1 + order.shape[1]}")
print(f"thrown away afterwards: {count['decoder']:,} of {count['all']:,} parameters")

# %% [markdown] name="card-loss"
# The encoder costs a quarter. The decoder, though smaller, costs more than that: it reads all places. Both
# together are little more than half of a ViT that reads everything. Now the loss; $M$ are the hidden patches:
#
# $$\mathcal L = \frac{1}{|M|} \sum_{i \in M} \frac{1}{V} \lVert \hat x_i - \bar x_i \rVert^2, \qquad
# \bar x_i = \frac{x_i - \text{mean}(x_i)}{\sqrt{\text{var}(x_i) + 10^{-6}}}$$
#
# ### Exercise: the loss of an MAE
#
# 10 minutes · difficulty 2 of 3
#
# `answer` and `patches` are (B, N, V). Normalise each patch by itself (the variance divided by V-1), take
# squared differences, and average over all values of all patches that are True in `hidden` (B, N), those of
# all images together: a scalar.
#
# A hint: `check.hint("mae_loss")`. The solution: `check.solution("mae_loss")`.


# %% name="stub-loss" tags=["exercise"]
def mae_loss(answer, patches, hidden):
    """(B, N, V), (B, N, V), bool (B, N) -> a scalar."""
    ...


# %% name="check-loss" tags=["check"]
check.mae_loss(mae_loss)

# %% [markdown] name="fill-text"
# Now digits in 16 patches of 2 x 2 pixels, 12 of them hidden; a Nano/2 as encoder, no labels. (Four pixels have
# little structure, so they are told as they are, not normalised.) An answer to compare with: the mean
# training image, which fills every gap alike.

# %% name="train-mae" tags=["nbval-ignore-output"]
from vitcourse.data.augment import Augment
from vitcourse.train import RECIPES, build_model


class Decoder(mae.Decoder):
    dim, depth, heads = 32, 2, 4


recipe = RECIPES["smoke"].but(model="Nano/2", batch=64, augment=Augment())
recipe = recipe.but(epochs=26, evaluate_every=26)
filler = build_model(recipe, digits, mae.MAE.variant(Head=Decoder, normalised=False))
learning = {"step": mae.step, "score": mae.score, "device": "cpu", "quiet": True}
run = fit(filler, digits, recipe, **learning)
images = digits.normalise(digits.test_images)
mean = digits.normalise(digits.images).mean(dim=0)  # (C, H, W)
errors = {"mean image": (images - mean).square().mean().item()}
errors["MAE"] = run.history[-1]["test_error"]
for name, value in errors.items():
    print(f"{name:10} mean squared error {value:.2f}")

# %% name="train-mae-bound"
assert errors["MAE"] < 0.94 * errors["mean image"]
print("ok: gaps are filled better than by the mean image")

# %% name="fill" tags=["nbval-ignore-output"]
some = images[chosen]
rows, gaps = [some], []
for seed in (1, 2):
    noise = mae.draw(filler, some, torch.Generator().manual_seed(seed))
    seen, filled = mae.pictures(filler, some, noise)
    gaps.append(mae.hidden(filler, some, noise))
    shown = vit.patchify(seen, 2)
    shown[gaps[-1]] = (0.5 - digits.mean) / digits.std  # grey where nothing is seen
    rows += [vit.unpatchify(shown, (4, 4), 2), filled]
    off = vit.patchify(filled - some, 2)[gaps[-1]].square().mean().item()
    others = vit.patchify(mean - some, 2)[gaps[-1]].square().mean().item()
    print(f"mean squared error {off:.2f}, of the mean image {others:.2f}")
titles = ["image", "seen", "filled", "seen", "filled"]
titles = [title for title in titles for _ in chosen]
pictures = [*(torch.cat(rows) * digits.std + digits.mean)]
alt = (
    "Six digits; a quarter of each, the rest grey, and how the model fills the gaps; "
    "then another quarter of each."
)
show.figure(show.images(pictures, titles, columns=6, size=1.0), alt)

# %% name="fill-bound"
assert off < others
print("ok: here, too")

# %% [markdown] name="share-text"
# Blurred: where several answers are possible, the mean has the smallest squared error. A model that *draws*,
# as iGPT does, decides; this one averages. For a preparation that need not matter.
#
# **How much should be hidden?** With 2 of 16 patches, a gap is filled by what stands beside it. With 14, nobody
# can know. Where in between is what is learned worth most? The record of
# [MAE's notebook](papers/mae.ipynb): the error on hidden patches, and a probe, a new head alone, which learns
# from 100 labels.

# %% name="share"
record = show.recorded("claim-mae")
filling = record["figures"]
print(show.origin(record))
for count in (2, 8, 12, 14):
    error, probe = (filling[f"{count} hidden: {what}"] for what in ("error", "probe"))
    print(
        f"{count:2} of 16 hidden: error {error['mean']:.2f}, "
        f"probe {probe['mean']:.2f} +- {probe['spread']:.2f}"
    )
print(f"the mean image: error {filling['mean image: error']['mean']:.2f}")
for text, pair in record["pairs"].items():
    if "hidden" in text:
        found = "holds   " if pair["holds"] else "negative"
        print(found, "  ".join(f"{x:+.3f}" for x in pair["difference"]), text)

# %% [markdown] name="share-answer"
# To fill well and to learn well are two things. With 2 hidden, gaps are filled best and least is learned: what
# stands beside a gap tells most of it. With 14, the answer is little better than the mean image, and less is
# learned again. 8 and 12 of 16 are level, and beat 2, with every seed; 12 beat 14. The paper reports 75 % as best
# for its photographs, far more than the 15 % of words that BERT hides: a word repeats its neighbours less than a
# patch does.

# %% [markdown] name="bert-text"
# ## What BERT does, with patches
#
# The authors of the ViT tried something nearer to language themselves, a year before MAE, in their paper's
# appendix. Half of the patches are corrupted: 80 % of these become a mask token, 10 % another patch, and 10 %
# stay as they are. All pass through the encoder. Of each corrupted patch the model tells the **mean colour**,
# with 3 bits a channel one of 512. So it classifies, and needs no pixels.
#
# Why keep some, and ask all the same? Guess the first number, then count what is drawn.

# %% name="bert"
from vitcourse.papers import masked_patches

question = "of 196 patches, those whose colours masked patch prediction asks for"
check.predict(f"{question}, on average", ...)
torch.manual_seed(0)
sizes = vit.Config.of("Nano/16", image=224)
corrupter = masked_patches.MaskedPatchViT(sizes).eval()
noise = torch.rand(200, 196, 3)
with torch.no_grad():
    x = torch.randn(200, 196, 48)  # (B, N, D)
    after = corrupter.corrupt(x, noise)
masked = (after == corrupter.prefix_mask).all(dim=-1)
same = (after == x).all(dim=-1)
asked = noise[..., 0] < corrupter.corrupted
found = {"asked for": asked, "mask tokens": masked, "another patch": ~masked & ~same}
found["kept, and asked for"] = same & asked
for name, which in found.items():
    print(f"{name:20}{which.sum(dim=1).float().mean():5.1f} of 196")

# %% [markdown] name="reads-text"
# The reason is BERT's: were mask tokens alone asked for, the features of all others could stay poor; and after
# pre-training there are no mask tokens. As it is, no patch can be trusted, and something must be said of each.
#
# ## Side by side: who looks at whom
#
# Four untrained networks read a row of eight places. Change one place: which answers change? Rows are
# answers, columns are what is read. Bright: read for an answer that the loss asks for; half bright: read, but
# nobody asks. BERT on pixels and MAE hide some; masked patch prediction masks 1 and 6, exchanges 2 for 3,
# and keeps 4. Sketch the four squares first.

# %% name="reads"
torch.manual_seed(0)
sizes = igpt.Sizes(dim=24, depth=2, heads=3, colours=5, image=(1, 8))
row = vit.Config.of("Nano/2", image=(2, 16), channels=1)
hidden = torch.zeros(1, 8, dtype=torch.bool)
hidden[0, [1, 6]] = True
noise = torch.tensor([[0.6, 0.9, 0.2, 0.7, 0.5, 0.1, 0.8, 0.4]])
how = torch.full((1, 8, 3), 0.7)  # 0.5 or more: not corrupted
for place, number in {1: 0.0, 6: 0.0, 2: 0.85, 4: 0.95}.items():
    how[0, place] = torch.tensor([0.0, number, 0.0])
causal, both = igpt.IGPT(sizes).eval(), igpt.PixelBert(sizes).eval()
filled = mae.MAE.variant(Head=Decoder)(row).eval()
told = masked_patches.MaskedPatchViT(row).eval()
colours, strip = torch.randint(5, (1, 8)), torch.randn(1, 1, 2, 16)
asked = [torch.ones_like(hidden), hidden, mae.hidden(filled, strip, noise)]
asked.append(how[..., 0] < 0.5)
models = {"iGPT": (causal.encode, colours)}
models["BERT on pixels"] = (lambda c: both.encode(c, hidden), colours)
models["MAE"] = (lambda x: filled(x, noise), strip)
models["masked patches"] = (lambda x: told.encode(x, how)[0][:, 1:], strip)

# %% name="reads-figure"
maps = []
for (answer, given), wanted in zip(models.values(), asked, strict=True):
    width = given.shape[-1] // 8  # numbers of a place
    read = torch.zeros(8, 8)
    for place in range(8):
        changed = given.clone()
        part = changed[..., width * place : width * (place + 1)]
        part.copy_(part + 1 if part.is_floating_point() else (part + 1) % 5)
        with torch.no_grad():
            apart = (answer(changed) - answer(given))[0].abs().amax(dim=-1)  # (N,)
        read[:, place] = (apart > 1e-6).float()
    maps.append(read * (1 + wanted[0][:, None].float()))
    columns = int(read.any(dim=0).sum())
    print(f"{int(wanted.sum())} answers asked for, {columns} places read")
alt = (
    "Four squares of 8 x 8. iGPT: a triangle below the diagonal. BERT on pixels: all "
    "columns but the two hidden, and only those two rows count. MAE: two columns, and "
    "six rows count. Masked patches: all columns but three, and four rows count."
)
show.figure(show.heatmaps(maps, [*models], columns=4, size=1.9, limits=(0, 2)), alt)
itself = [(map.diag()[w[0]] > 0).sum() for map, w in zip(maps, asked, strict=True)]
assert itself == [0, 0, 0, 1]
print("ok: no answer reads what it has to tell, but that of the patch that was kept")

# %% [markdown] name="reads-answer"
# iGPT is asked for everything, but sees half of it on average. BERT sees nearly all, and is asked for little.
# MAE is asked for most, from little.
#
# | | a token is | the encoder reads | the answer |
# |---|---|---|---|
# | iGPT | a pixel | what came before | one of 512 colours, may be drawn |
# | MAE | a patch | the quarter that is seen | pixels, squared error |
# | masked patches | a patch | all, some corrupted | the mean colour, one of 512 |
#
# ## What is it worth?
#
# The records of their notebooks, digits, three seeds, 10, 30, 100, 300 labels. For 400 steps each
# model is trained on with these labels; beside it, the same model, new. MAE and masked patches share model
# and labels (a step of MAE costs more than half, and it had twice as many: so more computing). iGPT and BERT are small: three
# blocks of width 32, on pixels. So compare gains, not accuracies, across that line. Now, your guess?

# %% name="worth"
counts = 10, 30, 100, 300
ways = "{} labels: new", "{} labels: fine-tuning", "{} labels: probe"
systems = {"MAE": ("mae", *ways), "masked patches": ("masked_patches", *ways)}
files = "igpt", "mae", "masked_patches"
records = {file: show.recorded(f"claim-{file}") for file in files}
for name in ("BERT", "iGPT"):
    ways = f"{name}, {{}} labels, from scratch", f"{name}, {{}} labels, fine-tuned"
    systems = {name: ("igpt", *ways)} | systems
table = {}
for name, (file, *ways) in systems.items():
    figures = records[file]["figures"]
    rows = [[figures[way.format(n)]["mean"] for n in counts] for way in ways]
    gain = [after - before for before, after in zip(*rows[:2], strict=True)]
    table[name] = dict(zip(("new", "fine-tuned", "probe"), rows, strict=False))
    table[name] |= {"gain": gain}
print(f"{'labels':26}", *(f"{count:>6}" for count in counts))
for name, rows in table.items():
    for what, row in rows.items():
        shown = [f"{x:+.2f}" if what == "gain" else f"{x:.2f}" for x in row]
        print(f"{name:15}{what:11}", *(f"{x:>6}" for x in shown))

# %% name="worth-figure"
lines = {name: (counts, rows["gain"]) for name, rows in table.items()}
drawing = show.lines(lines, "labels", "accuracy, minus a new model's", log="x")
drawing.axes[0].axhline(0, color="black", linewidth=1)
alt = (
    "Gain in accuracy by the number of labels. BERT gains most, 0.19 with 30 labels; "
    "MAE 0.17 with 10, then less; masked patches 0.07 with 10, then nearly nothing. "
    "With 300, all gain 0.05 or less."
)
show.figure(drawing, alt)


# %% name="worth-pairs"
def each(differences):
    return "  ".join(f"{difference:+.3f}" for difference in differences)


words = {"igpt": ("pre-training helps",), "mae": ("beats", "ten points")}
words["masked_patches"] = words["mae"]
for name, record in records.items():
    print(show.origin(record))
    for text, pair in record["pairs"].items():
        if any(word in text for word in words[name]):
            found = "holds   " if pair["holds"] else "negative"
            print(" ", found, each(pair["difference"]), text)

# %% [markdown] name="worth-answer"
# - **MAE: the fewer labels, the more it buys.** 17 points with 10, 7 with 30, 4 with 100, 1 with 300, with
#   every seed. The ten points that were expected hold with 10 labels alone: a negative result for the others.
# - **Masked patches** help less: 7 points with 10 labels; with 30, not with every seed.
# - **On pixels** pre-training helps with every seed, at every number of labels: with 30, where both
#   gain most, BERT gains 13 to 27 points, iGPT 9 to 13.
# - **Probes part the two.** MAE's beats a new model with 10 and 30 labels; that of masked patches is behind
#   everywhere. With 300 labels both are: what is frozen cannot use them.

# %% [markdown] name="longer-text"
# ### On photographs, with a GPU
#
# `python -m benchmarks.longer without_labels` asks the same of CIFAR-10: an MAE learns all 50,000 photographs,
# then come 1 % or 10 % of the labels. Expected, before any run: with 1 %, fine-tuning beats a new model by
# more than with 10 %. Below stands what was recorded on a GPU, if anything was; it is not run here.

# %% name="longer"
longer = show.recorded_on_gpu("longer-without_labels")
if longer:
    last, mean = longer["pre-training"][-1], longer["error of the mean image"]
    print(f"mean squared error {last['error']:.2f}, of the mean image {mean:.2f}")
    print(f"after {last['epoch']} epochs of pre-training, {last['seconds']:.0f} s")
    for row in longer["rows"]:
        print(f"{row['labels']:>6,} labels  {row['way']:12}", end="")
        print(f"{row['accuracy']:.3f}, {row['steps']:,} steps, {row['seconds']:.0f} s")

# %% [markdown] name="fair"
# ### What this cannot show
#
# - The same digits serve for pre-training and for fine-tuning. The authors pre-train on millions of images.
# - 400 steps with labels are what all get, at rates that suit each. Lesson 13 makes a new model learn from few
#   images in other ways.
# - Pre-training is not free: MAE had 4,400 steps before. At equal *work* the question is another one.
# - Patches of four pixels, five greys: what is hard to tell of a photograph may be little here.
#
# ## The papers in a table

# %% name="table"
for paper in papers.papers().values():
    if paper.lesson == "18":
        print(f"{paper.name}, {paper.authors} {paper.year}: {compare.changes(paper)}")
        for name, config in paper.configs.items():
            count = compare.parameters(name)
            said = f"   reported {config.reported}" if config.reported else ""
            print(f"    {name:12}{count:>13,}{said}")

# %% [markdown] name="authors"
# What the authors report, ImageNet, in percent:
#
# | | |
# |---|---|
# | iGPT-XL, linear probe of five layers at once, at 64 x 64 pixels | 72.0 |
# | MAE, ViT-L, fine-tuned | 85.9 |
# | MAE, ViT-H, at 448 x 448 | 87.8 |
# | masked patches, ViT-B/16, fine-tuned | 79.9 |
#
# The last is, the paper reports, two points better than no pre-training and four behind pre-training with
# labels. The iGPT paper reports that BERT is far behind at a probe and catches up when fine-tuned, and that
# a layer in the middle is probed best. The Image Transformer reports 2.90 bits a value on CIFAR-10, 3.77 on
# ImageNet at 32 x 32. These are different questions, so this is no comparison.

# %% [markdown] name="remember"
# ## Remember
#
# - Who can tell each next pixel knows the distribution: the shares multiply to $p(x)$. Such a model draws, and
#   completes what is begun.
# - No answer may see what it has to tell: a causal mask, a zero, a mask token; or the encoder is not given it.
# - MAE reads a quarter. The inverse of a permutation puts everything back; the loss counts hidden patches alone.
# - A squared error averages over what is possible, and blurs. Drawing decides.
# - Local attention makes scores grow with the length, not with its square.
# - A probe says what features show by themselves; fine-tuning, what they can become. They need not agree.
#
# Before: [17 convolutions return](17-convolutions-return.ipynb). Next:
# [19 finding things](19-finding-things.ipynb).
#
# [Glossary](../docs/glossary.md).
