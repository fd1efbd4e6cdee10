"""Commits to the nftables ruleset of this network namespace, as the kernel tells them.

The messages of one transaction come before the NEWGEN message that ends it and names the process
(nf_tables_commit of net/netfilter/nf_tables_api.c). The process is known by its command name: its
process id is that of the initial pid namespace, so it means nothing in a container. A commit of
this process itself must not wake it, or it would react to itself forever.

Rules of iptables-legacy are not part of this ruleset; the kernel tells nothing of them.
"""

from __future__ import annotations

import struct

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.rules import bans, table
from cgw_hooks.host import netlink, netlink_events

#: The command name of the resident process: at most 15 bytes (TASK_COMM_LEN).
COMMAND_NAME = "cgw-agent"

_GROUP = 7  # NFNLGRP_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
#: enum nf_tables_msg_types, include/uapi/linux/netfilter/nf_tables.h
_NEW_GENERATION = _SUBSYSTEM | 15
#: NEWTABLE, DELTABLE, NEWCHAIN, DELCHAIN, NEWRULE, DELRULE. The other objects of a table, such as
#: sets and counters, decide nothing without a rule.
_RULES = frozenset(_SUBSYSTEM | kind for kind in (0, 2, 3, 5, 6, 8))
_GENERIC = 4  # struct nfgenmsg: family, version, resource
_FIRST_LENGTH = struct.Struct("=H")
_PROCESS_NAME = 3  # NFTA_GEN_PROC_NAME
_FAMILIES = {"inet": 1, "ip": 2, "bridge": 7, "ip6": 10}  # NFPROTO_* of linux/netfilter.h
#: 10,000 elements are 760 kB of messages, and each datagram also takes memory for itself.
_BUFFER_SIZE = 16 << 20


class Commits(NamedTuple):
    """What other processes have committed since the last look."""

    #: Our tables in which they changed anything, elements too: "inet cgw", "bridge cgw".
    ours: frozenset[str] = frozenset()
    #: Whether they changed the rules, chains or tables of another program.
    others: bool = False
    #: Whether commits were missed: anything may have changed.
    lost: bool = False

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.ours or self.others or self.lost)


class RulesetEvents:
    """Hears of the commits of other processes. Only one thread may use it. Raises ``OSError``."""

    def __init__(self, buffer_size: int = _BUFFER_SIZE) -> None:
        self._subscription = netlink_events.Subscription(netlink.NETFILTER, [_GROUP], buffer_size)
        self._own = {_table_bytes(name): name for name in table.NAMES}
        # Each ban changes elements of its table; only its rules must be looked after.
        self._bans = _table_bytes(bans.TABLE)
        # A transaction may come in several reads.
        self._ours: set[str] = set()
        self._others = False

    def fileno(self) -> int:
        """Return the descriptor, which is readable if there is news."""
        return self._subscription.fileno()

    def close(self) -> None:
        """Hear nothing more."""
        self._subscription.close()

    def read(self) -> Commits:
        """Return what other processes have committed; do not wait for more."""
        ours: set[str] = set()
        others = lost = False
        for kind, payload in self._subscription.read():
            if kind == netlink_events.LOST:
                lost = True
                self._forget()
            elif kind == _NEW_GENERATION:
                if _process_name(payload) != COMMAND_NAME.encode():
                    ours |= self._ours
                    others |= self._others
                self._forget()
            elif len(payload) > _GENERIC + 4:
                # Very many elements may come at once, so each costs one look-up and no more.
                end = _GENERIC + _FIRST_LENGTH.unpack_from(payload, _GENERIC)[0]
                place = payload[0], bytes(payload[_GENERIC + 4 : end])
                name = self._own.get(place)
                if name:
                    self._ours.add(name)
                elif kind in _RULES:
                    if place == self._bans:
                        self._ours.add(bans.TABLE)
                    else:
                        self._others = True
        return Commits(frozenset(ours), others, lost)

    def _forget(self) -> None:
        self._ours.clear()
        self._others = False


def name_this_process() -> None:
    """Give this process ``COMMAND_NAME``, so that its own commits are known.

    Threads take it over when they start, so the main thread must call this before that. (A Python
    that names its threads itself, from 3.14 on, must call it in each thread that commits.) Raises
    ``OSError``.
    """
    with open("/proc/thread-self/comm", "w", encoding="ascii") as file:
        file.write(COMMAND_NAME)


def _table_bytes(name: str) -> tuple[int, bytes]:
    """Return family and name of a table as messages have them: the name is the first attribute."""
    family, _, plain = name.partition(" ")
    return _FAMILIES[family], plain.encode() + b"\0"


def _process_name(payload: memoryview) -> bytes:
    found = netlink.attributes(payload[_GENERIC:]).get(_PROCESS_NAME, b"")
    return bytes(found).rstrip(b"\0")
