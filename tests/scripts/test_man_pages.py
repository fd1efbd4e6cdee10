"""The man pages: they build without a warning, and name what the code knows and nothing else."""

# ruff: noqa: SLF001 - argparse has no public list of a parser's commands and options
from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING

import pytest
from lxml import etree

from cgw_hooks import errors
from cgw_hooks.commands.arguments import parser
from cgw_hooks.core.finding import Verdict
from cgw_hooks.core.parse import config_table, config_toml
from cgw_hooks.node.cluster import CLOSED, LOST, OPEN, PENDING
from tests.unit.builders import ROOT, SCHEMA, domain, guest_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.scripts

FOLDER = ROOT / "docs/man"
PAGES = sorted(path.name.removesuffix(".scd") for path in FOLDER.glob("*.scd"))
PARSER = parser(defaultdict(lambda: lambda _: 0))
(SUBPARSERS,) = (a for a in PARSER._actions if isinstance(a, argparse._SubParsersAction))
#: The commands that `cgw --help` lists.
COMMANDS: dict[str, argparse.ArgumentParser] = {
    choice.dest: SUBPARSERS.choices[choice.dest] for choice in SUBPARSERS._choices_actions
}


def nested(command: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a command: ``cgw registry status``."""
    found = [a for a in command._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


#: The words that begin a command line -> the parser of the rest.
LINES: dict[str, argparse.ArgumentParser] = {
    line: parser
    for name, command in COMMANDS.items()
    for line, parser in (
        {f"{name} {verb}": inner for verb, inner in nested(command).items()} or {name: command}
    ).items()
}
#: Small commands have no page of their own.
PAGE_OF = {"uninstall": "cgw-install.1", "render": "cgw.1", "hook": "cgw.1"}


@cache
def source(page: str) -> str:
    return (FOLDER / f"{page}.scd").read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    """The text below a heading."""
    match = re.search(
        rf"^# {re.escape(title)}\n(.*?)(?=^# |\Z)", source(page), re.MULTILINE | re.DOTALL
    )
    assert match, f"{page} has no section {title}"
    return match[1]


def plain(text: str) -> str:
    """Without the marks of scdoc: an underscore within a word is none."""
    return re.sub(r"\\(.)|\*|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\1", text)


def defined(text: str) -> list[str]:
    """The terms that a section explains: its lines that an indented one follows."""
    lines = re.findall(r"^(\S.*)\n(?=\t\S)", text, re.MULTILINE)
    return [plain(line) for line in lines]


def page_of(command: str) -> str:
    """The page of a command, which may be one of ``LINES``."""
    name = command.split(maxsplit=1)[0]
    return PAGE_OF.get(name, f"cgw-{name}.1")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_builds_without_a_warning(page: str, tmp_path: Path) -> None:
    made = tmp_path / page
    with (FOLDER / f"{page}.scd").open() as given, made.open("w") as roff:
        built = subprocess.run(
            ["scdoc"], stdin=given, stdout=roff, stderr=subprocess.PIPE, check=False
        )
    assert (built.returncode, built.stderr) == (0, b"")
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    shown = subprocess.run(
        ["man", "--warnings", "--local-file", str(made)],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stderr == ""
    name, _, number = page.rpartition(".")
    assert f"\n       {name} - " in shown.stdout
    assert shown.stdout.startswith(f"{name}({number})")


def test_each_command_has_its_page_and_each_page_its_subject() -> None:
    assert "registry forget" in LINES
    documents = {"cgw.1", "cgw.toml.5", "cgw-annotation.7"}
    assert documents | {page_of(command) for command in COMMANDS} == set(PAGES)
    listed = {
        word for term in defined(section("cgw.1", "COMMANDS"))
        for word in re.findall(r"cgw ([a-z]+)", term)
    }  # fmt: skip
    assert listed == set(COMMANDS)
    for page in PAGES:
        related = re.findall(r"(cgw[a-z.-]*)\((\d)\)", plain(section(page, "SEE ALSO")))
        assert related
        assert {f"{name}.{number}" for name, number in related} < set(PAGES)


def shown(action: argparse.Action) -> str:
    """An option as a page writes it: ``-h, --help``, ``--for DURATION``, ``--watch [SECONDS]``."""
    value = f" {action.metavar}" if action.metavar else ""
    if value and action.nargs == argparse.OPTIONAL:
        value = f" [{action.metavar}]"
    return ", ".join(action.option_strings) + value


@pytest.mark.parametrize("page", sorted({page_of(command) for command in COMMANDS}))
def test_a_page_explains_every_option_and_no_other(page: str) -> None:
    parsers = [
        command for names in (COMMANDS, LINES) for name, command in names.items()
        if page_of(name) == page
    ]  # fmt: skip
    if page == "cgw.1":
        parsers.append(PARSER)
    known = {shown(a) for p in parsers for a in p._actions if a.option_strings}
    assert set(defined(section(page, "OPTIONS"))) == known
    options = {option for a in known for option in re.findall(r"--[a-z-]+", a)}
    if page != "cgw.1":  # which also speaks of the other commands
        spoken_of = re.findall(r"\*(--[a-z-]+)\*", source(page))
        assert set(spoken_of) <= options


@pytest.mark.parametrize("command", LINES)
def test_the_synopsis_names_every_argument(command: str) -> None:
    title = "SYNOPSIS" if page_of(command) != "cgw.1" else "COMMANDS"
    lines = plain(section(page_of(command), title)).splitlines()
    (line,) = (line for line in lines if re.match(rf"cgw {command}( |$)", line))
    arguments = [a for a in LINES[command]._actions if not a.option_strings]
    words = re.findall(r"[A-Za-z-]+", line.partition(command)[2].replace("OPTION", ""))
    options = {option for a in LINES[command]._actions for option in a.option_strings}
    names = [word for a in arguments for word in re.split(r"\W", str(a.metavar or a.dest))]
    assert [word for word in words if word not in options] == names


def test_the_command_lines_of_the_examples_are_understood() -> None:
    blocks = [block for page in PAGES for block in source(page).split("```")[1::2]]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("cgw ")]
    assert len(lines) > 10
    for line in lines:
        _, *words = shlex.split(re.split(r" [|>]", line)[0])
        assert PARSER.parse_args(words).carry_out


def test_the_exit_codes_are_those_of_the_errors() -> None:
    text = section("cgw.1", "EXIT STATUS")
    told = dict(re.findall(r"^\*(\d)\*\n\t(.+)$", text, re.MULTILINE))
    listed = dict(re.findall(r"^  (\d)  (.+)$", PARSER.epilog or "", re.MULTILINE))
    assert told == listed
    raised = {
        error.exit_code for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.CgwError)
    }  # fmt: skip
    assert {int(code) for code in told} == {0, 2} | raised
    for page in PAGES:
        codes = re.findall(r"\*(\d)\*", source(page)) if "EXIT STATUS" in source(page) else []
        assert set(codes) <= set(told)


@pytest.mark.parametrize("unit", sorted(path.name for path in (ROOT / "etc").glob("cgw*.*")))
def test_a_unit_names_a_page_that_exists(unit: str) -> None:
    text = (ROOT / "etc" / unit).read_text(encoding="utf-8")
    for name, number in re.findall(r"^Documentation=man:(.+)\((\d)\)$", text, re.MULTILINE):
        assert f"{name}.{number}" in PAGES
    assert ("[Unit]" in text) == ("Documentation=" in text)


def test_the_variables_are_those_that_are_read() -> None:
    read = set(re.findall(r"CGW_[A-Z_]+", (ROOT / "cgw_hooks/host/paths.py").read_text()))
    assert set(defined(section("cgw.1", "ENVIRONMENT"))) == read


def test_the_first_page_lists_what_prints_json() -> None:
    can = {
        name for name, command in COMMANDS.items()
        for action in command._actions if "--json" in action.option_strings
    }  # fmt: skip
    assert set(re.findall(r"cgw ([a-z]+) --json", section("cgw.1", "JSON OUTPUT"))) == can


def test_cgw_status_explains_every_state_and_every_member_of_its_json() -> None:
    schema = json.loads((ROOT / "cgw_hooks/schemas/status.json").read_text(encoding="utf-8"))
    parts = schema["$defs"]
    states = parts["guest"]["properties"]["state"]["enum"]
    assert set(defined(section("cgw-status.1", "STATES"))) == set(states)
    cluster = json.loads((ROOT / "cgw_hooks/schemas/cluster.json").read_text(encoding="utf-8"))
    others = cluster["$defs"]
    assert defined(section("cgw-status.1", "STATES IN THE CLUSTER")) == [
        state for state in (PENDING, LOST, CLOSED, OPEN) if state in others["state"]["enum"]
    ]
    objects = [schema, parts["guest"], parts["port"], parts["problem"], cluster]
    objects += [others["node"], others["port"]]
    members = {member for found in objects for member in found["properties"]}
    marked = re.findall(r"\*([^*]+)\*", section("cgw-status.1", "JSON OUTPUT"))
    assert members <= {plain(word) for word in marked}


def test_cgw_doctor_explains_every_verdict_and_every_member_of_its_json() -> None:
    schema = json.loads((ROOT / "cgw_hooks/schemas/doctor.json").read_text(encoding="utf-8"))
    finding = schema["$defs"]["finding"]["properties"]
    assert defined(section("cgw-doctor.1", "VERDICTS")) == finding["verdict"]["enum"]
    assert finding["verdict"]["enum"] == [verdict.value for verdict in Verdict]
    marked = re.findall(r"\*([^*]+)\*", section("cgw-doctor.1", "JSON OUTPUT"))
    assert {*schema["properties"], *finding} <= {*marked, "problem"}


def test_cgw_toml_explains_every_key_and_no_other() -> None:
    tables = re.findall(r"^# (\[+)([a-z-]+)\]+$", source("cgw.toml.5"), re.MULTILINE)
    explained = {
        name: {
            term.partition(" = ")[0]
            for term in defined(section("cgw.toml.5", f"{opened}{name}{']' * len(opened)}"))
        }
        for opened, name in tables
    }
    assert explained == config_table.KEYS
    lists = {name for opened, name in tables if opened == "[["}
    assert lists == {"guest-network", "remote-guest", "remote-node"}


def test_the_examples_of_cgw_toml_are_valid_and_the_file_has_every_key() -> None:
    cluster, registry, remote = section("cgw.toml.5", "EXAMPLES").split("```\n")[1::2]
    config = config_toml.parse_config(cluster + registry)
    assert config.registry
    assert (len(config.guest_networks), len(config.registry.endpoints)) == (1, 3)
    assert len(config_toml.parse_config(cluster + remote).remote_guests) == 1
    comments = (ROOT / "etc/cgw.toml").read_text().splitlines()
    lines = [line.removeprefix("# ") for line in comments]
    settings = [line for line in lines if re.match(r"\[|[a-z-]+ = ", line)]
    assert config_toml.parse_config("\n".join(settings)).guest_networks
    keys = {line.partition(" = ")[0] for line in settings if " = " in line}
    assert keys == {key for table in config_table.KEYS.values() for key in table}


def test_cgw_annotation_explains_every_element_and_attribute_and_no_other() -> None:
    """The schema knows them; other tests hold it against the parser."""
    rng = "{http://relaxng.org/ns/structure/1.0}"
    known = {
        f"<{element.findtext(f'{rng}choice/{rng}name')}>": {
            attribute.get("name")
            for where in ("", f"{rng}optional/")
            for attribute in element.iterfind(f"{where}{rng}attribute")
        }
        for element in etree.fromstring(SCHEMA).iter(f"{rng}element")
    }
    text = section("cgw-annotation.7", "ELEMENTS")
    explained: dict[str, set[str]] = {}
    for indent, term in re.findall(r"^(\t?)\*(\S+)\*\n", text, re.MULTILINE):
        if indent:
            explained[[*explained][-1]].add(term)
        else:
            explained[term] = set()
    assert explained == known


def test_the_annotations_of_the_page_are_valid() -> None:
    blocks = source("cgw-annotation.7").split("```")[1::2]
    annotations = [block for block in blocks if "publish" in block and "<" in block]
    assert len(annotations) >= 2
    shown = [
        guest_of(domain(block.replace("<metadata>", "").replace("</metadata>", "")))
        for block in annotations if "portForward" in block
    ]  # fmt: skip
    assert [len(guest.ports) for guest in shown] == [1, 2]
