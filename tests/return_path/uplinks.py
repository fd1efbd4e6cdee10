"""Counts what each node sends by its uplink, by the source address of the packets."""

import json

from tests.lab.namespace import Namespace
from tests.lab.network import NodeAddresses
from tests.return_path.cluster import NODES

_TABLE = "netdev counted"
_COUNT = f"""
table {_TABLE}
delete table {_TABLE}
table {_TABLE} {{
    set of4 {{ type ifname . ipv4_addr; flags dynamic; size 256; counter; }}
    set of6 {{ type ifname . ipv6_addr; flags dynamic; size 256; counter; }}
    chain seen {{
        type filter hook ingress devices = {{ {", ".join(f'"node{n}"' for n in NODES)} }} priority 1
        meta l4proto {{ tcp, udp, sctp }} add @of4 {{ iifname . ip saddr }}
        meta l4proto {{ tcp, udp, sctp }} add @of6 {{ iifname . ip6 saddr }}
    }}
}}
"""


class Uplinks:
    """The packets of all nodes, counted in the client's namespace from now on."""

    def __init__(self, client: Namespace) -> None:
        self._client = client
        client.run(["nft", "-f", "-"], input=_COUNT)

    def sent(self, by: int, source: int, family: int) -> int:
        """How many packets a node has sent with the uplink address of a node as their source."""
        command = ["nft", "-j", "list", "set", *_TABLE.split(), f"of{family}"]
        content = json.loads(self._client.run(command).stdout)["nftables"]
        node = NodeAddresses(source)
        key = [f"node{by}", {4: node.uplink, 6: node.uplink6}[family]]
        elements = [e["elem"] for o in content if "set" in o for e in o["set"].get("elem", ())]
        return sum(e["counter"]["packets"] for e in elements if e["val"]["concat"] == key)
