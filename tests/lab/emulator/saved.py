"""A machine that has booted, saved: a run goes on from there, and does not boot."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab.emulator import machine


@dataclass(frozen=True)
class Saved:
    """The folder with what QEMU goes on from."""

    folder: Path

    @property
    def memory(self) -> Path:
        """The state of the machine."""
        return self.folder / "memory"

    @property
    def disk(self) -> Path:
        """Its root, as it was then."""
        return self.folder / "root.ext4"

    @property
    def incoming(self) -> tuple[str, str]:
        """The arguments with which QEMU goes on, and does not boot."""
        return "-incoming", f"exec:cat {self.memory}"

    def copy_disk(self, image: Path) -> None:
        """Take a disk as the machine's root."""
        subprocess.run(["cp", "--sparse=always", str(image), str(self.disk)], check=True)


def ingredients(*modules: str) -> list[str]:
    """By what each saved machine is named: QEMU's version, and the lab's own text of it."""
    version = subprocess.run(
        ["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True
    ).stdout
    return [version, *(Path(text).read_text() for text in (__file__, machine.__file__, *modules))]
