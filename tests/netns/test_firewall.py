"""libvirt's own firewall rejects what comes in to its NAT networks: a guest's ports are excepted.

The rules stand here as libvirt makes them, by its iptables backend (network_iptables.c) and by
its nftables one (libvirt 10.4 on, network_nftables.c), with the guest bridge in virbr0's place.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from tests.lab.network import GUEST_BRIDGE, GUEST_SUBNET, GUEST_SUBNET6, UPLINK_BRIDGE
from tests.netns.asker import REFUSED, Asker
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import CLIENT, NODE
from tests.netns.guest import DONE, Guest
from tests.netns.node import OUR_TABLE, Node
from tests.netns.parameters import families

pytestmark = pytest.mark.netns

EXCEPTION = "cgw-hooks"
IPTABLES = ("iptables", "ip6tables")


def iptables_backend(node: Node) -> None:
    """Chain LIBVIRT_FWI, for both families; and somebody's own rule in FORWARD."""
    for command, subnet in zip(IPTABLES, (GUEST_SUBNET, GUEST_SUBNET6), strict=True):
        answers = "-m conntrack --ctstate RELATED,ESTABLISHED"
        for rule in (
            "-N LIBVIRT_FWI",
            "-A FORWARD -j LIBVIRT_FWI",
            "-A FORWARD -m mark --mark 7 -j DROP",
            f"-A LIBVIRT_FWI -o {GUEST_BRIDGE} -d {subnet} {answers} -j ACCEPT",
            f"-A LIBVIRT_FWI -o {GUEST_BRIDGE} -j REJECT",
        ):
            node.namespace.run([command, *rule.split()])


def nftables_backend(node: Node) -> None:
    """Table libvirt_network, for both families, and a chain of somebody's beside it."""
    for ip, subnet in (("ip", GUEST_SUBNET), ("ip6", GUEST_SUBNET6)):
        node.nft(f"""
            table {ip} libvirt_network {{
              chain guest_input {{
                oif "{GUEST_BRIDGE}" {ip} daddr {subnet} ct state established,related counter accept
                oif "{GUEST_BRIDGE}" counter reject
              }}
              chain forward {{
                type filter hook forward priority filter; policy accept;
                counter jump guest_input
              }}
            }}
            table {ip} theirs {{ chain c {{ counter; }}; }}
        """)


Backend = Callable[[Node], None]
BACKENDS: dict[str, Backend] = {"iptables": iptables_backend, "nftables": nftables_backend}


#: Rejects what comes in, and is as it was at the end.
behind_a_firewall = pytest.mark.usefixtures("backend")


class GuestMaker(Protocol):
    """Makes guests of a libvirt network."""

    def __call__(self, name: str, *publish: str, family: int = 4) -> Guest: ...


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, node: Node) -> Iterator[Backend]:
    """A firewall as libvirt makes it. At the end it is, rule by rule, as it was."""
    made = BACKENDS[request.param]
    made(node)
    node.accept_foreign_tables()
    assert exceptions(node) == 0
    yield made
    node.stop_all_guests()
    node.assert_foreign_tables_untouched()
    assert exceptions(node) == 0


@pytest.fixture
def network_guest(node: Node) -> GuestMaker:
    """A guest on a libvirt network, in whose running definition libvirt names the bridge."""

    def make(name: str, *publish: str, family: int = 4) -> Guest:
        guest = node.guest(name, *publish, serves="22/tcp", family=family, interface="default")
        named = f'<source network="default" bridge="{GUEST_BRIDGE}"/>'
        xml = guest.xml.replace('<source network="default"/>', named)
        assert named in xml
        return dataclasses.replace(guest, xml=xml)

    return make


def exceptions(node: Node) -> int:
    """How many rules of ours there are in others' tables."""
    # nft does not show the comments of iptables' rules.
    saved = [node.namespace.run([f"{command}-save"]).stdout for command in IPTABLES]
    return "".join([*saved, node.foreign_tables()]).count(EXCEPTION)


