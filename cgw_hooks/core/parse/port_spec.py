"""Docker's short form of a published port -> PortForward: ``2202:22``, ``[fd00::1]:53:53/udp``.

People type this form, and the configs of Xen and of the node contain it. Like ``fields``, this
module raises ``ValueError`` whose message says what to give instead; the caller adds the guest
and the value.
"""

from __future__ import annotations

from cgw_hooks.core.annotation import PortForward
from cgw_hooks.core.parse import fields
from cgw_hooks.core.published_port import MAX_PORT

FORM = "[listen-address:]port[-end]:guest-port[/protocol] or port[-end][/protocol]"
_DEFAULT_PROTOCOL = "tcp"


def parse_port_spec(text: str) -> PortForward:
    """Parse one published port, or one range of ports. Raises ``ValueError``.

    Form: ``[listen-address:]port[-end]:guest-port[/protocol]``. ``port[-end][/protocol]`` is
    translated to the same ports. An IPv6 listening address must be in brackets. For a range,
    ``guest-port`` is the guest port for the first listening port.
    """
    place, slash, protocol = text.partition("/")
    address, listen, to = _split(place)
    first, dash, last = listen.partition("-")
    start = fields.parse_port(first)
    end = fields.parse_port(last) if dash else start
    if end < start:
        raise ValueError(f"end the range at port {start} or above")
    target = start if to is None else fields.parse_port(to)
    if target + end - start > MAX_PORT:
        raise ValueError(
            f"the range is {end - start + 1} ports long: end it at guest port {MAX_PORT}"
        )
    return PortForward(
        protocol=fields.parse_protocol(protocol) if slash else _DEFAULT_PROTOCOL,
        listen_address=None if address is None else fields.parse_listen_address(address),
        sources=(),
        start=start,
        end=end,
        to=target,
    )


def _split(place: str) -> tuple[str | None, str, str | None]:
    """Return listening address, listening ports and guest port; None for a missing part."""
    if place.startswith("["):
        address, closed, ports = place[1:].partition("]:")
        fields = [address, *ports.split(":")] if closed and ":" in address else []
    else:
        fields = place.split(":")
    match fields:
        case [listen]:
            return None, listen, None
        case [listen, to] if not place.startswith("["):
            return None, listen, to
        case [address, listen, to]:
            return address, listen, to
    raise ValueError(f"write it as {FORM}, with an IPv6 address in brackets")
