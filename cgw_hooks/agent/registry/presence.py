"""Tells the other nodes that this one is there, and looks after the registry's health.

Presence has a lease and ends some seconds after its node. It is for display, and for a guest that
is started again elsewhere; no port is withdrawn because of it.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from cgw_hooks.core.etcd.values import Put
from cgw_hooks.core.problem import Problem
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.client import Etcd

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgw_hooks.core.etcd.values import Member
    from cgw_hooks.core.node_config import Registry

#: Seconds after which the presence of a node ends that no longer renews it.
TTL = 15
_RENEW_SECONDS = 5.0
_HEALTH_SECONDS = 30.0
#: The part of the quota beyond which its end is near.
_NEAR = 0.8
_COMPACTION_CURE = "start etcd with --auto-compaction-retention=1h"
_SPACE_CURE = "run on a member: etcdctl compact, etcdctl defrag, etcdctl alarm disarm"


class Health(NamedTuple):
    """What is wrong with the registry itself."""

    problems: tuple[Problem, ...]


class PresenceKeeper:
    """One thread. ``tell`` is called with the problems of the registry when they were looked at."""

    def __init__(self, config: Registry, key: str, tell: Callable[[Health], None]) -> None:
        self._etcd = Etcd(config)
        self._key = key
        self._tell = tell
        self._wake = threading.Event()
        self._is_closed = False
        self._value = self._written = ""
        self._lease = 0
        self._looked = 0.0

    def set(self, value: str) -> None:
        """Replace what the node says about itself."""
        if value != self._value:
            self._value = value
            self._wake.set()

    def close(self) -> None:
        """End the thread; the presence then ends by its lease, or is renewed by another agent."""
        self._is_closed = True
        self._wake.set()

    def run(self) -> None:
        """Renew the presence until ``close``."""
        while not self._is_closed:
            self._wake.clear()
            for work in (self._renew, self._look):  # a full etcd may refuse the first one alone
                with suppress(RegistryError):  # the watcher tells of it
                    work()
            self._wake.wait(_RENEW_SECONDS)
        self._etcd.close()

    def _renew(self) -> None:
        value, written = self._value, self._written
        if not value:
            return
        self._written = ""  # until it is known to be there
        if not self._lease or not self._etcd.keep_alive(self._lease):
            self._lease, written = self._etcd.grant(TTL), ""
        if value != written:
            self._etcd.commit([Put(self._key, value, self._lease)])
        self._written = value

    def _look(self) -> None:
        now = time.monotonic()
        if self._looked and now - self._looked < _HEALTH_SECONDS:
            return
        self._looked = now
        problems = [
            problem
            for member in self._etcd.members()
            if (
                problem := Problem.of(member)
                if isinstance(member, RegistryError)
                else _problem(member)
            )
        ]
        if self._etcd.is_history_whole():
            message = "its history is never compacted, so that its database only grows"
            problems.append(Problem("registry", "registry", message, _COMPACTION_CURE))
        self._tell(Health(tuple(problems)))


def _problem(member: Member) -> Problem | None:
    who = str(member.endpoint)
    if member.alarms:
        message = f"etcd has the alarm {', '.join(member.alarms)}, and takes no more changes"
        return Problem("registry", who, message, _SPACE_CURE)
    if not member.has_leader:
        message = "this member of etcd has no leader"
        return Problem("registry", who, message, "start the other members, or mend their network")
    if member.quota and member.size > _NEAR * member.quota:
        message = f"its database has {member.size} of {member.quota} bytes"
        return Problem("registry", who, message, _SPACE_CURE)
    return None
