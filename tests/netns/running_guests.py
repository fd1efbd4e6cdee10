"""The guests that libvirt says are running: libvirt's own test driver, which reads them in a file.

libvirt lists a guest from before its hook's prepare until before its stopped.
"""

import os
import re
import threading
from pathlib import Path

from tests.netns.guest import DONE, Guest
from tests.netns.node import CHECKOUT, Node, Process

_NEEDED = re.compile(r"<name>.*?</name>|<uuid>.*?</uuid>|<metadata>.*?</metadata>", re.DOTALL)


class RunningGuests:
    """What libvirt says, for the calls of cgw that ask this driver."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._file = node.folder / "running.xml"
        self._lock = threading.Lock()
        self._definitions: dict[str, str] = {}
        self._write()

    @property
    def uri(self) -> str:
        """Where libvirt's client finds the driver."""
        return f"test://{self._file}"

    def add(self, name: str, xml: str) -> None:
        """List a guest, whether or not its hook was ever called."""
        inside = "".join(_NEEDED.findall(xml))
        rest = "<memory>1024</memory><vcpu>1</vcpu><os><type>hvm</type></os>"
        self._change(name, f'<domain type="test">{inside}{rest}</domain>')

    def remove(self, name: str) -> None:
        """List a guest no longer."""
        self._change(name, "")

    def clear(self) -> None:
        """List no guest."""
        self._definitions.clear()
        self._write()

    def start(self, guest: Guest) -> None:
        """Start a guest as libvirt does."""
        self.add(guest.name, guest.xml)
        for operation in ("prepare", "started"):
            assert guest.hook(operation) == DONE

    def stop(self, guest: Guest) -> None:
        """Stop a guest as libvirt does."""
        self.remove(guest.name)
        guest.stop()

    def start_sync(self) -> Process:
        """Start `cgw sync`, which asks this driver."""
        return self._node.start_cgw("sync", code=_SYNC.format(checkout=CHECKOUT, uri=self.uri))

    def _change(self, name: str, definition: str) -> None:
        with self._lock:
            self._definitions[name] = definition
            self._write()

    def _write(self) -> None:
        new = Path(f"{self._file}.new")
        new.write_text(f"<node>{''.join(self._definitions.values())}</node>")
        os.replace(new, self._file)


_SYNC = """
import sys
sys.path.insert(0, "{checkout}")
from cgw_hooks.host import libvirt_api
libvirt_api.URIS["qemu"] = "{uri}"
from cgw_hooks.commands import cli
sys.exit(cli.main())
"""
