"""`cgw node takeover` and `handback`: what they refuse, and that both are undone."""

import signal
import subprocess

import pytest

from cgw_hooks.core.node_config import CT_SYNC, FULL_NAT
from tests.failover.cluster import (
    BETWEEN,
    ENTRY,
    HOME,
    Failover,
    addresses_of,
    taken_addresses,
)
from tests.lab import network
from tests.lab.namespace import Namespace
from tests.libvirt.waiting import eventually
from tests.netns.node import PYTHON

pytestmark = pytest.mark.failover

GUARD = "cgw_takeover"


def tables(inside: Namespace) -> str:
    return inside.run(["nft", "list", "tables"]).stdout


def test_a_node_that_answers_is_not_taken_over(failover: Failover) -> None:
    """Also if it answers on one of the two networks alone."""
    taker = failover.node(BETWEEN)
    before = addresses_of(taker)
    for device, seen_on in (("", "guestbr0"), ("eth0", "guestbr0"), ("guestbr0", "xenbr0")):
        if device:
            failover.node(ENTRY).namespace.ip(f"link set {device} down\n")
        refused = taker.cgw("node", "takeover", "node1", check=False)
        assert refused.returncode == 6
        assert refused.stderr.startswith(f'cgw: node "node1": a host on {seen_on} still answers')
        assert addresses_of(taker) == before
        assert GUARD not in tables(taker.namespace)
        if device:
            failover.node(ENTRY).namespace.ip(f"link set {device} up\n")


def test_an_unknown_node_is_an_error(failover: Failover) -> None:
    for verb in ("takeover", "handback"):
        refused = failover.node(BETWEEN).cgw("node", verb, "node9", check=False)
        assert refused.returncode == 8
        assert refused.stderr == (
            'cgw: node "node9": no node of cgw.toml or of the registry has this name; '
            'give one that is there: "node1", "node3"\n'
        )


def test_a_host_that_is_no_gateway_takes_nothing_over(failover: Failover) -> None:
    taker = failover.node(BETWEEN)
    taker.cgw("node", "down")
    refused = taker.cgw("node", "takeover", "node1", check=False)
    assert refused.returncode == 6
    assert "run: cgw node up" in refused.stderr


def test_a_second_takeover_announces_again_and_changes_nothing(failover: Failover) -> None:
    session = failover.connect(4)
    failover.wait_for_replication(BETWEEN, session)
    failover.kill_node()
    assert failover.take_over(BETWEEN).count("added") == 4
    session.client_speaks()
    said = failover.take_over(BETWEEN)
    assert said.count("announced") == 1
    assert "added" not in said
    session.client_speaks()
    session.guest_speaks()


def test_a_handback_leaves_nothing(failover: Failover, family: int) -> None:
    taker = failover.node(BETWEEN)
    before = addresses_of(taker)
    session = failover.connect(family)
    failover.wait_for_replication(BETWEEN, session)
    failover.kill_node()
    failover.take_over(BETWEEN)
    session.client_speaks()
    assert addresses_of(taker) == before | taken_addresses(ENTRY)
    assert GUARD not in tables(taker.namespace)
    said = taker.cgw("node", "handback", "node1").stdout
    assert said.count("removed") == 4
    assert addresses_of(taker) == before
    if failover.made.return_path != CT_SYNC:  # it has copies of all flows, also before and after
        assert not _tracks(taker.namespace, session.client.getsockname()[1])
    assert failover.made.client.is_unanswered(network.NodeAddresses(ENTRY).uplink, 2200 + HOME)
    assert taker.cgw("node", "handback", "node1").stdout == (
        'note   node "node1" was not taken over\n'
    )


def _tracks(inside: Namespace, port: int) -> bool:
    flows = inside.run(["cat", "/proc/net/nf_conntrack"]).stdout
    return f"sport={port} " in flows


_KILLED_IN_THE_MIDDLE = """
import os, subprocess
from ipaddress import ip_address
from cgw_hooks.core.rules import takeover_guard
from cgw_hooks.host.nft import Nft
nft = Nft()
nft.apply(takeover_guard.add([ip_address("10.5.5.251"), ip_address("fd00:5::251")]))
subprocess.run(["nft", "list", "ruleset"])
os.kill(os.getpid(), 9)
"""


def test_a_takeover_that_is_killed_leaves_no_packet_dropped(failover: Failover) -> None:
    inside = failover.node(BETWEEN).namespace
    command = [*inside.enter_command(), str(PYTHON), "-c", _KILLED_IN_THE_MIDDLE]
    killed = subprocess.run(command, capture_output=True, check=False, text=True)
    assert killed.returncode == -signal.SIGKILL
    assert f"table inet {GUARD}" in killed.stdout
    for address in ("10.5.5.251", "fd00:5::251"):
        for field in ("saddr", "daddr"):
            assert killed.stdout.count(f"{field} {address} drop") == 2
    assert eventually(lambda: GUARD not in tables(inside))


def test_down_gives_back_what_was_taken_over(failover: Failover) -> None:
    taker = failover.node(BETWEEN)
    failover.kill_node()
    failover.take_over(BETWEEN)
    said = taker.cgw("node", "down").stdout
    for address in taken_addresses(ENTRY):
        assert f"removed {address} from" in said
        assert address not in addresses_of(taker)


def test_up_adds_again_what_was_lost(failover: Failover) -> None:
    taker = failover.node(BETWEEN)
    failover.kill_node()
    failover.take_over(BETWEEN)
    taker.namespace.ip("address delete 10.5.5.251/32 dev guestbr0\n")
    assert "added  10.5.5.251 to guestbr0" in taker.cgw("node", "up").stdout
    assert taken_addresses(ENTRY) <= addresses_of(taker)


def test_a_node_that_comes_back_goes_on(failover: Failover, family: int) -> None:
    """It lost its networks for a while: the other one carried its connections on."""
    session, exchange = failover.connect(family), failover.exchange(family)
    failover.wait_for_replication(BETWEEN, session, exchange)
    network.unplug(failover.node(ENTRY).namespace)
    failover.take_over(BETWEEN)
    later, datagrams = failover.connect(family), failover.exchange(family)
    for each in (session, later):
        each.client_speaks()
        each.guest_speaks()
    exchange.guest_speaks()
    network.plug_in(failover.node(ENTRY).namespace)
    giving = failover.node(BETWEEN).start_cgw("node", "handback", "node1")
    assert "announced" in failover.take_over(ENTRY, ENTRY)
    giving.communicate(b"", timeout=60)
    for each in (session, later):
        each.client_speaks()
        each.guest_speaks()
    if failover.made.return_path != FULL_NAT:
        # With steering, the guest's node learns from the client's next packet that it is back.
        exchange.client_speaks()
        datagrams.client_speaks()
    exchange.guest_speaks()
    datagrams.guest_speaks()
    datagrams.client_speaks()
    assert failover.asks(ENTRY, family) == failover.seen_by_guest(ENTRY, family)
    assert taken_addresses(ENTRY).isdisjoint(addresses_of(failover.node(BETWEEN)))
