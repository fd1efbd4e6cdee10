"""A host with the real ufw: the cure is ufw's own command, and outlives its reload."""

from pathlib import Path

import pytest

from tests.doctor.broken_hosts import PORT
from tests.doctor.doctor import examine, faults, type_command
from tests.lab.ufw_root import install_ufw
from tests.libvirt.conftest import SUITES
from tests.netns.asker import Asker
from tests.netns.configs import CLIENT, NODE
from tests.netns.conftest import NodeMaker
from tests.netns.parameters import families

pytestmark = [pytest.mark.doctor, pytest.mark.extended]


@families
@pytest.mark.parametrize("suite", SUITES)
def test_ufw_that_denies_what_is_routed(
    client: Asker, make_node: NodeMaker, tmp_path: Path, suite: str, family: int
) -> None:
    programs = install_ufw(tmp_path, suite)
    node = make_node()
    node.guest("web1", f"{PORT}:22", serves="22/tcp", family=family).start()
    answer = f"web1 saw {CLIENT[family]}"
    assert client.asks(NODE[family], PORT) == answer
    said = type_command(node, "ufw --force enable", programs=programs)
    assert "Firewall is active" in said
    assert client.is_unanswered(NODE[family], PORT)
    first = examine(node)[0]
    assert (first["verdict"], first["check"]) == ("fail", "other-firewalls")
    assert first["command"].startswith("ufw route allow proto tcp ")
    type_command(node, first["command"], programs=programs)
    assert client.asks(NODE[family], PORT) == answer
    assert faults(node) == []
    type_command(node, "ufw reload", programs=programs)
    assert client.asks(NODE[family], PORT) == answer
    type_command(node, "ufw --force disable", programs=programs)
    node.stop_all_guests()
    node.accept_foreign_tables()
