"""The machinery of the checks: what a learner sees, and what a check never does."""

import math
import random
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn

from tests import catalogue
from vitcourse import check
from vitcourse.check import store
from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.check.runner import judge


def good(images, patch):
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch, q=patch)


@pytest.fixture(autouse=True)
def nothing_done(monkeypatch):
    monkeypatch.setattr(store, "memory", {})
    monkeypatch.setattr(check, "_exam", False)


# What a learner sees ----------------------------------------------------------------------------


def test_a_check_says_one_of_three_things(capsys):
    check.patchify()
    check.patchify(lambda images, patch: ...)
    check.patchify(good)
    check.patchify(lambda images, patch: good(images, patch) * 2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[1]
    assert lines[0] == '○ patchify: not attempted yet. For a hint: check.hint("patchify")'
    assert lines[2].startswith("✓ patchify: right. Values, gradients and side effects")
    assert lines[3].startswith("✗ patchify: the shape is right, the values are not")
    assert len(lines) == 4, "one line each, and no tensors"


def test_hints_are_a_ladder_and_then_comes_the_solution(capsys):
    ladder = check.EXERCISES["patchify"].hints
    for _ in range(len(ladder) + 1):
        check.hint("patchify")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *(f"Hint {i + 1} of {len(ladder)}" for i in range(len(ladder))),
        f"Hint {len(ladder)} of {len(ladder)}",
    ]
    assert "check.solution" in lines[-1] and "check.solution" not in lines[0]
    check.solution("patchify")
    assert "def patchify(images, patch):" in capsys.readouterr().out


def test_a_handout_has_no_hints(capsys):
    check.exam()
    check.hint("patchify")
    check.solution("patchify")
    assert capsys.readouterr().out.count("switched off in this handout") == 2


def test_predictions(capsys):
    question = "patches of 16 x 16 in an image of 224 x 224"
    for guess in (None, 14, 12345, 196):
        check.predict(question, guess)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("○") and lines[3].startswith("✓ 196:")
    assert lines[1].startswith("✗ not 14. That is one side") and "Count again" in lines[2]


def test_predictions_in_other_forms(capsys):
    question = "patches of 16 x 16 in an image of 224 x 224"
    for guess in ("196", [196], {196}, torch.ones(2), np.ones(2)):
        check.predict(question, guess)
    check.predict(question, 1, 96)  # as in 1,96
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all("1234, not 1,234" in line for line in lines)
    for guess in (196.0, torch.tensor(196), np.int64(196)):
        check.predict(question, guess)
    (question,) = (q for q in check.QUESTIONS if q.startswith("first loss of a new ViT with 10"))
    check.predict(question, math.log(10))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.startswith("✓") for line in lines)


def test_unknown_names(capsys):
    check.hint("patchfy")
    check.solution("patchfy")
    check.predict("how many?", 3)
    lines = capsys.readouterr().out.splitlines()
    assert "there is no exercise 'patchfy'; there are patchify, " in lines[0]
    assert lines[1] == lines[0] and "no question 'how many?'" in lines[2]
    with pytest.raises(AttributeError, match="no exercise 'patchfy'"):
        check.patchfy(good)


