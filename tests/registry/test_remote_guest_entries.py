"""From [[remote-guest]] entries to the registry: while both exist, the registry's word counts."""

import re
from pathlib import Path

import pytest

from tests.lab import domain
from tests.libvirt.waiting import eventually
from tests.registry.cluster import registry_cluster

pytestmark = pytest.mark.registry

ENTRY = """
[[remote-guest]]
name = "web1"
{uuid}
address = "10.5.5.21"
publish = ["2299:22"]
"""


@pytest.mark.parametrize("has_uuid", [True, False])
def test_what_the_registry_says_of_a_guest_replaces_its_entry(
    tmp_path: Path, *, has_uuid: bool
) -> None:
    uuid = f'uuid = "{domain.guest_uuid(21)}"' if has_uuid else ""
    with registry_cluster(tmp_path, "bookworm", nodes=2) as made:
        node = made.nodes[2]
        config = node.folder / "cgw.toml"
        config.write_text(config.read_text() + ENTRY.format(uuid=uuid))
        made.start_agents()
        assert eventually(lambda: made.answers(2299)[2].startswith("web1"))
        made.guest("web1").start()
        assert eventually(lambda: made.answers(2201)[2].startswith("web1"))
        assert eventually(lambda: not made.answers(2299)[2].startswith("web1"))
        status = node.cgw("status")
        assert "not published" not in status.stdout
        assert set(re.findall(r":(\d+)/", status.stdout)) == {"2201"}
        made.guest("web1").stop("shutdown")
        assert eventually(lambda: made.answers(2299)[2].startswith("web1"))
        assert not made.answers(2201)[2].startswith("web1")
