"""The classic bugs of a ViT, each in a set-up that is else healthy, and what gives them away.

`healthy()` is a model with all that trains and tests it: a Setup. `broken("no scale")` is the same
with one bug; BUGS names them all. `hidden(1)` does not say which bug it has. SIGNALS holds what can
be measured of a Setup, and `speaks("rows", setup)` says whether that is as it should not be.
"""

import contextlib
import copy
import io
import math
from collections import namedtuple
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import data
from vitcourse.check.walk import trace
from vitcourse.data.augment import shift
from vitcourse.probe import record_attention, token_similarity
from vitcourse.vit import (
    Attention,
    Block,
    ClassHead,
    Mlp,
    ViT,
    make_vit,
    patchify,
    truncated_normal_,
    unpatchify,
)

# A model, and what is done with it ---------------------------------------------------------------


@cache
def digits():
    """The data that every set-up uses."""
    return data.load("digits")


class Setup:
    """A small ViT for the digits, with how its images are made, how it is trained and tested.

    A bug replaces one of these methods or numbers, or a part of `Model`.
    """

    Model = ViT
    lr, warmup, decay = 4e-3, 0.2, 0.05

    def __init__(self, seed=0):
        self.seed = seed
        with seeded(seed):
            self.model = self.build()

    def __repr__(self):
        return f"Setup(seed={self.seed})"

    def build(self):
        """A new model, whose layers keep the size of what they read."""
        model = make_vit("Nano/4", self.Model, image=8, channels=1, classes=10, drop=0.1)
        truncated_normal_(model.position.table, std=0.5)
        for layer in model.blocks.modules():
            if isinstance(layer, nn.Linear):
                truncated_normal_(layer.weight, std=0.5 * layer.in_features**-0.5)
        return model

    def labels(self):
        """The labels of the training images: (n,)."""
        return digits().labels

    def augment(self, images):
        """What training does to images 0..255: move each by a pixel at most."""
        return shift(images.float(), 1, generator=torch.Generator().manual_seed(drawn()))

    def test_images(self):
        """The test images as the model gets them: (n, 1, 8, 8)."""
        return digits().normalise(digits().test_images)

    @torch.no_grad()
    def predict(self, images):
        """The logits of images, as they are computed for a test: (B, 10)."""
        self.model.eval()
        return self.model(images)

    def groups(self):
        """The parameters for the optimizer: only matrices decay, and no positions."""
        decay, keep = [], []
        for name, parameter in self.model.named_parameters():
            special = name.startswith(("prefix", "position")) or parameter.ndim < 2
            (keep if special else decay).append(parameter)
        return [
            {"params": decay, "weight_decay": self.decay},
            {"params": keep, "weight_decay": 0.0},
        ]

    def rate(self, step, steps):
        """The learning rate of a step: up a straight line, then down a cosine."""
        warm = self.warmup * steps
        if step < warm:
            return self.lr * (step + 1) / (warm + 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))

    def fresh(self):
        """The same set-up with a new model, as it was before training."""
        return type(self)(self.seed)


@contextlib.contextmanager
def seeded(seed):
    """Random numbers from that seed; afterwards those of before go on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def drawn():
    """A number by chance."""
    return torch.randint(2**31, ()).item()


def train(setup, steps=400, batch=64, only=None):
    """Train the model of a set-up, with `only` on so many images again and again: its losses."""
    labels, losses = setup.labels()[:only], []
    optimizer = torch.optim.AdamW(setup.groups(), lr=setup.lr)
    with seeded(setup.seed):
        for step in range(steps):
            chosen = torch.randint(len(labels), (batch,)) if only is None else torch.arange(only)
            images = digits().images[chosen]
            images = setup.augment(images) if only is None else images
            for group in optimizer.param_groups:
                group["lr"] = setup.rate(step, steps)
            setup.model.train()
            loss = F.cross_entropy(setup.model(digits().normalise(images)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(setup.model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
    return losses


# The bugs, each a small change of one class ------------------------------------------------------


class NoScale(Attention):
    """Scores that are not divided by sqrt(d)."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.scale = 1.0


