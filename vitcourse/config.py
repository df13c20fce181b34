"""The sizes a ViT is built from, under the names the papers use, and what is refused."""

import math
from dataclasses import dataclass, fields

SIZES = {  # the first four are the course's own, for small pictures
    "Pico": dict(dim=128, depth=2, heads=4),
    "Nano": dict(dim=48, depth=4, heads=3),
    "Micro": dict(dim=96, depth=6, heads=3),
    "Mini": dict(dim=192, depth=6, heads=3),
    "Ti": dict(dim=192, depth=12, heads=3),
    "S": dict(dim=384, depth=12, heads=6),
    "B": dict(dim=768, depth=12, heads=12),
    "L": dict(dim=1024, depth=24, heads=16),
    "H": dict(dim=1280, depth=32, heads=16),
}


@dataclass(frozen=True)
class Config:
    """The sizes of a model. `image` is one side or (height, width)."""

    dim: int
    depth: int
    heads: int
    patch: int = 16
    image: int | tuple[int, int] = 224
    channels: int = 3
    classes: int = 1000
    mlp_ratio: float = 4.0
    drop: float = 0.0
    attn_drop: float = 0.0
    drop_path: float = 0.0

    @classmethod
    def of(cls, size, **options):
        """The sizes of a paper's label: `Config.of("S/16")`, `Config.of("Ti/4", image=32)`."""
        name, _, patch = str(size).partition("/")
        if name not in SIZES or not patch.isdecimal():
            raise ValueError(
                f"{size!r} is not a size: write one of {', '.join(SIZES)}, then a slash and "
                f'the patch size, for example "S/16"'
            )
        known = [field.name for field in fields(cls)]
        for option in options:
            if option not in known:
                raise TypeError(f"{option!r} is not an option: choose from {', '.join(known)}")
        return cls(**{**SIZES[name], "patch": int(patch), **options})

    def __post_init__(self):
        for name in ("dim", "depth", "heads", "patch", "channels", "classes"):
            require_count(name, getattr(self, name))
        image = (self.image, self.image) if isinstance(self.image, int) else self.image
        if not isinstance(image, (tuple, list)) or len(image) != 2:
            raise ValueError(f"image is {self.image!r}: give one side, or (height, width)")
        for side in image:
            require_count("image", side)
        object.__setattr__(self, "image", tuple(image))
        for name in ("drop", "attn_drop", "drop_path"):
            rate = getattr(self, name)
            if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
                raise ValueError(f"{name} is {rate!r}: a rate is at least 0 and below 1")
        if (
            not isinstance(self.mlp_ratio, (int, float))
            or not 1 <= self.dim * self.mlp_ratio < math.inf
        ):
            raise ValueError(f"mlp_ratio is {self.mlp_ratio!r}: the MLP needs a width of 1 or more")
        head_width(self.dim, self.heads)
        grid_of(self.image, self.patch)

    @property
    def grid(self):
        """The grid of patches (h, w) that an image of the built size is cut into."""
        return grid_of(self.image, self.patch)

    @property
    def hidden(self):
        """The hidden width M of the MLP."""
        return int(self.dim * self.mlp_ratio)


def grid_of(image, patch):
    """The grid of patches (h, w) that an image (height, width) is cut into."""
    height, width = image
    if height % patch or width % patch:
        fit = max(height // patch, 1) * patch, max(width // patch, 1) * patch
        raise ValueError(
            f"an image of {height}x{width} pixels does not divide into patches of {patch}x{patch}: "
            f"resize or crop it, for example to {fit[0]}x{fit[1]}"
        )
    return height // patch, width // patch


def head_width(dim, heads):
    """The width d = D/K of one attention head."""
    if dim % heads:
        raise ValueError(f"dim={dim} does not divide into {heads} heads: choose a multiple")
    return dim // heads


def require_count(name, value):
    """Refuse whatever is not a whole number above zero."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}: it must be a whole number above 0")
