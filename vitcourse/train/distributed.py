"""Several processes, one model: what torchrun starts, PyTorch's own engine joins."""

import os
import signal
import sys

import torch
import torch.distributed as dist

ENDED = (
    "another process of this job has ended, so this one stops too: start the same command again "
    "with --resume and the run folder, and it goes on from the last checkpoint"
)


def join():
    """Join the other processes if torchrun started this one: (rank, world)."""
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        return 0, 1
    if not dist.is_initialized():
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        dist.init_process_group("nccl" if cuda else "gloo")
        signal.signal(signal.SIGTERM, tell_why)
    return dist.get_rank(), dist.get_world_size()


def tell_why(number, frame):
    """torchrun ends all processes when one has ended: say so in one line."""
    print(f"vitcourse: {ENDED}", file=sys.stderr, flush=True)
    os._exit(143)


def place():
    """Which process this is, of how many: (rank, world)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_first():
    """Whether this process is the one that writes and prints."""
    return int(os.environ.get("RANK", 0)) == 0


def leave():
    """Leave the other processes at the end."""
    if dist.is_initialized():
        dist.destroy_process_group()


def total(tensor):
    """The sum of a tensor over all processes."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def wait():
    """Wait for the others."""
    if dist.is_initialized():
        dist.barrier()
