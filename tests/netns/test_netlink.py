"""The netlink channel: what a real kernel says when something changes, is lost or is refused."""

import errno
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from cgw_hooks.host import netlink
from tests.lab.namespace import Namespace, namespace

pytestmark = pytest.mark.netns

#: More than the kernel hands over in one part of a dump.
MANY = 60
_GET_LINK, _DELETE_LINK, _NAME = 18, 17, 3  # RTM_GETLINK, RTM_DELLINK, IFLA_IFNAME
_LINK_MESSAGE = bytes(16)  # struct ifinfomsg
_LINK_GROUP = 1  # RTMGRP_LINK


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with many bridges."""
    with namespace("netlink") as inside:
        inside.ip("".join(f"link add br{number} type bridge\n" for number in range(MANY)))
        yield inside


def name(payload: memoryview) -> str:
    return bytes(netlink.attributes(payload[len(_LINK_MESSAGE) :])[_NAME]).rstrip(b"\0").decode()


def links(host: Namespace, read: Callable[[memoryview], str | None] = name) -> list[str]:
    def ask() -> list[str]:
        with netlink.Channel(netlink.ROUTE) as channel:
            return channel.dump(_GET_LINK, _LINK_MESSAGE, read)

    return host.call(ask)


def bridges(count: int) -> list[str]:
    return [f"br{number}" for number in range(count)]


def test_a_dump_of_many_parts_is_whole(host: Namespace) -> None:
    assert set(bridges(MANY)) <= set(links(host))


def test_what_is_not_wanted_is_left_out(host: Namespace) -> None:
    found = links(host, lambda payload: "found" if name(payload) == "br7" else None)
    assert ["found"] == found


def test_a_dump_during_which_something_changes_is_made_again(host: Namespace) -> None:
    """Otherwise it tells what was never there at one time: here a link that was deleted since."""
    told = []

    def read(payload: memoryview) -> str:
        if name(payload) == "br0":
            told.append("br0")
            host.ip("link delete br0\nlink add late type bridge\n")
        return name(payload)

    found = links(host, read)
    assert ["br0"] == told
    assert {"lo", *bridges(MANY)[1:], "late"} <= set(found)
    assert "br0" not in found


def test_a_dump_that_never_is_consistent_ends_with_an_error(host: Namespace) -> None:
    changes = 0

    def read(payload: memoryview) -> str:
        nonlocal changes
        if name(payload) == "br0":
            changes += 1
            host.ip(f"link add more{changes} type bridge\n")
        return name(payload)

    with pytest.raises(InterruptedError):
        links(host, read)
    assert changes > 1


def test_a_dump_of_which_answers_were_lost_is_made_again(host: Namespace) -> None:
    """The channel's buffer runs over: here from news that it never reads."""

    def ask() -> list[str]:
        with netlink.Channel(netlink.ROUTE) as channel:
            inner = channel._socket  # noqa: SLF001 - there is no other way to fill it
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            inner.bind((0, _LINK_GROUP))
            for number in range(MANY):
                host.ip(f"link set br{number} mtu 1400\n")
            return channel.dump(_GET_LINK, _LINK_MESSAGE, name)

    assert set(bridges(MANY)) <= set(host.call(ask))


def test_a_refused_request_has_the_kernels_error_number(host: Namespace) -> None:
    def ask() -> list[bytes]:
        with netlink.Channel(netlink.ROUTE) as channel:
            request = _LINK_MESSAGE + netlink.attribute(_NAME, b"absent\0")
            return channel.ask(_GET_LINK, request)

    with pytest.raises(OSError, match="ENODEV") as refused:
        host.call(ask)
    assert refused.value.errno == errno.ENODEV


def test_of_many_commands_each_has_its_own_result(host: Namespace) -> None:
    """More of them than go to the kernel at once; every second link is not there."""
    names = [f"br{number // 2}" if number % 2 else f"absent{number}" for number in range(2 * MANY)]
    bodies = [_LINK_MESSAGE + netlink.attribute(_NAME, each.encode() + b"\0") for each in names]

    def command() -> list[int]:
        with netlink.Channel(netlink.ROUTE) as channel:
            return channel.command(_DELETE_LINK, bodies)

    assert [errno.ENODEV, 0] * MANY == host.call(command)
    assert not set(bridges(MANY)) & set(links(host))


def test_no_commands_are_no_work(host: Namespace) -> None:
    with netlink.Channel(netlink.ROUTE) as channel:
        assert [] == channel.command(_DELETE_LINK, [])
    assert set(bridges(MANY)) <= set(links(host))


@pytest.mark.parametrize("length", [0, 1, 3])
def test_attributes_with_an_impossible_length_come_to_an_end(length: int) -> None:
    assert netlink.attributes(length.to_bytes(2, sys.byteorder) + bytes(30)) == {0: b""}
