"""What a lesson costs the computer it runs on (Linux).

    python -m benchmarks.memory         these: 00, 06, 12, 19
    python -m benchmarks.memory 01 02   others

Runs lessons from top to bottom, each in a kernel of its own, with one thread. Written down are its
processor time and, from /proc, the most memory that its kernel held: all, and the part that is not
read from files. What is read from files, most of it PyTorch's libraries, kernels share. Then the
same for a JupyterLab that has started and waits.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nbclient import NotebookClient

from benchmarks.throughput import RESULTS
from vitcourse.lab import notebooks
from vitcourse.train.environment import environment


def measure(source):
    """One lesson: seconds of processor time, and gigabytes of its kernel."""
    folder = {"metadata": {"path": str(notebooks.NOTEBOOKS)}}
    notebook = notebooks.read(source)
    client = NotebookClient(notebook, timeout=900, kernel_name="python3", resources=folder)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with client.setup_kernel(env={**os.environ, **notebooks.QUIET}):
        for place, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                client.execute_cell(cell, place)
        memory = gigabytes(client.km.provisioner.pid)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_seconds": round(seconds, 1)} | memory


def gigabytes(pid):
    """The most memory that a process has held: all, and what is not read from files."""
    status = Path(f"/proc/{pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    peak, files = (int(lines[key].split()[0]) * 1024 / 1e9 for key in ("VmHWM", "RssFile"))
    return {"peak_gb": round(peak, 2), "own_gb": round(peak - files, 2)}


def measure_server():
    """A JupyterLab that nobody has opened yet."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=8955"]
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        while "is running at" not in (line := server.stderr.readline()):
            if not line:
                raise OSError("JupyterLab does not start: run jupyter lab to see why")
        time.sleep(5)
        found = gigabytes(server.pid)
        server.kill()
        server.wait()
    return found


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("lessons", nargs="*", default=["00", "06", "12", "19"])
    parser.add_argument("--out", default=RESULTS / "memory.json")
    args = parser.parse_args()
    lessons = {}
    for number in args.lessons:
        (source,) = notebooks.NOTEBOOKS.glob(f"source/{number}-*.py")
        lessons[source.stem] = measure(source)
        print(source.stem, lessons[source.stem], flush=True)
    record = {"command": "python -m benchmarks.memory", "environment": environment()}
    record |= {"server": measure_server(), "lessons": lessons}
    Path(args.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
