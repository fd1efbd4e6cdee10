"""Bans: a banned client reaches no published port, and everything else as before."""

import json
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from cgw_hooks.core.rules.bans import TABLE
from tests.lab.client import UdpSender
from tests.lab.flows import tracked_flows
from tests.lab.network import guest_address
from tests.netns.agent import running_agent
from tests.netns.asker import PATIENCE_FOR_NOTHING, Asker, spoken
from tests.netns.configs import (
    CLIENT,
    FULL_NAT,
    GATEWAY,
    NODE,
    NODE_AMONG_GUESTS,
    THIRD,
)
from tests.netns.conftest import NodeMaker
from tests.netns.halts import CLIENT_FLOWS, RULESET, halted_cgw
from tests.netns.node import Node
from tests.netns.parameters import bridgings, configs, families, protocols
from tests.return_path.sessions import Talker, connect

if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address

pytestmark = pytest.mark.netns

#: The network of the client, without the node and the third host.
NETWORK = {4: "192.168.122.96/29", 6: "fd00:122::100/124"}
_LONGEST_WAIT = 60.0


def is_silent(client: Asker, port: int = 2202, protocol: str = "tcp", family: int = 4) -> bool:
    """Whether nothing at all comes back: a refusal would be an answer too."""
    reply = client.ask(protocol, NODE[family], port, timeout=PATIENCE_FOR_NOTHING)
    return spoken(reply) == "timed out"


def listed(node: Node) -> dict[str, dict[str, str]]:
    """The bans as `cgw deny --list --json` prints them, by client. Asserts that they hold."""
    found = json.loads(node.cgw("deny", "--list", "--json").stdout)
    assert found["problems"] == []
    return {ban["client"]: ban for ban in found["denied"]}


def sync(node: Node) -> str:
    """Return what `cgw sync` says it did; it also says that no hypervisor answers here."""
    return node.cgw("sync", check=False).stdout


def has_table(node: Node) -> bool:
    return f"table {TABLE} " in node.nft("list ruleset\n")


