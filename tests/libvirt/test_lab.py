"""The lab itself: its guests are real, and it leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import network
from tests.lab.cgroup import hierarchies
from tests.lab.client import Client
from tests.lab.domain import domain_xml, nat_network_xml
from tests.lab.lab import Lab, open_lab, sweep
from tests.lab.reply import Outcome
from tests.libvirt.leftovers import leftovers_of, processes_in
from tests.libvirt.waiting import eventually

pytestmark = pytest.mark.libvirt
#: The tests of cgw's hooks do the same with the lab's guests.
is_tested_elsewhere = pytest.mark.extended

CHECKOUT = Path(__file__).parents[2]
LOGGING_HOOK = '#!/bin/sh\nlogger -t hook "$1 $2 $3"\n'
START_OPERATIONS = ["prepare begin", "start begin", "started begin"]
END_OPERATIONS = ["stopped end", "release end"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab() as opened:
        node = opened.node
        for driver in ("qemu", "lxc"):
            node.write(f"/etc/libvirt/hooks/{driver}", LOGGING_HOOK, mode=0o755)
        node.restart_libvirtd()
        opened.client.ip(
            f"route add {network.GUEST_SUBNET} via {node.addresses.uplink}\n"
            f"route add {network.GUEST_SUBNET6} via {node.addresses.uplink6}\n"
        )
        yield opened


def hook_calls(lab: Lab, guest: str) -> list[str]:
    messages = [line.partition("hook: ")[2] for line in lab.node.syslog()]
    return [text.removeprefix(f"{guest} ") for text in messages if text.startswith(f"{guest} ")]


def test_a_qemu_guest_answers_over_both_families_and_calls_its_hook(lab: Lab) -> None:
    client = Client(lab.client)
    lab.node.define(domain_xml("web1", octet=11, sctp=True))
    lab.node.start("web1")
    expected = {"10.5.5.11": network.CLIENT_ADDRESS, "fd00:5::11": network.CLIENT_ADDRESS6}
    for address, seen_peer in expected.items():
        for protocol, port in (("tcp", 80), ("tcp", 22), ("udp", 53), ("udp", 123), ("sctp", 80)):
            reply = client.until_answered(protocol, address, port)
            assert (reply.guest, reply.protocol, reply.peer) == ("web1", protocol, seen_peer)
        assert client.tcp(address, 81).outcome is Outcome.REFUSED
        with client.tcp_session(address, 7) as session:
            assert session.exchange("still there?") == "still there?"
    lab.node.destroy("web1")
    assert hook_calls(lab, "web1") == START_OPERATIONS + END_OPERATIONS
    assert client.tcp("10.5.5.11", 80, timeout=0.3).outcome is Outcome.TIMED_OUT


@is_tested_elsewhere
@pytest.mark.parametrize(
    ("order", "state"), [("poweroff", "shut off"), ("panic", "shut off"), ("acpi", "shut off")]
)
def test_a_guest_ends_from_inside(lab: Lab, order: str, state: str) -> None:
    lab.node.define(domain_xml("web2", octet=12))
    lab.node.start("web2")
    client = Client(lab.client)
    assert client.until_answered("tcp", "10.5.5.12", 80).guest == "web2"
    if order == "acpi":
        lab.node.virsh("shutdown", "web2")
    else:
        with client.tcp_session("10.5.5.12", 9) as control:
            control.send(order)
    lab.node.wait_for_state("web2", state)


@is_tested_elsewhere
def test_a_guest_reboots_from_inside(lab: Lab) -> None:
    lab.node.define(domain_xml("web3", octet=13))
    lab.node.start("web3")
    client = Client(lab.client)
    client.until_answered("tcp", "10.5.5.13", 80)
    with client.tcp_session("10.5.5.13", 9) as control:
        control.send("reboot")
    assert not client.until_closed("tcp", "10.5.5.13", 80).answered
    assert client.until_answered("tcp", "10.5.5.13", 80).guest == "web3"
    assert lab.node.state("web3") == "running"
    lab.node.destroy("web3")


@is_tested_elsewhere
def test_a_guest_of_a_libvirt_network_gets_its_reserved_address(lab: Lab) -> None:
    lab.node.start_network("default", nat_network_xml(hosts=[(14, 77)]))
    lab.node.define(domain_xml("nat1", octet=14, interface="default"))
    lab.node.start("nat1")
    on_the_node = Client(lab.node.network)
    assert on_the_node.until_answered("tcp", "192.168.123.77", 80).guest == "nat1"
    lab.node.destroy("nat1")


@is_tested_elsewhere
def test_an_lxc_guest_answers_and_calls_its_hook(lab: Lab) -> None:
    assert hierarchies(), "LXC guests need a cgroup hierarchy: mount one at /sys/fs/cgroup"
    lab.node.define(domain_xml("box1", octet=15, driver="lxc"))
    lab.node.start("box1", driver="lxc")
    assert Client(lab.client).until_answered("udp", "fd00:5::15", 53).guest == "box1"
    lab.node.destroy("box1", driver="lxc")
    calls = hook_calls(lab, "box1")
    assert calls[:3] == START_OPERATIONS
    # libvirt's LXC driver (seen with 9.0) may call both twice: for the destroy, and for the end of
    # its controller that it causes.
    assert set(calls[3:]) == set(END_OPERATIONS)


@is_tested_elsewhere
def test_guests_outlive_a_killed_libvirtd(lab: Lab) -> None:
    lab.node.define(domain_xml("web4", octet=16))
    lab.node.start("web4")
    client = Client(lab.client)
    client.until_answered("tcp", "10.5.5.16", 80)
    lab.node.kill_libvirtd()
    assert client.tcp("10.5.5.16", 80).guest == "web4"
    lab.node.start_libvirtd()
    lab.node.destroy("web4")
    assert "reconnect begin" in hook_calls(lab, "web4")


def test_paths_of_a_node_do_not_lead_into_the_machine(lab: Lab) -> None:
    root = lab.node.path("/")
    assert lab.node.path("/var/run/libvirt") == root / "run/libvirt"
    assert lab.node.path("/../../etc/hosts") == root / "etc/hosts"


def test_nothing_is_left_when_the_lab_is_closed() -> None:
    before = leftovers_of(os.getpid())  # the module's own lab may be open
    with open_lab() as opened:
        opened.node.define(domain_xml("web1", octet=11))
        opened.node.start("web1")
        process_namespace = os.stat(f"/proc/{opened.node.pid}/ns/pid").st_ino
        assert processes_in(process_namespace)
        assert leftovers_of(os.getpid()) != before
    assert processes_in(process_namespace) == []
    assert leftovers_of(os.getpid()) == before


def test_nothing_is_left_after_a_killed_run_and_a_sweep() -> None:
    script = (
        "from tests.lab.lab import open_lab\n"
        "with open_lab() as lab:\n"
        "    print(lab.node.pid, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        process_namespace = os.stat(f"/proc/{run.stdout.readline().strip()}/ns/pid").st_ino
        run.send_signal(signal.SIGKILL)
    assert eventually(lambda: processes_in(process_namespace) == [])
    sweep()
    assert leftovers_of(run.pid) == []
