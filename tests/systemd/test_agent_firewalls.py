"""The firewalls of a host, beside the agent: their rules stay, and ours come back after a reload.

The time is that from the end of the command to the answer that a client then has, which connects
all the time.
"""

import re
import time
from collections.abc import Callable

import pytest

from tests import full
from tests.libvirt.waiting import eventually
from tests.systemd.agent_host import ANSWER, PORT, AgentHost

pytestmark = pytest.mark.systemd

Record = Callable[[str, object], None]
#: Seconds. With nothing else to do, a machine needs about one (see the recorded figures), but one
#: client that waits for a guest under TCG for too long counts as a failure.
LONGEST_HEALING = 60.0
ROUNDS = 5 if full.is_full() else 1
#: The commands with which Docker 28 makes its chains (moby's libnetwork).
DOCKER = """\
iptables --wait -t filter -C FORWARD -j DOCKER-USER 2>/dev/null &&
    iptables --wait -t filter -D FORWARD -j DOCKER-USER
for chain in DOCKER DOCKER-FORWARD DOCKER-BRIDGE DOCKER-CT DOCKER-ISOLATION-STAGE-1 \\
        DOCKER-ISOLATION-STAGE-2 DOCKER-USER; do
    iptables --wait -t filter -n -L $chain >/dev/null 2>&1 || iptables --wait -t filter -N $chain
done
iptables --wait -t filter -F DOCKER-FORWARD
iptables --wait -t filter -A DOCKER-FORWARD -j DOCKER-CT
iptables --wait -t filter -A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
iptables --wait -t filter -A DOCKER-FORWARD -j DOCKER-BRIDGE
iptables --wait -t filter -A DOCKER-FORWARD -i docker0 -j ACCEPT
iptables --wait -t filter -C FORWARD -j DOCKER-FORWARD 2>/dev/null ||
    iptables --wait -t filter -I FORWARD -j DOCKER-FORWARD
iptables --wait -t filter -I FORWARD -j DOCKER-USER
iptables --wait -P FORWARD DROP
"""
#: What makes the guest's port work where FORWARD drops: Docker's documentation names this chain.
DOCKER_EXCEPTION = """\
iptables -I DOCKER-USER -o virbr-nat -m conntrack --ctstate DNAT -j ACCEPT
iptables -I DOCKER-USER -i virbr-nat -j ACCEPT
"""
WITHOUT_DOCKER = """\
iptables -P FORWARD ACCEPT
iptables -D FORWARD -j DOCKER-USER
iptables -D FORWARD -j DOCKER-FORWARD
for chain in DOCKER-USER DOCKER-FORWARD; do iptables -F $chain; done
for chain in DOCKER DOCKER-FORWARD DOCKER-BRIDGE DOCKER-CT DOCKER-ISOLATION-STAGE-1 \\
        DOCKER-ISOLATION-STAGE-2 DOCKER-USER; do iptables -X $chain; done
"""
UFW = """\
ufw allow 22/tcp
ufw --force enable
"""
RELOADS = {
    "nftables": ("systemctl reload nftables", "systemctl restart nftables"),
    "firewalld": (
        "firewall-cmd --reload",
        "systemctl reload firewalld",
        "systemctl restart firewalld",
    ),
    "ufw": ("ufw reload", "systemctl restart ufw"),
}
#: All with `--full`, otherwise one of each firewall.
PAIRS = [
    (firewall, reload)
    for firewall, reloads in RELOADS.items()
    for reload in reloads[: None if full.is_full() else 1]
]
BESIDE = ("firewalld", "docker", "nftables", "ufw")[: None if full.is_full() else 2]
_CHANGING = re.compile(r"packets \d+ bytes \d+| # handle \d+$|\[\d+:\d+\]|^#.*$", re.MULTILINE)
#: As iptables-save, libvirt's nftables backend and nft show it (nft without iptables' comment).
_OWN_EXCEPTION = re.compile(r'--comment cgw-hooks|"cgw-hooks |oifname "virbr-nat" ct status dnat')
_OWN_TABLE = re.compile(r"^table inet cgw \{.*?^\}\n", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("firewall", "reload"), PAIRS)
def test_a_published_port_works_again_after(
    on: AgentHost, firewall: str, reload: str, record_property: Record
) -> None:
    _start(on, firewall)
    _measure(on, reload, record_property)


