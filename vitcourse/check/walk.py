"""Walk through a whole ViT and name the first stage that departs from the reference.

`check.trace(model, images)` runs a learner's ViT and the package's, with the same weights, and
compares what their submodules give, from the patches to the logits. Heads, scores and weights are
seen by no hook. So where something departs, each known error is put into the reference, until one
gives what the learner's model gives.
"""

import copy
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from vitcourse.check.errors import ERRORS
from vitcourse.check.runner import untouched
from vitcourse.config import Config, grid_of
from vitcourse.vit import ViT

# What is compared, in the order in which it is computed ------------------------------------------

BEFORE = ("patches", "+ class", "+ position")
BLOCK = ("norm 1", "q k v", "heads", "scores", "weights", "values", "merge", "projection")
BLOCK += ("+ attention", "norm 2", "hidden", "MLP", "+ MLP")
AFTER = ("norm", "logits")
# Where each is seen: a submodule's name, and whether what it is given (0) or gives (1)
SEEN_BEFORE = {
    "patches": (("patch_embed", 1),),
    "+ class": (("position", 0),),
    "+ position": (("position", 1), ("blocks.0", 0)),
}
SEEN_IN_BLOCK = {
    "norm 1": (("norm1", 1), ("attn", 0), ("attn.qkv", 0)),
    "q k v": (("attn.qkv", 1),),
    "merge": (("attn.proj", 0),),
    "projection": (("attn", 1), ("attn.proj", 1)),
    "+ attention": (("norm2", 0),),
    "norm 2": (("norm2", 1), ("mlp", 0), ("mlp.fc1", 0)),
    "hidden": (("mlp.fc2", 0),),
    "MLP": (("mlp", 1), ("mlp.fc2", 1)),
    "+ MLP": (("", 1),),
}
SEEN_AFTER = {"norm": (("norm", 1),), "logits": (("", 1),)}


@dataclass
class Trace:
    """What was found: the first stage that departs, "" for none, and the mistake if it is known."""

    stage: str
    ok: bool
    mistake: str | None = None
    lines: list = field(default_factory=list)


class Unable(Exception):
    """Why two models cannot be compared, in one sentence."""


def trace(model, image, heads=None):
    """Show, stage by stage, where a whole ViT departs from the package's: a Trace. Never raises.

    `image` is one image (C, H, W) or some (B, C, H, W). The parameters have the names of the
    exercise `vit`. `heads` is needed only if the model's attention has no attribute of that name.
    """
    try:
        with untouched(), torch.no_grad():
            found = compare(model, image, heads)
    except Unable as why:
        found = Trace("", False, None, [f"✗ {why}"])
    except Exception as error:
        text = f"✗ the trace stops with {type(error).__name__}: {str(error).strip()[:200]}"
        found = Trace("", False, None, [" ".join(text.split())])
    print("\n".join(found.lines))
    return found


def compare(model, image, heads):
    """First with the model's own weights, then with random ones, which no start value hides."""
    if not isinstance(model, nn.Module):
        raise Unable(f"trace needs a model, an object of your class, not {type(model).__name__}")
    images = as_batch(image)
    mine = copy_of(model)
    right = build_reference(mine, images, heads)
    stages = stages_of(len(right.blocks))
    found = None
    for weights in ("own", "random"):
        if weights == "random":
            fill(right)
        mine.load_state_dict(dict(right.named_parameters()), strict=False)
        found = locate(mine, right, images, stages)
        if not found.ok and (found.mistake or weights == "random"):
            break
    return found


# The two models ----------------------------------------------------------------------------------


def as_batch(image):
    """Images (B, C, H, W), in double precision, on the CPU."""
    if not isinstance(image, torch.Tensor) or image.ndim not in (3, 4):
        raise Unable("the image must be a tensor, (C, H, W) or (B, C, H, W)")
    images = image if image.ndim == 4 else image[None]
    return images.detach().cpu().double()


