# %% [markdown] name="title"
# # 11 · Looking inside
#
# A trained ViT names a red circle. What has it learned? This lesson opens it from the first layer to the
# last: the patterns its patches are read with, its positions, where each head looks, how far, and how
# tokens change with depth. Each measure is tried first where its answer is known, and stands beside a
# model that has learned nothing.
#
# **A question first.** Two maps claim to show what the model looked at. Map A puts 71 % of its heat on
# the object, map B only 37 %. From which one do you learn more about what the answer depends on? Write
# down A or B, and why. Sections 8 and 9 find out.

# %% name="setup"
import torch
import torch.nn.functional as F

from vitcourse import check, data, make_vit, probe, show

# %% [markdown] name="models-text"
# ## 1 · What is looked at
#
# The course ships a small ViT that names a form and its colour: 32 x 32 pixels, patches of 4 x 4, four
# layers, three heads. Beside it stands the same model as it was before training, with random weights.
#
# `record_attention` keeps the maps of every layer, `record_tokens` what leaves each block. Both work on
# 500 test pictures. T is 65: the class token and 64 patches.

# %% name="models"
torch.set_grad_enabled(False)  # nothing is trained in this lesson
shapes, model = data.load("shapes"), data.trained("shapes")
torch.manual_seed(11)
untrained = make_vit("Nano/4", image=32, classes=8).eval()
pictures, labels = shapes.test_images[:500], shapes.test_labels[:500]
images, grid = shapes.normalise(pictures), model.cfg.grid  # (B, C, H, W), (h, w)


def inside_of(model, images):  # -> logits, maps (L, B, K, T, T), tokens (L, B, T, D)
    with probe.record_attention(model) as maps, probe.record_tokens(model) as tokens:
        logits = model(images)
    return logits, torch.stack(maps), torch.stack(tokens)


logits, maps, tokens = inside_of(model, images)
_, untrained_maps, untrained_tokens = inside_of(untrained, images)
right = (logits.argmax(dim=1) == labels).float().mean()
print("maps", tuple(maps.shape), "tokens", tuple(tokens.shape))
print(f"named rightly: {right:.2f}")

# %% [markdown] name="filters-text"
# ## 2 · What a patch is read for
#
# The first layer holds D filters, each as large as a patch. Many of them say nearly the same. So one asks
# for their **principal components**: the few patterns of which the filters are mixtures.
#
# Four filters of 2 x 2, mixed by hand from two patterns: *bright on the left* counts for much, *bright
# at the top* for little. Both must come back.

# %% name="filters-small"
left = torch.tensor([1.0, -1.0, 1.0, -1.0]) / 2
top = torch.tensor([1.0, 1.0, -1.0, -1.0]) / 2
filters = torch.stack([3 * left, -3 * left, top, -top])  # (D, P*P)
patterns, share = probe.filter_components(filters.view(4, 1, 2, 2), count=2)
for i, (name, pattern) in enumerate((("left", left), ("top", top))):
    found = (patterns[i].flatten() @ pattern).abs()
    print(f"component {i}: {share[i]:.2f} of the variance, is '{name}' to {found:.2f}")

# %% [markdown] name="filters-trained-text"
# Now the 48 filters of the trained model, and those of the untrained one: the first 28 patterns of each,
# drawn around grey. The sign of a pattern means nothing: a filter may hold it with plus or with minus.

# %% name="filters-figure"
parts = {}
for name, one in (("trained", model), ("untrained", untrained)):
    patterns, parts[name] = probe.filter_components(one.patch_embed.proj.weight)
    peak = patterns.abs().amax(dim=(1, 2, 3), keepdim=True)
    alt = {
        "trained": "28 patterns of the trained model: the first four have one side in "
        "blue and the other in orange or brown; the others look like noise.",
        "untrained": "28 patterns of the untrained model: all of them look like noise.",
    }[name]
    print(f"{name}:")
    show.figure(show.images(0.5 + patterns / peak / 2, columns=14, size=0.6), alt)

# %% name="filters-share"
for name, share in parts.items():
    first = ", ".join(f"{part:.3f}" for part in share[:4])
    print(f"{name:>9}: first four {first}; first ten {share[:10].sum():.2f}")
assert parts["trained"][0] > 1.3 * parts["untrained"][0]
print("ok: training has put more of the filters into few patterns")

