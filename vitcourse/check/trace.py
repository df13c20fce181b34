"""Walk through a whole ViT and name the first stage that departs from the reference.

`check.trace(model, images)` runs a learner's ViT and the package's, with the same weights, and
compares what their submodules give, from the patches to the logits. Heads, scores and weights are
seen by no hook. So where something departs, each known error is put into the reference, until one
gives what the learner's model gives.
"""

import copy
from collections import namedtuple
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

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


# Errors that people make, as methods of the package's parts --------------------------------------

Error = namedtuple("Error", "name stage part method function sentence")


def over_keys(scores):
    """The right weights."""
    return scores.softmax(-1)


def attend_by(scores_of, weights_of=over_keys, values="v"):
    """A method `attend` with other scores, other weights, or something else to add up."""

    def attend(self, q, k, v, bias=None):
        weights = weights_of(scores_of(self, q, k))
        return weights @ {"q": q, "k": k, "v": v}[values]

    return attend


def scores(self, q, k, scale=None):
    """The scores, with another scale."""
    return q @ k.transpose(-2, -1) * (self.scale if scale is None else scale)


def one_map(scores):
    """A softmax over a whole map."""
    return scores.flatten(-2).softmax(-1).view(scores.shape)


def hard(scores):
    """All weight for the best key."""
    return F.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores)


def attention_error(name, stage, sentence, *arguments, **options):
    """An error in `attend`."""
    function = attend_by(*arguments, **options)
    return Error(name, stage, "blocks.*.attn", "attend", function, sentence)


def project_by(split, order):
    """A method `project` that cuts qkv in another way."""

    def project(self, x, grid=None):
        qkv = self.qkv(x)
        K, d = self.heads, qkv.shape[-1] // 3 // self.heads
        parts = split(qkv, K, d)  # three of (B, K, T, d)
        return tuple(parts[i] for i in order)

    return project


def rightly(qkv, K, d):
    """(3, K, d)."""
    return qkv.unflatten(-1, (3, K, d)).permute(2, 0, 3, 1, 4)


def width_first(qkv, K, d):
    """(3, d, K)."""
    return qkv.unflatten(-1, (3, d, K)).permute(2, 0, 4, 1, 3)


def heads_first(qkv, K, d):
    """(K, 3, d)."""
    return qkv.unflatten(-1, (K, 3, d)).permute(3, 0, 2, 1, 4)


def last_of_three(qkv, K, d):
    """(K, d, 3)."""
    return qkv.unflatten(-1, (K, d, 3)).permute(4, 0, 2, 1, 3)


def by_view(qkv, K, d):
    """Tokens and heads exchanged by a reshape alone."""
    B, T, _ = qkv.shape
    return [part.reshape(B, K, T, d) for part in qkv.chunk(3, dim=-1)]


def project_error(name, sentence, split=rightly, order=(0, 1, 2)):
    """An error in `project`."""
    function = project_by(split, order)
    return Error(name, "heads", "blocks.*.attn", "project", function, sentence)


def merge_by(merge, last=True):
    """A method `forward` of attention that puts the heads together in another way."""

    def forward(self, x, grid=None):
        x = merge(self.attend(*self.project(x, grid), None))
        return self.proj(x) if last else x

    return forward


def merge_error(name, stage, sentence, merge, last=True):
    """An error behind `attend`."""
    return Error(name, stage, "blocks.*.attn", "forward", merge_by(merge, last), sentence)


def reshaped(x):
    """Heads joined by a reshape alone."""
    B, K, T, d = x.shape
    return x.reshape(B, T, K * d)


def heads_by(number):
    """A method `forward` of attention with another number of heads."""

    def forward(self, x, grid=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, number, -1)).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))

    return forward


def block_error(name, stage, sentence, function):
    """An error in the order of a block: `function(block, x)`."""

    def forward(self, x, grid=None):
        return function(self, x)

    return Error(name, stage, "blocks.*", "forward", forward, sentence)


