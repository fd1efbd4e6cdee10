"""Shows the nft transaction that would publish or release a guest. Changes nothing."""

from __future__ import annotations

import time

from cgw_hooks.core.record import Contents, contents, published
from cgw_hooks.core.rules import table
from cgw_hooks.node import ports, ruleset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.node.publisher import Publisher


def transaction(publisher: Publisher, key: GuestKey, guest: Guest | None) -> str:
    """Return the text for ``nft -f`` with which `Publisher` would publish a guest.

    ``guest`` None means that the guest is released. Empty if no rule would change.
    """
    config, state = publisher.config, publisher.state
    records, _ = state.all()
    old = records.get(key)
    after = dict(records)
    remotes = [records[other] for other in (old.overrides if old else ()) if other in records]
    if guest:
        found = ports.refuse_conflict(state, guest).remotes
        record = published(guest, old, time.time())._replace(overrides=ports.keys_of(found))
        after[key] = ports.withhold(record, ports.node_listeners([guest]))
        remotes = list({other.key: other for other in (*remotes, *found)}.values())
    else:
        after.pop(key, None)
    tables = ruleset.read_tables(publisher.nft, config)
    was, should_be = contents(list(records.values())), contents(list(after.values()))
    if ruleset.compare(config, was or should_be, tables).rules:
        return table.restore(config, should_be)
    before, new = Contents.of(old, remotes), Contents.of(after.get(key), remotes)
    return table.change(config, before, new) if before or new else ""
