"""The packets of a published port, as they meet the base chains of a host."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.packet_filter import Range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.packet_filter import Chain, Packet
    from cgw_hooks.core.published_port import Address, PublishedPort

#: cgw translates at -105 in prerouting (core/rules/table).
_TRANSLATION = -105
#: The ports that clients use.
_OF_CLIENTS = Range(1024, 65535)
#: What is not known of a frame on a bridge.
_NOT_OF_FRAMES = {"state", "status", "direction", "ct mark", "daddr type", "bridged"}


class Way(NamedTuple):
    """The way of a published port's packets: in by ``outer`` devices, out by ``device``."""

    port: PublishedPort
    target: Address
    #: The device on whose link the guest is.
    device: str
    outer: tuple[str, ...]
    #: Whether packets may have a mark, which then is unknown.
    is_marked: bool = False
    #: Whether br_netfilter passes bridged packets to the chains.
    is_bridged: bool = False
    #: Those devices of the way that are bridges.
    bridges: frozenset[str] = frozenset()


class Met(NamedTuple):
    """A packet that meets a chain, and where it comes from."""

    packet: Packet
    is_answer: bool
    is_bridged: bool = False


def of_client(way: Way, chain: Chain) -> Iterator[Met]:
    """Yield what meets a chain if a client connects: its first packet, and an answer."""
    if chain.is_of_bridge:
        yield from _on_its_bridges(way, chain)
        return
    to_guest, to_client = _both(way, is_translated=True)
    # If it is not known by which device clients come in, the packets have no such field.
    for comes_in, goes_out in [({"iif": d}, {"oif": d}) for d in way.outer] or [({}, {})]:
        if chain.hook == "prerouting" and chain.priority <= _TRANSLATION:
            yield Met({**_asked(way), **comes_in}, is_answer=False)
        elif chain.hook == "prerouting":
            yield Met({**to_guest, **comes_in}, is_answer=False)
        elif chain.hook == "forward":
            yield Met({**to_guest, **comes_in, "oif": way.device}, is_answer=False)
            yield Met({**to_client, "iif": way.device, **goes_out}, is_answer=True)
        elif chain.hook == "postrouting":
            yield Met({**to_guest, "oif": way.device}, is_answer=False)
            yield Met({**to_client, **goes_out}, is_answer=True)
    if chain.hook == "prerouting":
        yield Met({**to_client, "iif": way.device}, is_answer=True)


def of_node(way: Way, chain: Chain) -> Iterator[Met]:
    """Yield what meets a chain if this node itself connects to the guest."""
    if chain.is_of_bridge:
        return
    to_guest, to_node = _both(way, is_translated=False)
    if chain.hook in {"output", "postrouting"}:
        yield Met({**to_guest, "oif": way.device}, is_answer=False)
    elif chain.hook in {"prerouting", "input"}:
        yield Met({**to_node, "iif": way.device, "daddr type": "local"}, is_answer=True)


def _both(way: Way, *, is_translated: bool) -> tuple[Packet, Packet]:
    """Return the first packet to a guest, and its answer."""
    status = {"dnat"} if is_translated else set()
    both = _common(way)
    to_guest = {
        **both, "daddr": way.target, "dport": way.port.to, "sport": _OF_CLIENTS, "state": "new",
        "direction": "original", "status": frozenset(status), "daddr type": "unicast",
    }  # fmt: skip
    answer = {
        **both, "sport": way.port.to, "dport": _OF_CLIENTS, "state": "established",
        "direction": "reply", "status": frozenset({*status, "seen-reply"}),
    }  # fmt: skip
    return to_guest, answer


def _common(way: Way) -> Packet:
    packet: Packet = {"protocol": way.port.protocol, "family": way.port.family, "bridged": False}
    if not way.is_marked:
        packet |= {"mark": 0, "ct mark": 0}
    return packet


def _asked(way: Way) -> Packet:
    """Return the packet of a client that is not translated yet."""
    packet: Packet = {
        **_common(way), "dport": way.port.start, "sport": _OF_CLIENTS, "state": "new",
        "direction": "original",
        "status": frozenset(), "daddr type": "local",
    }  # fmt: skip
    if not way.port.listen_address.is_unspecified:
        packet["daddr"] = way.port.listen_address
    return packet


def on_bridge(way: Way, chain: Chain) -> Iterator[Met]:
    """Yield what another node sends to the guest through this node's bridge, and the answer."""
    if chain.hook != "forward" or not way.is_bridged or chain.is_of_bridge:
        return
    between = {"iif": way.device, "oif": way.device, "bridged": True}
    for is_answer, packet in enumerate(_both(way, is_translated=False)):
        yield Met({**packet, **between}, is_answer=bool(is_answer), is_bridged=True)


def _on_its_bridges(way: Way, chain: Chain) -> Iterator[Met]:
    """Yield what meets a chain of bridges if the clients' device or the guest's one is a bridge.

    The port of the bridge is not known, and bridges do not track connections.
    """
    to_guest, to_client = _both(way, is_translated=True)
    comes_in, goes_out = chain.hook in {"prerouting", "input"}, chain.hook in {
        "output", "postrouting",
    }  # fmt: skip
    if not way.bridges.isdisjoint(way.outer):
        if comes_in:
            yield Met(_frame(_asked(way)), is_answer=False)
        elif goes_out:
            yield Met(_frame({**to_client, "sport": way.port.start}), is_answer=True)
    if way.device in way.bridges:
        if comes_in:
            yield Met(_frame(to_client), is_answer=True)
        elif goes_out:
            yield Met(_frame(to_guest), is_answer=False)


def _frame(packet: Packet) -> Packet:
    return {field: value for field, value in packet.items() if field not in _NOT_OF_FRAMES}
