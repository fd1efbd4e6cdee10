"""A client of our own for `cgw trace --probe`: it connects once, from a network namespace.

The namespace has no name. It, its device here and the route to it go with this process, whatever
ends it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress

from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.rules.probe_network import ProbeNetwork, device_name, own_source
from cgw_hooks.errors import CgwError, LinkError, quoted
from cgw_hooks.host import addresses, announce, bridges, listeners, routes, sysctl
from cgw_hooks.host.own_network import own_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.core.published_port import Address, Network
    from cgw_hooks.core.rules.trace_table import Watched
    from cgw_hooks.node.traced_port import TracedPort

_ERROR_LENGTH = 120
_DATAGRAM = b"\n"


class Probe(NamedTuple):
    """Whom the probe asks, and from where."""

    watched: Watched
    network: ProbeNetwork

    @property
    def difference(self) -> str:
        """In what the probe differs from a client, for people."""
        network = self.network
        if network.bridge:
            return f"the probe is a host on {network.bridge}, with the address {network.source}"
        return (
            f"the probe comes in by a device of its own, {network.device}, from {network.source}: "
            "rules for the device or the networks of your clients do not count for it"
        )


def plan(traced: TracedPort, clients: tuple[Network, ...]) -> Probe:
    """Plan the probe; ``clients``: its address, or none. Raises ``CgwError``."""
    if not clients:
        watched = traced.watched[0]
        _refuse_source(traced, watched)
        source = own_source(watched.family, os.getpid())
        return Probe(watched, ProbeNetwork(_device(), source, watched.addresses[0]))
    source = _single(clients)
    fitting = [watched for watched in traced.watched if watched.family == source.version]
    if not fitting:
        message = f"the port is not published for IPv{source.version}"
        raise CgwError(traced.guest.title, message, "give another address after --from")
    destination = fitting[0].addresses[0]
    return Probe(fitting[0], ProbeNetwork(_device(), source, destination, _bridge_of(source)))


@contextmanager
def sending(probe: Probe) -> Iterator[threading.Event]:
    """Have the probe's network; the probe is sent when the event is set. Raises ``CgwError``."""
    sender = _Sender(probe)
    sender.start()
    try:
        sender.wait_for_network()
        _set_up_outside(probe)
        yield sender.may_send
    finally:
        sender.is_over.set()
        sender.may_send.set()
        sender.join()
        # The kernel takes a namespace away some time after its last thread has left it.
        _ip(f"link delete {probe.network.device}\n")


class _Sender(threading.Thread):
    """A thread in the new namespace. The process itself stays in the host's."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(daemon=True)
        self._probe = probe
        self._is_there = threading.Event()
        self._fault = ""
        self.may_send, self.is_over = threading.Event(), threading.Event()

    def run(self) -> None:
        """Make the network, wait, and send."""
        try:
            with own_network(self._probe.network.inside(os.getpid())) as is_alone:
                if not is_alone:
                    self._fault = "the kernel refuses a network namespace"
                self._is_there.set()
                if is_alone:
                    self.may_send.wait()
                    if not self.is_over.is_set():
                        self._send()
        except OSError as error:
            self._fault = str(error)
        finally:
            self._is_there.set()

    def wait_for_network(self) -> None:
        """Wait until the network is there. Raises ``LinkError``."""
        self._is_there.wait()
        if self._fault:
            raise LinkError("probe", self._fault, "run it as root, outside of a container")

    def _send(self) -> None:
        """Connect, or send a datagram, until all is over. The trace tells what came of it."""
        watched = self._probe.watched
        family = socket.AF_INET if watched.family == 4 else socket.AF_INET6  # noqa: PLR2004
        place = (str(self._probe.network.destination), watched.port)
        with suppress(OSError), _socket_for(watched.protocol, family) as connection:
            connection.setblocking(False)
            connection.connect_ex(place)  # the kernel does the rest
            if watched.protocol == "udp":
                connection.send(_DATAGRAM)
            self.is_over.wait()


def _socket_for(protocol: str, family: int) -> socket.socket:
    if protocol == "sctp":
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    return socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)


def _set_up_outside(probe: Probe) -> None:
    network = probe.network
    fault = _ip(network.outside())
    if fault:
        raise LinkError("probe", f"its network cannot be made: {quoted(fault, _ERROR_LENGTH)}")
    if not network.bridge and probe.watched.family == 4:  # noqa: PLR2004
        # A client's device decides whether its packets are forwarded, so the probe's is like it.
        uplink = addresses.devices(4).get(network.destination, "")
        forwards = sysctl.read(f"net/ipv4/conf/{uplink}/forwarding")
        if forwards:
            sysctl.write(f"net/ipv4/conf/{network.device}/forwarding", forwards)


def _ip(lines: str) -> str:
    """Carry out lines of ``ip``; return the first line of its error, empty if all were done."""
    try:
        done = subprocess.run(
            ["ip", "-batch", "-"],  # noqa: S607  (found on PATH, as elsewhere)
            input=lines, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return "the command ip is missing; install it: apt install iproute2"
    first = next(iter(done.stderr.strip().splitlines()), "no reason given")
    return first if done.returncode else ""


def _device() -> str:
    return device_name(os.getpid())


def _refuse_source(traced: TracedPort, watched: Watched) -> None:
    """Refuse a probe from an address of our own to a port with sources."""
    sources = traced.port_of(watched.family).sources
    if sources:
        listed = ", ".join(map(str, sources))
        message = f"the port admits clients of {listed} only"
        raise CgwError(traced.guest.title, message, "give one of their addresses after --from")


def _single(clients: tuple[Network, ...]) -> Address:
    network = clients[0]
    if len(clients) > 1 or network.prefixlen != network.max_prefixlen:
        raise CgwError(
            "--from", "a probe has one address", "give a free one, for example 192.0.2.7"
        )
    return network.network_address


def _bridge_of(source: Address) -> str:
    """Return the bridge whose link an address is on; refuse one that a host has."""
    if listeners.is_local(source):
        raise CgwError("--from", f"{source} is an address of this host", "give a free address")
    route = routes.route_to(source)
    if route is None or route.gateway or not route.device:
        return ""
    if announce.find_answering([announce.Place(route.device, source)]):
        raise CgwError("--from", f"another host has the address {source}", "give a free address")
    return route.device if bridges.is_bridge(route.device) else ""
