"""Whether this is a full run (`make test-all`) or the shorter one (`make test`)."""

import os

import pytest

VARIABLE = "CGW_FULL"


def is_full() -> bool:
    """Whether `pytest --full` runs, here or in the process that started this worker."""
    return os.environ.get(VARIABLE) == "1"


def extended(*values: object) -> object:
    """Parameters of a test that only a full run uses."""
    return pytest.param(*values, marks=pytest.mark.extended)
