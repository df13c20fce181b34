# %% [markdown] name="title"
# # 00 · Start here
#
# A Vision Transformer reads an image as a sentence is read: it cuts the image into patches, turns each
# patch into a vector, and lets the vectors look at each other until they know what the image shows.
# In lessons 01 to 06 you build one, line by line, and find that it computes the same numbers as the
# published ones.
#
# In half an hour you check your computer, solve a first exercise, and watch two trained models at
# work.
#
# **How to run it.** Click into a cell and press Shift+Enter: it runs, and the next one is chosen. Run
# the cells from top to bottom. What `make lab` opens is your own copy, in the folder `work`: change
# what you like.

# %% [markdown] name="check-text"
# ## Is this computer ready?
#
# If something is missing, the cell below says what, and which command mends it.

# %% name="check"
from vitcourse import check
from vitcourse.lab import doctor

doctor.check()

# %% [markdown] name="how-a-lesson-works"
# ## How a lesson works
#
# A lesson has one idea. You meet it in numbers that you can read, in a picture, in code that grows in
# steps, on real data. In between stand exercises, each in three cells:
#
# 1. a card: the task, about how many minutes it takes, how difficult it is
# 2. a stub, a cell in which three dots wait for your answer
# 3. a check. It says *not attempted*, *wrong* or *right*. If it is wrong, it names the first thing that
#    is wrong, and often the mistake
#
# Run `check.hint("first_count")` in a new cell for a hint, again for the next one, and
# `check.solution("first_count")` for the answer. `check.progress()` shows what you have done. Nothing
# after an exercise needs your answer, so you can go on and come back.

# %% [markdown] name="card-first-count"
# ### Exercise: count patches
#
# 3 minutes · difficulty 1 of 3
#
# The photograph below has 416 x 640 pixels: 416 rows of 640. It is cut into squares of 32 x 32 pixels,
# the patches. How many are there? Write the number in place of the dots, run the cell, then run the
# check.
#
# A hint: `check.hint("first_count")`. The solution: `check.solution("first_count")`.

# %% name="stub-first-count" tags=["exercise"]
first_count = ...

# %% name="check-first-count" tags=["check"]
check.first_count(first_count)

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
show.figure(picture, alt="A temple by a lake; beside it, the same cut into 260 patches")

