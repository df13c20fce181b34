# %% [markdown] name="title"
# # Capstone: your own pictures
#
# You choose a question, take pictures that can answer it, fine-tune a Vision Transformer on them, beat a
# baseline, and find out what the model looks at. Then you write two pages. Plan a day, half of it for the
# pictures. The code is here; choosing, looking and judging are yours. A rubric of 20 points stands at the
# end.
#
# **A question first.** A friend's model names 98 % of her test pictures right. She is pleased. What could
# you find in her folder, or in the model, that would make you doubt it? Write down three things. At the
# end, compare.

# %% name="setup"
from pathlib import Path

import torch

from vitcourse import data, show, weights
from vitcourse.train import Recipe, build_model, evaluate, fit

folder = Path("pictures")  # yours, beside this notebook

# %% [markdown] name="question-text"
# ## 1 · A question and a folder
#
# Ask what a picture can answer and what you can be wrong about: which of four plants, whose handwriting,
# ripe or not. Three to six classes, 60 pictures of each or more. Vary what is not the question: ground,
# light, distance, day. Ask people before you photograph them, and their homes.
#
# One folder for each class, in a folder `pictures` beside this notebook:
#
# ```
# pictures/basil/1.jpg   pictures/basil/2.jpg   pictures/mint/1.jpg   ...
# ```
#
# Until it is there, the notebook makes a stand-in: forms in yellow and green on pieces of the two
# photographs in scikit-learn. It shows how to run and to read everything. It proves nothing about
# photographs.

# %% name="stand-in"
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


def stand_in(folder, each=100, side=32):
    """Write a folder of pictures: four forms, `each` pictures a form."""
    drawn, rng = data.load("shapes", train=4 * each, test=8), np.random.default_rng(0)
    photos, colours = load_sample_images().images, [(225, 200, 60), (60, 170, 80)]
    for i, mask in enumerate(drawn.extras["masks"].numpy()):
        photo, size = photos[rng.integers(2)], rng.integers(48, 160)
        y, x = (rng.integers(0, photo.shape[axis] - size) for axis in (0, 1))
        piece = Image.fromarray(photo[y : y + size, x : x + size]).resize((side, side))
        pixels = np.array(piece)
        pixels[mask] = colours[rng.integers(2)] + rng.integers(-20, 20, 3)
        form = drawn.classes[drawn.labels[i]].split()[1]
        (folder / form).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / form / f"{i}.png")


# %% name="folder"
import tempfile

own = folder.is_dir()
if not own:
    folder = Path(tempfile.mkdtemp()) / "forms"
    stand_in(folder)
pictures = data.load(folder, image=32)
print(pictures)

# %% name="look-first"
some = torch.linspace(0, len(pictures.labels) - 1, 16).long()
names = [pictures.classes[label] for label in pictures.labels[some]]
picture = show.images(pictures.images[some], names, size=1.1)
show.figure(picture, alt="Sixteen pictures for training, each under its class")

# %% [markdown] name="look-first-notes"
# Look at many, at the size that the model gets. Can *you* name them? If not, 32 x 32 is too small: take
# `image=64`, or 224 with the ImageNet weights of section 3. Sides that the patch divides.

# %% [markdown] name="parts-text"
# ## 2 · Three parts
#
# `data.load` puts a fifth of each class aside by chance. That is the test set: it is opened once, in
# section 4. Of the rest, a part is for validation: whatever you choose, you choose by that.
#
# **Predict.** You took ten pictures of each cup within a minute. They are divided by chance. What does
# the test set measure then?

# %% name="parts"
from dataclasses import replace

from vitcourse.data.base import split

train, val = split(pictures.labels, 0.2, seed=1)
work = replace(
    pictures,
    images=pictures.images[train],
    labels=pictures.labels[train],
    test_images=pictures.images[val],  # what `fit` calls test is validation here
    test_labels=pictures.labels[val],
)
parts = {"train": work.labels, "validation": work.test_labels}
parts |= {"test": pictures.test_labels}
for name, labels in parts.items():
    counts = torch.bincount(labels, minlength=len(pictures.classes)).tolist()
    shares = dict(zip(pictures.classes, counts, strict=True))
    print(f"{name:<11}{len(labels):>5}", shares)

# %% [markdown] name="twins-text"
# It measures memory: nearly the same picture stands on both sides. Then make the parts yourself, by cup or
# by day: `pictures/train/CLASS` and `pictures/test/CLASS` are used as they are.
#
# The next cell looks for twins: for each test picture the nearest training picture, and of those the four
# closest pairs. Are they two pictures of one moment?