def eventually(question: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _LONGEST_WAIT
    while not question():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def answers(sender: UdpSender) -> bool:
    return sender.exchange(timeout=PATIENCE_FOR_NOTHING).answered


def tracked_clients(node: Node, to: str) -> "set[Address]":
    """Who has begun a flow to an address that the node's kernel tracks."""
    found = re.findall(r" src=(\S+) dst=(\S+) .*? src=", tracked_flows(node.namespace))
    ends = ((ip_address(source), ip_address(destination)) for source, destination in found)
    return {source for source, destination in ends if destination == ip_address(to)}


# -- what a packet does ----------------------------------------------------------------------


@families
@configs
@protocols
def test_a_banned_client_reaches_no_published_port_until_it_is_allowed(  # noqa: PLR0913, PLR0917
    client: Asker, third: Asker, make_node: NodeMaker, config: str, protocol: str, family: int
) -> None:
    node = make_node(config)
    web1 = node.guest("web1", f"2202:22/{protocol}", serves=f"22/{protocol}", family=family)
    web1.start()
    seen = NODE_AMONG_GUESTS[family] if config else CLIENT[family]
    assert client.asks(NODE[family], 2202, protocol) == f"web1 saw {seen}"
    node.cgw("deny", CLIENT[family])
    assert is_silent(client, 2202, protocol, family)
    assert third.asks(NODE[family], 2202, protocol).startswith("web1")
    assert f"allowed {CLIENT[family]}\n" == node.cgw("allow", CLIENT[family]).stdout
    assert client.asks(NODE[family], 2202, protocol) == f"web1 saw {seen}"
    assert not has_table(node)


@families
def test_a_network_is_banned_like_an_address(
    client: Asker, third: Asker, node: Node, family: int
) -> None:
    node.guest("web1", "2202:22", serves="22/tcp", family=family).start()
    with client.tcp_session(NODE[family], 2202):
        assert "ended   1 connection\n" in node.cgw("deny", NETWORK[family]).stdout
    assert is_silent(client, family=family)
    assert third.asks(NODE[family], 2202).startswith("web1")
    node.cgw("allow", NETWORK[family])
    assert client.asks(NODE[family], 2202).startswith("web1")


@families
@configs
def test_a_ban_ends_established_connections_of_that_client_alone(
    client: Asker, third: Asker, make_node: NodeMaker, config: str, family: int
) -> None:
    node = make_node(config)
    address = {4: guest_address(11), 6: "fd00:5::11"}[family]
    web1 = node.guest("web1", "2207:7", "2253:53/udp", serves="53/udp", family=family)
    web1.wire.serve(address, "7/tcp-echo")
    web1.start()
    with (
        client.tcp_session(NODE[family], 2207) as ended,
        third.tcp_session(NODE[family], 2207) as kept,
        client.udp_sender(NODE[family], 2253) as sender,
    ):
        assert ended.exchange("one") == kept.exchange("one") == "one"
        assert answers(sender)
        assert "ended   2 connections" in node.cgw("deny", CLIENT[family]).stdout
        with pytest.raises((TimeoutError, ConnectionError)):
            ended.exchange("two", timeout=1)
        assert not answers(sender)
        assert kept.exchange("two") == "two"
        assert tracked_clients(node, NODE[family]) == {ip_address(THIRD[family])}


@bridgings
def test_a_ban_leaves_alone_what_cgw_does_not_translate(
    client: Asker, third: Asker, make_node: NodeMaker, bridging: bool
) -> None:
    """The node itself, its other forwards, a guest's own connections to the banned client."""
    node = make_node(FULL_NAT)
    node.pass_bridged_packets_to_rules(bridging)
    other = node.guest("other", serves="80/tcp")
    node.nft(
        "table ip stranger {\n"
        "  chain pre {\n"
        "    type nat hook prerouting priority dstnat\n"
        f"    tcp dport 8080 dnat to {guest_address(11)}:80\n"
        "  }\n"
        "}\n"
    )
    node.guest("web1", "2202:22", serves="22/tcp").start()
    node.serve(NODE[4], "22/tcp")
    client.serve(CLIENT[4], "80/tcp")
    node.cgw("deny", CLIENT[4])
    assert client.asks(NODE[4], 22) == f"node saw {CLIENT[4]}"
    assert client.asks(NODE[4], 8080).startswith("other")
    assert other.asks(CLIENT[4], 80).startswith("client")
    assert is_silent(client)
    assert third.asks(NODE[4], 2202).startswith("web1")


@families
def test_a_guest_can_be_banned_from_the_ports_of_others(
    node: Node, client: Asker, family: int
) -> None:
    """It reaches them by hairpin NAT."""
    node.guest("web1", "2202:22", serves="22/tcp", family=family).start()
    web2 = node.guest("web2", serves="80/tcp", family=family)
    own = {4: guest_address(12), 6: "fd00:5::12"}[family]
    assert web2.asks(NODE[family], 2202).startswith("web1")
    node.cgw("deny", own)
    assert is_silent(web2.wire, family=family)
    assert client.asks(NODE[family], 2202).startswith("web1")


@families
def test_with_full_nat_the_guest_hears_that_its_connection_has_ended(
    client: Asker, make_node: NodeMaker, family: int
) -> None:
    """The node answers what the guest still sends: it knows of no such connection."""
    node = make_node(FULL_NAT)
    address = {4: guest_address(11), 6: "fd00:5::11"}[family]
    web1 = node.guest("web1", "2207:7", serves="22/tcp", family=family)
    web1.start()
    with closing(Talker(web1.wire.namespace, address, 7)) as talker:
        opened = connect(client.namespace, NODE[family], 2207, talker)
        opened.client_speaks()
        node.cgw("deny", CLIENT[family])
        opened.guest.sendall(b"anybody?")
        with pytest.raises(ConnectionResetError):
            opened.guest.recv(1)
        opened.abandon()


def test_ports_that_are_published_later_are_closed_to_a_banned_client(
    client: Asker, third: Asker, node: Node
) -> None:
    node.cgw("deny", CLIENT[4])
    node.guest("web1", "2202:22", "8000-8009:8000", serves="22/tcp 8005/tcp").start()
    assert third.asks(NODE[4], 8005).startswith("web1")
    assert is_silent(client)
    assert is_silent(client, 8005)


# -- time ------------------------------------------------------------------------------------


@families
def test_a_ban_ends_by_itself(client: Asker, node: Node, family: int) -> None:
    node.guest("web1", "2202:22", serves="22/tcp", family=family).start()
    node.cgw("deny", CLIENT[family], "--for", "4s")
    node.cgw("deny", NETWORK[family], "--for", "3s")
    assert is_silent(client, family=family)
    assert set(listed(node)) <= {CLIENT[family], NETWORK[family]}
    assert client.until_answered("tcp", NODE[family], 2202, within=_LONGEST_WAIT).answered
    assert eventually(lambda: not listed(node))
    sync(node)
    assert not has_table(node)
    node.cgw("deny", THIRD[family])
    assert CLIENT[family] not in (node.folder / "state/bans").read_text()


def test_a_program_reads_what_was_done(client: Asker, node: Node) -> None:
    node.guest("web1", "2202:22/udp", serves="22/udp").start()
    with client.udp_sender(NODE[4], 2202) as sender:
        assert answers(sender)
        told = json.loads(node.cgw("deny", CLIENT[4], "--by", "me", "--json").stdout)
    ban = {"client": CLIENT[4], "until": None, "by": "me"}
    assert told == {"version": 1, "denied": [ban], "ended": 1}
    assert listed(node) == {CLIENT[4]: ban}


def test_the_last_command_decides_about_the_time(node: Node) -> None:
    node.cgw("deny", CLIENT[4], "--for", "1h")
    hour = listed(node)[CLIENT[4]]["until"]
    assert f"{CLIENT[4]} timeout 1h" in node.nft("list ruleset\n")
    node.cgw("deny", CLIENT[4], "--for", "3649d")
    assert listed(node)[CLIENT[4]]["until"] > hour
    assert f"{CLIENT[4]} timeout 3649d" in node.nft("list ruleset\n")
    node.cgw("deny", CLIENT[4])
    assert listed(node)[CLIENT[4]]["until"] is None
    assert f"elements = {{ {CLIENT[4]} }}" in node.nft("list ruleset\n")


def test_networks_within_networks_each_have_their_time(client: Asker, node: Node) -> None:
    node.guest("web1", "2202:22", serves="22/tcp").start()
    node.cgw("deny", "192.168.122.96/27", "--for", "1h")
    node.cgw("deny", NETWORK[4])
    node.cgw("deny", "192.168.122.64/26", "--for", "2h")
    assert is_silent(client)
    node.cgw("allow", "192.168.122.96/27", check=False)
    assert set(listed(node)) == {"192.168.122.64/26"}
    assert is_silent(client)
    node.cgw("deny", "0.0.0.0/0", "--force", "--for", "1h")
    node.cgw("allow", "192.168.122.64/26", check=False)
    assert is_silent(client)
    node.cgw("allow", "--all")
    assert client.asks(NODE[4], 2202).startswith("web1")


# -- who bans, and who lifts -----------------------------------------------------------------


def test_who_bans_lifts_its_own_bans_alone(client: Asker, node: Node) -> None:
    node.guest("web1", "2202:22", serves="22/tcp").start()
    node.cgw("deny", CLIENT[4], "--by", "sshd", "--for", "1h")
    node.cgw("deny", CLIENT[4], "--by", "web", "--for", "2h")
    lifted = node.cgw("allow", CLIENT[4], "--by", "sshd")
    assert f"{CLIENT[4]}: it is denied still, by web" in lifted.stderr
    assert is_silent(client)
    node.cgw("deny", THIRD[4])
    assert f"allowed {CLIENT[4]}\n" == node.cgw("allow", "--by", "web").stdout
    assert client.asks(NODE[4], 2202).startswith("web1")
    assert set(listed(node)) == {THIRD[4]}


def test_allow_says_if_a_network_denies_the_client_still(node: Node) -> None:
    node.cgw("deny", CLIENT[4], NETWORK[4])
    lifted = node.cgw("allow", CLIENT[4], check=False)
    assert lifted.returncode == 1
    assert lifted.stderr == (
        f"cgw: {CLIENT[4]}: it is denied still, by {NETWORK[4]}; run: cgw allow {NETWORK[4]}\n"
    )
    assert node.cgw("allow", NETWORK[4]).stdout == f"allowed {NETWORK[4]}\n"
    assert node.cgw("allow", NETWORK[4]).stdout == "nothing was denied\n"
    assert node.cgw("deny", "--list").stdout == "No client is denied.\n"


def test_only_force_bans_the_node_itself_or_everybody(make_node: NodeMaker) -> None:
    node = make_node(FULL_NAT)
    node.cgw("deny", "203.0.113.7")
    uplink = "192.168.122.0/24"
    mistakes = [NODE[4], NODE[6], "0.0.0.0/0", "::/0", uplink, NODE_AMONG_GUESTS[4], GATEWAY[6]]
    for mistake in mistakes:
        refused = node.cgw("deny", "198.51.100.1", mistake, check=False)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"cgw: {mistake}: ")
        assert "add --force" in refused.stderr
        assert set(listed(node)) == {"203.0.113.7"}
    node.cgw("deny", *mistakes, "--force")
    assert set(listed(node)) == {"203.0.113.7", *mistakes}


