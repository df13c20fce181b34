"""How well, and how fast, a plain ViT learns CIFAR-10 from nothing: accuracy against seconds.

    python -m benchmarks.cifar10                                    the exact data, downloaded
    python -m benchmarks.cifar10 --data FOLDER --name "JPEG copy"   pictures in folders
    python -m benchmarks.cifar10 --recipe cifar10-fast --seeds 3
    python -m benchmarks.cifar10 --rehearse                         the whole way in small

What is written is the accuracy after the last epoch, not the best; no test-time augmentation. The
seconds are those of training: evaluation counts, loading the data does not. With `--set
compile=true` those of the first seed include compiling; the later ones use what it has compiled.
The record is written anew after each seed.
"""

import statistics

from benchmarks.digits import count
from benchmarks.gpu import about, few, options, write
from vitcourse.data import load
from vitcourse.train import RECIPES, build_model, fit
from vitcourse.train.device import pick_device


def main():
    """Train once for each seed, and record accuracy and seconds after every epoch."""
    parser = options(__doc__)
    parser.add_argument("--recipe", default="cifar10-fast")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    device, recipe = pick_device(), RECIPES[args.recipe].with_settings(args.set)
    data = load(args.data)
    if args.rehearse:
        data, recipe = few(data, 512), recipe.but(epochs=2, batch=64)
    data, runs = data.to(device), []
    record = about(f"CIFAR-10, {args.name}", data, recipe)
    for seed in range(args.seeds):
        one = recipe.but(seed=seed)
        run = fit(build_model(one, data), data, one, device=device)
        runs.append({"seed": seed, "history": run.history})
        print(f"seed {seed}: {run.accuracy:.2%} in {run.history[-1]['seconds']:.0f} s", flush=True)
        record |= {"parameters": count(run.model)} | summary(runs)
        write(record, args.out, "rehearsal" if args.rehearse else args.recipe, device)
    print(f"{record['accuracy_mean']:.2%}")


def summary(runs):
    """Mean and spread of the accuracies of all seeds, the seconds of each, and their histories."""
    last = [run["history"][-1]["test_accuracy"] for run in runs]
    return {
        "accuracy_mean": round(statistics.mean(last), 5),
        "accuracy_spread": round(statistics.stdev(last), 5) if len(last) > 1 else None,
        "seconds": [run["history"][-1]["seconds"] for run in runs],
        "runs": runs,
    }


if __name__ == "__main__":
    main()
