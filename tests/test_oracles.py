"""Our ViT equals those of timm, torchvision and transformers, and these tests notice when not."""

import pytest
import torch

from tests.oracles import CASES, PLANTED, compare, planted

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
precision = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])


@precision
@pytest.mark.parametrize("case", CASES)
def test_equal(case, dtype):
    compare(case, dtype, TOLERANCE[dtype])


HIDDEN = "eps of 1e-5", torch.float32  # by rounding, with some versions of PyTorch


# A square image whose patches come column by column still has the right shape everywhere.
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "error, dtype", [(e, d) for e in PLANTED for d in TOLERANCE if (e, d) != HIDDEN]
)
def test_a_planted_error_is_noticed(error, dtype, case):
    with planted(error), pytest.raises(AssertionError, match="e[-+]"):
        compare(case, dtype, TOLERANCE[dtype])
