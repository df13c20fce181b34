# %% [markdown] name="title"
# # MAE: look at a quarter, tell the rest
#
# He et al. 2021,
# [Masked Autoencoders Are Scalable Vision Learners](https://arxiv.org/abs/2111.06377).
# Lesson [18 learning without labels](../18-learning-without-labels.ipynb).
#
# **The question.** Language models learn from text without labels: some words are hidden, the model
# tells them. Can a ViT learn from images in this way?
#
# **The change.** Hide not 15 % of the patches, as with words, but 75 %: else a gap is filled by copying
# what stands beside it. And do not show the encoder what is hidden, not even as a mask token: it reads
# the other quarter alone. A second, small ViT behind it puts all patches in their places and tells the
# pixels of those that are missing. It is thrown away afterwards.

# %% name="setup"
import torch

from vitcourse import data, papers, show, train, vit
from vitcourse.data.augment import Augment
from vitcourse.papers import mae

# %% [markdown] name="equation"
# ## The equation
#
# Let $M$ be the hidden patches, $x_i$ the $V = P^2 C$ pixels of patch $i$ and $\hat x_i$ the answer:
#
# $$\mathcal L = \frac{1}{|M|} \sum_{i \in M} \frac{1}{V} \lVert \hat x_i - \bar x_i \rVert^2,
# \qquad \bar x_i = \frac{x_i - \text{mean}(x_i)}{\sqrt{\text{var}(x_i) + 10^{-6}}}$$
#
# Each patch is normalised by itself, with the unbiased variance. What is left to be told is its
# structure, not how bright it is.
#
# How are the patches chosen? Each gets a random number, the noise, and those with the smallest are
# seen. Eight patches, of which a quarter is seen: which two? And which number takes each token back to
# its place, behind the encoder?

# %% name="small"
noise = torch.tensor([[0.6, 0.1, 0.9, 0.4, 0.3, 0.8, 0.2, 0.7]])
order = noise.argsort(dim=1)
print("patches in the order of their noise", order[0].tolist())
print("seen", order[0, :2].tolist())
back = order.argsort(dim=1)
print("where each patch stands in that order", back[0].tolist())
row = ["seen 1", "seen 6"] + ["mask"] * 6
print(", ".join(row[place] for place in back[0].tolist()))

# %% [markdown] name="difference-text"
# Sorting twice turns a permutation round. The decoder gets the tokens that were seen, behind them as
# many mask tokens as there are gaps, all the same, and takes them back to their places. Only then
# positions are added: they are all that a gap knows of itself.
#
# ## The difference
#
# An MAE is a ViT with fixed positions whose head is the decoder. These lines differ in the model:

# %% name="difference"
text = papers.diff(mae.MAE)
print(text[: text.index("Position: ")])
print({slot: part.__name__ for slot, part in papers.delta(mae.MAE).items()})

# %% [markdown] name="cost"
# What does it save that the encoder reads a quarter? And what of the published model is learned?

# %% name="count"
with torch.device("meta"):  # nothing is allocated
    model = papers.build("mae_b_16")
learned = sum(p.numel() for p in model.parameters())
tables = sum(table.numel() for table in model.buffers())
print(f"{learned:,} learned + {tables:,} in tables of waves = {learned + tables:,}")
decoder = sum(p.numel() for p in model.head.parameters())
print(f"of them {decoder:,} in the decoder")
patches = 14 * 14
seen = int(patches * (1 - model.masked))
print(f"the encoder reads {1 + seen} tokens of {1 + patches}")
print(f"scores of one head: {(1 + seen) ** 2:,} in place of {(1 + patches) ** 2:,}")

# %% [markdown] name="proof"
# ## The proof
#
# The tests hold the model against that of transformers: answers, each block of encoder and decoder, all
# gradients, the loss with and without normalised patches, the tables. Here is the identity on which all
# rests: can the model read a pixel that is hidden? If it could, the gradient of an answer with respect
# to it would not vanish.


# %% name="identity"
class Decoder(mae.Decoder):
    dim, depth, heads = 32, 1, 2


Model = mae.MAE.variant(Head=Decoder, normalised=False)
sizes = vit.Config.of("Nano/2", image=8, channels=1)
torch.manual_seed(0)
model, image = Model(sizes), torch.randn(1, 1, 8, 8, requires_grad=True)
noise = mae.draw(model, image)
model(image, noise).square().sum().backward()
touched = vit.patchify(image.grad, 2).abs().amax(dim=-1) > 0  # (B, N)
gaps = mae.hidden(model, image, noise)
print("patches that reach an answer:", touched.sum().item(), "of", touched.numel())
assert torch.equal(touched, ~gaps)
print("ok: those that are seen, and no other")

