"""conntrackd: its config file, and what it can be asked.

The program itself is its client. Each question has a deadline: a conntrackd that hangs accepts
connections, and never answers.
Source: conntrackd(8), local.c of conntrack-tools.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from cgw_hooks.errors import ReplicationError

#: Debian's place, and others of PATH: a hook's or cron's PATH may lack the sbin folders.
_FOLDERS = "/usr/sbin:/sbin:/usr/local/sbin"
#: Seconds. A commit of 100,000 flows takes about a second.
_DEADLINE, _COMMIT_DEADLINE = 2.0, 10.0
_RECEIVED = re.compile(r"(\d+) Pckts recv")
_DESTROYED = re.compile(r"connections destroyed:\s+(\d+)")
_DESTINATION = re.compile(r" dst=(\S+)")
_MODE = 0o600
_START = "run: systemctl restart cgw-conntrackd"


def program() -> str | None:
    """Return the path of conntrackd; None if it is not installed."""
    return shutil.which("conntrackd") or shutil.which("conntrackd", path=_FOLDERS)


def write_config(path: str, text: str) -> bool:
    """Write the config file; False if it has this text already. Raises ``ReplicationError``."""
    try:
        if read_config(path) == text:
            return False
        new = path + ".new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(new, path)
    except OSError as error:
        raise ReplicationError(
            path, f"it cannot be written: {error.strerror}", "run: cgw node up"
        ) from error
    return True


def read_config(path: str) -> str | None:
    """Return the text of the config file; None if there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def remove_files(*paths: str) -> None:
    """Remove config and lock, if they are there. Raises ``ReplicationError``."""
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ReplicationError(path, f"it cannot be removed: {error.strerror}") from error


class Conntrackd:
    """The daemon that runs with this config file."""

    def __init__(self, config_file: str) -> None:
        self._config_file = config_file

    def received(self) -> int:
        """Return how many packets of other nodes it has received; each sends one a second.

        Raises ``ReplicationError``.
        """
        found = _RECEIVED.search(self._ask("-s", "network"))
        return int(found[1]) if found else 0

    def forgotten(self) -> int:
        """Return how many of this node's flows it has forgotten. Raises ``ReplicationError``."""
        found = _DESTROYED.search(self._ask("-s"))  # the internal cache comes first
        return int(found[1]) if found else 0

    def destinations(self) -> set[str]:
        """Return where the flows go that other nodes know. Raises ``ReplicationError``."""
        return set(_DESTINATION.findall(self._ask("-e", deadline=_COMMIT_DEADLINE)))

    def commit(self) -> None:
        """Make the kernel track the flows of other nodes. Raises ``ReplicationError``.

        A flow is refused if the kernel has another one with the same end.
        """
        self._ask("-c", deadline=_COMMIT_DEADLINE)

    def request_flows(self) -> None:
        """Make all other nodes send all their flows to all. Raises ``ReplicationError``."""
        self._ask("-n")

    def stop(self) -> None:
        """Make it end. Raises ``ReplicationError``, also if it does not run."""
        self._ask("-k")

    def _ask(self, *question: str, deadline: float = _DEADLINE) -> str:
        path = program()
        if path is None:
            raise ReplicationError(
                "conntrackd", "it is not installed", "run: apt install conntrackd"
            )
        try:
            done = subprocess.run(  # noqa: S603  (a fixed program, our own path, fixed words)
                [path, "-C", self._config_file, *question], stdin=subprocess.DEVNULL,
                capture_output=True, check=False, text=True, errors="replace", timeout=deadline,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ReplicationError(
                "conntrackd", f"it has not answered for {deadline:g} s", _START
            ) from None
        except OSError as error:
            raise ReplicationError("conntrackd", f"it cannot be asked: {error.strerror}") from error
        if done.returncode != 0:
            raise ReplicationError("conntrackd", "it does not run", _START)
        return done.stdout
