"""A real fail2ban-server in a namespace: Debian's package, unpacked and not installed.

An installed package would start a service on the machine, with a jail for the machine's own sshd.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.lab.cache import cached
from tests.lab.namespace import Namespace
from tests.lab.progress import progress

_PACKAGE = "fail2ban"
_LONGEST_START = 120.0


class Fail2banError(Exception):
    """It cannot be fetched or started; the text says why."""


def unpacked() -> Path:
    """The files of the machine's own version, fetched at first use, then cached."""

    def build(folder: Path) -> None:
        with progress("fetching fail2ban"):
            folder.mkdir(parents=True, exist_ok=True)
            # apt may not have its lists, and fetches as a user who cannot write here.
            if not _fetched(folder):
                subprocess.run(["apt-get", "update"], check=False, capture_output=True)
                if not _fetched(folder):
                    raise Fail2banError("apt-get download fail2ban does not work here")
            (package,) = folder.glob("*.deb")
            subprocess.run(["dpkg", "-x", str(package), str(folder / "root")], check=True)

    release = Path("/etc/os-release").read_text(encoding="utf-8")
    return cached(_PACKAGE, [release], build) / "root"


def _fetched(folder: Path) -> bool:
    done = subprocess.run(
        ["apt-get", "download", _PACKAGE], cwd=folder, check=False, capture_output=True
    )
    return done.returncode == 0


class Fail2ban:
    """A server that runs. `folder` has its config, log and socket."""

    def __init__(self, network: Namespace, folder: Path, environment: Mapping[str, str]) -> None:
        self._network, self._folder, self._environment = network, folder, environment
        self._root = unpacked()
        self.config = folder / "config"
        self.log = folder / "fail2ban.log"
        shutil.copytree(self._root / "etc/fail2ban", self.config)
        (self.config / "jail.d/defaults-debian.conf").unlink()
        (self.config / "fail2ban.local").write_text(
            # By itself it looks up the name of the host, which has an IPv6 address perhaps.
            f"[Definition]\nallowipv6 = yes\nlogtarget = {self.log}\ndbfile = {folder}/database\n"
        )

    def add_examples(self, examples: Path) -> None:
        """Install what docs/examples/fail2ban has."""
        shutil.copytree(examples, self.config, dirs_exist_ok=True)

    def client(self, *arguments: str) -> str:
        """Run fail2ban-client. Raises ``CalledProcessError``."""
        return self._network.run(
            self._command("fail2ban-client", *arguments), env=self._environment_of_it()
        ).stdout

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The server, which has started its jails; ended at the end of the block."""
        command = self._command("fail2ban-server", "-f", "-x", "start")
        process = subprocess.Popen(
            [*self._network.enter_command(), *command], env=self._environment_of_it(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            self._wait_until_ready(process)
            yield process
        finally:
            process.terminate()
            process.wait()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _LONGEST_START
        while True:
            try:
                self.client("ping")
            except subprocess.CalledProcessError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    said = self.log.read_text() if self.log.exists() else error.stderr
                    raise Fail2banError(said) from error
                time.sleep(0.2)
            else:
                return

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [
            sys.executable, str(self._root / "usr/bin" / program),
            "-c", str(self.config), "-s", str(self._folder / "socket"),
            "-p", str(self._folder / "pid"), *arguments,
        ]  # fmt: skip

    def _environment_of_it(self) -> dict[str, str]:
        modules = self._root / "usr/lib/python3/dist-packages"
        return {**self._environment, "PYTHONPATH": str(modules)}
