"""Makes the publisher of this node from the host's config and runtime directory.

Hook calls load this module, but not those of guests that publish nothing.
"""

from __future__ import annotations

from cgw_hooks.host import paths
from cgw_hooks.host.config_file import load_config
from cgw_hooks.host.state.state import State
from cgw_hooks.node.publisher import Publisher


def publisher() -> Publisher:
    """Return the publisher of this node. Raises ``InvalidConfig``."""
    return Publisher(load_config(paths.config_file()), State(paths.runtime_directory()))
