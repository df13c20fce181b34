"""What is telling the colours of corrupted patches worth where labels are few?

All as with few labels in mae.py, on the same budget: digits in 16 patches of 2x2 pixels, a Nano/2,
pre-trained on all training images without their labels, the same draws of 10, 30, 100 and 300
labelled images, 400 steps with them. Only the pre-training is another: half of the patches are
corrupted, and the model tells the mean grey of each in 3 bits. As its encoder reads all tokens, a
step takes about twice the time of an MAE's; with half as many steps, the computing is about the
same. Beside its score on the test images stands that of one answer for all, the commonest grey.
"""

import time

from benchmarks.claims.mae import LONG, by_labels, pretraining, worth
from vitcourse import data
from vitcourse.papers import masked_patches
from vitcourse.train import build_model, fit

SEEDS = 3


def measure(seed):
    """The part of colours that is right, and accuracies by how many images were labelled."""
    digits = data.load("digits")
    recipe, start = pretraining(LONG // 2, seed), time.process_time()
    model = build_model(recipe, digits, masked_patches.MaskedPatchViT)
    step = masked_patches.telling_colours(digits)
    run = fit(model, digits, recipe, step, score=masked_patches.score, device="cpu", quiet=True)
    seconds = time.process_time() - start
    colours = masked_patches.mean_colours(digits.test_images.float() / 255, 2)
    found = {
        "CPU seconds": seconds,
        "colours": run.history[-1]["test_colours"],
        "commonest colour": (colours == colours.flatten().mode().values).float().mean().item(),
    }
    return found | by_labels(run.model, digits, seed)


PAIRS = {
    "colours are told better than by the commonest": ("colours", "commonest colour"),
    **worth(),
}
