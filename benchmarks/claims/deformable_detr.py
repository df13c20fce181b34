"""Does a detector that looks at few places learn in half the steps?

The scenes of the experiment on DETR, and models of one size: DETR for 750 and 1,500 steps,
Deformable DETR for 750, without and with refinement, in which the second layer corrects the boxes
of the first and looks around them. Of each, AP and AP50 after the last step; the seconds are those
of this processor, with one thread. Inside is what the queries of the last layer read inside the
object that they are matched with: the share by weight, over 100 test images, before training and
after it.
"""

import time
from dataclasses import replace

import torch

from benchmarks.claims import comparable
from benchmarks.claims.detr import scenes, train
from vitcourse import detect
from vitcourse.papers import deformable_detr, detr

SEEDS = 3
EPOCHS = 3  # of 250 steps
SMALL = deformable_detr.SMALL
MODELS = {
    "DETR": (detr.SmallDETR, detr.SMALL, EPOCHS),
    "DETR, twice as long": (detr.SmallDETR, detr.SMALL, 2 * EPOCHS),
    "deformable": (deformable_detr.SmallDeformableDETR, SMALL, EPOCHS),
    "refined": (
        deformable_detr.SmallDeformableDETR,
        replace(SMALL, refine=True, hidden=48),
        EPOCHS,
    ),
}


def measure(seed):
    """AP, AP50 and seconds of each model, and AP50 after each epoch."""
    drawn, found, models = scenes(), {}, {}
    for name, (cls, sizes, _) in MODELS.items():
        torch.manual_seed(seed)
        models[name] = cls(sizes)
    comparable(*models.values())
    some = drawn.normalise(drawn.test_images[:100]), detect.targets(drawn, "test_")[:100]
    for name, model in models.items():
        deformable, start = isinstance(model, deformable_detr.DeformableDETR), time.process_time()
        if deformable:
            found[f"{name}, inside before"] = detect.read_inside(model, *some)
        history = train(model, drawn, seed, MODELS[name][2])
        found[f"{name}, seconds"] = time.process_time() - start
        for epoch, entry in enumerate(history, 1):
            found[f"{name}, AP50 after epoch {epoch}"] = entry["test_AP50"]
        for figure in ("AP", "AP50"):
            found[f"{name}, {figure}"] = history[-1][f"test_{figure}"]
        if deformable:
            found[f"{name}, inside after"] = detect.read_inside(model, *some)
    return found


CLAIMS = {
    "with refinement, AP50 is 0.80 or more after 750 steps": lambda mean: (
        mean["refined, AP50"] >= 0.8
    ),
}
PAIRS = {
    "after as many steps, Deformable DETR finds more": ("deformable, AP50", "DETR, AP50"),
    "after half as many steps, Deformable DETR finds more": (
        "deformable, AP50",
        "DETR, twice as long, AP50",
    ),
    "after half as many steps, it finds more with refinement": (
        "refined, AP50",
        "DETR, twice as long, AP50",
    ),
    "with refinement, its boxes are closer, too": ("refined, AP", "DETR, twice as long, AP"),
    "a query reads more inside its object than before training": (
        "deformable, inside after",
        "deformable, inside before",
    ),
    "with refinement, it reads even more inside": (
        "refined, inside after",
        "deformable, inside after",
    ),
}
