"""Executed notebooks as HTML: what the slides and the book share.

Formulas stay as `$...$` and `$$...$$`, for KaTeX to set in the browser. Colours follow the
`color-scheme` of the page: `style()` has them for light and dark.
"""

import base64
import re
from html import escape
from pathlib import Path
from string import Template

import nbformat

THEME = Path(__file__).parent / "theme"
CODE_OR_MATH = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]*`)|\$\$.*?\$\$|\$(?:[^$\n]|\n(?!\s*\n))+\$", re.S | re.M
)
MATH = re.compile("\ue000(\\d+)\ue001")  # what stands for a formula while markdown is read


def lesson(path):
    """A notebook, executed from top to bottom without an error."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no notebook {path}: run make notebooks")
    try:
        notebook = nbformat.read(path, as_version=4)
        cells = [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]
    except Exception as error:  # nbformat raises many kinds
        raise ValueError(f"{path} is no notebook: {str(error).splitlines()[0]}") from None
    for cell, (name, kind, source) in zip(notebook.cells, cells, strict=True):
        if kind != "code" or not source.strip():
            continue
        if cell.execution_count is None:
            raise ValueError(f"{path} was not executed (cell {name}): run make notebooks")
        for output in cell.outputs:
            if output.output_type == "error":
                raise ValueError(f"{path} holds an error (cell {name}, {output.ename}): mend it")
    return notebook


def title(notebook):
    """The first heading of a notebook, without its sign."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^# +(.+)$", cell.source, re.M)):
            return found[1].strip()
    raise ValueError("a lesson needs a heading: # 01 · Patches")


def text(markdown, link=None):
    """Markdown as HTML. `link(target)` gives the new target of each link that is relative."""
    import mistune

    formulas = []

    def keep(match):
        if match["code"]:
            return match[0]
        formulas.append(escape(match[0], quote=False))
        return f"\ue000{len(formulas) - 1}\ue001"

    read = mistune.create_markdown(
        renderer=renderer(link), plugins=["table", "strikethrough"], escape=False
    )
    html = read(CODE_OR_MATH.sub(keep, markdown))
    return MATH.sub(lambda match: formulas[int(match[1])], html)


def renderer(link):
    """What writes the HTML of headings, links and code."""
    import mistune

    class Renderer(mistune.HTMLRenderer):
        def __init__(self):
            super().__init__(escape=False)
            self.ids = set()

        def heading(self, text, level, **attributes):
            name = slug(text)
            while name in self.ids:
                name += "-again"
            self.ids.add(name)
            return f'<h{level} id="{name}">{text}</h{level}>\n'

        def link(self, text, url, title=None):
            if link and not re.match(r"[a-z]+:|#", url):
                url = link(url)
            return super().link(text, url, title)

        def block_code(self, source, info=None):
            return code(source, info or "text")

    return Renderer()


def slug(text):
    """A heading as an id: "2 · <em>Two</em> tokens?" -> "2-two-tokens"."""
    words = re.sub(r"<[^>]*>|&\w+;", "", MATH.sub("", text)).lower()
    return re.sub(r"\W+", "-", words).strip("-") or "section"


def code(source, language="python"):
    """Code as HTML, its parts marked by the classes that `style()` colours.

    Lines that end with `# new` have the class `new`.
    """
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    lexer = get_lexer_by_name(language, stripnl=False)
    source = source.rstrip()
    lines = highlight(source, lexer, HtmlFormatter(nowrap=True)).rstrip("\n").split("\n")
    for number, line in enumerate(source.split("\n")):
        if line.endswith("# new"):
            lines[number] = f'<span class="new">{lines[number]}</span>'
    lines = "\n".join(lines)
    return f'<pre class="code"><code>{lines}</code></pre>\n'


def outputs(cell, picture):
    """The outputs of a code cell as HTML. `picture(png, alt)` gives the address of a figure."""
    return "".join(html for _, html in parts(cell, picture))


def parts(cell, picture):
    """The outputs of a code cell, as pairs of what it is (text, picture, html) and its HTML."""
    found, printed = [], ""
    for output in [*cell.outputs, None]:
        if output and output.output_type == "stream":
            printed += output.text
            continue
        if printed.strip():
            found.append(("text", plain(printed)))
        printed = ""
        if output:
            found.append(shown(output, picture))
    return found


def shown(output, picture):
    """One output that is more than printed: what it is, and its HTML."""
    data = output.data
    if "text/html" in data:
        return "html", f'<div class="html">{data["text/html"]}</div>\n'
    if "image/png" in data:
        about = output.metadata.get("image/png", {})
        alt = about.get("alt") or data.get("text/plain", "")
        size = "".join(f' {side}="{about[side]}"' for side in ("width", "height") if side in about)
        src = picture(base64.b64decode(data["image/png"]), alt)
        return "picture", (
            f'<figure><img class="picture" src="{escape(src)}" alt="{escape(alt)}"{size}>'
            "</figure>\n"
        )
    return "text", plain(data.get("text/plain", ""))


def plain(printed):
    """What a cell printed, as HTML."""
    return f'<pre class="output">{escape(printed.rstrip(), quote=False)}</pre>\n'


def style():
    """The CSS of colours, code and outputs, for light and dark."""
    return theme("common.css")


def theme(name):
    """A file of the theme."""
    return (THEME / name).read_text(encoding="utf-8")


def page(name, **parts):
    """A page of the theme, each $name replaced."""
    return Template(theme(name)).substitute(parts)
