"""`cgw node up` and `cgw node down`: what they change, that it holds, and that it goes again."""

import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.namespace import veth
from tests.lab.network import GUEST_BRIDGE, INTERNODE_DEVICES, UPLINK_BRIDGE
from tests.netns.capture import Capture
from tests.netns.cluster import Cluster, all_up, cluster, guest_at, inside, uplink
from tests.netns.configs import GATEWAY
from tests.netns.node import PYTHON, Node
from tests.netns.parameters import families

pytestmark = pytest.mark.netns

CHANGE_FAILED = 6
PAIR = {"web1": 1, "web2": 2}
SETTINGS = ("ipv4", "ipv6")
FOREIGN = """
add table ip theirs
add chain ip theirs c { type filter hook input priority 0; }
add rule ip theirs c counter
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes with a guest each; every test finds them down, and leaves them so."""
    with cluster(tmp_path_factory.mktemp("pair"), homes=PAIR, nodes=2) as made:
        made.pass_bridged_packets_to_rules(False)
        yield made


@pytest.fixture
def node(pair: Cluster) -> Iterator[Node]:
    """The first node, with a stranger's table; down again at the end, nothing may be left."""
    node = pair.nodes[1]
    node.nft(FOREIGN)
    before = state(node)
    yield node
    node.cgw("node", "down")
    assert before == state(node)
    node.nft("delete table ip theirs\n")


@pytest.fixture
def up(pair: Cluster) -> Iterator[Cluster]:
    all_up(pair)
    pair.internode_frames_about("")
    yield pair
    for each in pair.nodes.values():
        for guest in pair.guests.values():
            for operation in ("stopped", "release"):
                each.hook(guest.name, operation, "-", guest.xml)
        each.cgw("node", "down")


def state(node: Node) -> tuple[str, str, dict[str, str], list[str]]:
    """Addresses, ruleset, kernel settings and files of a node."""
    addresses = node.namespace.run(["ip", "-br", "address", "show", "dev", GUEST_BRIDGE]).stdout
    files = sorted(
        p.name for p in node.runtime.rglob("*") if p.name not in {"lock", "node.down", "node.lost"}
    )
    return addresses, node.nft("list ruleset\n", "-s", "-a"), settings(node), files


def settings(node: Node) -> dict[str, str]:
    """Every setting of the namespace's devices that `up` could be at."""

    def read() -> dict[str, str]:
        found = {"net/ipv4/ip_forward": Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()}
        for family in SETTINGS:
            for path in sorted(Path(f"/proc/sys/net/{family}/conf").glob("*/*")):
                if path.stat().st_mode & 0o400 and path.name != "stable_secret":
                    found[str(path.relative_to("/proc/sys"))] = path.read_text().strip()
        return found

    return node.namespace.call(read)


def test_up_gives_the_bridge_both_addresses_and_sets_only_our_devices(node: Node) -> None:
    before = settings(node)
    node.cgw("node", "up")
    addresses = node.namespace.run(["ip", "-br", "address", "show", "dev", GUEST_BRIDGE]).stdout
    for family, length in ((4, 24), (6, 64)):
        assert f"{inside(1, family)}/{length}" in addresses
        assert f"{GATEWAY[family]}/{length}" in addresses
    now = settings(node)
    changed = {name for name, value in now.items() if value != before[name]}
    ours = {"all", GUEST_BRIDGE, UPLINK_BRIDGE}
    four = {name for name in changed if "/ipv4/" in name}
    assert {name.split("/")[3] for name in four} == ours
    assert {n.split("/")[4] for n in four} == {"forwarding", "send_redirects", "rp_filter"}
    six = {name.split("/")[4] for name in changed if "/ipv6/" in name}
    assert six == {"forwarding"}  # of all devices at once: the kernel has it no other way
    assert "table ip theirs" in node.ruleset()


def test_up_may_be_repeated(node: Node) -> None:
    """The rules are written anew, so their handles differ; nothing else may."""
    assert "added" in node.cgw("node", "up").stdout
    addresses, _, kernel, files = state(node)
    ruleset = node.ruleset()
    again = node.cgw("node", "up").stdout
    assert not {"added", "set"} & set(again.split())
    now = state(node)
    assert (addresses, kernel, files) == (now[0], now[2], now[3])
    assert ruleset == node.ruleset()


def test_down_may_be_repeated_and_needs_no_up(node: Node) -> None:
    for _ in range(2):
        node.cgw("node", "down")


