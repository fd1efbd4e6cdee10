"""libvirt's own firewall rejects what comes in to its NAT networks: a guest's ports are excepted.

The rules stand here as libvirt makes them, by its iptables backend (network_iptables.c) and by
its nftables one (libvirt 10.4 on, network_nftables.c), with the guest bridge in virbr0's place.
"""

import dataclasses
from collections.abc import Callable, Iterator
from itertools import combinations, permutations
from typing import Protocol

import pytest

from tests.lab.network import (
    GUEST_BRIDGE,
    GUEST_SUBNET,
    GUEST_SUBNET6,
    UPLINK_BRIDGE,
    guest_address,
)
from tests.netns.asker import REFUSED, Asker
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import CLIENT, NODE
from tests.netns.guest import DONE, Guest
from tests.netns.node import OUR_TABLE, Node
from tests.netns.parameters import families

pytestmark = pytest.mark.netns

EXCEPTION = "cgw-hooks"
IPTABLES = ("iptables", "ip6tables")
#: Each sees only what was made with it.
TOOLS = [f"{command}-{variant}" for command in IPTABLES for variant in ("nft", "legacy")]


def iptables_backend(node: Node, variant: str = "") -> None:
    """Chain LIBVIRT_FWI, for both families; and somebody's own rule in FORWARD."""
    for command, subnet in zip(IPTABLES, (GUEST_SUBNET, GUEST_SUBNET6), strict=True):
        answers = "-m conntrack --ctstate RELATED,ESTABLISHED"
        for rule in (
            "-N LIBVIRT_FWI",
            "-A FORWARD -j LIBVIRT_FWI",
            "-A FORWARD -m mark --mark 7 -j DROP",
            f"-A LIBVIRT_FWI -o {GUEST_BRIDGE} -d {subnet} {answers} -j ACCEPT",
            f"-A LIBVIRT_FWI -o {GUEST_BRIDGE} -j REJECT",
        ):
            node.namespace.run([command + variant, *rule.split()])


def legacy_backend(node: Node) -> None:
    """The same by iptables-legacy, whose tables nft does not see."""
    iptables_backend(node, "-legacy")


def nftables_backend(node: Node) -> None:
    """Table libvirt_network, for both families, and a chain of somebody's beside it."""
    for ip, subnet in (("ip", GUEST_SUBNET), ("ip6", GUEST_SUBNET6)):
        node.nft(f"""
            table {ip} libvirt_network {{
              chain guest_input {{
                oif "{GUEST_BRIDGE}" {ip} daddr {subnet} ct state established,related counter accept
                oif "{GUEST_BRIDGE}" counter reject
              }}
              chain forward {{
                type filter hook forward priority filter; policy accept;
                counter jump guest_input
              }}
            }}
            table {ip} theirs {{ chain c {{ counter; }}; }}
        """)


Backend = Callable[[Node], None]
BACKENDS: dict[str, Backend] = {
    "iptables": iptables_backend,
    "iptables-legacy": legacy_backend,
    "nftables": nftables_backend,
}


#: Rejects what comes in, and is as it was at the end.
behind_a_firewall = pytest.mark.usefixtures("backend")


class GuestMaker(Protocol):
    """Makes guests of a libvirt network."""

    def __call__(self, name: str, *publish: str, family: int = 4) -> Guest: ...


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, node: Node) -> Iterator[Backend]:
    """A firewall as libvirt makes it. At the end it is, rule by rule, as it was."""
    made = BACKENDS[request.param]
    made(node)
    node.accept_foreign_tables()
    assert exceptions(node) == 0
    yield made
    node.stop_all_guests()
    node.assert_foreign_tables_untouched()
    assert exceptions(node) == 0


@pytest.fixture
def network_guest(node: Node) -> GuestMaker:
    """A guest on a libvirt network, in whose running definition libvirt names the bridge."""

    def make(name: str, *publish: str, family: int = 4) -> Guest:
        guest = node.guest(name, *publish, serves="22/tcp", family=family, interface="default")
        named = f'<source network="default" bridge="{GUEST_BRIDGE}"/>'
        xml = guest.xml.replace('<source network="default"/>', named)
        assert named in xml
        return dataclasses.replace(guest, xml=xml)

    return make