def norm_after(b, x):
    """Post-norm."""
    x = b.norm1(x + b.attn(x))
    return b.norm2(x + b.mlp(x))


def norm_after_branch(b, x):
    """What a branch gives is normalised."""
    x = x + b.norm1(b.attn(x))
    return x + b.norm2(b.mlp(x))


def first_norm_twice(b, x):
    """norm1 before both branches."""
    x = x + b.attn(b.norm1(x))
    return x + b.mlp(b.norm1(x))


def norms_exchanged(b, x):
    """norm2 first."""
    x = x + b.attn(b.norm2(x))
    return x + b.mlp(b.norm1(x))


def no_norms(b, x):
    """Bare tokens."""
    x = x + b.attn(x)
    return x + b.mlp(x)


def no_first_norm(b, x):
    """Bare tokens for the attention."""
    x = x + b.attn(x)
    return x + b.mlp(b.norm2(x))


def no_second_norm(b, x):
    """Bare tokens for the MLP."""
    x = x + b.attn(b.norm1(x))
    return x + b.mlp(x)


def no_first_residual(b, x):
    """The attention alone."""
    x = b.attn(b.norm1(x))
    return x + b.mlp(b.norm2(x))


def no_second_residual(b, x):
    """The MLP alone."""
    x = x + b.attn(b.norm1(x))
    return b.mlp(b.norm2(x))


def normalised_residual(b, x):
    """Normalised tokens go around."""
    x = b.norm1(x)
    x = x + b.attn(x)
    x = b.norm2(x)
    return x + b.mlp(x)


def parallel(b, x):
    """Both branches read the same tokens."""
    return x + b.attn(b.norm1(x)) + b.mlp(b.norm2(x))


def mlp_first(b, x):
    """The other order."""
    x = x + b.mlp(b.norm2(x))
    return x + b.attn(b.norm1(x))


def no_mlp(b, x):
    """The attention only."""
    return x + b.attn(b.norm1(x))


def mlp_error(name, sentence, activation, last=None, stage="hidden"):
    """An error in the MLP."""

    def forward(self, x, grid=None):
        return (last or same)(self.fc2(activation(self.fc1(x))))

    return Error(name, stage, "blocks.*.mlp", "forward", forward, sentence)


def norm_by(eps=1e-6, unbiased=False):
    """A method `forward` of a layer norm, with another eps or variance."""

    def forward(self, x):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=unbiased)
        return (x - mean) / (variance + eps).sqrt() * self.weight + self.bias

    return forward


def norm_errors(name, sentence, function):
    """The same error in every norm."""
    parts = {"norm 1": "blocks.*.norm1", "norm 2": "blocks.*.norm2", "norm": "norm"}
    return [
        Error(name, stage, part, "forward", function, sentence) for stage, part in parts.items()
    ]


def same(x):
    """Nothing done."""
    return x


def whole_error(
    name, stage, sentence, begin=None, order=None, end=None, norm=None, read=None, apart=False
):
    """An error in how the parts of a whole ViT follow each other."""

    def forward(self, images):
        x, grid = self.patch_embed(images)
        x = (begin or in_order)(self, x, grid)
        begun = x
        for block in (order or list)(self.blocks):
            x = block(begun if apart else x, grid)
        x = (norm or self.norm)(x)
        token = (read or first_token)(x)
        return (end or same)(F.linear(token, self.head.weight, self.head.bias))

    return Error(name, stage, "", "forward", forward, sentence)


def first_token(x):
    """What the head reads."""
    return x[:, 0]


def in_order(m, x, grid):
    """Class token, patches, positions."""
    return m.position(torch.cat([m.prefix.expand(len(x), -1, -1), x], dim=1), grid)


def class_behind(m, x, grid):
    """Patches, class token, positions."""
    return m.position(torch.cat([x, m.prefix.expand(len(x), -1, -1)], dim=1), grid)


