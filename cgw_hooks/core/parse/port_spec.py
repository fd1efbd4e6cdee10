"""Docker's short form of a published port -> PortForward: ``2202:22``, ``[fd00::1]:53:53/udp``.

People type this form, and the configs of Xen and of the node contain it. Like ``fields``, this
module raises ``ValueError`` whose message says what to give instead; the caller adds the guest
and the value.
"""

from __future__ import annotations

from cgw_hooks.core.annotation import PortForward
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse import fields
from cgw_hooks.core.published_port import MAX_PORT, host, span

FORM = "[listen-address:]port[-end]:guest-port[/protocol] or port[-end][/protocol]"
_LIMITS = "give limits as +limit=10/second and +max-connections=20, each once"
_DEFAULT_PROTOCOL = "tcp"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION_CURE = "give a duration of at most ten years, for example 90s, 30m, 2h or 1d"
_LONGEST_DURATION = 3650 * _SECONDS["d"]
_DURATION_DIGITS = 9

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address, Claim, ClientLimits


class FreePort(NamedTuple):
    """A wish for any free listening port: ``:80``, ``192.0.2.1::80/udp``."""

    protocol: str
    listen_address: Address | None
    to: int
    limits: ClientLimits | None = None


class ListenPorts(NamedTuple):
    """Listening ports that a person names: ``8080``, ``8000-8009/udp``, ``192.0.2.1:80``.

    ``address`` None means all listening addresses.
    """

    protocol: str
    address: Address | None
    start: int
    end: int

    def __str__(self) -> str:
        """Return the ports as people write them."""
        address = "" if self.address is None else f"{host(self.address)}:"
        return f"{address}{span(self.start, self.end)}/{self.protocol}"

    def has_part_of(self, claim: Claim) -> bool:
        """Whether some of these ports are in a claim."""
        return (
            self.protocol == claim.protocol
            and self.address in {None, claim.address}
            and self.start <= claim.end
            and claim.start <= self.end
        )


def parse_port_spec(text: str) -> PortForward:
    """Parse one published port, or one range of ports. Raises ``ValueError``.

    Form: ``[listen-address:]port[-end]:guest-port[/protocol]``. ``port[-end][/protocol]`` is
    translated to the same ports. An IPv6 listening address must be in brackets. For a range,
    ``guest-port`` is the guest port for the first listening port, or a range of the same length.
    ``+limit=10/second`` and ``+max-connections=20`` may follow.
    """
    text, *options = text.split("+")
    place, slash, protocol = text.partition("/")
    address, listen, to = _split(place)
    first, dash, last = listen.partition("-")
    start = fields.parse_port(first)
    end = fields.parse_port(last) if dash else start
    if end < start:
        raise ValueError(f"end the range at port {start} or above")
    target = start if to is None else _first_guest_port(to, end - start)
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
        limits=_parse_limits(options),
    )


def _parse_limits(options: list[str]) -> ClientLimits | None:
    given = dict(option.partition("=")[::2] for option in options)
    if len(given) < len(options) or not given.keys() <= {"limit", "max-connections"}:
        raise ValueError(_LIMITS)
    if not all(given.values()):
        raise ValueError(_LIMITS)
    return fields.parse_limits(given.get("limit", ""), given.get("max-connections", ""))


def _first_guest_port(text: str, distance: int) -> int:
    """Return the first guest port. Docker writes the last one too: ``8000-8009:80-89``."""
    first, dash, last = text.partition("-")
    start = fields.parse_port(first)
    if dash and fields.parse_port(last) != start + distance:
        raise ValueError(f"end the guest ports at {start + distance}, or write {start} alone")
    return start


def parse_wish(text: str) -> PortForward | FreePort:
    """Parse what `cgw publish` takes: like `parse_port_spec`, or without a listening port."""
    spec, *options = text.split("+")
    place, slash, protocol = spec.partition("/")
    address, listen, to = _split(place)
    if listen or to is None:
        return parse_port_spec(text)
    return FreePort(
        fields.parse_protocol(protocol) if slash else _DEFAULT_PROTOCOL,
        None if address is None else fields.parse_listen_address(address),
        fields.parse_port(to),
        _parse_limits(options),
    )


def parse_listen_ports(text: str) -> ListenPorts:
    """Parse ``[listen-address:]port[-end][/protocol]``. Raises ``ValueError``."""
    place, _, protocol = text.partition("/")
    if "+" in text:
        raise ValueError("give the port without limits")
    address, colon, ports = place.rpartition(":")
    listen = address.rpartition(":")[2]
    if address.count(":") <= 1 and listen.replace("-", "").isdigit():
        raise ValueError(f"give the listening port without a guest port: {listen}")
    if colon and address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    forward = parse_port_spec(f"{ports}/{protocol or _DEFAULT_PROTOCOL}")
    return ListenPorts(
        forward.protocol,
        fields.parse_listen_address(address) if colon else None,
        forward.start,
        forward.end,
    )


def parse_duration(text: str) -> int:
    """Parse a duration, for example ``2h``; return seconds. Raises ``ValueError``."""
    number, unit = text[:-1], text[-1:]
    if unit in _SECONDS and number.isascii() and number.isdigit():
        seconds = int(number[:_DURATION_DIGITS]) * _SECONDS[unit]
        if len(number) <= _DURATION_DIGITS and 0 < seconds <= _LONGEST_DURATION:
            return seconds
    raise ValueError(_DURATION_CURE)


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
