"""A member of a real etcd, and its end of the network; `tests.lab.etcd` has the picture."""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cgw_hooks.core.node_config import Endpoint
from tests.lab.namespace import Namespace, veth

CLIENT_PORT, PEER_PORT = 2379, 2380
DEVICE = "etcd0"
DATA = Path("/mnt")
"""The folder of the members' data, inside their root."""
PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
LONGEST_WAIT = 300.0


class Port:
    """One end of the network: a device in a namespace, at a port of the switch."""

    def __init__(self, inside: Namespace, switch: Namespace, number: int) -> None:
        self.namespace, self._switch, self._name = inside, switch, f"port{number}"
        self.address = f"10.99.0.{number}"
        self.is_whole = True
        veth(inside, DEVICE, switch, self._name)
        switch.ip(f"link set {self._name} master switch")
        inside.ip(f"address add {self.address}/24 dev {DEVICE}")

    def cut_off(self) -> None:
        """Pull the plug: what the kernel sends then is lost, and ARP fails after a while."""
        self.is_whole = False
        self._switch.ip(f"link set {self._name} down")

    def silence(self, *ports: int) -> None:
        """Drop packets without a word: all of them, or those from and to these TCP ports."""
        self.is_whole = False
        found = f"{{ {', '.join(map(str, ports))} }}"
        matches = (f"tcp dport {found}", f"tcp sport {found}") if ports else ("",)
        rules = "".join(
            f"chain {hook} {{ type filter hook {hook} priority -300; {drops} }}\n"
            for hook, device in (("input", "iif"), ("output", "oif"))
            for drops in ["".join(f"{device} != lo {match} drop; " for match in matches)]
        )
        self.namespace.run(["nft", "-f", "-"], input=f"table inet silence {{\n{rules}}}\n")

    def mend(self) -> None:
        """Undo `cut_off` and `silence`."""
        self._switch.ip(f"link set {self._name} up")
        self.namespace.run(["nft", "table inet silence; delete table inet silence"])
        self.is_whole = True


class Member:
    """One member of the cluster. It is not running at first.

    `command` completes a command line that runs it in a namespace.

    The thread that calls `start` must live as long as the member runs (PR_SET_PDEATHSIG).
    """

    def __init__(
        self,
        number: int,
        port: Port,
        *,
        is_tls: bool,
        log: Path,
        command: Callable[[Namespace, Sequence[str]], Sequence[str]],
    ) -> None:
        self.name, self.port, self.log = f"etcd{number}", port, log
        self.endpoint = Endpoint(port.address, CLIENT_PORT, is_tls)
        self.peer_url = str(self.endpoint._replace(port=PEER_PORT))
        self.data = DATA / self.name
        self.is_paused = False
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it runs, and nothing was done to it or to its end of the network."""
        return self.is_running and not self.is_paused and self.port.is_whole

    @property
    def is_running(self) -> bool:
        """Whether its process runs, or is paused."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start its process; see `EtcdCluster.wait_until_served`."""
        local = self.endpoint._replace(host="127.0.0.1")
        program = [
            "etcd", "--name", self.name, "--data-dir", str(self.data), "--logger=zap",
            "--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url,
            "--listen-client-urls", f"{self.endpoint},{local}",
            "--advertise-client-urls", str(self.endpoint),
        ]  # fmt: skip
        # A session of its own: Ctrl-C is for the test run alone. If that is killed, etcd ends too.
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command(self.port.namespace, program)],
                start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=PATH,
            )  # fmt: skip

    def stop(self) -> None:
        """End it properly: a leader hands over first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process:
            self.resume()
            self._process.send_signal(number)
            self._process.wait(LONGEST_WAIT)

    def pause(self) -> None:
        """Stop its process (SIGSTOP): the kernel goes on to accept connections for it."""
        assert self._process
        self.is_paused = True
        self._process.send_signal(signal.SIGSTOP)
        # The signal has been sent, and other threads of the process may still run for a moment.
        tasks = Path(f"/proc/{self._process.pid}/task")
        while any("\nState:\tT" not in (task / "status").read_text() for task in tasks.iterdir()):
            time.sleep(0.005)

    def resume(self) -> None:
        """Let a paused process go on."""
        assert self._process
        self.is_paused = False
        self._process.send_signal(signal.SIGCONT)
