"""The index of the records, kept as empty files.

To look one thing up costs the same however many guests there are.

    ports/tcp/34/2202-2202,0.0.0.0,qemu-UUID   who reserves a port
    bridges/virbr0/qemu-UUID                    who needs the firewall's exception for a bridge
    uuids/UUID/xl-vif1.0                        under which other keys a guest is known

What is in the index of a record follows from the record alone. An entry that its guest's
record does not confirm is what a crash left, and counts for nothing.
"""

from __future__ import annotations

import os
from ipaddress import ip_address

from cgw_hooks.core.claim_index import WIDE, bucket, bucket_numbers
from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.published_port import Claim
from cgw_hooks.host.state.directory import make_safe_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.record import Record


def entries(record: Record | None) -> set[str]:
    """The index entries of a record, as paths."""
    if record is None:
        return set()
    guest, key = record.guest, str(record.key)
    found = {f"bridges/{bridge}/{key}" for bridge in guest.network_bridges if record.translated}
    if guest.uuid and guest.uuid != guest.key.id:
        found.add(f"uuids/{guest.uuid}/{key}")
    found.update(f"{_folder(c)}/{c.start}-{c.end},{c.address},{key}" for c in guest.claims)
    return found


class Index:
    """The index in ``directory``. Hold the node's lock to change it."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.join(directory, "index")

    def add(self, paths: Iterable[str]) -> None:
        """Add entries, also those that are there already."""
        for path in paths:
            place = os.path.join(self.directory, path)
            try:
                os.close(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600))
            except FileNotFoundError:
                make_safe_directory(self.directory)
                os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
                os.close(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove entries, also those that are not there, and folders that are empty then."""
        for path in paths:
            place = os.path.join(self.directory, path)
            try:
                os.unlink(place)
                os.rmdir(os.path.dirname(place))
            except OSError:  # not there, or not empty
                continue

    def forget(self, key: str) -> None:
        """Remove every entry of a key."""
        for folder, _, names in os.walk(self.directory):
            inside = os.path.relpath(folder, self.directory)
            self.remove(f"{inside}/{n}" for n in names if n == key or n.endswith(f",{key}"))

    def replace(self, paths: set[str]) -> None:
        """Make these the entries; only what differs is written."""
        there = set()
        for folder, _, names in os.walk(self.directory, topdown=False):
            inside = os.path.relpath(folder, self.directory)
            for name in names:
                path = os.path.join(inside, name)
                if path in paths:
                    there.add(path)
                else:
                    os.unlink(os.path.join(folder, name))
            try:
                os.rmdir(folder)
            except OSError:  # not empty
                continue
        self.add(paths - there)

    def holders(self, claims: Iterable[Claim]) -> Iterator[tuple[GuestKey, Claim, Claim]]:
        """Who has claims that overlap these: key, its claim, the one of these that it meets."""
        by_folder: dict[str, list[Claim]] = {}
        for claim in claims:
            for folder in self._folders(claim):
                by_folder.setdefault(folder, []).append(claim)
        for folder, wanted in by_folder.items():
            protocol = folder.split("/")[1]
            for name in self._names(folder):
                held, key = _parse(protocol, name)
                if held:
                    for claim in wanted:
                        if held.overlaps(claim):
                            yield key, held, claim

    def keys(self, group: str) -> list[GuestKey]:
        """Whose entries are in a folder of ``bridges`` or ``uuids``."""
        return [GuestKey.parse(name) for name in self._names(group)]

    def _folders(self, claim: Claim) -> Iterator[str]:
        """The folders in which overlapping claims may lie; of a long range, those that exist."""
        protocol = f"ports/{claim.protocol}"
        numbers = bucket_numbers(claim)
        if len(numbers) <= 3:  # noqa: PLR2004  (a claim of at most 64 ports)
            names = [WIDE, *map(str, numbers)]
        else:
            names = [
                n for n in self._names(protocol) if n == WIDE or (n.isdigit() and int(n) in numbers)
            ]
        return (f"{protocol}/{name}" for name in names)

    def _names(self, folder: str) -> list[str]:
        try:
            return os.listdir(os.path.join(self.directory, folder))
        except (FileNotFoundError, NotADirectoryError):
            return []


def _folder(claim: Claim) -> str:
    return f"ports/{claim.protocol}/{bucket(claim)}"


def _parse(protocol: str, name: str) -> tuple[Claim | None, GuestKey]:
    """A file name of ``ports`` as claim and key; no claim where it is not one of ours."""
    try:
        ports, address, key = name.split(",", 2)
        start, _, end = ports.partition("-")
        return Claim(protocol, ip_address(address), int(start), int(end)), GuestKey.parse(key)
    except ValueError:
        return None, GuestKey("", "")
