"""Copies of lessons to hand to a class, with hints and solutions switched off.

It keeps hints out of the way, and nothing more: whoever has the course can read its code.
"""

import ast
import os
import re
from pathlib import Path

import nbformat

from vitcourse.files import whole_folder
from vitcourse.lab.workspace import ROOT, published

EXAM = "from vitcourse import check\n\ncheck.exam()  # hints and solutions are switched off"
OPEN = re.compile(r"<details\b[^>]*>", re.I)
OPEN_OR_CLOSE = re.compile(r"<(/?)details\b[^>]*>", re.I)
SUMMARY = re.compile(r"\s*<summary\b[^>]*>(.*?)</summary\s*>", re.I | re.S)
CONFIG = """c = get_config()  # noqa
c.ClearSolutions.enabled = False  # the cells to solve are stubs already; nbgrader would empty them
"""


def handout(lessons, out, nbgrader=False, root=ROOT):
    """Write copies of lessons into the new folder `out`: the paths of its notebooks.

    lessons   what their names begin with: "01", "papers/deit", or whole names
    nbgrader  make `out` an nbgrader course instead: source/LESSON/LESSON.ipynb, in which cells
              tagged `exercise` are answers and cells tagged `check` tests (`points-3`: 3 points)

    Everything is written, or nothing is.
    """
    out, all_ = Path(out), published(Path(root))
    if isinstance(lessons, str):
        lessons = [lessons]
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists and is left alone: name a folder that does not")
    chosen = [name for name in all_ if name.startswith(tuple(lessons))]
    for wanted in lessons:
        if not any(name.startswith(wanted) for name in all_):
            known = ", ".join(name.removesuffix(".ipynb") for name in all_)
            raise ValueError(f"no lesson begins with {wanted!r}: choose from {known}")
    if not chosen:
        raise ValueError("no lesson is named: say which, such as 01")
    with whole_folder(out) as folder:
        names = [write(all_[name], folder, name, nbgrader) for name in chosen]
        if nbgrader:
            (folder / "nbgrader_config.py").write_text(CONFIG)
    return [out / name for name in names]


def write(lesson, folder, name, nbgrader):
    """Write the copy of one lesson into a folder: its name there."""
    notebook = prepare(nbformat.read(lesson, as_version=4))
    if nbgrader:
        stem = Path(name).stem
        name = f"source/{stem}/{stem}.ipynb"
        for cell in notebook.cells:
            grade(cell, lesson.name)
    nbformat.validate(notebook)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook) + "\n")
    return name


def prepare(notebook):
    """Take what gives an answer away from a notebook: outputs, hints, solutions, slides' notes."""
    for name in ("widgets", "slides"):
        notebook.metadata.pop(name, None)
    for cell in notebook.cells:
        cell.metadata.pop("slide", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
        elif cell.cell_type == "markdown":
            cell.source = without_hints(cell.source)
    cells = [cell for cell in notebook.cells if cell.source.strip()]
    name = "exam"
    while name in {cell.id for cell in cells}:
        name += "-again"
    switch = nbformat.v4.new_code_cell(EXAM, id=name, metadata={"tags": ["exam"]})
    first = [cell.cell_type for cell in [*cells, switch]].index("code")
    notebook.cells = [*cells[:first], switch, *cells[first:]]
    return notebook


def without_hints(text):
    """Text without the <details> whose summary begins with Hint or Solution."""
    position = 0
    while opening := OPEN.search(text, position):
        position = opening.end()
        summary = SUMMARY.match(text, position)
        title = re.sub(r"<[^>]*>|[^\w<]+", " ", summary[1]).split() if summary else []
        if not title or not title[0].lower().startswith(("hint", "solution")):
            continue
        depth, end = 0, len(text)  # one that is never closed hides the rest, as a browser shows it
        for tag in OPEN_OR_CLOSE.finditer(text, opening.start()):
            depth += -1 if tag[1] else 1
            if depth == 0:
                end = tag.end()
                break
        text = f"{text[: opening.start()].rstrip()}\n\n{text[end:].lstrip()}".strip()
        position = min(opening.start(), len(text))
    return text


# nbgrader ---------------------------------------------------------------------------------------


def grade(cell, lesson):
    """Tell nbgrader what a cell is: an answer, a test, or text and code that nobody may change."""
    tags = cell.metadata.get("tags", [])
    if not {"exercise", "check", "exam"} & set(tags):
        return
    about = {"schema_version": 3, "grade_id": cell.id, "task": False}
    about |= {"solution": "exercise" in tags, "grade": "check" in tags}
    about["locked"] = not about["solution"]
    if about["solution"] and about["grade"]:
        raise ValueError(f"cell {cell.id} of {lesson} is tagged exercise and check: it can be one")
    if about["grade"]:
        about["points"] = points(tags, cell.id, lesson)
        cell.source += "\n\n" + "\n".join(asserts(cell.source, cell.id, lesson))
    cell.metadata["nbgrader"] = about


def points(tags, name, lesson):
    """What a check is worth: its tag points-N, or 1."""
    values = [tag.removeprefix("points-") for tag in tags if tag.startswith("points-")] or ["1"]
    if len(values) > 1 or not re.fullmatch(r"\d+(\.\d+)?", values[0]):
        raise ValueError(f"cell {name} of {lesson} is tagged {tags}: points need one tag, points-3")
    return float(values[0]) if "." in values[0] else int(values[0])


def asserts(source, name, lesson):
    """What fails if an answer is not right, as nbgrader wants: a check itself never raises."""
    from vitcourse.check import EXERCISES  # loads PyTorch

    lines = []
    for node in ast.parse(source).body:
        match node:
            case ast.Expr(ast.Call(ast.Attribute(ast.Name("check"), exercise), [answer])):
                if exercise in EXERCISES:
                    run = f'check.run("{exercise}", {ast.unparse(answer)})'
                    lines.append(f'assert {run}.status == "right"')
    if not lines:
        raise ValueError(
            f"cell {name} of {lesson} is tagged check and checks no exercise: write in it, "
            "on a line of its own, check.NAME(answer)"
        )
    return lines
