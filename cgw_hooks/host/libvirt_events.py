"""Hears from libvirt about running guests, and asks about single ones, for a resident process.

No method waits for libvirt unless it says so.
"""

from __future__ import annotations

import threading

from cgw_hooks.core.parse.fields import parse_guest_address
from cgw_hooks.errors import HypervisorError
from cgw_hooks.host.libvirt_api import Definition
from cgw_hooks.host.libvirt_connection import LONGEST_WAIT, Connection, News
from cgw_hooks.host.libvirt_library import URIS, library, silence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from cgw_hooks.core.published_port import Address

RUN_DIRECTORY = "/run"


class LibvirtEvents:
    """Hears from all drivers. ``tell`` is called in other threads, and must return at once."""

    def __init__(self, tell: Callable[[News], None], run_directory: str = RUN_DIRECTORY) -> None:
        self._drivers = {driver: Connection(driver, tell, run_directory) for driver in URIS}

    def start(self) -> None:
        """Begin to hear."""
        for driver in self._drivers.values():
            driver.start()

    def close(self) -> None:
        """End all connections, as soon as libvirt allows it; do not wait for that."""
        for driver in self._drivers.values():
            driver.end()

    def watched_folders(self) -> list[str]:
        """Return the folders whose changes ``folder_changed`` must be told."""
        return [driver.folder for driver in self._drivers.values()]

    def folder_changed(self, folder: str) -> None:
        """Note a change in one of ``watched_folders``: a guest has started or stopped."""
        for driver in self._drivers.values():
            if driver.folder == folder:
                driver.look()

    def look(self, driver: str) -> None:
        """Note that a driver does something: a hook was called."""
        if driver in self._drivers:
            self._drivers[driver].look()

    def is_connected(self, driver: str) -> bool:
        """Whether news of this driver is heard now."""
        return self._drivers[driver].is_connected

    def is_daemon_running(self, driver: str) -> bool:
        """Whether a daemon of this driver runs. To ask another one would start it."""
        return self._drivers[driver].is_daemon_running()

    def has_guests(self, driver: str) -> bool:
        """Whether a guest of this driver runs, as libvirt's status files say."""
        return self._drivers[driver].has_guests()

    def definition(self, driver: str, uuid: str) -> Definition | None:
        """Return the definition of a running guest, None if it does not run.

        This waits for libvirt: ten seconds for a connection, and at most half a minute if the
        daemon hangs then. While a hook of this guest runs, it waits for that. So only a thread that
        serves no hook may call it. Raises ``HypervisorError``.
        """
        found: Definition | None = self._drivers[driver].ask(
            lambda connection: _definition(driver, connection, uuid)
        )
        return found

    def agent_addresses(self, driver: str, uuid: str) -> dict[str, list[Address]]:
        """Return the addresses that the agent inside a guest reports, by MAC address.

        It is empty if no agent answers. The guest is not to be trusted: see
        ``refresh.ask_neighbours``. This waits as ``definition`` does, and it needs a connection
        that may write (libvirt's rule). Raises ``HypervisorError``.
        """
        found: dict[str, list[Address]] = _answer_within(
            driver,
            lambda: self._drivers[driver].ask_once(
                lambda connection: _agent_addresses(connection, uuid)
            ),
        )
        return found


def _definition(driver: str, connection: Any, uuid: str) -> Definition | None:
    libvirt = library()
    try:
        domain = connection.lookupByUUIDString(uuid)
        name, xml = str(domain.name()), str(domain.XMLDesc(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise silence(driver, error.get_error_message()) from error
    # A running guest's definition has its number in <domain id="...">.
    is_running = " id=" in xml.partition(">")[0]
    return Definition(driver, name, xml.encode()) if is_running else None


def _agent_addresses(connection: Any, uuid: str) -> dict[str, list[Address]]:
    libvirt = library()
    try:
        source = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
        found = connection.lookupByUUIDString(uuid).interfaceAddresses(source)
    except libvirt.libvirtError:
        return {}  # no agent, or it does not answer
    addresses: dict[str, list[Address]] = {}
    for interface in (found or {}).values():
        usable = _usable(entry.get("addr", "") for entry in interface.get("addrs") or ())
        addresses.setdefault(str(interface.get("hwaddr")).lower(), []).extend(usable)
    return addresses


def _usable(texts: Iterable[str]) -> list[Address]:
    found = []
    for text in texts:
        try:
            found.append(parse_guest_address(text))
        except ValueError:
            continue
    return found


def _answer_within(driver: str, question: Callable[[], Any]) -> Any:
    """Return an answer, in at most ``LONGEST_WAIT`` seconds: opening has no timeout itself."""
    answers: list[Any] = []
    errors: list[HypervisorError] = []

    def ask() -> None:
        try:
            answers.append(question())
        except HypervisorError as error:
            errors.append(error)

    thread = threading.Thread(target=ask, name=f"libvirt-{driver}-question", daemon=True)
    thread.start()
    thread.join(LONGEST_WAIT)
    if errors:
        raise errors[0]
    if not answers:
        raise silence(driver, "it does not answer")
    return answers[0]
