"""Execute shape comments: run code, and hold `x = ...  # (B, T, D)` against the real x."""

import ast
import re
import sys
import tokenize
from contextlib import contextmanager
from pathlib import Path

import torch

COMMENT = re.compile(r"#\s*(?:each )?\(([\w+*/ ,-]+)\)")


class ShapeComments:
    """The shape comments of a module. `errors` and `unseen` say what a traced run showed."""

    def __init__(self, module):
        self.path = module.__file__
        self.statements = {}  # line -> (last line, names it sets or None for a return, the axes)
        comments = {}
        with open(self.path, "rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.COMMENT and COMMENT.match(token.string):
                    comments[token.start[0]] = COMMENT.match(token.string)[1]
        for node in ast.walk(ast.parse(Path(self.path).read_text())):
            if isinstance(node, (ast.Assign, ast.Return)) and node.end_lineno in comments:
                names = None
                if isinstance(node, ast.Assign):
                    names = [name.id for name in ast.walk(node.targets[0]) if hasattr(name, "id")]
                axes = comments.pop(node.end_lineno).rstrip(", ").split(",")
                axes = [axis.strip() for axis in axes]
                self.statements[node.lineno] = (node.end_lineno, names, axes)
        if comments:
            raise ValueError(f"shape comments on lines that set nothing: {sorted(comments)}")
        self.unseen, self.errors = set(self.statements), []

    @contextmanager
    def tracing(self, each_call=False, **sizes):
        """Check every statement that runs. Axes not in `sizes` are bound where first met.

        With `each_call` they are bound anew in each call of a function: where stages differ.
        """
        self.sizes, self.each_call = sizes, each_call
        before = sys.gettrace()
        sys.settrace(
            lambda frame, *_: self.watch() if frame.f_code.co_filename == self.path else None
        )
        try:
            yield self
        finally:
            sys.settrace(before)

    def watch(self):
        pending = None
        sizes = dict(self.sizes) if self.each_call else self.sizes

        def local(frame, event, value):
            nonlocal pending
            if event == "exception":
                pending = None
            elif pending and not pending <= frame.f_lineno <= self.statements[pending][0]:
                self.check(pending, frame, None, sizes)
                pending = None
            elif pending and event == "return":
                self.check(pending, frame, value, sizes)
                pending = None
            if event == "line" and frame.f_lineno in self.statements:
                pending = frame.f_lineno
            return local

        return local

    def check(self, line, frame, value, sizes):
        _, names, axes = self.statements[line]
        self.unseen.discard(line)
        values = [frame.f_locals[name] for name in names] if names else [value]
        for tensor in values:
            assert isinstance(tensor, torch.Tensor), f"line {line} has a shape but no tensor"
            shape = tuple(tensor.shape)
            if len(shape) != len(axes) or not all(
                fits(axis, size, sizes) for axis, size in zip(axes, shape, strict=True)
            ):
                needed = f"({', '.join(axes)})"
                self.errors.append(f"line {line}: {shape} is not {needed} with {sizes}")


def fits(axis, size, sizes):
    """Whether an axis is as long as its comment says; a name that is new is bound."""
    if axis.isidentifier():
        return sizes.setdefault(axis, size) == size
    expression = re.sub(r"(\d)([A-Za-z])", r"\1*\2", axis)  # 2T-1 is 2*T-1
    return eval(expression, {}, sizes) == size
