"""The fenced blocks of the documents, which the tests run.

A block is named by its file and the heading above it, as a link to the heading is written:
`README.md#publish-a-port`; a second block of the heading has `.2` at its end.
`tests/unit/test_documents.py` lists where each one is run, or why none runs it.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its language ("sh", "console", "toml" ..., or nothing), and its lines."""

    language: str
    text: str

    def commands(self) -> list[tuple[str, str]]:
        """The commands of a console, each with the output that the document shows."""
        pieces = re.split(r"^# ", self.text, flags=re.MULTILINE)[1:]
        return [(piece.partition("\n")[0], piece.partition("\n")[2]) for piece in pieces]


def files() -> list[Path]:
    """The documents for people who use or change cgw."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@cache
def blocks() -> dict[str, Block]:
    """Each block of all documents, by name."""
    return dict(found for path in files() for found in _blocks(path))


def block(name: str) -> Block:
    """One block. Raises `KeyError`."""
    return blocks()[name]


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def anchors(text: str) -> set[str]:
    """The anchors of a document."""
    without_blocks = _BLOCK.sub("", text)
    return {anchor(heading) for heading in _HEADING.findall(without_blocks)}


def _blocks(path: Path) -> Iterator[tuple[str, Block]]:
    text = path.read_text(encoding="utf-8")
    seen: Counter[str] = Counter()
    place, heading = 0, ""
    for match in _BLOCK.finditer(text):
        headings = _HEADING.findall(text[place : match.start()])
        heading = anchor(headings[-1]) if headings else heading
        place = match.end()
        seen[heading] += 1
        number = f".{seen[heading]}" if seen[heading] > 1 else ""
        name = f"{path.relative_to(ROOT)}#{heading}{number}"
        yield name, Block(match["language"], match["text"])
