"""cgw.toml: every key of the example, and every way in which a config can be wrong."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from cgw_hooks.core.annotation import Annotation
from cgw_hooks.core.guest import REMOTE, GuestKey
from cgw_hooks.core.node_config import (
    Endpoint,
    GuestNetwork,
    Metrics,
    NodeConfig,
    Policy,
    Registry,
    RemoteNode,
    Uplink,
)
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.core.parse.port_spec import parse_port_spec
from cgw_hooks.errors import InvalidConfig
from cgw_hooks.host.config_file import load_config
from tests.unit.builders import ROOT, is_one_line

pytestmark = pytest.mark.unit

EXAMPLE = ROOT / "etc/cgw.toml"
NETWORK = {
    "bridge": '"guestbr0"',
    "subnet": '"10.5.5.0/24"',
    "node-address": '"10.5.5.251"',
    "gateway-address": '"10.5.5.254"',
}


def network(**changed: str | None) -> str:
    """One ``[[guest-network]]``, some keys changed or (None) left out."""
    keys = NETWORK | {key.replace("_", "-"): value for key, value in changed.items()}
    lines = [f"{key} = {value}" for key, value in keys.items() if value is not None]
    return "\n".join(["[[guest-network]]", *lines, ""])


def refusal(text: str) -> str:
    with pytest.raises(InvalidConfig) as caught:
        parse_config(text)
    assert is_one_line(str(caught.value))
    return str(caught.value)


def test_the_example_as_it_is_says_nothing() -> None:
    assert NodeConfig() == parse_config(EXAMPLE.read_text(encoding="utf-8"))


def test_the_example_uncommented_is_valid_and_means_what_the_design_says() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    uncommented = re.sub(r"^# (?=\[|[a-z-]+ = )", "", text, flags=re.MULTILINE)
    expected = NodeConfig(
        name="node1",
        uplink=Uplink(("xenbr0",), (ip_address("192.168.122.11"),)),
        guest_networks=(
            GuestNetwork(
                bridge="guestbr0",
                subnet=ip_network("10.5.5.0/24"),
                node_address=ip_address("10.5.5.251"),
                gateway_address=ip_address("10.5.5.254"),
                internode_devices=("eth1.100", "eth2.100"),
                full_mesh=True,
                bridge_mac="02:63:0a:05:05:fb",
            ),
        ),
        remote_nodes=(
            RemoteNode(
                "node2",
                (ip_address("10.5.5.252"),),
                (ip_address("192.168.122.12"),),
                ("02:63:0a:05:05:fc",),
            ),
        ),
        replicates=True,
        policy=Policy(
            refuse_invalid=True,
            listen_ports=((1, 65535),),
            listen_addresses=(ip_network("192.168.122.11"),),
            sources=(ip_network("192.168.122.0/24"),),
        ),
        remote_guests=(
            peer(
                "web1",
                ("10.5.5.202",),
                ("2202:22", "123:123/udp", "192.168.122.11:8000-8009:80"),
            )._replace(uuid="0e1f2a3b-4c5d-4e6f-8a9b-0c1d2e3f4a5b"),
        ),
        registry=Registry(
            (Endpoint("10.0.0.1", 2379, is_tls=True), Endpoint("10.0.0.2", 2379, is_tls=True)),
            ca="/etc/etcd/ca.pem",
            certificate="/etc/etcd/node.pem",
            key="/etc/etcd/node-key.pem",
            user="cgw",
            password_file="/etc/cgw/etcd-password",  # noqa: S106
        ),
        metrics=Metrics(
            ip_address("127.0.0.1"),
            9718,
            textfile="/var/lib/prometheus/node-exporter/cgw.prom",
            counts_bytes=True,
        ),
    )
    assert expected == parse_config(uncommented)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"full_mesh": "true"},
            "guest-network[1].full-mesh: internode-devices is missing; name the",
        ),
        (
            {"full_mesh": '"true"', "internode_devices": '"eth1.100"'},
            'guest-network[1].full-mesh: "true" cannot be used; give true or false, without quotes',
        ),
    ],
)
def test_a_wrong_full_mesh_is_refused(changed: dict[str, str], problem: str) -> None:
    assert problem in refusal(network(**changed))


def test_a_network_is_no_full_mesh_unless_its_config_says_so() -> None:
    text = network(internode_devices='"eth1.100"')
    assert not parse_config(text).guest_networks[0].full_mesh


def peer(name: str, addresses: tuple[str, ...], publish: tuple[str, ...]) -> Annotation:
    forwards = tuple(map(parse_port_spec, publish))
    return Annotation(
        GuestKey(REMOTE, name), name, "", (), tuple(map(ip_address, addresses)), forwards
    )


def test_a_remote_guest_may_have_an_address_of_each_family() -> None:
    text = '[[remote-guest]]\nname = "web 1"\naddress = ["10.5.5.2", "fd00:5::2"]\npublish = "80"'
    expected = peer("web 1", ("10.5.5.2", "fd00:5::2"), ("80",))
    assert (expected,) == parse_config(text).remote_guests


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ('address = "10.5.5.2"', "remote-guest[1].name: it is missing; add it"),
        ('name = "web1"', "remote-guest[1].address: it is missing; give the guest's address"),
        (
            'name = "../web1"\naddress = "10.5.5.2"',
            'remote-guest[1].name: "../web1" cannot be used; give',
        ),
        ('name = ""\naddress = "10.5.5.2"', 'remote-guest[1].name: "" cannot be used; give'),
        (
            'name = "x"\naddress = "0.0.0.0"',
            'remote-guest[1].address: "0.0.0.0" cannot be used; give',
        ),
        ('name = "x"\naddress = ["10.5.5.2", "10.5.5.3"]', "give one per IP family"),
        ('name = "x"\naddress = "10.5.5.2"\npublish = "22:x"', 'remote-guest[1].publish: "22:x"'),
        ('name = "x"\naddress = "10.5.5.2"\nports = "22"', '"ports": unknown key'),
    ],
)
def test_a_wrong_remote_guest_is_refused(entry: str, problem: str) -> None:
    assert problem in refusal(f"[[remote-guest]]\n{entry}")


def test_a_remote_guest_is_named_once() -> None:
    entry = '[[remote-guest]]\nname = "web1"\naddress = "10.5.5.2"\n'
    assert 'remote-guest[2].name: "web1" has an entry already; keep one' in refusal(entry + entry)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", NodeConfig()),
        ('[node]\nname = "n"', NodeConfig(name="n")),
        ('[node]\nmark-mask = "0xff00"', NodeConfig(mark_mask=0xFF00)),
        ("[failover]\nreplicate = true", NodeConfig(replicates=True)),
        ('[uplink]\ndevices = "eth0"', NodeConfig(uplink=Uplink(("eth0",)))),
        (
            '[uplink]\naddress = ["192.0.2.1", "2001:db8::1"]',
            NodeConfig(uplink=Uplink((), (ip_address("192.0.2.1"), ip_address("2001:db8::1")))),
        ),
        ('[policy]\non-invalid = "warn"', NodeConfig(policy=Policy(refuse_invalid=False))),
        (
            '[policy]\nlisten-ports = ["80", "2000-9999"]',
            NodeConfig(policy=Policy(listen_ports=((80, 80), (2000, 9999)))),
        ),
        ("[policy]\nlisten-ports = []", NodeConfig(policy=Policy(listen_ports=()))),
        (
            '[policy]\nauto-ports = "40000-40999"',
            NodeConfig(policy=Policy(auto_ports=(40000, 40999))),
        ),
    ],
)
def test_each_key_may_stand_alone(text: str, expected: NodeConfig) -> None:
    assert expected == parse_config(text)


def test_a_bridge_may_have_a_second_subnet_of_ipv6() -> None:
    second = network(
        subnet='"fd00:5::/64"', node_address='"fd00:5::251"', gateway_address='"fd00:5::254"'
    )
    networks = parse_config(network() + second).guest_networks
    assert ["10.5.5.0/24", "fd00:5::/64"] == [str(found.subnet) for found in networks]


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("not toml", "config: it is not TOML: ", "line 1"),
        ('[node]\nname = "a\nb"', "config: it is not TOML: ", "line 2"),
        ("[node]\nname = 1\nname = 2", "config: it is not TOML: ", "overwrite a value"),
        (
            "nodes = 1",
            '"nodes": unknown key',
            "failover, guest-network, metrics, node, policy, registry, remote-guest, remote-node",
        ),
        ('"a\\nb\\u001b[2J" = 1', r'"a\nb\x1b[2J": unknown key', "known here are"),
        ('[node]\nnmae = "n"', 'node."nmae": unknown key', "mark-mask, name"),
        (network(bridges='"b"'), 'guest-network[1]."bridges": unknown key', "bridge, "),
        ("node = 3", "node: ", "[node]"),
        ("[node]\nname = 3", "node.name: ", '"3"'),
        (
            '[node]\nmark-mask = "0xff00ff00"',
            "node.mark-mask: ",
            '"0xff00ff00" cannot be used; give neighbouring bits',
        ),
        ("[uplink]\ndevices = 3", "uplink.devices: ", '"3"'),
        ('[uplink]\ndevices = ["a", ["b"]]', "uplink.devices: ", "\"['b']\""),
        ('[uplink]\naddress = "192.0.2"', "uplink.address: ", '"192.0.2" cannot be used; give an'),
        (
            '[uplink]\naddress = "127.0.0.1"',
            "uplink.address: ",
            '"127.0.0.1" cannot be used; give the',
        ),
        (
            '[uplink]\naddress = ["192.0.2.1", "192.0.2.2"]',
            "uplink.address: ",
            '"192.0.2.1, 192.0.2.2" cannot be used; give one per IP family',
        ),
        ("guest-network = 3", "guest-network: ", "[[guest-network]]"),
        ('[guest-network]\nbridge = "b"', "guest-network: ", "[[guest-network]]"),
        ("guest-network = [3]", "guest-network[1]: ", "it is not a table; write [[guest-network]]"),
        (network(bridge=None), "guest-network[1].bridge: ", "it is missing; add it"),
        (network(subnet=None), "guest-network[1].subnet: ", "it is missing; add it"),
        (network(node_address=None), "guest-network[1].node-address: ", "it is missing; add it"),
        (network(gateway_address=None), "guest-network[1].gateway-address: ", "it is missing;"),
        (network(subnet='"10.5.5.1/24"'), "guest-network[1].subnet: ", '"10.5.5.1/24"'),
        (network(subnet='"10.5.5.0/24 10.6.0.0/24"'), "guest-network[1].subnet: ", "one network"),
        (network(subnet='"fe80::%x;flush/64"'), "guest-network[1].subnet: ", '"fe80::%x;flush/64"'),
        (network(node_address='"10.5.5.999"'), "guest-network[1].node-address: ", '"10.5.5.999"'),
        (
            network(node_address='"10.6.5.251"'),
            "guest-network[1].node-address: ",
            '"10.6.5.251" cannot be used; give a host\'s address in the subnet, 10.5.5.0/24',
        ),
        (
            network(gateway_address='"fd00::1"'),
            "guest-network[1].gateway-address: ",
            '"fd00::1" cannot be used; give a host\'s address in the subnet, 10.5.5.0/24',
        ),
        (
            network(node_address='"10.5.5.0"'),
            "guest-network[1].node-address: ",
            "give a host's address in the subnet, 10.5.5.0/24",
        ),
        (
            network(gateway_address='"10.5.5.255"'),
            "guest-network[1].gateway-address: ",
            "give a host's address in the subnet, 10.5.5.0/24",
        ),
        (
            network(node_address='"10.5.5.254"'),
            "guest-network[1].node-address: ",
            '"10.5.5.254" is the gateway address, which every node has; give this node one',
        ),
        (
            network() + network(bridge='"b2"', subnet='"10.5.0.0/16"'),
            "guest-network[2].subnet: ",
            "10.5.0.0/16 overlaps 10.5.5.0/24",
        ),
        (network(internode_devices='["eth1", 2]'), "guest-network[1].internode-devices: ", '"2"'),
        (
            '[policy]\non-invalid = "ignore"',
            "policy.on-invalid: ",
            '"ignore" cannot be used; give one of',
        ),
        ("[policy]\non-invalid = true", "policy.on-invalid: ", '"True"'),
        (
            "[policy]\nlisten-ports = [80]",
            "policy.listen-ports: ",
            '"80" cannot be used; give a string',
        ),
        (
            '[policy]\nlisten-ports = ["90-80"]',
            "policy.listen-ports: ",
            '"90-80" cannot be used; give the lower',
        ),
        ("[policy]\nauto-ports = 80", "policy.auto-ports: ", '"80" cannot be used; give a string'),
        (
            '[policy]\nauto-ports = "9-8"',
            "policy.auto-ports: ",
            '"9-8" cannot be used; give the lower port first',
        ),
        (
            '[policy]\nlisten-ports = ["80-"]',
            "policy.listen-ports: ",
            '"80-" cannot be used; give a port',
        ),
        (
            '[policy]\nlisten-ports = ["0-80"]',
            "policy.listen-ports: ",
            '"0-80" cannot be used; give a port',
        ),
        (
            '[policy]\nlisten-ports = ["1-65536"]',
            "policy.listen-ports: ",
            '"1-65536" cannot be used; give a port',
        ),
        (
            '[policy]\nlisten-ports = ["http"]',
            "policy.listen-ports: ",
            '"http" cannot be used; give a port',
        ),
    ],
)
def test_a_wrong_config_is_refused_by_key_and_value(text: str, key: str, value: str) -> None:
    line = refusal(text)
    assert line.startswith(key)
    assert value in line


@pytest.mark.parametrize(
    "name", ['a"; flush ruleset', "", "a" * 16, "a b", "a/b", "..", ".", "brü0", "eth0\\n", "a*"]
)
def test_a_device_name_that_nft_or_the_kernel_would_not_take_is_refused(name: str) -> None:
    spelt = name if name.endswith("\\n") else name.replace('"', '\\"')
    for text in (
        network(bridge=f'"{spelt}"'),
        network(internode_devices=f'["{spelt}"]'),
        f'[uplink]\ndevices = ["{spelt}"]',
    ):
        assert refusal(text).endswith("give a network device's name, 15 characters at most")


REMOTE_GUESTS = """\
[[remote-guest]]
name = "web7"
address = "10.5.5.207"
publish = [
  "8080:80",  # [[remote-guest]]
]
  [[remote-guest]]  # indented
  name = "[policy]"
  address = "10.5.5.208"
