"""The cluster of these tests: three nodes in a ring, and a client.

client ------- uplink 192.168.122.0/24 ---+--- .11 node1 .251 ---+   ring, 10.5.5.0/24,
.100                                      +--- .12 node2 .252 ---+   .254 on every node
                                          +--- .13 node3 .253 ---+
"""

from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster, open_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three gateways and a client."""
    with open_cluster() as opened:
        yield opened
