"""A hosted notebook: what is there stays, what is missing is added, the clone is imported."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vitcourse.lab import doctor, hosted

ROOT = Path(__file__).resolve().parents[1]
BARE = f"""import sys  # as where the course is not installed
sys.path = [path for path in sys.path if path != {str(ROOT)!r}]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
"""
IMPORT = "from vitcourse import check, show; show.recorded('claim-finetuning')"
READY = f"import runpy; runpy.run_path({hosted.__file__!r}, run_name='__main__')"
CHILD = "import vitcourse; print(vitcourse.__file__)"


def python(code, folder):
    """What happens to code in a kernel that works in another folder, without the course."""
    command = [sys.executable, "-c", BARE + code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_clone_is_imported_whatever_stands_in_the_way(tmp_path):
    (tmp_path / "vitcourse" / "notebooks").mkdir(parents=True)  # as a clone of that name looks
    assert "cannot import name 'check'" in python(IMPORT, tmp_path).stderr
    child = f"import subprocess; subprocess.run([sys.executable, '-S', '-c', {CHILD!r}])"
    after = python(f"import vitcourse\n{READY}\n{IMPORT}\n{child}", tmp_path)
    lines = after.stdout.splitlines()
    assert not after.returncode and len(lines) == 2, after.stderr
    assert sorted(lines)[0] == str(ROOT / "vitcourse" / "__init__.py")
    assert sorted(lines)[1].startswith("ok: the course is ready; training takes ")


@pytest.fixture
def pip(monkeypatch):
    """The versions that are there, and the calls of pip, with their constraints, which all fail."""
    there = {name: "99.0" for name in hosted.requirements()} | {"torch": "2.11.0+cu126"}
    calls = []

    def run(command, **options):
        path = Path(command[command.index("-c") + 1])
        calls.append((command[command.index("-c") + 2 :], path.read_text().splitlines()))
        return SimpleNamespace(returncode=1, stderr="a warning\nERROR: no network\n")

    monkeypatch.setattr(hosted, "installed", there.get)
    monkeypatch.setattr(hosted, "use_clone", lambda: None)
    monkeypatch.setattr(hosted.subprocess, "run", run)
    return SimpleNamespace(there=there, calls=calls)


def test_only_what_is_missing_is_installed(pip, capsys):
    hosted.main()
    assert not pip.calls and capsys.readouterr().out.startswith("ok: the course is ready")
    del pip.there["einops"]
    hosted.main()
    ((wanted, pins),) = pip.calls
    assert wanted == [f"einops>={hosted.requirements()['einops']}"]
    assert "torch==2.11.0+cu126" in pins and not any(pin.startswith("einops") for pin in pins)
    assert capsys.readouterr().out == f"{wanted[0]} cannot be installed: ERROR: no network\n"


def test_what_is_too_old_is_named_and_stays(pip, capsys):
    pip.there["torch"] = "2.9.1+cu126"
    hosted.main()
    said = capsys.readouterr().out
    assert said.startswith("too old for the course: torch 2.9.1+cu126 (needed: 2.11)")
    assert "%pip install -U torch, restart" in said and said.count("\n") == 1
    assert not pip.calls


def test_the_doctor_does_not_ask_for_jupyterlab_there(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert not doctor.kernel().ok
    monkeypatch.setenv("VITCOURSE_HOSTED", "1")
    assert doctor.kernel().ok
