"""A small training run with everything in it, for tests; as a script, killed again and again.

python -m tests.runs FOLDER SEED     prints what happened, as JSON
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from vitcourse.data import load
from vitcourse.data.augment import Augment
from vitcourse.data.base import Data
from vitcourse.train import Recipe, build_model, fit

RECIPE = Recipe(
    model="Nano/4",
    epochs=40,
    batch=64,
    lr=2e-3,
    drop_path=0.1,
    ema=0.95,
    smoothing=0.1,
    evaluate_every=10,
    augment=Augment(shift=1, rotate=10, cutmix=1.0),
)


def few_digits(count=256):
    """The first of the digits, 8x8."""
    all_ = load("digits")
    return Data(
        "digits",
        all_.images[:count],
        all_.labels[:count],
        all_.test_images[:100],
        all_.test_labels[:100],
        all_.classes,
    )


def train(out=None, resume=False, recipe=RECIPE, data=None, **options):
    """Train a new model, in `out` if that is given."""
    data = data or few_digits()
    model = build_model(recipe, data)
    return fit(model, data, recipe, out=out, resume=resume, quiet=True, device="cpu", **options)


def start(out, resume):
    """Train in a process of its own, which can be killed: its number."""
    child = os.fork()
    if child == 0:
        os.setsid()
        train(out, resume)
        os._exit(0)
    return child


def kill_while_writing(child, out):
    """Kill the child as soon as there is a checkpoint that is not whole yet."""
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        partial = [name for name in os.listdir(out) if name.endswith(".ckpt.partial")]
        if partial:
            os.kill(child, signal.SIGKILL)
            return True
    return False


def wait_for_checkpoint(child, out):
    """Wait until the run has written one more."""
    newest = max(out.glob("checkpoint-*.ckpt"), default=None)
    while max(out.glob("checkpoint-*.ckpt"), default=None) == newest:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the run ended too early"
        time.sleep(0.0005)


def torture(out, seed, kills=20, in_write=7):
    """Kill a run many times, resume it each time, and let it finish in the end."""
    rng, moments, resume = random.Random(seed), [], False
    few_digits(), torch.set_num_threads(1)  # everything is loaded before the first fork
    for number in range(kills):
        child = start(out, resume)
        while not (out / "recipe.json").exists():
            time.sleep(0.001)
        if number >= kills - in_write:
            assert kill_while_writing(child, out), "the run ended before a write was seen"
        else:
            # the first few may come before any checkpoint, the others after one more
            if number >= 3:
                wait_for_checkpoint(child, out)
            time.sleep(rng.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        steps = [path.name for path in sorted(out.glob("checkpoint-*.ckpt"))]
        cut = bool(list(out.glob("*.ckpt.partial")))
        moments.append({"code": os.waitstatus_to_exitcode(status), "kept": steps, "cut": cut})
        resume = True
    _, status = os.waitpid(start(out, True), 0)
    return {"kills": moments, "end": os.waitstatus_to_exitcode(status)}


if __name__ == "__main__":
    print(json.dumps(torture(Path(sys.argv[1]), int(sys.argv[2]))))
