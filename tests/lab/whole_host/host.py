"""A whole Debian host and a client outside: `with WholeHost("bookworm") as host: ...`."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.lab.client import Client
from tests.lab.emulator.host import EmulatedHost
from tests.lab.namespace import namespace
from tests.lab.progress import progress
from tests.lab.whole_host import network
from tests.lab.whole_host.snapshot import booted


class WholeHost(EmulatedHost):
    """A context manager: the host runs inside the `with` block, and nothing of it after.

    It has booted before (`tests.lab.whole_host.snapshot`).
    """

    client: Client

    def __init__(self, suite: str) -> None:
        super().__init__()
        self.suite = suite

    def _boot(self, until_end: ExitStack) -> None:
        snapshot = booted(self.suite)
        folder = Path(until_end.enter_context(tempfile.TemporaryDirectory(prefix="cgw-host-")))
        outside = until_end.enter_context(namespace(f"{self.suite}-outside"))
        network.wire(outside)
        self.client = Client(outside)
        with progress(f"resuming a whole Debian {self.suite} host"):
            self.machine = snapshot.resume(until_end, folder, outside)

    def reboot(self) -> None:
        """Reboot, and wait until systemd has started everything. Raises CommandError."""
        self.machine.send("run", argv=["systemctl", "reboot"], standard_input="", seconds=600.0)
        self.machine.wait_until_ready()
        self.shell("systemctl is-system-running --wait")
