"""One node of the lab: a host with a libvirtd of its own, where guests run."""

import time
from pathlib import Path
from subprocess import CompletedProcess

from tests.lab.host import Host, HostError
from tests.lab.namespace import Namespace
from tests.lab.network import GUEST_BRIDGE, NodeAddresses, plug_in, remember_guests, unplug
from tests.lab.node_files import FOLDERS, PACKAGED_NETWORKS, config_files, programs

_PID_FILE = "/run/libvirtd.pid"
_LIBVIRTD_LOG = "/var/log/libvirt/libvirtd.log"
_PATIENCE = 300.0

_JOIN_CGROUPS = """
for group in /sys/fs/cgroup/*/cgroup.procs; do [ ! -e "$group" ] || echo $$ > "$group"; done
exec "$@"
"""
"""A command run in a node enters its namespaces, yet stays in its caller's cgroups."""


class Node(Host):
    """A context manager: the node runs inside the `with` block, and nothing of it after.

    `index` counts from 1 and gives its name and addresses; `firewall_backend` is libvirt's, from
    10.4 on.
    """

    def __init__(  # noqa: PLR0913 - the parts that `tests.lab.lab` puts together
        self,
        index: int,
        *,
        network: Namespace,
        root: Path,
        guest_folder: Path,
        cgroup: str,
        firewall_backend: str | None = None,
    ) -> None:
        super().__init__(
            f"node{index}", network=network, root=root, guest_folder=guest_folder, cgroup=cgroup
        )
        self.index = index
        self.addresses = NodeAddresses(index)
        self._firewall_backend = firewall_backend

    def configure(self) -> None:
        """Write what differs from a freshly installed Debian host."""
        for folder in FOLDERS:
            self.path(folder).mkdir(parents=True, exist_ok=True)
        for path, content in config_files(self.index, self._firewall_backend).items():
            self.write(path, content)
        for path, content in programs().items():
            self.write(path, content, mode=0o755)
        for packaged in PACKAGED_NETWORKS:
            self.path(packaged).unlink(missing_ok=True)

    def start_libvirtd(self) -> None:
        """Start the daemon; it answers when this returns."""
        self.run(
            [
                "sh",
                "-c",
                _JOIN_CGROUPS,
                "sh",
                "libvirtd",
                "--daemon",
                "--listen",
                "--pid-file",
                _PID_FILE,
            ]
        )
        # It accepts connections before its drivers are up, and answers the first once they are.
        answer = self.virsh("uri", check=False)
        if answer.returncode != 0:
            log = self.path(_LIBVIRTD_LOG).read_text().splitlines()
            errors = "\n".join([line for line in log if " error : " in line][-10:])
            raise HostError(f"{self.name}: libvirtd: {answer.stderr.strip()}\n{errors}")

    def stop_libvirtd(self) -> None:
        """End the daemon properly; guests live on."""
        self._end_libvirtd("TERM")

    def kill_libvirtd(self) -> None:
        """End the daemon as a crash would (SIGKILL); guests live on."""
        self._end_libvirtd("KILL")
        self.path(_PID_FILE).unlink(missing_ok=True)

    def restart_libvirtd(self) -> None:
        """Stop and start the daemon."""
        self.stop_libvirtd()
        self.start_libvirtd()

    def power_off(self) -> None:
        """End all its processes at once, and all its links: it tells nobody that it goes."""
        unplug(self.network)
        self.run(["sh", "-c", "kill -KILL -1"])
        deadline = time.monotonic() + _PATIENCE
        while len(list(self.path("/proc").glob("[0-9]*"))) > 1:
            if time.monotonic() > deadline:
                raise HostError(f"{self.name}: processes did not end on SIGKILL")
            time.sleep(0.01)

    def power_on(self) -> None:
        """Undo `power_off`, as a boot would: what a boot does not keep is gone. libvirtd runs."""
        self.run(["sh", "-c", "rm -rf /run/*"])
        self.network.run(["nft", "flush", "ruleset"])
        self.network.ip(f"address flush dev {GUEST_BRIDGE}")
        plug_in(self.network)
        self.start_libvirtd()

    def reload_libvirtd(self) -> None:
        """Let the daemon read its configuration and hooks again (SIGHUP)."""
        self.run(["kill", "-HUP", self._libvirtd_pid()])

    def libvirtd_log(self) -> str:
        """The daemon's own log, with every detail of its hook calls."""
        return self.path(_LIBVIRTD_LOG).read_text(errors="replace")

    def _libvirtd_pid(self) -> str:
        return self.path(_PID_FILE).read_text().strip()

    def _end_libvirtd(self, signal_name: str, patience: float = _PATIENCE) -> None:
        pid = self._libvirtd_pid()
        process = self.path("/proc") / pid
        self.run(["kill", f"-{signal_name}", pid])
        deadline = time.monotonic() + patience
        while process.exists():
            if time.monotonic() > deadline:
                raise HostError(f"{self.name}: libvirtd did not end on SIG{signal_name}")
            time.sleep(0.01)

    def virsh(
        self,
        *arguments: str,
        driver: str = "qemu",
        input: str | None = None,  # noqa: A002 - named as in subprocess
        check: bool = True,
    ) -> CompletedProcess[str]:
        """Run virsh on the driver's system connection ("qemu" or "lxc")."""
        command = ["virsh", "--quiet", "--connect", f"{driver}:///system", *arguments]
        return self.run(command, input=input, check=check)

    def define(self, xml: str) -> None:
        """Define a guest; its driver is the definition's type."""
        driver = "lxc" if "<domain type='lxc'" in xml else "qemu"
        self.virsh("define", "/dev/stdin", driver=driver, input=xml)
        remember_guests(self.network, xml)

    def start(self, name: str, *, driver: str = "qemu") -> None:
        """Start a defined guest."""
        self.virsh("start", name, driver=driver)

    def destroy(self, name: str, *, driver: str = "qemu") -> None:
        """Destroy a guest: stop it at once."""
        self.virsh("destroy", name, driver=driver)

    def state(self, name: str, *, driver: str = "qemu") -> str:
        """The guest's state in libvirt's words: "running", "shut off", ..."""
        return self.virsh("domstate", name, driver=driver).stdout.strip()

    def wait_for_state(
        self, name: str, state: str, *, within: float = 300.0, driver: str = "qemu"
    ) -> None:
        """Wait until the guest is in this state. Raises HostError when it is not in time."""
        deadline = time.monotonic() + within
        while (now := self.state(name, driver=driver)) != state:
            if time.monotonic() > deadline:
                raise HostError(f"{self.name}: {name} is {now}, not {state}, after {within:.0f} s")
            time.sleep(0.05)

    def start_network(self, name: str, xml: str) -> None:
        """Define and start a libvirt network."""
        self.virsh("net-define", "/dev/stdin", input=xml)
        self.virsh("net-start", name)
