"""The policy rules and routes of the return paths, through pyroute2.

A hook call must not import this module: pyroute2 takes 146 ms to import.
Source: ip-rule(8), include/uapi/linux/fib_rules.h.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from ipaddress import ip_address

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cgw_hooks.errors import LinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cgw_hooks.core.rules.gateway_settings import SteeringRoute

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
#: After the table of local addresses (0), and before those of VPN programs (some thousands) and
#: the main table (32766).
_PRIORITY = 990
_ABSENT = {errno.ENOENT, errno.ESRCH, errno.ENODEV}


def is_set(wanted: SteeringRoute) -> bool:
    """Whether both the rule and the route of its table are there."""
    with IPRoute() as netlink:
        return _has_rule(netlink, wanted) and _has_route(netlink, wanted)


def add(wanted: SteeringRoute) -> None:
    """Add the rule, and the route to its table. Raises ``LinkError``."""
    with IPRoute() as netlink:
        try:
            index = netlink.link_lookup(ifname=wanted.device)[0]
            netlink.route("replace", **_route(wanted), gateway=str(wanted.via), oif=index)
            if not _has_rule(netlink, wanted):
                netlink.rule("add", **_rule(wanted))
        except (IndexError, NetlinkError) as error:
            raise LinkError(wanted.device, f"route by {wanted.via}: {error}") from error


def delete(wanted: SteeringRoute) -> bool:
    """Delete the rule and the route; False if neither was there. Raises ``LinkError``."""
    gone = False
    with IPRoute() as netlink:
        try:
            while _has_rule(netlink, wanted):
                netlink.rule("del", **_rule(wanted))
                gone = True
            if _has_route(netlink, wanted):
                netlink.route("del", **_route(wanted))
                gone = True
        except NetlinkError as error:
            if error.code not in _ABSENT:
                raise LinkError(wanted.device, f"route by {wanted.via}: {error}") from error
    return gone


def _rule(wanted: SteeringRoute) -> dict[str, Any]:
    return {
        "family": _FAMILY[wanted.subnet.version],
        "src": str(wanted.subnet.network_address),
        "src_len": wanted.subnet.prefixlen,
        "fwmark": wanted.mark,
        "fwmask": wanted.mask,
        "table": wanted.table,
        "priority": _PRIORITY,
    }


def _route(wanted: SteeringRoute) -> dict[str, Any]:
    return {
        "family": _FAMILY[wanted.subnet.version],
        "dst": "default",
        "table": wanted.table,
    }


def _has_rule(netlink: IPRoute, wanted: SteeringRoute) -> bool:
    for rule in netlink.get_rules(family=_FAMILY[wanted.subnet.version]):
        if (
            rule.get_attr("FRA_PRIORITY") == _PRIORITY
            and rule.get_attr("FRA_TABLE") == wanted.table
            and rule.get_attr("FRA_FWMARK") == wanted.mark
            and rule.get_attr("FRA_FWMASK") == wanted.mask
            and rule.get_attr("FRA_SRC") == str(wanted.subnet.network_address)
        ):
            return True
    return False


def _has_route(netlink: IPRoute, wanted: SteeringRoute) -> bool:
    with suppress(NetlinkError):  # no such table
        index = next(iter(netlink.link_lookup(ifname=wanted.device)), None)
        family = _FAMILY[wanted.subnet.version]
        for route in netlink.get_routes(family=family, table=wanted.table):
            gateway = route.get_attr("RTA_GATEWAY")
            if gateway and ip_address(gateway) == wanted.via and index == route.get_attr("RTA_OIF"):
                return True
    return False
