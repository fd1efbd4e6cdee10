"""What is built: the files of this checkout, their version and their date."""

import os
import re
import shutil
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PARTS = (
    "cgw_hooks", "hooks", "etc", "docs", "packaging",
    "pyproject.toml", "README.md", "SECURITY.md", "CHANGELOG.md", "LICENSE",
)  # fmt: skip
"""What is built depends on these alone."""
_VERSION_FILE = "cgw_hooks/__init__.py"


class ReleaseError(Exception):
    """Nothing was built; the text says why, and the cure."""


def version(checkout: Path = CHECKOUT) -> str:
    """The version, which is in `cgw_hooks/__init__.py` alone."""
    text = (checkout / _VERSION_FILE).read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if not found:
        raise ReleaseError(f"{_VERSION_FILE}: it has no __version__; add it")
    return found[1]


def source_date(checkout: Path = CHECKOUT) -> int:
    """The date of all that is built, in seconds since 1970: `SOURCE_DATE_EPOCH`, else the commit's.

    See https://reproducible-builds.org/specs/source-date-epoch/.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given or git("log", "-1", "--format=%ct", checkout=checkout))


def source_files(checkout: Path = CHECKOUT) -> list[str]:
    """The names of the files that go into what is built: those that git has, or would add."""
    listed = git("ls-files", "-z", "-co", "--exclude-standard", "--", *PARTS, checkout=checkout)
    names = sorted(filter(None, listed.split("\0")))
    return [name for name in names if (checkout / name).is_file()]


def copy_sources(target: Path, checkout: Path = CHECKOUT) -> None:
    """Copy these files; their modes become 0644 or 0755."""
    for name in source_files(checkout):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkout / name, place)
        place.chmod(0o755 if os.access(checkout / name, os.X_OK) else 0o644)


def check_release(checkout: Path = CHECKOUT) -> None:
    """Raise ReleaseError if this checkout is not the commit that is tagged with its version."""
    changed = git("status", "--porcelain", checkout=checkout).splitlines()
    if changed:
        raise ReleaseError(f"{changed[0][3:]}: it is not committed; commit it, or move it away")
    wanted = f"v{version(checkout)}"
    tags = [tag for tag in git("tag", "--points-at", "HEAD", checkout=checkout).split()
            if re.match(r"v\d", tag)]  # fmt: skip
    if tags != [wanted]:
        raise ReleaseError(
            f"{_VERSION_FILE}: the version is {wanted[1:]}, but the tags of this commit are: "
            f"{' '.join(tags) or 'none'}; run: git tag {wanted}"
        )


def git(*arguments: str, checkout: Path = CHECKOUT) -> str:
    """Run git in the checkout; return its output. Raises ReleaseError."""
    done = subprocess.run(
        ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ReleaseError(f"git {' '.join(arguments)}: {done.stderr.strip()}; use a git checkout")
    return done.stdout.strip("\n")
