"""Makes the publisher of this node from the host's config and runtime directory.

Hook calls load this module, but not those of guests that publish nothing.
"""

from __future__ import annotations

from cgw_hooks.host import paths
from cgw_hooks.host.config_file import load_config
from cgw_hooks.host.state.lock import LONG_WAIT, WAIT
from cgw_hooks.host.state.state import State
from cgw_hooks.node.config_in_force import config_in_force, with_known_nodes
from cgw_hooks.node.publisher import Publisher


def publisher() -> Publisher:
    """Return the publisher of this node. Raises ``InvalidConfig``."""
    return _publisher(remote_guests=True, wait=LONG_WAIT)


def publisher_for_hook() -> Publisher:
    """Return the publisher for a hook call of one guest. Raises ``InvalidConfig``.

    A hook finds remote guests by their records. So it does not read those of the config.
    """
    return _publisher(remote_guests=False, wait=WAIT)


def publisher_of_gateway() -> Publisher:
    """Return the publisher with the whole config, for `cgw node`. Raises ``InvalidConfig``."""
    state = State(paths.runtime_directory(), wait=LONG_WAIT)
    return Publisher(with_known_nodes(load_config(paths.config_file()), state), state)


def _publisher(*, remote_guests: bool, wait: float) -> Publisher:
    state = State(paths.runtime_directory(), wait=wait)
    config = load_config(paths.config_file(), remote_guests=remote_guests)
    return Publisher(config_in_force(config, state), state)
