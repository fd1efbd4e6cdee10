"""A Xen host under test: its guests, who answers at its ports, and what it has published."""

from typing import Any

from tests.lab import network
from tests.lab.status_json import read_status
from tests.lab.xen.dom0 import Dom0
from tests.lab.xen.snapshot import GUEST_FOLDER

NODE = network.NodeAddresses(1).uplink
#: Of a guest whose vif script is ours, with a published TCP and a published UDP port.
VIF = "ip=10.5.5.201,script=vif-cgw,gatewaydev=cgw 2202:22/tcp 123/udp"
#: What this guest answers the client.
WEB1 = f"web1 saw {network.CLIENT_ADDRESS}"
_OPTIONS = (
    "quiet loglevel=0 mitigations=off cryptomgr.notests apparmor=0 panic=0 "
    f"lab.gateway={network.GATEWAY_ADDRESS}"
)
_SLOW = 300.0
_LIST = "nft --stateless list table inet cgw 2>/dev/null || :"
_HERE = "/usr/local/bin/here"
#: Holds the process id of the xl that receives a migrating guest.
RECEIVER = "/run/receiver"


class XenHost:
    """Speaks of guests by name; the one with number N has address 10.5.5.N."""

    def __init__(self, dom0: Dom0) -> None:
        self.dom0 = dom0
        self._files: list[str] = []

    def define(self, name: str, octet: int, *vifs: str, kind: str = "pv", more: str = "") -> None:
        """Write /etc/xen/NAME.cfg. Each of `vifs` is its spec, less mac and bridge."""
        specs = [
            f"'mac=00:16:3e:05:{number:02x}:{octet:02x},bridge={network.GUEST_BRIDGE},{vif}'"
            for number, vif in enumerate(vifs)
        ]
        options = f"{_OPTIONS} lab.name={name} lab.address={network.guest_address(octet)}/24"
        self.write(
            f"/etc/xen/{name}.cfg",
            f'name = "{name}"\ntype = "{kind}"\nmemory = 96\nvcpus = 1\n'
            f'kernel = "{GUEST_FOLDER}/vmlinux"\nramdisk = "{GUEST_FOLDER}/initramfs"\n'
            f'extra = "{options}"\nvif = [{", ".join(specs)}]\n{more}',
        )

    def write(self, path: str, content: str, *, mode: int = 0o644) -> None:
        """Write a file, until the test ends."""
        self._files.append(path)
        self.dom0.write(path, content, mode=mode)

    def files_to_remove(self, *paths: str) -> None:
        """Remove these files when the test ends, if they are there."""
        self._files += paths

    def migrate(self, name: str, *, fails: bool = False) -> str:
        """Migrate a guest to this host itself; what xl said. The receiving xl is `RECEIVER`."""
        self.write(_HERE, f'#!/bin/sh\nshift\necho $$ >{RECEIVER}\nexec "$@"\n', mode=0o755)
        return self.xl("migrate", "-s", _HERE, name, "localhost", fails=fails)

    def xl(self, *arguments: str, fails: bool = False) -> str:
        """Run xl; what it said."""
        done = self.dom0.run(["xl", *arguments], check=False)
        assert fails == (done.returncode != 0), done.stderr
        return done.stderr

    def create(self, name: str) -> None:
        """Start a guest."""
        self.xl("create", f"/etc/xen/{name}.cfg")

    def runs(self, name: str) -> bool:
        """Whether Xen has the guest."""
        return self.dom0.run(["xl", "domid", name], check=False).returncode == 0

    def asks(self, port: int, protocol: str = "tcp") -> str:
        """Who answers the client at a published port, and which client it saw."""
        reply = self.dom0.client("until_answered", protocol, NODE, port, within=_SLOW)
        return f"{reply.guest} saw {reply.peer}" if reply.answered else reply.outcome.value

    def is_closed(self, port: int, protocol: str = "tcp") -> bool:
        """Whether nobody answers there any more."""
        return not self.dom0.client("until_closed", protocol, NODE, port, within=_SLOW).answered

    def until(self, condition: str) -> None:
        """Wait until a shell condition holds in dom0.

        One shell there asks again and again: to call dom0 each time would cost more than to wait.
        """
        loop = f"until {condition}; do sleep 0.2; done"
        limit = f"{_SLOW:.0f}"
        done = self.dom0.run(["timeout", limit, "bash", "-c", loop], check=False)
        assert done.returncode == 0, condition

    def published(self) -> dict[str, list[str]]:
        """Record -> its ports, of what `cgw status` shows as published."""
        rows = read_status(self.dom0.run(["cgw", "status", "--json"], check=False).stdout)
        found: dict[str, list[str]] = {}
        row: dict[str, Any]
        for row in rows["published"]:
            if row["state"] == "published":
                port = f"{row['listen_ports'][0]}/{row['protocol']}"
                found.setdefault(row["guest"], []).append(port)
        return found

    def elements(self) -> list[str]:
        """The published ports in the ruleset itself."""
        return _elements(self.dom0.shell(_LIST))

    def destroy_all(self) -> None:
        """Destroy every guest, and remove the test's files."""
        self.until(
            "for d in $(xl list | awk 'NR>2 {print $2}'); do xl destroy $d; done; "
            f"rm -rf {' '.join(self._files)} /root/save; ! ls /sys/class/net | grep -q ^vif"
        )

    def assert_clean(self) -> None:
        """No record, claim or element is left, and no vif waits for anything."""
        find = "find /run/cgw/guests /run/cgw/index -mindepth 1 -type f 2>/dev/null"
        files, _, table = self.dom0.shell(f"{find}; echo --; {_LIST}").partition("--\n")
        assert files == ""
        assert _elements(table) == []


def _elements(table: str) -> list[str]:
    """The published ports in a listing of our table."""
    lines = [line.strip().rstrip(",").replace(" counter ", " ") for line in table.splitlines()]
    return [line for line in lines if "comment" in line or " : 10.5.5." in line]
