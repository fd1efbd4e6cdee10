"""The present definitions of the guests that should be published, for ``cgw status``."""

from __future__ import annotations

from cgw_hooks.core.guest import REGISTRY, REMOTE
from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.core.problem import Problem
from cgw_hooks.errors import CgwError, HypervisorError, HypervisorHangs
from cgw_hooks.sources import libvirt, static

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.core.node_config import NodeConfig
    from cgw_hooks.core.record import Record

    #: Driver -> key -> guest or error.
    Definitions = dict[str, dict[GuestKey, Guest | CgwError]]


def read(
    config: NodeConfig, records: Mapping[GuestKey, Record], *, asks: bool
) -> tuple[Definitions, list[Problem]]:
    """Return the definitions, and the problems of drivers that hang.

    A driver that does not answer is left out: its silence affects no published port. So are all of
    them if libvirt is not asked.
    """
    drivers = DRIVERS if asks else ()
    named = [record.guest for key, record in records.items() if key.driver == REGISTRY]
    configured = static.beside_registry(static.remote_guests(config), named)
    found: Definitions = {REMOTE: dict(configured)}
    hanging = []
    with libvirt.RunningGuests(config, drivers) as running:
        for driver in drivers:
            try:
                found[driver] = dict(running.of(driver, records))
            except HypervisorHangs as error:
                hanging.append(Problem.of(error))
            except HypervisorError:
                continue
    return found, hanging
