"""The marks of packets and of tracked flows: the number of the node where the client came in.

A node's number is the last bits of its node address, so all nodes know it without asking.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address

#: Bits of a packet mark.
_ALL = 0xFFFFFFFF


def number(address: Address, mask: int) -> int:
    """Return the number of the node with this node address."""
    return int(address) & (mask >> _shift(mask))


def mark(address: Address, mask: int) -> int:
    """Return the mark of the node with this node address; all its bits are in the mask."""
    return number(address, mask) << _shift(mask)


def lifted(mask: int) -> int:
    """Return the mark of a packet that was lifted, on its way to a guest of this node.

    The number of a node marks packets on the way from a guest alone, so it may be the same.
    """
    return mask


def is_lifted(mask: int) -> str:
    """Return a match of packets that were lifted."""
    return f"meta mark & {mask:#010x} == {lifted(mask):#010x}"


def others(mask: int) -> int:
    """Return the bits of a mark that belong to other programs."""
    return _ALL & ~mask


def _shift(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
