"""A real browser, and pages that notice what goes wrong on them.

`make browser` installs what these tests need. Without it they are skipped, or fail where
VITCOURSE_BROWSER=required is set, as it is there: CI cannot be green without them.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browser import chromium

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / ".vitcourse" / "screenshots"
PATIENCE = 120  # seconds to wait for what must come, on a busy computer
HERE = ("127.0.0.1", "localhost")
NOWHERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"


@pytest.fixture(scope="session")
def browser():
    """Chromium, for which there is no network but this computer."""
    stop = pytest.fail if os.environ.get("VITCOURSE_BROWSER") == "required" else pytest.skip
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        stop("playwright is not installed: run make browser")
    with sync_playwright() as playwright:
        program = chromium.installed(playwright) or stop(chromium.MISSING)
        options = ["--no-sandbox", "--disable-dev-shm-usage", NOWHERE]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser):
    """Open a page: `new_page(width=1280, height=800, dark=False, **options of its context)`.

    `page.trouble` lists what goes wrong on it. At the end of the test it must be empty: a test
    that expects trouble looks at it and clears it.
    """
    pages = []

    def open_it(width=1280, height=800, dark=False, **options):
        scheme, size = "dark" if dark else "light", {"width": width, "height": height}
        page = browser.new_page(viewport=size, color_scheme=scheme, **options)
        page.set_default_timeout(1000 * PATIENCE)
        page.trouble = []
        watch(page)
        pages.append(page)
        return page

    yield open_it
    trouble = [line for page in pages for line in page.trouble]
    for page in pages:
        page.context.close()
    assert not trouble


@pytest.fixture
def page(new_page):
    """A page of 1280 x 800, light. `page.set_viewport_size`, `page.emulate_media` change that."""
    return new_page()


@pytest.fixture
def expect(browser):
    """playwright's `expect`, which waits for what must come."""
    from playwright.sync_api import expect

    expect.set_options(timeout=1000 * PATIENCE)
    return expect


def watch(page):
    """Collect a page's errors, failed requests and requests that leave this computer."""
    note = page.trouble.append
    page.on("pageerror", lambda error: note(f"error: {error}"))
    page.on("console", lambda line: line.type == "error" and note(f"console: {line.text}"))
    page.on("request", lambda request: leaves(request.url) and note(f"leaves: {request.url}"))
    page.on("websocket", lambda socket: leaves(socket.url) and note(f"leaves: {socket.url}"))
    page.on("requestfailed", lambda request: note(f"failed: {request.url}: {request.failure}"))
    page.on("response", lambda got: got.status >= 400 and note(f"{got.status}: {got.url}"))


def leaves(address):
    """Whether an address lies outside of this computer."""
    parts = urlsplit(address)
    return parts.scheme not in ("file", "data", "blob", "about") and parts.hostname not in HERE


@pytest.fixture(scope="session")
def axe():
    """What axe-core calls serious or critical on a page and in its frames: `axe(page)`.

    `axe(page, part)` looks only at the part that a CSS selector names, and in no frame.
    """
    from vitcourse.lab import web

    script = (web.package("axe-core") / "axe.min.js").read_text()

    def findings(page, part=None):
        found = []
        for frame in [page.main_frame] if part else page.frames:
            frame.evaluate(script)
            options = "{iframes: false, preload: false, resultTypes: ['violations']}"
            report = frame.evaluate(f"(part) => axe.run(part || document, {options})", part)
            found += [
                f"{rule['id']}: {rule['help']}: {node['html'][:200]}"
                for rule in report["violations"]
                if rule["impact"] in ("serious", "critical")
                for node in rule["nodes"]
            ]
        return found

    return findings


@pytest.fixture(scope="session")
def screenshot():
    """Keep what a page looks like for a person: `screenshot(page, name, full_page=True)`."""

    def keep(page, name, **options):
        page.screenshot(path=SCREENSHOTS / f"{name}.png", **options)

    return keep
