"""Hears what all nodes write to the registry. It only passes this on; the session decides."""

from __future__ import annotations

import random
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.client import Etcd
from cgw_hooks.host.etcd.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cgw_hooks.core.node_config import Registry
    from cgw_hooks.core.registry_view import Change

#: Seconds until the next attempt: a random number, so that not all nodes come at once.
_PAUSE = (0.2, 0.5)


class Snapshot(NamedTuple):
    """All keys at one revision. Whatever was known before counts no more."""

    revision: int
    changes: Sequence[Change]
    #: The id of the etcd cluster.
    cluster: str


class Changes(NamedTuple):
    """What has changed up to a revision."""

    revision: int
    changes: Sequence[Change]


class Lost(NamedTuple):
    """The registry does not answer: what is known stays."""

    error: RegistryError


class Watcher:
    """One thread. ``tell`` is called with each message."""

    def __init__(
        self, config: Registry, prefix: str, tell: Callable[[Snapshot | Changes | Lost], None]
    ) -> None:
        self._config = config
        self._prefix = prefix
        self._tell = tell
        self._watch: Watch | None = None
        self._is_closed = False

    def run(self) -> None:
        """Follow until ``close``."""
        while not self._is_closed:
            try:
                self._follow()
            except RegistryError as error:
                self._tell(Lost(error))
            # A member that hangs must not be the first one that is asked again.
            first, *others = self._config.endpoints
            self._config = self._config._replace(endpoints=(*others, first))
            time.sleep(random.uniform(*_PAUSE))  # noqa: S311

    def close(self) -> None:
        """End the thread; another one may call this."""
        self._is_closed = True
        watch = self._watch
        if watch:
            watch.close()

    def _follow(self) -> None:
        """Read everything, then follow from there: etcd never says that its revision went back."""
        etcd = Etcd(self._config)
        try:
            found = etcd.list(self._prefix)
        finally:
            etcd.close()
        self._tell(Snapshot(found.revision, found.values, found.cluster))
        with closing(Watch(self._config, self._prefix, found.revision + 1)) as watch:
            self._watch = watch
            if self._is_closed:
                return
            for revision, events in watch:
                self._tell(Changes(revision, events))
