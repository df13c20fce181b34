"""Does LeViT take less time than a ViT, and what does `fuse` add? Is it as accurate?

Speed: LeViT-128S, the same fused, and a ViT with as many multiplications within 5 %, all with new
weights, images of 224 x 224 pixels, on one thread of a CPU. In each round each model runs once, in
turn; the figure is from the median over the rounds of the processor time. A seed is a repetition.

Accuracy: digits, enlarged to 16 x 16 pixels, 16 tokens, 10 epochs. A ViT of 4 blocks, and a LeViT
of three stages of one block with as many parameters, on maps of 4 x 4, 2 x 2 and one place.
"""

import statistics
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.claims import comparable
from benchmarks.claims.t2t_vit import enlarged
from vitcourse import Config, ViT, data
from vitcourse.papers.levit import PAPER, LeViT, Sizes, fuse
from vitcourse.train import RECIPES, build_model, fit

SEEDS = 3
ROUNDS = {1: 31, 64: 9}  # for each size of a batch
LIKE_128S = Config(dim=96, depth=10, heads=3)
SMALL = Sizes((32, 48, 56), (1, 1, 1), (2, 3, 4), key=8, patch=4, image=16, channels=1, classes=10)


def measure(seed):
    """Images a second, multiplications, and accuracies."""
    torch.manual_seed(seed)
    levit = LeViT(PAPER.configs["levit_128s"].sizes).eval()
    models = {"LeViT": levit, "fused LeViT": fuse(levit), "ViT": ViT(LIKE_128S).eval()}
    found = {
        f"{name}, million multiplications": multiplications(model, 3, 224) / 1e6
        for name, model in models.items()
    }
    for batch, rounds in ROUNDS.items():
        for name, seconds in timed(models, torch.randn(batch, 3, 224, 224), rounds).items():
            found[f"{name}, images a second, batches of {batch}"] = batch / seconds
    return found | accuracies(seed)


@torch.no_grad()
def multiplications(model, channels, image):
    """Those of all matrices for one image, attention included."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, channels, image, image))
    return counter.get_total_flops() / 2  # an addition counts there, too


@torch.no_grad()
def timed(models, images, rounds):
    """The median of the processor time that each model takes, in seconds."""
    times = {name: [] for name in models}
    for i in range(rounds + 2):
        for name, model in models.items():
            start = time.process_time()
            model(images)
            if i >= 2:  # the first are slower
                times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def accuracies(seed):
    """Accuracy and multiplications of both on digits."""
    digits = enlarged(data.load("digits"))
    recipe = RECIPES["smoke"].but(model="Nano/4", epochs=10, seed=seed, evaluate_every=10)
    models = {"ViT": build_model(recipe, digits)}
    torch.manual_seed(seed)
    models["LeViT"] = LeViT(SMALL)
    comparable(*models.values())
    found = {}
    for name, model in models.items():
        run = fit(model, digits, recipe, device="cpu", quiet=True)
        found[f"{name}, accuracy on digits"] = run.accuracy
        work = multiplications(run.model, 1, 16)
        found[f"{name}, million multiplications on digits"] = work / 1e6
    return found


CLAIMS = {
    "LeViT-128S and the ViT multiply as often, within 5 %": lambda means: (
        abs(means["LeViT, million multiplications"] - means["ViT, million multiplications"])
        < 0.05 * means["ViT, million multiplications"]
    ),
    "on digits, LeViT multiplies less than half as often": lambda means: (
        means["LeViT, million multiplications on digits"]
        < means["ViT, million multiplications on digits"] / 2
    ),
}
PAIRS = {
    **{
        f"batches of {batch}: {one} is faster than {control}": tuple(
            f"{name}, images a second, batches of {batch}" for name in (one, control)
        )
        for batch in ROUNDS
        for one, control in (("fused LeViT", "LeViT"), ("fused LeViT", "ViT"))
    },
    "LeViT is more accurate on digits": ("LeViT, accuracy on digits", "ViT, accuracy on digits"),
}
