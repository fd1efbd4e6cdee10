"""The blocks of docs/cluster.md, carried out on the etcd of each Debian: what they make works."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from cgw_hooks.core.etcd.values import Member as MemberState
from cgw_hooks.core.etcd.values import Put
from cgw_hooks.core.node_config import Registry
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.client import Etcd
from tests.documents import block
from tests.lab.etcd import EtcdCluster
from tests.lab.etcd_member import DATA, LONGEST_WAIT, PATH, Port
from tests.lab.etcd_root import etcd_root
from tests.lab.namespace import Namespace, namespace
from tests.libvirt.waiting import eventually

pytestmark = pytest.mark.registry

NUMBERS = (1, 2, 3)
TLS = f"{DATA}/tls"
#: Places of the document -> those of the lab, whose network has other addresses.
PLACES = {
    "10.0.0.": "10.99.0.",
    "/var/lib/etcd/default": f"{DATA}/node1",
    "/var/backups/": f"{DATA}/",
    "/etc/etcd/node": f"{TLS}/node1",
    "/etc/etcd/": f"{TLS}/",
    "/etc/cgw/": f"{TLS}/",
    "/root/": f"{TLS}/",
    "chown -R etcd:etcd": "chown -R root:root",
}


def here(text: str, number: int = 1) -> str:
    """A block as it is for a node of the lab; its own lines are those before an empty one."""
    for place, other in PLACES.items():
        text = text.replace(place, other)
    own, empty, common = text.partition("\n\n")
    own = own.replace("node1", f"node{number}").replace("10.99.0.1:", f"10.99.0.{number}:")
    return own + empty + common.replace(f"{TLS}/node1", f"{TLS}/node{number}")


class Runbook(EtcdCluster):
    """The members are started as the unit of Debian does: by the variables of /etc/default/etcd."""

    def __init__(self, root: Path, folder: Path, switch: Namespace) -> None:
        super().__init__(root, folder, switch, is_tls=False, has_auth=False, options=())
        self.ports: list[Port] = []
        self._running: list[subprocess.Popen[bytes]] = []

    def start_members(self) -> None:
        """Start them; they are ready when most of them run."""
        for number, port in zip(NUMBERS, self.ports, strict=True):
            given = here(block("docs/cluster.md#members").text, number).split()
            options = [f"ETCD_DATA_DIR={DATA}/node{number}", *given]
            with (self.folder / f"node{number}.log").open("ab") as log:
                self._running.append(subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *self._inside(port.namespace),
                     "env", *options, "etcd"],
                    start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env=PATH,
                ))  # fmt: skip

    def stop_members(self) -> None:
        """Stop all of them."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(LONGEST_WAIT)
        self._running.clear()

    def kill_members(self) -> None:
        """Kill those that run: members that all end at once wait for each other."""
        for process in self._running:
            process.kill()
            process.wait(LONGEST_WAIT)
        self._running.clear()

    def sh(self, *scripts: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run scripts one after the other as the admin of a node, in one shell."""
        done = subprocess.run(
            [*self._inside(self._switch), "sh", "-ec", "\n".join(scripts)],
            text=True, check=False, capture_output=True, timeout=LONGEST_WAIT, env=PATH,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done


def variables() -> str:
    """The lines of the block for users that tell etcdctl where etcd is."""
    lines = here(block("docs/cluster.md#users").text).splitlines()
    return "\n".join(line for line in lines if line.startswith("export "))


@pytest.fixture
def runbook(suite: str, tmp_path: Path) -> Iterator[Runbook]:
    with ExitStack() as until_end:
        switch = until_end.enter_context(namespace("runbook-switch"))
        switch.ip(
            "link add switch type bridge\nlink set switch up\naddress add 10.99.0.254/24 dev switch"
        )
        made = Runbook(etcd_root(suite), tmp_path, switch)
        until_end.callback(made.end)
        made.set_up()
        for number in NUMBERS:
            inside = until_end.enter_context(namespace(f"runbook-{number}"))
            made.ports.append(Port(inside, switch, number))
        until_end.callback(made.kill_members)
        yield made


def make_certificates(folder: Path) -> None:
    text = here(block("docs/cluster.md#certificates").text)
    subprocess.run(["sh", "-ec", text], cwd=folder, check=True, capture_output=True)


def config_of(runbook: Runbook) -> Registry:
    """The [registry] of the document, for this machine's files."""
    text = here(block("docs/cluster.md#cgw").text).replace(TLS, str(runbook.folder / "tls"))
    config = parse_config(text)
    assert config.name == "node1"
    assert config.registry
    return config.registry


def healthy(client: Etcd) -> bool:
    members: Sequence[MemberState | RegistryError] = client.members()
    return all(isinstance(member, MemberState) and member.has_leader for member in members)


def test_the_runbook_makes_a_registry_that_only_the_nodes_can_use(runbook: Runbook) -> None:
    tls = runbook.folder / "tls"
    make_certificates(tls)
    for number in NUMBERS:
        shown = subprocess.run(
            ["openssl", "x509", "-in", tls / f"node{number}.pem", "-noout", "-subject"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        assert shown.replace(" ", "").strip() == f"subject=O=cgwnode{number}"
    runbook.start_members()
    assert eventually(
        lambda: runbook.sh(variables(), "etcdctl endpoint health", check=False).returncode == 0
    ), (runbook.folder / "node1.log").read_text()[-2000:]
    runbook.sh(here(block("docs/cluster.md#users").text))
    refused = runbook.sh(variables(), "etcdctl get /cgw/", check=False)
    assert refused.returncode != 0, "without a user nobody reads"

    config = config_of(runbook)
    assert [endpoint.host for endpoint in config.endpoints] == [f"10.99.0.{n}" for n in NUMBERS]
    node = runbook.ports[0].namespace
    node.call(lambda: use(config))
    node.call(lambda: must_not_write_elsewhere(config))

    backup = here(block("docs/cluster.md#backup-and-restore.2").text)
    runbook.sh(variables(), backup)
    node.call(lambda: change(config))
    runbook.stop_members()
    for number in NUMBERS:
        restore = block("docs/cluster.md#backup-and-restore.3").text
        for_node = here(restore).replace("--name node1", f"--name node{number}")
        for_node = for_node.replace("urls https://10.99.0.1:", f"urls https://10.99.0.{number}:")
        runbook.sh(
            "export ETCDCTL_API=3", for_node.replace(f"{DATA}/node1", f"{DATA}/node{number}")
        )
    runbook.start_members()
    assert node.call(lambda: eventually(lambda: value(config) == "before"))


def use(config: Registry) -> None:
    client = Etcd(config)
    assert client.commit([Put("/cgw/v1/test", "before")]).succeeded
    assert eventually(lambda: healthy(client))
    assert not client.is_history_whole()
    client.close()


def must_not_write_elsewhere(config: Registry) -> None:
    with pytest.raises(RegistryError, match="permission denied"):
        Etcd(config).commit([Put("/other", "x")])


def change(config: Registry) -> None:
    assert Etcd(config).commit([Put("/cgw/v1/test", "after")]).succeeded


def value(config: Registry) -> str:
    try:
        found = Etcd(config).list("/cgw/v1/test").values
    except RegistryError:
        return ""
    return found[0].value or "" if found else ""
