"""`cgw publish` and `cgw unpublish`: with real libvirt and guests that run, start and stop."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.full import extended
from tests.lab.client import PATIENCE_FOR_SILENCE
from tests.lab.domain import PUBLISH_NAMESPACE, guest_uuid, nat_network_xml
from tests.lab.lab import open_lab
from tests.lab.network import CLIENT_ADDRESS
from tests.lab.server import serve
from tests.lab.status_json import read_status
from tests.libvirt.conftest import SUITES
from tests.libvirt.hypervisor import Guest
from tests.libvirt.test_libvirt_networks import NETWORK, NatHost
from tests.libvirt.waiting import eventually
from tests.netns.asker import spoken
from tests.netns.configs import NODE

pytestmark = pytest.mark.libvirt


INVALID, CONFLICT, RULESET, SILENT, UNKNOWN = 3, 4, 6, 7, 8
SEEN = f"web1 saw {CLIENT_ADDRESS}"
OCTET, OTHER_OCTET = 13, 14
PLACES = ("--live", "--config")
#: As an admin has written it: with a comment, another port and its limits.
WRITTEN = (
    "<publish><!-- ask Ann before you change this -->"
    '<portForward proto="tcp" source="192.168.122.0/24"><range start="9022" to="22"/></portForward>'
    "</publish>"
)
#: Holds the table of cgw as its owner, so that nobody else can change it, until stdin ends.
OWN_THE_TABLE = """
import sys, nftables
nft = nftables.Nftables()
new = "add table inet cgw; delete table inet cgw; add table inet cgw { flags owner; }"
print(nft.cmd(new)[2] or "owned", flush=True)
sys.stdin.read()
"""


class PublishHost(NatHost):
    """A host without config file, with guests on libvirt's default network."""

    backend = "iptables"

    def add(self, name: str, octet: int, **definition: Any) -> Guest:
        """Define a guest without an annotation."""
        given = {"interface": NETWORK, "publish_address": None, **definition}
        return self.guest(name, octet=octet, **given)

    def code(self, *arguments: str) -> tuple[int, str]:
        """How a command ends, and its line on stderr."""
        done = self.cgw(*arguments, check=False)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or len(done.stderr.splitlines()) == 1, done.stderr
        return done.returncode, done.stderr.strip()

    def metadata(self, name: str = "web1") -> list[str]:
        """The annotations of the live definition and of the next one; empty for none."""
        uri = [name, PUBLISH_NAMESPACE]
        return [
            self.node.virsh("metadata", *uri, place, check=False).stdout.strip() for place in PLACES
        ]

    def write_metadata(self, xml: str, name: str = "web1") -> None:
        """Write an annotation as an admin does."""
        self.node.virsh("metadata", name, PUBLISH_NAMESPACE, "--key", "cgw", *PLACES, "--set", xml)

    def status_of(self, port: int) -> str:
        """The state of a listening port, as `cgw status` has it."""
        rows = read_status(self.cgw("status", "--json", check=False).stdout)["published"]
        return next(str(row["state"]) for row in rows if row["listen_ports"][0] == port)

    def everything(self) -> tuple[Any, ...]:
        """All that a command could change."""
        return *self.traces(), self.metadata()


@pytest.fixture(scope="module", params=SUITES)
def host(request: pytest.FixtureRequest) -> Iterator[PublishHost]:
    with open_lab(request.param) as lab:
        made = PublishHost(lab)
        made.node.start_network(NETWORK, nat_network_xml(NETWORK))
        yield made


@pytest.fixture(scope="module")
def running(host: PublishHost) -> Iterator[Guest]:
    """A guest with a DHCP lease, on libvirt's own network."""
    guest = host.add("web1", OCTET)
    guest.start()
    assert eventually(lambda: host.has_lease(OCTET), within=300)
    yield guest
    host.remove_guests()


@pytest.fixture
def web1(host: PublishHost, running: Guest) -> Iterator[Guest]:
    """The same. Whatever a test publishes, `cgw unpublish` takes back all of it."""
    before = host.traces()
    assert host.metadata() == ["", ""]
    yield running
    host.code("unpublish", "web1")
    assert host.metadata() == ["", ""]
    assert before == host.traces()
    assert host.exceptions() == []
    assert host.hook_output() == ""


def end(guest: Guest) -> None:
    """Take a guest away, whatever a test has made of it; nothing of it may be left."""
    host = guest.host
    host.node.virsh("destroy", guest.name, check=False)
    host.node.virsh("undefine", guest.name, check=False)
    ruleset, files = host.traces()
    assert "8088" not in ruleset
    assert guest_uuid(guest.octet) not in " ".join(files)


