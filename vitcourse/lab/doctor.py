"""Examine this computer: can it run the course, and if not, which command mends it?"""

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST_PYTHON, OLDEST_TORCH = (3, 11), (2, 11)
FREE_GIGABYTES = 1  # data sets, checkpoints, recorded runs


@dataclass
class Finding:
    """One thing that was examined. `mend` is the command or step that puts it right."""

    name: str
    text: str
    mend: str = ""

    @property
    def ok(self):
        return not self.mend

    def __str__(self):
        lines = [f"{'✓' if self.ok else '✗'} {self.name:9} {self.text}"]
        return "\n".join(lines + [f"  mend it:  {self.mend}"] * (not self.ok))


def examine():
    """Everything that a learner's computer needs: a list of findings."""
    return [python(), torch(), device(), kernel(), disk(), data()]


def main():
    """Print all findings. The exit code is 0 if all is well, 1 if something needs mending."""
    findings = examine()
    for finding in findings:
        print(finding)
    return 0 if all(finding.ok for finding in findings) else 1


def check():
    """For a lesson: one line if all is well, or else what to mend."""
    bad = [finding for finding in examine() if not finding.ok]
    print("\n".join(map(str, bad)) or "ok: this computer can run the course")


def warn():
    """For a lesson that imports the course: a line if another Python runs it."""
    finding = this_kernel()
    if not finding.ok:
        print(f"✗ {finding.text}; {finding.mend}")


# What is examined -------------------------------------------------------------------------------


def python():
    """Python is new enough."""
    text = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("Python", text, "make PYTHON=python3.12 lab")
    return Finding("Python", text)


def pip_install(*what):
    """The command that installs packages anew, in this environment."""
    return f"{sys.executable} -m pip install --force-reinstall {' '.join(what)}"


def torch():
    """PyTorch and torchvision load, and are new enough."""
    again = pip_install("torch", "torchvision")
    try:
        versions = [importlib.import_module(name).__version__ for name in ("torch", "torchvision")]
    except Exception as error:
        return Finding("PyTorch", f"does not load: {str(error).splitlines()[0]}", again)
    text = f"{versions[0]}, torchvision {versions[1]}"
    if tuple(map(int, re.findall(r"\d+", versions[0])[:2])) < OLDEST_TORCH:
        return Finding("PyTorch", f"{text} is too old", again)
    return Finding("PyTorch", text)


def nvidia():
    """What the NVIDIA driver says: (name of the GPU, newest CUDA release it runs), or None."""
    try:
        said = [
            subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
            for command in (["nvidia-smi"], ["nvidia-smi", "-L"])
        ]
    except (OSError, subprocess.TimeoutExpired):
        return None
    cuda, name = re.search(r"CUDA Version: *(\d+)", said[0]), re.search(r"GPU 0: (.*?) \(", said[1])
    return (name[1], int(cuda[1])) if cuda and name else None


def device():
    """The device that training will use, proved by using it."""
    try:
        import torch
    except Exception:
        return Finding("device", "unknown, PyTorch does not load", "mend PyTorch first")
    gpu, built = nvidia(), torch.version.cuda
    if gpu and os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Finding("device", f"CPU ({gpu[0]} is hidden by CUDA_VISIBLE_DEVICES)")
    if torch.cuda.is_available():
        try:
            torch.ones(2, 2, device="cuda").matmul(torch.ones(2, 2, device="cuda")).sum().item()
        except RuntimeError as error:
            text = f"{torch.cuda.get_device_name()} fails: {str(error).splitlines()[0]}"
            return Finding("device", text, pip_install("torch", "torchvision"))
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding("device", f"{torch.cuda.get_device_name()}, {memory:.0f} GiB, CUDA {built}")
    if gpu and not built:
        text = f"{gpu[0]}, but this PyTorch is built for CPUs only"
        return Finding("device", text, pip_install("torch", "torchvision"))
    if gpu and gpu[1] < int(built.split(".")[0]):
        text = f"{gpu[0]}: its driver is for CUDA {gpu[1]}, this PyTorch for CUDA {built}"
        other = f"choose a build for CUDA {gpu[1]} at https://pytorch.org/get-started/locally"
        return Finding("device", text, f"update the NVIDIA driver, or {other}")
    if gpu:
        text = f"{gpu[0]}, but PyTorch cannot use it"
        return Finding(
            "device", text, "restart the computer; if that does not help, update its driver"
        )
    if torch.backends.mps.is_available():
        return Finding("device", "the GPU of this Mac (mps)")
    return Finding("device", f"CPU, {torch.get_num_threads()} threads (lessons are made for it)")


def kernel():
    """JupyterLab's kernel "python3" is the Python of this environment."""
    if os.environ.get("VITCOURSE_HOSTED"):
        return Finding("kernel", "that of the hosted notebook")
    if importlib.util.find_spec("jupyterlab") is None:
        return Finding("kernel", "JupyterLab is not installed", "make lab")
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("python3")
    program = spec.argv[0]
    if program in ("python", "python3") or Path(program).exists() and same(program, sys.executable):
        return Finding("kernel", "python3, of this environment")
    text = f"python3 is {program} ({spec.resource_dir})"
    return Finding("kernel", text, "open the lessons with: make lab")


def same(one, other):
    """Whether two programs belong to one environment; their links are not followed."""
    return Path(one).absolute().parent == Path(other).absolute().parent


def this_kernel():
    """The Python of this notebook is the one that `make lab` has set up, if it has."""
    home = ROOT / ".venv"
    if not home.is_dir() or Path(sys.prefix).resolve() == home.resolve() or in_conda():
        return Finding("kernel", sys.executable)
    text = f"this notebook runs {sys.executable}, the course is installed in {home}"
    return Finding("kernel", text, "open the lessons with: make lab")


def in_conda():
    """Whether this Python belongs to conda."""
    return (Path(sys.prefix) / "conda-meta").is_dir()


def disk():
    """There is room for data and runs."""
    free = shutil.disk_usage(ROOT).free / 1e9
    text = f"{free:.1f} GB free in {ROOT}"
    if free < FREE_GIGABYTES:
        return Finding("disk", text, f"free {FREE_GIGABYTES} GB there")
    return Finding("disk", text)


def data():
    """The data inside scikit-learn is there; data/ may hold more."""
    try:
        from sklearn.datasets import load_digits

        load_digits()
    except Exception as error:
        text = f"scikit-learn's digits do not load: {str(error).splitlines()[0]}"
        return Finding("data", text, pip_install("scikit-learn"))
    folder = ROOT / "data"
    more = sorted(path.name for path in folder.glob("*/")) if folder.is_dir() else []
    return Finding("data", ", ".join(["digits and photographs (in scikit-learn)", *more]))
