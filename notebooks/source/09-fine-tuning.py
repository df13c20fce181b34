# %% [markdown] name="title"
# # 09 · Fine-tuning and higher resolution
#
# The models of the ViT paper are trained twice: once for weeks, on many millions of images, and then for
# a short time on the task that one has. The second time is called **fine-tuning**. It replaces the head,
# and it often takes larger images than the first training had.
#
# **A question first.** A ViT-B/16 was trained on images of 224 x 224. Now it gets 384 x 384. It has 152
# tensors of weights, the head among them. The classes stay. How many of these tensors must be replaced?

# %% name="setup"
import torch
import torch.nn.functional as F

from vitcourse import ViT, check, data, make_vit, show, vit, weights
from vitcourse.parts import RepresentationHead

# %% name="predict-replaced"
question = "tensors of a ViT-B/16 that must be replaced to go from 224 to 384"
check.predict(question, ...)

# %% [markdown] name="heads-text"
# ## Two heads
#
# A head turns the class token $z$, of D numbers, into logits. In its first training a model of the paper
# has a hidden layer with tanh, `RepresentationHead`. For fine-tuning it is thrown away, and a linear
# layer comes in its place, `ClassHead`. Its weights begin at zero:
#
# $$y_{\text{pre-training}} = W \tanh(V z + c) + b \qquad y_{\text{fine-tuning}} = W z + b,
# \quad W = 0,\; b = 0$$
#
# Why throw away a layer that has learned something? It learned to serve the old classes. And why zero,
# when all other layers begin with random numbers? First, see what it does.

# %% name="heads"
z = torch.tensor([[2.0, -4, 6, 8]])  # (B, D) one class token
cfg = vit.Config(dim=4, depth=1, heads=2, classes=5)
for head in RepresentationHead(cfg), vit.ClassHead(cfg):
    count = sum(p.numel() for p in head.parameters())
    print(f"{type(head).__name__}: {count} parameters")
y = head(z[:, None])  # (B, classes)
print("logits:       ", y.tolist())
print("probabilities:", [round(p, 2) for p in y.softmax(dim=1)[0].tolist()])
loss = F.cross_entropy(y, torch.tensor([3]))
print(f"loss: {loss:.4f}, ln(5): {torch.tensor(5.0).log():.4f}")

# %% [markdown] name="zero-text"
# ## Why zero
#
# All classes are equally likely, so the first loss is ln(classes), whatever the image. A random head
# begins with an opinion, and the first steps go into taking it back.
#
# The second reason is the gradient. With the probabilities $p$ and the one-hot label $e$:
#
# $$\frac{\partial \ell}{\partial W} = (p - e)\, z^\top \qquad
# \frac{\partial \ell}{\partial z} = W^\top (p - e)$$
#
# The left one needs the token, the right one needs the weights. Predict how many of the 54 tensors in
# the body of a ViT with four blocks get a gradient at the first step.

# %% name="predict-reached"
question = "tensors of the body that the first gradient of a zero head reaches"
check.predict(question, ...)

# %% name="one-gradient"
head = vit.ClassHead(cfg)
z = z.requires_grad_()
F.cross_entropy(head(z[:, None]), torch.tensor([3])).backward()
print("for the weights, a row for each class:")
for row in head.weight.grad:
    print("  ", [round(value, 1) for value in row.tolist()])
print("for the token:", z.grad.abs().tolist())

# %% [markdown] name="one-gradient-notes"
# Four rows are a fifth of the token: the probability 1/5, minus 0. Row 3, the right class, is the token
# times 1/5 - 1. A step against the gradient turns row 3 towards this token, and the others away from it.
# The token itself gets nothing.
#
# For a batch, each row collects the tokens of its class. So after one step the head compares an image
# with the mean token of each class, before the body has moved at all.

# %% [markdown] name="card-first-gradient"
# ### Exercise: the first gradient
#
# 10 minutes · difficulty 2 of 3
#
# A linear head without bias starts at zero. The class tokens of a batch are `z` (B, D), their labels
# (B,) are whole numbers below `classes`. Compute the first gradient of its weights, (classes, D), for
# the mean cross-entropy over the batch: by a formula, without `backward`. `F.one_hot` helps.
#
# A hint: `check.hint("first_gradient")`. The solution: `check.solution("first_gradient")`.


