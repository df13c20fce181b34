"""The lessons: built from their sources, clean, and truly compared by nbval."""

import copy
import os
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.hygiene import problems
from vitcourse.lab import notebooks

LESSONS = [notebooks.target(source) for source in notebooks.sources()]
NAMES = [path.stem for path in LESSONS]


@pytest.mark.parametrize("lesson", LESSONS, ids=NAMES)
def test_a_lesson_is_clean(lesson):
    assert not problems(nbformat.read(lesson, as_version=4), lesson.stat().st_size)


@pytest.mark.parametrize("source", notebooks.sources(), ids=NAMES)
def test_a_lesson_is_built_from_its_source(source):
    assert not notebooks.differs(source), "run make notebooks"


def test_every_notebook_has_a_source():
    there = {
        path
        for path in notebooks.NOTEBOOKS.rglob("*.ipynb")
        if ".ipynb_checkpoints" not in path.parts
    }
    assert there == set(LESSONS)


# The checks themselves --------------------------------------------------------------------------


def clean():
    """A notebook that nothing is wrong with."""
    cells = [
        new_markdown_cell("# A lesson\n\n![a cat](cat.png)", id="title"),
        new_code_cell(
            "print(6 * 7)", id="a", execution_count=1, outputs=[new_output("stream", text="42\n")]
        ),
        new_code_cell(
            "show()",
            id="b",
            execution_count=2,
            outputs=[
                new_output(
                    "display_data",
                    {"image/png": "iVBOR", "text/plain": "a cat"},
                    metadata={"image/png": {"alt": "a cat"}},
                )
            ],
        ),
    ]
    return new_notebook(cells=cells, metadata={"language_info": {"name": "python", "version": "3"}})


def cell(index, **changes):
    return lambda notebook: notebook.cells[index].update(changes)


def output(text="", **data):
    data = {kind.replace("_", "/"): content for kind, content in data.items()}
    new = new_output("display_data", data) if data else new_output("stream", text=text)
    return cell(1, outputs=[new])


PLANTED = {
    "execution count None": cell(1, execution_count=None),
    "execution count 3, not 2": cell(2, execution_count=3),
    "semicolon": cell(1, source="print(6 * 7);"),
    "magic": cell(1, source="%%time\nprint(6 * 7)"),
    "shell command": cell(1, source="!pip install this"),
    "empty": cell(1, source=" "),
    "unchecked": cell(1, metadata={"tags": ["raises-exception"]}),
    "error is stored": cell(1, outputs=[new_output("error", ename="NameError")]),
    "stderr": cell(1, outputs=[new_output("stream", name="stderr", text="a warning")]),
    "without text/plain": output(text_html="<b>42</b>"),
    "a widget": output(**{"application/vnd.jupyter.widget-view+json": {}, "text_plain": "w"}),
    "an SVG": output(**{"image/svg+xml": "<svg/>", "text_plain": "f"}),
    "without alt text: use show.figure": output(image_png="iVBOR", text_plain="<Figure>"),
    "path of one computer": output("saved to /home/ann/model.pt\n"),
    "a version": output("torch 2.15.0\n"),
    "-0.0": output("[-0.0, 1.0]\n"),
    "address": output("<object at 0x7f3a5c0d1e20>\n"),
    "from the network": cell(0, source="![a cat](https://example.org/cat.png)"),
    "a picture without alt": cell(0, source="![](cat.png)"),
    "without alt text": output(text_html="<img src='data:x'>", text_plain="f"),
    "script from the network": output(text_html="<script src='//cdn.org/x.js'>", text_plain="f"),
    "widget state": lambda notebook: notebook.metadata.update(widgets={}),
    "language_info": lambda notebook: notebook.metadata.pop("language_info"),
    "id of their own": cell(2, id="a"),
}


@pytest.mark.parametrize("problem", PLANTED)
def test_a_planted_problem_is_named(problem):
    notebook = clean()
    assert not problems(notebook)
    PLANTED[problem](notebook)
    assert any(problem in found for found in problems(notebook)), problems(notebook)


def test_a_large_notebook_is_named():
    assert problems(clean(), 2_000_000) == ["2,000,000 bytes, more than 1,500,000"]


STORED = {  # what is stored for a cell that prints "width 3, loss 0.5000"
    "width 3, loss 0.5000\n": True,
    "width 3, loss 0.5004\n": True,
    "width 3, loss 0.5040\n": False,
    "width 4, loss 0.5000\n": False,
    "width 3, cost 0.5000\n": False,
    "width 3, loss 0.5000\nand more\n": False,
}


