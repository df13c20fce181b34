"""The exercises of all lessons, EXERCISES by name; and QUESTIONS to guess at."""

from vitcourse.check.lessons import (
    lesson00,
    lesson01,
    lesson02,
    lesson03,
    lesson04,
    lesson05,
    lesson06,
)

MODULES = (lesson00, lesson01, lesson02, lesson03, lesson04, lesson05, lesson06)
EXERCISES = {exercise.name: exercise for module in MODULES for exercise in module.EXERCISES}
QUESTIONS = {}
for module in MODULES:
    QUESTIONS |= getattr(module, "QUESTIONS", {})
