"""Exceptions in libvirt's own firewall, which rejects new connections to its NAT networks.

An accept rule in a table of cgw cannot override a reject in a later base chain. So the exception
must be in front of libvirt's rules. It must be made with the command of that firewall: iptables
for the iptables backend (a native nft rule would make that table "incompatible" for libvirt), nft
for the nftables backend. An exception accepts only translated packets (``ct status dnat``) to one
bridge.

The exception is in the chain that jumps to the chains of the networks. libvirt makes those chains
again, without calling a hook, when it is reloaded or a network is restarted; the jump stays. After
that chain itself was made again (``firewall-cmd --reload``, ``iptables -F``), libvirt puts its
jump in front of an existing exception. So the position must be checked.

A host can have the rules of several firewalls: those of a former backend of libvirt, or those of
iptables-legacy. Each firewall that really rejects packets to a bridge gets the exception, and no
other one. If libvirt's rules are missing, nothing is rejected: this is no error, and only libvirt
makes its rules.

Questions change nothing. Hook calls of guests on libvirt networks load this module, so it must
import little.
"""

from __future__ import annotations

import os

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.errors import RulesetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

NAME = "cgw-hooks"
#: The iptables command and nft's name of each IP family.
_FAMILIES = (("iptables", "ip"), ("ip6tables", "ip6"))
#: libvirt's chains for packets to its networks: src/network/network_iptables.c,
#: src/network/network_nftables.c.
_IPTABLES_CHAIN = "LIBVIRT_FWI"
_NFT_TABLE = "libvirt_network"
_NFT_CHAIN = "guest_input"
_WAIT_SECONDS = "5"
#: Another program may change the rules between the reading and the change.
_ATTEMPTS = 3


class _View(NamedTuple):
    """One firewall's rules for packets that are forwarded to bridges, in one IP family."""

    #: The bridges to which the firewall rejects packets.
    rejected: set[str]
    #: The position in the forward chain of the jump to those rules; None if there is no jump.
    jump: int | None
    #: The exceptions in the forward chain: bridge -> positions, in order.
    ours: dict[str, list[int]]
    #: Position -> handle that deletes the rule.
    handles: dict[int, str]
    #: Whether the forward chain drops what none of its rules accepts.
    drops: bool = False

    def lets_in(self, bridge: str) -> bool:
        """Whether translated packets pass: the exception is in front, if it is needed."""
        if self.jump is None or bridge not in self.rejected:
            return True
        return bool(self.ours.get(bridge)) and self.ours[bridge][0] < self.jump

    def cuts_off(self, bridge: str) -> bool:
        """Whether nothing passes, since no jump leads to libvirt's rules any more."""
        return self.drops and self.jump is None and bridge in self.rejected

    def is_settled(self, bridge: str) -> bool:
        """Whether the exception needs no change: it is in front, and there is only one."""
        return self.lets_in(bridge) and len(self.ours.get(bridge, ())) <= 1


class Obstacles(NamedTuple):
    """The bridges to which a firewall lets no published port pass."""

    #: The exception is missing, or is behind a reject. Cure: ``Firewall.admit``.
    behind: set[str]
    #: Another program has emptied the forward chain. Cure: libvirt must make its rules again.
    cut_off: set[str]


class Firewall:
    """The exceptions of this node, by guest bridge. Each call may be repeated."""

    def __init__(self, read_nft: Callable[[str], str], apply_nft: Callable[[str], None]) -> None:
        self._read_nft = read_nft
        self._apply_nft = apply_nft

    def admit(self, bridge: str) -> None:
        """Put the exception for a bridge in front of the rules that would reject its connections.

        An existing exception is moved in one transaction, so it is never missing. Raises
        ``RulesetError`` if a firewall refuses the change.
        """
        for firewall in self._firewalls():
            for _ in range(_ATTEMPTS):
                view = firewall.read()
                if view is None or view.is_settled(bridge):
                    break
                if firewall.replace(view, bridge, is_wanted=True):
                    break
            else:
                message = f"it refuses the exception for bridge {bridge}"
                raise RulesetError("libvirt's firewall", message, "run: cgw sync")

    def dismiss(self, bridge: str) -> None:
        """Remove all exceptions for a bridge.

        One that cannot be removed stays: it accepts only packets that something translates.
        """
        for firewall in self._firewalls():
            for _ in range(_ATTEMPTS):
                view = firewall.read()
                if view is None or not view.ours.get(bridge):
                    break
                if firewall.replace(view, bridge, is_wanted=False):
                    break

    def obstacles(self, bridges: Iterable[str]) -> Obstacles:
        """Return which of the bridges are closed. Each firewall is read once for all bridges."""
        wanted = set(bridges)
        found = [firewall.read() for firewall in self._firewalls()] if wanted else []
        views = [view for view in found if view]
        return Obstacles(
            behind={bridge for bridge in wanted if not all(v.lets_in(bridge) for v in views)},
            cut_off={bridge for bridge in wanted if any(v.cuts_off(bridge) for v in views)},
        )

    def _firewalls(self) -> Iterator[_Iptables | _Nftables]:
        """Yield the firewalls that have a table for libvirt's rules.

        An old iptables command would make such a table when it is asked, so nft is asked.
        """
        try:
            lines = self._read_nft("list tables").splitlines()
        except RulesetError:
            lines = []
        tables = {line.partition(" #")[0] for line in lines}
        for command, ip in _FAMILIES:
            if f"table {ip} {_NFT_TABLE}" in tables:
                yield _Nftables(ip, self._read_nft, self._apply_nft)
            if f"table {ip} filter" in tables:
                yield _Iptables(command, "nft")
            if _has_legacy_filter(ip):  # nft does not list these
                yield _Iptables(command, "legacy")


