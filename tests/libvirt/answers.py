"""A guest's published ports as most of these tests use them, and whether they answer."""

from tests.libvirt.hypervisor import Hypervisor
from tests.netns.configs import NODE_AMONG_GUESTS

ECHO_PORT = 7007
PUBLISHED = ("8080:80", "5353:53/udp", f"{ECHO_PORT}:7")


def assert_open(host: Hypervisor, name: str = "web1") -> None:
    """The guest answers over TCP on IPv4 and UDP on IPv6, and sees the node in FULL-NAT."""
    answers = [host.asks_until_answered(8080), host.asks_until_answered(5353, "udp", family=6)]
    assert [f"{name} saw {NODE_AMONG_GUESTS[family]}" for family in (4, 6)] == answers


def assert_closed(host: Hypervisor) -> None:
    """Nobody answers there: the node itself refuses, over UDP only so many times a second."""
    assert host.is_closed(8080)
    assert host.is_closed(5353, "udp", family=6)
