"""A deck of slides for each lesson: one file of HTML that needs no network.

What stands on a slide comes from the cells of the executed notebook, and from the metadata that
notebooks/source/slides/NAME.toml adds to them: the text for listeners, the lecturer's notes, the
minutes of each section, the question to open with, the wrong answers to expect.
"""

import ast
import base64
import os
import re
import sys
import tomllib
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

from vitcourse.files import whole_folder, write_whole
from vitcourse.lab import render, web

ROOT = Path(__file__).resolve().parents[2]
SHOW = ("both", "code", "output", "nothing")  # of a code cell; of a text cell, only "nothing"
WIDTH, HEIGHT = 1090, 600  # CSS pixels of a slide of 1280 x 720 that code and output may fill
LETTER, LINE = 0.62, 1.3  # a letter's width and a line's height, in sizes of the font
LARGEST = 30  # CSS pixels of the font of code and output
FEW, MANY = 6, 28  # printed lines that stand above a picture; those that stand on one slide
HANG = {"subsequent_indent": "    ", "replace_whitespace": False}  # how output is wrapped
OURS = '<meta name="generator" content="vitcourse slides">'


# What the .toml adds to a notebook --------------------------------------------------------------


def source(path):
    """The .toml of the slides of a notebook."""
    return path.parent / "source" / "slides" / path.with_suffix(".toml").name


def add_metadata(notebook, path):
    """Take the slides' metadata from a .toml into the notebook and its cells."""
    try:
        about = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    for fault in faults(about, notebook):
        raise ValueError(f"{path.name}: {fault}")
    slides = about.pop("slides")
    notebook.metadata["slides"] = about
    for cell in notebook.cells:
        cell.metadata.pop("slide", None)
        if cell.id in slides:
            cell.metadata["slide"] = slides[cell.id]


def faults(about, notebook):
    """What is wrong with the metadata of slides, each as one line."""
    wanted = {"minutes": int, "question": str, "expect": list, "sections": dict, "slides": dict}
    about.setdefault("slides", {})
    for name, kind in wanted.items():
        if not isinstance(about.get(name), kind):
            yield f"{name} is missing or not what it should be"
            return
    yield from (f"{name} is unknown" for name in set(about) - set(wanted))
    if not about["question"].strip():
        yield "the question to open with is empty"
    if not 2 <= len(about["expect"]) <= 4:
        yield f"{len(about['expect'])} wrong answers to expect: give two to four"
    for pair in about["expect"]:
        if not isinstance(pair, dict) or sorted(pair) != ["answer", "say"] or empty(pair):
            yield "[[expect]] needs answer and say"
    there = [cell.id for cell in sections(notebook)]
    if list(about["sections"]) != there:
        yield f"[sections] must be, in this order: {', '.join(there)}"
    minutes = list(about["sections"].values())
    if not all(isinstance(one, int) and one > 0 for one in minutes):
        yield "[sections] gives whole minutes, at least one"
    elif sum(minutes) != about["minutes"]:
        yield f"the sections take {sum(minutes)} minutes, the lecture {about['minutes']}"
    cells = {cell.id: cell for cell in notebook.cells}
    for name, slide in about["slides"].items():
        if name not in cells:
            yield f"[slides.{name}]: there is no cell of that name"
        else:
            yield from (f"[slides.{name}]: {fault}" for fault in cell_faults(slide, cells[name]))


def cell_faults(slide, cell):
    """What is wrong with the metadata of one cell."""
    if not isinstance(slide, dict):
        yield "give text, notes or show"
        return
    yield from (f"{name} is unknown" for name in set(slide) - {"text", "notes", "show"})
    if empty(slide):
        yield "text, notes or show is empty or no text"
    show = SHOW if cell.cell_type == "code" else ("nothing",)
    if slide.get("show", show[0]) not in show:
        yield f"show is {slide['show']!r}, it can be {', '.join(show)}"
    if "text" in slide and cell.cell_type == "code":
        yield "the text of a code cell belongs to the text cell before it"
    if cell.cell_type == "markdown" and cell.source[:2] == "# " and slide.get("show") == "nothing":
        yield "the title is always shown"
    if "text" in slide and slide.get("show") == "nothing":
        yield "a text, and show says nothing"


def empty(table):
    """Whether something in a table is no text, or an empty one."""
    return any(not isinstance(text, str) or not text.strip() for text in table.values())