def test_what_is_no_client_is_refused(node: Node) -> None:
    for wrong in (
        ["127.0.0.1"],
        ["192.0.2.7/24"],
        ["::ffff:192.0.2.1"],
        ["fe80::1%eth0"],
        ["224.0.0.1"],
        ["example.org"],
        ["192.0.2.1; drop"],
        ["192.0.2.1", "--for", "0s"],
        ["192.0.2.1", "--by", "a b"],
        [],
    ):
        refused = node.cgw("deny", *wrong, check=False)
        assert (wrong, refused.returncode, refused.stdout) == (wrong, 2, "")
    assert not has_table(node)
    assert not (node.folder / "state/bans").exists()


def test_a_list_is_read_from_a_file_or_from_a_pipe(client: Asker, node: Node) -> None:
    node.guest("web1", "2202:22", serves="22/tcp").start()
    spamhaus = f"; a comment\n{NETWORK[4]} ; SBL1\n\n2001:db8::/32 # another\n203.0.113.7\n"
    node.cgw("deny", "--file", "-", "--by", "list", "--for", "8d", given=spamhaus)
    assert set(listed(node)) == {NETWORK[4], "2001:db8::/32", "203.0.113.7"}
    assert is_silent(client)
    refused = node.cgw("deny", "--file", "-", given="203.0.113.8\nx.y\n", check=False)
    assert refused.returncode == 2
    assert '-, line 2: "x.y" cannot be used' in refused.stderr
    assert len(listed(node)) == 3


