# %% [markdown] name="title"
# # Masked patch prediction: BERT's way, with patches
#
# Dosovitskiy et al. 2020, appendix of
# [An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale](https://arxiv.org/abs/2010.11929).
# Lesson [18 learning without labels](../18-learning-without-labels.ipynb).
#
# **The question.** The ViT of the paper needs hundreds of millions of labelled images. Can it learn from
# images alone, as BERT learns from text?
#
# **The change.** Corrupt half of the patches and let the model tell their mean colours. As in BERT, a
# corrupted patch mostly becomes a mask token; sometimes it becomes another patch, and sometimes it stays.
# It is the authors' own first trial, one year before [MAE](mae.ipynb).

# %% name="setup"
import torch

from vitcourse import Config, data, papers, show, train, vit
from vitcourse.data.augment import Augment
from vitcourse.papers import masked_patches
from vitcourse.papers.masked_patches import MaskedPatchViT, mean_colours

# %% [markdown] name="equation"
# ## The equation
#
# Half of the patches, drawn at random, are the set $M$. With $c_i$ the colour of patch $i$ before the
# corruption and $\tilde x$ the corrupted patches:
#
# $$\mathcal L = -\frac{1}{|M|} \sum_{i \in M} \log p(c_i \mid \tilde x), \qquad
# \tilde x_i = \begin{cases} \text{mask token} & 80\ \% \\ \text{another patch} & 10\ \% \\
# x_i & 10\ \% \end{cases}$$
#
# A colour is the mean of a patch with 3 bits a channel: $8^3 = 512$ colours. So a regression becomes a
# classification, as with words.
#
# Which of 512 is a patch whose mean is 0.9 red, 0.3 green and 0.05 blue?

# %% name="small"
mean = torch.tensor([0.9, 0.3, 0.05])
patch = mean[:, None, None].expand(3, 2, 2)  # (C, P, P), one colour
levels = (mean * 8).long()
print("levels, 0 to 7:", levels.tolist())
number = mean_colours(patch[None], patch=2)
print("colour number", number.item(), "=", "7*64 + 2*8 + 0")
assert number.item() == 7 * 64 + 2 * 8 + 0

# %% [markdown] name="difference-text"
# ## The difference
#
# Patches are corrupted after they were embedded and before positions are added: a masked patch knows its
# place. The head reads the patches in place of the class token. What differs from the ViT:

# %% name="difference"
text = papers.diff(MaskedPatchViT)
print(text[text.index("+def corrupt") :])

# %% [markdown] name="difference-answer"
# The encoder reads all tokens, and half of them are told. An MAE's reads a quarter, and three quarters
# are told: a step costs less and asks for more.
#
# ## The proof
#
# The tests walk through all patches with loops: each kind of corruption is compared with a ViT whose
# image was changed by hand. Here are two of these identities. A patch that is swapped: the model must
# answer as if the pixels of the other patch had been copied over. And can a masked patch be read?

# %% name="identity"
torch.manual_seed(0)
model = MaskedPatchViT(Config.of("Nano/2", image=8, channels=1)).double().eval()
image = torch.randn(1, 1, 8, 8).double()
noise = torch.full((1, 16, 3), 0.7)  # 0.5 or more: not corrupted
noise[0, 4] = torch.tensor([0.3, 0.85, 0.0])  # corrupted, swapped, for the next patch
copied = vit.patchify(image, 2).clone()
copied[0, 4] = copied[0, 5]
copied = vit.unpatchify(copied, (4, 4), 2)
assert torch.allclose(model.encode(image, noise)[0], model.encode(copied)[0])
print("ok: swapped, as if its pixels had been copied")

noise[0, 4, 1] = 0.4  # corrupted, masked
image.requires_grad_()
model.encode(image, noise)[0].square().sum().backward()
touched = vit.patchify(image.grad, 2).abs().amax(dim=-1)[0] > 0  # (N,)
print("patches that can be read:", touched.sum().item(), "of", len(touched))
assert not touched[4]
print("ok: all but the masked one")

# %% [markdown] name="experiment"
# ## An experiment
#
# Digits in 16 patches of $2 \times 2$ pixels, without labels. With one channel there are 8 greys. Which
# answer must the model beat? The commonest grey, said of every patch.