def test_progress(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("VITCOURSE_PROGRESS", str(tmp_path / "progress.json"))
    check.patchify(good)
    check.hint("unpatchify")
    check.progress()
    said = capsys.readouterr().out
    assert re.search(r"01 +1 of \d+ +1 +1", said) and "next: first_count in lesson 00" in said


def test_quiet_html_in_jupyterlab_has_the_same_words(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.get_ipython", lambda: type("Shell", (), {"kernel": 1})())
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    check.patchify(lambda images, patch: images < 3 & patch)
    (data,) = shown
    text = re.sub(r"<[^>]+>", "", data["text/html"])
    assert (
        text.replace("&lt;", "<").replace("&amp;", "&").replace("&#x27;", "'") == data["text/plain"]
    )
    assert data["text/html"].startswith("<div style=") and "<script" not in data["text/html"]


# What a check never does ------------------------------------------------------------------------


def verdict(answer, exercise="patchify"):
    return judge(check.EXERCISES[exercise], answer)


def test_a_check_never_hangs(monkeypatch):
    monkeypatch.setattr("vitcourse.check.runner.SECONDS", 0.2)
    for answer in (lambda images, patch: time.sleep(60), endless):
        start = time.perf_counter()
        found = verdict(answer)
        assert time.perf_counter() - start < 5
        assert found.status == "wrong" and "is there a loop that does not end?" in found.message


def endless(images, patch):
    while True:
        pass


class Odd:
    def __getattr__(self, name):
        raise RuntimeError("odd")


def leave(images, patch):
    sys.exit(3)


ODD = {
    "exit": leave,
    "an odd object": lambda images, patch: Odd(),
    "a class": int,
    "a generator": lambda images, patch: (yield images),
    "recursion": lambda images, patch: ODD["recursion"](images, patch),
    "a wrong number of arguments": lambda: None,
    "sparse": lambda images, patch: good(images, patch).to_sparse(),
    "meta": lambda images, patch: good(images, patch).to("meta"),
    "complex": lambda images, patch: good(images, patch).to(torch.complex64),
    "no memory": lambda images, patch: torch.empty(10**15),
}


@pytest.mark.parametrize("name", ODD)
def test_a_check_never_raises(name):
    assert verdict(ODD[name]).status in ("wrong", "not attempted")
    assert verdict(good).status == "right", "and the next check is as before"


def test_a_check_changes_nothing():
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    wanted = torch.rand(1), np.random.rand(), random.random()

    def answer(images, patch):
        torch.manual_seed(8), np.random.seed(8), random.seed(8)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return good(images, patch)

    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    verdict(answer)
    assert (torch.rand(1), np.random.rand(), random.random()) == wanted
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    torch.set_default_dtype(torch.float64)
    try:  # a learner's own setting neither disturbs the check nor is lost
        assert verdict(good).status == "right" and torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        assert verdict(good).status == "right"


def test_a_check_in_another_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(verdict(good)))
    thread.start()
    thread.join()
    assert found[0].status == "right"


def test_a_module_with_other_names_gets_a_clear_word():
    class Other(nn.Module):
        def __init__(self, channels, dim, patch):
            super().__init__()
            self.conv = nn.Conv2d(channels, dim, patch, patch)

        def forward(self, images):
            return self.conv(images).flatten(2).mT

    found = verdict(Other, "patch_embedding")
    assert (
        "no parameter proj.weight" in found.message and "is it your conv.weight?" in found.message
    )
    found = verdict(Other(3, 4, 5), "patch_embedding")
    assert "give the class itself" in found.message


class Misspelt(nn.Module):
    def foward(self, images):
        return images


class Plain(check.EXERCISES["add_position"].reference):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        table = self.table.detach().clone()
        del self.table
        self.table = table


class Frozen(check.EXERCISES["patch_embedding"].reference):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.proj.bias.requires_grad_(False)


class Loose(check.EXERCISES["block"].reference):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.norm2.eps = 1e-5


MODULES = {
    "no method forward: is it there": ("patch_embedding", Misspelt),
    "your table is a plain tensor, wrap it in nn.Parameter": ("add_position", Plain),
    "no gradient reaches proj.bias": ("patch_embedding", Frozen),
    "the eps of norm2 is 1e-05: it must be 1e-06": ("block", Loose),
}


@pytest.mark.parametrize("words", MODULES)
def test_a_module_that_is_nearly_right(words):
    exercise, answer = MODULES[words]
    found = verdict(answer, exercise)
    assert found.status == "wrong" and words in found.message, found.message
    right = check.EXERCISES[exercise].reference
    assert verdict(type("Right", (right,), {}), exercise).status == "right"


def test_the_learners_own_line_is_shown(tmp_path):
    path = tmp_path / "cell.py"
    path.write_text("def answer(images, patch):\n    z = 1\n    return images.reshape(7, z)\n")
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    message = verdict(names["answer"]).message
    assert message.startswith("it stops with RuntimeError: shape '[7, 1]' is invalid")
    assert message.endswith("In your line 3: return images.reshape(7, z)")


# The order of the diagnosis ---------------------------------------------------------------------

DOUBLE = Exercise(
    name="double",
    lesson="99",
    task="Double x.",
    minutes=1,
    difficulty=1,
    reference=lambda x: 2 * x,
    cases=(
        Case("a small x", lambda g: (normal(g, 2, 3),), "B D", dict(B=2, D=3)),
        Case("a large x", lambda g: (100 * normal(g, 4, 5),), "B D", dict(B=4, D=5)),
    ),
    hints=("Two.", "Times two.", "2 * x"),
    mistakes=(
        Mistake("squared", lambda x: x * x, "You squared it"),
        Mistake("transposed", lambda x: (2 * x).T, "You exchanged the axes as well"),
    ),
)


def in_place(x):
    y = 2 * x
    x += 1
    return y


def needed_again(x):
    y = x.sigmoid()
    y *= 2
    return y


def unwritten(x):
    raise NotImplementedError("this kind of x")


ANSWERS = {
    "is the return missing": lambda x: print(end=""),
    "yours is a NumPy array": lambda x: (2 * x).detach().numpy(),
    "yours is a tuple of 2": lambda x: (x, x),
    "has the dtype float64, it must be float32": lambda x: 2 * x.double(),
    "the result has 1 axis, (6,); it must have 2: (B, D) = (2, 3)": lambda x: (2 * x).flatten(),
    "wrong order: yours are (D, B), needed (B, D) = (2, 3). You exchanged": lambda x: (2 * x).T,
    "axis 1 should be D = 3, yours is 2 = B": lambda x: 2 * x[:, :2],
    "You squared it": lambda x: x**2,
    "holds NaN or infinity in the case of a small x": lambda x: x / 0,
    "every value of the result is the same": lambda x: x * 0,
    "17% differ in the case of a small x. The first is at B=0, D=0": lambda x: 2 * x + first(x),
    "Right already: a small x.": lambda x: (2 * x).clamp(-20, 20),
    "no gradient reaches input 1": lambda x: 2 * x.detach(),
    "the gradient for input 1 is not": lambda x: x + x.detach(),
    "input 1 is not what it was": in_place,
    "write x = x + ..., which makes a new tensor": needed_again,
    "torch.where decides for each": lambda x: 2 * x if x > 0 else x,
    "take torch's function of that name": lambda x: 2 * math.sqrt(x),
    "it stops with NotImplementedError: this kind of x": unwritten,
}


def first(x):
    return nn.functional.one_hot(torch.tensor(0), x.numel()).view(x.shape)


@pytest.mark.parametrize("words", ANSWERS)
def test_the_first_thing_that_is_wrong(words):
    found = judge(DOUBLE, ANSWERS[words])
    assert found.status == "wrong" and words in found.message, found.message
    assert judge(DOUBLE, lambda x: x + x).status == "right"


def test_a_scalar_is_told_in_words():
    cases = tuple(replace(case, shape="", sizes={}) for case in DOUBLE.cases)
    total = replace(DOUBLE, reference=lambda x: x.sum(), cases=cases, mistakes=())
    found = judge(total, lambda x: x.sum(dim=1))
    assert found.message == "the result has the shape (2,); it must be one number, a scalar tensor"


def test_where_nothing_learns_no_gradient_is_asked_for():
    measure = replace(DOUBLE, gradient=False)
    found = judge(measure, lambda x: 2 * x.detach())
    assert found.status == "right" and "gradients" not in found.message


def test_a_gradient_that_nearly_cancels():
    """Rows of weights sum to one, so any softmax is right, with its own rounding."""

    def stable(x):
        e = (x - x.amax(-1, keepdim=True)).exp()
        return e / e.sum(-1, keepdim=True)

    softmax = replace(DOUBLE, reference=lambda x: x.softmax(-1), mistakes=())
    assert judge(softmax, stable).status == "right"


def test_a_mistake_is_named():
    assert judge(DOUBLE, lambda x: x.square()).mistake == "squared"
    assert judge(DOUBLE, lambda x: x.square() + 1).mistake is None


# All exercises together -------------------------------------------------------------------------


def test_there_are_enough_exercises():
    kinds = [exercise.kind for exercise in check.EXERCISES.values()]
    assert len(kinds) >= 40 and kinds.count("module") >= 8
    assert kinds.count("number") <= len(kinds) / 4
    for name, exercise in check.EXERCISES.items():
        assert name == exercise.name and name not in dir(check.store)
        assert len(exercise.mistakes) >= 3 and len(exercise.hints) >= 3, name
        assert 0 < exercise.minutes <= 60 and 1 <= exercise.difficulty <= 3, name
        assert len({m.name for m in exercise.mistakes}) == len(exercise.mistakes), name
        assert len(exercise.version) == 12 and exercise.solution_source().strip(), name


def test_no_exercise_hides_a_module():
    import vitcourse.check as package

    shown = {"hint", "predict", "progress", "run", "solution", "trace"}
    modules = {path.stem for path in Path(package.__file__).parent.glob("*.py")}
    assert not modules & (set(check.EXERCISES) | shown)


def test_the_table():
    """Every reference passes; every mistake is refused and named; docs/exercises.md says so."""
    for exercise in check.EXERCISES.values():
        assert judge(exercise, exercise.reference).status == "right", exercise.name
    table = catalogue.page()
    *_, mistakes, refused, named, confused = table.splitlines()[-1].strip("| ").split(" | ")
    assert mistakes == refused == named and int(mistakes) > 200 and confused == "0"
    assert catalogue.PAGE.read_text() == table, "run python -m tests.catalogue"


def test_it_works_in_a_bare_kernel():
    code = "from vitcourse import check; check.first_count(260); check.hint('patchify')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith("✓ first_count: right"), run.stderr
    assert "Hint 1 of" in run.stdout


@pytest.mark.gpu
def test_an_answer_that_knows_only_the_cpu():
    def answer(x):
        return x * torch.tensor([2.0] * x.shape[1])

    assert "not on the GPU" in judge(DOUBLE, answer).message
    assert judge(DOUBLE, lambda x: 2 * x).status == "right"
