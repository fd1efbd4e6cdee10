"""A fresh Debian with libvirt: the package, one command, and a client gets the guest's answer."""

import pytest

from tests.host.debian import ANSWER, Debian
from tests.lab.whole_host.snapshot import GUEST
from tests.libvirt.waiting import eventually

pytestmark = pytest.mark.host


def test_a_client_gets_the_answer_after_install_and_publish(host: Debian) -> None:
    """Libvirtd, which nobody needs yet, does not run: its socket starts it."""
    host.types("systemctl stop libvirtd.service")
    host.install()
    host.types(f"cgw publish {GUEST} 8080:80")
    host.virsh(f"start {GUEST}")
    assert ANSWER == host.answers()
    assert host.confinement_of("libvirtd") == "libvirtd (enforce)"
    assert host.denials() == []
    assert host.problems() == []


@pytest.mark.extended
def test_what_apparmor_forbids_is_seen(host: Debian) -> None:
    """Otherwise the tests would not notice it."""
    host.types("cp /bin/true /usr/local/bin/forbidden")
    host.types("! aa-exec --profile libvirtd sh -c /usr/local/bin/forbidden")
    assert eventually(lambda: "/usr/local/bin/forbidden" in str(host.denials()))
