"""The slides: what their metadata must hold, what a deck is made of, what is refused."""

import base64
import json
import re
from html import unescape

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from vitcourse import cli
from vitcourse.lab import notebooks, render, slides, web, workspace

WORDS = 45
LETTERS = 12  # CSS pixels of code and output, at the least
TOMLS = sorted((notebooks.NOTEBOOKS / "source" / "slides").glob("*.toml"))
LOADS = re.compile(  # what a browser fetches; `data:` holds all that it needs
    r"""<(?:img|script|iframe|link|object|embed|video|audio)\b[^>]*?\s(?:src|href|data)\s*=\s*["']?+(?!data:)
    |url\(\s*["']?+(?!data:)|@import""",
    re.X,
)


def lesson(path):
    """The notebook of a .toml, executed, with the metadata of its slides."""
    notebook = render.lesson(notebooks.NOTEBOOKS / path.with_suffix(".ipynb").name)
    slides.add_metadata(notebook, path)
    return notebook


def word_count(markdown):
    """The words of a text; mathematics, tables and code are not counted."""
    text = re.sub(
        r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|^\|.*?$", " ", markdown, flags=re.S | re.M
    )
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


def faults(notebook):
    """What the slides of a lesson do that a lecture cannot bear."""
    about = notebook.metadata["slides"]
    shown = [("the question", about["question"])]
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        if cell.cell_type == "markdown" and slides.shown_of(cell, following):
            shown += [(cell.id, text) for text in slides.texts(cell)]
        for html in slides.shown_of(cell, following):
            for size in re.findall(r"font-size:([\d.]+)px", html):
                if float(size) < LETTERS:
                    yield f"{cell.id}: letters of {size} pixels: show less, or nothing"
    for name, text in shown:
        if word_count(text) > WORDS:
            yield f"{name}: {word_count(text)} words on a slide, more than {WORDS}: {text[:40]!r}"
    for section in slides.sections_of(notebook):
        if not section.slides:
            yield f"the section {section.title} has no slide"


@pytest.mark.parametrize("path", TOMLS, ids=lambda path: path.stem)
def test_the_slides_of_a_lesson(path):
    assert not list(faults(lesson(path)))


# Figures of a slide that its lesson does not say: worked out in class, or wrong answers ----------

BY_HEART = {
    "00-start-here": {"8320"},
    "02-class-token": {"101", "102", "103", "104", "110", "111", "112", "113", "114"}
    | {"120", "121", "122", "123", "225", "577"},
    "04-attention": {"0.06", "0.09", "0.6", "0.67", "7.4"},
    "05-encoder-block": {"280", "394", "2400"},  # 2.4e+03, 2.8e+08
    "06-vision-transformer": {"0.001", "60%", "4608"},
    "07-training": {"0.9999"},
    "09-fine-tuning": {"576", "578", "7680", "7690"},
    "10-many-gpus": {"500", "1397", "50000"},
    "11-looking-inside": {"16.5"},
    "12-what-it-withstands": {"2020"},
    "13-better-training": {"197", "198"},
    "14-better-tokens": {"1920", "3136", "6528", "38416"},
    "16-many-scales": {"86%"},
    "19-finding-things": {"128"},
}


def figures(text):
    """The numbers of a text that are not small and whole: {"0.25", "86%", "4608"}."""
    found = {
        number.replace(",", "").replace(" ", "")
        for number in re.findall(r"(?<![\w.])\d(?:[\d,]*\d)?(?:\.\d+)?(?: ?%)?", text)
    }
    return {n for n in found if "." in n or "%" in n or float(n) >= 100}


