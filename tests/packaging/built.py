"""What `make release` builds from this checkout, built once and then cached."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from release.build import build_all
from release.build_root import build_root
from release.source_tree import CHECKOUT, source_files, version

from tests.lab.cache import cached
from tests.lab.progress import progress

DATE = 1_700_000_000
"""Of all files, whatever the commit: so a commit that changes nothing here builds nothing."""


@dataclass(frozen=True)
class Built:
    """The folder of all that was built."""

    folder: Path
    version: str

    @property
    def deb(self) -> str:
        """The file name of the package."""
        return f"cgw-hooks_{self.version}_all.deb"

    @property
    def deb_for_xen(self) -> str:
        """The file name of the package for xl."""
        return f"cgw-hooks-xen_{self.version}_all.deb"

    @property
    def wheel(self) -> Path:
        """The wheel."""
        (found,) = self.folder.glob("*.whl")
        return found


def built() -> Built:
    """Build what has changed since it was built last."""

    def build(folder: Path) -> None:
        with progress("building the Debian packages and the wheel"):
            build_all(folder, date=DATE)

    ingredients = [build_root().parent.name, str(DATE), *_contents()]
    return Built(cached("built", ingredients, build), version())


def _contents() -> Iterator[str]:
    for name in source_files():
        yield name
        yield hashlib.sha256((CHECKOUT / name).read_bytes()).hexdigest()
