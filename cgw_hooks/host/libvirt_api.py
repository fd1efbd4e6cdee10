"""Asks libvirt which guests run, and what their definitions say.

A hook must never use this module: libvirt waits for the hook, and the hook would wait for
libvirt. Nobody must use it while holding the node's lock: a hook may be waiting for that lock.
"""

from __future__ import annotations

from contextlib import suppress

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import HypervisorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import libvirt

URIS = {"qemu": "qemu:///system", "lxc": "lxc:///system", "libxl": "xen:///system"}


class Definition(NamedTuple):
    """A guest's definition as libvirt has it at this moment."""

    driver: str
    name: str
    xml: bytes


def running_guests(driver: str) -> list[Definition]:
    """Return a driver's running guests. Raises ``HypervisorError`` if libvirt does not answer."""
    libvirt = _libvirt()
    found = []
    connection = _connect(driver)
    try:
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            with suppress(libvirt.libvirtError):  # it has stopped by now
                found.append(Definition(driver, domain.name(), domain.XMLDesc(0).encode()))
        if not connection.isAlive():  # then every question has failed
            raise _silence(driver, "it ended the connection")
    except libvirt.libvirtError as error:
        raise _silence(driver, error.get_error_message()) from error
    finally:
        with suppress(libvirt.libvirtError):
            connection.close()
    return found


def find_guest(name: str) -> list[Definition]:
    """Return a guest's definitions from the first driver that knows its name; empty if none does.

    The first is the live definition, if the guest runs; the next is the one for its next start,
    if the guest is persistent. Raises ``HypervisorError`` if no driver answers.
    """
    libvirt = _libvirt()
    problem: HypervisorError | None = None
    answered = False
    for driver in URIS:
        try:
            connection = _connect(driver)
        except HypervisorError as error:
            problem = problem or error
            continue
        answered = True
        try:
            domain = connection.lookupByName(name)
            flags = [0] if domain.isActive() else []
            flags += [libvirt.VIR_DOMAIN_XML_INACTIVE] if domain.isPersistent() else []
            return [Definition(driver, name, domain.XMLDesc(flag).encode()) for flag in flags]
        except libvirt.libvirtError:
            continue
        finally:
            connection.close()
    if problem and not answered:
        raise problem
    return []


def _connect(driver: str) -> libvirt.virConnect:
    libvirt = _libvirt()
    try:
        return libvirt.openReadOnly(URIS[driver])
    except libvirt.libvirtError as error:
        raise _silence(driver, error.get_error_message()) from error


def _silence(driver: str, why: object) -> HypervisorError:
    return HypervisorError(
        "libvirt",
        f"it does not answer at {URIS[driver]} ({why})",
        "start it, then run: cgw sync",
    )


def _libvirt() -> Any:
    try:
        import libvirt
    except ImportError as error:
        raise HypervisorError(
            "libvirt",
            f"the binding cannot be loaded ({error})",
            "install it: apt install python3-libvirt",
        ) from error
    # Without a handler the binding also prints every error on stderr.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt
