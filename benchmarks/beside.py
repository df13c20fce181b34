"""Beside the record on CIFAR-10: its recipe without each ingredient, and the recipes of others.

    python -m benchmarks.beside without                one run for each ingredient, one seed
    python -m benchmarks.beside others --seconds 120   each as many epochs as fit
    ... --data FOLDER --name "JPEG copy"               pictures in folders
    ... --set compile=true                             a field of all recipes
    ... --rehearse                                     the whole way in small

Without: "cifar10-fast" as it is, then with one thing left out, all else equal.

Others: sizes and settings of a plain ViT from three well-known repositories, in our loop, on the
same data, for the same seconds of training. Their schedules are squeezed into as many epochs as
fit: the speed of each is measured first. What is not theirs: where they have AutoAugment's rules
for CIFAR-10, there is RandAugment; weight decay is AdamW's; the rate ends at zero. Each was made
for 200 epochs or more, ours for few, so this does not say which is better with time.

Accuracy after the last epoch, no test-time augmentation, one seed. The record is written anew after
each run.
"""

from benchmarks.digits import count
from benchmarks.gpu import about, few, options, write
from vitcourse.data import load
from vitcourse.data.augment import Augment
from vitcourse.papers.cct import ViTLite
from vitcourse.train import RECIPES, Recipe, build_model, fit
from vitcourse.train.device import pick_device
from vitcourse.vit import ViT

OURS = "cifar10-fast"
INGREDIENTS = {
    "nothing": [],
    "CutMix": ["augment.cutmix=0"],
    "moves": ["augment.shift=0"],
    "mirroring": ["augment.flip=false"],
    "label smoothing": ["smoothing=0"],
    "the average of weights": ["ema=0"],
    "warm-up": ["warmup=0"],
    "weight decay": ["weight_decay=0"],
    "clipping": ["clip=0"],
}
LINEAR = 3**-0.5  # of 1/sqrt(inputs): the spread with which PyTorch's Linear begins
OTHERS = {  # the recipe, the class, the sizes
    OURS: (RECIPES[OURS], ViT, {}),
    "kentaroy47/vision-transformers-cifar10": (
        Recipe(
            batch=512,
            lr=1e-4,
            warmup=0.0,
            weight_decay=0.0,
            clip=0.0,
            position_std=1.0,
            gain=LINEAR,
            augment=Augment(shift=4, flip=True, rand_augment=2, magnitude=14 / 3),
        ),
        ViT,
        dict(dim=512, depth=6, heads=8, mlp_ratio=1.0, drop=0.1, attn_drop=0.1),
    ),
    "omihub777/ViT-CIFAR": (
        Recipe(
            lr=1e-3,
            warmup=5 / 200,
            weight_decay=5e-5,
            clip=0.0,
            smoothing=0.1,
            position_std=1.0,
            gain=LINEAR,
            augment=Augment(shift=4, flip=True, rand_augment=2),
        ),
        ViT,
        dict(dim=384, depth=7, heads=12, mlp_ratio=1.0),
    ),
    "SHI-Labs/Compact-Transformers, ViT-Lite-7/4": (
        Recipe(
            lr=5e-4,
            warmup=5 / 200,
            weight_decay=0.03,
            clip=0.0,
            smoothing=0.1,
            drop_path=0.1,
            position_std=0.2,
            augment=Augment(shift=4, flip=True, rand_augment=2),
        ),
        ViTLite,
        dict(dim=256, depth=7, heads=4, mlp_ratio=2.0, attn_drop=0.1),
    ),
}


def without(data, settings, device, small, _):
    """Rows: our recipe, and without each ingredient."""
    for name, changes in INGREDIENTS.items():
        recipe = RECIPES[OURS].with_settings(settings + changes).but(**small)
        yield train(f"{OURS} without {name}", data, recipe, device, ViT, {})


def others(data, settings, device, small, limit):
    """Rows: our recipe and those of others, each for as many epochs as fit into the seconds."""
    for name, (recipe, model, sizes) in OTHERS.items():
        recipe = recipe.with_settings(settings).but(**small)
        each = seconds_an_epoch(data, recipe, device, model, sizes)
        epochs = small.get("epochs", max(int(limit / each), 1))
        yield train(name, data, recipe.but(epochs=epochs), device, model, sizes)


def seconds_an_epoch(data, recipe, device, model, sizes):
    """What an epoch of training takes: the second of two, as the first may compile."""
    recipe, new = recipe.but(epochs=2, evaluate_every=2), build_model(recipe, data, model, **sizes)
    first, second = fit(new, data, recipe, device=device, quiet=True).history
    return second["seconds"] - first["seconds"]


def train(name, data, recipe, device, model, sizes):
    """One run, as a row."""
    recipe = recipe.but(evaluate_every=recipe.epochs)
    new = build_model(recipe, data, model, **sizes)
    run = fit(new, data, recipe, device=device)
    return {
        "recipe": name,
        "parameters": count(new),
        "epochs": recipe.epochs,
        "accuracy": run.accuracy,
        "seconds": run.history[-1]["seconds"],
    }


EXPERIMENTS = {"without": without, "others": others}


def main():
    """Measure one of the two, and record it."""
    parser = options(__doc__)
    parser.add_argument("what", choices=EXPERIMENTS)
    parser.add_argument("--seconds", type=float, default=120)
    args = parser.parse_args()
    device, data, small = pick_device(), load(args.data), {}
    if args.rehearse:
        data, small = few(data, 64), {"model": "Nano/4", "epochs": 2, "batch": 32}
    data, rows = data.to(device), []
    name = f"{'rehearsal-' * args.rehearse}beside-{args.what}"
    record = about(f"CIFAR-10, {args.name}", data, RECIPES[OURS].with_settings(args.set))
    for row in EXPERIMENTS[args.what](data, args.set, device, small, args.seconds):
        rows.append(row)
        print(row, flush=True)
        write(record | {"rows": rows}, args.out, name, device)


if __name__ == "__main__":
    main()
