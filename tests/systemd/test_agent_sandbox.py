"""The sandbox of cgw.service: the agent works in it, needs all that it leaves, and no more."""

from collections.abc import Mapping

import pytest

from tests import full
from tests.lab.client import PATIENCE_FOR_SILENCE
from tests.lab.domain import publish_element
from tests.libvirt.waiting import eventually
from tests.netns.asker import REFUSED
from tests.netns.configs import NODE
from tests.netns.specs import port_forward
from tests.systemd.agent_host import (
    ANSWER,
    HOOK,
    NEIGHBOUR,
    NEIGHBOUR_ADDRESS,
    NEIGHBOUR_PORT,
    NEIGHBOURS_ANSWER,
    AgentHost,
)

pytestmark = pytest.mark.systemd

#: Ten times the exposure that `systemd-analyze security` finds. The rest is what the agent is for:
#: root, the host's network, netlink, Unix sockets, iptables-legacy, and the registry's members.
HIGHEST_EXPOSURE = 19
WRITABLE = (
    "/run/cgw",
    "/var/lib/cgw",
    "/etc/cgw/guests.d",
    "/tmp",  # noqa: S108 - not the agent's choice
    "/dev/shm",  # noqa: S108
)
READ_ONLY = (
    "/run",
    "/run/libvirt",
    "/etc",
    "/etc/cgw",
    "/usr",
    "/var/lib",
    "/var/lib/libvirt",
    "/proc/sys/net",
)
HIDDEN = ("/root", "/home", "/run/user")
EVENT_BUFFER = 16 << 20
#: A setting of the unit that takes away one thing, and what then fails.
TAKEN_AWAY = {
    "CAP_NET_ADMIN": "CapabilityBoundingSet=~CAP_NET_ADMIN",
    "AF_NETLINK": "RestrictAddressFamilies=~AF_NETLINK",
    "AF_UNIX": "RestrictAddressFamilies=~AF_UNIX",
    "/run/cgw": "RuntimeDirectory=\nReadOnlyPaths=/run/cgw",
}
TAKEN_AWAY_FROM_LEGACY = {
    "CAP_NET_RAW": "CapabilityBoundingSet=~CAP_NET_RAW",
    "AF_INET": "RestrictAddressFamilies=~AF_INET",
    "AF_INET6": "RestrictAddressFamilies=~AF_INET6",
    "a lock file": "ExecStartPre=",
    "/proc/net": "ProcSubset=pid",
}
#: Lets the unit run a script instead of the agent.
PROBE = """\
[Service]
Type=oneshot
ExecReload=
WatchdogSec=0
Restart=no
ExecStart=
ExecStart=/bin/sh -c '{0}'
"""
USE_LEGACY = """\
update-alternatives --quiet --set iptables /usr/sbin/iptables-legacy
update-alternatives --quiet --set ip6tables /usr/sbin/ip6tables-legacy
nft flush ruleset
systemctl restart libvirtd
"""
USE_NFT = """\
for tool in iptables ip6tables; do
    update-alternatives --quiet --auto $tool
    for table in filter nat mangle; do
        $tool-legacy -w -t $table -F
        $tool-legacy -w -t $table -X
    done
done
systemctl restart libvirtd
"""
#: Hands a call to the agent, as xl's vif script does.
HAND_OVER = f"""\
client=$(sed -n "s/.* client='\\([^']*\\)'.*/\\1/p" {HOOK})
echo 'backend/vif/9/0/ip = "{NEIGHBOUR_ADDRESS}"' |
    perl "$client" /run/cgw/agent.sock xl {{}}
"""
LEGACY_EXCEPTION = (
    "FORWARD -o virbr-nat -m conntrack --ctstate DNAT -m comment --comment cgw-hooks -j ACCEPT"
)


REGISTRY = f"""\
[node]
name = "node1"
[registry]
endpoints = ["http://{NEIGHBOUR}.test:80"]
user = "cgw"
password-file = "/etc/cgw/etcd/password"
"""


def _tried(settings: Mapping[str, str]) -> list[str]:
    """All of them with `--full`, otherwise the first one."""
    return list(settings)[: None if full.is_full() else 1]


def test_the_exposure_is_as_low_as_it_goes(on: AgentHost) -> None:
    threshold = f"--threshold={HIGHEST_EXPOSURE}"
    on.host.run(["systemd-analyze", "security", "--no-pager", threshold, "cgw.service"])


