"""Keeps the ruleset at what the file of the bans says, and the file at what commands decide.

A lock of its own keeps two commands from losing each other's change; no hook waits for it. What a
killed command has not done, the next one does, or `mend`.
"""

from __future__ import annotations

import os
import sys
import time

from cgw_hooks.core import bans
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.rules import bans as rules
from cgw_hooks.core.rules.commands import remove
from cgw_hooks.errors import CgwError, RecordError, RulesetError
from cgw_hooks.host import nft_elements, nft_tables, paths
from cgw_hooks.host.state import ban_file
from cgw_hooks.host.state.lock import LONG_WAIT, WAIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from cgw_hooks.core.bans import Bans, Denied
    from cgw_hooks.host.nft import Nft

_SYNC = "run: cgw sync"
#: To change a client takes three commands of nft, to write the whole table one for all clients.
_CHANGED_SINGLY = 1000
#: Seconds around its end when an element may be there, or be gone: its time has whole seconds.
_GRACE = 2.0


def read() -> Bans:
    """Return the bans whose time has not passed. Raises ``RecordError``."""
    with _DamagedFile():
        return bans.unexpired(_read(), time.time())


def mend(nft: Nft, directory: str) -> list[str]:
    """Make the ruleset deny what the file says; return what was wrong, in words.

    ``directory`` is the runtime directory, which has the lock. Raises ``RecordError``,
    ``RulesetError``. A file that cannot be read changes nothing.
    """
    if not _has_file() and not _has_table():
        return []
    with ban_file.locked(directory, WAIT), _DamagedFile():
        return _mend(nft)


def problems(*, thoroughly: bool = False) -> Iterator[Problem]:
    """Yield why bans do not hold.

    ``thoroughly`` compares each element: 0.3 s for 100,000.
    """
    wrong = ""
    try:
        with _DamagedFile():
            if _has_file():
                wrong = _wrong(_read(), thoroughly=thoroughly)
    except CgwError as error:
        yield Problem.of(error)
    else:
        if wrong:
            yield Problem("bans", rules.TABLE, f"{wrong}: denied clients can connect", _SYNC)


def change(
    nft: Nft, directory: str, decide: Callable[[Bans], tuple[Bans, Collection[tuple[str, str]]]]
) -> tuple[Bans, dict[str, int | None]]:
    """Change the file, then the ruleset.

    ``decide`` returns all bans as they should be, and the keys of those that it has changed; if
    there are none, nothing is written. Returns all bans, and until when each client of a changed
    one is denied now. Raises ``RecordError``, ``RulesetError``.
    """
    with ban_file.locked(directory, LONG_WAIT), _DamagedFile():
        now = time.time()
        after, keys = decide(bans.unexpired(_read(), now))
        clients = {client for client, _ in keys}
        denied = bans.denied(after, clients)
        touched = {client: denied.get(client) for client in clients}
        if touched:
            ban_file.write(paths.state_directory(), bans.to_text(after) if after else "")
            _write_ruleset(nft, after, touched, now)
    return after, touched


def _write_ruleset(nft: Nft, after: Bans, touched: dict[str, int | None], now: float) -> None:
    if not after:
        nft.apply(remove(rules.TABLE))
        return
    networks = [client for client in touched if "/" in client]
    if len(touched) - len(networks) <= _CHANGED_SINGLY:
        addresses = {c: until for c, until in touched.items() if "/" not in c}
        versions = {6 if ":" in network else 4 for network in networks}
        of_networks = bans.denied({key: u for key, u in after.items() if "/" in key[0]})
        segments = {version: bans.segments(of_networks, version) for version in versions}
        try:
            nft.apply(rules.change(addresses, segments, now))
        except RulesetError:  # there is no table, or it is that of another version
            pass
        else:
            return
    _restore(nft, bans.denied(after), now)


def _mend(nft: Nft) -> list[str]:
    whole, now = _read(), time.time()
    if not bans.unexpired(whole, now):
        if _has_table():
            nft.apply(remove(rules.TABLE))
        return []
    wrong = _wrong(whole, thoroughly=True)
    if wrong:
        _restore(nft, bans.denied(bans.unexpired(whole, now)), now)
    return [wrong] if wrong else []


def _restore(nft: Nft, denied: Denied, now: float) -> None:
    text = rules.restore(denied, now)
    try:
        nft.apply(text)
    except RulesetError:  # another version's objects have other types
        nft.apply(remove(rules.TABLE) + text)


def _wrong(whole: Bans, *, thoroughly: bool) -> str:
    """Return how the ruleset differs from the bans, in words; empty if it does not."""
    if not bans.unexpired(whole, time.time()):
        return ""
    try:
        if not _has_table():
            return f"table {rules.TABLE} is not there"
        if not _has_rules():
            return f"table {rules.TABLE} does not have its rules"
        missing = _missing(whole) if thoroughly else 0
    except OSError as error:
        return f"table {rules.TABLE} cannot be listed ({error.strerror})"
    return f"table {rules.TABLE}: {missing} elements differ" if missing else ""


def _has_rules() -> bool:
    checksum = rules.revision().to_bytes(4, sys.byteorder)
    return nft_elements.rule_counts(
        rules.TABLE
    ) == rules.rule_counts() and checksum in nft_elements.keys(rules.TABLE, "revision")


def _missing(whole: Bans) -> int:
    """Return how many elements the kernel lacks or has besides, without those that expire now."""
    now = time.time()
    denied, soon = bans.denied(bans.unexpired(whole, now - _GRACE)), now + _GRACE
    count = 0
    for version in (4, 6):
        wanted = {a.packed: until for a, until in bans.singles(denied, version).items()}
        found = nft_elements.keys(rules.TABLE, f"denied{version}")
        late = {key for key in wanted.keys() - found if _is_later(wanted[key], soon)}
        count += len(late) + len(found - wanted.keys())
        networks = {s.first.packed: s.until for s in bans.segments(denied, version)}
        found = nft_elements.keys(rules.TABLE, f"denied_networks{version}")
        count += sum(_is_later(networks[key], soon) for key in networks.keys() - found)
        count += len(found - networks.keys())
    return count


def _is_later(until: int, moment: float) -> bool:
    return until == bans.NO_END or until > moment


class _DamagedFile:
    """Makes a ``RecordError`` of a ``ValueError``: the file has what cgw has not written."""

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, ValueError):
            raise RecordError(_path(), str(error), ban_file.CURE.format(_path())) from error


def _read() -> Bans:
    text = ban_file.read(paths.state_directory())
    return bans.from_text(text) if text else {}


def _path() -> str:
    return os.path.join(paths.state_directory(), ban_file.NAME)


def _has_file() -> bool:
    return os.path.lexists(_path())


def _has_table() -> bool:
    try:
        return rules.TABLE in nft_tables.table_names()
    except OSError as error:
        raise RulesetError("nftables", f"the kernel lists no tables: {error}") from error
