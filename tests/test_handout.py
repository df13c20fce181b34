"""Handouts: no answer is left in them, nothing is overwritten, and nbgrader takes them."""

import json
import re
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from vitcourse import check
from vitcourse.lab import handout as module
from vitcourse.lab.handout import handout, without_hints

STUB = "def patchify(images, patch):\n    ..."


def code(source, name, *tags):
    cell = new_code_cell(source, id=name, metadata={"tags": list(tags)}, execution_count=1)
    cell.outputs = [new_output("stream", text="the answer is 196")]
    return cell


def text(source, name):
    return new_markdown_cell(source, id=name)


@pytest.fixture
def course(tmp_path, monkeypatch):
    monkeypatch.setitem(check.EXERCISES, "count", None)  # an exercise by name alone
    cells = [
        text("# Patches", "title"),
        code("count = 14 * 14", "count"),
        text("**patchify**\n\n<details><summary>Hint</summary>\n\nreshape\n\n</details>", "card"),
        code(STUB, "patchify", "exercise"),
        code("check.patchify(patchify)", "patchify-check", "check", "points-3"),
        text("<details><summary>Solution</summary>\nreshape it\n</details>", "solution"),
        code("# Now count them\nN = 0", "number", "exercise"),
        code("check.hint('count')\ncheck.count(N + 0)", "number-check", "check"),
        code("exam = 1", "exam"),
    ]
    for name in ("01-patches", "02-token", "papers/deit"):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        notebook = new_notebook(cells=cells, metadata={"widgets": {}, "slides": {"question": "?"}})
        notebook.cells[2].metadata["slide"] = {"notes": "they will say: reshape"}
        nbformat.write(notebook, path)
    return tmp_path


def read(path):
    return {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}


def change(course, name, **changes):
    """Change a cell of lesson 01: source= or tags=."""
    path = course / "notebooks" / "01-patches.ipynb"
    notebook = nbformat.read(path, as_version=4)
    (cell,) = [cell for cell in notebook.cells if cell.id == name]
    cell.source = changes.get("source", cell.source)
    cell.metadata.tags = changes.get("tags", cell.metadata.get("tags", []))
    nbformat.write(notebook, path)


# Copies without answers -------------------------------------------------------------------------


def test_answers_are_gone_and_all_else_stays(course):
    before = (course / "notebooks" / "01-patches.ipynb").read_bytes()
    (path,) = handout(["01"], course / "class", root=course)
    assert path == course / "class" / "01-patches.ipynb"
    assert "reshape" not in path.read_text() and "the answer is" not in path.read_text()
    assert not {"widgets", "slide", "nbgrader"} & set(re.findall(r"[a-z]+", path.read_text()))
    cells = read(path)
    names = "title exam-again count card patchify patchify-check number number-check exam"
    assert list(cells) == names.split()
    assert cells["card"].source == "**patchify**" and cells["patchify"].source == STUB
    for cell in cells.values():
        assert cell.cell_type != "code" or (cell.outputs, cell.execution_count) == ([], None)
    assert (course / "notebooks" / "01-patches.ipynb").read_bytes() == before


def test_the_first_cell_switches_hints_off(course, monkeypatch, capsys):
    (path,) = handout("01", course / "class", root=course)
    monkeypatch.setattr(check, "_exam", False)
    exec(read(path)["exam-again"].source, {})
    check.hint("patchify")
    check.solution("patchify")
    assert capsys.readouterr().out.count("switched off") == 2


def test_several_lessons_and_those_of_papers(course):
    paths = handout(["01-patches.ipynb", "papers/"], course / "a" / "class", root=course)
    names = [path.relative_to(course / "a" / "class").as_posix() for path in paths]
    assert names == ["01-patches.ipynb", "papers/deit.ipynb"]
    assert all(path.is_file() for path in paths)
    assert [path.name for path in (course / "a").iterdir()] == ["class"]


def test_every_lesson_there_is(tmp_path):
    paths = handout([""], tmp_path / "class")
    assert paths and all("exam" in read(path) for path in paths)


@pytest.mark.parametrize("there", ["folder", "empty", "file", "link"])
def test_what_exists_is_refused(course, there):
    out = course / "class"
    if there == "file":
        out.write_text("mine")
    elif there == "link":
        out.symlink_to(course / "nowhere")
    else:
        out.mkdir()
        if there == "folder":
            (out / "01-patches.ipynb").write_text("mine")
    with pytest.raises(FileExistsError, match="class exists and is left alone: name a folder"):
        handout(["01"], out, root=course)
    if there == "folder":
        assert (out / "01-patches.ipynb").read_text() == "mine"


def test_a_lesson_that_there_is_not(course):
    with pytest.raises(ValueError, match="begins with '07': choose from 01-patches, 02-token, pap"):
        handout(["01", "07"], course / "class", root=course)
    with pytest.raises(ValueError, match="no lesson is named"):
        handout([], course / "class", root=course)
    assert not (course / "class").exists()


def test_all_or_nothing(course):
    (course / "notebooks" / "02-token.ipynb").write_text("torn")
    with pytest.raises(ValueError):
        handout(["01", "02"], course / "class", root=course)
    assert [path.name for path in course.iterdir()] == ["notebooks"]


