"""`make release`: the same bytes wherever it is built, and only of the commit that is tagged."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from release.build import CHECKSUMS, build_all
from release.changelog import debian_version
from release.source_tree import (
    CHECKOUT,
    ReleaseError,
    check_release,
    copy_sources,
    source_date,
    version,
)  # fmt: skip

from tests.packaging.built import DATE, Built

pytestmark = pytest.mark.packaging


def git(folder: Path, *arguments: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    subprocess.run(["git", "-C", folder, *names, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of the same sources, elsewhere, with other times and another umask's modes."""
    folder = tmp_path / "elsewhere/checkout"
    copy_sources(folder)
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "all")
    return folder


def test_a_second_build_in_another_folder_gives_the_same_bytes(
    built: Built, checkout: Path, tmp_path: Path
) -> None:
    again = build_all(tmp_path / "again", checkout, date=DATE)
    names = sorted(path.name for path in built.folder.iterdir())
    assert names == sorted(path.name for path in again)
    assert 5 == len(names), "two packages, wheel, source archive, checksums"
    for path in again:
        assert path.read_bytes() == (built.folder / path.name).read_bytes(), path.name


def test_the_checksums_are_those_of_all_files(built: Built) -> None:
    subprocess.run(
        ["sha256sum", "--check", "--strict", CHECKSUMS],
        cwd=built.folder, check=True, capture_output=True,
    )  # fmt: skip
    named = {line.split()[1] for line in (built.folder / CHECKSUMS).read_text().splitlines()}
    assert named == {path.name for path in built.folder.iterdir()} - {CHECKSUMS}


def test_only_the_commit_with_the_versions_tag_is_released(checkout: Path) -> None:
    tag = f"v{version()}"
    with pytest.raises(ReleaseError, match=f"none; run: git tag {tag}"):
        check_release(checkout)
    git(checkout, "tag", "v99")
    with pytest.raises(ReleaseError, match="the tags of this commit are: v99"):
        check_release(checkout)
    git(checkout, "tag", "--delete", "v99")
    git(checkout, "tag", tag)
    check_release(checkout)
    (checkout / "etc/cgw.toml").write_text("# changed\n")
    with pytest.raises(ReleaseError, match=r"etc/cgw\.toml: it is not committed"):
        check_release(checkout)


def test_the_date_is_that_of_the_commit_unless_one_is_given(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    shown = subprocess.run(
        ["git", "-C", checkout, "log", "-1", "--format=%ct"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert int(shown.stdout) == source_date(checkout)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234")
    assert 1234 == source_date(checkout)


@pytest.mark.parametrize(
    ("earlier", "later"), [("1.0.dev3", "1.0a1"), ("1.0rc1", "1.0"), ("0.9", "0.10")]
)
def test_dpkg_orders_versions_as_python_does(earlier: str, later: str) -> None:
    if not shutil.which("dpkg"):
        pytest.fail("this machine has no dpkg")
    order = [debian_version(earlier), "lt", debian_version(later)]
    subprocess.run(["dpkg", "--compare-versions", *order], check=True)


def test_no_other_file_has_the_version() -> None:
    found = subprocess.run(
        ["git", "-C", CHECKOUT, "grep", "-lF", f'"{version()}"', "--",
         "cgw_hooks", "packaging", "pyproject.toml", "Makefile"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert ["cgw_hooks/__init__.py"] == found.stdout.split()
