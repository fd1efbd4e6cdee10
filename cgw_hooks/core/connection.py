"""A connection to a published port, as the kernel tracks it."""

from __future__ import annotations

from cgw_hooks.core.flow import Flow
from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address

#: Index: enum tcp_conntrack of include/uapi/linux/netfilter/nf_conntrack_tcp.h.
TCP_STATES = (
    *("none", "syn-sent", "syn-received", "established", "fin-wait", "close-wait", "last-ack"),
    *("time-wait", "closed", "syn-sent"),
)
#: Index: enum sctp_conntrack of include/uapi/linux/netfilter/nf_conntrack_sctp.h.
SCTP_STATES = (
    *("none", "closed", "cookie-wait", "cookie-echoed", "established", "shutdown-sent"),
    *("shutdown-received", "shutdown-ack-sent", "heartbeat-sent", "heartbeat-acked"),
)
_ENDED = {"time-wait", "closed"}


class End(NamedTuple):
    """An address and a port."""

    address: Address
    port: int

    def __str__(self) -> str:
        """Return it as people read it, for example ``[fd00::1]:80``."""
        host = str(self.address)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


class Traffic(NamedTuple):
    """Bytes of whole IP packets."""

    #: From the client to the guest.
    received: int
    #: From the guest to the client.
    sent: int


class Connection(NamedTuple):
    """One tracked connection."""

    protocol: str
    client: End
    #: The address and port of this node that the client sends to.
    listen: End
    #: Who answers: the guest.
    target: End
    #: Whom the guest sees as its client: another one than ``client`` with FULL-NAT.
    seen_as: End
    #: The state of TCP or SCTP; of UDP ``answered`` or ``unanswered``.
    state: str
    #: None if the kernel does not count (net.netfilter.nf_conntrack_acct).
    traffic: Traffic | None = None
    #: Seconds since 1970; None if the kernel did not note it (nf_conntrack_timestamp).
    began: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the connection goes on; the kernel remembers ended ones for a while."""
        return self.state not in _ENDED

    @property
    def flow(self) -> Flow:
        """The connection as its published port is found (``PortFinder``)."""
        return Flow(self.protocol, *self.listen, *self.target)