# %% name="twins"
small = [
    torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 8).flatten(1)
    for images in (pictures.test_images, work.images)
]
apart, nearest = torch.cdist(*small).min(dim=1)
chosen = apart.argsort()[:4]
pairs = []
for i in chosen.tolist():
    pairs += [pictures.test_images[i], work.images[nearest[i]]]
picture = show.images(pairs, ["test", "train"] * len(chosen), size=1.1)
show.figure(picture, alt="The four pairs of a test and a training picture most alike")

# %% [markdown] name="twins-notes"
# The stand-in is caught: its pieces of ground come from two photographs only, so the same sky stands on
# both sides. Here the ground tells nothing of the form, and so helps little. In a folder where each class
# has its own ground it would help a lot, and the test would not notice.

# %% [markdown] name="baseline-text"
# ## 3 · A baseline, and a model that beats it
#
# A number means something beside another one. Three to beat:
#
# - the most frequent class, always
# - colour alone: mean and spread of each channel, and the class whose mean is nearest. It knows nothing
#   of form. If it does well, your classes differ in ground or light, and the model will use that
# - the same ViT without a past, trained as long
#
# **Predict** the second for the stand-in, whose forms come in the same two colours.


# %% name="baseline"
def colours(images):
    """Mean and spread of each channel: (n, C, H, W) -> (n, 2C)."""
    images = images.float() / 255
    return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)


known, new = colours(work.images), colours(work.test_images)
known, new = ((part - known.mean(dim=0)) / known.std(dim=0) for part in (known, new))
count = len(work.classes)
centres = torch.stack([known[work.labels == c].mean(dim=0) for c in range(count)])
guesses = torch.cdist(new, centres).argmin(dim=1)
frequent = torch.bincount(work.test_labels).max() / len(work.test_labels)
by_colour = (guesses == work.test_labels).float().mean().item()
print(f"validation: most frequent class {frequent:.2f}, colour alone {by_colour:.2f}")

# %% [markdown] name="model-text"
# In the stand-in, colour tells next to nothing, as it should.
#
# Now the model. It starts from the course's own, which knows circles, squares, triangles and crosses, but
# only in red and blue on striped grounds. The body comes along, the head is new (lesson
# [09](09-fine-tuning.ipynb)).

# %% name="start"
from vitcourse.data.augment import Augment

recipe = Recipe(
    model="Nano/4",  # the size of the body that comes along
    epochs=30,
    batch=32,
    lr=2e-3,
    augment=Augment(shift=2, flip=True),  # no flip where left and right mean something
    position_std=0.5,
    gain=0.5,
)


def start(fine_tuned):
    """A model for these classes: a new one, or one with a trained body."""
    model = build_model(recipe, work)
    if fine_tuned:
        body = data.trained("shapes").state_dict()
        body = {name: t for name, t in body.items() if not name.startswith("head.")}
        weights.load(model, body)
    return model


# %% [markdown] name="imagenet-text"
# For photographs that is a poor start. ImageNet's is better. It downloads 330 MB once and wants a GPU. Load
# your pictures with `image=224` in section 1, and run this in a new cell here; the rest stays:
#
# ```
# import copy
#
# recipe = recipe.but(model="B/16", lr=5e-5, epochs=5)
# trained = weights.pretrained("vit_b_16", classes=len(work.classes))
# about = trained.preprocess
# work = work.normalised_by(about.mean, about.std)
#
# def start(fine_tuned):
#     return copy.deepcopy(trained) if fine_tuned else build_model(recipe, work)
# ```
#
# `normalised_by` treats your pictures as ImageNet's were. No error tells you that it is missing.

# %% [markdown] name="train-text"
# Both get the same pictures, steps and recipe. It takes half a minute on a CPU; a GPU is used if there is
# one. How far apart will they be?

# %% name="train" tags=["nbval-ignore-output"]
runs = {}
for name, fine_tuned in {"from nothing": False, "fine-tuned": True}.items():
    runs[name] = fit(start(fine_tuned), work, recipe, quiet=True)
accuracy = {"most frequent class": frequent.item(), "colour alone": by_colour}
accuracy |= {name: run.accuracy for name, run in runs.items()}
picture = show.bars(accuracy, "accuracy on the validation pictures", limit=1)
alt = "Accuracy on validation: two baselines, a new model, a fine-tuned one"
show.figure(picture, alt=alt)
for name, value in accuracy.items():
    print(f"{name:<20}{value:.2f}")

