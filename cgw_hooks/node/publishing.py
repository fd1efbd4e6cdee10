"""`cgw publish` and `cgw unpublish`: changes a guest's annotation and makes this node match it.

The order is: check everything, write the annotation, publish. If a later step fails, the former
annotation is restored. A guest may start or stop at the same time: its hooks read what is written
by then, and `match` looks again until nothing changes. libvirt is never asked under the node's
lock; another lock keeps two commands from editing at the same time.
"""

from __future__ import annotations

import time

from cgw_hooks.core import annotation_edit
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse.port_spec import FreePort
from cgw_hooks.core.port_change import Edit, Outcome
from cgw_hooks.core.record import State
from cgw_hooks.errors import (
    CgwError,
    HypervisorError,
    InvalidAnnotation,
    NotFound,
    PortConflict,
    RecordError,
    quoted,
)
from cgw_hooks.node import free_ports, ports, preview
from cgw_hooks.node.match import match

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cgw_hooks.core.annotation import PortForward
    from cgw_hooks.core.guest import Guest, GuestKey
    from cgw_hooks.core.parse.port_spec import ListenPorts
    from cgw_hooks.core.port_change import Wish
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.node.annotation_store import Store
    from cgw_hooks.node.publisher import Publisher

    #: The annotations of a guest's places -> the new ones.
    Editor = Callable[[list[str | None]], list[str | None]]
    #: Asks the registry to admit a guest's ports; returns why it has not answered, or None.
    Confirm = Callable[[GuestKey], CgwError | None]

_ATTEMPTS = 5


class _Job(NamedTuple):
    """What a command does to a guest."""

    edit: Editor
    #: The port forwards to add.
    news: list[PortForward] = []  # noqa: RUF012  (never changed)
    #: The ports to remove; empty means all, None that this command adds ports.
    unwanted: Sequence[ListenPorts] | None = None
    confirm: Confirm = lambda _key: None


def publish(
    publisher: Publisher,
    store: Store,
    wish: Wish,
    confirm: Confirm = lambda _key: None,
    *,
    dry_run: bool = False,
) -> Outcome:
    """Publish ports of a guest. Raises ``CgwError``; then nothing has changed."""
    for _ in range(_ATTEMPTS if any(isinstance(p, FreePort) for p in wish.ports) else 1):
        job = _adding(publisher, store.name, wish)._replace(confirm=confirm)
        try:
            done = _carry_out(publisher, store, job, dry_run=dry_run)
        except PortConflict as error:  # another guest has just taken the picked port
            conflict = error
            continue
        wishes = zip(job.news, wish.ports, strict=True)
        chosen = [forward for forward, port in wishes if isinstance(port, FreePort)]
        return done._replace(picked=_ports_of(done.guest, chosen))
    raise conflict


def _adding(publisher: Publisher, name: str, wish: Wish) -> _Job:
    now = time.time()
    until = None if wish.seconds is None else int(now) + wish.seconds
    forwards = [
        forward._replace(sources=wish.sources, until=until, limits=forward.limits or wish.limits)
        for forward in free_ports.pick(publisher, wish.ports)
    ]

    def edit(texts: list[str | None]) -> list[str | None]:
        addresses = wish.guest_addresses
        return [annotation_edit.add(name, text, forwards, now, addresses) for text in texts]

    return _Job(edit, forwards)


def unpublish(
    publisher: Publisher, store: Store, unwanted: Sequence[ListenPorts], *, dry_run: bool = False
) -> Outcome:
    """Withdraw ports of a guest, all if ``unwanted`` is empty, and end their flows.

    Raises ``NotFound`` if one of them is not published, or another ``CgwError``; then nothing has
    changed.
    """
    name, who = store.name, f"guest {quoted(store.name)}"

    def edit(texts: list[str | None]) -> list[str | None]:
        if all(text is None for text in texts):
            raise NotFound(who, "it publishes nothing")
        if not unwanted:
            return [None] * len(texts)
        found = [
            annotation_edit.remove(name, text, unwanted) if text else (text, list(unwanted))
            for text in texts
        ]
        for wanted in unwanted:
            if all(wanted in missing for _, missing in found):
                raise NotFound(who, f"it does not publish {wanted}", f"see: cgw check {name}")
        return [text for text, _ in found]

    return _carry_out(publisher, store, _Job(edit, unwanted=unwanted), dry_run=dry_run)


def _carry_out(publisher: Publisher, store: Store, job: _Job, *, dry_run: bool) -> Outcome:
    if dry_run:
        texts = {place: store.read(place) for place in store.places()}
        return _dry(publisher, store, _plan(publisher, store, job, texts))
    with publisher.state.editing():
        return _change(publisher, store, job)


