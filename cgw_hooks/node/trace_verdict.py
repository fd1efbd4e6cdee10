"""Says how a traced packet fared: what is wrong, and what to do."""

from __future__ import annotations

from cgw_hooks.core.problem import Problem
from cgw_hooks.core.rules.names import DENIED_TABLE, LIMIT_CHAIN, is_own
from cgw_hooks.core.trace import story
from cgw_hooks.core.trace.passage import BRIDGED, DROPPED, HERE, LEFT, UNROUTED
from cgw_hooks.host import neighbours, nft_tables, routes, sysctl
from cgw_hooks.node.forwarding import Forwarding
from cgw_hooks.node.trace_cure import cure_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.core.trace.events import Packet
    from cgw_hooks.core.trace.passage import Passage
    from cgw_hooks.node.trace import Trace
    from cgw_hooks.node.traced_port import TracedPort

#: Protocol of the answer -> the option of ss that lists its listeners; UDP answers by ICMP.
_OPTIONS = {"tcp": "t", "sctp": "S"}
_LEGACY = "/proc/net/{}_tables_names"


def problem(config: NodeConfig, traced: TracedPort, found: Trace, waited: str) -> Problem | None:
    """Return what keeps the client from its answer; None if the answer went back.

    ``waited``: for how long, for people.
    """
    request, answer = found.seen
    if request is None or request.first is None:
        return _no_packet(traced, waited)
    port = traced.port_of(request.first.source.version)
    if request.fate not in {LEFT, BRIDGED}:
        return _request_problem(config, traced, port, found, request)
    return (
        _answer_problem(traced, found, answer) if answer else _silent(traced, port, found, request)
    )


def _request_problem(
    config: NodeConfig, traced: TracedPort, port: PublishedPort, found: Trace, request: Passage
) -> Problem:
    """Return what has ended the client's packet on this host."""
    if request.fate == DROPPED:
        return _dropped(traced, found, request, is_answer=False)
    if request.fate == UNROUTED:
        return _unrouted(config, traced, port, request)
    if request.fate == HERE:
        return _not_translated(traced, port, request)
    return _lost(traced, request, "the packet")


def _answer_problem(traced: TracedPort, found: Trace, answer: Passage) -> Problem | None:
    """Return what is wrong with the guest's answer; None if it went back."""
    if answer.fate == DROPPED:
        return _dropped(traced, found, answer, is_answer=True)
    if found.is_entry and (answer.fate == BRIDGED or not _is_translated_back(found)):
        return _passed_by(traced, answer)
    if not answer.has_passed and answer.fate != BRIDGED:
        return _lost(traced, answer, "the answer")
    if answer.first and answer.first.is_refusal:
        return _refused(traced, answer.first)
    return None


def _is_translated_back(found: Trace) -> bool:
    """Whether the answer, where it has left, comes from where the client has asked."""
    request, answer = found.seen
    if not request or not answer or not answer.has_passed:
        return True
    asked, said = request.first, answer.last
    if not asked or not said or said.protocol != asked.protocol:  # an ICMP error
        return True
    return (said.source, said.source_port) == (asked.destination, asked.destination_port)


def _passed_by(traced: TracedPort, answer: Passage) -> Problem:
    return Problem(
        "not-translated", traced.guest.title,
        f"the answer left by {answer.left_by} as it was: this host has not translated it back, so "
        "the client refuses it",
        "make this host the default gateway of the guest, or give its network a [[guest-network]]",
    )  # fmt: skip


def _no_packet(traced: TracedPort, waited: str) -> Problem:
    earlier = sorted(name for name in nft_tables.table_names() if name.startswith("netdev "))
    note = f"; {', '.join(earlier)} comes before all that is traced" if earlier else ""
    return Problem(
        "no-packet",
        traced.guest.title,
        f"no client's packet to {traced.listen} came in {waited}{note}",
        "if a client tried meanwhile, its packets do not reach this host: see its route, and the "
        "firewalls between. Else run it again with --probe",
    )


def _dropped(traced: TracedPort, found: Trace, way: Passage, *, is_answer: bool) -> Problem:
    own = _refused_client(traced, found, way)
    if own:
        return own
    what = "the answer" if is_answer else "the packet"
    ended = next((s for s in story.steps(way, found.texts) if s.is_end), None)
    by = f"by `{ended.rule}`" if ended and ended.rule else "by its policy"
    where = f"{ended.place} has {ended.what} {what}" if ended else f"{what} was dropped"
    cure = cure_of(traced, way, is_answer=is_answer)
    return Problem("dropped", traced.guest.title, f"{where}, {by}", cure)


