"""Which ports a node's processes listen on: real sockets, in a namespace of the test's own."""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cgw_hooks.host import listeners, netlink
from tests.lab.namespace import Namespace, namespace

pytestmark = pytest.mark.netns

HERE = {4: "192.0.2.1", 6: "2001:db8::1"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
ANY = {4: "0.0.0.0", 6: "::"}
#: Not an address of this host, or not yet.
ABSENT = {4: "192.0.2.9", 6: "2001:db8::9"}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_TYPE = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}

families = pytest.mark.parametrize("family", [4, 6])
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])


class Host:
    """A host with an address of each family beside its loopback, and its open sockets."""

    def __init__(self, inside: Namespace, until_end: ExitStack) -> None:
        self.namespace = inside
        self._until_end = until_end

    def binds(
        self, protocol: str, address: str, port: int, *options: tuple[int, int, int]
    ) -> socket.socket:
        """Bind a socket with options; a TCP socket listens then."""
        family = 6 if ":" in address else 4

        def make() -> socket.socket:
            made = socket.socket(_FAMILY[family], _TYPE[protocol])
            self._until_end.enter_context(made)
            for option in options:
                made.setsockopt(*option)
            made.bind((address, port))
            if protocol == "tcp":
                made.listen()
            return made

        return self.namespace.call(make)

    def connects(self, protocol: str, address: str, port: int, *, own_port: int) -> socket.socket:
        """Connect a socket that is bound to a port of its own."""
        family = 6 if ":" in address else 4

        def make() -> socket.socket:
            made = socket.socket(_FAMILY[family], _TYPE[protocol])
            self._until_end.enter_context(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((LOOPBACK[family], own_port))
            made.connect((address, port))
            return made

        return self.namespace.call(make)

    def listens(self, *asked: str) -> list[str]:
        """Say what listens, as "tcp 192.0.2.1 2202"."""
        found = self.namespace.call(lambda: listeners.listening(asked or ("tcp", "udp", "sctp")))
        return sorted(f"{one.protocol} {one.address} {one.port}" for one in found)


@pytest.fixture(params=["sock_diag", "proc"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Run each test twice: the kernel answers by sock_diag, and it does not."""
    with namespace("listeners") as inside, ExitStack() as until_end:
        inside.sysctl({"net/ipv6/conf/all/accept_dad": "0"})
        inside.ip(f"address add {HERE[4]}/32 dev lo\naddress add {HERE[6]}/128 dev lo nodad\n")
        if request.param == "proc":
            # A message type that sock_diag does not know: the kernel refuses with EINVAL.
            monkeypatch.setattr(listeners, "_SOCK_DIAG_BY_FAMILY", 99)
        yield Host(inside, until_end)


def only_with_sock_diag(request: pytest.FixtureRequest) -> bool:
    return bool(request.node.callspec.params["host"] == "sock_diag")


def test_on_a_quiet_host_nobody_listens(host: Host) -> None:
    assert [] == host.listens()


@families
@protocols
def test_a_server_listens_on_its_own_address_alone(host: Host, protocol: str, family: int) -> None:
    host.binds(protocol, HERE[family], 2202)
    assert [f"{protocol} {HERE[family]} 2202"] == host.listens()


@protocols
def test_a_server_on_any_ipv4_address_listens_there(host: Host, protocol: str) -> None:
    host.binds(protocol, ANY[4], 2202)
    assert [f"{protocol} 0.0.0.0 2202"] == host.listens()


@protocols
def test_a_server_on_any_address_of_both_families_listens_on_both(
    host: Host, protocol: str
) -> None:
    host.binds(protocol, ANY[6], 2202, (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0))
    assert [f"{protocol} 0.0.0.0 2202", f"{protocol} :: 2202"] == host.listens()


@protocols
def test_a_server_for_ipv6_only_leaves_ipv4_alone(
    request: pytest.FixtureRequest, host: Host, protocol: str
) -> None:
    """/proc does not tell, so that without sock_diag IPv4 counts as taken, too."""
    host.binds(protocol, ANY[6], 2202, (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1))
    expected = [f"{protocol} :: 2202"]
    if not only_with_sock_diag(request):
        expected.insert(0, f"{protocol} 0.0.0.0 2202")
    assert expected == host.listens()


@protocols
def test_an_ipv4_address_on_an_ipv6_socket_is_an_ipv4_address(host: Host, protocol: str) -> None:
    host.binds(protocol, f"::ffff:{HERE[4]}", 2202, (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0))
    assert [f"{protocol} {HERE[4]} 2202"] == host.listens()


@families
def test_established_connections_are_no_listeners(host: Host, family: int) -> None:
    server = host.binds("tcp", HERE[family], 2202)
    host.connects("tcp", HERE[family], 2202, own_port=2300)
    accepted, _ = server.accept()
    with accepted:
        assert [f"tcp {HERE[family]} 2202"] == host.listens()
        server.close()
        assert [] == host.listens()


def test_a_connection_that_is_over_leaves_no_listener(host: Host) -> None:
    """TIME_WAIT: the kernel still keeps both ports for a minute."""
    server = host.binds("tcp", HERE[4], 2202, (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1))
    client = host.connects("tcp", HERE[4], 2202, own_port=2300)
    accepted, _ = server.accept()
    accepted.close()
    client.close()
    server.close()
    table = host.namespace.call(lambda: Path("/proc/thread-self/net/tcp").read_text())
    assert " 06 " in table  # TCP_TIME_WAIT
    assert [] == host.listens()


def test_a_tcp_socket_that_does_not_listen_is_no_listener(host: Host) -> None:
    def bound() -> socket.socket:
        made = socket.socket()
        made.bind((HERE[4], 2202))
        return made

    with host.namespace.call(bound):
        assert [] == host.listens()


@families
def test_a_connected_udp_socket_is_no_listener(host: Host, family: int) -> None:
    """A DNS client, for example: it takes answers of one server alone."""
    host.connects("udp", HERE[family], 53, own_port=2300)
    assert [] == host.listens()
    host.binds("udp", HERE[family], 53)
    assert [f"udp {HERE[family]} 53"] == host.listens()


@families
@protocols
def test_an_address_that_is_not_there_yet_is_listened_on(
    host: Host, protocol: str, family: int
) -> None:
    """Of the servers that may be started before their address comes: IP_FREEBIND."""
    level, freebind = {
        4: (socket.IPPROTO_IP, 15),  # IP_FREEBIND, include/uapi/linux/in.h
        6: (socket.IPPROTO_IPV6, 78),  # IPV6_FREEBIND, include/uapi/linux/in6.h
    }[family]
    host.binds(protocol, ABSENT[family], 2202, (level, freebind, 1))
    assert [f"{protocol} {ABSENT[family]} 2202"] == host.listens()


def test_several_sockets_of_one_port_are_one_listener(host: Host) -> None:
    for _ in range(3):
        host.binds("udp", HERE[4], 2202, (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1))
    assert [f"udp {HERE[4]} 2202"] == host.listens()


def test_only_the_protocols_asked_for_are_told(host: Host) -> None:
    host.binds("tcp", HERE[4], 2202)
    host.binds("udp", HERE[4], 2203)
    assert [f"udp {HERE[4]} 2203"] == host.listens("udp")


def test_more_listeners_than_one_answer_holds_are_all_told(host: Host) -> None:
    """The kernel's answer comes in parts of 32 KiB."""
    for port in range(2000, 2900):
        host.binds("udp", HERE[4], port)
    assert [f"udp {HERE[4]} {port}" for port in range(2000, 2900)] == host.listens("udp")


def sctp_server(port: int) -> socket.socket | None:
    """A listening SCTP socket, None where the kernel has no SCTP."""
    try:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    except OSError as error:
        if error.errno in {errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT}:
            return None
        raise
    made.bind((HERE[4], port))
    made.listen()
    return made


def test_an_sctp_server_listens_where_the_kernel_has_sctp(host: Host) -> None:
    """Where the kernel has none, nobody listens, and asking is no error."""
    server = host.namespace.call(lambda: sctp_server(2202))
    if server is None:
        assert [] == host.listens("sctp")
        return
    with server:
        assert [f"sctp {HERE[4]} 2202"] == host.listens("sctp")


def test_the_kernels_list_of_sctp_endpoints_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The format of net/sctp/proc.c; state 10 is a listening endpoint, 7 one that is bound."""
    (tmp_path / "sctp").mkdir()
    (tmp_path / "sctp/eps").write_text(
        " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n"
        "00000000b2c1 00000000a1b2 2   10  29   2202      0 12345 192.0.2.1 192.0.2.2 \n"
        "00000000b2c2 00000000a1b3 2   7   30   2203      0 12346 192.0.2.1 \n"
        "00000000b2c3 00000000a1b4 2   10  31   2204      0 12347"
        " 0000:0000:0000:0000:0000:0000:0000:0000 \n"
    )
    monkeypatch.setattr(listeners, "_PROC", f"{tmp_path}/")
    found = [f"{one.address} {one.port}" for one in listeners.listening(["sctp"])]
    assert ["192.0.2.1 2202", "192.0.2.2 2202", ":: 2204", "0.0.0.0 2204"] == found


@pytest.fixture
def asks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the requests to the kernel."""
    count = 0
    really = netlink.Channel.dump

    def dump(*arguments: object) -> object:
        nonlocal count
        count += 1
        return really(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(netlink.Channel, "dump", dump)
    return lambda: count


def test_the_kernel_is_asked_once_for_a_protocol_and_family(asks: Callable[[], int]) -> None:
    with namespace("listeners") as inside:
        inside.call(lambda: listeners.listening(["tcp", "udp"]))
    assert asks() == 4