class ScaleOfWidth(Attention):
    """Scores divided by sqrt(D), where sqrt(d) belongs."""

    def __init__(self, dim, *arguments):
        super().__init__(dim, *arguments)
        self.scale = dim**-0.5


class MergedByReshape(Attention):
    """Heads joined by a reshape, without exchanging heads and tokens first."""

    def forward(self, x, grid=None):
        merged = self.attend(*self.project(x, grid)).reshape(x.shape)  # (B, T, D)
        return self.drop(self.proj(merged))


class SoftmaxOverQueries(Attention):
    """A softmax over the wrong axis of the scores."""

    def weights(self, q, k, bias):
        return (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-2)  # (B, K, T, T)


class NoFirstNorm(Block):
    """norm1 is there, and is not called."""

    def forward(self, x, grid=None):
        x = x + self.attn(x, grid)
        return x + self.mlp(self.norm2(x), grid)


class NoResidual(Block):
    """A branch replaces the tokens, in place of being added to them."""

    def forward(self, x, grid=None):
        x = self.attn(self.norm1(x), grid)
        return self.mlp(self.norm2(x), grid)


class GeluAtTheEnd(Mlp):
    """An activation behind the second layer, too."""

    def forward(self, x, grid=None):
        return F.gelu(super().forward(x, grid))


class Unused(nn.LayerNorm):
    """A norm that gives back what it gets."""

    def forward(self, x):
        return x


class NoFinalNorm(ViT):
    """The last norm has its parameters, and does nothing."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.norm = Unused(cfg.dim)


class PositionsFirst(ViT):
    """Positions are added, from the first row on, before the class token is put in front."""

    def encode(self, images):
        x, grid = self.patch_embed(images)
        x = x + self.position.table[:, : x.shape[1]]  # (B, N, D)
        x = self.drop(torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1))  # (B, T, D)
        for block in self.blocks:
            x = block(x, grid)
        return self.norm(x), grid


class PositionsForgotten(ViT):
    """The table is there, and is not added."""

    def encode(self, images):
        x, grid = self.patch_embed(images)
        x = self.drop(torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1))  # (B, T, D)
        for block in self.blocks:
            x = block(x, grid)
        return self.norm(x), grid


class LastTokenRead(ClassHead):
    """The head reads the last patch."""

    def forward(self, x, grid=None):
        return super().forward(x.flip(1))


class LabelsShuffled(Setup):
    """The images were shuffled, and the labels by themselves."""

    def labels(self):
        labels = super().labels()
        return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(8))]


class DecayEverywhere(Setup):
    """All parameters in one group, with a large weight decay."""

    decay = 10.0

    def groups(self):
        return [{"params": list(self.model.parameters()), "weight_decay": self.decay}]


class NoWarmup(Setup):
    """The highest learning rate from the first step on, and too high."""

    lr, warmup = 0.05, 0.0


class DropoutAtTest(Setup):
    """model.eval() is forgotten."""

    @torch.no_grad()
    def predict(self, images):
        self.model.train()
        return self.model(images)


class AugmentedTest(Setup):
    """The test images pass through the augmentation of the training images."""

    def test_images(self):
        return digits().normalise(self.augment(digits().test_images))


class NotNormalised(Setup):
    """The test images keep their values 0..1."""

    def test_images(self):
        return digits().test_images / 255


class ColumnsAtTest(Setup):
    """The test images' patches come column by column."""

    def test_images(self):
        patches = patchify(super().test_images(), 4).unflatten(1, (2, 2))  # (n, h, w, 16)
        return unpatchify(patches.transpose(1, 2).flatten(1, 2), (2, 2), 4)