def columns_later(m, x, grid):
    """Patches put in another order after the embedding."""
    return in_order(m, x.unflatten(1, grid).transpose(1, 2).flatten(1, 2), grid)


def no_positions(m, x, grid):
    """Class token and patches."""
    return torch.cat([m.prefix.expand(len(x), -1, -1), x], dim=1)


def patch_positions(m, x, grid, first=1):
    """Positions added before the class token comes."""
    table = m.position.table[:, first : first + x.shape[1]]
    return torch.cat([m.prefix.expand(len(x), -1, -1), x + table], dim=1)


def positions_twice(m, x, grid):
    """Positions added again."""
    return m.position(in_order(m, x, grid), grid)


def normed_first(m, x, grid):
    """The final norm at the beginning."""
    return m.norm(in_order(m, x, grid))


def without_prefix(m, x, grid):
    """Zeros for the class token."""
    zeros = torch.zeros_like(m.prefix).expand(len(x), -1, -1)
    return m.position(torch.cat([zeros, x], dim=1), grid)


def by_columns(self, images):
    """The patches column by column."""
    grid = grid_of(images.shape[-2:], self.patch)
    return self.proj(images).transpose(2, 3).flatten(2).transpose(1, 2), grid


def reshaped_patches(self, images):
    """A reshape where the width and the patches must be exchanged."""
    grid, x = grid_of(images.shape[-2:], self.patch), self.proj(images)
    return x.reshape(len(x), grid[0] * grid[1], -1), grid


