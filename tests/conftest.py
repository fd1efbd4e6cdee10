"""Which tests `make test` runs: pairs of parameters, and two labs side by side.

Tests that share a lab run in one process. With `--full`, all products of parameters are run.
"""

import os
from collections import defaultdict

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests import full
from tests.libvirt.conftest import SUITES
from tests.pairwise import cover

#: The tiers in the order of their start: the one that takes longest by itself comes first.
TIERS = ("xen", "cluster", "libvirt", "systemd", "netns", "scripts", "unit")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--full`."""
    parser.addoption(
        "--full", action="store_true",
        help="run all products of parameters, and a new interpreter for each hook call",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Tell the tests' helpers, and the workers that this process starts."""
    if config.getoption("full"):
        os.environ[full.VARIABLE] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave every pair of parameters in, and put the tiers in order."""
    if not full.is_full():
        left_out = beyond_pairs(items)
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: TIERS.index(tier(item.nodeid)))


def beyond_pairs(items: list[pytest.Item]) -> set[pytest.Item]:
    """The tests whose every pair of parameters is in another test of the same function."""
    functions = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            functions[item.nodeid.partition("[")[0]].append(item)
    left_out: set[pytest.Item] = set()
    for group in functions.values():
        chosen = set(cover([item.callspec.indices for item in group]))
        left_out.update(item for place, item in enumerate(group) if place not in chosen)
    return left_out


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Hand out whole labs."""
    return LabScheduling(config, log)


class LabScheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """As xdist's own, by lab instead of by module or class."""

    def _split_scope(self, nodeid: str) -> str:
        return lab(nodeid)


def tier(nodeid: str) -> str:
    """The folder of a test ("tests/netns/test_article.py::test_arp[ours]")."""
    return nodeid.split("/")[1]


def lab(nodeid: str) -> str:
    """What a test shares with others: a lab, or the networks of its module."""
    if tier(nodeid) == "netns":
        return nodeid.partition("::")[0]
    suites = [suite for suite in SUITES if suite in nodeid.partition("::")[2]]
    return "-".join([tier(nodeid), *suites])
