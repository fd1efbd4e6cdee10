"""Faults that no command cures, what is no fault, and how the findings are printed."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.doctor.broken_hosts import PORT
from tests.doctor.doctor import examine, faults, type_command
from tests.lab import network
from tests.lab.domain import guest_mac
from tests.lab.gateway_config import gateway_config, remote_node_table
from tests.lab.namespace import Namespace
from tests.netns import cluster as clusters
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, FULL_NAT, NODE
from tests.netns.conftest import NodeMaker
from tests.netns.node import Node
from tests.netns.own_mounts import own_mounts
from tests.netns.test_leases import Network

pytestmark = pytest.mark.doctor


@pytest.fixture
def node(make_node: NodeMaker) -> Node:
    """A node without a config file."""
    return make_node()


def first(node: Node, *arguments: str) -> dict[str, Any]:
    """The problem of the first finding, which must be a fault."""
    found = examine(node, *arguments)[0]
    assert found["verdict"] == "fail", found
    problem: dict[str, Any] = found["problem"]
    return problem


def verdicts(node: Node, check: str) -> set[str]:
    """The verdicts of one check."""
    return {each["verdict"] for each in examine(node) if each["check"] == check}


def test_a_guest_whose_service_does_not_run(node: Node) -> None:
    node.guest("web1", f"{PORT}:23", serves="22/tcp").start()
    problem = first(node)
    assert (problem["code"], problem["subject"]) == ("no-service", 'guest "web1"')
    assert "refuses a connection from this node to 10.5.5.11 port 23" in problem["message"]


def test_a_guest_whose_own_firewall_drops_the_packet(node: Node) -> None:
    guest = node.guest("web1", f"{PORT}:22", serves="22/tcp")
    guest.start()
    inside = guest.wire.namespace
    inside.run(["iptables", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "DROP"])
    problem = first(node)
    assert problem["code"] == "no-service"
    assert "does not answer a connection" in problem["message"]


def test_an_address_that_nobody_has(node: Node) -> None:
    guest = node.guest("web1", f"{PORT}:22", serves="22/tcp")
    guest.start()
    guest.wire.namespace.ip("address del 10.5.5.11/24 dev eth0\n")
    problem = first(node)
    assert problem["code"] == "no-neighbour"
    assert "nobody on guestbr0 answers for its address 10.5.5.11" in problem["message"]


@pytest.mark.parametrize("family", [4, 6])
def test_two_hosts_that_answer_for_one_address(node: Node, family: int) -> None:
    node.guest("web1", f"{PORT}:22", serves="22/tcp", family=family).start()
    other = node.guest("web2", serves="23/tcp")
    own = {4: network.guest_address, 6: network.guest_address6}[family](11)
    length = "24" if family == 4 else "64 nodad"
    other.wire.namespace.ip(f"address add {own}/{length} dev eth0\n")
    found = [each for each in faults(node) if each["problem"]["code"] == "address-twice"]
    assert len(found) == 1
    message = found[0]["problem"]["message"]
    assert f"{guest_mac(11)} (port guest11)" in message
    assert f"{guest_mac(12)} (port guest12)" in message


def test_a_guest_that_floods_its_link_with_answers(node: Node) -> None:
    """They come faster than they can be read, each from another MAC address."""
    node.guest("web1", f"{PORT}:22", serves="22/tcp").start()
    other = node.guest("web2", serves="23/tcp").wire.namespace
    with subprocess.Popen(
        [*other.enter_command(), sys.executable, "-c", FLOOD], stdout=subprocess.PIPE, text=True
    ) as flood:
        assert flood.stdout
        assert flood.stdout.readline() == "begun\n"
        try:
            found = [e["problem"] for e in faults(node) if e["problem"]["code"] == "address-twice"]
        finally:
            flood.kill()
    assert len(found) == 1
    assert found[0]["message"].endswith(" more")


FLOOD = """
import itertools, socket, struct
device = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
device.bind(("eth0", 0))
print("begun", flush=True)
for number in itertools.count(1):
    mac = b"\\x02" + struct.pack("!BI", 9, number % 1000)
    packet = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac + bytes([10, 5, 5, 11]) + bytes(10)
    device.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + packet)
