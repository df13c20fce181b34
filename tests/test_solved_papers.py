"""Every notebook of a paper, its models not learning. A file of its own, for the other core."""

import pytest

from tests.solved import examine
from vitcourse.lab import notebooks

PAPERS = [source for source in notebooks.sources() if source.parent.name == "papers"]


@pytest.mark.parametrize("source", PAPERS, ids=lambda source: source.stem)
def test_untrained(source):
    examine(source)
