"""How fast is our ViT beside those of timm, torchvision and transformers? In one process, in turn.

    python -m benchmarks.throughput                 on the CPU, eager; on CUDA both
    python -m benchmarks.throughput --compile       on the CPU compiled as well
    python -m benchmarks.throughput --rounds 5      fewer rounds, for a look

All four get the same weights; equal parameter counts and equal logits are asserted first. Then they
run in turn, round after round, each round beginning with another one, so that whatever disturbs
the machine disturbs all. The ratio is the median over the rounds of our time divided by that of the
fastest other one. On the CPU: one thread, processor time of this process. On CUDA: bf16, events.
Memory: on the CPU the bytes that autograd keeps for the backward pass, on CUDA the peak.
"""

import argparse
import datetime
import hashlib
import json
import platform
import statistics
import time
from pathlib import Path

import timm
import torch
import torchvision
import transformers

from vitcourse import make_vit, weights
from vitcourse.train.environment import processor

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SOURCES = ["vitcourse/vit.py", "vitcourse/config.py", "benchmarks/throughput.py"]

# size, image, classes, batch on the CPU, batch on CUDA
SHAPES = {"B/16-224": ("B/16", 224, 1000, 2, 128), "Ti/4-32": ("Ti/4", 32, 10, 32, 1024)}
MODES = ("forward", "training")


class Transformers(torch.nn.Module):
    """transformers' model, made to return logits as the others do."""

    def __init__(self, config):
        super().__init__()
        self.model = transformers.ViTForImageClassification(config)

    def forward(self, images):
        return self.model(images).logits


