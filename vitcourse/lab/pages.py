"""The pages of the book, each made from one file of the repository."""

import ast
import json
import posixpath
import re
from dataclasses import dataclass, field
from html import escape, unescape

from vitcourse.lab import render

EXERCISE = re.compile(r"^(?=### Exercise)", re.M)
NUMBER = re.compile(r"([-+]?\d[\d,]*(\.\d+)?(e[-+]\d+)?)?")
RECORDED = re.compile(r"""recorded\(["']([\w-]+)["']\)""")


@dataclass
class Page:
    """One page of the book.

    source  the file it is made from, as a path in the repository
    pieces  pairs of kind and HTML; what is "text" can be found by searching, the rest is only shown
    label   what lists of pages call it
    files   what lies beside it: {name: bytes}
    wide    whether it takes the room of the contents beside it
    """

    source: str
    title: str
    pieces: list
    label: str = ""
    files: dict = field(default_factory=dict)
    wide: bool = False

    def __post_init__(self):
        self.label = self.label or self.title

    @property
    def path(self):
        """Where the page lies in the book."""
        return place(self.source)


def place(source):
    """Where the page of a file lies in the book: where the file lies in the repository."""
    return "index.html" if source == "README.md" else f"{posixpath.splitext(source)[0]}.html"


def between(here, there):
    """The address of a page or file of the book as it is written on another page."""
    return posixpath.relpath(there, posixpath.dirname(here) or ".")


def linker(source, known, root):
    """What finds the address of a link in the file `source`.

    `known` are the pages of files, {file: path}, and of headings elsewhere, {file#id: path}.
    A file that is no page gives no address, and its link becomes plain text.
    """

    def link(target):
        file, sign, anchor = target.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), file))
        path = known.get(file + sign + anchor) or known.get(file)
        if path:
            return between(place(source), path) + sign + anchor
        if not (root / file).exists():
            raise ValueError(f"{source} links to {target}, which is not there")
        return ""

    return link


def text(markdown, link):
    """Markdown as a piece of a page: tables scroll by themselves, dead links are plain text."""
    html = re.sub(r'<a href="">(.*?)</a>', r"\1", render.text(markdown, link), flags=re.S)
    html = html.replace("<table>", '<div class="scroll"><table>')
    return "text", html.replace("</table>", "</table></div>")


def heading(html):
    """The text of the first heading of some HTML."""
    found = re.search(r"<h1[^>]*>(.*?)</h1>", html, re.S)
    return unescape(re.sub(r"<[^>]*>", "", found[1])).strip()


def document(source, markdown, link):
    """The page of a Markdown file."""
    piece = text(markdown, link)
    return Page(source, heading(piece[1]), [piece])


# Notebooks --------------------------------------------------------------------------------------


def notebook(source, root, link, known):
    """The page of an executed notebook, with its figures and the notebook itself beside it."""
    read = render.lesson(root / source)
    name = posixpath.basename(source)
    files, pieces = {name: (root / source).read_bytes()}, []
    for cell in read.cells:
        if cell.cell_type == "markdown":
            before, *exercise = EXERCISE.split(cell.source, maxsplit=1)
            if before.strip():
                pieces.append(text(before, link))
            for card in exercise:
                pieces += [("open", '<section class="exercise">\n'), text(card, link)]
        elif cell.source.strip():
            tags = cell.metadata.get("tags", [])
            pieces.append(("code", render.code(cell.source)))
            if "check" in tags:  # its output can only be "not attempted"
                pieces.append(("hints", hints(cell.source) + "</section>\n"))
            else:
                pieces += figures(cell, name.removesuffix(".ipynb"), files)
    kind, first = pieces[0]
    records = sorted({f"benchmarks/results/{n}.json" for n in RECORDED.findall(str(read.cells))})
    facts = [f'<a href="{name}" download>Download this notebook</a>']
    for file, words in [
        (f"vitcourse/papers/{name.removesuffix('.ipynb')}.py", "Code"),
        *((record, f"Record: {record[19:-5].removeprefix('claim-')}") for record in records),
    ]:
        if file in known and (words != "Code" or "/papers/" in source):
            facts.append(f'<a href="{between(place(source), known[file])}">{words}</a>')
    line = f'</h1>\n<p class="facts">{" · ".join(facts)}</p>'
    pieces[0] = kind, first.replace("</h1>", line, 1)
    return Page(source, heading(first), pieces, files=files)