# -- what outlasts what ----------------------------------------------------------------------


def test_bans_outlast_a_flush_and_a_reboot(client: Asker, node: Node) -> None:
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    web1.start()
    node.cgw("deny", CLIENT[4], "--for", "1h")
    node.cgw("deny", NETWORK[4])
    node.nft("flush ruleset\n")
    assert "bans" in [p["code"] for p in status_problems(node)]
    assert json.loads(node.cgw("deny", "--list", "--json", check=False).stdout)["problems"]
    said = sync(node)
    assert f"repaired   table {TABLE} is not there\n" in said
    assert is_silent(client)
    node.lose_runtime()
    web1.start()  # the hook alone finds the table missing
    assert is_silent(client)
    assert set(listed(node)) == {CLIENT[4], NETWORK[4]}
    of_another_version = (
        f"flush map {TABLE} revision; add element {TABLE} revision {{ 0 : 5, 5 : 0 }}"
    )
    harms = (f"flush set {TABLE} denied4", f"flush chain {TABLE} denied", of_another_version)
    for partial in harms:
        node.nft(partial + "\n")
        assert f"repaired   table {TABLE}" in sync(node)
        assert is_silent(client)
        assert sync(node) == ""


def status_problems(node: Node) -> list[dict[str, str]]:
    found = json.loads(node.cgw("status", "--json", check=False).stdout)
    problems: list[dict[str, str]] = found["problems"]
    return problems


def test_the_agent_denies_again_after_a_flush(client: Asker, node: Node) -> None:
    node.guest("web1", "2202:22", serves="22/tcp").start()
    node.cgw("deny", CLIENT[4])
    with running_agent(node):
        for destroyed in ("flush ruleset\n", f"delete table {TABLE}\n"):
            node.nft(destroyed)
            assert eventually(lambda: has_table(node) and is_silent(client))


