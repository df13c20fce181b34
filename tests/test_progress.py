"""What is kept about a learner: counted right, and never lost, whatever happens and whenever."""

import importlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from tests.test_workspace import killed

progress = importlib.import_module("vitcourse.check.store")  # check.progress is a function


@dataclass
class Exercise:
    name: str
    lesson: str
    minutes: int = 10
    difficulty: int = 1
    version: str = "v1"


EXERCISES = [
    Exercise("patchify", "01"),
    Exercise("count", "01"),
    Exercise("attention", "04", 25, 3),
]


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("VITCOURSE_PROGRESS", str(tmp_path / "folder" / "progress.json"))
    monkeypatch.setattr(progress, "said", set())
    monkeypatch.setattr(progress, "memory", {})
    return tmp_path / "folder" / "progress.json"


# What is counted --------------------------------------------------------------------------------


def test_attempts_hints_and_the_best_status(monkeypatch):
    assert progress.load() == {} and progress.hints_used("patchify") == 0
    progress.record("patchify", "not attempted", hints=1)
    first = progress.load()["patchify"]
    assert (first["attempts"], first["best"], first["hints"]) == (0, "not attempted", 1)
    for status, hints in [("wrong", 0), ("not attempted", 2), ("right", 0), ("wrong", 1)]:
        progress.record("patchify", status, hints, version="v1")
    entry = progress.load()["patchify"]
    assert (entry["attempts"], entry["best"], entry["hints"]) == (3, "right", 2)
    assert progress.hints_used("patchify") == 2
    assert entry["version"] == "v1" and entry["first"] <= entry["last"]
    assert entry["first"].endswith("+00:00")


def test_the_first_and_the_last_time(monkeypatch):
    progress.record("patchify", "wrong")
    kept = progress.where()
    kept.write_text(kept.read_text().replace(progress.load()["patchify"]["first"][:4], "2001"))
    progress.record("patchify", "wrong")
    entry = progress.load()["patchify"]
    assert entry["first"].startswith("2001") and entry["last"] > entry["first"]


def test_what_changed_after_it_was_passed_is_stale():
    progress.record("patchify", "right", version="v1")
    progress.record("count", "wrong", version="v1")
    assert list(progress.state(EXERCISES).values()) == ["right", "wrong", "not attempted"]
    changed = [Exercise(e.name, e.lesson, version="v2") for e in EXERCISES]
    assert list(progress.state(changed).values()) == ["stale", "wrong", "not attempted"]
    progress.record("patchify", "wrong", version="v2")  # a new try does not take the pass away
    assert progress.state(changed)["patchify"] == "stale"
    progress.record("patchify", "right", version="v2")
    assert progress.state(changed)["patchify"] == "right"


def test_the_table():
    for name, status, hints in [("patchify", "wrong", 2), ("patchify", "right", 0)]:
        progress.record(name, status, hints, version="v0")
    progress.record("count", "wrong", version="v1")
    assert progress.summary(EXERCISES).split("\n") == [
        "lesson    passed  attempts  hints",
        "01        1 of 2         3      2",
        "04        0 of 1         0      0",
        "all       1 of 3         3      2",
        "next: count in lesson 01 (10 minutes, difficulty 1)",
        "changed since you passed it, so check it again: patchify (lesson 01)",
    ]
    for exercise in EXERCISES:
        progress.record(exercise.name, "right", version="v1")
    assert progress.summary(EXERCISES).endswith("next: nothing, you have passed every exercise")
    assert "all       0 of 0" in progress.summary([])


def test_a_status_that_there_is_not():
    with pytest.raises(ValueError, match="status is 'passed'; it is one of 'not attempted', 'wro"):
        progress.record("patchify", "passed")


# Where it is kept -------------------------------------------------------------------------------