@pytest.fixture
def other(host: PublishHost) -> Iterator[Guest]:
    """A second guest, which does not run yet; nothing of it may be left."""
    guest = host.add("web2", OTHER_OCTET)
    yield guest
    end(guest)


@pytest.fixture
def bridged(host: PublishHost) -> Iterator[Guest]:
    """The same, but on a plain bridge: nobody knows its address."""
    guest = host.add("web2", OTHER_OCTET, interface="bridge")
    yield guest
    end(guest)


@pytest.mark.usefixtures("web1")
@pytest.mark.on_both_suites
def test_a_port_is_open_when_the_command_returns(host: PublishHost) -> None:
    done = host.cgw("publish", "web1", "8080:80", "5353:53/udp")
    assert [host.asks(8080), host.asks(5353, "udp")] == [SEEN, SEEN]
    target = host.status()["web1"]["target_address"]
    assert done.stdout == (
        f"web1  0.0.0.0:8080 -> {target}:80/tcp\nweb1  0.0.0.0:5353 -> {target}:53/udp\n"
    )
    assert host.exceptions()
    live, config = host.metadata()
    assert live == config
    assert '<range start="8080" to="80"/>' in live
    assert host.cgw("unpublish", "web1", "8080").stdout == "web1  8080/tcp unpublished\n"
    assert host.is_closed(8080)
    assert host.asks(5353, "udp") == SEEN


@pytest.mark.usefixtures("web1")
def test_the_same_port_again_changes_nothing(host: PublishHost) -> None:
    host.cgw("publish", "web1", "8080:80")
    before = host.everything()
    assert host.code("publish", "web1", "8080:80") == (0, "")
    assert host.everything() == before
    assert host.asks(8080) == SEEN


def test_it_stays_after_the_guest_was_started_again(host: PublishHost, other: Guest) -> None:
    done = host.cgw("publish", "web2", "8088:80")
    assert done.stdout == "web2  0.0.0.0:8088 -> port 80/tcp  (opens at its next start)\n"
    other.start()
    again = host.cgw("publish", "web2", "8089:80").stdout
    if not host.has_lease(OTHER_OCTET):
        assert "the guest has no address yet: opens with its first lease" in again
    assert eventually(lambda: host.has_lease(OTHER_OCTET), within=300)
    host.cgw("sync")
    for port in (8088, 8089):
        assert spoken(host.client.until_answered("tcp", NODE[4], port)).startswith("web2 saw ")
    other.destroy()
    assert host.is_closed(8088)


@pytest.mark.usefixtures("web1")
def test_unpublish_ends_connections(host: PublishHost) -> None:
    host.cgw("publish", "web1", "7007:7", "5353:53/udp", "8080:80")
    with (
        host.client.tcp_session(NODE[4], 7007) as session,
        host.client.udp_sender(NODE[4], 5353) as sender,
    ):
        assert session.exchange("one") == "one"
        assert sender.exchange().answered
        host.cgw("unpublish", "web1", "7007", "5353/udp")
        with pytest.raises((TimeoutError, ConnectionError)):
            session.exchange("two", timeout=PATIENCE_FOR_SILENCE)
        assert not sender.exchange(timeout=PATIENCE_FOR_SILENCE).answered
    assert host.asks(8080) == SEEN


@pytest.mark.usefixtures("web1")
def test_what_else_is_in_the_annotation_stays(host: PublishHost) -> None:
    host.write_metadata(WRITTEN)
    host.cgw("publish", "web1", "8080:80", "--source", "192.168.122.0/24,10.0.0.0/8")
    assert [host.asks(8080), host.asks(9022)] == [SEEN, SEEN]
    for place in host.metadata():
        assert "<!-- ask Ann before you change this -->" in place
        assert 'source="192.168.122.0/24"><range start="9022" to="22"/>' in dense(place)
        assert 'source="10.0.0.0/8,192.168.122.0/24"' in place
    host.cgw("unpublish", "web1", "8080")
    assert list(map(dense, host.metadata())) == [WRITTEN, WRITTEN]
    assert [host.is_closed(8080), host.asks(9022)] == [True, SEEN]


@pytest.mark.usefixtures("web1")
def test_a_source_that_may_not_connect_reaches_the_host(host: PublishHost) -> None:
    host.cgw("publish", "web1", "8080:80", "--source", "203.0.113.0/24")
    assert host.is_closed(8080)


