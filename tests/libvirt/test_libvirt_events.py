"""What the resident process hears from a real libvirtd, also one that hangs or is killed."""

import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.domain import PUBLISH_NAMESPACE, guest_uuid
from tests.libvirt.answers import PUBLISHED
from tests.libvirt.hypervisor import Guest, Hypervisor
from tests.libvirt.waiting import eventually

pytestmark = pytest.mark.libvirt

LONGEST_WAIT = 120.0
#: Seconds in which nothing must happen.
QUIET = 3.0
_PROGRAM = """
import json, os, select, sys, threading
sys.path.insert(0, "/usr/local/lib/cgw")
from cgw_hooks.errors import HypervisorError
from cgw_hooks.host.folder_events import FolderEvents
from cgw_hooks.host.libvirt_events import LibvirtEvents

lock = threading.Lock()

def say(*words):
    with lock:
        print(json.dumps(words), flush=True)

events = LibvirtEvents(lambda news: say(*news))
folders = FolderEvents(events.watched_folders())
events.start()
while True:
    ready = select.select([folders, sys.stdin], [], [])[0]
    if folders in ready:
        for folder in {folder for folder, _ in folders.read().changed}:
            events.folder_changed(folder)
    if sys.stdin in ready:
        line = sys.stdin.readline()
        if not line:
            break
        command, *arguments = line.split()
        try:
            answer = getattr(events, command)(*arguments)
            say("answer", answer[1] if command == "definition" and answer else answer)
        except HypervisorError as error:
            say("error", str(error))
with lock:  # the threads of libvirt may be about to say something, and Python cannot end them
    os._exit(0)
"""
#: Sockets as systemd has them, and who connects first within some seconds.
_ACTIVATED = """
import os, socket, sys
first = socket.socket(socket.AF_UNIX)
path = "/run/libvirt/libvirt-sock"
for name in (path, path + "-ro"):
    if os.path.exists(name):
        os.unlink(name)
first.bind(path)
os.link(path, path + "-ro")
first.listen()
first.settimeout(float(sys.argv[1]))
print("ready", flush=True)
first.accept()
"""
INTERFACE = "<interface type='bridge'><source bridge='guestbr0'/><mac address='{mac}'/></interface>"


