"""Finds out whether each published port works at this moment.

It compares the records with the kernel's ruleset, the node's listeners, settings and addresses,
and libvirt's firewall, leases and definitions. It sends no packet and changes nothing.
"""

from __future__ import annotations

import time
from functools import cache
from math import inf

from cgw_hooks.core.diagnosis import Diagnosis, Row
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import Contents, Record, State, contents, overridden, unexpired
from cgw_hooks.core.rules.elements import elements
from cgw_hooks.core.rules.names import BRIDGE_TABLE, TABLE
from cgw_hooks.errors import CgwError
from cgw_hooks.host import bridges, listeners
from cgw_hooks.node import cluster, definitions, gateway_addresses, ports, replication, ruleset
from cgw_hooks.node.ban_keeper import problems as problems_of_bans
from cgw_hooks.node.firewall_exceptions import bridges_of
from cgw_hooks.node.forwarding import Forwarding
from cgw_hooks.sources.found_addresses import Look, aimed_at, known_addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.node.publisher import Publisher

_SYNC = "run: cgw sync"
_RELOAD = "run: systemctl reload libvirtd; cgw sync"
_NO_TREE = (
    "give every node a direct link to every other node, set full-mesh = true in "
    "[[guest-network]], and switch the tree off"
)


def diagnose(
    publisher: Publisher, name: str | None = None, *, has_agent: bool = True, asks: bool = True
) -> Diagnosis:
    """Diagnose everything that is published, or only the guest ``name``. Raises ``CgwError``.

    ``has_agent``: whether the agent runs, which the registry of a cluster needs. ``asks``: whether
    libvirt is asked for definitions, which may start it.
    """
    records, errors = publisher.state.all()
    look = _Look(publisher, records, has_agent=has_agent, asks=asks)
    faults = [publisher.state.fault(), *errors.values()]
    problems = [Problem.of(error) for error in faults if error]
    problems += [*look.hanging, *look.node_problems(), *look.unreadable_definitions()]
    rows = [row for row in look.rows() if name is None or row.record.guest.is_called(name)]
    rows.sort(key=_place)
    return Diagnosis(rows, problems)


def _place(row: Row) -> tuple[str, bool, int]:
    """Return the sort key: a local guest's rows come before those of the same remote guest."""
    guest = row.record.guest
    return guest.name, guest.is_remote, row.port.start if row.port else 0


