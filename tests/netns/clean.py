"""That nothing of a guest is left."""

from contextlib import ExitStack
from functools import cache
from pathlib import Path

from tests.lab.namespace import namespace
from tests.netns.node import Node


def assert_clean(node: Node) -> None:
    """No trace of a guest: neither rule nor element, record, claim or bridge user."""
    assert node.files() == {}
    config = node.config_file.read_text() if node.config_file.exists() else ""
    assert node.our_table() in {"", empty_table(config)}
    node.assert_foreign_tables_untouched()


@cache
def empty_table(config: str) -> str:
    """How the kernel lists what `cgw render` makes of a config when nothing is published."""
    with ExitStack() as until_end:
        scratch = until_end.enter_context(namespace("scratch"))
        folder = Path(f"/run/{scratch.name}")
        folder.mkdir()
        until_end.callback(folder.rmdir)
        node = Node(scratch, folder, until_end)
        node.configure(config)
        until_end.callback(node.configure, "")
        node.nft(node.cgw("render").stdout)
        return node.our_table()
