"""`cgw install` and `cgw uninstall` on a host that has hooks of others; the README's five lines."""

import re
from collections.abc import Iterator

import pytest

from tests.documents import block
from tests.lab.domain import guest_mac, nat_network_xml
from tests.lab.lab import open_lab
from tests.lab.network import CLIENT_ADDRESS, UPLINK_BRIDGE
from tests.libvirt.answers import assert_closed, assert_open
from tests.libvirt.conftest import SUITES
from tests.libvirt.hypervisor import Guest, Hypervisor
from tests.libvirt.waiting import eventually
from tests.netns.asker import spoken
from tests.netns.configs import FULL_NAT

pytestmark = pytest.mark.libvirt

PUBLISHED = ("8080:80", "5353:53/udp")
HOOKS = "/etc/libvirt/hooks"
CALLS = "/var/log/calls-of-others"
#: In the order in which libvirt runs them, ours between the second and the third.
OTHERS = (f"{HOOKS}/qemu", f"{HOOKS}/qemu.d/10-first", f"{HOOKS}/qemu.d/90-last")
OTHERS_HOOK = f"""\
#!/bin/sh
nft list map inet cgw published4 2>/dev/null | grep -q elements && ports=open || ports=closed
echo "$2 ${{0##*/}} $ports" >>{CALLS}
"""
CLIENT_OUTSIDE, NODE_OUTSIDE = "198.51.100.100", "198.51.100.11"
GATEWAY, STATIC, README_PORT = "192.168.122.1", "192.168.122.10", 8080


@pytest.fixture(scope="module", params=SUITES)
def plain_host(request: pytest.FixtureRequest) -> Iterator[Hypervisor]:
    """A host where libvirt runs our hook itself, next to those of others."""
    with open_lab(request.param) as lab:
        for hook in OTHERS:
            lab.node.write(hook, OTHERS_HOOK, mode=0o755)
        yield Hypervisor(lab, FULL_NAT, watched=False)


@pytest.fixture
def installed(plain_host: Hypervisor) -> Iterator[Hypervisor]:
    """The same, for one test."""
    before = plain_host.traces()
    plain_host.node.write(CALLS, "")
    yield plain_host
    plain_host.remove_guests()
    assert before == plain_host.traces()


@pytest.fixture
def web(installed: Hypervisor) -> Guest:
    return installed.guest("web1", *PUBLISHED)


def files(host: Hypervisor) -> dict[str, str]:
    """All below /etc, with mode and content."""
    listing = "cd /etc && find . -type f -printf '%p %m ' -exec sha256sum {} ';'"
    lines = host.node.run(["sh", "-ec", listing]).stdout.splitlines()
    return {line.split()[0]: line for line in lines}


def folders(host: Hypervisor) -> set[str]:
    return set(host.node.run(["find", "/etc", "-type", "d"]).stdout.split())


def calls(host: Hypervisor, operation: str) -> list[str]:
    """What others' hooks saw at this operation: each with whether our ports were open."""
    lines = [line.split() for line in host.node.path(CALLS).read_text().splitlines()]
    return [f"{name} {ports}" for called, name, ports in lines if called == operation]


def test_libvirt_runs_ours_in_its_place_among_others(web: Guest) -> None:
    web.start()
    assert_open(web.host)
    assert calls(web.host, "started") == ["qemu closed", "10-first closed", "90-last open"]
    web.destroy()
    assert calls(web.host, "stopped") == ["qemu open", "10-first open", "90-last closed"]
    assert_closed(web.host)


def test_uninstall_takes_away_just_ours_and_install_puts_it_back(web: Guest) -> None:
    host = web.host
    before = files(host), folders(host)
    web.start()
    assert_open(host)
    host.cgw("uninstall")
    left = files(host)
    assert {path for path in before[0] if path not in left} == {
        "./cgw/cgw.toml.example",
        *(f"./libvirt/hooks/{driver}.d/50-cgw" for driver in ("qemu", "lxc", "libxl")),
        *(
            path
            for path in before[0]
            if re.fullmatch(r"./systemd/system/cgw.*\.(service|path)", path)
        ),
    }
    assert left.items() <= before[0].items()
    assert "table inet cgw" not in host.ruleset()
    assert_closed(host)
    web.destroy()
    assert calls(host, "release") == ["qemu closed", "10-first closed", "90-last closed"]
    web.start()
    assert_closed(host)
    for _ in range(2):  # it may be repeated
        host.cgw("install")
        assert before == (files(host), folders(host))
    host.cgw("sync")
    assert_open(host)


