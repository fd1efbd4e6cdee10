"""promtool of Debian's package prometheus. It is unpacked and not installed: it would start."""

import subprocess
from pathlib import Path

from tests.lab.cache import cached
from tests.lab.progress import progress


def promtool() -> Path:
    """The program, fetched at first use (19 MB), then cached. Raises `CalledProcessError`."""

    def build(folder: Path) -> None:
        with progress("fetching promtool"):
            download = ["apt-get", "download", "prometheus"]
            if subprocess.run(download, cwd=folder, check=False, capture_output=True).returncode:
                subprocess.run(["apt-get", "update"], check=True, capture_output=True)
                subprocess.run(download, cwd=folder, check=True, capture_output=True)
            (package,) = folder.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "root")], check=True)
            package.unlink()

    return cached("promtool", ["1"], build) / "root/usr/bin/promtool"