def exceptions(node: Node, bridge: str = "") -> int:
    """How many rules of ours there are in others' tables; or of those, for one bridge."""
    # nft does not show the comments of iptables' rules.
    saved = [node.namespace.run([f"{tool}-save"]).stdout for tool in TOOLS]
    rules = "".join([*saved, node.foreign_tables()]).splitlines()
    return sum(EXCEPTION in rule and bridge in rule for rule in rules)


def flush(node: Node) -> None:
    """Flush everything: the tables of nft, and those that only iptables-legacy sees."""
    node.nft("flush ruleset\n")
    for command in IPTABLES:
        for action in ("-F", "-X"):
            node.namespace.run([f"{command}-legacy", action])


def iptables_rules(node: Node, text: str) -> Iterator[tuple[str, str]]:
    """The rules with this text: the tool that made each, and its `-A ...`."""
    for tool in TOOLS:
        for line in node.namespace.run([f"{tool}-save"]).stdout.splitlines():
            if line.startswith("-A FORWARD ") and text in line:
                yield tool, line


def nft_rules(node: Node, text: str) -> Iterator[tuple[str, str, str]]:
    """The rules with this text in libvirt's chain of each family: chain, rule, handle."""
    for ip in ("ip", "ip6"):
        chain = f"{ip} libvirt_network forward"
        if f"table {ip} libvirt_network" in node.foreign_tables():
            for line in node.nft(f"list chain {chain}\n", "-a").splitlines():
                rule, found, handle = line.strip().partition(" # handle ")
                if found and text in rule:
                    yield chain, rule, handle


def libvirts_jump_comes_first(node: Node) -> None:
    """What `firewall-cmd --reload` ends in: libvirt puts its jump in front of what is there."""
    for tool, rule in list(iptables_rules(node, "-j LIBVIRT_FWI")):
        for action in ("-D", "-I"):
            node.namespace.run([tool, *rule.replace("-A", action).split()])
    for chain, _, handle in list(nft_rules(node, "jump guest_input")):
        node.nft(f"delete rule {chain} handle {handle}\n")
        node.nft(f"insert rule {chain} counter jump guest_input\n")


def exceptions_go(node: Node) -> None:
    """Somebody removes our rules."""
    for tool, rule in list(iptables_rules(node, EXCEPTION)):
        node.namespace.run([tool, *rule.replace("-A", "-D", 1).split()])
    for chain, _, handle in list(nft_rules(node, EXCEPTION)):
        node.nft(f"delete rule {chain} handle {handle}\n")


def exceptions_double(node: Node) -> None:
    """Our rules are there once more, at the end."""
    for tool, rule in list(iptables_rules(node, EXCEPTION)):
        node.namespace.run([tool, *rule.split()])
    for chain, rule, _ in list(nft_rules(node, EXCEPTION)):
        node.nft(f"add rule {chain} {rule}\n")


def heal(node: Node, guest: Guest, healer: str) -> None:
    """Let `cgw sync` or the guest's hook mend the node."""
    if healer == "sync":
        node.cgw("sync", check=False)  # libvirt does not answer here: the records count
    else:
        assert guest.hook("reconnect") == DONE


healers = pytest.mark.parametrize("healer", ["sync", "reconnect"])


@behind_a_firewall
@families
def test_a_published_port_passes_and_nothing_else(
    client: Asker, node: Node, network_guest: GuestMaker, family: int
) -> None:
    web1 = network_guest("web1", "2202:22", family=family)
    inside = {4: "10.5.5.11", 6: "fd00:5::11"}[family]
    for subnet, by in ((GUEST_SUBNET, NODE[4]), (GUEST_SUBNET6, NODE[6])):
        client.namespace.ip(f"route add {subnet} via {by}")
    assert web1.hook("prepare") == DONE
    assert not client.asks(inside, 22).startswith("web1")  # libvirt's reject
    assert web1.hook("started") == DONE
    assert client.asks(NODE[family], 2202) == f"web1 saw {CLIENT[family]}"
    assert not client.asks(inside, 22).startswith("web1")
    web1.stop()
    assert client.asks(NODE[family], 2202) == REFUSED
    assert exceptions(node) == 0


