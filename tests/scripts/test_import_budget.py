"""What a hook call loads: every import costs each guest's start some milliseconds."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lab.namespace import Namespace, namespace
from tests.unit.builders import PYTHON, ROOT, annotated, domain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.scripts

PACKAGE = "cgw_hooks"
HEAVY = {"pyroute2", "libvirt", "asyncio", "argparse", "rich", "logging", "subprocess", "pathlib"}
#: Nor what only one kind of guest or operation needs: `lxml` brings half of the standard library.
NOT_ON_THE_HOOKS_PATH = {"typing", "contextlib", "socket", "tomllib"}
NOT_FOR_PLAIN_GUESTS = {"lxml", "typing", "enum", "json", "dataclasses", "ipaddress", "tomllib"}


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
        env=dict(os.environ, CGW_RUNTIME_DIR=runtime, CGW_CONFIG=str(tmp_path / "none")),
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


def test_a_guest_that_publishes_loads_nothing_heavy(node: Namespace, tmp_path: Path) -> None:
    loaded = loaded_by_a_hook_call(node, tmp_path, annotated(start=61202), "prepare")
    assert set() == loaded & HEAVY
    assert "lxml" in loaded  # it was really read,
    assert len(list((tmp_path / "run/guests").iterdir())) == 1  # and claimed


#: What the guest of these tests does not need: it has a static address on a plain bridge, and TCP.
UNNEEDED = {
    "prepare": {"host.libvirt_firewall", "host.libvirt_leases", "host.log", "node.stale_flows"},
    "started": {"core.parse.domain_xml", "sources.libvirt", "host.libvirt_firewall", "host.routes"},
    "stopped": {
        "core.parse.domain_xml",
        "sources.libvirt",
        "host.libvirt_firewall",
        "node.ruleset",
    },
    "release": {"host.listeners", "host.conntrack", "node.stale_flows", "host.libvirt_firewall"},
}


def test_a_call_loads_no_module_of_ours_that_its_guest_does_not_need(
    node: Namespace, tmp_path: Path
) -> None:
    for operation, unneeded in UNNEEDED.items():
        loaded = loaded_by_a_hook_call(node, tmp_path, annotated(start=61202), operation)
        assert {name for name in unneeded if f"{PACKAGE}.{name}" in loaded} == set(), operation
