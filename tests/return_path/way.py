"""The way of a test's packets: an entry node and an IP family, to a guest that may move."""

from dataclasses import dataclass
from typing import NamedTuple

from tests.netns.cluster import inside, uplink
from tests.return_path.cluster import CLIENT, FAR, TALK, WHO, Cluster, listening_port
from tests.return_path.moving_guest import MovingGuest
from tests.return_path.sessions import Connection, Exchange, Talker, connect

_ADDRESSES = {"client": CLIENT, "far": FAR}


class Move(NamedTuple):
    """A migration."""

    source: int
    target: int


@dataclass
class Way:
    """How a client reaches a guest; what the guest then sees."""

    made: Cluster
    guest: MovingGuest
    entry: int
    family: int

    @property
    def entry_address(self) -> str:
        """The address that the client asks."""
        return uplink(self.entry, self.family)

    @property
    def talker(self) -> Talker:
        """The guest's sockets."""
        return self.made.talkers[self.guest.name, self.family]

    def port(self, guest_port: int) -> int:
        """The port that the client asks, for a port of the guest."""
        return listening_port(self.guest.name, guest_port)

    def seen(self, who: str = "client") -> str:
        """The address that the guest must see of the client, or of the far client."""
        return self.made.seen_as(_ADDRESSES[who][self.family], self.entry)

    @property
    def seen_full_nat(self) -> str:
        """The address that the guest must see of nodes and guests, whatever the return path."""
        return inside(self.entry, self.family)

    def asks(self, who: str, protocol: str = "tcp") -> str:
        """What the guest says to the client, the far client, a node or a guest."""
        return self.made.asker(who).asks(self.entry_address, self.port(WHO), protocol)

    def connect(self, who: str = "client", *, source_port: int = 0) -> Connection:
        """Open a TCP connection, through which both sides have spoken."""
        opened = connect(
            self.made.asker(who).namespace, self.entry_address, self.port(TALK), self.talker,
            source_port=source_port,
        )  # fmt: skip
        self.made.opened.append(opened)
        assert opened.seen == self.seen(who)
        opened.client_speaks()
        return opened

    def exchange(self) -> Exchange:
        """Open a UDP exchange of the client, through which both sides have spoken."""
        opened = Exchange(
            self.made.client.namespace, self.entry_address, self.port(TALK), self.talker
        )
        self.made.opened.append(opened)
        opened.client_speaks()
        assert opened.seen == self.seen()
        return opened
