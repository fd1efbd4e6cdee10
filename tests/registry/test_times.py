"""How long the cluster takes to follow a guest, and how long a hook waits for the registry.

The bounds of a short run are generous: it shares its machine with other tests.
"""

import statistics
import time
from collections.abc import Callable

import pytest

from tests.full import is_full
from tests.libvirt.waiting import eventually
from tests.netns.asker import Asker
from tests.netns.cluster import uplink
from tests.netns.guest import DONE, Guest, annotated
from tests.registry.cluster import RegistryCluster
from tests.registry.hook_client import call

pytestmark = pytest.mark.registry

Note = Callable[[str, object], None]
STARTS, LONGEST_START = (200, 1.0) if is_full() else (20, 10.0)
RESTARTS = 100 if is_full() else 10
#: Seconds for which a hook may wait for the registry, and what a busy machine adds to a median.
HOOK_WAITS, BUSY = 0.3, 0.2
PREPARES = 9 if is_full() else 5


def hooks(guest: Guest, *operations: str, xml: str = "") -> None:
    """Make some calls of a guest; none must be refused."""
    for operation in operations:
        done = call(guest.node, guest.name, operation, xml or guest.xml, "shutdown")
        assert done == DONE, operation


def test_a_guest_answers_through_every_node_soon_after_it_has_started(
    made: RegistryCluster, record_property: Note
) -> None:
    guest, times = made.guest("web1"), []
    for _ in range(STARTS):
        hooks(guest, "prepare", "start")
        begun = time.monotonic()
        hooks(guest, "started")
        for number in made.nodes:
            until_answered(made.client, uplink(number, 4), 2201)
        times.append(time.monotonic() - begun)
        hooks(guest, "stopped", "release")
        made.until_closed(2201)
    found = statistics.quantiles(times, n=100)
    shown = f"median {found[49]:.3f}, p99 {found[98]:.3f}, longest {max(times):.3f}"
    record_property("seconds from started to an answer through every node", shown)
    assert found[98] < LONGEST_START, shown


def until_answered(client: Asker, address: str, port: int) -> None:
    """Ask again and again, until the guest answers."""
    end = time.monotonic() + 120
    while "saw" not in client.asks(address, port):
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_port_that_was_given_up_at_most_20_ms_ago_is_never_refused(
    made: RegistryCluster, record_property: Note
) -> None:
    one, other = made.guest("web1"), made.guest("web2")
    running, next_one = (one, one.xml), (other, annotated(other, "2201:22/tcp"))
    hooks(one, "prepare", "start", "started")
    pauses = []
    for number in range(RESTARTS):
        made.until_open(2201, running[0].name)
        hooks(running[0], "stopped", "release", xml=running[1])
        stopped = time.monotonic()
        time.sleep(number % 4 * 0.005)
        pauses.append(time.monotonic() - stopped)
        hooks(next_one[0], "prepare", "start", "started", xml=next_one[1])
        running, next_one = next_one, running
    made.until_open(2201, running[0].name)
    hooks(running[0], "stopped", "release", xml=running[1])
    shown = f"median {statistics.median(pauses):.4f}, longest {max(pauses):.4f}"
    record_property("seconds between stop and start", shown)


@pytest.mark.parametrize("fault", ["all members down", "path silently dead"])
def test_no_hook_waits_longer_than_its_time_for_the_registry(
    made: RegistryCluster, record_property: Note, fault: str
) -> None:
    guest = made.guest("web1")
    before = hook_times(guest)
    if fault == "all members down":
        made.etcd.kill()
    else:
        made.ports[1].silence(2379)
    at_once = hook_times(guest)  # the agent has not noticed yet
    assert eventually(lambda: not made.connected(1))
    known = hook_times(guest)
    for operation, usual in before.items():
        waited = max(at_once[operation], known[operation]) - usual
        record_property(f"{operation} longer by seconds", round(waited, 3))
        assert waited < (HOOK_WAITS if operation == "prepare" else 0) + BUSY


def hook_times(guest: Guest) -> dict[str, float]:
    """The median of the seconds that each call of a guest takes."""
    times: dict[str, list[float]] = {}
    for _ in range(PREPARES):
        for operation in ("prepare", "start", "started", "stopped", "release"):
            begun = time.monotonic()
            hooks(guest, operation)
            times.setdefault(operation, []).append(time.monotonic() - begun)
    return {operation: statistics.median(found) for operation, found in times.items()}
