"""A real etcd: members in network namespaces of their own, on a network of their own.

    member etcd1      member etcd2      member etcd3      whoever joins
    10.99.0.1         10.99.0.2         10.99.0.3         10.99.0.101 ...
        └────────────────┴────── switch ────┴─────────────────┘

The programs are those of a Debian suite (tests/lab/etcd_root.py), with that Debian's defaults. The
data are in memory, in a mount namespace that ends with the process that made it.
"""

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cgw_hooks.core.node_config import Registry
from tests.lab import etcd_certificates
from tests.lab.etcd_member import DATA, LONGEST_WAIT, PATH, Member, Port
from tests.lab.etcd_root import etcd_root
from tests.lab.namespace import PREFIX, Namespace, namespace, owner_is_gone, sweep_namespaces

KEYS = "/cgw"
USER, PASSWORD = "cgw", "of the nodes"
ROOT_PASSWORD = "of the admin"  # noqa: S105 - of a throw-away etcd
_SWITCH_ADDRESS = "address add 10.99.0.254/24 dev switch"
_SNAPSHOT = DATA / "snapshot"
_HOLD = 'mount -t tmpfs none "$1"; mkdir "$1/tls"; mount --bind "$2" "$1/tls"; echo; exec cat'

_numbers = itertools.count(1)
"""Of the clusters of this process: several may be open at once."""


class EtcdError(Exception):
    """A member or a command failed; the text has what it said."""


