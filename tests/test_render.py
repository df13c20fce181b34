"""Notebooks as HTML: text, code, outputs; and what is refused."""

import base64
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from vitcourse.lab import render

PNG = base64.b64encode(b"a picture").decode()


def cell(*outputs):
    return new_code_cell("run()", execution_count=1, outputs=list(outputs))


def shown(**data):
    data = {kind.replace("_", "/"): content for kind, content in data.items()}
    alt = {"image/png": {"alt": 'a "cat" <1>', "width": 4, "height": 3}}
    return new_output("display_data", data, metadata=alt if "image/png" in data else {})


def printed(text):
    return new_output("stream", text=text)


def html(*outputs):
    return render.outputs(cell(*outputs), lambda png, alt: f"{png.decode()}.png")


# Text -------------------------------------------------------------------------------------------

TEXT = {  # markdown: what its HTML holds
    "## 2 · From *scores*": '<h2 id="2-from-scores">2 · From <em>scores</em></h2>',
    "## $QK$ and more": '<h2 id="and-more">$QK$ and more</h2>',
    "$a_1 * b_2 * c$ and $a<b$": "<p>$a_1 * b_2 * c$ and $a&lt;b$</p>",
    "$$a_1\n\n*b*$$": "$$a_1\n\n*b*$$",
    "$a\n+ b$": "$a\n+ b$",
    "one $ *a*\n\nanother $ b": "one $ <em>a</em>",
    "`$a$` *b*": "<code>$a$</code> <em>b</em>",
    "| a |\n|---|\n| $|x|$ |": "<td>$|x|$</td>",
    "```python\nx = '$a$'\n```": '<span class="s1">',
    "```\nx < 1\n```": '<pre class="code"><code>x &lt; 1</code></pre>',
    "<details>a</details>": "<details>a</details>",
    "[next](05-x.ipynb)": '<a href="(05-x.ipynb)">next</a>',
    "[there](https://example.org)": '<a href="https://example.org">there</a>',
    "[above](#a-b)": '<a href="#a-b">above</a>',
}


@pytest.mark.parametrize("markdown", TEXT)
def test_text(markdown):
    assert TEXT[markdown] in render.text(markdown, link="({})".format)


def test_the_ids_of_headings_differ():
    found = re.findall(r'id="(.*?)"', render.text("# A\n\n# A\n\n# A b\n\n# ?"))
    assert found == ["a", "a-again", "a-b", "section"]


def test_the_title():
    notebook = new_notebook(cells=[new_code_cell("# 1"), new_markdown_cell("x\n# 04 · Attention")])
    assert render.title(notebook) == "04 · Attention"
    with pytest.raises(ValueError, match="a lesson needs a heading"):
        render.title(new_notebook())


# Code and outputs -------------------------------------------------------------------------------


def test_code_is_coloured_by_the_classes_of_the_style():
    found = render.code('@f\ndef g(x):  # why\n    return "a" if x < 1.5 else 2')
    for name in ("nd", "k", "nf", "c1", "s2", "mf", "mi"):
        assert f'class="{name}"' in found and f".code .{name}" in render.style()
    assert "&lt;" in found and "why" in found


def test_new_lines_are_marked():
    found = render.code("a = 1\nb = 2  # new\n\nc = '# new'")
    assert found.count('class="new"') == 1
    assert re.search(
        r'<span class="new"><span class="n">b</span>.*# new</span></span>$', found, re.M
    )


def test_printed_lines_are_one_text_and_escaped():
    assert html(printed("a < b\n"), printed("c\n\n")) == '<pre class="output">a &lt; b\nc</pre>\n'
    assert html(printed("\n")) == ""


def test_a_picture_stands_for_its_text():
    found = html(printed("before\n"), shown(image_png=PNG, text_plain="a cat"), printed("after"))
    assert found.index("before") < found.index("<img") < found.index("after")
    assert 'src="a picture.png" alt="a &quot;cat&quot; &lt;1&gt;" width="4" height="3"' in found
    assert "a cat<" not in found


def test_html_stays_as_it_is_and_stands_for_its_text():
    explorer = '<div><iframe srcdoc="a &amp; b"></iframe></div>'
    found = html(shown(text_html=explorer, text_plain="an explorer"))
    assert explorer in found and "an explorer" not in found
    assert html(shown(text_plain="x < 1")) == '<pre class="output">x &lt; 1</pre>\n'


def test_the_kinds_of_outputs():
    outputs = printed("a"), shown(image_png=PNG), shown(text_html="<b>"), shown(text_plain="b")
    kinds = [kind for kind, _ in render.parts(cell(*outputs), lambda png, alt: "")]
    assert kinds == ["text", "picture", "html", "text"]


def luminance(colour):
    """The relative luminance of #rrggbb, as WCAG defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_all_text_can_be_read(theme):
    colours = dict(re.findall(r"--(\w+): light-dark\((#\w+, #\w+)\)", render.style()))
    colours = {name: luminance(pair.split(", ")[theme]) for name, pair in colours.items()}
    for ground in ("ground", "surface"):
        for name in ("ink", "quiet", "accent", "keyword", "string", "number", "name"):
            low, high = sorted([colours[name], colours[ground]])
            assert (high + 0.05) / (low + 0.05) >= 4.5, f"{name} on {ground}"


# What is refused --------------------------------------------------------------------------------


def test_an_executed_lesson_is_read(tmp_path):
    cells = [new_markdown_cell("# A"), cell(printed("1")), new_code_cell("")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "a.ipynb")
    assert [c.cell_type for c in render.lesson(tmp_path / "a.ipynb").cells][:2] == [
        "markdown",
        "code",
    ]


REFUSED = {
    "is no notebook": "{",
    "is no notebook: ": '{"cells": 1}',
    r"was not executed \(cell b\)": [new_code_cell("1", id="b")],
    r"holds an error \(cell c, NameError\)": [
        new_code_cell(
            "x", id="c", execution_count=1, outputs=[new_output("error", ename="NameError")]
        )
    ],
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_executed_lesson_is_refused(tmp_path, what):
    path, content = tmp_path / "a.ipynb", REFUSED[what]
    if not isinstance(content, str):
        content = nbformat.writes(new_notebook(cells=content))
    path.write_text(content)
    with pytest.raises(ValueError, match=what) as error:
        render.lesson(path)
    assert "\n" not in str(error.value)


def test_a_missing_lesson_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no notebook .*make notebooks"):
        render.lesson(tmp_path / "a.ipynb")
