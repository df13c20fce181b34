"""What a stored lesson must not hold: the things that nbval does not see."""

import re

SIZE = 1_500_000  # bytes
VERSION = re.compile(r"\b(torch|numpy|python|matplotlib)\W{1,3}\d+\.\d+\.\d+", re.I)
LOCAL_PATH = re.compile(r"(?<![\w.])/(home|root|Users|tmp|private|var|opt|mnt)/\w")
NETWORK = re.compile(
    r"!\[[^\]]*\]\(\s*(?:https?:)?//|<(?:img|script|iframe|link)\b[^>]*(?:https?:)?//"
)
IMAGE = re.compile(r"!\[([^\]]*)\]\(|<img\b([^>]*)>")


def problems(notebook, size=0):
    """Every problem of a notebook, as `cell N: what`."""
    found = [] if size <= SIZE else [f"{size:,} bytes, more than {SIZE:,}"]
    if "widgets" in notebook.metadata:
        found.append("widget state is stored")
    if not notebook.metadata.get("language_info", {}).get("version"):
        found.append("no language_info: JupyterLab would want to save it on opening")
    ids = [cell.get("id") for cell in notebook.cells]
    if len(set(ids)) != len(ids) or None in ids:
        found.append("cells without an id of their own")
    count = 0
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            count += 1
            of_cell = code_problems(cell, count)
        else:
            of_cell = text_problems(cell.source)
        found += [f"cell {number}: {problem}" for problem in of_cell]
    return found


def code_problems(cell, count):
    if not cell.source.strip():
        yield "empty"
    if cell.execution_count != count:
        yield f"execution count {cell.execution_count}, not {count}"
    if cell.source.rstrip().endswith(";"):
        yield "ends with a semicolon, which nbval runs differently"
    if re.search(r"^\s*(%%time|%time|!|%pip|%matplotlib)", cell.source, re.M):
        yield "a magic or shell command"
    ignored = "nbval-ignore-output" in cell.metadata.get("tags", [])
    if {"raises-exception", "nbval-skip"} & set(cell.metadata.get("tags", [])):
        yield "a tag that lets it go unchecked"
    for output in cell.outputs:
        yield from output_problems(output, ignored)


def output_problems(output, ignored):
    if output.output_type == "error":
        yield f"an error is stored: {output.ename}"
        return
    if output.output_type == "stream":
        if output.name == "stderr":
            yield "something was written to stderr"
        data = {"text/plain": output.text}
    else:
        data = output.data
    if "text/plain" not in data:
        yield "an output without text/plain, which nbval compares"
    for kind, content in data.items():
        if kind.startswith("application/vnd.jupyter.widget"):
            yield "a widget is stored"
        if kind == "image/svg+xml":
            yield "an SVG, which an untrusted notebook does not show"
        if not kind.startswith("text/"):
            continue
        if LOCAL_PATH.search(content):
            yield f"a path of one computer: {LOCAL_PATH.search(content)[0]}..."
        if not ignored and VERSION.search(content):
            yield f"a version: {VERSION.search(content)[0]}"
        if not ignored and re.search(r"(?<![\w.])-0\.0*(?!\d)", content):
            yield "-0.0, whose sign differs between computers"
        if re.search(r" at 0x[0-9a-f]{6,}", content):
            yield "an address in memory"
        if kind == "text/html":
            yield from text_problems(content)
    for kind in ("image/png", "image/jpeg"):
        if kind in data and not output.metadata.get(kind, {}).get("alt", "").strip():
            yield "a picture without alt text: use show.figure"


def text_problems(text):
    if NETWORK.search(text):
        yield "a picture or script from the network"
    for markdown, html in IMAGE.findall(text):
        if not markdown.strip() and not re.search(r"alt\s*=\s*[\"'][^\"']*\w", html):
            yield "a picture without alt text"
    if LOCAL_PATH.search(text):
        yield f"a path of one computer: {LOCAL_PATH.search(text)[0]}..."
