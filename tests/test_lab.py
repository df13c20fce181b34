"""The command line, JupyterLab's start, the doctor: what a learner meets before lesson 00."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vitcourse import cli
from vitcourse.lab import doctor, workspace

ROOT = Path(__file__).resolve().parents[1]

# The command line -------------------------------------------------------------------------------


def vitcourse(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "vitcourse.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_wrong_command_gets_a_line_and_exit_code_2():
    run = vitcourse("docter")
    assert run.returncode == 2 and "invalid choice: 'docter'" in run.stderr
    run = vitcourse("doctor", "--fast")
    assert run.returncode == 2 and run.stderr.endswith("doctor takes no '--fast'\n")
    assert "Traceback" not in run.stderr


def test_an_error_gets_a_line_and_exit_code_2(monkeypatch, capsys):
    def fail():
        raise ValueError("dim is 0")

    monkeypatch.setattr(doctor, "main", fail)
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "vitcourse: dim is 0\n"


# Copies of the lessons --------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path):
    for name in ("00-start-here", "papers/deit", ".ipynb_checkpoints/00-start-here-checkpoint"):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} as published")
    return tmp_path


def test_lessons_are_copied_once(course):
    assert workspace.copy_lessons(course) == ["00-start-here.ipynb", "papers/deit.ipynb"]
    mine = course / "work" / "00-start-here.ipynb"
    assert mine.read_text() == "00-start-here as published"
    mine.write_text("my answers")
    (course / "work" / "papers" / "deit.ipynb").unlink()
    (course / "notebooks" / "00-start-here.ipynb").write_text("a new edition")
    assert workspace.copy_lessons(course) == ["papers/deit.ipynb"]
    assert mine.read_text() == "my answers"
    names = [path.name for path in (course / "work").rglob("*") if path.is_file()]
    assert sorted(names) == ["00-start-here.ipynb", "deit.ipynb"]


def test_without_lessons(tmp_path):
    with pytest.raises(FileNotFoundError, match="from a clone of the course"):
        workspace.copy_lessons(tmp_path)


def test_links_to_docs_are_found_in_work(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "glossary.md").write_text("all terms")
    (tmp_path / "work").mkdir()
    for _ in range(2):
        workspace.link_docs(tmp_path)
        assert (tmp_path / "work" / "docs" / "glossary.md").read_text() == "all terms"
    (tmp_path / "work" / "docs").unlink()
    (tmp_path / "work" / "docs").write_text("mine")
    workspace.link_docs(tmp_path)
    assert (tmp_path / "work" / "docs").read_text() == "mine"


def test_settings_made_by_hand_stay(tmp_path):
    workspace.quiet_settings(tmp_path)
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    file.write_text("mine")
    workspace.quiet_settings(tmp_path)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("user, allowed", [(0, True), (1000, False)])
def test_root_is_told(user, allowed, monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    command = workspace.lab_command(options=["--no-browser"])
    assert ("--allow-root" in command) == allowed == ("you are root" in capsys.readouterr().out)
    assert command[-1] == "--no-browser" and "--ServerApp.ip=127.0.0.1" in command
    assert not any("token" in option or "password" in option for option in command)


def test_it_begins_with_lesson_00_and_later_where_it_was_left(tmp_path):
    workspace.first_layout(tmp_path)
    (file,) = tmp_path.iterdir()
    layout = json.loads(file.read_text())["data"]["layout-restorer:data"]
    assert layout["main"]["current"] == "notebook:00-start-here.ipynb"
    file.write_text("left")
    workspace.first_layout(tmp_path)
    assert file.read_text() == "left" and list(tmp_path.iterdir()) == [file]


def test_the_kernel_is_this_python_whatever_others_there_are(tmp_path, monkeypatch):
    spec = '{"argv": ["/other/python", "{connection_file}"], "display_name": "other"}'
    (tmp_path / "kernels" / "python3").mkdir(parents=True)
    (tmp_path / "kernels" / "python3" / "kernel.json").write_text(spec)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    code = "from vitcourse.lab import doctor; print(doctor.kernel())"
    for environment, words in (
        (dict(os.environ), "python3 is /other/python"),
        (workspace.lab_environment(tmp_path), "python3, of this environment"),
    ):
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
        assert words in run.stdout.decode()


# The doctor -------------------------------------------------------------------------------------


def test_here_all_is_well():
    run = vitcourse("doctor")
    assert run.returncode == 0, run.stdout
    assert run.stdout.count("✓") == 6 and "✗" not in run.stdout


@pytest.fixture
def machine(monkeypatch):
    """A computer to be examined: its GPU, and what PyTorch makes of it."""

    def become(gpu, built, available):
        monkeypatch.setattr(doctor, "nvidia", lambda: gpu)
        monkeypatch.setattr(torch.version, "cuda", built)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA T4")
        return doctor.device()

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return become


def test_the_device(machine, monkeypatch):
    assert machine(None, None, False).ok and machine(None, "13.2", False).ok
    finding = machine(("NVIDIA T4", 13), None, False)
    assert "built for CPUs only" in finding.text
    assert finding.mend == f"{sys.executable} -m pip install --force-reinstall torch torchvision"
    finding = machine(("NVIDIA T4", 12), "13.2", False)
    assert "driver is for CUDA 12" in finding.text and "update the NVIDIA driver" in finding.mend
    finding = machine(("NVIDIA T4", 13), "13.2", False)
    assert "cannot use it" in finding.text and not finding.ok
    if not torch.cuda.is_available():  # a GPU that is announced and then fails
        assert "NVIDIA T4 fails" in machine(("NVIDIA T4", 13), "13.2", True).text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    finding = machine(("NVIDIA T4", 13), "13.2", False)
    assert finding.ok and "hidden" in finding.text


def test_what_nvidia_smi_says(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -L ]; then echo "GPU 0: NVIDIA H200 (UUID: GPU-1)"\n'
        'else echo "| NVIDIA-SMI 580.1  Driver Version: 580.1   CUDA Version: 13.0  |"; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert doctor.nvidia() == ("NVIDIA H200", 13)
    program.write_text("#!/bin/sh\necho no devices were found; exit 6\n")
    assert doctor.nvidia() is None
    monkeypatch.setenv("PATH", "")
    assert doctor.nvidia() is None


def test_pytorch(monkeypatch):
    modules = {"torch": SimpleNamespace(__version__="2.9.1+cu128")}
    modules["torchvision"] = SimpleNamespace(__version__="0.24.1")
    monkeypatch.setattr(doctor.importlib, "import_module", modules.get)
    assert "2.9.1+cu128, torchvision 0.24.1 is too old" in doctor.torch().text

    def broken(name):
        raise ImportError("libcudart.so.13: cannot open shared object file\nmore")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    finding = doctor.torch()
    assert finding.text == "does not load: libcudart.so.13: cannot open shared object file"
    assert "--force-reinstall torch torchvision" in str(finding)


def test_too_little_disk(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=2e8))
    assert "0.2 GB free" in doctor.disk().text and not doctor.disk().ok


def test_a_kernel_of_another_environment(tmp_path):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    argv = '["/usr/bin/python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]'
    (folder / "kernel.json").write_text(f'{{"argv": {argv}, "display_name": "other"}}')
    run = vitcourse("doctor", JUPYTER_PATH=str(tmp_path))
    assert run.returncode == 1
    assert "✗ kernel    python3 is /usr/bin/python3" in run.stdout
    assert "mend it:  open the lessons with: make lab" in run.stdout


def test_a_notebook_run_by_another_python(tmp_path):
    for name in ("__init__.py", "lab/__init__.py", "lab/doctor.py"):
        (tmp_path / "vitcourse" / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "vitcourse" / name, tmp_path / "vitcourse" / name)

    def said(code):
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return run.stdout

    assert said("import ipykernel, vitcourse") == ""
    (tmp_path / ".venv").mkdir()
    line = said("import ipykernel, vitcourse, vitcourse.lab")
    assert line.startswith(f"✗ this notebook runs {sys.executable}, the course is installed in")
    assert line.endswith("open the lessons with: make lab\n") and line.count("\n") == 1
    assert said("import vitcourse") == ""
    assert (
        said(f"import sys, ipykernel; sys.prefix = {str(tmp_path / '.venv')!r}; import vitcourse")
        == ""
    )
