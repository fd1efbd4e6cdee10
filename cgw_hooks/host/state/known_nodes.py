"""The file that says which other nodes the registry names, for the return paths.

The agent writes it, and every process of cgw reads it. It is not deleted while the registry is
silent. Hook calls load this module if the config has a registry and a steered guest network.
"""

from __future__ import annotations

import os

from cgw_hooks.core import json_text
from cgw_hooks.core.parse.known_nodes import node_from_texts, node_to_texts
from cgw_hooks.errors import RecordError
from cgw_hooks.host.state.directory import make_safe_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgw_hooks.core.node_config import RemoteNode

#: The folder has nothing else, so that the agent can watch it.
_FOLDER, _NAME = "nodes", "nodes.json"


class KnownNodes:
    """The file below the runtime directory ``directory``."""

    def __init__(self, directory: str) -> None:
        self.folder = os.path.join(directory, _FOLDER)
        self._path = os.path.join(self.folder, _NAME)
        self._read: tuple[object, tuple[RemoteNode, ...]] = None, ()

    @property
    def is_there(self) -> bool:
        """Whether the agent has ever written the file."""
        return os.path.exists(self._path)

    def read(self) -> tuple[RemoteNode, ...]:
        """Return the nodes, the oldest first; none if there is no file, or it cannot be read.

        This returns the same object for as long as the file is the same.
        """
        try:
            found = os.stat(self._path)
            version = found.st_ino, found.st_mtime_ns, found.st_size
            if version != self._read[0]:
                self._read = version, self._nodes()
        except OSError:
            self._read = None, ()
        return self._read[1]

    def _nodes(self) -> tuple[RemoteNode, ...]:
        with open(self._path, encoding="utf-8") as file:
            text = file.read()
        try:
            return tuple(node_from_texts(*listed) for listed in json_text.loads(text))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return ()

    def write(self, nodes: Iterable[RemoteNode]) -> None:
        """Replace the file; a reader sees either the old or the new one. Raises ``RecordError``."""
        text = json_text.dumps([[node.name, *node_to_texts(node)] for node in nodes])
        try:
            make_safe_directory(self.folder)
            with open(self._path + ".new", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(self._path + ".new", self._path)
        except OSError as error:
            raise RecordError(
                self._path, f"it cannot be written: {error.strerror}", "run: cgw sync"
            ) from error

    def remove(self) -> None:
        """Remove the file, if there is one: the config names no registry."""
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise RecordError(
                self._path, f"it cannot be removed: {error.strerror}", "run: cgw sync"
            ) from error
