"""Two nodes claim overlapping ports at the same instant: one gets them, never both, never none."""

import json
from collections.abc import Callable, Iterable
from itertools import combinations, groupby

import pytest

from cgw_hooks.core import registry_value
from cgw_hooks.core.etcd.values import KeyValue
from cgw_hooks.core.guest import Guest
from cgw_hooks.core.registry_value import Keys
from cgw_hooks.errors import PortConflict
from tests.full import is_full
from tests.libvirt.waiting import eventually
from tests.netns.guest import annotated
from tests.registry.cluster import RegistryCluster
from tests.registry.conftest import FollowerMaker
from tests.registry.hook_client import Call, call

pytestmark = pytest.mark.registry

ROUNDS = 1000 if is_full() else 60
REFUSED = PortConflict.exit_code
#: What the two guests publish; a, b, c and d are ports of a round, in this order.
OVERLAPS = (
    ("{a}:22", "{a}:22"),
    ("{a}:22", "192.168.122.77:{a}:22"),
    ("192.168.122.77:{b}:22", "{a}-{c}:{a}"),
    ("{a}-{c}:{a}", "{b}-{d}:{b}"),
)


def specs(number: int) -> list[str]:
    """What the two guests publish in a round; ports come again only after 200 rounds."""
    first = 5000 + number % 200 * 250
    ports = {"a": first, "b": first + 100, "c": first + 199, "d": first + 249}
    return [spec.format_map(ports) for spec in OVERLAPS[number % len(OVERLAPS)]]


def test_of_two_claims_at_the_same_instant_exactly_one_is_admitted(
    made: RegistryCluster,
    follow: FollowerMaker,
    record_property: Callable[[str, object], None],
) -> None:
    guests = made.guest("web1"), made.guest("web2")
    with made.nodes[1].namespace.entered():
        history = follow(made.etcd.config(), Keys(made.etcd.config().prefix).root, 1)
    undecided = 0
    for number in range(ROUNDS):
        both = list(zip(guests, map(annotated, guests, specs(number)), strict=True))
        if number % 2:
            both.reverse()
        begun = [Call(guest.node, guest.name, "prepare", xml) for guest, xml in both]
        codes = [started.finish().exit_code for started in begun]
        assert sorted(codes) in ([0, 0], [0, REFUSED]), (number, codes)
        if codes == [0, 0]:  # the registry was slower than a hook waits: it decides afterwards
            undecided += 1
            assert eventually(lambda: has_one_owner(made)), made.keys()
        for (guest, xml), code in zip(both, codes, strict=True):
            if code == 0:
                assert call(guest.node, guest.name, "release", xml, "failed").exit_code == 0
    assert eventually(lambda: made.keys() == {})
    record_property("claims decided after the hooks' end", undecided)
    history.wait_for(revision(made))
    assert overlaps(history.events) == []


def has_one_owner(made: RegistryCluster) -> bool:
    """Whether one guest has the IPv4 ports of a round; the other may have IPv6 ports of its own."""
    keys = Keys(made.etcd.config().prefix)
    places = [(keys.guest_of(key), value) for key, value in made.keys().items()]
    guests = [registry_value.guest(place[0], value) for place, value in places if place]
    return [any(port.family == 4 for port in guest.ports) for guest in guests].count(True) == 1


def revision(made: RegistryCluster) -> int:
    """The present revision of the registry."""
    found = json.loads(made.etcd.etcdctl("get", "x", "-w", "json").stdout)
    return int(found["header"]["revision"])


def overlaps(events: Iterable[KeyValue]) -> list[str]:
    """Which keys had the same port at the same revision."""
    keys, found = Keys("/cgw"), []
    held: dict[str, list[Guest]] = {}
    for _, changes in groupby(events, key=lambda event: event.modified):
        for key, value, _, _ in changes:
            place = keys.guest_of(key)
            if place:
                held[key] = [registry_value.guest(place[0], value)] if value else []
        guests = [guest for some in held.values() for guest in some]
        found += [
            f"{one.name} and {other.name}: {claim}"
            for one, other in combinations(guests, 2)
            for claim in one.claims
            if any(claim.overlaps(another) for another in other.claims)
        ]
    return found
