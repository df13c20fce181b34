"""What works on the CPU works on another device, where nothing meets a tensor of the CPU."""

import copy
import math
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

from benchmarks.gpu import few
from tests.elsewhere import THERE, Tensor, elsewhere
from tests.proofs import randomise
from tests.test_papers import MODELS, double, parts
from vitcourse import data, detect, probe, segment, show, stress
from vitcourse.check import EXERCISES, runner
from vitcourse.data.augment import Augment
from vitcourse.papers import (
    deformable_detr,
    deit,
    detr,
    igpt,
    image_transformer,
    ipt,
    lv_vit,
    mae,
    masked_patches,
    oversmoothing,
    swin,
)
from vitcourse.pyramid import PyramidConfig
from vitcourse.train import RECIPES, build_model, evaluate, fit
from vitcourse.train.device import pick_device
from vitcourse.train.loop import classify

SMOKE = RECIPES["smoke"].but(epochs=2, batch=50)


@pytest.fixture(scope="module")
def digits():
    return few(data.load("digits"), 100)


@pytest.fixture(scope="module")
def scenes():
    return data.load("shapes", task="scenes", train=40, test=20)


@pytest.fixture(scope="module")
def shapes():
    return data.load("shapes", train=40, test=20)


# The device itself ------------------------------------------------------------------------------


def test_it_refuses_what_cuda_refuses():
    here = torch.arange(6.0).view(2, 3)
    with elsewhere() as device:
        there = here.to(device)
        assert there.device == pick_device("auto") == THERE and isinstance(there, Tensor)
        one, numbers = there.new_tensor(1.0), torch.tensor([1, 0])
        assert torch.equal((there + torch.tensor(1.0) + one).cpu(), here + 2)
        assert torch.equal(there[numbers].cpu(), here[numbers])  # an index may come from the CPU
        assert (there * 2).sum().item() == 30 and there.tolist() == here.tolist()
        assert torch.zeros(2, device=device).device == torch.zeros_like(there).device == THERE
        refused = [
            lambda: there + here,
            lambda: here[numbers.to(device)],
            lambda: numbers[numbers.to(device)],
            lambda: there.gather(0, numbers[None]),
            lambda: torch.cat([there, here]),
            lambda: there.clone().mul_(here),
            lambda: torch.where(here > 1, there, 0),
            lambda: nn.Linear(3, 1)(there),
        ]
        for mix in refused:
            with pytest.raises(RuntimeError, match="two devices"):
                mix()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def test_changes_in_place_and_views_reach_what_they_are_of():
    with elsewhere() as device:
        x = torch.zeros(2, 3).to(device)
        row = x[1]
        row += 1
        x[0, 2] = 5
        assert x.tolist() == [[0, 0, 5], [1, 1, 1]]


# Models -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    """The same outputs, and the same gradients, of every paper's model."""
    model, images = MODELS[name]()
    model, images = randomise(model).double(), double(images)
    there = copy.deepcopy(model)
    wanted = parts(model(images))
    slopes = gradients(wanted, model)
    with elsewhere() as device:
        answers = parts(there.to(device)(images.to(device)))
        for answer, w in zip(answers, wanted, strict=True):
            assert answer.device == THERE
            torch.testing.assert_close(answer.cpu(), w, rtol=1e-9, atol=1e-9)
        for slope, w in zip(gradients(answers, there), slopes, strict=True):
            torch.testing.assert_close(slope.cpu(), w, rtol=1e-7, atol=1e-7)


def gradients(answers, model):
    """The gradients of a sum of squares, of all parameters that have one."""
    sum(answer.square().sum() for answer in answers if answer.is_floating_point()).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


# Training ---------------------------------------------------------------------------------------
# Each way to train is a function: digits, or shapes with objects -> a model, and options of `fit`.


def usual(made):
    return build_model(SMOKE, made), {}


def with_everything(made):
    changes = dict(shift=2, flip=True, rotate=9, elastic=0.5, contrast=0.3, saturation=0.3)
    augment = Augment(**changes, rand_augment=2, cutout=3, cutmix=0.5)
    recipe = SMOKE.but(epochs=1, ema=0.9, accumulate=2, drop_path=0.2, augment=augment)
    return build_model(recipe, made), {"recipe": recipe}


def distilled(made):
    teacher = build_model(SMOKE, made).to(pick_device())
    return build_model(SMOKE, made, deit.DistilledDeiT), {"step": deit.distillation(teacher)}


