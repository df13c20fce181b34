"""Where a learner works: copies of the lessons in work/, opened in JupyterLab.

Each lesson as it was handed out is kept in work/.originals, and its fingerprint in
work/.vitcourse.json, so that an update knows which copies the learner changed. Every file appears
whole or not at all, in the order copy, original, record. Whoever is killed between two of them
leaves at worst a copy that counts as changed, and what was changed is never replaced.
"""

import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vitcourse.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
FIRST = "00-start-here.ipynb"


def copy_lessons(root=ROOT):
    """Put each lesson that is not in work/ yet there, and leave what is there alone.

    The copies are the learner's: git does not see them, and an update of the course cannot touch
    them. Returns the names that are new.
    """
    return copy_missing(published(root), Record(root / "work"))


def update(root=ROOT):
    """Bring work/ to the edition in notebooks/, and overwrite nothing of the learner's.

    A copy whose cells nobody changed is replaced. Beside one that the learner changed, the new
    edition appears as NAME.new.ipynb. All else in work/ stays. Returns lines that say what it did.
    """
    lessons, record = published(root), Record(root / "work")
    new = copy_missing(lessons, record)
    lines = [f"{name} is new" for name in new]
    for name, lesson in lessons.items():
        if name not in new:
            lines += refresh(record, name, lesson.read_bytes())
    for name in sorted(set(record.lessons) - set(lessons)):
        if (record.work / name).exists():
            lines.append(f"{name} is no longer in the course; your copy stays")
    return record.lines + lines or ["the lessons in work/ are up to date"]


def published(root):
    """The lessons of the course: name -> file."""
    source = root / "notebooks"
    if not source.is_dir():
        raise FileNotFoundError(f"no lessons in {source}: run this from a clone of the course")
    names = {path.relative_to(source): path for path in sorted(source.rglob("*.ipynb"))}
    return {
        name.as_posix(): path
        for name, path in names.items()
        if ".ipynb_checkpoints" not in name.parts
    }


def copy_missing(lessons, record):
    """Copy the lessons that are not in work/, and record them: the names that are new."""
    new, changed = [], False
    for name, lesson in lessons.items():
        mine = record.work / name
        missing = not os.path.lexists(mine)
        if not missing and name in record.lessons:
            continue
        content = lesson.read_bytes()
        if missing:
            put(record.work, mine, content)
            new.append(name)
        if same(parse(read(mine)), parse(content)):  # or else a copy from who knows when
            record.keep(name, content)
            changed = True
    if changed:
        record.save()
    return new


def refresh(record, name, content):
    """Bring one copy to the edition `content`, or put that beside it: lines that say so."""
    mine, cells = record.work / name, parse(content)
    if cells is None:
        return [
            f"{name} in the course is no whole notebook and was left out: git restore notebooks"
        ]
    old, before = record.original(name), read(mine)
    copy = parse(before)
    is_new = not same(copy, cells)
    if not is_new and (record.made(name) != fingerprint(cells) or old is None):
        record.keep(name, content)  # whoever was at work here was killed before recording it
        record.save()
    if not mine.is_symlink() and same(copy, old):
        never_run = before == read(record.path(name))
        if is_new or (never_run and before != content):
            put(record.work, mine, content)
            record.keep(name, content)
            record.save()
            line = f"{name} replaced: {changes(old, cells)}"
            lost = [cell.outputs for cell in copy] != [cell.outputs for cell in old]
            return [line + ("; what your run of it put out went with it" if lost else "")]
    known = record.made(name), record.offered(name)
    if not is_new or fingerprint(cells) in known or same(cells, parse(read(record.path(name)))):
        return []
    return put_beside(record, name, content)


