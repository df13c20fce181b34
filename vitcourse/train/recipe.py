"""What decides a training run, apart from the model's code and the data."""

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace

import torch
from torch import nn

from vitcourse.data.augment import Augment
from vitcourse.vit import ViT, make_vit, truncated_normal_


@dataclass(frozen=True)
class Recipe:
    """A training run on one page. Every field can be set on the command line: `--set lr=3e-4`."""

    model: str = "Nano/4"
    epochs: int = 20
    batch: int = 128  # images a step, over all processes
    lr: float = 1e-3  # the highest learning rate
    warmup: float = 0.1  # the part of all steps in which it rises from zero; then a cosine
    weight_decay: float = 0.05
    beta2: float = 0.999  # how long AdamW remembers the size of gradients
    clip: float = 1.0  # the longest gradient; 0 for no limit
    smoothing: float = 0.0  # the part of a label that is spread over all classes
    drop_path: float = 0.0
    position_std: float = 0.02  # how far apart the positions begin
    gain: float = (
        0.0  # the blocks' layers begin at gain / sqrt(inputs); 0 for 0.02, made for large D
    )
    ema: float = 0.0  # the model that counts is an average of past ones; 0 for the last one
    accumulate: int = 1  # in how many pieces a batch is computed, to save memory
    precision: str = "auto"  # float32, bf16 or fp16; auto takes the fastest that the device has
    compile: bool = False
    seed: int = 0
    evaluate_every: int = 1  # epochs
    checkpoint_every: int = 1  # epochs
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self):
        if isinstance(self.augment, dict):
            object.__setattr__(self, "augment", Augment(**self.augment))
        for name in ("epochs", "batch", "accumulate", "evaluate_every", "checkpoint_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}: it must be a whole number above 0")
        for name in ("lr", "weight_decay", "clip", "gain"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be 0 or more")
        for name in ("warmup", "smoothing", "drop_path", "ema", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: it must be at least 0 and below 1"
                )
        if not 0 < self.position_std < math.inf:
            raise ValueError(f"position_std is {self.position_std!r}: it must be above 0")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}: it must be below 2**63")
        if self.precision not in ("auto", "float32", "bf16", "fp16"):
            raise ValueError(f"precision is {self.precision!r}: choose auto, float32, bf16 or fp16")
        if self.batch % self.accumulate:
            raise ValueError(
                f"a batch of {self.batch} does not divide into {self.accumulate} pieces"
            )

    def but(self, **changes):
        """The same recipe with other values: `recipe.but(lr=3e-4)`."""
        return replace(self, **changes)

    def with_settings(self, settings):
        """The same recipe with settings from the command line, such as "augment.flip=true"."""
        changes, augment = {}, {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            owner, key = (self.augment, name[8:]) if name.startswith("augment.") else (self, name)
            known = {f.name: f.type for f in fields(owner) if f.name != "augment"}
            if not equals or key not in known:
                inner = [f"augment.{f.name}" for f in fields(self.augment)]
                names = ", ".join([f.name for f in fields(self) if f.name != "augment"] + inner)
                raise ValueError(
                    f"{setting!r} is no setting: write NAME=VALUE, with one of {names}"
                )
            value = parse(name, text, known[key])
            (augment if owner is self.augment else changes)[key] = value
        return replace(self, augment=replace(self.augment, **augment), **changes)

    def to_json(self):
        """The recipe as text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text):
        """The recipe that `to_json` wrote."""
        return cls(**json.loads(text))


def parse(name, text, kind):
    """The value that `text` means, of the type `kind`."""
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name} is {text!r}: write true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} is {text!r}: it must be {what}") from None


def learning_rate(recipe, step, steps):
    """The learning rate of a step: up a straight line, then down a cosine to zero."""
    warm = recipe.warmup * steps
    if step < warm:
        return recipe.lr * (step + 1) / (warm + 1)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def decay_groups(model, weight_decay):
    """Split the parameters for the optimizer: only matrices decay.

    Prefix tokens and position tables have two axes or more, too, but nothing is multiplied with
    them: drawn towards zero, they would lose what they say. They are known by their names: one
    part of it begins with `prefix` or `position`.
    """
    decay, keep = [], []
    for name, parameter in model.named_parameters():
        special = any(part.startswith(("prefix", "position")) for part in name.split("."))
        (keep if special or parameter.ndim < 2 else decay).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": keep, "weight_decay": 0.0}]


def build_model(recipe, data, model=ViT, **sizes):
    """A new ViT, or a variant, for the images and classes of `data`; its seed is set.

    It has the recipe's size but for `sizes`, which are fields of Config.
    """
    torch.manual_seed(recipe.seed)
    options = dict(image=data.image, channels=data.channels, classes=len(data.classes))
    options |= dict(drop_path=recipe.drop_path, **sizes)
    model = make_vit(recipe.model, model, **options)
    for table in model.position.parameters():
        truncated_normal_(table, std=recipe.position_std)
    for layer in model.blocks.modules():
        if recipe.gain and isinstance(layer, nn.Linear):
            truncated_normal_(layer.weight, std=recipe.gain * layer.in_features**-0.5)
    return model


HOW = ("accumulate", "compile", "precision", "checkpoint_every")  # change no result but rounding

SMALL = Augment(rotate=8, scale=0.08, shear=8, translate=0.05)
PHOTO = Augment(shift=4, flip=True, cutmix=1.0)

RECIPES = {
    "smoke": Recipe(
        epochs=50,
        lr=4e-3,
        warmup=0.2,
        position_std=0.5,
        gain=0.5,
        augment=SMALL,
    ),
    "digits": Recipe(
        model="Pico/4",
        epochs=75,
        batch=64,
        lr=2e-3,
        warmup=0.2,
        smoothing=0.1,
        position_std=0.5,
        gain=0.5,
        augment=Augment(rotate=12, scale=0.12, shear=12, translate=0.08, elastic=0.5, bicubic=True),
    ),
    "shapes": Recipe(epochs=30, lr=3e-3, augment=Augment(shift=2, flip=True)),
    "cifar10": Recipe(
        model="Mini/4", epochs=200, batch=1024, lr=2e-3, smoothing=0.1, ema=0.999, augment=PHOTO
    ),
    "folder": Recipe(model="Micro/4", epochs=50, smoothing=0.1, augment=PHOTO),
    "cifar10-fast": Recipe(
        model="Mini/4", epochs=50, batch=1024, lr=2e-3, smoothing=0.1, ema=0.99, augment=PHOTO
    ),
}
