"""Which tracked flows belong to a node, by its addresses."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address


class Ends(NamedTuple):
    """The addresses of a tracked flow.

    Its first packet goes from ``source`` to ``destination``, its answers go from ``answering`` to
    ``answered``. These differ where the kernel translates.
    """

    source: Address
    destination: Address
    answering: Address
    answered: Address


def touches(ends: Ends, addresses: frozenset[Address]) -> bool:
    """Whether one of the addresses is an end of the flow, in either direction."""
    return not addresses.isdisjoint(ends)


def is_translated_for(ends: Ends, addresses: frozenset[Address]) -> bool:
    """Whether the node with these addresses has translated the flow.

    Only that node does so: a client came in by its uplink address, a guest went out with it, or a
    guest sees the node address as the client.
    """
    came_in = ends.destination in addresses and ends.answering != ends.destination
    went_out = ends.answered in addresses and ends.answered != ends.source
    return came_in or went_out
