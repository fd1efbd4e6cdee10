"""The addresses that libvirt's networks give to guests, read from libvirt's own files.

Never through libvirt: to call it about a guest from that guest's hook deadlocks.
The files are those that libvirt and its lease helper keep for dnsmasq.
"""

from __future__ import annotations

import json
import os

from cgw_hooks.core.parse.fields import parse_guest_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.guest import Interface
    from cgw_hooks.core.published_port import Address

DNSMASQ_DIRECTORY = "/var/lib/libvirt/dnsmasq"


def addresses_of(
    interfaces: Iterable[Interface], now: float, directory: str = DNSMASQ_DIRECTORY
) -> tuple[Address, ...]:
    """The guest's addresses: a DHCP host entry first, then a lease; one to an IP family."""
    first: dict[int, Address] = {}
    for interface in interfaces:
        for text in (*_host_entries(interface, directory), *_leases(interface, directory)):
            try:
                address = parse_guest_address(text)
            except ValueError:
                continue
            first.setdefault(address.version, address)
    return tuple(first.values())


def _host_entries(interface: Interface, directory: str) -> Iterator[str]:
    """``52:54:00:05:06:0b,192.168.122.11,web1`` of NETWORK.hostsfile, IPv6 in brackets."""
    if interface.network:
        for line in _read(directory, f"{interface.network}.hostsfile").splitlines():
            fields = line.strip().split(",")
            if fields[0].lower() == interface.mac:
                yield from (field.strip("[]") for field in fields[1:])


def _leases(interface: Interface, directory: str) -> Iterator[str]:
    """``[{"ip-address": ..., "mac-address": ...}]`` of BRIDGE.status."""
    if not interface.bridge:
        return
    try:
        leases = json.loads(_read(directory, f"{interface.bridge}.status"))
    except (ValueError, RecursionError):
        return  # empty, being written at this moment, or not libvirt's
    for lease in reversed(leases) if isinstance(leases, list) else ():  # the newest is the last
        if isinstance(lease, dict) and str(lease.get("mac-address")).lower() == interface.mac:
            yield str(lease.get("ip-address"))


def _read(directory: str, name: str) -> str:
    try:
        with open(os.path.join(directory, os.path.basename(name)), encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError):
        return ""
