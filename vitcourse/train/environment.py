"""Where and with what a figure was measured."""

import datetime
import hashlib
import platform
from pathlib import Path

import torch
import torchvision

PACKAGE = Path(__file__).resolve().parents[1]


def environment():
    """The computer, the versions, and a hash of the code that decides a training run."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "source_sha256": source_hash(),
    }


def processor():
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def source_hash():
    """One hash of the model, the data sets and the training code."""
    digest = hashlib.sha256()
    names = ["config.py", "vit.py", "parts.py"]
    files = [PACKAGE / n for n in names] + sorted((PACKAGE / "data").glob("*.py"))
    for path in files + sorted((PACKAGE / "train").glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
