"""Real ways in which a node's parts fail under the hook."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.netns.node import OUR_TABLE, PYTHON, Node


@contextmanager
def owned_table(node: Node) -> Iterator[None]:
    """A table of our name that is another process's own: the kernel lets nobody else change it."""
    holder = subprocess.Popen(
        [*node.namespace.enter_command(), str(PYTHON), "-I", "-c", _OWN_A_TABLE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == "owned\n"
        yield
        holder.communicate()


_OWN_A_TABLE = f"""
import sys, nftables
nft = nftables.Nftables()
new = "add table {OUR_TABLE}; delete table {OUR_TABLE}; add table {OUR_TABLE} {{ flags owner; }}"
print(nft.cmd(new)[2] or "owned", flush=True)
sys.stdin.read()
"""
