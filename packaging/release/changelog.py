"""debian/changelog, made from the version, its date and the maintainer in debian/control."""

import re
from email.utils import formatdate

PACKAGE = "cgw-hooks"


def debian_changelog(version: str, seconds: int, control: str) -> str:
    """The text of debian/changelog: one entry, which names the users' list of changes.

    Any later version is newer for dpkg too: "0.2.0rc1" of Python is "0.2.0~rc1" there.
    """
    (maintainer,) = re.findall(r"^Maintainer: (.+)$", control, re.MULTILINE)
    return (
        f"{PACKAGE} ({debian_version(version)}) unstable; urgency=medium\n\n"
        f"  * Version {version}: see /usr/share/doc/{PACKAGE}/changelog.gz for the changes.\n\n"
        f" -- {maintainer}  {formatdate(seconds)}\n"
    )


def debian_version(version: str) -> str:
    """The version as dpkg orders it: a pre-release comes before its release."""
    return re.sub(r"(?<=\d)(a|b|rc)(?=\d)", r"~\1", version).replace(".dev", "~~dev")