def dense(xml: str) -> str:
    """XML without the space between elements, which libvirt changes."""
    return re.sub(r">\s+<", "><", xml)


# -- one of both definitions -----------------------------------------------------------------


@pytest.mark.usefixtures("web1")
def test_live_and_config_are_those_of_virsh(host: PublishHost) -> None:
    host.cgw("publish", "web1", "8080:80", "--live")
    host.cgw("publish", "web1", "8081:80", "--config")
    live, config = host.metadata()
    assert ("8080" in live, "8081" in live) == (True, False)
    assert ("8080" in config, "8081" in config) == (False, True)
    assert [host.asks(8080), host.is_closed(8081)] == [SEEN, True]
    host.cgw("unpublish", "web1", "8080", "8081")
    assert host.metadata() == ["", ""]
    assert host.is_closed(8080)


def test_a_transient_guest_has_no_config_and_a_stopped_one_nothing_live(
    host: PublishHost, other: Guest
) -> None:
    code, line = host.code("publish", "web2", "8088:80", "--live")
    assert (code, line) == (
        UNKNOWN,
        'cgw: guest "web2": it does not run, so it has no live definition; omit --live',
    )
    other.create_transient()
    code, line = host.code("publish", "web2", "8088:80", "--config")
    assert (code, line) == (
        UNKNOWN,
        'cgw: guest "web2": it is transient, so it has no config; omit --config',
    )
    host.cgw("publish", "web2", "8088:80")
    assert eventually(lambda: host.has_lease(OTHER_OCTET), within=300)
    host.cgw("publish", "web2", "8088:80")
    assert spoken(host.client.until_answered("tcp", NODE[4], 8088)).startswith("web2 saw ")
    other.destroy()
    assert host.is_closed(8088)
    assert host.code("publish", "web2", "8088:80")[0] == UNKNOWN


def test_the_address_of_a_guest_can_be_told_once(host: PublishHost, bridged: Guest) -> None:
    host.cgw("publish", "web2", "8088:80", "--guest-address", f"10.5.5.{OTHER_OCTET}")
    host.cgw("unpublish", "web2", "8088")
    said = host.cgw("publish", "web2", "8089:80").stdout
    assert said == f"web2  0.0.0.0:8089 -> 10.5.5.{OTHER_OCTET}:80/tcp  (opens at its next start)\n"
    bridged.start()
    assert spoken(host.client.until_answered("tcp", NODE[4], 8089)).startswith("web2 saw ")
    assert host.is_closed(8088)


# -- a port is picked ------------------------------------------------------------------------


@pytest.mark.usefixtures("web1", "other")
def test_a_free_port_is_picked_and_printed_to_be_pasted(host: PublishHost) -> None:
    host.cgw("publish", "web2", "30000:80", "30001:80/udp")
    with serve(host.node.network, "0.0.0.0", "tcp", 30001, "sshd"):
        said = host.cgw("publish", "web1", ":80", ":53/udp").stdout.split()
    assert said == ["192.168.122.11:30002", "192.168.122.11:30000"]
    address, _, port = said[0].partition(":")
    assert spoken(host.client.tcp(address, int(port))) == SEEN
    assert host.asks(30000, "udp") == SEEN


# -- for a time ------------------------------------------------------------------------------


@pytest.mark.usefixtures("web1")
def test_a_sync_takes_a_port_back_after_its_time(host: PublishHost) -> None:
    host.cgw("publish", "web1", "8080:80")
    host.cgw("publish", "web1", "7007:7", "--for", "4s")
    (until,) = {
        row["until"]
        for row in read_status(host.cgw("status", "web1", "--json").stdout)["published"]
        if "until" in row
    }
    assert until[:19] in host.metadata()[0]
    with host.client.tcp_session(NODE[4], 7007) as session:
        assert session.exchange("one") == "one"
        assert eventually(lambda: host.status_of(7007) == "expired")
        assert host.status_of(8080) == "published"
        host.cgw("sync")
        with pytest.raises((TimeoutError, ConnectionError)):
            session.exchange("two", timeout=PATIENCE_FOR_SILENCE)
    assert [host.is_closed(7007), host.asks(8080)] == [True, SEEN]
    assert all("7007" not in place and "8080" in place for place in host.metadata())


