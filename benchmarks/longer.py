"""Experiments of lessons 18 to 20 for longer, on one GPU: some minutes each.

    python -m benchmarks.longer without_labels   what is an MAE worth, where few have labels?
    python -m benchmarks.longer detection        40,000 scenes: DETR and Deformable DETR
    python -m benchmarks.longer restoration      one IPT for noise, rain and few pixels
    ... --data FOLDER --name "JPEG copy"         pictures in folders; scenes are drawn
    ... --set compile=false                      a field of the recipe
    ... --rehearse                               the whole way in small

Without labels: CIFAR-10. An MAE learns all training images, three quarters of the patches hidden,
the pixels told as they are. Then a part of the labels, as many of each class: a new head alone
(probe), all of the model (fine-tuning), or a new one, each for as many steps, changed by chance in
the same way. All three read the mean of the patches. The error is the mean square on hidden patches
of the test images, beside that of the mean training image.

Detection: the models of the experiment on Deformable DETR, with refinement, whose boxes were closer
in it; AP, AP50 and answers too many for an object after each epoch.

Restoration: CIFAR-10 as clean pictures, damaged on purpose. What is given has half of their side:
with noise or rain the upper left quarter, and all, shrunk, to be made twice as large. PSNR in dB of
the restored test images, beside that of what is given, made larger by bicubic interpolation.

Nothing is tuned. One seed. Seconds are those of training: evaluation counts, but for the last.
"""

from dataclasses import replace
from functools import partial

import torch

from benchmarks.claims import comparable
from benchmarks.claims.deformable_detr import MODELS
from benchmarks.claims.detr import RECIPE as SMALL_DETECTION
from benchmarks.claims.ipt import RECIPE as SMALL_RESTORATION
from benchmarks.claims.mae import error_of_mean, labelled
from benchmarks.digits import count
from benchmarks.gpu import about, few, options, write
from vitcourse import detect
from vitcourse.data import load
from vitcourse.data.augment import Augment
from vitcourse.papers import ipt, mae
from vitcourse.parts import MeanHead
from vitcourse.train import RECIPES, build_model, fit
from vitcourse.train.device import pick_device
from vitcourse.vit import ViT

FLIP = Augment(flip=True)
PHOTOGRAPHS = RECIPES["cifar10-fast"]


# Without labels -----------------------------------------------------------------------------------

PRETRAINING = PHOTOGRAPHS.but(epochs=200, evaluate_every=20, beta2=0.95, ema=0.0, smoothing=0.0)
PRETRAINING = PRETRAINING.but(augment=FLIP, compile=True)
PARTS = 0.01, 0.1  # of the labels
BATCH = 500  # with labels
RATES = {"probe": 0.01, "fine-tuning": 0.001, "new": 0.001}
CLASSIFIER = ViT.variant(Head=MeanHead, registers=1)


class Decoder(mae.Decoder):
    """One that fits the encoder."""

    dim, depth, heads = 96, 2, 3


def fill(model, batch):
    """The step of mae.py, with noise that is drawn where the images lie, so that it compiles."""
    h, w = model.cfg.grid
    noise = torch.rand(len(batch.images), h * w, device=batch.images.device)  # (B, N)
    return mae.loss(model, batch.images, noise)


def without_labels(data, recipe, device, steps=2000):
    """The error of an MAE by epoch; accuracies by part of the labels and way to learn them."""
    there = data.to(device)
    model = build_model(recipe, data, mae.MAE.variant(Head=Decoder, normalised=False))
    run, errors, rows = fit(model, there, recipe, fill, score=mae.score, device=device), [], []
    for entry in run.history:
        if "test_error" in entry:
            error, seconds = entry["test_error"], entry["seconds"]
            errors.append({"epoch": entry["epoch"], "error": error, "seconds": seconds})
    for part in PARTS:
        some = with_labels(data, part, recipe.seed, device)
        for way in RATES:
            row = {"labels": len(some.labels), "way": way}
            rows.append(row | taught(run.model, some, way, recipe, steps))
            print(rows[-1], flush=True)
    decoder = count(model.head)
    return {
        "parameters": {"encoder": count(model) - decoder, "decoder": decoder},
        "error of the mean image": error_of_mean(there),
        "pre-training": errors,
        "with labels": {"recipe": "cifar10-fast", "batch": BATCH, "rates": RATES},
        "rows": rows,
    }


def with_labels(data, part, seed, device):
    """A part of the training images, as many of each class, on the device.

    They are normalised by the statistics of all, which need no labels.
    """
    classes = len(data.classes)
    each = max(round(part * len(data.labels) / classes), 1)
    return labelled(data, each * classes, seed).to(device)


