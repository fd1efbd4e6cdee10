"""Carries out the requests of a test run inside an emulated machine, one JSON line after the other.

It communicates through a virtio port. While nobody has opened the port outside, as after a
resumption, the port gives nothing to read. This file may be all that the machine has of the lab: it
must import only the standard library.
"""

import base64
import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DEVICES = Path("/dev")


def serve(more: Mapping[str, Callable[..., Any]]) -> None:
    """Serve until the machine ends. `more` are requests beyond those of every machine."""
    carry_out: dict[str, Callable[..., Any]] = {
        "run": _run, "write": _write, "unpack": _unpack, **more,
    }  # fmt: skip
    with next(DEVICES.glob("vport*")).open("r+b", buffering=0) as port:
        _send(port, {"ready": True})
        pending = b""
        while True:
            received = port.read(65536)
            if not received:
                time.sleep(0.05)
            pending += received
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                _send(port, _answer(carry_out, json.loads(line)))


def _send(port: Any, answer: dict[str, Any]) -> None:
    waiting = json.dumps(answer).encode() + b"\n"
    while waiting:
        waiting = waiting[port.write(waiting) :]


def _answer(carry_out: Mapping[str, Callable[..., Any]], request: dict[str, Any]) -> dict[str, Any]:
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


def _write(path: str, content: str, mode: int) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(mode)


def _unpack(archive: str) -> None:
    """Write the files of a tar archive (gzip, base64) below the root."""
    packed = io.BytesIO(base64.b64decode(archive))
    with tarfile.open(fileobj=packed, mode="r:gz") as tar:
        tar.extractall("/")  # noqa: S202 - the test run packed it


if __name__ == "__main__":
    serve({})
