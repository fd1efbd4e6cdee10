"""Every block of the documents is run by a test, or listed with the reason why none runs it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.core.parse.vif import configured_vifs
from cgw_hooks.core.parse.xl_cfg import parse_xl_config, strings
from tests.documents import ROOT, anchors, block, blocks, files
from tests.unit.builders import domain, guest_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

#: Block -> the test module that runs it.
RUN_BY = {
    "README.md#cgw-hooks": "tests/unit/test_documents.py",
    "README.md#install-from-a-checkout": "tests/systemd/agent_host.py",
    "README.md#publish-a-port": "tests/libvirt/test_installation.py",
    "README.md#the-same-with-virsh": "tests/libvirt/test_installation.py",
    "README.md#a-cluster": "tests/unit/test_documents.py",
    "README.md#a-cluster.2": "tests/unit/test_documents.py",
    "README.md#a-cluster.3": "tests/unit/test_documents.py",
    "docs/cluster.md#certificates": "tests/registry/test_runbook.py",
    "docs/cluster.md#members": "tests/registry/test_runbook.py",
    "docs/cluster.md#users": "tests/registry/test_runbook.py",
    "docs/cluster.md#cgw": "tests/registry/test_runbook.py",
    "docs/cluster.md#backup-and-restore.2": "tests/registry/test_runbook.py",
    "docs/cluster.md#backup-and-restore.3": "tests/registry/test_runbook.py",
    "README.md#xen": "tests/unit/test_documents.py",
    "docs/return-paths.md#what-they-ask-for": "tests/unit/test_documents.py",
    "docs/return-paths.md#the-death-of-a-node": "tests/unit/test_documents.py",
    "docs/troubleshooting.md#troubleshooting": "tests/systemd/test_agent_service.py",
    "docs/troubleshooting.md#the-trace-helps-no-further": ("tests/netns/test_troubleshooting.py"),
}
#: Block -> the reason.
NOT_RUN = {
    "README.md#install": "tests/packaging builds the packages and installs them with apt",
    "README.md#try-it": "it clones the repository; tests/libvirt/test_demo.py runs the demo",
    "docs/cluster.md#etcd": "it installs packages of Debian; the lab has them in a root of its own",
    "docs/cluster.md#certificates.2": "tests/registry/test_runbook.py has no user etcd",
    "docs/cluster.md#cgw.2": "tests/registry/test_cluster.py runs the commands on each node",
    "docs/cluster.md#backup-and-restore": "tests/registry/test_forget.py exports and imports",
    "docs/cluster.md#fencing": "tests/registry/test_forget.py forgets a node",
    "CONTRIBUTING.md#set-up": "it is what starts these tests",
}


def test_each_block_is_run_or_has_a_reason() -> None:
    assert {*RUN_BY} & {*NOT_RUN} == set()
    assert {*RUN_BY} | {*NOT_RUN} == set(blocks())


@pytest.mark.parametrize("name", RUN_BY)
def test_the_module_reads_the_block_from_the_document(name: str) -> None:
    source = (ROOT / RUN_BY[name]).read_text(encoding="utf-8")
    pieces = re.findall(r'block\(\s*((?:"[^"]*"\s*)+)\)', source)
    assert name in {"".join(re.findall(r'"([^"]*)"', piece)) for piece in pieces}


@pytest.mark.parametrize("document", files(), ids=lambda path: path.name)
def test_each_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    for link in links:
        if link.startswith("https://"):
            continue
        place, _, target = link.partition("#")
        there = document.parent / place if place else document
        assert there.exists(), link
        assert not target or target in anchors(there.read_text(encoding="utf-8")), link


def test_the_annotation_that_the_readme_begins_with_is_valid() -> None:
    shown = block("README.md#cgw-hooks").text
    inside = shown.replace("<metadata>", "").replace("</metadata>", "")
    (port,) = guest_of(domain(inside)).ports
    assert (port.start, port.to, port.protocol) == (2202, 22, "tcp")


def test_the_config_of_the_readme_is_valid() -> None:
    tables = (
        block("README.md#a-cluster"), block("README.md#a-cluster.2"), block("README.md#a-cluster.3")
    )  # fmt: skip
    config = parse_config("\n".join(table.text for table in tables))
    assert config.registry
    assert [endpoint.host for endpoint in config.registry.endpoints] == [
        "10.0.0.1", "10.0.0.2", "10.0.0.3"
    ]  # fmt: skip
    assert [network.full_mesh for network in config.guest_networks] == [True]
    assert [guest.name for guest in config.remote_guests] == ["web1"]


def test_the_config_of_a_steering_node_is_valid() -> None:
    text = block("docs/return-paths.md#what-they-ask-for").text
    config = parse_config(text)
    assert not config.replicates
    assert parse_config(text + block("docs/return-paths.md#the-death-of-a-node").text).replicates
    assert [str(network.subnet) for network in config.steered_networks] == ["10.5.5.0/24"]
    assert [(node.name, node.bridge_macs) for node in config.remote_nodes] == [
        ("node2", ("02:63:0a:05:05:fc",))
    ]


def test_the_vif_of_the_readme_declares_its_ports() -> None:
    settings = parse_xl_config(block("README.md#xen").text)
    (vif,) = configured_vifs("web1", strings(settings["vif"]))
    assert vif.own_words is not None
    declared = vif.annotation(vif.own_words, "the README")
    ports = [(forward.start, forward.to) for forward in declared.forwards]
    assert ports == [(2202, 22), (123, 123)]
