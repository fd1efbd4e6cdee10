"""A Xen host: QEMU, in it Xen, in it dom0, in it guests. `with Dom0() as dom0: ...`.

Nothing of it touches the machine's own network: QEMU has no network device. All traffic is between
dom0, its guests, and a client in a namespace of dom0.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.lab.emulator.host import EmulatedHost
from tests.lab.progress import progress
from tests.lab.reply import Outcome, Reply
from tests.lab.xen.snapshot import booted


class Dom0(EmulatedHost):
    """A context manager: the Xen host runs inside the `with` block, and nothing of it after.

    `own` are folders of files for dom0's root. It has booted before (`tests.lab.xen.snapshot`).
    """

    def __init__(self, *, own: Sequence[Path] = ()) -> None:
        super().__init__()
        self._own = own

    def client(self, method: str, *arguments: object, **options: object) -> Reply:
        """Call a method of `tests.lab.client.Client`, from the client's namespace in dom0."""
        return self._ask("client", method, arguments, options)

    def itself(self, method: str, *arguments: object, **options: object) -> Reply:
        """Call the same method from dom0 itself."""
        return self._ask("dom0", method, arguments, options)

    def _ask(self, namespace: str, method: str, arguments: object, options: object) -> Reply:
        answer = self.machine.call(
            "ask", namespace=namespace, method=method, arguments=arguments, options=options
        )
        return Reply(**{**answer, "outcome": Outcome(answer["outcome"])})

    def _boot(self, until_end: ExitStack) -> None:
        snapshot = booted()
        folder = Path(until_end.enter_context(tempfile.TemporaryDirectory(prefix="cgw-xen-")))
        with progress("resuming Xen"):
            self.machine = snapshot.resume(until_end, folder)
            for own in self._own:
                self.machine.unpack(own)