def _change(publisher: Publisher, store: Store, job: _Job) -> Outcome:
    former: dict[str, str | None] = {}
    try:
        for _ in range(_ATTEMPTS):
            places = store.places()
            try:
                # If this is not the first attempt, the texts there are perhaps the new ones.
                texts = [former[p] if p in former else store.read(p) for p in places]
                plan = _plan(publisher, store, job, dict(zip(places, texts, strict=True)))
                _write(store, plan.edits, former)
            except HypervisorError:
                if store.places() == places:
                    raise
                continue  # the guest has started or stopped meanwhile
            if store.places() == places:
                return _matched(publisher, store, plan, job)
        raise RecordError(
            f"guest {quoted(store.name)}", "it kept starting and stopping", "try again"
        )
    except CgwError as error:
        if not former:
            raise
        raise _restored(publisher, store, former, error) from error


def _plan(
    publisher: Publisher, store: Store, job: _Job, texts: Mapping[str, str | None]
) -> Outcome:
    """Compute the new annotations, and check what they publish by the rules of the hook."""
    after = job.edit([*texts.values()])
    edits = [Edit(*edit) for edit in zip(texts, texts.values(), after, strict=True)]
    guest = None
    for edit in edits:
        try:
            guest = store.guest(edit.place, edit.after)
        except InvalidAnnotation:
            if job.unwanted is None:
                raise
            continue  # what is left is refused for another reason; that must not keep a port open
        if guest and job.news:
            ports.refuse_conflict(publisher.state, guest)
            news = guest._replace(ports=tuple(_ports_of(guest, job.news)))
            ports.refuse_taken(news, ports.node_listeners([news]))
    return Outcome(store.name, guest, _ports_of(guest, job.news), [], False, edits)


def _dry(publisher: Publisher, store: Store, plan: Outcome) -> Outcome:
    if not any(store.runs_by(edit.place) for edit in plan.edits) or not store.look().is_running:
        return plan
    text = preview.transaction(publisher, store.key, plan.guest)
    return plan._replace(is_running=True, ruleset=text)


def _write(store: Store, edits: Iterable[Edit], former: dict[str, str | None]) -> None:
    """Write the annotations that differ, and note the former ones."""
    for place, before, after in edits:
        if before != after:
            former.setdefault(place, before)
            store.write(place, after)


def _matched(publisher: Publisher, store: Store, plan: Outcome, job: _Job) -> Outcome:
    """Make the node match what was written."""
    if not any(store.runs_by(edit.place) for edit in plan.edits):
        return plan  # the guest does not run, or only its next start was changed
    try:
        seen, record = match(publisher, store.key, store.look)
    except (InvalidAnnotation, PortConflict):
        if job.unwanted is None:
            raise
        _narrow(publisher, store, job.unwanted)
        return plan
    if not seen.is_running:
        return plan
    published = _ports_of(seen.guest, job.news)
    for port in published:
        if record and port in record.withheld:
            lost = ports.lost(publisher.state, record.guest).get(port)
            raise (
                ports.taken_by_guest(record.guest, lost[1], lost[0])
                if lost
                else ports.taken_by_node(record.guest, port.claim)
            )
    unconfirmed = job.confirm(store.key) if job.news else None
    is_open = not seen.is_arriving  # otherwise its hooks are still to come
    return plan._replace(
        guest=seen.guest, ports=published, is_running=is_open, unconfirmed=unconfirmed
    )


def _narrow(publisher: Publisher, store: Store, unwanted: Sequence[ListenPorts]) -> None:
    """Withdraw these ports (all if there is none) of a guest whose other ports are refused."""
    record = publisher.state.peek(store.key)
    if not record or record.state is not State.PUBLISHED:
        return
    left = [
        port
        for port in record.guest.ports
        if unwanted and not any(wanted.has_part_of(port.claim) for wanted in unwanted)
    ]
    publisher.publish(record.guest._replace(ports=tuple(left)))


def _restored(
    publisher: Publisher, store: Store, former: dict[str, str | None], error: CgwError
) -> CgwError:
    """Write the former annotations again; return the error, and whether that succeeded."""
    note = "the former annotation was restored"
    for place, text in reversed(former.items()):
        try:
            if place in store.places():
                store.write(place, text)
        except NotFound:  # the guest has stopped, or a transient one is gone
            continue
        except CgwError as second:
            note = f"the former annotation could not be restored ({second.message})"
    cures = [error.cure] if error.cure else []
    try:
        match(publisher, store.key, store.look)
    except CgwError:
        cures = list(dict.fromkeys([*cures, "run: cgw sync"]))
    return type(error)(error.subject, f"{error.message} ({note})", "; ".join(cures))


def _ports_of(guest: Guest | None, forwards: Iterable[PortForward]) -> list[PublishedPort]:
    """Return the guest's ports that these port forwards ask for."""
    return [
        port
        for forward in forwards
        for port in (guest.ports if guest else ())
        if (port.protocol, port.start, port.end) == (forward.protocol, forward.start, forward.end)
        and forward.listen_address in {None, port.listen_address}
    ]
