"""Builds the Debian packages, the wheel and the source archive from this checkout."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from release.build_root import build_root
from release.changelog import debian_changelog
from release.source_tree import CHECKOUT, ReleaseError, copy_sources, source_date, version
from tests.lab.cache import cache_folder

CHECKSUMS = "SHA256SUMS"
_NAMESPACES = ("--mount", "--uts", "--ipc", "--pid", "--net")
_SOURCES = "cgw-hooks"
_RESULTS = ("*.deb", "*.whl", "*.tar.gz")
_DEBS = "dpkg-buildpackage --build=binary --unsigned-changes --ignore-builtin-builddeps"
_PYTHON = "python3 -m hatchling build -d .."


def build_debs(target: Path, checkout: Path = CHECKOUT, *, date: int | None = None) -> list[Path]:
    """Build the Debian packages into this folder; return their paths. Raises ReleaseError.

    `date` is that of all files in them, in seconds since 1970; by default that of the commit.
    """
    return _build([_DEBS], target, checkout, date)


def build_all(target: Path, checkout: Path = CHECKOUT, *, date: int | None = None) -> list[Path]:
    """Do the same with the wheel, the source archive, and the checksums of all."""
    built = _build([_PYTHON, _DEBS], target, checkout, date)
    return [*built, _write_checksums(target, built)]


def _write_checksums(target: Path, built: Sequence[Path]) -> Path:
    """Write the file that `sha256sum --check` reads; return its path."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
             for path in sorted(built)]  # fmt: skip
    file = target / CHECKSUMS
    file.write_text("".join(lines), encoding="ascii")
    return file


def _build(commands: Sequence[str], target: Path, checkout: Path, date: int | None) -> list[Path]:
    root = build_root()
    date = source_date(checkout) if date is None else date
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cgw-build-") as name:
        shared = Path(name)
        _prepare(shared / _SOURCES, date, checkout)
        script = " && ".join(["umask 022", f"cd {_SOURCES}", *commands])
        _run(root, shared, ["sh", "-ec", script], date)
        results = [path for pattern in _RESULTS for path in sorted(shared.glob(pattern))]
        return [Path(shutil.copyfile(path, target / path.name)) for path in results]


def _prepare(sources: Path, date: int, checkout: Path) -> None:
    """Put the sources there, with debian/ as dpkg-buildpackage looks for it."""
    copy_sources(sources, checkout)
    debian = sources / "debian"
    shutil.copytree(sources / "packaging/debian", debian)
    control = (debian / "control").read_text(encoding="utf-8")
    changelog = debian_changelog(version(checkout), date, control)
    (debian / "changelog").write_text(changelog, encoding="utf-8")


def _run(root: Path, shared: Path, argv: Sequence[str], date: int) -> None:
    mount_point = cache_folder() / "mount-point"
    mount_point.mkdir(exist_ok=True)
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "KILL", "unshare", *_NAMESPACES, "--fork", "--kill-child",
         sys.executable, "-m", "tests.lab.chroot_init",
         str(root), str(mount_point), str(shared), *argv],
        cwd=CHECKOUT, check=False, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent",
             "SOURCE_DATE_EPOCH": str(date), "DEB_BUILD_OPTIONS": "nocheck"},
    )  # fmt: skip
    if done.returncode != 0:
        raise ReleaseError(f"the build failed:\n{done.stdout[-4000:]}")
