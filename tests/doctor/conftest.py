"""The network of tests/netns, for hosts that are then broken."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.namespace import sweep_namespaces
from tests.needs import fail_without
from tests.netns.asker import Asker
from tests.netns.conftest import NodeMaker, uplink_client, uplink_node
from tests.netns.node import CGW, Node

_NEEDED_PROGRAMS = (
    "ip", "nft", "nsenter", "iptables", "ip6tables", "iptables-legacy",
    # For the host with libvirtd, and for ufw.
    "unshare", "mmdebstrap", "gcc", "lz4", "zstd", "make",
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Fail with one line if the machine lacks something for this tier."""
    fail_without("doctor", "the doctor tier makes network namespaces", _NEEDED_PROGRAMS, called=CGW)
    sweep_namespaces()


@pytest.fixture
def client() -> Iterator[Asker]:
    """The client outside, 192.168.122.100."""
    with uplink_client() as made:
        yield made


@pytest.fixture
def make_node(client: Asker, tmp_path: Path) -> Iterator[NodeMaker]:
    """Make the node: `make_node(FULL_NAT)`, or without a config file."""
    with ExitStack() as until_end:

        def make(config: str = "", program: Path = CGW) -> Node:
            return until_end.enter_context(uplink_node(client, tmp_path, config, program))

        yield make
