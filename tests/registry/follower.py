"""A thread that follows the changes of keys, as one of the agent does."""

import threading

from cgw_hooks.core.etcd.values import KeyValue
from cgw_hooks.core.node_config import Registry
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.watch import Watch
from tests.libvirt.waiting import eventually


class Follower:
    """What a watch has given so far, and the error that ended it."""

    def __init__(self, config: Registry, prefix: str, start_revision: int) -> None:
        self.batches: list[tuple[int, list[KeyValue]]] = []
        self.error: RegistryError | None = None
        self._watch = Watch(config, prefix, start_revision)
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        try:
            for batch in self._watch:
                self.batches.append(batch)
        except RegistryError as error:
            self.error = error

    @property
    def events(self) -> list[KeyValue]:
        """All changes so far."""
        return [event for _, events in self.batches for event in events]

    def wait_for(self, revision: int) -> None:
        """Wait until everything up to this revision was given."""
        assert eventually(lambda: bool(self.batches) and self.batches[-1][0] >= revision), (
            self.error
        )

    def wait_for_end(self) -> RegistryError | None:
        """Wait until the watch has ended; return its error."""
        assert eventually(lambda: not self._thread.is_alive())
        return self.error

    def close(self) -> None:
        """End it. It must end, and not by an error."""
        had_ended = not self._thread.is_alive()
        self._watch.close()
        assert eventually(lambda: not self._thread.is_alive())
        assert had_ended or self.error is None
