"""Can one body serve several tasks, and does what it learned from one photograph serve another?

Digits: pictures of four digits, 16x16 pixels. One IPT learns to take away noise and rain from 8x8
pixels, and to enlarge 8x8 to 16x16. Then each task is done with the query of the next task.
What is given small is enlarged by bicubic interpolation, to be compared.

Photographs: an IPT of 0.3 million parameters learns to enlarge and to denoise crops of one
photograph, china.jpg of scikit-learn, and then restores the whole of another one, flower.jpg.
China is sharp and the flower is soft, so the crops are taken at four zooms, and their colours vary.
The controls are bicubic enlargement, and the noisy image.

All figures are PSNR in dB.
"""

import copy
from functools import partial

import torch
from einops import rearrange
from sklearn.datasets import load_sample_image

from vitcourse import data
from vitcourse.data.augment import Augment
from vitcourse.data.base import Data
from vitcourse.papers.ipt import (
    IPT,
    Sizes,
    add_noise,
    add_rain,
    begin_as_copy,
    bicubic,
    in_pieces,
    pairs,
    psnr,
    qualities,
    quality,
    repair,
    shrink,
)
from vitcourse.train import Recipe, fit

SEEDS = 3
SIDE = 48  # of the crops
RECIPE = Recipe(lr=3e-3, ema=0.99, weight_decay=0)


DIGITS = {
    "noise": partial(add_noise, sigma=0.3),
    "rain": partial(add_rain, drops=0.06, length=4, light=1.0),
    "twice as large": shrink,
}


def measure(seed):
    """What each task is given, what is restored, what another query makes of it."""
    return on_digits(seed) | on_photographs(seed)


def on_digits(seed):
    """Three tasks, one body."""
    found, digits = {}, four_together(data.load("digits"), seed)
    torch.manual_seed(seed)
    sizes = Sizes(12, 2, 8, heads=4, depth=2, scales=(1, 1, 2), mean=tuple(digits.mean.tolist()))
    model = begin_as_copy(IPT(sizes))
    degradations = list(DIGITS.values())
    model = train(model, digits, degradations, RECIPE.but(epochs=10, batch=48, seed=seed))
    clean = digits.test_images.float() / 255
    given = pairs(model, clean, degradations, torch.Generator().manual_seed(0))
    other = copy.deepcopy(model)
    other.body.position_queries.data = model.body.position_queries.data.roll(-1, 0)
    restored, confused = (qualities(m, digits, degradations) for m in (model, other))
    for task, name in enumerate(DIGITS):
        image, answer = given[task]
        image = bicubic(image, sizes.scales[task])
        found[f"digits, {name}, as given"] = psnr(image, answer).mean().item()
        found[f"digits, {name}, restored"] = restored[task]
        found[f"digits, {name}, with the next task's query"] = confused[task]
    return found


def four_together(digits, seed):
    """Pictures of four digits each, in any order, as many as there are digits."""
    generator = torch.Generator().manual_seed(seed)

    def put(images):
        chosen = torch.randint(len(images), (4 * len(images),), generator=generator)
        return rearrange(images[chosen], "(B p q) C H W -> B C (p H) (q W)", p=2, q=2)

    return unlabelled("four digits", put(digits.images), put(digits.test_images))


def unlabelled(name, images, test_images):
    """A Data whose images are all of one class."""
    labels, test_labels = (torch.zeros(len(x), dtype=torch.int64) for x in (images, test_images))
    return Data(name, images, labels, test_images, test_labels, ("image",))


def on_photographs(seed):
    """Two tasks, learned on one photograph, done on another."""
    china, flower = photograph("china.jpg"), photograph("flower.jpg")
    crops = torch.cat([cut(zoomed(china, zoom), round(16 * zoom)) for zoom in (1, 1.5, 2, 3)])
    crops = unlabelled("china", crops, cut(flower, SIDE))
    torch.manual_seed(seed)
    mean = tuple(crops.mean.tolist())
    sizes = Sizes(16, 2, SIDE // 2, heads=4, depth=1, scales=(2, 1), mean=mean)
    model = begin_as_copy(IPT(sizes))
    colours = Augment(flip=True, brightness=0.5, contrast=0.5, saturation=1)
    recipe = RECIPE.but(epochs=3, batch=8, lr=2.5e-3, augment=colours, seed=seed)
    noise = partial(add_noise, sigma=0.1)
    model = train(model, crops, [shrink, noise], recipe)
    clean = flower[None].float() / 255
    small, noisy = shrink(clean), noise(clean, torch.Generator().manual_seed(seed))
    found = {
        "photograph, twice as large, bicubic": bicubic(small, 2),
        "photograph, twice as large, restored": in_pieces(model, small, 0),
        "photograph, noise, given": noisy,
        "photograph, noise, restored": in_pieces(model, noisy, 1),
    }
    found = {name: psnr(image, clean).item() for name, image in found.items()}
    found["photograph, 1.5 dB above bicubic"] = found["photograph, twice as large, bicubic"] + 1.5
    return found


def photograph(name):
    """A photograph of scikit-learn, of even sides: uint8 (3, 426, 640)."""
    return torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[:, :426]


def zoomed(photograph, zoom):
    """A photograph that is `zoom` times as high and wide."""
    larger = bicubic(photograph[None].float(), zoom)[0]
    return larger.round().clamp(0, 255).to(torch.uint8)


def cut(photograph, step):
    """All crops of a photograph that begin at multiples of `step`: uint8 (n, 3, SIDE, SIDE)."""
    crops = photograph.unfold(1, SIDE, step).unfold(2, SIDE, step)
    return rearrange(crops, "C h w H W -> (h w) C H W")


def train(model, images, degradations, recipe):
    """Train one model for all tasks."""
    run = fit(
        model,
        images,
        recipe.but(evaluate_every=recipe.epochs),
        step=lambda model, batch: repair(model, batch, images, degradations),
        score=lambda model, data: quality(model, data, degradations),
        device="cpu",
        quiet=True,
    )
    return run.model


PAIRS = {
    "digits: noise is taken away": ("digits, noise, restored", "digits, noise, as given"),
    "digits: rain is taken away": ("digits, rain, restored", "digits, rain, as given"),
    "digits: enlarged better than bicubic": (
        "digits, twice as large, restored",
        "digits, twice as large, as given",
    ),
    "digits, noise: the query of rain is worse": (
        "digits, noise, restored",
        "digits, noise, with the next task's query",
    ),
    "digits, rain: the query of enlargement is worse": (
        "digits, rain, restored",
        "digits, rain, with the next task's query",
    ),
    "digits, twice as large: the query of noise is worse": (
        "digits, twice as large, restored",
        "digits, twice as large, with the next task's query",
    ),
    "photograph: enlarged better than bicubic": (
        "photograph, twice as large, restored",
        "photograph, twice as large, bicubic",
    ),
    "photograph: enlarged better than bicubic by 1.5 dB": (
        "photograph, twice as large, restored",
        "photograph, 1.5 dB above bicubic",
    ),
    "photograph: noise is taken away": (
        "photograph, noise, restored",
        "photograph, noise, given",
    ),
}