def test_the_place(tmp_path, monkeypatch, file):
    assert progress.where() == file
    monkeypatch.setattr(progress, "ROOT", tmp_path)
    monkeypatch.delenv("VITCOURSE_PROGRESS")
    assert progress.where() is None
    (tmp_path / "work").mkdir()
    assert progress.where() == tmp_path / "work" / "progress.json"
    monkeypatch.setenv("VITCOURSE_PROGRESS", "")
    assert progress.where() is None


def test_without_a_place_the_kernel_remembers(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VITCOURSE_PROGRESS", "")
    progress.record("count", "not attempted", hints=1)
    progress.record("count", "right", version="v1")
    assert progress.hints_used("count") == 1 and progress.state(EXERCISES)["count"] == "right"
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_a_link_stays_a_link(tmp_path, file):
    file.parent.mkdir()
    file.symlink_to(tmp_path / "cloud.json")
    progress.record("count", "wrong")
    assert file.is_symlink() and "count" in (tmp_path / "cloud.json").read_text()


# Damage, full disks, folders that cannot be written ---------------------------------------------

ENTRY = {"attempts": 1, "first": "", "last": "", "best": "wrong", "hints": 0, "version": ""}
DAMAGE = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b'{"exercises": 1}',
    b'{"exercises": {"count": {}}}',
    json.dumps({"exercises": {"count": ENTRY | {"attempts": "2"}}}).encode(),
    json.dumps({"exercises": {"count": ENTRY | {"best": "great"}}}).encode(),
    b"[" * 100_000,
]


@pytest.mark.parametrize("first", [progress.load, lambda: progress.record("count", "wrong")])
def test_a_damaged_file_is_moved_aside(file, capsys, first):
    file.parent.mkdir()
    for number, damage in enumerate(DAMAGE, start=1):
        file.write_bytes(damage)
        first()
        aside = file.with_name(f"progress.damaged-{number}.json")
        assert aside.read_bytes() == damage
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("the file of your progress was damaged: it is now progress.damaged-")
        progress.record("count", "right")
        assert progress.load()["count"]["best"] == "right"


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("VITCOURSE_PROGRESS", str(tmp_path / "file" / "progress.json"))
    progress.record("count", "wrong")
    progress.record("count", "right", version="v1")
    assert progress.state(EXERCISES)["count"] == "right"  # in this kernel, at least
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("your progress cannot be read: ")
    assert lines[1].startswith("your progress is not kept: ") and lines[1].endswith("without it")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_may_not_be_written(file, capsys):
    progress.record("count", "wrong")
    file.parent.chmod(0o500)
    progress.record("count", "right")
    file.parent.chmod(0o700)
    assert "permission denied" in capsys.readouterr().out
    assert progress.load()["count"]["best"] == "right"


def test_a_full_disk(file, capsys):
    progress.record("count", "right")
    before = file.read_bytes()
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        progress.record("patchify", "right")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert file.read_bytes() == before and not list(file.parent.glob(".*partial"))
    (line,) = capsys.readouterr().out.splitlines()
    assert "file too large" in line
    progress.record("patchify", "right")
    assert set(progress.load()) == {"count", "patchify"}


# Several kernels --------------------------------------------------------------------------------

WRITER = """
import importlib, os, sys
import vitcourse
sys.modules["vitcourse.check"] = type(sys)("vitcourse.check")  # without PyTorch: it starts at once
sys.modules["vitcourse.check"].__path__ = [os.path.join(vitcourse.__path__[0], "check")]
progress = importlib.import_module("vitcourse.check.store")
if "fallback" in sys.argv:
    progress.fcntl = None
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    progress.record(sys.argv[1] if number % 4 else "both", "wrong", hints=number)
"""


