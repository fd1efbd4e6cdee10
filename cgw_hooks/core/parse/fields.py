"""Untrusted text -> numbers, addresses and words; whatever else is refused.

Nothing but the results of these functions, and fixed words, ever becomes part
of nft text. Each raises ``ValueError`` whose text says what is wanted instead.
"""

from __future__ import annotations

from functools import lru_cache  # ipaddress has loaded it already
from ipaddress import collapse_addresses, ip_address, ip_network

from cgw_hooks.core.published_port import MAX_PORT, MIN_PORT, PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address, Network

_PORT_DIGITS = 5
_NAME_BYTES = 180  # NAME_MAX (255) of linux/limits.h, less what the state's files add to it
_UUID_LENGTH, _UUID_CHARACTERS = 36, frozenset("0123456789abcdef-")
_IPV4_PREFIXES = (bytes(12), bytes(10) + b"\xff\xff")
_IPV4_CURE = "give an IPv4 address or network as such, not within an IPv6 one"
_INTERFACE_NAME_LENGTH = 15  # IFNAMSIZ (16) of linux/if.h, less its final NUL
_INTERFACE_NAME_PUNCTUATION = "-_.:@"


def parse_port(text: str) -> int:
    """A port number, in decimal ASCII digits and nothing else."""
    # int() alone would take " 22", "+22", "2_2" and digits of other scripts.
    if text.isascii() and text.isdigit() and len(text) <= _PORT_DIGITS:
        port = int(text)
        if MIN_PORT <= port <= MAX_PORT:
            return port
    raise ValueError(f"give a port number from {MIN_PORT} to {MAX_PORT}")


def parse_protocol(text: str) -> str:
    """One of the protocols that have ports."""
    if text not in PROTOCOLS:
        raise ValueError(f"give one of {', '.join(PROTOCOLS)}")
    return text


def parse_address(text: str) -> Address:
    """An IPv4 or IPv6 address without a scope."""
    try:
        address = _ip_address(text)
    except ValueError:
        raise ValueError("give an IPv4 or IPv6 address") from None
    if getattr(address, "scope_id", None) is not None:
        raise ValueError("give an address without a scope (%...)")
    if _holds_ipv4(address):
        raise ValueError(_IPV4_CURE)
    return address


#: The ports of one guest, and of very many, name few addresses very often.
_ip_address = lru_cache(maxsize=4096)(ip_address)


def parse_listen_address(text: str) -> Address:
    """An address of a node at which it can be reached from outside."""
    address = parse_address(text)
    if address.is_loopback or address.is_multicast or _is_link_local6(address):
        raise ValueError("give an address of the node that others can reach")
    return address


def parse_guest_address(text: str) -> Address:
    """An address that one guest can have."""
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


def parse_name(text: str) -> str:
    """The name of a guest elsewhere, as a file's name can hold it."""
    if text.isprintable() and "/" not in text and 0 < len(text.encode()) <= _NAME_BYTES:
        return text
    raise ValueError(f"give the guest's name: {_NAME_BYTES} bytes at most, printable, without /")


def parse_uuid(text: str) -> str:
    """A guest's uuid, as libvirt writes it, in lower case."""
    lower = text.lower()
    if len(lower) == _UUID_LENGTH and set(lower) <= _UUID_CHARACTERS:
        return lower
    raise ValueError("give the guest's uuid, as virsh domuuid prints it")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks in CIDR form or single addresses, parted by commas or spaces.

    Overlapping ones are merged: an interval map takes each address once.
    """
    networks = [_parse_network(word) for word in text.replace(",", " ").split()]
    if not networks:
        raise ValueError("give at least one network, or leave the attribute out")
    four = [network for network in networks if network.version == 4]  # noqa: PLR2004
    six = [network for network in networks if network.version == 6]  # noqa: PLR2004
    return (*collapse_addresses(four), *collapse_addresses(six))


def _parse_network(text: str) -> Network:
    try:
        if "%" in text:  # ip_network() takes whatever follows it as a scope, and keeps it
            raise ValueError(text)
        network = ip_network(text)
    except ValueError:
        raise ValueError(
            "give networks as ADDRESS/LENGTH with no bit set behind the length, parted by commas"
        ) from None
    if _holds_ipv4(network.network_address):
        raise ValueError(_IPV4_CURE)
    return network


def parse_interface_name(text: str) -> str:
    """The name of a network device, as the kernel and a quoted nft string both take it."""
    if (
        0 < len(text) <= _INTERFACE_NAME_LENGTH
        and text not in {".", ".."}
        and all((c.isascii() and c.isalnum()) or c in _INTERFACE_NAME_PUNCTUATION for c in text)
    ):
        return text
    raise ValueError(f"give a network device's name, {_INTERFACE_NAME_LENGTH} characters at most")


def _holds_ipv4(address: Address) -> bool:
    """Whether it is an IPv4 address within an IPv6 one (RFC 4291 section 2.5.5).

    No packet has one, and nft lists it in another spelling than it was given.
    """
    return (
        address.version == 6  # noqa: PLR2004
        and not (address.is_unspecified or address.is_loopback)
        and address.packed[:12] in _IPV4_PREFIXES
    )


def _is_link_local6(address: Address) -> bool:
    # IPv4 link-local is one network on a host; IPv6 link-local needs a scope.
    return address.version == 6 and address.is_link_local  # noqa: PLR2004
