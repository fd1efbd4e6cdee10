"""A port that a process of the node listens on is the node's, whenever that process came.

A published 22 must not lock the administrator out: not where the guest started before sshd did,
and not where its listening address comes to the node later.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.lab.network import CLIENT_ADDRESS
from tests.lab.server import serve
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, NODE
from tests.netns.guest import DONE, Guest, annotated
from tests.netns.node import Node
from tests.netns.parameters import families

pytestmark = pytest.mark.netns

CONFLICT = 4
LATER_ADDRESS = "192.168.122.50"
_IP_FREEBIND = 15  # include/uapi/linux/in.h

#: Who looks again at the node's listeners.
LOOKS: dict[str, Callable[[Guest], object]] = {
    "reconnect": lambda guest: guest.hook("reconnect"),
    "sync": lambda guest: guest.node.cgw("sync", check=False),
}
looks = pytest.mark.parametrize("look", LOOKS)


@contextmanager
def listening(node: Node, address: str, port: int, protocol: str = "tcp") -> Iterator[None]:
    """A process of the node answers at a port."""
    with serve(node.namespace, address, protocol, port, "node"):
        yield


@looks
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@families
def test_a_listener_that_comes_after_the_guest_gets_the_port(
    client: Asker, node: Node, look: str, protocol: str, family: int
) -> None:
    web1 = node.guest(
        "web1", f"2202:22/{protocol}", "2203:80", serves=f"80/tcp 22/{protocol}", family=family
    )
    web1.start()
    assert client.asks(NODE[family], 2202, protocol) == f"web1 saw {CLIENT[family]}"
    with listening(node, {4: "0.0.0.0", 6: "::"}[family], 2202, protocol):
        LOOKS[look](web1)
        assert client.asks(NODE[family], 2202, protocol) == f"node saw {CLIENT[family]}"
        assert client.asks(NODE[family], 2203) == f"web1 saw {CLIENT[family]}"
        assert sorted(row["state"] for row in node.status_rows()) == ["published", "withheld"]
        problem = next(row["problem"] for row in node.status_rows() if row["state"] == "withheld")
        assert f":2202/{protocol} is in use by a process of this node" in str(problem)
    LOOKS[look](web1)
    assert client.asks(NODE[family], 2202, protocol) == f"web1 saw {CLIENT[family]}"
    assert node.states() == {"web1": "published"}


def test_a_sync_that_withdraws_a_port_for_a_listener_says_so(node: Node) -> None:
    web1 = node.guest("web1", "2202:22")
    web1.start()
    with listening(node, NODE[4], 2202):
        told = node.cgw("sync", check=False)
        assert told.returncode == 1
        assert 'guest "web1": port *:2202/tcp is in use by a process of this node' in told.stderr


@looks
def test_connections_to_a_guest_whose_port_a_listener_took_end(
    client: Asker, node: Node, look: str
) -> None:
    web1 = node.guest("web1", "2202:7", serves="7/tcp-echo")
    web1.start()
    with client.tcp_session(NODE[4], 2202) as session:
        assert session.exchange("hello") == "hello"
        with listening(node, NODE[4], 2202):
            LOOKS[look](web1)
            with pytest.raises(ConnectionError):
                session.exchange("anybody?")


def test_a_listener_that_comes_while_the_guest_boots_keeps_the_port(
    client: Asker, node: Node
) -> None:
    """Between prepare and started: the guest starts, its other ports are published."""
    web1 = node.guest("web1", "2202:22", "2203:22", serves="22/tcp")
    assert web1.hook("prepare") == DONE
    with listening(node, "0.0.0.0", 2202):
        assert web1.hook("started") == DONE
        assert client.asks(NODE[4], 2202) == f"node saw {CLIENT[4]}"
        assert client.asks(NODE[4], 2203) == f"web1 saw {CLIENT[4]}"
        web1.stop()
        assert client.asks(NODE[4], 2202) == f"node saw {CLIENT[4]}"


def test_one_port_of_a_range_that_a_listener_took_withholds_that_range_alone(
    client: Asker, node: Node
) -> None:
    web1 = node.guest("web1", "2200-2209:2200", "2222:22", serves="2205/tcp 22/tcp")
    web1.start()
    with listening(node, "0.0.0.0", 2202):
        assert web1.hook("reconnect") == DONE
        assert client.asks(NODE[4], 2202) == f"node saw {CLIENT[4]}"
        assert client.asks(NODE[4], 2222) == f"web1 saw {CLIENT[4]}"
    assert web1.hook("reconnect") == DONE
    assert client.asks(NODE[4], 2205) == f"web1 saw {CLIENT[4]}"


def test_a_listener_on_any_address_has_the_port_at_an_address_that_comes_later(
    client: Asker, node: Node
) -> None:
    web1 = node.guest("web1", f"{LATER_ADDRESS}:2202:22", serves="22/tcp")
    with listening(node, "0.0.0.0", 2202):
        refused = web1.hook("prepare")
        assert refused.exit_code == CONFLICT
        assert f"{LATER_ADDRESS}:2202/tcp is in use by a process of this node" in refused.complaint
        node.add_address(LATER_ADDRESS)
        assert client.asks(LATER_ADDRESS, 2202) == f"node saw {CLIENT[4]}"


def test_a_listener_on_an_address_that_comes_later_has_the_port_there(node: Node) -> None:
    """IP_FREEBIND: servers that start before the address is there, keepalived's for example."""

    def listen() -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        made.bind((LATER_ADDRESS, 2202))
        made.listen()
        return made

    with node.namespace.call(listen):
        for published in ("2202:22", f"{LATER_ADDRESS}:2202:22"):
            assert node.guest("web1", published).hook("prepare").exit_code == CONFLICT
        assert node.guest("web3", f"{NODE[4]}:2202:22").hook("prepare") == DONE


def test_a_connected_udp_socket_of_the_node_is_no_listener(client: Asker, node: Node) -> None:
    """The node's DNS client takes answers of its server alone."""

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((NODE[4], 5300))
        made.connect((CLIENT_ADDRESS, 53))
        return made

    with node.namespace.call(connect):
        node.guest("web1", "5300:53/udp", serves="53/udp").start()
        assert client.asks(NODE[4], 5300, "udp") == f"web1 saw {CLIENT[4]}"


def test_an_edit_while_a_listener_has_a_port_is_carried_out_for_the_others(
    client: Asker, node: Node
) -> None:
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    web1.start()
    with listening(node, "0.0.0.0", 2202):
        assert web1.hook("reconnect", xml=annotated(web1, "2202:22", "2203:22")) == DONE
        assert client.asks(NODE[4], 2202) == f"node saw {CLIENT[4]}"
        assert client.asks(NODE[4], 2203) == f"web1 saw {CLIENT[4]}"


def test_a_guest_whose_record_was_lost_goes_on_without_the_listeners_port(
    client: Asker, node: Node
) -> None:
    """Libvirtd was restarted after /run/cgw was emptied: reconnect cannot refuse a guest."""
    web1 = node.guest("web1", "2202:22", "2203:22", serves="22/tcp")
    web1.start()
    (node.runtime / f"guests/{web1.key}.json").unlink()
    with listening(node, "0.0.0.0", 2202):
        assert web1.hook("reconnect") == DONE
        assert client.asks(NODE[4], 2202) == f"node saw {CLIENT[4]}"
        assert client.asks(NODE[4], 2203) == f"web1 saw {CLIENT[4]}"
