"""The tests in browsers can fail: each trouble that a page can have is noticed."""

import pytest

TROUBLE = {
    '<img alt="" src="missing.png">': ["failed: ", "console: Failed to load"],
    "<script>nothing()</script>": ["error: nothing is not defined"],
    "<script>console.error('oh')</script>": ["console: oh"],
    "<link rel=stylesheet href=https://example.org/a.css>": [
        "leaves: https",
        "failed: ",
        "console",
    ],
    "<script>new WebSocket('wss://example.org')</script>": ["leaves: wss", "console: WebSocket"],
    "<iframe title=a srcdoc='<script>nothing()</script>'></iframe>": ["error: nothing"],
}


@pytest.mark.parametrize("content", TROUBLE)
def test_trouble_is_noticed(page, tmp_path, content):
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html>{content}")
    page.goto(path.as_uri(), wait_until="load")
    page.wait_for_timeout(100)
    for line in TROUBLE[content]:
        assert any(found.startswith(line) for found in page.trouble), page.trouble
    page.trouble.clear()


def test_what_few_can_read_is_noticed(page, axe):
    start = "<!doctype html><html lang=en><title>a</title><main><h1>b</h1>"
    pale = "<p style='color: #ccc; background: #fff'>pale</p>"
    frame = f'<iframe title="c" srcdoc="{start}{pale}"></iframe>'
    page.set_content(f"{start}<p>dark</p></main>")
    assert not axe(page)
    for content in (f"{start}{pale}</main>", f"{start}{frame}</main>"):
        page.set_content(content)
        page.wait_for_timeout(100)
        assert [line.split(":")[0] for line in axe(page)] == ["color-contrast"]
