"""What a training step costs, beside timm's model in the same loop, and what limits it.

    python -m benchmarks.training             on CUDA if it is there, else on the CPU, one thread
    python -m benchmarks.training --rounds 5  fewer rounds, for a look

For each shape: milliseconds of a whole step (batch, augmentation, forward, backward, optimizer) of
our model and of timm's, in turn, and their ratio; the share of the time in which the device waits
for data (a step that makes its batch against one that is given it); and the share of the peak that
a large matrix multiplication reaches on the same device and in the same precision.
"""

import argparse
import json
import statistics
from pathlib import Path

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.throughput import RESULTS, seconds
from vitcourse.data import Data
from vitcourse.data.augment import Augment
from vitcourse.train import Recipe, build_model, classify, decay_groups
from vitcourse.train.batches import Batches
from vitcourse.train.device import pick_precision
from vitcourse.train.environment import environment
from vitcourse.train.loop import Objective, State, train_step

AUGMENT = Augment(shift=4, flip=True, cutmix=1.0)
SHAPES = {  # model, image, classes, batch on the CPU, batch on CUDA
    "cifar10": ("Micro/4", 32, 10, 64, 1024),
    "B/16-224": ("B/16", 224, 1000, 2, 128),
}


def random_data(image, classes, count):
    """Noise in the form of a data set: speed does not depend on what is in the pictures."""
    images = torch.randint(256, (count, 3, image, image), dtype=torch.uint8)
    labels = torch.arange(count) % classes
    names = tuple(map(str, range(classes)))
    return Data("noise", images, labels, images[:1], labels[:1], names)


def timm_twin(model):
    """timm's model of the same sizes."""
    cfg = model.cfg
    return timm.create_model(
        "vit_base_patch16_224",
        img_size=cfg.image,
        patch_size=cfg.patch,
        embed_dim=cfg.dim,
        depth=cfg.depth,
        num_heads=cfg.heads,
        num_classes=cfg.classes,
    )


def make_step(model, recipe, data, device, compiled, given):
    """A function that does one training step; with `given`, always on the same ready batch."""
    model = model.to(device)
    optimizer = torch.optim.AdamW(
        decay_groups(model, recipe.weight_decay), betas=(0.9, 0.999), fused=device.type == "cuda"
    )
    precision = pick_precision("auto", device)
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    batches, state = Batches(data, recipe, device), State(model, None, optimizer, scaler)
    objective, stream = Objective(model, classify), batches.since(0)
    objective = torch.compile(objective) if compiled else objective
    ready = next(stream)

    def run():
        batch = ready if given else next(stream)
        train_step(objective, batch, recipe, recipe.lr, state, precision)
        state.step += 1

    return run


def peak(device, precision):
    """Operations a second that a large matrix multiplication reaches."""
    size = 8192 if device.type == "cuda" else 1024
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    a = torch.randn(size, size, device=device, dtype=dtype)
    times = [seconds(lambda: a @ a, device.type) for _ in range(12)][2:]
    return 2 * size**3 / statistics.median(times)


def measure(shape, device, compiled, rounds):
    """One row of the result."""
    size, image, classes, cpu_batch, cuda_batch = SHAPES[shape]
    batch = cuda_batch if device.type == "cuda" else cpu_batch
    torch.compiler.reset()  # else a second shape is compiled for images of any size
    recipe = Recipe(model=size, epochs=10**6, batch=batch, augment=AUGMENT)
    data = random_data(image, classes, max(4 * batch, 64))
    if device.type == "cuda":
        data = data.to(device)
    ours = build_model(recipe, data)
    with FlopCounterMode(display=False) as counter:
        ours(torch.zeros(1, 3, image, image)).sum().backward()
    steps = {
        "vitcourse": make_step(ours, recipe, data, device, compiled, given=False),
        "timm": make_step(timm_twin(ours), recipe, data, device, compiled, given=False),
        "given": make_step(build_model(recipe, data), recipe, data, device, compiled, given=True),
    }
    times, names = {name: [] for name in steps}, list(steps)
    for run in steps.values():
        for _ in range(3):
            run()
    for i in range(rounds):
        for name in names[i % 3 :] + names[: i % 3]:
            times[name].append(seconds(steps[name], device.type))
    middle = {name: statistics.median(values) for name, values in times.items()}
    pairs = zip(times["vitcourse"], times["timm"], strict=True)
    precision = pick_precision("auto", device)
    reached = counter.get_total_flops() * batch / middle["given"]
    return {
        "shape": shape,
        "device": device.type,
        "compiled": compiled,
        "precision": precision,
        "batch": batch,
        "rounds": rounds,
        "milliseconds": {name: round(1000 * value, 3) for name, value in middle.items()},
        "ratio_to_timm": round(statistics.median(a / b for a, b in pairs), 4),
        "waiting_for_data": round(1 - middle["given"] / middle["vitcourse"], 4),
        "share_of_matmul_peak": round(reached / peak(device, precision), 4),
    }


def main():
    """Measure every shape, and record it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for shape in SHAPES:
        for compiled in (False, True) if device.type == "cuda" else (False,):
            rows.append(measure(shape, device, compiled, args.rounds))
            print(json.dumps(rows[-1]), flush=True)
    record = {"environment": environment(), "rows": rows}
    path = args.out / f"training-{device.type}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
