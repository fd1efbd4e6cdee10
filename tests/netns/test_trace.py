"""`cgw trace`: the way of a real packet, and of its answer."""

import pytest

from tests.netns.asker import Asker
from tests.netns.configs import FULL_NAT, NODE
from tests.netns.conftest import NodeMaker
from tests.netns.tracing import trace

pytestmark = pytest.mark.netns


def test_x(client: Asker, make_node: NodeMaker) -> None:
    node = make_node(FULL_NAT)
    web1 = node.guest("web1", "8080:80", serves="80/tcp")
    web1.start()
    told = trace(node, "web1:8080", lambda: client.asks(NODE[4], 8080))
    print(told.exit_code, told.problem)
    print(told.story)
    node.namespace.run(["iptables", "-P", "FORWARD", "DROP"])
    told = trace(node, "web1:8080", lambda: client.is_unanswered(NODE[4], 8080))
    print(told.exit_code, told.problem)
    print(told.story)
    node.namespace.run(["iptables", "-P", "FORWARD", "ACCEPT"])
    node.accept_foreign_tables()


def test_raw(client: Asker, make_node: NodeMaker) -> None:
    import subprocess
    import time

    node = make_node(FULL_NAT)
    web1 = node.guest("web1", "8080:80", serves="80/tcp")
    web1.start()
    from tests.netns.tracing import Tracing

    mon = subprocess.Popen(
        [*node.namespace.enter_command(), "nft", "monitor", "trace"], stdout=subprocess.PIPE
    )
    time.sleep(1)
    t = Tracing(node, "web1:8080", "--timeout", "5")
    client.asks(NODE[4], 8080)
    t.told()
    mon.terminate()
    print(mon.communicate()[0].decode())
