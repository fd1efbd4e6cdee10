"""The config of conntrackd, which tells the other nodes of this node's tracked flows.

conntrackd authenticates nobody, and listens on every address: ``core/rules/sync_filter`` lets its
messages in only from other nodes.

The text contains only parsed addresses, device names and fixed words. The syntax is that of
conntrackd 1.4.7 (Debian 12) and 1.4.8 (Debian 13).
Source: conntrackd.conf(5); read_config_yy.y, filter.c and sync-notrack.c of conntrack-tools.
"""

from __future__ import annotations

from cgw_hooks.core.node_config import FULL_NAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig
    from cgw_hooks.core.published_port import Network

#: The UDP port of its messages, as in conntrackd's own examples, and the group that they are sent
#: to, of one link (RFC 4291 section 2.7). It is not that of the examples: guests may be firewalls
#: that replicate among themselves. It is not one of IPv4, since the messages would then come from
#: the node address: the host that stands in for a node has that address, and would drop them.
PORT = 3780
GROUP = "ff12::3780"

_SOCKET_BUFFER = 4 << 20  # NOTRACK does not repeat a message that was lost
_LONGEST_SOCKET_BUFFER = 16 << 20
#: Twice the flows that a kernel tracks by default (net.netfilter.nf_conntrack_max, 262,144).
_MOST_FLOWS = 524_288
_BUCKETS = 32_768
_WORDS = {4: "IPv4_address", 6: "IPv6_address"}
#: Flows that no other node can carry on: of the host itself, on one link, and conntrackd's own.
_ON_THIS_LINK = {4: ("127.0.0.0/8", "224.0.0.0/4"), 6: ("::1", "fe80::/10", "ff00::/8")}


def is_needed(config: NodeConfig) -> bool:
    """Whether conntrackd must run on this node."""
    return bool(config.guest_networks) and (config.replicates or config.is_synced)


def sync_network(config: NodeConfig) -> GuestNetwork:
    """Return the guest network whose bridge carries the messages: on all nodes the same one."""
    return min(config.guest_networks, key=lambda n: (n.subnet.version, int(n.subnet[0])))


def bridge(config: NodeConfig) -> str:
    """Return the bridge that carries the messages; it must have a link-local IPv6 address."""
    return sync_network(config).bridge


def text(config: NodeConfig, directory: str) -> str:
    """Return conntrackd.conf; ``directory`` is that of its lock and of its control socket."""
    return f"""\
# Written by cgw node up: changes are lost.
{_sync(config)}
{_general(config, directory)}
"""


def _sync(config: NodeConfig) -> str:
    return f"""\
Sync {{
    Mode NOTRACK {{
        DisableExternalCache {"yes" if config.is_synced else "no"}
        StartupResync yes
    }}
    Multicast {{
        IPv6_address {GROUP}
        Group {PORT}
        Interface {bridge(config)}
        SndSocketBuffer {_SOCKET_BUFFER}
        RcvSocketBuffer {_SOCKET_BUFFER}
        Checksum on
    }}
}}"""


def _general(config: NodeConfig, directory: str) -> str:
    return f"""\
General {{
    Systemd yes
    Syslog yes
    HashSize {_BUCKETS}
    HashLimit {_MOST_FLOWS}
    LockFile {lock_file(directory)}
    UNIX {{
        Path {directory}/conntrackd.ctl
    }}
    NetlinkBufferSize {_SOCKET_BUFFER}
    NetlinkBufferSizeMaxGrowth {_LONGEST_SOCKET_BUFFER}
    Filter From {_filter(config)} {{
        Protocol Accept {{
            TCP
            UDP
            SCTP
        }}
        Address Ignore {{
{_lines(_ignored(config))}
        }}
    }}
}}"""


def config_file(directory: str) -> str:
    """Return the path of the config; the unit names it too."""
    return f"{directory}/conntrackd.conf"


def lock_file(directory: str) -> str:
    """Return the path of the lock; conntrackd does not start if a killed one has left it."""
    return f"{directory}/conntrackd.lock"


def _ignored(config: NodeConfig) -> list[str]:
    """Return the addresses of flows that are not replicated.

    A flow between a node and a guest is of this link: with br_netfilter, a node also tracks the
    frames that it only bridges, and such a flow has the same end as the one that another node has
    translated.
    """
    own = [a for n in config.guest_networks for a in (n.node_address, n.gateway_address)]
    others = [address for node in config.remote_nodes for address in node.node_addresses]
    found = [f"{_WORDS[address.version]} {address}" for address in dict.fromkeys([*own, *others])]
    for version, networks in _ON_THIS_LINK.items():
        found += [f"{_WORDS[version]} {network}" for network in networks]
    steered = steered_subnets(config)
    if not steered:
        return found
    # In the kernel's filter that libnetfilter_conntrack 1.0.9 makes, nothing counts that follows an
    # IPv6 network. All that matters are the guest network and the other nodes' addresses.
    found = [entry for entry in found if not entry.startswith(_WORDS[6])]
    found += _of_other_nodes(config)
    return found + [f"{_WORDS[subnet.version]} {subnet}" for subnet in steered]


def _of_other_nodes(config: NodeConfig) -> list[str]:
    """Return where clients come in to other nodes, with ct-sync.

    The kernel of this node tracks these flows as well, since conntrackd has made it. Nobody but the
    entry node may tell of them: it would hear outdated news of its own connections.
    """
    if not config.is_synced:
        return []
    found = [address for node in config.remote_nodes for address in node.uplink_addresses]
    return [f"{_WORDS[address.version]} {address}" for address in dict.fromkeys(found)]


def steered_subnets(config: NodeConfig) -> list[Network]:
    """Return the guest networks whose own flows must be ignored.

    Those that a guest's node has lifted are its own affair (``return_path/steer``).
    """
    return [n.subnet for n in config.guest_networks if n.return_path != FULL_NAT]


def _filter(config: NodeConfig) -> str:
    """Return who filters: the kernel compares the addresses of a flow's first packet.

    conntrackd itself compares the client and the guest: so it cannot tell a flow that was lifted
    from one that was translated. But it also filters what it finds when it starts.
    """
    return "Kernelspace" if steered_subnets(config) else "Userspace"


def _lines(entries: Iterable[str]) -> str:
    return "\n".join(f"            {entry}" for entry in entries)
