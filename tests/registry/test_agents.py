"""What a node of a cluster says if its agent does not run, or another one has its name."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgw_hooks.errors import RegistryError
from tests.libvirt.waiting import eventually
from tests.registry.cluster import RegistryCluster, registry_cluster

pytestmark = pytest.mark.registry


@pytest.fixture
def made(tmp_path: Path) -> Iterator[RegistryCluster]:
    with registry_cluster(tmp_path, "bookworm", nodes=2) as found:
        yield found


def codes(made: RegistryCluster) -> list[str]:
    said = made.nodes[2].cgw("status", "--json", check=False).stdout
    return [problem["code"] for problem in json.loads(said)["problems"]]


def test_an_agent_that_hangs_is_not_called_connected(made: RegistryCluster) -> None:
    made.start_agents()
    node = made.nodes[2]
    assert eventually(lambda: node.cgw("registry", "status", check=False).returncode == 0)
    _, agent = made.agents[2]
    agent.signal(signal.SIGSTOP)
    said = node.cgw("registry", "status", check=False)
    assert (said.returncode, said.stdout) == (RegistryError.exit_code, "")
    assert "agent: it does not answer" in said.stderr
    agent.signal(signal.SIGCONT)
    assert eventually(lambda: node.cgw("registry", "status", check=False).returncode == 0)


def test_two_nodes_of_one_name_are_a_problem(made: RegistryCluster) -> None:
    """A host that was cloned, for example."""
    made.start_agent(1)
    first = made.nodes[1]
    assert eventually(lambda: first.cgw("registry", "status", check=False).returncode == 0)
    made.start_agent(2)
    assert eventually(lambda: "node2" in first.cgw("registry", "status").stdout)
    made.kill_agent(2)
    config = made.nodes[2].folder / "cgw.toml"
    config.write_text(config.read_text().replace('"node2"', '"node1"'))
    made.start_agent(2)
    said = "node node1: another node has the same name"
    assert eventually(lambda: said in first.cgw("registry", "status", check=False).stderr)


def test_an_agent_that_does_not_run_is_a_problem_of_its_node(made: RegistryCluster) -> None:
    node = made.nodes[2]
    made.start_agents()
    assert eventually(lambda: node.cgw("registry", "status", check=False).returncode == 0)
    assert codes(made) == []
    made.kill_agent(2)
    said = node.cgw("status", check=False)
    assert (said.returncode, said.stderr) == (
        1, "cgw: agent: it does not run; run: systemctl start cgw\n"
    )  # fmt: skip
    assert codes(made) == ["registry"]
    for command in (("status",), ("export",), ("forget", "node1")):
        refused = node.cgw("registry", *command, check=False)
        assert (refused.returncode, refused.stdout) == (RegistryError.exit_code, "")
        assert "agent: it does not run" in refused.stderr
    made.start_agent(2)
    assert eventually(lambda: codes(made) == [])
