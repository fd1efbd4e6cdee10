"""What was lost while a guest runs is put back."""

import pytest

from tests.full import extended
from tests.libvirt.answers import assert_open
from tests.libvirt.hypervisor import Guest

pytestmark = pytest.mark.libvirt

FLUSH = "nft flush ruleset"
LOSE_RECORDS = "rm -r /run/cgw"
OTHER_PORT = 8181


REPAIRED = """\
repaired   table inet cgw is not there
repaired   table inet cgw: 6 elements were missing
"""


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (FLUSH, REPAIRED),
        (LOSE_RECORDS, "published  web1\n"),
        extended(
            f"{FLUSH}; {LOSE_RECORDS}",
            "published  web1\nrepaired   table inet cgw is not there\n",
        ),
    ],
)
def test_sync_puts_back_what_was_lost(web: Guest, loss: str, said: str) -> None:
    published = web.host.traces()
    web.host.shell(loss)
    assert published != web.host.traces()
    synced = web.host.cgw("sync")
    assert synced.stdout == said
    assert_open(web.host)
    assert published == web.host.traces()
    assert web.host.status()["web1"]["state"] == "published"


def test_status_says_that_the_rules_are_gone(web: Guest) -> None:
    web.host.shell(FLUSH)
    assert web.host.is_closed(8080)
    status = web.host.cgw("status", check=False)
    assert (status.returncode, status.stderr) == (
        1, "cgw: ruleset: table inet cgw is not there; run: cgw sync\n"
    )  # fmt: skip
    web.host.cgw("sync")
    assert_open(web.host)


@pytest.mark.parametrize("moment", ["before it starts", extended("while it runs")])
def test_any_other_guest_brings_the_rules_back(web: Guest, moment: str) -> None:
    published = web.host.traces()
    box = web.host.guest("box1", f"{OTHER_PORT}:80", driver="lxc")
    if moment == "before it starts":
        web.host.shell(FLUSH)
        box.start()
        assert_open(web.host)
        assert web.host.asks_until_answered(OTHER_PORT).startswith("box1 ")
        box.destroy()
    else:
        box.start()
        web.host.shell(FLUSH)
        box.destroy()
    assert_open(web.host)
    assert web.host.is_closed(OTHER_PORT)
    assert published == web.host.traces()
    box.remove()


def test_sync_takes_nothing_away_while_libvirt_does_not_answer(web: Guest) -> None:
    published = web.host.traces()
    web.host.node.kill_libvirtd()
    synced = web.host.cgw("sync", check=False)
    assert synced.returncode == 1
    assert synced.stderr.startswith("cgw: libvirt: it does not answer at qemu:///system")
    assert_open(web.host)
    assert published == web.host.traces()
    web.host.node.start_libvirtd()
    assert web.is_called("reconnect")
