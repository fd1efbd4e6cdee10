"""`cgw status` says "published" only of what a packet meets, and what it advises is the cure."""

import shlex
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.lab.gateway_config import gateway_config
from tests.lab.network import GUEST_BRIDGE, UPLINK_BRIDGE, NodeAddresses
from tests.lab.status_json import read_status
from tests.netns.asker import REFUSED, Asker
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NODE_AMONG_GUESTS, NONE
from tests.netns.conftest import NodeMaker
from tests.netns.guest import DONE
from tests.netns.node import OUR_TABLE, Node
from tests.netns.test_firewall import BACKENDS, EXCEPTION, GuestMaker, network_guest

pytestmark = pytest.mark.netns

PORT = 2202
ARP_FILTER = "bridge cgw"
IPV4 = "net/ipv4/conf"
__all__ = ["network_guest"]  # a fixture


class Status(NamedTuple):
    """What `cgw status --json` said, and how it ended."""

    code: int
    rows: list[dict[str, Any]]
    problems: list[dict[str, str]]

    @property
    def states(self) -> dict[str, str]:
        """Guest -> state of its first port."""
        return {row["guest"]: row["state"] for row in reversed(self.rows)}

    @property
    def found(self) -> list[dict[str, str]]:
        """Every problem, of ports and of the node."""
        return [*(row["problem"] for row in self.rows if row["problem"]), *self.problems]

    @property
    def codes(self) -> set[str]:
        """The codes of all problems."""
        return {problem["code"] for problem in self.found}


def status(node: Node, *guest: str) -> Status:
    ended = node.cgw("status", "--json", *guest, check=False)
    said = read_status(ended.stdout)
    return Status(ended.returncode, said["published"], said["problems"])


def sync(node: Node) -> None:
    """Libvirt does not answer here, and a sync says so."""
    node.cgw("sync", check=False)


def take_the_advice(node: Node, told: Status) -> None:
    """Type what each problem says."""
    for cure in dict.fromkeys(problem["cure"] for problem in told.found):
        words = shlex.split(cure.removeprefix("run: "))
        if words[0] == "cgw":
            node.cgw(*words[1:], check=False)
        else:
            node.namespace.run(words)


class Broken(NamedTuple):
    """A way to break a published port, and what status calls it."""

    act: Callable[[Node], object]
    code: str
    config: str = NONE
    family: int = 4


def nft(commands: str) -> Callable[[Node], object]:
    return lambda node: node.nft(commands + "\n")


def switch_off(setting: str) -> Callable[[Node], object]:
    return lambda node: node.namespace.sysctl({setting: "0"})


