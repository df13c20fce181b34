"""The explorers: what they hold is what they were given, and what they show is what torch says."""

import base64
import html
import io
import json
import re
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from tests.hygiene import LOCAL_PATH, text_problems
from vitcourse.show import explorers

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
