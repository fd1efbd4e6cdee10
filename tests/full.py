"""Whether this is a full run (`make test-all`) or the shorter one (`make test`)."""

import os

VARIABLE = "CGW_FULL"


def is_full() -> bool:
    """Whether `pytest --full` runs, here or in the process that started this worker."""
    return os.environ.get(VARIABLE) == "1"
