"""``cgw status``: what is published, for which guest, where, since when, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cgw_hooks.core.record import State, standing_by
from cgw_hooks.core.rules import table
from cgw_hooks.host import listeners

if TYPE_CHECKING:
    from cgw_hooks.core.published_port import PublishedPort
    from cgw_hooks.core.record import Record
    from cgw_hooks.node.publisher import Publisher


@dataclass(frozen=True)
class Row:
    """One published port of one guest, as it stands at this moment."""

    record: Record
    port: PublishedPort | None
    state: str
    #: What is wrong with it, and the cure; empty where nothing is.
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The row for ``--json``."""
        guest, port = self.record.guest, self.port
        since = datetime.fromtimestamp(self.record.since, UTC).isoformat(timespec="seconds")
        shown: dict[str, Any] = {
            "guest": guest.name,
            "driver": guest.driver,
            "uuid": guest.uuid,
            "state": self.state,
            "since": since,
            "problem": self.problem or None,
        }
        if port:
            any_address = port.listen_address.is_unspecified
            shown |= {
                "protocol": port.protocol,
                "family": port.family,
                "listen_address": None if any_address else str(port.listen_address),
                "listen_ports": [port.start, port.end],
                "target_address": str(port.target_address) if port.target_address else None,
                "target_ports": [port.to, port.to + port.end - port.start],
                "sources": [str(source) for source in port.sources],
            }
        return shown


@dataclass(frozen=True)
class Status:
    """All rows, and what is wrong with the node itself."""

    rows: list[Row]
    problems: list[str]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(row.problem for row in self.rows)


def status(publisher: Publisher) -> Status:
    """Look at records and ruleset; change nothing. Raises ``CgwError``."""
    records, errors = publisher.records.all()
    waiting = standing_by(records)
    rows: list[Row] = []
    for record in records:
        if record.guest.key in waiting:
            rows += [Row(record, port, "standby") for port in record.guest.ports]
        else:
            rows += _rows(publisher, record)
    rows.sort(key=lambda row: (row.record.guest.name, row.port.start if row.port else 0))
    return Status(rows, [str(error) for error in errors])


def _rows(publisher: Publisher, record: Record) -> list[Row]:
    problem = record.problem
    if record.translated and not problem and not _is_in_ruleset(publisher, record):
        problem = "its translations are not in the ruleset; run: cgw sync"
    if not record.guest.ports:
        return [Row(record, None, "not published", problem)] if problem else []
    return [_row(record, port, problem) for port in record.guest.ports]


def _row(record: Record, port: PublishedPort, problem: str) -> Row:
    if problem:
        return Row(record, port, "failed", problem)
    if record.state is not State.PUBLISHED:
        return Row(record, port, record.state.value)
    if port.target_address is None:
        return Row(record, port, "no address yet", "no lease of the guest is known; run: cgw sync")
    if not listeners.is_local(port.listen_address):
        return Row(record, port, "dormant")
    return Row(record, port, "published")


def _is_in_ruleset(publisher: Publisher, record: Record) -> bool:
    """Ask the kernel whether it would take the guest's elements off and put them on again."""
    ports = record.translated
    return publisher.nft.would_apply(table.change(publisher.config, add=ports, delete=ports))
