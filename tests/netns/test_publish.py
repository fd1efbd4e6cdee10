"""`cgw publish` where libvirt is its test driver: what a packet meets, and what is refused.

The test driver reads its guests from a file and forgets each change when the command ends. So what
is written is tested with a real libvirtd (`tests/libvirt/test_publish.py`).
"""

import fcntl
import subprocess
from dataclasses import dataclass

import pytest

from tests.lab import domain, network
from tests.netns.asker import REFUSED, Asker
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import CLIENT, FULL_NAT, NODE, NODE_AMONG_GUESTS
from tests.netns.conftest import NodeMaker
from tests.netns.faults import owned_table
from tests.netns.node import CHECKOUT, OUR_TABLE, PYTHON, Node
from tests.netns.own_mounts import own_mounts
from tests.netns.parameters import families

pytestmark = pytest.mark.netns

INVALID, CONFLICT, STATE, UNKNOWN = 3, 4, 6, 8
OCTET = 11
ADDRESSES = f"{network.guest_address(OCTET)},{network.guest_address6(OCTET)}"
#: cgw, with libvirt's test driver in the place of its QEMU driver.
PROGRAM = """
import sys
sys.path.insert(0, "{checkout}")
sys.argv = ["cgw", *{arguments}]
from cgw_hooks.host import libvirt_api
libvirt_api.URIS["qemu"] = "test://{guests}"
from cgw_hooks.commands.cli import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Host:
    """A node, and guests that libvirt's test driver says it runs."""

    node: Node

    def define(self, *annotations: str) -> None:
        """Let libvirt run web1, web2 ... with these annotations (empty: none)."""
        domains = "".join(
            f"<domain type='test'><name>web{number}</name>"
            f"<uuid>{domain.guest_uuid(OCTET + number - 1)}</uuid><metadata>{annotation}</metadata>"
            "<memory>1024</memory><os><type>hvm</type></os></domain>"
            for number, annotation in enumerate(annotations, start=1)
        )
        (self.node.folder / "guests.xml").write_text(f"<node>{domains}</node>")

    def cgw(self, *arguments: str, code: int = 0) -> str:
        """Run cgw; what it printed, of an error its line."""
        guests = self.node.folder / "guests.xml"
        program = PROGRAM.format(checkout=CHECKOUT, arguments=[*arguments], guests=guests)
        process = self.node.start_cgw(code=program)
        out, err = (output.decode() for output in process.communicate(b"", timeout=300))
        assert "Traceback" not in err
        assert process.wait() == code, err
        assert not code or len(err.splitlines()) == 1, err
        return err if code else out

    def publish(self, *ports: str, code: int = 0) -> str:
        """Publish ports of web1."""
        return self.cgw("publish", "web1", *ports, "--guest-address", ADDRESSES, code=code)


def annotation(*specs: str) -> str:
    inner = "".join(
        f'<portForward proto="tcp"><range start="{spec.partition(":")[0]}" '
        f'to="{spec.partition(":")[2]}"/></portForward>'
        for spec in specs
    )
    return domain.publish_element(inner, ADDRESSES)


@pytest.fixture
def host(node: Node) -> Host:
    return wired(node)


def wired(node: Node) -> Host:
    serves = "22/tcp 53/udp 80/tcp 36/sctp"
    guest = node.guest("web1", serves=serves, octet=OCTET)
    guest.wire.serve(network.guest_address6(OCTET), serves)
    host = Host(node)
    host.define("")
    return host


@families
def test_every_protocol_and_family_answers_when_the_command_returns(
    client: Asker, make_node: NodeMaker, family: int
) -> None:
    host = wired(make_node(FULL_NAT))
    host.publish("8080:80", "5353:53/udp", "3636:36/sctp", "8000-8009:80")
    seen = f"web1 saw {NODE_AMONG_GUESTS[family]}"
    for port, protocol in ((8080, "tcp"), (5353, "udp"), (3636, "sctp"), (8000, "tcp")):
        assert client.asks(NODE[family], port, protocol) == seen
    assert_as_recorded(host.node)
    host.define(annotation("8080:80"))
    host.cgw("unpublish", "web1")
    assert client.asks(NODE[family], 8080) == REFUSED
    assert host.node.files() == {}


def test_a_listening_address_and_sources_limit_a_port(client: Asker, host: Host) -> None:
    host.node.add_address("192.168.122.44")
    said = host.publish("192.168.122.44:8080:80")
    assert said == "web1  192.168.122.44:8080 -> 10.5.5.11:80/tcp\n"
    assert client.asks("192.168.122.44", 8080) == f"web1 saw {CLIENT[4]}"
    assert client.asks(NODE[4], 8080) == REFUSED
    host.define(annotation("8080:80"))
    host.cgw("unpublish", "web1")


def test_a_picked_port_is_one_that_nobody_has(client: Asker, host: Host) -> None:
    host.node.configure('[policy]\nauto-ports = "30000-30006"\nlisten-ports = ["30001-30006"]\n')
    host.node.guest("far", "30001:22", octet=OCTET + 5).start()
    host.node.serve(NODE[4], "30002/tcp")
    host.node.namespace.run(
        ["nft", "add element inet cgw published4 { tcp . 30003 : 1.2.3.4 . 1 }"]
    )
    host.define("", annotation("30004:22"))
    assert host.publish(":80") == f"{NODE[4]}:30005\n"
    assert client.asks(NODE[4], 30005) == f"web1 saw {CLIENT[4]}"
    said = host.publish(":80", ":22", ":80/udp", ":81", code=CONFLICT)
    assert "policy.auto-ports 30000-30006: no tcp port of these is free" in said
    host.node.configure('[policy]\nauto-ports = "30000-30004"\nlisten-ports = "30005"\n')
    said = host.publish(":81", code=CONFLICT)
    assert "30000-30004: policy.listen-ports allows none of these" in said
    host.define(annotation("30005:80"))
    host.cgw("unpublish", "web1")
    host.node.cgw("sync", check=False)