BROKEN = {
    "ruleset flushed": Broken(nft("flush ruleset"), "rules"),
    "table deleted": Broken(nft(f"delete table {OUR_TABLE}"), "rules"),
    "elements flushed": Broken(nft(f"flush map {OUR_TABLE} published4"), "elements"),
    "another target": Broken(
        nft(
            f"delete element {OUR_TABLE} published4 {{ tcp . {PORT} }}; "
            f"add element {OUR_TABLE} published4 {{ tcp . {PORT} : 10.5.5.99 . 22 }}"
        ),
        "elements",
    ),
    "rules that look ports up flushed": Broken(nft(f"flush chain {OUR_TABLE} publish"), "rules"),
    "rules of prerouting flushed": Broken(nft(f"flush chain {OUR_TABLE} prerouting"), "rules"),
    "rules of FULL-NAT flushed": Broken(
        nft(f"flush chain {OUR_TABLE} postrouting"), "rules", FULL_NAT
    ),
    "config changed": Broken(lambda node: node.configure(FULL_NAT), "rules"),
    "forwarding off": Broken(switch_off("net/ipv4/ip_forward"), "forwarding"),
    "forwarding of the uplink off": Broken(
        switch_off(f"{IPV4}/{UPLINK_BRIDGE}/forwarding"), "forwarding"
    ),
    "forwarding of the guests' bridge off": Broken(
        switch_off(f"{IPV4}/{GUEST_BRIDGE}/forwarding"), "forwarding"
    ),
    "forwarding of the uplink off, gateway": Broken(
        switch_off(f"{IPV4}/{UPLINK_BRIDGE}/forwarding"), "forwarding", FULL_NAT
    ),
    "forwarding off, gateway": Broken(switch_off("net/ipv4/ip_forward"), "forwarding", FULL_NAT),
    "IPv6 forwarding off": Broken(
        switch_off("net/ipv6/conf/all/forwarding"), "forwarding", family=6
    ),
    "IPv6 forwarding off, gateway": Broken(
        switch_off("net/ipv6/conf/all/forwarding"), "forwarding", FULL_NAT, family=6
    ),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_port_that_does_not_work_is_told_and_its_cure_works(
    client: Asker, make_node: NodeMaker, broken: Broken
) -> None:
    family, node = broken.family, make_node(broken.config)
    node.guest("web1", f"{PORT}:22", serves="22/tcp", family=family).start()
    answer = client.asks(NODE[family], PORT)
    assert (answer.startswith("web1 saw"), status(node).code) == (True, 0)
    broken.act(node)
    if node.config_file.exists() and not broken.config:  # the config that counts from now on
        answer = f"web1 saw {NODE_AMONG_GUESTS[family]}"
    assert client.asks(NODE[family], PORT, patience=0.5) != answer
    told = status(node)
    assert (told.code, told.states, told.codes) == (1, {"web1": "failed"}, {broken.code})
    take_the_advice(node, told)
    assert client.asks(NODE[family], PORT) == answer
    assert status(node) == (0, status(node).rows, [])
    node.configure(broken.config)
    sync(node)


def test_of_several_ports_only_the_one_that_is_gone_has_failed(client: Asker, node: Node) -> None:
    node.guest("web1", f"{PORT}:22", "2203:22", serves="22/tcp").start()
    node.guest("web2", "2204:22", serves="22/tcp").start()
    node.nft(f"delete element {OUR_TABLE} published4 {{ tcp . 2203 }}\n")
    answers = [client.asks(NODE[4], port) for port in (PORT, 2203, 2204)]
    assert answers == [f"web1 saw {CLIENT[4]}", REFUSED, f"web2 saw {CLIENT[4]}"]
    told = status(node)
    assert [(row["listen_ports"][0], row["state"]) for row in told.rows] == [
        (PORT, "published"), (2203, "failed"), (2204, "published"),
    ]  # fmt: skip
    assert (told.code, told.codes) == (1, {"elements"})
    take_the_advice(node, told)
    assert client.asks(NODE[4], 2203) == f"web1 saw {CLIENT[4]}"
    assert status(node).code == 0


def test_a_listener_that_came_later_is_told_until_it_ends(client: Asker, node: Node) -> None:
    """The port is the node's, not the guest's, though the guest answers until the next sync."""
    web1 = node.guest("web1", f"{PORT}:22", "2203:22", serves="22/tcp")
    web1.start()
    with subprocess.Popen(
        [*node.namespace.enter_command(), "python3", "-c", _LISTEN, str(PORT)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as listener:  # fmt: skip
        assert listener.stdout
        assert listener.stdout.readline() == "listens\n"
        assert client.asks(NODE[4], PORT).startswith("web1")
        told = status(node)
        states = [row["state"] for row in told.rows]
        assert (told.code, states, told.codes) == (1, ["withheld", "published"], {"port-conflict"})
        take_the_advice(node, told)
        assert not client.asks(NODE[4], PORT, patience=0.5).startswith("web1")
        assert client.asks(NODE[4], 2203).startswith("web1")
        told = status(node)
        assert (told.code, [row["state"] for row in told.rows]) == (1, states)
        assert "stop that process" in told.found[0]["cure"]
        listener.communicate()  # the advice taken
    told = status(node)
    assert (told.code, told.codes) == (1, {"withheld"})
    take_the_advice(node, told)
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    assert status(node).code == 0


_LISTEN = """
import socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
print("listens", flush=True)
sys.stdin.read()
"""


def test_elements_that_no_record_has_are_told(client: Asker, node: Node) -> None:
    """The records under /run/cgw are gone: the port is open, and nobody would close it."""
    web1 = node.guest("web1", f"{PORT}:22", serves="22/tcp")
    web1.start()
    node.runtime.rename(node.folder / "gone")
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    told = status(node)
    assert (told.code, told.rows, told.codes) == (1, [], {"extra-elements"})
    take_the_advice(node, told)
    assert client.asks(NODE[4], PORT) == REFUSED
    assert status(node) == (0, [], [])


def test_a_gateway_without_its_arp_filter_is_told(client: Asker, make_node: NodeMaker) -> None:
    """Ports work without it: only the node has a problem."""
    node = make_node(gateway_config(NodeAddresses(1), internode=("eth1.100",)))
    node.cgw("node", "up")
    try:
        assert status(node) == (0, [], [])
        node.nft(f"delete table {ARP_FILTER}\n")
        told = status(node)
        assert (told.code, told.rows, told.codes) == (1, [], {"rules"})
        web1 = node.guest("web1", f"{PORT}:22", serves="22/tcp")
        web1.start()
        assert client.asks(NODE[4], PORT) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
        told = status(node)
        assert (told.code, told.states, told.codes) == (1, {"web1": "published"}, {"rules"})
        take_the_advice(node, told)
        assert status(node).code == 0
        assert ARP_FILTER in node.ruleset()
    finally:
        node.cgw("node", "down")


def test_a_gateway_whose_ruleset_was_flushed_is_told_without_any_guest(
    make_node: NodeMaker,
) -> None:
    node = make_node(FULL_NAT)
    node.cgw("node", "up")
    node.nft("flush ruleset\n")
    told = status(node)
    assert (told.code, told.rows, told.codes) == (1, [], {"rules"})
    take_the_advice(node, told)
    assert status(node) == (0, [], [])
    node.cgw("node", "down")


# -- libvirt's firewall ----------------------------------------------------------------------


def drop_exception(node: Node, backend: str) -> None:
    if backend == "iptables":
        for line in node.namespace.run(["iptables-save"]).stdout.splitlines():
            if EXCEPTION in line:
                node.namespace.run(["iptables", *shlex.split(line.replace("-A", "-D", 1))])
        return
    listing = node.nft("list chain ip libvirt_network forward\n", "-a")
    (ours,) = [line for line in listing.splitlines() if EXCEPTION in line]
    handle = ours.rpartition("# handle ")[2]
    node.nft(f"delete rule ip libvirt_network forward handle {handle}\n")


def jump_first(node: Node, backend: str) -> None:
    """The network's rules made anew, in front of whatever is there."""
    if backend == "iptables":
        node.namespace.run(["iptables", "-I", "FORWARD", "-j", "LIBVIRT_FWI"])
    else:
        node.nft("insert rule ip libvirt_network forward counter jump guest_input\n")


@pytest.mark.parametrize("lose", [drop_exception, jump_first])
@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_an_exception_that_is_gone_or_comes_too_late_is_told(
    client: Asker,
    node: Node,
    network_guest: GuestMaker,
    backend: str,
    lose: Callable[[Node, str], None],
) -> None:
    BACKENDS[backend](node)
    web1 = network_guest("web1", f"{PORT}:22")
    web1.start()
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    assert status(node).code == 0
    lose(node, backend)
    assert not client.asks(NODE[4], PORT, patience=0.5).startswith("web1")
    told = status(node)
    assert (told.code, told.states, told.codes) == (1, {"web1": "failed"}, {"firewall"})
    take_the_advice(node, told)
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    assert status(node).code == 0
    node.stop_all_guests()
    node.accept_foreign_tables()


def test_empty_tables_of_a_backend_that_libvirt_used_before_hide_nothing(
    client: Asker, node: Node, network_guest: GuestMaker
) -> None:
    BACKENDS["iptables"](node)
    for ip in ("ip", "ip6"):
        node.nft(
            f"table {ip} libvirt_network {{ chain guest_input {{ }}; chain forward "
            "{ type filter hook forward priority filter; jump guest_input; }; }\n"
        )
    web1 = network_guest("web1", f"{PORT}:22")
    web1.start()
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    assert status(node).code == 0
    drop_exception(node, "iptables")
    assert not client.asks(NODE[4], PORT, patience=0.5).startswith("web1")
    told = status(node)
    assert (told.code, told.states, told.codes) == (1, {"web1": "failed"}, {"firewall"})
    take_the_advice(node, told)
    assert client.asks(NODE[4], PORT) == f"web1 saw {CLIENT[4]}"
    node.stop_all_guests()
    node.accept_foreign_tables()


# -- what is as it should be -----------------------------------------------------------------


@pytest.mark.parametrize("config", [NONE, FULL_NAT], ids=["no config", "gateway"])
def test_a_fresh_node_is_well(make_node: NodeMaker, config: str) -> None:
    node = make_node(config)
    assert status(node) == (0, [], [])
    assert not node.runtime.exists()


def test_a_guest_that_is_about_to_start_is_no_problem(client: Asker, node: Node) -> None:
    web1 = node.guest("web1", f"{PORT}:22", serves="22/tcp")
    assert web1.hook("prepare") == DONE
    assert client.asks(NODE[4], PORT) == REFUSED
    told = status(node)
    assert (told.code, told.states, told.found) == (0, {"web1": "reserved"}, [])


def test_a_port_whose_listening_address_is_elsewhere_is_dormant_and_no_problem(
    client: Asker, node: Node
) -> None:
    """The address may be on another node at this moment: the port waits for it."""
    node.guest("web1", f"192.168.122.99:{PORT}:22", serves="22/tcp").start()
    told = status(node)
    assert (told.code, told.states, told.found) == (0, {"web1": "dormant"}, [])
    node.add_address("192.168.122.99")
    assert client.asks("192.168.122.99", PORT) == f"web1 saw {CLIENT[4]}"
    told = status(node)
    assert (told.code, told.states, told.found) == (0, {"web1": "published"}, [])


REMOTE = '[[remote-guest]]\nname = "web1"\naddress = "10.5.5.11"\npublish = ["{0}:22"]\n'


def test_a_remote_guest_that_runs_here_is_overridden_and_no_problem(
    client: Asker, make_node: NodeMaker
) -> None:
    node = make_node(REMOTE.format(PORT))
    sync(node)
    web1 = node.guest("web1", "2203:22", serves="22/tcp")
    web1.start()
    told = status(node)
    states = {(row["driver"], row["state"]) for row in told.rows}
    assert (told.code, states) == (0, {("remote", "overridden"), ("qemu", "published")})
    assert client.asks(NODE[4], 2203) == f"web1 saw {CLIENT[4]}"
    web1.stop()
    assert status(node).states == {"web1": "published"}
    node.configure(NONE)
    sync(node)


@pytest.mark.parametrize(
    ("config", "answers", "code", "state"),
    [
        (REMOTE.format(2209), {PORT: REFUSED, 2209: "web1"}, "definition", "failed"),
        (NONE, {PORT: REFUSED}, "not-running", "failed"),
        (
            REMOTE.format(PORT) + REMOTE.format(2209).replace("web1", "web2"),
            {PORT: "web1", 2209: "web1"},
            "not-published",
            "not published",
        ),
    ],
    ids=["changed", "taken out", "added"],
)
def test_a_config_entry_that_was_changed_and_not_synced_is_told(  # noqa: PLR0913, PLR0917
    client: Asker, make_node: NodeMaker, config: str, answers: dict[int, str], code: str, state: str
) -> None:
    node = make_node(REMOTE.format(PORT))
    node.guest("web1", "9:22", serves="22/tcp")  # on the wire; another node runs it
    sync(node)
    assert client.asks(NODE[4], PORT).startswith("web1")
    assert status(node).code == 0
    node.configure(config)
    told = status(node)
    assert (told.code, told.codes, told.rows[-1]["state"]) == (1, {code}, state)
    take_the_advice(node, told)
    assert answers == {port: client.asks(NODE[4], port).split()[0] for port in answers}
    assert status(node).code == 0
    node.configure(NONE)
    sync(node)