def sections(notebook):
    """The cells with which a section begins: the title, and whatever holds a heading `## `."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "markdown" and re.search(r"^##? ", cell.source, re.M)
    ]


def heading(cell):
    """What the section is called that begins with a cell."""
    return re.search(r"^##? +(.+)$", cell.source, re.M)[1]


# From cells to slides ---------------------------------------------------------------------------


@dataclass
class Slide:
    """What is shown, and what the lecturer reads, both as HTML."""

    shown: str
    notes: str


class Section(NamedTuple):
    """Slides that stand one below the other."""

    title: str
    minutes: int
    slides: list


def sections_of(notebook):
    """The sections of a lesson, with their slides."""
    about, found, slides = notebook.metadata["slides"], [], []
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        if cell.id in about["sections"]:
            found.append(Section(heading(cell), about["sections"][cell.id], []))
        new = [Slide(shown, notes_of(cell)) for shown in shown_of(cell, following)]
        if slides and not new:
            slides[-1].notes += notes_of(cell)  # what is not shown is still said
        if new and not slides:
            new[0].notes = overview(about, notebook) + new[0].notes
            new.append(Slide(opening(about["question"]), expected(about)))
        found[-1].slides.extend(new)
        slides += new
    return found


def shown_of(cell, following):
    """The slides of a cell as HTML. A card has the stub that follows it on its last slide."""
    about, tags = cell.metadata.get("slide", {}), cell.metadata.get("tags", [])
    show = about.get("show", "both")
    if show == "nothing" or {"exercise", "check"} & set(tags):
        return []
    if cell.cell_type == "markdown":
        stub = ""
        if following and "exercise" in following.metadata.get("tags", []):
            hidden = following.metadata.get("slide", {}).get("show") == "nothing"
            stub = "" if hidden else program(following.source, HEIGHT / 2)
        *first, last = map(words, texts(cell))
        return [slide("text", one) for one in first] + [slide("text", last + stub)]
    code = without_predictions(cell.source)
    found = [slide("code", program(code))] if code and show != "output" else []
    return found + (outputs(cell) if show != "code" else [])


def slide(kind, shown):
    """What is shown, in the box that deck.css gives a slide of its kind."""
    return f'<div class="slide {kind}">{shown}</div>'


def texts(cell):
    """The text of a cell, one for each slide: cut at `---`, or, if it is the cell's own, at ##."""
    own = cell.metadata.get("slide", {}).get("text")
    if own:
        found = re.split(r"^---\s*$", own, flags=re.M)
    else:
        found = re.split(r"^(?=#{1,6} )", cell.source, flags=re.M)
    return [text.strip() for text in found if text.strip()]


def words(markdown):
    """Text as HTML without ids, and without links into the course, which a deck does not hold."""
    html = render.text(markdown, link=lambda target: "#")
    html = re.sub(r'<a href="#">(.*?)</a>', r"\1", html, flags=re.S)
    return re.sub(r'(<h\d) id="[^"]*"', r"\1", html)


def line(markdown):
    """One line of text as HTML, without a paragraph around it."""
    return words(markdown).strip().removeprefix("<p>").removesuffix("</p>")


def without_predictions(source):
    """Code without calls of check.predict: in a lecture, the audience guesses aloud."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        match node:
            case ast.Expr(ast.Call(ast.Attribute(ast.Name("check"), "predict"))):
                del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines).strip()


def outputs(cell):
    """The outputs of a cell as slides: few printed lines stand above a picture."""
    found, above = [], ""
    for kind, html in render.parts(cell, inlined):
        lines = lines_of(html) if kind == "text" else []
        if kind == "text" and len(lines) > FEW:
            parts = -(-len(lines) // MANY)
            each = -(-len(lines) // parts)
            found += [
                slide("output", printed(lines[start : start + each]))
                for start in range(0, len(lines), each)
            ]
        elif kind == "text":
            above = lines
        elif kind == "picture":
            found.append(slide(kind, (printed(above, HEIGHT / 3) if above else "") + html))
            above = ""
        elif "<iframe" in html:  # and not what a check says of an empty answer
            found.append(slide("live", html))
    return found + ([slide("output", printed(above))] if above else [])


def inlined(png, alt):
    """The address of a picture that holds all of it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def lines_of(html):
    """The lines of code or output that HTML shows."""
    return unescape(re.sub(r"<[^>]*>", "", html)).rstrip("\n").split("\n")


