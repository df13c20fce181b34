"""Every lesson: solved, but its models do not learn."""

import pytest

from tests.solved import examine
from vitcourse.lab import notebooks

LESSONS = [source for source in notebooks.sources() if source.parent.name == "source"]


@pytest.mark.parametrize("source", LESSONS, ids=lambda source: source.stem)
def test_solved_but_untrained(source):
    examine(source)