# %% [markdown] name="filters-note"
# Look at the first four of the trained model: one side is blue, the other orange or brown, as at the edge
# of a blue or a red object. From the fifth on they are hard to tell from noise, and the first ten hold
# 0.61 of the variance in place of 0.56. So training has written something into the filters, and not
# much. Nothing forces the filters of so small a task to be tidy.
#
# Dosovitskiy et al. (2020) show the first 28 of a ViT-L/32 that was trained on many millions of
# photographs, and describe them as a plausible basis for the fine structure within a patch. Those look
# like waves of all directions and lengths.

# %% [markdown] name="positions-card"
# ## 3 · What positions have learned
#
# ### Exercise: how alike are two places?
#
# 8 minutes · difficulty 2 of 3
#
# A table of positions is (1, R+N, D); the R rows of prefix tokens come first. Give back (h, w, h, w): the
# cosine of the vector of every place with that of every place. `grid` is (h, w), and the places lie in
# the table row by row.
#
# A hint: `check.hint("position_similarity")`. The solution: `check.solution("position_similarity")`.


# %% name="positions-stub" tags=["exercise"]
def position_similarity(table, grid):
    """Table (1, R+N, D), grid (h, w) -> cosines (h, w, h, w)."""
    ...


# %% name="positions-check" tags=["check"]
check.position_similarity(position_similarity)

# %% [markdown] name="positions-text"
# Nobody tells a ViT that places lie in rows and columns: the table starts at random. Has it found out?
# The cell compares places in one row or column with all other pairs.
#
# All positions of this model share a large common part. It makes every pair alike and says nothing about
# places. `centre=True` takes it away, the mean of all places, before the cosine. Two yardsticks:
# random tables, which know nothing, and the sines and cosines of lesson 03, which know all by
# construction.

# %% name="positions"
from vitcourse.parts import sincos

places = torch.cartesian_prod(torch.arange(8), torch.arange(8))  # (N, 2)
in_line = (places[:, None] == places).any(dim=-1) & ~torch.eye(64, dtype=torch.bool)
elsewhere = (places[:, None] != places).all(dim=-1)


def lines_and_others(table, centre=True):  # -> mean cosine in one line, and of others
    flat = probe.position_similarity(table, grid, centre).reshape(64, 64)
    return flat[in_line].mean().item(), flat[elsewhere].mean().item()


learned = model.position.table
random = [torch.randn_like(learned) for _ in range(20)]
known = {
    "trained, as it is": lines_and_others(learned, centre=False),
    "trained, centred": lines_and_others(learned),
    "sines, centred": lines_and_others(sincos(48, grid)),
}
for name, (one, other) in known.items():
    print(f"{name}: {one:.3f} in one line, {other:.3f} others")
gaps = [one - other for one, other in map(lines_and_others, random)]
print(f"random, centred: the gap is {max(map(abs, gaps)):.3f} at most, in 20 tables")

# %% name="positions-bound"
one, other = lines_and_others(learned)
assert one - other > 2 * max(map(abs, gaps))
print("ok: places in one row or column are more alike than in any random table")

# %% name="positions-figure"
chosen = [(1, 1), (3, 4), (6, 2)]
learned_maps = probe.position_similarity(learned, grid, centre=True)
sine_maps = probe.position_similarity(sincos(48, grid), grid, centre=True)
drawn = [table[y, x] for table in (learned_maps, sine_maps) for y, x in chosen]
titles = [f"{name}: {y}, {x}" for name in ("learned", "sines") for y, x in chosen]
alt = (
    "How alike one place is to all places, for three places. Learned: the place "
    "itself, some of its neighbours a little, and much that looks like noise. "
    "Sines: a round area around the place, and opposite values far away from it."
)
show.figure(show.heatmaps(drawn, titles, columns=3, size=1.7, limits=(-0.6, 0.6)), alt)

