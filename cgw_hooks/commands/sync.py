"""``cgw sync``: make the node match what runs, here and on other nodes, once.

Puts back what a firewall reload, lost records or a killed hook took, and takes
away what no running guest owns. Where a hypervisor does not answer, its guests'
ports stay as the records have them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cgw_hooks.core.guest import PEER
from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.core.parse import domain_scan
from cgw_hooks.core.parse.vif import DRIVER as XL
from cgw_hooks.core.parse.vif import latest, running_vifs
from cgw_hooks.core.record import Record, State, translated
from cgw_hooks.errors import CgwError, HypervisorError, RecordError
from cgw_hooks.host import libvirt_api, xenstore
from cgw_hooks.sources.libvirt import read_guest
from cgw_hooks.sources.static import remote_guests
from cgw_hooks.sources.xl import read_vif

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.parse.vif import Vif
    from cgw_hooks.node.publisher import Publisher

#: xl last: it leaves libvirt's guests alone.
_HYPERVISORS = (*DRIVERS, XL)
_ATTEMPTS = 20
_PAUSE = 0.1


@dataclass
class Running:
    """The guests that should be published, by key, and which hypervisors did not answer."""

    #: None: what was published of it before stays.
    guests: dict[str, Guest | None] = field(default_factory=dict)
    silent_drivers: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


@dataclass
class Report:
    """What a sync changed, and what it could not."""

    published: list[Record] = field(default_factory=list)
    withdrawn: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def sync(publisher: Publisher, drivers: Collection[str] = _HYPERVISORS) -> Report:
    """Make records and ruleset match the running guests. Raises ``CgwError``.

    ``drivers``: the hypervisors to ask; the guests of others stay as they are.

    libvirt is asked without the lock, since a hook that waits for the lock makes
    libvirt wait; so hooks may run in between. Then the answer is old, and it is
    asked again.
    """
    for _ in range(_ATTEMPTS):
        version = publisher.records.version()
        running = ask_hypervisors(publisher, drivers)
        _add_remote_guests(publisher, running)
        with publisher.locked():
            if publisher.records.version() == version:
                report, gone = _reconcile(publisher, running)
                break
        time.sleep(_PAUSE)
    else:
        raise RecordError("guests kept starting and stopping meanwhile; run it again: cgw sync")
    for record in gone:  # why they stopped is not known: TCP connections may go on elsewhere
        peers = publisher.peers_of(record)
        publisher.delete_flows_of(record, peers, connections_end=False)
        with publisher.locked():
            publisher.give_up(record)
    publisher.delete_missing_flows(translated(publisher.records.all()[0]))
    return report


def ask_hypervisors(publisher: Publisher, drivers: Collection[str]) -> Running:
    """Which guests run, and what they publish now."""
    running = Running(silent_drivers=set(_HYPERVISORS) - set(drivers))
    silent: dict[str, str] = {}
    for driver in drivers:
        try:
            if driver == XL:
                _ask_xl(publisher, running)
            else:
                _ask_libvirt(publisher, driver, running)
        except HypervisorError as error:
            silent[driver] = str(error)
            running.silent_drivers.add(driver)
    recorded = {key.partition("-")[0] for key in publisher.records.list_keys()}
    nobody_answered = len(silent) == len(_HYPERVISORS)
    for driver, problem in silent.items():
        # A host has one or two of the drivers: that the others are silent is no problem.
        if driver in recorded or (nobody_answered and driver == DRIVERS[0]):
            running.problems.append(problem)
    return running


def _add_remote_guests(publisher: Publisher, running: Running) -> None:
    for name, found in remote_guests(publisher.config):
        if isinstance(found, CgwError):
            running.problems.append(str(found))
            running.guests[f"{PEER}-{name}"] = None
        else:
            running.guests[found.key] = found


def _ask_libvirt(publisher: Publisher, driver: str, running: Running) -> None:
    for definition in libvirt_api.running_guests(driver):
        _read(publisher, definition, running)


def _read(publisher: Publisher, definition: libvirt_api.Definition, running: Running) -> None:
    driver, name, xml = definition
    key = f"{driver}-{domain_scan.uuid(xml)}"
    if not domain_scan.is_annotated(xml):
        return
    try:
        guest = read_guest(publisher.config, driver, name, xml)
    except CgwError as error:
        running.problems.append(str(error))
        running.guests[key] = None  # it runs: what was published of it before stays
    else:
        if guest:
            running.guests[key] = guest


def _ask_xl(publisher: Publisher, running: Running) -> None:
    vifs = running_vifs(xenstore.read_tree())
    new = latest(vifs)
    for vif in vifs:
        if vif in new:
            _read_vif(publisher, vif, running)
        else:  # the migration may yet fail: its record goes when it goes
            running.guests[vif.key] = None


def _read_vif(publisher: Publisher, vif: Vif, running: Running) -> None:
    try:
        if _is_libvirts(publisher, vif, running):
            return
        guest = read_vif(publisher.config, vif)
    except CgwError as error:
        running.problems.append(str(error))
        running.guests[vif.key] = None
    else:
        if guest:
            running.guests[vif.key] = guest


def _is_libvirts(publisher: Publisher, vif: Vif, running: Running) -> bool:
    """Whether libvirt's own hook publishes the guest; where libvirt is silent, its record tells."""
    key = f"libxl-{vif.machine}"
    if "libxl" in running.silent_drivers:
        return publisher.records.find(key) is not None
    return key in running.guests


