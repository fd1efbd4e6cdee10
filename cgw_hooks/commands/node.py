"""``cgw node up|down|takeover|handback``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cgw_hooks.errors import printable
from cgw_hooks.node import gateway, takeover

if TYPE_CHECKING:
    from cgw_hooks.commands.arguments import Namespace
    from cgw_hooks.node.publisher import Publisher


def run(node: Publisher, arguments: Namespace) -> int:
    """Carry out the command; print one line per change."""
    if arguments.what == "takeover":
        lines = takeover.take_over(node, arguments.subject)
    elif arguments.what == "handback":
        lines = takeover.hand_back(node, arguments.subject)
    elif arguments.what == "down":
        lines = gateway.down(node)
    else:
        lines = gateway.up(node)
    for line in lines:
        sys.stdout.write(f"{printable(line)}\n")
    return 0