def figures(cell, folder, files):
    """The outputs of a cell as pieces; its figures become files."""

    def picture(png, alt):
        number = sum(name.startswith(f"{folder}/{cell.id}-") for name in files) + 1
        files[f"{folder}/{cell.id}-{number}.png"] = png
        return f"{folder}/{cell.id}-{number}.png"

    for kind, html in render.parts(cell, picture):
        if kind == "picture":
            html = html.replace("<img ", '<img loading="lazy" ', 1)
        yield "output", html


def hints(source):
    """The hints for the exercise that a cell checks, each to be opened by itself."""
    from vitcourse.check import EXERCISES  # loads PyTorch

    found = ""
    for name in re.findall(r"^check\.(\w+)\(", source, re.M):
        ladder = EXERCISES[name].hints if name in EXERCISES else ()
        for number, hint in enumerate(ladder, 1):
            summary = f"<summary>Hint {number} of {len(ladder)}</summary>"
            found += f"<details>{summary}<p>{inline(hint)}</p></details>\n"
    return found


def inline(words):
    """Plain text as HTML: `code` and addresses are marked, nothing else is."""
    words = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(words, quote=False))
    return re.sub(r"(https?://[^\s<>)]*[^\s<>).,;:])", r'<a href="\1">\1</a>', words)


# Recorded results ---------------------------------------------------------------------------------


def record(source, root):
    """The page of a recorded result: what was asked, where it ran, what was expected and found."""
    result = json.loads((root / source).read_text())
    name = posixpath.basename(source).removesuffix(".json")
    title = result.get("question") or first_line(root / f"benchmarks/{name.split('-')[0]}.py")
    pieces = [("text", f"<h1>{inline(title)}</h1>\n")]
    if "command" in result:
        pieces.append(("code", render.code(result["command"], "text")))
    if result.get("pairs"):
        rows = [
            [what, *map(signed, pair["difference"]), "holds" if pair["holds"] else "negative"]
            for what, pair in result["pairs"].items()
        ]
        seeds = [f"seed {n}" for n in range(1, max(map(len, rows)) - 1)]
        pieces += section("What was expected", ["pair", *seeds, "with every seed"], rows)
    if result.get("claims"):
        rows = [[what, "holds" if true else "negative"] for what, true in result["claims"].items()]
        pieces += section("What else was expected", ["statement", "found"], rows)
    if result.get("figures"):
        rows = [
            [what, number(f["mean"]), number(f["spread"]), ", ".join(map(number, f["each"]))]
            for what, f in result["figures"].items()
        ]
        pieces += section("Figures", ["figure", "mean", "spread", "each seed"], rows)
    if result.get("rows"):
        rows = [flat(row) for row in result["rows"]]
        head = list(dict.fromkeys(key for row in rows for key in row))
        pieces += section("Figures", head, [[row.get(key, "") for key in head] for row in rows])
    about = result["environment"] | {k: result[k] for k in ("seeds", "cpu_seconds") if k in result}
    rows = [[what.replace("_", " "), str(v)] for what, v in about.items() if v is not None]
    pieces += section("Where and when", ["what", "value"], rows)
    return Page(source, title, pieces, label=name.removeprefix("claim-"), wide=True)


def first_line(script):
    """What a script says of itself in the first line of its docstring."""
    return ast.get_docstring(ast.parse(script.read_text())).splitlines()[0]


def section(title, head, rows):
    """A heading and a table, as pieces."""
    return [("text", f"<h2>{escape(title)}</h2>\n"), ("table", table(head, rows))]


def table(head, rows):
    """A table of plain text; columns of numbers stand to the right."""

    kinds = [
        ' class="number"' if all(NUMBER.fullmatch(row[i]) for row in rows) else ""
        for i in range(len(head))
    ]
    top = "".join(f'<th scope="col"{k}>{escape(h)}</th>' for k, h in zip(kinds, head, strict=True))
    body = ""
    for row in rows:
        cells = (f"<td{k}>{inline(value)}</td>" for k, value in zip(kinds, row, strict=True))
        body += f"<tr>{''.join(cells)}</tr>\n"
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def number(value):
    """A number in four digits; whole, with its thousands, where it is whole or large."""
    whole = value == round(value) or abs(value) >= 1000
    return f"{value:,.0f}" if whole else f"{value:.4g}"


def signed(value):
    """A difference, with its sign."""
    return f"{value:+.3f}" if abs(value) < 1000 else f"{value:+,.0f}"


def flat(row, before=""):
    """A row of a record with the tables in it spread out, as text: {name: value}."""
    found = {}
    for key, value in row.items():
        name = f"{before}{key}".replace("_", " ")
        if isinstance(value, dict):
            found |= flat(value, f"{name}, ")
        elif isinstance(value, list):
            found[name] = ", ".join(map(number, value))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = number(value)
        else:
            found[name] = "" if value is None else str(value)
    return found
