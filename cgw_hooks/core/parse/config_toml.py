"""cgw.toml -> NodeConfig. Every key is checked; an unknown key is an error."""

from __future__ import annotations

import tomllib

from cgw_hooks.core.annotation import Annotation
from cgw_hooks.core.guest import REMOTE, GuestKey
from cgw_hooks.core.node_config import GuestNetwork, NodeConfig, Policy, Uplink
from cgw_hooks.core.parse import fields
from cgw_hooks.core.parse.port_spec import parse_port_spec
from cgw_hooks.errors import InvalidConfig, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from cgw_hooks.core.published_port import Address, Network

    _T = TypeVar("_T")


def parse_config(text: str) -> NodeConfig:
    """Parse the node's config. Raises ``InvalidConfig`` naming the key, the value and the cure."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError is a ValueError. A number of more than 4,300 digits raises ValueError,
        # deep nesting raises RecursionError.
        raise InvalidConfig(
            "config", f"it is not TOML: {quoted(error, 200)}", "correct it"
        ) from None
    root = _Table("", document, {"node", "uplink", "guest-network", "policy", "remote-guest"})
    node = root.table("node", {"name", "return-path"})
    node.word("return-path", "full-nat", {"full-nat"})
    networks = tuple(
        _guest_network(table) for table in root.tables("guest-network", _GUEST_NETWORK_KEYS)
    )
    _refuse_overlapping(networks)
    return NodeConfig(
        name=node.text("name", "", str),
        uplink=_uplink(root.table("uplink", {"devices", "address"})),
        guest_networks=networks,
        policy=_policy(root.table("policy", _POLICY_KEYS)),
        remote_guests=_remote_guests(root.tables("remote-guest", _REMOTE_GUEST_KEYS)),
    )


_GUEST_NETWORK_KEYS = {
    "bridge", "subnet", "node-address", "gateway-address", "internode-devices", "full-mesh",
}  # fmt: skip
_POLICY_KEYS = {"on-invalid", "listen-ports", "listen-addresses", "sources"}
_REMOTE_GUEST_KEYS = {"name", "uuid", "address", "publish"}


class _Table:
    """One table of the file. It knows its name, since every error must name it."""

    def __init__(self, name: str, content: object, keys: set[str], heading: str = "") -> None:
        self.name = name
        if not isinstance(content, dict):
            raise InvalidConfig(name, "it is not a table", f"write {heading or f'[{name}]'}")
        self.content: dict[str, Any] = content
        for key in content:
            if key not in keys:
                known = ", ".join(sorted(keys))
                path = self.path(quoted(key))
                raise InvalidConfig(path, "unknown key", f"known here are: {known}")

    def path(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def table(self, key: str, keys: set[str]) -> _Table:
        return _Table(self.path(key), self.content.get(key, {}), keys)

    def tables(self, key: str, keys: set[str]) -> list[_Table]:
        content = self.content.get(key, [])
        if not isinstance(content, list):
            raise InvalidConfig(key, "it is not a list of tables", f"write [[{key}]]")
        return [
            _Table(f"{key}[{number}]", entry, keys, f"[[{key}]]")
            for number, entry in enumerate(content, start=1)
        ]

    def text(self, key: str, default: _T | None, parse: Callable[[str], _T]) -> _T:
        """Return one string; the key is required if ``default`` is None."""
        if key not in self.content:
            if default is None:
                raise InvalidConfig(self.path(key), "it is missing", "add it")
            return default
        return self._parsed(key, self.content[key], parse)

    def texts(self, key: str, parse: Callable[[str], _T]) -> tuple[_T, ...]:
        """Return a list of strings; the config may also give one string."""
        content = self.content.get(key, [])
        listed = content if isinstance(content, list) else [content]
        return tuple(self._parsed(key, entry, parse) for entry in listed)

    def addresses(self) -> tuple[Address, ...]:
        """Return ``address``: at most one address per IP family."""
        addresses = self.texts("address", fields.parse_guest_address)
        if len({address.version for address in addresses}) < len(addresses):
            raise self.error("address", ", ".join(map(str, addresses)), "give one per IP family")
        return addresses

    def networks(self, key: str) -> tuple[Network, ...] | None:
        """Return a list of networks; None if the key is missing."""
        if key not in self.content:
            return None
        return tuple(n for found in self.texts(key, fields.parse_networks) for n in found)

    def word(self, key: str, default: str, known: set[str]) -> str:
        word = self.text(key, default, str)
        if word not in known:
            raise self.error(key, word, f"give one of: {', '.join(sorted(known))}")
        return word

    def flag(self, key: str) -> bool:
        """Return ``true`` or ``false``; false if the key is missing."""
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            raise self.error(key, value, "give true or false, without quotes")
        return value

    def _parsed(self, key: str, value: object, parse: Callable[[str], _T]) -> _T:
        if not isinstance(value, str):
            raise self.error(key, value, "give a string, in quotes")
        try:
            return parse(value)
        except ValueError as error:
            raise self.error(key, value, str(error)) from None

    def error(self, key: str, value: object, cure: str) -> InvalidConfig:
        return InvalidConfig(self.path(key), f"{quoted(value)} cannot be used", cure)


def _uplink(table: _Table) -> Uplink:
    return Uplink(table.texts("devices", fields.parse_interface_name), table.addresses())


def _guest_network(table: _Table) -> GuestNetwork:
    network = GuestNetwork(
        bridge=table.text("bridge", None, fields.parse_interface_name),
        subnet=table.text("subnet", None, _parse_subnet),
        node_address=table.text("node-address", None, fields.parse_guest_address),
        gateway_address=table.text("gateway-address", None, fields.parse_guest_address),
        internode_devices=table.texts("internode-devices", fields.parse_interface_name),
        full_mesh=table.flag("full-mesh"),
    )
    if network.full_mesh and not network.internode_devices:
        raise InvalidConfig(
            table.path("full-mesh"),
            "internode-devices is missing",
            "name the devices that lead to the other nodes",
        )
    for key, address in (
        ("node-address", network.node_address),
        ("gateway-address", network.gateway_address),
    ):
        if address not in network.subnet:
            raise table.error(key, address, f"give an address in the subnet, {network.subnet}")
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


def _remote_guests(tables: list[_Table]) -> tuple[Annotation, ...]:
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


def _policy(table: _Table) -> Policy:
    policy = Policy(table.word("on-invalid", "refuse", {"refuse", "warn"}) == "refuse")
    if "listen-ports" in table.content:
        policy = policy._replace(listen_ports=table.texts("listen-ports", _parse_port_range))
    return policy._replace(
        listen_addresses=table.networks("listen-addresses"), sources=table.networks("sources")
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
