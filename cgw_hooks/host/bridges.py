"""The spanning tree, the MAC address and the state of a bridge, as the kernel reports them.

This module must not import pyroute2: that takes longer than a whole ``cgw status``.

Source: include/uapi/linux/if_link.h, br_fill_info in net/bridge/br_netlink.c.
"""

from __future__ import annotations

import struct

from cgw_hooks.host import netlink

_GET_LINK = 18  # RTM_GETLINK
_MESSAGE = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS, _NAME, _LINK_INFO = 1, 3, 18  # IFLA_ADDRESS, IFLA_IFNAME, IFLA_LINKINFO
_INFO_KIND, _INFO_DATA = 1, 2  # IFLA_INFO_KIND, IFLA_INFO_DATA
_FORWARD_DELAY, _STP_STATE = 1, 5  # IFLA_BR_FORWARD_DELAY (hundredths of a second) ...
_NUMBER = struct.Struct("=I")
_IFF_UP = 1
_KERNEL_STP = 1  # BR_KERNEL_STP of net/bridge/br_private.h; 2 is a user-space program


def forward_delay(bridge: str) -> float:
    """Return the forward delay, in seconds, of a bridge that runs the kernel's spanning tree.

    It is 0 if the bridge runs none, or if there is no such bridge.
    """
    information = _information(bridge)
    if not _is_of_bridge(information):
        return 0.0
    data = netlink.attributes(information.get(_INFO_DATA, b""))
    if _number(data, _STP_STATE) != _KERNEL_STP:
        return 0.0
    return _number(data, _FORWARD_DELAY) / 100


def is_bridge(device: str) -> bool:
    """Whether a device is a bridge of the kernel."""
    return _is_of_bridge(_information(device))


def _information(device: str) -> dict[int, bytes | memoryview]:
    return netlink.attributes(_link(device).get(_LINK_INFO, b""))


def _is_of_bridge(information: dict[int, bytes | memoryview]) -> bool:
    return bytes(information.get(_INFO_KIND, b"")).rstrip(b"\0") == b"bridge"


def mac_address(bridge: str) -> str:
    """Return the MAC address of a bridge; empty if there is no such bridge."""
    return bytes(_link(bridge).get(_ADDRESS, b"")).hex(":")


def is_up(device: str) -> bool | None:
    """Whether a device is up (its administrator's wish); None if there is no such device."""
    answer = _ask(device)
    return bool(_MESSAGE.unpack_from(answer)[3] & _IFF_UP) if answer else None


def _link(name: str) -> dict[int, bytes | memoryview]:
    """Return the attributes of a device; none if there is no such device."""
    answer = _ask(name)
    return netlink.attributes(answer[_MESSAGE.size :]) if answer else {}


def _ask(name: str) -> bytes:
    """Return the kernel's answer about a device; empty if there is no such device."""
    request = _MESSAGE.pack(0, 0, 0, 0, 0) + netlink.attribute(_NAME, name.encode() + b"\0")
    with netlink.Channel(netlink.ROUTE) as channel:
        try:
            return bytes(channel.ask(_GET_LINK, request)[0])
        except OSError:
            return b""


def _number(data: dict[int, bytes | memoryview], kind: int) -> int:
    return int(_NUMBER.unpack(data[kind])[0]) if kind in data else 0
