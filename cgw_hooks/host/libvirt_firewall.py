"""Exceptions in libvirt's own firewall, which rejects what comes in to its NAT networks.

An accept of ours cannot override a later base chain's reject, so the exception must stand
in front of libvirt's rules, made with that firewall's own command: iptables beside the
iptables backend (a native nft rule there would make the table "incompatible" for libvirt),
nft beside the nftables backend. It lets in only what was translated (``ct status dnat``), to
one bridge.

The exception is a rule of the chain that jumps to the chains of the networks. libvirt makes
those anew without a hook, whenever it is reloaded or a network is restarted; the jump stays.
Where that chain itself was made anew (``firewall-cmd --reload``, ``iptables -F``), libvirt
puts its jump in front of an exception that is there: so the position counts.

A host can hold the rules of several firewalls: what a former backend of libvirt left, or what
iptables-legacy made. Each of them that really rejects what comes in to a bridge gets the
exception, and no other. Where libvirt's rules are missing, nothing rejects: that is no error,
and to make them is libvirt's task.

To ask changes nothing. Loaded by hook calls of guests on libvirt networks: keep it light.
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
#: libvirt's chains of rules for what comes in to its networks: src/network/network_iptables.c,
#: src/network/network_nftables.c.
_IPTABLES_CHAIN = "LIBVIRT_FWI"
_NFT_TABLE = "libvirt_network"
_NFT_CHAIN = "guest_input"
_WAIT_SECONDS = "5"
#: Somebody else may change the rules between our look and our change.
_ATTEMPTS = 3


class _View(NamedTuple):
    """What one firewall does with packets that are forwarded to a bridge, in one IP family."""

    #: The bridges to which it rejects what comes in.
    rejected: set[str]
    #: Where in the forward chain the jump to those rules stands; None: it is not there.
    jump: int | None
    #: Our exceptions in the forward chain: bridge -> positions, in order.
    ours: dict[str, list[int]]
    #: What deletes the rule at a position.
    handles: dict[int, str]

    def lets_in(self, bridge: str) -> bool:
        """Whether nothing rejects what was translated: the exception comes first, if needed."""
        if self.jump is None or bridge not in self.rejected:
            return True
        return bool(self.ours.get(bridge)) and self.ours[bridge][0] < self.jump

    def is_settled(self, bridge: str) -> bool:
        """Whether there is nothing to mend: neither the position, nor that it is there twice."""
        return self.lets_in(bridge) and len(self.ours.get(bridge, ())) <= 1


class Firewall:
    """The exceptions of this node, by guest bridge; each call may be repeated."""

    def __init__(self, read_nft: Callable[[str], str], apply_nft: Callable[[str], None]) -> None:
        self._read_nft = read_nft
        self._apply_nft = apply_nft

    def admit(self, bridge: str) -> None:
        """Let translated connections in to a bridge, in front of whatever rejects them.

        There is no moment without the exception: it moves in one transaction. Raises
        ``RulesetError`` where a firewall refuses the change.
        """
        for firewall in self._firewalls():
            for _ in range(_ATTEMPTS):
                view = firewall.read()
                if view is None or view.is_settled(bridge):
                    break
                if firewall.replace(view, bridge, is_wanted=True):
                    break
            else:
                message = f"it does not take the exception for bridge {bridge}"
                raise RulesetError("libvirt's firewall", message, "run: cgw sync")

    def dismiss(self, bridge: str) -> None:
        """Take the exception away again, however often it is there.

        One that cannot be taken away is left: it lets nothing in that nobody translates.
        """
        for firewall in self._firewalls():
            for _ in range(_ATTEMPTS):
                view = firewall.read()
                if view is None or not view.ours.get(bridge):
                    break
                if firewall.replace(view, bridge, is_wanted=False):
                    break

    def is_admitted(self, bridge: str) -> bool:
        """Whether translated connections to a bridge come past libvirt's firewall."""
        return not self.not_admitted([bridge])

    def not_admitted(self, bridges: Iterable[str]) -> set[str]:
        """Those of these bridges whose exception is missing, or stands behind a reject.

        Each firewall is read once, however many bridges there are.
        """
        wanted = set(bridges)
        views = [firewall.read() for firewall in self._firewalls()] if wanted else []
        return {bridge for bridge in wanted if any(v and not v.lets_in(bridge) for v in views)}

    def _firewalls(self) -> Iterator[_Iptables | _Nftables]:
        """Those that have the tables in which libvirt's rules can be.

        To ask iptables itself would make a table, where the command is an old one.
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
            if _has_legacy_filter(ip):  # nft does not see these
                yield _Iptables(command, "legacy")


class _Nftables:
    """The tables of libvirt's nftables backend (libvirt 10.4 on)."""

    def __init__(
        self, ip: str, read_nft: Callable[[str], str], apply_nft: Callable[[str], None]
    ) -> None:
        self._table = f"{ip} {_NFT_TABLE}"
        self._read_nft = read_nft
        self._apply_nft = apply_nft

    def read(self) -> _View | None:
        """Read the table; None where it is gone."""
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
            # By its name: after a restart of its network it is another device.
            lines.append(
                f'insert rule {chain} oifname "{bridge}" ct status dnat accept '
                f'comment "{NAME} {bridge}"'
            )
        try:
            self._apply_nft("\n".join(lines) + "\n")
        except RulesetError:  # somebody else has changed the table meanwhile
            return False
        return True


class _Iptables:
    """The filter table of libvirt's iptables backend. ``variant``: "nft" or "legacy"."""

    def __init__(self, command: str, variant: str) -> None:
        self._command = command
        self._variant = variant

    def read(self) -> _View | None:
        """Read the table; None where it is gone, or not one of iptables."""
        listing = self._run("", ["-w", _WAIT_SECONDS, "-S"])
        if listing is None:
            return None
        view, position = _View(set(), None, {}, {}), 0
        for line in listing.splitlines():
            words = line.split()
            if words[:2] == ["-A", _IPTABLES_CHAIN]:
                if _after("-j", words) == "REJECT":
                    view.rejected.add(_after("-o", words))
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
        # Not by number: somebody else's rule may have that by now.
        lines += [f"-D {rule} -j ACCEPT"] * len(view.ours.get(bridge, ()))
        if is_wanted:
            lines.append(f"-I {rule} -j ACCEPT")
        text = "\n".join([*lines, "COMMIT", ""])
        return self._run("-restore", ["-w", _WAIT_SECONDS, "--noflush"], text) is not None

    def _run(self, suffix: str, arguments: list[str], given: str = "") -> str | None:
        """Run a tool of this variant: what it said; None where it failed or is not there."""
        # Not every distribution has the variant's own name beside the plain one.
        for program in (f"{self._command}-{self._variant}{suffix}", f"{self._command}{suffix}"):
            try:
                return _output([program, *arguments], given)
            except FileNotFoundError:
                continue
        return None


def _after(option: str, words: list[str]) -> str:
    """The value of an option in a rule as iptables lists it; empty where it has none."""
    return words[words.index(option) + 1] if option in words[:-1] else ""


def _has_legacy_filter(ip: str) -> bool:
    """Whether iptables-legacy has a filter table."""
    try:
        with open(f"/proc/net/{ip}_tables_names", encoding="ascii") as file:
            return "filter" in file.read().split()
    except OSError:
        return False


def _output(argv: list[str], given: str) -> str | None:
    """What a program prints; None where it fails. Raises ``FileNotFoundError``."""
    # Not subprocess: its import costs more than the command itself. A pipe takes 64 KiB before
    # anybody reads it (pipe(7)): more than is ever given here.
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
