"""The base class of hosts inside an emulator: what tests do there."""

import subprocess
from collections.abc import Sequence

from tests.lab.emulator.machine import Machine
from tests.lab.throwaway import Throwaway


class EmulatedHost(Throwaway):
    """A context manager: the host runs inside the `with` block, and nothing of it after."""

    machine: Machine

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str = "",  # noqa: A002 - named as in subprocess
        check: bool = True,
        timeout: float = 600.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as root. Raises CommandError when it fails (and `check`)."""
        return self.machine.run(argv, given=input, check=check, timeout=timeout)

    def shell(self, script: str, *, check: bool = True) -> str:
        """Run lines of shell; what they print. Raises CommandError when one fails (and `check`)."""
        return self.run(["bash", "-c", script], check=check).stdout

    def write(self, path: str, content: str, *, mode: int = 0o644) -> None:
        """Write a file; its folder is made when missing."""
        self.machine.call("write", path=path, content=content, mode=mode)