def _refused_client(traced: TracedPort, found: Trace, way: Passage) -> Problem | None:
    """Return the problem of a client that a ban, or the limit of the port, has refused."""
    request, end = found.seen[0], way.end
    if end is None or request is None or request.first is None:
        return None
    client = request.first.source
    if end.table == DENIED_TABLE:
        return Problem(
            "denied",
            traced.guest.title,
            f"{client} is denied the published ports of this node",
            f"run: cgw allow {client}",
        )
    limits = traced.port_of(client.version).limits
    if limits and is_own(end.table) and end.decision.chain.startswith(LIMIT_CHAIN):
        return Problem(
            "limited",
            traced.guest.title,
            f"{client} is beyond the limit of {traced.listen}: {limits}",
            "wait, or give the port another limit",
        )
    return None


def _unrouted(
    config: NodeConfig, traced: TracedPort, port: PublishedPort, request: Passage
) -> Problem:
    """Return why the kernel's routing has discarded the packet, after all of prerouting."""
    off = Forwarding(config).problem(port)
    if off:
        return off
    who, packet, device = traced.guest.title, request.last, _device(request)
    if packet and packet.source.version == 4 and _is_strict(device):  # noqa: PLR2004
        back = routes.route_to(request.first.source if request.first else packet.source)
        if back is None or back.device != device:
            way = f"the way back leads by {back.device}" if back else "there is no way back"
            return Problem(
                "not-routed",
                who,
                f"the reverse path filter of {device} has discarded the packet, since {way}",
                f"sysctl -w net/ipv4/conf/{device}/rp_filter=2",
            )
    return Problem(
        "not-routed",
        who,
        f"the kernel's routing has discarded the packet, which came in by {device}",
        f"see: ip route get {packet.destination} from {packet.source} iif {device}"
        if packet
        else "see: ip route",
    )


def _device(request: Passage) -> str:
    return request.came_by.partition(" ")[0]


def _is_strict(device: str) -> bool:
    """Whether the reverse path filter is strict: the larger of both settings counts."""
    return max(sysctl.read(f"net/ipv4/conf/{d}/rp_filter") or "0" for d in ("all", device)) == "1"


def _not_translated(traced: TracedPort, port: PublishedPort, request: Passage) -> Problem:
    who, packet = traced.guest.title, request.first
    if port.sources and packet and not any(packet.source in source for source in port.sources):
        return Problem(
            "not-translated",
            who,
            f"{packet.source} may not use {port}: the packet went to this host itself",
            "add its network to the sources of the port",
        )
    return Problem(
        "not-translated", who,
        f"nothing has translated the packet to {port.listen}: it went to this host itself",
        "run: cgw sync",
    )  # fmt: skip


def _lost(traced: TracedPort, way: Passage, what: str) -> Problem:
    who = traced.guest.title
    place = f"among the chains of the hook {way.hook}" if way.hook else "in a bridge"
    tables = _legacy_tables()
    if tables:
        return Problem(
            "not-traceable", who,
            f"{what} has ended {place}, and iptables-legacy has rules in {tables}, which nft "
            "cannot trace",
            "see: iptables-legacy-save -c, ip6tables-legacy-save -c",
        )  # fmt: skip
    return Problem(
        "not-traceable", who,
        f"{what} has ended {place}, by no rule of nftables",
        "see: tc filter show, and eBPF programs",
    )  # fmt: skip


def _legacy_tables() -> str:
    """Return the tables of iptables-legacy in this network namespace."""
    found: set[str] = set()
    for family in ("ip", "ip6"):
        try:
            with open(_LEGACY.format(family), encoding="ascii") as file:
                found.update(file.read().split())
        except OSError:
            continue
    return ", ".join(sorted(found))


def _silent(traced: TracedPort, port: PublishedPort, found: Trace, request: Passage) -> Problem:
    who, packet = traced.guest.title, request.last
    target = packet.destination if packet else port.target_address
    left = f"the packet left by {request.left_by} for {target}"
    if request.left_by_port in found.links:
        return Problem(
            "no-answer", who,
            f"{left}, which another node runs, and no answer came back by this node",
            "run the same on that node (with ct-sync, answers to a known client leave by it)",
        )  # fmt: skip
    if target and not any(found.address == target for found in neighbours.neighbours()):
        route = routes.route_to(target)
        if route and not route.gateway:
            return Problem(
                "no-answer", who,
                f"{left}, and no host there has this address",
                f"see in the guest: ip address; here: ip neigh show {target}",
            )  # fmt: skip
    hint = _own_answer(packet)
    return Problem("no-answer", who, f"{left}, and no answer came back", hint)


def _own_answer(packet: Packet | None) -> str:
    if packet and packet.protocol != "tcp":
        return (
            f"a service may be silent to this {packet.protocol} packet; else see in the guest: "
            "ss -lnu, its firewall, and its default gateway"
        )
    return (
        "see in the guest: its firewall, and its default gateway, which must be this host if the "
        "guest sees the client's own address"
    )


def _refused(traced: TracedPort, answer: Packet) -> Problem:
    return Problem(
        "refused",
        traced.guest.title,
        f"{answer.source} has answered that nothing listens there",
        f"see in the guest: ss -ln{_OPTIONS.get(answer.protocol, 'u')}",
    )
