"""Guests that live on other nodes: published here too, until they live here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import network
from tests.lab.domain import guest_uuid
from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import FULL_NAT, NODE, NODE_AMONG_GUESTS
from tests.netns.conftest import NodeMaker
from tests.netns.guest import DONE, Guest
from tests.netns.node import Node
from tests.netns.parameters import families

pytestmark = pytest.mark.netns

CONFLICT = 4
WEB1, WEB2 = 11, 12


def peer(name: str, octet: int, *publish: str, uuid: str = "") -> str:
    """A guest of another node, as the config has it."""
    addresses = [network.guest_address(octet), network.guest_address6(octet)]
    identity = f'name = "{name}"\n' + (f'uuid = "{uuid}"\n' if uuid else "")
    return f"[[remote-guest]]\n{identity}address = {addresses}\npublish = {[*publish]}\n"


def annotation(octet: int, port: int, address: bool = True) -> str:
    """The same as a file of guests.d."""
    where = f' address="{network.guest_address(octet)}"' if address else ""
    return (
        f'<publish xmlns="urn:cgw-hooks:1"{where}><portForward proto="tcp">'
        f'<range start="{port}" to="22"/></portForward></publish>'
    )


class Cluster:
    """A node, and what its config says of the guests elsewhere."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.files = node.folder / "guests.d"
        self.files.mkdir()

    def file(self, name: str, text: str) -> Path:
        """A file of guests.d, without a sync yet."""
        path = self.files / f"{name}.xml"
        path.write_text(text)
        return path

    def set_peers(self, *peers: str) -> str:
        """Write the config with these, and publish them; what `cgw` complains about."""
        self.node.configure(FULL_NAT + "".join(peers))
        return self.node.cgw("node", "up", check=False).stderr.strip()

    def forget_all(self) -> None:
        """Take every guest out of the config and the files."""
        for file in self.files.iterdir():
            file.unlink()
        assert self.set_peers() == ""


@pytest.fixture
def cluster(make_node: NodeMaker) -> Iterator[Cluster]:
    made = Cluster(make_node(FULL_NAT))
    yield made
    made.node.stop_all_guests()
    made.forget_all()
    made.node.cgw("node", "down")


@pytest.fixture
def web1(cluster: Cluster) -> Guest:
    """On the guests' network; at first no guest of this node."""
    addresses = f"{network.guest_address(WEB1)} {network.guest_address6(WEB1)}"
    return cluster.node.guest(
        "web1",
        "2202:22",
        "2207:7",
        "5300:53/udp",
        serves="7/tcp-echo 22/tcp 80/tcp 53/udp",
        addresses=addresses,
    )  # fmt: skip


@families
def test_a_guest_of_another_node_answers_through_this_one(
    client: Asker, cluster: Cluster, family: int
) -> None:
    cluster.node.guest("web1", serves="22/tcp 53/udp", family=family)
    assert cluster.set_peers(peer("web1", WEB1, "2202:22", "5300-5309:53/udp")) == ""
    seen = NODE_AMONG_GUESTS[family]
    assert client.asks(NODE[family], 2202) == f"web1 saw {seen}"
    assert client.asks(NODE[family], 5300, "udp") == f"web1 saw {seen}"
    assert cluster.node.states() == {"web1": "published"}
    cluster.forget_all()
    assert client.asks(NODE[family], 2202) == REFUSED


def test_a_guest_that_comes_here_changes_nothing_that_a_client_could_notice(
    client: Asker, cluster: Cluster, web1: Guest
) -> None:
    cluster.set_peers(peer("web1", WEB1, "2202:22", "2207:7", "5300:53/udp"))
    node = cluster.node
    away, files = node.our_table(), node.files()
    with client.tcp_session(NODE[4], 2207) as session, client.udp_sender(NODE[4], 5300) as sender:
        for operation in ("prepare", "start", "started", "stopped", "release"):
            assert web1.hook(operation, "destroyed" if operation == "release" else "-") == DONE
            assert session.exchange(operation) == operation
            assert sender.exchange().answered
            assert client.asks(NODE[4], 2202) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
            assert node.our_table() == away
    assert node.files() == files