def with_token_labels(made):
    class Small(lv_vit.LVViT):
        Tokenizer = type("Stem", (lv_vit.ConvStem,), {"widths": (16, 16, 16)})

    teacher = build_model(SMOKE, made, Small).to(pick_device())
    step = lv_vit.training_step(lv_vit.labels_from(teacher))
    return build_model(SMOKE, made, Small), {"step": step}


def diverse(made):
    return build_model(SMOKE, made, oversmoothing.DiverseViT), {"step": oversmoothing.step}


def masked(made):
    decoder = type("Small", (mae.Decoder,), {"dim": 32, "depth": 1, "heads": 2})
    model = build_model(SMOKE, made, mae.MAE.variant(Head=decoder))
    return model, {"step": mae.step, "score": mae.score}


def in_colours(made):
    step = masked_patches.telling_colours(made)
    model = build_model(SMOKE, made, masked_patches.MaskedPatchViT)
    return model, {"step": step, "score": masked_patches.score}


def pixel_after_pixel(cls, made):
    device = pick_device()
    palette = igpt.find_palette(made.images.to(device), 5)
    seen, test = (igpt.quantise(x.to(device), palette) for x in (made.images, made.test_images))
    model = cls(igpt.Sizes(dim=32, depth=2, heads=4, colours=5, image=8))
    step = lambda model, batch: model.objective(seen[batch.index])  # noqa: E731
    return model, {"step": step, "score": lambda model, _: {"nats": model.objective(test)}}


def value_after_value(made):
    device = pick_device()
    palette = igpt.find_palette(made.images, 5).to(device)
    levels = igpt.quantise(made.images.to(device), palette).unflatten(1, (1, 8, 8))
    sizes = dict(block=(2, 4), reach=(1, 2), channels=1, levels=5)
    model = image_transformer.ImageTransformer(
        image_transformer.Sizes(32, 2, 4, 64, (8, 8), **sizes)
    )
    step = lambda model, batch: model.loss(levels[batch.index])  # noqa: E731
    return model, {"step": step, "score": lambda model, _: {"nats": model.loss(levels)}}


def repaired(made):
    sizes = ipt.Sizes(12, 2, 4, heads=4, depth=1, scales=(1, 1, 2), mean=tuple(made.mean.tolist()))
    given = dict(data=made, degradations=[ipt.add_noise, ipt.add_rain, ipt.shrink])
    step, score = partial(ipt.repair, contrast=0.1, **given), partial(ipt.quality, **given)
    return ipt.begin_as_copy(ipt.IPT(sizes)), {"step": step, "score": lambda m, made: score(m)}


def found(model, made):
    step = partial(detect.find, truth=detect.targets(made))
    return model, {"step": step, "score": detect.score, "recipe": SMOKE.but(batch=20, lr=1e-3)}


def segmented(made):
    cfg = PyramidConfig(
        dims=(16, 32), depths=(1, 1), heads=(2, 4), patches=(4, 2), mlp_ratios=(2, 2), image=32
    )
    backbone = type("Small", (swin.Swin,), {"window": 4})(cfg)
    truth, test = made.extras["masks"].long(), made.extras["test_masks"].long()
    step = partial(segment.segment, truth=truth)

    def score(model, made):
        return {"IoU": segment.mean_iou(segment.guesses(model, made), test, 2)}

    return segment.Segmenter(backbone, 2), {"step": step, "score": score}


WAYS = {
    "usual": usual,
    "with everything": with_everything,
    "distilled": distilled,
    "with token labels": with_token_labels,
    "diverse": diverse,
    "masked": masked,
    "in colours": in_colours,
    "iGPT": partial(pixel_after_pixel, igpt.IGPT),
    "BERT": partial(pixel_after_pixel, igpt.PixelBert),
    "Image Transformer": value_after_value,
    "IPT": repaired,
}
WITH_OBJECTS = {
    "DETR": lambda made: found(detr.SmallDETR(detr.SMALL), made),
    "Deformable DETR": lambda made: found(
        deformable_detr.SmallDeformableDETR(deformable_detr.SMALL), made
    ),
    "segmented": segmented,
}


@pytest.fixture
def made(way, digits, shapes, scenes):
    """The data that a way to train learns from."""
    return scenes if "DETR" in way else shapes if way in WITH_OBJECTS else digits