@behind_a_firewall
def test_a_bridge_that_libvirt_names_only_once_the_guest_has_started_counts(
    client: Asker, node: Node, network_guest: GuestMaker
) -> None:
    """At prepare the definition has the network alone (libvirt 9.0)."""
    web1 = network_guest("web1", "2202:22")
    unnamed = web1.xml.replace(f' bridge="{GUEST_BRIDGE}"', "", 1)
    assert unnamed != web1.xml
    assert web1.hook("prepare", xml=unnamed) == DONE
    assert web1.hook("started") == DONE
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    web1.stop()
    assert exceptions(node) == 0


@behind_a_firewall
def test_without_the_exception_the_port_does_not_pass(client: Asker, node: Node) -> None:
    """That it is the exception that lets it: without, libvirt's reject answers."""
    web1 = node.guest("web1", "2202:22", serves="22/tcp")  # on a plain bridge: no exception
    web1.start()
    assert exceptions(node) == 0
    assert client.asks(NODE[4], 2202) == REFUSED
    assert "2202" in node.our_table()


@behind_a_firewall
def test_the_exception_goes_with_the_last_guest_of_the_bridge(
    client: Asker, node: Node, network_guest: GuestMaker
) -> None:
    web1, web2 = network_guest("web1", "2202:22"), network_guest("web2", "2203:22")
    web1.start()
    once = exceptions(node)
    assert once
    web2.start()
    assert web2.hook("reconnect") == DONE
    assert exceptions(node) == once
    web1.stop()
    assert exceptions(node) == once
    assert client.asks(NODE[4], 2203) == f"web2 saw {CLIENT[4]}"
    web2.stop()
    assert exceptions(node) == 0


@healers
def test_a_rebuilt_firewall_gets_its_exception_again(
    client: Asker, node: Node, backend: Backend, network_guest: GuestMaker, healer: str
) -> None:
    """After nft flush ruleset, libvirt makes its rules anew, in front of nobody's."""
    web1 = network_guest("web1", "2202:22")
    web1.start()
    once = exceptions(node)
    flush(node)
    backend(node)
    node.accept_foreign_tables()
    assert client.asks(NODE[4], 2202) == REFUSED
    heal(node, web1, healer)
    assert exceptions(node) == once
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert_as_recorded(node)


@pytest.mark.parametrize(
    ("harm", "healer"),
    [
        (libvirts_jump_comes_first, "sync"),
        (libvirts_jump_comes_first, "reconnect"),
        (exceptions_go, "sync"),
        (exceptions_double, "reconnect"),
    ],
)
def test_an_exception_is_put_in_front_again(  # noqa: PLR0913, PLR0917 - who, where, what, by whom
    client: Asker,
    node: Node,
    backend: Backend,
    network_guest: GuestMaker,
    harm: Callable[[Node], None],
    healer: str,
) -> None:
    """It is missing, or behind libvirt's reject, or there twice; then it is in front, once."""
    web1 = network_guest("web1", "2202:22")
    web1.start()
    once = exceptions(node)
    assert once == len(IPTABLES)
    harm(node)
    is_harmed = harm is not exceptions_double
    assert client.asks(NODE[4], 2202) == (REFUSED if is_harmed else f"web1 saw {CLIENT[4]}")
    assert node.states() == {"web1": "failed" if is_harmed else "published"}
    heal(node, web1, healer)
    assert exceptions(node) == once
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert node.states() == {"web1": "published"}
    web1.stop()
    assert exceptions(node) == 0
    flush(node)
    backend(node)  # with other handles, and in its own order
    node.accept_foreign_tables()


@behind_a_firewall
def test_all_copies_of_an_exception_go_with_the_guest(
    node: Node, network_guest: GuestMaker
) -> None:
    web1 = network_guest("web1", "2202:22")
    web1.start()
    exceptions_double(node)
    assert exceptions(node) == 2 * len(IPTABLES)
    web1.stop()
    assert exceptions(node) == 0


