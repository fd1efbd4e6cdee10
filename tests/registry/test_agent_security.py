"""Certificates and users that are wrong at one node: what its status says, and what still works."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pytest

from cgw_hooks.core.node_config import Registry
from tests.lab.etcd_certificates import NODE, NODE_WITH_CN, OTHER_AUTHORITY
from tests.lab.gateway_config import registry_table
from tests.libvirt.waiting import eventually
from tests.netns.node import Node
from tests.registry.cluster import RegistryCluster, is_fine, registry_cluster

pytestmark = pytest.mark.registry


class Fault(NamedTuple):
    """What is wrong with a node's config, and a part of the cure."""

    spoil: Callable[[Registry], Registry]
    cure: str


FAULTS = {
    "wrong authority": Fault(
        lambda config: config._replace(ca=config.ca.replace("ca.pem", f"{OTHER_AUTHORITY}.pem")),
        "correct endpoints, ca, certificate and key in [registry]",
    ),
    "certificate with CN": Fault(
        lambda config: config._replace(
            certificate=config.certificate.replace(NODE, NODE_WITH_CN),
            key=config.key.replace(NODE, NODE_WITH_CN),
        ),
        "give this node a certificate without a CN",
    ),
    "no user": Fault(
        lambda config: config._replace(user="", password_file=""),
        "set user and password-file in [registry]",
    ),
}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryCluster]:
    """Two nodes; etcd has TLS, users, and tokens that last two seconds."""
    options = ("--auth-token-ttl=2",)
    with registry_cluster(
        tmp_path_factory.mktemp("cluster"), "bookworm", nodes=2, tls=True, auth=True,
        options=options,
    ) as made:  # fmt: skip
        made.start_agents()
        yield made


@pytest.mark.extended
def test_tokens_that_expire_are_no_problem(secured: RegistryCluster) -> None:
    guest = secured.guest("web1")
    for _ in range(2):
        time.sleep(3)  # a token ends two seconds after its last use; the agent uses it every five
        guest.start()
        secured.until_open(2201, "web1")
        guest.stop("shutdown")
        secured.until_closed(2201)
        assert is_fine(secured.nodes[1])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_node_that_is_not_let_in_says_the_cure_and_starts_its_guests(
    secured: RegistryCluster, fault: str
) -> None:
    spoil, cure = FAULTS[fault]
    node, guest = secured.nodes[2], secured.guest("web2")
    secured.guest("web1").start()
    secured.until_open(2201, "web1")
    before = node.config_file.read_text()
    good = secured.etcd.config(secured.etcd.members[1])
    node.configure(before.replace(registry_table(good), registry_table(spoil(good))))
    assert node.config_file.read_text() != before
    secured.kill_agent(2)
    agent = secured.start_agent(2)
    assert agent.process.poll() is None
    guest.start()
    assert secured.answers(2202)[2].startswith("web2")
    for command in (("status",), ("registry", "status")):
        assert eventually(partial(says, node, cure, *command))
        assert node.cgw(*command, check=False).returncode != 0
    secured.until_open(2201, "web1")  # node2 has heard of it before
    node.configure(before)
    secured.kill_agent(2)
    secured.start_agent(2)
    secured.until_open(2202, "web2")
    assert eventually(partial(is_fine, node))
    guest.stop("shutdown")
    secured.guest("web1").stop("shutdown")
    secured.until_closed(2202)


def test_nodes_whose_guest_networks_differ_are_a_problem_at_both(
    secured: RegistryCluster,
) -> None:
    node = secured.nodes[2]
    before = node.config_file.read_text()
    kept, _, _ = before.rpartition("[[guest-network]]")
    node.configure(kept)
    secured.kill_agent(2)
    secured.start_agent(2)
    for number, other in ((1, 2), (2, 1)):
        said = f"node node{other}: its config has other guest networks than this node's"
        cure = "give all nodes the same [[guest-network]] tables"
        assert eventually(partial(says, secured.nodes[number], f"{said}; {cure}"))
    node.configure(before)
    secured.kill_agent(2)
    secured.start_agent(2)
    for number in secured.nodes:
        assert eventually(partial(is_fine, secured.nodes[number]))


def says(node: Node, words: str, *command: str) -> bool:
    """Whether a node's status names a problem with these words."""
    return words in node.cgw(*(command or ("status",)), check=False).stderr
