"""What an exercise is: a task, the right answer, cases to try it on, hints, and likely mistakes."""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Case:
    """One situation to try an answer in. It isolates one mechanism, which `about` names.

    `inputs(generator)` makes the arguments. For a module, `build` are the arguments of its class,
    and the inputs are those of forward. `shape` names the axes of the result, such as "B N D", and
    `sizes` says how long they are; no two have the same length.
    """

    about: str
    inputs: Callable
    shape: str
    sizes: dict
    build: tuple = ()

    def arguments(self):
        """The arguments, always the same ones, made anew."""
        return self.inputs(torch.Generator().manual_seed(len(self.about)))


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people give, and the sentence that tells them so, kindly."""

    name: str
    implementation: object
    sentence: str


@dataclass(frozen=True)
class Exercise:
    """A task for the learner. `reference` is the package's own code, which is the solution.

    `kind` is "function", "module", "number" or "name". `solution` is what `check.solution` shows,
    where that is not the reference itself. A module must give its parameters the reference's names.
    A name is one of several, of which all others are mistakes; `evidence` says what speaks for it.
    Where `gradient` is False, nothing learns through the answer, and its gradient is not compared.
    """

    name: str
    lesson: str
    task: str
    minutes: int
    difficulty: int
    reference: object
    cases: tuple
    hints: tuple
    mistakes: tuple
    kind: str = "function"
    solution: object = None
    tolerance: float = 1e-5
    gradient: bool = True
    evidence: str = ""
    eps: float | None = None  # that every LayerNorm of a module must have

    @property
    def version(self):
        """A hash of what decides whether an answer is right."""
        source = self.solution_source() + "".join(case.about + case.shape for case in self.cases)
        return hashlib.sha256(source.encode()).hexdigest()[:12]

    def solution_source(self):
        """The source of the solution, as the package has it."""
        shown = self.solution or self.reference
        if self.kind == "number":
            return f"{self.name} = {self.reference}\n"
        if self.kind == "name":
            return f'{self.name} = "{self.reference}"\n'
        parts = shown if isinstance(shown, tuple) else (shown,)
        return "\n\n".join(inspect.getsource(part) for part in parts)


def normal(generator, *shape):
    """Normal numbers: inputs that are never all ones and never have two equal rows."""
    return torch.randn(shape, generator=generator)
