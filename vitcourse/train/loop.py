"""One loop that trains: `fit(model, data, recipe)`. And `evaluate`."""

import copy
import hashlib
import json
import math
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from vitcourse import weights
from vitcourse.files import write_whole
from vitcourse.show.curves import Watcher, is_watched, loss_curves, score_of
from vitcourse.train import checkpoint, distributed
from vitcourse.train.batches import Batches, seed_of, test_batches
from vitcourse.train.device import autocast, pick_device, pick_precision
from vitcourse.train.environment import environment
from vitcourse.train.recipe import decay_groups, learning_rate

LOOK_EVERY = 50  # steps between looks at the loss: each look makes a GPU wait


class Stopped(RuntimeError):
    """A run that ended early: one line that says why, what is kept and how to go on."""


@dataclass
class Run:
    """A finished run: the model to use, in evaluation mode, and one entry of history an epoch."""

    model: torch.nn.Module
    history: list
    out: Path | None = None

    @property
    def accuracy(self):
        """The accuracy on the test images after the last epoch."""
        return self.history[-1]["test_accuracy"]


def classify(model, batch):
    """The usual step: soft cross-entropy of logits (B, classes) and targets (B, classes)."""
    return F.cross_entropy(model(batch.images), batch.targets)


class Objective(torch.nn.Module):
    """A model and what is asked of it: batch -> loss. The whole is compiled, and shared by DDP."""

    def __init__(self, model, step):
        super().__init__()
        self.model, self.step = model, step

    def forward(self, batch):
        return self.step(self.model, batch)


