"""The counters of the elements of nftables maps, read over netlink.

A listing by libnftables takes forty times as long. No hook call loads this.
Source: include/uapi/linux/netfilter/nf_tables.h, net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

import errno

from cgw_hooks.errors import RulesetError
from cgw_hooks.host import netlink
from cgw_hooks.host.netlink import attribute, attributes, listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_GET_ELEMENTS = 10 << 8 | 13  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM
_INET = bytes([1, 0, 0, 0])  # struct nfgenmsg: NFPROTO_INET
_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
_KEY, _EXPRESSION = 1, 7  # NFTA_SET_ELEM_*
_VALUE = 1  # NFTA_DATA_VALUE
_NAME, _DATA = 1, 2  # NFTA_EXPR_*
_PACKETS = 2  # NFTA_COUNTER_*


def read_counters(table: str, maps: Iterable[str]) -> dict[tuple[str, bytes], int]:
    """Return the packets that each element has counted: map and key of the element -> number.

    ``table`` is the name of a table of the family inet. Of an interval, the key is its first
    value. A map that is not there has no elements, and an element without a counter is left out.
    Raises ``RulesetError`` if the kernel does not answer.
    """
    found: dict[tuple[str, bytes], int] = {}
    with netlink.Channel(netlink.NETFILTER) as channel:
        for name in maps:
            question = _INET + _string(_TABLE, table) + _string(_SET, name)
            try:
                parts = channel.dump(_GET_ELEMENTS, question, lambda payload: [*_counted(payload)])
            except OSError as error:
                if error.errno == errno.ENOENT:
                    continue
                raise RulesetError("nftables", f"its counters cannot be read: {error}") from error
            found.update(((name, key), count) for part in parts for key, count in part)
    return found


def _string(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _counted(payload: memoryview) -> Iterator[tuple[bytes, int]]:
    """Yield key and number of packets of each element of one answer."""
    elements = attributes(payload[len(_INET) :]).get(_ELEMENTS, b"")
    for _, content in listed(elements):
        element = attributes(content)
        expression = attributes(element.get(_EXPRESSION, b""))
        if _KEY in element and bytes(expression.get(_NAME, b"")) == b"counter\0":
            counter = attributes(expression.get(_DATA, b""))
            key = bytes(attributes(element[_KEY]).get(_VALUE, b""))
            yield key, int.from_bytes(counter.get(_PACKETS, b""), "big")
