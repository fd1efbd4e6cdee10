"""One thread of the agent: tells Prometheus how things are, where the config says so.

It asks neither libvirt nor holds the node's lock, and no hook waits for it. Without ``[metrics]``
it does not exist.
"""

from __future__ import annotations

import selectors
import time
from typing import TYPE_CHECKING

from cgw_hooks.agent import worker
from cgw_hooks.agent.registry.inbox import Inbox
from cgw_hooks.host import log
from cgw_hooks.host.metrics_socket import remove_file, unlisten, write_file

if TYPE_CHECKING:
    from cgw_hooks.agent.agent_publisher import AgentPublisher
    from cgw_hooks.agent.metrics.page import Page
    from cgw_hooks.agent.metrics.scrape_server import ScrapeServer
    from cgw_hooks.agent.metrics.tally import Tally
    from cgw_hooks.core.node_config import Metrics

#: Seconds between two versions of the file.
_FILE_SECONDS = 15.0
#: Seconds until something that has failed is tried again.
_RETRY = 10.0
_LIBRARY = (
    "the library prometheus_client is missing; run: apt install python3-prometheus-client, "
    "and then: systemctl restart cgw"
)


class Exporter:
    """The thread, if it is needed."""

    def __init__(self, publisher: AgentPublisher, tally: Tally) -> None:
        self.publisher = publisher
        self._tally = tally
        self._told: Inbox[None] = Inbox()
        self._is_started = self._is_closed = False
        self._config: Metrics | None = None
        self._page: Page | None = None
        self._server: ScrapeServer | None = None
        self._said = ""
        self._next_file = self._next_try = 0.0

    def reconfigure(self) -> None:
        """Do what the config says now; any thread may call this."""
        if self._is_started:
            self._told.add(None)
        elif self._wanted:
            self._is_started = True
            worker.start("metrics", self._run)

    @property
    def _wanted(self) -> Metrics | None:
        metrics = self.publisher.loaded.metrics
        return metrics if metrics and metrics.is_told else None

    def close(self) -> None:
        """Leave nothing behind that is no longer true."""
        config, self._is_closed = self._config, True
        if config:
            worker.attempt("metrics", lambda: _clear(config))

    def _run(self) -> None:
        while True:
            if not worker.attempt("metrics", self._turn):
                time.sleep(_RETRY)

    def _turn(self) -> None:
        for _ in self._told.drain():
            pass
        if self._wanted != self._config:
            self._change()
        config, now = self._config, time.monotonic()
        if config and not self._page and now >= self._next_try:
            self._next_try = now + _RETRY
            self._open(config)
        if config and config.textfile and self._page and now >= self._next_file:
            self._next_file = now + _FILE_SECONDS
            self._write(config.textfile, self._page.text())
        self._wait(_FILE_SECONDS if config else None)

    def _wait(self, seconds: float | None) -> None:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._told, selectors.EVENT_READ)
            if self._server:
                waiting.register(self._server, selectors.EVENT_READ)
                seconds = min(self._server.pause, _FILE_SECONDS)
            waiting.select(seconds)
        if self._server:
            self._server.serve()

    def _change(self) -> None:
        """Stop what the former config has asked for."""
        former, self._config = self._config, self._wanted
        self._page = None
        self._next_try = self._next_file = 0.0
        if self._server:
            self._server.close()
            self._server = None
        if former:
            worker.attempt("metrics", lambda: _clear(former))

    def _open(self, config: Metrics) -> None:
        try:
            from cgw_hooks.agent.metrics.page import Page
            from cgw_hooks.agent.metrics.scrape_server import ScrapeServer
        except ImportError as error:
            self._say(_LIBRARY if error.name == "prometheus_client" else str(error))
            return
        page = Page(self.publisher, self._tally, per_port=config.per_port)
        try:
            if config.address or config.socket:
                self._server = ScrapeServer(config, page.text)
        except OSError as error:
            self._say(f"{config.listen}: it cannot listen: {error.strerror}; see cgw.toml(5)")
            return
        self._page = page
        self._said = ""

    def _write(self, path: str, text: bytes) -> None:
        if self._is_closed:
            return
        try:
            write_file(path, text)
        except OSError as error:
            self._say(f"{path}: it cannot be written: {error.strerror}; see cgw.toml(5)")
        else:
            self._said = ""

    def _say(self, message: str) -> None:
        """Log a problem, but not again as long as it stays."""
        if message != self._said:
            log.error(f"agent: metrics: {message}")
        self._said = message


def _clear(config: Metrics) -> None:
    unlisten(config)
    if config.textfile:
        remove_file(config.textfile)
