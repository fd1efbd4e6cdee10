"""The node's ruleset as nft text: static rules, and map elements for the published ports.

A range whose ports keep their numbers is one element; any other range is one element per port.

There are three kinds of text, each of them one transaction of ``nft -f``:

- ``change`` adds and deletes the elements of some ports, and nothing else. The whole transaction
  fails if the table was not written by this module from the same config.
- ``restore`` makes the table hold the static rules and all elements, whatever it held before. The
  table, chains and maps are kept as objects: to replace a table refuses connections for an
instant,
  to replace its contents does not.
- ``remove`` deletes the table.

A packet meets the rules in this order:

- *prerouting* (packets from outside and from guests) and *output* (packets of the node itself)
  send
  a packet with a local destination to ``publish``, which looks up the port and translates it. The
  kernel decides for each packet whether the address is local, so an element whose listening
address
  is on another node has no effect.
- *postrouting* has three parts: FULL-NAT to the node address, so that the answer returns through
  this node; ``hairpin``, only for flows that ``publish`` has translated; and NAT for the guests'
own
  outbound connections.

The text contains only parsed addresses, numbers and fixed words, and never a guest's name.
"""

from __future__ import annotations

from binascii import crc32

from cgw_hooks.core.published_port import ANY_ADDRESS
from cgw_hooks.core.rules import arp_filter
from cgw_hooks.core.rules.return_path import full_nat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig, Uplink
    from cgw_hooks.core.published_port import Network, PublishedPort

TABLE = "inet cgw"

#: Protocols must be numbers: nft looks words up in /etc/protocols, which small hosts lack.
PROTOCOL_NUMBER = {"tcp": 6, "udp": 17, "sctp": 132}
_IP = {4: "ip", 6: "ip6"}
_ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}

# Each is five before the standard priority. Docker and libvirt use the standard ones, and the
# order must not depend on which was loaded first.
_DSTNAT_PRIORITY = -105
_SRCNAT_PRIORITY = 95

# These bits of the conntrack label (0 to 127) mark the flows of `publish` for postrouting. "ct
# status dnat" cannot do that: other programs' port forwards have it too. A rule can set a bit
# but cannot clear it (the kernel's nft_ct.c), and can test whether a map holds a key only since
# Linux 6.5. So there are two bits: one is set before the lookups of `publish`, the other after
# them if none of them translated the flow.
_SEEN_LABEL = 118
_LEFT_LABEL = 119


#: The kinds of maps: suffix of the name -> the fields that precede protocol and port in the key.
#: In this order: for any local address; for one listening address; for given source networks.
_KINDS = {"": (), "_at": ("daddr",), "_from": ("saddr", "daddr")}


def map_names() -> list[str]:
    """Return the names of all maps that hold elements of published ports.

    The data of ``published*`` is an address and a port. The data of ``ranges*`` is an address:
    the port keeps its number.
    """
    stems = ("published", "ranges")
    return [f"{stem}{family}{kind}" for family in _IP for stem in stems for kind in _KINDS]


def change(
    config: NodeConfig, add: Iterable[PublishedPort], delete: Iterable[PublishedPort]
) -> str:
    """Return text that adds and deletes the elements of some ports, in one transaction.

    The text also adds the revision of the static rules. If the table has another revision, the
    whole transaction fails. (To delete and add the revision would check the same, but a process
    that has deleted an element waits at its exit for 10 ms or more.)
    """
    lines = [
        _revision(static_rules(config)),
        *_element_commands("delete", delete, keys_only=True),
        *_element_commands("add", add),
    ]
    return "\n".join(lines) + "\n"


def restore(config: NodeConfig, ports: Iterable[PublishedPort]) -> str:
    """Return text that makes the table hold the static rules and exactly these ports."""
    static = static_rules(config)
    lines = [
        *static,
        *(f"flush map {TABLE} {name}" for name in map_names()),
        f"flush map {TABLE} revision",
        _revision(static),
        *_element_commands("add", ports),
    ]
    return "\n".join(lines) + "\n"