def test_the_agent_sees_and_writes_only_its_own_folders(on: AgentHost) -> None:
    on.host.write("/root/secret", "secret")
    assert [*WRITABLE] == [folder for folder in (*WRITABLE, *READ_ONLY) if _may_write(on, folder)]
    assert [""] * 3 == [_inside(on, "ls", folder) for folder in HIDDEN]
    status = on.host.path(f"/proc/{on.show('MainPID')}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    # The bits of CAP_NET_ADMIN and CAP_NET_RAW: linux/capability.h
    assert {f"{1 << 12 | 1 << 13:016x}"} == {fields["CapEff"], fields["CapBnd"], fields["CapPrm"]}
    assert ("1", "2") == (fields["NoNewPrivs"], fields["Seccomp"])


def test_the_agent_reaches_the_registry_by_name_and_keeps_a_copy_of_it(on: AgentHost) -> None:
    """The neighbour is no etcd: what it is said to answer shows that it was reached."""
    reached = "its answer is not one of etcd"
    on.shell(
        f"echo '{NEIGHBOUR_ADDRESS} {NEIGHBOUR}.test' >>/etc/hosts\n"
        "mkdir /etc/cgw/etcd; printf secret >/etc/cgw/etcd/password\n"
        "chmod 600 /etc/cgw/etcd/password"
    )
    on.host.write("/etc/cgw/cgw.toml", REGISTRY)
    try:
        on.host.systemctl("reload", "cgw.service")
        assert eventually(lambda: reached in _registry_status(on))
        on.drop_in("[Service]\nIPAddressDeny=any\n")
        on.host.systemctl("restart", "cgw.service")
        assert eventually(lambda: "not connected" in (said := _registry_status(on))
                          and f"{NEIGHBOUR}.test" in said)  # fmt: skip
        assert reached not in _registry_status(on)
        on.host.systemctl("stop", "cgw.service")
        modes = on.shell("stat -c %a /var/lib/cgw /var/lib/cgw/registry-snapshot.json").split()
        assert ["700", "600"] == modes
    finally:
        on.shell(
            f"sed -i /{NEIGHBOUR}.test/d /etc/hosts; rm -r /etc/cgw/etcd /etc/cgw/cgw.toml\n"
            "rm -f /var/lib/cgw/registry-snapshot.json"
        )
        on.drop_in("")
        on.host.systemctl("restart", "cgw.service")


def test_no_memory_of_the_agent_is_writable_and_executable(on: AgentHost) -> None:
    """Python's ctypes and libvirt's callbacks do without."""
    maps = on.host.path(f"/proc/{on.show('MainPID')}/maps").read_text()
    assert [] == [line for line in maps.splitlines() if "w" in (p := line.split()[1]) and "x" in p]


def test_the_agent_has_the_large_buffer_for_events_of_the_ruleset(on: AgentHost) -> None:
    """More than net.core.rmem_max: this needs SO_RCVBUFFORCE."""
    said = on.host.run(["ss", "--family=netlink", "--memory", "--processes"]).stdout
    sizes = [
        int(line.partition(",rb")[2].partition(",")[0])
        for line, memory in zip(said.splitlines(), said.splitlines()[1:], strict=False)
        if "cgw-agent" in line
        for line in [line + memory]
    ]
    assert max(sizes) >= EVENT_BUFFER


def test_flows_end_when_the_agent_withdraws_a_port(on: AgentHost) -> None:
    on.call_hook("prepare", "start", "started")
    assert NEIGHBOURS_ANSWER == on.asks(NEIGHBOUR_PORT)
    with on.client.udp_sender(NODE[4], 5353) as sender:
        assert sender.exchange("before").answered
        on.call_hook("stopped", "release")
        # The flow is deleted after the hook has its answer.
        assert eventually(
            lambda: not sender.exchange("after", timeout=PATIENCE_FOR_SILENCE).answered
        )


def test_a_device_of_xenstore_is_seen(on: AgentHost) -> None:
    """Here it is another device: what counts is that it can be opened."""
    on.shell("mkdir /dev/xen; mknod /dev/xen/xenbus c 1 3")
    try:
        on.host.systemctl("restart", "cgw.service")
        assert "xenbus" == _inside(on, "ls", "/dev/xen")
        assert "" == _probe(on, "cat /dev/xen/xenbus")
    finally:
        on.shell("rm -r /dev/xen")


@pytest.mark.parametrize("place", ["/etc/xen/web1.cfg", "/etc/cgw/guests.d/web1.xml"])
def test_the_agent_reads_what_a_guest_of_xl_declares(on: AgentHost, place: str) -> None:
    """The vif script hands over only what xenstore says of the vif."""
    text = 'name = "web1"\ncgw_publish = ["8089:80"]\n'
    if place.endswith(".xml"):
        text = publish_element(port_forward("8089:80"))
    on.shell("mkdir -p /etc/xen /etc/cgw/guests.d")
    on.host.write(place, text)
    try:
        on.shell(HAND_OVER.format("web1 online vif9.0 /vm/1"))
        assert NEIGHBOURS_ANSWER == on.asks(8089)
        on.shell(HAND_OVER.format("- offline vif9.0 -"))
        assert REFUSED == on.asks(8089)
    finally:
        on.host.path(place).unlink()


def test_cgw_in_a_home_folder_can_be_run_as_a_unit(on: AgentHost) -> None:
    """A venv in /root, for example: the sandbox then shows the home folders, read-only."""
    on.shell(
        "mkdir -p /root/venv/bin; cp -r /usr/local/lib/cgw /root/venv/lib\n"
        "sed s,/usr/local/lib/cgw,/root/venv/lib, /usr/local/bin/cgw > /root/venv/bin/cgw\n"
        "chmod 755 /root/venv/bin/cgw; /root/venv/bin/cgw install"
    )
    try:
        on.host.systemctl("restart", "cgw.service")
        assert "/root/venv/bin/cgw agent" in on.show("ExecStart")
        assert not _may_write(on, "/root")
        on.shell("nft delete table inet cgw")
        on.wait_for_answer()
    finally:
        on.shell("/usr/local/bin/cgw install; rm -r /root/venv; systemctl restart cgw")


def test_the_agent_makes_its_exceptions_with_iptables_legacy(on: AgentHost) -> None:
    on.shell(USE_LEGACY)
    try:
        assert _works_on_legacy(on, "")
    finally:
        on.shell(USE_NFT)


@pytest.mark.parametrize("what", _tried(TAKEN_AWAY))
def test_the_agent_needs(on: AgentHost, what: str) -> None:
    on.drop_in(f"[Service]\nRestart=no\n{TAKEN_AWAY[what]}\n")
    assert not _works(on)
    on.drop_in("")
    assert _works(on)


@pytest.mark.parametrize("what", _tried(TAKEN_AWAY_FROM_LEGACY))
def test_iptables_legacy_needs(on: AgentHost, what: str) -> None:
    on.shell(USE_LEGACY)
    try:
        assert not _works_on_legacy(on, TAKEN_AWAY_FROM_LEGACY[what])
    finally:
        on.shell(USE_NFT)


def _works(on: AgentHost) -> bool:
    """Whether the agent starts, and restores the guest's port."""
    on.host.systemctl("stop", "cgw.service")
    on.shell("nft delete table inet cgw || true")
    started = on.host.run(["systemctl", "start", "cgw.service"], check=False)
    return started.returncode == 0 and on.asks() == ANSWER


def _works_on_legacy(on: AgentHost, setting: str) -> bool:
    """Whether the tools of both IP families work in the sandbox, and the agent with them."""
    on.host.systemctl("stop", "cgw.service")
    on.drop_in(PROBE.format("ip6tables-legacy -w 5 -S FORWARD") + setting)
    if on.host.run(["systemctl", "start", "cgw.service"], check=False).returncode != 0:
        on.host.systemctl("reset-failed")
        return False
    has_exception = ["iptables-legacy", "-w", "-C", *LEGACY_EXCEPTION.split()]
    # libvirt's hook makes it when libvirtd has been restarted.
    assert eventually(lambda: on.host.run(has_exception, check=False).returncode == 0)
    on.host.systemctl("stop", "cgw.service")
    on.drop_in(f"[Service]\n{setting}\n")
    on.shell(f"iptables-legacy -w -D {LEGACY_EXCEPTION}; rm /run/xtables.lock")
    assert ANSWER != on.asks()
    on.host.systemctl("start", "cgw.service")
    return on.asks() == ANSWER


def _registry_status(on: AgentHost) -> str:
    """What a person sees of the registry, on both outputs."""
    said = on.host.run(["cgw", "registry", "status"], check=False)
    return said.stdout + said.stderr


def _inside(on: AgentHost, *command: str) -> str:
    """Run a command with the files that the agent sees; return its output."""
    enter = ["nsenter", f"--target={on.show('MainPID')}", "--mount", "--"]
    return on.host.run([*enter, *command]).stdout.strip()


def _may_write(on: AgentHost, folder: str) -> bool:
    enter = ["nsenter", f"--target={on.show('MainPID')}", "--mount", "--"]
    made = on.host.run([*enter, "mktemp", f"{folder}/probe.XXXXXX"], check=False)
    if made.returncode == 0:
        on.host.run([*enter, "rm", made.stdout.strip()])
    return made.returncode == 0


def _probe(on: AgentHost, script: str) -> str:
    """Run a script in the sandbox; return what it says. Raises HostError if it fails."""
    on.host.systemctl("stop", "cgw.service")
    before = on.cursor()
    on.drop_in(PROBE.format(script))
    on.host.systemctl("start", "cgw.service")
    command = ["journalctl", "--no-pager", "-o", "cat", "_SYSTEMD_UNIT=cgw.service"]
    return on.host.run([*command, "--after-cursor", before]).stdout.strip()
