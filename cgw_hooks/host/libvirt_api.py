"""Asks libvirt which guests run and what their definitions say, and writes their annotations.

A hook must never use this module: libvirt waits for the hook, and the hook would wait for
libvirt. Nobody must use it while holding the node's lock: a hook may be waiting for that lock.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import CgwError, HypervisorError, HypervisorHangs, NotFound, quoted
from cgw_hooks.host.libvirt_library import (
    URIS,
    Opening,
    library,
    opened,
    silence,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Self, TypeVar

    from cgw_hooks.core.guest import GuestKey

    _T = TypeVar("_T")


class Definition(NamedTuple):
    """A guest's definition as libvirt has it at this moment."""

    driver: str
    name: str
    xml: bytes


class Drivers:
    """Read-only connections to some drivers, which are opened side by side; for ``with``.

    A driver that does not answer raises the same ``HypervisorError`` at each question.
    """

    def __init__(self, drivers: Iterable[str]) -> None:
        self._openings = {driver: Opening(driver) for driver in drivers}
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections.values():
            with suppress(library().libvirtError):
                connection.close()

    def running_guests(self, driver: str) -> list[Definition]:
        """Return a driver's running guests. Raises ``HypervisorError``."""
        libvirt = library()
        found = []
        try:
            connection = self._connection(driver)
            for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                with suppress(libvirt.libvirtError):  # it has stopped by now
                    found.append(Definition(driver, domain.name(), domain.XMLDesc(0).encode()))
            if not connection.isAlive():  # then every question has failed
                raise silence(driver, "it ended the connection")
        except libvirt.libvirtError as error:
            raise silence(driver, error.get_error_message()) from error
        return found

    def _connection(self, driver: str) -> Any:
        if driver not in self._connections:
            self._connections[driver] = self._openings[driver].result()
        return self._connections[driver]


def find_guest(name: str) -> list[Definition]:
    """Return a guest's definitions from the first driver that knows its name or uuid.

    The first is the live definition, if the guest runs; the next is the one for its next start,
    if the guest is persistent. Empty if no driver knows it. Raises ``HypervisorError`` if no
    driver answers.
    """
    libvirt = library()
    problem: HypervisorError | None = None
    answered = False
    for driver in URIS:
        try:
            connection = opened(driver)
        except HypervisorHangs:  # the other drivers are probably of the same daemon
            raise
        except HypervisorError as error:
            problem = problem or error
            continue
        answered = True
        try:
            domain = _look_up(connection, name)
            flags = [0] if domain.isActive() else []
            flags += [libvirt.VIR_DOMAIN_XML_INACTIVE] if domain.isPersistent() else []
            return [
                Definition(driver, domain.name(), domain.XMLDesc(flag).encode()) for flag in flags
            ]
        except libvirt.libvirtError:
            continue
        finally:
            connection.close()
    if problem and not answered:
        raise problem
    return []


def defined_guests(driver: str) -> list[Definition]:
    """Return the definitions that a driver's guests have now, and at their next start.

    Raises ``HypervisorError`` if libvirt does not answer.
    """
    libvirt = library()
    found = []
    with _all_domains(driver) as domains:
        for domain in domains:
            for flag in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
                with suppress(libvirt.libvirtError):  # it is gone by now
                    found.append(Definition(driver, domain.name(), domain.XMLDesc(flag).encode()))
    return found


def names(driver: str) -> list[str]:
    """Return the names of all guests of a driver. Raises ``HypervisorError``."""
    with _all_domains(driver) as domains:
        return [domain.name() for domain in domains]