@pytest.mark.parametrize("way", [*WAYS, *WITH_OBJECTS])
def test_training(way, made):
    """The losses and the scores of every epoch are the same."""
    histories = []
    for place in (nullcontext(), elsewhere()):
        with place:
            torch.manual_seed(0)
            model, how = (WAYS | WITH_OBJECTS)[way](made)
            run = fit(model, made, **{"recipe": SMOKE, "quiet": True} | how)
            assert {p.device for p in run.model.parameters()} == {pick_device()}
            histories.append([entry | {"seconds": 0} for entry in run.history])
    for here, there in zip(*histories, strict=True):
        assert here == pytest.approx(there, rel=1e-3)


@pytest.mark.parametrize("way", [*WAYS, *WITH_OBJECTS])
def test_training_in_half_precision(way, made):
    """As a GPU trains, on the CPU: bf16 gives nearly the same loss, fp16 a number."""
    losses = {}
    for precision in ("float32", "bf16", "fp16"):
        torch.manual_seed(0)
        model, how = (WAYS | WITH_OBJECTS)[way](made)
        how["recipe"] = how.get("recipe", SMOKE).but(precision=precision)
        run = fit(model, made, device="cpu", quiet=True, **how)
        assert {p.dtype for p in run.model.parameters()} == {torch.float32}
        losses[precision] = run.history[-1]["loss"]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.1)
    assert losses["bf16"] != losses["float32"] and math.isfinite(losses["fp16"])


def test_data_that_lie_there(digits):
    """Training and testing ask for nothing from the CPU."""
    with elsewhere() as device:
        moved = digits.to(device)
        assert moved.normalise(moved.images).device == THERE == moved.mean.device
        run = fit(build_model(SMOKE, moved), moved, SMOKE, quiet=True)
        assert evaluate(run.model, moved)["accuracy"] == run.accuracy
    here = fit(build_model(SMOKE, digits), digits, SMOKE, quiet=True)
    assert here.history[-1]["loss"] == pytest.approx(run.history[-1]["loss"], rel=1e-3)


def test_a_run_that_changes_its_device(digits, tmp_path):
    """One epoch there, resumed here; and the other way round. The weights are those of no move."""
    recipe = SMOKE.but(epochs=3, ema=0.9)
    whole = fit(build_model(recipe, digits), digits, recipe, quiet=True).model.state_dict()
    for name, places in {
        "there": (elsewhere(), nullcontext()),
        "here": (nullcontext(), elsewhere()),
    }.items():
        out, steps = tmp_path / name, 0

        def step(model, batch):
            nonlocal steps
            steps += 1
            if steps == 4:
                raise InterruptedError
            return classify(model, batch)

        with places[0], pytest.raises(InterruptedError):
            fit(build_model(recipe, digits), digits, recipe, step, out=out, quiet=True)
        with places[1]:
            model = build_model(recipe, digits)
            run = fit(model, digits, recipe, out=out, resume=True, quiet=True)
            found = {name: value.cpu() for name, value in run.model.state_dict().items()}
        for name in whole:
            torch.testing.assert_close(found[name], whole[name], rtol=1e-3, atol=1e-4)
        assert run.out == out and (out / "model.safetensors").is_file()


# Looking inside ---------------------------------------------------------------------------------


def recorded(model, images, labels):
    with probe.record_attention(model) as maps, probe.record_tokens(model) as tokens:
        model(images)
    heat = probe.rollout(maps)[:, 0, -(model.cfg.grid[0] ** 2) :].unflatten(1, model.cfg.grid)
    yield from (heat, *probe.on_object(heat, images[:, 0] > 0))
    yield from (
        probe.attention_distance(maps[0], model.cfg.grid),
        probe.token_similarity(tokens[0]),
    )


def weights_of(model, images, labels):
    yield probe.position_similarity(model.position.table, model.cfg.grid, centre=True)
    patterns, share = probe.filter_components(model.patch_embed.proj.weight, count=4)
    yield from (patterns.abs(), share)


def without_patches(model, images, labels):
    keep = torch.tensor([0, 2], device=images.device)
    yield from (probe.with_tokens(model, images, keep), probe.leave_one_out(model, images, labels))


def stressed(model, images, labels):
    generator, images = torch.Generator().manual_seed(0), images.sigmoid()
    for change in stress.SHIFTS.values():
        yield change(images, 0.5, generator=generator)
    chosen = stress.choose(model.cfg.grid, 0.5, len(images), generator)
    yield stress.occlude(images, chosen)
    heat = torch.arange(4.0, device=images.device).view(1, 2, 2).expand(len(images), -1, -1)
    yield stress.occlude(images, stress.choose(model.cfg.grid, 0.5, len(images), generator, heat))
    yield stress.shuffle_patches(images, 4, generator)
    yield stress.adversarial_patch(model, images, labels, (0, 0), 4, 3, generator=generator)


