"""What the node remembers of a guest, and its JSON.

A guest's record holds what was done for it, so that exactly that can be undone,
whatever its definition says by then.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from cgw_hooks.core.guest import Guest
from cgw_hooks.core.parse import fields
from cgw_hooks.core.published_port import PublishedPort

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_VERSION = 1


class State(Enum):
    """How far a guest has come."""

    #: Its ports are taken; it does not run yet.
    CLAIMED = "claimed"
    PUBLISHED = "published"
    #: It runs no more; its elements and stale flows are being cleared away.
    STOPPING = "stopping"
    #: Cleared away; libvirt has yet to release it and say why it stopped.
    STOPPED = "stopped"
    #: The same guest, migrated to this host itself, has its ports now.
    SUCCEEDED = "succeeded"


class Record(NamedTuple):
    """One guest, how far it has come, since when (seconds since 1970, UTC), and what is wrong."""

    guest: Guest
    state: State
    since: float
    problem: str = ""
    #: Keys of the peers that are the same guest. They stand by while this one is translated.
    peers: tuple[str, ...] = ()

    @property
    def translated(self) -> tuple[PublishedPort, ...]:
        """The ports that have elements in the ruleset: none until the address is known."""
        if self.state is not State.PUBLISHED:
            return ()
        return tuple(port for port in self.guest.ports if port.target_address)

    @property
    def perhaps_translated(self) -> tuple[PublishedPort, ...]:
        """The ports that may have elements: a crash may have left those of a stopping guest."""
        if self.state is State.STOPPING:
            return self._replace(state=State.PUBLISHED).translated
        return self.translated


def published(guest: Guest, old: Record | None, peers: tuple[str, ...], now: float) -> Record:
    """The record of a guest that is published: since ``now``, unless the old one says the same."""
    unchanged = old and old.state is State.PUBLISHED and old.guest == guest
    return Record(guest, State.PUBLISHED, old.since if old and unchanged else now, peers=peers)


def ended(record: Record, peers: Iterable[Record], *, connections_end: bool) -> list[PublishedPort]:
    """The ports of a withdrawn guest whose flows are to be looked for.

    Once stopped, established TCP connections are all that may be left. None of a port that
    a peer publishes alike: the guest may have moved there.
    """
    still = {port for peer in peers for port in peer.translated}
    ports = [port for port in record.guest.ports if port not in still]
    if record.state is State.STOPPED:
        return [port for port in ports if port.protocol == "tcp" and connections_end]
    return ports


def standing_by(records: Iterable[Record]) -> set[str]:
    """The keys of the peers that stand by: the guest itself is translated, on this node."""
    return {key for record in records if record.translated for key in record.peers}


def translated(records: Collection[Record]) -> list[PublishedPort]:
    """All ports that the ruleset has elements of."""
    waiting = standing_by(records)
    return [
        port for record in records if record.guest.key not in waiting for port in record.translated
    ]


def to_json(record: Record) -> str:
    """The record as it is kept in a file."""
    guest = record.guest
    return json.dumps(
        {
            "version": _VERSION,
            "driver": guest.driver,
            "uuid": guest.uuid,
            "name": guest.name,
            "state": record.state.value,
            "since": record.since,
            "problem": record.problem,
            "peers": record.peers,
            "network_bridges": guest.network_bridges,
            "lasting_id": guest.lasting_id,
            "ports": [_port_to_dict(port) for port in guest.ports],
        }
    )


def from_json(text: str) -> Record:
    """Read what ``to_json`` wrote. Raises ``ValueError`` for anything else."""
    try:
        data = json.loads(text)
        if data["version"] != _VERSION:
            raise ValueError(f"version {data['version']}")
        guest = Guest(
            driver=data["driver"],
            uuid=data["uuid"],
            name=data["name"],
            ports=tuple(_port_from_dict(port) for port in data["ports"]),
            network_bridges=tuple(data["network_bridges"]),
            lasting_id=data.get("lasting_id", ""),
        )
        return Record(
            guest,
            State(data["state"]),
            float(data["since"]),
            data["problem"],
            tuple(data.get("peers", ())),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a record: {error!r}") from error


def _port_to_dict(port: PublishedPort) -> dict[str, Any]:
    return {
        "protocol": port.protocol,
        "listen_address": str(port.listen_address),
        "start": port.start,
        "end": port.end,
        "to": port.to,
        "target_address": str(port.target_address) if port.target_address else None,
        "sources": [str(network) for network in port.sources],
    }


def _port_from_dict(data: dict[str, Any]) -> PublishedPort:
    target = data["target_address"]
    return PublishedPort(
        protocol=fields.parse_protocol(data["protocol"]),
        listen_address=fields.parse_address(data["listen_address"]),
        start=fields.parse_port(str(data["start"])),
        end=fields.parse_port(str(data["end"])),
        to=fields.parse_port(str(data["to"])),
        target_address=fields.parse_address(target) if target else None,
        sources=fields.parse_networks(" ".join(data["sources"])) if data["sources"] else (),
    )
