"""What do a ViT and a CNN of about equal accuracy on clean digits withstand?

Both learn from the 1437 training images by the recipe "smoke", which slants, turns and zooms every
image a little and moves it by less than half a pixel, and are then tested on the 360 test images,
disturbed in many ways. Both see the same pictures, in the same order of chance. The ViT cuts an
image into 4x4 patches of 2x2 pixels; the CNN has about as many parameters.

What is covered is black, as most of the background is. Salient patches are those that the ViT's
attention rollout puts first. The adversarial patches are made for each model by itself, with its
gradients; the square of noise beside them has the same place and size.
"""

import torch

from benchmarks.digits import build_cnn
from vitcourse import data, probe, stress
from vitcourse.data.augment import shift_by
from vitcourse.train import RECIPES, build_model, fit

SEEDS = 5
RECIPE = RECIPES["smoke"].but(model="Nano/2", evaluate_every=50)
GRID = (4, 4)
SHARES = 0.25, 0.5, 0.625, 0.75  # of the 16 patches
STRENGTHS = {
    "noise": (0.1, 0.2, 0.4),
    "blur": (0.5, 1.0, 1.5),
    "contrast": (0.3, 0.6, 0.9),
    "texture": (0.2, 0.4, 0.6),
}
SQUARES = {1: (4, 4), 2: (4, 4), 4: (2, 2)}  # side, and the upper left corner
CUTS = 4, 2, 1
MOVES = 0, 1, 2
MODELS = {"ViT": build_model, "CNN": build_cnn}


class Tester:
    """A trained model, and how it is tested on images (n, 1, 8, 8) in 0..1."""

    def __init__(self, name, seed):
        self.digits, recipe = data.load("digits"), RECIPE.but(seed=seed)
        model = MODELS[name](recipe, self.digits)
        self.model = fit(model, self.digits, recipe, device="cpu", quiet=True).model
        self.labels = self.digits.test_labels

    def ready(self, images):
        """What the model reads: images of mean 0 and deviation 1."""
        return (images - self.digits.mean[:, None, None]) / self.digits.std[:, None, None]

    def logits(self, images):
        """The model, with its normalisation."""
        return self.model(self.ready(images))

    def accuracy(self, logits):
        """The share of the test images that are read right."""
        return (logits.argmax(dim=1) == self.labels).float().mean().item()

    @torch.no_grad()
    def test(self, images):
        """The accuracy on these."""
        return self.accuracy(self.logits(images))

    @torch.no_grad()
    def without(self, images, chosen):
        """The accuracy of a ViT from which the chosen patches (B, h, w) are taken away."""
        keep = (~chosen).flatten(1).int().argsort(dim=1, descending=True, stable=True)
        keep = keep[:, : int((~chosen[0]).sum())]
        return self.accuracy(probe.with_tokens(self.model, self.ready(images), keep))

    @torch.no_grad()
    def heat(self, images):
        """Where a ViT looks: (B, h, w)."""
        with probe.record_attention(self.model) as maps:
            self.logits(images)
        return probe.rollout(maps)[:, 0, 1:].unflatten(1, GRID)


def measure(seed):
    """The accuracies of both models on all disturbed test images."""
    images = data.load("digits").test_images / 255
    testers = {name: Tester(name, seed) for name in MODELS}
    found = {f"{name}: clean": tester.test(images) for name, tester in testers.items()}
    pictures = disturbed(images, seed)
    vit = testers["ViT"]
    heat = vit.heat(images)
    for share in SHARES:
        of_kind = {"random": None, "salient": heat, "other": -heat}
        for kind, order in of_kind.items():
            generator = torch.Generator().manual_seed(seed)
            chosen = stress.choose(GRID, share, len(images), generator, order)
            pictures[f"{kind} patches covered, {share:g}"] = stress.occlude(images, chosen)
            found[f"ViT: {kind} patches removed, {share:g}"] = vit.without(images, chosen)
    for name, tester in testers.items():
        for what, shown in pictures.items():
            found[f"{name}: {what}"] = tester.test(shown)
        found |= attacked(name, tester, images, seed)
        for pixels in MOVES:
            moves = [(pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels)]
            moved = [tester.test(move(images, *by)) for by in moves]
            found[f"{name}: moved, {pixels}"] = sum(moved) / len(moved)
    return found