Bug = namedtuple("Bug", "sentence change signals stage", defaults=((), ""))
# `signals` are those that speak of it, and `stage` is where the trace departs: tests prove both
BUGS = {
    "no scale": Bug(
        "the scores are not divided by sqrt(d)",
        dict(Attention=NoScale),
        ("scores",),
        "block 1, scores",
    ),
    "scale of the width": Bug(
        "the scores are divided by sqrt(D), the root of the whole width, in place of sqrt(d)",
        dict(Attention=ScaleOfWidth),
        ("scores",),
        "block 1, scores",
    ),
    "heads merged by reshape": Bug(
        "the heads are joined by a reshape, which mixes tokens, without a transpose before it",
        dict(Attention=MergedByReshape),
        (),
        "block 1, merge",
    ),
    "softmax over queries": Bug(
        "the softmax goes over the queries, dim=-2, and not over the keys",
        dict(Attention=SoftmaxOverQueries),
        ("rows",),
        "block 1, weights",
    ),
    "no norm1": Bug(
        "the attention reads tokens that are not normalised",
        dict(Block=NoFirstNorm),
        ("scores",),
        "block 1, norm 1",
    ),
    "no final norm": Bug("the head reads tokens that are not normalised", NoFinalNorm, (), "norm"),
    "no residual": Bug(
        "attention and MLP replace the tokens and are not added to them",
        dict(Block=NoResidual),
        ("scores", "alike", "one batch", "learns"),
        "block 1, + attention",
    ),
    "GELU behind fc2": Bug(
        "the MLP ends with an activation", dict(Mlp=GeluAtTheEnd), (), "block 1, MLP"
    ),
    "positions shifted": Bug(
        "positions are added before the class token is put in front, so each patch has the row of "
        "its neighbour",
        PositionsFirst,
        (),
        "+ position",
    ),
    "no positions": Bug(
        "the position table is never added", PositionsForgotten, ("order",), "+ position"
    ),
    "last token read": Bug(
        "the head reads the last patch, and not the class token",
        dict(Head=LastTokenRead),
        (),
        "logits",
    ),
    "labels shuffled": Bug("images and labels are shuffled apart", LabelsShuffled, ("learns",)),
    "decay everywhere": Bug(
        "weight decay, two hundred times the usual, draws at positions, norms and biases, too",
        DecayEverywhere,
        ("decay", "one batch", "learns"),
    ),
    "no warm-up": Bug(
        "the learning rate is twelve times too high, from the first step on",
        NoWarmup,
        ("first steps", "learns"),
    ),
    "dropout at test": Bug("model.eval() is not called before the test", DropoutAtTest, ("twice",)),
    "test augmented": Bug(
        "the test images are augmented like training images", AugmentedTest, ("images",)
    ),
    "test not normalised": Bug(
        "the test images are not normalised", NotNormalised, ("pixels", "gap")
    ),
    "columns at test": Bug(
        "patches come row by row in training, and column by column in the test",
        ColumnsAtTest,
        ("gap",),
    ),
}


def healthy(seed=0):
    """The set-up without a bug."""
    return Setup(seed)


def broken(name, seed=0):
    """The set-up with one bug, called by its name in BUGS."""
    if name not in BUGS:
        raise ValueError(f"there is no bug {name!r}: choose from {', '.join(BUGS)}")
    change = BUGS[name].change
    if isinstance(change, dict):
        change = ViT.variant(**change)
    if issubclass(change, ViT):
        change = type("Setup", (Setup,), {"Model": change})
    return change(seed)


def hidden(number, seed=0):
    """A set-up with a bug, that does not say which: the task of `check.diagnose_1` and so on.

    Its parts go by the names of the package's classes.
    """
    setup = broken(answer(number), seed)
    for module in setup.model.modules():
        if module is setup.model or type(module).__module__ == __name__:
            module.__class__ = disguised(type(module))
    for slot in ("Attention", "Block", "Mlp", "Head"):
        setattr(type(setup.model), slot, getattr(ViT, slot))
    setup.__class__ = disguised(type(setup), Model=disguised(setup.Model))
    return setup


