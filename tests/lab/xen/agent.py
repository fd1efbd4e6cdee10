"""Carries out the requests of the test run in dom0, as `tests.lab.emulator.agent` does.

It also wires dom0's network, keeps its syslog, and asks as a client beside it. It must import only
the standard library, and the modules of `tests.lab` that need nothing else.
"""

import subprocess
import sys
import threading
from dataclasses import asdict
from typing import Any

from tests.lab import network
from tests.lab.client import Client
from tests.lab.emulator.agent import serve
from tests.lab.host_init import log_socket, write_message
from tests.lab.namespace import Namespace

CLIENT = Namespace("client")
DOM0 = Namespace("dom0")
NODE = network.NodeAddresses(1)


def main() -> None:
    """Wire dom0's network, then serve until the machine ends."""
    threading.Thread(target=_keep_syslog, daemon=True).start()
    _wire()
    serve({"ask": _ask})


def _ask(namespace: str, method: str, arguments: list[Any], options: Any) -> dict[str, Any]:
    """Call a method of `Client` in one of dom0's network namespaces."""
    reply = getattr(Client(Namespace(namespace)), method)(*arguments, **options)
    return {**asdict(reply), "outcome": reply.outcome.value}


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