class _Nftables:
    """The table of libvirt's nftables backend (since libvirt 10.4)."""

    def __init__(
        self, ip: str, read_nft: Callable[[str], str], apply_nft: Callable[[str], None]
    ) -> None:
        self._table = f"{ip} {_NFT_TABLE}"
        self._read_nft = read_nft
        self._apply_nft = apply_nft

    def read(self) -> _View | None:
        """Read the table; None if it is gone."""
        try:
            listing = self._read_nft(f"list table {self._table}")
        except RulesetError:
            return None
        view, chain = _View(set(), None, {}, {}), ""
        for line in listing.splitlines():
            words = line.split()
            if words[:1] == ["chain"]:
                chain, position = words[1], 0
            elif "# handle " in line and chain == _NFT_CHAIN:
                if "reject" in words and words[0] in {"oif", "oifname"}:
                    view.rejected.add(words[1].strip('"'))
            elif "# handle " in line and chain == "forward":
                view.handles[position] = words[-1]
                before, found, name = line.partition(f'comment "{NAME} ')
                if found:
                    view.ours.setdefault(name.partition('"')[0], []).append(position)
                elif f"jump {_NFT_CHAIN} " in before and view.jump is None:
                    view = view._replace(jump=position)
                position += 1
        return view

    def replace(self, view: _View, bridge: str, *, is_wanted: bool) -> bool:
        """Have the exception in front, or nowhere, in one transaction; whether that was done."""
        chain = f"{self._table} forward"
        ours = view.ours.get(bridge, ())
        lines = [f"delete rule {chain} handle {view.handles[position]}" for position in ours]
        if is_wanted:
            # The rule matches the bridge by name: a restart of its network makes a new device.
            lines.append(
                f'insert rule {chain} oifname "{bridge}" ct status dnat accept '
                f'comment "{NAME} {bridge}"'
            )
        try:
            self._apply_nft("\n".join(lines) + "\n")
        except RulesetError:  # another program has changed the table
            return False
        return True


class _Iptables:
    """The filter table of libvirt's iptables backend. ``variant`` is "nft" or "legacy"."""

    def __init__(self, command: str, variant: str) -> None:
        self._command = command
        self._variant = variant

    def read(self) -> _View | None:
        """Read the table; None if it is gone, or if iptables cannot read it."""
        listing = self._run("", ["-w", _WAIT_SECONDS, "-S"])
        if listing is None:
            return None
        view, position = _View(set(), None, {}, {}), 0
        for line in listing.splitlines():
            words = line.split()
            if words[:2] == ["-A", _IPTABLES_CHAIN]:
                if _after("-j", words) == "REJECT":
                    view.rejected.add(_after("-o", words))
            elif words[:2] == ["-P", "FORWARD"]:
                view = view._replace(drops=words[2] == "DROP")
            elif words[:2] == ["-A", "FORWARD"]:
                if _after("--comment", words).strip('"') == NAME:
                    view.ours.setdefault(_after("-o", words), []).append(position)
                elif _after("-j", words) == _IPTABLES_CHAIN and view.jump is None:
                    view = view._replace(jump=position)
                position += 1
        return view

    def replace(self, view: _View, bridge: str, *, is_wanted: bool) -> bool:
        """Have the exception in front, or nowhere, in one transaction; whether that was done."""
        rule = f"FORWARD -o {bridge} -m conntrack --ctstate DNAT -m comment --comment {NAME}"
        lines = ["*filter"]
        # The rule is not deleted by number: another program's rule may have that number now.
        lines += [f"-D {rule} -j ACCEPT"] * len(view.ours.get(bridge, ()))
        if is_wanted:
            lines.append(f"-I {rule} -j ACCEPT")
        text = "\n".join([*lines, "COMMIT", ""])
        return self._run("-restore", ["-w", _WAIT_SECONDS, "--noflush"], text) is not None

    def _run(self, suffix: str, arguments: list[str], given: str = "") -> str | None:
        """Run a tool of this variant; return its output, or None if it failed or is missing."""
        # Some distributions have only the name without the variant.
        for program in (f"{self._command}-{self._variant}{suffix}", f"{self._command}{suffix}"):
            try:
                return _output([program, *arguments], given)
            except FileNotFoundError:
                continue
        return None


def _after(option: str, words: list[str]) -> str:
    """Return the value of an option in a rule as iptables lists it; empty if there is none."""
    return words[words.index(option) + 1] if option in words[:-1] else ""


def _has_legacy_filter(ip: str) -> bool:
    """Whether iptables-legacy has a filter table."""
    try:
        with open(f"/proc/net/{ip}_tables_names", encoding="ascii") as file:
            return "filter" in file.read().split()
    except OSError:
        return False


def _output(argv: list[str], given: str) -> str | None:
    """Return what a program prints; None if it fails. Raises ``FileNotFoundError``."""
    # subprocess is not used: its import takes longer than the command itself. A pipe holds 64
    # KiB before it is read (pipe(7)); the input is always shorter.
    stdin, feed = os.pipe()
    os.write(feed, given.encode())
    os.close(feed)
    output, stdout = os.pipe()
    actions = [
        (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_DUP2, stdout, 1),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    try:
        child = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
    except OSError:
        os.close(output)
        raise
    finally:
        os.close(stdin)
        os.close(stdout)
    with open(output, encoding="utf-8", errors="replace") as file:
        said = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return said if status == 0 else None
