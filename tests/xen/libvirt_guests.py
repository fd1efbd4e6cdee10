"""Guests of libvirt's Xen driver on a Xen host, and what libvirt asked its hook for."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.domain import domain_xml
from tests.lab.network import guest_address
from tests.lab.node_files import config_files
from tests.netns.specs import port_forward
from tests.xen.host import XenHost

_CONFIG = "/etc/libvirt/libvirtd.conf"
_LOG = "/var/log/libvirt/libvirtd.log"
_PID_FILE = "/run/libvirtd.pid"
#: What the daemon logs of a hook's call: "... op=started subop=begin extra=-".
_CALL = "Calling hook /etc/libvirt/hooks/libxl.d/50-cgw id="
#: Xen hides SEP on AMD, TCG has no VME: libvirt has no name for a CPU with neither.
_NAME_THE_CPU = "sed -i \"/'vme'/d\" /usr/share/libvirt/cpu_map/x86_486.xml"


class LibvirtGuests:
    """libvirtd in dom0, and its guests by name; the one with number N has address 10.5.5.N."""

    def __init__(self, xen: XenHost) -> None:
        self.xen = xen
        self._seen: dict[str, int] = {}
        xen.dom0.shell(f"mkdir -p /var/log/libvirt/libxl; {_NAME_THE_CPU}")
        xen.dom0.write(_CONFIG, config_files(1, None)[_CONFIG.removeprefix("/")])

    # -- the daemon --------------------------------------------------------------------------

    def start_libvirtd(self) -> None:
        """Start the daemon; it answers when this returns."""
        self.xen.dom0.run(["libvirtd", "--daemon", "--pid-file", _PID_FILE])
        self.virsh("uri")

    def stop_libvirtd(self) -> None:
        """End the daemon; guests live on."""
        pid = self.xen.dom0.shell(f"cat {_PID_FILE}").strip()
        self.xen.dom0.run(["kill", pid])
        self.xen.until(f"! [ -e /proc/{pid} ]")

    @contextmanager
    def without_libvirtd(self) -> Iterator[None]:
        """While the daemon is down."""
        self.stop_libvirtd()
        try:
            yield
        finally:
            self.start_libvirtd()

    def virsh(self, *arguments: str, xml: str = "", fails: bool = False) -> str:
        """Run virsh; what it said on either output."""
        command = ["virsh", "--quiet", "--connect", "xen:///system", *arguments]
        done = self.xen.dom0.run(command, input=xml, check=False)
        assert fails == (done.returncode != 0), done.stderr
        return (done.stdout + done.stderr).strip()

    # -- guests ------------------------------------------------------------------------------

    def define(self, name: str, octet: int, *publish: str) -> None:
        """Define a guest that publishes these (see `port_forward`)."""
        address = guest_address(octet)
        annotation = "".join(map(port_forward, publish)) if publish else None
        xml = domain_xml(
            name, octet=octet, driver="xen", interface_ip=address,
            publish=annotation, publish_address=address,
        )  # fmt: skip
        self.virsh("define", "/proc/self/fd/0", xml=xml)

    def state(self, name: str) -> str:
        """What libvirt says the guest is: "running", "shut off", ..."""
        return self.virsh("domstate", name)

    def operations(self, name: str) -> list[str]:
        """The operations that libvirt called our hook for since this was last asked."""
        lines = self.xen.dom0.shell(f"grep '{_CALL}{name} ' {_LOG} || :").splitlines()
        found = [line.partition(" op=")[2].split()[0] for line in lines]
        seen, self._seen[name] = self._seen.get(name, 0), len(found)
        return found[seen:]

    def records(self) -> list[str]:
        """Of which guests there is a record, by key."""
        files = self.xen.dom0.shell("ls /run/cgw/guests 2>/dev/null || :").split()
        return [file.removesuffix(".json") for file in files]

    def remove_all(self) -> None:
        """Destroy every guest, and take the definitions away."""
        self.xen.destroy_all()
        for name in self.virsh("list", "--all", "--name").split():
            if name != "Domain-0":
                self.xen.until(f"virsh -c xen:///system domstate {name} | grep -q 'shut off'")
                self.virsh("undefine", name)
