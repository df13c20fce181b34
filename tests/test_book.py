"""The book: every link leads somewhere, nothing comes from a network, all or nothing appears."""

import functools
import json
import os
import posixpath
import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from vitcourse import cli
from vitcourse.lab import api, book, pages
from vitcourse.lab.workspace import ROOT, published

LIMIT = 1_500_000  # bytes of a page without its figures
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
README = """# vitcourse

A course.

## The lessons

| part | lessons |
|---|---|
| Build it | [00 start](notebooks/00-start.ipynb) · [01 patches](notebooks/01-patches.ipynb) |

## Afterwards

<!-- papers -->
| system | paper | what it changes | parameters (reported) | lines | lesson |
| --- | --- | --- | --- | --- | --- |
| [DeiT](notebooks/papers/deit.ipynb) | [a](https://a.org/1) | ViT.x\\_\\_ | a 1 · b 2 | 3 | 01 |
<!-- end -->
"""


@pytest.fixture(scope="session")
def katex(tmp_path_factory):
    """A KaTeX that needs no network: the book only copies it."""
    folder = tmp_path_factory.mktemp("katex")
    (folder / "dist" / "contrib").mkdir(parents=True)
    (folder / "dist" / "fonts").mkdir()
    style = '@font-face{src:url(fonts/A.woff2) format("woff2"),url(fonts/A.woff) format("woff")}'
    (folder / "dist" / "katex.min.css").write_text(style)
    for name in ("LICENSE", "dist/katex.min.js", "dist/contrib/auto-render.min.js"):
        (folder / name).write_text("")
    (folder / "dist" / "fonts" / "A.woff2").write_bytes(b"font")
    return folder


