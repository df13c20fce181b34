"""Every batched change is what a plain loop over images does with the same drawn numbers.

A check takes the module, so that the end of this file can run it on modules with a planted error.
"""

import inspect
import math
import random
import types
from unittest import mock

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF

from vitcourse.data import augment

B, C, H, W, CLASSES = 7, 3, 10, 13, 5
CLOSE = dict(rtol=0, atol=2e-6)  # float32 in 0..1, a few roundings apart


def batch(count=B, channels=C):
    return torch.rand(count, channels, H, W)


def soft(count=B):
    return torch.rand(count, CLASSES).softmax(1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(a, name, function, *args, **options):
    """Call a function and give what it handed to the one called `name`, and what came out."""
    with mock.patch.object(a, name, wraps=getattr(a, name)) as spy:
        out = function(*args, **options, generator=seeded())
    assert spy.call_count == 1
    return [*spy.call_args.args, *spy.call_args.kwargs.values()], out


def assert_own_choices(values, low, high):
    """Each image has a number of its own, and the numbers fill the range from low to high."""
    values = torch.as_tensor(values).double()
    assert values.ndim == 1 and len(values) == 2000 and values.device.type == "cpu"
    assert low <= values.min() and values.max() <= high
    assert abs(values.mean() - (low + high) / 2) < 0.05 * (high - low)
    assert values.max() - values.min() > 0.95 * (high - low)
    neighbours = torch.corrcoef(torch.stack([values[1:], values[:-1]]))[0, 1]
    assert abs(neighbours) < 0.1


def assert_unlike(x, y):
    """Two lists of drawn numbers have nothing to do with each other."""
    assert abs(torch.corrcoef(torch.stack([x.double(), y.double()]))[0, 1]) < 0.1


# Where things are -------------------------------------------------------------------------------


def check_shift(a):
    images, dy, dx = batch(), torch.tensor([0, 3, -3, 2, -1, 9, -9]), torch.tensor(range(-4, 3))
    for fill, mode in (("zero", "constant"), ("reflect", "reflect")):
        moved = a.shift_by(images, dy, dx, fill)
        assert moved.shape == images.shape and moved.dtype == images.dtype
        for b in range(B):
            padded = np.pad(images[b].numpy(), ((0, 0), (9, 9), (9, 9)), mode)
            top, left = 9 - int(dy[b]), 9 - int(dx[b])
            assert np.array_equal(moved[b], padded[:, top : top + H, left : left + W])


def test_shift_by_loops():
    check_shift(augment)


def check_shift_is_drawn(a):
    images = batch(2000, 1)
    (_, dy, dx, fill), out = drawn(a, "shift_by", a.shift, images, 4)
    for moves in (dy, dx):
        assert_own_choices(moves, -4, 4)
        assert moves.unique().tolist() == list(range(-4, 5))
    assert_unlike(dy, dx)
    assert torch.equal(out, a.shift_by(images, dy, dx, "zero")) and fill == "zero"


def test_shift_is_drawn():
    check_shift_is_drawn(augment)


def check_flip(a):
    images, chosen = batch(), torch.tensor([True, False, False, True, False, True, True])
    out = a.flip_by(images, chosen)
    for b in range(B):
        wanted = images[b].numpy()[:, :, ::-1] if chosen[b] else images[b].numpy()
        assert np.array_equal(out[b], wanted)
    (_, chosen), _ = drawn(a, "flip_by", a.flip, batch(2000, 1))
    assert_own_choices(chosen, 0, 1)


def test_flip_by_loops():
    check_flip(augment)


def tent(t):
    """How much a pixel counts that lies t pixels away, if four are mixed."""
    return max(0, 1 - abs(t))


def cubic(t, a=-0.75):
    """The same if sixteen are mixed: PyTorch's kernel. Keys 1981."""
    t = abs(t)
    if t < 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0


def sampled(image, y, x, kernel, outside):
    """The value of an image (C, H, W) at the place y, x, beyond the edge by `outside`."""
    total = np.zeros(len(image))
    for i in range(math.floor(y) - 1, math.floor(y) + 3):
        for j in range(math.floor(x) - 1, math.floor(x) + 3):
            total += kernel(y - i) * kernel(x - j) * outside(image, i, j)
    return total


def zeros(image, i, j):
    inside = 0 <= i < image.shape[1] and 0 <= j < image.shape[2]
    return image[:, i, j] if inside else 0


def outermost(image, i, j):
    return image[:, min(max(i, 0), image.shape[1] - 1), min(max(j, 0), image.shape[2] - 1)]


def moved(image, matrix, bent, kernel):
    """Move an image (C, H, W) by a matrix (2, 3) and bend it, pixel by pixel, in float64."""
    out = np.zeros_like(image)
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    for y in range(H):
        for x in range(W):
            from_x, from_y, _ = back @ [x - (W - 1) / 2, y - (H - 1) / 2, 1]
            from_x, from_y = from_x + bent[0, y, x], from_y + bent[1, y, x]
            place = from_y + (H - 1) / 2, from_x + (W - 1) / 2
            out[:, y, x] = sampled(image, *place, kernel, zeros).clip(0, 1)
    return out


def check_affine(a):
    images, matrices = batch(), torch.eye(2, 3).double() + 0.3 * torch.randn(B, 2, 3).double()
    matrices[:, :, 2] *= 10
    bent = 2 * torch.randn(B, 2, H, W).double()
    for kernel, bends in ((tent, None), (tent, bent), (cubic, bent)):
        out = a.affine_by(images, matrices, bends, kernel is cubic)
        assert out.shape == images.shape and out.dtype == images.dtype
        for b in range(B):
            how = matrices[b].numpy(), (bent[b] if bends is not None else 0 * bent[b]).numpy()
            wanted = torch.from_numpy(moved(images[b].double().numpy(), *how, kernel))
            torch.testing.assert_close(out[b].double(), wanted, rtol=0, atol=1e-5)


def check_bend(a):
    pulls = torch.randn(B, 2, 4, 4).double()
    out = a.bend(pulls, (H, W))
    assert out.shape == (B, 2, H, W)
    for b, y, x in ((0, 0, 0), (1, H - 1, 2), (2, 3, 5), (3, H - 2, W - 1)):
        place = 3 * y / (H - 1), 3 * x / (W - 1)
        wanted = sampled(pulls[b].numpy(), *place, cubic, outermost)
        np.testing.assert_allclose(out[b, :, y, x], wanted, rtol=0, atol=1e-10)


def test_bend_by_loops():
    check_bend(augment)


def test_affine_by_loops():
    check_affine(augment)


def check_matrices(a):
    values = rotate, scale, shear_x, shear_y, dx, dy = torch.rand(6, B).double() * 30
    for b, matrix in enumerate(a.affine_matrices(*values)):
        angle, x, y = (math.radians(v[b]) for v in (rotate, shear_x, shear_y))
        turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        slant = [[1, math.tan(x)], [math.tan(y), 1]]
        linear = np.array(turn) @ (float(scale[b]) * np.eye(2)) @ np.array(slant)
        wanted = np.hstack([linear, [[dx[b]], [dy[b]]]])
        np.testing.assert_allclose(matrix, wanted, rtol=0, atol=1e-10)


def test_matrices_by_products():
    check_matrices(augment)


def check_torchvision(a):
    images, (rotate, scale, shear, dx, dy) = batch(), torch.rand(5, B).double()
    rotate, scale, shear, dx, dy = rotate * 360 - 180, scale + 0.5, shear * 40, dx * 5, dy * 5
    out = a.affine_by(images, a.affine_matrices(rotate, scale, shear, 0, dx, dy))
    for b in range(B):  # its slant has the other sign
        angle, move, sign = rotate[b].item(), [dx[b].item(), dy[b].item()], [-shear[b].item(), 0.0]
        bilinear = TF.InterpolationMode.BILINEAR
        wanted = TF.affine(images[b], angle, move, scale[b].item(), sign, bilinear)
        torch.testing.assert_close(out[b], wanted, rtol=0, atol=1e-5)


def test_affine_is_that_of_torchvision():
    check_torchvision(augment)


def test_a_turn_keeps_the_shape_of_things():
    images = torch.zeros(1, 1, 21, 41)
    images[..., 8:13, 18:23] = 1  # a square about the centre; turned by 90 degrees, it is the same
    turned = augment.affine_by(images, augment.affine_matrices(rotate=torch.tensor([90.0])))
    torch.testing.assert_close(turned, images, rtol=0, atol=1e-5)
    still = augment.affine_by(batch(), augment.affine_matrices(rotate=torch.zeros(B)))
    assert still.shape == (B, C, H, W)


def check_affine_is_drawn(a):
    images, options = batch(2000, 1), dict(rotate=20, scale=0.3, shear=10, translate=0.2)
    values, out = drawn(a, "affine_matrices", a.affine, images, **options)
    assert torch.equal(out, a.affine_by(images, a.affine_matrices(*values)))
    limits = [(-20, 20), (0.7, 1.3), (-10, 10), (-10, 10), (-2.6, 2.6), (-2.0, 2.0)]
    for value, limit in zip(values, limits, strict=True):
        assert_own_choices(value, *limit)
    for i in range(6):
        for j in range(i):
            assert_unlike(values[i], values[j])
    for name, value in options.items():  # what is not asked for stays away
        values, _ = drawn(a, "affine_matrices", a.affine, images, **{name: value})
        still = [v.unique().tolist() in ([0], [1]) for v in values]
        assert sum(still) == {"rotate": 5, "scale": 5, "shear": 4, "translate": 4}[name]
    (pulls, size), out = drawn(a, "bend", a.affine, images, elastic=0.7, bicubic=True)
    assert pulls.shape == (2000, 2, 4, 4) and size == (H, W)
    for y, x in ((0, 0), (1, 2)):
        assert_own_choices(pulls[:, 0, y, x], -0.7, 0.7)
        assert_unlike(pulls[:, 0, y, x], pulls[:, 1, y, x])
        assert_unlike(pulls[:, 0, y, x], pulls[:, 0, y + 1, x])
    still = torch.eye(2, 3).double().expand(2000, 2, 3)
    assert torch.equal(out, a.affine_by(images, still, a.bend(pulls, size), True))


def test_affine_is_drawn():
    check_affine_is_drawn(augment)


def check_cutout(a):
    images, top, left = (
        batch(),
        torch.tensor([-2, 0, 3, 4, 8, 9, -4]),
        torch.tensor(range(0, 14, 2)),
    )
    out = a.cutout_at(images, top, left, 4)
    for b in range(B):
        wanted, (y, x) = images[b].numpy().copy(), (int(top[b]), int(left[b]))
        for c in range(C):
            mean = images[b, c].double().mean().item()
            wanted[c, max(y, 0) : max(y + 4, 0), max(x, 0) : x + 4] = mean
        torch.testing.assert_close(out[b], torch.from_numpy(wanted), **CLOSE)
    for size in (4, 5):
        (_, top, left, _), _ = drawn(a, "cutout_at", a.cutout, batch(2000, 1), size)
        assert_own_choices(top, -(size // 2), H - 1 - size // 2)
        assert_own_choices(left, -(size // 2), W - 1 - size // 2)
        assert_unlike(top, left)


def test_cutout_by_loops():
    check_cutout(augment)


# Colour -----------------------------------------------------------------------------------------

FACTORS = torch.tensor([0.0, 0.1, 0.4, 0.5, 1.0, 1.3, 2.0]).double()
ENHANCE = {
    "brightness_by": TF.adjust_brightness,
    "contrast_by": TF.adjust_contrast,
    "saturation_by": TF.adjust_saturation,
    "sharpness_by": TF.adjust_sharpness,
}


def check_colour(a, channels=C):
    images = batch(channels=channels)
    for name, adjust in ENHANCE.items():
        out = getattr(a, name)(images, FACTORS)
        wanted = torch.stack([adjust(images[b], FACTORS[b].item()) for b in range(B)])
        torch.testing.assert_close(out, wanted, **CLOSE)
        assert (out[4] == images[4]).all(), "the factor 1 changes nothing"


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_is_that_of_torchvision(channels):
    check_colour(augment, channels)


def check_colour_is_drawn(a):
    images, seen = batch(2000, 3), []
    for name in ("brightness_by", "contrast_by", "saturation_by"):
        (_, factor), out = drawn(a, name, a.colour, images, 0.4, 0.3, 0.2)
        seen.append(factor)
    for factor, width in zip(seen, (0.4, 0.3, 0.2), strict=True):
        assert_own_choices(factor, 1 - width, 1 + width)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert_unlike(seen[i], seen[j])
    for b in range(5):  # one after the other, in this order
        wanted = TF.adjust_brightness(images[b], seen[0][b].item())
        wanted = TF.adjust_contrast(wanted, seen[1][b].item())
        wanted = TF.adjust_saturation(wanted, seen[2][b].item())
        torch.testing.assert_close(out[b], wanted, **CLOSE)
    assert torch.equal(a.colour(images, generator=seeded()), images)


def test_colour_is_drawn():
    check_colour_is_drawn(augment)


def test_one_channel_has_no_saturation():
    images = batch(channels=1)
    assert torch.equal(augment.colour(images, saturation=1, generator=seeded()), images)


# RandAugment ------------------------------------------------------------------------------------


def turned(image, strength, **options):
    move = dict(angle=0.0, translate=[0.0, 0.0], scale=1.0, shear=[0.0, 0.0])
    move |= {name: value(strength) for name, value in options.items()}
    return TF.affine(image, **move, interpolation=TF.InterpolationMode.BILINEAR)


def posterized(image, s):
    return TF.posterize((image * 255).round().byte(), 8 - round(4 * abs(s))) / 255


ONE = {  # the same operations on one image (C, H, W), by torchvision
    "identity": lambda image, s: image,
    "rotate": lambda image, s: turned(image, s, angle=lambda s: 30 * s),
    "shear x": lambda image, s: turned(image, s, shear=lambda s: [-17 * s, 0.0]),
    "shear y": lambda image, s: slanted(image, s),
    "translate x": lambda image, s: turned(image, s, translate=lambda s: [0.45 * W * s, 0.0]),
    "translate y": lambda image, s: turned(image, s, translate=lambda s: [0.0, 0.45 * H * s]),
    "brightness": lambda image, s: TF.adjust_brightness(image, 1 + 0.9 * s),
    "contrast": lambda image, s: TF.adjust_contrast(image, 1 + 0.9 * s),
    "saturation": lambda image, s: TF.adjust_saturation(image, 1 + 0.9 * s),
    "sharpness": lambda image, s: TF.adjust_sharpness(image, 1 + 0.9 * s),
    "posterize": posterized,
    "solarize": lambda image, s: TF.solarize(image, (1 - abs(s)) * 256 / 255),
    "autocontrast": lambda image, s: TF.autocontrast(image),
}


def slanted(image, s):
    """A slant along y is one along x of the image with its axes exchanged."""
    return turned(image.transpose(1, 2), s, shear=lambda s: [-17 * s, 0.0]).transpose(1, 2)


def bytes_of(images):
    """Images as they come from files: of 256 values, so that no rounding is a close call."""
    return (images * 255).round() / 255


def check_operate(a):
    count = len(ONE)
    images = bytes_of(batch(4 * count))
    choice = torch.arange(count).repeat(4)[torch.randperm(4 * count)]
    strength = torch.tensor([0.35, -0.9, 1.0, -1.0]).repeat_interleave(count)
    before = images.clone()
    out = a.operate(images, choice, strength.double())
    assert list(a.OPERATIONS) == list(ONE) and torch.equal(images, before)
    for b, (number, s) in enumerate(zip(choice.tolist(), strength.tolist(), strict=True)):
        name = list(ONE)[number]
        wanted = ONE[name](images[b], s)
        torch.testing.assert_close(out[b], wanted, rtol=0, atol=1e-5, msg=f"{name} at {s}")


def test_operations_by_loops():
    check_operate(augment)


def check_rand_augment(a):
    images, calls = batch(2000), []
    with mock.patch.object(a, "operate", side_effect=a.operate) as spy:
        out = a.rand_augment(images, count=2, magnitude=7, generator=seeded())
    for call in spy.call_args_list:
        _, choice, strength = call.args
        assert_own_choices(choice, 0, len(ONE) - 1)
        assert min(choice.bincount().tolist()) > 100 and len(choice.unique()) == len(ONE)
        assert strength.unique().tolist() == [-0.7, 0.7]
        assert_own_choices(strength, -0.7, 0.7)
        assert_unlike(choice, strength)
        calls += [choice, strength]
    assert len(calls) == 4
    assert_unlike(calls[0], calls[2])
    assert_unlike(calls[1], calls[3])
    wanted = a.operate(a.operate(images, *calls[:2]), *calls[2:])
    assert torch.equal(out, wanted)


def test_rand_augment_is_drawn():
    check_rand_augment(augment)


def test_magnitude_zero_changes_little():
    images = batch()
    for name, operation in augment.OPERATIONS.items():
        if name != "autocontrast":
            still = operation(images, torch.zeros(B).double())
            torch.testing.assert_close(still, images, rtol=0, atol=0.5 / 255 + 1e-5)
    black = torch.zeros(1, 1, H, W)
    assert torch.equal(augment.autocontrast(black), black)
    for s, wanted in ((0.0, [0, 0.5, 1]), (1.0, [1, 0.5, 0])):
        three = torch.tensor([0, 0.5, 1]).view(1, 1, 1, 3)
        assert augment.solarize_by(three, torch.tensor([s])).flatten().tolist() == wanted


# Mixing -----------------------------------------------------------------------------------------


def test_one_hot_by_loops():
    labels = torch.tensor([4, 0, 2])
    targets = augment.one_hot(labels, CLASSES, smoothing=0.1)
    assert targets.shape == (3, CLASSES) and targets.dtype == torch.float32
    for b in range(3):
        for k in range(CLASSES):
            wanted = 0.1 / CLASSES + (0.9 if k == labels[b] else 0)
            assert targets[b, k].item() == pytest.approx(wanted, abs=1e-7)
    assert augment.one_hot(labels, CLASSES).tolist() == np.eye(CLASSES)[labels].tolist()


def check_mixup(a):
    images, targets, partner = batch(), soft(), torch.tensor([3, 1, 6, 0, 2, 4, 5])
    keep = torch.rand(B).double()
    mixed, labels = a.mixup_by(images, targets, partner, keep)
    for b in range(B):
        k, p = keep[b].item(), int(partner[b])
        torch.testing.assert_close(mixed[b], k * images[b] + (1 - k) * images[p], **CLOSE)
        torch.testing.assert_close(labels[b], k * targets[b] + (1 - k) * targets[p], **CLOSE)


def test_mixup_by_loops():
    check_mixup(augment)


def check_cutmix(a):
    # image b has the one value (b+1)/10: so each pixel says from which image it comes
    images = (torch.arange(1.0, B + 1) / 10).view(B, 1, 1, 1).expand(B, C, H, W).clone()
    targets, partner = torch.eye(B), torch.tensor([3, 2, 6, 0, 1, 4, 5])
    top, left = torch.tensor([-3, 2, 8, 0, 4, -1, 3]), torch.tensor([-2, 3, 11, 0, 5, 4, 12])
    height, width = torch.tensor([5, 4, 6, 10, 0, 12, 3]), torch.tensor([6, 7, 9, 13, 4, 2, 1])
    mixed, labels = a.cutmix_by(images, targets, partner, top, left, height, width)
    for b in range(B):
        p, wanted = int(partner[b]), images[b].clone()
        for y in range(int(top[b]), int(top[b] + height[b])):
            for x in range(int(left[b]), int(left[b] + width[b])):
                if 0 <= y < H and 0 <= x < W:
                    wanted[:, y, x] = images[p, :, y, x]
        assert torch.equal(mixed[b], wanted)
        taken = int((mixed[b, 0] == images[p, 0, 0, 0]).sum())
        assert labels[b, p].item() == pytest.approx(taken / (H * W), abs=1e-6)
        assert labels[b, b].item() == pytest.approx(1 - taken / (H * W), abs=1e-6)


def test_cutmix_by_loops():
    check_cutmix(augment)


def check_mix_is_drawn(a):
    images, targets = batch(2000, 1), soft(2000)
    (_, _, partner, keep), _ = drawn(a, "mixup_by", a.mix, images, targets, mixup=1.0)
    assert partner.sort().values.tolist() == list(range(2000))
    assert_own_choices(partner, 0, 1999)
    assert_own_choices(keep, 0, 1)  # Beta(1, 1) is flat
    given, _ = drawn(a, "cutmix_by", a.mix, images, targets, cutmix=1.0)
    _, _, partner, top, left, height, width = given
    assert partner.sort().values.tolist() == list(range(2000))
    assert_own_choices(top + height // 2, 0, H - 1)  # the centre is any pixel
    assert_own_choices(left + width // 2, 0, W - 1)
    assert_unlike(top + height // 2, left + width // 2)
    assert_unlike(top + height // 2, height)
    area = (height * width) / (H * W)  # the part to take is flat, too, but for rounding down
    assert 0.38 < area.mean() < 0.5 and area.max() > 0.8 and area.min() == 0
    assert ((height / H - width / W).abs() <= 1 / H).all(), "the box has the image's proportions"
    assert len(height.unique()) == H  # from 0 to H - 1


def test_mix_is_drawn():
    check_mix_is_drawn(augment)


def test_beta():
    for a in (0.2, 1.0, 4.0):
        values = augment.beta(a, 20_000, seeded())
        assert values.shape == (20_000,) and values.min() >= 0 and values.max() <= 1
        assert values.mean().item() == pytest.approx(0.5, abs=0.01)
        assert values.var().item() == pytest.approx(1 / (4 * (2 * a + 1)), rel=0.05)
    generator = seeded()
    first, second = augment.beta(1.0, 5, generator), augment.beta(1.0, 5, generator)
    assert not torch.equal(first, second) and torch.equal(first, augment.beta(1.0, 5, seeded()))


def test_a_coin_decides_between_mixup_and_cutmix():
    images, targets, generator = batch(), soft(), seeded()
    with mock.patch.object(augment, "mixup_by", wraps=augment.mixup_by) as spy:
        for _ in range(200):
            augment.mix(images, targets, mixup=0.8, cutmix=1.0, generator=generator)
    assert 70 < spy.call_count < 130
    for options in ({}, {"mixup": 0.0, "cutmix": 0.0}):
        same, as_before = augment.mix(images, targets, **options, generator=generator)
        assert same is images and as_before is targets


# The generator, and what holds of all ------------------------------------------------------------

EVERYTHING = augment.Augment(
    shift=3,
    flip=True,
    rotate=20,
    scale=0.2,
    shear=10,
    translate=0.1,
    elastic=0.5,
    bicubic=True,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    rand_augment=2,
    cutout=4,
    mixup=0.8,
    cutmix=1.0,
)


def calls(a):
    """Every function that draws, as one call: (images, targets, generator) -> tensors."""
    every = a.Augment(**vars(EVERYTHING))
    return {
        "shift": lambda x, t, g: [a.shift(x, 3, generator=g)],
        "flip": lambda x, t, g: [a.flip(x, generator=g)],
        "affine": lambda x, t, g: [a.affine(x, 20, 0.2, 10, 0.1, 0.5, True, generator=g)],
        "cutout": lambda x, t, g: [a.cutout(x, 4, generator=g)],
        "colour": lambda x, t, g: [a.colour(x, 0.4, 0.4, 0.4, generator=g)],
        "rand_augment": lambda x, t, g: [a.rand_augment(x, generator=g)],
        "mixup": lambda x, t, g: a.mix(x, t, mixup=0.8, generator=g),
        "cutmix": lambda x, t, g: a.mix(x, t, cutmix=1.0, generator=g),
        "Augment": lambda x, t, g: every(x, t, g),
    }


def check_contract(a):
    for name, call in calls(a).items():
        images, targets = batch(23), soft(23)
        images[0], images[1] = 0, 1  # black and white: rounding must not lead out of 0..1
        before = images.clone(), targets.clone()
        first = call(images, targets, seeded(3))
        assert torch.equal(images, before[0]) and torch.equal(targets, before[1]), name
        assert first[0].shape == images.shape and first[0].dtype == images.dtype
        assert first[0].min() >= 0 and first[0].max() <= 1, name
        changed = (first[0] != images).flatten(1).any(1)
        assert changed.sum() > 5, f"{name}: few images changed"
        if len(first) == 2:
            assert first[1].shape == targets.shape and first[1].min() >= 0
            torch.testing.assert_close(first[1].sum(1), torch.ones(23), **CLOSE)
        # the global generators are neither read nor moved
        for state in (1, 2):
            torch.manual_seed(state), np.random.seed(state), random.seed(state)
            states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
            again = call(images, targets, seeded(3))
            assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True)), name
            assert torch.equal(torch.get_rng_state(), states[0])
            assert np.array_equal(np.random.get_state()[1], states[1])
            assert random.getstate() == states[2]
        other = call(images, targets, seeded(4))
        assert not torch.equal(first[0], other[0]), name
        # a generator moves on: the next batch is changed in other ways
        generator = seeded(3)
        call(images, targets, generator)
        assert not torch.equal(first[0], call(images, targets, generator)[0]), name
        # copies of one image do not all turn out alike
        copies = images[5:6].expand(23, -1, -1, -1).clone()
        if name not in ("mixup", "cutmix"):
            out = call(copies, targets, seeded(3))[0]
            assert len(out.flatten(1).unique(dim=0)) > (1 if name == "flip" else 10), name


def test_contract():
    check_contract(augment)


def test_no_image_depends_on_its_neighbours():
    for name, call in calls(augment).items():
        if name not in ("mixup", "cutmix", "Augment"):
            images = batch()
            others = torch.cat([images[:1], batch(B - 1)])
            first = call(images, None, seeded())[0][0]
            assert torch.equal(first, call(others, None, seeded())[0][0]), name


def test_the_order_of_augment():
    images, targets, generator = batch(), soft(), seeded(5)
    out, labels = EVERYTHING(images, targets, generator)
    g = seeded(5)
    images = augment.flip(augment.shift(images, 3, generator=g), generator=g)
    images = augment.affine(images, 20, 0.2, 10, 0.1, 0.5, True, generator=g)
    images = augment.colour(images, 0.4, 0.4, 0.4, generator=g)
    images = augment.cutout(augment.rand_augment(images, 2, 9, generator=g), 4, generator=g)
    images, targets = augment.mix(images, targets, 0.8, 1.0, generator=g)
    assert torch.equal(out, images) and torch.equal(labels, targets)
    assert torch.equal(generator.get_state(), g.get_state())


def test_nothing_switched_on_changes_nothing():
    images, labels, generator = batch(), torch.arange(B), seeded()
    out, same = augment.Augment()(images, labels, generator)
    assert out is images and same is labels
    assert torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize(
    "name, value",
    [
        ("shift", -1),
        ("shift", 1.5),
        ("flip", 0.5),
        ("rotate", 181),
        ("scale", 1),
        ("shear", -2),
        ("translate", 1.1),
        ("elastic", -1),
        ("bicubic", 1),
        ("brightness", float("nan")),
        ("contrast", "strong"),
        ("saturation", 2),
        ("rand_augment", True + 0.5),
        ("magnitude", 11),
        ("cutout", -4),
        ("mixup", -0.1),
        ("cutmix", None),
    ],
)
def test_what_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} is ") as error:
        augment.Augment(**{name: value})
    assert "\n" not in str(error.value)


def test_wrong_batches_are_refused():
    images, targets = batch(), soft()
    for wrong in ((images * 255).byte(), images[0]):
        with pytest.raises(ValueError, match="^images are "):
            augment.Augment(flip=True)(wrong, targets, seeded())
    with pytest.raises(ValueError, match="^generator must be"):
        augment.Augment(flip=True)(images, targets, None)
    with pytest.raises(ValueError, match="one_hot"):
        augment.Augment(mixup=0.8)(images, torch.arange(B), seeded())
    with pytest.raises(ValueError, match="^shift is 10: "):
        augment.Augment(shift=10)(images, targets, seeded())
    with pytest.raises(ValueError, match="choose zero or reflect"):
        augment.shift(images, 2, fill="wrap", generator=seeded())


@pytest.mark.gpu
def test_the_gpu_does_the_same():
    images, targets = bytes_of(batch(200)), soft(200)
    for name, call in calls(augment).items():
        here = call(images, targets, seeded())
        there = call(images.cuda(), targets.cuda(), seeded())
        for x, y in zip(here, there, strict=True):
            assert y.is_cuda
            # posterize and solarize jump: a last digit may decide, if they come second
            far = (x - y.cpu()).abs() > 1e-5
            jumps = name in ("rand_augment", "Augment")
            assert far.double().mean() <= (1e-3 if jumps else 0), name
    choice, strength = torch.arange(200) % len(ONE), torch.linspace(-1, 1, 200).double()
    here = augment.operate(images, choice, strength)
    there = augment.operate(images.cuda(), choice, strength)
    torch.testing.assert_close(here, there.cpu(), rtol=0, atol=1e-5)


# Planted errors ---------------------------------------------------------------------------------

ERRORS = [  # the check that must notice it, the right text, the wrong one
    (check_shift, "device=images.device) - dy", "device=images.device) + dy"),
    (check_shift, "arange(H, device=images.device) - dy", "arange(H, device=images.device) - dx"),
    (check_shift, "y = H - 1 - (H - 1 - y.abs()).abs()", "y = y % H"),
    (check_shift_is_drawn, "(2, len(images)), gen", "(2, 1), gen"),
    (check_shift_is_drawn, "pixels + 1, (2", "pixels, (2"),
    (
        check_shift_is_drawn,
        "return shift_by(images, dy, dx, fill)",
        "return shift_by(images, dy, dy, fill)",
    ),
    (check_flip, "images.flip(-1)", "images.flip(-2)"),
    (
        check_flip,
        "draw(generator, len(images)) < 0)",
        "draw(generator, 1).expand(len(images)) < 0)",
    ),
    (check_affine, "from_x * 2 / W, from_y * 2 / H", "from_x * 2 / W, from_y * 2 / W"),
    (check_affine, "mode, align_corners=False", "mode, align_corners=True"),
    (check_affine, "torch.linalg.inv(matrices[:, :, :2])", "matrices[:, :, :2]"),
    (check_affine, "[from_x * 2 / W, from_y * 2 / H]", "[from_y * 2 / H, from_x * 2 / W]"),
    (check_affine, "from_y + bent[:, 1]", "from_y + bent[:, 0]"),
    (check_affine, 'mode = "bicubic" if bicubic else "bilinear"', 'mode = "bilinear"'),
    (check_affine, "mode, align_corners=False).clamp(0, 1)", "mode, align_corners=False)"),
    (check_bend, 'mode="bicubic", align_corners=True', 'mode="bicubic", align_corners=False'),
    (check_bend, 'mode="bicubic", align', 'mode="bilinear", align'),
    (check_affine_is_drawn, "generator, B, 2, 4, 4)", "generator, 1, 2, 4, 4).expand(B, 2, 4, 4)"),
    (check_affine_is_drawn, "bend(elastic * draw(", "bend(draw("),
    (check_matrices, "scale * (cos * tan_x - sin)", "scale * (cos * tan_y - sin)"),
    (check_torchvision, "(cos * tan_x - sin), dx", "(cos * tan_x + sin), dx"),
    (check_affine_is_drawn, "draw(generator, 6, B)", "draw(generator, 6, 1).expand(6, B)"),
    (check_affine_is_drawn, "translate * W * dx", "translate * H * dx"),
    (check_cutout, "images.mean(dim=(-2, -1), keepdim=True)  #", "images.mean()  #"),
    (check_cutout, "top, left, size, size)", "left, top, size, size)"),
    (check_cutout, "x >= left[:, None]", "x > left[:, None]"),
    (check_colour, "grey(images).mean(dim=(-2, -1), keepdim=True)", "grey(images).mean()"),
    (check_colour, "0.2989 * red + 0.587 * green", "0.2989 * green + 0.587 * red"),
    (check_colour, "images, each(factor, images)).clamp(0, 1)", "images, each(factor, images))"),
    (check_colour_is_drawn, "contrast_by(images, 1 + contrast * v)", "contrast_by(images, 1 + u)"),
    (check_operate, "operation(images[here]", "operation(images[:len(here)]"),
    (check_operate, "changed = torch.empty_like(images)", "changed = images"),
    (check_operate, "1 - strength.abs()", "1 - strength"),
    (
        check_rand_augment,
        "draw(generator, len(images)).sign()",
        "draw(generator, 1).sign().expand(len(images))",
    ),
    (check_mixup, "torch.lerp(images[other], images, ", "torch.lerp(images, images[other], "),
    (check_mixup, "torch.lerp(targets[other], targets, keep", "torch.lerp(targets, targets, keep"),
    (check_cutmix, "partner, 1 - box.float()", "partner, box.float()"),
    (
        check_cutmix,  # the fraction before the box was clipped
        "1 - box.float().mean(dim=(1, 2, 3))",
        "1 - height * width / box[0, 0].numel()",
    ),
    (check_mix_is_drawn, "partner, beta(mixup, B", "partner, beta(mixup, 1"),
    (
        check_mix_is_drawn,
        "(1 - beta(cutmix, B, generator)).sqrt()",
        "1 - beta(cutmix, B, generator)",
    ),
    (check_mix_is_drawn, "(W * side).long()", "(H * side).long()"),
    (check_contract, "moved * inside", "images.copy_(moved * inside)"),
    (check_contract, "torch.lerp(other, images, each", "images.lerp_(other, each"),
    (check_contract, "torch.randperm(B, generator=generator)", "torch.randperm(B)"),
    (check_contract, "np.random.default_rng(seed)", "np.random"),
    (check_contract, "torch.rand(shape, generator=generator, dtype", "torch.rand(shape, dtype"),
]


def mutated(right, wrong):
    """The module with one piece of its text replaced."""
    source = inspect.getsource(augment)
    assert source.count(right) == 1, f"{right!r} is no longer in the code, once"
    module = types.ModuleType("mutated")
    exec(compile(source.replace(right, wrong), "mutated", "exec"), vars(module))
    return module


@pytest.mark.parametrize("check, right, wrong", ERRORS, ids=range(len(ERRORS)))
def test_planted_errors_are_noticed(check, right, wrong):
    check(mutated(right, right))
    module = mutated(right, wrong)
    with pytest.raises(AssertionError):
        check(module)
