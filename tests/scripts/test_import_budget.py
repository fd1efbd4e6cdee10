"""What a hook call loads: every import costs each guest's start some milliseconds."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from cgw_hooks.core.node_config import RemoteNode
from cgw_hooks.host.state.known_nodes import KnownNodes
from tests.lab.namespace import Namespace, namespace
from tests.unit.builders import PYTHON, ROOT, annotated, domain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.scripts

PACKAGE = "cgw_hooks"
HEAVY = {"pyroute2", "libvirt", "asyncio", "argparse", "rich", "logging", "subprocess", "pathlib"}
#: Nor what only one kind of guest or operation needs: `lxml` brings half of the standard library.
NOT_ON_THE_HOOKS_PATH = {"typing", "socket", "tomllib", "json", "inspect", "gzip"}
#: lxml needs these, and no other module does.
ONLY_FOR_LXML = {"re", "enum", "contextlib"}
NOT_FOR_PLAIN_GUESTS = {"lxml", "typing", "enum", "json", "dataclasses", "ipaddress", "tomllib"}


CONFIG = "cgw.toml"


@pytest.fixture(scope="module")
def node() -> Iterator[Namespace]:
    """A node that reaches the guest's address."""
    with namespace("budget") as made:
        made.ip(
            "link add guestbr0 type bridge\n"
            "link set guestbr0 up\n"
            "address add 10.5.5.1/24 dev guestbr0\n"
        )
        yield made


def loaded_by_a_hook_call(node: Namespace, tmp_path: Path, xml: bytes, operation: str) -> set[str]:
    """The modules that one call of the hook's path loads, and the first part of each name."""
    program = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1]); "
        "from cgw_hooks.commands.hook import main; "
        f"code = main(['qemu', 'web1', {operation!r}, 'begin', '-']); "
        "print(code, *(set(sys.modules) - before))"
    )
    runtime = str(tmp_path / "run")
    # Without site-packages not even `site` is loaded, but lxml is not found either.
    without_site = [] if b"urn:cgw-hooks" in xml else ["-S"]
    done = subprocess.run(
        [*node.enter_command(), PYTHON, "-I", *without_site, "-c", program, str(ROOT)],
        input=xml,
        env=dict(os.environ, CGW_RUNTIME_DIR=runtime, CGW_CONFIG=str(tmp_path / CONFIG)),
        capture_output=True,
        check=True,
    )  # fmt: skip
    code, *names = done.stdout.decode().split()
    assert ("0", b"") == (code, done.stderr)
    return {*names, *(name.partition(".")[0] for name in names)}


@pytest.mark.parametrize("operation", ["prepare", "started", "stopped", "release", "reconnect"])
def test_a_plain_guest_loads_next_to_nothing(
    node: Namespace, tmp_path: Path, operation: str
) -> None:
    loaded = loaded_by_a_hook_call(node, tmp_path, domain(""), operation)
    assert set() == loaded & (HEAVY | NOT_FOR_PLAIN_GUESTS)
    assert PACKAGE in loaded
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("operation", ["start", "migrate", "restore", "unknown"])
def test_an_operation_that_does_nothing_loads_next_to_nothing(
    node: Namespace, tmp_path: Path, operation: str
) -> None:
    loaded = loaded_by_a_hook_call(node, tmp_path, annotated(), operation)
    assert set() == loaded & (HEAVY | NOT_FOR_PLAIN_GUESTS)


@pytest.mark.parametrize("config", ["none", "only comments"])
def test_a_guest_that_publishes_loads_nothing_heavy(
    node: Namespace, tmp_path: Path, config: str
) -> None:
    if config != "none":  # that of the Debian package
        shutil.copy(ROOT / "etc" / CONFIG, tmp_path)
    loaded = loaded_by_a_hook_call(node, tmp_path, annotated(start=61202), "prepare")
    assert set() == loaded & (HEAVY | NOT_ON_THE_HOOKS_PATH)
    assert "lxml" in loaded  # it was really read,
    assert len(list((tmp_path / "run/guests").iterdir())) == 1  # and claimed


#: What the guest of these tests does not need: it has a static address on a plain bridge, and TCP.
UNNEEDED = {
    "prepare": {
        "core.rules.table",
        "host.libvirt_firewall",
        "host.libvirt_leases",
        "host.log",
        "node.stale_flows",
    },
    "started": {
        "core.parse.domain_xml",
        "host.libvirt_firewall",
        "host.routes",
        "sources.libvirt",
    },
    "stopped": {
        "core.ownership",
        "core.parse.domain_xml",
        "host.libvirt_firewall",
        "node.ports",
        "node.ruleset",
        "sources.libvirt",
    },
    "release": {
        "core.ownership",
        "core.rules.table",
        "host.conntrack",
        "host.libvirt_firewall",
        "host.listeners",
        "node.ports",
        "node.stale_flows",
    },
}


