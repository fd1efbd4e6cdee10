"""The cgw.toml of a gateway, in the lab's address plan."""

from collections.abc import Sequence

from cgw_hooks.core.node_config import Registry
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
    return_path: str = "",
) -> str:
    """Both IP families; with no inter-node devices, of a node that is alone.

    Without `return_path` the config does not name one: FULL-NAT is the default.
    """
    devices = ", ".join(f'"{device}"' for device in internode)
    filtered = f"internode-devices = [{devices}]\n" if internode else ""
    filtered += "full-mesh = true\n" if full_mesh else ""
    if return_path:
        filtered += f'return-path = "{return_path}"\nbridge-mac = "{node.bridge_mac}"\n'
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


def remote_node_table(node: NodeAddresses) -> str:
    """The [[remote-node]] table that the other nodes have of a node."""
    return f"""\
[[remote-node]]
name = "node{node.index}"
node-address = ["{node.guest_network}", "{node.guest_network6}"]
uplink-address = ["{node.uplink}", "{node.uplink6}"]
bridge-mac = "{node.bridge_mac}"
"""


def registry_table(config: Registry) -> str:
    """The [registry] table of cgw.toml."""
    endpoints = ", ".join(f'"{endpoint}"' for endpoint in config.endpoints)
    lines = ["[registry]", f"endpoints = [{endpoints}]", f'prefix = "{config.prefix}"']
    named = {
        "ca": config.ca, "certificate": config.certificate, "key": config.key,
        "user": config.user, "password-file": config.password_file,
    }  # fmt: skip
    lines += [f'{key} = "{value}"' for key, value in named.items() if value]
    return "\n".join(lines) + "\n"
