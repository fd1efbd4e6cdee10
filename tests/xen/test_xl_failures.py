"""Plain xl guests on a real Xen: what is left where something fails, or two want the same.

tests/netns/test_xl_hook.py has most of these cases as calls of the vif script, without a Xen.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.domain import publish_element
from tests.lab.status_json import read_status
from tests.netns.configs import FULL_NAT, NODE_AMONG_GUESTS, WARN
from tests.xen.host import RECEIVER, VIF, WEB1, XenHost

pytestmark = [pytest.mark.xen, pytest.mark.extended]

PORTS = {"web1": ["123/udp", "2202/tcp"]}
CONFIG = "/etc/cgw/cgw.toml"
RECORDS = "ls /run/cgw/guests"
#: Sourced by vif-bridge after our own hook there.
LATER_HOOK = "/etc/xen/scripts/vif-post.d/later.hook"


def goes_on(xen: XenHost) -> bool:
    """Whether web1 answers at both of its ports, and nothing else is published."""
    answers = {xen.asks(2202), xen.asks(123, "udp")}
    return answers == {WEB1} and xen.published() == PORTS


def rows(xen: XenHost) -> list[dict[str, Any]]:
    """Every row of `cgw status --json`."""
    found: list[dict[str, Any]] = read_status(
        xen.dom0.run(["cgw", "status", "--json"], check=False).stdout
    )["published"]
    return found


# -- a migration to this host that fails -----------------------------------------------------


def test_after_a_failed_migration_the_guest_goes_on_with_its_ports(xen: XenHost) -> None:
    """Its new vif is published already when it fails: ours is called before the later hook."""
    xen.define("web1", 201, VIF.replace("vif-cgw", "vif-bridge"), kind="pvh")
    xen.create("web1")
    assert goes_on(xen)
    before = xen.dom0.shell(RECORDS)

    xen.write(LATER_HOOK, f"{RECORDS} >/run/seen\n[ $command != online ] || exit 1\n", mode=0o755)
    assert "unable to add vif devices" in xen.migrate("web1", fails=True)
    assert xen.dom0.shell(f"cat /run/seen; {RECORDS}") == before * 2
    assert goes_on(xen)

    # A receiver that is killed leaves its half of the guest, for somebody to destroy.
    kill = f"[ $command != online ] || kill -9 $(cat {RECEIVER})\n"
    xen.write(LATER_HOOK, kill, mode=0o755)
    xen.migrate("web1", fails=True)
    xen.dom0.run(["cgw", "sync"])  # takes the record of neither away
    assert goes_on(xen)
    xen.xl("destroy", "web1--incoming")
    xen.until(f"[ $({RECORDS} | wc -l) = 1 ]")
    assert xen.dom0.shell(RECORDS) == before
    assert goes_on(xen)


# -- refused ---------------------------------------------------------------------------------


def test_a_guest_of_which_one_vif_is_refused_leaves_nothing_and_harms_nobody(xen: XenHost) -> None:
    """Xl calls offline for all of its vifs, also the one that never was online."""
    xen.define("web1", 201, VIF)
    xen.create("web1")
    own = "ip=10.5.5.202,script=vif-cgw,gatewaydev=cgw"
    xen.define("web2", 202, f"{own} 8080:80", f"{own} 2202:22")
    said = xen.xl("create", "/etc/xen/web2.cfg", fails=True)
    assert "port *:2202/tcp is published by guest" in said
    xen.until(f"[ $({RECORDS} | wc -l) = 1 ]")
    assert xen.is_closed(8080)
    assert goes_on(xen)


def test_of_two_guests_created_at_once_for_one_port_one_wins_until_it_shuts_down(
    xen: XenHost,
) -> None:
    for number in (1, 2):
        vif = f"ip=10.5.5.20{number},script=vif-cgw,gatewaydev=cgw 2202:22"
        xen.define(f"web{number}", 200 + number, vif)
    said = xen.dom0.shell(
        "for n in 1 2; do xl create /etc/xen/web$n.cfg 2>/run/said$n & done; wait; "
        "cat /run/said1 /run/said2"
    )
    (winner,) = xen.published()
    assert said.count(f'port *:2202/tcp is published by guest "{winner}"') >= 1
    assert xen.asks(2202).startswith(f"{winner} saw ")
    xen.dom0.shell(f"echo poweroff >/dev/tcp/10.5.5.20{winner[-1]}/9")  # it shuts itself down
    xen.until(f"! {RECORDS} | grep .")
    assert xen.elements() == []


def test_by_policy_a_guest_with_a_bad_annotation_runs_unpublished(xen: XenHost) -> None:
    xen.write(CONFIG, WARN)
    xen.define("web1", 201, "ip=10.5.5.201,script=vif-cgw,gatewaydev=cgw 2202:22/icmp")
    xen.create("web1")
    reply = xen.dom0.itself("until_answered", "tcp", "10.5.5.201", 22, within=300.0)
    assert reply.guest == "web1"
    (row,) = rows(xen)
    assert row["state"] == "not published"
    assert "give one of tcp, udp, sctp" in row["problem"]["cure"]
    assert xen.is_closed(2202)


# -- known to every node ----------------------------------------------------------------------


@pytest.fixture
def node(xen: XenHost) -> Iterator[XenHost]:
    """A gateway, on which a file says that web1 publishes port 2202, wherever it lives."""
    xen.write(CONFIG, FULL_NAT)
    forward = '<cgw:portForward proto="tcp"><cgw:range start="2202" to="22"/></cgw:portForward>'
    xen.write("/etc/cgw/guests.d/web1.xml", publish_element(forward, "10.5.5.201"))
    xen.dom0.run(["cgw", "node", "up"])
    yield xen
    xen.destroy_all()
    xen.dom0.run(["cgw", "node", "down"])


def test_a_guest_of_any_node_is_published_as_it_says_itself_while_it_runs_here(
    node: XenHost,
) -> None:
    away = node.elements()
    assert len(away) == 1
    node.define("web1", 201, "ip=10.5.5.201,script=vif-cgw,gatewaydev=cgw 2203:22")
    node.create("web1")
    assert node.asks(2203) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
    assert node.is_closed(2202)
    assert {row["state"] for row in rows(node)} == {"published", "overridden"}
    node.dom0.shell("rm -rf /run/cgw/guests /run/cgw/index")
    node.dom0.run(["cgw", "node", "up"])  # asks no hypervisor: it may not be up yet
    assert node.asks(2202) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
    node.dom0.run(["cgw", "sync"])
    assert node.asks(2203) == f"web1 saw {NODE_AMONG_GUESTS[4]}"
    assert node.is_closed(2202)
    node.xl("destroy", "web1")
    node.until(f"! {RECORDS} | grep xl-")
    assert node.elements() == away