def test_a_time_that_has_passed_publishes_nothing_at_a_start(
    host: PublishHost, other: Guest
) -> None:
    host.cgw("publish", "web2", "8088:80", "--for", "1s")
    time.sleep(1.1)
    other.start()
    assert host.status().get("web2") is None
    assert "8088" not in host.ruleset()
    host.cgw("sync")
    assert host.metadata("web2") == ["", ""]
    assert host.cgw("sync").stdout == ""


@pytest.mark.usefixtures("web1")
def test_the_time_of_a_published_port_can_be_changed(host: PublishHost) -> None:
    host.cgw("publish", "web1", "7007:7", "--for", "1h")
    with host.client.tcp_session(NODE[4], 7007) as session:
        assert "(until " in host.cgw("publish", "web1", "7007:7", "--for", "2h").stdout
        assert "until" not in host.cgw("publish", "web1", "7007:7").stdout
        assert session.exchange("still there") == "still there"
    assert all("until" not in place for place in host.metadata())


# -- what is refused changes nothing ---------------------------------------------------------


def refused(host: PublishHost, *arguments: str) -> tuple[int, str]:
    """How a command is refused; it must change nothing."""
    before = host.everything()
    ended = host.code(*arguments)
    assert host.everything() == before
    return ended


@pytest.mark.usefixtures("web1")
def test_a_conflict_leaves_everything_as_it_was(host: PublishHost, other: Guest) -> None:
    other.start()
    assert eventually(lambda: host.has_lease(OTHER_OCTET), within=300)
    host.cgw("publish", "web2", "8088:80")
    host.cgw("publish", "web1", "8080:80")
    code, line = refused(host, "publish", "web1", "8081:80", "8088:80")
    assert (code, 'port *:8088/tcp is published by guest "web2"' in line) == (CONFLICT, True)
    code, line = refused(host, "publish", "web1", "8080:81")
    assert (code, "the guest publishes 8080:80/tcp already" in line) == (CONFLICT, True)
    code, line = refused(host, "publish", "web1", "8079-8081:80")
    assert code == CONFLICT
    with serve(host.node.network, "0.0.0.0", "tcp", 2222, "sshd"):
        code, line = refused(host, "publish", "web1", "2222:22")
    assert (code, "is in use by a process of this node" in line) == (CONFLICT, True)
    assert refused(host, "unpublish", "web1", "8081")[0] == UNKNOWN
    assert refused(host, "publish", "nobody", "80:80")[0] == UNKNOWN
    assert host.asks(8080) == SEEN


@pytest.mark.usefixtures("web1")
def test_a_port_that_policy_forbids_is_refused(host: PublishHost) -> None:
    host.node.write("/etc/cgw/cgw.toml", '[policy]\nlisten-ports = ["8000-8999"]\n')
    code, line = refused(host, "publish", "web1", "9999:80")
    assert (code, "policy.listen-ports" in line) == (INVALID, True)
    host.cgw("publish", "web1", "8080:80", "8081:80")
    host.node.write("/etc/cgw/cgw.toml", '[policy]\nlisten-ports = ["8081"]\n')
    host.cgw("unpublish", "web1", "8081")  # what is left is forbidden, and closes nothing else
    assert host.is_closed(8081)
    host.node.path("/etc/cgw/cgw.toml").unlink()


@pytest.mark.usefixtures("web1")
def test_an_annotation_that_cannot_be_read_is_not_changed(host: PublishHost) -> None:
    host.write_metadata(WRITTEN.replace("9022", "0"))
    for command in (["publish", "web1", "8080:80"], ["unpublish", "web1", "9022"]):
        code, line = refused(host, *command)
        assert (code, '<range start> "0" cannot be used' in line) == (INVALID, True)
    assert host.code("unpublish", "web1") == (0, "")


@contextmanager
def owned_table(host: PublishHost) -> Iterator[None]:
    with host.node.popen(["/usr/bin/python3", "-c", OWN_THE_TABLE]) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "owned\n"
        yield
        holder.communicate()


@pytest.mark.usefixtures("web1")
def test_if_nft_fails_the_former_annotation_is_restored(host: PublishHost) -> None:
    host.cgw("publish", "web1", "8080:80")
    before = host.metadata()
    with owned_table(host):
        code, line = host.code("publish", "web1", "8081:80")
    assert code == RULESET
    assert "(the former annotation was restored" in line
    assert host.metadata() == before
    host.cgw("sync")
    assert [host.asks(8080), host.is_closed(8081)] == [SEEN, True]


