"""The addresses that libvirt's networks give to guests, read from libvirt's own files.

This module must not ask libvirt: a call about a guest from that guest's hook deadlocks. It reads
the files that libvirt and its lease helper write for dnsmasq (libvirt's src/util/virlease.c,
src/network/leaseshelper.c).
"""

from __future__ import annotations

import json
import os

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse.fields import parse_guest_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
        holders = _holders(interface, now, directory)
        leased = [address for address, mac in reversed(holders.items()) if mac == interface.mac]
        for address in (*_host_entries(interface, directory), *leased):
            if holders.get(address, interface.mac) in own:
                first.setdefault(address.version, address)
    return tuple(first.values())


def other_holder(
    address: Address,
    interfaces: Iterable[Interface],
    now: float,
    directory: str = DNSMASQ_DIRECTORY,
) -> str | None:
    """Return the MAC address of another guest that has a lease of this address now, or None.

    A guest can lose an address in two ways, which this function distinguishes: another guest has
    the address (so the ports must not go there), or no guest has it (None).
    """
    interfaces = list(interfaces)
    own = {interface.mac for interface in interfaces}
    for interface in interfaces:
        holder = _holders(interface, now, directory).get(address)
        if holder and holder not in own:
            return holder
    return None


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


def _holders(interface: Interface, now: float, directory: str) -> dict[Address, str]:
    """Return address -> MAC address for the interface's network now, the newest lease last.

    The lease helper writes a new or renewed lease at the end of the file. It does not remove
    expired leases and those of destroyed guests.
    """
    holders: dict[Address, str] = {}
    for address, mac in _leases(interface, now, directory):
        holders.pop(address, None)
        holders[address] = mac
    return holders


def _leases(interface: Interface, now: float, directory: str) -> Iterator[_Lease]:
    """Read BRIDGE.status: ``[{"ip-address": ..., "mac-address": ..., "expiry-time": ...}]``."""
    if not interface.bridge:
        return
    try:
        entries = json.loads(_read(directory, f"{interface.bridge}.status"))
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
