"""Everything of ``cgw`` that a person types: arguments in, tables and lines out."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgw_hooks import __version__
from cgw_hooks.commands.this_node import publisher
from cgw_hooks.core.node_config import NodeConfig
from cgw_hooks.core.record import translated
from cgw_hooks.core.rules import table
from cgw_hooks.errors import CgwError, NotFound, RecordError, printable, quoted
from cgw_hooks.host import paths
from cgw_hooks.host.config_file import load_config
from cgw_hooks.host.state.state import State
from cgw_hooks.node.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable


_EXIT_CODES = """\
exit codes:
  0  done, and nothing is wrong
  1  something is wrong; it says what (status, sync)
  2  the command line was not understood
  3  an annotation is invalid
  4  a port is another guest's, or the node's own
  5  the configuration is invalid
  6  records, ruleset or files could not be changed
  7  libvirt or xenstore did not answer
  8  there is no such guest or file

files:
  /etc/cgw/cgw.toml   the node's configuration (CGW_CONFIG says another place)
  /run/cgw            what is published now (CGW_RUNTIME_DIR says another place)
"""


def main(arguments: list[str]) -> int:
    """Run one command; errors go to stderr, one line each."""
    _stand_in_for_closed_outputs()
    try:
        return _carry_out(arguments)
    except CgwError as error:
        sys.stderr.write(f"cgw: {printable(str(error))}\n")
        return error.exit_code
    except BrokenPipeError:  # the reader of a pipe had enough
        _let_go_of_stdout()
        return 0
    except PermissionError as error:
        sys.stderr.write(f"cgw: {error.filename}: {error.strerror}; run it as root\n")
        return CgwError.exit_code
    except OSError as error:
        if not error.filename:
            _let_go_of_stdout()
        sys.stderr.write(f"cgw: {error.filename or 'standard output'}: {error.strerror}\n")
        return CgwError.exit_code
    except KeyboardInterrupt:
        return 130


def _carry_out(arguments: list[str]) -> int:
    try:
        chosen = _parser().parse_args(arguments)
        carry_out: Callable[[argparse.Namespace], int] = chosen.carry_out
        return carry_out(chosen)
    finally:
        sys.stdout.flush()  # here, where its failure is reported as any other


def _stand_in_for_closed_outputs() -> None:
    """Of a closed one (``>&-``) Python makes None: what is printed is to fail as it does in C."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")  # a write: EBADF
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding != "utf-8":
        # Of a name that this locale cannot write, its code points are written.
        sys.stdout.reconfigure(errors="backslashreplace")


