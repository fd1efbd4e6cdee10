"""The config of conntrackd, and the rules that let only other nodes speak to it."""

from __future__ import annotations

import pytest

from cgw_hooks.core import conntrackd_config
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.core.rules import sync_filter
from cgw_hooks.errors import InvalidConfig

pytestmark = pytest.mark.unit

NETWORKS = {
    4: """
[[guest-network]]
bridge = "guestbr0"
subnet = "10.5.5.0/24"
node-address = "10.5.5.251"
gateway-address = "10.5.5.254"
internode-devices = ["eth1.100"]
return-path = "{}"
""",
    6: """
[[guest-network]]
bridge = "guestbr0"
subnet = "fd00:5::/64"
node-address = "fd00:5::251"
gateway-address = "fd00:5::254"
internode-devices = ["eth1.100"]
return-path = "{}"
""",
}
OTHER = """
[[remote-node]]
name = "node2"
node-address = ["10.5.5.252", "fd00:5::252"]
uplink-address = ["192.168.122.12", "fd00:122::12"]
"""
REPLICATE = "\n[failover]\nreplicate = true\n"
LOCAL = {
    "IPv4_address 127.0.0.0/8", "IPv4_address 224.0.0.0/4", "IPv6_address ::1",
    "IPv6_address fe80::/10", "IPv6_address ff00::/8",
}  # fmt: skip


def config(**families: str) -> str:
    """``v4="steer"``: the return path of each family's network."""
    named = [NETWORKS[int(name[1:])].format(path) for name, path in families.items()]
    return "".join(named) + OTHER + REPLICATE


def text(toml: str) -> str:
    return conntrackd_config.text(parse_config(toml), "/run/cgw")


def ignored(toml: str) -> set[str]:
    part = text(toml).partition("Address Ignore {")[2].partition("}")[0]
    return {line.strip() for line in part.splitlines()} - {""}


def test_flows_between_nodes_and_guests_are_not_replicated() -> None:
    nodes = {f"IPv4_address 10.5.5.{n}" for n in (251, 252, 254)}
    nodes |= {f"IPv6_address fd00:5::{n}" for n in (251, 252, 254)}
    assert ignored(config(v4="full-nat", v6="full-nat")) == LOCAL | nodes
    assert "Filter From Userspace {" in text(config(v4="full-nat"))


def test_the_kernel_leaves_out_steered_networks_and_gets_one_ipv6_network_at_most() -> None:
    found = ignored(config(v4="steer", v6="steer"))
    assert {"IPv4_address 10.5.5.0/24", "IPv6_address fd00:5::/64"} < found
    assert ["IPv6_address fd00:5::/64"] == [entry for entry in found if "IPv6" in entry]
    assert "Filter From Kernelspace {" in text(config(v4="steer"))


def test_with_ct_sync_nobody_tells_of_the_connections_of_another_node() -> None:
    toml = config(v4="ct-sync", v6="ct-sync")
    assert {"IPv4_address 192.168.122.12", "IPv6_address fd00:122::12"} < ignored(toml)
    assert {"IPv4_address 10.5.5.0/24", "IPv6_address fd00:5::/64"} < ignored(toml)
    assert "Filter From Kernelspace {" in text(toml)
    # What follows an IPv6 network does not count in the kernel's filter.
    of_ipv6 = [
        line for line in text(toml).splitlines() if "IPv6_address" in line and "ff" not in line
    ]
    assert ["/" in line for line in of_ipv6] == [False, True]


@pytest.mark.parametrize(("path", "kept"), [("ct-sync", "yes"), ("steer", "no")])
def test_with_ct_sync_the_kernels_track_the_flows_of_all_nodes(path: str, kept: str) -> None:
    assert f"DisableExternalCache {kept}\n" in text(config(v4=path))


@pytest.mark.parametrize("families", [{"v4": "full-nat"}, {"v6": "full-nat", "v4": "steer"}])
def test_messages_never_come_from_an_address_that_can_be_taken_over(
    families: dict[str, str],
) -> None:
    found = text(config(**families))
    assert "IPv6_address ff12::3780\n        Group 3780\n        Interface guestbr0\n" in found
    assert "IPv4_interface" not in found


@pytest.mark.parametrize(("path", "replicate", "needed"), [
    ("full-nat", False, False), ("full-nat", True, True),
    ("steer", False, False), ("steer", True, True),
    ("ct-sync", False, True), ("ct-sync", True, True),
])  # fmt: skip
def test_conntrackd_runs_only_where_it_is_needed(path: str, replicate: bool, needed: bool) -> None:
    toml = config(v4=path)
    found = parse_config(toml if replicate else toml.removesuffix(REPLICATE))
    assert conntrackd_config.is_needed(found) is needed
    assert bool(sync_filter.input_rules(found)) is needed
    assert bool(sync_filter.bridge_rules(found)) is needed


def test_without_inter_node_devices_guests_could_not_be_told_from_nodes() -> None:
    toml = config(v4="full-nat").replace('internode-devices = ["eth1.100"]\n', "")
    with pytest.raises(InvalidConfig, match="internode-devices: it is missing") as error:
        parse_config(toml)
    assert "failover.replicate needs it" in str(error.value)


def test_two_steered_ipv6_networks_are_refused() -> None:
    second = NETWORKS[6].replace("fd00:5:", "fd00:6:").replace("guestbr0", "guestbr1")
    toml = NETWORKS[6].format("steer") + second.format("steer")
    other = OTHER.replace('"]\n', '", "fd00:6::252"]\n')
    parse_config(toml + other)
    with pytest.raises(InvalidConfig, match="both steered"):
        parse_config(toml + other + REPLICATE)