def replace(config: NodeConfig, ports: Iterable[PublishedPort]) -> str:
    """Like ``restore``, but with a new table, for the case that its objects have other types."""
    return remove() + restore(config, ports)


def remove() -> str:
    """Return text that deletes the table, even if there is none."""
    return f"add table {TABLE}\ndelete table {TABLE}\n"


def static_rules(config: NodeConfig) -> list[str]:
    """Return the commands that depend only on the node's configuration."""
    lines = [f"add table {TABLE}", *_sets_and_maps()]
    for name, hook in _CHAINS.items():
        lines += [f"add chain {TABLE} {name} {hook}".rstrip(), f"flush chain {TABLE} {name}"]
    lines += [f"add rule {TABLE} {rule}" for rule in _rules(config)]
    return lines + arp_filter.rules(config)


_CHAINS = {
    "publish": "",
    "hairpin": "",
    "prerouting": f"{{ type nat hook prerouting priority {_DSTNAT_PRIORITY}; }}",
    "output": f"{{ type nat hook output priority {_DSTNAT_PRIORITY}; }}",
    "postrouting": f"{{ type nat hook postrouting priority {_SRCNAT_PRIORITY}; }}",
}


def _sets_and_maps() -> Iterator[str]:
    yield f"add map {TABLE} revision {{ type mark : mark; }}"
    yield f"add set {TABLE} hairpin {{ typeof iif . oif; flags dynamic; size 4096; }}"
    for family, address in _ADDRESS_TYPE.items():
        for kind, prefix in _KINDS.items():
            key = " . ".join([*(address for _ in prefix), "inet_proto", "inet_service"])
            interval = " flags interval;"
            yield (
                f"add map {TABLE} published{family}{kind} {{ type {key} : {address} . inet_service;"
                f"{interval if kind == '_from' else ''} }}"
            )
            yield f"add map {TABLE} ranges{family}{kind} {{ type {key} : {address};{interval} }}"


def _rules(config: NodeConfig) -> Iterator[str]:
    yield from _publish_rules()
    yield "prerouting fib daddr type local jump publish"
    # Packets of the node itself: the kernel routes each of its own addresses through lo.
    # 127.0.0.0/8 and ::1 are left out, since the kernel accepts no answer to them from another
    # device.
    yield 'output oifname "lo" ip daddr != 127.0.0.0/8 jump publish'
    yield 'output oifname "lo" ip6 daddr != ::1 jump publish'
    for network in config.guest_networks:
        yield f"postrouting {full_nat.rule(network)}"
    yield from _hairpin_rules()
    for network in config.guest_networks:
        yield _outbound_rule(network, config.uplink)


def _publish_rules() -> Iterator[str]:
    protocols = "{ " + ", ".join(map(str, PROTOCOL_NUMBER.values())) + " }"
    # This label is set before all rules that translate, the other one after them: "dnat" ends
    # the chain.
    yield f"publish ct label set {_SEEN_LABEL}"
    for family, ip in _IP.items():
        for kind, prefix in _KINDS.items():
            key = " . ".join([*(f"{ip} {field}" for field in prefix), "meta l4proto", "th dport"])
            for stem in ("published", "ranges"):
                yield (
                    f"publish meta l4proto {protocols} dnat {ip} to {key} map @{stem}{family}{kind}"
                )
    yield f"publish ct label set {_LEFT_LABEL}"


def _hairpin_rules() -> Iterator[str]:
    # Hairpin NAT: a guest or LAN host reaches a target on its own link through this node.
    # Without SNAT the target would answer directly, and the client would refuse the answer. The
    # rules match only flows that `publish` has translated. Another chain may have translated a
    # flow that `publish` left unchanged or never got.
    yield f"postrouting ct label {_SEEN_LABEL} jump hairpin"
    yield f"hairpin ct label {_LEFT_LABEL} return"
    # nft cannot compare two registers. A set of pairs {x, x} tests whether iif and oif are
    # equal.
    yield "hairpin add @hairpin { iif . iif }"
    yield "hairpin iif . oif @hairpin masquerade"
    # With br_netfilter the kernel bridges such a packet without an input device (iif 0). The
    # node's own connections have no input device either.
    yield "hairpin iif 0 fib saddr type != local masquerade"


