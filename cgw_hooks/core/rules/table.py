"""The node's ruleset as nft text: static rules, and map elements for the published ports.

A range whose ports keep their numbers is one element; any other range is one to a port.

Three kinds of text, each one transaction of ``nft -f``:

- ``change`` adds and takes away some ports' elements, and nothing else. It
  fails as a whole where the table is not the one that this module writes.
- ``restore`` puts static rules and all elements in place, whatever was there
  before. Table, chains and maps stay the objects that they are: replacing a
  table refuses connections for an instant, replacing its contents does not.
- ``remove`` takes the table away.

A packet meets the rules in this order:

- *prerouting* (from outside, and from guests) and *output* (from the node
  itself): to a local address -> ``publish``, which looks the port up and
  translates. That the address is local is the kernel's say at that moment: an
  element whose listening address is on another node lies dormant.
- *postrouting*: FULL-NAT to the node's address, so that the answer comes back
  here; ``hairpin``, for the flows that ``publish`` has translated and for no
  others; the guests' own outbound connections.

Everything here is a parsed address, a number or a fixed word: no name of a guest.
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

#: Numbers, since nft looks words up in /etc/protocols, which small hosts lack.
PROTOCOL_NUMBER = {"tcp": 6, "udp": 17, "sctp": 132}
_IP = {4: "ip", 6: "ip6"}
_ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}

# One below the standard priorities: where others translate too (Docker, libvirt),
# who comes first must not depend on who was loaded first.
_DSTNAT_PRIORITY = -105
_SRCNAT_PRIORITY = 95

# Bits of the conntrack label (0 to 127) that tell our own flows from others' at postrouting.
# "ct status dnat" does not: it holds for everybody's port forwards. A bit can be set, never
# cleared (the kernel's nft_ct.c), and a rule can ask whether a map holds a key only from
# Linux 6.5 on. So there are two: one for what `publish` gets, one for what it leaves as it is.
_SEEN_LABEL = 118
_LEFT_LABEL = 119


#: How a map is looked up: the end of its name, and what precedes protocol and port in its key.
#: Any local address; one listening address; one, limited to source networks.
_KINDS = {"": (), "_at": ("daddr",), "_from": ("saddr", "daddr")}


def map_names() -> list[str]:
    """All maps that hold elements of published ports.

    ``published*``: the data is address and port. ``ranges*``: the data is an address; the port
    keeps its number.
    """
    stems = ("published", "ranges")
    return [f"{stem}{family}{kind}" for family in _IP for stem in stems for kind in _KINDS]


def change(
    config: NodeConfig, add: Iterable[PublishedPort], delete: Iterable[PublishedPort]
) -> str:
    """Text that adds and deletes the elements of some ports, in one transaction.

    To add the revision where there is another fails the whole transaction: the table
    was made from other static rules. (To delete and add it would tell as much, but
    the kernel keeps whoever deleted an element waiting for 10 ms and more as it exits.)
    """
    lines = [
        _revision(static_rules(config)),
        *_element_commands("delete", delete, keys_only=True),
        *_element_commands("add", add),
    ]
    return "\n".join(lines) + "\n"


def restore(config: NodeConfig, ports: Iterable[PublishedPort]) -> str:
    """Text that makes the table hold the static rules and exactly these ports."""
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
    """As ``restore``, by way of a new table: for a table whose objects are of other types."""
    return remove() + restore(config, ports)


def remove() -> str:
    """Text that takes the table away, also where it is not there."""
    return f"add table {TABLE}\ndelete table {TABLE}\n"


def static_rules(config: NodeConfig) -> list[str]:
    """The part that depends on the node's configuration alone."""
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
    # From the node itself: every address of its own is routed by way of lo. Not
    # 127.0.0.0/8 and ::1: the kernel takes no answer to those from another device.
    yield 'output oifname "lo" ip daddr != 127.0.0.0/8 jump publish'
    yield 'output oifname "lo" ip6 daddr != ::1 jump publish'
    for network in config.guest_networks:
        yield f"postrouting {full_nat.rule(network)}"
    yield from _hairpin_rules()
    for network in config.guest_networks:
        yield _outbound_rule(network, config.uplink)


