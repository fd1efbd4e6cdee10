"""A Debian root folder with the etcd of its suite: 3.4.23 of bookworm, 3.5.16 of trixie.

It contains only the distribution's packages, like tests/lab/debian_root.py.
"""

from pathlib import Path

from tests.lab.cache import cached
from tests.lab.debian_root import BUILDER_VERSION, UNWANTED, bootstrap
from tests.lab.progress import progress

PACKAGES = ("etcd-server", "etcd-client")


def etcd_root(suite: str) -> Path:
    """A root of `suite` ("bookworm", "trixie"), built at first use (20 s), then cached.

    Raises DebianRootError when mmdebstrap is missing or fails.
    """

    def build(folder: Path) -> None:
        with progress(f"building a Debian {suite} root with etcd"):
            bootstrap(suite, folder / "root", PACKAGES, customize="true")

    return cached(f"etcd-{suite}", [BUILDER_VERSION, suite, *PACKAGES, *UNWANTED], build) / "root"