@pytest.mark.parametrize("shared", [["2202:80"], []], ids=["a port shared", "none shared"])
def test_while_a_guest_lives_here_its_own_annotation_counts(
    client: Asker, cluster: Cluster, web1: Guest, shared: list[str]
) -> None:
    cluster.set_peers(peer("web1", WEB1, *shared, "8080:80"))
    assert client.asks(NODE[4], 8080) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
    web1.start()
    assert {"published", "overridden"} == states(cluster.node)
    assert client.asks(NODE[4], 2202) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
    assert client.asks(NODE[4], 8080) == REFUSED
    web1.stop()
    assert {"published"} == states(cluster.node)
    assert client.asks(NODE[4], 8080) == f"web1 saw {NODE_AMONG_GUESTS[4]}"


@pytest.mark.parametrize("first", ["the guest starts", "the config says so"])
def test_a_guest_may_be_known_elsewhere_by_another_name(
    client: Asker, cluster: Cluster, web1: Guest, first: str
) -> None:
    """Virsh migrate --dname: its uuid tells that it is the same."""
    known = peer("web1-before", WEB1, "2202:22", uuid=guest_uuid(WEB1))
    if first == "the guest starts":
        web1.start()
        assert cluster.set_peers(known) == ""
    else:
        cluster.set_peers(known)
        web1.start()
    assert cluster.node.states() == {"web1": "published", "web1-before": "overridden"}
    web1.stop()
    assert cluster.node.states() == {"web1-before": "published"}
    assert client.asks(NODE[4], 2202) == f"web1 saw {NODE_AMONG_GUESTS[4]}"


def test_a_guest_that_wants_a_port_of_one_elsewhere_is_refused(
    client: Asker, cluster: Cluster, web1: Guest
) -> None:
    cluster.node.guest("web2", serves="22/tcp", octet=WEB2)
    cluster.set_peers(peer("web2", WEB2, "2202:22"))
    refused = web1.hook("prepare")
    assert refused.exit_code == CONFLICT
    said = 'port *:2202/tcp is published by guest "web2" of another node (remote-guest "web2")'
    assert said in refused.complaint
    web1.stop()
    assert client.asks(NODE[4], 2202) == f"web2 saw {NODE_AMONG_GUESTS[4]}"


def test_a_guest_elsewhere_cannot_take_a_port_of_one_here(
    client: Asker, cluster: Cluster, web1: Guest
) -> None:
    web1.start()
    complaint = cluster.set_peers(peer("web2", WEB2, "2202:22", "8080:80"))
    assert 'guest "web2": port *:2202/tcp is published by guest "web1"' in complaint
    assert cluster.node.states() == {"web1": "published", "web2": "not published"}
    assert client.asks(NODE[4], 2202) == f"web1 saw {NODE_AMONG_GUESTS[4]}"


def test_a_flushed_ruleset_comes_back_with_the_peers(
    client: Asker, cluster: Cluster, web1: Guest
) -> None:
    cluster.set_peers(peer("web1", WEB1, "2202:22"), peer("web2", WEB2, "2203:22"))
    web1.start()
    before = cluster.node.our_table()
    cluster.node.nft("flush table inet cgw\n" + "delete table inet cgw\n")
    cluster.node.guest("web3", "2204:22").start()
    assert "2203" in cluster.node.our_table()
    cluster.node.guests[-1].stop()
    assert cluster.node.our_table() == before
    assert client.asks(NODE[4], 2202) == f"web1 saw {NODE_AMONG_GUESTS[4]}"


def test_a_file_to_each_guest_does_as_well(client: Asker, cluster: Cluster, web1: Guest) -> None:
    cluster.file("web1", annotation(WEB1, 2202))
    assert cluster.set_peers() == ""
    assert client.asks(NODE[4], 2202) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
    web1.start()
    assert {"published", "overridden"} == states(cluster.node)


