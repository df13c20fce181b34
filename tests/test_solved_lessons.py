"""Every lesson with code to write: solved, but its models do not learn."""

import pytest

from tests.lessons import exercises
from tests.solved import examine
from vitcourse.lab import notebooks

LESSONS = [source for source in notebooks.sources() if source.parent.name == "source"]
WITH_CODE = [source for source in LESSONS if exercises(notebooks.read(source))]


@pytest.mark.parametrize("source", WITH_CODE, ids=lambda source: source.stem)
def test_solved_but_untrained(source):
    examine(source)
