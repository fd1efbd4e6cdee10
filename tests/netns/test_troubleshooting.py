"""The commands of docs/troubleshooting.md that trace a client's packets."""

import os
import pty
import select
import subprocess

import pytest

from tests.documents import block
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, NODE
from tests.netns.node import Node

pytestmark = pytest.mark.netns

PAUSE = 0.2


def test_the_trace_shows_the_client_s_packets_and_can_be_removed(client: Asker, node: Node) -> None:
    begin, watch, end = block(
        "docs/troubleshooting.md#the-trace-helps-no-further"
    ).text.splitlines()
    node.guest("web1", "2202:22", serves="22/tcp").start()
    before = node.foreign_tables()
    node.namespace.run(["sh", "-ec", begin.replace("192.0.2.7", CLIENT[4])])
    terminal, other_end = pty.openpty()  # nft writes to a pipe only at its end
    with subprocess.Popen(
        [*node.namespace.enter_command(), *watch.split()], stdout=other_end
    ) as trace:
        seen = ""
        while "dnat" not in seen and trace.poll() is None:
            assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
            while select.select([terminal], [], [], PAUSE)[0]:
                seen += os.read(terminal, 65536).decode()
        trace.terminate()
    for descriptor in (terminal, other_end):
        os.close(descriptor)
    assert "inet cgw" in seen
    node.namespace.run(["sh", "-ec", end])
    assert node.foreign_tables() == before