def build(shape):
    """The four models of one shape, with the same weights."""
    size, image, classes, *_ = SHAPES[shape]
    ours = make_vit(size, image=image, classes=classes)
    cfg = ours.cfg
    theirs = {
        "timm": timm.create_model(
            "vit_base_patch16_224",
            img_size=image,
            patch_size=cfg.patch,
            embed_dim=cfg.dim,
            depth=cfg.depth,
            num_heads=cfg.heads,
            num_classes=classes,
        ),
        "torchvision": torchvision.models.VisionTransformer(
            image_size=image,
            patch_size=cfg.patch,
            num_layers=cfg.depth,
            num_heads=cfg.heads,
            hidden_dim=cfg.dim,
            mlp_dim=cfg.hidden,
            num_classes=classes,
        ),
        "transformers": Transformers(
            transformers.ViTConfig(
                image_size=image,
                patch_size=cfg.patch,
                num_hidden_layers=cfg.depth,
                num_attention_heads=cfg.heads,
                hidden_size=cfg.dim,
                intermediate_size=cfg.hidden,
                num_labels=classes,
                layer_norm_eps=1e-6,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
        ),
    }
    with torch.no_grad():
        torch.nn.init.normal_(ours.head.weight, std=0.02)
        for model in theirs.values():
            copy_weights(ours, model)
    return {"vitcourse": ours, **theirs}


def copy_weights(ours, theirs):
    """Give `theirs` the weights of `ours`: the loader's renaming, used backwards."""
    inner = getattr(theirs, "model", theirs)
    numbered, start = {}, 0
    for name, parameter in inner.state_dict().items():
        places = torch.arange(start, start + parameter.numel(), dtype=torch.float64)
        numbered[name], start = places.reshape(parameter.shape), start + parameter.numel()
    _, convert = weights.recognise(numbered, ours)
    flat = torch.empty(start)
    for name, places in convert(numbered, ours).items():
        flat[places.long().flatten()] = ours.state_dict()[name].flatten()
    inner.load_state_dict({name: flat[p.long()] for name, p in numbered.items()})


def assert_equal(models, images):
    """All four have as many parameters and the same logits."""
    counts = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    assert len(set(counts.values())) == 1, counts
    with torch.no_grad():
        logits = {name: model.eval()(images) for name, model in models.items()}
    for name, other in logits.items():
        error = (other - logits["vitcourse"]).abs().max() / logits["vitcourse"].abs().max()
        assert error < 1e-4, f"{name}: logits differ by {error:.1e}"


def step(model, images, labels, optimizer, autocast):
    """One training step, or a forward pass where there is no optimizer."""
    if optimizer is None:
        with torch.no_grad(), autocast():
            return model(images)
    with autocast():
        loss = torch.nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def seconds(run, device):
    """How long one run takes: processor time on the CPU, events on CUDA."""
    if device == "cpu":
        start = time.process_time()
        run()
        return time.process_time() - start
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    run()
    after.record()
    torch.cuda.synchronize()
    return before.elapsed_time(after) / 1000


def memory(run, forward, device):
    """Bytes: the peak of a run on CUDA; on the CPU what autograd keeps of a forward pass."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    del output
    return sum(kept.values())


def measure(shape, mode, device, compiled, rounds):
    """Time the four models in turn, and compare them."""
    _, image, classes, cpu_batch, cuda_batch = SHAPES[shape]
    batch = cpu_batch if device == "cpu" else cuda_batch
    torch.compiler.reset()  # else a second shape is compiled for images of any size
    torch.manual_seed(0)
    models = build(shape)
    assert_equal(models, torch.randn(2, 3, image, image))
    images = torch.randn(batch, 3, image, image, device=device)
    labels = torch.randint(classes, (batch,), device=device)

    def autocast():
        return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")

    runs, used = {}, {}
    for name, model in models.items():
        model.to(device).train(mode == "training")
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4) if mode == "training" else None
        network = torch.compile(model, fullgraph=name == "vitcourse") if compiled else model
        runs[name] = lambda n=network, o=optimizer: step(n, images, labels, o, autocast)
        for _ in range(3):
            runs[name]()
        used[name] = memory(runs[name], lambda n=network: n(images), device)

    times = {name: [] for name in runs}
    names = list(runs)
    for i in range(rounds):
        for name in names[i % 4 :] + names[: i % 4]:
            times[name].append(seconds(runs[name], device))
        progress = {name: f"{statistics.median(t) * 1000:.1f}" for name, t in times.items()}
        print(f"\r  {shape} {mode} {device} {i + 1}/{rounds} ms: {progress}", end="", flush=True)
    print()
    medians = {name: statistics.median(values) for name, values in times.items()}
    fastest = min((name for name in names[1:]), key=medians.get)
    ratios = [ours / other for ours, other in zip(times["vitcourse"], times[fastest], strict=True)]
    return {
        "shape": shape,
        "mode": mode,
        "device": device,
        "compiled": compiled,
        "precision": "bf16 autocast" if device == "cuda" else "float32",
        "batch": batch,
        "rounds": rounds,
        "milliseconds": {name: round(1000 * median, 3) for name, median in medians.items()},
        "images_per_second": {name: round(batch / median, 2) for name, median in medians.items()},
        "memory_MB": {name: round(number / 1e6, 2) for name, number in used.items()},
        "fastest_other": fastest,
        "ratio": round(statistics.median(ratios), 4),
    }


def environment(device):
    """Where and with what this was measured."""
    sources = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in SOURCES))
    return {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{lib.__name__: lib.__version__ for lib in (torch, torchvision, timm, transformers)},
        "sources_sha256": sources.hexdigest(),
    }


def main():
    """Measure everything that this machine can, and record it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--compile", action="store_true", help="compiled on the CPU as well")
    parser.add_argument("--shape", choices=SHAPES, help="only this one")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="only this one")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    here = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in [args.device] if args.device else here:
        rows, path = [], args.out / f"throughput-{device}.json"
        record = {"environment": environment(device), "rows": rows}
        for shape in [args.shape] if args.shape else SHAPES:
            for compiled in (False, True) if device == "cuda" or args.compile else (False,):
                for mode in MODES:
                    rows.append(measure(shape, mode, device, compiled, args.rounds))
                    path.write_text(json.dumps(record, indent=1) + "\n")
        for row in rows:
            how = "compiled" if row["compiled"] else "eager"
            print(f"{row['shape']} {row['mode']} {device} {how}: {row['ratio']:.3f} of the time of")
            print(f"  {row['fastest_other']}; memory {row['memory_MB']}")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
