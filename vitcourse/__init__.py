"""Build, train and understand Vision Transformers: the reference code of the course."""

import sys
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Config", "ViT", "make_vit"]

if TYPE_CHECKING:
    from vitcourse.config import Config
    from vitcourse.vit import ViT, make_vit


def __getattr__(name):
    # Loaded at first use, so that `vitcourse doctor` can still report a torch that does not load.
    if name in __all__:
        from vitcourse import vit

        return getattr(vit, name)
    raise AttributeError(f"module 'vitcourse' has no attribute {name!r}")


if "ipykernel" in sys.modules:  # a notebook: is its Python the one that has the course?
    from vitcourse.lab import doctor

    doctor.warn()
