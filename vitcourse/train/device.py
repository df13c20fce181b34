"""Which device, which precision."""

from contextlib import nullcontext

import torch


def pick_device(name="auto"):
    """The device of that name, or the fastest that is there."""
    if isinstance(name, torch.device):
        return name
    if name in (None, "auto"):
        return fastest()
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used: {reason}") from None
    return device


def fastest():
    """A CUDA GPU, else a Mac's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_precision(name, device):
    """float32, bf16 or fp16: what is asked for, or the fastest that the device computes itself.

    A GPU older than Ampere, such as a T4, has fp16 but no bf16 of its own.
    """
    if name != "auto":
        return name
    if device.type != "cuda":
        return "float32"
    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"


def autocast(precision, device):
    """The context in which a step computes."""
    if precision == "float32":
        return nullcontext()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype)