# %% name="positions-far"
between = (places[:, None] - places).float().norm(dim=-1)  # (N, N), in patches
flat = learned_maps.reshape(64, 64)
noise = probe.position_similarity(random[0], grid, centre=True).reshape(64, 64)
rings = [(between > far - 0.5) & (between <= far + 0.5) for far in range(1, 8)]
series = {
    "trained": (range(1, 8), [flat[ring].mean() for ring in rings]),
    "a random table": (range(1, 8), [noise[ring].mean() for ring in rings]),
}
print(f"direct neighbours, trained: {flat[between == 1].mean():.2f}")
alt = (
    "Mean centred cosine of two places against their distance in patches. Trained: "
    "0.09 at distance 1, falling to -0.06 at 4, rising again after 6. Random: flat "
    "near zero."
)
show.figure(show.lines(series, "distance in patches", "mean cosine, centred"), alt)

# %% [markdown] name="positions-note"
# So the model did find out, a little. Neighbours resemble each other, the likeness falls up to four
# patches away, and rows and columns stand out from noise in the mean over all pairs. In the maps of single
# places you hardly see it.
#
# The famous picture of the paper, in which every place resembles its row and column most, is from a
# ViT-L/32 that was trained on a set of millions. Here 4,000 drawings were enough to name forms, and a
# rough idea of where a patch lies was enough for that.

# %% [markdown] name="maps-text"
# ## 4 · Where the class token looks
#
# Twelve maps for one picture: a row for each layer, a column for each head. Bright patches give most to
# the class token. Each map has its own scale, so a bright patch in one is not as much as in another.

# %% name="maps-figure"

i = (labels == 2).nonzero()[3].item()  # a red square
alt = (
    "A red square, and twelve maps of what the class token takes from each patch. "
    "Heads 0 and 2 of layer 0 and head 0 of layer 1 spread over the background and "
    "leave the square dark. All others light two to six patches of the square or "
    "its edge."
)
show.figure(show.attention_maps(pictures[i], maps[:, i], grid), alt)

# %% [markdown] name="explore-text"
# Every other token looks somewhere, too. Here are all layers, heads and tokens of this picture. Choose a
# patch, then a layer and a head. In which layers does a patch of the background look at the square? Does
# a patch of the square look at its neighbours, or at all of the square?
#
# Keep your answer for section 6, which counts.

# %% name="explore"
alt = "A red square, and what each token takes from each patch: 4 layers, 3 heads."
show.attention(model, pictures[i], alt, normalise=shapes.normalise)

# %% [markdown] name="rollout-text"
# ## 5 · Rollout: through all layers
#
# A map of the last layer speaks of tokens that have been through three blocks. Do they still stand for
# the patch they came from? Three tokens, two layers, rows that sum to one:
#
# - layer 1: b takes all from a. The others keep what they have.
# - layer 2: the class token takes all from b.
#
# The last map says: *it looked at b*. What it got is a. **v1** multiplies the maps, the later one on the
# left. In the other order the result is another.

# %% name="rollout-small"
layer_1 = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]])  # rows: class token, a, b
layer_2 = torch.tensor([[0.0, 0, 1], [0, 1, 0], [0, 0, 1]])
print("last map:          ", layer_2[0].tolist())
print("v1, layer 2 first: ", (layer_2 @ layer_1)[0].tolist())
print("the wrong order:   ", (layer_1 @ layer_2)[0].tolist())

# %% [markdown] name="rollout-residual"
# But a block adds: what attention brings, plus what was there. **v2** counts half for each. This is the
# rollout of Abnar and Zuidema (2020). With $\bar A_l$ the mean over the heads of layer $l$:
#
# $$R = \tfrac12(\bar A_L + I)\;\cdots\;\tfrac12(\bar A_2 + I)\;\tfrac12(\bar A_1 + I)$$
#
# Now b is half a and half itself, and the class token is half itself, a quarter b, a quarter a.

# %% name="rollout-v2"
half_1, half_2 = (layer_1 + torch.eye(3)) / 2, (layer_2 + torch.eye(3)) / 2  # new
print("v2:", (half_2 @ half_1)[0].tolist())
check.predict("what rollout leaves of a token itself at least, after 4 blocks", ...)

# %% [markdown] name="rollout-card"
# ### Exercise: rollout
#
# 12 minutes · difficulty 2 of 3
#
# Now for a batch, all heads and any number of layers: `maps` (L, B, K, T, T) gives (B, T, T). Average the
# heads, count half for the residual path, multiply, later layers on the left. Every row must sum to one.
#
# A hint: `check.hint("rollout")`. The solution: `check.solution("rollout")`.


