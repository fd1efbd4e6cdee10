"""Finds out which guests this node should publish: it asks all sources of guests."""

from __future__ import annotations

from cgw_hooks.core.guest import REGISTRY, XL, GuestKey
from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.core.problem import Problem
from cgw_hooks.errors import CgwError, HypervisorError
from cgw_hooks.sources import libvirt, static, xl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.publisher import Publisher

#: xl must come last: it leaves out the guests that libvirt publishes.
HYPERVISORS = (*DRIVERS, XL)


class Wanted:
    """The guests that should be published, and the problems of reading them."""

    def __init__(self) -> None:
        self.guests: dict[GuestKey, Guest] = {}
        #: These guests stay published as before, each with its problem, if there is one.
        self.kept: dict[GuestKey, Problem | None] = {}
        self.silent_drivers: set[str] = set()
        self.problems: list[Problem] = []

    def add(self, key: GuestKey, found: Guest | CgwError | None) -> None:
        """Add what a source has found about one guest."""
        if found is None:
            self.kept[key] = None
        elif isinstance(found, CgwError):
            self.kept[key] = Problem.of(found)
            self.problems.append(Problem.of(found))
        else:
            self.guests[key] = found


def ask(
    publisher: Publisher,
    records: dict[GuestKey, Record],
    drivers: Collection[str],
    seen: dict[bytes, Guest],
) -> Wanted:
    """Return the guests that run here, and what they publish now.

    ``seen`` holds the guests of the definitions that were read before (``RunningGuests``).
    """
    asked = [driver for driver in drivers if driver != XL]
    with libvirt.RunningGuests(publisher.config, asked, seen) as running:
        return _asked(publisher, records, drivers, running)


def _asked(
    publisher: Publisher,
    records: dict[GuestKey, Record],
    drivers: Collection[str],
    running: libvirt.RunningGuests,
) -> Wanted:
    wanted = Wanted()
    wanted.silent_drivers = set(HYPERVISORS) - set(drivers)
    silent: dict[str, HypervisorError] = {}
    for driver in drivers:
        try:
            for key, found in _running(publisher, driver, wanted, records, running):
                wanted.add(key, found)
        except HypervisorError as error:
            silent[driver] = error
            wanted.silent_drivers.add(driver)
    recorded = {key.driver for key in records}
    nobody_answered = len(silent) == len(HYPERVISORS)
    for driver, silence in silent.items():
        # A host has one or two of the drivers: the others need not answer.
        if driver in recorded or (nobody_answered and driver == DRIVERS[0]):
            wanted.problems.append(Problem.of(silence))
    return wanted


def _running(
    publisher: Publisher,
    driver: str,
    wanted: Wanted,
    records: dict[GuestKey, Record],
    running: libvirt.RunningGuests,
) -> Iterable[tuple[GuestKey, Guest | CgwError | None]]:
    if driver != XL:
        return running.of(driver, records)
    # If libvirt does not answer, the guest's record decides.
    is_silent = "libxl" in wanted.silent_drivers
    known: Collection[GuestKey] = records if is_silent else {*wanted.guests, *wanted.kept}
    return xl.running(publisher.config, lambda key: key in known)


def add_remotes(
    wanted: Wanted,
    publisher: Publisher,
    configured: list[tuple[GuestKey, Guest | CgwError]],
    registered: Mapping[GuestKey, Guest | CgwError] | None,
    before: dict[GuestKey, Record],
) -> None:
    """Add the remote guests; what the registry says of a guest replaces what the config says."""
    if registered is None and publisher.config.registry:
        wanted.silent_drivers.add(REGISTRY)
        named = [record.guest for key, record in before.items() if key.driver == REGISTRY]
    else:
        for key, found in (registered or {}).items():
            wanted.add(key, found)
        if publisher.config.registry:  # it may not know yet where these guests have migrated to
            moved = [key for key, r in before.items() if r.has_moved and key not in wanted.guests]
            wanted.kept |= dict.fromkeys(moved)
        named = [guest for key, guest in wanted.guests.items() if key.driver == REGISTRY]
    for key, remote in static.beside_registry(configured, named):
        wanted.add(key, remote)