@pytest.mark.parametrize("place", [f"{HOOKS}/qemu.d/50-cgw", "/etc/cgw/cgw.toml.example"])
def test_install_writes_over_nobody_else(installed: Hypervisor, place: str) -> None:
    ours = installed.node.path(place).read_text()
    mode = installed.node.path(place).stat().st_mode & 0o777
    installed.node.write(place, "#!/bin/sh\n", mode=mode)
    before = files(installed)
    refused = installed.cgw("install", check=False)
    assert refused.returncode == 6
    assert f"{place}: the file exists and is not from cgw" in refused.stderr
    kept = installed.cgw("uninstall").stdout
    assert f"kept  {place} (not from cgw)" in kept
    name = "." + place.removeprefix("/etc")
    assert files(installed)[name] == before[name]
    installed.node.write(place, ours, mode=mode)
    installed.cgw("install")
    installed.cgw("sync")


PACKAGES = "/usr/lib/python3/dist-packages"
OBSTACLES = {
    "lxml": ("the hook reserves no port", "apt install python3-lxml"),
    "nftables": ("the hook opens no port", "apt install python3-nftables"),
}


@pytest.mark.parametrize("package", ["lxml", pytest.param("nftables", marks=pytest.mark.extended)])
def test_install_says_which_package_keeps_the_hook_from_publishing(
    web: Guest, package: str
) -> None:
    what, cure = OBSTACLES[package]
    web.host.shell(f"mv {PACKAGES}/{package} {PACKAGES}/{package}.away")
    try:
        done = web.host.cgw("install", check=False)
        web.start()  # the hook is in place, and lets it
        assert_closed(web.host)
    finally:
        web.host.shell(f"mv {PACKAGES}/{package}.away {PACKAGES}/{package}")
    assert done.returncode == 6
    (line,) = done.stderr.splitlines()
    assert what in line
    assert f"No module named '{package}'" in line
    assert cure in line
    web.host.cgw("sync")
    assert_open(web.host)


def test_install_says_that_the_config_cannot_be_used(installed: Hypervisor) -> None:
    place = "/etc/cgw/cgw.toml"
    config = installed.node.path(place).read_text()
    installed.node.write(place, "[policy")
    done = installed.cgw("install", check=False)
    installed.node.write(place, config)
    assert done.returncode == 6
    (line,) = done.stderr.splitlines()
    assert place in line


@pytest.mark.parametrize(
    "policy", ['on-invalid = "warn"\nlisten-ports = ["30000"]', 'listen-ports = ["30000"]']
)
def test_install_does_not_mind_a_policy_that_forbids_its_own_test_guest(
    installed: Hypervisor, policy: str
) -> None:
    place = "/etc/cgw/cgw.toml"
    config = installed.node.path(place).read_text()
    installed.node.write(place, f"{config}\n[policy]\n{policy}\n")
    installed.cgw("install")
    installed.node.write(place, config)


def test_install_publishes_nothing_by_its_test(installed: Hypervisor) -> None:
    before = installed.traces()
    links = installed.node.run(["ip", "-brief", "link"]).stdout
    assert "tested /etc/libvirt/hooks/qemu.d/50-cgw" in installed.cgw("install").stdout
    assert before == installed.traces()
    assert links == installed.node.run(["ip", "-brief", "link"]).stdout


def test_the_hook_serves_as_the_only_one_of_its_driver(web: Guest) -> None:
    node = web.host.node
    others = node.path(f"{HOOKS}/qemu").read_text()
    web.host.shell(f"mv {HOOKS}/qemu.d {HOOKS}/away; cp {HOOKS}/away/50-cgw {HOOKS}/qemu")
    try:
        web.start()
        assert_open(web.host)
        web.destroy()
        assert_closed(web.host)
    finally:
        web.host.shell(f"mv {HOOKS}/away {HOOKS}/qemu.d")
        node.write(f"{HOOKS}/qemu", others, mode=0o755)


