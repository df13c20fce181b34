"""The systems that came after the ViT: one file each, read as its difference from the core.

    papers.names()                 every published configuration
    papers.build("deepvit_16")     one of them, with new weights
    papers.delta(DeepViT)          the slots of the ViT that a class replaces
    papers.diff(DeepViT)           the same as text: the lines that differ
    papers.table()                 all systems side by side, computed

A file says in its first line whether it is faithful to the published model or minimal, holds the
parts that are new, and ends with PAPER, what is known of it, and its published configurations.
"""

import difflib
import importlib
import pkgutil
from dataclasses import dataclass, field, fields, replace


@dataclass(frozen=True)
class Published:
    """A published configuration: the class, its sizes, and the parameters that its authors report.

    `sizes` is a frozen dataclass such as Config.
    """

    model: type
    sizes: object
    reported: str = ""


@dataclass(frozen=True)
class Paper:
    """What is known of a system: its paper, the lesson that it belongs to, its configurations.

    `models` are the classes whose difference from the core is shown. `url` is for a paper that has
    no number at arXiv.
    """

    name: str
    title: str
    authors: str
    year: int
    arxiv: str
    lesson: str
    models: tuple = ()
    configs: dict = field(default_factory=dict)
    url: str = ""

    @property
    def link(self):
        """Where the paper can be read."""
        return self.url or f"https://arxiv.org/abs/{self.arxiv}"


NOT_PAPERS = {"compare"}


def papers():
    """Every paper, {name of its file: Paper}, in the order of the lessons and of time."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    found = {
        n: importlib.import_module(f"{__name__}.{n}").PAPER for n in names if n not in NOT_PAPERS
    }
    return dict(sorted(found.items(), key=lambda i: (i[1].lesson, i[1].year, i[1].arxiv)))


def configs():
    """Every published configuration, {name: Published}."""
    return {name: config for paper in papers().values() for name, config in paper.configs.items()}


def names():
    """The names of the configurations that `build` knows."""
    return list(configs())


def build(name, **overrides):
    """A published configuration with new weights: `build("deepvit_16", image=32, classes=10)`.

    `overrides` are fields of its sizes; the others are as the authors have them.
    """
    known = configs()
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=3) or list(known)
        raise ValueError(f"no model is called {name!r}: choose from {', '.join(near)}")
    sizes = known[name].sizes
    options = [option.name for option in fields(sizes)]
    for option in overrides:
        if option not in options:
            raise TypeError(f"{option!r} is not an option: choose from {', '.join(options)}")
    return known[name].model(replace(sizes, **overrides))


def __getattr__(name):
    """The functions that compare are loaded when they are asked for: compare.py imports this."""
    if name in ("delta", "diff", "table", "reported"):
        return getattr(importlib.import_module(f"{__name__}.compare"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
