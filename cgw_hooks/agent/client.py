"""Asks this node's agent. Only commands do this; hooks have client.pl (see ``hook_server``)."""

from __future__ import annotations

import os
import socket

from cgw_hooks.agent.hook_server import STILL_WAITING
from cgw_hooks.core.guest import REGISTRY
from cgw_hooks.errors import RegistryError
from cgw_hooks.host import paths
from cgw_hooks.node.hook_answer import Answer

#: Seconds without a word after which the agent hangs.
_SECONDS = 5.0
_CURE = "run: systemctl start cgw"


def absence() -> RegistryError | None:
    """Return the error of a node whose agent does not run; None if it runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(_SECONDS)
        try:
            asked.connect(paths.agent_socket(paths.runtime_directory()))
        except OSError:
            return RegistryError("agent", "it does not run", _CURE)
    return None


def ask_registry(operation: str, subject: str = "", given: str = "") -> Answer:
    """Have the agent carry out something about the registry. Raises ``RegistryError``."""
    words = [REGISTRY, subject, operation, "-", "-"]
    body = b"".join(os.fsencode(word) + b"\0" for word in words) + given.encode()
    path = paths.agent_socket(paths.runtime_directory())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(_SECONDS)
        try:
            agent.connect(path)
            agent.sendall(len(body).to_bytes(4, "big") + body)
            found = b""
            while part := agent.recv(1 << 16):
                found += part
        except OSError as error:
            reason = "it does not answer" if isinstance(error, TimeoutError) else "it does not run"
            raise RegistryError("agent", reason, _CURE) from error
    answer = found.lstrip(STILL_WAITING)
    if not answer:
        raise RegistryError("agent", "it has ended without an answer", "run the command again")
    return Answer(answer[0], answer[1:].decode(errors="replace"))


def parts(line: str) -> tuple[str, str, str]:
    """Return subject, message and cure of an error that was sent as one line."""
    subject, _, rest = line.partition(": ")
    message, _, cure = rest.rpartition("; ")
    return (subject, message, cure) if message else (subject, rest, "")
