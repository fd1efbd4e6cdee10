"""Untrusted text -> numbers, addresses and words.

Only fixed words and the results of these functions become part of nft text. Each function raises
``ValueError`` for any other text; its message says what to give instead.
"""

from __future__ import annotations

from functools import lru_cache  # ipaddress has loaded it already
from ipaddress import collapse_addresses, ip_address, ip_network

from cgw_hooks.core.published_port import MAX_PORT, MIN_PORT, PROTOCOLS, ClientLimits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address, Network

#: The units of `limit` in nftables, without those that a client would outlast.
RATE_UNITS = ("second", "minute", "hour")
#: The kernel keeps the price of a packet in nanoseconds (nft_limit.c), and looks at each connection
#: of a client to count them (nf_conncount.c).
MAX_RATE, MAX_CONNECTIONS = 1_000_000, 65_535
_PORT_DIGITS = 5
_NAME_BYTES = 180  # NAME_MAX (255) of linux/limits.h, minus what the state's file names add
_UUID_LENGTH, _UUID_CHARACTERS = 36, frozenset("0123456789abcdef-")
_IPV4_PREFIXES = (bytes(12), bytes(10) + b"\xff\xff")
_IPV4_CURE = "give an IPv4 address or network, not one within an IPv6 one"
_INTERFACE_NAME_LENGTH = 15  # IFNAMSIZ (16) of linux/if.h, minus its final NUL
_INTERFACE_NAME_PUNCTUATION = "-_.:@"
_HEX_DIGITS = frozenset("0123456789abcdef")
_MAC_OCTETS, _OCTET_DIGITS = 6, 2
_TIME = "2026-11-24T22:00:00Z"
#: What separates the words of a value: commas, and what XML calls white space.
_BETWEEN_WORDS = str.maketrans(dict.fromkeys(",\t\n\r", " "))


def words(text: str) -> list[str]:
    """Split a value that may have several words."""
    # split() alone would also split at the blanks of other scripts.
    return [word for word in text.translate(_BETWEEN_WORDS).split(" ") if word]


def parse_port(text: str) -> int:
    """Parse a port number: decimal ASCII digits and nothing else."""
    # int() alone would accept " 22", "+22", "2_2" and digits of other scripts.
    if text.isascii() and text.isdigit() and len(text) <= _PORT_DIGITS:
        port = int(text)
        if MIN_PORT <= port <= MAX_PORT:
            return port
    raise ValueError(f"give a port number from {MIN_PORT} to {MAX_PORT}")


def parse_protocol(text: str) -> str:
    """Parse a protocol; return the string of ``PROTOCOLS``, which so all ports share."""
    for known in PROTOCOLS:
        if known == text:
            return known
    raise ValueError(f"give one of {', '.join(PROTOCOLS)}")


@lru_cache(maxsize=16_384)  # very many ports name the same addresses
def parse_address(text: str) -> Address:
    """Parse an IPv4 or IPv6 address without a scope."""
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("give an IPv4 or IPv6 address") from None
    if getattr(address, "scope_id", None) is not None:
        raise ValueError("give an address without a scope (%...)")
    if _holds_ipv4(address):
        raise ValueError(_IPV4_CURE)
    return address


def parse_listen_address(text: str) -> Address:
    """Parse an address at which other hosts can reach the node."""
    address = parse_address(text)
    if address.is_loopback or address.is_multicast or _is_link_local6(address):
        raise ValueError("give an address of the node that others can reach")
    return address


def parse_guest_address(text: str) -> Address:
    """Parse an address that a guest can have."""
    address = parse_address(text)
    if (
        address.is_unspecified
        or address.is_loopback
        or address.is_multicast
        or address.is_reserved
        or _is_link_local6(address)
    ):
        raise ValueError("give the address that the guest has on its network")
    return address


def parse_time(text: str) -> int:
    """Parse a time in UTC as RFC 3339 writes it; return seconds since 1970."""
    from datetime import UTC, datetime  # only for a port that is published for a limited time

    numbers = [text[:4], *(text[i : i + 2] for i in range(5, 20, 3))]
    if (
        len(text) == len(_TIME)
        and all(number.isascii() and number.isdigit() for number in numbers)
        and text[4::3] == _TIME[4::3]
    ):
        try:
            return int(datetime(*map(int, numbers), tzinfo=UTC).timestamp())  # type: ignore[misc,arg-type]
        except ValueError:  # for example the 30th of February
            pass
    raise ValueError(f"give a time in UTC: {_TIME}")


def parse_name(text: str) -> str:
    """Parse the name of a remote guest; it must fit into a file name."""
    if text.isprintable() and "/" not in text and 0 < len(text.encode()) <= _NAME_BYTES:
        return text
    raise ValueError(f"give the guest's name: {_NAME_BYTES} bytes at most, printable, without /")


