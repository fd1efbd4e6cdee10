"""Which tests `make test` runs side by side: two at a time, all that share a lab in one process."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.libvirt.conftest import SUITES

#: The tiers in the order of their start: the one that takes longest by itself comes first.
TIERS = ("xen", "cluster", "libvirt", "netns", "scripts", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tiers in order."""
    items.sort(key=lambda item: TIERS.index(tier(item.nodeid)))


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
