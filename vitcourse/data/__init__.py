"""Data sets as tensors: `load("digits")`, `load("shapes")`, `load("cifar10")`, `load("my/folder")`.

Each has a training and a test part, names of classes and statistics: see `Data` in base.py.
"""

from pathlib import Path

from vitcourse.data.base import Data
from vitcourse.data.models import trained

__all__ = ["Data", "load", "trained"]

NAMES = ("digits", "shapes", "cifar10")


def load(name, **options):
    """The data set called `name`, or the pictures in the folder with that path: a Data.

    `options` are those of the function of that name: `load("shapes", task="relation")`. A folder
    whose path is also the name of a data set is reached by "./digits".
    """
    if name == "digits":
        from vitcourse.data.digits import digits as make
    elif name == "shapes":
        from vitcourse.data.shapes import shapes as make
    elif name == "cifar10":
        from vitcourse.data.cifar10 import cifar10 as make
    elif Path(name).is_dir():
        from vitcourse.data.folder import folder

        return folder(name, **options)
    else:
        raise ValueError(
            f"there is no data set and no folder {str(name)!r}: choose {', '.join(NAMES)}, or give "
            f"the path of a folder that holds one folder of pictures for each class"
        )
    return make(**options)