def parse_uuid(text: str) -> str:
    """Parse a guest's uuid as libvirt writes it; return it in lower case."""
    lower = text.lower()
    if len(lower) == _UUID_LENGTH and set(lower) <= _UUID_CHARACTERS:
        return lower
    raise ValueError("give the guest's uuid, as virsh domuuid prints it")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parse networks in CIDR form or single addresses, separated by commas or spaces.

    Overlapping networks are merged: an interval map accepts each address only once.
    """
    networks = [_parse_network(word) for word in words(text)]
    if not networks:
        raise ValueError("give at least one network, or leave the attribute out")
    four = [network for network in networks if network.version == 4]  # noqa: PLR2004
    six = [network for network in networks if network.version == 6]  # noqa: PLR2004
    return (*collapse_addresses(four), *collapse_addresses(six))


def parse_client(text: str) -> Network:
    """Parse a network in CIDR form, or a single address, that packets can come from."""
    network = _parse_network(text)
    first = network.network_address
    if network.prefixlen and (first.is_loopback or first.is_multicast or network.is_unspecified):
        raise ValueError("give an address that packets of other hosts can come from")
    return network


def parse_rate(text: str) -> tuple[int, str]:
    """Parse how many new connections one client may make: ``10/second``."""
    number, _, unit = text.partition("/")
    if unit in RATE_UNITS:
        rate = _number(number, MAX_RATE)
        if rate:
            return rate, unit
    raise ValueError(f"give a number from 1 to {MAX_RATE} per second, minute or hour: 10/second")


def parse_connections(text: str) -> int:
    """Parse how many connections one client may have at once."""
    number = _number(text, MAX_CONNECTIONS)
    if number:
        return number
    raise ValueError(f"give a number from 1 to {MAX_CONNECTIONS}")


def parse_limits(limit: str, connections: str) -> ClientLimits | None:
    """Parse the limits for one client; an empty text is none."""
    rate, unit = parse_rate(limit) if limit else (0, "")
    at_once = parse_connections(connections) if connections else 0
    return ClientLimits(rate, unit, at_once) if rate or at_once else None


def _number(text: str, largest: int) -> int:
    """Return a number in decimal ASCII digits; 0 if it is none, or is too large."""
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(largest))
    number = int(text) if is_number else 0
    return number if number <= largest else 0


def _parse_network(text: str) -> Network:
    try:
        if "%" in text:  # ip_network() accepts any text after "%" as a scope, and keeps it
            raise ValueError(text)
        network = ip_network(text)
    except ValueError:
        raise ValueError(
            "give networks as ADDRESS/LENGTH with no host bits set, separated by commas"
        ) from None
    if _holds_ipv4(network.network_address):
        raise ValueError(_IPV4_CURE)
    return network


def parse_mac(text: str) -> str:
    """Parse the MAC address of one station (not of a group). Raises ``ValueError``."""
    octets = text.lower().replace("-", ":").split(":")
    if len(octets) != _MAC_OCTETS or any(
        len(octet) != _OCTET_DIGITS or set(octet) - _HEX_DIGITS for octet in octets
    ):
        raise ValueError("give it like 02:63:0a:05:05:fb")
    # The lowest bit of the first octet is that of a group (IEEE 802).
    if int(octets[0], 16) & 1 or set(octets) == {"00"}:
        raise ValueError("give the address of one station, for example 02:63:0a:05:05:fb")
    return ":".join(octets)


def parse_interface_name(text: str) -> str:
    """Parse the name of a network device that both the kernel and a quoted nft string accept."""
    if (
        0 < len(text) <= _INTERFACE_NAME_LENGTH
        and text not in {".", ".."}
        and all((c.isascii() and c.isalnum()) or c in _INTERFACE_NAME_PUNCTUATION for c in text)
    ):
        return text
    raise ValueError(f"give a network device's name, {_INTERFACE_NAME_LENGTH} characters at most")


def _holds_ipv4(address: Address) -> bool:
    """Whether this is an IPv6 address that contains an IPv4 one (RFC 4291 section 2.5.5).

    No packet has such an address, and nft lists it in another spelling.
    """
    return (
        address.version == 6  # noqa: PLR2004
        and not (address.is_unspecified or address.is_loopback)
        and address.packed[:12] in _IPV4_PREFIXES
    )


def _is_link_local6(address: Address) -> bool:
    # A host has one IPv4 link-local network; an IPv6 link-local address needs a scope.
    return address.version == 6 and address.is_link_local  # noqa: PLR2004
