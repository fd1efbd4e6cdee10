"""Two Xen hosts that are joined by a network, each with a client of its own, and an etcd.

    client - [node1: dom0] eth1 ----+---- eth1 [node2: dom0] - client
                 guestbr0 = eth1.100 | eth1.100 = guestbr0
                                   etcd

The clients are inside the hosts (`tests.lab.xen.dom0`), so each reaches its own node alone. The
guest bridges are one network.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.etcd import EtcdCluster, open_etcd
from tests.lab.etcd_member import DEVICE
from tests.lab.gateway_config import gateway_config, registry_table
from tests.lab.namespace import Namespace, namespace
from tests.lab.network import GUEST_BRIDGE, UPLINK_BRIDGE, NodeAddresses
from tests.lab.progress import progress
from tests.lab.xen.dom0 import Dom0
from tests.lab.xen.snapshot import booted, make_tap

NUMBERS = (1, 2)
_INTERNODE = "eth1.100"
_MIGRATION_PORT = 4000
#: In place of ssh: xl's end, and the other end, which serves one migration.
_TO_PEER = "exec 3<>/dev/tcp/{address}/{port}; cat <&3 & cat >&3"
_RECEIVE = """\
import socket, subprocess
with socket.create_server(("", {port})) as server:
    peer, _ = server.accept()
subprocess.run(["xl", "migrate-receive"], stdin=peer, stdout=peer)
"""


class NetworkedDom0(Dom0):
    """A Xen host with a network device, which is a node of the cluster."""

    def __init__(self, number: int, outside: Namespace, *, own: Sequence[Path] = ()) -> None:
        super().__init__(own=own)
        self.number, self._outside = number, outside
        self.addresses = NodeAddresses(number)

    @property
    def address(self) -> str:
        """Its address on the network of the hosts and etcd."""
        return f"10.99.0.{200 + self.number}"

    def _boot(self, until_end: ExitStack) -> None:
        snapshot = booted(has_network=True)
        folder = Path(until_end.enter_context(tempfile.TemporaryDirectory(prefix="cgw-xen-")))
        with progress(f"resuming Xen host {self.number}"):
            tap = f"tap{self.number}"
            self.machine = snapshot.resume(until_end, folder, outside=self._outside, tap=tap)
            for own in self._own:
                self.machine.unpack(own)

    def join(self) -> None:
        """Give it the addresses of its number, and join its guest bridge to the other's."""
        old, new = NodeAddresses(1), self.addresses
        replaced = "".join(
            f"ip address del {getattr(old, name)}/{length} dev {bridge}\n"
            f"ip address add {getattr(new, name)}/{length} dev {bridge} {nodad}\n"
            for name, bridge, length, nodad in (
                ("uplink", UPLINK_BRIDGE, 24, ""),
                ("uplink6", UPLINK_BRIDGE, 64, "nodad"),
                ("guest_network", GUEST_BRIDGE, 24, ""),
                ("guest_network6", GUEST_BRIDGE, 64, "nodad"),
            )
        )
        self.shell(
            f"set -e\nhostname node{self.number}\nmodprobe -a virtio_net 8021q\n{replaced}"
            f"ip link set {UPLINK_BRIDGE} address 02:00:00:00:7a:{self.number:02x}\n"
            f"ip link set {GUEST_BRIDGE} address 02:00:00:00:05:{self.number:02x}\n"
            f"ip link set eth1 address 02:00:00:00:99:{self.number:02x} up\n"
            f"ip address add {self.address}/24 dev eth1\n"
            f"ip link add link eth1 name {_INTERNODE} type vlan id 100\n"
            f"ip link set {_INTERNODE} up master {GUEST_BRIDGE}\n"
        )

    def run_agent(self, etcd: EtcdCluster) -> None:
        """Configure cgw as a node of the cluster, and start its agent."""
        config = f'[node]\nname = "node{self.number}"\n'
        config += registry_table(etcd.config(etcd.members[self.number - 1]))
        config += gateway_config(self.addresses, internode=[_INTERNODE], full_mesh=True)
        self.write("/etc/cgw/cgw.toml", config)
        self.shell(
            "cgw install --xen && cgw node up && "
            "{ setsid cgw agent </dev/null >/var/log/agent 2>&1 & }"
        )

    def receive(self) -> None:
        """Wait for one guest, which `send` sends."""
        self.write("/run/receive.py", _RECEIVE.format(port=_MIGRATION_PORT))
        self.shell("setsid python3 /run/receive.py </dev/null >/var/log/receive 2>&1 &")
        self.shell(f"until ss -Hltn sport = :{_MIGRATION_PORT} | grep -q .; do sleep 0.1; done")

    def send(self, guest: str, other: "NetworkedDom0") -> None:
        """Migrate a guest with xl to another host. Raises CommandError."""
        other.receive()
        text = _TO_PEER.format(address=other.address, port=_MIGRATION_PORT)
        self.write("/run/to-peer", f"#!/bin/bash\n{text}\n", mode=0o755)
        self.run(["xl", "migrate", "-s", "", guest, "/run/to-peer"])


@dataclass(frozen=True)
class Pair:
    """The two hosts, and their etcd."""

    hosts: tuple[NetworkedDom0, NetworkedDom0]
    etcd: EtcdCluster

    def homes(self) -> list[str]:
        """The nodes that have an entry of a guest in the registry."""
        said = self.etcd.etcdctl("get", "--prefix", "--keys-only", "/cgw/v1/guests/").stdout
        return sorted(key.rpartition("/")[2] for key in said.split())


@contextmanager
def open_pair(own: Sequence[Path]) -> Iterator[Pair]:
    """Two hosts with an agent each. `own` are folders of files for both roots."""
    with ExitStack() as until_end:
        outside = until_end.enter_context(namespace("xen-switch"))
        etcd = until_end.enter_context(open_etcd("bookworm"))
        etcd.join(outside)
        outside.ip(
            f"link add switch type bridge\nlink set switch up\nlink set {DEVICE} master switch\n"
        )
        for number in NUMBERS:
            make_tap(outside, f"tap{number}")
            outside.ip(f"link set tap{number} master switch\n")
        one, other = (
            until_end.enter_context(NetworkedDom0(number, outside, own=own)) for number in NUMBERS
        )
        for host in (one, other):
            host.join()
            host.run_agent(etcd)
        yield Pair((one, other), etcd)
