"""Plain xl guests: what xl calls on two nodes while a guest starts, stops and migrates."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.lab.domain import guest_uuid
from tests.lab.network import guest_address
from tests.libvirt.waiting import eventually
from tests.netns.agent import CLIENT as HOOK_CLIENT
from tests.netns.guest import Finished
from tests.netns.node import PYTHON, Node
from tests.registry.cluster import RegistryCluster, has_homes
from tests.scripts.dom0 import BACKEND, Dom0

pytestmark = pytest.mark.registry

PORT, OTHER_PORT = 2201, 2299
DONE = Finished(0, "")
REFUSED_BY_XL = 1
OCTETS = {"web1": 21, "web2": 22}


class XlGuest:
    """A guest with one vif, as the xl of one node knows it. Only the agent carries calls out."""

    def __init__(self, node: Node, name: str, folder: Path) -> None:
        folder.mkdir()
        self._node, self._dom0 = node, Dom0(folder)
        self._trace, program = folder / "trace", folder / "cgw-that-notes"
        program.write_text(f"open({str(self._trace)!r}, 'a').write('called\\n')\n")
        self._dom0.installs(PYTHON, program, HOOK_CLIENT)
        octet = OCTETS[name]
        self._dom0.says("/local/domain/3/vm", f"/vm/{guest_uuid(octet)}")
        self._dom0.says(f"{BACKEND}/ip", guest_address(octet))
        self.rename(name)

    def rename(self, name: str) -> None:
        """Give the domain a name, as xl does before and after a migration."""
        self._dom0.says("/local/domain/3/name", name)

    def online(self, *ports: int) -> Finished:
        """Add the vif; it publishes these ports, all of which lead to port 22."""
        words = " ".join(f"{port}:22" for port in ports or (PORT,))
        return self._call("online", f"cgw {words}")

    def offline(self) -> Finished:
        """Remove the vif."""
        return self._call("offline")

    def _call(self, command: str, netdev: str = "") -> Finished:
        (self._dom0.root / "store" / BACKEND / "hotplug-error").unlink(missing_ok=True)
        variables = self._node.environment()
        variables["PATH"] = f"{self._dom0.root}/bin:{variables['PATH']}"
        enter = self._node.namespace.enter_command()
        done = self._dom0.run("vif-cgw", command, netdev=netdev, enter=enter, variables=variables)
        assert (done.stdout, done.stderr) == (b"", b"")
        assert not self._trace.exists()
        return Finished(done.returncode, self._dom0.status()[1])


Xl = Callable[[int, str], XlGuest]


@pytest.fixture
def xl(made: RegistryCluster, tmp_path: Path) -> Xl:
    """Make a guest of the xl of a node."""
    return lambda number, name: XlGuest(made.nodes[number], name, tmp_path / f"node{number}-{name}")


def name_in_registry(made: RegistryCluster) -> str:
    (value,) = made.keys().values()
    return value.partition('"name": "')[2].partition('"')[0]


def test_a_guest_is_open_at_every_node_and_closed_at_all(made: RegistryCluster, xl: Xl) -> None:
    guest = xl(1, "web1")
    assert guest.online() == DONE
    made.until_open(PORT, "web1")
    assert guest.offline() == DONE
    made.until_closed(PORT)


def test_a_guest_that_migrates_is_never_closed(made: RegistryCluster, xl: Xl) -> None:
    at = {number: xl(number, "web1") for number in made.nodes}
    assert at[1].online() == DONE
    made.until_open(PORT, "web1")
    with made.connecting(PORT) as connections:
        for source, target in ((1, 2), (2, 3), (3, 1)):
            at[target].rename("web1--incoming")
            assert at[target].online() == DONE
            assert made.homes() == sorted([f"node{source}", f"node{target}"])
            at[source].rename("web1--migratedaway")
            at[target].rename("web1")
            assert at[source].offline() == DONE
            assert eventually(partial(has_homes, made, f"node{target}"))
            assert name_in_registry(made) == "web1"
    assert connections.made > 10
    assert connections.failed == []
    at[1].offline()


def test_a_migration_that_fails_closes_nothing(made: RegistryCluster, xl: Xl) -> None:
    source, target = xl(1, "web1"), xl(2, "web1")
    assert source.online() == DONE
    made.until_open(PORT, "web1")
    with made.connecting(PORT) as connections:
        target.rename("web1--incoming")
        assert target.online() == DONE
        assert target.offline() == DONE
        assert eventually(partial(has_homes, made, "node1"))
    assert connections.failed == []
    made.until_open(PORT, "web1")
    source.offline()


def test_a_guest_that_migrates_without_etcd_is_never_closed(made: RegistryCluster, xl: Xl) -> None:
    at = {number: xl(number, "web1") for number in made.nodes}
    assert at[1].online() == DONE
    made.until_open(PORT, "web1")
    with made.connecting(PORT) as connections:
        made.etcd.kill()
        at[2].rename("web1--incoming")
        assert at[2].online() == DONE
        at[1].rename("web1--migratedaway")
        at[2].rename("web1")
        assert at[1].offline() == DONE
        assert made.answers(PORT)[1].startswith("web1 ")
        made.mend()
        assert eventually(partial(has_homes, made, "node2"))
        made.until_open(PORT, "web1")
    assert connections.failed == []
    at[2].offline()


def test_a_guest_that_is_destroyed_without_etcd_is_closed_at_its_node(
    made: RegistryCluster, xl: Xl
) -> None:
    guest = xl(1, "web1")
    assert guest.online() == DONE
    made.until_open(PORT, "web1")
    made.etcd.kill()
    assert guest.offline() == DONE
    assert not made.answers(PORT)[1].startswith("web1")
    made.mend()
    made.until_closed(PORT)


def test_a_port_of_another_nodes_guest_is_refused_by_that_guests_name(
    made: RegistryCluster, xl: Xl
) -> None:
    owner, rival = xl(1, "web1"), xl(2, "web2")
    assert owner.online() == DONE
    made.until_open(PORT, "web1")
    before = made.keys()
    refused = rival.online(PORT, OTHER_PORT)
    assert refused.exit_code == REFUSED_BY_XL
    assert refused.complaint == (
        f'cgw: guest "web2": port *:{PORT}/tcp is published by guest "web1" of another node '
        "(see: cgw status --cluster); publish another, or stop that guest first"
    )
    assert made.keys() == before
    assert list(made.nodes[2].states()) == ["web1"]
    made.until_closed(OTHER_PORT)
    made.until_open(PORT, "web1")
    assert rival.offline() == DONE  # xl calls it for the guest that it has refused
    assert owner.offline() == DONE
    assert rival.online() == DONE, "the port is free at once"
    made.until_open(PORT, "web2")
    rival.offline()


def test_a_guest_of_libvirt_and_one_of_xl_are_rivals_across_nodes(
    made: RegistryCluster, xl: Xl
) -> None:
    made.guest("web1").start()
    made.until_open(PORT, "web1")
    refused = xl(2, "web2").online()
    assert refused.exit_code == REFUSED_BY_XL
    assert f'port *:{PORT}/tcp is published by guest "web1" of another node' in refused.complaint


def test_without_etcd_a_guest_starts_and_is_open_everywhere_after(
    made: RegistryCluster, xl: Xl
) -> None:
    made.etcd.kill()
    guest = xl(1, "web1")
    assert guest.online() == DONE
    assert made.answers(PORT)[1].startswith("web1 ")
    assert eventually(lambda: made.nodes[1].states().get("web1") == "pending")
    made.mend()
    made.until_open(PORT, "web1")
    guest.offline()
