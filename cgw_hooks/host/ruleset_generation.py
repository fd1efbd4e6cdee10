"""The generation number of the nftables ruleset of this network namespace.

The number grows with each transaction.
"""

from __future__ import annotations

import struct
import time

from cgw_hooks.errors import RulesetError
from cgw_hooks.host import netlink

_GETGEN = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN: linux/netfilter/nf_tables.h
_NFGENMSG = struct.Struct(">BBH")  # family, version, resource: linux/netfilter/nfnetlink.h
_GEN_ID = 1  # NFTA_GEN_ID, 32 bits in network byte order
_POLL_SECONDS = 0.2


def generation() -> int:
    """Return the present generation number. Raises ``RulesetError``."""
    try:
        with netlink.Channel(netlink.NETFILTER) as channel:
            (answer,) = channel.ask(_GETGEN, _NFGENMSG.pack(0, 0, 0))
    except OSError as error:
        raise RulesetError("nftables", f"the kernel does not answer: {error.strerror}") from error
    return int.from_bytes(netlink.attributes(answer[_NFGENMSG.size :])[_GEN_ID])


def wait_until_quiet(*, seconds: float, at_most: float) -> None:
    """Wait until the ruleset is unchanged for ``seconds``; wait ``at_most`` seconds in all.

    Raises ``RulesetError`` if the kernel does not answer.
    """
    last = generation()
    now = changed = time.monotonic()
    deadline = now + at_most
    while now < min(changed + seconds, deadline):
        time.sleep(_POLL_SECONDS)
        now = time.monotonic()
        if (current := generation()) != last:
            last, changed = current, now
