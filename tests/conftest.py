"""Which tests `make test` runs side by side: two at a time, each lab in one process."""

import pytest

from tests.libvirt.conftest import SUITES

#: The tiers in the order of their start: the one that takes longest by itself comes first.
TIERS = ("xen", "cluster", "libvirt", "netns", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tiers, and keep together what shares a lab."""
    items.sort(key=lambda item: TIERS.index(tier(item)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(lab(item)))


def tier(item: pytest.Item) -> str:
    """The folder that a test is in."""
    return item.path.parent.name


def lab(item: pytest.Item) -> str:
    """What a test shares with others: a lab, or the networks of its module."""
    if tier(item) == "netns":
        return item.path.stem
    suites = [suite for suite in SUITES if suite in item.name]
    return "-".join([tier(item), *suites])
