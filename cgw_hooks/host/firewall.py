"""Exceptions in libvirt's own firewall, which rejects what comes in to its NAT networks.

An accept of ours cannot override a later base chain's reject, so the exception
must stand in front of libvirt's rules, made with that firewall's own command:
iptables beside the iptables backend (a native nft rule there would make the
table "incompatible" for libvirt), nft beside the nftables backend. It lets in
only what was translated (ct status dnat), to one bridge.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cgw_hooks.errors import RulesetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "cgw-hooks"
_IP = ("ip", "ip6")
_WAIT_SECONDS = "5"


class Firewall:
    """The exceptions of this node, by guest bridge; each call may be repeated."""

    def __init__(self, read_nft: Callable[[str], str], apply_nft: Callable[[str], None]) -> None:
        self._read_nft = read_nft
        self._apply_nft = apply_nft

    def admit(self, bridge: str) -> None:
        """Let translated connections in to a bridge, in front of whatever rejects them."""
        for command in self._commands():
            if not _iptables(command, "-C", bridge):
                _iptables(command, "-I", bridge)
        for ip in _IP:
            if self._handle(ip, bridge) == "":
                self._apply_nft(
                    f'insert rule {ip} libvirt_network guest_input oif "{bridge}" '
                    f'ct status dnat accept comment "{NAME} {bridge}"'
                )

    def dismiss(self, bridge: str) -> None:
        """Take the exception away again."""
        for command in self._commands():
            while _iptables(command, "-D", bridge):
                pass
        for ip in _IP:
            handle = self._handle(ip, bridge)
            if handle:
                self._apply_nft(f"delete rule {ip} libvirt_network guest_input handle {handle}")

    def _commands(self) -> Iterator[str]:
        """Where there are tables of iptables, its command: by the mere call it would make them."""
        tables = [line.split()[:3] for line in self._read_nft("list tables").splitlines()]
        for ip in _IP:
            if ["table", ip, "filter"] in tables or _is_filtered_by_legacy(ip):
                yield f"{ip}tables"

    def _handle(self, ip: str, bridge: str) -> str | None:
        """The exception's handle; empty where it is missing, None where there is no such chain."""
        try:
            listing = self._read_nft(f"list chain {ip} libvirt_network guest_input")
        except RulesetError:
            return None
        for line in listing.splitlines():
            if f'comment "{NAME} {bridge}"' in line:
                return line.rpartition("# handle ")[2].strip()
        return ""


def _is_filtered_by_legacy(ip: str) -> bool:
    """Whether iptables-legacy has a filter table, which nft does not see."""
    try:
        with open(f"/proc/net/{ip}_tables_names", encoding="ascii") as file:
            return "filter" in file.read().split()
    except OSError:
        return False


def _iptables(command: str, action: str, bridge: str) -> bool:
    """Run one iptables command on our rule; whether it succeeded. Not there: nothing to do."""
    rule = f"-o {bridge} -m conntrack --ctstate DNAT -m comment --comment {NAME} -j ACCEPT"
    argv = [command, "-w", _WAIT_SECONDS, action, "FORWARD", *rule.split()]
    quiet = [
        (os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_RDWR, 0) for descriptor in (0, 1, 2)
    ]
    try:
        # Not subprocess: its import costs more than the command itself.
        child = os.posix_spawnp(command, argv, os.environ, file_actions=quiet)
    except FileNotFoundError:
        return action == "-C"
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