class Listener:
    """A process of the host that hears, and answers questions."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._said: queue.Queue[list[str]] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._said.put(json.loads(line))

    def hears(self, *words: object) -> float:
        """Wait until it says this, whatever it says before; how long that took, in seconds."""
        begun = time.monotonic()
        while True:
            left = begun + LONGEST_WAIT - time.monotonic()
            assert left > 0, f"it never says {words}"
            try:
                if self._said.get(timeout=left) == list(words):
                    return time.monotonic() - begun
            except queue.Empty:
                continue

    def hears_nothing(self) -> None:
        try:
            said = self._said.get(timeout=QUIET)
        except queue.Empty:
            return
        raise AssertionError(said)

    def forgets(self) -> None:
        """Leave out what it has said so far."""
        while not self._said.empty():
            self._said.get()

    def answers(self, *question: str) -> object:
        """The answer to one question; an error as its text."""
        assert self.process.stdin
        self.process.stdin.write(" ".join(question) + "\n")
        self.process.stdin.flush()
        deadline = time.monotonic() + LONGEST_WAIT
        while True:
            said = self._said.get(timeout=max(deadline - time.monotonic(), 0))
            if said[0] in {"answer", "error"}:
                return said[1]

    def is_connected(self, driver: str = "qemu") -> bool:
        return self.answers("is_connected", driver) is True

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
        self._reader.join()


@pytest.fixture
def listener(host: Hypervisor) -> Iterator[Listener]:
    """A process that hears from now on. No guest runs."""
    with host.node.popen(["python3", "-c", _PROGRAM]) as process:
        made = Listener(process)
        try:
            yield made
        finally:
            made.end()
            assert process.stderr
            assert process.stderr.read() == ""


@pytest.fixture
def web(host: Hypervisor, listener: Listener) -> Guest:
    """A running guest that the listener knows."""
    guest = host.guest("web1", *PUBLISHED)
    guest.start()
    listener.hears("connected", "qemu", "")
    time.sleep(QUIET)  # until what belongs to its start is told, too
    listener.forgets()
    return guest


def uuid(guest: Guest) -> str:
    return guest_uuid(guest.octet)


def test_a_connection_is_kept_only_while_a_guest_runs(host: Hypervisor, listener: Listener) -> None:
    guest = host.guest("web1", *PUBLISHED)
    assert not listener.is_connected()
    listener.answers("look", "qemu")
    listener.hears_nothing()
    guest.start()
    assert listener.hears("connected", "qemu", "") < LONGEST_WAIT
    assert listener.is_connected()
    assert not listener.is_connected("lxc")
    guest.destroy()
    listener.hears("guest", "qemu", uuid(guest))
    assert eventually(lambda: not listener.is_connected())
    listener.forgets()
    listener.hears_nothing()
    guest.start()
    listener.hears("connected", "qemu", "")


@pytest.mark.on_both_suites
def test_metadata(web: Guest, listener: Listener) -> None:
    annotation = ["--uri", PUBLISH_NAMESPACE, "--key", "cgw"]
    web.virsh("metadata", *annotation, "--live", "--set", "<publish/>")
    listener.hears("guest", "qemu", uuid(web))
    web.virsh("metadata", "--uri", PUBLISH_NAMESPACE, "--live", "--remove")
    listener.hears("guest", "qemu", uuid(web))
    listener.hears_nothing()
    web.virsh("metadata", "--uri", "urn:other", "--key", "other", "--live", "--set", "<other/>")
    listener.hears_nothing()


def test_another_interface(web: Guest, listener: Listener) -> None:
    interface = INTERFACE.format(mac="52:54:00:05:77:01")
    web.virsh("attach-device", "/dev/stdin", "--live", xml=interface)
    listener.hears("guest", "qemu", uuid(web))
    listener.hears_nothing()
    web.virsh("detach-device", "/dev/stdin", "--live", xml=interface)


def test_the_definition_of_a_guest(web: Guest, listener: Listener) -> None:
    assert listener.answers("definition", "qemu", uuid(web)) == "web1"
    assert listener.answers("definition", "qemu", guest_uuid(249)) is None
    assert listener.answers("agent_addresses", "qemu", uuid(web)) == {}
    web.destroy()
    assert listener.answers("definition", "qemu", uuid(web)) is None
    assert eventually(lambda: not listener.is_connected())


def test_a_container(host: Hypervisor, listener: Listener) -> None:
    guest = host.guest("box1", *PUBLISHED, driver="lxc")
    guest.start()
    listener.hears("connected", "lxc", "")
    assert listener.answers("definition", "lxc", uuid(guest)) == "box1"
    guest.destroy()
    listener.hears("guest", "lxc", uuid(guest))
    assert eventually(lambda: not listener.is_connected("lxc"))


def test_a_killed_daemon(web: Guest, listener: Listener) -> None:
    web.host.node.kill_libvirtd()
    listener.hears("lost", "qemu", "")
    assert "does not" in str(listener.answers("definition", "qemu", uuid(web)))
    assert not listener.is_connected()
    listener.forgets()
    listener.hears_nothing()
    web.host.node.start_libvirtd()
    listener.hears("connected", "qemu", "")
    assert listener.answers("definition", "qemu", uuid(web)) == "web1"


@pytest.mark.extended
def test_a_restarted_daemon(web: Guest, listener: Listener) -> None:
    web.host.node.restart_libvirtd()
    listener.hears("lost", "qemu", "")
    listener.hears("connected", "qemu", "")


@pytest.mark.extended
def test_a_daemon_that_hangs(web: Guest, listener: Listener) -> None:
    pid = web.host.node.path("/run/libvirtd.pid").read_text().strip()
    web.host.node.run(["kill", "-STOP", pid])
    try:
        assert listener.is_connected()
        listener.hears("lost", "qemu", "")
        begun = time.monotonic()
        for driver in ("qemu", "lxc"):
            listener.answers("look", driver)
        assert time.monotonic() - begun < 5
        assert not listener.is_connected()
        assert "does not answer" in str(listener.answers("definition", "qemu", uuid(web)))
        assert "does not answer" in str(listener.answers("agent_addresses", "qemu", uuid(web)))
    finally:
        web.host.node.run(["kill", "-CONT", pid])
    listener.hears("connected", "qemu", "")
    assert listener.answers("definition", "qemu", uuid(web)) == "web1"


def test_a_stopped_daemon_is_not_started_again(web: Guest, listener: Listener) -> None:
    """Systemd would start it again for the first who connects to its socket."""
    node = web.host.node
    node.stop_libvirtd()
    listener.hears("lost", "qemu", "")
    listener.forgets()
    with node.popen(["python3", "-c", _ACTIVATED, "15"]) as activated:
        assert activated.stdout
        assert activated.stdout.readline() == "ready\n"
        listener.answers("look", "qemu")
        assert "does not" in str(listener.answers("definition", "qemu", uuid(web)))
        assert "does not" in str(listener.answers("agent_addresses", "qemu", uuid(web)))
        said = activated.communicate()[1]
        assert "timed out" in said
    node.run(["rm", "-f", "/run/libvirt/libvirt-sock", "/run/libvirt/libvirt-sock-ro"])
    node.start_libvirtd()
    listener.hears("connected", "qemu", "")


@pytest.mark.extended
def test_an_idle_daemon_can_end(host: Hypervisor, listener: Listener) -> None:
    """As Debian's socket-activated libvirtd --timeout 120 does."""
    node = host.node
    guest = host.guest("web1", *PUBLISHED)
    node.stop_libvirtd()
    node.run(["libvirtd", "--daemon", "--timeout", "10", "--pid-file", "/run/libvirtd.pid"])
    pid = node.path("/run/libvirtd.pid").read_text().strip()
    process = Path(node.path("/proc")) / pid
    try:
        guest.start()
        listener.hears("connected", "qemu", "")
        guest.destroy()
        assert eventually(lambda: not process.exists())
        listener.forgets()
        listener.hears_nothing()
    finally:
        if process.exists():
            node.stop_libvirtd()
        node.start_libvirtd()
