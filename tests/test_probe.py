"""Looking inside: each measure where its value is known, and planted errors beside it."""

import math

import pytest
import torch
from sklearn.decomposition import PCA

from vitcourse import ViT, make_vit, probe
from vitcourse.data import trained
from vitcourse.parts import MeanHead, NoPosition, SinCosPosition, sincos


def random_vit(**options):
    """A ViT in which no parameter is what it began as."""
    torch.manual_seed(0)
    model = make_vit("Nano/4", image=(16, 24), classes=7, **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def shifted(grid, dy, dx):
    """Maps in which every patch looks at the one dy rows down and dx columns right, cyclically."""
    h, w = grid
    target = torch.arange(h * w).reshape(h, w).roll((-dy, -dx), (0, 1)).flatten()
    return torch.eye(h * w)[target]


def test_distance_of_maps_that_look_at_themselves_is_zero():
    assert probe.attention_distance(torch.eye(15)[None, None], (3, 5)).item() == 0


def test_distance_of_uniform_maps_is_the_mean_of_all_distances():
    uniform = torch.full((2, 3, 64, 64), 1 / 64)
    distance = probe.attention_distance(uniform, (8, 8))
    places = [(y, x) for y in range(8) for x in range(8)]
    expected = sum(math.dist(a, b) for a in places for b in places) / 64**2
    torch.testing.assert_close(distance, torch.full((2, 3), expected))
    assert round(expected, 2) == 4.14
    torch.testing.assert_close(probe.attention_distance(uniform, (8, 8), patch=16), distance * 16)


@pytest.mark.parametrize("dy, dx", ((0, 1), (2, 0), (1, 3)))
def test_distance_of_a_shift_is_its_length(dy, dx):
    """Of the queries whose target is not across the border; the others are known as well."""
    h, w = 5, 7
    lengths = [math.dist((y, x), ((y + dy) % h, (x + dx) % w)) for y in range(h) for x in range(w)]
    distance = probe.attention_distance(shifted((h, w), dy, dx)[None, None], (h, w))
    assert distance.item() == pytest.approx(sum(lengths) / (h * w), rel=1e-6)
    inside = [length for i, length in enumerate(lengths) if i // w + dy < h and i % w + dx < w]
    assert set(inside) == {math.hypot(dy, dx)}


def test_distance_leaves_prefix_tokens_out():
    maps = shifted((3, 5), 1, 1)
    full = torch.zeros(17, 17)
    full[2:, 2:] = maps * 0.3
    full[:, 0] += 0.7
    expected = probe.attention_distance(maps[None, None], (3, 5))
    torch.testing.assert_close(probe.attention_distance(full[None, None], (3, 5)), expected)


def test_grids_that_are_not_square_keep_rows_and_columns_apart():
    rows = probe.attention_distance(shifted((2, 6), 1, 0)[None, None], (2, 6))
    wrong = probe.attention_distance(shifted((2, 6), 1, 0)[None, None], (6, 2))
    assert rows.item() == 1 and wrong.item() != 1


def test_rollout_through_a_model():
    model = random_vit()
    with torch.no_grad(), probe.record_attention(model) as maps:
        model(torch.randn(2, 3, 16, 24))
    reach = probe.rollout(maps)
    torch.testing.assert_close(reach.sum(dim=-1), torch.ones(2, 25))
    by_hand = torch.eye(25)
    for weights in maps:
        by_hand = (weights[1].mean(dim=0) + torch.eye(25)) / 2 @ by_hand
    torch.testing.assert_close(reach[1], by_hand)


def test_recorded_maps_give_the_result_of_the_fast_path():
    model = random_vit()
    images = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        plain = model(images)
        with probe.record_attention(model) as maps:
            torch.testing.assert_close(model(images), plain)
    assert len(maps) == len(model.blocks)


def test_recording_through_a_compiled_model():
    model = random_vit()
    images = torch.randn(2, 3, 16, 24)
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        plain = compiled(images)
        with probe.record_attention(model) as maps:
            torch.testing.assert_close(compiled(images), plain)
        assert len(maps) == len(model.blocks)
        torch.testing.assert_close(compiled(images), plain)


def test_similarity_of_positions():
    torch.manual_seed(0)
    table = torch.randn(1, 2 + 15, 8)
    alike = probe.position_similarity(table, (3, 5))
    torch.testing.assert_close(alike, alike.permute(2, 3, 0, 1))
    torch.testing.assert_close(alike.reshape(15, 15).diagonal(), torch.ones(15))
    one = torch.cosine_similarity(table[0, 2 + 7], table[0, 2 + 4], dim=0)  # (1, 2) and (0, 4)
    torch.testing.assert_close(alike[1, 2, 0, 4], one)


def share_of_rows_and_columns(alike):
    """The mean similarity of places in one row or column, and of all other pairs."""
    h, w = alike.shape[:2]
    y, x = torch.cartesian_prod(torch.arange(h), torch.arange(w)).T
    same = (y[:, None] == y) | (x[:, None] == x)
    flat, other = alike.reshape(h * w, h * w), ~torch.eye(h * w, dtype=torch.bool)
    return flat[same & other].mean().item(), flat[~same].mean().item()


def test_centred_similarity_is_that_of_what_is_left_without_the_mean():
    torch.manual_seed(0)
    table = torch.randn(1, 2 + 15, 8) + 3
    places = table[0, 2:]
    left = (places - places.mean(dim=0))[None]
    torch.testing.assert_close(
        probe.position_similarity(table, (3, 5), centre=True),
        probe.position_similarity(left, (3, 5)),
    )
    assert probe.position_similarity(table, (3, 5)).mean() > 0.8
    assert probe.position_similarity(table, (3, 5), centre=True).mean().abs() < 0.1


def test_places_in_one_row_or_column_resemble_each_other_after_training():
    """What all places share hides it: it shows once the mean of all places is taken away."""
    model = trained("shapes")
    grid, table = model.cfg.grid, model.position.table

    def gap(table):
        similarity = probe.position_similarity(table, grid, centre=True)
        same, other = share_of_rows_and_columns(similarity)
        return same - other

    assert gap(table) > 0.05
    for seed in range(10):
        torch.manual_seed(seed)
        assert abs(gap(torch.randn_like(table))) < 0.03, "a random table knows nothing of rows"
    same, other = share_of_rows_and_columns(probe.position_similarity(sincos(48, (8, 8)), (8, 8)))
    assert same > other + 0.05


def test_similarity_of_tokens():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 8)
    pairs = [
        torch.cosine_similarity(x[1, i], x[1, j], dim=0)
        for i in range(5)
        for j in range(5)
        if i != j
    ]
    torch.testing.assert_close(probe.token_similarity(x)[1], sum(pairs) / 20)
    same = x[:, :1] * torch.tensor([1.0, 2.0, 3.0])[None, :, None]
    torch.testing.assert_close(probe.token_similarity(same), torch.ones(3))


def test_filters_equal_the_principal_components_of_another():
    torch.manual_seed(0)
    weight = torch.randn(40, 3, 2, 3) * torch.linspace(0.1, 2, 18).reshape(3, 2, 3)
    patterns, share = probe.filter_components(weight, count=5)
    other = PCA(5).fit(weight.flatten(1).numpy())
    ours, theirs = patterns.flatten(1), torch.tensor(other.components_)
    torch.testing.assert_close(ours.T @ ours, theirs.T @ theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(share, torch.tensor(other.explained_variance_ratio_))
    assert len(probe.filter_components(torch.randn(6, 1, 2, 2))[1]) == 4, "no more than there are"


def test_heat_on_an_object():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[:, :4, :2] = True
    heat = torch.zeros(2, 4, 4)
    heat[0, 0, 0], heat[1, 3, 3] = 5.0, 1.0
    share, area = probe.on_object(heat, masks)
    assert share.tolist() == [1, 0] and area.tolist() == [1 / 8, 1 / 8]
    share, area = probe.on_object(torch.ones(2, 4, 4), masks)
    torch.testing.assert_close(share, area)


@pytest.mark.parametrize("parts", ({}, {"Head": MeanHead}, {"Position": SinCosPosition}))
def test_dropped_tokens_are_as_if_they_had_never_been(parts):
    """All tokens: the model itself. Some: the model whose table has only their rows."""
    model = random_vit(model=ViT.variant(**parts))
    images = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        everything = torch.arange(24)
        torch.testing.assert_close(probe.with_tokens(model, images, everything), model(images))
        keep = torch.tensor([3, 17, 8, 20])
        some = probe.with_tokens(model, images, keep)
        x, grid = model.patch_embed(images)
        x = model.position(torch.cat([model.prefix.expand(2, -1, -1), x], dim=1), grid)
        R = model.prefix_len
        x = x[:, [*range(R), *(R + keep).tolist()]]
        for block in model.blocks:
            x = block(x)
        torch.testing.assert_close(some, model.head(model.norm(x), (2, 2)))
        apart = probe.with_tokens(model, images, torch.stack([keep, keep.flip(0) - 1]))
        torch.testing.assert_close(apart[0], some[0])
        assert not torch.allclose(apart[1], some[1])


def test_without_positions_the_order_of_kept_tokens_does_not_matter():
    model = random_vit(model=ViT.variant(Position=NoPosition))
    images = torch.randn(1, 3, 16, 24)
    order = torch.randperm(24)
    with torch.no_grad():
        torch.testing.assert_close(probe.with_tokens(model, images, order), model(images))


def test_leaving_one_out_is_the_model_without_that_patch():
    model = random_vit()
    images, labels = torch.randn(3, 3, 16, 24), torch.tensor([5, 0, 2])
    falls = probe.leave_one_out(model, images, labels)
    assert falls.shape == (3, 24)
    with torch.no_grad():
        keep = torch.tensor([i for i in range(24) if i != 17])
        left = probe.with_tokens(model, images, keep)
        by_hand = [(model(images) - left)[i, k] for i, k in enumerate(labels.tolist())]
    torch.testing.assert_close(falls[:, 17], torch.stack(by_hand))


def test_a_patch_that_nothing_reads_does_nothing():
    """Where no token looks at another, patches do not matter to the class token."""
    model = random_vit()
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
    falls = probe.leave_one_out(model, torch.randn(2, 3, 16, 24), torch.tensor([1, 6]))
    torch.testing.assert_close(falls, torch.zeros(2, 24))
