"""Each disturbance beside a plain loop, or where its result is known."""

import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from vitcourse import stress
from vitcourse.data import load, trained


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


IMAGES = torch.rand(5, 3, 12, 18, generator=rng())
FUNCTIONS = {
    "occlude": lambda: stress.occlude(IMAGES, stress.choose((4, 6), 0.5, 5, rng())),
    "shuffle": lambda: stress.shuffle_patches(IMAGES, 3, rng()),
    "shift": lambda: stress.shift(IMAGES, 1, 2),
    **{
        name: (lambda f=f: f(IMAGES, 0.7, rng(1)))  # noqa: B023
        for name, f in stress.SHIFTS.items()
    },
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_shape_range_and_repetition(name):
    before = IMAGES.clone()
    result = FUNCTIONS[name]()
    assert result.shape == IMAGES.shape and result.dtype == IMAGES.dtype
    assert result.min() >= 0 and result.max() <= 1
    assert torch.equal(IMAGES, before), "the images themselves stay"
    assert not torch.equal(result, IMAGES)
    assert torch.equal(result, FUNCTIONS[name]()), "the same generator gives the same pictures"


@pytest.mark.parametrize("name", stress.SHIFTS)
def test_strength_zero_changes_nothing(name):
    torch.testing.assert_close(stress.SHIFTS[name](IMAGES, 0.0, rng()), IMAGES)


def test_choose():
    chosen = stress.choose((4, 6), 0.25, 5, rng())
    assert chosen.shape == (5, 4, 6) and chosen.sum(dim=(1, 2)).tolist() == [6] * 5
    assert not torch.equal(chosen[0], chosen[1])
    heat = torch.rand(5, 4, 6, generator=rng(3))
    hot = stress.choose((4, 6), 0.25, 5, None, heat=heat)
    assert (
        heat[hot].reshape(5, 6).min(dim=1).values > heat[~hot].reshape(5, 18).max(dim=1)[0]
    ).all()
    cold = stress.choose((4, 6), 0.25, 5, None, heat=-heat)
    assert not (hot & cold).any()
    assert stress.choose((4, 6), 0.0, 5, rng()).sum() == 0
    assert stress.choose((4, 6), 1.0, 5, rng()).all()


def test_occlude_covers_the_chosen_patches_and_no_others():
    chosen = torch.zeros(5, 4, 6, dtype=torch.bool)
    chosen[2, 1, 4] = True
    covered = stress.occlude(IMAGES, chosen, value=0.5)
    changed = covered != IMAGES
    assert changed[2, :, 3:6, 12:15].all() and changed.sum() == 3 * 9
    assert (covered[2, :, 3:6, 12:15] == 0.5).all()


def test_shuffled_patches_are_the_same_patches():
    shuffled = stress.shuffle_patches(IMAGES, 3, rng())
    for image, other in zip(IMAGES, shuffled, strict=True):
        pieces, others = (
            sorted(
                tuple(i[:, y : y + 3, x : x + 3].flatten().tolist())
                for y in range(0, 12, 3)
                for x in range(0, 18, 3)
            )
            for i in (image, other)
        )
        assert pieces == others
    assert not torch.equal(shuffled[0], shuffled[1])


def test_shift_goes_down_and_right():
    shifted = stress.shift(IMAGES, 2, 5)
    assert torch.equal(shifted[..., 2:, 5:], IMAGES[..., :-2, :-5])


def test_blur_equals_another():
    ours = stress.blur(IMAGES, 1.0)
    theirs = gaussian_filter(IMAGES.double().numpy(), (0, 0, 1, 1), mode="nearest", radius=3)
    torch.testing.assert_close(ours.double(), torch.tensor(theirs), atol=1e-6, rtol=0)


def test_contrast():
    flat = stress.contrast(IMAGES, 1.0)
    assert flat.std(dim=(1, 2, 3)).max() < 1e-6
    half = stress.contrast(IMAGES, 0.5)
    torch.testing.assert_close(half.std(dim=(1, 2, 3)), IMAGES.std(dim=(1, 2, 3)) / 2)


def test_noise_has_its_strength():
    grey = torch.full((4, 3, 50, 50), 0.5)
    assert stress.noise(grey, 0.05, rng()).std().item() == pytest.approx(0.05, rel=0.05)


def test_a_texture_has_stripes_of_a_few_pixels():
    stripes = stress.texture(torch.zeros(8, 3, 32, 32), 1.0, rng())
    assert stripes.std() > 0.3 and not torch.equal(stripes[0], stripes[1])
    spectrum = torch.fft.rfft2(stripes[:, 0] - stripes[:, 0].mean(dim=(1, 2), keepdim=True)).abs()
    for image in spectrum:
        y, x = divmod(image.argmax().item(), image.shape[1])
        cycles = (min(y, 32 - y) ** 2 + x**2) ** 0.5
        assert 4 < cycles < 18, "32 pixels hold 32/6 to 32/2 stripes"


def test_an_adversarial_patch_changes_its_pixels_only_and_does_harm():
    data, model = load("shapes", train=500, test=16), trained("shapes")
    mean, std = (statistic[:, None, None] for statistic in (data.mean, data.std))

    def logits(images):
        return model((images - mean) / std)

    def loss(images):
        with torch.no_grad():
            return F.cross_entropy(logits(images), labels, reduction="none")

    images, labels = data.test_images / 255, data.test_labels
    attacked = stress.adversarial_patch(logits, images, labels, (12, 14), 6, generator=rng())
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[12:18, 14:20] = True
    assert torch.equal(attacked[..., ~inside], images[..., ~inside])
    assert attacked.min() >= 0 and attacked.max() <= 1
    noisy = torch.where(inside, torch.rand(images.shape, generator=rng(1)), images)
    assert (loss(attacked) >= loss(images)).all()
    assert loss(attacked).mean() > loss(noisy).mean() + 1, "worse than noise"
    assert all(parameter.grad is None for parameter in model.parameters())
    few = stress.adversarial_patch(logits, images, labels, (12, 14), 6, steps=1, generator=rng())
    assert loss(few).mean() < loss(attacked).mean()
    labels = (labels + 1) % 8  # the loss is high already: noise lowers it, and is not kept
    few = stress.adversarial_patch(logits, images, labels, (12, 14), 6, steps=1, generator=rng())
    assert (loss(noisy) < loss(images)).any() and (loss(few) >= loss(images)).all()


def test_a_square_outside_is_refused():
    with pytest.raises(ValueError, match=r"a square of 4 at \(9, 0\) does not lie in .* 12 x 18"):
        stress.adversarial_patch(None, IMAGES, None, (9, 0), 4)
