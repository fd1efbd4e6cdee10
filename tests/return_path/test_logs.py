"""What servers log of their clients: what fail2ban, rate limits and mail filters go by."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.return_path.cluster import Cluster
from tests.return_path.moving_guest import MovingGuest
from tests.return_path.servers import HTTP, SMTP, SSH, Servers, running_servers
from tests.return_path.way import Way

pytestmark = pytest.mark.return_path

PATIENCE = 60.0
#: What each server writes of a client, for its address.
WORDS = {HTTP: "{} - - [", SSH: "Connection from {} port ", SMTP: " connect from unknown[{}]"}
_VISIT = (b"SSH-2.0-visitor\r\n", b"QUIT\r\n")


@pytest.fixture(scope="package")
def servers(built: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers, in web2."""
    folder: Path = tmp_path_factory.mktemp("servers") / "shared"
    with running_servers(built.guests["web2"].wire.namespace, folder) as made:
        yield made


@pytest.mark.parametrize("who", ["client", "far"])
def test_servers_log_the_clients_address(
    servers: Servers, way: Way, placed: MovingGuest, who: str
) -> None:
    """With FULL-NAT, the node's."""
    for port in (HTTP, SSH, SMTP):
        before = servers.log(port)
        visit(way, who, port)
        words = WORDS[port].format(way.seen(who))
        assert words in servers.until_logged(port, words, before)
    assert placed.name == way.guest.name


def visit(way: Way, who: str, port: int) -> None:
    """Connect, and be answered in the server's own protocol."""
    client, address = way.made.asker(who).namespace, (way.entry_address, way.port(port))
    family = socket.AF_INET6 if way.family == 6 else socket.AF_INET
    with client.call(lambda: socket.socket(family)) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(address)
        if port == HTTP:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert connection.recv(12).startswith(b"HTTP/1.1 204")
        else:
            assert connection.recv(4) in {b"SSH-", b"220 "}
            connection.sendall(_VISIT[port == SMTP])