# %% name="rollout-stub" tags=["exercise"]
def rollout(maps):
    """Maps (L, B, K, T, T) -> what of each input reaches each output (B, T, T)."""
    ...


# %% name="rollout-check" tags=["check"]
check.rollout(rollout)

# %% name="rollout-proof"
reach = probe.rollout(maps)  # (B, T, T)
a, b, c, d = ((layer[i].mean(dim=0) + torch.eye(65)) / 2 for layer in maps)  # v3  # new
assert torch.allclose(d @ c @ b @ a, reach[i], atol=1e-6)
print("ok: four layers multiplied by hand equal probe.rollout")
print(f"rows sum to one: {torch.allclose(reach.sum(dim=-1), torch.ones(500, 65))}")
print(f"the class token keeps {reach[:, 0, 0].mean():.3f} of itself, at least 1/16")

# %% [markdown] name="rollout-figure-text"
# Three pictures, each lit by two maps of the class token: the last layer's, mean of the heads, and the
# rollout. The brightest patch of each map has full light.

# %% name="rollout-figure"
last = maps[-1].mean(dim=1)[:, 0, 1:].unflatten(1, grid)  # (B, h, w)
rolled = reach[:, 0, 1:].unflatten(1, grid)  # (B, h, w)


def lit(picture, heat):
    light = (heat / heat.max()).repeat_interleave(4, 0).repeat_interleave(4, 1)
    return picture / 255 * (0.1 + 0.9 * light)


three = [i, *((labels == k).nonzero()[0].item() for k in (6, 1))]
shown = []
for n in three:
    shown += [pictures[n], lit(pictures[n], last[n]), lit(pictures[n], rolled[n])]
alt = (
    "Three pictures, each beside two copies lit by a map. The last layer's map "
    "lights a few patches of the object; the rollout lights more of the object, "
    "patches around its edge, and the background faintly."
)
titles = ["picture", "last layer", "rollout"] * 3
show.figure(show.images(shown, titles, columns=3, size=1.5), alt)

# %% [markdown] name="rollout-limits"
# What rollout cannot say. It knows weights alone: nothing of values, of the MLPs, of what the head does
# with the class token. *Half for the residual path* is an assumption, the same for every block.
#
# Take it to the extreme. In a copy of the model, the attention of the last block gets no output any more:
# its `proj` is set to zero. The class token then takes nothing there. Predict: what happens to the
# rollout, and what to the logits?

# %% name="rollout-blind"
from copy import deepcopy

deaf = deepcopy(model)
deaf.blocks[3].attn.proj.weight.zero_()
deaf.blocks[3].attn.proj.bias.zero_()
deaf_logits, deaf_maps, _ = inside_of(deaf, images)
assert torch.allclose(probe.rollout(deaf_maps), reach, atol=1e-6)
print("ok: the rollout is the same")
for name, out in (("before", logits), ("after", deaf_logits)):
    sure = out.softmax(dim=1).gather(1, labels[:, None]).mean()
    print(f"mean probability of the right class, {name}: {sure:.2f}")

# %% [markdown] name="distance-text"
# ## 6 · How far a head looks
#
# A convolution looks at its neighbours. A head of attention may look anywhere. Where does it? The
# **attention distance** is the mean distance from a query to the patches it looks at, by weight.
#
# Three made-up heads on the 8 x 8 patches: one sees itself, one the 3 x 3 patches around it, one all 64
# alike. Guess the last, in place of the dots.

# %% name="distance-predict"
check.predict(
    "distance in whole pixels of a head that weighs 8 x 8 patches of 4 x 4 alike",
    ...,
)

# %% [markdown] name="distance-card"
# ### Exercise: attention distance
#
# 15 minutes · difficulty 3 of 3
#
# `weights` (B, K, T, T) are the maps of one layer, `grid` is (h, w), `patch` the side of a patch in
# pixels. The last h * w tokens are the patches; tokens before them have no place, so leave them out and
# let each row sum to one again. Give back (B, K): the mean over all queries of the mean distance to the
# keys.
#
# A hint: `check.hint("attention_distance")`. The solution: `check.solution("attention_distance")`.


# %% name="distance-stub" tags=["exercise"]
def attention_distance(weights, grid, patch):
    """Maps (B, K, T, T) -> how far each head looks, in pixels (B, K)."""
    ...


