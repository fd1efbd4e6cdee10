"""The table that denies banned clients the published ports, as nft text.

It is a table of its own, since it may hold 100,000 elements: no hook call, no `cgw status` and no
repair of the published ports reads or writes them. It exists only while there is a ban.

A packet is dropped if its flow is one that `publish` of the table ``inet cgw`` has translated, in
either direction, and the client of that flow is denied. What cgw did not translate is not touched:
a banned client still reaches the node itself. The rule is in the hook *forward*, where each packet
of a translated flow passes, and asks for the client as it came in (``ct original``), before any
translation. A new flow that is dropped here is never tracked: nothing of its translation is left.

Single addresses are in a hash set, networks in an interval set. The kernel removes an element when
its time is over.
"""

from __future__ import annotations

from binascii import crc32
from ipaddress import ip_address

from cgw_hooks.core import bans
from cgw_hooks.core.rules.commands import ADDRESS_TYPE, IP, Table
from cgw_hooks.core.rules.names import DENIED_TABLE, LEFT_LABEL, SEEN_LABEL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.bans import Denied, Segment

TABLE = DENIED_TABLE

#: Before the filters of other programs (0): these need not look at a denied packet.
_PRIORITY = -10
_DAY = 86400
#: nft 1.0.6 reads at most eight digits of a time.
_LONGEST_IN_SECONDS = 10**8


def restore(denied: Denied, now: float) -> str:
    """Return text that makes the table hold exactly these clients, whatever it held before."""
    lines = [
        *_static(),
        *(f"flush set {TABLE} {name}" for name in set_names()),
        f"flush map {TABLE} revision",
        _revision(),
        *_additions(denied, now),
    ]
    return "\n".join(lines) + "\n"


def change(addresses: dict[str, int | None], networks: dict[int, list[Segment]], now: float) -> str:
    """Return text that changes single addresses, and replaces all networks of an IP version.

    ``addresses`` has until when each is denied now; None: it no longer is. The transaction fails if
    there is no table, or if it is that of another version.
    """
    lines = [_revision()]
    for client, until in addresses.items():
        lines += _element_commands(client, until, now)
    for version, found in networks.items():
        lines.append(f"flush set {TABLE} denied_networks{version}")
        lines += _networks(found, version, now)
    return "\n".join(lines) + "\n"


def set_names() -> list[str]:
    """Return the names of the sets."""
    return [f"{stem}{version}" for stem in ("denied", "denied_networks") for version in IP]


def rule_counts() -> dict[str, int]:
    """Return chain -> the number of its rules."""
    return _table().rule_counts()


def _table() -> Table:
    table = Table(TABLE)
    table.add_set("map revision { type mark : mark; }")
    for version, address in ADDRESS_TYPE.items():
        table.add_set(f"set denied{version} {{ type {address}; flags timeout; }}")
        table.add_set(f"set denied_networks{version} {{ type {address}; flags interval,timeout; }}")
    table.add_chain("denied")
    table.add_chain("forward", f"type filter hook forward priority {_PRIORITY}")
    table.add_rules(_rules())
    return table


def _rules() -> Iterator[str]:
    # First what most packets fail: the look-up of a client costs less than that of a label.
    for version, ip in IP.items():
        for stem in ("denied", "denied_networks"):
            yield f"forward ct original {ip} saddr @{stem}{version} jump denied"
    yield f"denied ct label {LEFT_LABEL} return"
    yield f"denied ct label {SEEN_LABEL} drop"


def _static() -> list[str]:
    return _table().commands()


def revision() -> int:
    """Return the checksum of the static rules."""
    return crc32("\n".join(_static()).encode())


def _revision() -> str:
    """Return the command that adds the checksum: refused if the table has another one.

    It is a key as well, since keys are quick to list.
    """
    checksum = f"{revision():#010x}"
    return f"add element {TABLE} revision {{ 0 : {checksum}, {checksum} : 0 }}"


def _element_commands(client: str, until: int | None, now: float) -> Iterator[str]:
    address = ip_address(client)
    name = f"denied{address.version}"
    # To delete an element that is not there, or has just expired, would fail; and "add" leaves the
    # time of an element that is there as it is.
    yield f"add element {TABLE} {name} {{ {address} }}"
    yield f"delete element {TABLE} {name} {{ {address} }}"
    if until is not None:
        yield f"add element {TABLE} {name} {{ {address}{_timeout(until, now)} }}"


def _additions(denied: Denied, now: float) -> Iterator[str]:
    for version in IP:
        found = bans.singles(denied, version)
        if found:
            listed = ", ".join(f"{a}{_timeout(until, now)}" for a, until in found.items())
            yield f"add element {TABLE} denied{version} {{ {listed} }}"
        yield from _networks(bans.segments(denied, version), version, now)


def _networks(found: list[Segment], version: int, now: float) -> Iterator[str]:
    if found:
        listed = ", ".join(
            f"{first if first == last else f'{first}-{last}'}{_timeout(until, now)}"
            for first, last, until in found
        )
        yield f"add element {TABLE} denied_networks{version} {{ {listed} }}"


def _timeout(until: int, now: float) -> str:
    if until == bans.NO_END:
        return ""
    seconds = max(1, int(until - now) + 1)
    if seconds < _LONGEST_IN_SECONDS:
        return f" timeout {seconds}s"
    return f" timeout {seconds // _DAY}d"
