"""Build the lessons: notebooks/source/NAME.py (text) -> notebooks/NAME.ipynb (executed).

    python -m vitcourse.lab.notebooks             build what differs from its source; where only
                                                  text does, nothing is executed
    python -m vitcourse.lab.notebooks 00 01       build these
    python -m vitcourse.lab.notebooks --all       build all
    python -m vitcourse.lab.notebooks --check     execute nothing, say what differs: exit code 1
                                                  where anything does

The same source gives the same file, byte for byte, on the same machine.
"""

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
QUIET = {
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "VITCOURSE_PROGRESS": "",
}
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def sources():
    """The text of every lesson."""
    return sorted((NOTEBOOKS / "source").rglob("*.py"))


def target(source):
    """The notebook of a text."""
    return NOTEBOOKS / source.relative_to(NOTEBOOKS / "source").with_suffix(".ipynb")


def read(source):
    """The notebook that a text describes, not executed. A cell's name is its id, for good.

    Where slides/NAME.toml stands beside the text, it has the metadata of its slides.
    """
    import jupytext

    from vitcourse.lab import slides

    notebook = jupytext.reads(Path(source).read_text(), fmt="py:percent")
    notebook.metadata = {"kernelspec": KERNEL}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen = set()
    for cell in notebook.cells:
        name = cell.metadata.pop("name", None)
        if not name:
            digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode())
            name = digest.hexdigest()[:8]
        while name in seen:
            name += "-again"
        seen.add(name)
        cell.id = name
    about = Path(source).parent / "slides" / f"{Path(source).stem}.toml"
    if about.is_file():
        slides.add_metadata(notebook, about)
    return notebook


def differs(source):
    """Whether the notebook is missing, or its cells or its slides are not those of the text."""
    path = target(source)
    if not path.is_file():
        return True
    built = nbformat.read(path, as_version=4)

    def content(notebook):
        cells = [(c.id, c.cell_type, c.source, dict(c.metadata)) for c in notebook.cells]
        return cells, notebook.metadata.get("slides")

    return content(built) != content(read(source))


def keep_outputs(notebook, path):
    """Take the outputs from the notebook that is there, if its code is the same: whether it is."""
    if not path.is_file():
        return False
    built = nbformat.read(path, as_version=4)
    old, new = ([c for c in n.cells if c.cell_type == "code"] for n in (built, notebook))

    def code(cells):
        return [(cell.id, cell.source, cell.metadata.get("tags")) for cell in cells]

    if code(old) != code(new):
        return False
    for cell, stored in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = stored.outputs, stored.execution_count
    notebook.metadata.update(language_info=built.metadata.get("language_info", {}))
    return True


def write(notebook, path):
    """Write a notebook in one step."""
    partial = path.with_suffix(".partial")
    partial.write_text(nbformat.writes(notebook) + "\n")
    os.replace(partial, path)


def build(source):
    """Execute a text from top to bottom in a new kernel, and write the notebook."""
    from nbclient import NotebookClient

    notebook, path = read(source), target(source)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    client.execute(env={**os.environ, **QUIET})
    notebook.metadata.language_info = client.nb.metadata.language_info
    write(notebook, path)


def main(arguments=None):
    """The command line that the head of this file describes."""
    parser = argparse.ArgumentParser(prog="python -m vitcourse.lab.notebooks")
    parser.add_argument("names", nargs="*", help="the beginning of a lesson's name, such as 07")
    parser.add_argument("--all", action="store_true", help="build every lesson")
    parser.add_argument("--check", action="store_true", help="only say what differs")
    args = parser.parse_args(arguments)
    chosen = [s for s in sources() if s.name.startswith(tuple(args.names or [""]))]
    if args.names and not chosen:
        print(f"no lesson begins with {' or '.join(args.names)}", file=sys.stderr)
        return 2
    if args.check or not (args.names or args.all):
        chosen = [source for source in chosen if differs(source)]
    for source in chosen:
        name = target(source).relative_to(ROOT)
        if args.check:
            print(f"{name} differs from its source: run make notebooks")
            continue
        text_only = read(source)
        if not (args.all or args.names) and keep_outputs(text_only, target(source)):
            write(text_only, target(source))
            print(f"{name}: text renewed, its code has not changed")
            continue
        start = time.perf_counter()
        build(source)
        print(f"{name} built in {time.perf_counter() - start:.1f} s", flush=True)
    return 1 if args.check and chosen else 0


if __name__ == "__main__":
    sys.exit(main())