"""


def test_another_host_that_has_the_node_s_own_address(node: Node, client: Asker) -> None:
    node.guest("web1", f"{PORT}:22", serves="22/tcp").start()
    client.namespace.ip(f"address add {NODE[4]}/32 dev uplink0\n")
    problem = first(node)
    assert (problem["code"], problem["subject"]) == ("address-twice", "node")
    assert NODE[4] in problem["message"]


def test_a_listener_of_the_node(node: Node) -> None:
    node.guest("web1", f"{PORT}:22", serves="22/tcp").start()
    node.serve("0.0.0.0", f"{PORT}/tcp")
    assert first(node)["code"] == "port-conflict"
    node.cgw("sync", check=False)
    problem = first(node)
    assert problem["code"] == "port-conflict"
    assert f"ss -lnp sport = :{PORT}" in problem["cure"]


def test_a_udp_service_cannot_be_told(node: Node) -> None:
    node.guest("web1", "5353:53/udp", serves="53/udp").start()
    assert faults(node) == []
    assert verdicts(node, "service") == {"unknown"}


def test_a_guest_that_is_not_published(node: Node) -> None:
    node.guest("web1", f"{PORT}:22", serves="22/tcp").start()
    assert faults(node, "web1") == []
    problem = first(node, "web2")
    assert (problem["code"], problem["subject"]) == ("not-found", '"web2"')


def test_rules_that_drop_some_clients_alone_are_no_fault(node: Node, client: Asker) -> None:
    node.nft(
        "table inet bans {\nset bad {\ntype ipv4_addr\nelements = { 203.0.113.7 }\n}\n"
        "chain f {\ntype filter hook forward priority 0;\n"
        "ip saddr @bad drop\nct state invalid drop\nlimit rate over 5/second burst 9 packets drop\n"
        "meta mark 7 drop\ntcp dport 25 drop\n}\n}\n"
    )
    node.guest("web1", f"{PORT}:22", serves="22/tcp").start()
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    assert verdicts(node, "other-firewalls") == {"pass"}


def test_a_rule_that_depends_on_the_client_is_a_warning(node: Node, client: Asker) -> None:
    node.nft(
        "table inet lan {\nchain f {\ntype filter hook forward priority 0; policy drop;\n"
        f"ct state established accept\nip saddr {CLIENT[4]} accept\n}}\n}}\n"
    )
    node.guest("web1", f"{PORT}:22", serves="22/tcp").start()
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    assert verdicts(node, "other-firewalls") == {"warn"}


def test_the_node_s_own_rules_keep_it_from_trying_the_service(node: Node, client: Asker) -> None:
    node.nft(
        "table inet own {\nchain o {\ntype filter hook output priority 0;\n"
        "tcp dport 22 drop\n}\n}\n"
    )
    node.guest("web1", f"{PORT}:22", serves="22/tcp").start()
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    assert faults(node) == []
    assert verdicts(node, "service") == {"unknown"}


@pytest.mark.parametrize(
    ("return_path", "setting", "wrong", "right"),
    [
        ("full-nat", f"net/ipv4/conf/{network.GUEST_BRIDGE}/rp_filter", "1", "2"),
        ("steer", "net/netfilter/nf_conntrack_tcp_be_liberal", "0", "1"),
    ],
)
def test_a_setting_of_a_gateway_that_was_changed(
    make_node: NodeMaker, return_path: str, setting: str, wrong: str, right: str
) -> None:
    config = gateway_config(network.NodeAddresses(1), return_path=return_path)
    node = make_node(config + remote_node_table(network.NodeAddresses(2)))
    node.cgw("node", "up")
    node.guest("web1", f"{PORT}:22", serves="22/tcp").start()
    assert faults(node) == []
    node.namespace.sysctl({setting: wrong})
    found = faults(node)[0]
    assert found["check"] == "settings"
    assert f"{setting} is {wrong}, and a gateway needs {right}" in found["problem"]["message"]
    type_command(node, found["command"])
    assert faults(node) == []
    node.stop_all_guests()
    node.cgw("node", "down")
    node.accept_foreign_tables()


def test_another_node_that_answers_for_the_gateway_address(make_node: NodeMaker) -> None:
    """Its device is not one of the inter-node devices, so the ARP filter lets it through."""
    node = make_node(FULL_NAT)
    node.cgw("node", "up")
    node.guest("web1", f"{PORT}:22", serves="22/tcp").start()
    other = node.guest("web2", serves="23/tcp")
    other.wire.namespace.ip(f"address add {network.GATEWAY_ADDRESS}/32 dev eth0\n")
    assert faults(node) == []
    (found,) = (each for each in examine(node) if each["check"] == "neighbour")
    assert found["verdict"] == "warn"
    message = found["problem"]["message"]
    assert f"answers for the gateway address {network.GATEWAY_ADDRESS}" in message
    assert f"{guest_mac(12)} (port guest12)" in message
    assert "internode-devices" in found["problem"]["cure"]


def test_a_node_of_a_cluster_without_its_agent(make_node: NodeMaker) -> None:
    node = make_node('[node]\nname = "node1"\n[registry]\nendpoints = ["http://192.0.2.1:2379"]\n')
    node.guest("web1", f"{PORT}:22", serves="22/tcp").start()
    found = faults(node)[0]
    assert (found["check"], found["problem"]["code"]) == ("agent", "registry")
    assert found["command"] == "systemctl start cgw"


def test_a_lease_that_has_moved(node: Node, client: Asker) -> None:
    with own_mounts(node) as mounts:
        leased = Network(node, mounts)
        leased.leases((11, 11, 3600))
        leased.hook("prepare")
        leased.hook("started")
        assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
        wire = leased.guest.wire
        wire.namespace.ip(
            "address flush dev eth0\naddress add 10.5.5.21/24 dev eth0\n"
            f"route add default via {network.GATEWAY_ADDRESS}\n"
        )
        wire.serve("10.5.5.21", "22/tcp")
        leased.leases((21, 11, 3600))
        assert client.is_unanswered(NODE[4], PORT)
        found = json.loads(mounts.cgw("doctor", "--json").stdout)["checks"][0]
        assert (found["verdict"], found["problem"]["code"]) == ("fail", "lease")
        assert found["command"] == "cgw sync"
        leased.hook("reconnect")  # sync would have to ask libvirt for the guest
        assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
        leased.hook("stopped")
        leased.hook("release")


def test_a_python_module_that_is_missing(node: Node) -> None:
    node.guest("web1", f"{PORT}:22", serves="22/tcp").start()
    with own_mounts(node) as mounts:
        layer, modules = node.folder / "layer", "/usr/lib/python3/dist-packages"
        mounts.run(
            f"mkdir -p {layer}/up {layer}/work; mknod {layer}/up/nftables c 0 0; "
            f"mount -t overlay overlay -o lowerdir={modules},upperdir={layer}/up,"
            f"workdir={layer}/work {modules}"
        )
        done = mounts.cgw("doctor", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    first = json.loads(done.stdout)["checks"][0]
    assert (first["check"], first["problem"]["subject"]) == ("modules", "nftables")
    assert first["problem"]["code"] == "module"


def test_two_nodes_and_a_firewall_that_sees_bridged_packets(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Node2 has the guest. With br_netfilter, its FORWARD chain drops what node1 sends to it."""
    folder = tmp_path_factory.mktemp("nodes")
    with clusters.cluster(folder, homes={"web2": 2}, nodes=2) as made:
        clusters.all_up(made)
        entry, home = made.nodes[1], made.nodes[2]
        answer = f"web2 saw {clusters.inside(1, 4)}"
        assert made.client.asks(clusters.uplink(1, 4), PORT) == answer
        assert faults(home) == []
        home.pass_bridged_packets_to_rules(True)
        on_bridge = ["-i", network.GUEST_BRIDGE, "-o", network.GUEST_BRIDGE]
        home.namespace.run(["iptables", "-A", "FORWARD", *on_bridge, "-j", "DROP"])
        forget_neighbours(entry.namespace)
        assert made.client.is_unanswered(clusters.uplink(1, 4), PORT)
        found = faults(home)[0]
        assert (found["check"], found["verdict"]) == ("other-firewalls", "fail")
        assert "with br_netfilter" in found["problem"]["message"]
        type_command(home, found["command"])
        assert made.client.asks(clusters.uplink(1, 4), PORT) == answer


