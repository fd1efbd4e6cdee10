"""The agent: what ``cgw agent`` runs, and systemd watches.

Some threads: this one serves hook calls and signals; the repairer follows the kernel; the inquirer
asks libvirt; another one deletes tracked flows after a hook has its answer; the follower speaks to
the registry of the cluster, and the exporter to Prometheus, if the config asks for them. Every
change is made under the node's lock, like that of any other cgw process, so the agent may be
killed at any moment.
"""

from __future__ import annotations

import selectors
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Self

from cgw_hooks.agent import worker
from cgw_hooks.agent.agent_publisher import AgentPublisher
from cgw_hooks.agent.calls import Calls
from cgw_hooks.agent.hook_server import HookServer
from cgw_hooks.agent.inquirer import Inquirer
from cgw_hooks.agent.metrics.byte_counter import ByteCounter
from cgw_hooks.agent.metrics.exporter import Exporter
from cgw_hooks.agent.metrics.tally import Tally, TallyingLog
from cgw_hooks.agent.registry.follower import Follower
from cgw_hooks.agent.registry.inbox import Inbox
from cgw_hooks.agent.repairer import Repairer
from cgw_hooks.agent.served_nft import ServedNft
from cgw_hooks.errors import CgwError
from cgw_hooks.host import log, notify, paths
from cgw_hooks.host.config_file import load_config
from cgw_hooks.host.ruleset_events import name_this_process
from cgw_hooks.host.state.state import State

if TYPE_CHECKING:
    from cgw_hooks.core.node_config import NodeConfig

#: Seconds between two switches of threads. The default, 5 ms, would delay a hook at each of its
#: system calls while another thread computes.
_SWITCH_SECONDS = 0.0005
#: Seconds. The agent is ready although libvirt has not answered by then.
_LONGEST_START = 20.0
#: Seconds between two looks whether the socket is still there.
_LONGEST_PAUSE = 5.0
#: Seconds. A repairer whose turn takes longer hangs, and systemd must restart the agent.
_LONGEST_TURN = 60.0
#: Seconds between two looks whether those who wait for the registry have waited for long enough.
_ASKED_PAUSE = 0.02
#: What `systemctl status` shows.
_STATUS = "serving hooks, following changes"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run() -> int:
    """Serve until SIGTERM; return the exit code. Raises ``CgwError`` if it cannot start."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    name_this_process()
    log.served_by = "agent"
    agent = Agent(load_config(paths.config_file()), paths.runtime_directory())
    with SignalSource() as signals:
        agent.start()
        try:
            return agent.serve(signals)
        finally:
            notify.stopping()
            agent.server.close()
            agent.follower.close()
            agent.exporter.close()


class Agent:
    """The threads and what they share."""

    def __init__(self, config: NodeConfig, directory: str) -> None:
        self.server = HookServer(directory)
        check = self.server.refuse_abandoned
        flows = worker.WorkQueue("flows")
        self.served = AgentPublisher(
            config, State(directory, check), later=flows.add, nft=ServedNft(check)
        )
        tally = Tally()
        log = TallyingLog("agent", tally)
        state = State(directory)  # one, since it keeps the records that it has read
        self.inquirer = Inquirer(AgentPublisher(config, state), log)
        self.repairer = Repairer(
            AgentPublisher(config, state),
            log,
            self.inquirer,
            self.inquirer.libvirt.watched_folders(),
        )
        self._told: Inbox[None] = Inbox()
        self.follower = Follower(AgentPublisher(config, state), log, lambda: self._told.add(None))
        self.exporter = Exporter(AgentPublisher(config, state), tally)
        self.bytes = ByteCounter(AgentPublisher(config, state))
        self._calls = Calls(self.served, self.follower, self.inquirer.is_leaving, tally)
        self._started = time.monotonic()
        self._is_ready = False

    def start(self) -> None:
        """Start the other threads."""
        worker.start("repairer", self.repairer.run)
        worker.start("inquirer", self._inquire)
        worker.start("registry", self._follow)
        self.exporter.reconfigure()
        self.bytes.reconfigure()

    def _follow(self) -> None:
        """Follow the registry, after the first repair for the same reason."""
        self.repairer.has_repaired.wait(_LONGEST_START)
        self.follower.run()

    def _inquire(self) -> None:
        """Look after the first repair: two looks at once would need twice the memory."""
        self.repairer.has_repaired.wait(_LONGEST_START)
        self.inquirer.run()

    def serve(self, signals: SignalSource) -> int:
        """Serve hook calls until a signal ends the agent; return the exit code."""
        waiting = selectors.DefaultSelector()
        waiting.register(self.server, selectors.EVENT_READ)
        waiting.register(signals, selectors.EVENT_READ)
        waiting.register(self._told, selectors.EVENT_READ)
        interval = notify.watchdog_interval()
        while True:
            for key, _ in waiting.select(self._pause(interval)):
                if key.fileobj is signals and self._obey(signals.read()):
                    return 0
            for _ in self._told.drain():
                pass
            if not self.server.serve_one(self._calls.begin):
                self.inquirer.look_at_all()
            if not self.server.is_reachable():
                log.error("agent: its socket is gone, so it ends; systemd starts it again")
                return CgwError.exit_code
            self._tell_systemd(interval)

    def _pause(self, interval: float | None) -> float:
        if self.server.has_calls:
            return 0.0
        if self.server.has_asked:
            return _ASKED_PAUSE
        if not self._is_ready:
            return 0.1
        return min(interval or _LONGEST_PAUSE, _LONGEST_PAUSE)

    def _tell_systemd(self, interval: float | None) -> None:
        now = time.monotonic()
        is_late = now - self._started > _LONGEST_START
        if not self._is_ready and (self.inquirer.has_looked.is_set() or is_late):
            self._is_ready = True
            notify.ready(_STATUS)
        if interval and now - self.repairer.last_turn < _LONGEST_TURN:
            notify.alive()

    def _obey(self, numbers: set[int]) -> bool:
        """Carry out what the signals ask for; return whether the agent must end."""
        if signal.SIGHUP in numbers:
            notify.reloading()
            worker.attempt("reload", self._reload)
            notify.ready(_STATUS)
        return bool(numbers & {signal.SIGTERM, signal.SIGINT})

    def _reload(self) -> None:
        try:
            config = load_config(paths.config_file())
        except CgwError as error:
            log.error(f"agent: the former config stays: {error}")
            return
        others = (self.repairer, self.inquirer, self.follower, self.exporter, self.bytes)
        for publisher in (self.served, *(thread.publisher for thread in others)):
            publisher.config = config
        self.follower.reconfigure()
        self.exporter.reconfigure()
        self.bytes.reconfigure()
        self.inquirer.look_at_all()


class SignalSource:
    """Signals as a readable descriptor, for a selector."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()

    def __enter__(self) -> Self:
        for end in (self._reader, self._writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno())
        for number in _SIGNALS:
            signal.signal(number, lambda _number, _frame: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)

    def fileno(self) -> int:
        """Return the descriptor, which is readable if a signal has come."""
        return self._reader.fileno()

    def read(self) -> set[int]:
        """Return the numbers of the signals that have come."""
        return set(self._reader.recv(4096))
