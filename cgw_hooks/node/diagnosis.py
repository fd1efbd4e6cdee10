"""Finds out whether each published port works at this moment.

It compares the records with the kernel's ruleset, the node's listeners, settings and addresses,
and libvirt's firewall, leases and definitions. It sends no packet and changes nothing.
"""

from __future__ import annotations

from functools import cache

from cgw_hooks.core.guest import REMOTE
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import Record, State, overridden, translated
from cgw_hooks.core.rules import arp_filter, table
from cgw_hooks.errors import CgwError, HypervisorError
from cgw_hooks.host import bridges, libvirt_api, listeners
from cgw_hooks.node import ports, ruleset
from cgw_hooks.node.firewall_exceptions import bridges_of
from cgw_hooks.node.forwarding import Forwarding
from cgw_hooks.sources import libvirt, static

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.node.publisher import Publisher

_SYNC = "run: cgw sync"
_NO_TREE = (
    "give every node a direct link to every other node, set full-mesh = true in "
    "[[guest-network]], and switch the tree off"
)


class Row(NamedTuple):
    """One published port of one guest, and whether it works at this moment."""

    record: Record
    port: PublishedPort | None
    #: "published" only if a client would find the port open.
    state: str
    problem: Problem | None = None


class Diagnosis(NamedTuple):
    """All rows, and the problems of the node itself."""

    rows: list[Row]
    problems: list[Problem]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(row.problem for row in self.rows)


def diagnose(publisher: Publisher, name: str | None = None) -> Diagnosis:
    """Diagnose everything that is published, or only the guest ``name``. Raises ``CgwError``."""
    records, errors = publisher.state.all()
    look = _Look(publisher, records)
    problems = [Problem.of(error) for error in errors.values()]
    problems += [*look.node_problems(), *look.unreadable_definitions()]
    rows = [row for row in look.rows() if name is None or row.record.guest.name == name]
    rows.sort(key=_place)
    return Diagnosis(rows, problems)


def _place(row: Row) -> tuple[str, bool, int]:
    """Return the sort key: a local guest's rows come before those of the same remote guest."""
    guest = row.record.guest
    return guest.name, guest.is_remote, row.port.start if row.port else 0


