"""Masked patch prediction: loops, and what each kind of corruption lets through."""

import torch

from tests.proofs import equal, images, randomise
from vitcourse.config import Config
from vitcourse.data import Data
from vitcourse.papers import masked_patches
from vitcourse.papers.mae import as_vit
from vitcourse.papers.masked_patches import ColourHead, MaskedPatchViT
from vitcourse.train.batches import Batch
from vitcourse.vit import patchify, unpatchify

SIZES = Config(
    dim=40, depth=2, heads=5, patch=6, image=(18, 30), channels=2, classes=7, mlp_ratio=2
)
NOISE = torch.rand(1, 64, 3, generator=torch.Generator().manual_seed(0))
KEPT, MASKED, SWAPPED = 0.95, 0.4, 0.85  # what the second number of the noise can say


class Drawn(MaskedPatchViT):
    """The noise is always the same."""

    def forward(self, images, noise=None):
        h, w = (side // self.cfg.patch for side in images.shape[-2:])
        return super().forward(images, NOISE[:, : h * w].expand(len(images), -1, -1).to(images))


MODELS = {"drawn": lambda: (Drawn(SIZES), torch.randn(2, 2, 18, 30))}
OTHER_SIZES = {"drawn": (24, 12)}


def corrupting(patch, how, which=0.0):
    """Noise (2, 15, 3) that corrupts one patch in this way."""
    noise = torch.full((2, 15, 3), 0.7)
    noise[:, patch] = torch.tensor([0.3, how, which])
    return noise


def a_model():
    """One with random weights, and images for it."""
    return randomise(MaskedPatchViT(SIZES)).double(), images(2, 2, 18, 30)


def colours_are_means_in_three_bits():
    """Patch by patch and channel by channel, with loops; 1.0 is the highest level."""
    given = torch.rand(2, 2, 18, 30, generator=torch.Generator().manual_seed(1)).double()
    given[0, :, :6, :6] = 1.0
    found = masked_patches.mean_colours(given, 6)
    assert found[0, 0] == 63 and found.unique().numel() > 3
    for b in range(2):
        for y in range(3):
            for x in range(5):
                number = 0
                for channel in given[b, :, 6 * y : 6 * y + 6, 6 * x : 6 * x + 6]:
                    number = 8 * number + min(7, int(channel.sum().item() / 36 * 8))
                assert found[b, 5 * y + x] == number
    assert MaskedPatchViT(SIZES).head.out_features == 8 * 8


def without_corruption_it_is_a_vit():
    """Whether there is no noise, or noise that chooses nothing, or patches that are kept."""
    model, given = a_model()
    vit = as_vit(model, classes=4).double()
    wanted, _ = vit.encode(given)
    for noise in (None, torch.full((2, 15, 3), 0.5), corrupting(4, KEPT)):
        equal(model.encode(given, noise)[0], wanted)
    logits = model(given)
    equal(logits, wanted[:, 1:] @ model.head.weight.T + model.head.bias)


def a_masked_patch_cannot_be_read():
    """The gradient of all answers vanishes at its pixels, and only there."""
    model, given = a_model()
    given.requires_grad_()
    model(given, corrupting(4, MASKED)).square().sum().backward()
    touched = patchify(given.grad, 6).abs().amax(dim=-1) > 0  # (B, N)
    assert touched.sum().item() == 28 and not touched[:, 4].any()


def a_masked_patch_knows_its_place():
    """Where all are masked, they differ by their positions alone."""
    model, given = a_model()
    everything = torch.zeros(2, 15, 3)
    answer = model(given, everything)
    assert (answer[:, 1:] - answer[:, :-1]).abs().amax(dim=-1).min() > 1e-3
    with torch.no_grad():
        model.position.table[:, 1:] = 0
    answer = model(given, everything)
    equal(answer, answer[:, :1].expand_as(answer))


def a_swapped_patch_is_another_of_the_image():
    """As if its pixels had been copied over. The third number reaches each other patch once."""
    model, given = a_model()
    vit, reached = as_vit(model, classes=4).double(), []
    for n in range(14):
        found, _ = model.encode(given, corrupting(4, SWAPPED, (n + 0.5) / 14))
        for other in set(range(15)) - {4}:
            patches = patchify(given, 6)
            patches[:, 4] = patches[:, other]
            wanted, _ = vit.encode(unpatchify(patches, (3, 5), 6))
            reached += [other] * torch.allclose(found, wanted, rtol=1e-9, atol=1e-9)
    assert sorted(reached) == sorted(set(range(15)) - {4})


def half_are_chosen_and_most_of_them_masked():
    """Of 100 x 100 even pairs of numbers: 40 % masked, 5 % swapped, the rest as they are."""
    even = (torch.arange(100) + 0.5) / 100
    noise = torch.cartesian_prod(even, even, torch.tensor([0.5]))[None]  # (1, 10000, 3)
    model = randomise(MaskedPatchViT(SIZES))
    x = images(1, 10000, 40, dtype=torch.float32)
    found = model.corrupt(x, noise)
    same = (found == x).all(dim=-1).sum().item()
    masked = (found == model.prefix_mask).all(dim=-1).sum().item()
    assert (same, masked, 10000 - same - masked) == (5500, 4000, 500)


class Says(MaskedPatchViT):
    """Answers what it was told to."""

    def forward(self, images, noise=None):
        return self.answer


def the_loss_asks_for_every_corrupted_patch():
    """Masked, swapped or kept, each pulls by softmax minus truth; no other patch does."""
    model = Says(SIZES)
    model.answer = images(2, 15, 64, seed=1).requires_grad_()
    colours = torch.randint(64, (2, 15), generator=torch.Generator().manual_seed(2))
    noise = corrupting(4, MASKED)
    noise[:, 7], noise[0, 11] = torch.tensor([0.1, KEPT, 0]), torch.tensor([0.1, SWAPPED, 0])
    masked_patches.loss(model, None, colours, noise).backward()
    wanted = torch.zeros(2, 15, 64).double()
    for b, n in ((0, 4), (1, 4), (0, 7), (1, 7), (0, 11)):
        wanted[b, n] = model.answer[b, n].detach().softmax(dim=-1)
        wanted[b, n, colours[b, n]] -= 1
    equal(model.answer.grad, wanted / 5)


def what_fit_is_given():
    """Images are normalised, colours are not; the score is the part of them that is right."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (4, 2, 18, 30), generator=generator).byte()
    pixels[:, 0] //= 2
    data = Data("noise", pixels[:2], torch.zeros(2).long(), pixels, torch.zeros(4).long(), "a")
    model, given = randomise(MaskedPatchViT(SIZES)), data.normalise(pixels)
    step, losses = masked_patches.telling_colours(data), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(step(model, Batch(given, None, None, None)).item())
    assert losses[0] == losses[1] != losses[2]
    noise = torch.rand(4, 15, 3, generator=torch.Generator().manual_seed(0))
    colours = mean_colours(pixels.double() / 255, 6)
    assert abs(losses[0] - masked_patches.loss(model, given, colours, noise).item()) < 1e-5
    says = Says(SIZES)
    right = torch.nn.functional.one_hot(colours, 64)
    right[:, ::3] = 0  # says colour 0, which no patch has
    says.answer, chosen = right, noise[..., 0] < 0.5
    wanted = 1 - chosen[:, ::3].sum().item() / chosen.sum().item()
    assert abs(masked_patches.score(says, data)["colours"] - wanted) < 1e-6


PROOFS = [
    colours_are_means_in_three_bits,
    without_corruption_it_is_a_vit,
    a_masked_patch_cannot_be_read,
    a_masked_patch_knows_its_place,
    a_swapped_patch_is_another_of_the_image,
    half_are_chosen_and_most_of_them_masked,
    the_loss_asks_for_every_corrupted_patch,
    what_fit_is_given,
]

corrupt, cross_entropy = MaskedPatchViT.corrupt, masked_patches.F.cross_entropy
mean_colours = masked_patches.mean_colours


def adds_the_mask(self, x, noise):
    return x + (corrupt(self, x, noise) - x).detach()


def always_the_next(self, x, noise):
    return corrupt(self, x, noise * torch.tensor([1, 1, 0]))


def masks_with_a_neighbour(self, x, noise):
    return corrupt(self, x, noise) + 0.1 * x.roll(1, dims=1)


def channels_first(images, patch):
    return patchify(images.flip(1), patch)


PLANTED = {
    "the channels in another order": (
        (masked_patches, "patchify", channels_first),
        colours_are_means_in_three_bits,
    ),
    "two bits": ((masked_patches, "BITS", 2), colours_are_means_in_three_bits),
    "kept ones are masked": ((MaskedPatchViT, "masked", 1.0), without_corruption_it_is_a_vit),
    "the head reads the class token, too": (
        (ColourHead, "forward", lambda self, x, grid: x[:, :-1] @ self.weight.T + self.bias),
        without_corruption_it_is_a_vit,
    ),
    "the mask is added for the forward pass alone": (
        (MaskedPatchViT, "corrupt", adds_the_mask),
        a_masked_patch_cannot_be_read,
    ),
    "something of the neighbour shows": (
        (MaskedPatchViT, "corrupt", masks_with_a_neighbour),
        a_masked_patch_knows_its_place,
    ),
    "always the next patch": (
        (MaskedPatchViT, "corrupt", always_the_next),
        a_swapped_patch_is_another_of_the_image,
    ),
    "15 %, as in BERT": (
        (MaskedPatchViT, "corrupted", 0.15),
        half_are_chosen_and_most_of_them_masked,
    ),
    "the loss of all patches": (
        (
            masked_patches.F,
            "cross_entropy",
            lambda *given, **how: cross_entropy(*given, **how).mean().expand(2, 15),
        ),
        the_loss_asks_for_every_corrupted_patch,
    ),
    "the colours of other images": (
        (masked_patches, "mean_colours", lambda x, patch: mean_colours(x.flip(0), patch)),
        what_fit_is_given,
    ),
}
