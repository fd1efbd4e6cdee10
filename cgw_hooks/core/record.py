"""What the node remembers about a guest, and its JSON.

A guest's record holds what was done for the guest, so that exactly this can be undone, even if
the guest's definition has changed since.
"""

from __future__ import annotations

from cgw_hooks.core import json_text
from cgw_hooks.core.enumeration import Enum
from cgw_hooks.core.guest import REGISTRY, Guest, GuestKey, Interface
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse import fields
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.published_port import MAX_PORT, MIN_PORT, Claim, PublishedPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import Any

_VERSION = 2
#: Of a record with limits for clients: an older cgw must not ignore them.
_VERSION_WITH_LIMITS = 3


class State(Enum):
    """How far the guest's ports are published."""

    #: The listening ports are reserved; the guest has not started yet.
    RESERVED = "reserved"
    PUBLISHED = "published"
    #: The ports are withdrawn; libvirt's release, which says why the guest stopped, is still to
    #: come.
    STOPPED = "stopped"
    #: The same guest, migrated to this same host, has taken over the ports under its new key.
    SUPERSEDED = "superseded"


class Record(NamedTuple):
    """One guest, the state of its ports, its problem, and more.

    ``since`` is the time of the last change of state, in seconds since 1970 (UTC).
    """

    guest: Guest
    state: State
    since: float
    problem: Problem | None = None
    #: The remote guests that are the same guest. They are overridden as long as this guest's
    #: ports are translated.
    overrides: tuple[GuestKey, ...] = ()
    #: Ports that are being withdrawn: after a crash, their elements and flows may still exist.
    leaving: tuple[PublishedPort, ...] = ()
    #: Ports that are not published, since a listener of the node uses them.
    withheld: tuple[PublishedPort, ...] = ()
    #: Differs if a later definition's metadata differs (`domain_scan.digest`).
    digest: str = ""
    #: Of a guest of the registry: it has migrated from this node, and the registry does not name
    #: its new node yet.
    has_moved: bool = False

    @property
    def key(self) -> GuestKey:
        """The guest's key."""
        return self.guest.key

    @property
    def until(self) -> int | None:
        """The earliest end of a port's time, in seconds since 1970; None if no port has one."""
        return self.guest.until

    @property
    def translated(self) -> tuple[PublishedPort, ...]:
        """The ports that must have elements in the ruleset: none until the address is known."""
        if self.state is not State.PUBLISHED:
            return ()
        withheld = self.withheld
        return tuple([p for p in self.guest.ports if p.target_address and p not in withheld])

    @property
    def is_current(self) -> bool:
        """Whether this is the guest's present record. A superseded one only reserves ports."""
        return self.state is not State.SUPERSEDED

    @property
    def may_have_elements(self) -> bool:
        """Whether the ruleset may have elements that only this record tells of."""
        return self.is_current and bool(self.translated or self.leaving)


class Contents(NamedTuple):
    """What the ruleset holds besides its static rules."""

    #: The ports that are translated.
    ports: Collection[PublishedPort] = ()
    #: Those ports of ``ports`` whose guests run on this node.
    hosted: Collection[PublishedPort] = ()

    @classmethod
    def of(cls, record: Record | None, remotes: Iterable[Record] = ()) -> Contents:
        """Return what a record stands for, and the remote guests that it does not override.

        That includes the ports that a crash may have left.
        """
        own = perhaps_translated(record)
        is_remote = record is not None and record.guest.is_remote
        return cls([*own, *visible(remotes, record)], () if is_remote else own)

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.ports or self.hosted)


def contents(records: Collection[Record]) -> Contents:
    """Return what the ruleset must hold for all records of this node."""
    hosted = [p for record in records if not record.guest.is_remote for p in record.translated]
    return Contents(translated(records), hosted)


def published(guest: Guest, old: Record | None, now: float) -> Record:
    """Return the record of a published guest; an unchanged one keeps the old record's ``since``."""
    guest = guest.unexpired(now)
    unchanged = old and old.state is State.PUBLISHED and old.guest == guest
    since = old.since if old and unchanged else now
    return Record(
        guest, State.PUBLISHED, since,
        overrides=old.overrides if old else (),
        digest=old.digest if old else "",
    )  # fmt: skip


def last_published(
    key: GuestKey, own: Record | None, look_up: Callable[[GuestKey], Record | None]
) -> Record | None:
    """Return a guest's own record if it is published, else what the registry says of the guest.

    A guest that migrates to this node still has the addresses that its former node has found.
    """
    if own and own.state is State.PUBLISHED:
        return own
    return look_up(GuestKey(REGISTRY, key.id))


def unexpired(record: Record, now: float) -> Record:
    """Return the record without the ports whose time has passed at ``now``."""
    guest = record.guest.unexpired(now)
    if guest is record.guest:
        return record
    withheld = tuple(port for port in record.withheld if port in guest.ports)
    problem = record.problem if withheld or not record.withheld else None
    return record._replace(guest=guest, withheld=withheld, problem=problem)


def overridden(records: Iterable[Record]) -> set[GuestKey]:
    """Return the keys of the remote guests that a guest of this node overrides now."""
    return {key for record in records if record.translated for key in record.overrides}