def taught(model, some, way, recipe, steps):
    """The accuracy of a pre-trained encoder, or of a new ViT, after its steps with labels."""
    batch = min(BATCH, len(some.labels))
    epochs = max(steps // (len(some.labels) // batch), 1)
    same = dict(model=recipe.model, seed=recipe.seed, precision=recipe.precision)
    recipe = PHOTOGRAPHS.but(**same, batch=batch, epochs=epochs, lr=RATES[way])
    recipe = recipe.but(evaluate_every=epochs)
    if way == "new":
        vit = build_model(recipe, some, CLASSIFIER)
    else:
        vit = mae.as_vit(model, len(some.classes), CLASSIFIER)
    vit.requires_grad_(way != "probe")
    vit.head.requires_grad_()
    run = fit(vit, some, recipe, device=some.images.device, quiet=True)
    last = run.history[-1]
    return {"accuracy": run.accuracy, "steps": last["step"], "seconds": last["seconds"]}


# Detection ----------------------------------------------------------------------------------------

DETECTION = SMALL_DETECTION.but(batch=64, epochs=6, precision="float32")
SCENES = {"train": 40_000, "test": 1000}
DETECTORS = {"DETR": "DETR", "Deformable DETR": "refined"}  # by their names in the experiment


def detection(data, recipe, device):
    """AP, AP50 and duplicates of each detector after each epoch, as rows."""
    truth = [tuple(part.to(device) for part in both) for both in detect.targets(data)]
    wanted, there = detect.objects(data), replace(data, extras={}).to(device)
    models, rows = {}, []
    for name, key in DETECTORS.items():
        torch.manual_seed(recipe.seed)
        cls, sizes, _ = MODELS[key]
        models[name] = cls(sizes)
    comparable(*models.values())

    def score(model, data):
        found = detect.guesses(model, data)
        extra = detect.duplicates(found, wanted)
        return detect.average_precision(found, wanted) | {"duplicates": extra}

    step = partial(detect.find, truth=truth)
    for name, model in models.items():
        for entry in fit(model, there, recipe, step, score=score, device=device).history:
            row = {key: entry[key] for key in ("epoch", "step", "seconds")}
            row |= {key: entry[f"test_{key}"] for key in ("AP", "AP50", "duplicates")}
            rows.append({"model": name} | row)
            print(rows[-1], flush=True)
    return {"parameters": {n: count(m) for n, m in models.items()}, "rows": rows}


# Restoration --------------------------------------------------------------------------------------

RESTORATION = SMALL_RESTORATION.but(batch=256, epochs=40, lr=1e-3, evaluate_every=8)
RESTORATION = RESTORATION.but(augment=FLIP)
DAMAGES = {
    "noise": partial(ipt.add_noise, sigma=0.1),
    "rain": ipt.add_rain,
    "twice as large": ipt.shrink,
}


def restoration(data, recipe, device, width=32, depth=4):
    """The PSNR of each task, given and restored, as rows; the mean of all by epoch."""
    there, damages = data.to(device), list(DAMAGES.values())
    torch.manual_seed(recipe.seed)
    half, mean = [side // 2 for side in data.image], tuple(data.mean.tolist())
    sizes = ipt.Sizes(width, 2, half, heads=4, depth=depth, scales=(1, 1, 2), mean=mean)
    model = ipt.begin_as_copy(ipt.IPT(sizes))
    step = partial(ipt.repair, data=there, degradations=damages)
    score = partial(ipt.quality, degradations=damages)
    run = fit(model, there, recipe, step, score=score, device=device)
    history = [entry for entry in run.history if "test_PSNR" in entry]
    restored = ipt.qualities(run.model, there, damages)
    rows = [
        {"task": name, "given": before, "restored": after}
        for name, before, after in zip(DAMAGES, given(model, there), restored, strict=True)
    ]
    print(*rows, sep="\n", flush=True)
    return {
        "parameters": count(model),
        "by epoch": [
            {"epoch": e["epoch"], "PSNR": e["test_PSNR"], "seconds": e["seconds"]} for e in history
        ],
        "rows": rows,
    }


def given(model, data):
    """The mean PSNR of what each task is given, of the test images: a list of numbers."""
    clean = data.test_images.float() / 255
    both = ipt.pairs(model, clean, DAMAGES.values(), torch.Generator().manual_seed(0))
    scaled = zip(both, model.sizes.scales, strict=True)
    return [ipt.psnr(ipt.bicubic(x, s), answer).mean().item() for (x, answer), s in scaled]


# All three ----------------------------------------------------------------------------------------

EXPERIMENTS = {  # how it is measured, by which recipe, and what is smaller in a rehearsal
    "without_labels": (without_labels, PRETRAINING, {"steps": 4}),
    "detection": (detection, DETECTION, {}),
    "restoration": (restoration, RESTORATION, {"width": 8, "depth": 1}),
}
REHEARSAL = dict(model="Nano/4", epochs=2, batch=64, evaluate_every=1)


def main():
    """Measure one of the three, and record it."""
    parser = options(__doc__)
    parser.add_argument("what", choices=EXPERIMENTS)
    args = parser.parse_args()
    experiment, recipe, smaller = EXPERIMENTS[args.what]
    device, recipe = pick_device(), recipe.with_settings(args.set)
    scenes, name = SCENES, f"CIFAR-10, {args.name}"
    if args.rehearse:
        scenes, recipe = {"train": 128, "test": 32}, recipe.but(**REHEARSAL)
    if args.what == "detection":
        data = load("shapes", task="scenes", **scenes)
        name = data.name
    else:
        data = load(args.data)
        data = few(data, 256) if args.rehearse else data
    measured = experiment(data, recipe, device, **(smaller if args.rehearse else {}))
    record = about(name, data, recipe) | measured
    write(record, args.out, f"{'rehearsal-' * args.rehearse}longer-{args.what}", device)


if __name__ == "__main__":
    main()
