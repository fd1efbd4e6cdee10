"""The work on tracked flows that follows a change of published ports.

The kernel walks its whole table for it, so it is done without the node's lock, and in the agent
only after the hook has its answer. Hook calls of guests that publish load this module: it must
import little.
"""

from __future__ import annotations

from cgw_hooks.core.published_port import DATAGRAM_PROTOCOLS, no_longer_translated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from cgw_hooks.core.published_port import PublishedPort

    Work = Callable[[], None]


def at_once(work: Work) -> None:
    """Carry out a piece of work now."""
    work()


def _nothing() -> None:
    return


class FlowWork:
    """Hands each piece of work to ``later``, which carries it out at once or queues it."""

    def __init__(self, later: Callable[[Work], None]) -> None:
        self._later = later

    def end(
        self,
        gone: Collection[PublishedPort],
        *,
        connections_end: bool,
        then: Work = _nothing,
        again: Callable[[], Collection[PublishedPort]] = tuple,
    ) -> None:
        """Delete the flows that these withdrawn ports have translated; then do ``then``.

        ``connections_end`` also deletes established TCP connections. ``again`` returns the ports
        that have been published again since: their flows may be new ones, and stay.
        """
        if not gone:
            return

        def work() -> None:
            from cgw_hooks.node import stale_flows

            left = no_longer_translated(gone, again())
            stale_flows.delete_translated(left, connections_end=connections_end)
            then()

        self._later(work)

    def end_steered(self, left: Collection[PublishedPort]) -> None:
        """Delete the flows that were steered to ports of guests that have left this node."""
        if not left:
            return

        def work() -> None:
            from cgw_hooks.node import stale_flows

            stale_flows.delete_steered(left)

        self._later(work)

    def end_older(self, published: Iterable[PublishedPort]) -> None:
        """Delete datagram flows that began before the ports were published."""
        datagrams = [port for port in published if port.protocol in DATAGRAM_PROTOCOLS]
        if not datagrams:
            return

        def work() -> None:
            from cgw_hooks.node import stale_flows

            stale_flows.delete_missing(datagrams)

        self._later(work)
