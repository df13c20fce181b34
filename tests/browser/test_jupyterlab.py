"""JupyterLab as `make lab` opens it, on a copy of the course: what a learner does, in a browser.

Two things look green and prove nothing, and are avoided here: stored outputs look like new ones,
so they are cleared first; cells out of sight are not in the page, so outputs are read from the
notebook's model, and cells are scrolled to before they are clicked.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.browser.explorer import Explorer

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # to wait for JupyterLab on a busy computer
BY_COLUMNS = 'return rearrange(images, "B C (h p) (w q) -> B (w h) (p q C)", p=patch, q=patch)'
RIGHT = BY_COLUMNS.replace("(w h)", "(h w)")


def command():
    """The command that `make lab` runs once all is set up, by the Python of these tests."""
    said = subprocess.check_output(
        ["make", "-n", "--no-print-directory", "lab"], cwd=ROOT, text=True
    )
    last = said.strip().split("&& ")[-1]
    assert last == ".venv/bin/vitcourse lab"
    return [sys.executable, "-m", "vitcourse", "lab"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The running server: `address`, `root` of the course's copy, `environment`."""
    root = tmp_path_factory.mktemp("course")
    for name in ("vitcourse", "notebooks", "docs", "data/models"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    other = {"argv": ["/no/python", "{connection_file}"], "display_name": "other"}
    for name in ("python3", "other"):  # kernels that must not be taken
        (root / "others" / "kernels" / name).mkdir(parents=True)
        (root / "others" / "kernels" / name / "kernel.json").write_text(json.dumps(other))
    environment = {n: v for n, v in os.environ.items() if n != "VITCOURSE_PROGRESS"}
    environment |= {"PYTHONPATH": str(root), "HOME": str(root), "OMP_NUM_THREADS": "1"}
    environment |= {"JUPYTER_PATH": str(root / "others"), "IPYTHONDIR": str(root / "ipython")}
    for kind in ("CONFIG", "DATA", "RUNTIME"):
        environment[f"JUPYTER_{kind}_DIR"] = str(root / kind.lower())
    log = root / "log"
    options = ["--no-browser", "--LabApp.expose_app_in_browser=True"]
    with open(log, "w") as file:
        server = subprocess.Popen(
            command() + options, cwd=root, env=environment, stdout=file, stderr=file
        )
    try:
        yield SimpleNamespace(address=address(server, log), root=root, environment=environment)
    finally:
        server.send_signal(signal.SIGTERM)  # it ends its kernels, too
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


def address(server, log):
    """The address that the server prints, once it does."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and server.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+/\S*\?token=\w+", log.read_text()):
            return found[0]
        time.sleep(0.1)
    pytest.fail(f"JupyterLab does not start:\n{log.read_text()}")


@pytest.fixture
def notebook(lab, new_page):
    """Open a lesson in a fresh layout: `notebook(name)`."""
    return lambda name, **options: Notebook(new_page(**options), lab, name)


class Notebook:
    """An open lesson, as a person meets it, and what its model holds."""

    def __init__(self, page, lab, name):
        self.page = page
        page.goto(lab.address.replace("/lab?", f"/lab/workspaces/{name}/tree/{name}.ipynb?reset&"))
        page.locator(".jp-NotebookPanel:visible .jp-Cell").first.wait_for()
        self.run("panel.context.ready.then(() => panel.sessionContext.ready)")

    def run(self, code, argument=None):
        """What JavaScript gives, where `app` and `panel` are JupyterLab and the open notebook."""
        names = "const app = jupyterapp, panel = app.shell.currentWidget;"
        late = (
            f"new Promise((_, no) => setTimeout(no, {1000 * SECONDS}, Error('it takes too long')))"
        )
        code = f"async (argument) => {{ {names} return await Promise.race([{code}, {late}]); }}"
        return self.page.evaluate(code, argument)

    def command(self, name, **options):
        """Do, to its end, what JupyterLab's menus do."""
        self.run("app.commands.execute(...argument).then(() => 0)", [name, options])

    def code_cells(self):
        """What the model holds: the code cells by their names."""
        cells = self.run("panel.content.model.toJSON().cells")
        return {cell["id"]: cell for cell in cells if cell["cell_type"] == "code"}

    def scroll_to(self, name):
        """Bring a cell into sight: its place on the page."""
        names = "[...panel.content.model.cells].map((cell) => cell.id)"
        number = self.run(f"{names}.indexOf(argument)", name)
        self.run("panel.content.scrollToItem(argument, 'center')", number)
        cell = f".jp-NotebookPanel:visible .jp-Cell[data-windowed-list-index='{number}']"
        self.page.locator(cell).wait_for()
        self.page.wait_for_timeout(300)  # JupyterLab goes on scrolling while it draws
        return self.page.locator(cell)

    def press(self, *keys):
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def answer(self, name, line, text):
        """Click on a line of a stub, replace it, run the stub and its check: what is shown."""
        stub = self.scroll_to(f"{name}-stub")
        stub.locator(".cm-line").nth(line).click()
        self.press("End", "Shift+Home")
        self.page.keyboard.type(text)
        self.press("Shift+Enter", "Shift+Enter")
        return self.scroll_to(f"{name}-check").locator(".jp-OutputArea-output")

    def look(self, theme, width):
        """Change JupyterLab's theme, "Light" or "Dark", and the window's width."""
        self.command("apputils:change-theme", theme=f"JupyterLab {theme}")
        self.page.locator(f"body[data-jp-theme-name='JupyterLab {theme}']").wait_for(
            state="attached"
        )
        self.page.set_viewport_size({"width": width, "height": 1000})


def text_of(cell):
    """What a code cell put out, as plain text."""
    parts = [it.get("text") or it.get("data", {}).get("text/plain", "") for it in cell["outputs"]]
    return "".join("".join(part) for part in parts)


LOOKS = [(theme, width) for theme in ("Dark", "Light") for width in (768, 1280)]


def test_it_opens_at_lesson_00_with_its_contents_beside_it(lab, page, expect, screenshot):
    page.goto(lab.address)
    lesson = page.locator(".jp-NotebookPanel:visible")
    expect(lesson.get_by_role("heading", name="00 · Start here")).to_be_visible()
    contents = page.locator(".jp-TableOfContents:visible")
    expect(contents.get_by_text("Is this computer ready?")).to_be_visible()
    specs = "jupyterapp.serviceManager.kernelspecs"
    kernels = page.evaluate(f"{specs}.ready.then(() => Object.keys({specs}.specs.kernelspecs))")
    assert kernels == ["python3"]
    screenshot(page, "jupyterlab-first")


def test_a_learner_solves_an_exercise(lab, notebook, expect, screenshot):
    lesson = notebook("01-patches")
    lesson.command("notebook:clear-all-cell-outputs")
    lesson.command("notebook:run-all-cells")
    cells = lesson.code_cells().values()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert "stderr" not in [output.get("name") for output in outputs]
    assert text_of(lesson.code_cells()["setup"]) == ""

    shown = lesson.answer("patchify", 2, BY_COLUMNS)
    expect(shown).to_contain_text(
        "✗ patchify: Your patches are right, but they come column by column"
    )
    for theme, width in LOOKS:
        lesson.look(theme, width)
        lesson.scroll_to("patchify-check")
        screenshot(lesson.page, f"jupyterlab-wrong-{theme}-{width}".lower())

    shown = lesson.answer("patchify", 2, RIGHT)
    expect(shown).to_contain_text("✓ patchify: right.")
    screenshot(lesson.page, "jupyterlab-right")
    lesson.press("b", "Enter")
    lesson.page.keyboard.type("check.progress()")
    lesson.press("Control+Enter")
    row = re.compile(r"^01 +1 of 5 +2 +0$", re.M)
    expect(lesson.page.locator(".jp-Cell.jp-mod-active .jp-OutputArea-output")).to_contain_text(row)
    program = [sys.executable, "-m", "vitcourse", "progress"]
    assert row.search(
        subprocess.check_output(program, cwd=lab.root, env=lab.environment, text=True)
    )


def test_the_attention_explorer_answers_before_anything_ran(notebook, expect, screenshot):
    lesson = notebook("04-attention")
    frame = lesson.scroll_to("explore").locator("iframe")
    explorer = Explorer(lesson.page, frame.element_handle().content_frame())
    says = explorer.frame.locator("#says")
    expect(says).to_contain_text("The class token looks")
    for patch in (9, 54):
        explorer.point("#image", patch, (8, 8))
        expect(says).to_contain_text(f"Patch {patch} (row {patch // 8}, column {patch % 8}) looks")
    numbers = {tuple(explorer.numbers()[-7:-2])}
    for layer, head in ((0, 0), (0, 2), (3, 2)):
        explorer.frame.locator("#layers button").nth(layer).click()
        explorer.frame.locator("#heads button").nth(head).click()
        explorer.point("#image", 54, (8, 8))
        expect(says).to_contain_text(f"looks (layer {layer}, head {head}): ")
        numbers.add(tuple(explorer.numbers()[-7:-2]))
    assert len(numbers) == 4
    for theme, width in LOOKS:
        lesson.look(theme, width)
        lesson.scroll_to("explore")
        screenshot(lesson.page, f"jupyterlab-explorer-{theme}-{width}".lower())


def test_a_link_to_the_glossary_leads_there(notebook, expect):
    lesson = notebook("01-patches")
    lesson.scroll_to("remember").get_by_role("link", name="Glossary").click()
    expect(lesson.page.get_by_role("tab", name="glossary.md")).to_be_visible()
    expect(
        lesson.page.locator(".jp-FileEditor:visible, .jp-MarkdownViewer:visible")
    ).to_contain_text("注意力")


def test_a_lesson_run_by_another_kernel_says_so(lab, notebook, expect):
    (lab.root / ".venv").mkdir()  # as if the course were installed in there
    lesson = notebook("02-class-token")
    lesson.scroll_to("setup").locator(".cm-line").first.click()
    lesson.press("Shift+Enter")
    shown = lesson.scroll_to("setup").locator(".jp-OutputArea-output")
    expect(shown).to_have_text(
        f"✗ this notebook runs {sys.executable}, the course is installed in {lab.root}/.venv; "
        "open the lessons with: make lab"
    )
    (lab.root / ".venv").rmdir()
