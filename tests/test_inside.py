"""Figures of what goes on inside a model, by the data that they draw."""

import json
import re
from html import unescape
from types import SimpleNamespace

import pytest
import torch

from vitcourse import make_vit, probe
from vitcourse.show import explorers, inside

IMAGE = torch.arange(3 * 16 * 24, dtype=torch.uint8).reshape(3, 16, 24)


def small_vit():
    torch.manual_seed(0)
    model = make_vit("Nano/4", image=(16, 24), classes=7).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def centred(images):
    return images / 255 - 0.5


@pytest.fixture
def shown(monkeypatch):
    """What is displayed: a list of the displayed data."""
    found = []
    monkeypatch.setattr(explorers, "display", lambda data, **options: found.append(data))
    return found


def data_of(html):
    """The data inside an explorer."""
    text = unescape(unescape(html["text/html"]))
    return json.loads(re.search(r"const DATA = (\{.*?\});\n", text)[1])


def test_attention_shows_all_layers_and_heads_of_one_picture(shown, monkeypatch):
    given = []
    monkeypatch.setattr(inside, "explore_attention", lambda *arguments: given.append(arguments))
    model = small_vit()
    inside.attention(model, IMAGE, "a picture", centred)
    ((picture, maps, grid, alt, prefix_len),) = given
    with torch.no_grad(), probe.record_attention(model) as expected:
        model(centred(IMAGE[None]))
    torch.testing.assert_close(maps, torch.cat(expected))
    assert maps.shape == (4, 3, 25, 25)
    assert (grid, alt, prefix_len) == ((4, 6), "a picture", 1)
    finer = 11  # 24 pixels become 264
    assert picture.shape == (16 * finer, 24 * finer, 3)
    assert torch.equal(picture[::finer, ::finer].permute(2, 0, 1), IMAGE)
    assert all(layer.recorder is None for layer in model.modules() if hasattr(layer, "recorder"))


def test_attention_is_an_explorer(shown):
    inside.attention(small_vit(), IMAGE, "a picture", centred, layers=[1, 3])
    (html,) = shown
    assert html["text/plain"] == "a picture"
    data = data_of(html)
    assert (data["layers"], data["heads"], data["grid"]) == (2, 3, [4, 6])


def test_pretrained_models_know_how_to_normalise():
    model = small_vit()
    model.preprocess = SimpleNamespace(mean=[0.5, 0.4, 0.3], std=[0.1, 0.2, 0.4])
    normal = inside.as_pretrained(model)(torch.full((1, 3, 2, 2), 51, dtype=torch.uint8))
    torch.testing.assert_close(normal[0, :, 0, 1], torch.tensor([-3.0, -1.0, -0.25]))


@pytest.mark.parametrize(
    "image, words",
    (
        (IMAGE[None], "it needs (C, H, W) of torch.uint8"),
        (IMAGE / 255, "of torch.float32, it needs"),
        (IMAGE.numpy(), "it needs (C, H, W)"),
        ("cat.png", "of str"),
        (IMAGE.transpose(1, 2), "image has 24 x 16 pixels, this model reads 16 x 24"),
    ),
)
def test_other_pictures_are_refused(image, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        inside.attention(small_vit(), image, "a picture", centred)


def test_without_a_way_to_normalise_it_says_where_one_is():
    with pytest.raises(ValueError, match="data.normalise"):
        inside.attention(small_vit(), IMAGE, "a picture")


def test_attention_maps_draw_each_head_of_each_layer():
    torch.manual_seed(0)
    maps = torch.rand(2, 3, 26, 26)  # two prefix tokens, 4 x 6 patches
    drawing = inside.attention_maps(IMAGE, maps, (4, 6), token=5, prefix_len=2)
    picture, *places = drawing.axes
    assert picture.images[0].get_array().shape == (16, 24, 3)
    assert len(places) == 6
    drawn = torch.stack([torch.tensor(p.images[0].get_array().data) for p in places])
    torch.testing.assert_close(drawn, maps[:, :, 5, 2:].reshape(6, 4, 6))
    assert all(p.images[0].get_clim()[0] == 0 for p in places)
    assert [p.get_ylabel() for p in places if p.get_ylabel()] == ["layer 0", "layer 1"]
    titles = [p.get_title() for p in places if p.get_title()]
    assert titles == ["head 0", "head 1", "head 2"]


def test_attention_maps_of_a_grey_picture():
    drawing = inside.attention_maps(torch.rand(1, 8, 8), torch.rand(1, 1, 5, 5), (2, 2))
    assert drawing.axes[0].images[0].get_array().shape == (8, 8)
    assert drawing.axes[0].images[0].get_clim() == (0, 1)


def test_head_distances_draw_a_dot_for_each_head():
    one, two = torch.rand(4, 3), torch.rand(2, 5)
    drawing = inside.head_distances({"one": one, "two": two}, {"one": 0.7, "two": 0.4})
    for axes, (title, values, line) in zip(
        drawing.axes, (("one", one, 0.7), ("two", two, 0.4)), strict=True
    ):
        *layers, dashed = axes.lines
        assert axes.get_title() == title and list(dashed.get_ydata()) == [line, line]
        drawn = torch.tensor([[float(y) for y in dot.get_ydata()] for dot in layers])
        torch.testing.assert_close(drawn, values)
        assert [set(dot.get_xdata()) for dot in layers] == [{i} for i in range(len(values))]
