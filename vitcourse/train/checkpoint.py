"""Checkpoints that are whole or not there, and that notice when a byte has changed.

A checkpoint is a .safetensors file with the SHA-256 of its bytes behind it. Nothing in it can
be executed.
"""

import hashlib
import json
import re
from pathlib import Path

import safetensors
import safetensors.torch

from vitcourse.files import write_whole

NAME = "checkpoint-{:08d}.ckpt"


def write(folder, step, tensors, about):
    """Save `tensors` (name -> tensor) and `about` (plain values); keep the last two checkpoints.

    Everything reaches the disk before the file gets its name, so a power cut leaves the old ones.
    """
    folder = Path(folder)
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    content = safetensors.torch.save(tensors, metadata={"about": json.dumps(about)})
    path = folder / NAME.format(step)
    write_whole(path, content + hashlib.sha256(content).digest())
    for old in found(folder)[2:]:
        old.unlink()
    return path


def read_latest(folder):
    """The newest checkpoint that is whole: (tensors, about, a line for each that is not).

    A folder without one gives (None, None, lines).
    """
    lines = []
    for path in found(folder):
        data = path.read_bytes()
        content, digest = data[:-32], data[-32:]
        try:
            if hashlib.sha256(content).digest() != digest:
                raise ValueError("its checksum is wrong")
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            about = json.loads(header["__metadata__"]["about"])
            return safetensors.torch.load(content), about, lines
        except (ValueError, KeyError, safetensors.SafetensorError) as error:
            lines.append(f"{path} is damaged ({error}): the checkpoint before it is used")
    return None, None, lines


def found(folder):
    """The checkpoints of a run, newest first."""
    names = Path(folder).glob("checkpoint-*.ckpt")
    return sorted((p for p in names if re.fullmatch(r"checkpoint-\d+\.ckpt", p.name)), reverse=True)