# %% name="patches-count"
height, width, _ = photo.shape
pixels, patches = height * width, (height // 32) * (width // 32)
print(f"pixels as pieces:  {pixels:>7,} -> {pixels**2:>14,} comparisons")
print(f"patches as pieces: {patches:>7,} -> {patches**2:>14,} comparisons")

# %% [markdown] name="patches-answer"
# A patch has about a thousand pixels, so there are about a thousand times fewer pieces, and about a
# million times fewer comparisons. That is why a ViT begins by cutting.
#
# **Predict first.** Many cells ask for a guess before they show a result. A wrong guess teaches more
# than none. Make both sides of the photograph twice as long, with patches of 32 x 32 as before: how
# many times as many comparisons are there? Put your guess in place of the dots.

# %% name="patches-predict"
question = "how many times as many comparisons, if both sides of an image double"
check.predict(question, ...)

# %% [markdown] name="model-text"
# ## A whole model
#
# The papers name a model by its size and its patch: "Ti/16" is the tiny one with patches of 16 x 16
# pixels. One call builds it. It has learned nothing yet. Its last layer begins with zeros, so its 10
# classes are all equally likely.

# %% name="model"
import torch

from vitcourse import make_vit

model = make_vit("Ti/16", image=224, classes=10)
images = torch.rand(2, 3, 224, 224)
chances = model(images).softmax(dim=-1)
print(f"{sum(p.numel() for p in model.parameters()):,} numbers to learn")
print(f"two images -> {tuple(chances.shape)}")
print([round(c, 2) for c in chances[0].tolist()])

# %% [markdown] name="trained-text"
# ## Where the course leads
#
# Two small trained models come with the course. You will have built all their parts by the end of
# lesson 06. This one knows eight kinds of objects. The pictures are from its test set: it was not
# trained on them.

# %% name="trained-shapes"
from vitcourse import data

shapes, model = data.load("shapes"), data.trained("shapes")
images = shapes.test_images[:8]  # (8, 3, 32, 32)
with torch.no_grad():
    chances = model(shapes.normalise(images)).softmax(dim=-1)  # (8, 8)
guesses = chances.argmax(dim=-1)  # (8,)
answers = [model.class_names[i] for i in guesses]
picture = show.images(images, answers, size=1.2)
show.figure(picture, alt="Eight pictures of objects, each under the model's answer")
print(f"{(guesses == shapes.test_labels[:8]).sum()} of 8 answers are right")

# %% [markdown] name="look-text"
# What did it look at? Each token takes from the others by weight, and these weights can be recorded.
# The next cell follows them, for one picture, from the answer back to the patches. Lessons 04 and 11
# show how.

# %% name="look"
from vitcourse.probe import record_attention, rollout

with torch.no_grad(), record_attention(model) as maps:
    model(shapes.normalise(images[3:4]))
heat = rollout(maps)[0, 0, 1:].reshape(8, 8)  # a weight for each of 8 x 8 patches
picture = show.attention_overlay(images[3] / 255, heat, title=answers[3])
show.figure(picture, alt="A red cross; beside it, a heat map that covers the cross")

# %% name="look-share"
mask = shapes.extras["test_masks"][3]  # (32, 32), true where the object is
touched = mask.reshape(8, 4, 8, 4).sum(dim=(1, 3)) > 0  # (8, 8) patches of 4 x 4
share = (heat[touched].sum() / heat.sum()).item()
print(f"{touched.sum()} of 64 patches hold a piece of the object")
print(f"they get {share:.0%} of the weight that the patches get")

# %% [markdown] name="digits-text"
# The other model reads handwritten digits of 8 x 8 pixels. Look at the pictures before you look at the
# percentages over them: of which answer is it least sure?

# %% name="trained-digits"
digits, model = data.load("digits"), data.trained("digits")
images = digits.test_images[12:20]  # (8, 1, 8, 8)
with torch.no_grad():
    chances = model(digits.normalise(images)).softmax(dim=-1)  # (8, 10)
sure, guesses = chances.max(dim=-1)  # (8,), (8,)
answers = [f"{guesses[i]} ({sure[i]:.0%})" for i in range(8)]
picture = show.images(images, answers, size=1.2)
show.figure(picture, alt="Eight digits under the model's answers; one 9 is open above")
print("answers:", ", ".join(answers))
print("truth:  ", digits.test_labels[12:20].tolist())

# %% [markdown] name="digits-answer"
# It is right each time, and least sure of the first 9, whose loop is open at the top. Lesson 06 ends
# with a model like this one, trained by you.

# %% [markdown] name="notation"
# ## Letters
#
# They mean the same in every lesson, figure and shape comment, such as `# (B, T, D)`.
#
# | letter | meaning | name in Python |
# |---|---|---|
# | B | images in a batch | |
# | C | channels of an image: 3 colours, or 1 | `channels` |
# | H, W | height and width of an image in pixels | `image` |
# | P | side of a patch in pixels | `patch` |
# | h, w | rows and columns of patches: H/P, W/P | `grid` |
# | N | patches: h times w | |
# | R | tokens that stand before the patches, such as the class token | `prefix_len` |
# | T | tokens in all: R + N | |
# | D | width of a token: how many numbers it has | `dim` |
# | K | heads of attention | `heads` |
# | d | width of a head: D/K | |
# | L | depth: how many blocks follow each other | `depth` |

# %% [markdown] name="map"
# ## The map
#
# | lesson | you build | the question |
# |---|---|---|
# | [01 patches](01-patches.ipynb) | the patch embedding | how does an image become a sequence? |
# | [02 the class token](02-class-token.ipynb) | the class token | which token speaks for the image? |
# | [03 positions](03-positions.ipynb) | the position table | how does a token know its place? |
# | [04 attention](04-attention.ipynb) | multi-head self-attention | how do tokens look at each other? |
# | [05 the encoder block](05-encoder-block.ipynb) | the block | what turns attention into a layer? |
# | [06 the whole ViT](06-vision-transformer.ipynb) | the model | is it the published one? |
#
# Each builds on those before it and takes 30 to 90 minutes. Then the model is put to work:
#
# | lesson | you do | the question |
# |---|---|---|
# | [07 training on a GPU](07-training.ipynb) | train it well | what does each ingredient add? |
# | [08 break it](08-break-it.ipynb) | find bugs | which signal gives an error away? |
# | [09 fine-tuning](09-fine-tuning.ipynb) | train it on | what do few images need? |
# | [10 from one GPU to many](10-many-gpus.ipynb) | share the work | what must the GPUs tell each other? |
# | [11 looking inside](11-looking-inside.ipynb) | look inside | what has it learned? |
# | [12 what it withstands](12-what-it-withstands.ipynb) | disturb it | what does it need, and what breaks it? |
#
# Then others improve it: [13 training](13-better-training.ipynb), [14 tokens](14-better-tokens.ipynb),
# [15 attention](15-better-attention.ipynb), [16 many scales](16-many-scales.ipynb),
# [17 convolutions](17-convolutions-return.ipynb). And it does other work:
# [18 without labels](18-learning-without-labels.ipynb), [19 finding things](19-finding-things.ipynb),
# [20 repairing images](20-repairing-images.ipynb). At the end stands the [capstone](capstone.ipynb).

# %% [markdown] name="alone-or-in-class"
# ## Alone or in class
#
# **Alone.** Run every cell, guess before you run, and do the exercises where they stand. If one takes
# more than twice its minutes, take a hint. `vitcourse update` brings new editions of the lessons and
# overwrites none of your work.
#
# **In class.** A lecturer runs the same notebook on a projector, cell by cell. The questions before the
# results are made to be asked aloud. Students do the exercises on their own copies. How to make
# handouts without solutions, and how to grade them, stands in `docs/teaching.md`.

# %% [markdown] name="remember"
# ## Remember
#
# - A ViT sees patches, not pixels: their number decides how much there is to compute.
# - `make_vit("Ti/16")` is the model; `vitcourse/vit.py` is its code, one file, to be read from top to
#   bottom.
# - A check names the first thing that is wrong. `check.hint` and `check.solution` help.
# - Guess first, then run.
#
# Next: [01 patches](01-patches.ipynb).
#
# [Glossary](../docs/glossary.md).