def fit(
    model,
    data,
    recipe,
    step=classify,
    out=None,
    resume=False,
    device="auto",
    quiet=False,
    origin=None,
    score=None,
):
    """Train `model` in place on `data`, and return the Run.

    `step(model, batch) -> loss` is what a method changes that needs more than images and labels.
    `out`, a folder, gets recipe, log, curves, checkpoints and the final weights; with `resume` the
    run there goes on from its last checkpoint, on the CPU to the same bits. Under torchrun all
    processes train one model together. `origin` is the name and the options from which `data.load`
    made the data, {"name": ..., "options": {...}}: they are kept in the folder. What is no
    classifier is measured by `score(model, data) -> {name: number}`, on the test images.
    """
    rank, world = distributed.join()
    device = pick_device(device)
    precision = pick_precision(recipe.precision, device)
    batches = Batches(data, recipe, device, rank, world)
    score = score or partial(accuracy_and_loss, device=device, precision=precision)
    model.to(device)
    average = copy.deepcopy(model).requires_grad_(False) if recipe.ema else None
    optimizer = torch.optim.AdamW(
        decay_groups(model, recipe.weight_decay),
        lr=recipe.lr,
        betas=(0.9, recipe.beta2),
        fused=device.type in ("cpu", "cuda"),
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    state = State(model, average, optimizer, scaler)
    origin = origin or {"name": data.name, "options": {}}
    if out:
        origin = origin | {"sha256": fingerprint(data)}
        out = open_folder(out, recipe, resume, rank, origin)
    if resume:
        state.restore(out, quiet or rank > 0)
    objective = Objective(model, step)
    if world > 1:
        objective = DistributedDataParallel(
            objective, device_ids=[device.index] if device.type == "cuda" else None
        )
    if recipe.compile:
        objective = torch.compile(objective)
    watcher = Watcher(off=quiet or rank > 0)
    bar = tqdm(
        total=batches.steps,
        initial=state.step,
        unit="step",
        disable=quiet or rank > 0 or not is_watched(),
        file=sys.stdout if watcher.live else sys.stderr,  # which a notebook shows in red
    )
    stream, start = batches.since(state.step), time.perf_counter() - state.seconds
    with stop_on_request() as requested, bar:
        while state.step < batches.steps:
            with explained(recipe, out):
                rate = learning_rate(recipe, state.step, batches.steps)
                torch.manual_seed(seed_of(recipe.seed, "step", state.step, rank))
                loss = train_step(objective, next(stream), recipe, rate, state, precision)
            state.loss_sum += loss
            state.step += 1
            bar.update()
            ends = state.step % batches.per_epoch == 0
            if ends or state.step % LOOK_EVERY == 0 or requested():
                look(state, batches, bar, out)
            if ends:
                state.seconds = time.perf_counter() - start
                state.close_epoch(batches, recipe, lambda m: score(m.eval(), data))
                watcher.show(state.history)
                if out and rank == 0:
                    write_log(out, state.history)
            epoch = state.step // batches.per_epoch
            last = state.step == batches.steps
            if out and ends and (last or epoch % recipe.checkpoint_every == 0):
                save(out, state, rank)
            if requested() and not last:
                if out:
                    save(out, state, rank)
                raise Stopped(
                    f"stopped at step {state.step} of {batches.steps}: "
                    + (f"go on with --resume {out}" if out else "the model keeps what it learned")
                )
    final = (average or model).eval()
    watcher.finish(state.history)
    if out and rank == 0:
        finish_folder(out, final, state.history, data, origin)
    distributed.wait()
    return Run(final, state.history, out)


def train_step(objective, batch, recipe, rate, state, precision):
    """One step of the optimizer, in as many pieces as the recipe says: the loss, not waited for."""
    optimizer, scaler = state.optimizer, state.scaler
    for group in optimizer.param_groups:
        group["lr"] = rate
    objective.train()
    total, pieces = 0.0, batch.pieces(recipe.accumulate)
    for piece in pieces:
        # processes exchange their gradients once, after the last piece
        waits = isinstance(objective, DistributedDataParallel) and piece is not pieces[-1]
        with objective.no_sync() if waits else nullcontext():
            with autocast(precision, batch.images.device):
                loss = objective(piece) * (len(piece.labels) / len(batch.labels))
            scaler.scale(loss).backward()
        total = total + loss.detach().float()
    if recipe.clip:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    if state.average is not None:
        state.update_average(recipe.ema)
    return total


class State:
    """All that changes in a run, and so all that a checkpoint holds."""

    def __init__(self, model, average, optimizer, scaler):
        self.model, self.average = model, average
        self.optimizer, self.scaler = optimizer, scaler
        self.step, self.seconds, self.loss_sum, self.history = 0, 0.0, 0.0, []

    @torch.no_grad()
    def update_average(self, ema):
        """Move the average a little towards the model; faster in the beginning."""
        part = 1 - min(ema, (1 + self.step) / (10 + self.step))
        ours, theirs = self.average.state_dict(), self.model.state_dict()
        floats = [name for name in ours if ours[name].is_floating_point()]
        torch._foreach_lerp_([ours[n] for n in floats], [theirs[n] for n in floats], part)
        for name in ours.keys() - set(floats):
            ours[name].copy_(theirs[name])

    def close_epoch(self, batches, recipe, score):
        """Add an entry to the history: the mean loss, and the test images now and then."""
        epoch = self.step // batches.per_epoch
        loss = distributed.total(torch.as_tensor(self.loss_sum, device=batches.device).clone())
        entry = {
            "epoch": epoch,
            "step": self.step,
            "loss": float(loss) / batches.per_epoch / batches.world,
            "lr": learning_rate(recipe, self.step - 1, batches.steps),
            "seconds": round(self.seconds, 3),
        }
        if epoch % recipe.evaluate_every == 0 or self.step == batches.steps:
            with torch.no_grad():
                result = score(self.average or self.model)
            entry |= {f"test_{name}": float(number) for name, number in result.items()}
        self.history.append(entry)
        self.loss_sum = 0.0

    def tensors(self):
        """Every tensor of the run, by name."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": t for name, t in self.average.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": t for name, t in moments.items()}
        return tensors

    def about(self):
        """Every plain value of the run."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "loss_sum": float(self.loss_sum),
            "history": self.history,
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, folder, quiet):
        """Go back to the newest whole checkpoint of a run; to the start where there is none."""
        tensors, about, lines = checkpoint.read_latest(folder)
        if not quiet:
            for line in lines + [f"no checkpoint in {folder}: starting anew"] * (tensors is None):
                print(line, flush=True)
        if tensors is None:
            return

        def of(kind):
            return {n.removeprefix(f"{kind}."): t for n, t in tensors.items() if n.startswith(kind)}

        self.model.load_state_dict(of("model"))
        if self.average is not None:
            self.average.load_state_dict(of("average"))
        moments = {}
        for name, tensor in of("optimizer").items():
            number, key = name.split(".")
            moments.setdefault(int(number), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.scaler.load_state_dict(about["scaler"])
        self.step, self.seconds = about["step"], about["seconds"]
        self.loss_sum, self.history = about["loss_sum"], about["history"]


@torch.no_grad()
def evaluate(model, data, device="auto", batch=1000, precision="auto"):
    """Accuracy, loss and confusion[truth, guess] (classes, classes) on the test images: a dict."""
    device = pick_device(device)
    precision = pick_precision(precision, device)
    model.to(device).eval()
    rank, world = distributed.place()
    classes = len(data.classes)
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
    precise = torch.float32 if device.type == "mps" else torch.float64  # which mps does not have
    loss = torch.zeros((), dtype=precise, device=device)
    for images, labels in test_batches(data, device, batch, rank, world):
        with autocast(precision, device):
            logits = model(images).float()
        loss += F.cross_entropy(logits, labels, reduction="sum").to(precise)
        guesses = logits.argmax(dim=1)
        confusion += torch.bincount(labels * classes + guesses, minlength=classes**2)
    distributed.total(confusion), distributed.total(loss)
    confusion = confusion.reshape(classes, classes).cpu()
    right, count = confusion.diagonal().sum().item(), len(data.test_labels)
    return {"accuracy": right / count, "loss": loss.item() / count, "confusion": confusion}


def accuracy_and_loss(model, data, device, precision):
    """How a classifier is scored, unless `fit` is told otherwise."""
    result = evaluate(model, data, device, precision=precision)
    return {name: result[name] for name in ("accuracy", "loss")}


# When something goes wrong ----------------------------------------------------------------------


def look(state, batches, bar, out):
    """Wait for the loss, show it, and stop if it is no number any more."""
    steps = (state.step - 1) % batches.per_epoch + 1
    loss = float(state.loss_sum) / steps
    if not math.isfinite(loss):
        good = out and checkpoint.found(out)
        kept = f"the last good checkpoint is {good[0]}" if good else "there is no checkpoint yet"
        raise Stopped(
            f"the loss was {loss} at step {state.step}: begin again with a lower learning rate "
            f"(--set lr=...) or a longer warm-up; {kept}"
        )
    scores = {name: f"{number:.3f}" for name, number in score_of(state.history[-1:]).items()}
    bar.set_postfix(loss=f"{loss:.3f}", **scores)


@contextmanager
def explained(recipe, out):
    """Too little memory, or a process that is gone, gets one line that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if distributed.place()[1] > 1 and re.search(
            "closed by peer|reset by peer|NCCL", str(error)
        ):
            raise Stopped(distributed.ENDED) from None
        if not isinstance(error, torch.OutOfMemoryError):
            raise
        pieces = 2 * recipe.accumulate
        command = f"--resume {out} --set accumulate={pieces}" if out else f"accumulate={pieces}"
        raise Stopped(
            f"the device has too little memory for {recipe.batch // recipe.accumulate} images at a "
            f"time: go on with {command}, which computes the same batches in more pieces"
        ) from None


@contextmanager
def stop_on_request():
    """Turn ctrl-C, and Jupyter's stop button, into a request; a second one interrupts at once."""
    asked = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def ask(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("\nstopping after this step; once more to stop at once", flush=True)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


# The folder of a run ----------------------------------------------------------------------------


def fingerprint(data):
    """A hash that other classes, labels or training images would change."""
    parts = data.classes, data.image, data.labels.tolist(), data.test_labels.tolist()
    parts += data.mean.tolist(), data.std.tolist()
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def open_folder(out, recipe, resume, rank, origin):
    """Make the folder of a new run. One that holds anything is refused, unless it is resumed."""
    out = Path(out)
    if rank == 0 and resume:
        if not (out / "recipe.json").is_file():
            raise FileNotFoundError(f"{out} holds no run: there is no recipe.json to resume")
        began = json.loads((out / "data.json").read_text()).get("sha256", origin["sha256"])
        if began != origin["sha256"]:
            raise ValueError(
                f"the data are not those with which the run in {out} began: bring those back, or "
                f"begin a new run in another folder"
            )
    elif rank == 0:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FileExistsError(
                f"{out} is there already: choose another folder, or --resume {out}"
            )
        out.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        about = json.dumps(environment(), indent=1) + "\n"
        write_whole(out / "environment.json", about.encode())
        write_whole(out / "data.json", (json.dumps(origin) + "\n").encode())
        write_whole(out / "recipe.json", (recipe.to_json() + "\n").encode())
    distributed.wait()
    return out


def write_log(out, history):
    """log.jsonl: one line an epoch."""
    lines = "".join(json.dumps(entry) + "\n" for entry in history)
    write_whole(out / "log.jsonl", lines.encode())


def save(out, state, rank):
    """Write a checkpoint; a disk that is full stops the run with the older ones intact."""
    if rank:
        return
    try:
        checkpoint.write(out, state.step, state.tensors(), state.about())
    except OSError as error:
        kept = f"{len(checkpoint.found(out))} older one(s) are whole"
        raise Stopped(
            f"the checkpoint of step {state.step} could not be written ({error.strerror}): make "
            f"room and go on with --resume {out}; {kept}"
        ) from None


def finish_folder(out, model, history, data, origin):
    """The final weights, with all that a picture needs to be classified; metrics and curves."""
    about = {"data": origin["name"], "classes": data.classes}
    about |= {"mean": data.mean.tolist(), "std": data.std.tolist()}
    weights.save(model, out / "model.safetensors", overwrite=True, **about)
    last = history[-1]
    metrics = {name: last[name] for name in last if name not in ("epoch", "step", "lr")}
    metrics["parameters"] = sum(p.numel() for p in model.parameters())
    write_whole(out / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    loss_curves(history).savefig(out / "curves.png", dpi=100)
