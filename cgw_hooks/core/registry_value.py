"""What the cluster's registry holds: keys and values, and the guests that they stand for.

    PREFIX/v1/guests/UUID/NODE   what NODE publishes of a guest: JSON, without a lease
    PREFIX/v1/serial             written with each change that adds ports
    PREFIX/v1/nodes/NODE         the presence of NODE: JSON, with a lease
    PREFIX/v1/addresses/NODE     by what the return paths know NODE: JSON, without a lease

Another node has written the values, so they are checked like an annotation.
"""

from __future__ import annotations

import json
from ipaddress import ip_network

from cgw_hooks.core.annotation import refuse_excess
from cgw_hooks.core.guest import REGISTRY, Guest, GuestKey
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse import fields
from cgw_hooks.core.parse.known_nodes import node_from_texts, node_to_texts
from cgw_hooks.core.record import port_from_list, port_to_list
from cgw_hooks.errors import InvalidAnnotation, RegistryError, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from cgw_hooks.core.node_config import RemoteNode
    from cgw_hooks.core.published_port import PublishedPort

#: The version of keys and values.
VERSION = 1
#: The version of a value with limits for clients: an older cgw must not ignore them.
VERSION_WITH_LIMITS = 2
#: The longest value that is read, in characters; etcd's own limit for a request is 1.5 MiB.
LONGEST_VALUE = 1 << 20
#: The year 10000, in seconds since 1970: no date can be written after it.
_END_OF_TIME = 253_402_300_800


class Keys:
    """The names of the keys. ``prefix`` is that of the config."""

    def __init__(self, prefix: str) -> None:
        #: What all keys of cgw begin with, whatever their version is.
        self.root = f"{prefix}/"
        self.all = f"{prefix}/v{VERSION}/"
        self.guests = f"{self.all}guests/"
        self.nodes = f"{self.all}nodes/"
        self.addresses = f"{self.all}addresses/"
        self.serial = f"{self.all}serial"

    def guest(self, uuid: str, node: str) -> str:
        """Return the key of what a node publishes of a guest."""
        return f"{self.guests}{uuid}/{node}"

    def guest_of(self, key: str) -> tuple[str, str] | None:
        """Return uuid and node of a guest's key; None for any other key."""
        uuid, slash, node = key.removeprefix(self.guests).partition("/")
        if not key.startswith(self.guests) or not slash or not node or "/" in node:
            return None
        try:
            return fields.parse_uuid(uuid), node
        except ValueError:
            return None

    def node_of(self, key: str) -> str:
        """Return the name of the node whose presence this key is; empty for any other key."""
        return key.removeprefix(self.nodes) if key.startswith(self.nodes) else ""

    def addressed_node(self, key: str) -> str:
        """Return the name of the node whose addresses are in this key; empty for any other key."""
        node = key.removeprefix(self.addresses) if key.startswith(self.addresses) else ""
        try:
            return fields.parse_name(node)
        except ValueError:
            return ""


class Presence(NamedTuple):
    """What a node says about itself."""

    node: str
    #: Its guest networks: subnet and gateway address of each, as text.
    networks: tuple[tuple[str, str], ...] = ()
    #: The listening ports that are not open at this node, by the uuid of their guest.
    closed: dict[str, tuple[str, ...]] = {}  # noqa: RUF012  (never changed)
    #: When its agent has started, in seconds since 1970.
    since: float = 0.0
    #: The nodes whose addresses it has taken over.
    stands_in_for: tuple[str, ...] = ()


def value(name: str, ports: Iterable[PublishedPort]) -> str:
    """Return the value of a guest's key."""
    ports = list(ports)
    listed = [port_to_list(port) for port in ports]
    version = VERSION_WITH_LIMITS if any(port.limits for port in ports) else VERSION
    return json.dumps({"version": version, "name": name, "ports": listed})


