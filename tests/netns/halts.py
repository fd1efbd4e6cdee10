"""Calls of cgw that stop in the middle (SIGSTOP), as on a machine that swaps, and may go on."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from tests.netns.guest import Guest
from tests.netns.node import CHECKOUT, PYTHON, Node

#: Where a call may stop: before its change of the ruleset (it holds the node's lock), before
#: it reads the ruleset, and before it deletes tracked flows (it holds no lock then).
RULESET, LISTING, FLOWS = "ruleset", "listing", "flows"
#: Before it deletes the flows of a client that is banned.
CLIENT_FLOWS = "client flows"


Text = TypeVar("Text", str, bytes)


@contextmanager
def halted_cgw(
    node: Node, where: str, *arguments: str, libvirt: str = ""
) -> Iterator["subprocess.Popen[str]"]:
    """A call of cgw that has stopped there. At the end of the block it goes on, and must end.

    `libvirt` is the URI of its QEMU driver, if it is not the system's.
    """
    process = subprocess.Popen(
        [*node.namespace.enter_command(), *_program(where, libvirt), *arguments],
        env=node.environment(), cwd="/", text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        yield from _halted(process)


@contextmanager
def halted_hook(guest: Guest, where: str, operation: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A hook call that has stopped there, likewise."""
    guest.hooked.append(operation)
    process = guest.node.start_hook_by(_program(where), guest.name, operation)
    with process:
        assert process.stdin
        process.stdin.write(guest.xml.encode())
        process.stdin.close()
        process.stdin = None
        yield from _halted(process)


def _halted(process: "subprocess.Popen[Text]") -> Iterator["subprocess.Popen[Text]"]:
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            process.returncode = os.waitstatus_to_exitcode(status)
            raise AssertionError(f"it ended before it came so far: {process.communicate()}")
        yield process
        process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate()
        assert "Traceback" not in str(stderr), stderr
    finally:
        if process.returncode is None:
            process.kill()


def _program(where: str, libvirt: str = "") -> tuple[str, ...]:
    return (str(PYTHON), "-I", "-c", _HALTS, str(CHECKOUT), where, libvirt)


_HALTS = """
import os, signal, sys
_, checkout, where, uri, *arguments = sys.argv
sys.path.insert(0, checkout)
from cgw_hooks.commands import cli
from cgw_hooks.host import client_flows, conntrack, libvirt_api
from cgw_hooks.host.nft import Nft

def halts_once_before(function):
    halted = False
    def call(*given, **named):
        nonlocal halted
        if not halted:
            halted = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return function(*given, **named)
    return call

if uri:
    libvirt_api.URIS["qemu"] = uri
if where == "ruleset":
    Nft.apply = halts_once_before(Nft.apply)
elif where == "listing":
    Nft.list_table = halts_once_before(Nft.list_table)
elif where == "flows":
    conntrack.delete_flows = halts_once_before(conntrack.delete_flows)
elif where == "client flows":
    client_flows.delete_flows = halts_once_before(client_flows.delete_flows)
sys.argv = ["cgw", *arguments]
sys.exit(cli.main())
"""