def said(notebook):
    """All that a lesson says in text, code and output."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", ()):
            yield output.get("text") or output.get("data", {}).get("text/plain") or ""


def unknown_figures(notebook, known=frozenset()):
    """The figures of slides and notes that the lesson does not say."""
    lesson_says = figures("\n".join(said(notebook)))
    lesson_says |= {number.rstrip("%") for number in lesson_says}
    for cell in notebook.cells:
        slide = cell.metadata.get("slide", {})
        for number in figures(slide.get("text", "") + "\n" + slide.get("notes", "")):
            if not {number, number.rstrip("%")} & (lesson_says | known):
                yield f"{cell.id}: {number}"


@pytest.mark.parametrize("path", TOMLS, ids=lambda path: path.stem)
def test_slides_say_the_figures_of_their_lesson(path):
    notebook, known = lesson(path), BY_HEART.get(path.stem, set())
    assert not list(unknown_figures(notebook, known))
    found = {line.split(": ")[1] for line in unknown_figures(notebook)}
    assert found == known, "BY_HEART holds what no slide says"


def test_another_figure_is_noticed():
    cells = [
        new_markdown_cell("Half of 1,024 is 512."),
        new_code_cell("", outputs=[new_output("stream", text="differ by 0.25, 7 %")]),
    ]
    slide = {"text": "From 1024 to 0.25", "notes": "7 % or 7 of 512"}
    cells[0].metadata["slide"] = slide
    assert not list(unknown_figures(new_notebook(cells=cells)))
    for right, wrong in (("0.25", "0.26"), ("1024", "1025"), ("7 %", "8 %"), ("512", "51.2")):
        cells[0].metadata["slide"] = {k: v.replace(right, wrong) for k, v in slide.items()}
        assert len(list(unknown_figures(new_notebook(cells=cells)))) == 1


def test_every_lesson_has_slides():
    sources = {s.stem for s in notebooks.sources() if s.stem[0] in "012" and s.stem[1].isdigit()}
    assert sources == {path.stem for path in TOMLS}


# A lesson with slides ---------------------------------------------------------------------------

PNG = base64.b64encode(b"a picture").decode()
TOML = '''minutes = 12
question = "How many?"

[[expect]]
answer = "Four: $2 + 2$."
say = "Five."

[[expect]]
answer = "None."
say = "Some."

[sections]
title = 2
one = 10

[slides.one]
text = """
## One