def _let_go_of_stdout() -> None:
    """Nobody takes what is left in its buffer; the interpreter would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Commands:
    """The parser of ``cgw`` and of each of its commands."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(
            prog="cgw",
            description="Published ports for virtual machines: docker run -p for guests.",
            epilog=_EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.parser.add_argument("--version", action="version", version=f"cgw {__version__}")
        self._commands = self.parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        self, name: str, carry_out: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        added = self._commands.add_parser(name, help=text.partition(".")[0], description=text)
        added.set_defaults(carry_out=carry_out)
        return added

    def add_with_json(
        self, name: str, carry_out: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        added = self.add(name, carry_out, text)
        added.add_argument("--json", action="store_true", help="print JSON, for programs")
        return added

    def add_with_root(
        self, name: str, carry_out: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        added = self.add(name, carry_out, text)
        added.add_argument(
            "--root", type=Path, default=Path("/"), metavar="DIR", help="a root other than /"
        )
        return added


def _parser() -> argparse.ArgumentParser:
    commands = _Commands()
    status = commands.add_with_json("status", _status, "Show what is published, and what is wrong.")
    status.add_argument("guest", nargs="?", metavar="GUEST", help="only this guest")
    status.add_argument(
        "--graph", action="store_true", help="print a graph, for dot -Tsvg (Graphviz)"
    )
    check = commands.add("check", _check, "Validate the config, or what a guest would publish.")
    check.add_argument(
        "subject",
        nargs="?",
        metavar="FILE|GUEST",
        help="domain XML or annotation (- for standard input), a .toml file, or a guest's name; "
        "left out: this node's config",
    )
    commands.add("render", _render, "Print the ruleset as nft -f takes it. Applies nothing.")
    sync = commands.add_with_json("sync", _sync, "Make this node match the guests that run, once.")
    sync.add_argument(
        "--settle",
        action="store_true",
        help="after a firewall was reloaded: once more, when others have put their rules back",
    )
    node = commands.add("node", _node, "Configure this host as its guests' gateway, or undo that.")
    node.add_argument(
        "direction",
        choices=("up", "down"),
        metavar="up|down",
        help="set addresses on the guest bridges, kernel settings, SNAT and ARP filter, "
        "or give them back",
    )
    install = commands.add_with_root("install", _install, "Put the hooks and units in place.")
    install.add_argument(
        "--xen", action="store_true", help="also the vif script and hook of xl, in /etc/xen/scripts"
    )
    commands.add_with_root("uninstall", _uninstall, "Take our hooks, units and rules away.")
    hook = commands.add("hook", _hook_usage, "What the hook scripts call. Domain XML on stdin.")
    for argument in ("DRIVER", "GUEST", "OPERATION", "SUBOPERATION", "EXTRA"):
        hook.add_argument(argument)
    return commands.parser


def _status(arguments: argparse.Namespace) -> int:
    from cgw_hooks.node.diagnosis import diagnose

    node = publisher()
    found = diagnose(node, arguments.guest)
    if arguments.guest and not found.rows:
        raise NotFound(
            quoted(arguments.guest), "nothing is known of such a guest", "see: cgw status"
        )
    if arguments.json:
        from cgw_hooks.commands.status import as_json

        _print_json(as_json(found, node.config.name))
    elif arguments.graph:
        from cgw_hooks.commands.graph import graph

        sys.stdout.write(graph(found, node.config.name or "this node"))
    else:
        from cgw_hooks.commands.status_table import print_status

        print_status(found)
    return 0 if found.is_well else CgwError.exit_code


def _check(arguments: argparse.Namespace) -> int:
    from cgw_hooks.commands import check

    subject = arguments.subject
    if subject is None:
        load_config(paths.config_file())
        shown = paths.config_file() if Path(paths.config_file()).exists() else "defaults (no file)"
        sys.stdout.write(f"{shown}: ok\n")
    elif check.is_config(subject):
        check.check_config_file(subject)
        sys.stdout.write(f"{subject}: ok\n")
    else:
        for line in check.check(publisher(), subject):
            sys.stdout.write(f"{printable(line)}\n")
    return 0


def _render(_arguments: argparse.Namespace) -> int:
    node = publisher()
    records, errors = node.state.all()
    sys.stdout.write(table.restore(node.config, translated(list(records.values()))))
    for error in errors.values():
        sys.stderr.write(f"cgw: {printable(str(error))}\n")
    return RecordError.exit_code if errors else 0


def _sync(arguments: argparse.Namespace) -> int:
    from cgw_hooks.commands import sync

    return sync.run(publisher(), json=arguments.json, settle=arguments.settle)


def _node(arguments: argparse.Namespace) -> int:
    from cgw_hooks.node import gateway

    change = gateway.up if arguments.direction == "up" else gateway.down
    for line in change(publisher()):
        sys.stdout.write(f"{printable(line)}\n")
    return 0


def _install(arguments: argparse.Namespace) -> int:
    from cgw_hooks.commands import install

    for line in install.install(arguments.root, xen=arguments.xen):
        sys.stdout.write(f"{line}\n")
    for line in install.next_steps():
        sys.stdout.write(f"{line}\n")
    return 0


def _uninstall(arguments: argparse.Namespace) -> int:
    from cgw_hooks.commands import install

    for line in install.uninstall(arguments.root):
        sys.stdout.write(f"{line}\n")
    if arguments.root == Path("/"):
        from cgw_hooks.node import gateway

        for line in gateway.withdraw_all(Publisher(NodeConfig(), State(paths.runtime_directory()))):
            sys.stdout.write(f"{printable(line)}\n")
    return 0


def _hook_usage(_arguments: argparse.Namespace) -> int:
    raise AssertionError("cgw hook is carried out before this parser is made")


def _print_json(value: dict[str, Any]) -> None:
    """Print an object, each entry of its lists on a line; with ``indent`` json is slow."""
    members = []
    for key, member in value.items():
        text = json.dumps(member)
        if isinstance(member, list) and member:
            text = "[\n    " + ",\n    ".join(map(json.dumps, member)) + "\n  ]"
        members.append(f"  {json.dumps(key)}: {text}")
    sys.stdout.write("{\n" + ",\n".join(members) + "\n}\n")