class Domain:
    """One guest on a read-write connection. Each method raises ``HypervisorError``.

    ``NotFound`` is raised if the guest is no longer there. ``live`` means the definition of the
    running guest, otherwise that of its next start.
    """

    def __init__(self, driver: str, domain: Any, connection: Any) -> None:
        self.driver = driver
        self.name = str(domain.name())
        self._domain = domain
        self._connection = connection
        self._libvirt = library()

    def close(self) -> None:
        """Close the connection."""
        with suppress(self._libvirt.libvirtError):
            self._connection.close()

    @property
    def uuid(self) -> str:
        """The guest's uuid, in lower case."""
        return self._ask(lambda: str(self._domain.UUIDString()).lower())

    def is_running(self) -> bool:
        """Whether the guest has a live definition."""
        return self._ask(lambda: bool(self._domain.isActive()))

    def is_persistent(self) -> bool:
        """Whether the guest has a definition for its next start."""
        return self._ask(lambda: bool(self._domain.isPersistent()))

    def is_arriving(self) -> bool:
        """Whether the guest is being started, or is migrating to this node."""
        state, reason = self._ask(self._domain.state)
        libvirt = self._libvirt
        reasons = (libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
        return bool(state == libvirt.VIR_DOMAIN_PAUSED and reason in reasons)

    def definition(self, *, live: bool) -> bytes:
        """Return the domain XML."""
        flag = 0 if live else self._libvirt.VIR_DOMAIN_XML_INACTIVE
        return self._ask(lambda: str(self._domain.XMLDesc(flag)).encode())

    def annotation(self, namespace: str, *, live: bool) -> str | None:
        """Return the element of a namespace in the metadata, without the namespace, or None."""
        kind, flags = self._libvirt.VIR_DOMAIN_METADATA_ELEMENT, self._flags(live=live)
        try:
            return str(self._domain.metadata(kind, namespace, flags))
        except self._libvirt.libvirtError as error:
            if error.get_error_code() == self._libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                return None
            raise self._error(error) from error

    def write_annotation(self, namespace: str, prefix: str, xml: str | None, *, live: bool) -> None:
        """Replace the element of a namespace in the metadata; None removes it."""
        kind, flags = self._libvirt.VIR_DOMAIN_METADATA_ELEMENT, self._flags(live=live)
        self._ask(lambda: self._domain.setMetadata(kind, xml, prefix, namespace, flags))

    def _flags(self, *, live: bool) -> int:
        libvirt = self._libvirt
        return int(libvirt.VIR_DOMAIN_AFFECT_LIVE if live else libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def _ask(self, question: Callable[[], _T]) -> _T:
        try:
            return question()
        except self._libvirt.libvirtError as error:
            raise self._error(error) from error

    def _error(self, error: Any) -> CgwError:
        who = f"guest {quoted(self.name)}"
        if error.get_error_code() == self._libvirt.VIR_ERR_NO_DOMAIN:
            return NotFound(who, "libvirt no longer has this guest", "see: virsh list --all")
        said = quoted(error.get_error_message(), 200)
        return HypervisorError(who, f"libvirt says: {said}", "see: virsh list --all")


def open_guest(name: str) -> Domain | None:
    """Return the guest of the first driver that knows the name or uuid; None if none does.

    The caller must close it. Raises ``HypervisorError`` if no driver answers.
    """
    return _open_any(lambda connection: _look_up(connection, name), tuple(URIS))


def open_guest_of(key: GuestKey) -> Domain | None:
    """Return the guest with a key, None if libvirt has none. Raises ``HypervisorError``."""
    return _open_any(lambda connection: connection.lookupByUUIDString(key.id), (key.driver,))


def _look_up(connection: Any, name: str) -> Any:
    """Return the domain with a uuid or, if there is none, with a name: like virsh."""
    try:
        return connection.lookupByUUIDString(name)
    except library().libvirtError:  # it is no uuid, or libvirt does not know it
        return connection.lookupByName(name)


def _open_any(look_up: Callable[[Any], Any], drivers: tuple[str, ...]) -> Domain | None:
    libvirt = library()
    problem: HypervisorError | None = None
    answered = False
    for driver in drivers:
        try:
            connection = opened(driver, writing=True)
        except HypervisorHangs:  # the other drivers are probably of the same daemon
            raise
        except HypervisorError as error:
            problem = problem or error
            continue
        answered = True
        try:
            return Domain(driver, look_up(connection), connection)
        except libvirt.libvirtError as error:
            with _closing(connection):
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise silence(driver, error.get_error_message()) from error
    if problem and not answered:
        raise problem
    return None


@contextmanager
def _all_domains(driver: str) -> Iterator[list[Any]]:
    libvirt = library()
    with _closing(opened(driver)) as connection:
        try:
            domains = connection.listAllDomains(0)
        except libvirt.libvirtError as error:
            raise silence(driver, error.get_error_message()) from error
        yield domains


@contextmanager
def _closing(connection: Any) -> Iterator[Any]:
    try:
        yield connection
    finally:
        with suppress(library().libvirtError):
            connection.close()
