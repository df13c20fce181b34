"""The curves of a training run: live where somebody watches, drawn once elsewhere."""

import os
import sys

import matplotlib
from IPython.display import display
from matplotlib.figure import Figure

from vitcourse.show.figures import COLOURS, STYLE, figure, picture


def loss_curves(history):
    """Loss and test accuracy by epoch, from the entries of a run's history: a matplotlib Figure."""
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(9, 3), layout="constrained")
        left, right = drawing.subplots(1, 2)
        epochs = [entry["epoch"] for entry in history]
        left.plot(epochs, [entry["loss"] for entry in history], label="training")
        tested = [entry for entry in history if score_of([entry])]
        times = [entry["epoch"] for entry in tested]
        losses = [entry["test_loss"] for entry in tested if "test_loss" in entry]
        if losses:
            left.plot(times, losses, label="test", color=COLOURS[1])
        name = next(iter(score_of(tested)), "accuracy")
        right.plot(times, [entry[f"test_{name}"] for entry in tested], color=COLOURS[1])
        left.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
        right.set(xlabel="epoch", ylabel=f"test {name}")
        if name == "accuracy":
            right.set_ylim(None, 1)
        left.legend(frameon=False)
    return drawing


def score_of(history):
    """How the test images were scored last, beside their loss: {name: number}, or nothing."""
    entry = history[-1] if history else {}
    names = [name for name in entry if name.startswith("test_") and name != "test_loss"]
    return {name.removeprefix("test_"): entry[name] for name in names[:1]}


def caption(history):
    """What the curves show, in words."""
    first, last = history[0], history[-1]
    text = (
        f"Curves over {last['epoch']} epochs: loss from {first['loss']:.2f} to {last['loss']:.2f}"
    )
    for name, number in score_of(history).items():
        shown = f"{number:.1%}" if name == "accuracy" else f"{number:.3f}"
        text += f", test {name} {shown} at the end"
    return text


class Watcher:
    """Shows the curves in a notebook after every epoch; in one that nobody watches, at the end."""

    def __init__(self, off=False):
        self.notebook = not off and in_notebook()
        self.live = self.notebook and is_watched()
        if self.live:
            waiting = {"text/plain": "the curves appear after the first epoch"}
            self.handle = display(waiting, raw=True, display_id=True)

    def show(self, history):
        """Draw the curves again, where they stand."""
        if self.live:
            shown = picture(loss_curves(history), caption(history))
            self.handle.update(shown.pop("data"), **shown)

    def finish(self, history):
        """Draw the curves once, where they were not shown live."""
        if self.notebook and not self.live:
            figure(loss_curves(history), alt=caption(history))


def is_watched():
    """Whether a person sees what happens: in a terminal, or in a notebook that one runs."""
    return (in_notebook() or sys.stderr.isatty()) and os.environ.get("TQDM_DISABLE") != "1"


def in_notebook():
    """Whether this runs in a Jupyter kernel."""
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")