def _publish_rules() -> Iterator[str]:
    protocols = "{ " + ", ".join(map(str, PROTOCOL_NUMBER.values())) + " }"
    # These two stand around every rule that translates: "dnat" ends the chain.
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
    # A guest (or a LAN host) that reaches its own link by way of this node: without
    # SNAT the answer would go to it directly, and be refused.
    # Only where `publish` translated the flow. One that it left as it is may have been
    # translated by a later chain; one that it never got, by an earlier chain, or on its
    # way to an address that is not the node's.
    yield f"postrouting ct label {_SEEN_LABEL} jump hairpin"
    yield f"hairpin ct label {_LEFT_LABEL} return"
    # nft cannot compare two registers, so a set of pairs {x, x} tells whether iif and
    # oif are the same.
    yield "hairpin add @hairpin { iif . iif }"
    yield "hairpin iif . oif @hairpin masquerade"
    # With br_netfilter the kernel bridges such a packet, and names no input device; nor
    # does it for the node's own connections.
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
    """The command that says which static rules the table was made from."""
    return f"add element {TABLE} revision {{ 0 : {_checksum(static)} }}"


def _checksum(static: list[str]) -> str:
    return f"{crc32(chr(10).join(static).encode()):#010x}"


def revision(config: NodeConfig) -> str:
    """What the map ``revision`` holds where the table was made from this config."""
    return _checksum(static_rules(config))


def _rule_counts(config: NodeConfig) -> dict[str, int]:
    """How many rules each chain of the table has."""
    counts = dict.fromkeys(_CHAINS, 0)
    for rule in _rules(config):
        counts[rule.partition(" ")[0]] += 1
    return counts


def tables(config: NodeConfig) -> dict[str, dict[str, int]]:
    """Every table of ours, with how many rules each of its chains has."""
    return {TABLE: _rule_counts(config), **arp_filter.rule_counts(config)}


def _element_commands(
    command: str, ports: Iterable[PublishedPort], *, keys_only: bool = False
) -> Iterator[str]:
    """One nft command to each map that the ports have elements in."""
    for name, found in elements(ports).items():
        texts = found if keys_only else [f"{key} : {data}" for key, data in found.items()]
        yield f"{command} element {TABLE} {name} {{ {', '.join(texts)} }}"


def elements(ports: Iterable[PublishedPort]) -> dict[str, dict[str, str]]:
    """The elements of ports: map -> key -> data, spelled as nft lists them."""
    found: dict[str, dict[str, str]] = {}
    for port in ports:
        kind, prefixes = _place(port)
        protocol, target = PROTOCOL_NUMBER[port.protocol], str(port.target_address)
        if port.keeps_numbers and port.end > port.start:
            in_map = found.setdefault(f"ranges{port.family}{kind}", {})
            for prefix in prefixes:
                in_map[f"{prefix}{protocol} . {port.start}-{port.end}"] = target
            continue
        in_map = found.setdefault(f"published{port.family}{kind}", {})
        for listen_port, target_port in port.pairs():
            for prefix in prefixes:
                key = f"{prefix}{protocol} . {listen_port}"
                in_map[key] = f"{target} . {target_port}"
    return found


def _place(port: PublishedPort) -> tuple[str, list[str]]:
    """The kind of map of a published port, and what its keys begin with: one to a source."""
    if port.sources:
        any_address = f"{ANY_ADDRESS[port.family]}/0"
        listen = any_address if port.listen_address.is_unspecified else port.listen_address
        return "_from", [f"{_network(source)} . {listen} . " for source in port.sources]
    if port.listen_address.is_unspecified:
        return "", [""]
    return "_at", [f"{port.listen_address} . "]


def _network(network: Network) -> str:
    """A network as nft lists it: a single address without its length."""
    is_single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if is_single else network)
