"""What proofs have in common: random weights, equality within a tolerance, oracles."""

import torch
from torch import nn

from vitcourse import weights

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def randomise(model, seed=0):
    """Give every parameter and every statistic a value of its own: default ones hide errors."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor):
        return torch.randn(tensor.shape, generator=generator).to(tensor)

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * normal(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * normal(buffer))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + normal(buffer).abs())
    return model.eval()


def images(*shape, seed=0, dtype=torch.float64):
    """Random images (B, C, H, W)."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def equal(a, b, what="", tolerance=1e-10):
    """Assert that two tensors are equal, relative to the largest number."""
    assert a.shape == b.shape, f"{what}: {tuple(a.shape)} is not {tuple(b.shape)}"
    error = ((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item()
    assert error <= tolerance, f"{what}: {error:.1e} > {tolerance}"


def outputs_and_gradients(model, run, stages, images):
    """The output of the model and of each stage, and the gradient of each parameter."""
    kept = {}

    def keep(name):
        def hook(module, inputs, output):
            kept[name] = output[0] if isinstance(output, tuple) else output

        return hook

    hooks = [stage.register_forward_hook(keep(f"stage {i}")) for i, stage in enumerate(stages)]
    kept["logits"] = run(images)
    for hook in hooks:
        hook.remove()
    logits = kept["logits"]
    direction = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    model.zero_grad()
    (logits * direction).sum().backward()
    gradients = {
        name: parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        for name, parameter in model.named_parameters()
    }
    return kept, gradients


def same_as(oracle, ours, images, stages=((), ()), run=None, dtypes=tuple(TOLERANCE)):
    """Assert that our model is the oracle: logits, the output of stages, and all gradients.

    The oracle's random weights are loaded into ours by `weights.load`, and its gradients get our
    names in the same way. `stages` are the modules to compare, ours and theirs. `run(images)` calls
    the oracle where that is more than `oracle(images)`.
    """
    randomise(oracle)
    for dtype in dtypes:
        oracle.to(dtype)
        ours.to(dtype).eval()
        weights.load(ours, oracle.state_dict())
        given = images.to(dtype)
        mine, my_gradients = outputs_and_gradients(ours, ours, stages[0], given)
        theirs, gradients = outputs_and_gradients(oracle, run or oracle, stages[1], given)
        learned = {name for name, p in oracle.named_parameters() if p.requires_grad}
        gradients = {name: g for name, g in gradients.items() if name in learned}
        layout, convert = weights.recognise(gradients, ours)
        gradients = convert(gradients, ours)
        assert my_gradients.keys() == gradients.keys(), my_gradients.keys() ^ gradients.keys()
        assert mine.keys() == theirs.keys()
        for name in mine:
            equal(mine[name], theirs[name], name, TOLERANCE[dtype])
        for name in my_gradients:
            if gradients[name].any():
                equal(my_gradients[name], gradients[name], name, TOLERANCE[dtype] * 10)


def count(model):
    """How many numbers a model learns."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def batch_norms(model):
    """The batch normalisations of a model."""
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
