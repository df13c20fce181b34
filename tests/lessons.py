"""What a lesson must hold to be taught from: the things that can be counted in its text."""

import ast
import re

from vitcourse.check import EXERCISES

CODE_LINES, CODE_WIDTH, WORDS, SETUP_LINES = 25, 88, 130, 5
FOREIGN = "embed_dim num_heads n_heads patch_size img_size image_size n_patches num_patches"
FOREIGN += " hidden_size num_classes n_classes num_layers n_layers in_chans in_channels"
FILLER = r"\b(simply|just|obviously|clearly|easy|easily|of course|trivial|basically|very)\b|!(?!\[)"
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
CHECK = re.compile(r"check\.(\w+)\((\w+)\)")
EMOJI = re.compile(r"[\U0001F300-\U0001FAFF\u2700-\u2712\u2728-\u27BF]")


def tags(cell):
    """The tags of a cell."""
    return set(cell.metadata.get("tags", []))


def exercises(notebook):
    """The name of each exercise that a lesson checks, and the name that the answer has there."""
    found = [CHECK.fullmatch(c.source.strip()) for c in notebook.cells if "check" in tags(c)]
    return {match[1]: match[2] for match in found if match}


def faults(notebook, lesson, files):
    """Every fault of a lesson's text. `files` are the names that a link may lead to."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in notebook.cells:
        find = code_faults if cell.cell_type == "code" else text_faults
        yield from (f"{cell.id}: {fault}" for fault in find(cell.source))
    for cell in notebook.cells:
        for link in LINK.findall(cell.source) if cell.cell_type == "markdown" else ():
            if not link.startswith(("https://", "#")) and link not in files:
                yield f"{cell.id}: a link that leads nowhere: {link}"
    if len(statements(code[0].source)) > SETUP_LINES:
        yield f"{code[0].id}: the setup cell has more than {SETUP_LINES} lines"
    yield from exercise_faults(notebook, lesson)
    for cell, after in zip(code, [*code[1:], None], strict=True):
        if "nbval-ignore-output" in tags(cell) and not (after and "assert " in after.source):
            yield f"{cell.id}: its output is not compared, and the next cell asserts nothing"


def statements(source):
    """The lines of code that are neither empty nor a comment."""
    return [x for x in source.splitlines() if x.strip() and not x.strip().startswith("#")]


def code_faults(source):
    lines = source.splitlines()
    if len(lines) > CODE_LINES:
        yield f"{len(lines)} lines of code, more than {CODE_LINES}"
    if max(map(len, lines), default=0) > CODE_WIDTH:
        yield f"a line of more than {CODE_WIDTH} characters"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr):
            yield f"a name that is not public: {node.attr}"
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            if any(part.startswith("_") for name in names for part in name.split(".")):
                yield f"a module that is not public: {names[-1] or names[0]}"
        names = [getattr(node, key, None) for key in ("id", "arg", "name", "attr")]
        for name in set(names) & set(FOREIGN.split()):
            yield f"a name of another notation: {name}"


def text_faults(source):
    text = re.sub(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", " ", source, flags=re.S)
    words = re.findall(r"[^\s|]+", re.sub(r"^\|.*$", "", text, flags=re.M))
    if len(words) > WORDS:
        yield f"{len(words)} words, more than {WORDS}"
    for word in re.findall(FILLER, text, re.I):
        yield f"filler: {word or '!'}"
    if EMOJI.search(source):
        yield f"an emoji: {EMOJI.search(source)[0]}"
    if re.search(r"https?://", re.sub(r"\]\(https://[^)]*\)", "", source)):
        yield "an address that is not a link"


def exercise_faults(notebook, lesson):
    """Each exercise has its card, its stub and its check, one after the other."""
    mine = {name for name, exercise in EXERCISES.items() if exercise.lesson == lesson}
    seen = exercises(notebook)
    for name in mine - set(seen):
        yield f"the exercise {name} is not in the lesson"
    for name in set(seen) - set(EXERCISES):
        yield f"there is no exercise {name}"
    cells = notebook.cells
    for place, cell in enumerate(cells):
        if "check" not in tags(cell):
            continue
        match = CHECK.fullmatch(cell.source.strip())
        if not match:
            yield f"{cell.id}: a check cell is one line, check.name(answer)"
            continue
        stub, card = cells[place - 1], cells[place - 2]
        if "exercise" not in tags(stub) or not re.search(rf"\b{match[2]}\b", stub.source):
            yield f"{cell.id}: the cell before is not the stub of {match[2]}"
        exercise = EXERCISES.get(match[1])
        if exercise:
            about = f"{exercise.minutes} minutes · difficulty {exercise.difficulty} of 3"
            ways = f'check.hint("{match[1]}")', f'check.solution("{match[1]}")'
            for part in (about, *ways):
                if card.cell_type != "markdown" or part not in card.source:
                    yield f"{cell.id}: the card does not say: {part}"
