"""Updates of a learner's copies: nothing of hers is lost, whatever happens and whenever."""

import json
import os
import random
import signal
import sys
import time
from functools import partial

import nbformat
import pytest
from nbformat.sign import NotebookNotary

from vitcourse.lab import workspace

FIRST = [
    ("title", "markdown", "# Patches"),
    ("cut", "code", "cut = 1"),
    ("end", "code", "print(1)"),
]
SECOND = [("title", "markdown", "# Patches"), ("cut", "code", "cut = 2"), ("quiz", "code", "...")]
THIRD = [("title", "markdown", "# The patches"), *SECOND[1:]]
MINE = [FIRST[0], ("cut", "code", "cut = my_answer"), FIRST[2]]
SUMMARY = "1 cell changed (cut), 1 cell new (quiz), 1 cell gone (end)"


def notebook(cells, output=None, **metadata):
    """The bytes of a notebook; with an output, as if it had been run."""
    made = []
    for name, kind, source in cells:
        cell = {"id": name, "cell_type": kind, "metadata": dict(metadata), "source": [source]}
        if kind == "code":
            text = [{"output_type": "stream", "name": "stdout", "text": [output]}]
            cell |= {"execution_count": 1, "outputs": text if output else []}
        made.append(cell)
    return json.dumps(
        {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    ).encode()


@pytest.fixture
def course(tmp_path):
    publish(tmp_path, {"01-patches": FIRST, "02-token": FIRST, "papers/deit": FIRST})
    workspace.copy_lessons(tmp_path)
    return tmp_path


def publish(root, lessons):
    for name, cells in lessons.items():
        path = root / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(notebook(cells))


def mine(root, name="01-patches"):
    return root / "work" / f"{name}.ipynb"


def visible(root):
    """What is in work/, but for what is kept there about it: name -> bytes."""
    work = root / "work"
    paths = [path for path in work.rglob("*") if path.is_file()]
    names = {path.relative_to(work).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if name[0] != "."}


# What is replaced, and what is not --------------------------------------------------------------


def test_nothing_to_do(course):
    before = visible(course)
    assert workspace.update(course) == ["the lessons in work/ are up to date"]
    assert visible(course) == before


def test_a_copy_that_nobody_touched_is_replaced(course):
    publish(course, {"papers/deit": SECOND, "03-new": FIRST})
    assert workspace.update(course) == [
        "03-new.ipynb is new",
        f"papers/deit.ipynb replaced: {SUMMARY}",
    ]
    assert mine(course, "papers/deit").read_bytes() == notebook(SECOND)
    assert workspace.update(course) == ["the lessons in work/ are up to date"]
    publish(course, {"papers/deit": THIRD})
    (line,) = workspace.update(course)
    assert line == "papers/deit.ipynb replaced: 1 cell changed (title)"


def test_running_a_notebook_is_not_touching_it(course):
    ran = notebook(FIRST, output="2", collapsed=True)
    mine(course).write_bytes(ran)
    assert workspace.update(course) == ["the lessons in work/ are up to date"]
    assert mine(course).read_bytes() == ran
    publish(course, {"01-patches": SECOND})
    (line,) = workspace.update(course)
    assert line.startswith("01-patches.ipynb replaced: 1 cell changed (cut)")
    assert line.endswith("; what your run of it put out went with it")
    assert mine(course).read_bytes() == notebook(SECOND)


def test_new_outputs_reach_only_a_copy_that_was_never_run(course):
    mine(course, "02-token").write_bytes(notebook(FIRST, output="my run"))
    for name in ("01-patches", "02-token"):
        (course / "notebooks" / f"{name}.ipynb").write_bytes(notebook(FIRST, output="official"))
    (line,) = workspace.update(course)
    assert line == "01-patches.ipynb replaced: only what its cells put out"
    assert b"my run" in mine(course, "02-token").read_bytes()


@pytest.mark.parametrize(
    "cells",
    [
        MINE,
        FIRST[:2],
        [FIRST[1], FIRST[0], FIRST[2]],
        [*FIRST, ("x", "code", "")],
        [(name, "raw", source) for name, _, source in FIRST],
    ],
    ids=["source", "deleted", "order", "added", "kind"],
)
def test_a_touched_copy_stays_and_the_new_edition_lies_beside_it(course, cells):
    mine(course).write_bytes(notebook(cells))
    assert workspace.update(course) == ["the lessons in work/ are up to date"]
    publish(course, {"01-patches": SECOND})
    (line,) = workspace.update(course)
    said = "has your changes and stays; beside it is now 01-patches.new.ipynb"
    assert line == f"01-patches.ipynb {said}: {SUMMARY}"
    assert mine(course).read_bytes() == notebook(cells)
    assert mine(course, "01-patches.new").read_bytes() == notebook(SECOND)
    assert workspace.update(course) == ["the lessons in work/ are up to date"]  # told once


def test_what_lies_beside_is_not_overwritten_either(course):
    mine(course).write_bytes(notebook(MINE))
    mine(course, "01-patches.new").write_text("my own file")
    publish(course, {"01-patches": SECOND})
    assert "01-patches.new-2.ipynb" in workspace.update(course)[0]
    publish(course, {"01-patches": THIRD})
    assert "01-patches.new-3.ipynb: 2 cells changed (title, cut)" in workspace.update(course)[0]
    files = visible(course)
    assert files["01-patches.new.ipynb"] == b"my own file"
    assert files["01-patches.new-2.ipynb"] == notebook(SECOND)
    assert files["01-patches.new-3.ipynb"] == notebook(THIRD)
    assert files["01-patches.ipynb"] == notebook(MINE)


def test_a_learner_who_takes_the_new_edition_gets_the_next_ones_too(course):
    mine(course).write_bytes(notebook(MINE))
    publish(course, {"01-patches": SECOND})
    workspace.update(course)
    os.replace(mine(course, "01-patches.new"), mine(course))
    assert workspace.update(course) == ["the lessons in work/ are up to date"]
    publish(course, {"01-patches": THIRD})
    assert workspace.update(course) == ["01-patches.ipynb replaced: 1 cell changed (title)"]


def test_what_the_course_does_not_know_stays(course):
    files = {"notes.ipynb": "mine", ".ipynb_checkpoints/01-patches-checkpoint.ipynb": "jupyter's"}
    for name, text in files.items():
        (course / "work" / name).parent.mkdir(exist_ok=True)
        (course / "work" / name).write_text(text)
    (course / "notebooks" / "02-token.ipynb").rename(course / "notebooks" / "02-class.ipynb")
    assert workspace.update(course) == [
        "02-class.ipynb is new",
        "02-token.ipynb is no longer in the course; your copy stays",
    ]
    assert mine(course, "02-token").read_bytes() == notebook(FIRST)
    for name, text in files.items():
        assert (course / "work" / name).read_text() == text


@pytest.mark.parametrize("made", ["", "not JSON", "[]", '{"cells": [1]}', '{"cells": [{}]}'])
def test_a_copy_that_is_no_notebook_stays(course, made):
    mine(course).write_text(made)
    publish(course, {"01-patches": SECOND})
    assert "01-patches.new.ipynb" in workspace.update(course)[0]
    assert mine(course).read_text() == made


def test_a_link_stays_a_link(course, tmp_path):
    elsewhere = tmp_path / "elsewhere.ipynb"
    mine(course).rename(elsewhere)
    mine(course).symlink_to(elsewhere)
    publish(course, {"01-patches": SECOND})
    assert "01-patches.new.ipynb" in workspace.update(course)[0]
    assert mine(course).is_symlink() and elsewhere.read_bytes() == notebook(FIRST)


def test_a_broken_lesson_of_the_course_changes_nothing(course):
    (course / "notebooks" / "01-patches.ipynb").write_bytes(notebook(SECOND)[:-20])
    before = visible(course)
    assert "no whole notebook" in workspace.update(course)[0]
    assert visible(course) == before


# Damage: what is not known to be untouched counts as touched ------------------------------------


@pytest.mark.parametrize("damage", ["", "{", '{"lessons": 3}', '{"lessons": {"a": 1}}', None])
def test_a_lost_or_damaged_record(course, damage):
    file = course / "work" / ".vitcourse.json"
    file.unlink()
    if damage is not None:
        file.write_text(damage)
    publish(course, {"01-patches": SECOND})
    lines = workspace.update(course)
    assert mine(course).read_bytes() == notebook(FIRST)
    assert mine(course, "01-patches.new").read_bytes() == notebook(SECOND)
    if damage is not None:
        assert lines[0] == ".vitcourse.json was damaged and is now .vitcourse.damaged-1.json"
        assert file.with_name(".vitcourse.damaged-1.json").read_text() == damage
    publish(course, {"02-token": SECOND})  # equal to its edition then, so it was taken up again
    assert workspace.update(course) == [f"02-token.ipynb replaced: {SUMMARY}"]


def test_a_lost_or_damaged_original(course):
    originals = course / "work" / ".originals"
    (originals / "01-patches.ipynb").unlink()
    (originals / "02-token.ipynb").write_text("torn")
    publish(course, {"01-patches": SECOND, "02-token": SECOND})
    for line in workspace.update(course):
        assert "what changed is unknown, since its original is not kept" in line
    for name in ("01-patches", "02-token"):
        assert mine(course, name).read_bytes() == notebook(FIRST)
        os.replace(mine(course, f"{name}.new"), mine(course, name))
    (line,) = workspace.update(course)
    assert line == "the original of 02-token.ipynb was damaged and is now 02-token.damaged-1.ipynb"
    assert (originals / "02-token.damaged-1.ipynb").read_text() == "torn"
    publish(course, {"01-patches": THIRD, "02-token": THIRD})
    assert all("replaced" in line for line in workspace.update(course))


def test_copies_from_before_there_was_a_record(course):
    (course / "work" / ".vitcourse.json").unlink()
    mine(course).write_bytes(notebook(MINE))
    assert workspace.copy_lessons(course) == []
    publish(course, {"01-patches": SECOND, "02-token": SECOND})
    workspace.update(course)
    assert mine(course).read_bytes() == notebook(MINE)
    assert mine(course, "02-token").read_bytes() == notebook(SECOND)


# Killed -----------------------------------------------------------------------------------------

COPIES = {"01-patches": MINE, "02-token": FIRST, "papers/deit": FIRST}
NEW = {name: SECOND for name in COPIES} | {"03-new": SECOND}


def killed(moment, act, folder):
    """Whether a process that does `act` was killed before its file operation number `moment`.

    Opening to write, renaming, deleting, making a folder, and reaching the disk are operations.
    """
    child = os.fork()
    if child == 0:
        count, fsync = 0, os.fsync

        def one_more():
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        def listen(event, args):
            writes = event in ("os.rename", "os.remove", "os.mkdir")
            if event == "open":
                writes = "w" in (args[1] or "")
            if writes and str(folder) in str(args[0]):
                one_more()

        os.fsync = lambda number: (one_more(), fsync(number))
        sys.addaudithook(listen)
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def assert_nothing_lost(root):
    """Every file in work/ is whole, and what the learner wrote is there."""
    for name, content in visible(root).items():
        assert content in (notebook(FIRST), notebook(SECOND), notebook(MINE)), f"{name} is torn"
    assert mine(root).read_bytes() == notebook(MINE)
    record = root / "work" / ".vitcourse.json"
    assert not record.exists() or json.loads(record.read_bytes())
    assert not list((root / "work").rglob("*damaged*"))


def kill_everywhere(folder):
    """Kill an update at each of its moments, and end it: how many moments there are."""
    for moment in range(1, 1000):
        root = folder / str(moment)
        publish(root, dict.fromkeys(COPIES, FIRST))
        workspace.copy_lessons(root)
        mine(root).write_bytes(notebook(MINE))
        publish(root, NEW)
        was_killed = killed(moment, partial(workspace.update, root), root)
        assert_nothing_lost(root)
        workspace.update(root)
        assert_nothing_lost(root)
        expected = {f"{name}.ipynb": notebook(SECOND) for name in NEW}
        expected["01-patches.new.ipynb"] = notebook(SECOND)
        assert visible(root) == expected | {"01-patches.ipynb": notebook(MINE)}
        if not was_killed:
            return moment - 1


def test_killed_before_each_file_operation(tmp_path):
    assert kill_everywhere(tmp_path) > 30


def test_the_first_copying_killed_before_each_file_operation(tmp_path):
    for moment in range(1, 1000):
        root = tmp_path / str(moment)
        publish(root, dict.fromkeys(COPIES, FIRST))
        was_killed = killed(moment, partial(workspace.update, root), root)
        assert set(visible(root).values()) <= {notebook(FIRST)}
        workspace.copy_lessons(root)
        publish(root, NEW)
        workspace.update(root)
        assert visible(root) == {f"{name}.ipynb": notebook(SECOND) for name in NEW}
        if not was_killed:
            break
    assert moment > 20


def test_killed_from_outside_at_any_time(course):
    rng, kills = random.Random(0), 0
    mine(course).write_bytes(notebook(MINE))
    while kills < 12:
        child = os.fork()
        if child == 0:
            while True:
                for cells in (SECOND, FIRST):
                    for name in COPIES:  # as git would: whole files
                        target = course / "notebooks" / f"{name}.ipynb"
                        target.with_suffix(".git").write_bytes(notebook(cells))
                        os.replace(target.with_suffix(".git"), target)
                    workspace.update(course)
        time.sleep(rng.uniform(0.01, 0.06))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        kills += 1
        assert_nothing_lost(course)


# A test that cannot fail proves nothing ---------------------------------------------------------


def test_planted_errors_are_noticed(tmp_path, monkeypatch):
    def torn(work, path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            os.fsync(file.fileno())
            file.write(content[len(content) // 2 :])

    right = workspace.same

    def careless(one, other):  # whatever is a notebook counts as untouched
        return right(one, other) or None not in (one, other)

    def no_original(record, name, content):
        record.lessons[name] = {"made": workspace.fingerprint(workspace.parse(content))}

    def no_record(record):
        pass

    planted = [
        (workspace, "put", torn),
        (workspace, "same", careless),
        (workspace.Record, "keep", no_original),
        (workspace.Record, "save", no_record),
    ]
    for number, (place, name, wrong) in enumerate(planted):
        with monkeypatch.context() as patch, pytest.raises(AssertionError):
            patch.setattr(place, name, wrong)
            kill_everywhere(tmp_path / str(number))


# Trust ------------------------------------------------------------------------------------------


def test_unchanged_copies_are_trusted_and_others_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    (tmp_path / "notebooks").mkdir()
    code = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("display_data")])
    nbformat.write(nbformat.v4.new_notebook(cells=[code]), tmp_path / "notebooks" / "00-a.ipynb")
    workspace.copy_lessons(tmp_path)
    copy = nbformat.read(tmp_path / "work" / "00-a.ipynb", as_version=4)
    assert not NotebookNotary().check_signature(copy)
    workspace.trust_lessons(tmp_path)
    assert NotebookNotary().check_signature(copy)
    copy.cells[0].outputs[0].data["text/html"] = "<script>alert(1)</script>"
    assert not NotebookNotary().check_signature(copy)


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "file"))
    workspace.trust_lessons(tmp_path)
    assert (tmp_path / "file").read_text() == "no folder"