# %% name="train-bound"
if not own:  # your pictures have bounds of their own
    best_other = max(v for name, v in accuracy.items() if name != "fine-tuned")
    assert accuracy["fine-tuned"] > best_other + 0.05
    print("ok: the fine-tuned model beats the other three")

# %% name="curves"
picture = show.loss_curves(runs["fine-tuned"].history)
show.figure(picture, alt="Loss of training and validation by epoch, and accuracy")

# %% [markdown] name="curves-notes"
# What is called test here is validation. Read both curves: if the loss of validation rises while that of training falls, the model learns your
# pictures by heart: more pictures, more augmentation, fewer epochs. If both are still falling, train
# longer. Change one thing at a time, and write down every try, the failed ones too. Choose by validation.

# %% [markdown] name="test-text"
# ## 4 · The test, once
#
# When nothing is left to choose, open the test set, once. A share $p$ of $n$ pictures has a standard error
# of $\sqrt{p\,(1-p)/n}$: write it beside the number. (For $p = 1$ the formula says 0, which is too good:
# with $n$ right out of $n$ the true share of errors may still be $3/n$.) **Predict:** which two classes
# will be confused most?

# %% name="test" tags=["nbval-ignore-output"]
exam = replace(work, test_images=pictures.test_images, test_labels=pictures.test_labels)
exam = exam.normalised_by(*work.statistics)  # ImageNet's, if you have set them
model = runs["fine-tuned"].model
result = evaluate(model, exam)
p, n = result["accuracy"], len(exam.test_labels)
print(f"test: {p:.2f} ± {(p * (1 - p) / n) ** 0.5:.2f} ({n} pictures)")
picture = show.confusion_matrix(result["confusion"], exam.classes)
show.figure(picture, alt="What each class was taken for: most lie on the diagonal")

# %% name="test-bound"
if not own:
    assert p > 0.45
    print("ok: far above a guess, which is right in 0.25")

# %% [markdown] name="test-notes"
# Rows are what a picture shows, columns what the model said. An error that goes one way only often has a
# cause that you can see: go and look at those pictures.
#
# ## 5 · What does it look at?
#
# Attention rollout (lesson [11](11-looking-inside.ipynb)) follows the class token through all layers. Below
# each picture stands the same one, bright where the token looks. Four right answers, then four wrong ones:
# "cross? circle" is a circle that was taken for a cross. Where the answer is wrong, does the model look
# elsewhere, or at the same thing and see something else?

# %% name="heat"
from vitcourse.probe import leave_one_out, record_attention, rollout, with_tokens

model = model.cpu().eval()
h, w = model.cfg.grid
inputs = exam.normalise(exam.test_images)  # (n, C, H, W)
answers, heat = [], []
for part in inputs.split(16):  # maps take much memory
    with torch.no_grad(), record_attention(model) as maps:
        answers.append(model(part).argmax(dim=1))
    heat.append(rollout(maps)[:, 0, -h * w :])
answers, heat = torch.cat(answers), torch.cat(heat)  # (n,), (n, N)
order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
is_right = (answers == exam.test_labels)[order]
right, wrong = order[is_right][:4], order[~is_right][:4]

# %% name="heat-picture"
chosen = torch.cat([right, wrong]).tolist()
titles, bright = [], []
for i in chosen:
    said, truth = (exam.classes[k] for k in (answers[i], exam.test_labels[i]))
    titles.append(said if said == truth else f"{said}? {truth}")
    light = (heat[i] / heat[i].max()).sqrt().reshape(1, 1, h, w)
    light = torch.nn.functional.interpolate(light, exam.image, mode="bilinear")[0]
    bright.append(exam.test_images[i] / 255 * light)
pictures_twice = [exam.test_images[i] / 255 for i in chosen] + bright
picture = show.images(pictures_twice, titles + [""] * len(chosen), len(chosen), 1.3)
alt = "Eight test pictures under the model's answers, and each again, bright where the "
alt += "class token looks"
show.figure(picture, alt=alt)

# %% [markdown] name="heat-notes"
# In the stand-in the wrong answers look at the form as well: the model finds it and misreads it. In yours,
# if light lies on the ground, ask what the ground tells.

# %% [markdown] name="needs-text"
# ## 6 · Does it need what it looks at?
#
# A map shows where a token looks. Whether the answer depends on it is another question, and you can ask
# it: take the quarter of the patches away that gets most attention, and count again. Beside it the same
# with a quarter by chance, and with the quarter that gets least. **Predict** the order of the three.

