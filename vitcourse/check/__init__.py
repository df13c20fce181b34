"""What a learner meets: `check.patchify(patchify)`, `check.hint("patchify")`, `check.progress()`.

Each exercise of the course has a check of its name. It answers "not attempted", "wrong", with the
first thing that is wrong, or "right", with what was verified. It never raises into the notebook.
"""

from html import escape
from numbers import Number

import torch

from vitcourse.check import store
from vitcourse.check.exercise import Case, Exercise, Mistake
from vitcourse.check.lessons import EXERCISES, QUESTIONS
from vitcourse.check.runner import Verdict, judge
from vitcourse.check.walk import trace

__all__ = ["EXERCISES", "Case", "Exercise", "Mistake", "Verdict", "exam", "hint", "predict"]
__all__ += ["progress", "run", "solution", "trace"]

SIGNS = {"right": "✓", "wrong": "✗", "not attempted": "○"}
_exam = False


def run(name, answer):
    """Judge an answer to the exercise of that name: a Verdict. Shows nothing, records nothing."""
    if name not in EXERCISES:
        raise ValueError(unknown(name))
    return judge(EXERCISES[name], answer)


def unknown(name):
    """What to say of a name that no exercise has."""
    near = [other for other in EXERCISES if str(name).lower()[:4] in other.lower()]
    return f"there is no exercise {name!r}; there are {', '.join(near or EXERCISES)}"


def __getattr__(name):
    # check.patchify is the check of the exercise "patchify"
    if name not in EXERCISES:
        raise AttributeError(unknown(name))

    def check(answer=None):
        verdict = run(name, answer)
        store.record(name, verdict.status, version=EXERCISES[name].version)
        show(f"{SIGNS[verdict.status]} {name}: {verdict.message}", verdict.status)

    check.__name__, check.__doc__ = name, EXERCISES[name].task
    return check


def hint(name):
    """Show the next hint for an exercise."""
    if _exam:
        return show("Hints are switched off in this handout.")
    if name not in EXERCISES:
        return show(unknown(name))
    exercise = EXERCISES[name]
    number = min(store.hints_used(name), len(exercise.hints) - 1)
    store.record(name, "not attempted", hints=number + 1, version=exercise.version)
    last = number + 1 == len(exercise.hints)
    after = f'. The solution: check.solution("{name}")' if last else ""
    show(f"Hint {number + 1} of {len(exercise.hints)}: {exercise.hints[number]}{after}")


def solution(name):
    """Show the solution: the package's own, tested code."""
    if _exam:
        return show("Solutions are switched off in this handout.")
    print(EXERCISES[name].solution_source() if name in EXERCISES else unknown(name))


def exam():
    """Switch hints and solutions off, for a handout."""
    global _exam
    _exam = True


def predict(question, answer, *more):
    """Compare a guess made before the code runs: a wrong one is told which rule it broke."""
    if question not in QUESTIONS:
        return show(f"there is no question {question!r}; there are: {'; '.join(QUESTIONS)}")
    right, why, rules = QUESTIONS[question]
    if answer is None or answer is ...:
        return show(f"○ {question}? Guess, and write it in place of the dots.")
    if isinstance(answer, torch.Tensor) and answer.numel() == 1:
        answer = answer.item()
    if more or not isinstance(answer, Number):
        return show(f"○ {question}? Give one number, without quotes and commas: 1234, not 1,234.")
    rounded = float(f"{answer:.2g}") if question.endswith("to two digits") else answer
    if right in (answer, rounded):
        return show(f"✓ {right}: {why}", "right")
    show(f"✗ not {answer}. {rules.get(answer, 'Count again, step by step.')}")


def progress():
    """Show what is done, what comes next, and what has become stale."""
    print(store.summary(list(EXERCISES.values())))


def show(text, status=""):
    """Show a line: plain text everywhere, with quiet colours in JupyterLab."""
    try:
        from IPython import get_ipython

        kernel = hasattr(get_ipython(), "kernel")
    except ImportError:
        kernel = False
    if not kernel:
        print(text)
        return
    from IPython.display import display

    colour = {"right": "#0a7d4f", "wrong": "#b3261e"}.get(status, "#5f6368")
    style = f"border-left:3px solid {colour};padding:2px 10px;white-space:pre-wrap"
    html = f'<div style="{style}">{escape(text)}</div>'
    display({"text/plain": text, "text/html": html}, raw=True)
