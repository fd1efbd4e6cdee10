"""The addresses that libvirt's networks give to guests, read from libvirt's own files.

This module must not ask libvirt: a call about a guest from that guest's hook deadlocks. It reads
the files that libvirt and its lease helper write for dnsmasq (libvirt's src/util/virlease.c,
src/network/leaseshelper.c).
"""

from __future__ import annotations

import json
import os
from functools import lru_cache

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse.fields import parse_guest_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cgw_hooks.core.guest import Interface
    from cgw_hooks.core.published_port import Address

DNSMASQ_DIRECTORY = "/var/lib/libvirt/dnsmasq"


class _Lease(NamedTuple):
    address: Address
    mac: str


def addresses_of(
    interfaces: Sequence[Interface], now: float, directory: str = DNSMASQ_DIRECTORY
) -> tuple[Address, ...]:
    """Return the guest's addresses: a DHCP host entry first, then a lease; one per IP family.

    ``now`` is the time in seconds since 1970: an expired lease gives no address. The newest
    lease of an interface counts. If another MAC address has a newer lease of an address, the
    guest no longer has that address, even if a host entry assigns it: dnsmasq does not give it
    to the guest before that lease ends.
    """
    own = {interface.mac for interface in interfaces}
    first: dict[int, Address] = {}
    for interface in interfaces:
        holders, leased = _leases_of(interface, now, directory)
        for address in (*_host_entries(interface, directory), *leased.get(interface.mac, ())):
            if holders.get(address, interface.mac) in own:
                first.setdefault(address.version, address)
    return tuple(first.values())


def _host_entries(interface: Interface, directory: str) -> Iterator[Address]:
    """Read NETWORK.hostsfile: ``52:54:00:05:06:0b,192.168.122.11,web1``, IPv6 in brackets."""
    if interface.network:
        for line in _read(directory, f"{interface.network}.hostsfile").splitlines():
            fields = line.strip().split(",")
            if fields[0].lower() == interface.mac:
                for field in fields[1:]:
                    address = _address(field.strip("[]"))
                    if address:
                        yield address


class _Leases(NamedTuple):
    """The leases of one network at one time."""

    holders: dict[Address, str]
    #: MAC address -> addresses, the newest lease first.
    addresses: dict[str, list[Address]]


def _leases_of(interface: Interface, now: float, directory: str) -> _Leases:
    if not interface.bridge:
        return _Leases({}, {})
    return _leases_in(_read(directory, f"{interface.bridge}.status"), now)


@lru_cache(maxsize=16)  # one look at all guests asks for the same network again and again
def _leases_in(text: str, now: float) -> _Leases:
    """Read BRIDGE.status.

    The lease helper writes a new or renewed lease at the end of the file. It does not remove
    expired leases and those of destroyed guests.
    """
    holders: dict[Address, str] = {}
    for address, mac in _leases(text, now):
        holders.pop(address, None)
        holders[address] = mac
    addresses: dict[str, list[Address]] = {}
    for address, mac in reversed(holders.items()):
        addresses.setdefault(mac, []).append(address)
    return _Leases(holders, addresses)


def _leases(text: str, now: float) -> Iterator[_Lease]:
    """Yield ``[{"ip-address": ..., "mac-address": ..., "expiry-time": ...}]``."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return  # empty, being written at this moment, or not written by libvirt
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and not _has_expired(entry.get("expiry-time", 0), now):
            address = _address(str(entry.get("ip-address")))
            if address:
                yield _Lease(address, str(entry.get("mac-address")).lower())


def _has_expired(expiry_time: object, now: float) -> bool:
    """Whether a lease has ended. 0 means that it never ends; libvirt writes only numbers."""
    return not isinstance(expiry_time, int) or 0 != expiry_time < now


def _address(text: str) -> Address | None:
    try:
        return parse_guest_address(text)
    except ValueError:
        return None


def _read(directory: str, name: str) -> str:
    try:
        with open(os.path.join(directory, os.path.basename(name)), encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError):
        return ""
