"""A guest of a node under test: its definition, its hook calls, its network."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.lab import domain
from tests.netns.asker import Asker
from tests.netns.specs import port_forward

if TYPE_CHECKING:
    from tests.netns.node import Node

_PUBLISH = re.compile(r"(<cgw:publish [^>]*>).*?</cgw:publish>", flags=re.DOTALL)


@dataclass(frozen=True)
class Finished:
    """How a hook call ended."""

    exit_code: int
    complaint: str


DONE = Finished(0, "")


@dataclass(frozen=True)
class Guest:
    """A guest of a node: its definition, and a host on the network if it serves anything."""

    node: "Node"
    name: str
    octet: int
    xml: str
    asker: Asker | None = None
    hooked: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The key of its record."""
        return f"qemu-{domain.guest_uuid(self.octet)}"

    @property
    def wire(self) -> Asker:
        """The guest as a host on the network."""
        assert self.asker, f"{self.name} serves nothing, so it is not on the wire"
        return self.asker

    def asks(self, address: str, port: int, protocol: str = "tcp") -> str:
        """Ask from inside the guest."""
        return self.wire.asks(address, port, protocol)

    def reflect_on_port(self) -> None:
        """Let the bridge send a packet back to the port that it came from."""
        self.node.namespace.ip(f"link set guest{self.octet} type bridge_slave hairpin on")

    def hook(
        self, operation: str, reason: str = "-", *, xml: str | bytes | None = None
    ) -> Finished:
        """Call the hook once, with the guest's XML or another one."""
        self.hooked.append(operation)
        return self.node.hook(self.name, operation, reason, self.xml if xml is None else xml)

    def start(self, *, xml: str | None = None) -> None:
        """Make all hook calls of a start; none must be refused."""
        for operation in ("prepare", "start", "started"):
            assert self.hook(operation, xml=xml) == DONE

    def stop(self, reason: str = "-", *, xml: str | None = None) -> None:
        """Make all hook calls of a stop."""
        assert self.hook("stopped", xml=xml) == DONE
        assert self.hook("release", reason, xml=xml) == DONE
        self.hooked.clear()


def annotated(guest: Guest, *publish: str) -> str:
    """Return the guest's definition with another annotation, or without one."""
    opening = _PUBLISH.search(guest.xml)
    assert opening
    inner = "".join(map(port_forward, publish))
    return guest.xml.replace(opening[0], f"{opening[1]}{inner}</cgw:publish>" if inner else "")
