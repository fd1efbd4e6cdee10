"""Watches the uplink network for packets with a guest's source address.

Every frame that a node sends by its uplink meets a chain in the client's namespace, before the
uplink's switch. So no packet is missed, also in the middle of a bulk transfer.
"""

import json

from tests.lab.namespace import Namespace
from tests.lab.network import GUEST_SUBNET, GUEST_SUBNET6

_WATCH = """
table netdev watch {{
    set leaked4 {{
        type ifname . ipv4_addr . ipv4_addr . inet_proto
        flags dynamic; size 256
    }}
    set leaked6 {{
        type ifname . ipv6_addr . ipv6_addr . inet_proto
        flags dynamic; size 256
    }}
    set leaked_arp {{
        type ifname . ipv4_addr . ipv4_addr
        flags dynamic; size 256
    }}
    chain seen {{ type filter hook ingress devices = {{ {devices} }} priority 0;
        ip saddr {subnet4} add @leaked4 {{ iifname . ip saddr . ip daddr . ip protocol }}
        ip6 saddr {subnet6} add @leaked6 {{ iifname . ip6 saddr . ip6 daddr . ip6 nexthdr }}
        arp saddr ip {subnet4} add @leaked_arp {{ iifname . arp saddr ip . arp daddr ip }}
    }}
}}
"""
_SETS = ("leaked4", "leaked6", "leaked_arp")


class Leaks:
    """What has left by an uplink with a guest's source address."""

    def __init__(self, client: Namespace, ports: list[str]) -> None:
        """Watch these ports of the uplink's switch, which is in the client's namespace."""
        self._client = client
        devices = ", ".join(f'"{port}"' for port in ports)
        text = _WATCH.format(devices=devices, subnet4=GUEST_SUBNET, subnet6=GUEST_SUBNET6)
        client.run(["nft", "-f", "-"], input=text)

    def found(self) -> list[str]:
        """Return each as "node1 10.5.5.21 192.168.122.100 tcp", and forget them."""
        lines = []
        for name in _SETS:
            said = self._client.run(["nft", "-j", "list", "set", "netdev", "watch", name]).stdout
            content = next(o["set"] for o in json.loads(said)["nftables"] if "set" in o)
            lines += [" ".join(map(str, e["concat"])) for e in content.get("elem", ())]
        if lines:
            flush = "".join(f"flush set netdev watch {name}\n" for name in _SETS)
            self._client.run(["nft", "-f", "-"], input=flush)
        return lines