def disturbed(images, seed):
    """The disturbances that do not depend on a model: {name: images}."""
    made = {}
    for kind, strengths in STRENGTHS.items():
        for strength in strengths:
            generator = torch.Generator().manual_seed(seed)
            made[f"{kind}, {strength:g}"] = stress.SHIFTS[kind](images, strength, generator)
    for patch in CUTS:
        generator = torch.Generator().manual_seed(seed)
        made[f"shuffled, {patch}"] = stress.shuffle_patches(images, patch, generator)
    return made


def move(images, dy, dx):
    """Move all images, and let zeros come in."""
    dy, dx = (torch.full((len(images),), by) for by in (dy, dx))
    return shift_by(images, dy, dx)


def attacked(name, tester, images, seed):
    """The accuracies under squares that are made for this model, and under squares of noise."""
    found = {}
    for size, corner in SQUARES.items():
        for kind, steps in {"noise square": 0, "adversarial square": 20}.items():
            generator = torch.Generator().manual_seed(seed)
            if steps:
                args = tester.logits, images, tester.labels, corner, size, steps
                shown = stress.adversarial_patch(*args, generator=generator)
            else:
                (y, x), noise = corner, torch.rand(images.shape, generator=generator)
                shown, rows, columns = images.clone(), slice(y, y + size), slice(x, x + size)
                shown[..., rows, columns] = noise[..., rows, columns]
            found[f"{name}: {kind}, {size}"] = tester.test(shown)
    return found


def lead(means, what):
    """By how much the ViT is ahead of the CNN."""
    return means[f"ViT: {what}"] - means[f"CNN: {what}"]


def removed(means, kind, share):
    """The accuracy of the ViT without patches of that kind."""
    return means[f"ViT: {kind} patches removed, {share:g}"]


CLAIMS = {
    "on clean digits the two lie within 2 points, and above 96 %": lambda m: (
        abs(lead(m, "clean")) <= 0.02 and min(m["ViT: clean"], m["CNN: clean"]) > 0.96
    ),
    "with a quarter of the patches covered at random, the ViT is behind by 3 points or more": (
        lambda m: lead(m, "random patches covered, 0.25") <= -0.03
    ),
    "the ViT reads 5 points more, at any share, if the same patches are removed, and not covered": (
        lambda m: all(
            removed(m, "random", share) >= m[f"ViT: random patches covered, {share:g}"] + 0.05
            for share in SHARES
        )
    ),
    "with half of the patches removed or fewer, it is ahead of the CNN, which sees them covered, "
    "by 8 points": lambda m: all(
        removed(m, "random", share) >= m[f"CNN: random patches covered, {share:g}"] + 0.08
        for share in (0.25, 0.5)
    ),
    "the quarter most attended to costs 30 points more than a random quarter, if removed": (
        lambda m: removed(m, "salient", 0.25) <= removed(m, "random", 0.25) - 0.3
    ),
    "with three quarters removed, the quarter most attended to is worth 30 points more than a "
    "random one": lambda m: removed(m, "other", 0.75) >= removed(m, "random", 0.75) + 0.3,
    "under the strongest blur, and with 0.9 of the contrast gone, the ViT is ahead by 5 points": (
        lambda m: min(lead(m, "blur, 1.5"), lead(m, "contrast, 0.9")) >= 0.05
    ),
    "an adversarial square of 2x2 pixels costs both 20 points more than a square of noise": (
        lambda m: all(
            m[f"{name}: adversarial square, 2"] <= m[f"{name}: noise square, 2"] - 0.2
            for name in MODELS
        )
    ),
    "an adversarial square of 4x4 pixels, a quarter of the image, leaves neither 5 %": lambda m: (
        max(m[f"{name}: adversarial square, 4"] for name in MODELS) < 0.05
    ),
    "with patches of 4x4 shuffled, both read less than a half, with 2x2 less than a quarter": (
        lambda m: all(
            m[f"{name}: shuffled, 4"] < 0.5 and m[f"{name}: shuffled, 2"] < 0.25 for name in MODELS
        )
    ),
    "moved by one pixel or by two, the ViT is behind by 10 points or more": lambda m: (
        max(lead(m, "moved, 1"), lead(m, "moved, 2")) <= -0.1
    ),
}
