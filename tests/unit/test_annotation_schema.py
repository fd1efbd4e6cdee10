"""The schema of the annotation and the parser cannot part.

Each annotation of this tier's tables is held against both: see ``builders.guest_of``.
"""

from __future__ import annotations

import random

import pytest

from cgw_hooks.commands import schemas
from cgw_hooks.core.parse.annotation_schema import complaint
from cgw_hooks.errors import CgwError, InvalidAnnotation
from tests.unit.builders import NAMESPACE, SCHEMA, TCP_80, domain, forward, guest_of, publish

pytestmark = pytest.mark.unit

#: Attribute -> values, of which some are wrong, each in its own way.
PORTS = ["1", "22", "00080", "1000", "65535", "0", "65536", "000022", " 22", "+2", "", "1e3", "٢٢"]
ADDRESSES = [
    "10.5.5.202", "192.0.2.1", "fd00::1", "2001:DB8::1", "64:ff9b::192.0.2.1", "0.0.0.0", "::",
    "127.0.0.1", "::1", "fe80::1", "::ffff:192.0.2.1", "fd00::1%eth0", "010.5.5.2", "10.5.5.256",
    "10.5.5", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8", "", "web", "10.5.5.2;flush",
]  # fmt: skip
NETWORKS = [
    "10.0.0.0/8", "10.0.0.0/255.0.0.0", "192.0.2.7", "2001:db8::/32", "::/0", "0.0.0.0/0",
    "10.0.0.1/8", "10.0.0.0/33", "fd00::/129", "fe80::%x/64", "::ffff:10.0.0.0/104", "x", "/8",
]  # fmt: skip
BETWEEN = [",", " ", ", ", ",,", "\t", "&#10;", "\u00a0", ";"]
TIMES = [
    "2026-11-24T22:00:00Z", "9999-12-31T23:59:59Z", "2026-02-30T22:00:00Z", "0000-01-01T00:00:00Z",
    "2026-13-01T00:00:00Z", "2026-11-24T24:00:00Z", "2026-11-24T22:00:00+00:00", "2026-11-24", "",
]  # fmt: skip
PROTOCOLS = ["tcp", "udp", "sctp", "TCP", "icmp", " tcp", ""]
INSIDE = ["", "", "", " \n\t", "<!-- why -->", "<?x y?>", "text", "\u00a0", "<other/>"]


class Maker:
    """Makes annotations, the same ones in each run; about half of them are valid."""

    def __init__(self, seed: int) -> None:
        self._pick = random.Random(seed)  # noqa: S311  (the same in every run)

    def annotation(self) -> bytes:
        prefix = self._one(["", "cgw:"], "o:")
        own = f'xmlns:cgw="{NAMESPACE}" xmlns:o="urn:other"'
        given = self._attribute("address", self._words(ADDRESSES, 2), 0.5) + self._stray()
        forwards = "".join(self._forward() for _ in range(self._pick.randint(0, 3)))
        text = f"<cgw:publish {own}{given}>{self._inside()}{forwards}</cgw:publish>"
        return domain(text.replace("cgw:portForward", f"{prefix}portForward"))

    def _forward(self) -> str:
        given = self._attribute("proto", self._one(PROTOCOLS[:3], *PROTOCOLS[3:]), 0.97)
        given += self._attribute("address", self._one(ADDRESSES[:4], *ADDRESSES[4:]), 0.2)
        given += self._attribute("source", self._words(NETWORKS, 3), 0.2)
        given += self._attribute("until", self._one(TIMES[:2], *TIMES[2:]), 0.2)
        count = self._pick.choice((1,) * 9 + (2, 2, 0))
        ranges = "".join(self._range() for _ in range(count)) + self._inside()
        return f"<cgw:portForward{given}{self._stray()}>{ranges}</cgw:portForward>"

    def _range(self) -> str:
        given = "".join(
            self._attribute(name, self._one(PORTS[:5], *PORTS[5:]), chance)
            for name, chance in (("start", 0.97), ("end", 0.2), ("to", 0.3))
        )
        return f"<cgw:range{given}{self._stray()}>{self._inside()}</cgw:range>"

    def _one(self, right: list[str], *wrong: str) -> str:
        is_right = not wrong or self._pick.random() < 0.93
        return self._pick.choice(right if is_right else wrong)

    def _words(self, values: list[str], most: int) -> str:
        count = self._pick.choice((1,) * 9 + tuple(range(most + 1)))
        between = self._one(BETWEEN[:6], *BETWEEN[6:])
        return between.join(self._one(values[:3], *values[3:]) for _ in range(count))

    def _attribute(self, name: str, value: str, chance: float) -> str:
        return f' {name}="{value}"' if self._pick.random() < chance else ""

    def _stray(self) -> str:
        return self._one([""] * 20, ' sources="10.0.0.0/8"', ' cgw:end="1"', ' xml:lang="en"')

    def _inside(self) -> str:
        return self._one(INSIDE[:6], *INSIDE[6:])


@pytest.mark.parametrize("seed", range(20))
def test_parser_and_schema_agree_about_any_annotation(seed: int) -> None:
    maker = Maker(seed)
    refused = 0
    for _ in range(60):
        try:
            guest_of(maker.annotation())
        except InvalidAnnotation:
            refused += 1
    assert 10 < refused < 55


@pytest.mark.parametrize(
    "wrong",
    [
        forward('start="0"'),
        forward('start="65536"'),
        forward('start="80" until="90"'),
        forward('start="80"', ""),
        forward('start="80"', 'proto="tcp" address="10.0.0.256"'),
        forward('start="80"', 'proto="tcp" source=""'),
        forward('start="80"', 'proto="tcp" until="2026-13-01T00:00:00Z"'),
        '<cgw:portForward proto="tcp"/>',
        "<cgw:portforward/>",
        TCP_80 + "8080:80",
    ],
)
def test_an_editor_finds_what_is_misspelt(wrong: str) -> None:
    assert complaint("web1", domain(publish(TCP_80)), SCHEMA) == ""
    assert complaint("web1", domain(publish(wrong)), SCHEMA)


def test_check_says_if_the_schema_refuses_what_the_parser_accepts() -> None:
    schemas.refuse_difference("web1", domain(publish(TCP_80)))
    with pytest.raises(CgwError, match="it is an error of cgw"):
        schemas.refuse_difference("web1", domain(publish(forward('start="53"', 'proto="x"'))))
