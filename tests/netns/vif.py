"""A network device of a plain xl guest, and the calls of Xen's vif script for it."""

from dataclasses import dataclass, replace

from tests.lab import domain, network
from tests.netns.faults import cgw_killed_at
from tests.netns.guest import Finished
from tests.netns.node import Node


@dataclass(frozen=True)
class Vif:
    """Its guest publishes the short forms `words`; if empty, the vif itself declares nothing."""

    node: Node
    guest: str
    octet: int
    words: str = ""
    domain: int = 1
    device: int = 0

    @property
    def name(self) -> str:
        """The kernel's name of the device."""
        return f"vif{self.domain}.{self.device}"

    @property
    def key(self) -> str:
        """The key of its record."""
        return f"xl-{self.name}"

    def migrated(self, words: str | None = None) -> "Vif":
        """The same device after a migration to the same host, perhaps with other words.

        Its domain number is new, and it is added before the old device is removed.
        """
        return replace(self, domain=self.domain + 1, words=self.words if words is None else words)

    @property
    def listing(self) -> str:
        """The device's backend, as `xenstore-ls -f` prints it."""
        path = f"backend/vif/{self.domain}/{self.device}"
        said = {"ip": network.guest_address(self.octet), "online": "1", "hotplug-status": ""}
        if self.words:
            said["gatewaydev"] = f"cgw {self.words}"
        return "".join(f'{path}/{name} = "{value}"\n' for name, value in said.items())

    def online(self, listing: str | None = None) -> Finished:
        """Make the call for its addition, with its own listing or another one."""
        return self._call(self._online, self.listing if listing is None else listing)

    def offline(self) -> Finished:
        """Make the call for its removal."""
        return self._call(self._offline)

    def kill_online_at(self, step: int) -> str:
        """Kill the online call before its n-th step (see `tests.netns.faults`)."""
        return cgw_killed_at(step, self.node, *self._online, given=self.listing)

    def kill_offline_at(self, step: int) -> str:
        """Kill the offline call before its n-th step."""
        return cgw_killed_at(step, self.node, *self._offline)

    @property
    def _online(self) -> list[str]:
        path = f"/vm/{domain.guest_uuid(self.octet)}"
        return ["hook", "xl", self.guest, "online", self.name, path]

    @property
    def _offline(self) -> list[str]:
        return ["hook", "xl", "-", "offline", self.name, "-"]

    def _call(self, arguments: list[str], given: str = "") -> Finished:
        done = self.node.cgw(*arguments, given=given, check=False)
        assert done.stdout == ""
        return Finished(done.returncode, done.stderr.strip())
