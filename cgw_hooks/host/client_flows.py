"""Deletes the tracked flows of clients to published ports, over ctnetlink.

The flows are known by the bits of their label (``core/rules/names``), so only flows that cgw has
translated are deleted. Only ``cgw deny`` uses this.
Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import _socket
import errno
import struct
import sys

from cgw_hooks.core.rules.names import LEFT_LABEL, SEEN_LABEL
from cgw_hooks.errors import RulesetError
from cgw_hooks.host import netlink
from cgw_hooks.host.netlink import attribute, attributes, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cgw_hooks.core.published_port import Network

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_TUPLE_ORIG, _ID, _ZONE, _LABELS, _FILTER = 1, 12, 18, 22, 25
_TUPLE_IP = 1
_FILTER_ORIG_FLAGS = 1
_BY_SOURCE = struct.pack("=I", 1 << 0)  # nf_internals.h
_HEADER_SIZE = 4  # struct nfgenmsg
_LABEL_BYTES = 16
#: IP version -> family, and CTA_IP_V4_SRC or CTA_IP_V6_SRC.
_FAMILIES = {4: (int(_socket.AF_INET), 1), 6: (int(_socket.AF_INET6), 3)}
#: So many clients are asked for one by one: the kernel then returns their flows only.
_ASKED_SINGLY = 8


def delete_flows(clients: Iterable[Network]) -> int:
    """Delete the flows of these clients that `publish` has translated; return their number.

    Raises ``RulesetError``.
    """
    by_version: dict[int, list[Network]] = {}
    for client in clients:
        by_version.setdefault(client.version, []).append(client)
    try:
        with netlink.Channel(netlink.NETFILTER) as channel:
            found = [
                identity
                for version, networks in by_version.items()
                for identity in _find(channel, version, networks)
            ]
            results = channel.command(_DELETE, found)
    except OSError as error:
        raise RulesetError(
            "conntrack", f"flows of denied clients cannot be listed: {error.strerror}"
        ) from error
    for number in results:
        if number not in {0, errno.ENOENT}:  # ENOENT: the flow has ended by itself
            name = errno.errorcode.get(number, number)
            raise RulesetError("conntrack", f"a flow of a denied client cannot be deleted: {name}")
    return results.count(0)


def _find(channel: netlink.Channel, version: int, networks: list[Network]) -> list[bytes]:
    """Return what identifies each flow to delete."""
    family, source = _FAMILIES[version]
    header = bytes([family, 0, 0, 0])
    read = _reader(source, networks)
    is_single = all(network.prefixlen == network.max_prefixlen for network in networks)
    # The kernel compares IPv6 addresses the wrong way round (see `conntrack`).
    if version == 4 and is_single and len(networks) <= _ASKED_SINGLY:  # noqa: PLR2004
        questions = [
            header
            + nested(_TUPLE_ORIG, nested(_TUPLE_IP, attribute(source, n.network_address.packed)))
            + nested(_FILTER, attribute(_FILTER_ORIG_FLAGS, _BY_SOURCE))
            for n in networks
        ]
        try:
            return [each for ask in questions for each in channel.dump(_GET, ask, read)]
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
                raise
    return channel.dump(_GET, header, read)


def _reader(source: int, networks: list[Network]) -> Callable[[memoryview], bytes | None]:
    """Return the function that reads one flow of the kernel's answer."""
    bits = networks[0].max_prefixlen
    #: Bits that do not count -> the networks of this length, without these bits.
    by_length: dict[int, set[int]] = {}
    for network in networks:
        rest = bits - network.prefixlen
        by_length.setdefault(rest, set()).add(int(network.network_address) >> rest)

    def read(payload: memoryview) -> bytes | None:
        found = attributes(bytes(payload[_HEADER_SIZE:]))
        if not _is_translated(found.get(_LABELS, b"")):
            return None
        address = attributes(attributes(found[_TUPLE_ORIG])[_TUPLE_IP])[source]
        number = int.from_bytes(address, "big")
        if not any(number >> rest in starts for rest, starts in by_length.items()):
            return None
        identity = bytes(payload[:_HEADER_SIZE]) + nested(_TUPLE_ORIG, bytes(found[_TUPLE_ORIG]))
        for kind in (_ZONE, _ID):
            if kind in found:
                identity += attribute(kind, bytes(found[kind]))
        return identity

    return read


def _is_translated(label: bytes | memoryview) -> bool:
    """Whether `publish` has translated a flow with this label."""
    if len(label) != _LABEL_BYTES:
        return False
    # The kernel returns its array of "unsigned long", of which the first has the lowest bits.
    size = struct.calcsize("@L")
    words = [label[at : at + size] for at in range(0, _LABEL_BYTES, size)]
    bits = sum(int.from_bytes(w, sys.byteorder) << (8 * size * n) for n, w in enumerate(words))
    return bool(bits >> SEEN_LABEL & 1) and not bits >> LEFT_LABEL & 1
