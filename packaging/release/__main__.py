"""`python -m release deb`, `python -m release all`: what `make deb` and `make release` run."""

import os
import sys
from pathlib import Path

from release.build import build_all, build_debs
from release.source_tree import CHECKOUT, ReleaseError, check_release
from tests.lab.debian_root import DebianRootError


def main(what: str, target: Path) -> None:
    """Build into this folder, and print the paths."""
    if what == "all":
        check_release()
    built = build_all(target) if what == "all" else build_debs(target)
    for path in built:
        sys.stdout.write(f"{os.path.relpath(path)}\n")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("cgw-hooks: the packages are built in a Debian root of their own; run it as root")
    try:
        main(sys.argv[1], CHECKOUT / "dist")
    except (ReleaseError, DebianRootError) as error:
        sys.exit(f"cgw-hooks: {error}")
