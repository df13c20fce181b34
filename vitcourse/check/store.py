"""What a learner has done, in one JSON file on this computer: no account, no server.

The file is $VITCOURSE_PROGRESS if that is set, or else work/progress.json in the checkout. Where
the variable is empty, or not set and there is no work/ (in CI, say), nothing is written and the
memory of this kernel serves. A notebook gets no error from a disk: it is one line, said once.
"""

import json
import os
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from vitcourse.files import write_whole

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

ROOT = Path(__file__).resolve().parents[2]
STATUSES = ["not attempted", "wrong", "right"]  # from worst to best
PATIENCE = 10  # seconds to wait for another kernel, which needs milliseconds
ABANDONED = 5  # seconds after which a lock that does not die with its process counts for nothing
FIELDS = {"attempts": int, "first": str, "last": str, "best": str, "hints": int, "version": str}
memory = {}  # the entries that could not be written
said = set()


def record(exercise, status, hints=0, version=""):
    """Note one check of an exercise, given its name.

    `hints` is how many hints of its ladder the learner has seen: the most is kept. `version` is
    the exercise's own, kept when it is passed. A stub that was only run is no attempt.
    """
    if status not in STATUSES:
        raise ValueError(f"status is {status!r}; it is one of {', '.join(map(repr, STATUSES))}")
    path = where()
    if path is None:
        memory[exercise] = noted(memory.get(exercise), status, hints, version)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            entries = read(path)
            entries[exercise] = noted(entries.get(exercise), status, hints, version)
            write(path, entries)
        memory.pop(exercise, None)
    except OSError as error:
        memory[exercise] = noted(load().get(exercise), status, hints, version)
        say(f"your progress is not kept: {path}: {reason(error)}; all else works without it")


def load():
    """What is kept: name -> attempts, first and last (times), best (status), hints, version."""
    path = where()
    if path is None:
        return dict(memory)
    try:
        try:
            return parse(path.read_bytes()) | memory
        except FileNotFoundError:
            return dict(memory)
        except ValueError:
            with locked(path):
                return read(path) | memory
    except OSError as error:
        say(f"your progress cannot be read: {path}: {reason(error)}")
        return dict(memory)


def hints_used(exercise):
    """How many hints for an exercise, given its name, the learner has seen."""
    return load().get(exercise, {}).get("hints", 0)


def state(exercises):
    """Name -> "not attempted", "wrong", "right" or "stale": passed, and changed since then."""
    kept, result = load(), {}
    for exercise in exercises:
        entry = kept.get(exercise.name, {})
        stale = entry.get("best") == "right" and entry["version"] != exercise.version
        result[exercise.name] = "stale" if stale else entry.get("best", STATUSES[0])
    return result


def summary(exercises):
    """A table by lesson, what comes next, and what changed since it was passed.

    An exercise has `name, lesson, minutes, difficulty, version`; their order is the course's.
    """
    exercises, kept, states = list(exercises), load(), state(exercises)
    lessons = list(dict.fromkeys(exercise.lesson for exercise in exercises))
    rows = [("lesson", "passed", "attempts", "hints")]
    for lesson in [*lessons, "all"]:
        names = [e.name for e in exercises if lesson in (e.lesson, "all")]
        passed = sum(states[name] in ("right", "stale") for name in names)
        counts = [sum(kept.get(n, {}).get(k, 0) for n in names) for k in ("attempts", "hints")]
        rows.append((str(lesson), f"{passed} of {len(names)}", *map(str, counts)))
    width = max(len(row[0]) for row in rows)
    lines = [f"{row[0]:{width}}  {row[1]:>8}  {row[2]:>8}  {row[3]:>5}" for row in rows]
    left = [e for e in exercises if states[e.name] in STATUSES[:2]]
    if left:
        e = left[0]
        about = f"{e.minutes} minutes, difficulty {e.difficulty}"
        lines.append(f"next: {e.name} in lesson {e.lesson} ({about})")
    elif exercises:
        lines.append("next: nothing, you have passed every exercise")
    stale = [f"{e.name} (lesson {e.lesson})" for e in exercises if states[e.name] == "stale"]
    if stale:
        lines.append(f"changed since you passed it, so check it again: {', '.join(stale)}")
    return "\n".join(lines)


# The file ---------------------------------------------------------------------------------------


def where():
    """The file that keeps the progress, or None where nothing is kept."""
    chosen = os.environ.get("VITCOURSE_PROGRESS")
    if chosen is None and (ROOT / "work").is_dir():
        chosen = ROOT / "work" / "progress.json"
    return Path(chosen).resolve() if chosen else None  # a link stays a link


def noted(entry, status, hints, version):
    """An exercise's entry (None: its first) after one more check."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = {"attempts": 0, "first": now, "best": STATUSES[0], "hints": 0, "version": ""}
    new |= entry or {}
    new["attempts"] += status != STATUSES[0]
    new["last"] = now
    new["best"] = max(new["best"], status, key=STATUSES.index)
    new["hints"] = max(new["hints"], hints)
    if status == "right":
        new["version"] = version
    return new


def parse(content):
    """The entries in a file's bytes; a ValueError if it is not one of ours."""
    try:
        entries = json.loads(content)["exercises"]
        for entry in entries.values():
            wrong = [key for key, kind in FIELDS.items() if type(entry[key]) is not kind]
            if wrong or entry["best"] not in STATUSES:
                raise ValueError("an entry is not what it should be")
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not a file of progress") from error
    return entries


def read(path):
    """The entries in a file, which its reader has locked; a damaged one is moved aside."""
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        number = 1
        while os.path.lexists(aside := path.with_suffix(f".damaged-{number}{path.suffix}")):
            number += 1
        os.rename(path, aside)
        say(f"the file of your progress was damaged: it is now {aside.name}, and a new one begins")
        return {}


def write(path, entries):
    """Write the file, which its writer has locked."""
    text = json.dumps({"format": 1, "exercises": entries}, indent=1)
    write_whole(path, text.encode(), partial=path.with_name(f".{path.name}.partial"))


# Two kernels at once ----------------------------------------------------------------------------


@contextmanager
def locked(path):
    """Keep other processes from changing the file."""
    take = take_lock if fcntl else create_lock
    until = time.monotonic() + PATIENCE
    while True:
        try:
            release = take(path.with_name(f".{path.name}.lock"))
            break
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError("another program does not let go of it") from None
            time.sleep(0.002)
    try:
        yield
    finally:
        release()


def take_lock(lock):
    """Lock a file; the system unlocks it when the process ends, however it ends."""
    file = open(lock, "ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file.close


def create_lock(lock):
    """Without fcntl: whoever creates the file has the lock, until it is deleted or old."""
    lock = lock.with_suffix(".created")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        try:
            if time.time() - lock.stat().st_mtime > ABANDONED:
                lock.unlink()
        except FileNotFoundError:
            pass  # deleted just now
        raise BlockingIOError from None
    return lambda: lock.unlink(missing_ok=True)


# One line ---------------------------------------------------------------------------------------


def reason(error):
    """Why a file could not be used, in a few words."""
    return (error.strerror or str(error)).lower()


def say(line):
    """Print a line, once in a process."""
    if line not in said:
        said.add(line)
        print(line)
