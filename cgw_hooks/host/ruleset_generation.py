"""The generation of this network namespace's nftables ruleset: it grows with each commit."""

from __future__ import annotations

import os
import socket
import struct
import time

from cgw_hooks.errors import RulesetError

_NETLINK_NETFILTER = 12  # include/uapi/linux/netlink.h
_GETGEN = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN (linux/netfilter/nf_tables.h)
_ERROR = 2  # NLMSG_ERROR
_REQUEST = 1  # NLM_F_REQUEST
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_NFGENMSG = struct.Struct(">BBH")  # family, version, resource
_NUMBER = struct.Struct(">HHI")  # struct nlattr (native order, read by length alone), value
_POLL_SECONDS = 0.2


def generation() -> int:
    """The number of the ruleset that holds now. Raises ``RulesetError``."""
    request = _HEADER.pack(_HEADER.size + _NFGENMSG.size, _GETGEN, _REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            netlink.sendto(request + _NFGENMSG.pack(0, 0, 0), (0, 0))
            answer = netlink.recv(4096)
    except OSError as error:
        raise RulesetError(f"the ruleset's generation cannot be read: {error.strerror}") from error
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind == _ERROR:
        (number,) = struct.unpack_from("=i", answer, _HEADER.size)
        raise RulesetError(f"the ruleset's generation cannot be read: {os.strerror(-number)}")
    # Its first attribute is NFTA_GEN_ID (net/netfilter/nf_tables_api.c, nf_tables_fill_gen_info).
    return int(_NUMBER.unpack_from(answer, _HEADER.size + _NFGENMSG.size)[2])


def wait_until_quiet(*, seconds: float, at_most: float) -> None:
    """Wait until nobody has changed a rule for so many seconds.

    A program that changes rules all the time is not waited for longer than ``at_most`` seconds.
    Raises ``RulesetError``.
    """
    last = generation()
    now = changed = time.monotonic()
    deadline = now + at_most
    while now < min(changed + seconds, deadline):
        time.sleep(_POLL_SECONDS)
        now = time.monotonic()
        if (current := generation()) != last:
            last, changed = current, now
