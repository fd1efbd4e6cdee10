"""conntrackd on a node: what status says of it, and whom it believes."""

import signal
import socket
from collections.abc import Callable

import pytest

from cgw_hooks.core.node_config import FULL_NAT
from tests.failover.cluster import (
    BETWEEN,
    ENTRY,
    GUEST,
    HOME,
    Failover,
    addresses_of,
    taken_addresses,
)
from tests.lab.namespace import Namespace
from tests.lab.network import NodeAddresses
from tests.lab.status_json import read_status
from tests.libvirt.waiting import eventually
from tests.netns.node import Node

pytestmark = [
    pytest.mark.failover,
    pytest.mark.parametrize("failover", [FULL_NAT], indirect=True),
]

GROUP, PORT = "ff12::3780", 3780
LIBERAL = "net/netfilter/nf_conntrack_tcp_be_liberal"


def problems(node: Node) -> list[str]:
    """The node's problems of replication, as status shows them."""
    said = read_status(node.cgw("status", "--json", check=False).stdout)
    return [f"{p['message']}; {p['cure']}" for p in said["problems"] if p["code"] == "replication"]


def test_status_finds_a_conntrackd_that_runs_and_is_heard(failover: Failover) -> None:
    assert problems(failover.node(ENTRY)) == []


def test_status_finds_a_conntrackd_that_hangs(failover: Failover) -> None:
    failover.daemons[ENTRY].send_signal(signal.SIGSTOP)
    assert problems(failover.node(ENTRY)) == [
        "it has not answered for 2 s; run: systemctl restart cgw-conntrackd"
    ]
    failover.daemons[ENTRY].send_signal(signal.SIGCONT)
    assert eventually(lambda: problems(failover.node(ENTRY)) == [])


def test_status_finds_a_conntrackd_that_ended(failover: Failover) -> None:
    failover.daemons[ENTRY].kill()
    assert problems(failover.node(ENTRY)) == [
        "it does not run; run: systemctl restart cgw-conntrackd"
    ]
    failover.daemons[ENTRY].restart()
    assert eventually(lambda: problems(failover.node(ENTRY)) == [])


def test_status_finds_others_that_are_silent(failover: Failover) -> None:
    for index in (BETWEEN, HOME):
        failover.daemons[index].kill()
    (silent,) = problems(failover.node(ENTRY))
    assert silent == (
        "no other node's conntrackd was heard for 3 s; "
        "see on the other nodes: systemctl status cgw-conntrackd.service"
    )


def test_status_finds_a_former_config(failover: Failover) -> None:
    config = failover.node(ENTRY).runtime / "conntrackd.conf"
    text = config.read_text()
    config.write_text(text.replace("TCP\n", ""))
    assert problems(failover.node(ENTRY)) == [
        "its config is not that of cgw.toml; run: cgw node up"
    ]
    said = failover.node(ENTRY).cgw("node", "up").stdout
    assert f"wrote  {config}" in said
    assert "it has its former config; run: conntrackd -C" in said
    assert config.read_text() == text
    assert config.stat().st_mode & 0o777 == 0o600


def test_down_ends_it_and_gives_back_what_it_needed(failover: Failover) -> None:
    node = failover.node(ENTRY)
    assert _sysctl(node.namespace) == "1"
    said = node.cgw("node", "down").stdout
    assert "stopped conntrackd" in said
    assert eventually(lambda: failover.daemons[ENTRY].process.poll() == 0)
    assert [path.name for path in node.runtime.glob("conntrackd*")] == []
    assert _sysctl(node.namespace) == "0"
    said = node.cgw("node", "up").stdout
    assert f"systemd does not run here; run: conntrackd -d -C {node.runtime}" in said


def _sysctl(inside: Namespace) -> str:
    return inside.run(["cat", f"/proc/sys/{LIBERAL}"]).stdout.strip()


def test_a_conntrackd_that_hangs_costs_the_connections_alone(failover: Failover) -> None:
    failover.daemons[BETWEEN].send_signal(signal.SIGSTOP)
    failover.kill_node()
    taker = failover.node(BETWEEN)
    said = taker.cgw("node", "takeover", "node1", check=False)
    assert said.returncode == 6
    assert said.stderr == (
        'cgw: conntrackd: node "node1" is taken over without its connections: it has not answered '
        "for 2 s; run: systemctl restart cgw-conntrackd\n"
    )
    assert taken_addresses(ENTRY) <= addresses_of(taker)
    assert failover.asks(ENTRY, 4) == failover.seen_by_guest(ENTRY, 4)
    failover.daemons[BETWEEN].send_signal(signal.SIGCONT)


def _send(inside: Namespace, address: str, device: str = "") -> Callable[[], None]:
    """Send what conntrackd would read as one of its messages, and find malformed."""

    def send() -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sender:
            if device:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            for _ in range(10):
                sender.sendto(b"\x20\x00\x00\x10" + bytes(12), (address, PORT))

    return send


@pytest.mark.parametrize("who", ["guest-to-group", "guest-to-node", "client-to-node"])
def test_only_other_nodes_are_believed(failover: Failover, who: str) -> None:
    """The same message is read where the rules are taken away, so it does reach the node."""
    reader, node = failover.daemons[HOME], failover.node(HOME)
    guest, client = failover.made.guests[GUEST].wire.namespace, failover.made.client.namespace
    send = {
        "guest-to-group": _send(guest, GROUP, "eth0"),
        "guest-to-node": _send(guest, NodeAddresses(HOME).guest_network),
        "client-to-node": _send(client, NodeAddresses(HOME).uplink),
    }[who]
    for _ in range(3):
        send()
    before = reader.number("Pckts recv")
    assert eventually(lambda: reader.number("Pckts recv") > before)  # of another node
    assert reader.number("Malformed messages:") == 0
    node.nft("flush chain inet cgw input\nflush chain bridge cgw prerouting\n")

    def is_read() -> bool:
        send()
        return reader.number("Malformed messages:") > 0

    assert eventually(is_read)
