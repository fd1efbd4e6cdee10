"""Starts Python programs by forking a process that has their modules loaded.

A new interpreter costs 60 to 130 ms of a core for each hook call and each echo server of the
netns tier, and there are thousands of these. `tests.lab.forked` runs this program; no other
module knows its messages. Each message is a JSON line with four file descriptors: the program's
stdin, stdout and stderr, and a pipe for its process id and then its exit status.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import selectors
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

_LONGEST_MESSAGE = 65536
_CLONE_NEWNET = 0x40000000
_FIRST_OTHER_DESCRIPTOR = 3
_MOST_DESCRIPTORS = 65536
_DESCRIPTORS = 4

Program = Callable[[], object]

#: Objects of the server whose descriptors a child has closed.
_KEPT: list[object] = []


def main(checkout: str, *modules: str) -> None:
    """Serve the socket that is standard input until it closes; in a child, be the program."""
    sys.path.insert(0, checkout)
    for module in modules:
        _load(module)
    gc.freeze()  # children leave the objects of these modules alone, and their pages shared
    control = socket.socket(fileno=os.dup(0))
    program = _serve(control)
    if program:
        _run(program)


def _run(program: Program) -> NoReturn:
    """Run it as its own launcher does, less the end of an interpreter with so many modules."""
    # The server's own streams remember what its outputs were, a file perhaps.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, errors="backslashreplace")  # noqa: SIM115
    try:
        sys.exit(program())  # type: ignore[arg-type]
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as the interpreter does at the top
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _load(name: str) -> None:
    """Import a module; of "package.*" everything that is in it."""
    package, all_of_it, _ = name.partition(".*")
    found = importlib.import_module(package)
    if all_of_it:
        for module in pkgutil.walk_packages(found.__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def _serve(control: socket.socket) -> Program | None:
    """Fork for each message. None when the socket closes; in a child, the program to run."""
    waiting = selectors.DefaultSelector()
    waiting.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is not control:
                _report(waiting, key)
                continue
            text, descriptors, _, _ = socket.recv_fds(control, _LONGEST_MESSAGE, _DESCRIPTORS)
            if not text:
                return None
            message = json.loads(text)
            child = os.fork()
            if child == 0:
                # Else they would close, as they go, what the program opens by their numbers.
                _KEPT.extend((waiting, control))
                return _become(message, descriptors)
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            _tell(descriptors[3], child)
            waiting.register(os.pidfd_open(child), selectors.EVENT_READ, (child, descriptors[3]))


def _report(waiting: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """Tell how a child ended, as `subprocess` counts: a signal is negative."""
    child, report = key.data
    _, status = os.waitpid(child, 0)
    waiting.unregister(key.fileobj)
    os.close(key.fd)
    _tell(report, os.waitstatus_to_exitcode(status))
    os.close(report)


def _tell(report: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the caller is gone
        os.write(report, b"%d\n" % number)


def _become(message: dict[str, Any], descriptors: list[int]) -> Program:
    """Make this child the process that the program expects."""
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    os.closerange(_FIRST_OTHER_DESCRIPTOR, _MOST_DESCRIPTORS)
    os.setsid()
    _enter(message["network"])
    os.environ.clear()
    os.environ.update(message["environment"])
    os.chdir(message["folder"])
    sys.argv = message["arguments"]
    if message["code"]:
        return lambda: exec(message["code"], {"__name__": "__main__"})  # noqa: S102
    module, _, function = message["program"].partition(":")
    program: Program = getattr(importlib.import_module(module), function)
    return program


def _enter(network: str) -> None:
    descriptor = os.open(network, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns", network)
    os.close(descriptor)


if __name__ == "__main__":
    main(*sys.argv[1:])
