"""Which tests `make test` runs, and which of them side by side.

Without `--full`, these are left out: tests that are marked `extended`; tests on the second Debian
that are not marked `on_both_suites`; products of parameters beyond all pairs. Tests that share a
lab run in one process.
"""

import os
from collections import defaultdict
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests import full
from tests.libvirt.conftest import MODULES_WITH_OWN_LABS, SUITES
from tests.pairwise import cover

#: The tiers in the order of their start: the one that takes longest by itself comes first.
TIERS = (
    "host", "xen", "libvirt", "cluster", "systemd", "packaging", "registry", "failover",
    "return_path", "netns", "doctor", "scripts", "unit",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--full`."""
    parser.addoption(
        "--full", action="store_true",
        help="run all tests, with all products of parameters, and a new interpreter for each call",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Tell the tests' helpers, and the workers that this process starts."""
    if config.getoption("full"):
        os.environ[full.VARIABLE] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only a full run needs, and put the tiers in order."""
    if not full.is_full():
        left_out = {item for item in items if is_extended(item)}
        left_out |= beyond_pairs([item for item in items if item not in left_out])
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: TIERS.index(tier(item.nodeid)))


def is_extended(item: pytest.Item) -> bool:
    """Whether only `make test-all` runs this test."""
    _, *others = SUITES
    on_other = any(suite in item.name for suite in others)
    on_both = item.get_closest_marker("on_both_suites") is not None
    return item.get_closest_marker("extended") is not None or (on_other and not on_both)


def beyond_pairs(items: list[pytest.Item]) -> set[pytest.Item]:
    """The tests whose every pair of parameters is in another test of the same function."""
    functions = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            functions[item.nodeid.partition("[")[0]].append(item)
    left_out: set[pytest.Item] = set()
    for group in functions.values():
        # callspec.indices is of no use: from pytest 9.2, each test has an index of its own there.
        ids = [item.callspec._idlist for item in group]  # noqa: SLF001
        chosen = set(cover([{str(place): name for place, name in enumerate(i)} for i in ids]))
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
    if tier(nodeid) in {"host", "xen"}:  # one emulator of a whole machine at a time
        return "emulators"
    module, _, name = nodeid.partition("::")
    suites = [suite for suite in SUITES if suite in name]
    has_own_labs = Path(module).stem in MODULES_WITH_OWN_LABS
    own_networks = {"netns", "doctor", "cluster", "packaging", "failover"}
    shares_nothing = has_own_labs or tier(nodeid) in own_networks
    place = module if shares_nothing else tier(nodeid)
    return "-".join([place, *suites])