def answer(number):
    """The name of the bug in `hidden(number)`."""
    if number not in (1, 2, 3):
        raise ValueError(f"there is no hidden bug {number!r}: choose 1, 2 or 3")
    return list(BUGS)[(9, 14, 2)[number - 1]]


def disguised(cls, **changes):
    """A subclass that goes by the name of the class which `cls` changes."""
    known = next(c for c in cls.__mro__ if c is Setup or c.__module__ != __name__)
    about = {"__module__": known.__module__, "__qualname__": known.__qualname__}
    return type(known.__name__, (cls,), about | changes)


# The signals -------------------------------------------------------------------------------------


def spread(setup):
    """A copy of the model, random in all its parameters, so that no start value hides a bug.

    Layers keep the size of what they read: what has size 1 goes on with size 1. Not in training.
    """
    model, generator = copy.deepcopy(setup.model).eval(), torch.Generator().manual_seed(8)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim in (2, 4):  # weights of layers
                parameter.copy_(values * parameter[0].numel() ** -0.5)
            elif name.startswith(("prefix", "position")):
                parameter.copy_(values)
            else:  # norms and biases
                parameter.copy_(0.1 * values + ("norm" in name and name.endswith("weight")))
    return model


def some(count):
    """The first training images, as a model gets them: (count, 1, 8, 8)."""
    return digits().normalise(digits().images[:count])


def output_shape(setup):
    """The shape of the logits of 8 images."""
    return tuple(setup.predict(some(8)).shape)


def first_loss(setup):
    """The cross-entropy of a new model on a hundred training images."""
    logits = setup.fresh().predict(some(100))
    return F.cross_entropy(logits, setup.labels()[:100]).item()


def order_counts(setup):
    """How much the logits change if the patches of all images are shuffled: the largest change."""
    model, images = spread(setup), some(32)
    patches = patchify(images, 4)[:, [2, 0, 3, 1]]  # (B, N, 16)
    with torch.no_grad():
        return (model(unpatchify(patches, (2, 2), 4)) - model(images)).abs().max().item()


def attention_maps(setup):
    """The attention of all blocks, with spread weights: (L, B, K, T, T)."""
    model = spread(setup)
    with torch.no_grad(), record_attention(model) as maps:
        model(some(32))
    return torch.stack(maps)


def row_sums(setup):
    """How far the sum of an attention row is from one, over the keys: the largest distance."""
    return max(row_error(map).max().item() for map in attention_maps(setup))


def row_error(weights):
    """How far the rows of a head are from summing to one: (B, K, T, T) -> the largest, (B, K)."""
    sums = weights.sum(dim=-1)  # (B, K, T)
    return (sums - 1).abs().amax(dim=-1)  # (B, K)


def score_size(setup):
    """The standard deviation of a query's scores: about 1, if queries and keys have size 1."""
    return torch.stack([score_spread(map) for map in attention_maps(setup)]).mean().item()


def score_spread(weights):
    """How far apart the scores of a query lie, from the map: (B, K, T, T) -> the mean, (B, K).

    The logarithm of a softmax is the scores but for a number that all of a row share.
    """
    scores = weights.log()  # (B, K, T, T)
    return scores.std(dim=-1).mean(dim=-1)  # (B, K)


def tokens_alike(setup):
    """How alike the tokens of an image are before the head: their mean cosine, 1 if all are one."""
    with torch.no_grad():
        x, _ = spread(setup).encode(some(32))
    return token_similarity(x).mean().item()


def gradients(setup):
    """The length of the gradient in each block, from the first to the last: a list."""
    model = spread(setup)
    F.cross_entropy(model(some(32)), digits().labels[:32]).backward()
    found = []
    for block in model.blocks:
        parts = [p.grad.norm() for p in block.parameters() if p.grad is not None]
        found.append(torch.stack(parts).norm().item())
    return found