# %% [markdown] name="experiment"
# ## An experiment
#
# Digits in 16 patches of $2 \times 2$ pixels; 12 are hidden. No label is used. A patch of four pixels
# has little structure, so here the pixels are told as they are (`normalised=False`). What must an answer
# beat? The mean training image, which fills every gap alike.

# %% name="train" tags=["nbval-ignore-output"]
digits = data.load("digits")
recipe = train.RECIPES["smoke"].but(model="Nano/2", batch=64, augment=Augment())
recipe = recipe.but(epochs=40, evaluate_every=40)
model = train.build_model(recipe, digits, Model)
how = {"score": mae.score, "device": "cpu", "quiet": True}
run = train.fit(model, digits, recipe, mae.step, **how)
mean = digits.normalise(digits.images).mean(dim=0)
images = digits.normalise(digits.test_images)
error = {"mean image": (images - mean).square().mean().item()}
error["MAE"] = run.history[-1]["test_error"]
for name, value in error.items():
    print(f"{name:10} mean squared error {value:.2f}")

# %% name="train-bound"
assert error["MAE"] < 0.9 * error["mean image"]
print("ok: gaps are filled better than by the mean image")

# %% [markdown] name="look-text"
# Six test digits: the image, what the encoder is shown, and what the decoder makes of it.

# %% name="look"
six = images[:6]
noise = mae.draw(model, six, torch.Generator().manual_seed(1))
rows = [six, *mae.pictures(model, six, noise)]
pixels = [row * digits.std + digits.mean for row in rows]
gaps = mae.hidden(model, six, noise)
flat = vit.patchify(pixels[1], 2)
flat[gaps] = 0.5  # grey where nothing is seen
pixels[1] = vit.unpatchify(flat, (4, 4), 2)
titles = ["image"] * 6 + ["seen"] * 6 + ["filled"] * 6
picture = show.images([*torch.cat(pixels)], titles, columns=6)
alt = "Six digits, the quarter of each that is seen, and the same with its gaps filled"
show.figure(picture, alt)
print("hidden in each:", gaps.sum(dim=1).tolist())

# %% [markdown] name="vit-text"
# After pre-training, the decoder goes and the encoder becomes a ViT with a new head. One function does
# it. Nothing of what was learned may change:

# %% name="vit"
classifier = mae.as_vit(model, classes=10).eval()
with torch.no_grad():
    x, _ = model.encode(images)
    same, _ = classifier.encode(images)
assert torch.allclose(x, same, atol=1e-5)
print("ok: with all patches in sight, the encoder is", type(classifier).__name__)
print("its positions can be learned:", classifier.position.table.requires_grad)

# %% [markdown] name="recorded-text"
# What is that worth? With a longer pre-training, 10, 30, 100 or 300 labelled digits, and three seeds.
# "Probe": a new head alone learns. "New": a ViT that was not pre-trained, with the same steps.

# %% name="recorded"
record = show.recorded("claim-mae")
print(show.origin(record))
print(show.pairs(record))

# %% name="recorded-figure"
mean = {name: figure["mean"] for name, figure in record["figures"].items()}
ways, counts = ("fine-tuning", "probe", "new"), (10, 30, 100, 300)
series = {w: (counts, [mean[f"{n} labels: {w}"] for n in counts]) for w in ways}
picture = show.lines(series, "labelled images", "accuracy", log="x")
alt = "Accuracy by the number of labels: fine-tuned, probed, and a new model"
show.figure(picture, alt)
for count in (2, 8, 12, 14):
    filled, probe = (mean[f"{count} hidden: {what}"] for what in ("error", "probe"))
    print(f"{count:2} of 16 hidden: error {filled:.2f}, probe {probe:.2f}")

# %% [markdown] name="recorded-answer"
# How much to hide: the fewer patches are missing, the better they are filled. For a probe that is no
# guide. With 2 hidden, copying is enough; with 14, too little is seen. Between them, at 8 and 12, a probe
# is best.
#
# The more labels, the less pre-training buys: 11 to 26 points with 10 labels, 6 to 8 with 30, which is less
# than the ten that were expected (a negative result), then 1 to 6, and 0.3 to 2 with 300. It is ahead with
# every seed all the way. The probe, whose encoder learns nothing from labels, is ahead with 10 and 30, and
# behind with 300.

# %% [markdown] name="reported"
# ## What the authors report
#
# The paper reports 85.9 % on ImageNet for a ViT-L that was pre-trained and then fine-tuned on ImageNet
# alone, and 87.8 % for a ViT-H at 448 x 448.

# %% [markdown] name="remember"
# ## Remember
#
# - The encoder never sees a mask token: it is cheap in pre-training, and later meets nothing that it has
#   not met before.
# - The loss is about hidden patches alone. The answer for a seen patch is not asked for.
# - Positions are fixed waves, the column's before the row's, for a mistake on which all published weights
#   rely. They are tables in the files, and no parameters.
# - The decoder, almost a quarter of the parameters, is thrown away.
