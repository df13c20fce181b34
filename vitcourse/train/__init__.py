"""Train a model: `fit(model, data, recipe)`; the loop is in loop.py, the recipes in recipe.py."""

from vitcourse.train.distributed import is_first, leave
from vitcourse.train.loop import Run, Stopped, classify, evaluate, fit
from vitcourse.train.recipe import HOW, RECIPES, Recipe, build_model, decay_groups

__all__ = [
    "HOW",
    "RECIPES",
    "Recipe",
    "Run",
    "Stopped",
    "build_model",
    "classify",
    "decay_groups",
    "evaluate",
    "fit",
    "is_first",
    "leave",
]