ORDER = "the thirds of qkv are taken in another order: first the queries, then keys, then values"
ERRORS = [
    Error(
        "patches column by column",
        "patches",
        "patch_embed",
        "forward",
        by_columns,
        "the patches come column by column: they go row by row",
    ),
    Error(
        "patches reshaped",
        "patches",
        "patch_embed",
        "forward",
        reshaped_patches,
        "a reshape mixes the numbers of different patches: flatten(2), then transpose(1, 2)",
    ),
    whole_error(
        "patches column by column",
        "+ class",
        "the patches come column by column: they go row by row",
        columns_later,
    ),
    whole_error(
        "class token behind",
        "+ class",
        "the class token stands behind the patches: it comes first",
        class_behind,
    ),
    whole_error(
        "class token behind, and read there",
        "+ class",
        "the class token stands behind the patches: it comes first",
        class_behind,
        read=lambda x: x[:, -1],
    ),
    whole_error(
        "no class token",
        "+ class",
        "the class token is all zeros: expand the parameter prefix over the batch",
        without_prefix,
    ),
    whole_error(
        "no positions",
        "+ position",
        "no positions are added: without them the patches are a set",
        no_positions,
    ),
    whole_error(
        "positions only for patches",
        "+ position",
        "the class token gets no position: concatenate first, then add the whole table",
        patch_positions,
    ),
    whole_error(
        "positions shifted",
        "+ position",
        "the patches get rows of the table from 0 on: row 0 belongs to the class token",
        partial(patch_positions, first=0),
    ),
    whole_error(
        "positions twice",
        "+ position",
        "the positions are added twice",
        positions_twice,
    ),
    whole_error(
        "norm before the blocks",
        "block 1, norm 1",
        "the final norm stands before the blocks: it belongs behind the last one",
        normed_first,
        norm=same,
    ),
    *norm_errors(
        "eps of 1e-5",
        "the eps of the norm is 1e-5, torch's default: here it is 1e-6",
        norm_by(eps=1e-5),
    ),
    *norm_errors(
        "unbiased variance",
        "the variance of the norm is divided by D - 1: divide by D",
        norm_by(unbiased=True),
    ),
    attention_error(
        "no scale",
        "scores",
        "the scores are not divided by sqrt(d)",
        partial(scores, scale=1.0),
    ),
    attention_error(
        "divided by d",
        "scores",
        "the scores are divided by d: it must be its root",
        lambda self, q, k: scores(self, q, k, 1 / q.shape[-1]),
    ),
    attention_error(
        "scale by the whole width",
        "scores",
        "the scores are divided by the root of the whole width: a head's own width d counts",
        lambda self, q, k: scores(self, q, k, (q.shape[-1] * self.heads) ** -0.5),
    ),
    attention_error(
        "multiplied by the root",
        "scores",
        "the scores are multiplied by sqrt(d): divide by it",
        lambda self, q, k: scores(self, q, k, q.shape[-1] ** 0.5),
    ),
    attention_error(
        "scaled by the tokens",
        "scores",
        "the scores are divided by the root of the number of tokens: the head's width d counts",
        lambda self, q, k: scores(self, q, k, q.shape[-2] ** -0.5),
    ),
    attention_error(
        "queries and keys exchanged",
        "scores",
        "queries and keys are exchanged: a row of the scores belongs to a query",
        lambda self, q, k: scores(self, k, q),
    ),
    attention_error(
        "softmax over the queries",
        "weights",
        "the softmax goes over the queries: it goes over the keys, dim=-1",
        scores,
        partial(torch.softmax, dim=-2),
    ),
    attention_error(
        "softmax over the heads",
        "weights",
        "the softmax goes over the heads: it goes over the keys, dim=-1",
        scores,
        partial(torch.softmax, dim=1),
    ),
    attention_error(
        "softmax over the batch",
        "weights",
        "the softmax goes over the batch: it goes over the keys, dim=-1",
        scores,
        partial(torch.softmax, dim=0),
    ),
    attention_error(
        "softmax over the whole map",
        "weights",
        "the softmax goes over a whole map: every row must sum to one",
        scores,
        one_map,
    ),
    attention_error("no softmax", "weights", "the softmax is missing", scores, same),
    attention_error(
        "sigmoid",
        "weights",
        "a sigmoid stands where the scores of a query must compete, with softmax",
        scores,
        torch.sigmoid,
    ),
    attention_error("hard", "weights", "only the best key counts: use softmax", scores, hard),
    attention_error(
        "queries for values",
        "values",
        "the weights add up the queries: they belong on the values",
        scores,
        values="q",
    ),
    attention_error(
        "keys for values",
        "values",
        "the weights add up the keys: they belong on the values",
        scores,
        values="k",
    ),
    project_error(
        "heads cut in the wrong order",
        "the heads are cut in the wrong order: the width is (K, d), not (d, K)",
        width_first,
    ),
    project_error(
        "heads before q, k, v",
        "each head has its q, k and v side by side: here the split is (3, K, d)",
        heads_first,
    ),
    project_error(
        "q, k, v interleaved",
        "every third number goes to the queries: the first D are the queries",
        last_of_three,
    ),
    project_error(
        "heads cut by a reshape",
        "the heads are cut by a reshape alone: split the width, then transpose",
        by_view,
    ),
    *(
        project_error("q, k, v in another order", ORDER, order=order)
        for order in ((0, 2, 1), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    ),
    *(
        Error(
            "another number of heads",
            "heads",
            "blocks.*.attn",
            "forward",
            heads_by(number),
            f"the width is cut into {number} heads, which is not the number that was given",
        )
        for number in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
    ),
    merge_error(
        "heads merged without a transpose",
        "merge",
        "the heads are joined by a reshape alone: exchange heads and tokens first",
        reshaped,
    ),
    merge_error(
        "heads merged in the wrong order",
        "merge",
        "the numbers of the heads alternate: each head's d numbers stay together",
        lambda x: x.permute(0, 2, 3, 1).flatten(2),
    ),
    merge_error(
        "no projection",
        "projection",
        "proj is missing: without it the heads are never mixed",
        lambda x: x.transpose(1, 2).flatten(2),
        last=False,
    ),
    block_error(
        "norm after instead of before",
        "norm 1",
        "the norm comes after adding: it belongs before each branch",
        norm_after,
    ),
    block_error(
        "norm after the branch",
        "norm 1",
        "the norm stands behind the branch: it belongs before",
        norm_after_branch,
    ),
    block_error(
        "norms exchanged",
        "norm 1",
        "the two norms are exchanged: norm1 belongs to the attention",
        norms_exchanged,
    ),
    block_error("no norms", "norm 1", "both norms are missing", no_norms),
    block_error("no first norm", "norm 1", "norm1 is missing before the attention", no_first_norm),
    block_error(
        "MLP before attention",
        "norm 1",
        "the MLP comes first: the attention does",
        mlp_first,
    ),
    block_error(
        "no first residual",
        "+ attention",
        "the attention replaces the tokens: add its result to x",
        no_first_residual,
    ),
    block_error(
        "residual of the normalised",
        "+ attention",
        "the normalised tokens go around the branches: keep x as it was",
        normalised_residual,
    ),
    block_error(
        "in parallel",
        "+ attention",
        "the MLP reads the tokens from before the attention",
        parallel,
    ),
    block_error(
        "the first norm used twice",
        "norm 2",
        "norm1 stands before the MLP, too: that is norm2's place",
        first_norm_twice,
    ),
    block_error("no second norm", "norm 2", "norm2 is missing before the MLP", no_second_norm),
    mlp_error("no activation", "there is no GELU between fc1 and fc2", same),
    mlp_error("relu", "this is ReLU: use GELU", F.relu),
    mlp_error("silu", "this is SiLU: use GELU", F.silu),
    mlp_error(
        "tanh in place of erf in GELU",
        "GELU is approximated with tanh: use the exact one",
        partial(F.gelu, approximate="tanh"),
    ),
    mlp_error(
        "quick GELU",
        "GELU is approximated with a sigmoid: use the exact one",
        lambda x: x * torch.sigmoid(1.702 * x),
    ),
    mlp_error(
        "activation at the end",
        "a GELU stands behind fc2, too",
        F.gelu,
        F.gelu,
        stage="MLP",
    ),
    block_error("no MLP", "+ MLP", "the MLP is missing, or its result is not added", no_mlp),
    block_error(
        "no second residual",
        "+ MLP",
        "the MLP replaces the tokens: add its result to x",
        no_second_residual,
    ),
    whole_error(
        "no final norm",
        "norm",
        "the final norm is missing between the last block and the head",
        norm=same,
    ),
    whole_error(
        "last block left out",
        "last block, norm 1",
        "the last block does not run",
        order=lambda blocks: blocks[:-1],
    ),
    whole_error(
        "first block left out",
        "block 1, norm 1",
        "the first block does not run",
        order=lambda blocks: blocks[1:],
    ),
    whole_error(
        "blocks side by side",
        "block 2, norm 1",
        "every block reads the same tokens: hand on the result, x = block(x)",
        apart=True,
    ),
    whole_error(
        "blocks in reverse",
        "block 1, norm 1",
        "the blocks run from the last to the first",
        order=lambda blocks: list(blocks)[::-1],
    ),
    whole_error(
        "mean of all",
        "logits",
        "the head reads the mean of all tokens: it reads x[:, 0]",
        read=lambda x: x.mean(1),
    ),
    whole_error(
        "mean of patches",
        "logits",
        "the head reads the mean of the patches: it reads x[:, 0]",
        read=lambda x: x[:, 1:].mean(1),
    ),
    whole_error(
        "last token",
        "logits",
        "the head reads the last patch: it reads x[:, 0]",
        read=lambda x: x[:, -1],
    ),
    whole_error(
        "first patch",
        "logits",
        "the head reads the first patch: it reads x[:, 0]",
        read=lambda x: x[:, 1],
    ),
    whole_error(
        "softmax at the end",
        "logits",
        "a softmax follows the head: logits are the bare numbers",
        end=partial(torch.softmax, dim=-1),
    ),
]
