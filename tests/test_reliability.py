"""Runs that are killed, damaged, starved and poisoned: one clear line, and nothing lost."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.runs import RECIPE, few_digits, train
from vitcourse.train import Stopped, checkpoint
from vitcourse.train.loop import classify

ROOT = Path(__file__).resolve().parents[1]


def weights(folder):
    return load_file(folder / "model.safetensors")


def log(folder):
    """The history without the seconds, which differ."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: v for name, v in line.items() if name != "seconds"} for line in lines]


def assert_same_run(one, other):
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), f"{name} differs"
    assert log(one) == log(other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(folder)
    torch.set_num_threads(threads)
    return folder


# Killed -----------------------------------------------------------------------------------------


def test_killed_twenty_times(whole, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "tests.runs", str(tmp_path / "run"), "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    story = json.loads(run.stdout.splitlines()[-1])
    kills = story["kills"]
    assert len(kills) == 20 and all(kill["code"] == -signal.SIGKILL for kill in kills)
    assert sum(bool(kill["kept"]) for kill in kills) >= 15, "too few after the first checkpoint"
    assert sum(kill["cut"] for kill in kills) >= 5, "too few inside a write"
    assert story["end"] == 0
    assert_same_run(whole, tmp_path / "run")


def test_a_seed_that_is_forgotten_is_noticed(whole, tmp_path, monkeypatch):
    # the same comparison fails if a resumed run draws other random numbers
    out = copy_stopped(tmp_path)
    monkeypatch.setattr("vitcourse.train.loop.seed_of", lambda *what: 7)
    train(out, resume=True)
    with pytest.raises(AssertionError, match="differs"):
        assert_same_run(whole, out)


def copy_stopped(tmp_path, steps=30):
    """A run that was asked to stop after some steps."""
    out = tmp_path / "stopped"
    count = 0

    def step(model, batch):
        nonlocal count
        count += 1
        if count == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return classify(model, batch)

    with pytest.raises(Stopped, match=f"stopped at step {steps} of 160: go on with --resume"):
        train(out, step=step)
    return out


def test_stopped_from_the_keyboard(whole, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    out = copy_stopped(tmp_path)  # in the middle of an epoch
    assert signal.getsignal(signal.SIGINT) is before
    train(out, resume=True)
    assert_same_run(whole, out)


def test_a_run_that_is_done_can_be_resumed(whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "run")
    train(out, resume=True)
    assert_same_run(whole, out)


# Damaged ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "flipped", "flipped checksum", "empty", "code"])
def test_a_damaged_checkpoint(whole, tmp_path, damage, capsys):
    out = copy_stopped(tmp_path)
    newest, older = checkpoint.found(out)
    data = newest.read_bytes()
    if damage == "cut":
        newest.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "code":
        newest.write_bytes(pickle.dumps(Hostile()))
    else:
        place = len(data) // 3 if damage == "flipped" else len(data) - 5
        newest.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    tensors, about, lines = checkpoint.read_latest(out)
    assert about["step"] == int(older.stem.split("-")[1]) < 30
    assert len(lines) == 1 and newest.name in lines[0] and "before it is used" in lines[0]
    train(out, resume=True)
    assert_same_run(whole, out)


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('this file was executed')",)


def test_code_with_a_right_checksum(tmp_path):
    import hashlib

    content = pickle.dumps(Hostile())
    data = content + hashlib.sha256(content).digest()
    (tmp_path / "checkpoint-00000001.ckpt").write_bytes(data)
    tensors, about, lines = checkpoint.read_latest(tmp_path)
    assert tensors is None and "damaged" in lines[0]


def test_no_checkpoint_at_all(whole, tmp_path, capsys):
    out = copy_stopped(tmp_path)
    for path in checkpoint.found(out):
        path.unlink()
    train(out, resume=True)
    assert_same_run(whole, out)


# Starved ----------------------------------------------------------------------------------------


def test_a_full_disk(whole, tmp_path):
    """The system refuses to write more than so many bytes: as on a disk that is full."""
    out = copy_stopped(tmp_path)
    kept = checkpoint.found(out)
    size = kept[0].stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(Stopped, match="could not be written .*2 older") as error:
            train(out, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert checkpoint.found(out) == kept and not list(out.glob("*.partial"))
    train(out, resume=True)
    assert_same_run(whole, out)


def test_a_folder_that_cannot_be_made():
    with pytest.raises(OSError, match="/dev/null/run"):
        train("/dev/null/run")


def test_a_folder_that_is_in_use(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another folder, or --resume"):
        train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(FileNotFoundError, match="no recipe.json to resume"):
        train(tmp_path, resume=True)


def test_too_little_memory(tmp_path):
    def step(model, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(Stopped, match="64 images at a time.*--set accumulate=2") as error:
        train(tmp_path / "run", step=step)
    assert "\n" not in str(error.value)


# Poisoned ---------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number(tmp_path):
    count = 0

    def step(model, batch):
        nonlocal count
        count += 1
        return classify(model, batch) * (float("nan") if count > 30 else 1)

    out = tmp_path / "run"
    with pytest.raises(Stopped, match="loss was nan at step 32.*lower learning rate") as error:
        train(out, step=step)
    newest = checkpoint.found(out)[0]
    assert newest.name in str(error.value) and "00000028" in newest.name
    tensors, _, _ = checkpoint.read_latest(out)
    assert all(tensor.isfinite().all() for tensor in tensors.values())


# Several processes ------------------------------------------------------------------------------

SPREAD = """
import sys
from tests.runs import RECIPE, train
from vitcourse.train import Stopped, leave
import torch
torch.set_num_threads(1)
recipe = RECIPE.but(drop_path=0.0, epochs=int(sys.argv[2]))
try:
    train(sys.argv[1], resume=sys.argv[3] == "resume", recipe=recipe)
except Stopped as stopped:
    sys.exit(f"vitcourse: {stopped}")
leave()
"""


def torchrun(folder, epochs, resume="new", processes=2):
    """Two processes train one model, as torchrun starts them."""
    script = folder.parent / "spread.py"
    script.write_text(SPREAD)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", str(script), str(folder), str(epochs), resume]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children(process):
    """The processes that torchrun has started."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_two_processes_are_one_and_survive(tmp_path):
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    recipe = RECIPE.but(drop_path=0.0, epochs=30)
    train(alone, recipe=recipe)
    first = torchrun(spread, 30)
    while len(checkpoint.found(spread)) < 2 and first.poll() is None:
        time.sleep(0.01)
    workers = [
        n for n in children(first) if b"spread.py" in Path(f"/proc/{n}/cmdline").read_bytes()
    ]
    os.kill(workers[-1], signal.SIGKILL)
    said, _ = first.communicate(timeout=120)
    assert first.returncode != 0 and "another process of this job has ended" in said, said
    assert not (spread / "model.safetensors").exists()
    second = torchrun(spread, 30, "resume")
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0, said
    ours, theirs = log(alone), log(spread)
    assert len(ours) == len(theirs) == 30
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name, tensor in weights(alone).items():
        other = weights(spread)[name]
        if name.endswith("qkv.bias"):  # a key's bias changes nothing: its gradient is only rounding
            tensor, other = (t.unflatten(0, (3, -1))[[0, 2]] for t in (tensor, other))
        torch.testing.assert_close(tensor, other, rtol=1e-3, atol=1e-4)


DISTILLED = """
import sys
import torch
from tests.runs import RECIPE, few_digits
from vitcourse.papers.deit import DistilledDeiT, distillation
from vitcourse.train import build_model, fit, leave
torch.set_num_threads(1)
recipe, data = RECIPE.but(drop_path=0.0, epochs=2), few_digits()
teacher = build_model(recipe.but(seed=5, gain=1.0), data)
torch.nn.init.normal_(teacher.head.weight)
model = build_model(recipe, data, DistilledDeiT)
step = distillation(teacher, hard=False, weight=0.5)
fit(model, data, recipe, step, out=sys.argv[1], device="cpu", quiet=True)
leave()
"""


def test_a_step_that_calls_a_method_of_the_model_is_shared(tmp_path):
    """Two processes give the run of one, also where the loss needs more than the logits."""
    (tmp_path / "distilled.py").write_text(DISTILLED)
    one, two = tmp_path / "one", tmp_path / "two"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for folder, start in ((one, []), (two, launch)):
        command = [sys.executable, *start, str(tmp_path / "distilled.py"), str(folder)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    for mine, theirs in zip(log(one), log(two), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_processes_that_do_not_share_a_batch():
    from vitcourse.train.batches import Batches

    with pytest.raises(ValueError, match="64 does not divide among 3 processes"):
        Batches(few_digits(), RECIPE, world=3)