def forget_neighbours(namespace: Namespace) -> None:
    """Have the next packet ask for its neighbour again."""
    namespace.run(["ip", "neigh", "flush", "all"])


def test_what_people_read(node: Node) -> None:
    node.guest("web1", f"{PORT}:22", serves="22/tcp").start()
    done = node.cgw("doctor", check=False)
    assert done.returncode == 0
    *warnings, last = done.stdout.splitlines()
    assert last.endswith("checks passed (--verbose lists them)")
    assert [line for line in warnings if line.startswith(("FAIL", "PASS"))] == []
    node.namespace.sysctl({"net/ipv4/ip_forward": "0"})
    done = node.cgw("doctor", "--verbose", check=False)
    assert done.returncode == 1
    fault, cure, *_ = done.stdout.splitlines()
    assert fault.split()[:2] == ["FAIL", "forwarding"]
    assert cure.split() == ["cure:", "sysctl", "-w", "net/ipv4/ip_forward=1"]
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASS")]
    assert len(passed) > 5
    assert done.stderr == ""


def test_an_invalid_config_is_the_first_fault(node: Node) -> None:
    node.configure("[nonsense]\n")
    try:
        problem = first(node)
    finally:
        node.configure("")
    assert problem["code"] == "invalid-config"
    assert "nonsense" in str(problem)


def test_the_path_of_the_schema_is_printed(node: Node) -> None:
    path = node.cgw("doctor", "--schema").stdout.strip()
    with open(path, encoding="utf-8") as file:
        assert json.load(file)["title"] == "cgw doctor --json"