def guest(uuid: str, text: str) -> Guest:
    """Read the value of a guest's key. Raises ``RegistryError`` if it cannot be used."""
    who = f"registry: guest {uuid}"
    try:
        data = _object(text, VERSION, VERSION_WITH_LIMITS)
        name = fields.parse_name(data["name"])
        ports = [_port(listed) for listed in data["ports"]]
        refuse_excess(name, ports)
    except InvalidAnnotation as error:
        raise RegistryError(error.subject, f"registry: {error.message}", error.cure) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RegistryError(
            who, f"its value cannot be used: {quoted(error)}", "see: cgw registry export"
        ) from None
    return Guest(GuestKey(REGISTRY, uuid), name, tuple(ports), uuid)


def presence_members(found: Presence) -> dict[str, Any]:
    """Return what a node says about itself, for JSON."""
    return {
        "networks": found.networks,
        "closed": found.closed,
        "since": found.since,
        "stands_in_for": found.stands_in_for,
    }


def presence_value(found: Presence) -> str:
    """Return the value of a node's presence."""
    return json.dumps({"version": VERSION, **presence_members(found)}, sort_keys=True)


def presence(node: str, text: str) -> Presence:
    """Read the value of a node's presence. What cannot be read is left out."""
    try:
        return presence_of(node, _object(text))
    except (ValueError, RecursionError):
        return Presence(node)


def presence_of(node: str, data: dict[str, Any]) -> Presence:
    """Read what ``presence_members`` returned, but of another node."""
    try:
        networks = tuple(
            (str(ip_network(subnet)), str(fields.parse_address(gateway)))
            for subnet, gateway in data["networks"]
        )
        closed = {
            fields.parse_uuid(uuid): tuple(map(str, claims))
            for uuid, claims in data["closed"].items()
        }
        since = float(data["since"])
        if not 0 <= since < _END_OF_TIME:  # JSON also has NaN and Infinity
            raise ValueError(since)
        others = tuple(map(fields.parse_name, data.get("stands_in_for", ())))
        return Presence(node, networks, closed, since, others)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return Presence(node)


def addresses_value(node: RemoteNode) -> str:
    """Return the value of the key with a node's addresses."""
    addresses, uplinks, macs = node_to_texts(node)
    members = {"node-addresses": addresses, "uplink-addresses": uplinks, "bridge-macs": macs}
    return json.dumps({"version": VERSION, **members})


def addresses(node: str, text: str) -> RemoteNode:
    """Read the value of the key with a node's addresses. Raises ``RegistryError``.

    Whether the node can be told apart from the others: see ``known_nodes.add_known``.
    """
    try:
        data = _object(text)
        kinds = [data[kind] for kind in ("node-addresses", "uplink-addresses", "bridge-macs")]
        if not all(isinstance(found, list) for found in kinds):
            raise ValueError("its addresses are no lists")
        return node_from_texts(node, *kinds)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RegistryError(
            f"node {quoted(node)}",
            f"its addresses in the registry cannot be used: {quoted(error)}",
            "see: cgw registry export",
        ) from None


def _object(text: str, *versions: int) -> dict[str, Any]:
    if len(text) > LONGEST_VALUE:
        raise ValueError(f"it is longer than {LONGEST_VALUE} characters")
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError("it is not an object")  # noqa: TRY004  (a value like any other)
    if data.get("version") not in (versions or (VERSION,)):
        raise ValueError(f"it is of version {data.get('version')!r}, not {VERSION}")
    return data


def _port(listed: Any) -> PublishedPort:
    port = port_from_list(*listed)
    fields.parse_listen_address(str(port.listen_address))
    if port.target_address:
        fields.parse_guest_address(str(port.target_address))
    families = {port.family, *(source.version for source in port.sources)}
    if port.target_address:
        families.add(port.target_address.version)
    if port.end < port.start or port.to + port.end - port.start > 65535 or len(families) > 1:  # noqa: PLR2004
        raise ValueError("a port's range or IP family is wrong")
    return port
