"""What people publish, with the real programs: HTTP behind a proxy, SSH, and NTP.

The servers run in a guest of the second node: dropbear, nginx and chrony. The clients come in at
any node.
"""

import re
import shutil
import time
from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster
from tests.lab.domain import domain_xml, publish_element
from tests.lab.guest_services import MEMORY_MIB, services_initramfs
from tests.lab.host import Host
from tests.lab.network import GATEWAY_ADDRESS, guest_address, guest_address6
from tests.lab.node import Node

pytestmark = pytest.mark.libvirt

GUEST = "server1"
OCTET = 210
ADDRESS = guest_address(OCTET)
INITRD = "/var/lib/libvirt/services"
CLOCK_AHEAD = 3600
"""By how many seconds the guest's clock is wrong: whoever is told that time asked the guest."""
PUBLISH = (
    '<cgw:portForward proto="tcp"><cgw:range start="2202" to="22"/></cgw:portForward>'
    '<cgw:portForward proto="tcp"><cgw:range start="8080" to="80"/></cgw:portForward>'
    '<cgw:portForward proto="udp"><cgw:range start="123"/></cgw:portForward>'
)
PROXY = """\
user root;
pid /run/proxy.pid;
error_log /dev/null;
events {{}}
http {{
    access_log off;
    server {{
        listen 80;
        location / {{ proxy_pass http://{guest}; proxy_connect_timeout 60s; }}
    }}
    server {{
        listen 81;
        location / {{ proxy_pass http://{guest}; proxy_bind {gateway}; proxy_connect_timeout 5s; }}
    }}
}}
"""
SSH = ("ssh", "-p", "2202", "-o", "StrictHostKeyChecking=accept-new", "-o", "LogLevel=ERROR",
       "-c", "chacha20-poly1305@openssh.com")  # fmt: skip
every_node = pytest.mark.parametrize("index", [0, 1, 2], ids=["node1", "node2", "node3"])


@pytest.fixture(scope="module", autouse=True)
def server(cluster: Cluster) -> Iterator[None]:
    """The guest, on the second node, published on all."""
    cluster.publish_everywhere(GUEST, publish_element(PUBLISH, ADDRESS))
    home = cluster.nodes[1]
    shutil.copy(services_initramfs(cluster.root), home.path(INITRD))
    home.define(
        domain_xml(
            GUEST,
            octet=OCTET,
            publish=PUBLISH,
            publish_address=ADDRESS,
            initrd=INITRD,
            memory_mib=MEMORY_MIB,
            clock_ahead=CLOCK_AHEAD,
        )
    )
    home.start(GUEST)
    deadline = time.monotonic() + 300
    while not http(cluster.client_host, f"{home.addresses.uplink}:8080"):
        assert time.monotonic() < deadline, "the guest's web server does not answer"
        time.sleep(0.1)
    yield
    home.destroy(GUEST)


def http(client: Host, place: str) -> str:
    """The page that a web server gives; empty if it does not."""
    asked = ["curl", "--silent", "--fail", "--max-time", "120", f"http://{place}/"]
    return client.run(asked, check=False).stdout.strip()


def run_proxy(node: Node) -> None:
    """A reverse proxy on port 80 of the node; on port 81, one that uses the shared address."""
    node.write("/etc/proxy.conf", PROXY.format(guest=ADDRESS, gateway=GATEWAY_ADDRESS))
    node.run(["nginx", "-c", "/etc/proxy.conf"])


def test_a_proxy_on_a_node_reaches_a_guest_of_another_node_from_its_own_address(
    cluster: Cluster,
) -> None:
    node = cluster.node
    run_proxy(node)
    place = node.addresses.uplink
    assert http(cluster.client_host, place) == f"{GUEST} saw {node.addresses.guest_network}"
    # What leaves from the shared address is answered to the guest's own node, and lost.
    assert http(cluster.client_host, f"{place}:81") == ""


@every_node
def test_a_node_itself_reaches_the_guest_from_its_own_address(cluster: Cluster, index: int) -> None:
    node = cluster.nodes[index]
    own = {
        ADDRESS: node.addresses.guest_network,
        f"[{guest_address6(OCTET)}]": node.addresses.guest_network6,
    }
    assert {place: http(node, place) for place in own} == {
        place: f"{GUEST} saw {address}" for place, address in own.items()
    }


@every_node
def test_http_through_each_node(cluster: Cluster, index: int) -> None:
    addresses = cluster.nodes[index].addresses
    seen = http(cluster.client_host, f"{addresses.uplink}:8080")
    assert seen == f"{GUEST} saw {addresses.guest_network}"


@every_node
def test_an_interactive_ssh_session_through_each_node(cluster: Cluster, index: int) -> None:
    addresses = cluster.nodes[index].addresses
    with cluster.client_host.popen(
        ["timeout", "300", *SSH, "-tt", f"root@{addresses.uplink}"]
    ) as ssh:
        assert ssh.stdin
        assert ssh.stdout
        # Its input stays open while it runs: OpenSSH 10 goes when that ends.
        ssh.stdin.write('tty\nhostname\necho "from ${SSH_CLIENT%% *}"\nexit\n')
        ssh.stdin.flush()
        lines = ssh.stdout.read().splitlines()
    assert {"/dev/pts/0", GUEST, f"from {addresses.guest_network}"} <= set(lines)


@pytest.mark.parametrize("size", ["20M", pytest.param("200M", marks=pytest.mark.extended)])
def test_a_copy_over_ssh_entered_at_another_node_arrives_whole(cluster: Cluster, size: str) -> None:
    ssh = " ".join([*SSH, f"root@{cluster.node.addresses.uplink}", "sha256sum"])
    sent = f"head -c {size} /dev/urandom >/dev/shm/copy && sha256sum </dev/shm/copy"
    copy = f"{sent} && {ssh} </dev/shm/copy; rm /dev/shm/copy"
    sums = cluster.client_host.run(["sh", "-c", copy], timeout=1800).stdout.splitlines()
    assert len(sums) == 2
    assert sums[0] == sums[1]


@every_node
def test_ntp_through_each_node(cluster: Cluster, index: int) -> None:
    server = cluster.nodes[index].addresses.uplink
    told = cluster.client_host.run(
        ["chronyd", "-Q", "-t", "120", "-u", "root", f"server {server} iburst maxsamples 1",
         "cmdport 0", "bindcmdaddress /", "pidfile /run/chronyd.pid"]
    )  # fmt: skip
    match = re.search(r"System clock wrong by (-?[0-9.]+) seconds", told.stderr)
    assert match, told.stderr
    assert abs(float(match[1]) - CLOCK_AHEAD) < 5
