"""Which elements of cgw's maps count the connections to a published port.

The kernel counts each look-up that finds an element. The rules of a nat chain see only the first
packet of a flow, so this is the number of connections, not that of packets.
"""

from __future__ import annotations

import struct

from cgw_hooks.core.published_port import ANY_ADDRESS
from cgw_hooks.core.rules.elements import KINDS
from cgw_hooks.core.rules.names import PROTOCOL_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cgw_hooks.core.published_port import Address, PublishedPort

    #: Map and key of an element, the key as the kernel holds it. If the key is a range or a
    #: network, its first value counts.
    Key = tuple[str, bytes]

#: Protocol and port, each padded to four bytes (nft_set_elem of concatenations).
_PORT = struct.Struct("!B3xH2x")


def connections(port: PublishedPort, counts: Mapping[Key, int]) -> int | None:
    """Return the number of connections to a port; None if the kernel does not count them."""
    found = [count for key in keys(port) if (count := counts.get(key)) is not None]
    return sum(found) if found else None


def keys(port: PublishedPort) -> Iterator[Key]:
    """Yield the keys of all elements of a port (compare ``elements.elements``)."""
    kind, prefixes = _place(port)
    number = PROTOCOL_NUMBER[port.protocol]
    is_range = port.start < port.end and port.keeps_numbers
    name = f"{'ranges' if is_range else 'published'}{port.family}{kind}"
    for listen in (port.start,) if is_range else range(port.start, port.end + 1):
        suffix = _PORT.pack(number, listen)
        yield from ((name, prefix + suffix) for prefix in prefixes)


def _place(port: PublishedPort) -> tuple[str, list[bytes]]:
    """Return the kind of a port's map, and the addresses before protocol and port in its keys."""
    listen: Address = port.listen_address
    if port.sources:
        first = [source.network_address.packed for source in port.sources]
        return _kind("saddr", "daddr"), [source + listen.packed for source in first]
    if listen == ANY_ADDRESS[port.family]:
        return _kind(), [b""]
    return _kind("daddr"), [listen.packed]


def _kind(*fields: str) -> str:
    return next(kind for kind, prefix in KINDS.items() if prefix == fields)
