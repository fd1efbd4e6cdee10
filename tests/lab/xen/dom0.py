"""A Xen host: QEMU, in it Xen, in it dom0, in it guests. `with Dom0() as dom0: ...`.

Nothing of it touches the machine's own network: QEMU has no network device. All traffic is between
dom0, its guests, and a client in a namespace of dom0.
"""

import json
import shlex
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.lab.guest_image import guest_image
from tests.lab.progress import progress
from tests.lab.reply import Outcome, Reply
from tests.lab.throwaway import Throwaway
from tests.lab.xen.image import xen_image

_CHECKOUT = Path(__file__).parents[3]
GUEST_FOLDER = "/usr/lib/cgw-lab"
#: PVH guests need features that TCG has only for AMD; Xen cannot use TCG's RDTSCP.
CPU = "Opteron_G3,-rdtscp,+npt"
_MEMORY_MIB, _DOM0_MEMORY_MIB = 3072, 1024
_BOOT_SECONDS = 600.0
_XEN_OPTIONS = (
    f"console=com1 com1=115200,8n1 loglvl=warning guest_loglvl=warning sched=credit "
    f"dom0_mem={_DOM0_MEMORY_MIB}M,max:{_DOM0_MEMORY_MIB}M dom0_max_vcpus=1"
)
_KERNEL_OPTIONS = "console=hvc0 quiet loglevel=4 mitigations=off panic=-1"


class Dom0Error(Exception):
    """Dom0 did not come up, or a command in it failed; the text has what it said."""


class Dom0(Throwaway):
    """A context manager: the Xen host runs inside the `with` block, and nothing of it after.

    `cpu` is QEMU's CPU model; `own` are folders of files for dom0's root.
    """

    def __init__(self, *, cpu: str = CPU, own: Sequence[Path] = ()) -> None:
        super().__init__()
        self._cpu = cpu
        self._own = own

    # -- for tests ---------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str = "",  # noqa: A002 - named as in subprocess
        check: bool = True,
        timeout: float = 600.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in dom0 to its end. Raises Dom0Error when it fails (and `check`)."""
        done = self._call("run", argv=list(argv), standard_input=input, seconds=timeout)
        result = subprocess.CompletedProcess(argv, done["code"], done["stdout"], done["stderr"])
        if check and result.returncode != 0:
            said = (result.stderr or result.stdout).strip()
            raise Dom0Error(f"dom0: {shlex.join(argv)}: {result.returncode}: {said}")
        return result

    def shell(self, script: str, *, check: bool = True) -> str:
        """Run lines of shell in dom0; what they print."""
        return self.run(["bash", "-c", script], check=check).stdout

    def write(self, path: str, content: str, *, mode: int = 0o644) -> None:
        """Write a file in dom0; its folder is made when missing."""
        self._call("write", path=path, content=content, mode=mode)

    def client(self, method: str, *arguments: object, **options: object) -> Reply:
        """Call a method of `tests.lab.client.Client`, from the client's namespace in dom0."""
        return self._ask("client", method, arguments, options)

    def itself(self, method: str, *arguments: object, **options: object) -> Reply:
        """Call the same method from dom0 itself."""
        return self._ask("dom0", method, arguments, options)

    def _ask(self, namespace: str, method: str, arguments: object, options: object) -> Reply:
        answer = self._call(
            "ask", namespace=namespace, method=method, arguments=arguments, options=options
        )
        return Reply(**{**answer, "outcome": Outcome(answer["outcome"])})

    # -- how it runs -------------------------------------------------------------------------

    def _boot(self, until_end: ExitStack) -> None:
        folder = Path(until_end.enter_context(tempfile.TemporaryDirectory(prefix="cgw-xen-")))
        with progress("booting Xen"):
            self._start_qemu(folder, until_end)

    def _start_qemu(self, folder: Path, until_end: ExitStack) -> None:
        files = folder / "files.tar"
        self._pack(files)
        console, port = folder / "console", folder / "port"
        process = subprocess.Popen(
            self._qemu(files, console, port), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        until_end.callback(_end, process)
        self._console = console
        self._port = until_end.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        deadline = time.monotonic() + _BOOT_SECONDS
        while not port.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                assert process.stderr is not None
                raise Dom0Error(f"qemu: {process.stderr.read().decode().strip()}")
            time.sleep(0.02)
        self._port.connect(str(port))
        self._lines = until_end.enter_context(self._port.makefile("r", encoding="utf-8"))
        self._receive(_BOOT_SECONDS)

    def _pack(self, archive: Path) -> None:
        """What dom0 finds beside its root: the guest, the checkout, and the caller's own files."""
        image = guest_image()
        with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
            for name in (image.kernel, image.initrd):
                tar.add(image.folder / name, f"{GUEST_FOLDER}/{name}")
            for part in ("tests/__init__.py", "tests/lab"):
                tar.add(_CHECKOUT / part, f"{GUEST_FOLDER}/checkout/{part}", filter=_no_cache)
            for folder in self._own:
                tar.add(folder, "/", filter=_no_cache)

    def _qemu(self, files: Path, console: Path, port: Path) -> list[str]:
        image = xen_image()
        return [
            "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64",
            "-accel", "tcg,tb-size=512", "-machine", "q35", "-cpu", self._cpu, "-smp", "1",
            "-m", str(_MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none",
            "-vga", "none", "-net", "none", "-no-reboot", "-serial", f"file:{console}",
            "-kernel", str(image.hypervisor), "-append", _XEN_OPTIONS,
            "-initrd", f"{image.kernel} {_KERNEL_OPTIONS},{image.initramfs}",
            *_disk(0, f"file={image.disk},snapshot=on"),
            *_disk(1, f"file={files},readonly=on"),
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port",
            "-chardev", f"socket,id=port,path={port},server=on,wait=off",
        ]  # fmt: skip

    def _call(self, what: str, **arguments: Any) -> Any:
        self._port.sendall(json.dumps({"do": what, **arguments}).encode() + b"\n")
        answer = self._receive(arguments.get("seconds", 60.0) + 60.0)
        if "error" in answer:
            raise Dom0Error(f"dom0: {answer['error']}")
        return answer["result"]

    def _receive(self, seconds: float) -> dict[str, Any]:
        self._port.settimeout(seconds)
        try:
            line = self._lines.readline()
        except TimeoutError:
            line = ""
        if not line:
            said = self._console.read_text(errors="replace")[-3000:]
            raise Dom0Error(f"dom0 does not answer any more; its console: {said}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _disk(number: int, what: str) -> list[str]:
    drive = f"{what},format=raw,if=none,id=disk{number}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk{number}"]


def _no_cache(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return None if "__pycache__" in entry.name else entry


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    if process.stderr is not None:
        process.stderr.close()
