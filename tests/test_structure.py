"""How the parts meet: who may import whom, what is documented, and what no file may hold."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vitcourse

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vitcourse"
FILES = sorted(PACKAGE.rglob("*.py"))
TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
).stdout.split("\n")

CORE = {"config", "vit", "parts", "pyramid", "papers", "losses", "probe", "weights"}
CORE |= {"files", "stress"}
MAY_IMPORT = {
    "config": set(),
    "files": set(),
    "vit": {"config"},
    "parts": {"config", "vit"},
    "pyramid": {"config", "vit", "parts"},
    "losses": {"config"},
    "papers": CORE,
    "probe": {"vit", "parts"},
    "stress": {"config", "vit"},
    "weights": {"config", "files", "vit"},
    "data": {"config", "vit", "weights"},
    "train": CORE | {"data", "show"},
    "segment": CORE | {"train"},
    "detect": CORE | {"train"},
    "show": CORE | {"data"},
    "check": CORE | {"data", "show"},
    "lab": CORE | {"data", "train", "show", "check"},
    "__main__": {"cli"},
    "cli": CORE | {"data", "train", "show", "check", "lab"},
}


def part(path):
    """The module of the package, or the folder, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """The parts of vitcourse that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    parts = {name.split(".")[1] for name in names if name.startswith("vitcourse.")}
    return parts & set(MAY_IMPORT)


def misplaced(path):
    """What a file imports and may not."""
    own = part(path)
    return imported(path) - MAY_IMPORT[own] - {own}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    if part(path) != "__init__":
        assert not misplaced(path)


def test_an_import_that_goes_back_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    for line in (
        "from vitcourse.lab import doctor",
        "import vitcourse.train",
        "from vitcourse import show",
    ):
        (tmp_path / "vit.py").write_text(f"def f():\n    {line}\n")
        assert misplaced(tmp_path / "vit.py"), line


@pytest.mark.parametrize("name", sorted({part(path) for path in FILES} - {"__init__"}))
def test_each_part_can_be_imported_first(name):
    subprocess.run([sys.executable, "-c", f"import vitcourse.{name}"], check=True)


def test_no_name_hides_a_module():
    modules = {part(path) for path in FILES}
    assert not modules & set(vitcourse.__all__)
    for name in vitcourse.__all__:
        assert getattr(vitcourse, name).__name__ == name
    with pytest.raises(AttributeError):
        vitcourse.nothing  # noqa: B018


def test_torch_is_loaded_only_when_needed():
    code = "import sys, vitcourse.cli, vitcourse.lab.workspace; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_public_is_explained(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the file does not say what it is for"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_the_whole_vit_is_short():
    assert len((PACKAGE / "vit.py").read_text().splitlines()) <= 300


def test_text_is_tidy():
    for name in TRACKED:
        path = ROOT / name
        if not name or not path.is_file() or path.suffix in (".png", ".safetensors", ".ipynb"):
            continue
        text = path.read_text()
        assert not re.search(r"[ \t]+$", text, re.M), f"{name}: blanks at the end of a line"
        assert text.endswith("\n") or not text, f"{name}: no newline at the end"
        assert not re.search(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b", text), f"{name}: unfinished"


def test_format():
    for command in (["check"], ["format", "--check"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "-q", "."],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr
