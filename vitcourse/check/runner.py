"""Run an answer safely, and find the first thing that is wrong with it.

The order: did it run; is it a tensor of floats; its shape, axis by axis; a mistake that is known;
the first place that differs; the gradient; what was changed on the side.
"""

import dis
import inspect
import linecache
import math
import random
import signal
import threading
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

SECONDS = 10  # an answer may compute that long
PACKAGE = str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True)
class Verdict:
    """What a check found: `status` is "not attempted", "wrong" or "right"."""

    status: str
    message: str
    mistake: str | None = None


class NotAttempted(Exception):
    """The stub is still as it was."""


class Wrong(Exception):
    """The first thing that is wrong, in a sentence or two, and the mistake if it is known."""

    def __init__(self, message, mistake=None):
        super().__init__(message)
        self.mistake = mistake


class TooSlow(BaseException):
    """Raised into an answer that computes for too long; no `except Exception` can hold it."""


def judge(exercise, answer):
    """Try an answer in every case: a Verdict. Nothing of the learner's is changed."""
    try:
        with untouched():
            if exercise.kind == "number":
                judge_number(exercise, answer)
                return Verdict("right", f"right: {exercise.reference}")
            if exercise.kind == "name":
                judge_name(exercise, answer)
                return Verdict("right", f"right: {exercise.reference}. {exercise.evidence}")
            return Verdict("right", judge_code(exercise, answer))
    except NotAttempted:
        text = f'not attempted yet. For a hint: check.hint("{exercise.name}")'
        return Verdict("not attempted", text)
    except Wrong as wrong:
        return Verdict("wrong", str(wrong), wrong.mistake)
    except Exception as error:  # nothing that an answer does may end in a traceback
        return Verdict("wrong", f"the check could not finish: {type(error).__name__}: {error}")


# Numbers -----------------------------------------------------------------------------------------


def judge_number(exercise, answer):
    """A number is right, or one that a known mistake gives, or wrong."""
    if answer is None or answer is ...:
        raise NotAttempted
    if isinstance(answer, torch.Tensor) and answer.numel() == 1:
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, (int, float, np.number)):
        raise Wrong(f"the answer is a number, yours is {kind_of(answer)}")
    if not math.isfinite(answer):
        raise Wrong(f"the answer is {answer}: it must be a finite number")
    # a count is exact; of a number such as ln(1000) the first digits are enough
    tolerance = 1e-9 if isinstance(exercise.reference, int) else exercise.tolerance
    if math.isclose(answer, exercise.reference, rel_tol=tolerance):
        return
    for mistake in exercise.mistakes:
        if math.isclose(answer, mistake.implementation, rel_tol=tolerance):
            raise Wrong(mistake.sentence, mistake.name)
    size = "too large" if answer > exercise.reference else "too small"
    raise Wrong(f"{answer:g} is {size}. Write down, step by step, what is counted")


# Names -------------------------------------------------------------------------------------------


def judge_name(exercise, answer):
    """A name is right, or one that something speaks against, or none of those to choose from."""
    if answer is None or answer is ...:
        raise NotAttempted
    if not isinstance(answer, str):
        raise Wrong(f"the answer is a name, as text in quotes, yours is {kind_of(answer)}")
    answer = " ".join(answer.split()).lower()
    if answer == exercise.reference.lower():
        return
    for mistake in exercise.mistakes:
        if answer == mistake.implementation.lower():
            raise Wrong(mistake.sentence, mistake.name)
    names = sorted([exercise.reference, *(m.implementation for m in exercise.mistakes)])
    raise Wrong(f"{answer!r} is none of the names: {', '.join(names)}")


# Functions and modules ---------------------------------------------------------------------------


def judge_code(exercise, answer):
    """Raise Wrong or NotAttempted, or return what was verified."""
    check_kind(exercise, answer)
    results = []
    for case in exercise.cases:
        wanted = outcome(exercise, exercise.reference, case)
        try:
            got = outcome(exercise, answer, case)
        except (NotAttempted, Wrong):
            raise
        except TooSlow:
            text = f"stopped after {SECONDS} seconds, in the case of {case.about}: is there a loop "
            raise Wrong(text + "that does not end?") from None
        except (Exception, SystemExit) as error:
            raise_error(error, exercise, case)
        check_result(got.value, wanted.value, case)
        problem = shape_problem(got.value, case)
        if problem:
            raise Wrong(
                problem + recognised_sentence(exercise, case, got), name_of(exercise, case, got)
            )
        results.append((case, got, wanted))
    check_values(exercise, results)
    if exercise.eps:
        check_eps(exercise, answer)
    for case, got, wanted in results:
        if exercise.gradient:
            check_gradient(exercise, case, got, wanted)
        check_side_effects(case, got)
    if torch.cuda.is_available():
        check_on_gpu(exercise, answer, *results[0])
    cases = "; ".join(case.about for case, *_ in results)
    compared = "Values, gradients" if exercise.gradient else "Values"
    return f"right. {compared} and side effects were compared for: {cases}"


