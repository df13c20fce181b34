"""Load weights into a model, from whichever library or file they come, and save them.

`load` reads a state dict or a file, finds out whose names it uses, renames, fits positions and head
to the model, checks every tensor, and only then changes the model.
"""

import json
import math
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors

from vitcourse.files import write_whole

# Whose names are these? -------------------------------------------------------------------------
# A layout is (a name that only this library uses, a function from its state dict to ours).
# A paper with names of its own adds layouts to its model: `ViT.layouts = {"official": (..., ...)}`.


def rename(rules):
    """A function that applies the first rule (pattern, replacement) that matches each name."""

    def convert(state, model):
        renamed = {}
        for name, tensor in state.items():
            for pattern, replacement in rules:
                new, matches = re.subn(pattern, replacement, name)
                if matches:
                    name = new
                    break
            renamed[name] = tensor
        return renamed

    return convert


def from_timm(state, model):
    """timm: three renames, and prefix tokens in separate tensors."""
    state = dict(state)
    prefix = [state.pop(name) for name in ("cls_token", "dist_token", "reg_token") if name in state]
    if prefix:
        state["prefix"] = torch.cat(prefix, dim=1)
    rules = [
        (r"^pos_embed$", "position.table"),
        (r"^pre_logits\.fc\.", "head.pre_logits."),
        (r"\.gamma_([12])$", r".ls\1.gamma"),
    ]
    return rename(rules)(state, model)


from_torchvision = rename(
    [
        (r"^class_token$", "prefix"),
        (r"^encoder\.pos_embedding$", "position.table"),
        (r"^conv_proj\.", "patch_embed.proj."),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.", r"blocks.\1.norm\2."),
        (
            r"^encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_",
            r"blocks.\1.attn.qkv.",
        ),
        (
            r"^encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.",
            r"blocks.\1.attn.proj.",
        ),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.mlp\.(0|linear_1)\.", r"blocks.\1.mlp.fc1."),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.mlp\.(3|linear_2)\.", r"blocks.\1.mlp.fc2."),
        (r"^encoder\.ln\.", "norm."),
        (r"^heads\.pre_logits\.", "head.pre_logits."),
        (r"^heads\.head\.", "head."),
    ]
)


