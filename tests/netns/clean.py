"""Checks that nothing of a guest is left, and that the ruleset is what the records say."""

import shutil
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from cgw_hooks.host.state.index import entries
from tests.lab.namespace import namespace
from tests.netns.node import Node


def assert_clean(node: Node) -> None:
    """Assert that no rule, element, record or index entry of a guest is left."""
    assert node.files() == {}
    config = node.config_file.read_text() if node.config_file.exists() else ""
    assert node.our_table() in {"", empty_table(config, is_down=node.state.is_gateway_down())}
    node.assert_foreign_tables_untouched()


def assert_as_recorded(node: Node, *, leftovers: bool = False) -> None:
    """Assert that ruleset and index are what `cgw render` and the records say."""
    assert node.our_table() == as_listed(node.cgw("render").stdout)
    records, unreadable = node.state.all()
    assert unreadable == {}
    wanted = {f"index/{entry}" for record in records.values() for entry in entries(record)}
    there = {path for path in node.files() if path.startswith("index/")}
    assert wanted == (there & wanted if leftovers else there)


@cache
def empty_table(config: str, *, is_down: bool = False) -> str:
    """Return how the kernel lists the output of `cgw render` if nothing is published.

    `is_down` means after `cgw node down`.
    """
    with ExitStack() as until_end:
        scratch = until_end.enter_context(namespace("scratch"))
        folder = Path(f"/run/{scratch.name}")
        folder.mkdir()
        until_end.callback(folder.rmdir)
        node = Node(scratch, folder, until_end)
        node.configure(config)
        if is_down:
            node.state.mark_gateway(down=True)
            until_end.callback(shutil.rmtree, node.runtime)
        until_end.callback(node.configure, "")
        return as_listed(node.cgw("render").stdout)


@cache
def as_listed(ruleset: str) -> str:
    """Return how the kernel lists the table of cgw after nft has applied this text."""
    with namespace("listing") as inside, ExitStack() as until_end:
        node = Node(inside, Path("/none"), until_end)
        node.nft(ruleset)
        return node.our_table()