def test_a_call_loads_no_module_of_ours_that_its_guest_does_not_need(
    node: Namespace, tmp_path: Path
) -> None:
    for operation, unneeded in UNNEEDED.items():
        loaded = loaded_by_a_hook_call(node, tmp_path, annotated(start=61202), operation)
        assert {name for name in unneeded if f"{PACKAGE}.{name}" in loaded} == set(), operation


@pytest.mark.parametrize("operation", UNNEEDED)
def test_a_call_loads_no_slow_module_of_the_standard_library(
    node: Namespace, tmp_path: Path, operation: str
) -> None:
    for each in UNNEEDED:  # the operations before this one make the record that it finds
        loaded = loaded_by_a_hook_call(node, tmp_path, annotated(start=61202), each)
        if each == operation:
            break
    slow = NOT_ON_THE_HOOKS_PATH | (set() if operation == "prepare" else ONLY_FOR_LXML)
    assert set() == loaded & (HEAVY | slow)
    assert f"{PACKAGE}.core.record" in loaded


STEERING = """
[node]
name = "node1"
[[guest-network]]
bridge = "guestbr0"
subnet = "10.5.5.0/24"
node-address = "10.5.5.1"
gateway-address = "10.5.5.254"
internode-devices = ["eth1"]
return-path = "RETURN-PATH"
[registry]
endpoints = ["http://10.0.0.1:2379"]
"""


@pytest.mark.parametrize("return_path", ["full-nat", "steer"])
def test_only_a_call_that_steers_loads_what_knows_the_other_nodes(
    node: Namespace, tmp_path: Path, return_path: str
) -> None:
    config = tmp_path / CONFIG
    config.write_text(STEERING.replace("RETURN-PATH", return_path))
    config.chmod(0o600)
    known = KnownNodes(str(tmp_path / "run"))
    known.write([RemoteNode("n2", (ip_address("10.5.5.2"),), (), ("02:00:00:00:00:02",))])
    loaded = loaded_by_a_hook_call(node, tmp_path, annotated(start=61202), "prepare")
    assert f"{PACKAGE}.core.record" in loaded
    assert (f"{PACKAGE}.host.state.known_nodes" in loaded) == (return_path == "steer")
    # tomllib needs typing.
    assert set() == loaded & ((HEAVY | NOT_ON_THE_HOOKS_PATH) - {"tomllib", "typing"})


def test_the_agent_loads_the_library_of_prometheus_only_if_it_is_asked_to() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import cgw_hooks.agent.service\n"
        "print(*[name for name in sys.modules if name.startswith(('prometheus', 'http.', 'wsgi'))])"
    )
    done = subprocess.run(
        [PYTHON, "-I", "-c", program, str(ROOT)], capture_output=True, text=True, check=True
    )
    assert "prometheus" not in done.stdout
    assert "wsgi" not in done.stdout


def test_make_install_compiles_every_module_and_make_uninstall_leaves_none(
    tmp_path: Path,
) -> None:
    """Else each call compiles what it loads, where a hook may not write below /usr/local."""
    make = ["make", "--silent", "-C", str(ROOT), f"DESTDIR={tmp_path}", "PREFIX=/usr"]
    subprocess.run([*make, "install"], check=True)
    folder = tmp_path / "usr/lib/cgw"
    sources = sorted(folder.rglob("*.py"))
    assert len(sources) > 50
    for source in sources:
        (compiled,) = source.parent.glob(f"__pycache__/{source.stem}.cpython-*.pyc")
        # The header of a .pyc: a magic number, flags, time and size of its source (PEP 552).
        stamp = source.stat().st_mtime_ns // 10**9, source.stat().st_size
        assert (0, *stamp) == struct.unpack("<III", compiled.read_bytes()[4:16]), source
    subprocess.run([*make, "uninstall"], check=True)
    assert [] == [path for path in tmp_path.rglob("*") if not path.is_dir()]


@pytest.mark.parametrize("text", ["", "{", '{"a"', '{"a": 1', "[1,", '"a', '"\\u12', "nul"])
def test_broken_json_is_a_value_error_where_json_is_not_loaded(text: str) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from cgw_hooks.core import json_text\n"
        "assert 'json' not in sys.modules and 'json.decoder' not in sys.modules\n"
        "try: json_text.loads(sys.argv[2])\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [PYTHON, "-I", "-S", "-c", program, str(ROOT), text],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip()