@pytest.mark.parametrize("lock", ["fcntl", "fallback"])
def test_two_processes_lose_nothing(file, lock):
    command = [sys.executable, "-c", WRITER]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    writers = [subprocess.Popen([*command, name, lock], **pipes) for name in ("one", "two")]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    said = [(w.stdin.write("\n"), w.stdin.flush()) and w for w in writers]
    assert [writer.communicate()[0] for writer in said] == ["", ""]
    attempts = {name: entry["attempts"] for name, entry in progress.load().items()}
    assert attempts == {"one": 150, "two": 150, "both": 100}
    assert progress.hints_used("both") == 196 and progress.hints_used("one") == 199


def test_a_lock_that_is_never_let_go(file, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    file.parent.mkdir()
    with progress.locked(file):
        progress.record("count", "right")
    assert "another program does not let go of it" in capsys.readouterr().out
    assert not file.exists()


def test_a_lock_that_a_killed_process_left(file, monkeypatch):
    monkeypatch.setattr(progress, "fcntl", None)
    file.parent.mkdir()
    lock = file.with_name(".progress.json.created")
    lock.touch()
    os.utime(lock, (time.time() - 6,) * 2)
    progress.record("count", "right")
    assert progress.load()["count"]["best"] == "right" and not lock.exists()


# Killed -----------------------------------------------------------------------------------------


def kill(file, seconds):
    """Record without end in a process that is killed after a while: how many records it told of."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        while True:
            progress.record("count", "wrong")
            os.write(tell, b".")
    os.close(tell)
    os.read(told, 1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with os.fdopen(told, "rb") as pipe:
        return 1 + len(pipe.read())


def torture(file, kills=20):
    """Kill again and again: what was told is kept, and the file is whole each time."""
    rng, before = random.Random(0), 0
    for _ in range(kills):
        told = kill(file, rng.uniform(0, 0.02))
        content = json.loads(file.read_bytes())
        attempts = content["exercises"]["count"]["attempts"]
        assert before + told <= attempts <= before + told + 1
        before = attempts
    assert not list(file.parent.glob("*damaged*"))


def test_killed_from_outside_at_any_time(file):
    torture(file)


def kill_before_each_operation(file):
    """Kill the process before each file operation of one record: the old entries or the new."""
    for moment in range(1, 100):
        progress.record("count", "wrong")
        before = progress.load()["count"]["attempts"]
        was_killed = killed(moment, lambda: progress.record("count", "wrong"), file.parent)
        entries = json.loads(file.read_bytes())["exercises"]
        assert entries["count"]["attempts"] in (before, before + 1)
        if not was_killed:
            assert entries["count"]["attempts"] == before + 1
            return moment - 1


def test_killed_before_each_file_operation(file):
    assert kill_before_each_operation(file) == 5  # folder, open, to the disk, rename, folder to it


# A test that cannot fail proves nothing ---------------------------------------------------------


def test_planted_errors_are_noticed(file, monkeypatch, capsys):
    def in_place(path, entries):
        with open(path, "w") as out:
            out.write('{"format": 1, "exercises": ')
            out.flush()
            os.fsync(out.fileno())
            out.write(json.dumps(entries) + "}")

    with monkeypatch.context() as patch, pytest.raises((AssertionError, ValueError)):
        patch.setattr(progress, "write", in_place)
        kill_before_each_operation(file)
    file.unlink(missing_ok=True)

    def forgetful(path):  # a damaged file is overwritten
        try:
            return progress.parse(path.read_bytes())
        except (OSError, ValueError):
            return {}

    with monkeypatch.context() as patch, pytest.raises((AssertionError, FileNotFoundError)):
        patch.setattr(progress, "read", forgetful)
        file.write_bytes(b"{")
        progress.record("count", "wrong")
        assert file.with_name("progress.damaged-1.json").read_bytes() == b"{"
    file.unlink(missing_ok=True)

    unlocked = WRITER.replace(
        'print("ready"', 'progress.take_lock = lambda lock: lambda: None\nprint("ready"'
    )
    monkeypatch.setattr(sys.modules[__name__], "WRITER", unlocked)
    with pytest.raises(AssertionError):
        test_two_processes_lose_nothing(file, "fcntl")
