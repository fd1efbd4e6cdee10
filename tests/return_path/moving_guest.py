"""A guest that moves between nodes, as a live migration moves it.

    eth0 [guest] --- [hub of the guest] --- guest22 on node1, node2 and node3

The guest's own device never loses its link, as in QEMU: at the switch-over, the hub takes another
port. So the guest keeps its connections, its routes and its neighbours: it goes on to send to the
guest bridge of the node that it has left, until it asks for the gateway's MAC again.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from functools import cached_property

from tests.lab import domain, network
from tests.lab.namespace import Namespace, veth
from tests.netns.asker import Asker
from tests.netns.guest import Guest
from tests.netns.node import Node

_OCTET_OF_GUEST_0 = 20
_RARP = 0x8035
_BROADCAST = b"\xff" * 6
#: QEMU announces at once, then after these seconds (announce-initial, announce-step).
_PAUSES = (0.05, 0.15, 0.25, 0.35)
#: Seconds. A gateway that does not answer is asked three times, once a second.
_LONGEST_RESOLUTION = 60.0


class MovingGuest:
    """A guest: its place, its network, and the hook calls of its migrations."""

    def __init__(
        self, guest: Guest, wire: Asker, hubs: Namespace, nodes: Mapping[int, Node]
    ) -> None:
        """Wire it to all nodes; its home is the node that has defined it."""
        self.name = guest.name
        self.wire = wire
        self.home = next(index for index, node in nodes.items() if node is guest.node)
        self.place = self.home
        self._guest = guest
        self._hubs = hubs
        self._nodes = nodes
        self._announcing: threading.Thread | None = None
        self._has_left = threading.Event()
        self._wire_hub()

    @property
    def number(self) -> int:
        """2 for web2."""
        return guest_number(self.name)

    @cached_property
    def mac(self) -> str:
        """The MAC of its device."""
        return domain.guest_mac(self._guest.octet)

    def address(self, family: int) -> str:
        """Its address."""
        return guest_address(self.name, family)

    def _wire_hub(self) -> None:
        hub, octet = f"hub{self.number}", self._guest.octet
        self._hubs.ip(f"link add {hub} type bridge\nlink set {hub} up\n")
        veth(self.wire.namespace, "eth0", self._hubs, f"guest{octet}")
        self._hubs.ip(f"link set guest{octet} master {hub}")
        for index, node in self._nodes.items():
            veth(node.namespace, f"guest{octet}", self._hubs, self._port(index))
        network.address_guest(self.wire.namespace, octet, self.mac)
        # What it knows of its gateway stays valid, however long a test takes.
        self.wire.namespace.sysctl(
            {f"net/{ip}/neigh/eth0/base_reachable_time_ms": "3600000" for ip in ("ipv4", "ipv6")}
        )
        self._plug(self.home)
        self._switch_to(self.home)

    def _port(self, node: int) -> str:
        """The port of the hub that leads to a node."""
        return f"g{self._guest.octet}-node{node}"

    # -- a migration ---------------------------------------------------------------------------

    def start(self) -> None:
        """Make the hook calls of a start at its home."""
        self._call(self.home, "prepare", "start", "started")

    def stop(self) -> None:
        """Make the hook calls of a shutdown."""
        self._stop_announcing()
        self._call(self.place, "stopped", "release", reason="shutdown")

    def move(self, target: int, *, at_switch_over: Callable[[], None] | None = None) -> None:
        """Migrate to a node, with the hook calls and the frames of a live migration, in its order.

        `at_switch_over` is called when the guest runs at the target, and its announcements are
        sent: the hook of the source is called later.
        """
        source = self.place
        if source == target:
            return
        self._call(target, "migrate", "prepare")
        self._plug(target)
        self._call(target, "start", "started")
        self._switch_to(target)
        self.announce()
        if at_switch_over:
            at_switch_over()
        device = f"guest{self._guest.octet}"
        self._nodes[source].namespace.ip(f"link set {device} nomaster")
        self._call(source, "stopped", "release", reason="migrated")

    def _call(self, node: int, *operations: str, reason: str = "-") -> None:
        for operation in operations:
            ended = self._nodes[node].hook(self.name, operation, reason, self._guest.xml)
            assert ended.exit_code == 0, f"{self.name} {operation} on node{node}: {ended.complaint}"

    def _plug(self, node: int) -> None:
        """Make the guest's device on a node a port of its guest bridge."""
        device = f"guest{self._guest.octet}"
        self._nodes[node].namespace.ip(f"link set {device} master {network.GUEST_BRIDGE}")

    def _switch_to(self, node: int) -> None:
        """Let the guest run on a node."""
        self._stop_announcing()
        old, new = self._port(self.place), self._port(node)
        self._hubs.ip(f"link set {old} nomaster\nlink set {new} master hub{self.number}\n")
        self.place = node

    def announce(self) -> None:
        """Send what QEMU sends when a guest has arrived: RARP requests in the guest's name.

        The first one is sent when this returns; the others follow, unless the guest moves on.
        """
        self._announce_once()
        self._has_left.clear()
        self._announcing = threading.Thread(target=self._announce_again, daemon=True)
        self._announcing.start()

    def _announce_again(self) -> None:
        for pause in _PAUSES:
            if self._has_left.wait(pause):
                return
            self._announce_once()

    def _announce_once(self) -> None:
        mac = bytes.fromhex(self.mac.replace(":", ""))
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 3) + 2 * (mac + bytes(4))
        frame = (_BROADCAST + mac + struct.pack("!H", _RARP) + body).ljust(60, b"\0")
        with self._hubs.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as raw:
            raw.bind((self._port(self.place), 0))
            raw.send(frame)

    def _stop_announcing(self) -> None:
        if self._announcing:
            self._has_left.set()
            self._announcing.join()

    # -- its neighbours ------------------------------------------------------------------------

    def meet_gateway(self) -> None:
        """Let the guest ask again for the MAC of its gateway, for both IP families."""
        for gateway in (network.GATEWAY_ADDRESS, network.GATEWAY_ADDRESS6):
            self.wire.namespace.ip(f"neigh flush to {gateway} dev eth0")
            self._send_to(gateway)
        deadline = time.monotonic() + _LONGEST_RESOLUTION
        while self.gateway_macs() != {network.NodeAddresses(self.place).bridge_mac}:
            assert time.monotonic() < deadline, f"{self.name} sees {self.gateway_macs()}"
            time.sleep(0.01)

    def _send_to(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        namespace = self.wire.namespace
        with namespace.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as endpoint:
            endpoint.sendto(b"", (address, 9))  # the discard port

    def gateway_macs(self) -> set[str]:
        """The MACs that the guest has for its gateway, of both IP families."""
        said = self.wire.namespace.run(["ip", "-json", "neigh", "show", "dev", "eth0"]).stdout
        gateways = {network.GATEWAY_ADDRESS, network.GATEWAY_ADDRESS6}
        return {entry.get("lladdr", "") for entry in json.loads(said) if entry["dst"] in gateways}

    # -- the path MTU --------------------------------------------------------------------------

    def forget_path_mtu(self) -> None:
        """Forget what ICMP has said of all paths."""
        for family in ("-4", "-6"):
            self.wire.namespace.run(["ip", family, "route", "flush", "cache"])

    def path_mtu(self, address: str) -> int:
        """What the guest has learnt of the path to an address; 0: nothing."""
        said = self.wire.namespace.run(["ip", "-json", "route", "get", address]).stdout
        return int(next((m.get("mtu", 0) for m in json.loads(said)[0].get("metrics", ())), 0))


def guest_number(name: str) -> int:
    """2 for web2."""
    return int(name.removeprefix("web"))


def guest_octet(name: str) -> int:
    """The number that gives a guest its addresses: 22 for web2."""
    return _OCTET_OF_GUEST_0 + guest_number(name)


def guest_address(name: str, family: int) -> str:
    """The address of a guest."""
    of_family = {4: network.guest_address, 6: network.guest_address6}
    return of_family[family](guest_octet(name))
