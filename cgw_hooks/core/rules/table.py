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
- *leak* drops what would leave by the uplink with a guest's address, since it cannot be translated.

The text contains only parsed addresses, numbers and fixed words, and never a guest's name.
"""

from __future__ import annotations

from binascii import crc32

from cgw_hooks.core.node_config import FULL_NAT
from cgw_hooks.core.rules import arp_filter, sync_filter
from cgw_hooks.core.rules.commands import ADDRESS_TYPE, IP, Table, devices, remove
from cgw_hooks.core.rules.elements import KINDS, elements, filled
from cgw_hooks.core.rules.names import (
    BRIDGE_TABLE,
    FAMILY_TABLES,
    LEFT_LABEL,
    PROTOCOL_NUMBER,
    SEEN_LABEL,
    SYNC_BRIDGE_TABLE,
    SYNC_FAMILY_TABLES,
    TABLE,
)
from cgw_hooks.core.rules.return_path import full_nat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.node_config import GuestNetwork, NodeConfig, Uplink
    from cgw_hooks.core.record import Contents
    from cgw_hooks.core.rules.elements import Elements

#: All tables that cgw may have made.
NAMES = (
    TABLE, BRIDGE_TABLE, *FAMILY_TABLES.values(), SYNC_BRIDGE_TABLE, *SYNC_FAMILY_TABLES.values(),
)  # fmt: skip

# Each is five before the standard priority. Docker and libvirt use the standard ones, and the
# order must not depend on which was loaded first.
_DSTNAT_PRIORITY = -105
_SRCNAT_PRIORITY = 95
_LEAK_PRIORITY = 300  # after all NAT

# Each element counts the connections that it has translated (see `counted`).
_COUNTER = " counter;"

_NO_ELEMENTS: dict[str, str] = {}


def change(config: NodeConfig, before: Contents, after: Contents) -> str:
    """Return text that changes the elements of ``before`` to those of ``after``.

    All other elements stay. The text is one transaction. It also adds the revision of the static
    rules: if the table has another revision, the whole transaction fails. (To delete and add the
    revision would check the same, but a process that has deleted an element waits at its exit for
    10 ms or more.)
    """
    old, new = elements(config, before), elements(config, after)
    lines = [
        _revision(static_rules(config)),
        *_deletions(old, new),
        *_limit_commands(after),
        *(_element_command("add", place, _with_data(found)) for place, found in new.items()),
    ]
    return "\n".join(lines) + "\n"


def _limit_commands(contents: Contents) -> list[str]:
    """Return the commands that make the chains of the limits that ports have."""
    if not any(port.limits for port in contents.ports):
        return []
    from cgw_hooks.core.rules import limits  # few guests have any

    return [text for found in limits.limits_of(contents.ports) for text in limits.commands(found)]


def _deletions(old: Elements, new: Elements) -> Iterator[str]:
    for place, found in old.items():
        stays = new.get(place, _NO_ELEMENTS)
        gone = [key for key, data in found.items() if stays.get(key) != data]
        if gone:
            yield _element_command("delete", place, gone)


def restore(config: NodeConfig, contents: Contents) -> str:
    """Return text that makes the tables hold the static rules and exactly these contents."""
    static = static_rules(config)
    lines = [
        *static,
        *(f"flush {_kind(table)} {table} {name}" for table, name in filled(config)),
        f"flush map {TABLE} revision",
        _revision(static),
        *_limit_commands(contents),
        *(
            _element_command("add", place, _with_data(found))
            for place, found in elements(config, contents).items()
        ),
    ]
    return "\n".join(lines) + "\n"


def replace(config: NodeConfig, contents: Contents) -> str:
    """Like ``restore``, but with new tables, for the case that their objects have other types."""
    return "".join(map(remove, tables(config))) + restore(config, contents)


def static_rules(config: NodeConfig) -> list[str]:
    """Return the commands that depend only on the node's configuration."""
    return [command for table in _tables(config) for command in table.commands()]


def _tables(config: NodeConfig) -> list[Table]:
    """Return the tables that a config needs, without the elements of the guests."""
    table = Table(TABLE)
    for text in _sets_and_maps():
        table.add_set(text)
    for name, hook in _CHAINS.items():
        table.add_chain(name, hook)
    table.add_rules(_rules(config))
    found = [table]
    bridge = Table(BRIDGE_TABLE)
    if arp_filter.is_needed(config):
        arp_filter.add_to(bridge, config)
        bridge.add_rules(f"prerouting {rule}" for rule in sync_filter.bridge_rules(config))
        found.append(bridge)
    if config.is_synced:
        from cgw_hooks.core.rules.return_path import ct_sync  # not for FULL-NAT

        found += ct_sync.tables(config)
    elif config.steered_networks:
        from cgw_hooks.core.rules.return_path import hosted, lift, steer  # not for FULL-NAT

        lift.add_to(bridge, config)
        found += [steer.ip_table(config, family) for family in hosted.families(config)]
    return found


def _kind(table: str) -> str:
    """Return whether the elements of guests are in maps or in sets of a table."""
    return "map" if table == TABLE else "set"


_CHAINS = {
    "publish": "",
    "hairpin": "",
    "prerouting": f"type nat hook prerouting priority {_DSTNAT_PRIORITY}",
    "output": f"type nat hook output priority {_DSTNAT_PRIORITY}",
    "postrouting": f"type nat hook postrouting priority {_SRCNAT_PRIORITY}",
    "leak": f"type filter hook postrouting priority {_LEAK_PRIORITY}",
    "input": "type filter hook input priority 0",
}


