"""The routing rules by mark, as the kernel has them.

This module must not import pyroute2: that takes longer than a whole ``cgw status``.
Source: include/uapi/linux/fib_rules.h, ip-rule(8).
"""

from __future__ import annotations

import socket
import struct

from cgw_hooks.host import netlink

_GET_RULE = 34  # RTM_GETRULE
_FAMILY = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}
_HEADER_SIZE = 12  # struct fib_rule_hdr
_MARK, _TABLE = 10, 15  # FRA_FWMARK, FRA_TABLE
_NUMBER = struct.Struct("=I")


def marked_tables(family: int) -> set[tuple[int, int]]:
    """Return mark and table of each rule of an IP family that has a mark. Raises ``OSError``."""

    def read(payload: memoryview) -> tuple[int, int] | None:
        found = netlink.attributes(bytes(payload[_HEADER_SIZE:]))
        if _MARK not in found or _TABLE not in found:
            return None
        return _NUMBER.unpack(found[_MARK])[0], _NUMBER.unpack(found[_TABLE])[0]

    with netlink.Channel(netlink.ROUTE) as channel:
        body = bytes([_FAMILY[family]]).ljust(_HEADER_SIZE, b"\0")
        return set(channel.dump(_GET_RULE, body, read))
