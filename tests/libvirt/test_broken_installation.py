"""However broken cgw is, guests start; those that publish do so once it is mended."""

import pytest

from tests.full import extended
from tests.libvirt.hypervisor import Hypervisor

pytestmark = pytest.mark.libvirt

PORT = 8181
CGW = "/usr/local/bin/cgw"
PACKAGE = "/usr/local/lib/cgw/cgw_hooks"
BREAKS = {
    "cgw is missing": f"mv {CGW} {CGW}.away",
    "its interpreter is missing": "mv /usr/bin/python3 /usr/bin/python3.away",
    "its package is missing": f"mv {PACKAGE} {PACKAGE}.away",
    "its package is broken": f"cp -r {PACKAGE} {PACKAGE}.away; echo ')' >{PACKAGE}/core/guest.py",
    "its records cannot be written": "mv /run/cgw /run/cgw.away; touch /run/cgw",
}
MENDS = {
    "cgw is missing": f"mv {CGW}.away {CGW}",
    "its interpreter is missing": "mv /usr/bin/python3.away /usr/bin/python3",
    "its package is missing": f"mv {PACKAGE}.away {PACKAGE}",
    "its package is broken": f"rm -r {PACKAGE}; mv {PACKAGE}.away {PACKAGE}",
    "its records cannot be written": "rm /run/cgw; mv /run/cgw.away /run/cgw",
}


@pytest.mark.parametrize(
    "fault",
    [
        "cgw is missing",
        extended("its interpreter is missing"),
        extended("its package is missing"),
        "its package is broken",
        "its records cannot be written",
    ],
)
def test_however_broken_cgw_is_guests_start(host: Hypervisor, fault: str) -> None:
    plain = host.guest("plain1", driver="lxc")
    annotated = host.guest("box1", f"{PORT}:80", driver="lxc")
    before = host.traces()
    logged = len(host.syslog())
    host.shell(BREAKS[fault])
    try:
        plain.start()
        assert "plain1" not in host.syslog()[logged:]
        annotated.start()
        assert [plain.state(), annotated.state()] == ["running", "running"]
        assert host.is_closed(PORT)
        assert "started: " in host.syslog()[logged:]
    finally:
        host.shell(MENDS[fault])
    host.cgw("sync")
    assert host.asks_until_answered(PORT).startswith("box1 ")
    annotated.destroy()
    assert before == host.traces()