@pytest.mark.parametrize(
    ("ports", "code", "said"),
    [
        (["8080:80", "2202:22"], CONFLICT, 'port *:2202/tcp is published by guest "far"'),
        (["8080:80", "2222:22"], CONFLICT, "port *:2222/tcp is in use by a process of this node"),
        (["9090:81"], CONFLICT, "9090:81/tcp: the guest publishes 9090:80/tcp already"),
        (["100:80"], INVALID, "policy.listen-ports"),
    ],
)
def test_what_is_refused_changes_nothing(
    host: Host, ports: list[str], code: int, said: str
) -> None:
    host.node.configure('[policy]\nlisten-ports = ["1000-65535"]\n')
    host.node.guest("far", "2202:22", octet=OCTET + 5).start()
    host.node.serve(NODE[4], "2222/tcp")
    host.define(annotation("9090:80"))
    before = host.node.files(), host.node.ruleset()
    assert said in host.publish(*ports, code=code)
    assert (host.node.files(), host.node.ruleset()) == before


def test_a_failure_after_the_annotation_was_written_is_undone(client: Asker, host: Host) -> None:
    with owned_table(host.node):
        said = host.publish("8080:80", code=STATE)
    assert "(the former annotation was restored" in said
    assert client.asks(NODE[4], 8080) == REFUSED
    host.publish("8080:80")
    with open(host.node.runtime / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = host.publish("8081:80", code=STATE)
    assert "another cgw has held the lock for 10 s" in said
    assert "(the former annotation was restored" in said
    assert client.asks(NODE[4], 8081) == REFUSED
    host.define(annotation("8080:80"))
    host.cgw("unpublish", "web1")


def test_where_run_is_full_a_failure_names_its_cure_once(host: Host) -> None:
    node = host.node

    def cgw(*arguments: str) -> "subprocess.CompletedProcess[str]":
        program = PROGRAM.format(
            checkout=CHECKOUT, arguments=[*arguments], guests=node.folder / "guests.xml"
        )
        enter = [*node.namespace.enter_command(), *mounts.enter_command()]
        return subprocess.run(
            [*enter, PYTHON, "-c", program],
            env=node.environment(), cwd="/", text=True, capture_output=True, check=False,
        )  # fmt: skip

    host.define(annotation("9090:80"))
    with own_mounts(node) as mounts:
        mounts.make_runtime_small()
        assert cgw("sync").returncode == 0
        mounts.fill_runtime()
        done = cgw("publish", "web1", "8080:80")
        assert (STATE, "") == (done.returncode, done.stdout)
        assert done.stderr.endswith(
            ": it cannot be written: No space left on device (the former annotation was restored)"
            "; run: cgw sync\n"
        )
        mounts.empty_runtime()
        host.define("")
        assert cgw("sync").returncode == 0
    node.nft(f"delete table {OUR_TABLE}")


def test_a_dry_run_of_a_node_without_table_shows_the_whole_table(host: Host) -> None:
    said = host.cgw("publish", "web1", "8080:80", "--guest-address", ADDRESSES, "--dry-run")
    assert "+++ web1 live (then)" in said
    text = said[said.index("add table ") :]
    host.node.nft(text, "--check")
    assert "6 . 8080 : 10.5.5.11 . 80" in text
    assert host.node.our_table() == ""
    assert not host.node.runtime.exists()


def test_unknown_names_and_ports(host: Host) -> None:
    assert "there is no such guest" in host.cgw("publish", "nobody", "80:80", code=UNKNOWN)
    assert "it publishes nothing" in host.cgw("unpublish", "web1", code=UNKNOWN)
    host.define(annotation("8080:80"))
    assert "does not publish 81/tcp" in host.cgw("unpublish", "web1", "81", code=UNKNOWN)


def test_a_guest_may_be_called_by_its_uuid(host: Host) -> None:
    """As in virsh."""
    uuid = domain.guest_uuid(OCTET).upper()
    said = host.cgw("publish", uuid, "8080:80", "--guest-address", ADDRESSES)
    assert said.startswith("web1  ")
    host.define(annotation("8080:80"))
    assert host.cgw("status", uuid) == host.cgw("status", "web1")
    assert "web1" in host.cgw("status", uuid)
    assert host.cgw("check", uuid) == host.cgw("check", "web1")
    assert host.cgw("unpublish", uuid, "8080") == "web1  8080/tcp unpublished\n"
    assert "there is no such guest" in host.cgw("publish", uuid[:-1], "80:80", code=UNKNOWN)
    host.cgw("unpublish", "web1")


def test_a_limit_for_one_client_is_published_and_shown(client: Asker, host: Host) -> None:
    host.define("")
    told = host.publish("8080:80", "5353:53/udp+limit=1/hour", "--limit", "2/hour")
    assert "one client: 2/hour" in told
    assert "one client: 1/hour" in told
    assert [not client.is_unanswered(NODE[4], 8080) for _ in range(3)] == [True, True, False]
    assert [not client.is_unanswered(NODE[4], 5353, "udp") for _ in range(2)] == [True, False]
    both = ("--limit", "7/minute", "--max-connections", "9", "--dry-run")
    shown = host.publish(":22", *both)
    assert 'limit="7/minute" max-connections="9"' in shown
    assert "jump limit_7_minute_9" in shown
    host.define(annotation("8080:80"))
    host.cgw("unpublish", "web1")