def test_what_was_there_before_up_stays_after_down(node: Node) -> None:
    """An address and a setting of the admin's own."""
    node.namespace.ip(f"address add {inside(1, 4)}/24 dev {GUEST_BRIDGE}")
    node.namespace.sysctl({f"net/ipv4/conf/{UPLINK_BRIDGE}/forwarding": "1"})
    before = state(node)
    node.cgw("node", "up")
    node.cgw("node", "down")
    assert before == state(node)
    node.namespace.ip(f"address delete {inside(1, 4)}/24 dev {GUEST_BRIDGE}")
    node.namespace.sysctl({f"net/ipv4/conf/{UPLINK_BRIDGE}/forwarding": "0"})


def test_without_uplink_devices_the_whole_host_routes_until_down(node: Node) -> None:
    """The kernel then sets forwarding, and redirects, of all devices: the admin's own come back."""
    four, six = (f"net/ipv{version}/conf" for version in (4, 6))
    own = {f"{four}/{UPLINK_BRIDGE}/forwarding": "1", f"{six}/{UPLINK_BRIDGE}/forwarding": "1"}
    redirects = {f"{four}/all/accept_redirects": "0"}
    fresh, config = settings(node), node.config_file.read_text()
    node.namespace.sysctl({**own, **redirects})
    before = state(node)
    node.configure(config.replace(f'devices = ["{UPLINK_BRIDGE}"]\n', ""))
    node.cgw("node", "up")
    now = settings(node)
    assert now["net/ipv4/ip_forward"] == "1"
    assert now[f"{six}/all/forwarding"] == "1"
    node.cgw("node", "up")
    node.cgw("node", "down")
    node.configure(config)
    assert before == state(node)
    node.namespace.sysctl({name: fresh[name] for name in (*own, *redirects)})


@pytest.mark.parametrize("accepts", ["0", "1", "2"])
def test_a_default_route_that_routers_tell_of_lives_on_where_it_did(
    node: Node, pair: Cluster, accepts: str
) -> None:
    """A host that forwards heeds no router, unless told otherwise."""
    setting = f"net/ipv6/conf/{UPLINK_BRIDGE}/accept_ra"
    fresh = settings(node)[setting]
    node.namespace.sysctl({setting: accepts})
    before = state(node)
    seen = []
    for direction in ("down", "up", "down"):
        node.cgw("node", direction)
        seen.append(has_default_route(node))
        advertise_router(pair, lifetime=1800)
        seen.append(has_default_route(node))
    advertise_router(pair, lifetime=0)
    assert seen == [False] + [accepts != "0"] * 5
    assert not has_default_route(node)
    assert before == state(node)
    node.namespace.sysctl({setting: fresh})


def advertise_router(pair: Cluster, lifetime: int) -> None:
    """Say on the uplink that the client is a router for so many seconds (RFC 4861 section 4.2)."""

    def send() -> None:
        message = struct.pack("!BBHBBHII", 134, 0, 0, 0, 0, lifetime, 0, 0)
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as endpoint:
            endpoint.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            endpoint.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex("uplink0")))

    pair.client.namespace.call(send)


def has_default_route(node: Node) -> bool:
    """Whether the node has learned one from a router."""
    routes = node.namespace.run(["ip", "-6", "route", "show", "default", "proto", "ra"])
    return UPLINK_BRIDGE in routes.stdout


def test_without_its_bridge_a_node_stays_as_it_was_and_says_what_to_do(node: Node) -> None:
    before, config = state(node), node.config_file.read_text()
    node.configure(config.replace(GUEST_BRIDGE, "guestbr7"))
    refused = node.cgw("node", "up", check=False)
    node.configure(config)
    assert (refused.returncode, refused.stdout) == (CHANGE_FAILED, "")
    assert refused.stderr == (
        "cgw: guestbr7: no such device; make the bridge, then run: cgw node up\n"
    )
    assert before == state(node)


