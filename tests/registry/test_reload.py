"""A node joins the registry, leaves it, or leaves the guest network, while its agent runs."""

import signal
from collections.abc import Iterator
from functools import partial

import pytest

from tests.lab.gateway_config import registry_table
from tests.libvirt.conftest import SUITES
from tests.libvirt.waiting import eventually
from tests.registry.cluster import RegistryCluster, has_no_records, registry_cluster

pytestmark = pytest.mark.registry


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryCluster]:
    """Two nodes with agents that do not know the registry yet."""
    with registry_cluster(tmp_path_factory.mktemp("cluster"), SUITES[0], nodes=2, count=1) as found:
        for number in found.nodes:
            configure(found, number, is_member=False)
        found.start_agents()
        yield found


def configure(made: RegistryCluster, number: int, *, is_member: bool) -> None:
    """Write the config of a node with or without [registry], and reload its agent, if it runs."""
    file = made.nodes[number].config_file
    table = registry_table(made.etcd.config())
    without = file.read_text().replace(table, "")
    file.write_text(without + table if is_member else without)
    if number in made.agents:
        made.agents[number][1].signal(signal.SIGHUP)


def is_open(made: RegistryCluster, number: int, name: str, port: int) -> bool:
    """Whether a guest answers through a node."""
    return made.answers(port)[number].startswith(name)


def test_a_node_joins_and_leaves_by_its_config(made: RegistryCluster) -> None:
    made.guest("web1").start()
    assert is_open(made, 1, "web1", 2201)
    assert made.keys() == {}
    for number in made.nodes:
        configure(made, number, is_member=True)
    assert eventually(partial(is_open, made, 2, "web1", 2201))
    configure(made, 2, is_member=False)
    assert eventually(partial(has_no_records, made.nodes[2]))
    assert not is_open(made, 2, "web1", 2201)
    assert is_open(made, 1, "web1", 2201)
    made.guest("web1").stop("shutdown")


def test_a_gateway_that_is_down_publishes_no_guest_of_others_until_it_is_up_again(
    made: RegistryCluster,
) -> None:
    for number in made.nodes:
        configure(made, number, is_member=True)
    made.guest("web1").start()
    assert eventually(partial(is_open, made, 2, "web1", 2201))
    node = made.nodes[2]
    node.cgw("node", "down")
    assert eventually(partial(has_no_records, node))
    assert "2201" not in node.ruleset()
    node.cgw("node", "up")
    assert eventually(partial(is_open, made, 2, "web1", 2201))
    made.guest("web1").stop("shutdown")
    assert eventually(partial(has_no_records, node))
