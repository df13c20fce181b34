"""The explorers: what they hold is what they were given, and what they show is what torch says."""

import base64
import html
import io
import json
import re
import shutil
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from tests.hygiene import LOCAL_PATH, text_problems
from vitcourse.show import explorers
from vitcourse.vit import patchify

GRID, PATCH, HEADS, LAYERS = (3, 5), 4, 2, 6
N = GRID[0] * GRID[1]
ALT = 'A picture of "noise" & <nothing> else'


def an_image(channels=3, patch=PATCH):
    size = (GRID[0] * patch, GRID[1] * patch, channels)
    return torch.randint(0, 256, size, dtype=torch.uint8)


def a_table(width=7):
    return torch.randn(N, width)


def some_maps(prefix_len=1, layers=LAYERS):
    tokens = prefix_len + N
    return torch.randn(layers, HEADS, tokens, tokens).mul(2).softmax(dim=-1)


@pytest.fixture
def shown(monkeypatch):
    """Call an explorer: the data that it displays."""
    displayed = []
    monkeypatch.setattr(explorers, "display", lambda data, raw: displayed.append(data))

    def call(name, *arguments, alt=ALT, **options):
        getattr(explorers, f"explore_{name}")(*arguments, alt=alt, **options)
        return displayed.pop()

    return call


@pytest.fixture
def quick(monkeypatch):
    """Do not draw the picture that lies under an explorer: it takes most of the time."""
    file = io.BytesIO()
    Image.new("L", (9, 5)).save(file, "PNG")
    monkeypatch.setattr(explorers, "png", lambda drawing: file.getvalue())


CALLS = {
    "patches": lambda: (an_image(), PATCH),
    "positions": lambda: (a_table(), GRID),
    "attention": lambda: (an_image(), some_maps(), GRID),
}


def inside(output):
    """The document in the frame of an explorer."""
    (document,) = re.findall(r'srcdoc="([^"]*)"', output["text/html"])
    return html.unescape(document)


def data_of(output):
    """The data that an explorer holds."""
    (data,) = re.findall(r"const DATA = (\{.*\});", inside(output))
    return json.loads(data)


def unpack(text, dtype, *shape):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype).reshape(shape)


# What an explorer holds ---------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pixels_are_those_of_the_image(shown, quick, channels):
    image = an_image(channels)
    held = data_of(shown("patches", image, PATCH))
    differences = unpack(held["pixels"], np.uint8, -1, channels)
    pixels = differences.cumsum(axis=0, dtype=np.uint8).reshape(image.shape)
    assert (pixels == image.numpy()).all()
    assert held["grid"] == list(GRID) and held["size"] == list(image.shape)


def test_it_begins_with_the_patch_that_varies_most(shown, quick):
    image = torch.full((12, 20, 3), 7, dtype=torch.uint8)
    image[4:6, 12:16] = 200  # in row 1, column 3
    assert data_of(shown("patches", image, PATCH))["start"] == 1 * 5 + 3


def test_the_similarities_are_those_of_the_table(shown, quick):
    table = a_table()
    held = data_of(shown("positions", table, GRID))
    level = (held["high"] - held["low"]) / 255
    similarity = held["low"] + unpack(held["similarity"], np.uint8, N, N) * level
    truth = torch.cosine_similarity(table[:, None], table[None], dim=-1).numpy()
    assert abs(similarity - truth).max() <= level / 2 + 1e-6
    assert held["low"] == pytest.approx(truth.min(), abs=1e-6) and held["high"] == 1


@pytest.mark.parametrize("grid", [GRID, (1, 1)])
def test_places_that_are_all_alike_are_shown_as_such(shown, quick, grid):
    held = data_of(shown("positions", torch.ones(grid[0] * grid[1], 7), grid))
    assert (unpack(held["similarity"], np.uint8, -1) == 255).all() and held["low"] == 0.99


