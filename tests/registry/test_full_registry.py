"""etcd has no space left, or soon: what is said of it, and what works all the same."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from cgw_hooks.core.etcd.values import Delete, Put
from cgw_hooks.host.etcd.client import Etcd
from tests.lab.etcd import EtcdError
from tests.libvirt.waiting import eventually
from tests.netns.asker import REFUSED
from tests.netns.guest import DONE, annotated
from tests.netns.node import Node
from tests.registry.cluster import RegistryCluster, is_fine, registry_cluster
from tests.registry.hook_client import call

pytestmark = pytest.mark.registry

QUOTA = 4 << 20
CURE = "etcdctl compact, etcdctl defrag, etcdctl alarm disarm"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[RegistryCluster]:
    """Two nodes, and one member whose quota is small."""
    options = (f"--quota-backend-bytes={QUOTA}",)
    with registry_cluster(tmp_path, "bookworm", nodes=2, count=1, options=options) as found:
        yield found


def fill(made: RegistryCluster, times: int) -> None:
    """Write what is none of cgw's keys, and large."""
    for _ in range(times):
        made.etcd.etcdctl("put", "other", "x" * (100 << 10))


def fill_up(made: RegistryCluster) -> None:
    """Write until etcd takes nothing more."""
    with pytest.raises(EtcdError, match="space exceeded"):
        fill(made, 100)


def size(made: RegistryCluster) -> int:
    """The bytes of etcd's database."""
    (found,) = json.loads(made.etcd.etcdctl("endpoint", "status", "-w", "json").stdout)
    return int(found["Status"]["dbSize"])


def cure(made: RegistryCluster) -> None:
    """Do what the problem's cure says."""
    found = made.etcd.etcdctl("get", "other", "-w", "fields").stdout
    revision = found.partition('"Revision" : ')[2].split()[0]
    made.etcd.etcdctl("compact", revision)
    made.etcd.etcdctl("defrag")
    made.etcd.etcdctl("alarm", "disarm")


def test_a_full_registry_closes_ports_and_opens_new_ones_once_it_is_cured(
    made: RegistryCluster,
) -> None:
    made.start_agents()
    first, second = made.nodes.values()
    web1, web2 = made.guest("web1"), made.guest("web2")
    before, after = annotated(web2, "2202:22", "2299:22"), annotated(web2, "2202:22")
    for operation in ("prepare", "started"):
        assert call(first, "web1", operation, web1.xml) == DONE
        assert call(first, "web2", operation, before) == DONE
    made.until_open(2201, "web1")
    made.until_open(2299, "web2")
    fill_up(made)
    # The value of web2 must become a shorter one, which etcd refuses; the key of web1 must go.
    assert call(first, "web2", "reconnect", after) == DONE
    assert eventually(lambda: CURE in said_at(made, 1))
    for operation in ("stopped", "release"):
        assert call(first, "web1", operation, web1.xml) == DONE
    made.until_closed(2201)
    for operation in ("prepare", "started"):
        assert call(second, "web1", operation, web1.xml) == DONE
    assert made.answers(2201)[2].startswith("web1")
    assert made.answers(2299)[1] == REFUSED
    assert eventually(lambda: is_pending(second, 2201))
    for node in (first, second):
        for command in (("status",), ("registry", "status")):
            said = node.cgw(*command, check=False)
            assert said.returncode != 0
            assert CURE in said.stderr
    cure(made)
    made.until_open(2201, "web1")
    made.until_open(2202, "web2")
    made.until_closed(2299)
    for node in (first, second):
        assert eventually(partial(is_fine, node))


def is_pending(node: Node, port: int) -> bool:
    """Whether a node says that the registry has not confirmed a port."""
    rows = [row for row in node.status_rows() if row.get("listen_ports") == [port, port]]
    return bool(rows) and all(row["state"] == "pending" for row in rows)


def test_an_agent_that_starts_beside_a_full_registry_says_so(made: RegistryCluster) -> None:
    fill_up(made)
    made.start_agent(1)
    assert eventually(lambda: CURE in said_at(made, 1))
    assert "alarm NOSPACE" in said_at(made, 1)


def test_a_quota_that_is_nearly_used_up_is_said(made: RegistryCluster) -> None:
    while size(made) < 0.8 * QUOTA:
        fill(made, 1)
    made.start_agent(1)
    assert eventually(lambda: f"of {QUOTA} bytes" in said_at(made, 1)), said_at(made, 1)
    assert CURE in said_at(made, 1)


@pytest.mark.extended
def test_a_history_that_is_never_compacted_is_said(tmp_path: Path) -> None:
    with registry_cluster(tmp_path, "bookworm", nodes=1, count=1) as made:
        config = made.etcd.config()

        def write(thread: int) -> None:
            etcd = Etcd(config)
            for number in range(1300):
                etcd.commit([Put(f"/cgw/other/{thread}", str(number))], seconds=60)
            etcd.commit([Delete(f"/cgw/other/{thread}")], seconds=60)
            etcd.close()

        with made.nodes[1].namespace.entered(), ThreadPoolExecutor(8) as threads:
            list(threads.map(write, range(8)))
        made.start_agent(1)
        assert eventually(lambda: "--auto-compaction-retention=1h" in said_at(made, 1))
        assert "is never compacted" in said_at(made, 1)


def said_at(made: RegistryCluster, number: int) -> str:
    """The problems that a node's status names."""
    return made.nodes[number].cgw("status", check=False).stderr
