"""Make a hosted notebook ready, in its first cell: `%run course/vitcourse/lab/hosted.py`.

There PyTorch is installed already, and the kernel is running. So what is there stays as it is, only
what is missing is added, and the course is imported from its clone, wherever that lies. The cells
are in docs/hosted.md.
"""

import importlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OF_THE_HOST = ("jupyterlab", "ipykernel", "nbval", "pytest")  # it has its own, or needs none


def main():
    """Install what is missing and put the clone on the path: prints one line."""
    oldest = requirements()
    there = {name: version for name in oldest if (version := installed(name))}
    old = [name for name in there if numbers(there[name]) < numbers(oldest[name])]
    if old:
        versions = ", ".join(f"{name} {there[name]} (needed: {oldest[name]})" for name in old)
        return print(
            f"too old for the course: {versions}: run %pip install -U {' '.join(old)}, "
            "restart the session, and run this cell again"
        )
    missing = [f"{name}>={oldest[name]}" for name in oldest if name not in there]
    if missing and (reason := install(missing, there)):
        return print(f"{' '.join(missing)} cannot be installed: {reason}")
    use_clone()
    from vitcourse.train.device import pick_device, pick_precision

    device = pick_device()
    precision = pick_precision("auto", device)
    print(f"ok: the course is ready; training takes {device.type}, {precision}")


def requirements():
    """What the lessons need: the oldest version of each package that will do, by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pairs = (re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in project["dependencies"])
    return {name: oldest for name, oldest in pairs if name not in OF_THE_HOST}


def installed(name):
    """The version of a package that is installed, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def numbers(version):
    """A version as numbers that can be compared: "2.11.0+cu130" -> [2, 11, 0]."""
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]


def install(missing, there):
    """Install with pip what is missing, and leave what is `there`: why it failed, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text("".join(f"{name}=={version}\n" for name, version in there.items()))
        command = [sys.executable, "-m", "pip", "install", "-q", "-c", str(pins), *missing]
        run = subprocess.run(command, capture_output=True, text=True)
    importlib.invalidate_caches()
    return (run.stderr.strip() or "pip gave no reason").splitlines()[-1] if run.returncode else ""


def use_clone():
    """Import the course from here, in this kernel and in the processes that it starts."""
    loaded = sys.modules.get("vitcourse")
    if loaded and not getattr(loaded, "__file__", None):
        del sys.modules["vitcourse"]  # a folder of that name, imported before
    sys.path.insert(0, str(ROOT))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "VITCOURSE_HOSTED": "1"}


if __name__ == "__main__":
    main()