@dataclass
class Outcome:
    """What an answer gave in one case: its value, gradients by name, and what it changed."""

    value: object
    gradients: dict
    changed: list


def outcome(exercise, answer, case, device="cpu"):
    """Run an answer, or the reference, or a mistake, in one case."""
    arguments = [a.to(device) if isinstance(a, torch.Tensor) else a for a in case.arguments()]
    leaves = {}
    for number, argument in enumerate(arguments):
        if isinstance(argument, torch.Tensor) and argument.is_floating_point():
            argument.requires_grad_()
            leaves[f"input {number + 1}"] = argument
    before = [a.detach().clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    function = answer
    with time_limit(SECONDS):
        if exercise.kind == "module":
            function = build_module(exercise, answer, case).to(device)
            leaves |= dict(function.named_parameters())
        # copies, because autograd forbids changing a leaf in place: that is looked for below
        given = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
        value = function(*given)
    changed = [
        number + 1
        for number, (old, new) in enumerate(zip(before, given, strict=True))
        if isinstance(old, torch.Tensor) and not torch.equal(old, new.detach())
    ]
    return Outcome(value, gradients(value, leaves), changed)


def gradients(value, leaves):
    """The gradient of a fixed weighted sum of a result, for each input and parameter."""
    if not leaves or not isinstance(value, torch.Tensor) or not value.requires_grad:
        return {name: None for name in leaves}
    direction = torch.arange(value.numel(), dtype=value.dtype).square().cos().view(value.shape)
    direction = direction.to(value.device)
    free = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    found = torch.autograd.grad((value * direction).sum(), list(free.values()), allow_unused=True)
    return dict.fromkeys(leaves) | dict(zip(free, found, strict=True))


def build_module(exercise, answer, case):
    """The learner's module with the reference's weights, which no default value hides."""
    reference = exercise.reference(*case.build)
    fill(reference)
    module = answer(*case.build)
    if not isinstance(module, nn.Module):
        raise Wrong(f"{exercise.name} must be a class of nn.Module, yours makes {kind_of(module)}")
    wanted = {n: tuple(p.shape) for n, p in reference.named_parameters()}
    have = {n: tuple(p.shape) for n, p in module.named_parameters()}
    for name, shape in wanted.items():
        if name not in have:
            extra = [n for n in have if n not in wanted and have[n] == shape]
            hint = f"; is it your {extra[0]}?" if extra else ""
            if not extra and isinstance(getattr(module, name, None), torch.Tensor):
                hint = f": your {name} is a plain tensor, wrap it in nn.Parameter(...)"
            raise Wrong(f"the module has no parameter {name}, of shape {shape}{hint}", None)
        if have[name] != shape:
            raise Wrong(f"the parameter {name} has the shape {have[name]}, it must be {shape}")
    for name in have:
        if name not in wanted:
            raise Wrong(f"the module has a parameter {name} too many")
    module.load_state_dict({n: p.detach() for n, p in reference.named_parameters()}, strict=False)
    module.eval()
    return module


def fill(module):
    """Give every parameter values of its own, always the same."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    module.eval()


# One thing after the other -----------------------------------------------------------------------


def check_kind(exercise, answer):
    """It must be a function, or a class, that is more than the stub."""
    if answer is None or answer is ...:
        raise NotAttempted
    if exercise.kind == "module":
        if not inspect.isclass(answer):
            what = "an object of the class" if isinstance(answer, nn.Module) else kind_of(answer)
            raise Wrong(f"give the class itself, check.{exercise.name}(YourClass), not {what}")
        if "forward" in vars(answer) and is_empty(answer.forward):
            raise NotAttempted
        if issubclass(answer, nn.Module) and answer.forward is nn.Module.forward:
            raise Wrong("the class has no method forward: is it there, and spelt so?")
    elif not callable(answer):
        raise Wrong(f"give the function itself, without calling it: yours is {kind_of(answer)}")
    elif is_empty(answer):
        raise NotAttempted


def is_empty(function):
    """Whether a function's body is nothing but `...`, `pass` or a docstring."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("RESUME", "NOP")]
    return {step.opname for step in steps} <= {
        "LOAD_CONST",
        "RETURN_VALUE",
        "RETURN_CONST",
    } and all(step.argval is None for step in steps)


ADVICE = {
    "modified by an inplace operation": "An operation such as += or .mul_() changes in place what "
    "the gradient still needs: write x = x + ..., which makes a new tensor",
    "Boolean value of Tensor with more than one value": "An `if`, `and` or `not` decides once, and "
    "this tensor holds many values: torch.where decides for each",
    "only one element tensors can be converted": "A function of math takes one number, and this "
    "tensor holds many: take torch's function of that name",
}


def raise_error(error, exercise, case):
    """An exception of the learner's code becomes a sentence with the learner's own line."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    if (isinstance(error, NotImplementedError) and not text) or "ellipsis" in text.lower():
        raise NotAttempted from None
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        inside = "site-packages" in frame.filename or frame.filename.startswith(PACKAGE)
        if not inside and "/lib/python" not in frame.filename:
            line = frame.line or linecache.getline(frame.filename, frame.lineno).strip()
            place = f" In your line {frame.lineno}" + (f": {line}" if line else "")
    for mistake in exercise.mistakes:
        if fails_like(exercise, mistake, case, error):
            raise Wrong(f"{mistake.sentence}.{place}", mistake.name) from None
    for words, sentence in ADVICE.items():
        if words in text:
            raise Wrong(f"{sentence}.{place}") from None
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    raise Wrong(f"it stops with {told} (in the case of {case.about}).{place}") from None


def fails_like(exercise, mistake, case, error):
    """Whether a known mistake stops in this case with the very same words."""
    try:
        outcome(exercise, mistake.implementation, case)
    except Exception as other:
        return type(other) is type(error) and str(other) == str(error)
    return False


def check_result(value, wanted, case):
    """A tensor, of floats like the input, of finite numbers."""
    if value is ...:
        raise NotAttempted
    if value is None:
        raise Wrong("it gives nothing back: is the return missing?")
    if not isinstance(value, torch.Tensor):
        raise Wrong(f"the result must be a torch tensor, yours is {kind_of(value)}")
    if value.dtype != wanted.dtype:
        raise Wrong(
            f"the result has the dtype {name(value.dtype)}, it must be {name(wanted.dtype)}"
        )


def name(dtype):
    """float32 for torch.float32."""
    return str(dtype).removeprefix("torch.")


def shape_problem(value, case):
    """What is wrong with the shape, axis by axis, with the names of the axes; or None."""
    names = case.shape.split()
    wanted = [size_of(axis, case.sizes) for axis in names]
    have = list(value.shape)
    if have == wanted:
        return None
    if not wanted:
        return f"the result has the shape {tuple(have)}; it must be one number, a scalar tensor"
    described = f"({', '.join(names)}) = {tuple(wanted)}"
    if len(have) != len(wanted):
        axes = f"{len(have)} {'axis' if len(have) == 1 else 'axes'}"
        return f"the result has {axes}, {tuple(have)}; it must have {len(wanted)}: {described}"
    if sorted(have) == sorted(wanted):
        order = [names[wanted.index(size)] for size in have]
        return (
            f"the axes are in the wrong order: yours are ({', '.join(order)}), needed {described}"
        )
    axis = next(i for i in range(len(have)) if have[i] != wanted[i])
    known = [n for n in [*names, *case.sizes] if size_of(n, case.sizes) == have[axis]]
    is_ = f" = {known[0]}" if known else ""
    return (
        f"axis {axis} should be {names[axis]} = {wanted[axis]}, yours is {have[axis]}{is_}. "
        f"The whole shape is {tuple(have)}, needed {described}"
    )


def size_of(axis, sizes):
    """The length of an axis called, for example, "N", "R+N" or "P*P*C"."""
    return eval(axis, {"__builtins__": {}}, dict(sizes))


def recognised_sentence(exercise, case, got):
    """The sentence of the known mistake that gives this result in this case, or nothing."""
    mistake = recognise(exercise, [(case, got)])
    return f". {mistake.sentence}" if mistake else ""


def name_of(exercise, case, got):
    """The name of that mistake, or None."""
    mistake = recognise(exercise, [(case, got)])
    return mistake.name if mistake else None


def recognise(exercise, results):
    """The known mistake that gives the same results in all these cases, or None."""
    for mistake in exercise.mistakes:
        try:
            same = all(
                equal(outcome(exercise, mistake.implementation, case).value, got.value, 1e-4)
                for case, got in results
            )
        except Exception:
            continue
        if same:
            return mistake
    return None


def equal(one, other, tolerance):
    """Whether two tensors have one shape, and values that differ by no more than rounding."""
    if not isinstance(one, torch.Tensor) or one.shape != other.shape:
        return False
    return torch.allclose(one.detach().double(), other.detach().double(), tolerance, tolerance)


def check_values(exercise, results):
    """The values of all cases: right, a known mistake, or the first place that differs."""
    bad = [
        (case, got, wanted)
        for case, got, wanted in results
        if not equal(got.value, wanted.value, exercise.tolerance)
    ]
    if not bad:
        return
    mistake = recognise(exercise, [(case, got) for case, got, _ in results])
    if mistake:
        raise Wrong(mistake.sentence, mistake.name)
    case, got, wanted = bad[0]
    value, right = got.value.detach(), wanted.value.detach()
    if not value.isfinite().all():
        raise Wrong(f"the result holds NaN or infinity in the case of {case.about}")
    if value.numel() > 1 and value.max() == value.min():
        raise Wrong(f"every value of the result is the same in the case of {case.about}")
    wrong = ~torch.isclose(value, right, exercise.tolerance, exercise.tolerance)
    place = wrong.nonzero()[0].tolist()
    where = ", ".join(f"{axis}={i}" for axis, i in zip(case.shape.split(), place, strict=True))
    index = tuple(place)
    fine = [other.about for other, *_ in results if all(other is not b[0] for b in bad)]
    and_fine = f" Right already: {'; '.join(fine)}." if fine else ""
    raise Wrong(
        f"the shape is right, the values are not: {wrong.float().mean():.0%} differ in the case of "
        f"{case.about}. The first is at {where}: {value[index]:.4f}, needed {right[index]:.4f}."
        + and_fine
    )


def check_eps(exercise, answer):
    """The eps of each norm, which values show only where tokens hardly vary."""
    for name, part in answer(*exercise.cases[0].build).named_modules():
        if isinstance(part, nn.LayerNorm) and part.eps != exercise.eps:
            raise Wrong(
                f"the values are right, but the eps of {name} is {part.eps:g}: it must be "
                f"{exercise.eps:g}, which counts where tokens hardly vary"
            )


def check_gradient(exercise, case, got, wanted):
    """Training needs the gradient: it must reach all that it reaches in the reference."""
    for leaf, right in wanted.gradients.items():
        mine = got.gradients[leaf]
        if right is None or not right.any():
            continue
        if mine is None:
            raise Wrong(
                f"the values are right, but no gradient reaches {leaf}: is there a .detach(), "
                f".data, .item(), torch.tensor(...) or no_grad() on the way?"
            )
        if not torch.allclose(mine, right, 1e-3, 1e-4 * right.abs().max().item()):
            raise Wrong(f"the values are right, but the gradient for {leaf} is not")


def check_side_effects(case, got):
    """An answer leaves its inputs as they were."""
    if got.changed:
        raise Wrong(
            f"the values are right, but input {got.changed[0]} is not what it was: an operation "
            f"such as += or .add_() changes it in place"
        )


def check_on_gpu(exercise, answer, case, got, wanted, device="cuda"):
    """What is right on the CPU must run, and be right, on the GPU."""
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 rounds too much
            value = outcome(exercise, answer, case, device).value.cpu()
    except (RuntimeError, TypeError):  # NumPy and SciPy raise the second for a GPU's tensors
        value = None
    if value is None or not equal(value, wanted.value, 1e-3):
        raise Wrong(
            "right on the CPU, but not on the GPU: a tensor that you make inside must be on the "
            "device of the input, torch.arange(..., device=x.device)"
        )


def kind_of(value):
    """What a value is, in words."""
    if isinstance(value, np.ndarray):
        return "a NumPy array"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"of type {type(value).__name__}"


# Nothing of the learner's is changed -------------------------------------------------------------


@contextmanager
def untouched():
    """Put random states, default dtype and gradient mode back, whatever the answer did to them."""
    states = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.random.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)


@contextmanager
def time_limit(seconds):
    """Raise TooSlow into what takes longer; only the main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(number, frame):
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)  # again and again: `except:` may hold one
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
