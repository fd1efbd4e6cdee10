"""A port has one owner: a guest that asks for another's, or the node's own, is refused."""

import re
import socket
import time

import pytest

from tests.lab.network import CLIENT_ADDRESS
from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import CLIENT, NODE, THIRD, WARN
from tests.netns.conftest import NodeMaker
from tests.netns.guest import DONE
from tests.netns.node import Node

pytestmark = pytest.mark.netns

CONFLICT = 4
ROUNDS = 20


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2202:22", "2202:80"),
        ("2202:22", "192.168.122.11:2202:80"),
        ("192.168.122.11:2202:22", "2202:80"),
        ("192.168.122.11:2202:22", "192.168.122.11:2202:80"),
        ("8000-8009:80", "8009:80"),
        ("8005:80", "8000-8009:80"),
        ("8000-8009:80", "8009-8020:80"),
        ("2202:22/udp", "2202:22/udp"),
        ("2202:22/sctp", "2202:22/sctp"),
        ("2202:22 from 192.0.2.0/24", "2202:22 from 198.51.100.0/24"),
    ],
)
def test_the_second_guest_is_refused_and_told_who_has_the_port(
    node: Node, first: str, second: str
) -> None:
    """Already while the first is only being prepared."""
    web1, web2 = node.guest("web1", first), node.guest("web2", second)
    assert web1.hook("prepare") == DONE
    before = node.files()
    refused = web2.hook("prepare")
    assert refused.exit_code == CONFLICT
    assert re.fullmatch(
        r'cgw: guest "web2": port \S+ is published by guest "web1"; .+', refused.complaint
    )
    assert node.files() == before


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("192.168.122.11:2202:22", "192.168.122.12:2202:22"),
        ("2202:22/tcp", "2202:22/udp"),
        ("8000-8009:80", "8010:80"),
        ("[fd00:122::11]:2202:22", "2202:22"),
    ],
)
def test_ports_that_share_no_packet_are_two_guests(node: Node, first: str, second: str) -> None:
    node.guest("web1", first, family=6 if "fd00" in first else 4).start()
    node.guest("web2", second).start()


def test_a_refused_guest_harms_the_owner_in_no_way(client: Asker, node: Node) -> None:
    """Libvirt calls stopped and release after a refusal."""
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    web2 = node.guest("web2", "2202:22", "2203:22", serves="22/tcp")
    web1.start()
    before = node.files(), node.ruleset()
    assert web2.hook("prepare").exit_code == CONFLICT
    web2.stop()
    assert (node.files(), node.ruleset()) == before
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert client.asks(NODE[4], 2203) == REFUSED


def test_a_released_port_is_anybodys(client: Asker, node: Node) -> None:
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    web2 = node.guest("web2", "2202:22", serves="22/tcp")
    web1.start()
    assert web1.hook("stopped") == DONE
    assert web2.hook("prepare").exit_code == CONFLICT  # until its guest is released
    assert web1.hook("release") == DONE
    web2.start()
    assert client.asks(NODE[4], 2202) == f"web2 saw {CLIENT[4]}"


def test_of_two_that_prepare_at_the_same_instant_one_wins(node: Node) -> None:
    guests = [node.guest("web1", "2200-2209:22"), node.guest("web2", "2209:22")]
    wins = set()
    for _ in range(ROUNDS):
        processes = [node.start_hook(guest.name, "prepare") for guest in guests]
        for process, guest in zip(processes, guests, strict=True):
            assert process.stdin
            process.stdin.write(guest.xml.encode())
            process.stdin.close()
        codes = [process.wait() for process in processes]
        assert sorted(codes) == [0, CONFLICT]
        winner = guests[codes.index(0)]
        wins.add(winner.name)
        assert list(node.records()) == [winner.key]
        winner.stop()
        for process in processes:
            assert process.stdout
            assert process.stdout.read() == b""
    assert wins <= {"web1", "web2"}


# -- the node's own processes ----------------------------------------------------------------


@pytest.mark.parametrize("spec", ["2202:22/{0}", "2200-2209:22/{0}", "192.168.122.11:2202:22/{0}"])
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.122.11"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_on_which_the_node_itself_listens_is_refused(
    client: Asker, node: Node, protocol: str, address: str, spec: str
) -> None:
    """A published 22 must not lock the admin out. A server on :: serves IPv4 as well."""
    node.serve(address, f"2202/{protocol}")
    refused = node.guest("web1", spec.format(protocol)).hook("prepare")
    assert refused.exit_code == CONFLICT
    assert re.fullmatch(
        r'cgw: guest "web1": port \S+ is in use by a process of this node; .+', refused.complaint
    )
    assert client.asks(NODE[4], 2202, protocol) == f"node saw {CLIENT[4]}"