def put_beside(record, name, content):
    """Put the edition `content` beside a touched copy, under a free name: a line that says so."""
    mine, cells, old = record.work / name, parse(content), record.original(name)
    number, beside = 2, mine.with_suffix(".new.ipynb")
    while os.path.lexists(beside) and not same(parse(read(beside)), cells):
        number, beside = number + 1, mine.with_suffix(f".new-{number}.ipynb")
    if not os.path.lexists(beside):
        put(record.work, beside, content)
    record.lessons.setdefault(name, {})["offered"] = fingerprint(cells)
    record.save()
    has, what = "may have", "what changed is unknown, since its original is not kept"
    if old is not None:
        has, what = "has", changes(old, cells)
    return [f"{name} {has} your changes and stays; beside it is now {beside.name}: {what}"]


# What a notebook holds --------------------------------------------------------------------------


class Cell(NamedTuple):
    """A cell: its name, what a learner can change (kind and source), and what running changes."""

    id: str
    kind: str
    source: str
    outputs: list


def parse(content):
    """The cells of a notebook, given its bytes, or None if it is none."""
    try:
        return [
            Cell(
                str(cell.get("id", f"number {number}")),
                cell["cell_type"],
                "".join(cell["source"]),
                cell.get("outputs", []),
            )
            for number, cell in enumerate(json.loads(content)["cells"], start=1)
        ]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def fingerprint(cells):
    """A hash of what a learner can change: kinds, sources and order, not what running changes."""
    return hashlib.sha256(json.dumps([[c.kind, c.source] for c in cells]).encode()).hexdigest()


def same(one, other):
    """Whether two lists of cells are notebooks, and equal in what a learner can change."""
    return None not in (one, other) and fingerprint(one) == fingerprint(other)


def changes(old, new):
    """What changed between two editions, by the names of the cells, in words."""
    old, new = ({cell.id: (cell.kind, cell.source) for cell in cells} for cells in (old, new))
    found = {
        "changed": [name for name in new if name in old and new[name] != old[name]],
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
    }
    words = [
        f"{len(names)} cell{'s' * (len(names) > 1)} {what} ({', '.join(names)})"
        for what, names in found.items()
        if names
    ]
    if [name for name in old if name in new] != [name for name in new if name in old]:
        words.append("the order of cells")
    return ", ".join(words) or "only what its cells put out"


# Files ------------------------------------------------------------------------------------------


class Record:
    """What was handed out into work/. `lines` says what was found damaged.

    `lessons` holds for each name `made`, the fingerprint of the edition that the copy was made
    from, and `offered`, that of the edition last put beside it.
    """

    def __init__(self, work):
        self.work, self.file = work, work / ".vitcourse.json"
        self.lessons, self.lines = {}, []
        content = read(self.file)
        if not content and not os.path.lexists(self.file):
            return
        try:
            lessons = json.loads(content)["lessons"]
            self.lessons = {name: dict(entry) for name, entry in lessons.items()}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            aside = set_aside(self.file)
            self.lines = [f"{self.file.name} was damaged and is now {aside.name}"]

    def made(self, name):
        """The fingerprint of the edition that a copy was made from, or None."""
        return self.lessons.get(name, {}).get("made")

    def offered(self, name):
        """The fingerprint of the edition last put beside a copy, or None."""
        return self.lessons.get(name, {}).get("offered")

    def path(self, name):
        """Where the original of a copy is kept."""
        return self.work / ".originals" / name

    def original(self, name):
        """The cells that a copy was made from, or None where record and original disagree."""
        cells = parse(read(self.path(name)))
        return cells if cells is not None and fingerprint(cells) == self.made(name) else None

    def keep(self, name, content):
        """Note that a copy is now the edition `content`; a damaged original is set aside."""
        path = self.path(name)
        if os.path.lexists(path) and self.original(name) is None and read(path) != content:
            self.lines.append(
                f"the original of {name} was damaged and is now {set_aside(path).name}"
            )
        put(self.work, path, content)
        self.lessons[name] = {"made": fingerprint(parse(content))}

    def save(self):
        """Write the record: the last step of a change."""
        text = json.dumps({"format": 1, "lessons": self.lessons}, indent=1, sort_keys=True)
        put(self.work, self.file, text.encode() + b"\n")