class _Look:
    """One look at the node. Everything is read once, for all guests."""

    def __init__(self, publisher: Publisher, records: dict[GuestKey, Record]) -> None:
        self.publisher = publisher
        self.records = records
        self.should_be = translated(list(records.values()))
        found = ruleset.read_tables(publisher.nft, publisher.config)
        self.difference = ruleset.compare(publisher.config, self.should_be, found)
        self.listeners = ports.node_listeners(record.guest for record in records.values())
        used = {bridge for record in records.values() for bridge in bridges_of(record)}
        self.not_admitted = publisher.firewall.not_admitted(used)
        self.is_local = cache(listeners.is_local)
        self.forwarding = Forwarding(publisher.config)
        self.definitions = self._definitions()

    # -- the node ----------------------------------------------------------------------------

    def node_problems(self) -> Iterator[Problem]:
        """Yield the problems of the node itself."""
        difference = self.difference
        if self.should_be or self.publisher.state.gateway_changes():
            if difference.rules:
                yield self._rules_problem()
            if difference.arp_filter:
                yield Problem("rules", arp_filter.TABLE, difference.arp_filter, _SYNC)
            yield from self._silent_bridges()
        extra = sorted(key for keys in difference.extra.values() for key in keys)
        if extra:
            shown = ", ".join(f"{{ {key} }}" for key in extra[:3])
            message = f"{len(extra)} elements belong to no record: {shown}"
            yield Problem("extra-elements", f"table {table.TABLE}", message, _SYNC)

    def unreadable_definitions(self) -> Iterator[Problem]:
        """Yield the problems of guests that should be published but have no record."""
        for found in self.definitions.values():
            for key, guest in found.items():
                if key not in self.records and isinstance(guest, CgwError):
                    yield Problem.of(guest)

    def _silent_bridges(self) -> Iterator[Problem]:
        """Yield a problem per guest bridge that keeps a newly arrived guest silent."""
        for bridge in sorted({network.bridge for network in self.publisher.config.guest_networks}):
            delay = bridges.forward_delay(bridge)
            if delay:
                silent = f"a guest that arrives is silent for {2 * delay:g} s"
                message = f"it runs a spanning tree: {silent}"
                yield Problem("spanning-tree", bridge, message, _NO_TREE)

    def _rules_problem(self) -> Problem:
        return Problem("rules", "ruleset", self.difference.rules, _SYNC)

    # -- the guests --------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all guests."""
        hidden = overridden(self.records.values())
        for record in self.records.values():
            if record.key in hidden:
                yield from (Row(record, port, "overridden") for port in record.guest.ports)
            else:
                yield from self._rows(record)
        for found in self.definitions.values():
            for key, guest in found.items():
                if key not in self.records and not isinstance(guest, CgwError):
                    yield from _not_published(guest)

    def _rows(self, record: Record) -> list[Row]:
        """Return the rows of one guest."""
        problem = record.problem or self._problem(record)
        if not record.guest.ports:
            return [Row(record, None, "not published", problem)] if problem else []
        return [self._row(record, port, problem) for port in record.guest.ports]

    def _row(self, record: Record, port: PublishedPort, problem: Problem | None) -> Row:
        if record.state is not State.PUBLISHED:
            return Row(record, port, "failed" if problem else record.state.value, problem)
        withheld = self._withheld(record, port)
        if withheld:
            return Row(record, port, "withheld", withheld)
        if record.problem and record.withheld:
            problem = self._problem(record)  # the record's is another port's
        if port.target_address is None:
            who = record.guest.title
            none = Problem("no-address", who, "no lease of the guest is known", _SYNC)
            return Row(record, port, "no address yet", problem or none)
        problem = problem or self._port_problem(record, port)
        if problem:
            return Row(record, port, "failed", problem)
        return Row(record, port, "published" if self.is_local(port.listen_address) else "dormant")

    def _withheld(self, record: Record, port: PublishedPort) -> Problem | None:
        """Return a problem if a listener of the node uses the port, or did at the last change."""
        taken = self.listeners.taken(port.claim)
        if taken:
            problem = Problem.of(ports.taken_by_node(record.guest, taken))
            return problem if port in record.withheld else problem._replace(cure=_SYNC)
        if port in record.withheld:
            who = record.guest.title
            message = f"port {port.claim} is not published, though no process has it any more"
            return Problem("withheld", who, message, _SYNC)
        return None

    def _problem(self, record: Record) -> Problem | None:
        """Return a problem that affects all ports of a guest, or None."""
        if record.state is not State.PUBLISHED:
            return None
        who = record.guest.title
        behind = sorted(bridges_of(record) & self.not_admitted)
        if behind:
            message = f"libvirt's firewall rejects what comes in to {behind[0]}"
            return Problem("firewall", who, f"{message}: the exception is not in front", _SYNC)
        return _lease_problem(record.guest) or self._definition_problem(record.guest)

    def _definition_problem(self, guest: Guest) -> Problem | None:
        definitions = self.definitions.get(guest.key.driver)
        if definitions is None:
            return None
        who = guest.title
        defined = definitions.get(guest.key)
        if isinstance(defined, CgwError):
            return Problem.of(defined)
        if defined and _says(defined) == _says(guest):
            return None
        if guest.is_remote:
            is_gone = "the config no longer names it"
        else:
            is_gone = "libvirt does not run it with an annotation"
        message = "its definition has changed" if defined else is_gone
        return Problem("definition" if defined else "not-running", who, message, _SYNC)

    def _port_problem(self, record: Record, port: PublishedPort) -> Problem | None:
        """Return a problem that affects one port, or None."""
        if self.difference.rules:
            return self._rules_problem()
        missing = self.difference.missing
        if missing and any(
            not missing.get(name, set()).isdisjoint(keys)
            for name, keys in table.elements([port]).items()
        ):
            who = record.guest.title
            message = f"{port.listen}: its elements are not in the ruleset"
            return Problem("elements", who, message, _SYNC)
        return self.forwarding.problem(port)

    def _definitions(self) -> dict[str, dict[GuestKey, Guest | CgwError]]:
        """Return driver -> key -> guest or error, by the present definitions.

        A driver that does not answer is left out: its silence affects no published port.
        """
        found = {REMOTE: dict(static.remote_guests(self.publisher.config))}
        for driver in libvirt_api.URIS:
            try:
                found[driver] = dict(libvirt.running(self.publisher.config, driver))
            except HypervisorError:
                continue
        return found


def _not_published(guest: Guest) -> list[Row]:
    """Return the rows of a guest that should be published but has no record."""
    problem = Problem("not-published", guest.title, "it is not published yet", _SYNC)
    nothing = Record(guest, State.RESERVED, 0.0)
    return [Row(nothing, port, "not published", problem) for port in guest.ports]


def _lease_problem(guest: Guest) -> Problem | None:
    """Return a problem if the guest's leased address was added, changed or has expired."""
    if not guest.leased:
        return None
    now = set(libvirt.leased_addresses(guest.leased))
    had = {port.target_address for port in guest.ports if port.target_address}
    if had <= now and (had or not now):
        return None
    addresses = ", ".join(sorted(map(str, now)))
    message = f"it now has the address {addresses}" if now else "its lease ended"
    return Problem("lease", guest.title, message, _SYNC)


def _says(guest: Guest) -> tuple[object, ...]:
    """Return what a definition says about a guest's ports, without leased addresses."""
    published = [p._replace(target_address=None) if guest.leased else p for p in guest.ports]
    return set(published), guest.leased, guest.network_bridges
