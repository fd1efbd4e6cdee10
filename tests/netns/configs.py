"""Node configs and addresses that the tests share."""

from tests.lab.gateway_config import gateway_config
from tests.lab.network import (
    CLIENT_ADDRESS,
    CLIENT_ADDRESS6,
    GATEWAY_ADDRESS,
    GATEWAY_ADDRESS6,
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

FULL_NAT = gateway_config(_node, internode=())

#: Guests go out with whatever address the device has.
MASQUERADE = FULL_NAT.replace(f'address = ["{NODE[4]}", "{NODE[6]}"]\n', "")

WARN = '[policy]\non-invalid = "warn"\n'
