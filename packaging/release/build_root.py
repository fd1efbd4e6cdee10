"""The Debian root in which everything is built: built once, then cached."""

from pathlib import Path

from tests.lab.cache import cached
from tests.lab.debian_root import BUILDER_VERSION, UNWANTED, bootstrap
from tests.lab.progress import progress

SUITE = "bookworm"
"""The oldest Debian that is served: its debhelper writes packages that every later one takes."""

PACKAGES = (
    "debhelper",
    "dh-python",
    "fakeroot",
    "pybuild-plugin-pyproject",
    "python3-hatchling",
    "scdoc",
)
"""As in packaging/debian/control, and fakeroot."""


def build_root() -> Path:
    """The root, built at first use (about a minute).

    Raises DebianRootError when mmdebstrap is missing or fails.
    """

    def build(folder: Path) -> None:
        with progress(f"building a Debian {SUITE} root with debhelper"):
            bootstrap(SUITE, folder / "root", PACKAGES)

    ingredients = [BUILDER_VERSION, SUITE, *PACKAGES, *UNWANTED]
    return cached(f"build-{SUITE}", ingredients, build) / "root"