def _sets_and_maps() -> Iterator[str]:
    yield "map revision { type mark : mark; }"
    yield "set hairpin { typeof iif . oif; flags dynamic; size 4096; }"
    for family, address in ADDRESS_TYPE.items():
        for kind, prefix in KINDS.items():
            key = " . ".join([*(address for _ in prefix), "inet_proto", "inet_service"])
            interval = " flags interval;"
            yield (
                f"map published{family}{kind} {{ type {key} : {address} . inet_service;"
                f"{interval if kind == '_from' else ''}{_COUNTER} }}"
            )
            yield f"map ranges{family}{kind} {{ type {key} : {address};{interval}{_COUNTER} }}"
            yield f"map limited{family}{kind} {{ type {key} : verdict;{interval} }}"


def _rules(config: NodeConfig) -> Iterator[str]:
    yield from _publish_rules()
    yield "prerouting fib daddr type local jump publish"
    # Packets of the node itself: the kernel routes each of its own addresses through lo.
    # 127.0.0.0/8 and ::1 are left out, since the kernel accepts no answer to them from another
    # device.
    yield 'output oifname "lo" ip daddr != 127.0.0.0/8 jump publish'
    yield 'output oifname "lo" ip6 daddr != ::1 jump publish'
    for network in config.guest_networks:
        for rule in full_nat.rules(network, config):
            yield f"postrouting {rule}"
    yield from _hairpin_rules()
    yield from (f"input {rule}" for rule in sync_filter.input_rules(config))
    for network in config.guest_networks:
        yield from _outbound_rules(network, config.uplink)


def _publish_rules() -> Iterator[str]:
    protocols = "{ " + ", ".join(map(str, PROTOCOL_NUMBER.values())) + " }"
    # This label is set before all rules that translate, the other one after them: "dnat" ends
    # the chain.
    yield f"publish ct label set {SEEN_LABEL}"
    for family, ip in IP.items():
        for kind, prefix in KINDS.items():
            key = " . ".join([*(f"{ip} {field}" for field in prefix), "meta l4proto", "th dport"])
            yield (
                f"publish meta nfproto ipv{family} meta l4proto {protocols} "
                f"{key} vmap @limited{family}{kind}"
            )
            for stem in ("published", "ranges"):
                yield (
                    f"publish meta l4proto {protocols} dnat {ip} to {key} map @{stem}{family}{kind}"
                )
    yield f"publish ct label set {LEFT_LABEL}"


def _hairpin_rules() -> Iterator[str]:
    # Hairpin NAT: a guest or LAN host reaches a target on its own link through this node.
    # Without SNAT the target would answer directly, and the client would refuse the answer. The
    # rules match only flows that `publish` has translated. Another chain may have translated a
    # flow that `publish` left unchanged or never got.
    yield f"postrouting ct label {SEEN_LABEL} jump hairpin"
    yield f"hairpin ct label {LEFT_LABEL} return"
    # nft cannot compare two registers. A set of pairs {x, x} tests whether iif and oif are
    # equal.
    yield "hairpin add @hairpin { iif . iif }"
    yield "hairpin iif . oif @hairpin masquerade"
    # With br_netfilter the kernel bridges such a packet without an input device (iif 0). The
    # node's own connections have no input device either.
    yield "hairpin iif 0 fib saddr type != local masquerade"


def _outbound_rules(network: GuestNetwork, uplink: Uplink) -> Iterator[str]:
    ip = IP[network.subnet.version]
    out = (
        f"oifname {devices(uplink.devices)}" if uplink.devices else f'oifname != "{network.bridge}"'
    )
    leaves = f"{ip} saddr {network.subnet} {ip} daddr != {network.subnet} {out}"
    address = next((a for a in uplink.addresses if a.version == network.subnet.version), None)
    translation = f"snat {ip} to {address}" if address else "masquerade"
    yield f"postrouting {leaves} {translation}"
    if network.return_path != FULL_NAT:
        yield f"leak {leaves} drop"
        return
    # The kernel does not translate a packet that connection tracking calls invalid, nor one of a
    # flow that began while these rules were lost. Answers to a client that has a route to the
    # guests leave as they are.
    yield f"leak {leaves} ct state invalid drop"
    yield f"leak {leaves} ct direction original drop"


def _revision(static: list[str]) -> str:
    """Return the command that adds the checksum of the static rules."""
    return f"add element {TABLE} revision {{ 0 : {_checksum(static)} }}"


def _checksum(static: list[str]) -> str:
    return f"{crc32(chr(10).join(static).encode()):#010x}"


def revision(config: NodeConfig) -> str:
    """Return the content of the map ``revision`` in a table made from this config."""
    return _checksum(static_rules(config))


def tables(config: NodeConfig) -> dict[str, dict[str, int]]:
    """Return each table that the config needs -> its chains -> the number of their rules."""
    return {table.name: table.rule_counts() for table in _tables(config)}


def _element_command(command: str, place: tuple[str, str], texts: Iterable[str]) -> str:
    table, name = place
    return f"{command} element {table} {name} {{ {', '.join(texts)} }}"


def _with_data(found: dict[str, str]) -> Iterator[str]:
    """Yield elements as nft takes them: those of a set have no data."""
    return (f"{key} : {data}" if data else key for key, data in found.items())
