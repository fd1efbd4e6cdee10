"""What the machine must have for a tier. Without it, the tier fails with one line."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest


def fail_without(
    tier: str, purpose: str, programs: Iterable[str], called: Path | None = None
) -> None:
    """Fail if this is not root, or if a program is missing.

    `purpose` says what root is needed for. `called` is the program of the checkout that the tier
    calls, if it calls one.
    """
    if os.geteuid() != 0:
        pytest.fail(f"{purpose}: run it as root (sudo make test)")
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.fail(f"the {tier} tier needs {', '.join(missing)}: run make apt-lab")
    if called and not called.exists():
        pytest.fail(f"the {tier} tier calls {called}: run make venv")