def weights_of(held):
    """The attention that an explorer holds: (L, K, T, T), and how exact each row is."""
    shape = held["layers"], held["heads"], held["prefixLen"] + N
    peaks = unpack(held["peaks"], np.float32, *shape, 1)
    patches = unpack(held["weights"], np.uint8, *shape, N) / 255 * peaks
    prefix = unpack(held["prefix"], np.float32, *shape, held["prefixLen"])
    return np.concatenate([prefix, patches], axis=-1), peaks / 510 + 1e-6


@pytest.mark.parametrize("prefix_len", [0, 1, 2])
def test_the_weights_are_those_of_the_maps(shown, quick, prefix_len):
    maps = some_maps(prefix_len)
    held = data_of(shown("attention", an_image(), maps, GRID, prefix_len=prefix_len))
    weights, exact = weights_of(held)
    assert (abs(weights - maps.numpy()) <= exact).all()
    turned = maps.transpose(-2, -1).numpy()
    assert not (abs(weights - turned) <= exact).all()


def test_what_is_printed_of_attention_is_exact(shown, quick):
    maps = some_maps()
    weights, _ = weights_of(data_of(shown("attention", an_image(), maps, GRID)))
    assert abs(weights[..., 0] - maps[..., 0].numpy()).max() < 1e-6
    assert abs(weights[..., 1:].max(-1) - maps[..., 1:].amax(-1).numpy()).max() < 1e-6


def test_one_layer_is_a_layer(shown, quick):
    maps = some_maps(layers=1)
    image = an_image()
    one = shown("attention", image, maps[0], GRID)
    assert one == shown("attention", image, maps, GRID)


def test_arrays_tensors_and_small_floats_are_taken(shown, quick):
    image, table, maps = an_image(), a_table(), some_maps()
    assert shown("patches", image, PATCH) == shown("patches", image.numpy(), PATCH)
    assert shown("positions", table, GRID) == shown("positions", table.numpy(), list(GRID))
    shown("positions", table.requires_grad_().bfloat16(), GRID)
    shown("attention", image, maps.bfloat16(), GRID)