@pytest.mark.parametrize("address", ["::", "fd00:122::11"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_ipv6_likewise(node: Node, protocol: str, address: str) -> None:
    node.serve(address, f"2202/{protocol}")
    web1 = node.guest("web1", f"2202:22/{protocol}", family=6)
    assert web1.hook("prepare").exit_code == CONFLICT


@pytest.mark.parametrize("address", ["127.0.0.1", "10.5.5.254", "::1"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_who_listens_at_another_address_only_is_in_nobodys_way(
    client: Asker, node: Node, protocol: str, address: str
) -> None:
    node.serve(address, f"2202/{protocol}")
    web1 = node.guest("web1", f"192.168.122.11:2202:22/{protocol}", serves=f"22/{protocol}")
    web1.start()
    assert client.asks(NODE[4], 2202, protocol) == f"web1 saw {CLIENT[4]}"
    assert node.asks(address, 2202, protocol).startswith("node saw")


def test_a_connected_udp_client_of_the_node_is_in_nobodys_way(
    client: Asker, node: Node, third: Asker
) -> None:
    """It takes answers of one server alone, as a DNS client does."""

    def connected() -> socket.socket:
        made = socket.socket(type=socket.SOCK_DGRAM)
        made.bind((NODE[4], 2202))
        made.connect((THIRD[4], 53))
        return made

    third.serve(THIRD[4], "53/udp")
    web1 = node.guest("web1", "2202:22/udp", serves="22/udp")
    with node.namespace.call(connected):
        web1.start()
        assert client.asks(NODE[4], 2202, "udp") == f"web1 saw {CLIENT[4]}"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_who_listens_on_any_address_has_also_the_addresses_that_come_later(
    node: Node, protocol: str
) -> None:
    """A guest must not get port 22 of an address that the node is given afterwards."""
    node.serve("0.0.0.0", f"2202/{protocol}")
    web1 = node.guest("web1", f"192.168.122.99:2202:22/{protocol}")
    assert web1.hook("prepare").exit_code == CONFLICT
    assert node.files() == {}


def test_another_protocol_is_in_nobodys_way(node: Node) -> None:
    node.serve("0.0.0.0", "2202/udp")
    node.guest("web1", "2202:22/tcp", "2202:22/sctp").start()


def test_a_process_that_comes_later_has_its_port_and_the_guest_keeps_the_others(
    client: Asker, node: Node
) -> None:
    web1 = node.guest("web1", "2202:22", "2203:22", serves="22/tcp")
    web1.start()
    node.serve("0.0.0.0", "2202/tcp")
    assert web1.hook("reconnect") == DONE
    assert client.asks(NODE[4], 2202) == f"node saw {CLIENT[4]}"
    assert client.asks(NODE[4], 2203) == f"web1 saw {CLIENT[4]}"


@pytest.mark.parametrize(("address", "family"), [("127.0.0.1", 4), ("::1", 6)])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_who_listens_on_the_loopback_address_alone_is_in_nobodys_way(
    client: Asker, node: Node, protocol: str, address: str, family: int
) -> None:
    """Packets to it are never translated."""
    node.serve(address, f"2202/{protocol}")
    node.guest("web1", f"2202:22/{protocol}", serves=f"22/{protocol}", family=family).start()
    assert client.asks(NODE[family], 2202, protocol) == f"web1 saw {CLIENT[family]}"
    assert node.asks(address, 2202, protocol).startswith("node saw")


def _connected_from(node: Node, source_port: int, address: str, port: int) -> socket.socket:
    endpoint = node.namespace.call(socket.socket)
    endpoint.settimeout(30)
    endpoint.bind(("", source_port))
    endpoint.connect((address, port))
    return endpoint


def test_outgoing_connections_do_not_count(client: Asker, node: Node, third: Asker) -> None:
    """Their near end may have any port number; it stays theirs."""
    third.serve(THIRD[4], "7/tcp-echo")
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    with _connected_from(node, 2202, THIRD[4], 7) as outgoing:
        web1.start()
        assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
        outgoing.sendall(b"still there")
        assert outgoing.recv(100) == b"still there"


def test_nor_do_connections_in_time_wait(client: Asker, node: Node, third: Asker) -> None:
    third.serve(THIRD[4], "7/tcp-echo")
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    _connected_from(node, 2202, THIRD[4], 7).close()
    _wait_for_state(node, "time-wait")
    web1.start()
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"


def _wait_for_state(node: Node, state: str) -> None:
    for _ in range(100):
        if "2202" in node.namespace.run(["ss", "-Htn", "state", state]).stdout:
            return
        time.sleep(0.02)
    pytest.fail(f"no connection came to state {state}")


# -- policy ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("owner", "state"), [("guest", "not published"), ("node", "withheld")])
def test_policy_warn_lets_the_guest_start_and_the_status_says_why(
    client: Asker, make_node: NodeMaker, owner: str, state: str
) -> None:
    node = make_node(WARN)
    web2 = node.guest("web2", "2202:22", serves="22/tcp")
    if owner == "guest":
        node.guest("owner", "2202:22", serves="22/tcp").start()
    else:
        node.serve(NODE[4], "2202/tcp", name="owner")
    web2.start()
    row = node.status()["web2"]
    assert row["state"] == state
    assert "2202" in row["problem"]["message"]
    assert client.asks(NODE[4], 2202) == f"owner saw {CLIENT_ADDRESS}"
    web2.stop()
    assert "web2" not in node.status()


def test_policy_warn_publishes_when_the_port_has_become_free(
    client: Asker, make_node: NodeMaker
) -> None:
    node = make_node(WARN)
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    web2 = node.guest("web2", "2202:22", serves="22/tcp")
    web1.start()
    web2.start()
    web1.stop()
    assert web2.hook("reconnect") == DONE
    assert client.asks(NODE[4], 2202) == f"web2 saw {CLIENT_ADDRESS}"
    assert node.states() == {"web2": "published"}
