"""A host with libvirt where cgw is installed: its guests, its clients, and what a guest leaves."""

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.lab.client import DEFAULT_PATIENCE, PATIENCE_FOR_SILENCE, Client
from tests.lab.domain import domain_xml
from tests.lab.lab import Lab
from tests.lab.network import guest_address, guest_address6, remember_guests
from tests.lab.status_json import read_status
from tests.libvirt.waiting import eventually
from tests.netns.asker import spoken
from tests.netns.configs import NODE
from tests.netns.specs import port_forward

STARTED = ["prepare", "start", "started"]
STOPPED = ["stopped", "release"]
RUNTIME_FOLDER = "/run/cgw"

_DRIVERS = ("qemu", "lxc")
_CALLS = "/var/log/hook-calls"
_OUTPUT = "/var/log/hook-output"
_REAL_HOOKS = "/usr/local/lib/watched-hooks"
#: In place of our hook, which it calls as libvirt would have: notes the call, its exit code and
#: whatever came on stdout.
_WATCHER = f"""\
#!/bin/sh
driver=${{0%/*}} driver=${{driver##*/}}
{_REAL_HOOKS}/$driver/${{0##*/}} "$@" >{_OUTPUT}.$$
status=$?
echo "$status $*" >>{_CALLS}
cat {_OUTPUT}.$$ >>{_OUTPUT}
cat {_OUTPUT}.$$
rm {_OUTPUT}.$$
exit $status
"""
#: What traffic alone puts into our table: pairs of devices, with the time that they have left.
_OUR_TABLE = re.compile(r"^table inet cgw \{\n.*?^\}\n", re.DOTALL | re.MULTILINE)
_HAIRPIN_ELEMENTS = re.compile(r"(set hairpin \{[^}]*?)\n\t\telements = \{[^}]*\}")


