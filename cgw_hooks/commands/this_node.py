"""The publisher of this node, by the config and the runtime directory of the host.

On the hook's path: a guest that publishes nothing never gets here.
"""

from __future__ import annotations

from cgw_hooks.host import paths
from cgw_hooks.host.config_file import load_config
from cgw_hooks.host.state.state import State
from cgw_hooks.node.publisher import Publisher


def publisher() -> Publisher:
    """What this node publishes. Raises ``InvalidConfig``."""
    return Publisher(load_config(paths.config_file()), State(paths.runtime_directory()))
