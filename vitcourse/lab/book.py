"""The book: lessons, papers, documents, records and code as a static site.

It opens from the file system, and nothing in it asks for a network. A page lies where its source
lies in the repository: notebooks/04-attention.ipynb becomes notebooks/04-attention.html.
"""

import hashlib
import json
import os
import re
from html import escape
from pathlib import Path

from vitcourse.files import whole_folder
from vitcourse.lab import api, pages, render
from vitcourse.lab.frame import ALONE, assemble, entries, identified
from vitcourse.lab.pages import Page
from vitcourse.lab.web import package
from vitcourse.lab.workspace import ROOT, published

SEAL = ".vitcourse-book"  # the file that says that a folder is a book, and what it holds
EXPLORER = "notebooks/01-patches.ipynb"  # its first explorer stands on the first page
PAPERS = re.compile(r"<!-- papers -->\n(.*?)<!-- end -->", re.S)
OLD_FONTS = re.compile(r",url\([^)]*\.(woff|ttf)\) format\([^)]*\)")  # every browser reads woff2


def book(out=None, root=ROOT):
    """Write the book: its first page. Everything is written, or nothing is.

    out  the folder: a new one, an empty one, or one that holds an earlier book as it was written
    """
    root = Path(root)
    out = Path(out) if out else root / "book"
    need_room(out)
    write(out, build(root))
    return out / "index.html"


def build(root):
    """All files of the book, {path: bytes}."""
    readme = (root / "README.md").read_text()
    parts = collect(root, readme)
    every = [page for _, group in parts for page in group]
    files, index = {}, []
    for page in every:
        page.pieces = identified(page.pieces)
        index += entries(page)
        files[page.path] = assemble(page, parts).encode()
        folder = Path(page.path).parent
        files |= {(folder / name).as_posix(): content for name, content in page.files.items()}
    found = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    files["assets/search.js"] = f"window.SEARCH = {found};\n".encode()
    return files | assets()


# What the book holds ------------------------------------------------------------------------------


def collect(root, readme):
    """The parts of the book: pairs of a name and its pages, in the order in which they are read."""
    notebooks = [f"notebooks/{name}" for name in published(root)]
    documents = sorted(p.relative_to(root).as_posix() for p in (root / "docs").glob("*.md"))
    documents += ["CONTRIBUTING.md", "data/README.md"]
    records = sorted(p.relative_to(root).as_posix() for p in root.glob("benchmarks/results/*.json"))
    modules = sorted(p.relative_to(root).as_posix() for p in root.glob("vitcourse/**/*.py"))
    modules = [name for name in modules if "check/lessons/" not in name]  # they hold the solutions
    every = ["README.md", *notebooks, *documents, *records, *modules]
    known = {name: pages.place(name) for name in every}
    for heading in re.findall(r"^#+ (.+)$", readme[the_map(readme).end() :], re.M):
        known[f"README.md#{render.slug(heading)}"] = "guide.html"

    def link(source):
        return pages.linker(source, known, root)

    read = {name: pages.notebook(name, root, link(name), known) for name in notebooks}
    lessons = mapped(readme, [name for name in notebooks if "/papers/" not in name])
    order = re.findall(r"\]\((notebooks/papers/\w+\.ipynb)\)", readme)
    papers = sorted(
        (name for name in notebooks if "/papers/" in name),
        key=lambda name: (order.index(name) if name in order else len(order), name),
    )
    records = [pages.record(name, root) for name in records]
    modules = [api.module(name, root) for name in modules]
    lessons = [(part, [read[name] for name in names]) for part, names in lessons]
    papers = [paper_table(readme, link("README.md"), read), *(read[name] for name in papers)]
    documents = [pages.document(n, (root / n).read_text(), link(n)) for n in documents]
    front, guide = introduction(readme, link("README.md"), lessons)
    reference = [guide, record_table(records), api.contents(modules), *documents]
    return [
        ("Start", [front]),
        *lessons,
        ("Papers", papers),
        ("Reference", reference),
        (ALONE[0], records),
        (ALONE[1], modules),
    ]


def mapped(readme, names):
    """The lessons by the parts of the README's map: pairs of a part and its notebooks."""
    rows = [(part, re.findall(r"\b\d\d(?= )", line)) for part, line in map_rows(readme)]
    parts = [(part, [n for n in names if Path(n).name[:2] in numbers]) for part, numbers in rows]
    placed = {name for _, group in parts for name in group}
    parts.append(("Ways in", [name for name in names if name not in placed]))
    return [(part, group) for part, group in parts if group]


def map_rows(readme):
    """The rows of the README's map: pairs of a part and the text of its lessons."""
    rows = re.findall(r"^\| *([^|]+?) *\| *(.+?) *\|$", the_map(readme)[0], re.M)
    return [row for row in rows if set(row[0]) != {"-"}][1:]


def the_map(readme):
    """Where the README has its map of lessons."""
    found = re.search(r"^\| part \| lessons \|\n(\|.*\n)+", readme, re.M)
    if not found:
        raise ValueError("README.md has no map of the lessons, a table with | part | lessons |")
    return found


# Pages that no single file makes ----------------------------------------------------------------