def test_a_file_without_an_address_is_no_guest_elsewhere(cluster: Cluster) -> None:
    """It tells a local hook what its guest publishes."""
    cluster.file("web1", annotation(WEB1, 2202, address=False))
    assert cluster.set_peers() == ""
    assert cluster.node.files() == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<publish", 'guest "web1": <domain>: the XML cannot be read'),
        (annotation(WEB1, 0), 'guest "web1": <range start> "0"'),
        (annotation(254, 2202), "that is the gateway's address"),
    ],
)
def test_a_file_that_is_broken_takes_nothing_away(
    client: Asker, cluster: Cluster, web1: Guest, text: str, problem: str
) -> None:
    cluster.file("web1", annotation(WEB1, 2202))
    cluster.set_peers()
    cluster.file("web1", text)
    assert problem in cluster.set_peers()
    assert client.asks(NODE[4], 2202) == f"{web1.name} saw {NODE_AMONG_GUESTS[4]}"


def test_a_file_that_others_could_have_written_is_not_read(cluster: Cluster) -> None:
    cluster.file("web1", annotation(WEB1, 2202)).chmod(0o666)
    assert "others than root can write to it" in cluster.set_peers()
    assert cluster.node.states() == {"web1": "not published"}
    assert "elements = { 6" not in cluster.node.our_table()


def states(node: Node) -> set[str]:
    """The states of all rows of `cgw status`."""
    return {row["state"] for row in node.status_rows()}


# -- decided as one set ----------------------------------------------------------------------


def entry(name: str, octet: int, *publish: str, uuid: str = "") -> str:
    """A guest of another node with an IPv4 address, and perhaps its uuid."""
    identity = f'uuid = "{uuid}"\n' if uuid else ""
    return (
        f'[[remote-guest]]\nname = "{name}"\naddress = "{network.guest_address(octet)}"\n'
        f"{identity}publish = {[*publish]}\n"
    )


@pytest.fixture
def served(cluster: Cluster) -> list[Guest]:
    """Three on the guests' network, web1 to web3, that run on another node."""
    return [cluster.node.guest(f"web{n}", serves="22/tcp 22/udp", octet=10 + n) for n in (1, 2, 3)]


def asked(client: Asker, *ports: int, protocol: str = "tcp") -> list[str]:
    """Who answers at each port."""
    return [client.asks(NODE[4], port, protocol).split()[0] for port in ports]


@pytest.mark.usefixtures("served")
def test_two_guests_elsewhere_may_have_one_address(client: Asker, cluster: Cluster) -> None:
    """Two entries for the services of one guest, for example; local guests are published too."""
    entries = entry("ssh", WEB1, "2202:22"), entry("dns", WEB1, "2203:22/udp")
    assert cluster.set_peers(*entries) == ""
    local = cluster.node.guest("web4", "2204:22", serves="22/tcp", octet=14)
    local.start()
    assert asked(client, 2202, 2204) == ["web1", "web4"]
    assert asked(client, 2203, protocol="udp") == ["web1"]
    assert states(cluster.node) == {"published"}
    assert cluster.set_peers(*entries) == ""


