"""The network of a probe, as lines of ``ip -batch``: a namespace with one device, `eth0`.

Its other end is a device of this host, which goes with the namespace, and so with the process that
holds it. Without a bridge, nothing but a route to the probe's one address leads there, and both
ends know each other's MAC address. So no network of the administrator is touched.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address

#: Networks for tests of network devices: no host on the Internet has them (RFC 2544, RFC 5180).
_FIRST4, _FIRST6 = IPv4Address("198.18.0.0"), IPv6Address("2001:2::")
_ADDRESSES = 1 << 17
_MAC, _HOST_MAC = "02:63:67:77:00:02", "02:63:67:77:00:01"


class ProbeNetwork(NamedTuple):
    """The name of this host's end, the probe's address, whom it asks.

    ``bridge`` is the bridge that the probe is a port of; empty: the probe is routed.
    """

    device: str
    source: Address
    destination: Address
    bridge: str = ""

    def inside(self, process: int) -> str:
        """Return the lines for the new namespace; ``process`` is one in this host's network."""
        is_routed = not self.bridge
        ours, theirs = (f" address {_MAC}", f" address {_HOST_MAC}") if is_routed else ("", "")
        no_dad = " nodad" if self.source.version == 6 else ""  # noqa: PLR2004
        lines = [
            f"link add eth0{ours} type veth peer name {self.device}{theirs} netns {process}",
            "link set lo up",
            "link set eth0 up",
            f"address add {self.source} dev eth0{no_dad}",
            f"route add {self.destination} dev eth0 src {self.source}",
        ]
        if is_routed:
            host = f"{self.destination} lladdr {_HOST_MAC}"
            lines.append(f"neigh replace {host} nud permanent dev eth0")
        return _batch(lines)

    def outside(self) -> str:
        """Return the lines for this host."""
        lines = [f"link set {self.device} addrgenmode none up"]
        if self.bridge:
            lines.append(f"link set {self.device} master {self.bridge}")
        else:
            probe = f"{self.source} lladdr {_MAC}"
            lines.append(f"neigh replace {probe} nud permanent dev {self.device}")
            lines.append(f"route add {self.source} dev {self.device}")
        return _batch(lines)


def _batch(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def own_source(version: int, process: int) -> Address:
    """Return an address for the probe of a process, which no host has."""
    number = 1 + process % (_ADDRESSES - 2)
    return _FIRST4 + number if version == 4 else _FIRST6 + number  # noqa: PLR2004


def device_name(process: int) -> str:
    """Return the name of this host's end: at most 15 characters."""
    return f"cgwp{process}"
