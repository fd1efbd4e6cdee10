"""The files for the shells name every command and option of the command line."""

# ruff: noqa: SLF001 - argparse has no public list of a parser's commands and options
from __future__ import annotations

import argparse
from collections import defaultdict

import pytest

from cgw_hooks.commands.arguments import parser
from tests.unit.builders import ROOT

pytestmark = pytest.mark.unit

(SUBPARSERS,) = (
    action
    for action in parser(defaultdict(lambda: lambda _: 0))._actions
    if isinstance(action, argparse._SubParsersAction)
)
#: Those that `cgw --help` lists and people type.
COMMANDS = {
    listed.dest: SUBPARSERS.choices[listed.dest]
    for listed in SUBPARSERS._choices_actions
    if listed.dest != "hook"
}
#: The commands of a command: `cgw registry status`.
NESTED = {
    name: parser
    for command in COMMANDS.values()
    for action in command._actions
    if isinstance(action, argparse._SubParsersAction)
    for name, parser in action.choices.items()
}
OPTIONS = {
    option
    for command in (*COMMANDS.values(), *NESTED.values())
    for action in command._actions
    for option in action.option_strings
    if option.startswith("--") and option not in {"--help", "--root"}
}


@pytest.mark.parametrize("file", ["cgw.bash", "_cgw", "cgw.fish"])
def test_every_command_and_option_completes(file: str) -> None:
    text = (ROOT / "etc/completion" / file).read_text(encoding="utf-8")
    assert {"publish", "status"} < set(COMMANDS)
    assert {"forget", "import"} < set(NESTED)
    assert {"--dry-run", "--cluster"} < OPTIONS
    missing = {name for name in (*COMMANDS, *NESTED) if name not in text}
    missing |= {o for o in OPTIONS if o not in text and f"-l {o.removeprefix('--')}" not in text}
    assert missing == set()