# %% name="stub-first-gradient" tags=["exercise"]
def first_gradient(z, labels, classes):
    """Tokens z (B, D), labels (B,) -> the gradient of the weights (classes, D)."""
    ...


# %% name="check-first-gradient" tags=["check"]
check.first_gradient(first_gradient)

# %% [markdown] name="pretrain-text"
# ## A model with a past
#
# Two tasks from one data set: the digits 0 to 4 to learn first, and 5 to 9 for later. `part` makes a
# data set of five digits, whose labels are 0 to 4 again.


# %% name="parts"
def part(low, count=None):
    """The five digits from `low` on; of those to train on, the first `count`."""
    train = (digits.labels // 5 == low // 5).nonzero()[:count, 0]
    test = (digits.test_labels // 5 == low // 5).nonzero()[:, 0]
    return data.Data(
        f"digits from {low} on",
        digits.images[train],
        digits.labels[train] - low,
        digits.test_images[test],
        digits.test_labels[test] - low,
        digits.classes[low : low + 5],
    )


digits = data.load("digits")
old, new = part(0), part(5, count=10)
print(f"{old}: {', '.join(old.classes)}")
print(f"{new}: {', '.join(new.classes)}")
names = [new.classes[label] for label in new.labels]
picture = show.images(list(new.images), names, columns=10)
alt = "Ten digits from 5 to 9, of 8x8 pixels: all that the new task has to train on"
show.figure(picture, alt=alt)

# %% [markdown] name="pretrain-run-text"
# The old task has 700 images, the new one the ten above. First the old one, with the hidden layer in its
# head. `build_model` gives the body the start values of lesson 07.

# %% name="pretrain" tags=["nbval-ignore-output"]
from vitcourse.train import RECIPES, build_model, fit


def body(model):
    """All weights but those of the head."""
    return {n: t for n, t in model.state_dict().items() if not n.startswith("head.")}


recipe = RECIPES["smoke"].but(epochs=30, evaluate_every=30)
sizes = dict(image=8, channels=1, classes=5)
torch.manual_seed(9)
trained = make_vit("Nano/4", ViT.variant(Head=RepresentationHead), **sizes)
weights.load(trained, body(build_model(recipe, old)))
run = fit(trained, old, recipe, device="cpu", quiet=True)
print(f"accuracy on the digits 0 to 4: {run.accuracy:.3f}")

# %% name="pretrain-bound"
assert run.accuracy > 0.85
print("ok: the first training took place")

# %% [markdown] name="swap-text"
# ## A new head
#
# Now the new model, with a linear head. **v1** loads everything. Both tasks have five classes, so the
# shapes of the old head's last layer fit. Will it complain?

# %% name="v1"
model = make_vit("Nano/4", **sizes)
try:
    weights.load(model, trained.state_dict())
except ValueError as error:
    print(error)
else:
    print("no complaint")

# %% [markdown] name="swap-v2-text"
# It complains about the hidden layer, for which the new model has no place. Had the old model a linear
# head, nothing would complain. Watch what happens to its rows, here filled with sevens.

# %% name="silent"
plain = make_vit("Nano/4", **sizes)
plain.head.weight.data.fill_(7)
print(weights.load(model, plain.state_dict()))
print("the new head begins with", model.head.weight.unique().tolist())
six = make_vit("Nano/4", image=8, channels=1, classes=6)
print(weights.load(six, plain.state_dict()))

# %% [markdown] name="silent-notes"
# The rows for 0 to 4 now stand for 5 to 9, and the report is one quiet line. Where the number of classes
# differs, as in the last line, `weights.load` keeps the new head. Where it does not differ, only you know
# that the task is another. **v2** takes the body alone.

# %% name="v2"
model = make_vit("Nano/4", **sizes)
print(weights.load(model, body(trained)))  # new
assert not any(p.any() for p in model.head.parameters())
same = [torch.equal(t, model.state_dict()[name]) for name, t in body(trained).items()]
assert all(same)
print(f"ok: {len(same)} tensors are those of the trained model, the head is zero")


# %% name="reached"
def reached(model):
    """How many tensors of the body get a gradient that is not zero; and the loss."""
    model.zero_grad()
    loss = F.cross_entropy(model(new.normalise(new.images)), new.labels)
    loss.backward()
    named = model.named_parameters()
    grads = [p.grad for name, p in named if not name.startswith("head.")]
    return sum(bool(grad.any()) for grad in grads), len(grads), loss.item()


count, tensors, loss = reached(model)
print(f"zero head:       {count} of {tensors} tensors of the body, loss {loss:.4f}")
with torch.no_grad():
    model.head.weight -= 0.1 * model.head.weight.grad
print(f"one step later: {reached(model)[0]} of {tensors}")

# %% [markdown] name="reached-notes"
# So the zero protects the body for one step, and then a little: what comes down is multiplied with a
# head that is still small. By the time the body moves, the head points in a direction that the images
# gave it. A random head would pull at the trained body from the first step on, in random directions.
# A warm-up of the learning rate serves the same end.

# %% [markdown] name="three-ways-text"
# ## Three ways to learn from ten images
#
# - **Linear probe**: freeze the body, train the head alone. It asks what the body knows already.
# - **Fine-tuning**: train everything, from the old weights on.
# - **From scratch**: train everything, from a new start.
#
# Freezing is one line, `requires_grad_(False)`: such a tensor gets no gradient, and the optimizer passes
# over it. Rank the three before you run the next cells.

# %% name="three-ways" tags=["nbval-ignore-output"]
short = recipe.but(batch=10, epochs=150, evaluate_every=150)  # 150 steps
rates = {"linear probe": 0.05, "fine-tuning": 0.004, "from scratch": 0.004}
accuracy = {}
for way, rate in rates.items():
    model = build_model(short, new)
    if way != "from scratch":
        weights.load(model, body(trained))
    if way == "linear probe":
        model.requires_grad_(False)
        model.head.requires_grad_()
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    run = fit(model, new, short.but(lr=rate), device="cpu", quiet=True)
    accuracy[way] = run.accuracy
    print(f"{way:<13} {count:>7,} parameters trained, accuracy {run.accuracy:.2f}")

# %% name="three-ways-bound"
assert min(accuracy.values()) > 0.35 and accuracy["fine-tuning"] > 0.5
print("ok: all three are far above a guess, which is right in 0.20")

# %% [markdown] name="card-probe-parameters"
# ### Exercise: what a probe trains
#
# 3 minutes · difficulty 1 of 3
#
# A linear probe of a ViT-B/16 on a task of 10 classes: how many parameters are trained? The head is
# linear and has a bias.
#
# A hint: `check.hint("probe_parameters")`. The solution: `check.solution("probe_parameters")`.

# %% name="stub-probe-parameters" tags=["exercise"]
probe_parameters = ...

# %% name="check-probe-parameters" tags=["check"]
check.probe_parameters(probe_parameters)

# %% [markdown] name="claim-text"
# One run on ten images says little. Recorded were three seeds, each with other images, and tests on 400
# digits: 10 to 300 images to train on, 150 steps each. Where a way had two learning rates, the better
# one is shown.

# %% name="claim"
record = show.recorded("claim-finetuning")
means = {name: figure["mean"] for name, figure in record["figures"].items()}
counts, ways = [10, 30, 100, 300], ["fine-tuning", "scratch", "probe"]


def compare(task, alt):
    """A table and a picture of the three ways, each at its better learning rate."""
    series = {way: [] for way in ways}
    for way, count in ((way, count) for way in ways for count in counts):
        start = f"{task}, {count} images, {way},"
        best = max(v for name, v in means.items() if name.startswith(start))
        series[way].append(best)
    print("images      " + "".join(f"{count:>7}" for count in counts))
    for way, values in series.items():
        print(f"{way:<12}" + "".join(f"{value:>7.3f}" for value in values))
    lines = {way: (counts, values) for way, values in series.items()}
    picture = show.lines(lines, "images to train on", "accuracy", log="x")
    show.figure(picture, alt=alt)


print(show.origin(record))
alt = "Fine-tuning and scratch rise together from 0.8 to 0.98; the probe stays below"
compare("digits", alt)

# %% [markdown] name="claim-notes"
# The trained body saves nothing here. With ten images the seeds disagree, with thirty a new model is a
# little ahead with each, from a hundred on they are equal. And the probe says why: a body that had to tell
# 0 to 4 apart did not learn much that tells 5 from 9. It saw 900 images of five classes; what else they
# might be, nobody asked it.
#
# So fine-tuning is no law. It pays when the first task has taught what the second one needs. Which one
# would? The `shapes` model knows circles, squares, triangles and crosses, in red and in blue. The new
# task: name the form, in two colours that it has never seen. Rank the three ways again.

# %% name="forms"
alt = "Fine-tuning and the probe rise from 0.35 to 0.65; scratch stays at a guess"
compare("forms", alt)

# %% [markdown] name="forms-notes"
# With ten pictures all are bad. From 30 on, the trained body is far ahead: in 100 steps a new model does
# not get beyond a guess, 0.25. The `shapes` model had 4000 pictures and 930 steps, and its body kept
# what they taught. The probe is nearly as good as fine-tuning, though all it trains is the head.
#
# Neither task is the paper's, which fine-tunes after 1 to 300 million images of a thousand classes or more.
# The more classes a first task has, the more of a picture a body must notice, and the more likely it is
# that the next task finds what it needs. These two small tasks do not prove that. They show both ends.
# %% [markdown] name="longer-text"
# ## Larger images
#
# The second half of fine-tuning: larger images, the same patch size. Nothing in a patch changes its
# size; there are more of them. What does it cost? Of a block, the layers on single tokens cost
# 12 D² multiply-adds a token, and attention costs 2 D T² for all.

# %% name="predict-pairs"
question = "times as many attention weights at 384 as at 224 in a ViT-B/16, rounded"
check.predict(question, ...)

# %% [markdown] name="card-longer-sequence"
# ### Exercise: a longer sequence
#
# 3 minutes · difficulty 1 of 3
#
# A ViT-B/16 with a class token is fine-tuned on images of 384 x 384. How many tokens T does a block see?
#
# A hint: `check.hint("longer_sequence")`. The solution: `check.solution("longer_sequence")`.

# %% name="stub-longer-sequence" tags=["exercise"]
longer_sequence = ...

# %% name="check-longer-sequence" tags=["check"]
check.longer_sequence(longer_sequence)

# %% name="cost"
D, L, K, P = 768, 12, 12, 16
print("image  tokens  attention weights  G operations: tokens  attention  in all")
base = 0
for side in 224, 384, 512:
    T = (side // P) ** 2 + 1
    single, pairs = L * 12 * D**2 * T / 1e9, L * 2 * D * T**2 / 1e9
    base = base or single + pairs
    print(f"{side:>5}{T:>8}{L * K * T**2:>19,}{single:>21.1f}{pairs:>11.1f}", end="")
    print(f"{(single + pairs) / base:>6.1f} x")

# %% [markdown] name="cost-notes"
# From 224 to 384 the work grows by a little more than the number of tokens: the layers on single tokens
# dominate. The number of attention weights grows ninefold; a kernel that does not store them (lesson 04)
# matters more here.
#
# ## Which tensor must change
#
# Compare the shapes of all tensors, with models that hold no memory.

# %% name="which-tensor"
with torch.device("meta"):
    small, large = (make_vit("B/16", image=side).state_dict() for side in (224, 384))
changed = [name for name in small if small[name].shape != large[name].shape]
print(f"{len(changed)} of {len(small)} tensors:")
for name in changed:
    print(name, tuple(small[name].shape), "->", tuple(large[name].shape))

# %% [markdown] name="resize-text"
# A row for every token, and there are more tokens. The table was learned, so it is not thrown away: it
# is a small picture with D channels, and is enlarged like one. The first row belongs to the class token,
# which has no place in the picture.
#
# The smallest table: one number a token, 50 for the class token, and a grid of 2 x 2. It becomes 3 x 3.
# **v1** takes the table as one list of numbers. **v2** keeps the class token aside. **v3** gives the rest
# its grid back.

# %% name="resize-steps"
table = torch.tensor([50.0, 0, 2, 4, 6])[None, :, None]  # (1, T, D) = (1, 1 + 2*2, 1)
options = dict(mode="linear", align_corners=True)
v1 = F.interpolate(table.transpose(1, 2), size=10, **options)  # (1, D, 10)
print("v1", [round(value, 1) for value in v1.flatten().tolist()])

token, places = table[:, :1], table[:, 1:]  # new
v2 = F.interpolate(places.transpose(1, 2), size=9, **options)  # (1, D, 9)
print("v2", token.item(), v2.view(3, 3).tolist())

options = dict(mode="bilinear", align_corners=True)
grid = places.transpose(1, 2).unflatten(2, (2, 2))  # (1, D, 2, 2) new
v3 = F.interpolate(grid, size=(3, 3), **options)  # (1, D, 3, 3)
print("v3", token.item(), v3[0, 0].tolist())
v3 = torch.cat([token, v3.flatten(2).transpose(1, 2)], dim=1)  # (1, 1 + 3*3, D)
assert torch.allclose(v3, vit.resize_position(table, (2, 2), (3, 3), 1, "bilinear"))
print("ok: v3 is resize_position, which the exercise of lesson 03 asked for")

# %% [markdown] name="resize-notes"
# In v1 the class token leaks into the first places: 50, then 27.8. In v2 it does not, but a list does not
# know that a row ends: the last place of one row is mixed with the first of the next. In v3 every row
# steps from left to right by 1, and the corners are the old corners.
#
# Now a real table: channel 0 of the `shapes` model, from 8 x 8 to 16 x 16 places.

# %% name="tables"
model = data.trained("shapes")
table = model.position.table.detach()  # (1, 65, 48)
places = table[:, 1:].transpose(1, 2)  # (1, D, 64)
as_list = F.interpolate(places, size=256, mode="linear").transpose(1, 2)
rows_first = F.pad(places, (0, 256 - 64)).transpose(1, 2)
tables = {
    "interpolated in 2-D": vit.resize_position(table, (8, 8), (16, 16), 1),
    "interpolated as a list": torch.cat([table[:, :1], as_list], dim=1),
    "old rows first, then zeros": torch.cat([table[:, :1], rows_first], dim=1),
}
maps = [table[0, 1:, 0].view(8, 8)]
maps += [t[0, 1:, 0].view(16, 16) for t in tables.values()]
names = ["8 x 8, as learned", "2-D", "list", "rows first"]
picture = show.heatmaps(maps, names, size=1.9)
alt = "One channel of the table; in 2-D it is the same pattern, finer; as a list it is "
alt += "torn into stripes; with the old rows first it fills the upper quarter only"
show.figure(picture, alt=alt)

# %% [markdown] name="larger-model-text"
# In code there is nothing to do. A model that was built for 32 x 32 takes 64 x 64 and interpolates in
# every forward pass. For fine-tuning one builds a model for 64 x 64: `weights.load` interpolates once,
# and from then on the larger table is learned. Both begin equal.

# %% name="larger-model"
shapes = data.load("shapes", train=640, test=300)


def enlarge(images):
    """Pictures (n, 3, 32, 32) -> (n, 3, 64, 64), normalised."""
    larger = F.interpolate(images.float(), size=64, mode="bilinear", antialias=True)
    return shapes.normalise(larger)


images, labels = enlarge(shapes.test_images), shapes.test_labels
large = make_vit("Nano/4", image=64, classes=8).eval()
print(weights.load(large, model.state_dict()))
assert torch.allclose(large(images[:10]), model(images[:10]), atol=1e-4)
print("ok: built for 64 x 64, or called with 64 x 64: the same logits")

# %% [markdown] name="surprise-text"
# The pictures are twice as large, so a shape covers four times as many patches as in training. Guess: what remains
# of an accuracy of 1.00, with each of the three tables?


# %% name="surprise"
@torch.no_grad()
def accuracy_of(model, images):
    guesses = torch.cat([model(some).argmax(dim=1) for some in images.split(100)])
    return (guesses == labels).float().mean().item()


print(f"32 x 32: {accuracy_of(model, shapes.normalise(shapes.test_images)):.2f}")
for how, table in tables.items():
    large.position.table.data.copy_(table)
    print(f"64 x 64, {how}: {accuracy_of(large, images):.2f}")

# %% [markdown] name="surprise-notes"
# A quarter is lost, and the same with all three. The right interpolation gains nothing here, because
# this task does not ask where a shape is: a red circle is one anywhere. A test finds only what its task
# needs.
#
# So take a task that asks for places: is red left of blue, or right? It was recorded: a Nano/8 trains at
# 32 x 32, three seeds, and is tested at 48 x 48, before and after one epoch of training there.

# %% name="relation"
print(show.origin(record))
shown = {name: value for name, value in means.items() if "x" in name.split(",")[0]}
for name, value in shown.items():
    print(f"{name:<48}{value:.3f}")
picture = show.bars(shown, "accuracy", mark=0.5, limit=1)
alt = "Interpolated in 2-D a little lower than at 32x32; the two other tables much "
alt += "lower, and one epoch does not bring them back"
show.figure(picture, alt=alt)

# %% [markdown] name="relation-notes"
# Now the table decides. Interpolated in 2-D, the model keeps most of its accuracy. As a list, or with
# the old rows first, its places mean something else, and an epoch of training does not make that good.
# With the right table, the epoch brings back a little more than half of the seven points that were lost.
# %% [markdown] name="tune-large-text"
# ## Fine-tune at the new size
#
# What the larger `shapes` lost, they lost for another reason: a patch sees a smaller part of a shape, and
# edges are smoother. This is what fine-tuning is for. The interpolated table is put in place again, and
# 40 steps on 16 images each follow. The first training had 930 steps on 128.

# %% name="tune-large" tags=["nbval-ignore-output"]
weights.load(large, model.state_dict())
before = accuracy_of(large, images)
optimizer = torch.optim.AdamW(large.parameters(), lr=1e-3)
larger, given = enlarge(shapes.images), shapes.labels
for index in torch.arange(640).split(16):
    F.cross_entropy(large(larger[index]), given[index]).backward()
    optimizer.step()
    optimizer.zero_grad()
after = accuracy_of(large, images)
print(f"64 x 64: {before:.2f} -> {after:.2f}")

# %% name="tune-large-bound"
assert after > before + 0.05
print("ok: a few steps at the new size gain more than five per cent")

# %% [markdown] name="recipe-notes"
# ## What the paper's authors did
#
# [Dosovitskiy et al.](https://arxiv.org/abs/2010.11929) pre-train at 224 x 224 and fine-tune at 384 x 384
# or more, with the same patch size. They use SGD with momentum, a batch of 512, a cosine, clipping at 1
# and no weight decay; in pre-training they use Adam with a high weight decay. They write that a larger
# image than in training is often of use, and cite earlier work for it. Their tables are interpolated
# bilinearly with aligned corners: `weights.load(model, file, resize="bilinear")`.
#
# They also report that the lead of a pre-trained ViT over a convolutional network depends on how much
# it was pre-trained on. Lesson 12 measures that on a small scale.

# %% [markdown] name="published-text"
# ## Published weights
#
# With a network, one line fetches a model that torchvision trained on ImageNet. The file comes from
# PyTorch's server, once, and has about 330 MB (4 bytes for each parameter):
#
# ```
# model = weights.pretrained("vit_b_16", image=384, classes=10)
# ```
#
# The table is interpolated and the new head begins at zero. `model.preprocess` prepares an image as
# these weights were trained: at 224, with certain means and deviations. For 384 you resize by yourself,
# and keep means and deviations: no error tells you that they are wrong.
#
# A file of timm, transformers or Google goes through `weights.load(model, "file.safetensors")`, which
# recognises the layout and reports what it did. A model with a hidden layer in its head needs
# `ViT.variant(Head=RepresentationHead)`.

# %% [markdown] name="remember"
# ## Remember
#
# - Fine-tuning takes the body along and begins with a new, linear head at zero.
# - With a zero head the first loss is ln(classes), and the first gradient stops at the head.
# - With as many classes as before, nothing tells you that the old head came along. Drop it yourself.
# - A probe asks what the body knows. Fine-tuning pays where that is what the new task needs. Compare
#   both with a model from scratch.
# - At the same patch size a larger image is a longer sequence. Only the position table changes.
# - Interpolate the places as a grid, never the class token's row. Test it on a task that needs places.
#
# Before: [08 break it](08-break-it.ipynb). Next: [10 from one GPU to many](10-many-gpus.ipynb).
#
# [Glossary](../docs/glossary.md).
