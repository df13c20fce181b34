"""A notebook as a learner runs it who solved everything, but whose models do not learn."""

import os

from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from tests.lessons import exercises, tags
from vitcourse.lab import notebooks

SOLVED = "from vitcourse.check import EXERCISES\n\n{answer} = EXERCISES[{name!r}].reference"
UNTRAINED = """import torch
from vitcourse import train

for optimizer in torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW:
    optimizer.step = lambda self, closure=None: None


def without_gradients(fit, backward):  # nobody takes them, so they need not be computed
    def faster(*given, **options):
        torch.Tensor.backward = lambda *given, **options: None
        try:
            return fit(*given, **options)
        finally:
            torch.Tensor.backward = backward

    return faster


train.fit = without_gradients(train.fit, torch.Tensor.backward)"""


def examine(source):
    """Every check says right; and every bound on what training gives fails where none took place.

    Each stub is replaced by the solution, and the optimizers' steps are made void. No other cell
    may notice.
    """
    notebook = notebooks.read(source)
    for stub, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if "check" in tags(cell):
            ((name, answer),) = exercises(new_notebook(cells=[cell])).items()
            stub.source = SOLVED.format(name=name, answer=answer)
    notebook.cells.insert(0, new_code_cell(UNTRAINED))
    folder = {"metadata": {"path": str(notebooks.target(source).parent)}}
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", allow_errors=True, resources=folder
    )
    offline = {"PYTHONPATH": str(notebooks.NOTEBOOKS / "offline")}
    client.execute(env={**os.environ, **notebooks.QUIET, **offline})
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        if "check" in tags(cell):
            assert said(cell).startswith("✓"), f"{cell.source}: {said(cell)}"
    failed = {cell.id: error(cell) for cell in code if error(cell)}
    bounds = dict.fromkeys(
        (
            after.id
            for cell, after in zip(code, code[1:], strict=False)
            if "nbval-ignore-output" in tags(cell)
        ),
        "AssertionError",
    )
    assert failed == bounds, f"failed: {failed}, and should have: {bounds}"


def said(cell):
    """What a cell printed or showed, as text."""
    parts = [
        output.get("text") or output.get("data", {}).get("text/plain") for output in cell.outputs
    ]
    return "".join(part or "" for part in parts)


def error(cell):
    """The name of the error that a cell raised, or None."""
    return next((o.ename for o in cell.outputs if o.output_type == "error"), None)