def nbval(folder, *options, conftest=None):
    """Run nbval on a folder, as `make test` does on the lessons."""
    lessons = (notebooks.NOTEBOOKS / "conftest.py").read_text()
    (folder / "conftest.py").write_text(conftest or lessons)
    shutil.copytree(notebooks.NOTEBOOKS / "offline", folder / "offline")
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider"]
    environment = {name: v for name, v in os.environ.items() if "PYTEST" not in name}
    return subprocess.run(
        [*command, *options, "--rootdir", str(folder), str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
    )


def test_nbval_notices_what_it_should(tmp_path):
    kernel = {"kernelspec": notebooks.KERNEL}
    outputs = [[new_output("stream", text=text)] for text in STORED]
    code = "print('width', 3, end=', ')\nprint('loss 0.5000')"
    cells = [new_code_cell(code, execution_count=i, outputs=o) for i, o in enumerate(outputs, 1)]
    raising = new_code_cell("1 / 0", execution_count=len(cells) + 1)
    notebook = new_notebook(cells=[*cells, raising], metadata=kernel)
    nbformat.write(notebook, tmp_path / "lesson.ipynb")
    run = nbval(tmp_path, "-rA")
    verdicts = [f"PASSED lesson.ipynb::Cell {i}" in run.stdout for i in range(len(cells) + 1)]
    assert verdicts == [*STORED.values(), False], run.stdout
    assert run.returncode == 1


def test_a_slow_lesson_fails(tmp_path):
    slow = new_code_cell("import time; time.sleep(1.5)", execution_count=1)
    notebook = new_notebook(cells=[slow], metadata={"kernelspec": notebooks.KERNEL})
    nbformat.write(notebook, tmp_path / "07-lesson.ipynb")
    assert nbval(tmp_path).returncode == 0
    shutil.rmtree(tmp_path / "offline")
    lessons = (notebooks.NOTEBOOKS / "conftest.py").read_text()
    strict = lessons.replace('"default": 45', '"default": 0.5')
    run = nbval(tmp_path, conftest=strict)
    assert run.returncode == 1 and "07-lesson.ipynb is over its time" in run.stdout


KERNEL = {"kernelspec": notebooks.KERNEL}
SAYS = "'a lesson runs without a network' in str(error)"
REFUSED = new_output("stream", text="True\n")
CALLS = {
    "by name": "import socket; socket.create_connection(('pypi.org', 443), 3)",
    "by address": "import socket; socket.socket().connect(('192.0.2.1', 443))",
    "by urllib": "from urllib.request import urlopen; urlopen('https://pypi.org', timeout=3)",
}
HERE = """import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), 3).close()"""


def test_a_lesson_cannot_use_the_network(tmp_path):
    cells = [new_code_cell(HERE, execution_count=1)]
    for count, call in enumerate(CALLS.values(), 2):
        code = f"try:\n    {call}\nexcept OSError as error:\n    print({SAYS})"
        cells.append(new_code_cell(code, execution_count=count, outputs=[REFUSED]))
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), tmp_path / "lesson.ipynb")
    run = nbval(tmp_path, "-rA")
    assert run.returncode == 0, run.stdout


# The builder ------------------------------------------------------------------------------------

SOURCE = """# %% [markdown] name="title"
# # A lesson

# %% name="answer" tags=["nbval-ignore-output"]
print(6 * 7)

# %%
1 + 1
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    (tmp_path / "notebooks" / "source" / "papers").mkdir(parents=True)
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    source = tmp_path / "notebooks" / "source" / "papers" / "one.py"
    source.write_text(SOURCE)
    return source


def test_build(course, capsys):
    assert notebooks.main(["--check"]) == 1
    assert "one.ipynb differs" in capsys.readouterr().out
    assert notebooks.main([]) == 0
    path = notebooks.NOTEBOOKS / "papers" / "one.ipynb"
    first = path.read_bytes()
    built = nbformat.read(path, as_version=4)
    assert [c.cell_type for c in built.cells] == ["markdown", "code", "code"]
    assert [c.id for c in built.cells[:2]] == ["title", "answer"]
    assert built.cells[1].metadata == {"tags": ["nbval-ignore-output"]}
    assert built.cells[1].outputs[0].text == "42\n"
    assert not problems(built)
    assert notebooks.main(["--check"]) == 0 and notebooks.main(["--all"]) == 0
    assert notebooks.main(["one", "--check"]) == 0
    assert path.read_bytes() == first, "the same source must give the same bytes"
    before = copy.deepcopy(built)
    course.write_text(SOURCE.replace("6 * 7", "6 * 8").replace("# A lesson", "# The lesson"))
    assert notebooks.main(["--check"]) == 1
    notebooks.main(["one"])
    after = nbformat.read(path, as_version=4)
    assert [c.id for c in after.cells] == [c.id for c in before.cells]
    assert notebooks.main(["two"]) == 2


def test_new_text_keeps_the_outputs_and_new_code_does_not(course, capsys):
    notebooks.main([])
    path = notebooks.NOTEBOOKS / "papers" / "one.ipynb"
    stored = nbformat.read(path, as_version=4)
    stored.cells[1].outputs[0].text = "from the last run\n"
    nbformat.write(stored, path)
    course.write_text(SOURCE.replace("A lesson", "Another lesson"))
    assert notebooks.main([]) == 0 and "text renewed" in capsys.readouterr().out
    renewed = nbformat.read(path, as_version=4)
    assert renewed.cells[0].source == "# Another lesson"
    assert renewed.cells[1].outputs[0].text == "from the last run\n"
    assert not problems(renewed) and notebooks.main(["--check"]) == 0
    course.write_text(SOURCE.replace("1 + 1", "1 + 2"))
    notebooks.main([])
    assert nbformat.read(path, as_version=4).cells[1].outputs[0].text == "42\n"


def test_a_failing_lesson_is_not_written(course):
    course.write_text("# %%\n1 / 0\n")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebooks.main([])
    assert not list((notebooks.NOTEBOOKS / "papers").iterdir())