HIDDEN = [
    "a<details><summary>Hint</summary>x</details>b",
    "a\n<details open>\n<summary><b>Hint 2</b>: how</summary>\n\nx\n</details>\n\nb",
    "a<DETAILS><Summary class='q'> solution </Summary>x<details>x</details>x</DETAILS>b",
    "a<details><summary>Hint</summary>x</details><details><summary>Hints</summary>x</details>b",
    "a <details><summary>» Solution</summary>x</details> b",
]
SHOWN = [
    "a<details><summary>Why?</summary>x</details>b",
    "a<details>x</details>b",
    "a<details>x<details><summary>No hint</summary></details></details>b",
]


def test_which_details_are_hidden():
    for source in HIDDEN:
        assert without_hints(source).split() == ["a", "b"], source
    for source in SHOWN:
        assert without_hints(source) == source
    nested = (
        "<details><summary>Why?</summary>a<details><summary>Hint</summary>x</details></details>"
    )
    assert without_hints(nested).split() == ["<details><summary>Why?</summary>a", "</details>"]
    assert without_hints("a <details><summary>Hint</summary> x, and never closed") == "a"
    assert without_hints("<details><summary>Hint</summary>x</details>") == ""


# nbgrader ---------------------------------------------------------------------------------------


def test_what_nbgrader_reads(course):
    paths = handout(["01", "papers/"], course / "class", nbgrader=True, root=course)
    names = [path.relative_to(course / "class").as_posix() for path in paths]
    assert names == ["source/01-patches/01-patches.ipynb", "source/deit/deit.ipynb"]
    assert "ClearSolutions.enabled = False" in (course / "class/nbgrader_config.py").read_text()
    about = {name: cell.metadata.get("nbgrader") for name, cell in read(paths[0]).items()}
    assert about["title"] is about["count"] is about["card"] is None
    answer = {"solution": True, "grade": False, "locked": False, "task": False}
    test = {"solution": False, "grade": True, "locked": True, "task": False}
    text = {"solution": False, "grade": False, "locked": True, "task": False}
    for name, what in {
        "exam-again": text,
        "patchify": answer,
        "patchify-check": test | {"points": 3},
        "number": answer,
        "number-check": test | {"points": 1},
    }.items():
        assert about[name] == what | {"schema_version": 3, "grade_id": name}


def test_a_test_fails_unless_the_answer_is_right(course, monkeypatch):
    (path,) = handout(["01"], course / "class", nbgrader=True, root=course)
    source = read(path)["number-check"].source
    assert source.startswith("check.hint('count')\ncheck.count(N + 0)\n")
    assert source.endswith('\n\nassert check.run("count", N + 0).status == "right"')

    class Checks:
        def __getattr__(self, name):
            return lambda answer: None

        def run(self, name, answer):
            return SimpleNamespace(status="right" if answer == 196 else "wrong")

    exec(source, {"check": Checks(), "N": 196})
    with pytest.raises(AssertionError):
        exec(source, {"check": Checks(), "N": 195})


def test_a_real_exercise_is_graded(course, monkeypatch):
    monkeypatch.setenv("VITCOURSE_PROGRESS", "")
    monkeypatch.setattr(check, "_exam", False)
    (path,) = handout(["01"], course / "class", nbgrader=True, root=course)
    for answer, right in [(check.EXERCISES["patchify"].reference, True), (lambda *a: None, False)]:
        names = {"check": check, "patchify": answer}
        try:
            exec(read(path)["patchify-check"].source, names)
        except AssertionError:
            assert not right
        else:
            assert right


@pytest.mark.parametrize(
    "name, changes, said",
    [
        ("patchify-check", {"tags": ["check", "points-many"]}, "points need one tag, points-3"),
        ("patchify-check", {"tags": ["check", "points-1", "points-2"]}, "points need one tag"),
        ("patchify-check", {"tags": ["check", "exercise"]}, "exercise and check: it can be one"),
        ("patchify-check", {"source": "patchify"}, "checks no exercise"),
    ],
)
def test_tags_that_cannot_be_graded(course, name, changes, said):
    change(course, name, **changes)
    with pytest.raises(ValueError, match=f"cell {name} of 01-patches.ipynb .*{said}"):
        handout(["01"], course / "class", nbgrader=True, root=course)
    assert not (course / "class").exists()


# A test that cannot fail proves nothing ---------------------------------------------------------


def test_planted_errors_are_noticed(course, monkeypatch):
    planted = {
        "without_hints": lambda text: text,
        "asserts": lambda source, name, lesson: [],
        "points": lambda tags, name, lesson: 1,
    }
    for number, (name, wrong) in enumerate(planted.items()):
        (course / str(number)).mkdir()
        (course / str(number) / "notebooks").symlink_to(course / "notebooks")
        with monkeypatch.context() as patch, pytest.raises(AssertionError):
            patch.setattr(module, name, wrong)
            if name == "without_hints":
                test_answers_are_gone_and_all_else_stays(course / str(number))
            elif name == "asserts":
                test_a_test_fails_unless_the_answer_is_right(course / str(number), patch)
            else:
                test_what_nbgrader_reads(course / str(number))


def test_points_may_be_broken(course):
    change(course, "patchify-check", tags=["check", "points-0.5"])
    (path,) = handout(["01"], course / "class", nbgrader=True, root=course)
    assert json.loads(path.read_text())["cells"][5]["metadata"]["nbgrader"]["points"] == 0.5
