"""What the cluster's registry says, as this node has heard it. This does no I/O."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.registry_value import Presence, presence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from cgw_hooks.core.registry_value import Keys

    #: Key, value (None: it was deleted), and the revisions of its creation and last change.
    Change = tuple[str, str | None, int, int]


#: The revision of an entry that etcd has lost: lower than that of any change.
_KEPT = 0


class Entry(NamedTuple):
    """What one node publishes of a guest; ``value`` is JSON (see ``registry_value.guest``)."""

    node: str
    value: str
    created: int
    modified: int


class View:
    """The registry's keys. ``node`` is this node's name."""

    def __init__(self, keys: Keys, node: str) -> None:
        self.keys = keys
        self.node = node
        #: All changes up to this revision are in the view.
        self.revision = 0
        #: The id of the etcd cluster; empty if it is not known.
        self.cluster = ""
        #: The revision of the last change that added ports.
        self.serial = 0
        #: The nodes that are there.
        self.nodes: dict[str, Presence] = {}
        #: Keys that this version of cgw does not know.
        self.unknown: set[str] = set()
        self._guests: dict[str, dict[str, Entry]] = {}
        #: By what the return paths know each node (see ``registry_value.addresses``).
        self._addresses: dict[str, Entry] = {}
        #: Keys that this node has deleted, and when; older events of them may still come.
        self._deleted: dict[str, int] = {}

    def replace(self, revision: int, changes: Iterable[Change], cluster: str = "") -> set[str]:
        """Replace everything. Return the uuids of the guests that differ.

        If the revision has gone back, or ``cluster`` is the id of another one, etcd has lost its
        data: they are empty, or come from a backup. The nodes that run then write again what is
        missing of theirs. Until ``forget_kept``, what was there before stays.
        """
        before, self._guests = self._guests, {}
        addresses, self._addresses = self._addresses, {}
        is_lost = revision < self.revision or (self.cluster not in {"", cluster} and cluster != "")
        self.nodes, self.unknown, self.serial, self._deleted = {}, set(), 0, {}
        self.apply(revision, changes)
        self.revision, self.cluster = revision, cluster
        if is_lost:
            self._keep(before)
            for node in addresses.keys() - self._addresses.keys() - {self.node}:
                self._addresses[node] = addresses[node]._replace(modified=_KEPT)
        uuids = before.keys() | self._guests.keys()
        return {uuid for uuid in uuids if before.get(uuid) != self._guests.get(uuid)}

    def _keep(self, before: dict[str, dict[str, Entry]]) -> None:
        """Keep the other nodes' entries that are missing now. Any change replaces them."""
        for uuid, entries in before.items():
            for node, entry in entries.items():
                if node != self.node and node not in self._guests.get(uuid, {}):
                    kept = entry._replace(created=_KEPT, modified=_KEPT)
                    self._guests.setdefault(uuid, {})[node] = kept

    @property
    def has_kept(self) -> bool:
        """Whether there are entries that etcd has lost."""
        found = (*self._guests.values(), self._addresses)
        return any(e.modified == _KEPT for entries in found for e in entries.values())

    def forget_kept(self) -> set[str]:
        """Delete the entries that etcd has lost. Return the uuids of their guests."""
        kept = [
            (uuid, node)
            for uuid, entries in self._guests.items()
            for node, entry in entries.items()
            if entry.modified == _KEPT
        ]
        for uuid, node in kept:
            self._remove(uuid, node)
        for node in [node for node, e in self._addresses.items() if e.modified == _KEPT]:
            del self._addresses[node]
        return {uuid for uuid, _ in kept}

    def apply(self, revision: int, changes: Iterable[Change]) -> set[str]:
        """Add changes. Return the uuids of the guests that differ.

        ``revision`` is lower than that of a change which this node itself has made, and whose event
        is still to come.
        """
        changed = set()
        for key, value, created, modified in changes:
            place, addressed = self.keys.guest_of(key), self.keys.addressed_node(key)
            if (place or addressed) and self._is_overtaken(key, value, modified, revision):
                continue
            if place:
                if self._apply(*place, value, created, modified):
                    changed.add(place[0])
            elif addressed:
                _change(self._addresses, addressed, value, created, modified)
            elif key == self.keys.serial:
                self.serial = max(self.serial, modified)
            elif node := self.keys.node_of(key):
                self.nodes.pop(node, None)
                if value is not None:
                    self.nodes[node] = presence(node, value)
            elif self._is_unknown(key):
                (self.unknown.discard if value is None else self.unknown.add)(key)
        self.revision = max(self.revision, revision)
        return changed

    def replace_guest(self, uuid: str, changes: Iterable[Change]) -> bool:
        """Replace all entries of one guest; return whether they differ."""
        before = self._guests.pop(uuid, {})
        self.apply(self.revision, changes)
        return before != self._guests.get(uuid, {})

    def _is_overtaken(self, key: str, value: str | None, modified: int, revision: int) -> bool:
        """Whether this node has deleted the key since this change; note that it deletes it now."""
        if value is None and modified > revision:
            self._deleted[key] = modified
            return False
        if modified < self._deleted.get(key, 0):
            return True
        self._deleted.pop(key, None)
        return False

    def _is_unknown(self, key: str) -> bool:
        """Whether no node of this version writes a key. Other kinds of keys may be added to it."""
        strict = (self.keys.guests, self.keys.addresses)
        return key.startswith(strict) or not key.startswith(self.keys.all)

    def _apply(self, uuid: str, node: str, value: str | None, created: int, modified: int) -> bool:
        entries = self._guests.setdefault(uuid, {})
        is_changed = _change(entries, node, value, created, modified)
        if not entries:
            del self._guests[uuid]
        return is_changed

    def _remove(self, uuid: str, node: str) -> None:
        self._guests[uuid].pop(node, None)
        if not self._guests[uuid]:
            del self._guests[uuid]

    def uuids(self) -> Collection[str]:
        """Return the uuids of all guests."""
        return self._guests.keys()

    def entries(self, uuid: str) -> list[Entry]:
        """Return what each node publishes of a guest, the newest first."""
        found = self._guests.get(uuid, {}).values()
        return sorted(found, key=lambda entry: entry.modified, reverse=True)

    def created(self, uuid: str) -> int:
        """Return the revision at which the guest's oldest entry was made."""
        return min(entry.created for entry in self._guests[uuid].values())

    def own(self, uuid: str) -> Entry | None:
        """Return what this node publishes of a guest, as far as the registry has confirmed it."""
        return self._guests.get(uuid, {}).get(self.node)

    def uuids_of(self, node: str) -> list[str]:
        """Return the uuids of the guests that have an entry of a node."""
        return [uuid for uuid, entries in self._guests.items() if node in entries]

    def remote(self, uuid: str) -> Entry | None:
        """Return what another node publishes of a guest: the newest entry counts."""
        return next((e for e in self.entries(uuid) if e.node != self.node), None)

    def nodes_gone(self, uuid: str) -> list[str]:
        """Return the other nodes that have an entry of a guest but are not there any more."""
        return [
            entry.node
            for entry in self.entries(uuid)
            if entry.node != self.node and entry.node not in self.nodes
        ]

    def addresses(self) -> list[Entry]:
        """Return the entry with the addresses of each node: the oldest first, kept ones last."""
        found = self._addresses.values()
        return sorted(found, key=lambda e: (e.modified == _KEPT, e.created, e.node))

    def own_addresses(self) -> str:
        """Return what the registry says of this node's addresses; empty if nothing."""
        own = self._addresses.get(self.node)
        return own.value if own else ""

    def all(self) -> Iterator[tuple[str, str, int, int]]:
        """Yield the keys that have no lease but the serial, with value and revisions."""
        for uuid, entries in self._guests.items():
            for node, entry in entries.items():
                yield self.keys.guest(uuid, node), entry.value, entry.created, entry.modified
        for node, entry in self._addresses.items():
            yield self.keys.addresses + node, entry.value, entry.created, entry.modified


def _change(
    entries: dict[str, Entry], node: str, value: str | None, created: int, modified: int
) -> bool:
    """Change the entry of a node; return whether it has changed."""
    old = entries.get(node)
    if old and old.modified >= modified:
        return False  # this node's own change is in the view before its event comes
    if value is None:
        entries.pop(node, None)
        return old is not None
    if old and old.modified != _KEPT:
        created = min(created, old.created)
    entries[node] = Entry(node, value, created, modified)
    return True
