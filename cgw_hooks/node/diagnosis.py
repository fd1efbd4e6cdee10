"""What a packet would meet: the published ports as they stand at this moment.

Compares the records with the kernel's ruleset, the node's listeners, its settings and
addresses, libvirt's firewall, leases and definitions. Sends no packet and changes nothing.
"""

from __future__ import annotations

from functools import cache

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse.nft_listing import Listing, parse_listing
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import State, overridden, translated
from cgw_hooks.core.rules import table
from cgw_hooks.errors import CgwError, HypervisorError, RulesetError, quoted
from cgw_hooks.host import libvirt_api, listeners, routes, sysctl
from cgw_hooks.node import ports
from cgw_hooks.node.firewall_exceptions import bridges_of
from cgw_hooks.sources import libvirt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import Address, PublishedPort
    from cgw_hooks.core.record import Record
    from cgw_hooks.host.nft import Nft
    from cgw_hooks.node.publisher import Publisher

_SYNC = "run: cgw sync"


class Row(NamedTuple):
    """One published port of one guest, as it stands at this moment."""

    record: Record
    port: PublishedPort | None
    #: "published" only where a client would find it open.
    state: str
    problem: Problem | None = None


class Diagnosis(NamedTuple):
    """All rows, and what is wrong with the node itself."""

    rows: list[Row]
    problems: list[Problem]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(row.problem for row in self.rows)


def diagnose(publisher: Publisher, name: str | None = None) -> Diagnosis:
    """Look at everything that is published, or at one guest. Raises ``CgwError``."""
    records, errors = publisher.state.all()
    problems = [Problem.of(error) for error in errors.values()]
    look = _Look(publisher, records)
    problems += look.node_problems()
    rows = []
    hidden = overridden(records.values())
    for record in records.values():
        if name is None or record.guest.name == name:
            rows += look.rows(record, is_overridden=record.key in hidden)
    rows.sort(key=lambda row: (row.record.guest.name, row.port.start if row.port else 0))
    return Diagnosis(rows, problems)