@pytest.fixture(scope="session")
def files(katex):
    """The whole book, {path: bytes}."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "package", lambda name: katex)
        return book.build(ROOT)


@pytest.fixture
def course(tmp_path, monkeypatch, katex):
    """A small course, whose book is built in a moment."""
    monkeypatch.setattr(book, "package", lambda name: katex)
    about = {"image/png": {"alt": "a dot", "width": 1, "height": 1}}
    figure = new_output("display_data", {"image/png": PNG, "text/plain": "a dot"}, metadata=about)
    cells = [
        new_markdown_cell(
            "# 00 · Start & go\n\nSee [glossary](../docs/glossary.md#terms).", id="a"
        ),
        new_code_cell("show()", id="b", execution_count=1, outputs=[figure, figure]),
        new_markdown_cell("## Again\n\n$x_i$ for `$x`\n\n### Exercise: two\n\ncard", id="c"),
        new_code_cell("...", id="d", execution_count=2, metadata={"tags": ["exercise"]}),
        new_code_cell("check.two(1)", id="e", execution_count=3, metadata={"tags": ["check"]}),
        new_markdown_cell("## Again\n\n[the licence](../LICENSE)", id="f"),
    ]
    texts = {
        "README.md": README,
        "CONTRIBUTING.md": "# How\n\n[the start](README.md) and [after](README.md#afterwards)",
        "LICENSE": "MIT",
        "data/README.md": "# Data",
        "docs/glossary.md": "# Glossary\n\n`$a` and `$b`\n\n## Terms\n\n| a |\n|---|\n| 1 |",
        "vitcourse/vit.py": '"""The model."""\n\n\ndef cut(x, *, patch=2):\n    """Cut x."""\n'
        "\n\ndef search():\n    ...\n",
        "benchmarks/results/claim-cut.json": json.dumps(
            {
                "question": "Is it so?",
                "environment": {"date": "2026-01-01", "gpu": None},
                "figures": {"a": {"mean": 0.5, "spread": 0.1, "each": [0.4, 0.6]}},
                "pairs": {"a beats b": {"difference": [0.1, -0.2], "holds": False}},
            }
        ),
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("00-start", "01-patches", "02-more", "papers/deit"):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        number = name[:2] if name[0] == "0" else "07"
        first = new_markdown_cell(cells[0].source.replace("00", number), id="a")
        if "/" in name:
            first.source = first.source.replace("../docs", "../../docs")
        rest = cells[1:-1] if "/" in name else cells[1:]
        nbformat.write(new_notebook(cells=[first, *rest]), path)
    return tmp_path


class Read(HTMLParser):
    """What stands in a page: its ids, headings, links, images, and what a browser would load."""

    LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}

    def __init__(self, html):
        super().__init__()
        self.ids, self.headings, self.links, self.images, self.loads = [], [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "a":
            self.links.append(given["href"])
        if tag == "img":
            self.images.append(given)
        self.loads += [given[self.LOADS[tag]]] if given.get(self.LOADS.get(tag)) else []
        self.loads += re.findall(r"url\(([^)]*)\)", given.get("style", ""))
        if "srcdoc" in given:
            self.loads += Read(given["srcdoc"]).loads
            self.loads += re.findall(r"https?://[^\s\"'<]+", given["srcdoc"])


@functools.cache
def read(text):
    return Read(text)


def html(files):
    return {name: data.decode() for name, data in files.items() if name.endswith(".html")}


def dead(files):
    """Links and files of the book that lead nowhere."""
    parsed = {name: read(text) for name, text in html(files).items()}
    found = []
    for name, page in parsed.items():
        for target in page.links + page.loads:
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), file))
            path = name if not file else path
            if not target or path not in files or (anchor and anchor not in parsed[path].ids):
                found.append(f"{name}: {target}")
    sheets = {name: data.decode() for name, data in files.items() if name.endswith(".css")}
    for name, text in sheets.items():
        for target in re.findall(r"url\(([^)]*)\)", text):
            if posixpath.join(posixpath.dirname(name), target) not in files:
                found.append(f"{name}: {target}")
    return found


def outside(files):
    """What a browser would load from a network."""
    found = [
        f"{name}: {address[:60]}"
        for name, text in html(files).items()
        for address in read(text).loads
        if re.match(r"(?!data:)[a-z]+:|//", address)
    ]
    for name, data in files.items():
        if name.endswith((".css", ".js")) and "katex" not in name and "search" not in name:
            found += [f"{name}: {a}" for a in re.findall(r"https?://[^\s\"')]+", data.decode())]
    return found


def disorder(files):
    """Pages whose headings leave a level out, whose ids are not unique, or without one h1."""
    found = []
    for name, text in html(files).items():
        page = read(text)
        levels = page.headings
        jumps = any(b > a + 1 for a, b in zip([0, *levels], levels, strict=False))
        if jumps or levels.count(1) != 1 or len(set(page.ids)) < len(page.ids):
            found.append(name)
    return found


def search(files):
    return json.loads(files["assets/search.js"].decode()[len("window.SEARCH = ") : -2])


# The book of the course ---------------------------------------------------------------------------


def test_every_link_leads_somewhere(files):
    assert not dead(files)


def test_nothing_is_loaded_from_a_network(files):
    assert not outside(files)


def test_headings_are_in_order_and_ids_unique(files):
    assert not disorder(files)


def test_pages_are_light(files):
    pages = [name for name in files if name.endswith((".html", ".js", ".css"))]
    assert not [name for name in pages if len(files[name]) >= LIMIT]


def test_every_file_has_its_page(files):
    for name in published(ROOT):
        path = f"notebooks/{name.removesuffix('.ipynb')}"
        assert files[f"{path}.ipynb"] == (ROOT / f"{path}.ipynb").read_bytes()
        assert f'href="{posixpath.basename(path)}.ipynb" download' in files[f"{path}.html"].decode()
    for pattern in ("docs/*.md", "benchmarks/results/*.json", "vitcourse/*.py"):
        for path in ROOT.glob(pattern):
            assert pages.place(path.relative_to(ROOT).as_posix()) in files


def test_every_page_can_be_reached_from_the_first(files):
    links = {
        name: {
            posixpath.normpath(posixpath.join(posixpath.dirname(name), link.partition("#")[0]))
            for link in read(text).links
        }
        for name, text in html(files).items()
    }
    reached, new = set(), {"index.html"}
    while new:
        reached |= new
        new = {link for name in new for link in links[name] if link in links} - reached
    assert reached == set(links)


def test_a_search_can_find_every_lesson(files):
    found = search(files)
    for name in published(ROOT):
        page = f"notebooks/{name.removesuffix('.ipynb')}.html"
        shown = read(files[page].decode())
        here = [entry for entry in found if entry[0] == page]
        ids = [entry[3] for entry in here]
        assert len(here) == len(shown.headings) >= 4 and ids[0] == "" and all(ids[1:])
        assert set(ids[1:]) <= set(shown.ids) and all(entry[2] for entry in here[1:])
        assert not any("<" in entry[4] and "</" in entry[4] for entry in here)
    titles = [entry[1] for entry in found if "class token" in entry[1].lower()]
    assert "02 · The class token" in titles


def test_figures_are_files_with_text_and_size(files):
    shown = [image for text in html(files).values() for image in read(text).images]
    pictures = [image for image in shown if image.get("class") == "picture"]
    assert len(pictures) > 100
    for image in pictures:
        assert image["alt"].strip() and image["loading"] == "lazy"
        assert int(image["width"]) and int(image["height"]) and image["src"].endswith(".png")
    assert all(image["alt"].strip() for image in shown)


def test_every_exercise_has_its_hints(files):
    from vitcourse.check import EXERCISES

    for name, text in html(files).items():
        if not name.startswith("notebooks/"):
            continue
        cells = re.findall(r'<section class="exercise">(.*?)</section>', text, re.S)
        assert text.count("<section") == text.count("</section>") == len(cells), name
        for cell in cells:
            source = re.sub(r"<[^>]*>", "", cell)
            checked = re.findall(r"^check\.(\w+)\(", source, re.M)
            hints = sum(len(EXERCISES[exercise].hints) for exercise in checked)
            assert cell.count("<details>") == hints > 0, name


def test_nothing_of_this_computer_is_in_it(files):
    assert not [name for name, data in files.items() if str(ROOT).encode() in data]


# Faults are noticed -------------------------------------------------------------------------------


def test_faults_in_a_book_are_noticed(course):
    good = book.build(course)
    assert not dead(good) and not outside(good) and not disorder(good)

    def with_(text, name="index.html"):
        return good | {name: good[name].replace(b"</main>", text.encode() + b"</main>")}

    assert dead(with_('<a href="nowhere.html">a</a>')) == ["index.html: nowhere.html"]
    assert dead(with_('<a href="#nowhere">a</a>')) == ["index.html: #nowhere"]
    assert dead(with_('<a href="docs/glossary.html#no">a</a>'))
    assert dead(with_('<img alt="a" src="no.png">'))
    assert dead(good | {"assets/a.css": b"a { background: url(no.png) }"})
    for text in (
        '<img alt="a" src="https://example.org/a.png">',
        '<script src="//example.org/a.js"></script>',
        '<p style="background: url(https://example.org/a.png)">',
        '<iframe srcdoc="<script>fetch(`https://example.org/`)</script>"></iframe>',
    ):
        assert outside(with_(text)), text
    assert not outside(with_('<a href="https://arxiv.org/abs/1">a</a>'))
    assert outside(good | {"assets/b.css": b"@import 'https://example.org/a.css'"})
    assert disorder(with_("<h1>a</h1>")) and disorder(with_('<p id="content"></p>'))
    assert disorder(good | {"docs/glossary.html": b"<h1>a</h1><h3>b</h3>"})


def test_the_pages_of_a_small_course(course):
    files = book.build(course)
    lesson = files["notebooks/00-start.html"].decode()
    assert '<a href="../docs/glossary.html#terms">glossary</a>' in lesson
    assert "<p>the licence</p>" in lesson  # no page: plain text
    assert "vitcourse/vit.html" not in lesson  # modules are listed on pages of modules
    assert 'id="again"' in lesson and 'id="again-again"' in lesson
    assert lesson.count('src="00-start/b-1.png"') == lesson.count('src="00-start/b-2.png"') == 1
    assert files["notebooks/00-start/b-1.png"].startswith(b"\x89PNG")
    assert "katex.js" in lesson and "katex.js" not in files["docs/glossary.html"].decode()
    assert "<title>00 · Start &amp; go · vitcourse</title>" in lesson
    assert '<a href="../index.html"' in lesson and ">Next</small> 01" in lesson
    assert ".woff)" not in files["assets/katex/katex.css"].decode()
    assert 'href="guide.html#afterwards"' in files["CONTRIBUTING.html"].decode()
    index = files["index.html"].decode()
    assert "<h3>Ways in</h3>" in index  # a notebook that the map does not name has its place
    table = files["papers.html"].decode()
    assert "ViT.x__" in table and "a 1<br>b 2" in table and "01 · Start" in table
    record = files["benchmarks/results/claim-cut.html"].decode()
    assert "Is it so?" in record and "+0.100" in record and "negative" in record
    module = files["vitcourse/vit.html"].decode()
    assert 'href="#line-4"' in module and 'id="line-4"' in module
    assert "cut(x, *, patch=2)" in re.sub(r"<[^>]*>", "", module)


def test_the_same_course_gives_the_same_bytes(course):
    first, second = book.build(course), book.build(course)
    assert list(first) == list(second) and first == second


def test_signatures():
    import ast

    def signature(source):
        return api.signature(ast.parse(source).body[0])

    assert signature("def f(a, *b, c=1, **d): ...") == "f(a, *b, c=1, **d)"
    assert signature("class A(B):\n    def __init__(self, c): ...") == "class A(B)\nA(c)"
    assert signature("class A:\n    x = 1") == "class A"
    assert (
        signature("@dataclass(frozen=True)\nclass A:\n    x: int = 1") == "class A\nA(x: int = 1)"
    )
    method = ast.parse("class A:\n    @classmethod\n    def f(cls, a): ...").body[0].body[0]
    assert api.signature(method) == "f(a)"
    long = signature(f"def f({', '.join(f'argument_{n}' for n in range(20))}): ...")
    assert max(map(len, long.split("\n"))) <= 80 and "\n    " in long


# What is refused ----------------------------------------------------------------------------------


def test_a_new_folder_an_empty_one_and_an_earlier_book(course):
    out = course / "a" / "site"
    assert book.book(out, course) == out / "index.html"
    written = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert written == {*book.build(course), book.SEAL}
    assert [path.name for path in out.parent.iterdir()] == ["site"]
    (course / "docs" / "new.md").write_text("# New")
    book.book(out, course)  # the earlier book goes
    assert (out / "docs" / "new.html").is_file()
    (course / "docs" / "new.md").unlink()
    book.book(out, course)
    assert not (out / "docs" / "new.html").exists()
    (course / "empty").mkdir()
    assert book.book(course / "empty", course).is_file()
    assert book.book(root=course) == course / "book" / "index.html"


@pytest.mark.parametrize("change", ["foreign", "file", "link", "added", "changed", "removed"])
def test_what_is_not_an_unchanged_book_is_left_alone(course, change):
    out = course / "site"
    if change in ("added", "changed", "removed"):
        book.book(out, course)
    if change == "foreign":
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    elif change == "file":
        out.write_text("mine")
    elif change == "link":
        out.symlink_to(course / "docs")
    elif change == "added":
        (out / "docs" / "mine.txt").write_text("mine")
    elif change == "changed":
        (out / "index.html").write_text("mine")
    else:
        (out / "index.html").unlink()
    before = sorted(p for p in course.rglob("*"))
    with pytest.raises(FileExistsError, match="site holds something else than an unchanged book"):
        book.book(out, course)
    assert sorted(p for p in course.rglob("*")) == before


@pytest.mark.parametrize("there", [True, False])
def test_the_book_appears_whole_or_not_at_all(course, monkeypatch, there):
    out = course / "site"
    if there:
        book.book(out, course)
    before = {p: p.read_bytes() for p in course.rglob("*") if p.is_file()}
    rename = os.rename

    def fail(a, b):
        if b == out and a.name == "new":
            raise OSError("the disk is full")
        rename(a, b)

    monkeypatch.setattr(book.os, "rename", fail)
    with pytest.raises(OSError, match="full"):
        book.book(out, course)
    assert {p: p.read_bytes() for p in course.rglob("*") if p.is_file()} == before


def test_what_is_wrong_with_a_course_is_one_line(course, capsys, monkeypatch):
    real = book.book
    monkeypatch.setattr(book, "book", lambda out: real(out, course))

    def says(words):
        assert cli.main(["book", "--out", str(course / "site")]) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1 and not (course / "site").exists()

    def change(name, old, new):
        path = course / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return lambda: path.write_text(text)

    lesson = "notebooks/00-start.ipynb"
    for name, old, new, words in [
        (lesson, '"execution_count": 1', '"execution_count": null', "was not executed"),
        (
            lesson,
            "../docs/glossary.md",
            "../docs/nowhere.md",
            "links to ../docs/nowhere.md#terms, which",
        ),
        ("README.md", "| part |", "| a part |", "README.md has no map of the lessons"),
        ("README.md", "<!-- end -->", "", "README.md has no table between"),
    ]:
        back = change(name, old, new)
        says(words)
        back()
    assert cli.main(["book", "--out", str(course / "site")]) == 0
    assert capsys.readouterr().out == f"{course / 'site' / 'index.html'}\n"
