"""The events of nft's trace in this network namespace, as the kernel tells them.

The kernel tells them to every process that listens, for each packet that some rule has marked with
``meta nftrace set 1``. pyroute2 (0.7) does not read them, and the text of ``nft monitor trace``
differs between versions of nft. Rules of iptables-legacy do not know the mark.
Source: include/uapi/linux/netfilter/nf_tables.h, net/netfilter/nf_tables_trace.c.
"""

from __future__ import annotations

import _socket
import struct

from cgw_hooks.core.trace.events import POLICY, RETURN, RULE, TraceEvent, parse_packet
from cgw_hooks.host import netlink, netlink_events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

_GROUP = 9  # NFNLGRP_NFTRACE, include/uapi/linux/netfilter/nfnetlink.h
_TRACE = 10 << 8 | 17  # NFNL_SUBSYS_NFTABLES, NFT_MSG_TRACE
_GENERIC = 4  # struct nfgenmsg: family, version, resource
#: NFTA_TRACE_*
_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _ID = 1, 2, 3, 4, 5, 6
_NETWORK_HEADER, _TRANSPORT_HEADER, _IIF, _OIF, _POLICY = 8, 9, 10, 12, 16
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2  # NFTA_VERDICT_*
#: NFPROTO_* of include/uapi/linux/netfilter.h, as nft writes them.
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_KINDS = {1: POLICY, 2: RETURN, 3: RULE}  # NFT_TRACETYPE_*
#: NF_DROP ... of linux/netfilter.h; NFT_CONTINUE ... of linux/netfilter/nf_tables.h. The upper
#: bits of the former may hold an error number or the number of a queue.
_VERDICTS = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", 4: "repeat"}
_OWN_VERDICTS = {-1: "continue", -2: "break", -3: "jump", -4: "goto", -5: "return"}
_VERDICT_MASK = 0xFF
_SIGNED, _UNSIGNED, _LONG = struct.Struct("!i"), struct.Struct("!I"), struct.Struct("!Q")
_BUFFER_SIZE = 4 << 20


class TraceEvents:
    """Hears of all traced packets. Only one thread may use it. Raises ``OSError``."""

    def __init__(self) -> None:
        self._subscription = netlink_events.Subscription(netlink.NETFILTER, [_GROUP], _BUFFER_SIZE)
        self._devices: dict[int, str] = {}
        #: Whether the kernel had more to tell than could be read.
        self.were_lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._subscription.close()

    def fileno(self) -> int:
        """Return the descriptor, which is readable if there is news."""
        return self._subscription.fileno()

    def read(self) -> Iterator[TraceEvent]:
        """Yield the events that have come; do not wait for more."""
        for kind, payload in self._subscription.read():
            if kind == netlink_events.LOST:
                self.were_lost = True
            elif kind == _TRACE and len(payload) > _GENERIC:
                family = _FAMILIES.get(payload[0], str(payload[0]))
                yield self._event(family, netlink.attributes(payload[_GENERIC:]))

    def _event(self, family: str, found: dict[int, bytes | memoryview]) -> TraceEvent:
        kind = _KINDS.get(_number(found, _TYPE), "")
        if kind == POLICY:
            verdict, target = _VERDICTS.get(_number(found, _POLICY), "accept"), ""
        else:
            verdict, target = _verdict(netlink.attributes(found.get(_VERDICT, b"")))
        return TraceEvent(
            packet_id=_number(found, _ID),
            table=f"{family} {_text(found.get(_TABLE, b''))}",
            chain=_text(found.get(_CHAIN, b"")),
            kind=kind,
            verdict=verdict,
            handle=_LONG.unpack(found[_HANDLE])[0] if _HANDLE in found else 0,
            target=target,
            packet=parse_packet(
                bytes(found.get(_NETWORK_HEADER, b"")), bytes(found.get(_TRANSPORT_HEADER, b""))
            ),
            came_by=self._device(_number(found, _IIF)),
            leaves_by=self._device(_number(found, _OIF)),
        )

    def _device(self, index: int) -> str:
        """Return the name of a device; its number if it was deleted meanwhile."""
        if not index:
            return ""
        if index not in self._devices:
            try:
                self._devices[index] = _socket.if_indextoname(index)
            except OSError:
                return f"device {index}"
        return self._devices[index]


def _verdict(found: dict[int, bytes | memoryview]) -> tuple[str, str]:
    if _VERDICT_CODE not in found:
        return "", ""
    number = _SIGNED.unpack(found[_VERDICT_CODE])[0]
    name = _OWN_VERDICTS.get(number) or _VERDICTS.get(number & _VERDICT_MASK, str(number))
    return name, _text(found.get(_VERDICT_CHAIN, b""))


def _number(found: dict[int, bytes | memoryview], kind: int) -> int:
    return int(_UNSIGNED.unpack(found[kind])[0]) if kind in found else 0


def _text(value: bytes | memoryview) -> str:
    return bytes(value).rstrip(b"\0").decode(errors="replace")
