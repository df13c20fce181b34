"""Each deck in a browser, at 1280 x 720: nothing overflows, nothing is fetched, nothing fails."""

import re

import pytest

from vitcourse.lab import notebooks, slides

LESSONS = sorted(p.stem for p in (notebooks.NOTEBOOKS / "source" / "slides").glob("*.toml"))
SMALLEST = 0.7  # of the size in which text is set

SLIDES = "Reveal.getSlides().filter((section) => !section.matches('.stack'))"
OVERFLOWS = """() => SLIDES.map((section) => {
  const { h, v } = Reveal.getIndices(section);
  Reveal.slide(h, v);
  const slide = section.querySelector(".slide"), box = slide.getBoundingClientRect();
  const range = document.createRange(), found = [];
  const outside = ({ left, right, top, bottom, width, height }) => width * height > 0 &&
    (left < box.left || right > box.right - 30 || top < box.top || bottom > box.bottom - 30);
  if (Math.abs(box.width - 1280 * Reveal.getScale()) > 2) found.push("it is not shown");
  for (const part of slide.querySelectorAll("*")) {
    if (part.closest(".katex-mathml, .katex .hide-tail")) continue;  // cut off on purpose
    const boxes = [part.getBoundingClientRect()];
    for (const node of part.childNodes)
      if (node.nodeType === Node.TEXT_NODE)
        range.selectNode(node), boxes.push(range.getBoundingClientRect());
    if (boxes.some(outside)) found.push(`${part.tagName} is outside`);
  }
  for (const picture of slide.querySelectorAll("img"))
    if (!picture.naturalWidth || picture.clientWidth < 300) found.push("a picture is too small");
  if (Number(slide.style.getPropertyValue("--fit") || 1) < SMALLEST) found.push("text is small");
  return found.map((what) => `slide ${h}/${v}, ${slide.innerText.slice(0, 40)}: ${what}`);
}).flat()"""


DOLLARS = """() => [...document.querySelectorAll(".slide *:not(pre, pre *, code, .katex *)")]
  .flatMap((part) => [...part.childNodes])
  .filter((node) => node.nodeType === Node.TEXT_NODE && node.data.includes("$"))
  .map((node) => node.data)"""


@pytest.fixture(scope="session")
def deck(tmp_path_factory):
    """The address of the deck of a lesson."""
    folder = tmp_path_factory.mktemp("decks") / "slides"

    def built(name):
        path = folder / f"{name}.html"
        if not path.exists():
            slides.slides([name], folder)
        return path.as_uri()

    return built


@pytest.fixture
def opened(new_page, deck):
    """Open the deck of a lesson: `opened(name, query="", **options of the page)`."""

    def open_it(name, query="", **options):
        page = new_page(1280, 720, **options)
        page.goto(deck(name) + query)
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    return open_it


def overflows(page):
    return page.evaluate(OVERFLOWS.replace("SMALLEST", str(SMALLEST)).replace("SLIDES", SLIDES))


@pytest.mark.parametrize("name", LESSONS)
def test_a_deck(opened, axe, screenshot, name):
    page = opened(name)
    assert page.locator(".katex-error").count() == 0
    assert page.evaluate(DOLLARS) == []
    assert overflows(page) == []
    page.evaluate("Reveal.slide(0, 0)")
    screenshot(page, f"slides-{name}")
    assert axe(opened(name, "?print-pdf")) == []  # all slides at once


def test_a_dark_deck_can_be_read(opened, axe, screenshot):
    page = opened("04-attention", dark=True)
    for slide in (0, 2, 18, 21, 52, 60):
        page.evaluate(f"Reveal.slide(...Object.values(Reveal.getIndices({SLIDES}[{slide}])))")
        assert axe(page) == []
        screenshot(page, f"slides-dark-{slide:02}")


def test_what_overflows_is_noticed(opened):
    page = opened("04-attention")
    add = "html => document.querySelectorAll('.slide')[3].insertAdjacentHTML('beforeend', html)"
    for html in (
        "<p>word </p>" * 40,
        f"<pre>{'x' * 200}</pre>",
        "<div style='position:absolute;left:-50px'>x</div>",
        "<img alt='a' src='data:,'>",
    ):
        before = page.evaluate("document.querySelectorAll('.slide')[3].innerHTML")
        page.evaluate(add, html)
        assert overflows(page), html
        page.evaluate("html => document.querySelectorAll('.slide')[3].innerHTML = html", before)
    assert overflows(page) == []


def go_to_explorer(page):
    """Show the slide of the explorer: its frame."""
    page.evaluate("""() => {
      const section = document.querySelector(".live").closest("section");
      const { h, v } = Reveal.getIndices(section);
      Reveal.slide(h, v);
    }""")
    return page.frame_locator("section.present .live iframe")


def test_the_explorer_of_attention_reacts(opened):
    page = opened("04-attention")
    frame = go_to_explorer(page)
    says = frame.locator(".says").first
    before = says.inner_text()
    frame.get_by_role("button", name="2").first.click()
    assert says.inner_text() != before


def test_the_keys_belong_to_the_slides_again(opened):
    page = opened("04-attention")
    frame = go_to_explorer(page)
    frame.get_by_role("button", name="2").first.click()
    here = page.evaluate("Reveal.getIndices().v")
    page.mouse.move(20, 600)
    page.wait_for_function("document.activeElement === document.body")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("Reveal.getIndices().v") == here - 1


def test_light_and_dark(opened):
    def ground():
        return page.evaluate("getComputedStyle(document.querySelector('.reveal')).backgroundColor")

    page = opened("04-attention")
    light = ground()
    page.keyboard.press("d")
    dark = ground()
    page.get_by_role("button", name="light or dark").click()
    assert light == ground() == "rgb(255, 255, 255)" != dark
    page = opened("04-attention", dark=True)
    assert ground() == dark
    page.keyboard.press("d")
    assert ground() == light


def test_every_picture_has_its_alt_text(opened):
    page = opened("04-attention")
    assert page.locator("img").count() >= 5
    assert page.locator("img:not([alt]), img[alt='']").count() == 0


def test_the_speakers_view(opened):
    page = opened("04-attention")
    with page.expect_popup() as opening:
        page.keyboard.press("s")
    notes = opening.value
    notes.get_by_text("At 0 of 90 minutes").wait_for()
    notes.get_by_text("Wrong answers to expect").wait_for()
    notes.get_by_text("Pacing").wait_for()
    page.keyboard.press("ArrowRight")
    notes.get_by_text("At 4 of 90 minutes").wait_for()
    notes.close()


def test_it_prints_one_page_for_each_slide(opened):
    page = opened("04-attention", "?print-pdf")
    count = page.locator(".slide").count()
    pages = re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True))
    assert len(pages) == count > 40
    assert page.locator("iframe:visible").count() == 0 < page.locator(".live img:visible").count()