# %% name="distance-check" tags=["check"]
check.attention_distance(attention_distance)

# %% name="distance-known"
near = ((places[:, None] - places).abs().amax(dim=-1) <= 1).float()  # (N, N)
heads = {
    "itself": torch.eye(64),
    "3 x 3 around it": near / near.sum(dim=1, keepdim=True),
    "all alike": torch.full((64, 64), 1 / 64),
}
for name, head in heads.items():
    far = probe.attention_distance(head[None, None], grid, patch=4).item()
    print(f"{name:>15}: {far:5.2f} pixels")

# %% [markdown] name="distance-trained-text"
# The paper measured this on large models, and articles repeat it: in the first layers some heads look
# near and others far, in the last ones all look far, *as in a convolutional network*. Does our small
# model agree?


# %% name="distance-trained"
def distances(maps):  # -> (L, K), the mean over the pictures
    return torch.stack([probe.attention_distance(w, grid, 4).mean(dim=0) for w in maps])


before, after = distances(untrained_maps), distances(maps)
for layer in range(4):
    old, new = (", ".join(f"{n:.2f}" for n in row[layer]) for row in (before, after))
    print(f"layer {layer}: untrained {old}; trained {new}")
assert 14.5 < after.min() and after.max() < 17
print("ok: no head is near: all lie within 2 pixels of looking everywhere")

# %% [markdown] name="distance-why"
# It does not agree. Every head of every layer is about as far as one that looks everywhere. Before you
# conclude that these heads look everywhere: a distance is not a width. A patch in the corner that looks
# at nothing but a far object has a large distance, too.
#
# So ask two more questions. Over how many tokens does a head spread, on average? (The exponential of the
# entropy: 65 if all are alike, 1 if one gets all.) And how far do the patches **of the object** look?

# %% name="distance-object"
masks = shapes.extras["test_masks"][:500]
covered = F.adaptive_avg_pool2d(masks[:, None].float(), grid).flatten(1)  # (B, N)
on = covered > 0.5  # (B, N), patches that are mostly object
apart = 4 * between  # (N, N), in pixels
among = maps[..., 1:, 1:] / maps[..., 1:, 1:].sum(dim=-1, keepdim=True)
far = (among * apart).sum(dim=-1)  # (L, B, K, N)
from_object = far.permute(1, 3, 0, 2)[on].mean(dim=0)  # (L, K)
spread = (-(maps.clamp(min=1e-9).log() * maps).sum(dim=-1)).exp().mean(dim=(1, 3))
for layer in range(4):
    width = ", ".join(f"{n:.0f}" for n in spread[layer])
    near = ", ".join(f"{n:.1f}" for n in from_object[layer])
    print(f"layer {layer}: spread over {width} tokens; from the object {near} pixels")
to_all = apart.mean(dim=1).expand(500, -1)[on].mean()
to_object = (covered / covered.sum(dim=1, keepdim=True)) @ apart  # (B, N)
to_object = to_object[on].mean()
print(f"from the object to all patches {to_all:.1f}, to the object {to_object:.1f}")

# %% name="distance-figure"
names = "untrained", "trained", "trained, from the object"
series = dict(zip(names, (before, after, from_object), strict=True))
alike = apart.mean().item()  # of a head that looks at all patches alike
everywhere = dict(zip(names, (alike, alike, to_all.item()), strict=True))
alt = (
    "Three plots of how far each head looks, a dot for each head, layer 0 to 3; a "
    "dashed line marks looking at all patches alike. Untrained: every dot on the "
    "line. Trained: every dot at most 2 pixels below it. Only from patches of the "
    "object: dots between 8 and 15 in layers 0 to 2, between 12 and 15 in layer 3, "
    "with the line at 14."
)
show.figure(show.head_distances(series, everywhere), alt)

# %% [markdown] name="distance-note"
# Heads do not look everywhere: after layer 0, some spread over about ten tokens. They look at the object,
# and from the background that is far.
#
# From the object itself, heads of layers 0 to 2 differ, some look near, and those of the last layer look
# farther. That much resembles the paper. But *near* here may mean *at the same thing*: patches of one
# object are neighbours. This measure cannot tell the two apart, and one small model settles nothing about
# large ones.

