"""libvirt: which guests run, and what their definitions say.

Never from a hook: libvirt waits for the hook, the hook would wait for libvirt.
And never with the node's lock held, for which such a hook may be waiting.
"""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from cgw_hooks.errors import HypervisorError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    import libvirt

URIS = {"qemu": "qemu:///system", "lxc": "lxc:///system", "libxl": "xen:///system"}


class Definition(NamedTuple):
    """A guest as libvirt has it at this moment."""

    driver: str
    name: str
    xml: bytes


def running_guests(driver: str) -> list[Definition]:
    """The running guests of a driver. Raises ``HypervisorError`` where libvirt does not answer."""
    libvirt = _libvirt()
    found = []
    with closing(_connect(driver)) as connection:
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            with suppress(libvirt.libvirtError):  # stopped meanwhile
                found.append(Definition(driver, domain.name(), domain.XMLDesc(0).encode()))
    return found


def find_guest(name: str) -> Definition:
    """A guest by name, running or not, of the first driver that knows it.

    Raises ``HypervisorError``.
    """
    libvirt = _libvirt()
    for driver, connection in _connections():
        with closing(connection), suppress(libvirt.libvirtError):
            return Definition(driver, name, connection.lookupByName(name).XMLDesc(0).encode())
    raise HypervisorError(f"guest {quoted(name)}: not known to libvirt; see: virsh list --all")


def _connections() -> Iterator[tuple[str, libvirt.virConnect]]:
    problem: HypervisorError | None = None
    found = False
    for driver in URIS:
        try:
            connection = _connect(driver)
        except HypervisorError as error:
            problem = problem or error
        else:
            found = True
            yield driver, connection
    if problem and not found:
        raise problem


def _connect(driver: str) -> libvirt.virConnect:
    libvirt = _libvirt()
    try:
        return libvirt.openReadOnly(URIS[driver])
    except libvirt.libvirtError as error:
        raise HypervisorError(
            f"libvirt does not answer at {URIS[driver]} ({error.get_error_message()}); "
            "start it, then run: cgw sync"
        ) from error


def _libvirt() -> Any:
    try:
        import libvirt
    except ImportError as error:
        raise HypervisorError(
            f"the libvirt binding cannot be loaded ({error}); "
            "install it: apt install python3-libvirt"
        ) from error
    # Without a handler the binding prints every error on stderr, beside raising it.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt
