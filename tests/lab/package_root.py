"""A Debian root folder on which the packages of this project can be installed without a network.

It has what they depend on, with all files of these packages, and lintian.
"""

from pathlib import Path

from tests.lab.cache import cached
from tests.lab.debian_root import BUILDER_VERSION, CGW_PACKAGES, bootstrap
from tests.lab.progress import progress

PACKAGES = (*CGW_PACKAGES, "xen-utils-common", "nftables", "lintian", "passwd")


def package_root(suite: str) -> Path:
    """A root of `suite` ("bookworm", "trixie"), built at first use (about a minute), then cached.

    Raises DebianRootError when mmdebstrap is missing or fails.
    """

    def build(folder: Path) -> None:
        with progress(f"building a Debian {suite} root with lintian"):
            bootstrap(suite, folder / "root", PACKAGES, unwanted=())

    return cached(f"packages-{suite}", [BUILDER_VERSION, suite, *PACKAGES], build) / "root"
