"""The ``[metrics]`` table of cgw.toml -> Metrics."""

from __future__ import annotations

from cgw_hooks.core.node_config import Metrics
from cgw_hooks.core.parse import fields
from cgw_hooks.errors import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.parse.config_table import Table

_LISTEN_CURE = "give a loopback address and a port, like 127.0.0.1:9718, or a path"
#: sun_path of unix(7), less the NUL at its end.
_LONGEST_PATH = 107


def parse_metrics(table: Table) -> Metrics:
    """Parse the table. Raises ``InvalidConfig``."""
    found = table.text("listen", Metrics(), _parse_listen)
    found = found._replace(
        textfile=table.text("textfile", "", _parse_textfile),
        per_port=table.flag("per-port", default=True),
        counts_bytes=table.flag("bytes"),
    )
    if not found.is_told and not found.counts_bytes:
        raise InvalidConfig(
            table.path("listen"),
            "it is missing, and so are textfile and bytes",
            "give one of them, or several",
        )
    return found


def _parse_listen(text: str) -> Metrics:
    """Parse a place where only this host can ask: there is neither encryption nor a password."""
    if text.startswith("/"):
        return Metrics(socket=_parse_path(text))
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon:
        raise ValueError(_LISTEN_CURE)
    address = fields.parse_address(host)
    if not address.is_loopback:
        raise ValueError(_LISTEN_CURE)
    return Metrics(address, fields.parse_port(port))


def _parse_textfile(text: str) -> str:
    if not text.endswith(".prom") or text.endswith("/.prom"):
        raise ValueError("give a file that ends in .prom: node_exporter reads no other one")
    return _parse_path(text)


def _parse_path(text: str) -> str:
    if not text.startswith("/") or text.endswith("/") or "\0" in text:
        raise ValueError("give the whole path of a file, from the root folder")
    if len(text.encode()) > _LONGEST_PATH:
        raise ValueError(f"give a path of at most {_LONGEST_PATH} bytes")
    return text
