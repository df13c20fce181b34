# %% [markdown] name="title"
# # iGPT: an image, pixel after pixel
#
# Chen et al. 2020,
# [Generative Pretraining from Pixels](https://proceedings.mlr.press/v119/chen20s.html).
# Lesson [18 learning without labels](../18-learning-without-labels.ipynb).
#
# **The question.** Language models learn from text that nobody has labelled, by guessing the next word.
# Can the same model learn from images without labels, and without being told that an image has two
# dimensions?
#
# **The change.** Take a small image, give each pixel one of 512 colours, and write the numbers down row
# by row. That is a text. A decoder like GPT-2 learns to guess the next number. Afterwards, its features
# serve a classifier.

# %% name="setup"
import torch

from vitcourse import data, papers, show, train
from vitcourse.papers import igpt
from vitcourse.papers.compare import source

# %% [markdown] name="equation"
# ## The equation
#
# $$L_{AR} = -\frac1N \sum_{i=1}^N \log p(x_i \mid x_1, \dots, x_{i-1}) \qquad
# L_{BERT} = -\frac1{|M|} \sum_{i \in M} \log p(x_i \mid x_j,\ j \notin M)$$
#
# $x_i$ is the colour of pixel $i$ in raster order. Auto-regressive (AR): each pixel from those before
# it. BERT: hide a random set $M$, 15 % of the pixels, and tell them from all others.
#
# The palette comes from k-means: 512 colours for photos, 9 bits instead of 24. For digits, five grey
# levels do. This is the text that the model reads. What would each pixel cost if you knew no more than
# how frequent the five levels are?

# %% name="small"
digits = data.load("digits")
palette = igpt.find_palette(digits.images, 5)  # (colours, C), from -1 to 1
colours = igpt.quantise(digits.images, palette)  # (n, N)
print("levels", [round(v, 1) for v in palette.flatten().tolist()], "\n")
for row in colours[0].view(8, 8).tolist():
    print(*row)
frequent = torch.bincount(colours.flatten()).double()
frequent /= frequent.sum()
unigram = -(frequent * frequent.log()).sum().item()
print(f"\nby frequency alone, a pixel costs {unigram:.2f} nats")

# %% [markdown] name="small-answer"
# With five equally frequent levels it would be $\ln 5 = 1.61$. Every nat below that is something known
# about digits. To know more, the model must look at the pixels before.
#
# ## The difference
#
# The blocks are the core's, with a mask. New is what stands in the place of each pixel: the one before
# it, so that no pixel reads itself.

# %% name="difference"
print(*source(igpt.CausalAttention.attend), sep="\n", end="\n\n")
print(*source(igpt.IGPT.embed), sep="\n", end="\n\n")
print(*source(igpt.PixelBert.embed), sep="\n")

# %% [markdown] name="cost-text"
# BERT has no mask and nothing is shifted. Hidden pixels are zeros, to which the position is added: there
# is no token that stands for "hidden".
#
# Three small things differ from the ViT as well: the norm divides by the root mean square and subtracts
# no mean, GELU is $x\,\sigma(1.702\,x)$, and nothing has a bias. So what does iGPT-S count?

# %% name="count"
D, L, V, N = 512, 24, 512, 32 * 32  # width, depth, colours, pixels
with torch.device("meta"):  # nothing is allocated
    model, ported = papers.build("igpt_s"), papers.build("igpt_s", biases=True)
count, more = (sum(p.numel() for p in m.parameters()) for m in (model, ported))
blocks = L * (4 * D * D + 8 * D * D + 2 * D)  # attention, MLP, two norms
tables = V * D + D + N * D  # colours, what stands before the first pixel, positions
assert count == blocks + tables + D + V * D  # the last norm and the head
print(f"{count:,} parameters, {tables + V * D:,} of them in tables and head")
assert more - count == L * 9 * D
print(f"{more:,} in the port of transformers, which has biases")

# %% [markdown] name="proof"
# ## The proof
#
# A model that guesses one pixel after another is a probability distribution over images. So the
# probabilities of **all** images must add up to one, whatever the weights are. For 2 x 2 pixels in three
# colours that can be tried: there are 81.
#
# And drawing must be the same as training: pixel by pixel, with the keys and values of earlier pixels
# remembered, or all in one go.

# %% name="identities"
torch.manual_seed(0)
small = igpt.IGPT(igpt.Sizes(dim=24, depth=2, heads=3, colours=3, image=2)).double()
torch.nn.init.normal_(small.head.weight)
levels = torch.arange(3)
everything = torch.cartesian_prod(levels, levels, levels, levels)  # (81, N)
with torch.no_grad():
    chance = [(-4 * small.objective(one[None])).exp() for one in everything]
    assert abs(sum(chance) - 1) < 1e-12
    wanted, steps = small(everything), []
    with igpt.remember(small):
        for i in range(4):
            x = small.embed(everything[:, : i + 1])[:, i:]  # one pixel
            steps.append(small.head(small.decode(x)))
    assert torch.allclose(torch.cat(steps, dim=1), wanted, atol=1e-12)
print("ok: 81 images together have the probability one")
print("ok: with memory, pixel by pixel, the logits are the same")

# %% [markdown] name="proof-more"
# The tests compare the whole model, its gradients, the classifier and the colours with transformers, the
# palette and the probe with scikit-learn, and notice 21 planted errors, such as a mask that is off by
# one.
#
# ## An experiment
#
# A tiny iGPT learns digits for six epochs. No label is used.

