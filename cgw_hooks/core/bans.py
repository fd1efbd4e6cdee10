"""Bans: clients that must not reach the published ports of this node, and until when.

Several programs may ban the same client, each for its own time: a ban belongs to who made it. The
client is denied until the last of its bans ends.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.published_port import ANY_ADDRESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable

    from cgw_hooks.core.published_port import Address, Network

    #: Client and maker -> the end of the ban in seconds since 1970, or `NO_END`. There may be
    #: 100,000 of them, so they are texts: the client as `text_of` spells it.
    Bans = dict[tuple[str, str], int]
    #: Client -> the end of the last of its bans, or `NO_END`.
    Denied = dict[str, int]

NO_END = 0
_HEAD = "cgw-bans 1"
_NAME_LENGTH = 64
_NAME_PUNCTUATION = frozenset("-_.")


class Segment(NamedTuple):
    """Addresses that follow each other and are denied until the same time."""

    first: Address
    last: Address
    until: int


def text_of(network: Network) -> str:
    """Return how a client is written: a single address without a prefix length."""
    is_single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if is_single else network)


def parse_maker(text: str) -> str:
    """Parse the name of who makes a ban, for example of a jail of fail2ban."""
    if 0 < len(text) <= _NAME_LENGTH and all(
        (c.isascii() and c.isalnum()) or c in _NAME_PUNCTUATION for c in text
    ):
        return text
    raise ValueError(f"give a name of at most {_NAME_LENGTH} letters, digits, and - _ .")


def to_text(bans: Bans) -> str:
    """Return the bans as their file holds them."""
    lines = [f"{client} {until} {maker}\n" for (client, maker), until in bans.items()]
    return f"{_HEAD}\n{''.join(lines)}"


def from_text(text: str) -> Bans:
    """Read what ``to_text`` wrote. Raises ``ValueError`` for anything else.

    The clients are not parsed: what makes nft text of them does that.
    """
    head, *lines = text.split("\n")
    if head != _HEAD:
        raise ValueError(f"its first line is not {_HEAD!r}")
    if lines.pop() if lines else True:
        raise ValueError("its last line has no end")
    try:
        bans = {(c, maker): int(until) for c, until, maker in [line.split(" ") for line in lines]}
    except ValueError:
        raise ValueError("a line is no ban") from None
    if min(bans.values(), default=0) < 0:
        raise ValueError("a line has a time before 1970")
    return bans


def unexpired(bans: Bans, now: float) -> Bans:
    """Return the bans whose time has not passed at ``now`` (seconds since 1970)."""
    return {key: until for key, until in bans.items() if until == NO_END or until > now}


def denied(bans: Bans, clients: Container[str] | None = None) -> Denied:
    """Return until when each client is denied; with ``clients``, each of these."""
    found: Denied = {}
    for (client, _), until in bans.items():
        if clients is None or client in clients:
            found[client] = _later(found[client], until) if client in found else until
    return found


def lifted(bans: Bans, networks: Iterable[Network], maker: str | None) -> set[tuple[str, str]]:
    """Return the keys of the bans of these clients, and of all clients within them.

    ``maker`` None means whoever has made them.
    """
    single = {text_of(n) for n in networks if n.prefixlen == n.max_prefixlen}
    wide = [n for n in networks if n.prefixlen < n.max_prefixlen]

    def is_meant(client: str, made_by: str) -> bool:
        if maker not in {None, made_by}:
            return False
        return client in single or any(is_within(client, network) for network in wide)

    return {key for key in bans if is_meant(*key)}


def is_within(client: str, network: Network) -> bool:
    """Whether a client is a part of a network, or the network itself."""
    if (":" in client) != (network.version == 6):  # noqa: PLR2004
        return False
    if network.prefixlen == 0:
        return True
    if "/" not in client:
        return ip_address(client) in network
    return ip_network(client).subnet_of(network)  # type: ignore[arg-type]  # same version


def still_denied(bans: Bans, clients: Collection[Network]) -> list[tuple[str, str]]:
    """Return which of the clients are denied, each with the maker of a ban or a wider network."""
    texts = {text_of(client) for client in clients}
    found = sorted((c, maker or "an administrator") for c, maker in bans if c in texts)
    networks = [ip_network(c) for c in {c for c, _ in bans} if "/" in c]
    found += sorted(
        (text_of(client), str(network))
        for network in networks
        for client in clients
        if client.version == network.version and client != network and client.subnet_of(network)  # type: ignore[arg-type]  # same version
    )
    return found


def singles(denied: Denied, version: int) -> dict[Address, int]:
    """Return the single addresses of an IP version. Raises ``ValueError`` for anything else."""
    is_of_version = _of_version(version)
    return {
        ip_address(client): until
        for client, until in denied.items()
        if "/" not in client and is_of_version(client)
    }


def segments(denied: Denied, version: int) -> list[Segment]:
    """Return the networks of an IP version as segments that do not overlap.

    An interval set of nft takes each address only once, with one time. Of networks within each
    other, an address has the latest time. Raises ``ValueError`` for what is no network.
    """
    is_of_version = _of_version(version)
    found = sorted(
        (ip_network(client), until)
        for client, until in denied.items()
        if "/" in client and is_of_version(client)
    )
    result: list[Segment] = []
    around: list[tuple[int, int]] = []  # last address and time of the networks around
    position = 0
    for network, own in found:
        first, last = int(network.network_address), int(network.broadcast_address)
        while around and around[-1][0] < first:
            position = _append(result, version, position, *around.pop())
        if around:
            _append(result, version, position, first - 1, around[-1][1])
        position = first
        around.append((last, _later(around[-1][1], own) if around else own))
    while around:
        position = _append(result, version, position, *around.pop())
    return result


def _append(result: list[Segment], version: int, first: int, last: int, until: int) -> int:
    """Append a segment, if it has any address, to those before it; return where the next begins."""
    if first > last:
        return first
    make = type(ANY_ADDRESS[version])
    before = result[-1] if result else None
    if before and before.until == until and int(before.last) + 1 == first:
        result[-1] = before._replace(last=make(last))
    else:
        result.append(Segment(make(first), make(last), until))
    return last + 1


def _later(one: int, other: int) -> int:
    return NO_END if NO_END in {one, other} else max(one, other)


def _of_version(version: int) -> Callable[[str], bool]:
    return (lambda client: ":" in client) if version == 6 else (lambda client: ":" not in client)  # noqa: PLR2004
