"""Which tracked flows belong to a node."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from cgw_hooks.core.node_flows import Ends, is_translated_for, touches

pytestmark = pytest.mark.unit

UPLINK, INSIDE = "192.168.122.11", "10.5.5.251"
NODE = frozenset(map(ip_address, (UPLINK, INSIDE)))
CLIENT, GUEST, OTHER = "192.0.2.7", "10.5.5.22", "192.168.122.12"


def ends(*texts: str) -> Ends:
    return Ends(*map(ip_address, texts))


@pytest.mark.parametrize(("flow", "translated", "touched"), [
    ((CLIENT, UPLINK, GUEST, INSIDE), True, True),  # published, FULL-NAT
    ((CLIENT, UPLINK, GUEST, CLIENT), True, True),  # published, steered
    ((GUEST, CLIENT, CLIENT, UPLINK), True, True),  # the guest's own
    ((INSIDE, GUEST, GUEST, INSIDE), False, True),  # bridged by another node
    ((CLIENT, UPLINK, UPLINK, CLIENT), False, True),  # of the node itself
    ((UPLINK, OTHER, GUEST, "10.5.5.252"), False, True),  # the node is another node's client
    ((CLIENT, OTHER, GUEST, "10.5.5.252"), False, False),
    ((CLIENT, GUEST, GUEST, CLIENT), False, False),  # steered to a guest of this node
])  # fmt: skip
def test_only_what_the_node_has_translated_is_its_own(
    flow: tuple[str, ...], translated: bool, touched: bool
) -> None:
    assert is_translated_for(ends(*flow), NODE) is translated
    assert touches(ends(*flow), NODE) is touched