"""
OTHER_REMOTE_GUEST = '[[remote-guest]]\nname = "web9"\naddress = "10.5.5.209"\n'


@pytest.mark.parametrize(
    "text",
    [
        "",
        REMOTE_GUESTS,
        "[node]\nname = 'n1'\n" + REMOTE_GUESTS,
        REMOTE_GUESTS + "[policy]\nlisten-ports = '80'\n",
        REMOTE_GUESTS + "  [policy]\nlisten-ports = '80'\n" + OTHER_REMOTE_GUEST,
        (REMOTE_GUESTS + "[policy]\nlisten-ports = '80'\n").replace("\n", "\r\n"),
        "[node]\nname = '''\n[[remote-guest]]\n'''\n[policy]\nlisten-ports = '80'\n",
        REMOTE_GUESTS.replace("]]", " ]]") + "[policy]\nlisten-ports = '80'\n",
    ],
)
def test_a_hook_reads_all_of_the_config_but_its_remote_guests(text: str) -> None:
    whole = parse_config(text)
    assert whole._replace(remote_guests=()) == parse_config(text, remote_guests=False)


def test_a_wrong_remote_guest_harms_no_hook() -> None:
    text = '[node]\nname = "n1"\n[[remote-guest]]\nname = 5\n'
    assert "remote-guest[1].name: " in refusal(text)
    assert NodeConfig(name="n1") == parse_config(text, remote_guests=False)


@pytest.mark.parametrize(
    "wrong", ["[node]\nname = 5\n", "[policy]\nnothing = [\n[1],\n]\n", "[[\n", "[uplink"]
)
def test_what_else_is_wrong_is_said_to_a_hook_in_the_same_words(wrong: str) -> None:
    text = REMOTE_GUESTS + wrong
    with pytest.raises(InvalidConfig) as caught:
        parse_config(text, remote_guests=False)
    assert refusal(text) == str(caught.value)


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert NodeConfig() == load_config(str(tmp_path / "none.toml"))


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cgw.toml"
    path.write_text("", encoding="ascii")
    path.chmod(0o666)
    with pytest.raises(InvalidConfig, match="others than root can write to it; run: chown root"):
        load_config(str(path))


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cgw.toml"
    path.write_bytes(b"[node]\nname = '\xff'\n")
    path.chmod(0o600)
    with pytest.raises(InvalidConfig) as caught:
        load_config(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert is_one_line(str(caught.value))


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(InvalidConfig, match="cannot be read"):
        load_config(str(tmp_path))


NODE2 = '[[remote-node]]\nname = "n2"\nnode-address = "10.5.5.252"\n'
SYNCED = {"internode_devices": '["eth1"]', "return_path": '"ct-sync"'}
SIX = """
[[guest-network]]
bridge = "guestbr0"
subnet = "fd00:5::/64"
node-address = "fd00:5::251"
gateway-address = "fd00:5::254"
"""
STEERED = {"internode_devices": '["eth1"]', "return_path": '"steer"'}


def test_a_steered_network_derives_the_mac_addresses_from_the_node_addresses() -> None:
    found = parse_config(network(**STEERED) + NODE2)
    assert found.guest_networks[0].bridge_mac == "02:63:0a:05:05:fb"
    assert found.remote_nodes[0].bridge_macs == ("02:63:0a:05:05:fc",)


def test_both_networks_of_a_bridge_have_its_mac_address() -> None:
    six = {"subnet": '"fd00:5::/64"', "node_address": '"fd00:5::251"'}
    second = network(**six, gateway_address='"fd00:5::254"', bridge_mac='"02:00:00:00:00:07"')
    found = parse_config(second + network(**STEERED))
    assert {n.bridge_mac for n in found.guest_networks} == {"02:00:00:00:00:07"}


def test_without_a_return_path_that_needs_it_a_bridge_keeps_its_mac_address() -> None:
    assert not parse_config(network() + NODE2).guest_networks[0].bridge_mac


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (network(return_path='"steer"'), "return-path: internode-devices is missing"),
        (network(return_path='"bounce"'), "give one of: ct-sync, full-nat, steer"),
        (network(**SYNCED) + NODE2, "uplink-address of IPv4 is missing, and ct-sync needs it"),
        (network(**SYNCED) + SIX, "guest-network[2].return-path: another guest network has"),
        (network(bridge_mac='"33:33:00:00:00:01"'), "give the address of one station"),
        (network(bridge_mac='"02:00:00:00:00"'), "give it like 02:63:0a:05:05:fb"),
        (NODE2 + NODE2, 'remote-node[2].name: "n2" has an entry already'),
        ('[node]\nname = "n2"\n' + NODE2, 'remote-node[1].name: "n2" is this node'),
        ('[[remote-node]]\nname = "n2"', "remote-node[1].node-address: it is missing"),
        (
            network(**STEERED) + NODE2.replace("10.5.5.252", "10.6.6.252"),
            'remote-node "n2": node-address in 10.5.5.0/24 is missing',
        ),
        (
            '[node]\nmark-mask = "0xf0"\n' + network(**STEERED) + NODE2.replace("252", "235"),
            "the last bits of 10.5.5.235 are those of this node",
        ),
        (
            network(**STEERED) + NODE2 + 'bridge-mac = "02:63:0a:05:05:fb"',
            "02:63:0a:05:05:fb is the MAC address of this node",
        ),
        ('[node]\nmark-mask = "0x7"', "node.mark-mask: "),
        ('[node]\nmark-mask = "0xff000000f"', "node.mark-mask: "),
        ('[node]\nmark-mask = "255"', "node.mark-mask: "),
        ("[failover]\nreplicate = 1", "failover.replicate: "),
    ],
)
def test_wrong_nodes_are_refused(text: str, problem: str) -> None:
    assert problem in refusal(text)
