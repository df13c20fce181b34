"""The checks from lesson 07 on: right answers pass, every mistake is named, no mutant survives."""

import importlib
import textwrap

import pytest
import torch
from nbformat.v4 import new_notebook

from tests.lessons import exercises
from tests.wrong import SPOILED, compiled, mutants, spoil
from vitcourse.check import lessons
from vitcourse.check.runner import build_module, equal, judge
from vitcourse.lab import notebooks

MODULES = [m for m in lessons.MODULES if m.__name__[-2:] >= "07"]
NUMBERS = [m.__name__[-2:] for m in MODULES]
KNOWN = {n: importlib.import_module(f"tests.answers.lesson{n}") for n in NUMBERS}
EXERCISES = {e.name: e for module in MODULES for e in module.EXERCISES}
RIGHT = {name: right for known in KNOWN.values() for name, right in known.RIGHT.items()}
SOURCES = {name: text for known in KNOWN.values() for name, text in known.SOURCES.items()}
EQUIVALENT = {key: why for known in KNOWN.values() for key, why in known.EQUIVALENT.items()}
CODE = [name for name, e in EXERCISES.items() if e.kind in ("function", "module")]
MISTAKES = [(name, m.name) for name, e in EXERCISES.items() for m in e.mistakes]


def test_every_exercise_has_right_answers_and_a_source_to_mutate():
    assert set(SOURCES) == set(CODE) and set(RIGHT) == set(EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
def test_a_card_is_complete(name):
    exercise = EXERCISES[name]
    assert exercise.minutes >= 2 and exercise.difficulty in (1, 2, 3)
    assert len(exercise.hints) >= 3 and len(exercise.mistakes) >= 3
    assert len({m.name for m in exercise.mistakes}) == len(exercise.mistakes)
    for mistake in exercise.mistakes:
        assert mistake.sentence and mistake.sentence[-1] not in ".!", mistake.name
        assert ". " not in mistake.sentence, "one sentence"
    assert "!" not in exercise.task + "".join(exercise.hints)
    for case in exercise.cases:
        assert len(set(case.sizes.values())) == len(case.sizes), case.about


@pytest.mark.parametrize("number", NUMBERS)
def test_the_stubs_of_the_lesson_are_not_attempted(number):
    (source,) = [s for s in notebooks.sources() if s.name.startswith(f"{number}-")]
    notebook, seen = notebooks.read(source), set()
    for stub, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if "check" in cell.metadata.get("tags", []):
            ((name, answer),) = exercises(new_notebook(cells=[cell])).items()
            names = {}
            exec(f"import torch\nfrom torch import nn\n{stub.source}", names)
            assert judge(EXERCISES[name], names[answer]).status == "not attempted"
            seen.add(name)
    assert seen == {name for name, e in EXERCISES.items() if e.lesson == number}


@pytest.mark.parametrize("name", EXERCISES)
def test_right_answers_are_right_however_they_are_built(name):
    exercise = EXERCISES[name]
    answers = [exercise.reference, *RIGHT[name]]
    assert len(answers) >= 3 or exercise.kind not in ("function", "module")
    for answer in answers:
        verdict = judge(exercise, answer)
        assert verdict.status == "right", (answer, verdict.message)
        assert all(case.about in verdict.message for case in exercise.cases)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_that_is_shown_solves_it(name):
    exercise = EXERCISES[name]
    (home,) = [m for m in MODULES if m.__name__.endswith(exercise.lesson)]
    names = {}
    exec(exercise.solution_source(), vars(home).copy(), names)
    assert judge(exercise, list(names.values())[-1]).status == "right"


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_a_mistake_is_refused_and_named(name, mistake):
    (known,) = [m for m in EXERCISES[name].mistakes if m.name == mistake]
    verdict = judge(EXERCISES[name], known.implementation)
    assert (verdict.status, verdict.mistake) == ("wrong", mistake), verdict.message
    assert known.sentence in verdict.message


SPOILED_HERE = [kind for kind in SPOILED if kind not in ("detached", "an axis too short")]


@pytest.mark.parametrize("kind", SPOILED_HERE)
@pytest.mark.parametrize("name", CODE)
def test_other_wrong_answers_are_refused(name, kind):
    options, _ = SPOILED[kind]
    verdict = judge(EXERCISES[name], spoil(EXERCISES[name], **options))
    assert verdict.status == "wrong" and verdict.message


@pytest.mark.parametrize("name", [name for name, e in EXERCISES.items() if e.kind == "number"])
def test_other_numbers_are_refused(name):
    right = EXERCISES[name].reference
    for answer in (right + 1, right - 1, 2 * right, -right - 1, right * 1.01):
        assert judge(EXERCISES[name], answer).status == "wrong", answer


@pytest.mark.parametrize("name", CODE)
def test_no_mutant_of_a_solution_is_accepted(name):
    exercise = EXERCISES[name]
    assert judge(exercise, compiled(textwrap.dedent(SOURCES[name]))).status == "right"
    found = list(mutants(SOURCES[name]))
    accepted = {line for line, text in found if judge(exercise, compiled(text)).status == "right"}
    assert len(found) >= 5
    assert accepted == {line for other, line in EQUIVALENT if other == name}


@pytest.mark.parametrize(("name", "line"), EQUIVALENT)
def test_an_accepted_mutant_gives_the_same_for_any_input(name, line):
    exercise = EXERCISES[name]
    assert len(EQUIVALENT[name, line]) > 20
    (text,) = {text for changed, text in mutants(SOURCES[name]) if changed == line}
    mutant, right = compiled(text), exercise.reference
    case = exercise.cases[0]
    if exercise.kind == "module":
        mutant, right = (build_module(exercise, kind, case) for kind in (mutant, right))
    for seed in range(200):
        inputs = case.inputs(torch.Generator().manual_seed(1000 + seed))
        assert equal(mutant(*inputs), right(*inputs), exercise.tolerance)


@pytest.mark.parametrize("number", NUMBERS)
def test_questions_have_one_right_answer_and_it_is_true(number):
    (home,) = [m for m in MODULES if m.__name__.endswith(number)]
    truth = KNOWN[number].truth()
    assert len(truth) == len(home.QUESTIONS) >= 2
    for question, (right, why, rules) in home.QUESTIONS.items():
        assert right not in rules and len(rules) >= 2, question
        assert why.endswith(".") and all(rule[-1] in ".?" for rule in rules.values())
        (key,) = [key for key in truth if question.startswith(key)]
        assert truth[key] == right, question
