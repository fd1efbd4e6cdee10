"""One table of cgw.toml: reads its keys, and refuses unknown ones."""

from __future__ import annotations

from cgw_hooks.core.parse import fields
from cgw_hooks.errors import InvalidConfig, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from cgw_hooks.core.published_port import Address, Network

    _T = TypeVar("_T")


#: The tables of the file, and the keys of each.
KEYS = {
    "node": {"name", "mark-mask"},
    "uplink": {"devices", "address"},
    "guest-network": {
        "bridge", "subnet", "node-address", "gateway-address", "internode-devices", "full-mesh",
        "return-path", "bridge-mac",
    },
    "remote-node": {"name", "node-address", "uplink-address", "bridge-mac"},
    "failover": {"replicate"},
    "policy": {"on-invalid", "listen-ports", "listen-addresses", "sources", "auto-ports"},
    "remote-guest": {"name", "uuid", "address", "publish"},
    "registry": {
        "endpoints", "ca", "certificate", "key", "user", "password-file", "prefix",
    },
    "metrics": {"listen", "textfile", "per-port", "bytes"},
}  # fmt: skip


class Table:
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
        """Return the path of a key, as messages name it."""
        return f"{self.name}.{key}" if self.name else key

    def table(self, key: str) -> Table:
        """Return the table with this key; an empty one if it is missing."""
        return Table(self.path(key), self.content.get(key, {}), KEYS[key])

    def tables(self, key: str) -> list[Table]:
        """Return the tables of a list."""
        content = self.content.get(key, [])
        if not isinstance(content, list):
            raise InvalidConfig(key, "it is not a list of tables", f"write [[{key}]]")
        return [
            Table(f"{key}[{number}]", entry, KEYS[key], f"[[{key}]]")
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
        """Return one of some known words."""
        word = self.text(key, default, str)
        if word not in known:
            raise self.error(key, word, f"give one of: {', '.join(sorted(known))}")
        return word

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return ``true`` or ``false``; ``default`` if the key is missing."""
        value = self.content.get(key, default)
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
        """Return the error of a value that cannot be used."""
        return InvalidConfig(self.path(key), f"{quoted(value)} cannot be used", cure)
