"""The ``[registry]`` table of cgw.toml -> Registry."""

from __future__ import annotations

from cgw_hooks.core.node_config import Endpoint, Registry
from cgw_hooks.core.parse import fields
from cgw_hooks.errors import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.parse.config_table import Table

#: The port of etcd's clients: etcd's --listen-client-urls.
_DEFAULT_PORT = 2379
_SCHEMES = {"http": False, "https": True}
_ENDPOINT_CURE = "give it like https://10.0.0.1:2379"
_HOST_PUNCTUATION = frozenset("-._:")


def parse_registry(table: Table) -> Registry:
    """Parse the table. Raises ``InvalidConfig``."""
    endpoints = table.texts("endpoints", parse_endpoint)
    if not endpoints:
        raise InvalidConfig(
            table.path("endpoints"), "it is missing", "name etcd's members, this node's first"
        )
    found = Registry(
        endpoints,
        ca=table.text("ca", "", _parse_path),
        certificate=table.text("certificate", "", _parse_path),
        key=table.text("key", "", _parse_path),
        user=table.text("user", "", str),
        password_file=table.text("password-file", "", _parse_path),
        prefix=table.text("prefix", "/cgw", _parse_prefix),
    )
    for one, other in (("certificate", "key"), ("user", "password-file")):
        if bool(table.content.get(one)) != bool(table.content.get(other)):
            given, missing = (one, other) if table.content.get(one) else (other, one)
            raise InvalidConfig(table.path(missing), "it is missing", f"{given} needs it")
    return found


def parse_endpoint(text: str) -> Endpoint:
    """Parse the URL of an etcd member. Raises ``ValueError``."""
    scheme, separator, rest = text.rstrip("/").partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError(_ENDPOINT_CURE)
    if rest.startswith("["):
        host, bracket, port = rest[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError(_ENDPOINT_CURE)
        host, port = str(fields.parse_address(host)), port[1:]
    else:
        host, _, port = rest.partition(":")
    if not host or not all(c.isascii() and (c.isalnum() or c in _HOST_PUNCTUATION) for c in host):
        raise ValueError(_ENDPOINT_CURE)
    number = fields.parse_port(port) if port else _DEFAULT_PORT
    return Endpoint(host, number, _SCHEMES[scheme])


def parse_node_name(text: str) -> str:
    """Parse the name of a node; it becomes a part of keys. Raises ``ValueError``."""
    try:
        return fields.parse_name(text)
    except ValueError:
        raise ValueError("give the node's name: printable, without /") from None


def _parse_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("give an absolute path")
    return text


def _parse_prefix(text: str) -> str:
    if not text.startswith("/") or text.endswith("/") or not text.isprintable():
        raise ValueError("begin it with a slash, and end it without one")
    return text
