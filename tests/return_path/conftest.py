"""The clusters of this tier, one for each return path and topology."""

import os
import shutil
from collections.abc import Iterator
from itertools import count

import pytest

from tests.lab.namespace import sweep_namespaces
from tests.netns.node import CGW
from tests.return_path.cluster import CHAIN, FULL_NAT, MESH, Cluster, open_cluster

RETURN_PATHS = (FULL_NAT,)
#: Below the ports that the kernel gives (32768 to 60999).
_free_ports = count(20000)
_NEEDED_PROGRAMS = ("ip", "nft", "nsenter")


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Fail with one line if the machine lacks something for this tier."""
    if os.geteuid() != 0:
        pytest.fail("this tier makes network namespaces: run it as root (sudo make test)")
    missing = [program for program in _NEEDED_PROGRAMS if not shutil.which(program)]
    if missing:
        pytest.fail(f"the return-path tier needs {', '.join(missing)}: run make apt-lab")
    if not CGW.exists():
        pytest.fail(f"the return-path tier calls {CGW}: run make venv")
    sweep_namespaces()


@pytest.fixture(scope="session", params=RETURN_PATHS)
def return_path(request: pytest.FixtureRequest) -> str:
    """How answers find back."""
    return str(request.param)


@pytest.fixture(scope="session", params=[CHAIN, MESH])
def topology(request: pytest.FixtureRequest) -> str:
    """How the nodes are joined."""
    return str(request.param)


@pytest.fixture(scope="session")
def built(
    return_path: str, topology: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """The cluster, which the tests share."""
    folder = tmp_path_factory.mktemp(f"{return_path}-{topology}")
    with open_cluster(folder, return_path, topology) as made:
        yield made


@pytest.fixture(params=[False, True], ids=["routed", "br_netfilter"])
def bridging(request: pytest.FixtureRequest) -> bool:
    """Whether bridged packets meet the rules of routed ones: they do if Docker runs."""
    return bool(request.param)


@pytest.fixture
def made(built: Cluster, bridging: bool) -> Iterator[Cluster]:
    """The cluster. No packet with a guest's source address may leave by an uplink."""
    built.pass_bridged_packets_to_rules(bridging)
    assert built.leaks.found() == []
    yield built
    assert built.leaks.found() == []


@pytest.fixture
def free_port() -> int:
    """A client port that no other test uses."""
    return next(_free_ports)