class Hypervisor:
    """The lab's node, with cgw installed as on a real host; its client outside."""

    def __init__(self, lab: Lab, config: str = "", *, watched: bool = True) -> None:
        self.node = lab.node
        self.client = Client(lab.client)
        self.on_the_node = Client(lab.node.network)
        self.guests: list[Guest] = []
        self._octets = iter(range(11, 250))
        self.node.write(_OUTPUT, "")
        self.node.write(_CALLS, "")
        if config:
            self.node.write("/etc/cgw/cgw.toml", config)
        self.node.install()
        if watched:
            self._watch_hooks()
        self.node.reload_libvirtd()
        self.cgw("sync")

    @property
    def libvirt_version(self) -> tuple[int, ...]:
        """As (9, 0, 0)."""
        version = self.node.run(["libvirtd", "--version"]).stdout.split()[-1]
        return tuple(map(int, version.split(".")))

    def _watch_hooks(self) -> None:
        for driver in _DRIVERS:
            hook = self.node.path(f"/etc/libvirt/hooks/{driver}.d/50-cgw")
            self.node.write(f"{_REAL_HOOKS}/{driver}.d/50-cgw", hook.read_text(), mode=0o755)
            self.node.write(f"/etc/libvirt/hooks/{driver}.d/50-cgw", _WATCHER, mode=0o755)

    # -- guests ------------------------------------------------------------------------------

    def guest(self, name: str, *publish: str, **definition: Any) -> "Guest":
        """Define a guest that publishes these (see `port_forward`), of both its addresses."""
        octet = definition.pop("octet", None) or next(self._octets)
        given = {"publish_address": f"{guest_address(octet)},{guest_address6(octet)}"}
        if publish:
            given["publish"] = "".join(map(port_forward, publish))
        xml = domain_xml(name, octet=octet, **{**given, **definition})
        guest = Guest(self, name, octet, definition.get("driver", "qemu"), xml)
        guest.define()
        return guest

    def remove_guests(self) -> None:
        """Take away whatever a test has defined and started."""
        for driver in _DRIVERS:
            for name in self._names(driver):
                self.node.virsh("destroy", name, driver=driver)
            for name in self._names(driver, "--all"):
                self.undefine(name, driver)

    def undefine(self, name: str, driver: str) -> None:
        """Take a guest's definition away, with all that libvirt keeps of it."""
        options = ["--managed-save", "--snapshots-metadata"] if driver == "qemu" else []
        self.node.virsh("undefine", name, *options, driver=driver)

    def _names(self, driver: str, *options: str) -> list[str]:
        return self.node.virsh("list", "--name", *options, driver=driver).stdout.split()

    # -- packets -----------------------------------------------------------------------------

    def asks(
        self,
        port: int,
        protocol: str = "tcp",
        *,
        family: int = 4,
        patience: float = DEFAULT_PATIENCE,
    ) -> str:
        """Who answers the client at the node's port, as "web1 saw 10.5.5.251"; or why nobody."""
        return spoken(self.client.ask(protocol, NODE[family], port, timeout=patience))

    def asks_until_answered(self, port: int, protocol: str = "tcp", *, family: int = 4) -> str:
        """As `asks`, again and again until a booting guest is up."""
        return spoken(self.client.until_answered(protocol, NODE[family], port))

    def is_closed(self, port: int, protocol: str = "tcp", *, family: int = 4) -> bool:
        """Whether the node itself refuses the client: nothing is published there.

        Over UDP it may be silent: it says so a few times a second only.
        """
        patience = PATIENCE_FOR_SILENCE if protocol == "udp" else DEFAULT_PATIENCE
        answer = self.asks(port, protocol, family=family, patience=patience)
        return answer == "refused" or (protocol == "udp" and answer == "timed out")

    # -- cgw ---------------------------------------------------------------------------------

    def cgw(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run cgw as the admin does."""
        return self.node.run(["cgw", *arguments], check=check)

    def shell(self, script: str) -> None:
        """Run a script as the admin does, or as fate does."""
        self.node.run(["sh", "-ec", script])

    def status(self) -> dict[str, dict[str, Any]]:
        """What `cgw status --json` says of each guest (of its first port)."""
        rows = read_status(self.cgw("status", "--json", check=False).stdout)["published"]
        return {row["guest"]: row for row in reversed(rows)}

    def syslog(self) -> str:
        """What cgw and its hook wrote to syslog so far."""
        return "\n".join(line for line in self.node.syslog() if "cgw" in line)

    def hook_calls(self) -> list[list[str]]:
        """The calls of our hook so far, as ["0", "web1", "prepare", "begin", "-"]."""
        return [call.split() for call in self.node.path(_CALLS).read_text().splitlines()]

    def hook_output(self) -> str:
        """All that our hook ever printed on stdout: at migrate and restore, a guest's XML."""
        return self.node.path(_OUTPUT).read_text()

    # -- what is left ------------------------------------------------------------------------

    def ruleset(self) -> str:
        """All tables, without what traffic alone puts there."""
        listing = self.node.run(["nft", "--stateless", "list", "ruleset"]).stdout
        return _HAIRPIN_ELEMENTS.sub(r"\1", listing).replace(" counter : ", " : ")

    def files(self) -> list[str]:
        """Every record, claim and bridge user."""
        root = self.node.path(RUNTIME_FOLDER)
        folders = [root / folder for folder in ("guests", "index")]
        return sorted(_files_below(folders))

    def traces(self) -> tuple[str, list[str]]:
        """Everything that a guest may leave: our table without any port is as good as none."""
        return _OUR_TABLE.sub(_unless_empty, self.ruleset()), self.files()


def _unless_empty(table: re.Match[str]) -> str:
    """Our table; nothing where it has no elements but the revision."""
    return "" if table[0].count("elements = {") == 1 else table[0]


class Guest:
    """A guest of the host."""

    def __init__(self, host: Hypervisor, name: str, octet: int, driver: str, xml: str) -> None:
        self.host = host
        self.name = name
        self.octet = octet
        self.driver = driver
        self.xml = xml
        self._calls_before = len(host.hook_calls())

    def define(self) -> None:
        """Define it; a second time, over what is there."""
        self.host.node.define(self.xml)

    def virsh(
        self, command: str, *arguments: str, check: bool = True, xml: str | None = None
    ) -> str:
        """A virsh command on the guest; what it said on stderr."""
        return self.host.node.virsh(
            command, self.name, *arguments, driver=self.driver, input=xml, check=check
        ).stderr  # fmt: skip

    def start(self) -> None:
        """`virsh start`."""
        self.virsh("start")

    def refusal(self) -> str:
        """The one line of ours in what `virsh start` says to whoever runs it in vain."""
        said = self.virsh("start", check=False)
        assert self.state() == "shut off", said
        lines = [line for line in said.splitlines() if "cgw: " in line]
        assert len(lines) == 1, said
        return lines[0].partition("cgw: ")[2]

    def destroy(self) -> None:
        """`virsh destroy`."""
        self.virsh("destroy")

    def remove(self) -> None:
        """Destroy it where it runs, and undefine it."""
        self.virsh("destroy", check=False)
        self.host.undefine(self.name, self.driver)

    def create_transient(self) -> None:
        """Start it as a transient guest, whose definition goes when it ends."""
        self.virsh("undefine")
        self.host.node.virsh("create", "/dev/stdin", driver=self.driver, input=self.xml)
        remember_guests(self.host.node.network, self.xml)

    def tell(self, order: str) -> None:
        """Tell its init, over its control port: "poweroff", "reboot" or "panic"."""
        with self.host.on_the_node.tcp_session(guest_address(self.octet), 9) as control:
            control.send(order)

    def kill(self) -> None:
        """Kill its QEMU."""
        pid = self.host.node.path(f"/run/libvirt/qemu/{self.name}.pid").read_text()
        self.host.node.run(["kill", "-KILL", pid])

    def state(self) -> str:
        """What libvirt says it is."""
        return self.host.node.state(self.name, driver=self.driver)

    def calls(self) -> list[list[str]]:
        """Our hook's calls for this guest since `operations` was last asked."""
        calls = self.host.hook_calls()[self._calls_before :]
        return [call for call in calls if call[1] == self.name]

    def operations(self) -> list[str]:
        """The operations that our hook was called for since this was last asked."""
        calls = self.calls()
        self._calls_before = len(self.host.hook_calls())
        return [operation for _, _, operation, *_ in calls]

    def is_called(self, operation: str) -> bool:
        """Whether libvirt calls our hook for this operation, the last of those to come."""
        return eventually(lambda: [call[2] for call in self.calls()][-1:] == [operation])


def _files_below(folders: Iterable[Path]) -> Iterable[str]:
    for folder in folders:
        for path, _, names in os.walk(folder):
            yield from (f"{path}/{name}" for name in names)