_KILLED = """
import os, signal, sys
from cgw_hooks.commands import terminal
from cgw_hooks.node import gateway as node
from cgw_hooks.host import links, sysctl
from cgw_hooks.host.nft import Nft
left, after = int(sys.argv[1]), sys.argv[2] == "after"
def deadly(function):
    def call(*arguments):
        global left
        left -= 1
        if left < 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments)
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
Nft.apply = deadly(Nft.apply)
links.add_address = deadly(links.add_address)
links.set_isolated = deadly(links.set_isolated)
sysctl.write = deadly(sysctl.write)
sys.exit(terminal.main(["node", "up"]))
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", [0, 1, 4, 6, 7, 10])
def test_killed_at_any_change_up_can_be_given_back(node: Node, step: int, moment: str) -> None:
    """The fixture's end says that `down` leaves nothing."""
    killed = subprocess.run(
        [*node.namespace.enter_command(), str(PYTHON), "-c", _KILLED, str(step), moment],
        env=node.environment(), cwd="/", check=False, capture_output=True,
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr.decode()


@families
def test_only_its_own_node_answers_a_guest_that_asks_for_the_gateway(
    up: Cluster, family: int
) -> None:
    for name, home in PAIR.items():
        guest = up.asker(name)
        guest.namespace.ip("neigh flush all")
        assert guest.asks(uplink(home, family), 2201).startswith("web1 saw")
        known = guest.namespace.run(["ip", "neigh", "show", GATEWAY[family]]).stdout
        assert f"02:00:00:00:05:{home:02x}" in known
    assert up.internode_frames_about(GATEWAY[family]) == set()


def test_arp_about_the_gateway_never_passes_between_nodes(up: Cluster) -> None:
    """Questions, gratuitous ARP, and a guest that takes the address; other ARP passes."""
    for sender in (up.nodes[1].namespace, up.asker("web1").namespace):
        device = GUEST_BRIDGE if sender is up.nodes[1].namespace else "eth0"
        if device == "eth0":
            sender.ip(f"address add {GATEWAY[4]}/32 dev eth0")
        sender.sysctl({f"net/ipv4/conf/{device}/arp_notify": "1"})
        sender.sysctl({f"net/ipv6/conf/{device}/keep_addr_on_down": "1"})
        sender.ip(f"link set {device} arp off\nlink set {device} arp on\n")
        sender.ip(f"link set {device} down\nlink set {device} up\n")
        if device == "eth0":
            sender.ip(f"address delete {GATEWAY[4]}/32 dev eth0\n")
            sender.ip("".join(f"route replace default via {GATEWAY[f]}\n" for f in (4, 6)))
    up.nodes[1].cgw("node", "up")
    up.asker("web1").namespace.ip("neigh flush all")
    assert up.asker("web1").asks(guest_at("web2", 4), 22).startswith("web2 saw")
    seen = {f.about for c in up.internode for f in c.frames() if f.kind == "arp"}
    assert guest_at("web2", 4) in seen
    assert GATEWAY[4] not in seen


@families
def test_a_neighbour_without_filter_is_not_answered(up: Cluster, family: int) -> None:
    """Its guests' questions come in; this node's own filter drops them."""
    up.nodes[2].nft("delete table bridge cgw\n")
    web2 = up.asker("web2")
    web2.namespace.ip("neigh flush all")
    assert web2.asks(uplink(2, family), 2202).startswith("web2 saw")
    known = web2.namespace.run(["ip", "neigh", "show", GATEWAY[family]]).stdout
    assert "02:00:00:00:05:02" in known
    first = up.internode[0].frames()  # what passes node1's device
    assert [frame for frame in first if not frame.sent and frame.concerns(GATEWAY[family])]
    assert [] == [frame for frame in first if frame.sent and frame.concerns(GATEWAY[family])]


def test_no_node_finds_the_others_gateway_address_a_duplicate(pair: Cluster) -> None:
    """Nobody asks whose it is: duplicate address detection is on, but not for that one."""
    for node in pair.nodes.values():
        node.namespace.sysctl({f"net/ipv6/conf/{GUEST_BRIDGE}/accept_dad": "1"})
        node.namespace.sysctl({"net/ipv6/conf/all/accept_dad": "1"})
    pair.internode_frames_about("")
    for node in pair.nodes.values():
        node.cgw("node", "up")
    for node in pair.nodes.values():
        listed = node.namespace.run(["ip", "-6", "address", "show", "to", GATEWAY[6]]).stdout
        assert "nodad" in listed
        assert "tentative" not in listed
    assert pair.internode_frames_about(GATEWAY[6]) == set()
    for node in pair.nodes.values():
        node.cgw("node", "down")
        node.namespace.sysctl({"net/ipv6/conf/all/accept_dad": "0"})
        node.namespace.sysctl({f"net/ipv6/conf/{GUEST_BRIDGE}/accept_dad": "0"})


def test_the_filter_holds_for_a_device_that_comes_back(up: Cluster) -> None:
    """The last test here: the module's captures end with the device."""
    first, second = up.nodes[1].namespace, up.nodes[2].namespace
    out, back = INTERNODE_DEVICES
    first.ip(f"link delete {out}")
    veth(first, out, second, back)
    first.ip(f"link set {out} master {GUEST_BRIDGE}")
    second.ip(f"link set {back} master {GUEST_BRIDGE}")
    watch = Capture(first, out)
    web1 = up.asker("web1")
    web1.namespace.ip("neigh flush all")
    for family in (4, 6):
        assert web1.asks(guest_at("web2", family), 22).startswith("web2 saw")
        assert web1.asks(uplink(1, family), 2201).startswith("web1 saw")
    frames = watch.frames()
    watch.close()
    for family in (4, 6):
        assert [] == [frame for frame in frames if frame.concerns(GATEWAY[family])]
        assert [frame for frame in frames if frame.concerns(guest_at("web2", family))]
