"""A page of the book as a whole: what stands around its content, and what a search finds in it."""

import re
from html import escape, unescape
from string import Template
from textwrap import shorten

from vitcourse.lab import render
from vitcourse.lab.pages import between

ALONE = ("Recorded results", "The package")  # parts that are listed only on their own pages
DOLLARS = re.compile(r"\$[^$]+\$")
MATH = Template("""<link rel="stylesheet" href="$root/assets/katex/katex.css">
<script defer src="$root/assets/katex/katex.js"></script>
<script defer src="$root/assets/katex/auto-render.js"></script>
""")


def assemble(page, parts):
    """A page as HTML, with everything that stands around its content."""
    here, root = page.path, between(page.path, ".")
    every = [(part, other) for part, group in parts for other in group]
    part = next(part for part, other in every if other is page)
    same = [p for other, p in every if other == part or not {other, part} & set(ALONE)]
    content = "".join(html for _, html in page.pieces)
    words = plain("".join(text for *_, text in sections(page)[:1]))
    return render.page(
        "page.html",
        title=escape(page.title),
        about=escape(shorten(words, 160, placeholder=" ...")),
        root=root,
        math=MATH.substitute(root=root) if DOLLARS.search(without_code(content)) else "",
        kind="wide" if page.wide else "text",
        parts="".join(part_list(here, name, group) for name, group in parts),
        contents="" if page.wide else contents(page),
        where=f'<p class="where">{escape(part)}</p>' if part != "Start" else "",
        content=content,
        around=around(here, same, same.index(page)),
    )


def part_list(here, part, group):
    """One part of the book in the list of its pages; long ones are folded unless one is in them."""
    inside = any(page.path == here for page in group)
    if part in ALONE and not inside:
        return ""
    items = ""
    for page in group:
        current = ' aria-current="page"' if page.path == here else ""
        link = f'<a href="{between(here, page.path)}"{current}>{escape(page.label)}</a>'
        items += f"<li>{link}</li>\n"
    if part == "Start":
        return f"<ul>{items}</ul>\n"
    shown = "" if part == "Papers" and not inside else " open"
    return f"<details{shown}><summary>{escape(part)}</summary><ul>\n{items}</ul></details>\n"


def contents(page):
    """The headings of a page as a list of links; nothing where there are fewer than two."""
    rows = [(level, id, name) for level, id, name, _ in sections(page) if level in "23"]
    if len(rows) < 2:
        return ""
    items = "".join(
        f'<li class="level-{level}"><a href="#{id}">{re.sub("</?a[^>]*>", "", name)}</a></li>\n'
        for level, id, name in rows
    )
    return (
        '<nav class="contents" aria-label="On this page"><details open>'
        f"<summary>On this page</summary><ul>\n{items}</ul></details></nav>"
    )


def around(here, pages, number):
    """The links to the page before and the page after."""
    links = ""
    for word, step in (("Previous", -1), ("Next", 1)):
        if 0 <= number + step < len(pages):
            page = pages[number + step]
            links += f'<a class="{word.lower()}" href="{between(here, page.path)}">'
            links += f"<small>{word}</small> {escape(page.label)}</a>\n"
    return links


def without_code(html):
    """Some HTML without its code, in which a dollar is no formula."""
    return re.sub(r"<(pre|code|iframe)\b.*?</\1>", "", html, flags=re.S)


# What a page says ---------------------------------------------------------------------------------


def identified(pieces):
    """The pieces of a page with an id for every heading, no two alike."""
    seen = set(re.findall(r'\bid="([^"]*)"', render.theme("page.html")))

    def name(match):
        level, given, inside = match.groups()
        unique = given or render.slug(inside)
        while unique in seen:
            unique += "-again"
        seen.add(unique)
        return f'<h{level} id="{unique}">{inside}</h{level}>'

    heading = re.compile(r'<h([1-6])(?: id="([^"]*)")?>(.*?)</h\1>', re.S)
    return [(kind, heading.sub(name, html) if kind == "text" else html) for kind, html in pieces]


def sections(page):
    """The text of a page by its headings: [level, id, heading as HTML, what follows as HTML]."""
    html = "".join(html for kind, html in page.pieces if kind == "text")
    _, *found = re.split(r'<h([1-6]) id="([^"]*)">(.*?)</h\1>', html, flags=re.S)
    return [found[i : i + 4] for i in range(0, len(found), 4)]


def plain(html):
    """The words of some HTML, without code and formulas that stand by themselves."""
    aside = r'<pre.*?</pre>|<p class="(facts|buttons)">.*?</p>|\$\$.*?\$\$'
    html = re.sub(aside, " ", html, flags=re.S)
    html = re.sub(r"</?(a|code|em|span|strong|wbr)\b[^>]*>", "", html)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).replace("$", "").split())


def entries(page):
    """What a search finds on a page: [path, title, heading, id, text] for each of its headings."""
    found = []
    for level, id, name, below in sections(page):
        place = ["", ""] if level == "1" else [plain(name), id]
        found.append([page.path, page.title, *place, plain(below)])
    return found
