"""Node configs and addresses that the tests share."""

from tests.lab.network import (
    CLIENT_ADDRESS,
    CLIENT_ADDRESS6,
    GATEWAY_ADDRESS,
    GATEWAY_ADDRESS6,
    GUEST_BRIDGE,
    GUEST_SUBNET,
    GUEST_SUBNET6,
    UPLINK_BRIDGE,
    NodeAddresses,
)

_node = NodeAddresses(1)
#: The node's addresses on the uplink, and its own among the guests; by IP family.
NODE = {4: _node.uplink, 6: _node.uplink6}
NODE_AMONG_GUESTS = {4: _node.guest_network, 6: _node.guest_network6}

CLIENT = {4: CLIENT_ADDRESS, 6: CLIENT_ADDRESS6}
THIRD = {4: "192.168.122.200", 6: "fd00:122::200"}
GATEWAY = {4: GATEWAY_ADDRESS, 6: GATEWAY_ADDRESS6}

#: No config file: published on every local address, no SNAT.
NONE = ""

FULL_NAT = f"""
[uplink]
devices = ["{UPLINK_BRIDGE}"]
address = ["{NODE[4]}", "{NODE[6]}"]

[[guest-network]]
bridge = "{GUEST_BRIDGE}"
subnet = "{GUEST_SUBNET}"
node-address = "{NODE_AMONG_GUESTS[4]}"
gateway-address = "{GATEWAY_ADDRESS}"

[[guest-network]]
bridge = "{GUEST_BRIDGE}"
subnet = "{GUEST_SUBNET6}"
node-address = "{NODE_AMONG_GUESTS[6]}"
gateway-address = "{GATEWAY_ADDRESS6}"
"""

#: Guests go out with whatever address the device has.
MASQUERADE = FULL_NAT.replace(f'address = ["{NODE[4]}", "{NODE[6]}"]\n', "")

WARN = '[policy]\non-invalid = "warn"\n'
