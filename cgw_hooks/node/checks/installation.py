"""Checks of the installation: the hooks, what libvirt knows of them, the agent, the kernel."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import cgw_hooks
from cgw_hooks.core.finding import Finding, fail, warn
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.operations import DRIVERS
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.record import contents
from cgw_hooks.core.rules import table
from cgw_hooks.core.rules.names import TABLE
from cgw_hooks.errors import RulesetError
from cgw_hooks.host import dpkg, hook_files, paths, processes, systemd
from cgw_hooks.host.libvirt_connection import DAEMONS
from cgw_hooks.host.libvirt_library import process_of
from cgw_hooks.host.nft_tables import table_names
from cgw_hooks.node import hook_trial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.node.checks.facts import Facts

_AGENT, _SYNC = "cgw.service", "cgw-sync.service"
#: The drivers that are checked only if libvirt runs hooks for them at all: libvirtd has all, and
#: a host without Xen has no use of the hook of libxl.
_CHECKED = tuple(driver for driver in DRIVERS if driver != "libxl")
_MODULES = "run: modprobe -a nf_conntrack nft_ct nft_nat nft_masq nft_fib_inet; cgw sync"
#: Between the birth of a folder and the start of a daemon, clocks are not exact.
_TOLERANCE = 1.0


def hooks(facts: Facts) -> Iterator[Finding]:
    """Whether libvirt's hooks are in place and work, and whether libvirt knows them."""
    tried = False
    for driver in _CHECKED:
        daemon = _daemon(driver)
        if daemon is None:
            continue
        hook = hook_files.read(driver)
        if not hook.is_there:
            yield fail(
                Problem("hook", hook.path, "the hook is missing", _run("cgw install", daemon))
            )
        elif not hook.is_executable:
            message = "the hook is not executable, so libvirt does not run it"
            command = _run(f"chmod 755 {hook.path}", daemon)
            yield fail(Problem("hook", hook.path, message, command))
        elif not tried:
            tried = True
            found = hook_trial.obstacle(Path(hook.path), hook.python)
            if found:
                message, _, cure = found.rpartition("; ")
                if not cure.startswith("run: "):
                    cure = _run(_install(hook.path), daemon)
                yield fail(Problem("hook", hook.path, message, cure))
        if hook.is_executable:
            yield from _unknown_hooks(facts, driver, daemon)


def _unknown_hooks(facts: Facts, driver: str, daemon: _Daemon) -> Iterator[Finding]:
    """Find a daemon that has looked for hooks before there were any."""
    looked = processes.start_time(daemon.pid)
    born = hook_files.known_since(driver)
    reloaded = systemd.last_change(f"{daemon.name}.service") if systemd.is_running() else None
    if looked and reloaded:
        looked = max(looked, reloaded)
    if looked is None or born is None or born < looked + _TOLERANCE:
        return
    if any(key.driver == driver and record.digest for key, record in facts.records.items()):
        return  # a hook was called
    message = "libvirt looked for hooks before this one was there, and has not been reloaded since"
    problem = Problem("hook", hook_files.path(driver), message, _run("", daemon))
    is_missed = any(
        row.problem and row.problem.code == "not-published" and row.record.key.driver == driver
        for row in facts.rows
    )
    yield fail(problem) if is_missed else warn(problem)


def _install(hook: str) -> str:
    """Return the command that writes a hook again."""
    package = dpkg.owner(Path("/"), hook)
    if package:
        return f"apt-get install --reinstall -o Dpkg::Options::=--force-confmiss {package}"
    return "cgw install"


class _Daemon(NamedTuple):
    """A daemon of libvirt that runs."""

    name: str
    pid: int


def _daemon(driver: str) -> _Daemon | None:
    """Return the daemon of a driver, if it runs."""
    found = ((name, process_of([(name, f"/run/{name}.pid")])) for name in DAEMONS[driver])
    return next((_Daemon(name, pid) for name, pid in found if pid), None)


def _run(command: str, daemon: _Daemon) -> str:
    """Return the cure: a command, then libvirt looks for hooks, and guests are published."""
    look = f"kill -HUP {daemon.pid}"
    if systemd.is_running():
        look = f"systemctl try-reload-or-restart {daemon.name}"
    return "run: " + "; ".join(filter(None, (command, look, "sleep 1", "cgw sync")))


def modules(facts: Facts) -> Iterator[Finding]:
    """Whether the Python modules are there that this node needs."""
    needed = ["lxml", "nftables"]
    needed += ["pyroute2"] if facts.config.guest_networks else []
    needed += ["libvirt"] if any(map(_daemon, _CHECKED)) else []
    for name in needed:
        if importlib.util.find_spec(name) is None:
            cure = f"install it for {sys.executable}"
            if sys.prefix == sys.base_prefix:
                cure = f"run: apt install python3-{name}"
            yield fail(Problem("module", name, "this Python module is missing", cure))


def agent(facts: Facts) -> Iterator[Finding]:
    """Whether the agent runs, and with the installed version."""
    if facts.absence is None:
        yield from _old_agent()
        return
    is_booted = systemd.is_running()
    message = "the agent does not run: nothing follows leases, reloaded firewalls and listeners"
    problem = Problem("agent", "agent", message, "run: systemctl enable --now cgw")
    if facts.config.registry or (is_booted and systemd.is_enabled(_AGENT)):
        yield fail(facts.absence if facts.config.registry else problem)
    elif not (is_booted and systemd.is_enabled(_SYNC)):
        yield warn(problem)


def _old_agent() -> Iterator[Finding]:
    """Find an agent that has started before its package was installed."""
    pid = processes.listener_of(paths.agent_socket(paths.runtime_directory()))
    started = processes.start_time(pid) if pid else None
    # The time of the change of the inode: that of the content is the package's.
    installed = os.stat(cgw_hooks.__file__).st_ctime
    if started and installed > started + _TOLERANCE:
        message = "cgw was installed anew while the agent ran, so it runs with another version"
        yield warn(Problem("agent", "agent", message, "run: systemctl restart cgw"))


def kernel(facts: Facts) -> Iterator[Finding]:
    """Whether the kernel takes the ruleset, if it does not have it yet."""
    if TABLE in table_names():
        return
    try:
        facts.publisher.nft.try_out(table.restore(facts.config, contents([])))
    except RulesetError as error:
        problem = Problem.of(error)
        is_refused = "refused" in error.message  # otherwise libnftables is missing
        yield fail(problem._replace(cure=_MODULES) if is_refused else problem)