# %% [markdown] name="similarity-card"
# ## 7 · Do tokens become alike?
#
# ### Exercise: how alike are the tokens?
#
# 8 minutes · difficulty 2 of 3
#
# Attention averages, and averages of averages become alike. Measure it: tokens `x` (B, T, D) give (B,),
# the mean cosine of two different tokens of an image.
#
# A hint: `check.hint("token_similarity")`. The solution: `check.solution("token_similarity")`.


# %% name="similarity-stub" tags=["exercise"]
def token_similarity(x):
    """Tokens (B, T, D) -> the mean cosine of two different tokens (B,)."""
    ...


# %% name="similarity-check" tags=["check"]
check.token_similarity(token_similarity)

# %% [markdown] name="similarity-text"
# Over the depth of both models, patches alone. And split by the masks, because *alike* can mean two
# things: all tokens say the same, or tokens of the same thing do.

# %% name="similarity"
for name, layers in (("untrained", untrained_tokens), ("trained", tokens)):
    alike = [probe.token_similarity(x[:, 1:]).mean() for x in layers]
    print(f"{name:>9}, after each block:", ", ".join(f"{part:.2f}" for part in alike))


# %% name="similarity-split"
two = ~torch.eye(64, dtype=torch.bool)
pairs = {
    "two of the object": on[:, :, None] & on[:, None] & two,
    "two of the background": ~on[:, :, None] & ~on[:, None] & two,
    "one of each": on[:, :, None] & ~on[:, None],
}
series = {name: [] for name in pairs}
for x in tokens:
    x = F.normalize(x[:, 1:], dim=-1)  # (B, N, D)
    for name, which in pairs.items():
        series[name].append((x @ x.transpose(1, 2))[which].mean().item())
alt = (
    "Mean cosine of two patches after each of 4 blocks of the trained model. Two of "
    "the background: rising from 0.67 to 0.78. Two of the object: between 0.6 and "
    "0.7. One of each: rising from near 0 to 0.14."
)
drawn = show.lines(series, "block", "mean cosine")
drawn.axes[0].set_xticks(range(4))
show.figure(drawn, alt)
for name, values in series.items():
    print(f"{name}: " + ", ".join(f"{part:.2f}" for part in values))
assert max(series["one of each"]) < 0.3 < 0.5 < min(series["two of the object"])
print("ok: alike within a thing, unlike across its border, in every layer")

# %% [markdown] name="similarity-note"
# The trained tokens grow more alike with depth, and it does no harm: the background becomes one thing,
# the object stays another. In the untrained model nothing moves: its blocks add almost nothing to what
# the patches are from the start.
#
# In models of many more layers, all tokens can end up nearly the same, so that further blocks have
# nothing to work with. This is called **over-smoothing**, and lessons 13 and 15 meet remedies. Four
# layers are too few to show it.

# %% [markdown] name="object-text"
# ## 8 · Is the attention where the object is?
#
# The shapes were drawn by the course, so the truth is known. `probe.on_object` gives the share of a map
# that lies on the object. A map that knows nothing gets as much as the object covers. Four maps of the
# class token: the last layer's, the mean over all layers, the rollout, and layer 0's.

# %% name="object"


def four_maps(maps):  # (L, B, K, T, T) -> name: (B, h, w)
    rows = maps.mean(dim=2)[:, :, 0, 1:].unflatten(-1, grid)  # (L, B, h, w)
    rolled = probe.rollout(maps)[:, 0, 1:].unflatten(-1, grid)
    mean = rows.mean(dim=0)
    return {"last layer": rows[-1], "mean": mean, "rollout": rolled, "layer 0": rows[0]}


heats, blank = four_maps(maps), four_maps(untrained_maps)
shares = {}
for name in heats:
    share, area = probe.on_object(heats[name], masks)
    other, _ = probe.on_object(blank[name], masks)
    shares[name] = share.mean().item()
    print(f"{name:>10}: {shares[name]:.2f} on the object, untrained {other.mean():.2f}")
print(f"the object covers {area.mean():.2f} of a picture")
assert min(shares.values()) > 2 * area.mean()
print("ok: every trained map is on the object more than twice as much as by chance")

