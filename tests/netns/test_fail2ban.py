"""docs/examples/fail2ban with the real fail2ban: what a client's packets meet."""

import itertools
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.lab.fail2ban import Fail2ban
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NODE_AMONG_GUESTS, THIRD
from tests.netns.conftest import NodeMaker
from tests.netns.node import CHECKOUT, Node
from tests.netns.test_bans import eventually, is_silent, listed

pytestmark = pytest.mark.netns

EXAMPLES = CHECKOUT / "docs/examples/fail2ban"
JAIL = "guest-sshd"


class Guarded:
    """A node whose fail2ban reads the log of a guest's sshd."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self._ports = itertools.count(4001)
        self.auth_log = folder / "auth.log"
        self.auth_log.touch()
        self.fail2ban = Fail2ban(node.namespace, folder, node.environment())
        self.fail2ban.add_examples(EXAMPLES)
        (self.fail2ban.config / "jail.local").write_text(
            f"[{JAIL}]\nlogpath = {self.auth_log}\nmaxretry = 2\n"
        )

    def fail_twice(self, address: str) -> None:
        """Let a client give a wrong password for the last time that is forgiven, and once more."""
        with self.auth_log.open("a") as log:
            for _ in range(2):
                port = next(self._ports)  # fail2ban takes lines of one process for one client
                now = time.strftime("%b %d %H:%M:%S")
                log.write(
                    f"{now} web1 sshd[{port}]: Failed password for root from {address} "
                    f"port {port} ssh2\n"
                )

    def said(self) -> str:
        """What fail2ban has logged."""
        return self.fail2ban.log.read_text()


@pytest.fixture
def guarded(node: Node, tmp_path: Path) -> Guarded:
    folder = tmp_path / "fail2ban"
    folder.mkdir()
    node.guest(
        "web1", "2202:22", serves="22/tcp", family=4, addresses="10.5.5.11,fd00:5::11"
    ).wire.serve("fd00:5::11", "22/tcp")
    node.guests[0].start()
    return Guarded(node, folder)


def test_fail2ban_bans_and_unbans_clients_of_published_ports(
    client: Asker, third: Asker, guarded: Guarded
) -> None:
    node = guarded.node
    with guarded.fail2ban.running() as process:
        for family in (4, 6):
            guarded.fail_twice(CLIENT[family])
            banned = eventually(partial(is_silent, client, family=family))
            assert banned, guarded.said()
            assert third.asks(NODE[family], 2202).startswith("web1")
        bans = listed(node)
        assert set(bans) == {CLIENT[4], CLIENT[6]}
        assert {ban["by"] for ban in bans.values()} == {f"fail2ban-{JAIL}"}
        assert all(ban["until"] for ban in bans.values())
        guarded.fail2ban.client("set", JAIL, "unbanip", CLIENT[4])
        assert client.asks(NODE[4], 2202).startswith("web1")
        assert is_silent(client, family=6)
        node.cgw("deny", THIRD[4])
        process.send_signal(signal.SIGTERM)  # flushes the jail's bans alone
        process.wait()
    assert client.asks(NODE[6], 2202).startswith("web1")
    assert set(listed(node)) == {THIRD[4]}
    assert "ERROR" not in guarded.said()


@pytest.mark.extended
def test_a_ban_of_fail2ban_ends_though_fail2ban_was_killed(client: Asker, guarded: Guarded) -> None:
    with guarded.fail2ban.running() as process:
        guarded.fail2ban.client("set", JAIL, "bantime", "5")
        guarded.fail2ban.client("set", JAIL, "banip", CLIENT[4])
        assert eventually(lambda: is_silent(client))
        process.kill()
        process.wait()
    assert client.until_answered("tcp", NODE[4], 2202).answered


@pytest.mark.extended
def test_a_ban_without_an_end_has_none(client: Asker, guarded: Guarded) -> None:
    with guarded.fail2ban.running():
        guarded.fail2ban.client("set", JAIL, "bantime", "-1")
        guarded.fail2ban.client("set", JAIL, "banip", CLIENT[4])
        assert eventually(lambda: is_silent(client))
        assert listed(guarded.node)[CLIENT[4]]["until"] is None


@pytest.mark.extended
def test_fail2ban_cannot_ban_the_node_that_full_nat_shows_as_the_client(
    make_node: NodeMaker, client: Asker, tmp_path: Path
) -> None:
    node = make_node(FULL_NAT)
    node.guest("web1", "2202:22", serves="22/tcp").start()
    folder = tmp_path / "fail2ban"
    folder.mkdir()
    guarded = Guarded(node, folder)
    (guarded.fail2ban.config / "jail.local").open("a").write("ignoreip = 127.0.0.1\n")
    with guarded.fail2ban.running():
        guarded.fail_twice(NODE_AMONG_GUESTS[4])
        assert eventually(lambda: "which guests see as the client" in guarded.said())
    assert listed(node) == {}
    assert client.asks(NODE[4], 2202).startswith("web1")
