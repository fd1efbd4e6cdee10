"""Real ways in which a node's parts fail under the hook."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.netns.guest import Guest
from tests.netns.node import CHECKOUT, OUR_TABLE, PYTHON, Node


@contextmanager
def owned_table(node: Node) -> Iterator[None]:
    """A table named like that of cgw, owned by another process: nobody else can change it."""
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


def hook_killed_at(
    step: int, guest: Guest, operation: str, reason: str = "-", *, xml: str | None = None
) -> str:
    """Kill a hook call (SIGKILL) before its n-th step; return that step's name.

    A step is a change that outlives the process: of a file, the ruleset, tracked flows or
    another firewall. The name is empty if the call ended before this step.
    """
    guest.hooked.append(operation)
    process = guest.node.start_hook(guest.name, operation, reason, code=_killed_at(step))
    _, said = process.communicate((xml or guest.xml).encode())
    return _died_at(process.wait(), said)


def cgw_killed_at(step: int, node: Node, *arguments: str, given: str = "") -> str:
    """Kill any call of cgw in the same way; `given` is its stdin."""
    process = node.start_cgw(*arguments, code=_killed_at(step))
    _, said = process.communicate(given.encode())
    return _died_at(process.wait(), said)


def sync_killed_at(step: int, node: Node) -> str:
    """Kill `cgw sync` in the same way."""
    return cgw_killed_at(step, node, "sync")


def _killed_at(step: int) -> str:
    return f"checkout, left = {str(CHECKOUT)!r}, {step}\n{_KILLED}"


def _died_at(code: int, said: bytes) -> str:
    if code == -signal.SIGKILL:
        return said.decode()
    assert b"Traceback" not in said, said.decode()
    return ""


# sys.audit tells of a change before it is made; libnftables, which it does not see, is told of
# by the one function that calls it.
_KILLED = """
import os, signal, socket, sys
run = os.environ["CGW_RUNTIME_DIR"]
NETFILTER = 12  # NETLINK_NETFILTER: other sockets only ask
sys.path.insert(0, checkout)

def step(name):
    global left
    left -= 1
    if left == 0:
        os.write(2, name.encode())
        os.kill(os.getpid(), signal.SIGKILL)

def audit(event, given):
    if event in {"os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.symlink", "open"}:
        if isinstance(given[0], int):
            return  # a pipe that is open already
        path = os.fsdecode(given[1 if event in {"os.rename", "os.symlink"} else 0])
        writes = event != "open" or given[2] & (os.O_WRONLY | os.O_RDWR)
        if not path.startswith(run) or not writes or changes_nothing(event, path):
            return
        step(event.removeprefix("os.") + " " + os.path.relpath(path, run).partition("/")[0])
    elif event == "socket.__new__" and given[1] == socket.AF_NETLINK and given[3] == NETFILTER:
        step("flows")
    elif event == "os.posix_spawn":
        step("firewall")

def changes_nothing(event, path):
    there = os.path.lexists(path)
    return not there if event in {"os.remove", "os.rmdir"} else there and event == "os.mkdir"

def dies_before(function):
    def call(self, text):
        step("ruleset")
        return function(self, text)
    return call

from cgw_hooks.host.nft import Nft
from cgw_hooks.commands import cli
Nft.apply = dies_before(Nft.apply)
sys.addaudithook(audit)
sys.exit(cli.main())
"""