# %% name="train" tags=["nbval-ignore-output"]
test = igpt.quantise(digits.test_images, palette)
torch.manual_seed(0)
new = igpt.IGPT(igpt.Sizes(dim=32, depth=3, heads=4, colours=5, image=8))
model = igpt.IGPT(new.sizes)
model.load_state_dict(new.state_dict())
recipe = train.Recipe(epochs=6, batch=64, lr=5e-3, evaluate_every=6)
run = train.fit(
    model,
    digits,
    recipe,
    step=lambda model, batch: model.objective(colours[batch.index]),
    score=lambda model, _: {"nats": model.objective(test)},
    device="cpu",
    quiet=True,
)
nats = run.history[-1]["test_nats"]
print(f"nats for a pixel of the test images: {nats:.2f}, by frequency {unigram:.2f}")

# %% name="train-bound"
assert nats < 0.85 * unigram
print("ok: it knows more of digits than how frequent a level is")

# %% [markdown] name="draw-text"
# Give it the upper half of digits that it has never seen, and let it draw the rest, three times each.

# %% name="draw" tags=["nbval-ignore-output"]
chosen = [0, 8, 13, 21]
half = test[chosen][:, :32]
generator = torch.Generator().manual_seed(0)
drawn = [igpt.sample(model, half, generator, temperature=0.8) for _ in range(3)]
rows = [test[chosen], torch.nn.functional.pad(half, (0, 32)), *drawn]
pictures = igpt.paint(torch.stack(rows, dim=1).flatten(0, 1), palette, (8, 8))
titles = ["test image", "given", "drawn", "drawn", "drawn"] + [""] * 15
picture = show.images(pictures, titles, columns=5)
alt = "Four digits, each whole, its upper half as given, and completed three times"
show.figure(picture, alt)

# %% name="draw-bound"
assert all(torch.equal(row[:, :32], half) for row in drawn)
lying = drawn[0].view(-1, 8, 8).mT.flatten(1)  # columns for rows
costs = model.objective(drawn[0]).item(), model.objective(lying).item()
assert costs[0] < 0.95 * costs[1]
print("ok: what was given stays; laid on their side, the drawings are less likely")

# %% [markdown] name="probe-text"
# What do the features know of classes? A linear probe reads the mean over the pixels, layer by layer,
# with 300 labels. Nothing else is trained. The other line is the same model before training.

# %% name="probe" tags=["nbval-ignore-output"]
labels, probed = digits.labels[:300], {}
for name, one in {"trained": model, "new": new}.items():
    with torch.no_grad():
        pairs = zip(one.features(colours[:300]), one.features(test), strict=True)
    guesses = [igpt.linear_probe(x.mean(1), labels, y.mean(1)) for x, y in pairs]
    probed[name] = [(g == digits.test_labels).double().mean().item() for g in guesses]
    print(f"{name:8}", [round(accuracy, 2) for accuracy in probed[name]])
alt = "Accuracy of the probe for each layer, of the trained model and of the new one"
show.figure(show.lines(probed, "layer", "accuracy of the probe"), alt)

# %% name="probe-bound"
assert max(probed["trained"]) > max(probed["new"])
print("ok: without labels, it has learned something about classes")

# %% [markdown] name="recorded-text"
# The same model with three seeds, beside BERT of the same size, for twelve epochs each. Probes have 300
# labels. Layer 0 is what the first block reads, layer 3 what the head reads.

# %% name="recorded"
record = show.recorded("claim-igpt")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="labels-text"
# And what is pre-training worth where labels are few? All of each model is trained on with 10 to 300
# labels and both losses, 400 steps; beside it, the same from new weights.

# %% name="labels"
counts, figures = (10, 30, 100, 300), record["figures"]
series = {
    f"{name}, {way}": [figures[f"{name}, {n} labels, {way}"]["mean"] for n in counts]
    for name in ("iGPT", "BERT")
    for way in ("fine-tuned", "from scratch")
}
series = {name: (counts, values) for name, values in series.items()}
alt = "Accuracy over the number of labels, of both models, fine-tuned and from scratch"
show.figure(show.lines(series, "labels", "accuracy", log="x"), alt)

# %% [markdown] name="found"
# A lower loss goes with a better probe, as the authors found. But the last layer is the best, not one in
# the middle; and iGPT is not ahead of BERT, neither probed nor fine-tuned.
#
# Pre-training helps with every seed, at every number of labels. With 30 labels, it gives iGPT 9 to 13
# points and BERT 13 to 27; with 300, 3 to 8 and 1 to 5. The digits that are labelled were seen in
# pre-training, too: what is new is only their names.

# %% [markdown] name="reported"
# ## What the authors report
#
# A linear probe on ImageNet: 60.3 % for iGPT-L with 32 x 32 pixels, 65.2 % with 48 x 48, 68.7 % for
# iGPT-XL with 64 x 64, and 72.0 % when it reads five layers at once. In iGPT-L, the best of 48 layers is
# near the 20th. On CIFAR-10, 96.3 % with a probe and 99.0 % fine-tuned. A lower loss gives a better
# probe. BERT is far behind when probed and nearly level once fine-tuned.

# %% [markdown] name="remember"
# ## Remember
#
# - The pixels are shifted by one: in the place of each stands the one before. The last is never read.
# - Attention costs $N^2$: 64 x 64 pixels need 256 times the scores of 16 x 16. Hence small images and a
#   palette.
# - Drawing takes one run of the model for each pixel. Remembered keys and values make each run that of
#   one token.
# - BERT's loss is a mean over the hidden pixels of each image; its losses are not those of AR and must
#   not be compared with them.
# - Fine-tuning keeps the loss of pre-training beside that of the labels.
