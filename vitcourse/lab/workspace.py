"""Where a learner works: copies of the lessons in work/, opened in JupyterLab."""

import json
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRST = "00-start-here.ipynb"


def copy_lessons(root=ROOT):
    """Put each lesson that is not in work/ yet there, and leave what is there alone.

    The copies are the learner's: git does not see them, and an update of the course cannot touch
    them. Returns the names that are new.
    """
    source, work = root / "notebooks", root / "work"
    if not source.is_dir():
        raise FileNotFoundError(f"no lessons in {source}: run this from a clone of the course")
    new = []
    for lesson in sorted(source.rglob("*.ipynb")):
        name = lesson.relative_to(source)
        if ".ipynb_checkpoints" in name.parts or (work / name).exists():
            continue
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        partial = work / f"{name}.partial"
        shutil.copyfile(lesson, partial)
        os.replace(partial, work / name)
        new.append(str(name))
    return new


def quiet_settings(folder):
    """Spare the learner the question whether to fetch news; a setting made by hand stays."""
    file = folder / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"fetchNews": "false"}))


def lab_command(root=ROOT, options=()):
    """The command line that opens JupyterLab on the first lesson, for this computer only."""
    command = [sys.executable, "-m", "jupyterlab"]
    command += [f"--ServerApp.root_dir={root / 'work'}", "--ServerApp.ip=127.0.0.1"]
    command += [
        f"--LabApp.default_url=/lab/tree/{FIRST}",
        "--KernelSpecManager.allowed_kernelspecs=python3",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        print("you are root, so JupyterLab is started with --allow-root", flush=True)
        command.append("--allow-root")
    return command + list(options)


def lab_environment(root=ROOT):
    """Its environment variables: settings stay in the checkout, the kernel is this Python."""
    state = root / ".jupyter"
    return {
        **os.environ,
        "JUPYTERLAB_SETTINGS_DIR": str(state / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }


def open_lab(options=()):
    """Open JupyterLab and become it, so that ctrl-C reaches it."""
    for name in copy_lessons():
        print(f"new in work/: {name}")
    quiet_settings(ROOT / ".jupyter" / "settings")
    os.execve(sys.executable, lab_command(options=options), lab_environment())
