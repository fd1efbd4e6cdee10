"""The cgw.toml of a gateway, in the lab's address plan."""

from collections.abc import Sequence

from tests.lab.network import (
    GATEWAY_ADDRESS,
    GATEWAY_ADDRESS6,
    GUEST_BRIDGE,
    GUEST_SUBNET,
    GUEST_SUBNET6,
    INTERNODE_DEVICES,
    UPLINK_BRIDGE,
    NodeAddresses,
)


def gateway_config(
    node: NodeAddresses,
    *,
    internode: Sequence[str] = INTERNODE_DEVICES,
    full_mesh: bool = False,
) -> str:
    """Full NAT, for both IP families; with no inter-node devices, of a node that is alone."""
    devices = ", ".join(f'"{device}"' for device in internode)
    filtered = f"internode-devices = [{devices}]\n" if internode else ""
    filtered += "full-mesh = true\n" if full_mesh else ""
    return f"""\
[uplink]
devices = ["{UPLINK_BRIDGE}"]
address = ["{node.uplink}", "{node.uplink6}"]

[[guest-network]]
bridge = "{GUEST_BRIDGE}"
subnet = "{GUEST_SUBNET}"
node-address = "{node.guest_network}"
gateway-address = "{GATEWAY_ADDRESS}"
{filtered}
[[guest-network]]
bridge = "{GUEST_BRIDGE}"
subnet = "{GUEST_SUBNET6}"
node-address = "{node.guest_network6}"
gateway-address = "{GATEWAY_ADDRESS6}"
{filtered}"""
