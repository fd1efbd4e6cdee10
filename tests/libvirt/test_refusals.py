"""What is refused at `virsh start`, and with what words."""

import pytest

from tests.lab.server import serve
from tests.libvirt.answers import assert_open
from tests.libvirt.hypervisor import Guest
from tests.netns.configs import FULL_NAT, WARN

pytestmark = pytest.mark.libvirt

INVALID = {
    "port": ("70000:80", '<range start> "70000" cannot be used; '),
    "protocol": ("8181:80/icmp", '<portForward proto> "icmp" cannot be used; '),
}


def test_a_port_of_another_guest_is_refused_by_name(web: Guest) -> None:
    before = web.host.traces()
    late = web.host.guest("web2", "9090:90", "8080:80")
    assert late.refusal().startswith(
        'guest "web2": port *:8080/tcp is published by guest "web1"; publish another, or stop'
    )
    assert_open(web.host)
    assert web.host.is_closed(9090)
    assert before == web.host.traces()
    late.remove()


@pytest.mark.parametrize(("spec", "said"), INVALID.values(), ids=INVALID)
def test_an_invalid_annotation_is_refused_by_element_and_value(
    web: Guest, spec: str, said: str
) -> None:
    before = web.host.traces()
    wrong = web.host.guest("web2", spec)
    assert wrong.refusal().startswith(f'guest "web2": {said}')
    assert_open(web.host)
    assert before == web.host.traces()
    wrong.remove()


def test_a_port_on_which_the_host_itself_listens_is_refused(web: Guest) -> None:
    node = web.host.node
    before = web.host.traces()
    late = web.host.guest("web2", "22:22")
    with serve(node.network, "0.0.0.0", "tcp", 22, "sshd"):
        assert late.refusal().startswith('guest "web2": port *:22/tcp is in use by a process')
        assert web.host.asks(22).startswith("sshd saw ")
    assert before == web.host.traces()
    late.remove()


def test_by_policy_a_guest_that_would_be_refused_starts_unpublished(web: Guest) -> None:
    host = web.host
    before = host.traces()
    host.node.write("/etc/cgw/cgw.toml", FULL_NAT + WARN)
    late = host.guest("web2", "8080:80")
    late.start()
    host.node.write("/etc/cgw/cgw.toml", FULL_NAT)
    assert late.state() == "running"
    row = host.status()["web2"]
    assert row["state"] == "not published"
    assert 'port *:8080/tcp is published by guest "web1"' in row["problem"]["message"]
    assert 'port *:8080/tcp is published by guest "web1"' in host.syslog()
    assert_open(host)
    late.remove()
    assert before == host.traces()