def introduction(readme, link, lessons):
    """The first page, which is the README up to its map of lessons, and the guide: the rest."""
    found = the_map(readme)
    kind, html = pages.text(readme[: found.start()], link)
    first = next(page for _, group in lessons for page in group)
    below = f'<p class="buttons"><a class="button" href="{first.path}">Start with lesson 00</a>'
    below += '<a class="button quiet" href="papers.html">The table of papers</a></p>\n'
    shown = explorer(lessons)
    if shown:
        html = re.sub(r"<p><img.*?></p>", "", html, count=1, flags=re.S)
    html = html.replace("</p>", f"</p>\n{below}{shown}", 1)
    rows = "".join(map_row(part, group) for part, group in lessons)
    pieces = [(kind, html), ("map", f'<div class="map">{rows}</div>\n')]
    rest = PAPERS.sub('<a href="papers.html">The table of papers</a>\n', readme[found.end() :])
    guide = pages.document("guide.md", f"# Guide\n\n{rest}", link)
    return Page("README.md", "vitcourse", pieces, label="Home", wide=True), guide


def explorer(lessons):
    """The explorer for the first page, which stands there in place of the README's picture."""
    for page in (page for _, group in lessons for page in group if page.source == EXPLORER):
        for _, html in page.pieces:
            if "<iframe" in html:
                link = f'<a href="{page.path}">{escape(page.title)}</a>'
                return f'{html}<p class="facts">From {link}. It answers to mouse and finger.</p>\n'
    return ""


def map_row(part, group):
    """One part of the map of lessons."""
    items = "".join(f'<li><a href="{page.path}">{escape(page.title)}</a></li>' for page in group)
    return f"<section><h3>{escape(part)}</h3><ol>{items}</ol></section>\n"


def paper_table(readme, link, read):
    """The README's table of papers, by the lessons that they belong to."""
    found = PAPERS.search(readme)
    if not found:
        raise ValueError("README.md has no table between <!-- papers --> and <!-- end -->")
    head, _, *rows = [re.split(r" *\| *", line.strip("| ")) for line in found[1].splitlines()]
    titles = {page.title[:2]: page.title for page in read.values()}
    text = "# The table of papers\n\nWhat each system changes of the Vision Transformer, computed "
    text += "from its code, and its parameters beside the number that the authors report.\n"
    for lesson in dict.fromkeys(row[-1] for row in rows):
        text += f"\n## {titles.get(lesson, lesson)}\n\n| {' | '.join(head[:-1])} |\n"
        text += "|---" * len(head[:-1]) + "|\n"
        for *cells, number in rows:
            if number == lesson:
                text += f"| {' | '.join(cells)} |\n".replace(" · ", "<br>")
    return Page("papers.html", "The table of papers", [pages.text(text, link)], wide=True)


def record_table(records):
    """The page that lists all recorded results."""
    rows = ""
    for page in records:
        name = page.source.rpartition("/")[2].removesuffix(".json").removeprefix("claim-")
        rows += f'<tr><td><a href="{page.path}">{name}</a></td><td>{escape(page.title)}</td></tr>\n'
    html = (
        "<h1>Recorded results</h1>\n<p>What takes longer than a lesson is run for itself, with "
        "three seeds or more, and recorded: the question, what was expected, what was found, where "
        "and when. Where an expectation did not hold with every seed, the result is negative.</p>\n"
        '<div class="scroll"><table>'
        '<thead><tr><th scope="col">record</th><th scope="col">question</th></tr></thead>'
        f"\n<tbody>{rows}</tbody></table></div>\n"
    )
    return Page("results.html", "Recorded results", [("text", html)], wide=True)


# The folder ---------------------------------------------------------------------------------------


def assets():
    """What all pages share: styles, the script, and KaTeX with its fonts."""
    katex = package("katex")
    styles = render.style() + render.theme("book.css")
    sheet = (katex / "dist" / "katex.min.css").read_text()
    files = {
        "book.css": styles.encode(),
        "book.js": render.theme("book.js").encode(),
        "katex/katex.css": OLD_FONTS.sub("", sheet).encode(),
        "katex/katex.js": (katex / "dist" / "katex.min.js").read_bytes(),
        "katex/auto-render.js": (katex / "dist/contrib/auto-render.min.js").read_bytes(),
        "katex/LICENSE": (katex / "LICENSE").read_bytes(),
    }
    for font in sorted((katex / "dist" / "fonts").glob("*.woff2")):
        files[f"katex/fonts/{font.name}"] = font.read_bytes()
    return {f"assets/{name}": content for name, content in files.items()}


def seal(files):
    """What tells a book that nobody has changed from all other folders."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest().encode()


def need_room(out):
    """Refuse a folder that holds anything but an earlier book, as it was written."""
    if not os.path.lexists(out):
        return
    if out.is_dir() and not out.is_symlink():
        paths = [path for path in out.rglob("*") if not path.is_dir() or path.is_symlink()]
        if not paths:
            return
        held = out / SEAL
        if held.is_file():
            files = {p.relative_to(out).as_posix(): p.read_bytes() for p in paths if p != held}
            if held.read_bytes() == seal(files):
                return
    raise FileExistsError(
        f"{out} holds something else than an unchanged book and is left alone: "
        "name another folder with --out"
    )


def write(out, files):
    """Write the files of a book to a folder, which appears whole or not at all."""
    with whole_folder(out, replaces=True) as folder:
        for name, content in (files | {SEAL: seal(files)}).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
