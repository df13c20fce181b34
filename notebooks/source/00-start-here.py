# %% [markdown] name="title"
# # 00 · Start here
#
# A Vision Transformer reads an image as a sentence is read: it cuts the image into patches, turns each
# patch into a vector, and lets the vectors look at each other until they know what the image shows.
# In lessons 01 to 06 you build one, line by line, and find that it computes the same numbers as the
# published ones.
#
# This lesson takes five minutes. You check your computer, see the first step, and hold a whole model
# in your hands.
#
# **How a lesson works.** Click into a cell and press Shift+Enter: it runs, and the next one is chosen.
# Run the cells from top to bottom. This notebook is your own copy: change what you like.

# %% [markdown] name="check-text"
# ## Is this computer ready?
#
# If something is missing, the cell below says what, and which command mends it.

# %% name="check"
from vitcourse.lab import doctor

doctor.check()

# %% [markdown] name="patches-question"
# ## The first step
#
# A photograph of 416 x 640 pixels has 266,240 pixels. A Transformer compares every piece of its input
# with every other piece. Before you run the next cells, guess: how many comparisons are that, if every
# pixel is a piece? And how many, if every patch of 32 x 32 pixels is one?

# %% name="patches-picture"
from sklearn.datasets import load_sample_image

from vitcourse import show

photo = load_sample_image("china.jpg")[:416]
picture = show.patch_grid(photo, patch=32)
show.figure(picture, alt="A temple by a lake; beside it, the same photograph cut into 260 patches")

# %% name="patches-count"
height, width, _ = photo.shape
pixels, patches = height * width, (height // 32) * (width // 32)
print(f"pixels as pieces:  {pixels:>7,} -> {pixels**2:>14,} comparisons")
print(f"patches as pieces: {patches:>7,} -> {patches**2:>14,} comparisons")

# %% [markdown] name="patches-answer"
# A patch has about a thousand pixels, so there are about a thousand times fewer pieces, and about a
# million times fewer comparisons. That is why a ViT begins by cutting.

# %% [markdown] name="model-text"
# ## A whole model
#
# The papers name a model by its size and its patch: "Ti/16" is the tiny one with patches of 16 x 16
# pixels. One call builds it. It has learned nothing yet, so its 10 classes are all equally likely.

# %% name="model"
import torch

from vitcourse import make_vit

model = make_vit("Ti/16", image=224, classes=10)
images = torch.rand(2, 3, 224, 224)
chances = model(images).softmax(dim=-1)
print(f"{sum(p.numel() for p in model.parameters()):,} numbers to learn")
print(f"two images -> {tuple(chances.shape)}: {[round(c, 2) for c in chances[0].tolist()]}")

# %% [markdown] name="remember"
# ## Remember
#
# - A ViT sees patches, not pixels: their number decides how much there is to compute.
# - `make_vit("Ti/16")` is the model; `vitcourse/vit.py` is its code, one file, to be read from top to
#   bottom.
#
# The lessons that follow build that file piece by piece. The map of them is in the README.