def test_a_published_port_works_again_after_a_flush_of_the_whole_ruleset(
    on: AgentHost, record_property: Record
) -> None:
    _measure(on, "nft flush ruleset", record_property)


def test_a_published_port_works_beside_docker_and_when_docker_is_started_again(
    on: AgentHost, record_property: Record
) -> None:
    """Docker drops what nobody accepts; the exception and libvirt's own rules accept."""
    on.shell(DOCKER)
    try:
        on.wait_for_answer()
        _measure(on, DOCKER, record_property)
    finally:
        on.shell(WITHOUT_DOCKER)


def test_a_published_port_works_again_after_forward_was_made_anew_as_docker_does(
    on: AgentHost, record_property: Record
) -> None:
    """The flush takes libvirt's rules as well, so an admin must accept both directions."""
    on.shell(DOCKER + DOCKER_EXCEPTION)
    on.wait_for_answer()
    try:
        _measure(on, f"iptables -F FORWARD\n{DOCKER}", record_property)
    finally:
        on.shell(WITHOUT_DOCKER)


@pytest.mark.parametrize("firewall", BESIDE)
def test_the_rules_of_other_programs_stay_as_they_are(on: AgentHost, firewall: str) -> None:
    """Compared with and without the agent, apart from libvirt's chains, where our exception is."""
    on.host.systemctl("stop", "cgw.service")
    on.shell("nft delete table inet cgw")
    if firewall == "docker":
        on.shell(DOCKER + DOCKER_EXCEPTION)
    else:
        _start(on, firewall)
    before = _settled_rules(on)
    assert before
    on.host.systemctl("start", "cgw.service")
    on.wait_for_answer()
    on.virsh("destroy", "vm1")
    on.virsh("start", "vm1")
    on.wait_for_answer()
    assert before == _settled_rules(on)
    if firewall == "docker":
        on.shell(WITHOUT_DOCKER)


def _start(on: AgentHost, firewall: str) -> None:
    if firewall == "ufw":
        on.shell(UFW)
    else:
        on.host.systemctl("start", firewall)
    if firewall == "firewalld":  # its unit is active a little before it can be reloaded
        on.shell("firewall-cmd --state")
    if on.host.is_active("cgw.service"):
        on.wait_for_answer()


def _measure(on: AgentHost, command: str, record_property: Record) -> None:
    """Assert that clients are answered again after the command, each time; record the seconds."""
    with on.pulse() as pulse:
        for _ in range(ROUNDS):
            assert eventually(pulse.is_answered)
            on.shell(command)
            seconds = pulse.healed_after(time.monotonic())
            record_property(f"seconds after {command.splitlines()[0][:40]}", round(seconds, 2))
            assert seconds < LONGEST_HEALING
    assert ANSWER == on.asks(PORT)


def _settled_rules(on: AgentHost) -> list[str]:
    """The same, when libvirt and firewalld have reacted to each other."""
    found: list[list[str]] = [[]]

    def is_settled() -> bool:
        time.sleep(2.0)
        found.append(_foreign_rules(on))
        return found[-1] == found[-2]

    assert eventually(is_settled)
    return found[-1]


def _foreign_rules(on: AgentHost) -> list[str]:
    """All rules but cgw's table and its exceptions, without counters and handles."""
    listing = on.shell("nft -a list ruleset; iptables-save; ip6tables-save")
    listing = _OWN_TABLE.sub("", _CHANGING.sub("", listing))
    return [line for line in listing.splitlines() if not _OWN_EXCEPTION.search(line)]