def _outbound_rule(network: GuestNetwork, uplink: Uplink) -> str:
    ip = _IP[network.subnet.version]
    if uplink.devices:
        out = "oifname { " + ", ".join(f'"{device}"' for device in uplink.devices) + " }"
    else:
        out = f'oifname != "{network.bridge}"'
    address = next((a for a in uplink.addresses if a.version == network.subnet.version), None)
    translation = f"snat {ip} to {address}" if address else "masquerade"
    return (
        f"postrouting {ip} saddr {network.subnet} {ip} daddr != {network.subnet} "
        f"{out} {translation}"
    )


def _revision(static: list[str]) -> str:
    """Return the command that adds the checksum of the static rules."""
    return f"add element {TABLE} revision {{ 0 : {_checksum(static)} }}"


def _checksum(static: list[str]) -> str:
    return f"{crc32(chr(10).join(static).encode()):#010x}"


def revision(config: NodeConfig) -> str:
    """Return the content of the map ``revision`` in a table made from this config."""
    return _checksum(static_rules(config))


def _rule_counts(config: NodeConfig) -> dict[str, int]:
    """Return the number of rules of each chain of the table."""
    counts = dict.fromkeys(_CHAINS, 0)
    for rule in _rules(config):
        counts[rule.partition(" ")[0]] += 1
    return counts


def tables(config: NodeConfig) -> dict[str, dict[str, int]]:
    """Return each table of cgw -> its chains -> the number of their rules."""
    return {TABLE: _rule_counts(config), **arp_filter.rule_counts(config)}


def _element_commands(
    command: str, ports: Iterable[PublishedPort], *, keys_only: bool = False
) -> Iterator[str]:
    """Yield one nft command per map that the ports have elements in."""
    for name, found in elements(ports).items():
        texts = found if keys_only else [f"{key} : {data}" for key, data in found.items()]
        yield f"{command} element {TABLE} {name} {{ {', '.join(texts)} }}"


def elements(ports: Iterable[PublishedPort]) -> dict[str, dict[str, str]]:
    """Return the elements of ports, map -> key -> data, spelled as nft lists them."""
    found: dict[str, dict[str, str]] = {}
    address, target = None, "None"
    for port in ports:
        kind, prefixes = _place(port)
        number = PROTOCOL_NUMBER[port.protocol]
        if port.target_address is not address:  # the ports of a guest follow each other
            address = port.target_address
            target = str(address)
        first, last, to = port.start, port.end, port.to
        if first < last and first == to:
            in_map = found.setdefault(f"ranges{port.family}{kind}", {})
            for prefix in prefixes:
                in_map[f"{prefix}{number} . {first}-{last}"] = target
            continue
        in_map = found.setdefault(f"published{port.family}{kind}", {})
        for listen in range(first, last + 1):
            data = f"{target} . {to + listen - first}"
            for prefix in prefixes:
                in_map[f"{prefix}{number} . {listen}"] = data
    return found


def _place(port: PublishedPort) -> tuple[str, list[str]]:
    """Return the kind of a published port's map, and the prefixes of its keys: one per source."""
    if port.sources:
        any_address = f"{ANY_ADDRESS[port.family]}/0"
        listen = any_address if port.listen_address.is_unspecified else port.listen_address
        return "_from", [f"{_network(source)} . {listen} . " for source in port.sources]
    if port.listen_address.is_unspecified:
        return "", [""]
    return "_at", [f"{port.listen_address} . "]


def _network(network: Network) -> str:
    """Format a network as nft lists it: a single address has no prefix length."""
    is_single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if is_single else network)
