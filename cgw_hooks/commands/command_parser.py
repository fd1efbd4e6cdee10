"""The parser of ``cgw``, and what the parsers of its commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cgw_hooks import __version__
from cgw_hooks.commands.exit_codes import EXIT_CODES
from cgw_hooks.errors import quoted

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Collection, Iterator
    from typing import TypeVar

    _T = TypeVar("_T")
    Action = Callable[[Namespace], int]


#: Seconds.
_SHORTEST_WATCH, _LONGEST_WATCH = 0.1, 86400.0


class _Help(argparse.RawDescriptionHelpFormatter):
    """Like its parent, with each command and its text on one line.

    argparse does not count the indent of the commands when it places their texts.
    """

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if action.nargs == argparse.PARSER:
            self._action_max_length += self._indent_increment


class Once(argparse.Action):
    """Store an option's value; refuse a second one, which would silently replace the first."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Store it; argparse calls this. Raises ``ArgumentError``."""
        del parser, option_string
        if getattr(namespace, self.dest) is not self.default:
            raise argparse.ArgumentError(self, "give it once, with commas between several values")
        setattr(namespace, self.dest, values)


class Watch(argparse.Action):
    """``--watch [SECONDS]`` before an optional GUEST: a word that is no number is the guest."""

    #: Seconds.
    DEFAULT = 2.0

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Store seconds as ``watch``, and a guest as ``watched``; argparse calls this."""
        del parser, option_string
        seconds = self.DEFAULT
        try:
            seconds = float(str(values or self.DEFAULT))
        except ValueError:
            namespace.watched = str(values)
        if not _SHORTEST_WATCH <= seconds <= _LONGEST_WATCH:  # also false for NaN
            raise argparse.ArgumentError(
                self, f"give seconds, from {_SHORTEST_WATCH:g} to {_LONGEST_WATCH:g}"
            )
        namespace.watch = seconds


def parsed_by(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return the parser for argparse: its error says what to give instead."""

    def parsed(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{quoted(text)} cannot be used; {error}") from None

    return parsed


class _Choices(Mapping[str, argparse.ArgumentParser]):
    """The commands. Hidden ones are found, but an error about an unknown command lists none."""

    def __init__(
        self, commands: Mapping[str, argparse.ArgumentParser], public: Collection[str]
    ) -> None:
        self._commands = commands
        self._public = public

    def __getitem__(self, name: str) -> argparse.ArgumentParser:
        return self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._public)

    def __len__(self) -> int:
        return len(self._public)


class Commands:
    """The parser of ``cgw`` and of each of its commands."""

    def __init__(self, actions: Mapping[str, Action]) -> None:
        self._actions = actions
        self.parser = argparse.ArgumentParser(
            prog="cgw",
            description="Published ports for virtual machines: docker run -p for guests.",
            epilog=EXIT_CODES,
            formatter_class=_Help,
        )
        self.parser.add_argument("--version", action="version", version=f"cgw {__version__}")
        self._commands = self.parser.add_subparsers(
            title="commands", metavar="COMMAND", required=True
        )
        self._public: list[str] = []
        self._commands.choices = _Choices(self._commands.choices, self._public)  # type: ignore[assignment]

    def add(self, name: str, text: str) -> argparse.ArgumentParser:
        """Add a command. ``text`` describes it; its first sentence is for ``cgw --help``."""
        added = self._commands.add_parser(name, help=text.partition(".")[0], description=text)
        added.set_defaults(carry_out=self._actions[name])
        self._public.append(name)
        return added

    def add_with_json(self, name: str, text: str, **other: str) -> argparse.ArgumentParser:
        """Add a command that can print JSON, or something else: name of the option -> help."""
        added = self.add(name, text)
        outputs = added.add_mutually_exclusive_group()
        outputs.add_argument("--json", action="store_true", help="print JSON, for programs")
        for option, option_help in other.items():
            outputs.add_argument(f"--{option}", action="store_true", help=option_help)
        return added

    def add_hidden(self, name: str) -> argparse.ArgumentParser:
        """Add a command that only programs use."""
        added = self._commands.add_parser(name)  # without a help text it is not listed
        added.set_defaults(carry_out=self._actions[name])
        return added

    def add_for_guest(self, name: str, text: str) -> argparse.ArgumentParser:
        """Add a command that changes what a guest publishes."""
        changes = "print what would change, as a diff and as text for nft -f; change nothing"
        added = self.add_with_json(name, text, **{"dry-run": changes})
        added.add_argument("guest", metavar="GUEST", help="the guest's name or uuid")
        added.add_argument("--live", action="store_true", help="only while it runs this time")
        added.add_argument("--config", action="store_true", help="only from its next start on")
        return added

    def add_with_root(self, name: str, text: str) -> argparse.ArgumentParser:
        """Add a command that can work on the files of another host."""
        added = self.add(name, text)
        added.add_argument(
            "--root", type=Path, default=Path("/"), metavar="DIR", help="another root than /"
        )
        return added