def _reconcile(publisher: Publisher, running: Running) -> tuple[Report, list[Record]]:
    """Write the records that should be, and restore the ruleset from them. Lock held."""
    report = Report(problems=list(running.problems))
    records, unreadable = publisher.records.all()
    for error in unreadable:
        report.problems.append(str(error))
    gone = [record for record in records if not _still_wanted(record, running)]
    kept = {record.guest.key: record for record in records if record not in gone}
    for record in gone:
        publisher.records.write(record._replace(state=State.STOPPING))
    refused = publisher.owners.settle(kept.values())
    # Who must go without is refused as one that comes now would be.
    wanted = {record.guest.key: kept.pop(record.guest.key).guest for record in refused}
    wanted |= {key: guest for key, guest in running.guests.items() if guest}
    for key, guest in wanted.items():
        report.published += _publish(publisher, guest, kept.get(key), report)
    _let_peers_stand_by(publisher)
    publisher.restore()
    publisher.firewall.close_unused(publisher.records)
    publisher.other_selves.sweep()
    report.withdrawn = [record for record in gone if record.guest.ports]
    return report, gone


def _still_wanted(record: Record, running: Running) -> bool:
    return record.guest.key in running.guests or record.guest.driver in running.silent_drivers


def _let_peers_stand_by(publisher: Publisher) -> None:
    """Tell each guest's record which peers are the same guest, once all are published."""
    records, _ = publisher.records.all()
    peers = [record.guest for record in records if record.guest.is_peer and record.translated]
    for record in records:
        if not record.guest.is_peer:
            same = tuple(peer.key for peer in peers if peer.is_same_as(record.guest))
            if same and record.state is not State.SUCCEEDED:  # a peer that came has taken them
                publisher.owners.take(record.guest)
            if same != record.peers:
                publisher.records.write(record._replace(peers=same))


def _publish(
    publisher: Publisher, guest: Guest, old: Record | None, report: Report
) -> Iterator[Record]:
    try:
        record = publisher.published(guest, old)._replace(peers=old.peers if old else ())
    except CgwError as error:
        report.problems.append(str(error))
        kept = old or Record(guest._replace(ports=()), State.CLAIMED, time.time())
        publisher.records.write(kept._replace(problem=str(error)))
        return
    if record != old:
        publisher.records.write(record)
    if not old or (old.state, old.guest) != (record.state, record.guest):
        yield record