The first.
---
The **second**.
"""
notes = "Say this."

[slides.hidden]
show = "nothing"
notes = "Though hidden, said."
'''
VERDICT = '<div style="border-left:3px solid">not attempted</div>'
EXPLORER = '<div><img alt="a" src="data:,"><iframe srcdoc="a"></iframe></div>'


def executed(**outputs):
    return [new_output("display_data", {k.replace("_", "/"): v}) for k, v in outputs.items()]


def small():
    """A lesson of two sections, without its slides."""
    text, code = new_markdown_cell, new_code_cell
    ran = {"execution_count": 1}
    figure = new_output(
        "display_data",
        {"image/png": PNG, "text/plain": "a cat"},
        metadata={"image/png": {"alt": "a cat", "width": 4, "height": 3}},
    )
    printed = new_output("stream", text="1 < 2\n")
    cells = [
        text("# 04 · Small\n\nOne [next](05-x.ipynb).", id="title"),
        code("import this", id="hidden", **ran),
        text("## 1 · One\n\nAll of its *text*, $x_1$.", id="one"),
        code('x = 1\ncheck.predict("x", ...)', id="code", outputs=[printed, figure], **ran),
        text("### Exercise\n\nDo it.\n\n### More\n\nAnd that.", id="card"),
        code("def f(): ...", id="stub", metadata={"tags": ["exercise"]}, **ran),
        code(
            "check.f(f)",
            id="check",
            metadata={"tags": ["check"]},
            outputs=executed(text_html=VERDICT),
            **ran,
        ),
        code('check.predict("y", ...)', id="guess", outputs=executed(text_html=VERDICT), **ran),
        code("explore()", id="live", outputs=executed(text_html=EXPLORER), **ran),
    ]
    return new_notebook(cells=cells)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one lesson with slides and one without, in a folder of its own."""
    folder = tmp_path / "notebooks"
    (folder / "source" / "slides").mkdir(parents=True)
    nbformat.write(small(), folder / "04-small.ipynb")
    nbformat.write(small(), folder / "05-bare.ipynb")
    (folder / "source" / "slides" / "04-small.toml").write_text(TOML)
    monkeypatch.setattr(slides, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Small stand-ins for reveal.js and KaTeX, so that no network is needed."""
    files = {
        "reveal.js": ["dist/reveal.css", "dist/reveal.js", "dist/plugin/notes.js", "LICENSE"],
        "katex": ["dist/katex.min.js", "dist/contrib/auto-render.min.js", "LICENSE"],
    }
    for name, paths in files.items():
        for path in paths:
            file = tmp_path / "npm" / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"/* {name} {path} */ let a = '<!-- <script></script>';")
    fonts = tmp_path / "npm" / "katex" / "dist"
    (fonts / "fonts").mkdir()
    (fonts / "fonts" / "a.woff2").write_bytes(b"a font")
    source = 'url(fonts/a.woff2) format("woff2"),url(fonts/a.ttf) format("truetype")'
    (fonts / "katex.min.css").write_text(f"@font-face{{font-family:a;src:{source}}}b{{c:d}}")
    monkeypatch.setattr(web, "package", lambda name: tmp_path / "npm" / name)


def with_slides(course):
    notebook = small()
    slides.add_metadata(notebook, course / "notebooks/source/slides/04-small.toml")
    return notebook


def shown(notebook, name):
    """The slides of one cell."""
    cells = dict(zip([c.id for c in notebook.cells], notebook.cells, strict=True))
    following = [*notebook.cells[1:], None]
    after = {c.id: f for c, f in zip(notebook.cells, following, strict=True)}
    return slides.shown_of(cells[name], after[name])


def test_a_text_is_cut_at_dashes_or_headings(course):
    notebook = with_slides(course)
    first, second = shown(notebook, "one")
    assert "<h2>One</h2>" in first and "The first." in first and "text" not in first[25:]
    assert "<strong>second</strong>" in second and "---" not in first + second
    own = shown(small(), "card")
    assert ["Exercise" in own[0], "More" in own[0], "More" in own[1]] == [True, False, True]


def test_links_into_the_course_are_text(course):
    (title,) = shown(with_slides(course), "title")
    assert "One next." in title and "<a" not in title
    assert '<a href="https://a.org">' in slides.words("[a](https://a.org)")


def test_a_card_has_its_stub_and_a_check_shows_nothing(course):
    notebook = with_slides(course)
    card = shown(notebook, "card")
    assert "<pre" not in card[0] and "def" in card[1] and "font-size" in card[1]
    assert not shown(notebook, "stub") and not shown(notebook, "check")


@pytest.mark.parametrize(
    "show, kinds",
    [
        ("both", ["code", "picture"]),
        ("code", ["code"]),
        ("output", ["picture"]),
        ("nothing", []),
    ],
)
def test_what_a_code_cell_shows(course, show, kinds):
    notebook = with_slides(course)
    notebook.cells[3].metadata["slide"] = {"show": show}
    found = shown(notebook, "code")
    assert [re.match(r'<div class="slide (\w+)">', html)[1] for html in found] == kinds
    if kinds[-1:] == ["picture"]:
        assert (
            "1 &lt; 2" in found[-1]
            and f'src="data:image/png;base64,{PNG}" alt="a cat"' in found[-1]
        )
    if kinds[:1] == ["code"]:
        assert "predict" not in found[0] and '<span class="n">x</span>' in found[0]


def test_guesses_are_left_out_and_explorers_stay(course):
    notebook = with_slides(course)
    assert not shown(notebook, "guess")
    (_, live) = shown(notebook, "live")
    assert live == f'<div class="slide live"><div class="html">{EXPLORER}</div>\n</div>'


LINES = {
    "few": (["a" * 20] * 3, slides.LARGEST, 1),
    "many": (["a" * 20] * 28, 20, 2),
    "tall and wide": (["a" * 80] * 28, 16, 1),
    "one long": (["a " * 80], 17, 1),
}


@pytest.mark.parametrize("what", LINES)
def test_the_size_of_output(what):
    lines, least, columns = LINES[what]
    html = slides.printed(lines)
    size = float(re.search(r"font-size:([\d.]+)px", html)[1])
    assert least <= size <= slides.LARGEST and html.count("<pre") == columns
    for pre in re.findall(r"<pre.*?</pre>", html, re.S):
        inside = slides.lines_of(pre)
        assert len(inside) * slides.LINE * size <= slides.HEIGHT + 1
        width = max(map(len, inside)) * slides.LETTER * size
        assert width <= slides.WIDTH / columns + 1
    assert re.sub(r"\s", "", "".join(slides.lines_of(html))) == "".join(lines).replace(" ", "")


def test_the_largest_code_of_a_lesson_fits():
    html = slides.program("\n".join(["x" * 88] * 25))
    size = float(re.search(r"font-size:([\d.]+)px", html)[1])
    assert size >= 18 and 25 * slides.LINE * size <= slides.HEIGHT + 2
    assert 88 * slides.LETTER * size <= slides.WIDTH


def test_long_output_takes_several_slides():
    cell = new_code_cell("1", outputs=[new_output("stream", text="line\n" * 60)])
    assert [html.count("line") for html in slides.outputs(cell)] == [20, 20, 20]


# Notes ------------------------------------------------------------------------------------------


def notes(notebook):
    return [one.notes for section in slides.sections_of(notebook) for one in section.slides]


def test_the_notes_have_all_that_is_said(course):
    found = notes(with_slides(course))
    assert len(found) == 2 + 2 + 2 + 2 + 2
    title, question, first, second = found[:4]
    assert "12 minutes" in title and "<td>2</td><td>10</td><td>1 · One</td>" in title
    for text in (title, question):
        assert "Four: $2 + 2$." in text and "Some." in text
    assert "Though hidden, said." in question and "import this" in question
    for text in (first, second):
        assert "Say this." in text and "All of its <em>text</em>, $x_1$." in text
    assert "x = 1" in found[4] and "check.predict" in found[5]


def test_the_clock(course, packages):
    page = slides.deck(with_slides(course))
    clocks = re.findall(r"<b>At (\d+) of 12 minutes</b>", page)
    assert clocks == ["0", "1", "2", "3", "4", "6", "7", "8", "10", "11"]
    assert page.count('data-timing="60"') == 2 and page.count('data-timing="75"') == 8


# The page ---------------------------------------------------------------------------------------


def test_a_deck_holds_everything(course, packages):
    page = slides.deck(with_slides(course))
    assert not LOADS.search(unescape(page))  # explorers are pages inside of the page
    assert "data:font/woff2;base64," in page and ".ttf" not in page and "{{" not in page
    assert '<html lang="en">' in page and "<title>04 · Small</title>" in page
    for name in ("reveal.js", "katex"):
        assert f"/* {name} LICENSE */" in page
    script = page.split("<script>\n")[-1]
    assert script.count("</script>") == 1 and "<!--" not in script
    assert page == slides.deck(with_slides(course))


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://a.org/a.js">',
        "a{background:url(//a.org/a.png)}",
        '<iframe title="a" srcdoc="<img alt="" src=\'a.png\'>">',
        "<img src=a.png>",
        '@import "https://a.org/a.css"',
        '<link href="deck.css">',
    ],
)
def test_what_a_browser_would_load_is_noticed(text):
    assert LOADS.search(text)


# Metadata ---------------------------------------------------------------------------------------

WRONG = {
    "at line 1": ("minutes = 12", "minutes = "),
    "minutes is missing": ("minutes = 12", 'minutes = "12"'),
    "more is unknown": ("minutes = 12", "minutes = 12\nmore = 1"),
    "the question to open with is empty": ("How many?", " "),
    "1 wrong answers to expect": ('[[expect]]\nanswer = "None."\nsay = "Some."\n', ""),
    r"\[\[expect\]\] needs answer and say": ('say = "Some."', 'says = "Some."'),
    r"\[sections\] must be, in this order: title, one": ("one = 10", "two = 10"),
    "in this order": ("title = 2\none = 10", "one = 10\ntitle = 2"),
    "whole minutes": ("one = 10", "one = 10.0"),
    "the sections take 11 minutes, the lecture 12": ("one = 10", "one = 9"),
    r"\[slides.two\]: there is no cell": ("[slides.one]", "[slides.two]"),
    r"\[slides.hidden\]: shows is unknown": ("show = ", "shows = "),
    r"\[slides.hidden\]: show is 'all', it can be both": ('"nothing"', '"all"'),
    r"\[slides.one\]: show is 'code', it can be nothing": ("Say this.", 'a"\nshow = "code'),
    "text of a code cell": ("[slides.hidden]", '[slides.hidden]\ntext = "a"'),
    "text, notes or show is empty": ("Say this.", " "),
    "notes or show is empty or no text": ('"Say this."', "1"),
    "sections is missing": ("[sections]", "[section]"),
    "slides is missing or not": ("[slides.one]\ntext", "[[slides]]\ntext"),
    "expect.. needs": ('answer = "None."', "answer = 1"),
    "the title is always shown": (
        "[slides.one]",
        '[slides.title]\nshow = "nothing"\n\n[slides.one]',
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_metadata_is_refused_in_one_line(tmp_path, fault):
    path = tmp_path / "04-small.toml"
    path.write_text(TOML)
    slides.add_metadata(small(), path)
    old, new = WRONG[fault]
    assert old in TOML
    path.write_text(TOML.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"^04-small.toml: .*{fault}") as error:
        slides.add_metadata(small(), path)
    assert "\n" not in str(error.value)


TOO_MUCH = {
    "46 words on a slide, more than 45": ("one", "word " * 46),
    "letters of 10.* pixels": ("code", ["a" * 170] * 25),
    "the section 1 · One has no slide": ("one", None),
}


@pytest.mark.parametrize("fault", TOO_MUCH)
def test_too_much_for_a_slide_is_noticed(course, fault):
    notebook = with_slides(course)
    assert not list(faults(notebook))
    name, change = TOO_MUCH[fault]
    if change is None:
        for cell in notebook.cells[2:]:
            cell.metadata["slide"] = {"show": "nothing"}
        notebook.cells[4].cell_type = "raw"
    elif isinstance(change, list):
        notebook.cells[3].outputs[0].text = "\n".join(change)
    else:
        notebook.cells[2].metadata["slide"]["text"] = change
    assert any(re.search(fault, found) for found in faults(notebook)), list(faults(notebook))


def test_words_are_counted():
    text = "## 1 · A *set*\n\n- one $x + y$ `code here`\n\n| a | b |\n|---|---|\n\n$$a\nb$$\ntwo"
    assert word_count(text) == 5


# The builder ------------------------------------------------------------------------------------

SOURCE = """# %% [markdown] name="title"
# # 04 · Small

# %% name="hidden"
print(6 * 7)

# %% [markdown] name="one"
# ## 1 · One
"""


def test_new_slides_execute_nothing(course, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "ROOT", course)
    monkeypatch.setattr(notebooks, "NOTEBOOKS", course / "notebooks")
    source = course / "notebooks" / "source" / "04-small.py"
    toml = course / "notebooks" / "source" / "slides" / "04-small.toml"
    built = course / "notebooks" / "04-small.ipynb"
    source.write_text(SOURCE)
    notebooks.main(["04"])
    before = workspace.parse(built.read_bytes())
    stored = nbformat.read(built, as_version=4)
    assert stored.metadata.slides.minutes == 12 and stored.metadata.language_info
    assert stored.cells[1].metadata.slide == {"show": "nothing", "notes": "Though hidden, said."}
    monkeypatch.setattr(notebooks, "build", None)  # would fail if it were called
    for old, new in (("said", "told"), ("How many?", "How few?")):  # of a cell, of the lesson
        toml.write_text(toml.read_text().replace(old, new))
        assert notebooks.differs(source)
        assert notebooks.main([]) == 0 and "text renewed" in capsys.readouterr().out
        assert not notebooks.differs(source)
    toml.unlink()
    notebooks.main([])
    renewed = nbformat.read(built, as_version=4)
    assert "slides" not in renewed.metadata and renewed.metadata.language_info
    assert not any("slide" in cell.metadata for cell in renewed.cells)
    assert renewed.cells[1].outputs[0].text == "42\n"
    assert workspace.same(before, workspace.parse(built.read_bytes()))  # no learner's change


# The command ------------------------------------------------------------------------------------


def run(*arguments):
    return cli.main(["slides", *map(str, arguments)])


@pytest.fixture
def here(course, packages, monkeypatch):
    """The course, as the command finds it."""
    write = slides.slides
    monkeypatch.setattr(slides, "slides", lambda lessons, out: write(lessons, out, root=course))
    return course


def test_the_command(here, capsys):
    assert run() == 0
    said = capsys.readouterr()
    assert said.out == f"{here / 'slides' / '04-small.html'}\n"
    assert said.err == "05-bare has no slides yet: describe them in " + (
        f"{here / 'notebooks' / 'source' / 'slides' / '05-bare.toml'}\n"
    )
    index = (here / "slides" / "index.html").read_text()
    assert '<a href="04-small.html">04 · Small</a> 12 min' in index
    assert not LOADS.search(index)
    first = (here / "slides" / "04-small.html").read_bytes()
    assert run("04") == 0 and (here / "slides" / "04-small.html").read_bytes() == first
    assert sorted(p.name for p in (here / "slides").iterdir()) == ["04-small.html", "index.html"]


def test_a_deck_is_added_to_those_that_are_there(here):
    run("04", "--out", here / "out")
    (here / "out" / "my notes.txt").write_text("mine")
    toml = here / "notebooks" / "source" / "slides" / "04-small.toml"
    toml.rename(toml.with_name("05-bare.toml"))
    assert run("05", "--out", here / "out") == 0
    index = (here / "out" / "index.html").read_text()
    assert "04-small.html" in index and "05-bare.html" in index
    assert (here / "out" / "my notes.txt").read_text() == "mine"


def test_metadata_in_the_notebook_is_enough(here):
    notebook = with_slides(here)
    notebook.cells[-1].metadata["slide"] = {"show": "nothing"}  # of an earlier edition
    slides.add_metadata(notebook, here / "notebooks/source/slides/04-small.toml")
    assert "slide" not in notebook.cells[-1].metadata
    nbformat.write(notebook, here / "notebooks" / "04-small.ipynb")
    (here / "notebooks" / "source" / "slides" / "04-small.toml").unlink()
    assert run("04") == 0
    page = (here / "slides" / "04-small.html").read_text()
    assert page == slides.deck(notebook)


def foreign(folder):
    folder.mkdir()
    (folder / "index.html").write_text("mine")


def foreign_deck(folder):
    folder.mkdir()
    (folder / "index.html").write_text(slides.OURS)
    (folder / "04-small.html").write_text("mine")


REFUSED = {
    "no lesson begins with '9': choose from 04-small, 05-bare": ("9", None),
    "05-bare has no slides yet: describe them in": ("05", None),
    "holds what is not of vitcourse slides": ("04", foreign),
    "is not of vitcourse slides": ("04", foreign_deck),
    "name another --out": ("04", lambda folder: folder.write_text("mine")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(here, capsys, what):
    name, prepare = REFUSED[what]
    out = here / "out"
    if prepare:
        prepare(out)
    before = {path: path.read_bytes() for path in here.rglob("out/*")}
    assert run(name, "--out", out) == 2
    said = capsys.readouterr().err
    assert what in said and said.count("\n") == 1
    assert before == {path: path.read_bytes() for path in here.rglob("out/*")}
    assert not list(here.glob(".out*"))


def test_a_lesson_that_was_not_executed_is_refused(here, capsys):
    path = here / "notebooks" / "04-small.ipynb"
    content = json.loads(path.read_text())
    content["cells"][1]["execution_count"] = None
    path.write_text(json.dumps(content))
    assert run("04") == 2 and "was not executed (cell hidden)" in capsys.readouterr().err
    assert not (here / "slides").exists()


def test_nothing_is_written_where_writing_fails(here, monkeypatch):
    monkeypatch.setattr(slides.os, "rename", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("04", "--out", here / "out")
    assert not list(here.glob("*out*")) and not list(here.glob(".out*"))