OTHER_BRIDGE = "virbr7"


@behind_a_firewall
@pytest.mark.parametrize("operation", ["started", "reconnect"])
def test_a_guest_that_changed_networks_takes_its_exception_along(
    client: Asker, node: Node, network_guest: GuestMaker, operation: str
) -> None:
    """Its old network's one stays as long as another guest is there."""
    make_other_network(node)
    web1, web2 = network_guest("web1", "2202:22"), network_guest("web2", "2203:22")
    web1.start()
    web2.start()
    moved = move_to_other_network(web1)
    assert web1.hook(operation, xml=moved) == DONE
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert client.asks(NODE[4], 2203) == f"web2 saw {CLIENT[4]}"
    assert exceptions(node, GUEST_BRIDGE) == exceptions(node, OTHER_BRIDGE) == len(IPTABLES)
    web2.stop()
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert exceptions(node, GUEST_BRIDGE) == 0
    assert exceptions(node, OTHER_BRIDGE) == len(IPTABLES)
    web1.stop(xml=moved)
    assert exceptions(node) == 0


def make_other_network(node: Node) -> None:
    """Make another libvirt network; its rules are beside those of the first one."""
    node.namespace.ip(f"link add {OTHER_BRIDGE} type bridge\nlink set {OTHER_BRIDGE} up\n")
    for tool, _ in list(iptables_rules(node, "-j LIBVIRT_FWI")):
        rule = f"-A LIBVIRT_FWI -o {OTHER_BRIDGE} -j REJECT"
        node.namespace.run([tool, *rule.split()])
    for chain, _, _ in list(nft_rules(node, "jump guest_input")):
        into = chain.replace("forward", "guest_input")
        node.nft(f"add rule {into} oif {OTHER_BRIDGE} counter reject\n")
    node.accept_foreign_tables()


def move_to_other_network(guest: Guest) -> str:
    """Move a running guest with its address; its definition from then on.

    Since its ports stay what they are, nothing is withdrawn in between.
    """
    address = guest_address(guest.octet)
    guest.node.namespace.ip(
        f"link set guest{guest.octet} master {OTHER_BRIDGE}\n"
        f"route add {address} dev {OTHER_BRIDGE}\n"
    )
    return guest.xml.replace(f'bridge="{GUEST_BRIDGE}"', f'bridge="{OTHER_BRIDGE}"')


def emptied(backend: Backend) -> Backend:
    """What a former backend of libvirt leaves: its chains, without the networks' rules."""

    def make(node: Node) -> None:
        backend(node)
        if backend is nftables_backend:
            for ip in ("ip", "ip6"):
                node.nft(f"flush chain {ip} libvirt_network guest_input\n")
        else:
            for tool, _ in list(iptables_rules(node, "-j LIBVIRT_FWI")):
                node.namespace.run([tool, "-F", "LIBVIRT_FWI"])

    return make


@pytest.mark.parametrize(("left", "used"), [*permutations(BACKENDS, 2)])
def test_what_a_former_backend_left_empty_hides_no_other(
    client: Asker, node: Node, network_guest: GuestMaker, left: str, used: str
) -> None:
    """Only the one that rejects gets the exception."""
    emptied(BACKENDS[left])(node)
    BACKENDS[used](node)
    node.accept_foreign_tables()
    web1 = network_guest("web1", "2202:22")
    web1.start()
    assert exceptions(node) == len(IPTABLES)
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert node.states() == {"web1": "published"}
    exceptions_go(node)
    assert client.asks(NODE[4], 2202) == REFUSED
    assert node.states() == {"web1": "failed"}
    web1.stop()
    node.assert_foreign_tables_untouched()
    flush(node)
    node.accept_foreign_tables()


