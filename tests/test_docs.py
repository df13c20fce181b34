"""What the documents for lecturers say is so: links, terms, minutes, mistakes, shapes, figures."""

import json
import re
from functools import cache

import pytest

from tests import sheet, syllabus
from vitcourse import papers
from vitcourse.check import EXERCISES
from vitcourse.cli import build_parser
from vitcourse.lab import notebooks

ROOT = notebooks.ROOT
DOCS = sorted((ROOT / "docs").glob("*.md"))
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
TEACHING = syllabus.PAGE.read_text()
LINK = re.compile(r"\[([^\]]+)\](?:\(([^)\s]+)\))?")
DEFINED = re.compile(r"^\[([^\]]+)\]: (\S+)$", re.M)
LESSONS = {path.name[:2]: path for path in (ROOT / "notebooks" / "source").glob("[0-2]*.py")}


@cache
def words(lesson):
    """The text and code of a lesson, on one line."""
    text = re.sub(r"^# ?", "", LESSONS[lesson].read_text(), flags=re.M)
    return " ".join(text.split()).lower()


def rows(text, head):
    """The rows of the table that begins with this head, as lists of cells."""
    lines = text[text.index(f"| {head}") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# Links --------------------------------------------------------------------------------------------


def link_faults(text):
    """Links of a document in docs/ that lead nowhere."""
    defined = dict(DEFINED.findall(text))
    prose = re.sub(r"```.*?```|`[^`]*`", "", DEFINED.sub("", text), flags=re.S)
    used = set()
    for label, target in LINK.findall(prose):
        used |= {label} - {label if target else None}
        target = target or defined.get(label, "")
        file, _, heading = target.partition("#")
        if target.startswith("https://"):
            continue
        if not file or not (ROOT / "docs" / file).is_file():
            yield f"[{label}] leads nowhere: {target}"
        elif heading and heading not in anchors((ROOT / "docs" / file).read_text()):
            yield f"[{label}]: {file} has no heading {heading}"
    yield from (f"[{label}] is defined and not used" for label in set(defined) - used)


def anchors(text):
    """The names of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_links(page):
    assert not list(link_faults(page.read_text()))


# The glossary -------------------------------------------------------------------------------------


def glossary_faults(text):
    """Terms out of order, twice, or not in their lesson; systems that are built after all."""
    terms, named = rows(text, "term"), rows(text, "name")
    for table in terms, named:
        first = [row[0].lower() for row in table]
        yield from (f"twice: {one}" for one in sorted({x for x in first if first.count(x) > 1}))
        if (wrong := [a for a, b in zip(first, sorted(first), strict=True) if a != b]) and first:
            yield f"out of order: {wrong[0]}"
        yield from (f"{row[0]} lacks a cell" for row in table if not all(row[:3]))
    for term, _, _, link in terms:
        lesson = link.strip("[]")
        word = re.split(r"[,(]", term)[0].strip().lower()
        if lesson not in LESSONS:
            yield f"{term}: there is no lesson {lesson}"
        elif not re.search(rf"\b{re.escape(word)}", words(lesson)):
            yield f"{term} does not occur in lesson {lesson}"
    for lesson, target in DEFINED.findall(text):
        if target != f"../notebooks/{LESSONS[lesson].stem}.ipynb":
            yield f"[{lesson}] leads to {target}"
    built = {paper.title.lower() for paper in papers.papers().values()}
    built |= {cell.lower().replace("-", "") for cell in papers.papers()}
    for name, *_, link in named:
        if name.lower().replace("-", "") in built:
            yield f"{name} is built here"
        number = re.fullmatch(r"(?:\[(\d{4}\.\d{5})\]\(https://arxiv\.org/abs/\1\))?", link)
        if not number:
            yield f"{name}: {link} is no paper"


def test_the_glossary():
    assert not list(glossary_faults(GLOSSARY))
    assert 100 <= len(rows(GLOSSARY, "term"))
    assert set(LESSONS) == {row[3].strip("[]") for row in rows(GLOSSARY, "term")}


# The page for lecturers ---------------------------------------------------------------------------


def test_the_syllabuses_add_up():
    assert syllabus.fill(TEACHING) == TEACHING, "run python -m tests.syllabus"


def test_what_the_syllabuses_leave_out():
    for hours, sessions in syllabus.PLANS.items():
        text = TEACHING.split(f"### {hours} hours")[1].split("<!--")[0]
        said = re.search(r"Lessons (.+?) are left out", " ".join(text.split()))
        spans = [part.split(" to ") for part in re.split(", | and ", said[1])] if said else []
        out = {f"{n:02}" for span in spans for n in range(int(span[0]), int(span[-1]) + 1)}
        assert set(LESSONS) - out == {number for session in sessions for number in session}


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ({"01": ("no-such-text", "", "")}, "lesson 01 has no section no-such-text"),
        ({"01": ("", "class_token", "")}, "lesson 01 has no exercise class_token"),
        ({"01": ("", "", "patchfy")}, "lesson 01 has no exercise patchfy"),
        ({"05": ("", "", ""), "06": ("", "", "")}, "session 1 has 120 minutes, more than 110"),
    ],
)
def test_a_wrong_plan_is_refused(session, message, monkeypatch):
    monkeypatch.setattr(syllabus, "PLANS", {2: [session]})
    with pytest.raises(ValueError, match=message):
        syllabus.table(2)


def test_hours_are_sessions(monkeypatch):
    monkeypatch.setattr(syllabus, "PLANS", {3: syllabus.PLANS[6]})
    with pytest.raises(ValueError, match="3 sessions of 120 minutes are not 3 hours"):
        syllabus.table(3)


def live_faults(text):
    """Lessons that are not there, and sections that the lesson does not have."""
    table = rows(text, "lesson | show")
    if [row[0] for row in table] != sorted(LESSONS):
        yield "not each lesson once"
    for lesson, show in table:
        there = re.findall(r"^# ##+ (?:\d+ · )?(.+)$", LESSONS[lesson].read_text(), re.M)
        for section in re.findall(r"\*\*(.+?)\*\*", show):
            if section not in there:
                yield f"lesson {lesson} has no section {section}"


def mistake_faults(text):
    """Mistakes that no catalogue holds."""
    for lesson, exercise, mistake, ask in rows(text, "lesson | exercise | mistake"):
        found = EXERCISES.get(exercise.strip("`"))
        if not found or found.lesson != lesson:
            yield f"lesson {lesson} has no exercise {exercise}"
        elif mistake not in [one.name for one in found.mistakes]:
            yield f"{exercise} has no mistake {mistake}"
        if not ask.endswith(("?", ".")):
            yield f"{mistake}: nothing is asked back"


def command_faults(text):
    """Commands that there are not."""
    known = build_parser()._subparsers._group_actions[0].choices
    for name in re.findall(r"^(?:\S*/)?vitcourse (\w+)|`vitcourse\s(\w+)", text, re.M):
        if "".join(name) not in known:
            yield f"there is no command vitcourse {''.join(name)}"


def figure_faults(text):
    """Figures that differ from the recorded ones."""
    told = " ".join(text.split())
    for figure in hardware():
        if figure not in told:
            yield f"it should say: {figure}"


def hardware():
    """What the page says about 100 students, from the record of benchmarks/memory.py."""
    record = json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text())
    lessons, server = record["lessons"], record["server"]
    for name, one in lessons.items():
        yield f"| {name[:2]} | {one['cpu_seconds']} | {one['peak_gb']} | {one['own_gb']} |"
    yield f"A JupyterLab that waits holds {server['peak_gb']} GB, {server['own_gb']} of its own"
    one = max(lesson["own_gb"] for lesson in lessons.values())
    whole = max(lesson["peak_gb"] for lesson in lessons.values())
    yield f"100 x ({one} + {server['own_gb']}) = {100 * (one + server['own_gb']):.0f} GB"
    yield f"100 x {whole} = {100 * whole:.0f} GB"
    limit = re.search(
        r'"default": (\d+).*"18": (\d+)', (ROOT / "notebooks/conftest.py").read_text()
    )
    yield f"{limit[1]} seconds of one core, {limit[2]} in lessons 18 to 20"
    yield f"100 x {limit[1]} / 16 = {100 * int(limit[1]) / 16:.0f} seconds"


@pytest.mark.parametrize("find", [live_faults, mistake_faults, command_faults, figure_faults])
def test_the_page_for_lecturers(find):
    assert not list(find(TEACHING))


def test_twelve_mistakes():
    assert len(rows(TEACHING, "lesson | exercise | mistake")) == 12


# The sheet of shapes ------------------------------------------------------------------------------


def test_the_sheet_is_what_the_models_say():
    assert sheet.page() == sheet.PAGE.read_text(), "run python -m tests.sheet"


@pytest.mark.parametrize(
    ("table", "place", "row", "message"),
    [
        ("ROWS", 10, ("weights", "weights", "B, K, T, N", "04"), "B, K, T, N.*197, 196.*197, 197"),
        ("ROWS", 8, ("qkv", "attn.qkv", "B, T, D", "04"), "the model has .5, 197, 2304"),
        ("PARTS", 0, ("patches", "patch_embed", "P·P·C·D"), "P·P·C·D is .589824"),
        ("PARTS", 9, ("block", "blocks.0", "12·D·D + 12·D"), "the models have .7087872, 7087872"),
        ("LETTERS", 9, ("T", "tokens", "N"), "T is not N but .197, 65"),
    ],
)
def test_a_wrong_formula_is_refused(table, place, row, message, monkeypatch):
    changed = list(getattr(sheet, table))
    changed[place] = row
    monkeypatch.setattr(sheet, table, changed)
    with pytest.raises(ValueError, match=message):
        sheet.page()


def test_known_numbers():
    page = sheet.PAGE.read_text()
    assert all(known in page for known in ("**86,567,656**", "B, 12, 197, 197", "B, 64, 3072"))


# The rules themselves -----------------------------------------------------------------------------

PLANTED = [
    (
        link_faults,
        GLOSSARY,
        "../README.md#the-code",
        "../README.md#the-coat",
        "no heading the-coat",
    ),
    (link_faults, GLOSSARY, "[20]: ", "[21]: ", "[20] leads nowhere"),
    (link_faults, TEACHING, "(shapes.md)", "(shape.md)", "leads nowhere: shape.md"),
    (glossary_faults, GLOSSARY, "| batch |", "| patch |", "twice: patch"),
    (glossary_faults, GLOSSARY, "| batch |", "| zatch |", "out of order"),
    (glossary_faults, GLOSSARY, "| rollout |", "| rollup |", "rollup does not occur in lesson 11"),
    (glossary_faults, GLOSSARY, "residual path | [11]", "residual path | [10]", "in lesson 10"),
    (glossary_faults, GLOSSARY, "residual path | [11]", "residual path | [31]", "no lesson 31"),
    (glossary_faults, GLOSSARY, "01-patches.ipynb", "02-class-token.ipynb", "[01] leads to"),
    (glossary_faults, GLOSSARY, "| 批（批次） |", "| |", "batch lacks a cell"),
    (glossary_faults, GLOSSARY, "| DINO | DINO", "| DeiT | DINO", "DeiT is built here"),
    (glossary_faults, GLOSSARY, "abs/1810.04805", "abs/1810.04806", "BERT: "),
    (live_faults, TEACHING, "**Why zero**", "**Why one**", "lesson 09 has no section Why one"),
    (live_faults, TEACHING, "| 20 | **Pairs", "| 19 | **Pairs", "not each lesson once"),
    (mistake_faults, TEACHING, "| norm after |", "| norm behind |", "no mistake norm behind"),
    (mistake_faults, TEACHING, "| 02 | `mend`", "| 03 | `mend`", "03 has no exercise `mend`"),
    (command_faults, TEACHING, "`vitcourse update`", "`vitcourse renew`", "vitcourse renew"),
    (command_faults, TEACHING, "\nvitcourse handout 01 02", "\nvitcourse hand 01 02", "hand"),
]


@pytest.mark.parametrize(("find", "text", "old", "new", "fault"), PLANTED)
def test_a_planted_fault_is_named(find, text, old, new, fault):
    assert old in text
    found = list(find(text.replace(old, new, 1)))
    assert any(fault in one for one in found), found


def test_another_figure_is_noticed():
    told = " ".join(TEACHING.split())
    for figure in hardware():
        assert f"it should say: {figure}" in list(figure_faults(told.replace(figure, "")))


def test_another_minute_is_noticed():
    wrong = re.sub(r"(ipynb\) \| )\d+", r"\g<1>7", TEACHING, count=1)
    assert wrong != TEACHING and syllabus.fill(wrong) != wrong
