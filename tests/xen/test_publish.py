"""`cgw publish` for plain xl guests on a real Xen: guests.d/NAME.xml, and at once."""

import pytest

from tests.xen.host import XenHost

pytestmark = pytest.mark.xen

FILE = "/etc/cgw/guests.d/web1.xml"
WEB1 = "web1 saw 192.168.122.100"


def test_a_running_guest_is_published_and_unpublished_at_once(xen: XenHost) -> None:
    xen.define("web1", 201, "ip=10.5.5.201,script=vif-cgw")
    xen.create("web1")
    xen.files_to_remove(FILE)
    said = xen.dom0.run(["cgw", "publish", "web1", "8080:80", "7007:7"]).stdout
    assert "web1  0.0.0.0:8080 -> 10.5.5.201:80/tcp\n" in said
    assert xen.asks(8080) == WEB1
    assert xen.dom0.shell(f"stat -c '%U %a' {FILE}") == "root 644\n"
    xen.dom0.run(["cgw", "unpublish", "web1", "8080"])
    assert xen.is_closed(8080)
    assert xen.published() == {"web1": ["7007/tcp"]}
    xen.dom0.run(["cgw", "unpublish", "web1"])
    assert xen.elements() == []
    xen.until(f"! [ -e {FILE} ]")


@pytest.mark.extended
def test_ports_of_its_config_stay(xen: XenHost) -> None:
    more = 'cgw_publish = [ "2202:22/tcp" ]\n'
    xen.define("web1", 201, "ip=10.5.5.201,script=vif-cgw", more=more)
    xen.create("web1")
    xen.files_to_remove(FILE)
    assert xen.asks(2202) == WEB1
    xen.dom0.run(["cgw", "publish", "web1", "8080:80"])
    assert [xen.asks(2202), xen.asks(8080)] == [WEB1, WEB1]
    xen.xl("reboot", "web1")
    assert xen.is_closed(8080)
    assert xen.asks(8080) == WEB1
    xen.dom0.run(["cgw", "unpublish", "web1"])
    assert xen.elements() == []