@pytest.mark.parametrize("pair", [*combinations(BACKENDS, 2)], ids="+".join)
def test_where_two_firewalls_reject_both_get_the_exception(
    client: Asker, node: Node, network_guest: GuestMaker, pair: tuple[str, str]
) -> None:
    for backend in pair:
        BACKENDS[backend](node)
    node.accept_foreign_tables()
    web1 = network_guest("web1", "2202:22")
    web1.start()
    assert exceptions(node) == 2 * len(IPTABLES)
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    web1.stop()
    assert exceptions(node) == 0
    node.assert_foreign_tables_untouched()
    flush(node)
    node.accept_foreign_tables()


def test_a_table_that_is_not_libvirts_stays_as_it_is(
    client: Asker, node: Node, network_guest: GuestMaker
) -> None:
    """A native table of the name that iptables uses; and a chain like ours in it."""
    node.nft("""
        table ip filter {
          chain forward { type filter hook forward priority filter; }
          chain theirs { ct status dnat accept; }
        }
    """)
    web1 = network_guest("web1", "2202:22")
    web1.start()
    assert node.states() == {"web1": "published"}
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert exceptions(node) == 0
    node.cgw("sync", check=False)
    web1.stop()
    node.assert_foreign_tables_untouched()


@healers
def test_a_flushed_firewall_is_no_error(
    client: Asker, node: Node, backend: Backend, network_guest: GuestMaker, healer: str
) -> None:
    """Nothing rejects then; to make its rules again is libvirt's task."""
    web1 = network_guest("web1", "2202:22")
    web1.start()
    flush(node)
    heal(node, web1, healer)
    assert node.states() == {"web1": "published"}
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert exceptions(node) == 0
    web1.stop()
    backend(node)
    node.accept_foreign_tables()


@pytest.mark.parametrize("variant", ["", "-legacy"])
def test_where_somebody_emptied_a_forward_chain_that_drops_status_says_so(
    client: Asker, node: Node, network_guest: GuestMaker, variant: str
) -> None:
    """Only libvirt makes its jump again: `iptables -F FORWARD` on a host with Docker's policy."""
    iptables_backend(node, variant)
    iptables = f"iptables{variant}"
    node.namespace.run([iptables, "-P", "FORWARD", "DROP"])
    node.namespace.run([iptables, "-A", "FORWARD", "-i", GUEST_BRIDGE, "-j", "ACCEPT"])
    web1 = network_guest("web1", "2202:22")
    web1.start()
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    node.namespace.run([iptables, "-F", "FORWARD"])
    for _ in ("before a sync", "after it"):
        assert client.is_unanswered(NODE[4], 2202)
        assert node.states() == {"web1": "failed"}
        node.cgw("sync", check=False)
    said = node.cgw("status", check=False).stderr
    assert f"chain FORWARD drops what comes in to {GUEST_BRIDGE}" in said
    for jump in (f"-i {GUEST_BRIDGE} -j ACCEPT", "-j LIBVIRT_FWI"):
        node.namespace.run([iptables, "-I", "FORWARD", *jump.split()])
    node.cgw("sync", check=False)
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    assert node.states() == {"web1": "published"}
    web1.stop()
    flush(node)
    node.accept_foreign_tables()


@behind_a_firewall
def test_a_guest_goes_out_and_is_answered_as_before(
    client: Asker, node: Node, network_guest: GuestMaker
) -> None:
    client.serve(CLIENT[4], "7/tcp")
    client.namespace.ip(f"route add {GUEST_SUBNET} via {NODE[4]}")
    web1 = network_guest("web1", "2202:22")
    web1.start()
    assert web1.asks(CLIENT[4], 7) == "client saw 10.5.5.11"
    assert UPLINK_BRIDGE not in node.our_table()


def test_where_libvirt_has_no_firewall_none_is_made(
    client: Asker, node: Node, network_guest: GuestMaker
) -> None:
    """Networks with forward mode "open" have no such rules, nor has a host without networks."""
    assert node.foreign_tables() == ""
    web1 = network_guest("web1", "2202:22")
    web1.start()
    assert client.asks(NODE[4], 2202) == f"web1 saw {CLIENT[4]}"
    web1.stop()
    assert node.ruleset().count("table") == node.ruleset().count(f"table {OUR_TABLE}")
