"""The demo's first part, one host: a port of a guest whose address comes from libvirt's DHCP."""

from tests.lab.client import Client
from tests.lab.domain import PUBLISH_NAMESPACE, domain_xml, nat_network_xml
from tests.lab.lab import Lab, chosen_suite, open_lab
from tests.lab.narration import DETAIL, DemoError, run, say, step, wait_for
from tests.lab.progress import progress

GUEST = "web1"
OCTET = 77
NETWORK = "default"
LISTEN_PORT, GUEST_PORT = 8080, 80
_LONGEST_END = 60.0
_SOCKET = "/run/cgw/agent.sock"


def show() -> None:
    """Publish a port of a running guest, flush all rules, stop the guest.

    Raises DemoError, HostError, TimeoutError.
    """
    with open_lab() as lab:
        _prepare(lab)
        agent = lab.node.popen(["cgw", "agent"])  # on a host, systemd runs it
        try:
            wait_for(lab.node.path(_SOCKET).is_socket, "the agent")
            _show(lab)
        finally:
            lab.node.run(["pkill", "-x", "cgw-agent"], check=False)
            agent.communicate(timeout=_LONGEST_END)


def _prepare(lab: Lab) -> None:
    """Do what an admin does once on a host, and start a guest that publishes nothing."""
    version = lab.node.run(["libvirtd", "--version"]).stdout.split()[-1]
    lab.node.install()
    lab.node.reload_libvirtd()
    lab.node.start_network(NETWORK, nat_network_xml(NETWORK))
    lab.node.define(domain_xml(GUEST, octet=OCTET, interface=NETWORK))
    lab.node.start(GUEST)
    say(f"lab: Debian {chosen_suite()}, libvirtd {version}, a node, a client; cgw is installed")
    say(f"guest {GUEST} runs on libvirt's network {NETWORK}; its address will be a DHCP lease")
    say("")


def _show(lab: Lab) -> None:
    client, address = Client(lab.client), lab.node.addresses.uplink
    with progress(f"waiting for the lease of {GUEST}"):
        wait_for(lambda: bool(_leases(lab)), "a lease")
    _is_closed(client, address)
    run(lab.node, "cgw", "publish", GUEST, f"{LISTEN_PORT}:{GUEST_PORT}")
    _answers(client, address)
    run(lab.node, "nft", "flush", "ruleset")
    _answers(client, address)
    run(lab.node, "virsh", "metadata", GUEST, PUBLISH_NAMESPACE)
    run(lab.node, "virsh", "destroy", GUEST, shows=False)
    _is_closed(client, address)


def _is_closed(client: Client, address: str) -> None:
    with step(f"client asks {address}:{LISTEN_PORT}"):
        reply = client.tcp(address, LISTEN_PORT)
        if reply.answered:
            raise DemoError("the port is open")
        say(f"{DETAIL}closed ({reply.outcome.value})")


def _answers(client: Client, address: str) -> None:
    with step(f"client asks {address}:{LISTEN_PORT}"):
        reply = client.until_answered("tcp", address, LISTEN_PORT)
        if reply.guest != GUEST:
            raise DemoError(f"it heard {reply}")
        say(f"{DETAIL}{reply.guest} answers; it saw the client as {reply.peer}")


def _leases(lab: Lab) -> str:
    return lab.node.virsh("net-dhcp-leases", NETWORK).stdout.strip()