# %% name="object-figure"
alt = (
    "Bars of the share of each map on the object. Last layer 0.7, mean over the "
    "layers 0.5, rollout below 0.4, layer 0 below 0.5; a dashed line at 0.15 marks "
    "what the object covers."
)
shown = show.bars(shares, "share on the object", mark=area.mean().item())
show.figure(shown, alt)

# %% [markdown] name="object-note"
# Nobody showed the model a mask, and its maps find the object. The last layer is map A of the question at
# the start, the rollout is map B, which is half as much on the object. Is A the better one?
#
# It looks better to us. Whether the answer depends on these patches is another question, and it has a
# test.

# %% [markdown] name="without-text"
# ## 9 · Attention is not explanation
#
# Take patches away, and see what the answer does. `probe.with_tokens` shows a model only the patches you
# keep; they know their places still. From 300 pictures, 16 of 64 patches go: those that a map ranks
# highest, those that it ranks lowest, or any. Predict the six numbers below as *falls* or *stays*.

# %% name="without"
first, answers = images[:300], labels[:300]


def sure_without(order, count):  # take away the first `count` patches of each ranking
    out = probe.with_tokens(model, first, order[:, count:])
    return out.softmax(dim=1).gather(1, answers[:, None])[:, 0]  # (B,)


def ranking(heat):  # highest first, (B, N)
    return heat[:300].flatten(1).argsort(dim=1, descending=True)


torch.manual_seed(3)
anything = torch.rand(300, 8, 8)
by_chance = sure_without(ranking(anything), 16).mean()
print(f"without any 16 patches the right class gets {by_chance:.2f}")
falls = {}
for name, heat in heats.items():
    most, least = (sure_without(ranking(sign * heat), 16).mean() for sign in (1, -1))
    falls[name] = most.item()
    print(f"{name:>10}: without the highest 16 {most:.2f}, the lowest 16 {least:.2f}")
assert max(falls["last layer"], falls["rollout"]) < 0.4
print("ok: what these maps rank highest is needed")

# %% name="without-figure"
n = three[1]
shown, titles = [pictures[n] / 255], ["all 64"]
for name, heat in (("highest", last[:300]), ("any", anything), ("lowest", -last[:300])):
    order = ranking(heat)[n : n + 1]
    out = probe.with_tokens(model, images[n : n + 1], order[:, 16:])
    gone = torch.zeros(64).index_fill(0, order[0, :16], 1).view(1, 1, 8, 8)
    gone = F.interpolate(gone, size=(32, 32))[0]  # (1, H, W)
    shown.append(pictures[n] / 255 * (1 - gone) + gone)
    titles.append(f"{name} away:\n{shapes.classes[out.argmax()]}")
alt = (
    "One picture whole and three times with 16 white patches, which were taken "
    "away. The highest of the last layer cover the object; any are scattered; the "
    "lowest lie in the background. Above each stands what the model says."
)
show.figure(show.images(shown, titles, columns=4, size=1.9), alt)

# %% [markdown] name="without-note"
# So far attention explains well. But this test was generous: most of what a map ranks highest is the
# object, and without the object nobody can name it. Any way to find the object would pass. The map of
# layer 0 fails even here: losing what it ranks lowest hurts more than losing any 16.
#
# A harder test. Stay **on the object**: take away only four of its patches, those ranked highest or
# lowest among them. A map that explains must tell these apart.

# %% name="harder"
large = on[:300].sum(dim=1) >= 8  # pictures whose object has patches to lose
print(f"{large.sum()} pictures")
drops = {}
for name, heat in {"any": anything, **heats}.items():
    for side, sign in (("highest", 1), ("lowest", -1)):
        only = (sign * heat[:300].flatten(1)).masked_fill(~on[:300], -9)
        drops[name, side] = sure_without(ranking(only), 4)[large].mean().item()
    high, low = drops[name, "highest"], drops[name, "lowest"]
    print(f"{name:>10}: without its highest four {high:.2f}, its lowest four {low:.2f}")
assert abs(drops["last layer", "highest"] - drops["last layer", "lowest"]) < 0.03
assert drops["rollout", "lowest"] - drops["rollout", "highest"] > 0.1
print("ok: on the object the order of the last layer says nothing, the rollout's does")

