"""cgw-node.service: the gateway's SNAT comes back after a firewall took it."""

from collections.abc import Iterator

import pytest

from tests.libvirt.waiting import eventually
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NODE_AMONG_GUESTS
from tests.systemd.gateway import Gateway

pytestmark = pytest.mark.systemd

SERVICE = 9090
CONFIG = "/etc/cgw/cgw.toml"


@pytest.fixture(scope="module")
def serving(gateway: Gateway) -> Iterator[Gateway]:
    """The gateway with cgw-node.service alone in service, and a server outside."""
    gateway.switch_to("nftables")
    gateway.host.systemctl("stop", "cgw-sync.service")
    gateway.host.write(CONFIG, FULL_NAT)
    gateway.client.serve(CLIENT[4], f"{SERVICE}/tcp", "outside")
    addresses = addresses_of_guest_bridge(gateway).split()[2:]
    gateway.order("start", "cgw-node.service")
    yield gateway
    gateway.order("stop", "cgw-node.service")
    for address in addresses:  # a test may have taken them away
        gateway.host.run(["ip", "address", "replace", address, "dev", "guestbr0"])
    gateway.host.path(CONFIG).unlink()
    gateway.start_guests()


def test_a_guest_goes_out_with_the_nodes_address_after_a_reload_and_a_restart(
    serving: Gateway,
) -> None:
    assert f"outside saw {NODE[4]}" == serving.web1.asks(CLIENT[4], SERVICE)
    for order in ("reload", "restart"):
        serving.order(order, "nftables")
        assert f"outside saw {NODE[4]}" == serving.web1.asks(CLIENT[4], SERVICE)


def test_the_agent_lets_the_gateway_set_addresses_again_that_are_gone(serving: Gateway) -> None:
    serving.order("start", "cgw.service", "cgw-resync.path")  # started by an enabled cgw-node
    assert NODE_AMONG_GUESTS[4] in addresses_of_guest_bridge(serving)
    serving.host.run(["ip", "address", "flush", "dev", "guestbr0"])
    assert eventually(lambda: NODE_AMONG_GUESTS[4] in addresses_of_guest_bridge(serving))
    serving.order("stop", "cgw.service", "cgw-resync.path")


def addresses_of_guest_bridge(serving: Gateway) -> str:
    return serving.host.run(["ip", "-br", "address", "show", "dev", "guestbr0"]).stdout
