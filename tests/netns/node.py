"""A node under test: its namespace, the hook as libvirt calls it, and the traces of the hook."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cgw_hooks.host.state.state import State
from tests.full import is_full
from tests.lab import domain, forked, network
from tests.lab.namespace import Namespace, namespace
from tests.lab.status_json import read_status
from tests.netns.asker import Asker
from tests.netns.guest import Finished, Guest
from tests.netns.specs import port_forward

CHECKOUT = Path(__file__).parent.parent.parent
CGW = CHECKOUT / ".venv/bin/cgw"
SCRIPT = CHECKOUT / "hooks/qemu.d/50-cgw"
PYTHON = CHECKOUT / ".venv/bin/python"
_LONGEST_HOOK = 300.0
_PATH = f"{CGW.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LISTED_TABLE = re.compile(r"^table (?P<name>\S+ \S+) \{.*?^\}$", flags=re.DOTALL | re.MULTILINE)
_LEARNT_ELEMENTS = re.compile(r"(set (?:hairpin|limit_\S+) \{[^}]*?)\n\t\telements = \{[^}]*\}")
OUR_TABLE = "inet cgw"
OUR_TABLES = {OUR_TABLE, "inet cgw_denied"}
Process = subprocess.Popen[bytes] | forked.Forked
#: The modules that cgw imports from other packages, at once or later.
_LOADED = ("cgw_hooks.*", "libvirt", "lxml.etree", "nftables", "pyroute2", "rich.table")


class Node(Asker):
    """A node with its uplink and its guest bridge."""

    def __init__(
        self,
        wires: Namespace,
        folder: Path,
        until_end: ExitStack,
        program: Path = CGW,
        name: str = "node",
    ) -> None:
        super().__init__(name, wires, until_end)
        self.program = program
        self.folder = folder
        self.runtime = folder / "run"
        self.config_file = folder / "cgw.toml"
        self.guests: list[Guest] = []
        self._foreign: str | None = None

    def configure(self, config: str) -> None:
        """Write the node's config file; empty: there is none."""
        self.config_file.unlink(missing_ok=True)
        if config:
            self.config_file.write_text(config)
            self.config_file.chmod(0o600)

    def add_address(self, address: str) -> None:
        """Give the node one more address on its uplink."""
        length = "64 nodad" if ":" in address else "24"
        self.namespace.ip(f"address add {address}/{length} dev {network.UPLINK_BRIDGE}")

    def pass_bridged_packets_to_rules(self, on: bool) -> None:
        """Switch br_netfilter on or off: whether bridged packets meet the rules of routed ones."""
        setting = str(int(on))
        names = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")
        self.namespace.sysctl({f"net/bridge/{name}": setting for name in names})

    # -- guests ------------------------------------------------------------------------------

    def guest(
        self, name: str, *publish: str, serves: str = "", family: int = 4, octet: int = 0,
        addresses: str | None = None, **definition: Any,
    ) -> Guest:  # fmt: skip
        """Define a guest that publishes these (see `port_forward`); wired if it serves anything.

        Without `addresses` it publishes its address of the one IP family.
        """
        octet = octet or 11 + len(self.guests)
        own = {4: network.guest_address(octet), 6: network.guest_address6(octet)}
        xml = domain.domain_xml(
            name,
            octet=octet,
            publish="".join(map(port_forward, publish)) if publish else None,
            publish_address=own[family] if addresses is None else addresses,
            **definition,
        )
        asker = self._wire(name, octet) if serves else None
        if asker:
            asker.serve(own[family], serves)
        guest = Guest(self, name, octet, xml, asker)
        self.guests.append(guest)
        return guest

    def _wire(self, name: str, octet: int) -> Asker:
        inside = self._until_end.enter_context(namespace(f"guest{octet}"))
        bridge = network.GUEST_BRIDGE
        self.namespace.ip(
            f"link add guest{octet} master {bridge} type veth peer name eth0 netns {inside.name}\n"
            f"link set guest{octet} up\n"
        )
        network.address_guest(inside, octet, domain.guest_mac(octet))
        return Asker(name, inside, self._until_end)

    # -- the hook ----------------------------------------------------------------------------

    def hook(self, name: str, operation: str, reason: str, xml: str | bytes) -> Finished:
        """Call the hook as libvirt does, and assert that its stdout is empty."""
        process = self.start_hook(name, operation, reason)
        given = xml.encode() if isinstance(xml, str) else xml
        stdout, stderr = process.communicate(given, timeout=_LONGEST_HOOK)
        assert stdout == b"", f"{name} {operation}: libvirt would take stdout for the guest's XML"
        return Finished(process.wait(), stderr.decode().strip())

    def start_hook(
        self, name: str, operation: str, reason: str = "-", *, code: str = ""
    ) -> Process:
        """Start a call, which waits for the XML on its stdin. See `start_cgw` for `code`."""
        if self._foreign is None:
            self.accept_foreign_tables()
        call = [name, operation, "begin", reason]
        if self.program == CGW:
            return self.start_cgw("hook", "qemu", *call, code=code)
        return self._start_interpreter([str(self.program), *call])

    def start_hook_by(
        self, program: Sequence[str], name: str, operation: str, reason: str = "-"
    ) -> "subprocess.Popen[bytes]":
        """Start a call by a program of the test, in a separate process."""
        if self._foreign is None:
            self.accept_foreign_tables()
        return self._start_interpreter([*program, "hook", "qemu", name, operation, "begin", reason])

    def start_cgw(self, *arguments: str, code: str = "") -> Process:
        """Start cgw with these arguments; with `code`, Python runs that instead of cgw's `main`.

        A full run starts an interpreter for each call, as libvirt and an admin do. `make test`
        forks one that has cgw's modules loaded: these calls are most of the tier's time.
        """
        if is_full():
            program = [str(PYTHON), "-I", "-c", code] if code else [str(CGW)]
            return self._start_interpreter([*program, *arguments])
        return forked.start(
            self.namespace, "cgw_hooks.commands.cli:main", [str(CGW), *arguments],
            python=PYTHON, modules=_LOADED, environment=self.environment(), code=code,
        )  # fmt: skip

    def _start_interpreter(self, command: list[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [*self.namespace.enter_command(), *command], env=self.environment(), cwd="/",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        """The variables that libvirt sets, and the paths of the test's files."""
        here = {
            "CGW_RUNTIME_DIR": str(self.runtime),
            "CGW_STATE_DIR": str(self.folder / "state"),
            "CGW_CONFIG": str(self.config_file),
        }
        return {"HOME": "/", "LC_ALL": "C", "PATH": _PATH, **here}

    def cgw(
        self, *arguments: str, given: str = "", check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Run cgw as a person does; `given` on its stdin."""
        process = self.start_cgw(*arguments)
        stdout, stderr = (
            output.decode() for output in process.communicate(given.encode(), timeout=_LONGEST_HOOK)
        )
        done = subprocess.CompletedProcess(arguments, process.wait(), stdout, stderr)
        if check:
            done.check_returncode()
        return done

    # -- the traces of the hook --------------------------------------------------------------

    def status(self) -> dict[str, dict[str, Any]]:
        """What `cgw status --json` says of each guest (of its first port)."""
        return {row["guest"]: row for row in reversed(self.status_rows())}

    def status_rows(self) -> list[dict[str, Any]]:
        """Every row of `cgw status --json`."""
        rows: list[dict[str, Any]]
        rows = read_status(self.cgw("status", "--json", check=False).stdout)["published"]
        return rows

    def states(self) -> dict[str, str]:
        """Guest -> state, as `cgw status` has it."""
        return {guest: row["state"] for guest, row in self.status().items()}

    def nft(self, commands: str, *options: str) -> str:
        """Run nft in the node; for a test's own tables, before the first hook call."""
        return self.namespace.run(["nft", *options, "-f", "-"], input=commands).stdout

    def ruleset(self) -> str:
        """All of the node's tables, without elements that traffic adds."""
        return _LEARNT_ELEMENTS.sub(r"\1", self.nft("list ruleset\n", "-s"))

    def our_table(self) -> str:
        """The table of cgw; empty if there is none."""
        return _tables(self.ruleset()).get(OUR_TABLE, "")

    def foreign_tables(self) -> str:
        """The tables of other programs, with handles."""
        listing = _tables(self.nft("list ruleset\n", "-s", "-a"))
        return "\n".join(text for name, text in sorted(listing.items()) if name not in OUR_TABLES)

    def files(self) -> dict[str, str]:
        """Every record and index entry, as path -> content."""
        return {
            str(path.relative_to(self.runtime)): path.read_text()
            for folder in ("guests", "index")
            for path in sorted((self.runtime / folder).rglob("*"))
            if path.is_file()
        }

    @property
    def state(self) -> State:
        """What the node remembers."""
        return State(str(self.runtime))

    def records(self) -> dict[str, dict[str, Any]]:
        """Guest key -> record."""
        folder = self.runtime / "guests"
        return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}

    def lose_runtime(self) -> None:
        """Lose what a reboot loses: the records, and the rules."""
        shutil.rmtree(self.runtime)
        self.namespace.run(["nft", "flush", "ruleset"])

    def stop_all_guests(self) -> None:
        """Stop and release every guest that has been in a hook call."""
        for guest in self.guests:
            if guest.hooked:
                guest.stop()

    def accept_foreign_tables(self) -> None:
        """Accept the present foreign tables as right, since another program has changed them."""
        self._foreign = self.foreign_tables()

    def assert_foreign_tables_untouched(self) -> None:
        """Assert that the tables of other programs are as before the first hook call."""
        if self._foreign is not None:
            assert self._foreign == self.foreign_tables()


def _tables(listing: str) -> dict[str, str]:
    return {match["name"]: match[0] for match in _LISTED_TABLE.finditer(listing)}