# %% [markdown] name="harder-note"
# Map A, with most of its heat on the object, cannot say which of the object's patches matter: losing its
# lowest four hurts as much as losing its highest four, and both hurt more than losing any four. Map B
# can, and so can the plain mean over all layers: they count what the layers before the last one did. The
# map that looks more convincing is not the one that tells more.
#
# Last, patch by patch. `probe.leave_one_out` takes away each patch alone and says how far the logit of
# the right class falls. Is the patch that a map ranks first also the one whose loss hurts most?

# %% name="one-by-one"
effect = probe.leave_one_out(model, images[:40], labels[:40])  # (B, N)
print(f"patches without which the right logit rises: {(effect < 0).float().mean():.2f}")


def ranks(values):  # (B, N) -> the rank of each in its picture, standardised
    order = values.argsort(dim=1).argsort(dim=1).float()
    return (order - 31.5) / order.std(dim=1, keepdim=True, correction=0)


for name in ("last layer", "rollout"):
    heat = heats[name][:40].flatten(1)
    same = (heat.argmax(dim=1) == effect.argmax(dim=1)).sum()
    signed, size = ((ranks(heat) * ranks(e)).mean() for e in (effect, effect.abs()))
    print(f"{name:>10}: first patch agrees in {same} of 40; rank correlation", end=" ")
    print(f"{signed:.2f} with the effect, {size:.2f} with its size")

# %% [markdown] name="caution"
# In fewer than half of the pictures the first patch is the same. With the *size* of the effect both maps
# go along halfway, the rollout a little more; with the effect itself hardly at all. Without a third of the
# patches the right logit even rises, mostly by little, and no attention weight is negative: a weight says
# *how much is taken*, never *what for*.
#
# Nor is leaving out the last word. A picture with a hole is none that the model was trained on, and two
# patches that can stand in for each other look unimportant one at a time.

# %% [markdown] name="any-text"
# ## 10 · Any model
#
# All of this works on every model built from the course's parts. Here are the numbers for the model that
# reads digits: 2 layers, 4 heads, four patches.


# %% name="any"
def look(model, images):
    cfg = model.cfg
    _, share = probe.filter_components(model.patch_embed.proj.weight)
    print(f"filters: the first of {len(share)} patterns holds {share[0]:.2f}")
    _, maps, tokens = inside_of(model, images)
    blind = torch.ones(1, 1, *maps.shape[-2:])  # a head that looks everywhere
    far = probe.attention_distance(blind, cfg.grid, cfg.patch).item()
    print(f"a head that looks everywhere: {far:.1f} pixels")
    for layer, (weights, x) in enumerate(zip(maps, tokens, strict=True)):
        far = probe.attention_distance(weights, cfg.grid, cfg.patch).mean(dim=0)
        alike = probe.token_similarity(x[:, model.prefix_len :]).mean()
        row = ", ".join(f"{head:.1f}" for head in far)
        print(f"layer {layer}: distances {row} pixels; patches alike {alike:.2f}")


digits = data.load("digits")
look(data.trained("digits"), digits.normalise(digits.test_images[:200]))

# %% [markdown] name="pretrained-text"
# With a network you can look into a model trained on ImageNet. `weights.pretrained("vit_b_16")`, from
# `vitcourse`, downloads 330 MB once and gives a `ViT` with `preprocess` (from a picture to what the model
# reads). Then `look(model, model.preprocess(photo)[None])` runs as it is, and
# `show.attention(model, photo, alt, layers=[11])` explores the last layer for a photo that is cut to
# 3 x 224 x 224, uint8.
#
# `weights.load(model, file)` reads files of timm, torchvision, transformers and Google. Try sections 3 and
# 6 there: do you find rows and columns, and near heads?

# %% [markdown] name="remember"
# ## Remember
#
# - Measure on a known case first, and put an untrained model beside every figure.
# - Filters and positions of this small model show what large ones show, faintly. Say how faintly.
# - Rollout multiplies the maps of all layers with half for the residual path. It knows weights alone.
# - A head's distance depends on where the object is: far does not mean wide.
# - Tokens grow alike within a thing. All alike would be over-smoothing.
# - Attention finds the object. What the answer depends on, only an intervention tells: take it away and
#   look.
#
# Before: [10 many GPUs](10-many-gpus.ipynb). Next: [12 what it
# withstands](12-what-it-withstands.ipynb).
#
# [Glossary](../docs/glossary.md).