# %% name="needs" tags=["nbval-ignore-output"]
chance = torch.rand(heat.shape, generator=torch.Generator().manual_seed(0))
without = {}
for name, order in {"most": heat, "any": chance, "least": -heat}.items():
    keep = order.argsort(dim=1)[:, : h * w * 3 // 4]  # the lowest three quarters
    with torch.no_grad():
        guesses = with_tokens(model, inputs, keep).argmax(dim=1)
    without[name] = (guesses == exam.test_labels).float().mean().item()
    print(f"without the quarter that gets {name:<5} attention: {without[name]:.2f}")
print(f"with all patches: {p:.2f}")

# %% name="needs-bound"
if not own:
    assert without["most"] < min(without["any"], without["least"]) - 0.1
    print("ok: it needs what it looks at")

# %% [markdown] name="one-text"
# For one wrong answer, go patch by patch: how far does the logit of the right class fall when this patch
# alone is taken away? Red: the patch speaks for the right class. Blue: without it the right class would
# do better. (For 196 patches of 16 x 16 this is 196 passes: take one picture.)

# %% name="one"
i = int(wrong[0]) if len(wrong) else int(right[0])
falls = leave_one_out(model, inputs[i : i + 1], exam.test_labels[i : i + 1])[0]
truth = exam.classes[exam.test_labels[i]]
picture = show.images([exam.test_images[i]], [truth], size=2.3)
show.figure(picture, alt="The picture that this is about, under its class")
picture = show.heatmaps([falls.reshape(h, w)], ["what each patch does"], size=2.6)
show.figure(picture, alt="A heat map of patches: red ones speak for the right class")

# %% [markdown] name="shortcut-text"
# ## 7 · Try to break it
#
# Now doubt it. At least one of these, with ten new pictures each that you take for it:
#
# - the same thing on a ground that another class usually has. Does the answer follow the ground?
# - the ground without the thing. Is the model still sure?
# - another day, light or camera. Does the accuracy hold?
# - something that is none of the classes. How sure is it?
#
# Put them into a folder of the same shape, load it, and `evaluate`. What you find here is worth more than
# another per cent in section 4: a model that fails where you expected it is a model that you understand.

# %% [markdown] name="report-text"
# ## 8 · The report
#
# Two pages, for a reader who knows the course and not your pictures:
#
# 1. the question, the classes, how many pictures, from where, four of them
# 2. how they were divided, and why no twin stands on both sides
# 3. baselines and models on validation, one table; what you tried, and what failed
# 4. the test accuracy with its error, the confusion matrix, two errors explained
# 5. what it looks at, what it needs, and how you tried to break it
# 6. what you would not use the model for
#
# A claim stands beside the figure that shows it. "It works well" is none.

# %% [markdown] name="rubric"
# ## The rubric
#
# | part | half the points | all points | points |
# |---|---|---|---|
# | question and pictures | classes can be told apart, 60 each | what is not the question varies; origin and consent are stated | 3 |
# | three parts | test set opened once | parts made so that no twins cross, and checked | 3 |
# | baselines | most frequent class and colour | and a model without a past; what colour alone tells is discussed | 3 |
# | training | one run, its curves | choices made on validation, failed tries listed, a seed | 2 |
# | the result | accuracy and confusion matrix | with its error; two errors explained by their pictures | 3 |
# | what it looks at | maps of right and wrong answers | and patches taken away; the two agree or the difference is discussed | 3 |
# | doubt | one try to break it | new pictures, a prediction first, a conclusion | 2 |
# | the report | complete | somebody else could run it again | 1 |
#
# For yourself: fill in your points. For lecturers: a result below a baseline, honestly explained, can have
# all 20; a high accuracy with twins across the parts cannot have more than 10.

# %% name="points"
points = {  # yours, and the most there are
    "question and pictures": (0, 3),
    "three parts": (0, 3),
    "baselines": (0, 3),
    "training": (0, 2),
    "the result": (0, 3),
    "what it looks at": (0, 3),
    "doubt": (0, 2),
    "the report": (0, 1),
}
assert all(0 <= mine <= most for mine, most in points.values())
mine, most = (sum(column) for column in zip(*points.values(), strict=True))
print(f"{mine} of {most} points")

# %% [markdown] name="remember"
# ## Remember
#
# - The question to the friend: twins on both sides, a ground that gives the class away, a baseline that
#   does as well, a test set that was used to choose. And attention that lies beside the thing.
# - Choose on validation, open the test set once, write the error beside the number.
# - Where it looks is a map; what it needs you learn by taking it away.
#
# Before: [09 fine-tuning](09-fine-tuning.ipynb), [11 looking inside](11-looking-inside.ipynb). In a hurry:
# [the ViT in 90 minutes](90-minutes.ipynb).