@pytest.mark.parametrize("look", [recorded, weights_of, without_patches, stressed])
def test_looking_inside(look, digits):
    model = randomise(build_model(SMOKE, digits)).eval()
    images, labels = digits.normalise(digits.test_images[:5]), digits.test_labels[:5]
    wanted = list(look(model, images, labels))
    with elsewhere() as device:
        there = copy.deepcopy(model).to(device)
        answers = list(look(there, images.to(device), labels.to(device)))
        for answer, w in zip(answers, wanted, strict=True):
            assert answer.device == THERE
            torch.testing.assert_close(answer.cpu(), w, rtol=1e-4, atol=1e-5)


CODE = [name for name, one in EXERCISES.items() if one.kind in ("function", "module")]


@pytest.mark.parametrize("name", CODE)
def test_answers_to_exercises(name):
    exercise = EXERCISES[name]
    for case in exercise.cases:
        wanted = runner.outcome(exercise, exercise.reference, case)
        with elsewhere() as device:
            runner.check_on_gpu(exercise, exercise.reference, case, wanted, wanted, device)


def test_an_answer_that_knows_only_the_cpu():
    exercise = EXERCISES["patchify"]
    case = exercise.cases[0]
    wanted = runner.outcome(exercise, exercise.reference, case)

    def answer(images, patch):
        return exercise.reference(images, patch) + torch.zeros(1)

    with elsewhere() as device, pytest.raises(runner.Wrong, match="not on the GPU"):
        runner.check_on_gpu(exercise, answer, case, wanted, wanted, device)


def test_answers_of_detectors(scenes):
    model = deformable_detr.SmallDeformableDETR(deformable_detr.SMALL).eval()
    images, truth = scenes.normalise(scenes.test_images), detect.targets(scenes, "test_")
    objects = detect.objects(scenes)
    wanted = detect.read_inside(model, images, truth), detect.guesses(model, scenes)
    with elsewhere() as device:
        model.to(device)
        assert detect.read_inside(model, images.to(device), truth) == pytest.approx(wanted[0])
        found = detect.guesses(model, scenes)
        for one, other in zip(found, wanted[1], strict=True):
            torch.testing.assert_close(one.boxes, other.boxes)
        assert detect.average_precision(found, objects) == detect.average_precision(
            wanted[1], objects
        )


# Pictures ---------------------------------------------------------------------------------------


def drawings(model, images, data):
    """What the course draws of tensors."""
    picture = data.test_images[0]
    with probe.record_attention(model) as maps:
        model(images)
    maps = torch.cat(maps)  # (L, K, T, T)
    yield show.images(data.test_images[:3])
    yield show.images(list(images.sigmoid()))
    yield show.heatmaps(model.position.table[0, 1:].unflatten(1, (6, 8)), numbers=True)
    yield show.patch_grid(picture.permute(1, 2, 0), 4)
    yield show.bars({"first": images.mean(), "second": 2.0}, "x")
    yield show.lines({"loss": images.flatten()[:4]}, "x", "y")
    yield show.attention_maps(picture, maps, model.cfg.grid)
    yield show.attention_overlay(picture / 255, maps[0, 0, :1, 1:].unflatten(1, (2, 2))[0])
    yield show.confusion_matrix(torch.eye(3, dtype=torch.int64, device=images.device), "abc")


def test_pictures(digits):
    """They are drawn of tensors that lie elsewhere and have a gradient, and look the same."""
    model = randomise(build_model(SMOKE, digits)).eval()
    sample = digits.normalise(digits.test_images[:1])
    wanted = [pixels(figure) for figure in drawings(model, sample, digits)]
    with elsewhere() as device:
        model.to(device)
        for figure, w in zip(
            drawings(model, sample.to(device), digits.to(device)), wanted, strict=True
        ):
            assert np.abs(pixels(figure) - w).max() <= 1
        alt = "where the tokens look"
        show.attention(model, digits.test_images[0].to(device), alt, digits.normalise)
        show.explore_positions(model.position.table[0, 1:], model.cfg.grid, alt)


def pixels(figure):
    """A figure as an array (H, W, 4)."""
    FigureCanvasAgg(figure).draw()
    return np.asarray(figure.canvas.buffer_rgba()).astype(int)