def read(path):
    """The bytes of a file; none of what is missing or cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def set_aside(path):
    """Give a file a free name, NAME.damaged-1, and return that."""
    number = 1
    while os.path.lexists(aside := path.with_suffix(f".damaged-{number}{path.suffix}")):
        number += 1
    os.rename(path, aside)
    return aside


def put(work, path, content):
    """Write a file whole, by way of the folder of originals: nothing half-made is in sight."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = work / ".originals" / f"{os.getpid()}.partial"
    partial.parent.mkdir(exist_ok=True)
    write_whole(path, content, partial)


# JupyterLab -------------------------------------------------------------------------------------


def link_docs(root=ROOT):
    """Let JupyterLab, which sees nothing outside of work/, follow a lesson's link to ../docs."""
    with suppress(OSError):  # a file of the learner's has that name, or links are not possible
        (root / "work" / "docs").symlink_to(Path("..") / "docs")


def quiet_settings(folder):
    """Spare the learner the question whether to fetch news; a setting made by hand stays."""
    file = folder / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"fetchNews": "false"}))


def first_layout(folder):
    """At the first start, open lesson 00 and its table of contents; later, what was left open."""
    from jupyterlab_server.workspaces_handler import WORKSPACE_EXTENSION, WorkspacesManager

    if any(folder.glob(f"*{WORKSPACE_EXTENSION}")):
        return
    lesson, contents = f"notebook:{FIRST}", "@jupyterlab/toc:plugin"
    layout = {
        "main": {"dock": {"type": "tab-area", "currentIndex": 0, "widgets": [lesson]}},
        "left": {"visible": True, "collapsed": False, "current": contents, "widgets": [contents]},
    }
    layout["main"]["current"] = lesson
    opened = {"data": {"path": FIRST, "factory": "Notebook"}}
    data = {"layout-restorer:data": layout, lesson: opened}
    workspace = {"data": data, "metadata": {"id": "default"}}
    WorkspacesManager(str(folder)).save("default", json.dumps(workspace))


def lab_command(root=ROOT, options=()):
    """The command line that opens JupyterLab on work/, for this computer only."""
    command = [sys.executable, "-m", "jupyterlab"]
    command += [f"--ServerApp.root_dir={root / 'work'}", "--ServerApp.ip=127.0.0.1"]
    command.append("--KernelSpecManager.allowed_kernelspecs=python3")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        print("you are root, so JupyterLab is started with --allow-root", flush=True)
        command.append("--allow-root")
    return command + list(options)


def lab_environment(root=ROOT):
    """Its environment variables: settings stay in the checkout, the kernel is this Python."""
    state = root / ".jupyter"
    paths = [str(Path(sys.prefix) / "share" / "jupyter"), os.environ.get("JUPYTER_PATH")]
    return {
        **os.environ,
        "JUPYTERLAB_SETTINGS_DIR": str(state / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"),
        "JUPYTER_PATH": os.pathsep.join(filter(None, paths)),  # the first kernel found is taken
    }


def trust_lessons(root=ROOT):
    """Sign the course's lessons, so that the explorers in their copies work before they are run.

    What is signed is the content: a copy is trusted as long as it is what the course holds.
    """
    import sqlite3

    import nbformat
    from nbformat.sign import NotebookNotary

    with suppress(OSError, sqlite3.Error):  # without it, a picture stands in an explorer's place
        notary = NotebookNotary()
        for lesson in published(root).values():
            notary.sign(nbformat.read(lesson, as_version=4))


def open_lab(options=()):
    """Open JupyterLab and become it, so that ctrl-C reaches it."""
    for name in copy_lessons():
        print(f"new in work/: {name}")
    link_docs()
    trust_lessons()
    quiet_settings(ROOT / ".jupyter" / "settings")
    first_layout(ROOT / ".jupyter" / "workspaces")
    os.execve(sys.executable, lab_command(options=options), lab_environment())
