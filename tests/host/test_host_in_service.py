"""A Debian host with a published guest: what an admin does to it over the years.

The tests run in this order, on one host.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from tests.host.debian import ADDRESS, ANSWER, Debian
from tests.lab.whole_host.snapshot import GUEST
from tests.libvirt.waiting import eventually

pytestmark = [pytest.mark.host, pytest.mark.extended]

#: The guest echoes at this one.
ECHO_PORT = 7007
_SSH_DROP_IN = PurePosixPath("/etc/systemd/system/ssh.service.d/late.conf")


@pytest.fixture(scope="module", autouse=True)
def published(host: Debian) -> None:
    """The guest runs, and is then published; the host starts it at boot."""
    host.virsh(f"autostart {GUEST}")
    host.virsh(f"start {GUEST}")
    host.install()
    host.types(f"cgw publish {GUEST} 8080:80 {ECHO_PORT}:7")
    assert ANSWER == host.answers()


@pytest.fixture(autouse=True)
def no_denial(host: Debian) -> Iterator[None]:
    """AppArmor forbids nothing in any of these tests."""
    yield
    assert host.denials() == []


def assert_published(host: Debian) -> None:
    """The guest answers, and still does when everything has reacted to everything."""
    assert ANSWER == host.answers()
    assert eventually(lambda: host.problems() == [])
    assert ANSWER == host.answers()


def test_a_guest_that_ran_before_the_install_is_published_at_its_next_start(host: Debian) -> None:
    """Libvirtd has run all the time, and must have been told of the new hooks."""
    host.virsh(f"destroy {GUEST}")
    assert host.is_closed()
    host.virsh(f"start {GUEST}")
    assert_published(host)


def test_an_upgrade_of_the_package_keeps_connections(host: Debian) -> None:
    with host.client.tcp_session(ADDRESS, ECHO_PORT) as session:
        assert session.exchange("before") == "before"
        host.upgrade()
        assert session.exchange("after") == "after"
    assert_published(host)


@pytest.mark.parametrize("unit", ["nftables", "libvirtd"])
def test_a_port_answers_after_a_restart(host: Debian, unit: str) -> None:
    host.types(f"systemctl restart {unit}")
    assert_published(host)


def test_a_port_answers_behind_firewalld(host: Debian) -> None:
    host.types("systemctl stop nftables; systemctl start firewalld")
    assert_published(host)
    host.types("systemctl restart firewalld")
    assert_published(host)
    host.types("systemctl stop firewalld; systemctl restart libvirtd")
    assert_published(host)


def test_sshd_takes_its_port_from_a_guest(host: Debian) -> None:
    """A listener of the host has precedence over all guests, even if it starts later."""
    host.types("systemctl stop ssh.service ssh.socket")
    host.types(f"cgw publish {GUEST} 22:22")
    assert ANSWER == host.answers(22)
    host.types("systemctl start ssh")
    assert host.has_its_own_ssh()


def test_a_port_answers_after_a_reboot_and_sshd_keeps_its_own(host: Debian) -> None:
    """The guest, which libvirtd starts at boot, has declared port 22; sshd starts after it."""
    host.types(
        f"mkdir -p {_SSH_DROP_IN.parent}; printf '[Service]\\nTimeoutStartSec=infinity\\n"
        f'ExecStartPre=sh -c "until virsh domstate {GUEST} | grep running; do sleep 1; done"\''
        f" >{_SSH_DROP_IN}"
    )
    host.reboot()
    assert ANSWER == host.answers()
    assert host.has_its_own_ssh()
    host.types(f"rm {_SSH_DROP_IN}; systemctl daemon-reload; cgw unpublish {GUEST} 22")


def test_a_removed_package_closes_the_ports_and_leaves_the_guests(host: Debian) -> None:
    host.types("apt-get remove --yes cgw-hooks")
    assert host.is_closed()
    assert host.virsh(f"domstate {GUEST}") == "running"
    host.virsh(f"destroy {GUEST}")
    host.virsh(f"start {GUEST}")
    assert host.is_closed()


def test_a_purged_package_leaves_nothing(host: Debian) -> None:
    host.types("apt-get purge --yes cgw-hooks")
    where = "/etc /usr /var/lib /run"
    assert host.types(f"find {where} -xdev -path '*cgw*' -not -path '*cgw-lab*'") == ""
    assert "cgw" not in host.types("nft list ruleset")
