"""Figures are checked through the data that they draw."""

import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from vitcourse import show
from vitcourse.show.figures import DENSITY, picture


def drawn(figure):
    """The arrays of all images in a figure, in order."""
    return [image.get_array() for axes in figure.axes for image in axes.images]


def test_images_of_every_layout_are_drawn_as_they_are():
    grey, colour = torch.rand(4, 6), torch.rand(3, 4, 6)
    bytes_ = (torch.rand(4, 6, 3) * 255).byte()
    figure = show.images([grey, grey[None], colour, bytes_], titles="abcd", columns=3)
    one, two, three, four = drawn(figure)[:4]
    assert np.array_equal(one, grey) and np.array_equal(two, grey)
    assert np.array_equal(three, colour.permute(1, 2, 0)) and np.array_equal(four, bytes_)
    assert [axes.get_title() for axes in figure.axes[:4]] == list("abcd")
    assert all(image.get_clim() == (0, 1) for image in figure.axes[0].images)


def test_heatmaps_share_one_scale():
    positive = show.heatmaps([torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 5.0]])])
    assert {axes.images[0].get_clim() for axes in positive.axes[:2]} == {(0, 5)}
    signed = show.heatmaps([torch.tensor([[-3.0, 2.0]])])
    assert signed.axes[0].images[0].get_clim() == (-3, 3)
    fixed = show.heatmaps([torch.tensor([[0.2, 0.4]])], limits=(0, 1))
    assert fixed.axes[0].images[0].get_clim() == (0, 1)


def test_numbers_can_be_read():
    figure = show.heatmaps([torch.tensor([[0.0, 1.0, 0.25]])], numbers=True)
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == ["0", "1", "0.25"]
    assert [text.get_color() for text in texts[:2]] == ["white", "black"]  # dark blue, yellow


def test_lines_and_bars_draw_what_they_are_given():
    lines = show.lines({"a": [3, 1], "b": ([10, 100], [0.5, 0.1])}, "step", "loss", log="x").axes[0]
    assert [list(line.get_xdata()) for line in lines.lines] == [[0, 1], [10, 100]]
    assert [list(line.get_ydata()) for line in lines.lines] == [[3, 1], [0.5, 0.1]]
    assert (lines.get_xscale(), lines.get_yscale()) == ("log", "linear")
    assert (lines.get_xlabel(), lines.get_ylabel()) == ("step", "loss")
    bars = show.bars({"x": 0.5, "y": 0.9}, "accuracy", spread={"x": 0.1, "y": 0.2}, mark=0.3)
    assert [patch.get_width() for patch in bars.axes[0].patches] == [0.5, 0.9]
    assert [label.get_text() for label in bars.axes[0].get_yticklabels()] == ["x", "y"]


def test_whole_numbers_have_whole_ticks():
    def ticks(values):
        axes = show.lines({"a": values}, "epoch", "loss").axes[0]
        axes.figure.draw_without_rendering()
        return [float(t) for t in axes.get_xticks()]

    assert all(tick.is_integer() for tick in ticks([3, 1]))
    assert all(tick.is_integer() for tick in ticks(([1, 4], [3, 1])))
    assert not all(tick.is_integer() for tick in ticks(([0.1, 0.9], [3, 1])))


@pytest.mark.parametrize("draw", (show.images, show.heatmaps))
def test_what_cannot_be_drawn_is_refused(draw):
    with pytest.raises(ValueError, match="nothing to draw"):
        draw([])
    with pytest.raises(ValueError, match="2 pictures have 1 titles"):
        draw([torch.rand(2, 2)] * 2, titles=["one"])


def test_a_picture_is_sharp_and_says_its_size():
    shown = picture(show.bars({"x": 1.0}, "share"), "one bar")
    image = Image.open(io.BytesIO(shown["data"]["image/png"]))
    about = shown["metadata"]["image/png"]
    assert about["alt"] == shown["data"]["text/plain"] == "one bar"
    assert (about["width"], about["height"]) == tuple(side // DENSITY for side in image.size)
    assert DENSITY == 2


def test_the_same_figure_gives_the_same_bytes():
    def make():
        return picture(show.heatmaps([torch.arange(6).reshape(2, 3)]), "a")["data"]["image/png"]

    assert make() == make()


def test_a_figure_needs_words():
    with pytest.raises(ValueError, match="say in a sentence"):
        show.figure(Figure(), alt=" ")
    with pytest.raises(TypeError, match="takes a matplotlib Figure"):
        show.figure([1, 2], alt="numbers")


def test_records():
    record = show.recorded("digits")
    assert record["rows"]
    with pytest.raises(ValueError, match="recorded are: .*digits"):
        show.recorded("nothing")


def test_pairs_that_hold_and_that_do_not():
    record = {
        "pairs": {
            "one is above": {"difference": [0.1, 0.25], "holds": True},
            "two is above": {"difference": [0.1, -0.25], "holds": False},
        }
    }
    assert show.pairs(record).splitlines() == [
        "holds with every seed: one is above",
        "    +0.100  +0.250",
        "negative result: two is above",
        "    +0.100  -0.250",
    ]