def copy_of(model):
    """A copy in double precision, so that nothing of the learner's is changed."""
    # intermediate results kept in the model are no leaves, which deepcopy refuses
    memo = {
        id(value): value.detach()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(model, memo).cpu().double().eval()
    except Exception as error:
        raise Unable(f"the model cannot be copied: {type(error).__name__}: {error}") from None


def build_reference(model, images, heads):
    """The package's ViT of the same sizes, with the model's weights."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}

    def shape(name, axes):
        if name not in shapes:
            raise Unable(f"the model has no parameter {name}: its names must be those of check.vit")
        if len(shapes[name]) != axes:
            raise Unable(f"the parameter {name} has {len(shapes[name])} axes, it must have {axes}")
        return shapes[name]

    _, prefix_len, dim = shape("prefix", 3)
    _, channels, patch, _ = shape("patch_embed.proj.weight", 4)
    classes, _ = shape("head.weight", 2)
    hidden, _ = shape("blocks.0.mlp.fc1.weight", 2)
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    if images.shape[1] != channels:
        raise Unable(f"the image has {images.shape[1]} channels, the model is made for {channels}")
    try:
        grid = grid_of(images.shape[-2:], patch)
    except ValueError as error:
        raise Unable(str(error)) from None
    rows, needed = shape("position.table", 3)[1], prefix_len + grid[0] * grid[1]
    if rows != needed:
        raise Unable(f"position.table has {rows} rows, an image of this size needs {needed}")
    heads = heads or heads_of(model)
    if not heads:
        raise Unable("tell the number of heads, check.trace(model, image, heads=...)")
    sizes = dict(dim=dim, depth=depth, patch=patch, image=tuple(images.shape[-2:]))
    ratio = (hidden + 0.5) / dim  # so that rounding cannot lose one
    try:
        cfg = Config(**sizes, heads=heads, channels=channels, classes=classes, mlp_ratio=ratio)
    except ValueError as error:
        raise Unable(str(error)) from None
    reference = ViT.variant(registers=prefix_len - 1)(cfg).double().eval()
    wanted = {name: tuple(p.shape) for name, p in reference.named_parameters()}
    for name in wanted:
        if shape(name, len(wanted[name])) != wanted[name]:
            text = f"the parameter {name} has the shape {shapes[name]}, it must be {wanted[name]}"
            raise Unable(text)
    extra = [name for name in shapes if name not in wanted]
    if extra:
        raise Unable(f"the model has a parameter {extra[0]} too many")
    values = dict(model.named_parameters())
    broken = [name for name in values if not values[name].isfinite().all()]
    if broken:
        raise Unable(f"the parameter {broken[0]} holds NaN or infinity")
    reference.load_state_dict(values)
    return reference


def heads_of(model):
    """The number of heads that some part of the model has as an attribute, or None."""
    for module in model.modules():
        for name in ("heads", "num_heads", "n_heads", "K"):
            value = getattr(module, name, None)
            if type(value) is int:
                return value
    return None


def fill(model):
    """Random weights: large enough to matter, too small to saturate a softmax.

    The tokens begin small, so that the eps of the norms shows.
    """
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        width = parameter[0].numel() if parameter.ndim in (2, 4) else 2
        in_tokens = name.startswith(("patch_embed", "prefix", "position"))
        parameter.copy_(values * width**-0.5 * (0.1 if in_tokens else 1))


# What the hooks see -------------------------------------------------------------------------------


def stages_of(depth):
    """The names of all stages; blocks count from 1."""
    blocks = [f"block {i + 1}, {stage}" for i in range(depth) for stage in BLOCK]
    return [*BEFORE, *blocks, *AFTER]


class Enough(Exception):
    """What was looked for has been seen."""


def observe(model, images, until=None):
    """What can be seen of every stage, {stage: tensor}, and the exception that ended it, or None.

    It stops once the stage `until` is seen.
    """
    places = dict(SEEN_BEFORE)
    depth = len(model.blocks)
    for i in range(depth):
        for stage, seen in SEEN_IN_BLOCK.items():
            names = tuple((f"blocks.{i}.{name}".rstrip("."), side) for name, side in seen)
            places[f"block {i + 1}, {stage}"] = names
    places |= SEEN_AFTER
    calls, last = {}, places[until][0][0] if until else None
    hooks = [
        module.register_forward_hook(partial(keep, calls, name, last))
        for name, module in model.named_modules()
    ]
    error = None
    try:
        model(images)
    except Enough:
        pass
    except Exception as problem:
        error = problem
    finally:
        for hook in hooks:
            hook.remove()
    seen = {}
    for stage, names in places.items():
        values = [calls[name][side] for name, side in names if name in calls]
        values = [value for value in values if value is not None]
        if values:
            seen[stage] = values[0]
    return seen, error


def keep(calls, name, last, module, given, output):
    """A hook: remember what a module was given and gave, the first time; stop after the last."""
    output = output[0] if isinstance(output, (tuple, list)) and output else output
    tensors = given[0] if given else None, output
    calls.setdefault(name, [t.clone() if isinstance(t, torch.Tensor) else None for t in tensors])
    if name == last:
        raise Enough


def agree(stage, mine, right):
    """Whether two results of a stage are one, but for rounding and for how the axes are kept."""
    if stage == "patches" and mine.ndim == 4:
        mine = mine.flatten(2).transpose(1, 2)  # a map, which the model flattens later
    if stage == "norm" and mine.ndim == 2:
        right = right[:, 0]  # the class token alone is normalised
    if mine.shape != right.shape or not mine.isfinite().all():
        return False
    tolerance = 1e-6 if mine.dtype == torch.float64 else 1e-4
    return bool((mine - right).abs().max() <= tolerance * right.abs().max() + 1e-12)


# Where it departs ---------------------------------------------------------------------------------


def locate(model, reference, images, stages):
    """The first stage that departs, and the known error that explains it."""
    mine, error = observe(model, images)
    if error is not None:  # perhaps it cannot run in double precision
        model.float()
        mine, error = observe(model, images.float())
        model.double()
    right, _ = observe(reference, images)
    visible = [stage for stage in stages if stage in mine]
    wrong = [stage for stage in visible if not agree(stage, mine[stage], right[stage])]
    if error is not None:
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        after = stages.index(visible[-1]) + 1 if visible else 0
        where = wrong[0] if wrong else stages[after]
        return report(stages, where, None, f"the model stops with {told}", visible)
    if "logits" not in mine:
        raise Unable("the model must give the logits back, as a tensor")
    fine = [i for i, stage in enumerate(visible) if stage not in wrong]
    # a model may be built in another way and agree later: what counts comes after that
    last = fine[-1] if fine else -1
    if last == len(visible) - 1:
        return report(stages, "", None, "", visible)
    first, before = visible[last + 1], visible[last] if fine else None
    where, known = explain(mine, reference, images, visible[: last + 2], wrong, stages)
    if known:
        return report(stages, where, known.name, known.sentence, visible)
    value, wanted = mine[first], right[first]
    if value.shape != wanted.shape and first != "norm":
        what = f"the shape is {tuple(value.shape)}, it must be {tuple(wanted.shape)}"
    elif not value.isfinite().all():
        what = "the result holds NaN or infinity"
    else:
        hidden = stages[stages.index(before) + 1 if before else 0 : stages.index(first)]
        names = ", ".join(stage.split(", ")[-1] for stage in hidden)
        unseen = f"; {names} cannot be seen, so look there, too" if hidden else ""
        what = f"the values are not those of the reference{unseen}"
    return report(stages, first, None, what, visible)


def explain(mine, reference, images, seen, wrong, stages):
    """Put each known error into the reference: the one that gives what was seen, and its stage."""
    before = stages.index(seen[-2]) if len(seen) > 1 else -1
    window = stages[before + 1 : stages.index(seen[-1]) + 1]
    first, depth = seen[-1], len(reference.blocks)
    numbers = sorted({block_of(stage) for stage in window} - {None})
    spans = [range(i, depth) for i in numbers]
    spans += [range(i, i + 1) for i in numbers if i + 1 < depth]
    as_seen = [stage for stage in seen if stage not in wrong or stage == first]
    fitting = []
    for error in ERRORS:
        in_block = error.part.startswith("blocks")
        for span in spans if in_block else (range(1),):
            where = f"block {span[0] + 1}, {error.stage}" if in_block else error.stage
            where = where.replace("last block", f"block {depth}")
            if in_block and where not in window:
                continue
            with planted(reference, error, span):
                other, _ = observe(reference, images, first)
            if all(at in other and agree(at, mine[at], other[at]) for at in as_seen):
                fitting.append((where, error))
                break
    # start values can make several errors look alike: then random weights must decide
    if len({error.name for _, error in fitting}) == 1 or (fitting and is_random(reference)):
        return fitting[0]
    return None, None


def is_random(reference):
    """Whether no norm has its start values any more."""
    return bool((reference.norm.weight != 1).any() and (reference.norm.bias != 0).any())


def block_of(stage):
    """The number of a stage's block, from 0, or None."""
    return int(stage.split(",")[0].split()[1]) - 1 if stage.startswith("block ") else None


@contextmanager
def planted(reference, error, blocks):
    """The reference with a method replaced: in some of its blocks, or in one place."""
    names = [error.part.replace("*", str(i)) for i in blocks]
    parts = [reference.get_submodule(name) for name in names]
    try:
        for part in parts:
            vars(part)[error.method] = partial(error.function, part)
        yield
    finally:
        for part in parts:
            del vars(part)[error.method]


def report(stages, where, mistake, sentence, visible):
    """The lines to show: one for each whole block that agrees, else one for each stage."""
    if not where and not sentence:
        lines = [f"✓ {line}" for line in together(stages)]
        lines.append(
            "every stage is the reference's, with your own weights and with random ones"
            if len(visible) > 1
            else "the logits are the reference's; no stage before them could be seen"
        )
        return Trace("", True, None, lines)
    fine = stages[: stages.index(where)]
    lines = [f"✓ {line}" for line in together(fine)]
    return Trace(where, False, mistake, [*lines, f"✗ {where}: {sentence}"])


def together(stages):
    """Stages, but all those of one block in one line where the whole block is there."""
    lines = []
    for stage in stages:
        lines.append(stage)
        block = stage.split(", ")[0]
        if stage.endswith(BLOCK[-1]) and stage != block:
            while lines and lines[-1].startswith(block + ", "):
                lines.pop()
            lines.append(f"{block}: {', '.join(BLOCK)}")
    return lines
