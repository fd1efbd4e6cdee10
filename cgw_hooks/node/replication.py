"""Runs conntrackd on a node whose flows are replicated, and finds out whether it does its work."""

from __future__ import annotations

import time

from cgw_hooks.core import conntrackd_config
from cgw_hooks.core.problem import Problem
from cgw_hooks.errors import ReplicationError
from cgw_hooks.host import conntrackd, paths, sysctl, systemd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.host.state.state import State
    from cgw_hooks.node.publisher import Publisher

UNIT = "cgw-conntrackd.service"
_SUBJECT = "conntrackd"
_UP = "run: cgw node up"
#: Each conntrackd sends a packet per second, also if it has nothing to tell (ALIVE_INT in
#: sync-notrack.c).
_LONGEST_SILENCE = 3.0
_POLL = 0.2
#: Seconds for 100,000 flows of other nodes; most nodes have said all within a fraction of one.
_LONGEST_LESSON = 5.0


def daemon(state: State) -> conntrackd.Conntrackd:
    """Return this node's conntrackd."""
    return conntrackd.Conntrackd(conntrackd_config.config_file(state.directory))


def learn_flows(running: conntrackd.Conntrackd) -> None:
    """Let the other nodes send all their flows, and wait until they have.

    Raises ``ReplicationError``.
    """
    running.request_flows()
    before, now, deadline = -1, running.received(), time.monotonic() + _LONGEST_LESSON
    while now != before and time.monotonic() < deadline:
        time.sleep(_POLL)
        before, now = now, running.received()


def refresh_others(running: conntrackd.Conntrackd) -> None:
    """Let all nodes send all their flows, after this node has deleted flows of others.

    conntrackd tells the other nodes of a deletion, though not its own node has deleted the flow.
    What is sent after that makes it good. Raises ``ReplicationError``.
    """
    before, now = -1, running.forgotten()
    while now != before:
        time.sleep(_POLL)
        before, now = now, running.forgotten()
    running.request_flows()


def start(publisher: Publisher) -> Iterator[str]:
    """Write the config of conntrackd and start it, if this node needs it; else stop it.

    Raises ``ReplicationError``.
    """
    state = publisher.state
    if not conntrackd_config.is_needed(publisher.config):
        yield from stop(state)
        return
    path = conntrackd_config.config_file(state.directory)
    text = conntrackd_config.text(publisher.config, state.directory)
    is_new = conntrackd.write_config(path, text)
    if is_new:
        yield f"wrote  {path}"
    if conntrackd.program() is None:
        daemon(state).received()  # raises the error
    bridge = conntrackd_config.bridge(publisher.config)
    if sysctl.read(f"net/ipv6/conf/{bridge}/disable_ipv6") != "0":
        raise ReplicationError(
            bridge,
            "IPv6 is off, and conntrackd speaks over link-local addresses",
            f"run: sysctl net.ipv6.conf.{bridge}.disable_ipv6=0; cgw node up",
        )
    if not _is_served_by_unit(state):
        yield from _note(state, path, is_new=is_new)
    elif not systemd.start(UNIT, anew=is_new):
        raise ReplicationError(_SUBJECT, "it does not start", f"see: systemctl status {UNIT}")


def stop(state: State) -> Iterator[str]:
    """Stop conntrackd, and remove its config, if ``start`` has written it."""
    path = conntrackd_config.config_file(state.directory)
    if conntrackd.read_config(path) is None:
        return
    if _is_served_by_unit(state):
        systemd.stop(UNIT)
        yield f"stopped {UNIT}"
    else:
        try:
            daemon(state).stop()
            yield f"stopped {_SUBJECT}"
        except ReplicationError:
            pass  # it does not run
    conntrackd.remove_files(path, conntrackd_config.lock_file(state.directory))


def problems(publisher: Publisher) -> Iterator[Problem]:
    """Yield what keeps this node's flows from being replicated.

    This takes as long as no other node is heard, up to 3 s.
    """
    config, state = publisher.config, publisher.state
    if not conntrackd_config.is_needed(config) or not state.gateway_changes():
        return
    found = conntrackd.read_config(conntrackd_config.config_file(state.directory))
    if found != conntrackd_config.text(config, state.directory):
        yield Problem("replication", _SUBJECT, "its config is not that of cgw.toml", _UP)
        return
    try:
        is_heard = not config.remote_nodes or _hears_others(daemon(state))
    except ReplicationError as error:
        yield Problem.of(error)
        return
    if not is_heard:
        silent = f"no other node's conntrackd was heard for {_LONGEST_SILENCE:g} s"
        cure = f"see on the other nodes: systemctl status {UNIT}"
        yield Problem("replication", _SUBJECT, silent, cure)


def _hears_others(running: conntrackd.Conntrackd) -> bool:
    before, deadline = running.received(), time.monotonic() + _LONGEST_SILENCE
    while running.received() == before:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _is_served_by_unit(state: State) -> bool:
    """Whether the unit is there for this runtime directory: it names the usual one."""
    return systemd.is_running() and state.directory == paths.RUNTIME_DIRECTORY


def _note(state: State, path: str, *, is_new: bool) -> Iterator[str]:
    """Say how to run conntrackd on a host without systemd, if it must be started."""
    try:
        daemon(state).received()
    except ReplicationError:
        yield f"note   {_SUBJECT}: systemd does not run here; run: conntrackd -d -C {path}"
    else:
        if is_new:
            yield (
                f"note   {_SUBJECT}: it has its former config; run: "
                f"conntrackd -C {path} -k; conntrackd -d -C {path}"
            )
