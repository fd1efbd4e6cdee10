"""Carries out the requests of the test run in dom0, one JSON line after the other.

Dom0's first process runs this program. It communicates through a virtio port, and ends with it.
It also keeps dom0's syslog. It must import only the standard library, and the modules of
`tests.lab` that need nothing else.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.lab import network
from tests.lab.client import Client
from tests.lab.host_init import log_socket, write_message
from tests.lab.namespace import Namespace

DEVICES = Path("/dev")
CLIENT = Namespace("client")
DOM0 = Namespace("dom0")
NODE = network.NodeAddresses(1)


def main() -> None:
    """Wire dom0's network, then serve until the port closes."""
    threading.Thread(target=_keep_syslog, daemon=True).start()
    _wire()
    with next(DEVICES.glob("vport*")).open("r+b", buffering=0) as port:
        _send(port, {"ready": True})
        pending = b""
        while received := port.read(65536):
            pending += received
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                _send(port, _answer(json.loads(line)))


def _send(port: Any, answer: dict[str, Any]) -> None:
    waiting = json.dumps(answer).encode() + b"\n"
    while waiting:
        waiting = waiting[port.write(waiting) :]


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    carry_out: dict[str, Callable[..., Any]] = {"run": _run, "ask": _ask, "write": _write}
    try:
        return {"result": carry_out[request.pop("do")](**request)}
    except Exception as error:  # noqa: BLE001 - raised again where the request came from
        return {"error": f"{type(error).__name__}: {error}"}


def _run(argv: list[str], standard_input: str, seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        argv, input=standard_input, text=True, capture_output=True, timeout=seconds, check=False,
        cwd="/",
    )  # fmt: skip
    return {"code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def _ask(namespace: str, method: str, arguments: list[Any], options: Any) -> dict[str, Any]:
    """Call a method of `Client` in one of dom0's network namespaces."""
    reply = getattr(Client(Namespace(namespace)), method)(*arguments, **options)
    return {**asdict(reply), "outcome": reply.outcome.value}


def _write(path: str, content: str, mode: int) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(mode)


def _wire() -> None:
    """Make dom0 the node of the address plan, with a client beside it in a namespace of its own."""
    subprocess.run(["ip", "netns", "attach", DOM0.name, "1"], check=True)
    subprocess.run(["ip", "netns", "add", CLIENT.name], check=True)
    network.wire_client(CLIENT)
    network.wire_node(DOM0, CLIENT, NODE)


def _keep_syslog() -> None:
    log = log_socket()
    while True:
        write_message(log.recv(65536))


if __name__ == "__main__":
    try:
        main()
    except BaseException as problem:
        sys.stderr.write(f"agent: {problem!r}\n")
        raise
