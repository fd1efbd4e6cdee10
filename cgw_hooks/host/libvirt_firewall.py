"""Exceptions in libvirt's own firewall, which rejects what comes in to its NAT networks.

An accept of ours cannot override a later base chain's reject, so the exception
must stand in front of libvirt's rules, made with that firewall's own command:
iptables beside the iptables backend (a native nft rule there would make the
table "incompatible" for libvirt), nft beside the nftables backend. It lets in
only what was translated (ct status dnat), to one bridge.

Of either backend's chains it is in the one that jumps to those of the networks: these
libvirt makes anew, without a hook, whenever it is reloaded or a network restarted, in
front of whatever is there; that one it leaves alone, once it is there.
"""

from __future__ import annotations

import os

from cgw_hooks.errors import RulesetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAME = "cgw-hooks"
#: The iptables command and nft's name of each IP family.
_FAMILIES = (("iptables", "ip"), ("ip6tables", "ip6"))
_CHAIN = "libvirt_network forward"
_WAIT_SECONDS = "5"


class Firewall:
    """The exceptions of this node, by guest bridge; each call may be repeated."""

    def __init__(self, read_nft: Callable[[str], str], apply_nft: Callable[[str], None]) -> None:
        self._read_nft = read_nft
        self._apply_nft = apply_nft

    def admit(self, bridge: str) -> None:
        """Let translated connections in to a bridge, in front of whatever rejects them."""
        for command, ip in _FAMILIES:
            rules = self._rules(ip)
            if rules is not None:
                if not any(_is_ours(rule, bridge) for rule in rules):
                    # By its name: after a restart of its network it is another device.
                    self._apply_nft(
                        f'insert rule {ip} {_CHAIN} oifname "{bridge}" ct status dnat accept '
                        f'comment "{NAME} {bridge}"\n'
                    )
            elif self._is_filtered(ip) and not _iptables(command, "-C", bridge):
                _iptables(command, "-I", bridge)

    def dismiss(self, bridge: str) -> None:
        """Take the exception away again."""
        for command, ip in _FAMILIES:
            while self._is_filtered(ip) and _iptables(command, "-D", bridge):
                pass
            ours = [rule for rule in self._rules(ip) or () if _is_ours(rule, bridge)]
            handles = [rule.rpartition("# handle ")[2] for rule in ours]
            if handles:
                self._apply_nft(
                    "".join(f"delete rule {ip} {_CHAIN} handle {handle}\n" for handle in handles)
                )

    def not_admitted(self, bridges: Iterable[str]) -> set[str]:
        return set()

    def _is_filtered(self, ip: str) -> bool:
        """Whether iptables has a filter table: by the mere call it would make one."""
        tables = [line.split()[:3] for line in self._read_nft("list tables").splitlines()]
        return ["table", ip, "filter"] in tables or _is_filtered_by_legacy(ip)

    def _rules(self, ip: str) -> list[str] | None:
        """The rules of libvirt's chain; None where there is no such chain."""
        try:
            listing = self._read_nft(f"list chain {ip} {_CHAIN}")
        except RulesetError:
            return None
        lines = [line.strip() for line in listing.splitlines()]
        return [line for line in lines if "# handle " in line and "{ # handle " not in line]


def _is_ours(rule: str, bridge: str) -> bool:
    """Whether a rule is our exception for this bridge."""
    return f'comment "{NAME} {bridge}"' in rule


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
