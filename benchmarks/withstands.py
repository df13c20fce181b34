"""Lesson 12's curves with photographs: what a ViT and a CNN need and withstand on CIFAR-10.

    python -m benchmarks.withstands needs        how many images does each learn from?
    python -m benchmarks.withstands disturbed    what does each withstand?
    ... --data FOLDER --name "JPEG copy"         pictures in folders
    ... --rehearse                               the whole way in small

Both learn by the recipe "cifar10-fast". The CNN is plain: six convolutions, of three widths the one
whose accuracy on clean test images is nearest to the ViT's. With fewer images each model makes as
many steps as with all. All accuracies are those after the last epoch, of one seed.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from benchmarks.gpu import about, few, options, write
from vitcourse import probe, stress
from vitcourse.data import load
from vitcourse.train import RECIPES, build_model, fit
from vitcourse.train.device import pick_device

WIDTHS = 16, 32, 64
PARTS = 0.02, 0.1, 0.4, 1.0  # of the training images
SHARES = 0.25, 0.5, 0.75  # of the patches
CUTS = 16, 8, 4  # pixels of a piece when pieces are shuffled
MOVES = 0, 1, 2, 4, 8  # pixels; what leaves on one side enters on the other
STRENGTHS = {"noise": (0.05, 0.1, 0.2), "blur": (0.5, 1.0, 2.0), "contrast": (0.3, 0.6, 0.9)}


def cnn(recipe, data, width):
    """Six convolutions with batch normalisation: images (B, C, H, W) -> logits (B, classes)."""
    torch.manual_seed(recipe.seed)
    layers, channels = [], data.channels
    for out in (width, width, 2 * width, 2 * width, 4 * width, 4 * width):
        if out > channels > data.channels:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)]
        layers.append(nn.ReLU())
        channels = out
    head = nn.Linear(channels, len(data.classes))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def train(build, data, recipe):
    """A trained model, and its accuracy on clean test images."""
    recipe = recipe.but(evaluate_every=recipe.epochs)
    run = fit(build(recipe, data), data, recipe, device=data.images.device)
    return run.model.eval(), run.accuracy


def pair(data, recipe):
    """The ViT, and how to build the CNN whose accuracy is nearest to it: models and accuracies."""
    found = {"ViT": train(build_model, data, recipe)}
    others = {width: train(partial(cnn, width=width), data, recipe) for width in WIDTHS}
    goal = found["ViT"][1]
    width = min(WIDTHS, key=lambda width: abs(others[width][1] - goal))
    found["CNN"] = others[width]
    return found, width


def needs(data, recipe):
    """The accuracy of both with parts of the training images, each in as many steps."""
    found, width = pair(data, recipe)
    rows = []
    for part in PARTS:
        some = few_to_learn(data, part)
        steps = recipe.epochs * len(data.labels) / recipe.batch
        batch = min(recipe.batch, len(some.labels))
        one = recipe.but(batch=batch, epochs=round(steps * batch / len(some.labels)))
        builds = {"ViT": build_model, "CNN": partial(cnn, width=width)}
        for name, build in builds.items():
            accuracy = found[name][1] if part == 1 else train(build, some, one)[1]
            rows.append({"model": name, "images": len(some.labels), "accuracy": accuracy})
            print(rows[-1], flush=True)
    return {"width of the CNN": width, "rows": rows}


def few_to_learn(data, part):
    """The data with a part of its training images, drawn by chance."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(data.labels), generator=generator)
    chosen = order[: round(part * len(data.labels))].to(data.labels.device)
    return replace(data, images=data.images[chosen], labels=data.labels[chosen])


def disturbed(data, recipe):
    """The accuracy of both on test images that are covered, shuffled, moved, noisy or blurred."""
    found, width = pair(data, recipe)
    images, rows = data.test_images.float() / 255, []  # (n, C, H, W)
    vit = found["ViT"][0]
    heat, grid = where_it_looks(vit, data, images), vit.cfg.grid
    shown, chance = {"clean": images}, lambda: torch.Generator().manual_seed(0)
    for share in SHARES:
        for kind, order in {"random": None, "salient": heat, "other": -heat}.items():
            chosen = stress.choose(grid, share, len(images), chance(), order)
            shown[f"{kind} patches covered, {share:g}"] = stress.occlude(images, chosen)
            accuracy = without(vit, data, images, chosen)
            rows.append({"model": "ViT", "what": f"{kind} patches removed, {share:g}"})
            rows[-1]["accuracy"] = accuracy
    for cut in CUTS:
        shown[f"shuffled, pieces of {cut}"] = stress.shuffle_patches(images, cut, chance())
    for pixels in MOVES:
        shown[f"moved, {pixels}"] = stress.shift(images, pixels, pixels)
    for kind, strengths in STRENGTHS.items():
        for strength in strengths:
            made = stress.SHIFTS[kind](images, strength, chance())
            shown[f"{kind}, {strength:g}"] = made
    for name, (model, _) in found.items():
        for what, pictures in shown.items():
            accuracy = right(lambda x, _, model=model: model(x), data, pictures)
            rows.append({"model": name, "what": what, "accuracy": accuracy})
    return {"width of the CNN": width, "rows": rows}


@torch.no_grad()
def right(answer, data, images):
    """The share of test images (n, C, H, W) in 0..1 to which `answer(x, place)` is right."""
    count = 0
    for start in range(0, len(images), 250):
        place = slice(start, start + 250)
        logits = answer(data.normalise(255 * images[place]), place)
        count += (logits.argmax(dim=1).cpu() == data.test_labels[place].cpu()).sum().item()
    return count / len(images)


def without(vit, data, images, chosen):
    """The accuracy of a ViT from which the chosen patches (n, h, w) are taken away."""
    keep = (~chosen).flatten(1).int().argsort(dim=1, descending=True, stable=True)
    keep = keep[:, : int((~chosen[0]).sum())]

    def answer(x, place):
        return probe.with_tokens(vit, x, keep[place].to(x.device))

    return right(answer, data, images)


@torch.no_grad()
def where_it_looks(vit, data, images):
    """What the class token takes from each patch, through all layers: (n, h, w)."""
    found = []
    for some in images.split(100):
        with probe.record_attention(vit) as maps:
            vit(data.normalise(255 * some))
        found.append(probe.rollout(maps)[:, 0, vit.prefix.shape[1] :].cpu())
    return torch.cat(found).unflatten(1, vit.cfg.grid)


def main():
    """Measure one of the two, and record it."""
    parser = options(__doc__)
    parser.add_argument("what", choices=["needs", "disturbed"])
    args = parser.parse_args()
    device, recipe = pick_device(), RECIPES["cifar10-fast"].with_settings(args.set)
    data = load(args.data)
    if args.rehearse:
        data, recipe = few(data, 256), recipe.but(model="Nano/4", epochs=2, batch=64)
    data = data.to(device)
    measured = {"needs": needs, "disturbed": disturbed}[args.what](data, recipe)
    record = about(f"CIFAR-10, {args.name}", data, recipe) | measured
    write(record, args.out, "rehearsal-" * args.rehearse + args.what, device)


if __name__ == "__main__":
    main()
