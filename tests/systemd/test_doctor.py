"""`cgw doctor` and `cgw trace` on a host that systemd runs, beside a real firewalld."""

import json
from typing import Any

import pytest

from tests.libvirt.waiting import eventually
from tests.systemd.agent_host import ANSWER, GUEST, PORT, AgentHost

pytestmark = pytest.mark.systemd

CONFIG = "/etc/firewalld/firewalld.conf"
TRACE = ["cgw", "trace", f"{GUEST}:{PORT}", "--probe"]


def examine(on: AgentHost) -> list[dict[str, Any]]:
    """What `cgw doctor` finds wrong."""
    said = on.host.run(["cgw", "doctor", "--json"], check=False).stdout
    return [check for check in json.loads(said)["checks"] if check["verdict"] != "pass"]


def test_a_fresh_install_has_no_fault(on: AgentHost) -> None:
    assert examine(on) == []


def test_the_command_for_an_agent_that_is_stopped_starts_it(on: AgentHost) -> None:
    on.host.systemctl("stop", "cgw.service")
    (found,) = examine(on)
    assert (found["check"], found["verdict"]) == ("agent", "fail")
    on.shell(found["command"])
    assert on.host.is_active("cgw.service")
    assert examine(on) == []


def test_a_direct_rule_of_firewalld(on: AgentHost, suite: str) -> None:
    _start_firewalld(on)
    on.shell("firewall-cmd --direct --add-rule ipv4 filter FORWARD 0 -p tcp --dport 80 -j DROP")
    if suite == "bookworm":  # libvirt has its rules there, too, and cgw puts its own in front
        on.wait_for_answer()
        assert eventually(lambda: examine(on) == [])
        return
    assert eventually(lambda: on.asks(PORT) != ANSWER)
    (found,) = examine(on)
    assert (found["check"], found["verdict"]) == ("other-firewalls", "fail")
    assert "chain FORWARD" in found["problem"]["message"]
    assert "dport 80 -j DROP" in on.host.run(TRACE, check=False).stdout
    on.shell(found["command"])
    on.wait_for_answer()
    on.shell("iptables -F FORWARD")


@pytest.mark.extended
def test_a_firewalld_that_is_strict(on: AgentHost, suite: str) -> None:
    _start_firewalld(on)
    on.shell(
        f"sed -i s/^StrictForwardPorts=no/StrictForwardPorts=yes/ {CONFIG}; firewall-cmd --reload"
    )
    if suite == "bookworm":  # its version does not know the word
        on.wait_for_answer()
        assert examine(on) == []
        return
    assert eventually(lambda: on.asks(PORT) != ANSWER)
    (found,) = examine(on)
    assert found["problem"]["subject"] == "table inet firewalld (nft)"
    assert "in filter_FORWARD_dnat" in on.host.run(TRACE, check=False).stdout
    on.shell(found["command"])
    on.wait_for_answer()


def _start_firewalld(on: AgentHost) -> None:
    on.host.systemctl("start", "firewalld")
    on.shell("firewall-cmd --state")
    on.wait_for_answer()