class _Look:
    """One look at the node. Everything is read once, for all guests."""

    def __init__(
        self, publisher: Publisher, records: dict[GuestKey, Record], *, has_agent: bool, asks: bool
    ) -> None:
        self.publisher = publisher
        self.records = records
        self.now = time.time()
        self.should_be = contents([*records.values()])
        found = ruleset.read_tables(publisher.nft, publisher.config)
        self.difference = ruleset.compare(publisher.config, self.should_be, found)
        self.listeners = ports.node_listeners(record.guest for record in records.values())
        used = {bridge for record in records.values() for bridge in bridges_of(record)}
        self.obstacles = publisher.firewall.obstacles(used)
        self.is_local = cache(listeners.is_local)
        self.forwarding = Forwarding(publisher.config)
        self.addresses = Look(publisher.config)
        #: The drivers that hang.
        self.definitions, self.hanging = definitions.read(publisher.config, records, asks=asks)
        self.registry = publisher.state.registry_status()
        self.pending = cluster.pending(publisher, self.registry, has_agent=has_agent)

    # -- the node ----------------------------------------------------------------------------

    def node_problems(self) -> Iterator[Problem]:
        """Yield the problems of the node itself."""
        yield from cluster.problems(self.registry)
        yield from gateway_addresses.problems(self.publisher)
        yield from replication.problems(self.publisher)
        yield from problems_of_bans()
        difference = self.difference
        if self.should_be or self.publisher.state.gateway_changes():
            if difference.rules:
                yield Problem("rules", "ruleset", difference.rules, _SYNC)
            if difference.arp_filter:
                yield Problem("rules", BRIDGE_TABLE, difference.arp_filter, _SYNC)
            yield from self._silent_bridges()
        extra = sorted(key for keys in difference.extra.values() for key in keys)
        if extra:
            shown = ", ".join(f"{{ {key} }}" for key in extra[:3])
            message = f"{len(extra)} elements belong to no record: {shown}"
            yield Problem("extra-elements", f"table {TABLE}", message, _SYNC)

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
        if record.until is not None and dict(record.guest.limits).get(port.claim, inf) <= self.now:
            who, message = record.guest.title, f"{port.listen}: its time has passed"
            return Row(record, port, "expired", Problem("expired", who, message, _SYNC))
        withheld = self._withheld(record, port)
        if withheld:
            return Row(record, port, "withheld", withheld)
        if record.problem and record.withheld:
            problem = self._problem(record)  # the record's is another port's
        if port.target_address is None:
            return Row(record, port, "no address yet", problem or _no_address(record.guest))
        problem = problem or self._port_problem(record, port)
        if problem:
            return Row(record, port, "failed", problem)
        is_pending = str(port.claim) in self.pending.get(record.guest.uuid, ())
        is_here = self.is_local(port.listen_address)
        return Row(record, port, "pending" if is_pending else "published" if is_here else "dormant")

    def _withheld(self, record: Record, port: PublishedPort) -> Problem | None:
        """Return a problem if a listener of the node uses the port, or did at the last change."""
        taken = self.listeners.taken(port.claim)
        if taken:
            problem = Problem.of(ports.taken_by_node(record.guest, taken))
            return problem if port in record.withheld else problem._replace(cure=_SYNC)
        if port in record.withheld:
            lost = ports.lost(self.publisher.state, record.guest).get(port)
            if lost:
                return Problem.of(ports.taken_by_guest(record.guest, lost[1], lost[0]))
            who = record.guest.title
            message = f"port {port.claim} is not published, though no process has it any more"
            return Problem("withheld", who, message, _SYNC)
        return None

    def _problem(self, record: Record) -> Problem | None:
        """Return a problem that affects all ports of a guest, or None."""
        if record.state is not State.PUBLISHED:
            return None
        record = unexpired(record, self.now)
        return (
            self._firewall_problem(record)
            or self._address_problem(record)
            or self._definition_problem(record.guest)
        )

    def _firewall_problem(self, record: Record) -> Problem | None:
        """Return a problem if libvirt's firewall lets nothing in to the guest, or None."""
        who, used = record.guest.title, bridges_of(record)
        for bridge in sorted(used & self.obstacles.behind):
            message = f"libvirt's firewall rejects what comes in to {bridge}"
            return Problem("firewall", who, f"{message}: the exception is not in front", _SYNC)
        for bridge in sorted(used & self.obstacles.cut_off):
            message = f"chain FORWARD drops what comes in to {bridge}: libvirt's rules are gone"
            return Problem("firewall", who, message, _RELOAD)
        return None

    def _address_problem(self, record: Record) -> Problem | None:
        """Return a problem if the guest's address was found, changed, or is no longer its own."""
        guest = record.guest
        if not guest.leased or not guest.ports:
            return None
        had = known_addresses(record)
        now = self.addresses.found_addresses(guest.leased, had)
        aimed = aimed_at(guest, now)
        if aimed.guest == guest and (had or not aimed.may_lack_ports):
            return None
        if now:
            message = f"it now has the address {', '.join(sorted(map(str, now)))}"
        elif any(interface.network for interface in guest.leased):
            message = "its lease ended"
        else:
            message = "another guest has its address now"
        return Problem("lease", guest.title, message, _SYNC)

    def _definition_problem(self, guest: Guest) -> Problem | None:
        found = self.definitions.get(guest.key.driver)
        if found is None:
            return None
        who = guest.title
        defined = found.get(guest.key)
        if isinstance(defined, CgwError):
            return Problem.of(defined)
        if defined and (defined == guest or _says(defined) == _says(guest)):
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
            return Problem("rules", "ruleset", self.difference.rules, _SYNC)
        missing = self.difference.missing
        held = Contents([port], () if record.guest.is_remote else [port])
        if missing and any(
            not missing.get(place, set()).isdisjoint(keys)
            for place, keys in elements(self.publisher.config, held).items()
        ):
            who = record.guest.title
            message = f"{port.listen}: its elements are not in the ruleset"
            return Problem("elements", who, message, _SYNC)
        return self.forwarding.problem(port)


def _not_published(guest: Guest) -> list[Row]:
    """Return the rows of a guest that should be published but has no record."""
    problem = Problem("not-published", guest.title, "it is not published yet", _SYNC)
    nothing = Record(guest, State.RESERVED, 0.0)
    return [Row(nothing, port, "not published", problem) for port in guest.ports]


def _no_address(guest: Guest) -> Problem:
    """Return the problem of a guest whose address was not found yet."""
    is_leased = any(interface.network for interface in guest.leased)
    message = "no lease of the guest is known" if is_leased else "its address was not seen yet"
    return Problem("no-address", guest.title, message, _SYNC)


def _says(guest: Guest) -> tuple[object, ...]:
    """Return what a definition says about a guest's ports, without leased addresses."""
    published = [p._replace(target_address=None) if guest.leased else p for p in guest.ports]
    return set(published), set(guest.limits), guest.leased, guest.network_bridges
