# %% [markdown] name="title"
# # T2T-ViT: tokens made of tokens
#
# Yuan et al. 2021,
# [Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet](https://arxiv.org/abs/2101.11986).
# Lesson [14 better tokens](../14-better-tokens.ipynb).
#
# **The question.** A patch embedding cuts hard: an edge that crosses a border is two halves in two tokens.
# Trained on ImageNet alone, such a ViT stays behind a CNN. Are the tokens to blame?
#
# **The change.** Cut softly. Each new token is a window of old ones, and windows overlap. Do so three
# times, and let the tokens look at each other in between.

# %% name="setup"
from dataclasses import replace

import torch

from vitcourse import data, papers, show, train
from vitcourse.papers.t2t_vit import T2TViT, TokensToToken, soft_split
from vitcourse.vit import PatchEmbed, truncated_normal_

# %% [markdown] name="equation"
# ## The equation
#
# One step, from tokens $x$ on a grid to fewer tokens:
#
# $$x' = \text{MLP}(\text{Attention}(x)), \qquad I = \text{reshape}(x'), \qquad
# x'' = \text{unfold}_{k, s, p}(I)$$
#
# `unfold` takes windows of $k \times k$ places, $s$ apart, with $p$ zeros around, and writes all that is
# in a window into one token.
#
# One map of $4 \times 4$ numbers, windows of $3 \times 3$, two apart. What does the last token hold?

# %% name="small"
map = torch.arange(16.0).reshape(1, 1, 4, 4)
x, grid = soft_split(map, kernel=3, stride=2, padding=1)  # (B, N, k*k), grid
print("grid", grid)
for token in x[0].int().tolist():
    print(token)

# %% [markdown] name="small-answer"
# It holds 5 to 7, 9 to 11 and 13 to 15. Number 5 is in all four tokens: that is what overlap means. The
# zeros come from outside.
#
# A token grows with every split: 147 numbers after the first ($7 \cdot 7 \cdot 3$). So the layer between
# narrows it to 64. Then $x$ cannot be added to what attention returns, for it is wider. The values
# $v$ are added in its place.
#
# ## The difference
#
# Three slots. Positions are fixed waves, and queries, keys and values have no bias. The tokenizer is new:

# %% name="difference"
delta = papers.delta(T2TViT)
print({slot: part.__name__ for slot, part in delta.items()})
print("kernel, stride, padding:", *TokensToToken.splits)
with torch.device("meta"):  # nothing is allocated
    model = papers.build("t2t_vit_t_14")
    x, grid = model.patch_embed(torch.empty(1, 3, 224, 224))
print("tokens", tuple(x.shape), "grid", grid)
count = sum(p.numel() for p in model.patch_embed.parameters())
print(f"{count:,} parameters in the tokenizer")

# %% [markdown] name="proof"
# ## The proof
#
# A last token is 16 pixels from the next. How far does it see? Without attention: a window of 7, then one
# token more on each side, 4 pixels apart, then one more, 8 apart. That is $7 + 2 \cdot 4 + 2 \cdot 8 = 31$.
# The gradient must say the same.

# %% name="reach"
tokenizer = TokensToToken(1, 12, 16).double()
for layer in tokenizer.layers:  # attention adds nothing: what is left are the values
    torch.nn.init.zeros_(layer.attn.proj.weight)
image = torch.randn(1, 1, 112, 112, dtype=torch.float64, requires_grad=True)
x, (h, w) = tokenizer(image)
x.unflatten(1, (h, w))[0, 3, 3].sum().backward()
seen = image.grad[0, 0] != 0
side = int(seen.any(dim=0).sum()), int(seen.any(dim=1).sum())
assert side == (31, 31)
print("ok: a token sees 31 x 31 pixels, its patch has 16 x 16")

# %% [markdown] name="proof-tests"
# With attention, it sees all pixels; the tests assert this too. They hold the soft splits against
# vit-pytorch's and the attention against torch's, and show that without norm, attention and MLP the
# tokenizer is three strided convolutions. Code of a whole model by others could not be installed:
# here the exact numbers of parameters are the evidence.
#
# ## An experiment
#
# Digits, enlarged to $16 \times 16$ pixels, 16 tokens. The same ViT behind patches and behind two soft
# splits with a layer between. Both models learn about as many numbers.


# %% name="models"
class TwoSplits(TokensToToken):
    splits, width = ((3, 2, 1), (3, 2, 1)), 12


def twice(images):
    """Twice as high and wide."""
    upsample = torch.nn.Upsample(scale_factor=2, mode="bilinear")
    return upsample(images.float()).round().byte()


small = data.load("digits")
images, test_images = twice(small.images), twice(small.test_images)
digits = replace(small, images=images, test_images=test_images)
recipe = train.RECIPES["smoke"].but(epochs=12)
models = {}
for name, tokenizer in {"patches": PatchEmbed, "two soft splits": TwoSplits}.items():
    cls = T2TViT.variant(Tokenizer=tokenizer)
    models[name] = train.build_model(recipe, digits, cls)
    print(f"{name:16} {sum(p.numel() for p in models[name].parameters()):,} parameters")
for layer in models["two soft splits"].patch_embed.modules():
    if isinstance(layer, torch.nn.Linear):  # begin as patches do
        truncated_normal_(layer.weight, std=layer.in_features**-0.5)

# %% name="train" tags=["nbval-ignore-output"]
accuracy = {}
for name, model in models.items():
    run = train.fit(model, digits, recipe, device="cpu", quiet=True)
    accuracy[name] = [entry["test_accuracy"] for entry in run.history]
    print(f"{name:16} accuracy {run.accuracy:.2f}")
curves = {name: (range(1, 13), values) for name, values in accuracy.items()}
picture = show.lines(curves, "epoch", "accuracy")
alt = "Accuracy on test digits after each epoch, with patches and with two soft splits"
show.figure(picture, alt)

# %% name="train-bound"
assert min(values[-1] for values in accuracy.values()) > 0.25
print("ok: both have begun to learn")

# %% [markdown] name="recorded-text"
# One run says little. Three seeds, 24 epochs, and a third tokenizer: one soft split of $7 \times 7$ pixels,
# 4 apart, with no layer behind it. Is it the overlap that helps, or the layer?

# %% name="recorded"
record = show.recorded("claim-t2t_vit")
print(show.origin(record))
print(show.pairs(record))

# %% [markdown] name="recorded-answer"
# Three negative results. In the run of 12 epochs above, soft splits are far ahead. After 24 epochs all
# three tokenizers end between 95 % and 98 %, and no order holds with every seed. So overlap may help a ViT
# to learn sooner; that it ends better cannot be concluded here. Nor does this refute the paper: a digit of
# $16 \times 16$ pixels has few edges, and 1437 images are few.
#
# ## What the authors report
#
# On ImageNet at 224 x 224, the authors' repository gives 81.7 % for T2T-ViT_t-14, with 21.5 million
# parameters, and 82.4 % for T2T-ViT_t-19, with 39.0 million. An early version of it had 80.7 % for the first.

# %% [markdown] name="remember"
# ## Remember
#
# - A soft split is `unfold` with a stride below its kernel: a token holds what its neighbours hold too.
# - The first map has 56 x 56 tokens, so its attention costs more than that of any later block. The
#   authors' other models use an approximation there.
# - The published layer divides its scores by the root of what goes in, 147, and not by that of its
#   queries, 64. Weights learn that scale: change it, and they are worthless.