# %% name="train" tags=["nbval-ignore-output"]
digits = data.load("digits")
recipe = train.RECIPES["smoke"].but(model="Nano/2", batch=64, augment=Augment())
recipe = recipe.but(epochs=18, evaluate_every=18)
model = train.build_model(recipe, digits, MaskedPatchViT)
step, score = masked_patches.telling_colours(digits), masked_patches.score
run = train.fit(model, digits, recipe, step, score=score, device="cpu", quiet=True)
truth = mean_colours(digits.test_images.float() / 255, patch=2)  # (n, N)
commonest = (truth == truth.flatten().mode().values).float().mean().item()
right = run.history[-1]["test_colours"]
print(f"right of corrupted patches: {right:.2f}; the commonest grey: {commonest:.2f}")

# %% name="train-bound"
assert right > commonest + 0.05
print("ok: it has learned to tell greys")

# %% [markdown] name="look-text"
# Six test digits: the image, the mean greys of its patches, and what the model tells where every second
# patch is masked. A grey that is told is shown as the middle of its level.

# %% name="look" tags=["nbval-ignore-output"]
six = digits.test_images[:6]
noise = torch.zeros(6, 16, 3)  # first number 0: corrupted; second 0: masked
checkers = (torch.arange(16) // 4 + torch.arange(16)) % 2 == 0
noise[:, ~checkers, 0] = 1.0
with torch.no_grad():
    told = model(digits.normalise(six), noise).argmax(dim=-1)  # (B, N)
true = mean_colours(six.float() / 255, patch=2)
shown = torch.where(checkers, told, true)
greys = [(number.float() + 0.5).view(-1, 4, 4) / 8 for number in (true, shown)]
rows = [*(six[:, 0].float() / 255), *greys[0], *greys[1]]
titles = ["image"] * 6 + ["greys"] * 6 + ["half told"] * 6
picture = show.images(rows, titles, columns=6)
alt = "Six digits, the mean greys of their patches, and the same with half of them told"
show.figure(picture, alt)
black = (true == 0)[:, checkers]
share = black.float().mean().item()
right = ((told == 0)[:, checkers] == black).float().mean().item()
always = max(share, 1 - share)
print(f"black or not, right: {right:.2f}; one answer for all: {always:.2f}")

# %% name="look-bound"
assert right > always + 0.1
print("ok: it knows where the digit is")

# %% [markdown] name="recorded-text"
# What is that worth where labels are few? All is as in MAE's experiment: the same labelled images, the same
# 400 steps with them, the same new models. Only pre-training has half as many steps here, as one takes
# longer. "Probe": a new head alone learns. "New": a ViT that was not pre-trained.

# %% name="recorded"
record = show.recorded("claim-masked_patches")
print(show.origin(record))
print(show.pairs(record))

# %% name="recorded-figure"
mean = {name: figure["mean"] for name, figure in record["figures"].items()}
ways, counts = ("fine-tuning", "probe", "new"), (10, 30, 100, 300)
series = {w: (counts, [mean[f"{n} labels: {w}"] for n in counts]) for w in ways}
picture = show.lines(series, "labelled images", "accuracy", log="x")
alt = "Accuracy by the number of labels: fine-tuned, probed, and a new model"
show.figure(picture, alt)

# %% [markdown] name="recorded-answer"
# Fine-tuned, it helps with every seed at 10 labels, by 2 to 12 points, and at 100 and 300, by less; at 30, not
# with every seed. The probe is behind a new model everywhere: nothing asked the class token to hold anything,
# and a head alone finds little in it. [MAE](mae.ipynb) gives more with 10 and 30 labels, with every seed: 17
# points with 10 where this gives 7. With 100 and 300 the two are level. Its probe beats a new model with 10
# and 30.
#
# ## What the authors report
#
# The paper reports, for a ViT-B/16 that was pre-trained in this way on JFT-300M, 79.9 % on ImageNet: two
# points more than without pre-training, and four less than with supervised pre-training.

# %% [markdown] name="remember"
# ## Remember
#
# - Every token passes through the encoder, so pre-training costs as much as training.
# - The mask token is seen in pre-training and never again. Patches that were swapped or kept soften this.
# - The loss is about every corrupted patch, also about those that were kept: the model cannot know which
#   they are.
# - Nobody reads the class token in pre-training. A new head finds there what the blocks happen to bring.
