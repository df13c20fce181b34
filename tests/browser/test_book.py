"""The book in a real browser, opened from the file system, at three widths, light and dark."""

import pytest

from tests.browser.explorer import Explorer
from vitcourse.lab import book

WIDTHS = (1280, 768, 380)
LESSON, PAPER = "notebooks/04-attention.html", "notebooks/papers/deit.html"
KINDS = ["index.html", LESSON, PAPER, "papers.html", "vitcourse/vit.html", "api.html"]
KINDS += ["benchmarks/results/claim-deit.html", "results.html", "docs/glossary.html", "guide.html"]


@pytest.fixture(scope="session")
def site(browser, tmp_path_factory):
    """The folder of the book; built only where there is a browser."""
    folder = tmp_path_factory.mktemp("book") / "book"
    book.book(folder)
    return folder


def pages(site):
    """All pages, as paths in the book."""
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))


def go(page, site, path):
    page.goto((site / path).as_uri(), wait_until="load")


def too_wide(page, widths=WIDTHS):
    """The widths at which a page is wider than the window, and the first thing that is."""
    found = []
    for width in widths:
        page.set_viewport_size({"width": width, "height": 800})
        culprit = page.evaluate(
            """() => {
                const wide = document.documentElement.scrollWidth > innerWidth;
                const out = (e) => e.getBoundingClientRect().right > innerWidth;
                const first = wide && [...document.querySelectorAll("main *, header *")].find(out);
                return wide && (first ? first.outerHTML.slice(0, 100) : "?");
            }"""
        )
        found += [f"{width}: {culprit}"] if culprit else []
    return found


def test_every_page_opens_and_fits_a_phone(new_page, site):
    """No error, of which a formula that cannot be read is one, no failed request, no overflow."""
    page, paths, found = new_page(380), pages(site), {}
    assert len(paths) > 150
    for path in paths:
        go(page, site, path)
        wrong = too_wide(page, [380]) + page.trouble
        page.trouble.clear()
        if wrong:
            found[path] = wrong
    assert not found


def test_what_does_not_fit_is_noticed(page, site):
    go(page, site, LESSON)
    assert not too_wide(page)
    page.evaluate("document.querySelector('main p').style.width = '60rem'")
    page.evaluate("document.querySelector('main p').style.maxWidth = 'none'")
    assert [line.split(":")[0] for line in too_wide(page)] == ["768", "380"]
    page.evaluate("document.querySelector('main').innerHTML = '$\\\\nowhere$'")
    page.evaluate("renderMathInElement(document.body, {delimiters: [{left: '$', right: '$'}]})")
    assert [line for line in page.trouble if "KaTeX" in line]
    page.trouble.clear()


def test_formulas_are_set(page, site):
    go(page, site, LESSON)
    assert page.locator("main .katex").count() > 10
    page.evaluate("document.querySelectorAll('pre, code').forEach((code) => code.remove())")
    assert "$" not in page.inner_text("main")


@pytest.mark.parametrize("dark", [False, True])
def test_everybody_can_read_it(new_page, site, axe, screenshot, dark):
    """All kinds of pages and all lessons: nothing serious, at every width; light and dark."""
    page, found = new_page(dark=dark), {}
    lessons = [path for path in pages(site) if path.startswith("notebooks/") > ("/papers/" in path)]
    for path in KINDS if dark else sorted({*KINDS, *lessons}):
        go(page, site, path)
        wrong = too_wide(page) + axe(page)
        if wrong:
            found[path] = wrong
        if path in KINDS[:5]:
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                name = f"{path.removesuffix('.html').replace('/', '-')}-{width}"
                screenshot(page, f"book-{name}-{'dark' if dark else 'light'}")
    assert not found


def test_a_search_finds_the_class_token(page, site):
    go(page, site, PAPER)
    page.keyboard.press("/")
    page.keyboard.type("class token")
    first = page.locator("#found a").first
    first.wait_for()
    assert first.inner_text().startswith("02 · The class token\n")
    assert page.locator("#found mark").count() > 2
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/02-class-token.html#*")
    page.fill("#search", "nowhere (to be [found")
    page.locator("#found p").wait_for()
    assert "Nothing holds all of" in page.inner_text("#found")
    page.keyboard.press("Escape")
    assert page.locator("#found").is_hidden()


def test_an_explorer_answers(page, site):
    for path in ("index.html", "notebooks/01-patches.html"):
        go(page, site, path)
        page.frame_locator("iframe").first.locator("main").wait_for()
        seen = Explorer(page)
        seen.point("#image", 11, (9, 10))
        before = seen.text()
        seen.point("#image", 57, (9, 10))
        assert before.startswith("Patch 11,") and seen.text().startswith("Patch 57,")


def test_the_attention_explorer_answers_to_layer_head_and_patch(page, site):
    go(page, site, LESSON)
    page.frame_locator("iframe").first.locator("main").wait_for()
    seen = Explorer(page)
    said = [seen.text()]
    for button in ("#layers button", "#heads button"):
        seen.frame.locator(button).nth(1).click()
        said.append(seen.text())
    seen.point("#image", 9, (8, 8))
    said.append(seen.text())
    assert len(set(said)) == 4, said
    assert said[-1].startswith("Patch 9 (row 1, column 1) looks (layer 1, head 1)")


def test_the_button_changes_colours_and_the_next_page_keeps_them(page, site):
    def ground():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    go(page, site, "index.html")
    light = ground()
    page.click("#theme")
    dark = ground()
    assert light == "rgb(255, 255, 255)" != dark
    go(page, site, LESSON)
    assert ground() == dark and page.inner_text("#theme") == "Light"
    page.click("#theme")
    assert ground() == light
    page.evaluate("localStorage.clear()")


def test_hints_open_code_is_copied_and_the_menu_closes(page, site):
    go(page, site, LESSON)
    hint = page.locator(".exercise details").first
    assert not hint.locator("p").is_visible()
    hint.locator("summary").click()
    assert hint.locator("p").is_visible()
    box = page.locator(".box").first
    box.hover()
    box.locator(".copy").click()
    page.get_by_text("Copied").wait_for()
    page.fill("#search", "")
    page.keyboard.press("Control+v")
    assert page.input_value("#search").startswith("import torch")
    page.set_viewport_size({"width": 380, "height": 800})
    page.keyboard.press("Escape")
    assert page.locator("#book").is_hidden()
    page.click("#menu")
    assert page.locator("#book").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#book").is_hidden()


def test_it_can_be_read_without_its_script(new_page, site):
    page = new_page(java_script_enabled=False)
    go(page, site, LESSON)
    assert page.locator("h1").inner_text() == "04 · Attention"
    page.get_by_role("link", name="05 · The encoder block").first.click()
    assert page.locator("h1").inner_text() == "05 · The encoder block"