class EtcdCluster:
    """Members, and the network between them and whoever joins."""

    def __init__(  # noqa: PLR0913 - what `open_etcd` puts together
        self,
        root: Path,
        folder: Path,
        switch: Namespace,
        *,
        is_tls: bool,
        has_auth: bool,
        options: Sequence[str],
    ) -> None:
        self.folder, self.is_tls, self.has_auth = folder, is_tls, has_auth
        self.options = [*options, *(_tls_options() if is_tls else ())]
        self.members: list[Member] = []
        self._root, self._switch = root, switch
        self._guests = itertools.count(101)
        self._is_auth_on = False
        (folder / "tls").mkdir()
        # It has the members' file systems; they end when it does, and that when this process does.
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount",
             "sh", "-ec", _HOLD, "sh", f"{root}{DATA}", str(folder / "tls")],
            start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def set_up(self) -> None:
        """Wait for the file systems, and write the files of members and nodes."""
        assert self._holder.stdout
        if not self._holder.stdout.readline():
            raise EtcdError("the file system for the data could not be mounted")
        if self.is_tls:
            addresses = [member.port.address for member in self.members]
            etcd_certificates.make_certificates(self.folder / "tls", ["127.0.0.1", *addresses])
        password = self.folder / "password"
        password.write_text(f"{PASSWORD}\n")
        password.chmod(0o600)

    def end(self) -> None:
        """Kill all members, and end the file systems."""
        self.kill()
        for stream in (self._holder.stdin, self._holder.stdout):
            assert stream
            stream.close()
        self._holder.wait(LONGEST_WAIT)

    # -- who takes part ----------------------------------------------------------------------

    def join(self, inside: Namespace) -> Port:
        """Give a namespace a device (DEVICE) on this network."""
        return Port(inside, self._switch, next(self._guests))

    def add(self, inside: Namespace) -> None:
        """Add a member to a cluster that was not started yet."""
        number = len(self.members) + 1
        log = self.folder / f"etcd{number}.log"
        port = Port(inside, self._switch, number)
        self.members.append(
            Member(number, port, is_tls=self.is_tls, log=log, command=self._member_command)
        )

    def config(self, of: Member | None = None, *, certificate: str = "node") -> Registry:
        """The `[registry]` of a node whose own member is `of` (default: the first one)."""
        first = of or self.members[0]
        others = [member for member in self.members if member is not first]
        found = Registry(tuple(member.endpoint for member in (first, *others)), prefix=KEYS)
        if self.is_tls:
            found = found._replace(
                ca=str(self.tls_file("ca.pem")),
                certificate=str(self.tls_file(f"{certificate}.pem")),
                key=str(self.tls_file(f"{certificate}.key")),
            )
        if self.has_auth:
            found = found._replace(user=USER, password_file=str(self.folder / "password"))
        return found

    def tls_file(self, name: str) -> Path:
        """A file that `etcd_certificates` has made."""
        return self.folder / "tls" / name

    # -- the whole cluster -------------------------------------------------------------------

    def start(self) -> None:
        """Start all members that do not run, and wait until they serve."""
        for member in self.members:
            if not member.is_running:
                member.start()
        self.wait_until_served()

    def mend(self) -> None:
        """Undo all that was done to members; all serve in the end."""
        broken = [member for member in self.members if not member.is_whole]
        for member in broken:
            if not member.port.is_whole:
                member.port.mend()
            if member.is_paused:
                member.resume()
        if broken:
            self.start()

    def kill(self) -> None:
        """Kill all members."""
        for member in self.members:
            member.kill()

    def wait_until_served(self) -> None:
        """Wait until each running member answers, which needs most members. Raises EtcdError."""
        deadline = time.monotonic() + LONGEST_WAIT
        while self.etcdctl("endpoint", "health", check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise EtcdError(
                    "\n".join(member.log.read_text()[-2000:] for member in self.members)
                )
            time.sleep(0.05)

    def leader(self) -> Member:
        """The member that leads; waits until there is one that answers."""
        deadline = time.monotonic() + LONGEST_WAIT
        while time.monotonic() < deadline:
            said = self.etcdctl("endpoint", "status", "-w", "json", check=False).stdout
            for found in json.loads(said or "[]"):
                status = found["Status"]
                if status["leader"] == status["header"]["member_id"]:
                    return next(m for m in self.members if str(m.endpoint) == found["Endpoint"])
            time.sleep(0.05)
        raise EtcdError("no member leads")

    def followers(self) -> list[Member]:
        """The other members."""
        leader = self.leader()
        return [member for member in self.members if member is not leader]

    def wipe(self) -> None:
        """Kill all members, and delete all data. A new cluster has another id."""
        self.kill()
        for member in self.members:
            shutil.rmtree(self._seen(member.data))

    def snapshot(self) -> None:
        """Make a backup, as an admin does, for `restore`."""
        self.etcdctl("snapshot", "save", str(_SNAPSHOT), members=self.members[:1])

    def restore(self) -> None:
        """Go back to the backup, as an admin does; all members serve again in the end."""
        self.wipe()
        for member in self.members:
            self.etcdctl(
                "snapshot", "restore", str(_SNAPSHOT), "--data-dir", str(member.data),
                "--name", member.name, "--initial-cluster", self._peers(),
                "--initial-advertise-peer-urls", member.peer_url, members=(),
            )  # fmt: skip
        self.start()

    def etcdctl(
        self,
        *arguments: str,
        given: str | None = None,
        check: bool = True,
        members: Sequence[Member] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run etcdctl as the admin against these members (default: all that run).

        `given` is its stdin, for example a value that no command line can have. Raises EtcdError
        when it fails (and `check`).
        """
        asked = [m for m in self.members if m.is_running] if members is None else members
        options = ["--endpoints", ",".join(str(member.endpoint) for member in asked)]
        if self.is_tls:
            paths = ("cacert", "ca.pem"), ("cert", "node.pem"), ("key", "node.key")
            options += [f"--{name}={DATA}/tls/{file}" for name, file in paths]
        if self._is_auth_on:
            options += ["--user", f"root:{ROOT_PASSWORD}"]
        done = subprocess.run(
            [*self._inside(self._switch), "etcdctl", *(options if asked else ()), *arguments],
            text=True, check=False, capture_output=True, timeout=LONGEST_WAIT, input=given,
            env={**PATH, "ETCDCTL_API": "3"},
        )  # fmt: skip
        if check and done.returncode != 0:
            raise EtcdError(f"etcdctl {' '.join(arguments)}: {done.stderr.strip()}")
        return done

    def turn_auth_on(self) -> None:
        """Make the admin's user, and the nodes' one, which may read and write KEYS alone."""
        for command in (
            ("user", "add", f"root:{ROOT_PASSWORD}"),
            ("role", "add", "nodes"),
            ("role", "grant-permission", "--prefix=true", "nodes", "readwrite", f"{KEYS}/"),
            ("user", "add", f"{USER}:{PASSWORD}"),
            ("user", "grant-role", USER, "nodes"),
            ("auth", "enable"),
        ):
            self.etcdctl(*command)
        self._is_auth_on = True

    def _member_command(self, network: Namespace, program: Sequence[str]) -> list[str]:
        return [*self._inside(network), *program, "--initial-cluster", self._peers(), *self.options]

    def _peers(self) -> str:
        """What etcd calls the initial cluster."""
        return ",".join(f"{member.name}={member.peer_url}" for member in self.members)

    def _inside(self, network: Namespace) -> list[str]:
        """The start of a command line that runs a program of the root in a namespace."""
        mounts = f"--mount=/proc/{self._holder.pid}/ns/mnt"
        return ["nsenter", f"--net={network.path}", mounts, "--", "chroot", str(self._root)]

    def _seen(self, path: Path) -> Path:
        """A file of the members as this process sees it."""
        return Path(f"/proc/{self._holder.pid}/root{self._root}{path}")


@contextmanager
def open_etcd(
    suite: str,
    count: int = 3,
    *,
    tls: bool = False,
    auth: bool = False,
    options: Sequence[str] = (),
) -> Iterator[EtcdCluster]:
    """A cluster of this suite's etcd, which serves; nothing of it is left at the end of the block.

    `options` are further arguments of each member.
    """
    root = etcd_root(suite)
    sweep()
    label = f"etcd{next(_numbers)}"
    with ExitStack() as until_end:
        made = tempfile.TemporaryDirectory(prefix=f"{PREFIX}-{os.getpid()}-{label}-")
        folder = Path(until_end.enter_context(made))
        switch = until_end.enter_context(namespace(f"{label}-switch"))
        switch.ip(f"link add switch type bridge\nlink set switch up\n{_SWITCH_ADDRESS}")
        cluster = EtcdCluster(root, folder, switch, is_tls=tls, has_auth=auth, options=options)
        until_end.callback(cluster.end)
        for number in range(1, count + 1):
            cluster.add(until_end.enter_context(namespace(f"{label}-{number}")))
        cluster.set_up()
        cluster.start()
        if auth:
            cluster.turn_auth_on()
        yield cluster


def sweep() -> None:
    """Remove what killed runs (SIGKILL) have left; this does not touch living runs."""
    sweep_namespaces()
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*-etcd*"):
        if owner_is_gone(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _tls_options() -> list[str]:
    folder = f"{DATA}/tls"
    authority, certificate = f"{folder}/ca.pem", f"{folder}/member"
    return [
        f"--{role}{option}"
        for role in ("", "peer-")
        for option in (
            f"cert-file={certificate}.pem", f"key-file={certificate}.key",
            f"trusted-ca-file={authority}", "client-cert-auth",
        )
    ]  # fmt: skip
