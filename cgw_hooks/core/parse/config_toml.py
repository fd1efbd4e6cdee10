"""cgw.toml -> NodeConfig. Every key is checked; an unknown key is an error."""

from __future__ import annotations

import tomllib

from cgw_hooks.core.annotation import Annotation
from cgw_hooks.core.guest import REMOTE, GuestKey
from cgw_hooks.core.node_config import (
    CT_SYNC,
    FULL_NAT,
    STEER,
    GuestNetwork,
    NodeConfig,
    Policy,
    Uplink,
)
from cgw_hooks.core.parse import fields, nodes_config, registry_config
from cgw_hooks.core.parse.config_table import KEYS, Table
from cgw_hooks.core.parse.port_spec import parse_port_spec
from cgw_hooks.errors import InvalidConfig, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Network


#: The header of a remote guest's table, as people write it.
_REMOTE_GUEST = "[[remote-guest]]"
#: Lines within such a string could look like a header.
_MULTI_LINE_STRINGS = ('"""', "'''")


def parse_config(text: str, *, remote_guests: bool = True) -> NodeConfig:
    """Parse the node's config. Raises ``InvalidConfig`` naming the key, the value and the cure.

    Without ``remote_guests``, these are left out, and nothing that is wrong with them is found:
    the cost does not depend on their number.
    """
    if not remote_guests and not any(mark in text for mark in _MULTI_LINE_STRINGS):
        try:
            return _parse(_without_remote_guests(text))._replace(remote_guests=())
        except InvalidConfig:  # the message must be the one that `cgw check` gives
            pass
    config = _parse(text)
    return config if remote_guests else config._replace(remote_guests=())


def _without_remote_guests(text: str) -> str:
    """Return the text without its [[remote-guest]] tables.

    In a valid config each line that begins with a bracket is a header: no key takes a list of
    lists.
    """
    kept, is_kept = [], True
    for line in text.split("\n"):
        content = line.lstrip()
        if content.startswith("["):
            is_kept = not content.startswith(_REMOTE_GUEST)
        if is_kept:
            kept.append(line)
    return "\n".join(kept)


def _parse(text: str) -> NodeConfig:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError is a ValueError. A number of more than 4,300 digits raises ValueError,
        # deep nesting raises RecursionError.
        raise InvalidConfig(
            "config", f"it is not TOML: {quoted(error, 200)}", "correct it"
        ) from None
    root = Table("", document, set(KEYS))
    node = root.table("node")
    networks = tuple(_guest_network(table) for table in root.tables("guest-network"))
    _refuse_overlapping(networks)
    name = node.text("name", "", str)
    registry = None
    if "registry" in document:  # other nodes know this node by its name
        registry = registry_config.parse_registry(root.table("registry"))
        node.text("name", None, registry_config.parse_node_name)
    metrics = None
    if "metrics" in document:
        from cgw_hooks.core.parse.metrics_config import parse_metrics  # few nodes have it

        metrics = parse_metrics(root.table("metrics"))
    config = NodeConfig(
        name=name,
        uplink=_uplink(root.table("uplink")),
        guest_networks=networks,
        policy=_policy(root.table("policy")),
        remote_guests=_remote_guests(root.tables("remote-guest")),
        registry=registry,
        metrics=metrics,
    )
    return nodes_config.with_nodes(config, root)


def _uplink(table: Table) -> Uplink:
    return Uplink(table.texts("devices", fields.parse_interface_name), table.addresses())


def _guest_network(table: Table) -> GuestNetwork:
    network = GuestNetwork(
        bridge=table.text("bridge", None, fields.parse_interface_name),
        subnet=table.text("subnet", None, _parse_subnet),
        node_address=table.text("node-address", None, fields.parse_guest_address),
        gateway_address=table.text("gateway-address", None, fields.parse_guest_address),
        internode_devices=table.texts("internode-devices", fields.parse_interface_name),
        full_mesh=table.flag("full-mesh"),
        return_path=table.word("return-path", FULL_NAT, {FULL_NAT, STEER, CT_SYNC}),
        bridge_mac=table.text("bridge-mac", "", fields.parse_mac),
    )
    steered = network.return_path != FULL_NAT
    if (network.full_mesh or steered) and not network.internode_devices:
        raise InvalidConfig(
            table.path("return-path" if steered else "full-mesh"),
            "internode-devices is missing",
            "name the devices that lead to the other nodes",
        )
    for key, address in (
        ("node-address", network.node_address),
        ("gateway-address", network.gateway_address),
    ):
        if address not in network.subnet or address in nodes_config.unusable(network.subnet):
            raise table.error(
                key, address, f"give a host's address in the subnet, {network.subnet}"
            )
    if network.node_address == network.gateway_address:
        raise InvalidConfig(
            table.path("node-address"),
            f"{quoted(network.node_address)} is the gateway address, which every node has",
            "give this node one of its own",
        )
    return network


def _refuse_overlapping(networks: tuple[GuestNetwork, ...]) -> None:
    seen: list[Network] = []
    for number, network in enumerate(networks, start=1):
        for earlier in seen:
            if earlier.version == network.subnet.version and earlier.overlaps(network.subnet):
                raise InvalidConfig(
                    f"guest-network[{number}].subnet",
                    f"{network.subnet} overlaps {earlier}",
                    "give each guest network a subnet of its own",
                )
        seen.append(network.subnet)


def _remote_guests(tables: list[Table]) -> tuple[Annotation, ...]:
    guests = {}
    for table in tables:
        name = table.text("name", None, fields.parse_name)
        if name in guests:
            raise InvalidConfig(
                table.path("name"), f"{quoted(name)} has an entry already", "keep one of them"
            )
        addresses = table.addresses()
        if not addresses:
            raise InvalidConfig(table.path("address"), "it is missing", "give the guest's address")
        uuid = table.text("uuid", "", fields.parse_uuid)
        forwards = table.texts("publish", parse_port_spec)
        guests[name] = Annotation(GuestKey(REMOTE, name), name, uuid, (), addresses, forwards)
    return tuple(guests.values())


def _policy(table: Table) -> Policy:
    policy = Policy(table.word("on-invalid", "refuse", {"refuse", "warn"}) == "refuse")
    if "listen-ports" in table.content:
        policy = policy._replace(listen_ports=table.texts("listen-ports", _parse_port_range))
    return policy._replace(
        auto_ports=table.text("auto-ports", policy.auto_ports, _parse_port_range),
        listen_addresses=table.networks("listen-addresses"),
        sources=table.networks("sources"),
    )


def _parse_subnet(text: str) -> Network:
    networks = fields.parse_networks(text)
    if len(networks) != 1:
        raise ValueError("give one network; for a second subnet, a second [[guest-network]]")
    return networks[0]


def _parse_port_range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    start, end = fields.parse_port(first), fields.parse_port(last if dash else first)
    if end < start:
        raise ValueError("give the lower port first")
    return start, end