@pytest.mark.parametrize("pixels", [8, 900])
def test_the_picture_under_attention_is_the_image(shown, pixels):
    image = torch.zeros(pixels, pixels, 3, dtype=torch.uint8)
    image[: pixels // 2] = torch.randint(0, 256, (pixels // 2, 1, 3), dtype=torch.uint8)
    image[0, 0] = 255
    uri = explorers.image_uri(image.numpy())
    kind, text = re.fullmatch(r"data:image/(\w+);base64,(.*)", uri).groups()
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    assert kind == "png" and (picture == image.numpy()).all()


def test_a_large_photograph_becomes_a_jpeg():
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert explorers.image_uri(image).startswith("data:image/jpeg;base64,")


# The page -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_the_page_is_clean(shown, name):
    output = shown(name, *CALLS[name]())
    text = output["text/html"]
    assert output["text/plain"] == ALT and text.startswith("<div")
    assert not list(text_problems(text))
    for tag in ("div", "img", "iframe"):
        assert len(re.findall(f"<{tag}\\b", text)) == 1
    assert f'alt="{html.escape(ALT)}"' in text
    assert 'sandbox="allow-scripts"' in text
    document = inside(output)
    without_data = re.sub(r'"[A-Za-z0-9+/=]{40,}"|data:image/[^"]*', "", document)
    assert not re.search(r"//|https?:|url\(|@import|\bsrc=|\bhref=", without_data)
    assert not LOCAL_PATH.search(without_data)
    assert document.count("<script>") == document.count("</script>") == 2


@pytest.mark.parametrize("name", CALLS)
def test_a_planted_reference_to_the_network_is_noticed(shown, quick, name):
    output = shown(name, *CALLS[name]())
    for planted in ("<img alt='a' src='//cdn.org/x.png'>", "<script src='https://cdn.org/x.js'>"):
        assert list(text_problems(output["text/html"].replace("<iframe", planted + "<iframe")))


@pytest.mark.parametrize("name", CALLS)
def test_the_same_input_makes_the_same_bytes(shown, name):
    arguments = CALLS[name]()
    assert shown(name, *arguments) == shown(name, *arguments)


@pytest.mark.parametrize("name", CALLS)
def test_the_input_is_left_as_it_is(shown, quick, name):
    arguments = CALLS[name]()
    before = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    shown(name, *arguments)
    for a, b in zip(arguments, before, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_small_ones_are_small(shown):
    maps = torch.randn(4, 17, 17).softmax(dim=-1)
    digit = torch.randint(0, 256, (8, 8, 1), dtype=torch.uint8)
    assert len(shown("attention", digit, maps, (4, 4))["text/html"]) < 45_000
    assert len(shown("patches", digit, 2)["text/html"]) < 45_000


# What is refused ----------------------------------------------------------------------------------

IMAGE = torch.zeros(12, 20, 3, dtype=torch.uint8)
TABLE = torch.ones(N, 7)
MAPS = torch.full((HEADS, 1 + N, 1 + N), 1 / (1 + N))
SKEWED = torch.randn(HEADS, 1 + N, 1 + N).softmax(dim=-1)

REFUSED = {
    "image has the shape (3, 12, 20)": ("patches", IMAGE.permute(2, 0, 1), PATCH),
    "call image.permute(1, 2, 0)": ("attention", IMAGE.permute(2, 0, 1), MAPS, GRID),
    "image has the shape (12, 20)": ("patches", IMAGE[..., 0], PATCH),
    "image holds float": ("patches", IMAGE / 255, PATCH),
    "resize or crop it, for example to 10x20": ("patches", IMAGE, 5),
    "patch is 0": ("patches", IMAGE, 0),
    "patch is 2.5": ("patches", IMAGE, 2.5),
    "leave out rows of prefix tokens, table[1:]": ("positions", torch.ones(1 + N, 7), GRID),
    "table has 15 rows, a grid of 3x4 has 12 places": ("positions", TABLE, (3, 4)),
    "a grid of 5x5 has 25 places": ("positions", TABLE, (5, 5)),
    "table has the shape (1, 15, 7)": ("positions", TABLE[None], GRID),
    "grid is 3": ("positions", TABLE, 3),
    "grid is (0, 15)": ("positions", TABLE, (0, 15)),
    "row 0 of table is all zeros": ("positions", TABLE * 0, GRID),
    "table holds nan": ("positions", TABLE * torch.nan, GRID),
    "prefix_len is -1": ("attention", IMAGE, MAPS, GRID, -1),
    "maps has the shape (16, 16)": ("attention", IMAGE, MAPS[0], GRID),
    "prefix_len=2 make 17": ("attention", IMAGE, MAPS, GRID, 2),
    "a grid of 3x4 and prefix_len=1 make 13": ("attention", IMAGE, MAPS, (3, 4)),
    "maps is no attention: its rows sum to 0.50": ("attention", IMAGE, MAPS / 2, GRID),
    "stands in the last dimension": ("attention", IMAGE, SKEWED.transpose(1, 2), GRID),
    "maps is no attention": ("attention", IMAGE, MAPS * torch.nan, GRID),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused(message, monkeypatch):
    monkeypatch.setattr(explorers, "display", lambda *a, **k: pytest.fail("was displayed"))
    name, *arguments = REFUSED[message]
    options = {"prefix_len": arguments.pop()} if len(arguments) == 4 else {}
    with pytest.raises(ValueError) as refusal:
        getattr(explorers, f"explore_{name}")(*arguments, alt=ALT, **options)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("alt", ["", " ", None])
def test_a_text_is_needed(shown, name, alt):
    with pytest.raises(ValueError, match="alt is empty"):
        shown(name, *CALLS[name](), alt=alt)


def test_what_is_too_large_is_refused(shown, monkeypatch):
    monkeypatch.setattr(explorers, "LIMIT", 20_000)
    advice = {"patches": "smaller image", "positions": "smaller grid", "attention": "fewer layers"}
    for name, words in advice.items():
        with pytest.raises(ValueError, match=f"MB of the notebook, more than .* MB: .*{words}"):
            shown(name, *CALLS[name]())


# What people see, in a real browser ---------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as running:
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = running.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, shown, quick, tmp_path):
    """Open an explorer as a page: `see(name, *arguments)`. No network, and no errors."""
    troubles, contexts = [], []

    def open_it(name, *arguments, width=900, touch=False, **options):
        text = shown(name, *arguments, **options)["text/html"]
        path = tmp_path / f"{name}.html"
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        path.write_text(f'<!doctype html>{head}<body style="margin: 0">{text}</body>')
        size = {"width": width, "height": 1500}
        context = browser.new_context(viewport=size, has_touch=touch, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda line: line.type == "error" and troubles.append(line.text))
        page.on("request", lambda request: outside(request.url) and troubles.append(request.url))
        page.goto(path.as_uri())
        page.frame_locator("iframe").locator("main").wait_for(state="visible", timeout=10_000)
        return Seen(page)

    yield open_it
    for context in contexts:
        context.close()
    assert not troubles


def outside(address):
    """Whether an address lies outside of the page itself."""
    return not address.startswith(("file:", "data:", "about:"))


class Seen:
    """An opened explorer, as a person meets it."""

    def __init__(self, page):
        self.page, self.frame = page, page.frames[1]

    def point(self, canvas, cell, grid, tap=False, click=False):
        """Point at the middle of a cell of a canvas, counted row by row."""
        box = self.frame.locator(canvas).bounding_box()
        x = box["x"] + (cell % grid[1] + 0.5) * box["width"] / grid[1]
        y = box["y"] + (cell // grid[1] + 0.5) * box["height"] / grid[0]
        if tap:
            self.page.touchscreen.tap(x, y)
        else:
            self.page.mouse.move(x, y)
        if click:
            self.page.mouse.click(x, y)

    def press(self, button):
        self.frame.get_by_role("button", name=button, exact=True).click()

    def text(self, part="#says"):
        return self.frame.locator(part).inner_text()

    def numbers(self, part="#says"):
        return [float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", self.text(part))]

    def colour(self, canvas, cell, grid):
        """The colour in a canvas a third into a cell, beside any mark of its middle."""
        row, column = (cell // grid[1] + 0.3) / grid[0], (cell % grid[1] + 0.3) / grid[1]
        return self.frame.evaluate(
            """([id, x, y]) => {
                const it = document.querySelector(id);
                const at = [x * it.width, y * it.height].map(Math.floor);
                return [...it.getContext("2d").getImageData(...at, 1, 1).data].slice(0, 3);
            }""",
            [canvas, column, row],
        )

    def overflow(self):
        """How much wider, and how much taller, the explorer is than its frame."""
        return self.frame.evaluate(
            """() => [document.documentElement.scrollWidth - innerWidth,
                      document.documentElement.scrollHeight - innerHeight]"""
        )


def wrong_patches(seen, image):
    """The patches whose numbers are not those that `patchify` gives."""
    truth = patchify(image.permute(2, 0, 1)[None], PATCH)[0]
    wrong = []
    for number in (0, 4, 7, 13):
        seen.point("#image", number, GRID)
        place = f"Patch {number}, in row {number // 5}, column {number % 5}."
        first = truth[number, :6].tolist()
        if not seen.text().startswith(place) or seen.numbers("#numbers")[:6] != first:
            wrong.append(number)
    return wrong


def test_pointing_at_a_patch_shows_its_numbers(opened):
    image = an_image()
    seen = opened("patches", image, PATCH)
    assert not wrong_patches(seen, image)
    assert "2 x 5 + 3 = 13" in seen.text("#order")
    assert "4 x 4 x 3 = 48 values" in seen.text("#count")
    assert wrong_patches(seen, image.flip(0)) and wrong_patches(seen, image.flip(1))


def test_pointing_at_a_pixel_shows_where_its_numbers_stand(opened):
    image = an_image()
    seen = opened("patches", image, PATCH)
    seen.point("#image", 7, GRID, click=True)  # row 1, column 2
    seen.point("#image", 9, GRID)
    assert seen.text().startswith("Patch 7,")  # it was kept
    seen.point("#piece", 6, (4, 4))  # row 1, column 2 of the patch
    values = image[1 * 4 + 1, 2 * 4 + 2].tolist()
    assert "values 18 to 20 are the pixel in row 1, column 2" in seen.text()
    assert seen.numbers()[-3:] == values == seen.numbers("#numbers")[:3]
    assert seen.colour("#piece", 9, (4, 4)) == image[1 * 4 + 2, 2 * 4 + 1].tolist()
    assert seen.colour("#image", 3, GRID) == image[1, 3 * 4 + 1].tolist()


def test_patches_in_the_wrong_order_are_noticed(opened, monkeypatch, tmp_path):
    web = shutil.copytree(explorers.WEB, tmp_path / "web")
    source, right = (web / "patches.html").read_text(), "[Math.floor(n / w) * P, (n % w) * P]"
    assert source.count(right) == 1
    wrong = "[(n % h) * P, Math.floor(n / h) * P]"  # column by column
    (web / "patches.html").write_text(source.replace(right, wrong))
    monkeypatch.setattr(explorers, "WEB", web)
    image = an_image()
    assert wrong_patches(opened("patches", image, PATCH), image) == [4, 13]  # 0 and 7 stay


def test_pointing_at_two_places_shows_their_similarity(opened):
    table = a_table()
    seen = opened("positions", table, GRID)
    truth = torch.cosine_similarity(table[:, None], table[None], dim=-1)
    for place, other in ((2, 11), (11, 2), (14, 5)):
        seen.point("#all", place, GRID)
        best = truth[place].index_fill(0, torch.tensor(place), -2).argmax().item()
        assert f"most like place {best} (" in seen.text()
        seen.point("#all", place, GRID, click=True)
        seen.point("#one", other, GRID)
        assert f"Place {place} (row {place // 5}, column {place % 5}) and" in seen.text()
        assert f"and place {other} (row {other // 5}, column {other % 5})" in seen.text()
        assert seen.numbers()[-1] == pytest.approx(truth[place, other].item(), abs=0.01)
        seen.point("#all", place, GRID, click=True)
    scale = [round(truth.min().item(), 2), 1]
    assert seen.numbers("#low") + seen.numbers("#high") == pytest.approx(scale, abs=0.011)


def test_brighter_is_more_alike(opened):
    table = a_table()
    truth = torch.cosine_similarity(table[:, None], table[None], dim=-1)[7]
    seen = opened("positions", table, GRID)
    order = [place for place in truth.argsort().tolist() if place != 7]
    greens = [seen.colour("#one", place, GRID)[1] for place in order]  # viridis: green rises
    assert greens == sorted(greens)


def wrong_queries(seen, weights, queries=(0, 4, 7, 13)):
    """The patches for which what is shown differs from the attention (T, T)."""
    wrong = []
    for query in queries:
        seen.point("#image", query, GRID)
        row = weights[1 + query]
        most = row[1:].argmax().item()
        expected = f"most at patch {most} (row {most // 5}, column {most % 5}): {row[1 + most]:.3f}"
        prefix = f"{row[0]:.3f} at the class token"
        start = f"Patch {query} (row {query // 5}, column {query % 5}) looks"
        text = seen.text()
        if not (text.startswith(start) and expected in text and prefix in text):
            wrong.append(query)
    return wrong


def test_pointing_at_a_patch_shows_where_it_looks(opened):
    maps = some_maps()
    seen = opened("attention", an_image(), maps, GRID)
    mean = maps[-1].mean(dim=0)
    assert f"{mean[0, 0]:.3f} at the class token" in seen.text()
    assert f"{mean[0, 1:].max():.3f}" in seen.text()
    seen.frame.locator("#layers button").nth(4).click()
    seen.frame.locator("#heads button").nth(1).click()
    assert not wrong_queries(seen, maps[4, 1])
    assert "(layer 4, head 1)" in seen.text() and "An even share of 16 tokens" in seen.text()
    assert len(wrong_queries(seen, maps[4, 0])) == len(wrong_queries(seen, maps[3, 1])) == 4
    seen.press("class token")
    seen.point("#map", 3, GRID)
    assert seen.text().startswith("The class token looks (layer 4, head 1)")  # it is kept
    assert f"{maps[4, 1, 0, 0]:.3f} at the class token" in seen.text()


def test_a_transposed_map_is_noticed(opened):
    maps = some_maps(layers=1)[0].double()
    for _ in range(200):  # rows and columns sum to one, so that it is not refused
        maps = maps / maps.sum(dim=1, keepdim=True)
        maps = maps / maps.sum(dim=2, keepdim=True)
    seen = opened("attention", an_image(), maps.transpose(1, 2), GRID)
    seen.frame.locator("#heads button").nth(0).click()
    assert not wrong_queries(seen, maps[0].T)
    assert len(wrong_queries(seen, maps[0])) == 4


def test_brighter_is_more_weight(opened):
    maps = some_maps(prefix_len=0, layers=1)
    image = torch.full((12, 20, 3), 90, dtype=torch.uint8)
    seen = opened("attention", image, maps, GRID, prefix_len=0)
    seen.frame.locator("#heads button").nth(1).click()
    seen.point("#image", 7, GRID)
    assert "token:" not in seen.text() and "layer" not in seen.text()
    order = maps[0, 1, 7].argsort().tolist()
    greens = [seen.colour("#map", place, GRID)[1] for place in order]
    assert greens == sorted(greens) and greens[0] < greens[-1]


def test_several_prefix_tokens_have_numbers(opened):
    maps = some_maps(prefix_len=2, layers=1)
    seen = opened("attention", an_image(), maps, GRID, prefix_len=2)
    seen.press("prefix token 1")
    row = maps[0].mean(dim=0)[1]
    assert seen.text().startswith("Prefix token 1 looks")
    assert f"{row[0]:.3f} at prefix token 0, {row[1]:.3f} at prefix token 1" in seen.text()


PICTURES = {"patches": "#image", "positions": "#all", "attention": "#image"}


@pytest.mark.parametrize("name", CALLS)
def test_keys_move_and_focus_is_seen(opened, name):
    seen = opened(name, *CALLS[name]())
    seen.point(PICTURES[name], 6, GRID)
    seen.page.keyboard.press("Tab")
    seen.frame.locator(PICTURES[name]).focus()
    seen.page.keyboard.press("ArrowRight")
    seen.page.keyboard.press("ArrowDown")
    assert re.match(r"(Patch|Place) 12\b", seen.text())
    seen.page.keyboard.press("ArrowDown")  # there is no further row
    assert re.match(r"(Patch|Place) 12\b", seen.text())
    seen.page.keyboard.press("Home")
    assert re.match(r"(Patch|Place) 10\b", seen.text())
    outline = "it => getComputedStyle(it).outlineStyle"
    assert seen.frame.locator(PICTURES[name]).evaluate(outline) == "solid"


@pytest.mark.parametrize("name", CALLS)
def test_it_fits_a_telephone_and_answers_to_a_finger(opened, name):
    seen = opened(name, *CALLS[name](), width=380, touch=True)
    assert seen.overflow() == [0, 0]
    for cell in (11, 4):
        seen.point(PICTURES[name], cell, GRID, tap=True)
        assert re.match(rf"(Patch|Place) {cell}\b", seen.text())
    assert seen.overflow() == [0, 0]


@pytest.mark.parametrize("name", CALLS)
def test_it_covers_its_picture_at_every_width(opened, name):
    seen = opened(name, *CALLS[name]())
    for width in (340, 500, 640, 760, 900):
        seen.page.set_viewport_size({"width": width, "height": 1500})
        assert seen.overflow() == [0, 0], width
        picture, frame = (seen.page.locator(tag).bounding_box() for tag in ("img", "iframe"))
        assert picture == frame and frame["width"] == width


def test_canvases_are_sharp(browser, shown, quick, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(shown("patches", an_image(), PATCH)["text/html"])
    page = browser.new_page()
    page.goto(path.as_uri())
    page.frame_locator("iframe").locator("main").wait_for(state="visible")
    dots, width = page.frames[1].evaluate("[$('image').width, $('image').clientWidth]")
    assert dots == 2 * width
    page.close()
