"""The explorers as people meet them, in a real browser: what they show is what torch says."""

import re
import shutil

import pytest
import torch

from tests import test_explorers
from tests.browser.explorer import Explorer
from tests.test_explorers import CALLS, GRID, PATCH, a_table, an_image, some_maps
from vitcourse.show import explorers
from vitcourse.vit import patchify

shown, quick = test_explorers.shown, test_explorers.quick  # fixtures


@pytest.fixture
def opened(new_page, shown, quick, tmp_path):
    """Open an explorer as a page: `opened(name, *arguments)`."""

    def open_it(name, *arguments, width=900, touch=False, **options):
        text = shown(name, *arguments, **options)["text/html"]
        path = tmp_path / f"{name}.html"
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        path.write_text(f'<!doctype html>{head}<body style="margin: 0">{text}</body>')
        page = new_page(width, 1500, has_touch=touch)
        page.goto(path.as_uri())
        page.frame_locator("iframe").locator("main").wait_for(state="visible", timeout=10_000)
        return Explorer(page)

    return open_it


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
    for width in (340, 360, 500, 640, 695, 760, 900):
        seen.page.set_viewport_size({"width": width, "height": 1500})
        assert seen.overflow() == [0, 0], width
        picture, frame = (seen.page.locator(tag).bounding_box() for tag in ("img", "iframe"))
        assert picture == frame and frame["width"] == width


def test_canvases_are_sharp(opened):
    seen = opened("patches", an_image(), PATCH)
    dots, width = seen.frame.evaluate("[$('image').width, $('image').clientWidth]")
    assert dots == 2 * width