@pytest.mark.usefixtures("web1")
def test_without_libvirt_nothing_is_changed(host: PublishHost) -> None:
    host.cgw("publish", "web1", "8080:80")
    before = host.traces()
    host.node.stop_libvirtd()
    code, line = host.code("publish", "web1", "8081:80")
    host.node.start_libvirtd()
    assert (code, "libvirt: it does not answer" in line) == (SILENT, True)
    assert eventually(lambda: before == host.traces())


@pytest.mark.usefixtures("web1")
def test_a_dry_run_changes_nothing_and_its_text_is_that_of_nft(
    host: PublishHost,
) -> None:
    for command in (["publish", "web1", "8080:80"], ["unpublish", "web1"]):
        before = host.everything()
        said = host.cgw(*command, "--dry-run").stdout
        diff, found, text = said.partition("add ")
        assert "web1 live (now)" in diff
        assert "web1 config (then)" in diff
        assert host.everything() == before
        host.node.run(["nft", "--check", "--file", "-"], input=found + text)
        host.cgw(*command)
        assert host.everything() != before
    assert "8080" in text


# -- at the same time ------------------------------------------------------------------------


@pytest.mark.usefixtures("web1")
def test_two_commands_at_once_lose_nothing(host: PublishHost) -> None:
    wanted = range(8100, 8108)
    threads = [
        threading.Thread(target=host.cgw, args=("publish", "web1", f"{port}:80")) for port in wanted
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {host.asks(port) for port in wanted} == {SEEN}
    assert all(str(port) in place for port in wanted for place in host.metadata())


@pytest.mark.parametrize("pause", [extended(0.0), 0.3, extended(0.6), extended(1.0), extended(1.5)])
def test_a_guest_that_starts_meanwhile_is_published(
    host: PublishHost, bridged: Guest, pause: float
) -> None:
    start = threading.Thread(target=bridged.start)
    start.start()
    time.sleep(pause)
    done = host.cgw("publish", "web2", "8088:80", "--guest-address", f"10.5.5.{OTHER_OCTET}")
    start.join()
    assert spoken(host.client.until_answered("tcp", NODE[4], 8088)).startswith("web2 saw "), done
    assert all("8088" in place for place in host.metadata("web2"))
    bridged.destroy()
    assert host.is_closed(8088)


@pytest.mark.parametrize("pause", [extended(0.0), 0.1, extended(0.2), extended(0.3), extended(0.4)])
def test_a_guest_that_stops_meanwhile_leaves_no_port(
    host: PublishHost, bridged: Guest, pause: float
) -> None:
    before = host.traces()
    bridged.start()
    address = f"10.5.5.{OTHER_OCTET}"
    change = threading.Thread(
        target=host.cgw, args=("publish", "web2", "8088:80", "--guest-address", address)
    )
    change.start()
    time.sleep(pause)
    bridged.destroy()
    change.join()
    assert before == host.traces()
    assert host.is_closed(8088)
    assert "8088" in host.metadata("web2")[1]


@pytest.mark.parametrize("pause", [extended(0.2), 0.3, extended(0.4), extended(0.5)])
def test_a_guest_that_stops_meanwhile_is_unpublished(
    host: PublishHost, bridged: Guest, pause: float
) -> None:
    before = host.traces()
    address = f"10.5.5.{OTHER_OCTET}"
    host.cgw("publish", "web2", "8088:80", "8089:80", "--guest-address", address)
    bridged.start()
    change = threading.Thread(target=host.cgw, args=("unpublish", "web2", "8088"))
    change.start()
    time.sleep(pause)
    bridged.destroy()
    change.join()
    assert before == host.traces()
    assert "8088" not in host.metadata("web2")[1]
    assert "8089" in host.metadata("web2")[1]


# -- shells ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("web1", "other")
def test_bash_completes_the_names_of_guests_and_their_ports(host: PublishHost) -> None:
    host.cgw("publish", "web1", "8080:80")

    def completed(*words: str) -> list[str]:
        script = (
            'source /usr/local/share/bash-completion/completions/cgw; COMP_WORDS=("$@"); '
            'COMP_CWORD=$(($# - 1)); _cgw; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        return host.node.run(["bash", "-c", script, "bash", *words]).stdout.split()

    assert completed("cgw", "unp") == ["unpublish"]
    assert completed("cgw", "publish", "") == ["web1", "web2"]
    assert completed("cgw", "publish", "--for", "2h", "web2") == ["web2"]
    assert completed("cgw", "unpublish", "web1", "80") == ["8080/tcp"]
