"""Follows the registry of the cluster for the agent: the thread of one session after the other."""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING

from cgw_hooks.agent import worker
from cgw_hooks.agent.registry.inbox import Inbox, Ticket, Told
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.folder_events import FolderEvents

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgw_hooks.agent.agent_publisher import AgentPublisher
    from cgw_hooks.agent.registry.requests import Request
    from cgw_hooks.agent.registry.session import Message, Session
    from cgw_hooks.node.sync_log import SyncLog


class Follower:
    """One thread. ``told`` is called in it whenever a ticket was answered."""

    def __init__(self, publisher: AgentPublisher, log: SyncLog, told: Callable[[], None]) -> None:
        self.publisher = publisher
        self._told = told
        self._log = log
        self._inbox: Inbox[Message] = Inbox()
        self._session: Session | None = None
        state = publisher.state
        self._folders = FolderEvents([state.records_folder, state.directory])
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(self._inbox, selectors.EVENT_READ)
        self._waiting.register(self._folders, selectors.EVENT_READ)

    # -- for other threads -------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        """Whether the config names a registry."""
        return self.publisher.loaded.registry is not None

    def ask(self, request: Callable[[Ticket], Request]) -> Ticket:
        """Ask for something; the answer may never come."""
        ticket = Ticket(self._told)
        self._inbox.add(request(ticket))
        return ticket

    def reconfigure(self) -> None:
        """Note that the publisher has another config."""
        self._inbox.add(None)

    def close(self) -> None:
        """Write the snapshot before the process ends."""
        if self._session:
            worker.attempt("registry snapshot", self._session.save)

    # -- the thread --------------------------------------------------------------------------

    def run(self) -> None:
        """Follow; does not return."""
        self._open()
        while True:
            self._waiting.select(self._pause())
            worker.attempt("registry", self._turn)

    def _pause(self) -> float | None:
        return self._session.pause if self._session else None

    def _open(self) -> None:
        """Begin anew, with the present config."""
        if self._session:
            self._session.close()
        self._session = None
        config = self.publisher.loaded.registry
        if config is None:
            self.publisher.state.write_registry_status({})
            self.publisher.known_nodes.remove()
        else:
            # TLS and HTTP take 6 MiB, which a host without a registry need not spend.
            from cgw_hooks.agent.registry.session import Session

            self._session = Session(config, self.publisher, self._log, self._inbox)

    def _turn(self) -> None:
        names = self._folders.read()
        for message in self._inbox.drain():
            if message is None:
                self._open()
            elif isinstance(message, Told):
                if self._session and message.session is self._session:
                    self._session.take(message.news)
            elif self._session:
                self._session.carry_out(message)
            else:
                message.ticket.finish(RegistryError("config", "it names no [registry]"))
        if self._session:
            state = self.publisher.state
            # The name of a folder that has just come is "": what is in it was not told.
            if names.lost or any(name == "" for _, name in names.changed):
                self._session.look_at_all()
                self._session.turn(state.keys())
            else:
                found = [state.key_of_file(name) for _, name in names.changed]
                self._session.turn([key for key in found if key])