def translated(records: Collection[Record]) -> list[PublishedPort]:
    """Return all ports that must have elements in the ruleset."""
    hidden = overridden(records)
    return [port for record in records if record.key not in hidden for port in record.translated]


def perhaps_translated(record: Record | None) -> tuple[PublishedPort, ...]:
    """Return the ports that may have elements, including those that a crash may have left."""
    return (*record.translated, *record.leaving) if record else ()


def visible(remotes: Iterable[Record], record: Record | None) -> list[PublishedPort]:
    """Return the ports of the remote guests that this record does not override."""
    hidden = set(record.overrides) if record and record.translated else set()
    return [port for remote in remotes if remote.key not in hidden for port in remote.translated]


def to_json(record: Record) -> str:
    """Return the record as its file holds it."""
    guest = record.guest
    has_limits = any(p.limits for p in (*guest.ports, *record.leaving, *record.withheld))
    return json_text.dumps(
        {
            "version": _VERSION_WITH_LIMITS if has_limits else _VERSION,
            "driver": guest.key.driver,
            "id": guest.key.id,
            "name": guest.name,
            "uuid": guest.uuid,
            "state": record.state.value,
            "since": record.since,
            "problem": record.problem,
            "overrides": [str(key) for key in record.overrides],
            "network_bridges": guest.network_bridges,
            "device": guest.device,
            "leased": [[i.mac, i.network, i.bridge] for i in guest.leased],
            "ports": [port_to_list(port) for port in guest.ports],
            "leaving": [port_to_list(port) for port in record.leaving],
            "withheld": [port_to_list(port) for port in record.withheld],
            "digest": record.digest,
            **_limits_to_json(guest),
            **({"moved": True} if record.has_moved else {}),
        }
    )


def from_json(text: str) -> Record:
    """Read what ``to_json`` wrote. Raises ``ValueError`` for anything else."""
    try:
        data = json_text.loads(text)
        if data["version"] not in {_VERSION, _VERSION_WITH_LIMITS}:
            raise ValueError(f"it is of version {data['version']}, not {_VERSION}")
        guest = Guest(
            key=GuestKey(str(data["driver"]), str(data["id"])),
            name=str(data["name"]),
            ports=_ports(data["ports"]),
            uuid=str(data["uuid"]),
            network_bridges=tuple(fields.parse_interface_name(b) for b in data["network_bridges"]),
            device=str(data["device"]),
            leased=tuple(
                Interface(mac, network, bridge) for mac, network, bridge in data["leased"]
            ),
            limits=tuple(_limit_from_list(*limit) for limit in data.get("limits", ())),
        )
        return Record(
            guest,
            State(data["state"]),
            float(data["since"]),
            Problem(*map(str, data["problem"])) if data["problem"] else None,
            tuple(GuestKey.parse(key) for key in data["overrides"]),
            _ports(data["leaving"]),
            _ports(data["withheld"]),
            str(data["digest"]),
            bool(data.get("moved", False)),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is not a record: {error!r}") from error


def port_to_list(port: PublishedPort) -> list[Any]:
    """Return a port as JSON holds it; limits for clients come last, if there are any."""
    target = str(port.target_address) if port.target_address else None
    return [
        port.protocol,
        str(port.listen_address),
        port.start,
        port.end,
        port.to,
        target,
        [str(network) for network in port.sources],
        *([port.limits.texts] if port.limits else ()),
    ]


def _limits_to_json(guest: Guest) -> dict[str, Any]:
    """Return the member for ports with a limited time; nothing if there is none."""
    limits = [[c.protocol, str(c.address), c.start, c.end, end] for c, end in guest.limits]
    return {"limits": limits} if limits else {}


def _limit_from_list(
    protocol: str, address: str, start: int, end: int, until: int
) -> tuple[Claim, int]:
    return Claim(protocol, fields.parse_address(address), int(start), int(end)), int(until)


def _ports(listed: list[list[Any]]) -> tuple[PublishedPort, ...]:
    return tuple(port_from_list(*port) for port in listed)


def port_from_list(  # noqa: PLR0913, PLR0917  (the fields of a published port)
    protocol: Any,
    listen: Any,
    start: Any,
    end: Any,
    to: Any,
    target: Any,
    sources: Any,
    limits: Any = None,
) -> PublishedPort:
    """Read what ``port_to_list`` wrote. Raises ``ValueError``, or ``TypeError`` for other types."""
    # These values become nft text, so they are checked again although only root wrote the file.
    start = _port_number(start)
    # Equal numbers become one object: the agent keeps very many ports in memory.
    return PublishedPort(
        fields.parse_protocol(protocol),
        fields.parse_address(listen),
        start,
        start if end == start else _port_number(end),
        start if to == start else _port_number(to),
        fields.parse_address(target) if target else None,
        fields.parse_networks(" ".join(sources)) if sources else (),
        fields.parse_limits(*limits) if limits else None,
    )


def _port_number(value: Any) -> int:
    if type(value) is int and MIN_PORT <= value <= MAX_PORT:
        return value
    raise ValueError(f"{value!r} is not a port number")