def font(lines, width=WIDTH, height=HEIGHT):
    """The largest letters by which lines fit into a box, in CSS pixels."""
    longest = max([1, *map(len, lines)])
    return min(LARGEST, width / (LETTER * longest), height / (LINE * len(lines)))


def program(source, height=HEIGHT):
    """Code in the largest letters by which it fits."""
    style = f'<pre style="font-size:{font(source.splitlines(), height=height):.1f}px" '
    return render.code(source).replace("<pre ", style, 1)


def printed(lines, height=HEIGHT):
    """Output in the largest letters by which it fits: as it is, in two columns, or wrapped."""
    half = -(-len(lines) // 2)
    columns = [lines[:half], lines[half:] or [""]]
    letters = WIDTH / LETTER / (26 if len(lines) <= 2 else 18)  # of a line that is wrapped
    wrapped = [part for line in lines for part in wrap(line, int(letters), **HANG) or [""]]
    ways = {
        "as it is": (font(lines, height=height), [lines]),
        "columns": (min(font(one, (WIDTH - 60) / 2, height) for one in columns), columns),
        "wrapped": (font(wrapped, height=height), [wrapped]),
    }
    best = max(ways, key=lambda way: ways[way][0] * (1.2 if way == "as it is" else 1))
    size, parts = ways[best]
    shown = "".join(render.plain("\n".join(part)) for part in parts)
    return f'<div class="printed" style="font-size:{size:.1f}px">{shown}</div>'


# What the lecturer reads ------------------------------------------------------------------------


def notes_of(cell):
    """The notes of a cell: the lecturer's, and all of its text, or the code that ran."""
    own = cell.metadata.get("slide", {}).get("notes", "")
    if "check" in cell.metadata.get("tags", []):
        full = ""
    elif cell.cell_type == "markdown":
        full = words(cell.source)
    else:
        full = f'<pre style="white-space:pre-wrap">{escape(cell.source)}</pre>'
    return words(own) + (f'<hr><div style="font-size:0.8em">{full}</div>' if full else "")


def opening(question):
    """The slide of the question to open with."""
    return slide("question", f"<h2>A question first</h2>{words(question)}")


def expected(about):
    """The wrong answers to expect, and what to say."""
    rows = "".join(
        f"<dt>{line(pair['answer'])}</dt><dd>{line(pair['say'])}</dd>" for pair in about["expect"]
    )
    return f"<h3>Wrong answers to expect, here or later</h3><dl>{rows}</dl>"


def overview(about, notebook):
    """For the lecturer, before the lecture: when each section begins, and what will be asked."""
    start, rows = 0, ""
    for cell in notebook.cells:
        if cell.id in about["sections"]:
            minutes = about["sections"][cell.id]
            rows += f"<tr><td>{start}</td><td>{minutes}</td><td>{line(heading(cell))}</td></tr>"
            start += minutes
    head = "<tr><th>at minute</th><th>takes</th><th>section</th></tr>"
    return (
        f"<h3>For the lecturer: {about['minutes']} minutes</h3><table>{head}{rows}</table>"
        f"<p>The question to open with stands on the next slide.</p>{expected(about)}"
    )


# The page ---------------------------------------------------------------------------------------


def deck(notebook):
    """The deck of a lesson, as one page of HTML."""
    about, title = notebook.metadata["slides"], render.title(notebook)
    start, body = 0, ""
    for section in sections_of(notebook):
        count, stack = len(section.slides), ""
        for number, one in enumerate(section.slides):
            now = start + number * section.minutes / count
            clock = f"At {now:.0f} of {about['minutes']} minutes"
            where = f"{escape(section.title)}, {section.minutes} min"
            stack += (
                f'<section data-timing="{60 * section.minutes / count:.0f}">{one.shown}'
                f'<p class="where">{line(section.title)}</p>'
                f'<aside class="notes"><p class="clock"><b>{clock}</b> ({where})</p>'
                f"{one.notes}</aside></section>\n"
            )
        body += f"<section>\n{stack}</section>\n"
        start += section.minutes
    return render.page(
        "deck.html",
        generator=OURS,
        minutes=str(about["minutes"]),
        title=escape(title),
        licences="\n".join(
            (web.package(name) / "LICENSE").read_text() for name in ("reveal.js", "katex")
        ),
        style=katex_style() + reveal("reveal.css") + render.style() + render.theme("deck.css"),
        script="\n".join(
            inside_script(text)
            for text in (
                katex("katex.min.js"),
                katex("contrib/auto-render.min.js"),
                reveal("reveal.js"),
                reveal("plugin/notes.js"),
                render.theme("deck.js"),
            )
        ),
        slides=body,
    )


def reveal(name):
    """A file of reveal.js."""
    return (web.package("reveal.js") / "dist" / name).read_text(encoding="utf-8")


def katex(name):
    """A file of KaTeX."""
    return (web.package("katex") / "dist" / name).read_text(encoding="utf-8")


def katex_style():
    """The style of KaTeX, with its fonts inside."""

    def font(match):
        content = (web.package("katex") / "dist" / match[1]).read_bytes()
        address = f"data:font/woff2;base64,{base64.b64encode(content).decode()}"
        return f'src:url({address}) format("woff2")'

    return re.sub(r"src:url\((fonts/[^)]*\.woff2)\)[^;}]*", font, katex("katex.min.css"))


def inside_script(text):
    """A script as it can stand in a page: nothing in it ends or nests a <script>."""
    return re.sub(r"<(?=!--|/?script)", r"\\x3c", text, flags=re.I)


# The folder -------------------------------------------------------------------------------------


def slides(lessons=(), out=None, root=ROOT):
    """Write the decks of lessons, or of all that have slides, and an index: their paths.

    lessons   what their names begin with, such as "01"
    out       the folder: a new one, an empty one, or one that this has written before
    """
    root = Path(root)
    out = Path(out) if out else root / "slides"
    decks = {}
    for path in chosen([lessons] if isinstance(lessons, str) else lessons, root):
        refuse_foreign(out, f"{path.stem}.html")
        notebook = render.lesson(path)
        if source(path).is_file():
            add_metadata(notebook, source(path))
        if "slides" in notebook.metadata:
            decks[f"{path.stem}.html"] = deck(notebook)
            continue
        line = f"{path.stem} has no slides yet: describe them in {source(path)}"
        if lessons:
            raise ValueError(line)
        print(line, file=sys.stderr)
    if not decks:
        raise ValueError("no lesson has slides yet")
    write({**decks, "index.html": index(decks, out)}, out)
    return [out / name for name in decks]


def chosen(lessons, root):
    """The notebooks whose names begin so; without names, all lessons."""
    paths = sorted((root / "notebooks").glob("[0-2][0-9]-*.ipynb"))
    for wanted in lessons:
        if not any(path.stem.startswith(wanted) for path in paths):
            known = ", ".join(path.stem for path in paths) or "none: run this from a clone"
            raise ValueError(f"no lesson begins with {wanted!r}: choose from {known}")
    return [path for path in paths if path.stem.startswith(tuple(lessons) or "")]


def refuse_foreign(out, name):
    """Raise an error if the folder, or the file of that name in it, was not written by this."""
    if out.is_dir() and not any(out.iterdir()) or not os.path.lexists(out):
        return
    deck = out / name
    if not ours(out / "index.html") or (os.path.lexists(deck) and not ours(deck)):
        raise FileExistsError(f"{out} holds what is not of vitcourse slides: name another --out")


def ours(path):
    """Whether a file is a page that this wrote."""
    return path.is_file() and OURS in path.read_text(encoding="utf-8", errors="replace")[:1000]


def index(decks, out):
    """The page that lists the decks: the new ones, and those that are in the folder."""
    pages = {path.name: path.read_text(encoding="utf-8") for path in out.glob("??-*.html")}
    rows = ""
    for name, page in sorted({**pages, **decks}.items()):
        about = re.search(r'"minutes" content="(\d+)">\s*<title>(.*?)</title>', page)
        if about:
            rows += f'<li><a href="{escape(name)}">{about[2]}</a> {about[1]} min</li>\n'
    return render.page("decks.html", generator=OURS, style=render.style(), rows=rows)


def write(pages, out):
    """Write pages into a folder. A new one appears whole; in one that is there, each page does."""
    if out.is_dir() and any(out.iterdir()):
        for name, page in pages.items():
            write_whole(out / name, page.encode())
        return
    with whole_folder(out) as folder:
        for name, page in pages.items():
            (folder / name).write_bytes(page.encode())
