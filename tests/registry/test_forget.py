"""A node that is dead: its guests' ports go when a person says so, or when a guest starts anew."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.libvirt.waiting import eventually
from tests.netns.asker import REFUSED
from tests.registry.cluster import RegistryCluster, registry_cluster

pytestmark = pytest.mark.registry

PORT = 2201
#: Exit code of RegistryError.
REFUSES = 9


@pytest.fixture
def made(tmp_path: Path) -> Iterator[RegistryCluster]:
    with registry_cluster(tmp_path, "bookworm") as found:
        yield found


def open_everywhere(made: RegistryCluster) -> bool:
    return {answer.partition(" ")[0] for answer in made.answers(PORT).values()} == {"web1"}


def open_at(made: RegistryCluster) -> list[int]:
    return [number for number, answer in made.answers(PORT).items() if answer != REFUSED]


def homes(made: RegistryCluster) -> list[str]:
    """The nodes that have an entry."""
    return sorted(key.rpartition("/")[2] for key in list(made.keys()))


def test_a_forgotten_node_is_withdrawn_at_each_other_one_and_can_be_imported_again(
    made: RegistryCluster, tmp_path: Path
) -> None:
    made.start_agents()
    made.guest("web1").start()
    assert eventually(lambda: open_everywhere(made))
    node2 = made.nodes[2]
    exported = tmp_path / "exported.json"
    exported.write_text(node2.cgw("registry", "export").stdout)
    itself = made.nodes[1].cgw("registry", "forget", "node1", check=False)
    assert (itself.returncode, itself.stdout) == (REFUSES, "")

    made.kill_agent(1)
    assert open_at(made) == [1, 2, 3], "silence is no news"
    assert node2.cgw("registry", "forget", "node1").stdout == "node1: 1 guests forgotten\n"
    assert eventually(lambda: open_at(made) == [1]), "node2 has forgotten it for itself, too"
    assert made.keys() == {}

    said = node2.cgw("registry", "import", str(exported)).stdout
    assert said == "1 entries written\n"
    assert eventually(lambda: open_at(made) == [1, 2, 3])
    assert node2.cgw("registry", "import", str(exported)).stdout == "0 entries written\n"


def test_a_forgotten_node_that_runs_writes_its_guests_again(made: RegistryCluster) -> None:
    made.start_agents()
    made.guest("web1").start()
    assert eventually(lambda: open_everywhere(made))
    before = made.keys()
    made.nodes[2].cgw("registry", "forget", "node1")
    assert eventually(lambda: made.keys() == before)
    assert eventually(lambda: open_everywhere(made))


@pytest.mark.extended
@pytest.mark.parametrize("is_known", [True, False], ids=["known to be gone", "gone just now"])
def test_a_guest_of_a_dead_node_that_started_elsewhere_leaves_nothing_when_it_stops(
    made: RegistryCluster, *, is_known: bool
) -> None:
    made.start_agents()
    guest = made.guest("web1")
    guest.start()
    assert eventually(lambda: open_everywhere(made))
    made.kill_agent(1)
    if is_known:  # its presence ends with its lease
        assert eventually(lambda: "node1" not in made.nodes[2].cgw("registry", "status").stdout)
    node2 = made.nodes[2]
    for operation in ("prepare", "start", "started"):
        assert node2.hook("web1", operation, "-", guest.xml).exit_code == 0
    assert eventually(lambda: homes(made) == ["node2"])
    for operation in ("stopped", "release"):
        assert node2.hook("web1", operation, "shutdown", guest.xml).exit_code == 0
    assert eventually(lambda: open_at(made) == [1])
    assert homes(made) == []