@behind_a_firewall
@families
def test_a_published_port_passes_and_nothing_else(
    client: Asker, node: Node, network_guest: GuestMaker, family: int
) -> None:
    web1 = network_guest("web1", "2202:22", family=family)
    inside = {4: "10.5.5.11", 6: "fd00:5::11"}[family]
    for subnet, by in ((GUEST_SUBNET, NODE[4]), (GUEST_SUBNET6, NODE[6])):
        client.namespace.ip(f"route add {subnet} via {by}")
    assert web1.hook("prepare") == DONE
    assert not client.asks(inside, 22).startswith("web1")  # libvirt's reject
    assert web1.hook("started") == DONE
    assert client.asks(NODE[family], 2202) == f"web1 saw {CLIENT[family]}"
    assert not client.asks(inside, 22).startswith("web1")
    web1.stop()
    assert client.asks(NODE[family], 2202) == REFUSED
    assert exceptions(node) == 0


@behind_a_firewall
def test_without_the_exception_the_port_does_not_pass(client: Asker, node: Node) -> None:
    """That it is the exception that lets it: without, libvirt's reject answers."""
    web1 = node.guest("web1", "2202:22", serves="22/tcp")  # on a plain bridge: no exception
    web1.start()
    assert exceptions(node) == 0
    assert client.asks(NODE[4], 2202) == REFUSED
    assert "2202" in node.our_table()


@behind_a_firewall
def test_the_exception_goes_with_the_last_guest_of_the_bridge(
    client: Asker, node: Node, network_guest: GuestMaker
) -> None:
    web1, web2 = network_guest("web1", "2202:22"), network_guest("web2", "2203:22")
    web1.start()
    once = exceptions(node)
    assert once
    web2.start()
    assert web2.hook("reconnect") == DONE
    assert exceptions(node) == once
    web1.stop()
    assert exceptions(node) == once
    assert client.asks(NODE[4], 2203) == f"web2 saw {CLIENT[4]}"
    web2.stop()
    assert exceptions(node) == 0


@pytest.mark.parametrize("healer", ["sync", "reconnect"])
def test_a_rebuilt_firewall_gets_its_exception_again(
    client: Asker, node: Node, backend: Backend, network_guest: GuestMaker, healer: str
) -> None:
    """After nft flush ruleset, libvirt makes its rules anew, in front of nobody's."""
    web1 = network_guest("web1", "2202:22")
    web1.start()
    once = exceptions(node)
    node.nft("flush ruleset\n")
    backend(node)
    node.accept_foreign_tables()
    assert client.asks(NODE[4], 2202) == REFUSED
    if healer == "sync":
        node.cgw("sync", check=False)  # libvirt does not answer here: the records count
    else:
        assert web1.hook("reconnect") == DONE
    assert exceptions(node) == once
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert_as_recorded(node)


@behind_a_firewall
def test_a_guest_goes_out_and_is_answered_as_before(
    client: Asker, node: Node, network_guest: GuestMaker
) -> None:
    client.serve(CLIENT[4], "7/tcp")
    client.namespace.ip(f"route add {GUEST_SUBNET} via {NODE[4]}")
    web1 = network_guest("web1", "2202:22")
    web1.start()
    assert web1.asks(CLIENT[4], 7) == "client saw 10.5.5.11"
    assert UPLINK_BRIDGE not in node.our_table()


def test_where_libvirt_has_no_firewall_none_is_made(
    client: Asker, node: Node, network_guest: GuestMaker
) -> None:
    """Networks with forward mode "open" have no such rules, nor has a host without networks."""
    assert node.foreign_tables() == ""
    web1 = network_guest("web1", "2202:22")
    web1.start()
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    web1.stop()
    assert node.ruleset().count("table") == node.ruleset().count(f"table {OUR_TABLE}")
