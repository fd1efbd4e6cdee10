"""`make demo`: the main job, shown on a throw-away lab with a real libvirtd and a real guest.

One node first; then the cluster (`tests.lab.demo_cluster`).
"""

import signal
import sys
import time
from types import FrameType

from tests.lab import demo_cluster
from tests.lab.client import Client
from tests.lab.debian_root import DebianRootError
from tests.lab.domain import domain_xml
from tests.lab.host import HostError
from tests.lab.lab import Lab, chosen_suite, open_lab
from tests.lab.narration import DETAIL, DemoError, say, step
from tests.lab.network import guest_address
from tests.lab.reply import Reply

GUEST = "web1"
OCTET = 202
ADDRESS = guest_address(OCTET)
LISTEN_PORT = 8080
GUEST_PORT = 80
PUBLISH = (
    f'<cgw:portForward proto="tcp"><cgw:range start="{LISTEN_PORT}" to="{GUEST_PORT}"/>'
    "</cgw:portForward>"
)
CONFIG = """\
[uplink]
devices = ["xenbr0"]

[[guest-network]]
bridge = "guestbr0"
subnet = "10.5.5.0/24"
node-address = "10.5.5.251"
gateway-address = "10.5.5.254"
"""
_INTERRUPTED = 130


def main() -> int:
    """Run the demo; the exit code is 0 if everything was as shown."""
    signal.signal(signal.SIGTERM, _end)
    started = time.monotonic()
    try:
        with open_lab() as lab:
            _prepare(lab)
            _show(lab)
        say("")
        demo_cluster.show()
        say("taking the lab down")
    except KeyboardInterrupt:
        say("\ninterrupted; the lab is taken down")
        return _INTERRUPTED
    except (DemoError, HostError, DebianRootError, TimeoutError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    say(f"done in {time.monotonic() - started:.0f} s; nothing of it is left on this machine")
    return 0


def _prepare(lab: Lab) -> None:
    """Do everything that an admin does once on a host."""
    version = lab.node.run(["libvirtd", "--version"]).stdout.split()[-1]
    lab.node.write("/etc/cgw/cgw.toml", CONFIG)
    lab.node.install()
    lab.node.reload_libvirtd()
    lab.node.run(["cgw", "sync"])
    lab.node.define(domain_xml(GUEST, octet=OCTET, publish=PUBLISH, publish_address=ADDRESS))
    say(f"lab: Debian {chosen_suite()}, libvirtd {version}, a node, a client; cgw is installed")
    say(f"guest {GUEST} declares in its own definition:")
    for line in (
        f'<cgw:publish xmlns:cgw="urn:cgw-hooks:1" address="{ADDRESS}">',
        f"  {PUBLISH}",
        "</cgw:publish>",
    ):
        say(f"{DETAIL}{line}")
    say("")


def _show(lab: Lab) -> None:
    client = Client(lab.client)
    address = lab.node.addresses.uplink
    before = _ruleset(lab)

    with step(f"client asks {address}:{LISTEN_PORT}"):
        _expect(client.tcp(address, LISTEN_PORT), answered=False)
    with step(f"virsh start {GUEST}"):
        lab.node.start(GUEST)
    with step(f"client asks {address}:{LISTEN_PORT}, until the guest is up"):
        reply = client.until_answered("tcp", address, LISTEN_PORT)
        _expect(reply, answered=True)
    say("$ cgw status")
    for line in lab.node.run(["cgw", "status"]).stdout.splitlines():
        say(f"{DETAIL}{line}")
    with step(f"virsh destroy {GUEST}"):
        lab.node.destroy(GUEST)
    with step(f"client asks {address}:{LISTEN_PORT}"):
        _expect(client.tcp(address, LISTEN_PORT), answered=False)
    if _ruleset(lab) != before:
        raise DemoError("the ruleset is not as it was before the guest started")
    say("ruleset: as before the guest started")


def _expect(reply: Reply, *, answered: bool) -> None:
    if reply.answered != answered:
        raise DemoError(f"the port is {reply.outcome.value}")
    if answered:
        say(f"{DETAIL}{reply.guest} answers; it saw the client as {reply.peer}")
    else:
        say(f"{DETAIL}closed ({reply.outcome.value})")


def _ruleset(lab: Lab) -> str:
    return lab.node.run(["nft", "--stateless", "list", "ruleset"]).stdout


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
