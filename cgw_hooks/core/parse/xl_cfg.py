"""xl.cfg text -> its settings. The text is parsed as xl parses it (libxlu_cfg), never evaluated.

A setting is ``NAME = VALUE``. A value is a string in quotes, a number, or a list of values in
brackets, which may span several lines. The last assignment of a name counts; ``+=`` appends to
the earlier value.
"""

from __future__ import annotations

import re

from cgw_hooks.errors import quoted

Value = str | list["Value"]

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r]+|\#[^\n]*)
    |(?P<end>[\n;])
    |(?P<name>[A-Za-z][A-Za-z0-9_]*)
    |(?P<number>[0-9][0-9a-fA-Fx]*)
    |(?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    |(?P<sign>\+=|[=,\[\]])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)")
_ESCAPED = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))


def parse_xl_config(text: str) -> dict[str, Value]:
    """Return the settings by name. Raises ``ValueError`` naming the line."""
    return _Reader(text).settings()


class _Reader:
    """The tokens of one file, read from front to back."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str, int]] = []
        line = position = 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            if not found:
                raise ValueError(f"line {line + 1}: cannot be read at {quoted(text[position])}")
            kind = found.lastgroup or ""
            if kind != "blank":
                self.tokens.append((kind, found[0], line + 1))
            line += found[0].count("\n")
            position = found.end()
        self.tokens += [("end", "\n", line + 1)] * 2
        self.at = 0

    def settings(self) -> dict[str, Value]:
        found: dict[str, Value] = {}
        while self.at < len(self.tokens):
            if self._take("end"):
                continue
            name = self._expect("name")
            adds = self._take("sign", "+=")
            if not adds:
                self._expect("sign", "=")
            line = self._line
            value = self._list() if self._take("sign", "[") else self._atom()
            if adds and name in found:
                value = _joined(found[name], value, line)
            found[name] = value
            self._expect("end")
        return found

    def _list(self) -> list[Value]:
        # This must not recurse, since nothing limits how deep lists are nested.
        whole: list[Value] = []
        open_lists = [whole]
        self._skip_lines()
        while open_lists:
            if self._take("sign", "]"):
                open_lists.pop()
            elif self._take("sign", "["):
                inner: list[Value] = []
                open_lists[-1].append(inner)
                open_lists.append(inner)
                self._skip_lines()
                continue
            else:
                open_lists[-1].append(self._atom())
            if open_lists:
                self._end_item()
        return whole

    def _end_item(self) -> None:
        """Take the comma after a value of a list, or leave the bracket that ends the list."""
        self._skip_lines()
        if self._take("sign", ","):
            self._skip_lines()
        else:
            self._expect("sign", "]")
            self.at -= 1

    def _atom(self) -> str:
        return self._take("number") or _unquoted(self._expect("string"))

    def _skip_lines(self) -> None:
        while self._take("end", "\n"):
            pass

    def _take(self, kind: str, text: str | None = None) -> str:
        """Take the next token if it is of this kind, and return its text; else return ""."""
        if self.at < len(self.tokens):
            found, spelt, _line = self.tokens[self.at]
            if found == kind and text in {None, spelt}:
                self.at += 1
                return spelt
        return ""

    def _expect(self, kind: str, text: str | None = None) -> str:
        taken = self._take(kind, text)
        if not taken:
            spelt = self.tokens[min(self.at, len(self.tokens) - 1)][1]
            raise ValueError(f"line {self._line}: {quoted(spelt)} where {text or kind} should be")
        return taken

    @property
    def _line(self) -> int:
        """The line of the next token."""
        return self.tokens[min(self.at, len(self.tokens) - 1)][2]


def strings(value: Value) -> list[str]:
    """Return a value as a list of strings; nested lists are left out."""
    return [value] if isinstance(value, str) else [one for one in value if isinstance(one, str)]


def _joined(before: Value, added: Value, line: int) -> Value:
    if isinstance(before, list) and isinstance(added, list):
        return before + added
    if isinstance(before, str) and isinstance(added, str):
        return before + added
    raise ValueError(f"line {line}: += of a list and a string")


def _unquoted(string: str) -> str:
    return _ESCAPE.sub(_meant, string[1:-1])


def _meant(escape: re.Match[str]) -> str:
    code = escape[1]
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    if code[0] in "01234567":
        return chr(int(code, 8))
    return _ESCAPED.get(code, code)
