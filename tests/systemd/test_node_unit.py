"""cgw-node.service: the gateway's SNAT comes back after a firewall took it."""

from collections.abc import Iterator

import pytest

from tests.netns.configs import CLIENT, FULL_NAT, NODE
from tests.systemd.gateway import Gateway

pytestmark = pytest.mark.systemd

SERVICE = 9090
CONFIG = "/etc/cgw/cgw.toml"


@pytest.fixture
def serving(gateway: Gateway) -> Iterator[Gateway]:
    """The gateway with cgw-node.service alone in service, and a server outside."""
    gateway.switch_to("nftables")
    gateway.host.systemctl("stop", "cgw.service")
    gateway.host.write(CONFIG, FULL_NAT)
    gateway.client.serve(CLIENT[4], f"{SERVICE}/tcp", "outside")
    gateway.order("start", "cgw-node.service")
    yield gateway
    gateway.order("stop", "cgw-node.service")
    gateway.host.path(CONFIG).unlink()
    gateway.start_guests()


def test_a_guest_goes_out_with_the_nodes_address_after_a_reload_and_a_restart(
    serving: Gateway,
) -> None:
    assert f"outside saw {NODE[4]}" == serving.web1.asks(CLIENT[4], SERVICE)
    for order in ("reload", "restart"):
        serving.order(order, "nftables")
        assert f"outside saw {NODE[4]}" == serving.web1.asks(CLIENT[4], SERVICE)
