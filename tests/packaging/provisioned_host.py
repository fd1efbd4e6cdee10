"""A new host that the examples turn into a gateway: systemd, Ansible, cloud-init, and no cgw.

It has a guest bridge without addresses, and on it web1 of the README's cluster: a namespace. Its
apt has no source: a host of the lab has no network, and what cgw depends on is installed.
"""

import re
import shlex
import shutil
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

from tests.documents import ROOT
from tests.lab import network
from tests.lab.client import Client
from tests.lab.namespace import Namespace, namespace
from tests.lab.systemd_host import SystemdHost
from tests.netns.asker import Asker, spoken
from tests.netns.configs import NODE
from tests.packaging.built import Built

EXAMPLES = ROOT / "docs/examples"
GUEST_ADDRESS = "10.5.5.202"
NODE_ADDRESS = "10.5.5.251"
#: What a client hears at the port of the README's cluster: the guest sees the node address.
ANSWER = f"web1 saw {NODE_ADDRESS}"
#: On the host: the example's inventory, and the package as `make deb` leaves it.
INVENTORY = "/root/docs/examples/ansible/inventory.yml"
DIST = "/root/dist"
_PLAYBOOK_SECONDS = 600.0
_SEED = Path("/var/lib/cloud/seed/nocloud")
_ONLY_THE_SEED = "datasource_list: [NoCloud]\nnetwork: {config: disabled}\nlocale: false\n"
"""The host has its network already, and the lab's roots have no locales."""
_STAGES = (
    ("init", "--local"),
    ("init",),
    ("modules", "--mode=config"),
    ("modules", "--mode=final"),
)


class Play(NamedTuple):
    """How many tasks changed something or failed, and what Ansible said of all of them."""

    changed: int
    failed: int
    said: str


class ProvisionedHost:
    """The host, its guest and a client."""

    def __init__(
        self, host: SystemdHost, client: Namespace, until_end: ExitStack, built: Built
    ) -> None:
        self.host = host
        self._client = Client(client)
        inside = until_end.enter_context(namespace(f"{host.name}-web1"))
        self._guest = Asker("web1", inside, until_end)
        self._join_guest()
        self._prepare(built)

    def _join_guest(self) -> None:
        inside = self._guest.namespace
        self.host.network.ip(
            f"address flush dev {network.GUEST_BRIDGE}\n"
            f"link add tap1 master {network.GUEST_BRIDGE} type veth"
            f" peer name eth0 netns {inside.name}\n"
            "link set tap1 up\n"
        )
        inside.ip(f"link set eth0 up\naddress add {GUEST_ADDRESS}/24 dev eth0\n")
        self._guest.serve(GUEST_ADDRESS, "22/tcp")

    def _prepare(self, built: Built) -> None:
        for source in self.host.path("/etc/apt").glob("sources.list*/*"):
            source.unlink()
        self.host.path("/etc/apt/sources.list").unlink(missing_ok=True)
        shutil.copytree(EXAMPLES, self.host.path("/root/docs/examples"))
        self.host.path(DIST).mkdir()
        self.deb = f"{DIST}/{built.deb}"
        self.host.path(self.deb).write_bytes((built.folder / built.deb).read_bytes())

    # -- Ansible -----------------------------------------------------------------------------

    def play(self, *options: str, node: str = "node1", check: bool = True) -> Play:
        """Run the playbook as it says itself, on the host, as this node of the inventory.

        Raises HostError if it fails (and `check`).
        """
        options = ("--connection=local", f"--limit={node}", *options)
        command = f"cd /root && {_documented()} {shlex.join(options)}"
        said = self.host.run(["sh", "-ec", command], check=check, timeout=_PLAYBOOK_SECONDS)
        tasks, _, recap = said.stdout.rpartition("PLAY RECAP")
        counts = dict(re.findall(r"(\w+)=(\d+)", recap))
        return Play(int(counts["changed"]), int(counts["failed"]), tasks)

    def edit_inventory(self, old: str, new: str) -> None:
        """Change the one place of the host's copy of the inventory that has this."""
        inventory = self.host.path(INVENTORY)
        text = inventory.read_text()
        assert 1 == text.count(old)
        inventory.write_text(text.replace(old, new))

    # -- cloud-init --------------------------------------------------------------------------

    def validate(self, user_data: str) -> CompletedProcess[str]:
        """Hold user data against cloud-init's own schema."""
        self.host.write("/root/user-data.yaml", user_data)
        return self.host.run(
            ["cloud-init", "schema", "--config-file", "/root/user-data.yaml"], check=False
        )

    def provision(self, user_data: str) -> None:
        """Run the stages of cloud-init, which its units would run at boot."""
        self.host.write(_SEED / "meta-data", "instance-id: node1\n")
        self.host.write(_SEED / "user-data", user_data)
        self.host.write("/etc/cloud/cloud.cfg.d/99-lab.cfg", _ONLY_THE_SEED)
        for stage in _STAGES:
            self.host.run(["cloud-init", *stage], timeout=_PLAYBOOK_SECONDS)

    # -- what the tests ask ------------------------------------------------------------------

    def units(self) -> dict[str, str]:
        """Which units of cgw run, and whether they do so after a boot."""
        units = ("cgw", "cgw-node", "cgw-sync")
        return {unit: f"{self._is('enabled', unit)} {self._is('active', unit)}" for unit in units}

    def _is(self, what: str, unit: str) -> str:
        return self.host.run(["systemctl", f"is-{what}", unit], check=False).stdout.strip()

    def addresses(self) -> str:
        """The addresses of the guest bridge, as ip shows them."""
        return self.host.run(["ip", "address", "show", network.GUEST_BRIDGE]).stdout

    def wait_for_answer(self, port: int = 2202) -> str:
        """Who answers at a published port, at last."""
        return spoken(self._client.until_answered("tcp", NODE[4], port))

    def asks(self, port: int = 2202) -> str:
        """Who answers at a published port; or why nobody does."""
        return spoken(self._client.tcp(NODE[4], port))

    def started(self) -> list[str]:
        """When each unit was started."""
        shown = [
            self.host.run(
                ["systemctl", "show", "--value", "-p", "ActiveEnterTimestampMonotonic", unit]
            )
            for unit in ("cgw", "cgw-node")
        ]
        return [one.stdout.strip() for one in shown]


def _documented() -> str:
    """The command that the comment of the playbook tells."""
    lines = (EXAMPLES / "ansible/playbook.yml").read_text().splitlines()
    return "\n".join(line.removeprefix("#   ") for line in lines if line.startswith("#   "))