class _Look:
    """One look at the node: each thing is read once, for all guests."""

    def __init__(self, publisher: Publisher, records: dict[GuestKey, Record]) -> None:
        self.config = publisher.config
        self.records = records
        self.should_be = translated(list(records.values()))
        found_tables = read_tables(publisher.nft, self.config)
        self.difference = compare(self.config, self.should_be, found_tables)
        self.listeners = ports.node_listeners(record.guest for record in records.values())
        bridges = {bridge for record in records.values() for bridge in bridges_of(record)}
        self.not_admitted = publisher.firewall.not_admitted(bridges)
        self.is_local = cache(listeners.is_local)
        self.forwarding = cache(self._forwarding)
        self.definitions = self._definitions()

    def node_problems(self) -> list[Problem]:
        """What is wrong with the node, whichever guest it harms."""
        found = []
        if self.difference.rules and self.should_be:
            found.append(self._rules_problem())
        extra = sorted(key for keys in self.difference.extra.values() for key in keys)
        if extra:
            shown = ", ".join(f"{{ {key} }}" for key in extra[:3])
            message = f"{len(extra)} elements are there that no record has: {shown}"
            found.append(Problem("extra-elements", f"table {table.TABLE}", message, _SYNC))
        return found

    def _rules_problem(self) -> Problem:
        return Problem("rules", "ruleset", self.difference.rules, _SYNC)

    def rows(self, record: Record, *, is_overridden: bool) -> list[Row]:
        """The rows of one guest."""
        guest = record.guest
        if is_overridden:
            return [Row(record, port, "overridden") for port in guest.ports]
        problem = record.problem or self._problem(record)
        if not guest.ports:
            return [Row(record, None, "not published", problem)] if problem else []
        return [self._row(record, port, problem) for port in guest.ports]

    def _row(self, record: Record, port: PublishedPort, problem: Problem | None) -> Row:
        if record.state is not State.PUBLISHED:
            return Row(record, port, "failed" if problem else record.state.value, problem)
        taken = self.listeners.taken(port.claim)
        if taken or port in record.withheld:
            conflict = ports.taken_by_node(record.guest, taken or port.claim)
            if taken and port not in record.withheld:
                conflict.cure = _SYNC
            return Row(record, port, "withheld", Problem.of(conflict))
        if port.target_address is None:
            who = f"guest {quoted(record.guest.name)}"
            none = Problem("no-address", who, "no lease of the guest is known", _SYNC)
            return Row(record, port, "no address yet", problem or none)
        if record.problem and record.withheld:
            problem = self._problem(record)  # what is withheld is another port's problem
        problem = problem or self._port_problem(record, port)
        if problem:
            return Row(record, port, "failed", problem)
        return Row(record, port, "published" if self.is_local(port.listen_address) else "dormant")

    def _problem(self, record: Record) -> Problem | None:
        """What keeps all ports of a guest from working."""
        if record.state is not State.PUBLISHED:
            return None
        who = f"guest {quoted(record.guest.name)}"
        behind = sorted(bridges_of(record) & self.not_admitted)
        if behind:
            message = f"libvirt's firewall rejects what comes in to {behind[0]}"
            return Problem("firewall", who, f"{message}: the exception is not in front", _SYNC)
        return self._lease_problem(record) or self._definition_problem(record)

    def _lease_problem(self, record: Record) -> Problem | None:
        guest = record.guest
        if not guest.leased:
            return None
        now = set(libvirt.leased_addresses(guest.leased))
        had = {port.target_address for port in guest.ports if port.target_address}
        if had <= now and (had or not now):
            return None
        message = (
            f"it has the address {', '.join(map(str, now))} by now" if now else "its lease ended"
        )
        return Problem("lease", f"guest {quoted(guest.name)}", message, _SYNC)

    def _definition_problem(self, record: Record) -> Problem | None:
        guest = record.guest
        if guest.key.driver not in self.definitions:
            return None
        defined = self.definitions[guest.key.driver].get(guest.key)
        who = f"guest {quoted(guest.name)}"
        if defined is None:
            return Problem("not-running", who, "libvirt does not run it with an annotation", _SYNC)
        if isinstance(defined, CgwError):
            return Problem.of(defined)
        if defined.claims != guest.claims or _targets(defined) != _targets(guest):
            return Problem("definition", who, "its definition was changed since", _SYNC)
        return None

    def _port_problem(self, record: Record, port: PublishedPort) -> Problem | None:
        """What keeps one port from working."""
        who = f"guest {quoted(record.guest.name)}"
        elements = table.elements([port])
        if any(
            not self.difference.missing.get(name, set()).isdisjoint(keys)
            for name, keys in elements.items()
        ):
            return Problem("elements", who, "its elements are not in the ruleset", _SYNC)
        if self.difference.rules:
            return self._rules_problem()
        if port.target_address:
            return self.forwarding(port.target_address)
        return None

    def _forwarding(self, target: Address) -> Problem | None:
        """Whether the kernel forwards between the uplink and a guest's device."""
        family = "ipv4" if target.version == 4 else "ipv6"  # noqa: PLR2004
        cure = (
            "run: cgw node up" if self.config.guest_networks else "sysctl -w net.ipv4.ip_forward=1"
        )
        if family == "ipv6":
            if sysctl.read("net/ipv6/conf/all/forwarding") == "0":
                cure = cure.replace("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
                return Problem("forwarding", "node", "the kernel does not forward IPv6", cure)
            return None
        route = routes.route_to(target)
        devices = [*self.config.uplink.devices, *([route.device] if route else [])]
        for device in devices:
            if sysctl.read(f"net/ipv4/conf/{device}/forwarding") == "0":
                message = f"the kernel does not forward IPv4 that comes in by {device}"
                return Problem("forwarding", "node", message, cure)
        return None

    def _definitions(self) -> dict[str, dict[GuestKey, Guest | CgwError]]:
        """What libvirt's guests publish by their definitions now, of the drivers in the records.

        A libvirt that does not answer harms no published port: it is not asked again.
        """
        found = {}
        published = (r.key.driver for r in self.records.values() if r.state is State.PUBLISHED)
        for driver in sorted(libvirt_api.URIS.keys() & set(published)):
            try:
                found[driver] = dict(libvirt.running(self.config, driver))
            except HypervisorError:
                continue
        return found


def _targets(guest: Guest) -> list[tuple[int, object]]:
    return [(port.to, port.sources) for port in guest.ports]


class Difference(NamedTuple):
    """How the kernel's table is not what it should be."""

    #: What is wrong with the static rules, in words; empty: nothing.
    rules: str
    #: Map -> keys.
    missing: dict[str, set[str]]
    extra: dict[str, set[str]]

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.rules or self.missing or self.extra)

    def in_words(self) -> list[str]:
        """The same for a person."""
        words = [self.rules] if self.rules else []
        for what, found in (("missing", self.missing), ("left over", self.extra)):
            count = sum(map(len, found.values()))
            if count:
                words.append(f"table {table.TABLE}: {count} elements were {what}")
        return words


def read_tables(nft: Nft, config: NodeConfig) -> dict[str, Listing]:
    """Our tables as they are in the kernel, those that are there."""
    found = {}
    for name in table.tables(config):
        try:
            found[name] = parse_listing(nft.list_table(name))
        except RulesetError:
            continue
    return found


def compare(
    config: NodeConfig, should_be: Collection[PublishedPort], found: dict[str, Listing]
) -> Difference:
    """How the kernel's tables differ from static rules and these ports."""
    wanted = table.elements(should_be)
    if table.TABLE not in found:
        if not should_be and not config.guest_networks:
            return Difference("", {}, {})  # nothing was published yet
        missing = {name: set(elements) for name, elements in wanted.items()}
        return Difference(f"table {table.TABLE} is not there", missing, {})
    listing = found[table.TABLE]
    missing, extra = {}, {}
    for name in table.map_names():
        here, there = wanted.get(name, {}), listing.maps.get(name, {})
        missing[name] = {key for key, _ in here.items() - there.items()}
        extra[name] = there.keys() - here.keys()
    return Difference(
        _wrong_rules(config, found),
        {name: keys for name, keys in missing.items() if keys},
        {name: keys for name, keys in extra.items() if keys},
    )


def _wrong_rules(config: NodeConfig, found: dict[str, Listing]) -> str:
    revisions = found[table.TABLE].maps.get("revision", {}).values()
    if table.revision(config) not in revisions:
        return f"table {table.TABLE} is not the one of this config"
    for name, chains in table.tables(config).items():
        if name not in found:
            return f"table {name} is not there"
        for chain, count in chains.items():
            if found[name].chains.get(chain) != count:
                return f"table {name}: chain {chain} does not have its {count} rules"
    return ""
