"""A guest whose annotation was taken out, or is only in an XML comment, publishes nothing."""

import re
from collections.abc import Callable

import pytest

from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import CLIENT, NODE
from tests.netns.guest import DONE, Guest, annotated
from tests.netns.node import Node

pytestmark = pytest.mark.netns

_ANNOTATION = re.compile(r"<cgw:publish .*?</cgw:publish>", flags=re.DOTALL)


def commented_out(guest: Guest) -> str:
    """Its definition as an administrator leaves it who wants it back some day."""
    found = _ANNOTATION.search(guest.xml)
    assert found
    return guest.xml.replace(found[0], f"<!-- {found[0]} -->")


@pytest.fixture
def web1(node: Node) -> Guest:
    """A guest that is published."""
    made = node.guest("web1", "2202:22", "2207:7", serves="22/tcp 7/tcp-echo")
    made.start()
    return made


@pytest.mark.parametrize("edit", [commented_out, annotated], ids=["in a comment", "not there"])
@pytest.mark.parametrize("operation", ["reconnect", "started", "prepare"])
def test_the_ports_it_had_are_closed_and_free(
    client: Asker, node: Node, web1: Guest, edit: Callable[[Guest], str], operation: str
) -> None:
    with client.tcp_session(NODE[4], 2207) as session:
        assert session.exchange("hello") == "hello"
        assert web1.hook(operation, xml=edit(web1)) == DONE
        assert client.asks(NODE[4], 2202) == REFUSED
        with pytest.raises(ConnectionError):
            session.exchange("anybody?")
    assert node.records() == {}
    other = node.guest("web2", "2202:22", serves="22/tcp")
    other.start()
    assert client.asks(NODE[4], 2202) == f"web2 saw {CLIENT[4]}"


@pytest.mark.parametrize("operation", ["prepare", "started", "reconnect", "stopped", "release"])
def test_a_guest_whose_only_annotation_is_in_a_comment_is_none_of_ours(
    client: Asker, node: Node, operation: str
) -> None:
    guest = node.guest("web1", "2202:22", serves="22/tcp")
    assert guest.hook(operation, xml=commented_out(guest)) == DONE
    assert (node.records(), node.our_table()) == ({}, "")
    assert client.asks(NODE[4], 2202) == REFUSED
