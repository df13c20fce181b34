"""Wrong answers that no catalogue holds, made from right ones: spoiled results, and mutants."""

import ast
import copy
import textwrap

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import vit


def spoil(exercise, change=None, before=None):
    """The solution, with its result changed, or something done to its inputs before."""
    solution = exercise.solution or exercise.reference

    def run(function, arguments):
        copies = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
        if before:
            before(*arguments)
        value = function(*copies)
        return change(value) if change else value

    if exercise.kind == "function":
        return lambda *arguments: run(solution, arguments)

    class Spoiled(solution):
        def forward(self, *arguments):
            return run(super().forward, arguments)

    return Spoiled


def raises(*arguments):
    raise KeyError("nothing here")


def first_adds(x, *others):
    x += 1


SPOILED = {
    "an axis too many": (dict(change=lambda y: y[None]), "axes"),
    "an axis too short": (dict(change=lambda y: y[..., :-1]), "needed ("),
    "float64": (dict(change=lambda y: y.double()), "dtype float64, it must be float32"),
    "NaN": (dict(change=lambda y: y * float("nan")), "NaN"),
    "infinity": (dict(change=lambda y: y / 0), "NaN or infinity"),
    "detached": (dict(change=lambda y: y.detach()), "no gradient reaches input 1"),
    "constant": (
        dict(change=lambda y: torch.full_like(y, 0.25)),
        "every value of the result is the",
    ),
    "in place": (dict(before=first_adds), "input 1 is not what it was"),
    "nothing": (dict(change=lambda y: None), "is the return missing?"),
    "an array": (dict(change=lambda y: y.detach().numpy()), "yours is a NumPy array"),
    "a tuple": (dict(change=lambda y: (y, y)), "a tuple of 2"),
    "raising": (dict(before=raises), "it stops with KeyError: 'nothing here'"),
    "twice": (dict(change=lambda y: 2 * y + 0.1), "the shape is right, the values are not"),
    "noise": (dict(change=lambda y: y + 1e-3 * torch.rand_like(y)), "the values are not"),
}


OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


def changes(node):
    """Every small change of one node of a syntax tree, as functions that make it in place."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in OTHER:
            yield lambda n: setattr(n, "op", OTHER[type(n.op)]())
        if isinstance(node.op, (ast.Sub, ast.Div, ast.MatMult)):
            yield lambda n: n.__dict__.update(left=n.right, right=n.left)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        whole = type(node.value) is int
        yield lambda n: setattr(n, "value", n.value + 1 if whole else n.value * 2)
        yield lambda n: setattr(n, "value", n.value - 1 if whole else n.value / 2)
    if isinstance(node, (ast.Call, ast.Tuple, ast.List)):
        values = "args" if isinstance(node, ast.Call) else "elts"
        for i in range(len(getattr(node, values)) - 1):
            yield lambda n, i=i: swap(getattr(n, values), i)
    for number, statement in enumerate(getattr(node, "body", [])):
        if not isinstance(statement, ast.FunctionDef):
            yield lambda n, i=number: n.body.__setitem__(i, ast.Pass())


def swap(items, i):
    items[i], items[i + 1] = items[i + 1], items[i]


def forward_of(tree):
    """The function whose mutants are made: of a class, forward."""
    if isinstance(tree.body[0], ast.FunctionDef):
        return tree.body[0]
    return next(f for f in tree.body[0].body if getattr(f, "name", "") == "forward")


def mutants(source):
    """All mutants of a source: (what the changed lines are now, the new source)."""
    original = ast.parse(textwrap.dedent(source))
    lines = ast.unparse(original).splitlines()
    for place, node in enumerate(ast.walk(forward_of(original))):
        for number, _ in enumerate(changes(node)):
            tree = copy.deepcopy(original)
            target = list(ast.walk(forward_of(tree)))[place]
            list(changes(target))[number](target)
            text = ast.unparse(tree)
            new = text.splitlines()
            changed = [
                f"{a.strip()} -> {b.strip()}" for a, b in zip(lines, new, strict=False) if a != b
            ]
            if changed:
                yield changed[0], text


def compiled(text):
    names = {"torch": torch, "nn": nn, "F": F, "vit": vit}
    exec(text, names)
    return names["answer"]
