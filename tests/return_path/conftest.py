"""The clusters of this tier, one for each return path and topology, and the ways through them.

A test takes a part of the parameters: the fixtures are the return path, the topology, whether
br_netfilter is on, the entry node, the IP family, and the place of the guest or its move.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from cgw_hooks.core.node_config import CT_SYNC, FULL_NAT, STEER
from tests.full import extended
from tests.lab.namespace import sweep_namespaces
from tests.needs import fail_without
from tests.netns.node import CGW
from tests.return_path.cluster import CHAIN, MESH, NODES, Cluster, open_cluster
from tests.return_path.moving_guest import MovingGuest
from tests.return_path.way import Move, Way

RETURN_PATHS = (FULL_NAT, STEER, CT_SYNC)
GUEST = "web2"
_NEEDED_PROGRAMS = ("ip", "nft", "nsenter", "conntrackd")
#: Below the ports that the kernel gives (32768 to 60999).
_free_ports = count(20000)


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Fail with one line if the machine lacks something for this tier."""
    fail_without("return-path", "this tier makes network namespaces", _NEEDED_PROGRAMS, called=CGW)
    sweep_namespaces()


@pytest.fixture(scope="package", params=RETURN_PATHS)
def return_path(request: pytest.FixtureRequest) -> str:
    """How answers find back."""
    return str(request.param)


@pytest.fixture(scope="package", params=[CHAIN, extended(MESH)])
def topology(request: pytest.FixtureRequest) -> str:
    """How the nodes are joined."""
    return str(request.param)


@pytest.fixture(scope="package")
def built(
    return_path: str, topology: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """The cluster, which the tests share."""
    folder = tmp_path_factory.mktemp(f"{return_path}-{topology}")
    with open_cluster(folder, return_path, topology) as made:
        yield made


@pytest.fixture(params=[False, True], ids=["routed", "br_netfilter"])
def made(request: pytest.FixtureRequest, built: Cluster) -> Iterator[Cluster]:
    """The cluster, with br_netfilter (bridged packets meet the rules of routed ones) off and on.

    At the end all connections are closed. No UDP client may have heard a datagram twice or from a
    wrong address, and no packet with a guest's source address may have left by an uplink.
    """
    built.pass_bridged_packets_to_rules(bool(request.param))
    built.leaks.found()
    yield built
    try:
        for opened in built.opened:
            opened.assert_clean()
        assert built.leaks.found() == []
    finally:
        for opened in built.opened:
            opened.abandon()
        built.opened.clear()


@pytest.fixture(params=NODES, ids=[f"by-node{n}" for n in NODES])
def entry(request: pytest.FixtureRequest) -> int:
    """The node that the client asks."""
    return int(request.param)


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> int:
    """The IP family."""
    return int(request.param)


# The fixture's scope lets the tests with one place follow each other: the guest seldom moves.
@pytest.fixture(scope="module", params=NODES, ids=[f"on-node{n}" for n in NODES])
def place(request: pytest.FixtureRequest) -> int:
    """The node that the guest is on."""
    return int(request.param)


@pytest.fixture
def placed(made: Cluster, place: int) -> MovingGuest:
    """The guest, on each of the nodes."""
    return made.put(GUEST, place)


_MOVES = [Move(2, 3), Move(2, 1), Move(1, 3), Move(3, 1)]


@pytest.fixture(params=_MOVES, ids=[f"from-{m.source}-to-{m.target}" for m in _MOVES])
def move(request: pytest.FixtureRequest, made: Cluster) -> Move:
    """The move that the test makes; the guest is on its source."""
    wanted: Any = request.param
    made.put(GUEST, wanted.source)
    return Move(*wanted)


@pytest.fixture
def way(made: Cluster, entry: int, family: int) -> Way:
    """The way to the guest, wherever that is."""
    return Way(made, made.guests[GUEST], entry, family)


@pytest.fixture
def free_ports() -> Iterator[int]:
    """Client ports that no other test uses."""
    return _free_ports
