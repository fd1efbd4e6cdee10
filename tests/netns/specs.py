"""Short forms for tests: the ports that a guest publishes, the ports that a host serves."""

import re
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

_PUBLISHED = re.compile(
    r"(?:\[?(?P<address>[0-9.]+|[0-9a-f:]+(?=\]))\]?:)?"
    r"(?P<start>\d+)(?:-(?P<end>\d+))?:(?P<to>\d+)(?:/(?P<proto>\w+))?(?: from (?P<source>.+?))?"
    r"(?: limit (?P<limit>\S+))?(?: max-connections (?P<connections>\d+))?"
)


class Service(NamedTuple):
    """A port of a guest or host that a server process answers at."""

    port: int
    protocol: str


def port_forward(spec: str) -> str:
    """Return a `<portForward>` element.

    `[ADDRESS:]PORT[-END]:GUEST-PORT[/PROTO][ from NETWORKS][ limit N/UNIT][ max-connections N]`.
    """
    match = _PUBLISHED.fullmatch(spec)
    assert match, spec
    outer = {"proto": match["proto"] or "tcp", "address": match["address"]}
    inner = {"start": match["start"], "end": match["end"], "to": match["to"]}
    limits = {"limit": match["limit"], "max-connections": match["connections"]}
    forward = _attributes({**outer, "source": match["source"], **limits})
    return f"<cgw:portForward{forward}><cgw:range{_attributes(inner)}/></cgw:portForward>"


def services(text: str) -> list[Service]:
    """Read `22/tcp 53/udp`."""
    words = (word.partition("/") for word in text.split())
    return [Service(int(port), protocol) for port, _, protocol in words]


def _attributes(values: dict[str, str | None]) -> str:
    return "".join(f" {name}={quoteattr(value)}" for name, value in values.items() if value)
