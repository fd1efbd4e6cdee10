"""A guest whose address is leased: status tells where the lease has come, moved or ended."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.lab.domain import guest_mac
from tests.lab.network import GATEWAY_ADDRESS, GUEST_BRIDGE, guest_address
from tests.lab.status_json import read_status
from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import CLIENT, NODE
from tests.netns.guest import DONE
from tests.netns.node import Node
from tests.netns.own_mounts import OwnMounts, own_mounts

pytestmark = pytest.mark.netns

PORT = 2202
FOLDER = "/var/lib/libvirt/dnsmasq"
#: The guest that is published; the one that may get its address later.
WEB1, WEB2 = 11, 12


class Network:
    """A libvirt network's leases, as its lease helper keeps them; they are there for cgw alone."""

    def __init__(self, node: Node, mounts: OwnMounts) -> None:
        self.node, self.mounts = node, mounts
        mounts.run(f"mount -t tmpfs tmpfs /var/lib; mkdir -p {FOLDER}")
        guest = node.guest(
            "web1", f"{PORT}:22", serves="22/tcp", octet=WEB1, addresses="", interface="default"
        )
        named = f'<source network="default" bridge="{GUEST_BRIDGE}"/>'
        self.xml = guest.xml.replace('<source network="default"/>', named)
        assert named in self.xml
        self.guest = guest

    def leases(self, *leases: tuple[int, int, float]) -> None:
        """Write the leases: address and owner (by last byte), seconds until it ends."""
        listed = [
            {
                "ip-address": guest_address(address),
                "mac-address": guest_mac(owner),
                "expiry-time": int(time.time() + seconds),
            }
            for address, owner, seconds in leases
        ]
        path = self.node.folder / "leases"
        path.write_text(json.dumps(listed))
        self.mounts.run(f"cp {path} {FOLDER}/{GUEST_BRIDGE}.status")

    def hook(self, operation: str) -> None:
        """Call the guest's hook."""
        self.guest.hooked.append(operation)
        assert self.mounts.hook(self.guest, operation, xml=self.xml) == DONE

    def status(self) -> tuple[int, str, str]:
        """Exit code, state and what the problem says of the one port."""
        ended = self.mounts.cgw("status", "--json")
        (row,) = read_status(ended.stdout)["published"]
        return ended.returncode, row["state"], (row["problem"] or {"message": ""})["message"]


@pytest.fixture
def network(node: Node) -> Iterator[Network]:
    with own_mounts(node) as mounts:
        yield Network(node, mounts)


def test_a_first_lease_is_told(client: Asker, network: Network) -> None:
    network.hook("started")
    assert network.status() == (1, "no address yet", "no lease of the guest is known")
    network.leases((WEB1, WEB1, 3600))
    assert client.asks(NODE[4], PORT) == REFUSED
    assert network.status() == (1, "no address yet", "it now has the address 10.5.5.11")
    network.hook("reconnect")
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    assert network.status() == (0, "published", "")


def test_a_lease_that_another_guest_has_now_is_told(client: Asker, network: Network) -> None:
    """The wrong guest answers: it has the address that was web1's."""
    network.leases((WEB1, WEB1, 3600))
    network.hook("started")
    assert network.status() == (0, "published", "")
    wire = network.guest.wire
    wire.namespace.ip(
        f"address del {guest_address(WEB1)}/24 dev eth0\n"
        f"address add {guest_address(WEB2)}/24 dev eth0\n"
        f"route replace default via {GATEWAY_ADDRESS}\n"
    )
    other = network.node.guest("web2", serves="99/tcp", octet=77)
    other.wire.namespace.ip(f"address add {guest_address(WEB1)}/24 dev eth0\n")
    other.wire.serve(guest_address(WEB1), "22/tcp")
    wire.serve(guest_address(WEB2), "22/tcp")
    network.node.namespace.ip("neigh flush all\n")
    network.leases((WEB1, WEB1, 3600), (WEB2, WEB1, 3600), (WEB1, 77, 3600))
    assert client.asks(NODE[4], PORT) == f"web2 saw {CLIENT[4]}"
    assert network.status() == (1, "failed", "it now has the address 10.5.5.12")
    network.hook("reconnect")
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    assert network.status() == (0, "published", "")


def test_a_lease_that_ended_is_told(client: Asker, network: Network) -> None:
    network.leases((WEB1, WEB1, 3600))
    network.hook("started")
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    network.leases((WEB1, WEB1, -1))
    assert network.status() == (1, "failed", "its lease ended")
    network.hook("reconnect")
    assert client.asks(NODE[4], PORT) == REFUSED
    assert network.status() == (1, "no address yet", "no lease of the guest is known")
