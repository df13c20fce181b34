"""The systems side by side, computed from their code: what a class replaces, and what it counts."""

import ast
import difflib
import inspect
import io
import sys
import textwrap
import tokenize
from pathlib import Path

import torch

from vitcourse import papers

CORE = ("vitcourse.vit", "vitcourse.parts", "vitcourse.pyramid")


def skeleton(cls):
    """The skeleton that a model varies: the nearest of the core's classes that it inherits from."""
    core = [vars(sys.modules[name]) for name in CORE if name in sys.modules]
    return next((c for c in cls.__mro__ if any(c is names.get(c.__name__) for names in core)), None)


def slots(base):
    """The slots of a skeleton: {name: the class that stands there}."""
    return {n: part for n, part in vars(base).items() if n[0].isupper() and isinstance(part, type)}


def delta(cls):
    """What a model puts into the slots of its skeleton: {slot: class}, only those that differ."""
    base = skeleton(cls)
    if base is None:
        return {}
    changed = {name: getattr(cls, name) for name in slots(base)}
    return {name: part for name, part in changed.items() if part is not slots(base)[name]}


def overridden(cls, base):
    """The functions that a class has in place of, or beside, those of another: {name: function}."""
    between = [c for c in cls.__mro__ if c not in base.__mro__]
    found = {}
    for owner in reversed(between):
        found |= {n: f for n, f in vars(owner).items() if inspect.isfunction(f)}
    return found


def diff(cls):
    """The lines in which a model differs from its skeleton, as text: - the core's, + its own."""
    base = skeleton(cls)
    if base is None:
        raise ValueError(f"{cls.__name__} has a structure of its own: read its file")
    text = compared(base, cls) if overridden(cls, base) else []
    for slot, part in delta(cls).items():
        old = slots(base)[slot]
        text += [f"{slot}: {old.__name__} -> {part.__name__}"]
        text += compared(old, part) if issubclass(part, old) else added(source(part))
    return "\n".join(text)


def compared(old, new):
    """The lines of each function of `new` beside those of `old`."""
    text = []
    for name, function in overridden(new, old).items():
        before, new_lines = getattr(old, name, None), source(function)
        if getattr(before, "__module__", "") not in CORE or f"super().{name}(" in str(new_lines):
            text += added(new_lines)
            continue
        lines = difflib.unified_diff(source(before), new_lines, lineterm="", n=1)
        text += [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    return text


def source(thing):
    """The lines of a function or a class, without docstring."""
    text = textwrap.dedent(inspect.getsource(thing))
    (node,) = ast.parse(text).body
    lines = text.splitlines()
    for inner in ast.walk(node):
        if isinstance(inner, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(inner):
            first = inner.body[0]
            lines[first.lineno - 1 : first.end_lineno] = [None] * (
                first.end_lineno - first.lineno + 1
            )
    return [line.rstrip() for line in lines if line is not None and line.strip()]


def added(lines):
    """Lines that are all new."""
    return [f"+{line}" for line in lines]


def lines_of_code(path):
    """How many lines of a file hold code: neither empty, nor comment, nor docstring."""
    text = Path(path).read_text()
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    skip |= {tokenize.ENCODING, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skip:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            lines -= set(range(first.lineno, first.end_lineno + 1))
    return len(lines)


def parameters(name):
    """How many numbers a published configuration learns."""
    with torch.device("meta"):  # nothing is allocated
        model = papers.build(name)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def changes(paper):
    """What a paper changes, in words: the slots, or the parts of the core that it is built from."""
    found = {}
    for cls in paper.models:
        for slot, part in delta(cls).items():
            found.setdefault(slot, part.__name__)
        base = skeleton(cls)
        own = overridden(cls, base) if base else {}
        found |= {f"{base.__name__}.{name}": "" for name in own if hasattr(base, name)}
    if found:
        return ", ".join(f"{slot} = {part}" if part else slot for slot, part in found.items())
    return "own structure" if paper.models else "the loss"


def table():
    """All systems, a row each, as a Markdown table whose links start at the README."""
    head = ["system", "paper", "what it changes", "parameters (reported)", "lines", "lesson"]
    rows = [head, ["---"] * len(head)]
    for file, paper in papers.papers().items():
        counts = [
            f"{name} {parameters(name):,}" + (f" ({c.reported})" if c.reported else "")
            for name, c in paper.configs.items()
        ]
        name = f"[{paper.name}](notebooks/papers/{file}.ipynb)"
        link = f"[{paper.authors} {paper.year}]({paper.link})"
        count = lines_of_code(sys.modules[f"vitcourse.papers.{file}"].__file__)
        lines = f"[{count}](vitcourse/papers/{file}.py)"
        changed = changes(paper).replace("_", r"\_")
        rows.append([name, link, changed, " · ".join(counts), lines, paper.lesson])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def reported():
    """The parameters that authors report: {configuration: text}."""
    return {name: config.reported for name, config in papers.configs().items() if config.reported}
