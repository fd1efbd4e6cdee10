"""A Debian root folder with servers that write their clients' addresses into logs.

It contains only the distribution's packages, like tests/lab/debian_root.py.
"""

from pathlib import Path

from tests.lab.cache import cached
from tests.lab.debian_root import BUILDER_VERSION, UNWANTED, bootstrap
from tests.lab.progress import progress

PACKAGES = ("nginx-light", "openssh-server", "postfix")


def server_root(suite: str) -> Path:
    """A root of `suite` ("bookworm", "trixie"), built at first use (half a minute), then cached.

    Raises DebianRootError when mmdebstrap is missing or fails.
    """

    def build(folder: Path) -> None:
        with progress(f"building a Debian {suite} root with servers"):
            bootstrap(suite, folder / "root", PACKAGES, customize="true")

    ingredients = [BUILDER_VERSION, suite, *PACKAGES, *UNWANTED]
    return cached(f"servers-{suite}", ingredients, build) / "root"