def from_transformers(state, model):
    """transformers: names of its release 4, which are in the files, or of its release 5."""
    block = r"^(?:encoder\.layer|layers)\.(\d+)\."
    rules = [
        (r"^embeddings\.cls_token$", "prefix"),
        (r"^embeddings\.position_embeddings$", "position.table"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (block + r"layernorm_before\.", r"blocks.\1.norm1."),
        (block + r"layernorm_after\.", r"blocks.\1.norm2."),
        (block + r"attention\.(?:attention\.)?(query|key|value)\.", r"blocks.\1.attn.\2."),
        (block + r"attention\.q_proj\.", r"blocks.\1.attn.query."),
        (block + r"attention\.k_proj\.", r"blocks.\1.attn.key."),
        (block + r"attention\.v_proj\.", r"blocks.\1.attn.value."),
        (block + r"attention\.(?:output\.dense|o_proj)\.", r"blocks.\1.attn.proj."),
        (block + r"(?:intermediate\.dense|mlp\.fc1)\.", r"blocks.\1.mlp.fc1."),
        (block + r"(?:output\.dense|mlp\.fc2)\.", r"blocks.\1.mlp.fc2."),
        (r"^layernorm\.", "norm."),
        (r"^classifier\.", "head."),
        (r"^pooler\.dense\.", "head.pre_logits."),
    ]
    state = {name.removeprefix("vit."): tensor for name, tensor in state.items()}
    return fuse_qkv(rename(rules)(state, model))


def from_google(state, model):
    """The arrays of Google's ViT and big_vision files, which multiply from the other side."""
    state = {re.sub(r"^(opt/target/|params/)", "", name): t for name, t in state.items()}
    ours = {}
    for name, tensor in state.items():
        kernel, rest = name.endswith("/kernel"), tensor
        if kernel and "MultiHeadDotProductAttention" in name:  # (D, K, d), or (K, d, D) for `out`
            heads_first = "/out/" in name
            rest = rest.flatten(0, 1) if heads_first else rest.flatten(1)
        if kernel:  # (in, out) -> (out, in), or (P, P, C, D) -> (D, C, P, P)
            rest = rest.permute(3, 2, 0, 1) if rest.ndim == 4 else rest.T
        elif name.endswith("/bias"):  # (K, d) -> (D,)
            rest = rest.flatten()
        ours[name.replace("/", ".")] = rest
    block = r"^Transformer\.encoderblock_(\d+)\."
    attention = block + r"MultiHeadDotProductAttention_[01]\."
    rules = [
        (r"^cls$", "prefix"),
        (r"^(?:Transformer\.posembed_input\.)?pos_embedding$", "position.table"),
        (r"^embedding\.kernel$", "patch_embed.proj.weight"),
        (r"^embedding\.bias$", "patch_embed.proj.bias"),
        (block + r"LayerNorm_0\.", r"blocks.\1.norm1."),
        (block + r"LayerNorm_[12]\.", r"blocks.\1.norm2."),
        (attention + r"(query|key|value)\.", r"blocks.\1.attn.\2."),
        (attention + r"out\.", r"blocks.\1.attn.proj."),
        (block + r"MlpBlock_[03]\.Dense_0\.", r"blocks.\1.mlp.fc1."),
        (block + r"MlpBlock_[03]\.Dense_1\.", r"blocks.\1.mlp.fc2."),
        (r"^Transformer\.encoder_norm\.", "norm."),
        (r"^pre_logits\.", "head.pre_logits."),
    ]
    ours = rename(rules)(ours, model)
    ours = {re.sub(r"\.(kernel|scale)$", ".weight", name): t for name, t in ours.items()}
    return fuse_qkv(ours)


def fuse_qkv(state):
    """Stack separate query, key and value layers into the one `qkv` layer."""
    fused = {
        name: t for name, t in state.items() if not re.search(r"\.attn\.(query|key|value)\.", name)
    }
    for name in state:
        if ".attn.query." in name:
            three = [name.replace("query", part) for part in ("query", "key", "value")]
            if all(part in state for part in three):
                fused[name.replace("query", "qkv")] = torch.cat([state[part] for part in three])
    return fused


LAYOUTS = {
    "vitcourse": ("prefix", rename([])),
    "timm": ("patch_embed.proj.weight", from_timm),
    "torchvision": ("conv_proj.weight", from_torchvision),
    "transformers": ("embeddings.patch_embeddings.projection.weight", from_transformers),
    "google": ("embedding/kernel", from_google),
}


HINTS = {
    "head.pre_logits.weight": " (build the model with Head=RepresentationHead)",
    "fc_norm.weight": " (its model averages before the norm, MeanHead after it)",
}


# Load -------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What `load` did: whose layout it found, how many tensors it set, and what it changed."""

    layout: str
    tensors: int = 0
    notes: list = field(default_factory=list)

    def __str__(self):
        first = f"loaded {self.tensors} tensors in the layout of {self.layout}"
        return "\n".join([first, *(f"- {note}" for note in self.notes)])


def load(model, source, resize="bicubic", grid=None):
    """Load `source`, a state dict or a file, into `model`, and say what was done: a Report.

    Files are .safetensors, .pt, .pth, .bin (tensors only) or .npz. Positions of another
    grid are resized: "bicubic", or "bilinear" as the ViT's authors did. `grid` tells the (h, w) of
    the source where that is not square. Where the classes differ, the model keeps its own head.
    Whatever else does not fit is one error that lists it, and the model stays as it was.
    """
    state = strip(read(source))
    layout, convert = recognise(state, model)
    report = Report(layout)
    state = convert(state, model)
    fit_prefix(state, model)
    fit_positions(state, model, report, resize, grid)
    fit_head(state, model, report)

    wanted = model.state_dict()
    problems = [f"missing: {name}" for name in wanted if name not in state]
    problems += [f"unknown: {name}{HINTS.get(name, '')}" for name in state if name not in wanted]
    for name in sorted(wanted.keys() & state.keys()):
        if state[name].shape != wanted[name].shape:
            has, needs = tuple(state[name].shape), tuple(wanted[name].shape)
            problems.append(f"shape: {name} is {has}, the model needs {needs}")
    if problems:
        more = [f"... and {len(problems) - 20} more"] if len(problems) > 20 else []
        what = f"these weights ({layout} layout) do not fit this {type(model).__name__}:"
        raise ValueError("\n  ".join([what, *problems[:20], *more]))
    model.load_state_dict(state)
    report.tensors += len(state)
    return report


def strip(state):
    """Unpack what training scripts wrap around a state dict, and check that it is one."""
    for wrapper in ("model_ema", "state_dict_ema", "state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"a state dict maps names to tensors, this is {type(state).__name__}")
    bare = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name!r} holds {type(tensor).__name__}, a state dict holds tensors")
        bare[re.sub(r"^(module\.|_orig_mod\.)+", "", name)] = tensor
    return bare


def recognise(state, model):
    """Whose names these are: the layout's name and its function."""
    if state.keys() == model.state_dict().keys():
        return "vitcourse", LAYOUTS["vitcourse"][1]
    own = getattr(model, "layouts", {})
    layouts = own | {name: layout for name, layout in LAYOUTS.items() if name not in own}
    for name, (mark, convert) in layouts.items():
        if any(key == mark or key.endswith(("." + mark, "/" + mark)) for key in state):
            return name, convert
    raise ValueError(
        f"no layout known here ({', '.join(layouts)}) has names like {', '.join(list(state)[:4])}"
    )


def fit_prefix(state, model):
    """A model without prefix tokens holds an empty one, which no other library has."""
    prefix = model.state_dict().get("prefix")
    if "prefix" not in state and prefix is not None and prefix.numel() == 0:
        state["prefix"] = prefix


def fit_positions(state, model, report, resize, grid):
    """Resize each position table whose source was trained on another grid."""
    from vitcourse.vit import resize_position

    for part, position in model.named_modules():
        name = f"{part}.table"
        table = state.get(name)
        if table is None or table.ndim != 3 or not hasattr(position, "grid"):
            continue
        new, prefix_len, width = position.grid, position.prefix_len, table.shape[2]
        # timm and big_vision have models whose prefix tokens get no position
        may_lack = prefix_len and report.layout in ("timm", "google")
        leads = (prefix_len, 0) if may_lack else (prefix_len,)
        lead, old = source_grid(table.shape[1], leads, new, grid)
        if lead < prefix_len:
            table = torch.cat([table.new_zeros(1, prefix_len, width), table], dim=1)
            report.notes.append("positions: none for the prefix tokens, which get zeros")
        if old != new:
            table = resize_position(table, old, new, prefix_len, resize)
            text = f"resized ({resize}) from {old[0]}x{old[1]} to {new[0]}x{new[1]} patches"
            report.notes.append(f"positions: {text}")
        state[name] = table


def source_grid(rows, leads, new, told=None):
    """What a table of `rows` positions is made of: leading rows, and the grid (h, w) of the rest.

    The grid is the one told; else the model's own (`new`), if it has as many places; else a square.
    """
    found = []
    for lead in leads:
        places = rows - lead
        side = math.isqrt(max(places, 0))
        grids = [tuple(told)] if told else [new, (side, side)]
        fits = [(lead, grid) for grid in grids if grid[0] * grid[1] == places]
        if fits == [(lead, new)] and lead == leads[0]:
            return fits[0]
        found += fits[:1]
    if len(found) != 1:
        why = "could be more than one grid" if found else "do not make a square grid"
        if not found and not told:
            why += f" behind {leads[0]} prefix tokens (the model's; has the source another head?)"
        raise ValueError(f"{rows} positions {why}: say which, with load(..., grid=(h, w))")
    return found[0]


def fit_head(state, model, report):
    """Keep the model's own head where the source has none, or one for other classes."""
    wanted = model.state_dict()
    heads = {name: t for name, t in wanted.items() if name.startswith("head.")}
    weight, own = state.get("head.weight"), wanted.get("head.weight")
    if own is None or (weight is not None and weight.shape[0] == own.shape[0]):
        return
    what = "no head" if weight is None else f"a head for {weight.shape[0]} classes"
    report.notes.append(f"head: the source has {what}, the model keeps its own for {own.shape[0]}")
    report.tensors -= len(heads)
    for name in [name for name in state if name.startswith("head.")]:
        del state[name]
    state.update(heads)


DAMAGE = (ValueError, TypeError, KeyError, EOFError, OSError, RuntimeError, MemoryError)


# Files ------------------------------------------------------------------------------------------


def read(source):
    """The state dict in a file, without running anything that the file may hold."""
    if not isinstance(source, (str, os.PathLike)):
        return source
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        if path.suffix in (".pt", ".pth", ".bin"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise ValueError(f"{path} is damaged or holds more than tensors: not loaded") from None
    except (SafetensorError, zipfile.BadZipFile, *DAMAGE) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is damaged or not what its name says: {reason}") from None
    raise ValueError(f"{path} has an unknown ending: use .safetensors, .pt, .pth, .bin or .npz")


def save(model, path, overwrite=False, **about):
    """Write the weights of `model`, and what builds it again, to a .safetensors file.

    `about` are plain values that belong to it, such as the names of the classes. The file appears
    whole or not at all. One that is there already stays, unless `overwrite`.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} should end in .safetensors")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already: choose another name, or overwrite=True")
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    about = {"model": type(model).__name__, "config": asdict(model.cfg), **about}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, safetensors.save(state, metadata={"about": json.dumps(about)}))


def restore(path):
    """The ViT that `save` wrote, in evaluation mode, and what was saved about it, a dict."""
    from vitcourse.config import Config
    from vitcourse.vit import ViT

    state = read(path)
    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {}).get("about", "{}"))
    config = about.get("config") if isinstance(about, dict) else None
    if not isinstance(config, dict) or about.get("model") != "ViT":
        raise ValueError(f"{path} does not say how its model is built: use load(model, file)")
    cfg = Config(**config)
    least = cfg.depth * cfg.dim * (4 * cfg.dim + 2 * cfg.hidden) + cfg.dim * cfg.classes
    if least > sum(tensor.numel() for tensor in state.values()):
        raise ValueError(f"{path} is damaged: it holds fewer numbers than its model has")
    model = ViT(cfg)
    load(model, state)
    return model.eval(), about


# Published weights ------------------------------------------------------------------------------

PRETRAINED = {
    "vit_b_16": "B/16",
    "vit_b_32": "B/32",
    "vit_l_16": "L/16",
    "vit_l_32": "L/32",
    "vit_h_14": "H/14",
}


def pretrained(name, tag="DEFAULT", **options):
    """A ViT with torchvision's ImageNet weights: `pretrained("vit_b_16")`. Downloads once.

    `options` are those of make_vit: with another `image` or `classes`, positions and head are
    fitted. `model.preprocess` prepares an image as this model expects it, and
    `model.class_names` are those of the weights.
    """
    from torchvision.models import get_model_weights

    from vitcourse.vit import make_vit

    if name not in PRETRAINED:
        raise ValueError(f"no weights are called {name!r}: choose from {', '.join(PRETRAINED)}")
    published = get_model_weights(name)
    if tag != "DEFAULT" and tag not in published.__members__:
        raise ValueError(
            f"{name} has no weights {tag!r}: choose from {', '.join(published.__members__)}"
        )
    entry = published[tag]
    try:
        state = entry.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise ConnectionError(
            f"could not download {entry.url}: {error}. Is there a network?"
        ) from None
    preprocess, class_names = entry.transforms(), entry.meta["categories"]
    (resize,), (crop,) = preprocess.resize_size, preprocess.crop_size
    model = make_vit(PRETRAINED[name], **{"image": crop, "classes": len(class_names), **options})
    load(model, state)
    preprocess.crop_size = list(model.cfg.image)
    preprocess.resize_size = [max(model.cfg.image) * resize // crop]
    model.preprocess, model.class_names = preprocess, class_names
    return model.eval()
