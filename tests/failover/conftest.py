"""The cluster of this tier, made anew for each test: a dead node stays dead."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cgw_hooks.core.node_config import CT_SYNC, FULL_NAT, STEER
from tests.failover.cluster import Failover, open_failover
from tests.lab.namespace import sweep_namespaces
from tests.needs import fail_without
from tests.netns.node import CGW
from tests.return_path.cluster import CHAIN

TIER = "tests/failover/"
RETURN_PATHS = (FULL_NAT, STEER, CT_SYNC)
_NEEDED_PROGRAMS = ("ip", "nft", "nsenter", "conntrackd", "keepalived")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave three of the six combinations of return path and IP family to a full run.

    Each death takes some seconds.
    """
    for item in items:
        values = getattr(item, "callspec", None) and item.callspec.params  # type: ignore[attr-defined]
        if values and values.keys() == {"failover", "family"}:
            usual = {(FULL_NAT, 4), (STEER, 6), (CT_SYNC, 4)}
            if (values["failover"], values["family"]) not in usual and item.nodeid.startswith(TIER):
                item.add_marker(pytest.mark.extended)


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Fail with one line if the machine lacks something for this tier."""
    fail_without("failover", "this tier makes network namespaces", _NEEDED_PROGRAMS, called=CGW)
    sweep_namespaces()


@pytest.fixture(params=RETURN_PATHS)
def failover(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Failover]:
    """Three nodes whose flows are replicated."""
    with open_failover(tmp_path, request.param, CHAIN) as made:
        yield made


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> int:
    """The IP family."""
    return int(request.param)