def same_images(setup):
    """Whether the test images are the same when they are asked for twice."""
    return torch.equal(setup.test_images(), setup.test_images())


def same_logits(setup):
    """Whether the same images get the same logits twice."""
    images, other = some(32), copy.copy(setup)
    other.model = spread(setup)
    return torch.equal(other.predict(images), other.predict(images))


def mean_and_deviation(setup):
    """Mean and standard deviation of the test images, as the model gets them."""
    images = setup.test_images()
    return images.mean().item(), images.std().item()


def wrongly_decayed(setup):
    """How many parameters decay that are no matrices, or are positions or prefix tokens."""
    decayed = {id(p) for g in setup.groups() if g["weight_decay"] for p in g["params"]}
    return sum(
        id(p) in decayed and (p.ndim < 2 or name.startswith(("prefix", "position")))
        for name, p in setup.model.named_parameters()
    )


def one_batch(setup, steps=60):
    """The losses of a new model that is trained on one batch of 32 images, again and again."""
    return train(setup.fresh(), steps, only=32)


def accuracies(setup):
    """The shares of training and of test images that are read rightly."""
    train_images = digits().normalise(digits().images)
    pairs = (train_images, setup.labels()), (setup.test_images(), digits().test_labels)
    with seeded(setup.seed):
        return tuple((setup.predict(x).argmax(1) == y).float().mean().item() for x, y in pairs)


def departs(setup):
    """The stage where the model departs from the package's, by `check.trace`; "" for none."""
    with contextlib.redirect_stdout(io.StringIO()):
        return trace(setup.model, some(2)).stage


Signal = namedtuple("Signal", "measure fine bad")
# what is measured, whether it is as it should be, and what one sees where it is not
SIGNALS = {
    "shape": Signal(
        output_shape, lambda v: v == (8, 10), "the logits have another shape than (B, classes)"
    ),
    "first loss": Signal(
        first_loss, lambda v: abs(v - math.log(10)) < 0.1, "the first loss is not ln(10)"
    ),
    "order": Signal(
        order_counts, lambda v: v > 0.01, "shuffled patches give the same logits as ordered ones"
    ),
    "rows": Signal(row_sums, lambda v: v < 1e-3, "the rows of attention do not sum to one"),
    "scores": Signal(
        score_size, lambda v: 0.6 < v < 1.2, "the scores of attention are too large or too small"
    ),
    "alike": Signal(tokens_alike, lambda v: v < 0.9, "the tokens of an image are all alike"),
    "gradients": Signal(
        gradients,
        lambda v: 0.1 < v[0] / v[-1] < 10,
        "the gradient of the first block is not of the size of the last block's",
    ),
    "pixels": Signal(
        mean_and_deviation,
        lambda v: abs(v[0]) < 0.2 and abs(v[1] - 1) < 0.2,
        "the test images do not have mean 0 and standard deviation 1",
    ),
    "images": Signal(
        same_images, bool, "the test images are different ones each time that they are asked for"
    ),
    "twice": Signal(same_logits, bool, "the same images get other logits the second time"),
    "decay": Signal(
        wrongly_decayed, lambda v: v == 0, "the optimizer lets norms, biases or positions decay"
    ),
    "one batch": Signal(
        one_batch, lambda v: v[-1] < 0.6, "the model cannot learn one batch of 32 images by heart"
    ),
    "first steps": Signal(
        one_batch, lambda v: max(v) < 2.6, "the loss rises above ln(10) when training begins"
    ),
    "learns": Signal(
        accuracies, lambda v: v[0] > 0.8, "the trained model does not know its training images"
    ),
    "gap": Signal(
        accuracies,
        lambda v: v[1] > v[0] - 0.2,
        "the trained model knows its training images and not the test images",
    ),
}
FREE = tuple(SIGNALS)[:11]  # the signals that need no training


def speaks(signal, setup):
    """Whether a signal says that something is wrong with a set-up."""
    measure, fine, _ = SIGNALS[signal]
    return not fine(measure(setup))