def test_a_time_that_has_passed_while_the_node_was_off_is_over(client: Asker, node: Node) -> None:
    node.guest("web1", "2202:22", serves="22/tcp").start()
    node.cgw("deny", CLIENT[4], "--for", "1h")
    file = node.folder / "state/bans"
    file.write_text(f"cgw-bans 1\n{CLIENT[4]} {int(time.time()) - 5} \n")
    node.nft("flush ruleset\n")
    sync(node)
    assert client.asks(NODE[4], 2202).startswith("web1")
    assert not has_table(node)


def test_the_file_is_roots_alone(node: Node) -> None:
    node.cgw("deny", CLIENT[4])
    file = node.folder / "state/bans"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o666)
    assert "others than root can write to it" in node.cgw("deny", "--list", check=False).stderr
    file.chmod(0o600)
    os.chown(file, 1000, 1000)
    assert "others than root" in node.cgw("deny", THIRD[4], check=False).stderr
    os.chown(file, 0, 0)
    assert set(listed(node)) == {CLIENT[4]}


def test_a_damaged_file_opens_nothing_and_stops_no_guest(client: Asker, node: Node) -> None:
    node.cgw("deny", CLIENT[4])
    file = node.folder / "state/bans"
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    web1.start()
    for content in ("cgw-bans 2\n", "cgw-bans 1\nx", "cgw-bans 1\nx y z\n", "\0"):
        file.write_text(content)
        refused = node.cgw("deny", THIRD[4], check=False)
        assert refused.returncode == 6
        assert "or move it away: mv " in refused.stderr
        assert "record" in [p["code"] for p in status_problems(node)]
        assert file.read_text() == content
        web1.stop()
        web1.start()
        sync(node)
        assert is_silent(client)
    node.namespace.run(["mv", str(file), f"{file}.damaged"])
    sync(node)
    assert client.asks(NODE[4], 2202).startswith("web1")


def test_a_line_that_is_no_client_is_named_and_the_ruleset_stays(client: Asker, node: Node) -> None:
    node.guest("web1", "2202:22", serves="22/tcp").start()
    node.cgw("deny", CLIENT[4])
    file = node.folder / "state/bans"
    for wrong in ("x", "10.1.2.3/8", "203.0.113.300"):
        file.write_text(f"cgw-bans 1\n{CLIENT[4]} 0 \n{wrong} 0 \n")
        assert wrong in node.cgw("sync", check=False).stderr
        assert wrong in node.cgw("deny", "--list", check=False).stderr
        assert is_silent(client)
    file.write_text(f"cgw-bans 1\n{CLIENT[4]} 0 \n")
    assert set(listed(node)) == {CLIENT[4]}


@pytest.mark.parametrize("where", [RULESET, CLIENT_FLOWS])
def test_a_ban_that_was_killed_in_the_middle_is_completed(
    client: Asker, node: Node, where: str
) -> None:
    guest = node.guest("web1", "2207:7", "2202:22", serves="22/tcp")
    guest.wire.serve(guest_address(11), "7/tcp-echo")
    guest.start()
    with client.tcp_session(NODE[4], 2207) as session:
        assert session.exchange("one") == "one"
        with halted_cgw(node, where, "deny", CLIENT[4]) as halted:
            halted.kill()
        sync(node)
        assert is_silent(client)
        with pytest.raises(TimeoutError):  # its flow is there: each of its packets is dropped
            session.exchange("two", timeout=1)
        node.cgw("deny", CLIENT[4])
        assert ip_address(CLIENT[4]) not in tracked_clients(node, NODE[4])
    assert set(listed(node)) == {CLIENT[4]}


def test_bans_at_the_same_time_are_all_kept(node: Node) -> None:
    clients = [f"203.0.113.{number}" for number in range(1, 9)]
    started = [node.start_cgw("deny", address, "--for", "1h") for address in clients]
    for process in started:
        process.communicate(b"", timeout=300)
        assert process.wait() == 0
    assert set(listed(node)) == set(clients)


def test_uninstall_opens_the_ports_of_nobody_and_leaves_no_table(node: Node) -> None:
    node.cgw("deny", CLIENT[4])
    node.cgw("withdraw-all")
    assert not has_table(node)


def test_a_ban_is_no_other_firewall(node: Node) -> None:
    node.guest("web1", "2202:22", serves="22/tcp").start()
    node.cgw("deny", CLIENT[4])
    assert "other-firewalls" not in node.cgw("doctor", check=False).stdout
