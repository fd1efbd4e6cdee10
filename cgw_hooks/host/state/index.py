"""The index of the records, kept as empty files.

The cost of a look-up does not depend on the number of guests.

    ports/tcp/34/2202-2202,0.0.0.0,qemu-UUID   who reserves a port
    bridges/virbr0/qemu-UUID                    who needs the firewall's exception for a bridge
    uuids/UUID/xl-vif1.0                        under which other keys a guest is known

The index entries of a record follow only from this record. If a guest's record does not confirm
an entry, a crash has left the entry, and it is ignored.
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

    #: The entries that the index lacks, and those that it should not have: path -> key.
    Faults = tuple[dict[str, GuestKey], dict[str, GuestKey]]


def entries(record: Record | None) -> set[str]:
    """Return the paths of a record's index entries."""
    if record is None:
        return set()
    guest, key = record.guest, str(record.key)
    found = {f"bridges/{bridge}/{key}" for bridge in guest.network_bridges if record.translated}
    if guest.uuid and guest.uuid != guest.key.id:
        found.add(f"uuids/{guest.uuid}/{key}")
    for claim in guest.claims:
        protocol, address, start, end = claim
        found.add(f"ports/{protocol}/{bucket(claim)}/{start}-{end},{address},{key}")
    return found


class Index:
    """The index in ``directory``. Hold the node's lock to change it."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.join(directory, "index")

    def add(self, paths: Iterable[str]) -> None:
        """Add entries; those that exist already stay."""
        for path in paths:
            place = f"{self.directory}/{path}"
            try:
                os.close(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600))
            except FileNotFoundError:
                make_safe_directory(self.directory)
                os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
                os.close(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove entries, if they exist, and folders that are then empty."""
        for path in paths:
            place = os.path.join(self.directory, path)
            try:
                os.unlink(place)
                os.rmdir(os.path.dirname(place))
            except OSError:  # the folder does not exist or is not empty
                continue

    def forget(self, key: str) -> None:
        """Remove every entry of a key."""
        for folder, _, names in os.walk(self.directory):
            inside = os.path.relpath(folder, self.directory)
            self.remove(f"{inside}/{n}" for n in names if n == key or n.endswith(f",{key}"))

    def faults(self, wanted: dict[str, GuestKey]) -> Faults:
        """Compare the index with the only entries that it should have, path -> key."""
        extra, missing = {}, dict(wanted)
        start = len(self.directory) + 1
        for folder, _, names in os.walk(self.directory):
            prefix = f"{folder[start:]}/" if len(folder) > start else ""
            for name in names:
                path = prefix + name
                if missing.pop(path, None) is None:
                    extra[path] = _key_of(path)
        return missing, extra

    def holders(self, claims: Iterable[Claim]) -> Iterator[tuple[GuestKey, Claim, Claim]]:
        """Yield each claim that overlaps one of these: its key, the claim, the one of these."""
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
        """Return the keys in a folder of ``bridges`` or ``uuids``."""
        return [GuestKey.parse(name) for name in self._names(group)]

    def _folders(self, claim: Claim) -> Iterator[str]:
        """Yield the folders that may hold overlapping claims, perhaps missing ones."""
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


def _key_of(path: str) -> GuestKey:
    """Return the key that an entry's path ends with."""
    group, _, rest = path.partition("/")
    name = rest.rpartition("/")[2]
    return GuestKey.parse(name.split(",", 2)[-1] if group == "ports" else name)


def _parse(protocol: str, name: str) -> tuple[Claim | None, GuestKey]:
    """Parse a file name of ``ports`` as claim and key; no claim if cgw did not write it."""
    try:
        ports, address, key = name.split(",", 2)
        start, _, end = ports.partition("-")
        return Claim(protocol, ip_address(address), int(start), int(end)), GuestKey.parse(key)
    except ValueError:
        return None, GuestKey("", "")