def five_lines() -> str:
    """The README's shell lines with virsh."""
    lines = block("README.md#the-same-with-virsh").text
    assert lines.count("\n") == 5
    return lines


#: What differs from the README on another host, or at another time.
_VARIABLE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)|(?P<address>\b\d+(\.\d+){3}(?![./\d]))"
)


def without_variables(shown: str) -> str:
    return _VARIABLE.sub(lambda found: f"<{found.lastgroup}>", shown)


@pytest.fixture(scope="module", params=SUITES)
def readme_host(request: pytest.FixtureRequest) -> Iterator[Hypervisor]:
    """A host with libvirt's default network as packaged, in place of which the lab has its uplink.

    It has no config file.
    """
    with open_lab(request.param) as lab:
        for namespace, device, old, new in (
            (lab.client, "uplink0", CLIENT_ADDRESS, CLIENT_OUTSIDE),
            (lab.node.network, UPLINK_BRIDGE, lab.node.addresses.uplink, NODE_OUTSIDE),
        ):
            namespace.ip(f"address del {old}/24 dev {device}\naddress add {new}/24 dev {device}")
        host = Hypervisor(lab, watched=False)
        # Not sooner: told to read its hooks, libvirtd makes the firewall of its networks anew.
        lab.node.start_network("default", nat_network_xml(third_octet=122))
        yield host


@pytest.fixture(params=["lease", "static address"])
def readme_guest(readme_host: Hypervisor, request: pytest.FixtureRequest) -> Iterator[Guest]:
    """The guest of the README, which publishes nothing yet."""
    static = {"addresses": f"{STATIC}/24", "gateways": GATEWAY}
    addresses = static if request.param == "static address" else {}
    before = readme_host.traces()
    yield readme_host.guest("web1", interface="default", **addresses)
    readme_host.remove_guests()
    assert before == readme_host.traces()


def has_lease(guest: Guest) -> bool:
    """Whether libvirt has given the guest an address."""
    return guest_mac(guest.octet) in guest.host.node.virsh("net-dhcp-leases", "default").stdout


def assert_readme_port_open(host: Hypervisor) -> None:
    reply = host.client.until_answered("tcp", NODE_OUTSIDE, README_PORT)
    assert spoken(reply) == f"web1 saw {CLIENT_OUTSIDE}"


def is_readme_port_closed(host: Hypervisor) -> bool:
    return spoken(host.client.tcp(NODE_OUTSIDE, README_PORT)) == "refused"


def assert_console_of_the_readme(host: Hypervisor) -> None:
    """Type the README's commands: they print what it shows, and do what it says."""
    commands = block("README.md#publish-a-port").commands()
    assert len(commands) == 4
    for command, expected in commands:
        printed = host.node.run(["sh", "-ec", command]).stdout
        assert without_variables(printed) == without_variables(expected)
        if "unpublish" not in command:
            assert_readme_port_open(host)
    assert is_readme_port_closed(host)
    host.cgw("unpublish", "web1")


@pytest.mark.parametrize("readme_guest", ["lease"], indirect=True)
@pytest.mark.on_both_suites
def test_the_commands_and_the_five_lines_of_the_readme_publish_a_port(readme_guest: Guest) -> None:
    host = readme_guest.host
    readme_guest.start()
    assert eventually(lambda: has_lease(readme_guest))
    assert is_readme_port_closed(host)
    assert_console_of_the_readme(host)
    host.shell(five_lines())
    assert_readme_port_open(host)
    readme_guest.destroy()
    assert is_readme_port_closed(host)
    readme_guest.start()  # the annotation outlives the run
    assert_readme_port_open(host)


@pytest.mark.parametrize("readme_guest", ["static address"], indirect=True)
def test_the_five_lines_for_a_guest_with_a_static_address_that_does_not_run(
    readme_guest: Guest,
) -> None:
    host = readme_guest.host
    lines = five_lines().replace("<publish>", f'<publish address="{STATIC}">')
    *writing, _ = lines.replace("--live ", "").splitlines()
    host.shell("\n".join(writing))
    for _ in range(2):
        assert is_readme_port_closed(host)
        readme_guest.start()
        assert_readme_port_open(host)
        readme_guest.destroy()
