"""What `cgw publish` and `cgw unpublish` are asked for, and what they have changed."""

from __future__ import annotations

from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.annotation import PortForward
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.core.parse.port_spec import FreePort
    from cgw_hooks.core.published_port import Address, ClientLimits, Network, PublishedPort
    from cgw_hooks.errors import CgwError


class Wish(NamedTuple):
    """What `cgw publish` is asked for. ``seconds`` None means without an end."""

    ports: tuple[PortForward | FreePort, ...]
    sources: tuple[Network, ...] = ()
    seconds: int | None = None
    guest_addresses: tuple[Address, ...] = ()
    #: Of each port that does not name its own.
    limits: ClientLimits | None = None


class Edit(NamedTuple):
    """One annotation, before and after."""

    place: str
    before: str | None
    after: str | None


class Outcome(NamedTuple):
    """What a command has changed, or would change."""

    name: str
    #: What the guest publishes now, or from its next start on; None if nothing.
    guest: Guest | None
    #: The ports that the command was asked for, as the guest publishes them.
    ports: list[PublishedPort]
    #: The ports of ``ports`` whose number was picked.
    picked: list[PublishedPort]
    #: Whether this node publishes the guest now.
    is_running: bool
    edits: list[Edit]
    #: The nft transaction, of a dry run only.
    ruleset: str = ""
    #: Why the registry has not admitted the ports yet; None if it has, or there is none.
    unconfirmed: CgwError | None = None
