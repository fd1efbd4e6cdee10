"""`cgw uninstall` where systemd runs: its units are stopped, disabled and gone."""

import pytest

from tests.systemd.conftest import booted_gateway

pytestmark = pytest.mark.systemd

UNITS = ("cgw.service", "cgw-sync.service", "cgw-resync.service", "cgw-resync.path",
         "cgw-node.service", "cgw-conntrackd.service")  # fmt: skip


def test_uninstall_stops_and_disables_the_units() -> None:
    with booted_gateway("other-", "cgw.service") as gateway:
        host = gateway.host
        assert "active" == gateway.property("cgw.service", "ActiveState")
        assert host.path("/var/lib/cgw").is_dir()
        said = host.run(["cgw", "uninstall"]).stdout.splitlines()
        assert "stopped and disabled cgw.service" in said
        assert not [line for line in said if "cgw-node" in line and "stopped" in line]
        for unit in UNITS:
            assert "not-found" == gateway.property(unit, "LoadState")
            assert "inactive" == gateway.property(unit, "ActiveState")
        left = host.run(["find", "/etc/systemd", "-name", "cgw*"])
        assert "" == left.stdout
        assert not host.path("/var/lib/cgw").exists()
        assert gateway.is_closed()
        gateway.order("start", "nftables")
        assert gateway.is_closed()
        # A second time there is nothing to stop.
        assert [] == [line for line in host.run(["cgw", "uninstall"]).stdout.splitlines()
                      if "stopped" in line]  # fmt: skip
