"""One thread of the agent: counts the bytes of connections when the kernel forgets them.

Its connection tracking has counted them until then. Without ``bytes`` in
``[metrics]``, this thread does not exist.
"""

from __future__ import annotations

import selectors
import time
from typing import TYPE_CHECKING

from cgw_hooks.agent import worker
from cgw_hooks.agent.registry.inbox import Inbox
from cgw_hooks.core.connection import Traffic
from cgw_hooks.core.flow import PortFinder
from cgw_hooks.host import log
from cgw_hooks.host.state.byte_totals import ByteTotals
from cgw_hooks.host.tracked_connections import EndedConnections, is_counting, is_telling
from cgw_hooks.node.figures import port_of, publication, visible_ports

if TYPE_CHECKING:
    from cgw_hooks.agent.agent_publisher import AgentPublisher
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.core.record import Record

#: Seconds between two versions of the file.
_WRITE_SECONDS = 2.0
#: Seconds until something that has failed is tried again.
_RETRY = 10.0
#: Seconds between two turns: thousands of connections may end in a second.
_PAUSE = 0.1
_OFF = (
    "agent: bytes are not counted, since net.netfilter.%s is 0; run: sysctl -w net.netfilter.%s=1"
)


class ByteCounter:
    """The thread, if it is needed."""

    def __init__(self, publisher: AgentPublisher) -> None:
        self.publisher = publisher
        self._file = ByteTotals(publisher.state.directory)
        self._told: Inbox[None] = Inbox()
        self._is_started = False
        self._ended: EndedConnections | None = None
        self._totals: dict[str, Traffic] = {}
        self._ports: dict[PublishedPort, Record] = {}
        self._finder = PortFinder([])
        self._seen = -1
        self._off = ""
        self._has_news = False
        self._written = 0.0

    def reconfigure(self) -> None:
        """Do what the config says now; any thread may call this."""
        if self._is_started:
            self._told.add(None)
        elif self._is_wanted:
            self._is_started = True
            worker.start("bytes", self._run)

    @property
    def _is_wanted(self) -> bool:
        metrics = self.publisher.loaded.metrics
        return bool(metrics and metrics.counts_bytes)

    def _run(self) -> None:
        while True:
            if not worker.attempt("bytes", self._turn):
                time.sleep(_RETRY)

    def _turn(self) -> None:
        for _ in self._told.drain():
            pass
        if self._is_wanted and not self._ended:
            self._begin()
        elif self._ended and not self._is_wanted:
            self._stop()
        if self._ended:
            self._count(self._ended)
            time.sleep(_PAUSE)
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._told, selectors.EVENT_READ)
            if self._ended:
                waiting.register(self._ended, selectors.EVENT_READ)
            waiting.select(_WRITE_SECONDS if self._ended else None)

    def _begin(self) -> None:
        self._ended = EndedConnections()
        self._totals = self._file.read() or {}  # of an agent before this one
        self._has_news, self._seen, self._off = True, -1, ""

    def _stop(self) -> None:
        if self._ended:
            self._ended.close()
        self._ended = None
        self._file.remove()

    def _count(self, ended: EndedConnections) -> None:
        changed = self.publisher.state.changed_at()
        if changed != self._seen:
            self._seen = changed
            self._follow(ended)
        for connection in ended.read():
            port = port_of(connection, self._finder)
            if port and connection.traffic:
                key = publication(port, self._ports[port])
                before, more = self._totals.get(key, Traffic(0, 0)), connection.traffic
                self._totals[key] = Traffic(
                    before.received + more.received, before.sent + more.sent
                )
                self._has_news = True
        now = time.monotonic()
        if now - self._written >= _WRITE_SECONDS:
            self._written = now
            self._look_at_kernel()
            if self._has_news:
                self._has_news = False
                self._file.write(self._totals)

    def _follow(self, ended: EndedConnections) -> None:
        """Take note of the ports that are published now, and forget the bytes of all others."""
        records, _ = self.publisher.state.all()
        self._ports = visible_ports(records.values())
        self._finder = PortFinder(self._ports)
        ended.follow(self._ports)
        known = {publication(port, record) for port, record in self._ports.items()}
        if not known.issuperset(self._totals):
            self._totals = {key: t for key, t in self._totals.items() if key in known}
            self._has_news = True

    def _look_at_kernel(self) -> None:
        """Log which setting of the kernel prevents the count, when it begins to do so."""
        off = "" if is_counting() else "nf_conntrack_acct"
        off = off or ("" if is_telling() else "nf_conntrack_events")
        if off and off != self._off:
            log.error(_OFF % (off, off), event="problem", by="agent")
        self._off = off