@pytest.mark.usefixtures("served")
def test_one_sync_swaps_the_ports_of_two_guests_elsewhere(client: Asker, cluster: Cluster) -> None:
    cluster.set_peers(entry("web1", WEB1, "2202:22/udp"), entry("web2", WEB2, "2203:22/udp"))
    with client.udp_sender(NODE[4], 2202) as sender:
        assert sender.exchange().guest == "web1"
        swapped = entry("web1", WEB1, "2203:22/udp"), entry("web2", WEB2, "2202:22/udp")
        assert cluster.set_peers(*swapped) == ""
        assert asked(client, 2202, 2203, protocol="udp") == ["web2", "web1"]
        assert sender.exchange().guest == "web2"
    assert states(cluster.node) == {"published"}


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("step", [1, -1])
def test_one_sync_moves_a_chain_of_guests_elsewhere(
    client: Asker, cluster: Cluster, step: int
) -> None:
    """Each gets the port that another one gives up."""

    def entries(first: int) -> list[str]:
        return [entry(f"web{n}", 10 + n, f"{first + n}:22") for n in (1, 2, 3)]

    cluster.set_peers(*entries(2200))
    assert asked(client, 2201, 2202, 2203) == ["web1", "web2", "web3"]
    assert cluster.set_peers(*entries(2200 + step)) == ""
    assert asked(client, *(2200 + step + n for n in (1, 2, 3))) == ["web1", "web2", "web3"]
    assert asked(client, 2201 if step == 1 else 2203) == [REFUSED]


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    "second",
    [entry("web2", WEB2, "2202:22"), entry("web2", WEB1, "2202:80")],
    ids=["of two addresses", "of one address"],
)
def test_of_two_elsewhere_that_want_one_port_the_second_is_refused_by_both_names(
    client: Asker, cluster: Cluster, second: str
) -> None:
    local = cluster.node.guest("web4", "2204:22", serves="22/tcp", octet=14)
    local.start()
    complaint = cluster.set_peers(
        entry("web1", WEB1, "2202:22"), second, entry("web3", 13, "2203:22")
    )
    assert complaint.count("\n") == 0
    assert '"web2": port *:2202/tcp is published by guest "web1"' in complaint
    assert 'remote-guest "web1"' in complaint
    assert asked(client, 2202, 2203, 2204) == ["web1", "web3", "web4"]
    shown = cluster.node.states()
    assert shown["web2"] == "not published"
    assert {shown[name] for name in ("web1", "web3", "web4")} == {"published"}
    local.stop()


@pytest.mark.usefixtures("served")
def test_a_refused_entry_keeps_what_it_had_while_nobody_else_wants_it(
    client: Asker, cluster: Cluster
) -> None:
    cluster.set_peers(entry("web1", WEB1, "2202:22"), entry("web2", WEB2, "2203:22"))
    complaint = cluster.set_peers(entry("web1", WEB1, "2202:22"), entry("web2", WEB2, "2202:22"))
    assert '"web2": port *:2202/tcp is published by guest "web1"' in complaint
    assert asked(client, 2202, 2203) == ["web1", "web2"]


# -- who is the same guest -------------------------------------------------------------------


def test_the_uuid_of_an_entry_tells_the_guest_whatever_it_is_called(
    client: Asker, cluster: Cluster
) -> None:
    """Virsh migrate --dname, and an address that has changed as well."""
    local = cluster.node.guest("web1", "2202:22", serves="22/tcp", octet=WEB1)
    cluster.node.guest("web2", serves="22/tcp", octet=WEB2)
    complaint = cluster.set_peers(entry("before", WEB2, "2202:22", uuid=guest_uuid(WEB1)))
    assert complaint == ""
    assert asked(client, 2202) == ["web2"]
    local.start()
    assert asked(client, 2202) == ["web1"]
    assert cluster.node.states() == {"web1": "published", "before": "overridden"}
    assert cluster.set_peers(entry("before", WEB2, "2202:22", uuid=guest_uuid(WEB1))) == ""
    assert asked(client, 2202) == ["web1"]
    local.stop()
    assert asked(client, 2202) == ["web2"]


@pytest.mark.parametrize(
    ("name", "octet", "uuid"),
    [
        ("web1", WEB2, ""),
        ("web2", WEB1, ""),
        ("web1", WEB1, guest_uuid(WEB2)),
    ],
    ids=["its name alone", "its address alone", "both, and another uuid"],
)
def test_a_guest_that_only_resembles_one_elsewhere_does_not_get_its_port(
    client: Asker, cluster: Cluster, name: str, octet: int, uuid: str
) -> None:
    """Whoever may define guests chooses names and addresses; the port is the other one's."""
    served_by = cluster.node.guest(f"served{octet}", serves="22/tcp", octet=octet)
    impostor = cluster.node.guest(
        "web1", "2202:80", octet=WEB1, addresses=network.guest_address(WEB1)
    )
    assert cluster.set_peers(entry(name, octet, "2202:22", uuid=uuid)) == ""
    refused = impostor.hook("prepare")
    assert refused.exit_code == CONFLICT
    assert f'is published by guest "{name}" of another node' in refused.complaint
    assert impostor.hook("started") == DONE
    assert asked(client, 2202) == [served_by.name]
    impostor.stop()
    assert asked(client, 2202) == [served_by.name]
