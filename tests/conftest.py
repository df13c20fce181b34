import os

import pytest
import torch

os.environ["VITCOURSE_PROGRESS"] = ""  # a learner's progress is not touched

torch.set_num_threads(1)  # the tests run side by side; threads would only fight over the cores


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
