"""The exercises of all lessons, EXERCISES by name; and QUESTIONS to guess at."""

import importlib
import pkgutil

NAMES = sorted(module.name for module in pkgutil.iter_modules(__path__))
MODULES = tuple(importlib.import_module(f"{__name__}.{name}") for name in NAMES)
EXERCISES = {exercise.name: exercise for module in MODULES for exercise in module.EXERCISES}
QUESTIONS = {}
for module in MODULES:
    QUESTIONS |= getattr(module, "QUESTIONS", {})
