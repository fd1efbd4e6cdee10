"""Hands hook calls to an agent as client.pl does, without the start of a process for each.

So calls on two nodes can begin within a millisecond, and thousands of them take no minutes.
"""

import socket

from cgw_hooks.agent.hook_server import STILL_WAITING
from cgw_hooks.host import paths
from tests.netns.guest import Finished
from tests.netns.node import Node

_LONGEST_ANSWER = 300.0


class Call:
    """One call that an agent has got; ``finish`` waits for its answer."""

    def __init__(self, node: Node, name: str, operation: str, xml: str, reason: str = "-") -> None:
        words = ("qemu", name, operation, "begin", reason)
        body = "".join(f"{word}\0" for word in words).encode() + xml.encode()
        self._agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._agent.settimeout(_LONGEST_ANSWER)
        self._agent.connect(paths.agent_socket(str(node.runtime)))
        self._agent.sendall(len(body).to_bytes(4, "big") + body)

    def finish(self) -> Finished:
        """Return how it has ended."""
        found = b""
        with self._agent:
            while part := self._agent.recv(1 << 16):
                found = (found + part).lstrip(STILL_WAITING)
        assert found, "the agent has ended without an answer"
        return Finished(found[0], found[1:].decode())


def call(node: Node, name: str, operation: str, xml: str, reason: str = "-") -> Finished:
    """Make a call, and wait for its answer."""
    return Call(node, name, operation, xml, reason).finish()
