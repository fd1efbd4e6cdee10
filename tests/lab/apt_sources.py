"""The machine's own apt sources, rewritten for another suite of the same distribution.

It reads both formats (one line, and deb822). Sources of other projects are left out: their
suites are neither the machine's own release nor its `-updates` and `-security`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

APT_FOLDER = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")


class AptSourcesError(Exception):
    """The machine has no apt source for a Debian root."""


@dataclass(frozen=True)
class AptSource:
    """One deb822 stanza: binary packages of some suites from some places."""

    uris: str
    suites: tuple[str, ...]
    signed_by: str | None

    def for_suite(self, own: str, wanted: str) -> "AptSource | None":
        """The same source for the suite `wanted`; None when nothing in it belongs to `own`."""
        kept = [s for s in self.suites if s in {own, f"{own}-updates", f"{own}-security"}]
        if not kept:
            return None
        suites = tuple(wanted + suite.removeprefix(own) for suite in kept)
        return AptSource(self.uris, suites, self.signed_by)

    def stanza(self) -> str:
        """The deb822 text."""
        lines = ["Types: deb", f"URIs: {self.uris}", f"Suites: {' '.join(self.suites)}"]
        lines.append("Components: main")
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        return "\n".join(lines) + "\n"


def sources_for_suite(suite: str) -> str:
    """The machine's Debian sources as deb822 text, for `suite`."""
    own = _own_codename()
    rewritten = [source.for_suite(own, suite) for source in _machine_sources()]
    stanzas = [source.stanza() for source in rewritten if source]
    if not stanzas:
        raise AptSourcesError(f"no apt source of this machine names its own release, {own}")
    return "\n".join(stanzas)


def _own_codename() -> str:
    match = re.search(r'^VERSION_CODENAME="?(\w+)"?$', OS_RELEASE.read_text(), re.MULTILINE)
    if not match:
        raise AptSourcesError(f"{OS_RELEASE} names no release")
    return match[1]


def _machine_sources() -> Iterator[AptSource]:
    parts = APT_FOLDER / "sources.list.d"
    for path in [APT_FOLDER / "sources.list", *sorted(parts.glob("*.list"))]:
        if path.is_file():
            yield from one_line_sources(path.read_text())
    for path in sorted(parts.glob("*.sources")):
        yield from deb822_sources(path.read_text())


def one_line_sources(text: str) -> Iterator[AptSource]:
    """Sources of the format `deb [signed-by=...] URI SUITE COMPONENT...`."""
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+[^#\s]", line.strip())
        if match:
            signed_by = re.search(r"signed-by=(\S+)", match[1] or "")
            yield AptSource(match[2], (match[3],), signed_by[1] if signed_by else None)


def deb822_sources(text: str) -> Iterator[AptSource]:
    """Sources of the deb822 format; a line that begins with white space continues a field."""
    without_comments = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n\s*\n", without_comments):
        fields = {
            name.lower(): value.strip()
            for name, value in re.findall(r"^(\S+?):((?:.*)(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        }
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes") != "no":
            suites = tuple(fields["suites"].split())
            yield AptSource(fields["uris"], suites, fields.get("signed-by"))
