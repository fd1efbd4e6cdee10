"""Whoever is on the network of a test: asks ports, serves ports, in a namespace of its own."""

from contextlib import ExitStack
from ipaddress import IPv6Address, ip_address

from tests.lab.client import DEFAULT_PATIENCE, Client
from tests.lab.namespace import Namespace
from tests.lab.reply import Reply
from tests.lab.server import serve
from tests.netns.specs import services

REFUSED = "refused"
TIMED_OUT = "timed out"
#: Where silence is expected: as short as a stray answer needs, for all of it is waited.
PATIENCE_FOR_NOTHING = 0.4


class Asker(Client):
    """A host of the test."""

    def __init__(self, name: str, namespace: Namespace, until_end: ExitStack) -> None:
        super().__init__(namespace)
        self.name = name
        self.namespace = namespace
        self._until_end = until_end

    def asks(
        self, address: str, port: int, protocol: str = "tcp", *, patience: float = DEFAULT_PATIENCE
    ) -> str:
        """Who answers there and which source it saw, as "web1 saw 10.5.5.251"; or why nobody."""
        return spoken(self.ask(protocol, address, port, timeout=patience))

    def is_unanswered(self, address: str, port: int, protocol: str = "tcp") -> bool:
        """Whether nobody answers there, for whatever reason."""
        reply = self.ask(protocol, address, port, timeout=PATIENCE_FOR_NOTHING)
        return not reply.answered

    def serve(self, address: str, what: str, name: str | None = None) -> None:
        """Answer at ports of an own address ("22/tcp 53/udp") until the test ends."""
        for port, protocol in services(what):
            server = serve(self.namespace, address, protocol, port, name or self.name)
            self._until_end.enter_context(server)


def spoken(reply: Reply) -> str:
    """A reply as the tests write it."""
    if not reply.answered:
        return reply.outcome.value
    peer = ip_address(reply.peer)
    # A server on :: sees IPv4 clients so.
    mapped = peer.ipv4_mapped if isinstance(peer, IPv6Address) else None
    return f"{reply.guest} saw {mapped or peer}"
