"""The set-up on machines where something is missing: one line each, and nothing half done."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vitcourse.lab import bootstrap

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path("vitcourse/lab/bootstrap.py")


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the set-up reads."""
    (tmp_path / SCRIPT).parent.mkdir(parents=True)
    for name in ("pyproject.toml", "Makefile", "README.md", "LICENSE", SCRIPT):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def set_up(checkout, before="", **environment):
    """Run the script as `make` does, after the code `before`."""
    code = f"import runpy, sys, shutil\n{before}\nsys.argv = [{str(SCRIPT)!r}]\n"
    code += f"runpy.run_path({str(checkout / SCRIPT)!r}, run_name='__main__')"
    closed = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    without_pip = {n: v for n, v in os.environ.items() if not n.startswith(("PIP_", "UV_"))}
    environment = {**without_pip, **closed, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )


def assert_one_line(run, *words):
    assert run.returncode == 1
    assert run.stderr.startswith("vitcourse: ") and run.stderr.count("\n") == 1, run.stderr
    for word in words:
        assert word in run.stderr


def test_an_old_python_can_still_read_it():
    ast.parse((ROOT / SCRIPT).read_text(), feature_version=(3, 5))
    assert 'f"' not in (ROOT / SCRIPT).read_text()


OLD = "sys.version_info = (3, 9, 2, 'final', 0)"


def test_an_old_python(checkout, tmp_path):
    run = set_up(checkout, OLD, PATH=str(tmp_path))
    assert_one_line(run, "3.11 or newer", "python3 is 3.9", "make PYTHON=")
    assert not (checkout / ".venv").exists()


def test_an_old_python_beside_a_new_one(checkout, tmp_path):
    new = tmp_path / "python3.13"
    new.write_text('#!/bin/sh\necho "went on with $0 $@"\n')
    new.chmod(0o755)
    run = set_up(checkout, OLD, PATH=f"{tmp_path}:/usr/bin:/bin")
    assert run.stdout == f"went on with {new} {checkout / SCRIPT}\n" and run.returncode == 0


def test_no_disk_space(checkout):
    full = "import types; shutil.disk_usage = lambda path: types.SimpleNamespace(free=3e9)"
    assert_one_line(set_up(checkout, full), "3.0 GB are free", "needs 8")


NO_UV = "which = shutil.which; shutil.which = lambda name: name != 'uv' and which(name)"


def test_no_venv_module(checkout, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "venv.py").write_text("raise ImportError(\"No module named 'venv'\")")
    run = set_up(checkout, NO_UV, PYTHONPATH=str(hidden))
    assert_one_line(run, "sudo apt install python3-venv")


@pytest.mark.parametrize("retries", ["0", "1"])
def test_no_network(checkout, retries):
    run = set_up(checkout, NO_UV, PIP_RETRIES=retries)
    assert_one_line(run, "cannot be reached", "PIP_INDEX_URL")
    assert (checkout / ".venv.log").exists()
    assert not list((checkout / ".venv").glob("vitcourse-*")), "it must not count as done"


SAID = {
    "created successfully because ensurepip is not\navailable": "sudo apt install python3-venv",
    "OSError: [Errno 28] No space left on device": "free 8 GB",
    "error: Failed to fetch: dns error: failed to lookup address": "connect to a network",
    "ERROR: No matching distribution found for torch>=2.11": "make PYTHON=",
    "noise\nERROR: something else broke\nmore noise": "failed: ERROR: something else broke",
    "": "no reason given",
}


@pytest.mark.parametrize("said", SAID)
def test_reasons(said):
    assert SAID[said] in bootstrap.reason(said)


def test_what_is_done_is_not_done_again(checkout, tmp_path):
    done = "import subprocess; subprocess.Popen = None"  # nothing may be run
    environment = checkout / ".venv" / "bin"
    environment.mkdir(parents=True)
    (environment / "python").symlink_to(sys.executable)
    code = (
        f"import runpy; m = runpy.run_path({str(checkout / SCRIPT)!r}); print(m['fingerprint']())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    stamp = checkout / ".venv" / "vitcourse-lab"
    stamp.write_text(run.stdout.strip())
    run = set_up(checkout, done)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    with open(checkout / "pyproject.toml", "a") as file:
        file.write("# one more requirement\n")
    assert set_up(checkout, done).returncode == 1, "changed requirements must be installed"
