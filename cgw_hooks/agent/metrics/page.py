"""The numbers of this node and its agent in the format of Prometheus.

Only this module loads the library, and only the thread that tells Prometheus loads this module.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from cgw_hooks import __version__
from cgw_hooks.agent.metrics.tally import LIMITS
from cgw_hooks.core.connection import Traffic
from cgw_hooks.errors import CgwError, printable
from cgw_hooks.host.state.served_calls import ServedCalls
from cgw_hooks.node.figures import publication
from cgw_hooks.node.hook_answer import log_failure
from cgw_hooks.node.measurements import measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from cgw_hooks.agent.metrics.tally import Tally
    from cgw_hooks.node.measurements import Measurements
    from cgw_hooks.node.publisher import Publisher

#: Seconds. A page is not older than this, and is not made more often.
_FRESH = 5.0
_PORT_LABELS = ["guest", "driver", "id", "port"]


class Page(Collector):
    """The page of a node."""

    def __init__(self, publisher: Publisher, tally: Tally, *, per_port: bool) -> None:
        self._publisher = publisher
        self._tally = tally
        self._served = ServedCalls(publisher.state.directory)
        self._per_port = per_port
        self._text = b""
        self._made = 0.0
        #: The bytes that were told last. Those of a connection that the kernel has just forgotten
        #: are missing for a moment, and a counter must not fall.
        self._traffic: dict[str, Traffic] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the page; it may be some seconds old."""
        now = time.monotonic()
        if not self._text or now - self._made >= _FRESH:
            self._text = generate_latest(self._registry)
            self._made = now
        return self._text

    def describe(self) -> list[Metric]:
        """Return nothing: the library calls this, and would otherwise collect twice."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all numbers; the library calls this."""
        build = GaugeMetricFamily("cgw_build_info", "The version of cgw.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield from self._of_agent()
        try:
            found = measure(self._publisher, per_port=self._per_port)
        except CgwError as error:
            log_failure("(all)", "agent: metrics", error)
            yield self._readable(0)
            return
        yield self._readable(1)
        yield from _of_node(found)
        if self._per_port:
            yield from self._of_ports(found)

    def _of_agent(self) -> Iterator[Metric]:
        tally = self._tally
        calls = HistogramMetricFamily(
            "cgw_hook_duration_seconds",
            "How long it took to carry out hook calls, without the start of an interpreter.",
            labels=["operation", "served_by"],
        )
        for operation, taken in self._served.take():
            tally.served(operation, taken, by="call")
        for key, (counts, seconds) in sorted(tally.calls().items()):
            total, buckets = 0, []
            for limit, count in zip((*map(str, LIMITS), "+Inf"), counts, strict=True):
                total += count
                buckets.append((limit, total))
            calls.add_metric([*key], buckets, seconds)
        yield calls
        for name, text, value in (
            ("hook_calls_given_up", "Hook calls that took over 1 s here.", tally.abandoned),
            ("reconciliations", "Comparisons of all guests with the node.", tally.reconciliations),
            ("repairs", "Differences between ruleset and records, repaired.", tally.repairs),
        ):
            yield CounterMetricFamily(f"cgw_{name}", text, value)

    def _of_ports(self, found: Measurements) -> Iterator[Metric]:
        connections = CounterMetricFamily(
            "cgw_port_connections", "Connections since the port was published.", labels=_PORT_LABELS
        )
        open_now = GaugeMetricFamily(
            "cgw_port_open_connections", "Connections that are open now.", labels=_PORT_LABELS
        )
        traffic = CounterMetricFamily(
            "cgw_port_bytes",
            "Bytes since the port was published.",
            labels=[*_PORT_LABELS, "direction"],
        )
        highest: dict[str, Traffic] = {}
        for record, port, figures in found.figures:
            guest = record.guest
            # A name may have any character, also one that cannot be written as UTF-8.
            labels = [printable(guest.name), guest.key.driver, guest.key.id, port.listen]
            if figures.connections is not None:
                connections.add_metric(labels, figures.connections)
            open_now.add_metric(labels, figures.open)
            if figures.traffic:
                key = publication(port, record)
                former = self._traffic.get(key, figures.traffic)
                most = highest[key] = Traffic(*map(max, former, figures.traffic))
                traffic.add_metric([*labels, "received"], most.received)
                traffic.add_metric([*labels, "sent"], most.sent)
        self._traffic = highest
        yield connections
        yield open_now
        yield traffic

    @staticmethod
    def _readable(value: int) -> Metric:
        text = "Whether records and ruleset could be read; if not, the rest is missing."
        return GaugeMetricFamily("cgw_node_readable", text, value)


def _of_node(found: Measurements) -> Iterator[Metric]:
    for name, text, label, counts in (
        (
            "cgw_published_ports",
            "Published ports by state, as in cgw status.",
            "state",
            found.ports,
        ),
        ("cgw_guests", "Guests that publish ports.", "driver", found.guests),
        ("cgw_problems", "Problems, as in cgw status.", "code", found.problems),
    ):
        family = GaugeMetricFamily(name, text, labels=[label])
        for value, count in sorted(counts.items()):
            family.add_metric([value], count)
        yield family
