"""A host on the network of a test, in its own namespace: it asks ports and serves ports."""

from contextlib import ExitStack
from ipaddress import IPv6Address, ip_address

from tests.lab.client import DEFAULT_PATIENCE, Client
from tests.lab.namespace import Namespace
from tests.lab.reply import Reply
from tests.lab.server import serve
from tests.netns.specs import services

REFUSED = "refused"
TIMED_OUT = "timed out"
#: The timeout if silence is expected. A test waits for all of it, so it is short.
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
        """Return who answers and which source it saw: "web1 saw 10.5.5.251"; or why nobody does."""
        return spoken(self.ask(protocol, address, port, timeout=patience))

    def is_unanswered(self, address: str, port: int, protocol: str = "tcp") -> bool:
        """Whether nobody answers there, for any reason."""
        reply = self.ask(protocol, address, port, timeout=PATIENCE_FOR_NOTHING)
        return not reply.answered

    def serve(self, address: str, what: str, name: str | None = None) -> None:
        """Answer at ports ("22/tcp 53/udp") of one of its addresses until the test ends."""
        for port, protocol in services(what):
            server = serve(self.namespace, address, protocol, port, name or self.name)
            self._until_end.enter_context(server)


def spoken(reply: Reply) -> str:
    """Format a reply as the tests write it."""
    if not reply.answered:
        return reply.outcome.value
    peer = ip_address(reply.peer)
    # A server on :: sees IPv4 clients in this form.
    mapped = peer.ipv4_mapped if isinstance(peer, IPv6Address) else None
    return f"{reply.guest} saw {mapped or peer}"
