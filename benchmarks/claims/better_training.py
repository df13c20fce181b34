"""What can teach a ViT besides the label: one task, one budget, six ways.

A canvas of four digits, two by two; a white corner marks one of them, and that digit is the class.
Every student is the same small ViT, or differs from it by a head, and learns 2,000 canvases for
12 epochs. What is read in the end is an answer about the image, never the head for the patches.

The teacher is a CNN of as many parameters that has seen the same canvases and labels for as long.
Token labels are the truth: they name all four digits, where the label names one. So two more
controls: the ViT with twice the epochs, the teacher's computing and the student's; and the ViT with
four times as many canvases and as many steps, which has been told as many digits. Images are not
mixed: what is cut out may be the mark.
"""

from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.claims import comparable
from benchmarks.claims.lv_vit import canvases, of_patches
from benchmarks.digits import build_cnn
from vitcourse import ViT, data
from vitcourse.data import Data
from vitcourse.data.augment import Augment
from vitcourse.papers import oversmoothing
from vitcourse.papers.deit import DistilledDeiT, distillation
from vitcourse.papers.lv_vit import LVViT, TokenHead, training_step
from vitcourse.papers.oversmoothing import DiverseViT
from vitcourse.papers.simple_vit import SimpleViT
from vitcourse.probe import record_tokens, token_similarity
from vitcourse.train import RECIPES, build_model, classify, fit

SEEDS = 3
COUNT, EPOCHS, MORE = 2000, 12, 4


class ClassTokenHead(TokenHead):
    """A head for every token, of which only that of the class token counts in the end."""

    def forward(self, x, grid):
        return self.both(x, grid)[0]


LabelledViT = LVViT.variant(
    Tokenizer=ViT.Tokenizer, Attention=ViT.Attention, Head=ClassTokenHead, divisor=1.0, eps=1e-6
)


def task(count, seed):
    """Canvases as a Data, and the digit that each patch shows, one-hot: (count, 16, 10)."""
    source = data.load("digits")
    images, labels, digits = canvases(source.images, source.labels, count, seed)
    test_images, test_labels, _ = canvases(
        source.test_images, source.test_labels, 1000, seed + 1000
    )
    made = Data("canvases", images, labels, test_images, test_labels, source.classes)
    return made, F.one_hot(of_patches(digits), 10).float()


def measure(seed):
    """Accuracy of all students and of the teacher; how unlike the patches of an image come out."""
    few, truth = task(COUNT, seed)
    many, _ = task(MORE * COUNT, seed)
    recipe = RECIPES["smoke"].but(
        epochs=EPOCHS, seed=seed, evaluate_every=EPOCHS, augment=Augment()
    )
    found = {}

    def train(name, model, made=few, step=classify, epochs=EPOCHS):
        how = recipe.but(epochs=epochs, evaluate_every=epochs)
        run = fit(model, made, how, step, device="cpu", quiet=True)
        found[f"{name}, accuracy"] = run.accuracy
        if isinstance(model, ViT):
            found[f"{name}, patches unlike"] = 1 - alike(run.model, made)
        return run.model

    teacher = train("teacher, a CNN", build_cnn(recipe.but(seed=seed + 1000), few))
    against = partial(oversmoothing.step, mixing=None)
    students = {
        "ViT": (ViT, classify),
        "SimpleViT": (SimpleViT, classify),
        "DeiT": (DistilledDeiT, distillation(teacher)),
        "token labels": (LabelledViT, training_step(lambda batch: truth[batch.index], mix=False)),
        "cosine loss": (DiverseViT, partial(against, consistency=0)),
        "consistency loss": (DiverseViT, partial(against, cosine=0)),
    }
    comparable(*(build_model(recipe, few, cls) for cls, _ in students.values()))
    for name, (cls, step) in students.items():
        train(name, build_model(recipe, few, cls), step=step)
    train("ViT, twice the steps", build_model(recipe, few), epochs=2 * EPOCHS)
    train("ViT, four times the images", build_model(recipe, few), many, epochs=EPOCHS // MORE)
    return found


@torch.no_grad()
def alike(model, made):
    """The mean cosine of two patches of an image after the last block, over all test images."""
    with record_tokens(model) as tokens:
        model(made.normalise(made.test_images))
    return token_similarity(tokens[-1][:, model.prefix_len :]).mean().item()


def more_accurate(name, than="ViT"):
    """A pair of accuracies."""
    return f"{name}, accuracy", f"{than}, accuracy"


PAIRS = {
    "SimpleViT beats the ViT": more_accurate("SimpleViT"),
    "DeiT beats the ViT": more_accurate("DeiT"),
    "token labels beat the ViT": more_accurate("token labels"),
    "the cosine loss beats the ViT": more_accurate("cosine loss"),
    "the consistency loss beats the ViT": more_accurate("consistency loss"),
    "DeiT beats the ViT with twice the steps": more_accurate("DeiT", "ViT, twice the steps"),
    "token labels beat the ViT with four times the images": more_accurate(
        "token labels", "ViT, four times the images"
    ),
    "token labels beat DeiT": more_accurate("token labels", "DeiT"),
    "the teacher beats its student": more_accurate("teacher, a CNN", "DeiT"),
    "the cosine loss keeps patches apart": (
        "cosine loss, patches unlike",
        "ViT, patches unlike",
    ),
    "so do token labels": ("token labels, patches unlike", "ViT, patches unlike"),
}
