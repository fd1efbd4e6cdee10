"""Changes network devices and their addresses, through pyroute2.

A hook call must not import this module: pyroute2 takes 146 ms to import.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cgw_hooks.errors import LinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.rules.gateway_settings import DeviceAddress

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_SHARED_IPV6 = {
    # Duplicate address detection must be off: it would find the other nodes.
    "flags": 0x02,  # IFA_F_NODAD, include/uapi/linux/if_addr.h
    # A deprecated address is not the node's own source address (RFC 6724 section 5, rule 3).
    # Otherwise the kernel prefers the address added last, and answers go to another node.
    "cacheinfo": {"preferred": 0, "valid": 0xFFFFFFFF},  # valid forever
}


def missing_devices(names: Iterable[str]) -> list[str]:
    """Return those of the named devices that do not exist."""
    with IPRoute() as netlink:
        return [name for name in sorted(set(names)) if not netlink.link_lookup(ifname=name)]


def has_address(wanted: DeviceAddress) -> bool:
    """Whether a device has an address; for IPv6 with any prefix length, as the kernel compares."""
    with IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=wanted.device):
            for found in netlink.get_addr(index=index, family=_FAMILY[wanted.address.version]):
                if ip_address(found.get_attr("IFA_ADDRESS")) == wanted.address and (
                    wanted.address.version == 6 or found["prefixlen"] == wanted.prefix_length  # noqa: PLR2004
                ):
                    return True
    return False


def add_address(wanted: DeviceAddress) -> bool:
    """Add an address to a device; False if the device has it already. Raises ``LinkError``."""
    return _change("add", wanted, had_already=errno.EEXIST)


def delete_address(wanted: DeviceAddress) -> bool:
    """Delete an address from a device; False if the device lacks it. Raises ``LinkError``."""
    return _change("del", wanted, had_already=errno.EADDRNOTAVAIL)


def mac_address(device: str) -> str | None:
    """Return the MAC address of a device; None if there is no such device."""
    with IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=device):
            for link in netlink.get_links(index):
                return str(link.get_attr("IFLA_ADDRESS"))
    return None


def set_mac_address(device: str, mac: str) -> None:
    """Set the MAC address of a device. Raises ``LinkError``."""
    with IPRoute() as netlink:
        try:
            index = netlink.link_lookup(ifname=device)[0]
            netlink.link("set", index=index, address=mac)
        except (IndexError, NetlinkError) as error:
            raise LinkError(device, f"MAC address {mac}: {error}") from error


def is_isolated(bridge: str, device: str) -> bool | None:
    """Whether a device is an isolated port of a bridge; None if it is no port of that bridge."""
    with IPRoute() as netlink:
        bridge_index = next(iter(netlink.link_lookup(ifname=bridge)), None)
        for index in netlink.link_lookup(ifname=device):
            for link in netlink.get_links(index):
                if bridge_index is None or link.get_attr("IFLA_MASTER") != bridge_index:
                    return None
                port = link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_SLAVE_DATA")
                return bool(port.get_attr("IFLA_BRPORT_ISOLATED"))
    return None


def set_isolated(device: str, on: bool) -> None:
    """Set or clear the flag "isolated" of a bridge port. Raises ``LinkError``."""
    with IPRoute() as netlink:
        try:
            index = netlink.link_lookup(ifname=device)[0]
            netlink.brport("set", index=index, isolated=int(on))
        except (IndexError, NetlinkError) as error:
            raise LinkError(device, f"bridge port flag isolated: {error}") from error


def _change(command: str, wanted: DeviceAddress, *, had_already: int) -> bool:
    with IPRoute() as netlink:
        index = next(iter(netlink.link_lookup(ifname=wanted.device)), None)
        if index is None:
            if command == "del":
                return False
            raise LinkError(wanted.device, "no such device", "make it first, then run: cgw node up")
        shared6 = wanted.is_shared and wanted.address.version == 6  # noqa: PLR2004
        try:
            netlink.addr(
                command,
                index=index,
                address=str(wanted.address),
                prefixlen=wanted.prefix_length,
                family=_FAMILY[wanted.address.version],
                **(_SHARED_IPV6 if shared6 else {}),
            )
        except NetlinkError as error:
            if error.code == had_already:
                return False
            raise LinkError(
                wanted.device, f"address {wanted.address}: {errno.errorcode.get(error.code)}"
            ) from error
    return True
