"""The pages of the package's code, from its docstrings. Nothing of it is imported."""

import ast
import re
from html import escape
from textwrap import wrap

from vitcourse.lab import render
from vitcourse.lab.pages import Page, inline, place

DEFINITIONS = (ast.FunctionDef, ast.ClassDef)


def module(source, root):
    """The page of a module: its docstring, its public names, and then the whole file."""
    code = (root / source).read_text()
    tree = ast.parse(code)
    name = dotted(source)
    pieces = [("text", f"<h1><code>{broken(name)}</code></h1>\n{prose(tree)}")]
    lines = set()
    for node in public(tree):
        pieces += entry(node, node.name)
        lines.add(node.lineno)
        for method in public(node) if isinstance(node, ast.ClassDef) else ():
            if ast.get_docstring(method):
                pieces += entry(method, f"{node.name}.{method.name}", "h3")
                lines.add(method.lineno)
    if code.strip():
        pieces.append(("text", '<h2 id="source">The whole file</h2>\n'))
        pieces.append(("code", numbered(render.code(code), lines)))
    return Page(source, name, pieces, label=name.removeprefix("vitcourse."))


def dotted(source):
    """The name by which a file is imported: vitcourse/data/__init__.py -> vitcourse.data."""
    return source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def public(tree):
    """The definitions in a module or class whose names do not begin with an underscore."""
    return [
        node
        for node in tree.body
        if isinstance(node, DEFINITIONS) and not node.name.startswith("_")
    ]


def entry(node, name, level="h2"):
    """A class or function: its name, how it is called, what its docstring says."""
    link = f'<a class="line" href="#line-{node.lineno}">source</a>'
    title = f"<code>{broken(name)}</code>"
    return [
        ("text", f'<{level} id="{name}">{title}</{level}>\n'),
        ("code", f'<div class="signature">{render.code(signature(node))}{link}</div>\n'),
        ("text", prose(node)),
    ]


def broken(name):
    """A dotted name that may go on in the next line behind a dot or an underscore."""
    return re.sub(r"(?<=[._])(?=\w)", "<wbr>", name)


def signature(node):
    """How a function is called; a class with its bases, and how it is made."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, [*node.bases, *node.keywords]))
        line = f"class {node.name}({bases})" if bases else f"class {node.name}"
        made = arguments(node)
        return line if made is None else f"{line}\n{call(node.name, made)}"
    if any(ast.unparse(decorator) == "property" for decorator in node.decorator_list):
        return node.name
    return call(node.name, ast.unparse(node.args))


def arguments(node):
    """What a class is made with: what its __init__ takes, or the fields of a dataclass."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return ast.unparse(item.args)
    if "dataclass" in " ".join(map(ast.unparse, node.decorator_list)):
        return ", ".join(ast.unparse(item) for item in node.body if isinstance(item, ast.AnnAssign))
    return None


def call(name, given):
    """A call as the one who calls sees it, in lines that are not too long."""
    given = re.sub(r"^(self|cls)\b(, )?", "", given)
    return "\n".join(wrap(f"{name}({given})", 80, subsequent_indent="    "))


def prose(node):
    """A docstring as HTML. Paragraphs flow; what is indented or set in columns stays as it is."""
    html = ""
    for block in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
        if re.search(r"^(\s|- )|\S {2,}\S", block, re.M):
            html += f'<pre class="plain">{escape(block, quote=False)}</pre>\n'
        elif block.strip():
            html += f"<p>{inline(block)}</p>\n"
    return html


def numbered(html, lines):
    """Highlighted code with marks at these lines, to which links can go."""
    rows = html.split("\n")
    for line in lines:
        rows[line - 1] = f'<span id="line-{line}"></span>{rows[line - 1]}'
    return "\n".join(rows)


def contents(modules):
    """The page that lists all modules."""
    html = "<h1>The package</h1>\n<p>Every module of <code>vitcourse</code>: what it offers, and "
    html += "its whole source.</p>\n"
    folders = {}
    for page in modules:
        folders.setdefault(page.source.rpartition("/")[0], []).append(page)
    for folder, pages in folders.items():
        name = folder.replace("/", ".")
        html += f'<h2 id="{name}"><code>{name}</code></h2>\n<dl class="modules">\n'
        for page in pages:
            first = re.search(r"<(?:p|pre[^>]*)>(.*?)</p", page.pieces[0][1], re.S)
            link = f'<a href="{place(page.source)}"><code>{broken(page.title)}</code></a>'
            html += f"<dt>{link}</dt><dd>{first[1] if first else ''}</dd>\n"
        html += "</dl>\n"
    return Page("api.html", "The package", [("text", html)], wide=True)
