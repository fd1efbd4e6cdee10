"""Plain xl guests that migrate between two real Xen hosts, with the cluster's registry on etcd."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.lab.xen.pair import NetworkedDom0, Pair, open_pair
from tests.libvirt.waiting import eventually
from tests.xen.host import VIF, XenHost

pytestmark = [pytest.mark.xen, pytest.mark.extended]

PORT = 2202
_SLOW = 300.0


@pytest.fixture(scope="module")
def pair(installed: Path) -> Iterator[Pair]:
    with open_pair([installed]) as opened:
        yield opened


@pytest.fixture
def guest(pair: Pair) -> Iterator[str]:
    """The guest web1, which runs on the first host and answers at both."""
    xl = XenHost(pair.hosts[0])
    xl.define("web1", 201, VIF, kind="pvh")
    xl.create("web1")
    until_open(pair)
    yield "web1"
    pair.etcd.mend()
    for host in pair.hosts:
        XenHost(host).destroy_all()
    assert eventually(lambda: pair.homes() == [])
    for host in pair.hosts:
        assert not host.client(
            "until_closed", "tcp", host.addresses.uplink, PORT, within=_SLOW
        ).answered
        assert eventually(partial(is_clean, host))


def until_open(pair: Pair) -> None:
    """Wait until the guest answers at both nodes, and sees each of them."""
    for host in pair.hosts:
        node = host.addresses
        reply = host.client("until_answered", "tcp", node.uplink, PORT, within=_SLOW)
        assert (reply.guest, reply.peer) == ("web1", node.guest_network), reply


def is_clean(host: NetworkedDom0) -> bool:
    """Whether a node has no record of any guest."""
    return host.shell("ls /run/cgw/guests") == ""


def has_home(pair: Pair, number: int) -> bool:
    """Whether exactly this node has an entry."""
    return pair.homes() == [f"node{number}"]


def test_the_ports_follow_a_guest_from_host_to_host_and_back(pair: Pair, guest: str) -> None:
    one, other = pair.hosts
    assert has_home(pair, 1)
    one.send(guest, other)
    until_open(pair)
    assert eventually(partial(has_home, pair, 2))
    assert not XenHost(one).runs(guest)
    assert XenHost(other).runs(guest)
    other.send(guest, one)
    until_open(pair)
    assert eventually(partial(has_home, pair, 1))


def test_a_guest_that_migrates_without_etcd_answers_at_both_hosts(pair: Pair, guest: str) -> None:
    one, other = pair.hosts
    pair.etcd.kill()
    one.send(guest, other)
    until_open(pair)
    assert XenHost(one).published() == {guest: ["123/udp", "2202/tcp"]}
    pair.etcd.start()
    assert eventually(partial(has_home, pair, 2))
    until_open(pair)
