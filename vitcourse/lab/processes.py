"""Several processes for a notebook: `Team(2).run(function)`, on one computer, with gloo.

A process that is started anew knows nothing of a notebook's cells, so it is sent the text of a
function and calls it. It is in a group with the others, as if torchrun had started them.
"""

import inspect
import io
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import redirect_stdout, suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist


class Team:
    """`count` processes that wait for work. They end with the notebook, or with `stop()`."""

    def __init__(self, count):
        self.count, self.members = count, []

    def run(self, function, *arguments, seconds=120):
        """Call `function(rank, world, *arguments)` in each process: the results, in a list.

        The function may use `torch` and `dist`, which is torch.distributed; all else it imports
        itself. Arguments and results are tensors, numbers, words, or lists and dicts of them. What
        the processes print is shown after the end, one after the other.
        """
        task = {"source": source_of(function), "name": function.__name__, "arguments": arguments}
        if not self.members or any(member.poll() is not None for member in self.members):
            self.stop()
            self.members = [start(rank, self.count) for rank in range(self.count)]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            torch.save(task, Path(folder, "task.pt"))
            try:
                answers = self.ask(Path(folder), seconds)
            except BaseException:  # the others may wait for one that is gone
                self.stop()
                raise
        for rank, answer in enumerate(answers):
            for line in answer["said"].splitlines():
                print(f"process {rank}: {line}")
        return [answer["result"] for answer in answers]

    def ask(self, folder, seconds):
        """Have all members do the task in a folder, and wait for their answers."""
        for member in self.members:
            with suppress(OSError):  # one that is gone is found below
                member.stdin.write(f"{folder}\n")
                member.stdin.flush()
        answers, end = {}, time.monotonic() + seconds
        while len(answers) < self.count:
            for rank, member in enumerate(self.members):
                path, gone = folder / f"{rank}.pt", member.poll() is not None
                if rank not in answers and path.is_file():
                    answers[rank] = torch.load(path, weights_only=True)
                    if answers[rank]["error"]:
                        raise RuntimeError(f"process {rank} stopped: {answers[rank]['error']}")
                elif rank not in answers and gone:
                    raise RuntimeError(f"process {rank} ended with code {member.poll()}")
            if time.monotonic() > end:
                raise TimeoutError(
                    f"after {seconds} s the processes have not finished: does each of them take "
                    f"part in every exchange?"
                )
            time.sleep(0.005)
        return [answers[rank] for rank in range(self.count)]

    def stop(self):
        """End all processes."""
        for member in self.members:
            member.kill()
            member.wait()
            with suppress(OSError):
                member.stdin.close()
        self.members = []


def source_of(function):
    """The text of a function."""
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise ValueError(
            f"{function!r} has no text to send: define it with def, in a cell or a file"
        ) from None


def start(rank, world):
    """Start a process that serves until its input ends."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with suppress(OSError, AttributeError):  # the computer talks to itself, whatever its name
        names = [name for _, name in socket.if_nameindex()]
        own = [name for name in ("lo", "lo0") if name in names]
        environment |= {"GLOO_SOCKET_IFNAME": own[0]} if own else {}
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(rank), str(world)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def serve(rank, world):
    """What a member does: for each folder that is named, the task that lies there."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        folder = Path(line.rstrip("\n"))
        said, answer = io.StringIO(), {"result": None, "error": ""}
        try:
            with redirect_stdout(said):
                answer["result"] = work(folder, rank, world)
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        answer["said"] = said.getvalue()
        partial = folder / f"{rank}.partial"
        torch.save(answer, partial)
        os.replace(partial, folder / f"{rank}.pt")
        if dist.is_initialized():
            dist.destroy_process_group()


def work(folder, rank, world):
    """Join the others, read the function and call it."""
    store = dist.FileStore(str(folder / "meet"), world)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    task = torch.load(folder / "task.pt", weights_only=True)
    names = {"torch": torch, "dist": dist}
    exec(task["source"], names)
    result = names[task["name"]](rank, world, *task["arguments"])
    dist.barrier()
    return result


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
