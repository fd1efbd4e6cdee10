"""The command line of ``cgw``: commands, options, and what ``--help`` says of them."""

from __future__ import annotations

import argparse
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from cgw_hooks import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Action = Callable[[Namespace], int]

__all__ = ["Namespace", "parser"]

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


class _Commands:
    """The parser of ``cgw`` and of each of its commands."""

    def __init__(self, actions: Mapping[str, Action]) -> None:
        self._actions = actions
        self.parser = argparse.ArgumentParser(
            prog="cgw",
            description="Published ports for virtual machines: docker run -p for guests.",
            epilog=_EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.parser.add_argument("--version", action="version", version=f"cgw {__version__}")
        self._commands = self.parser.add_subparsers(
            title="commands", metavar="COMMAND", required=True
        )

    def add(self, name: str, text: str) -> argparse.ArgumentParser:
        added = self._commands.add_parser(name, help=text.partition(".")[0], description=text)
        added.set_defaults(carry_out=self._actions[name])
        return added

    def add_with_json(self, name: str, text: str) -> argparse.ArgumentParser:
        added = self.add(name, text)
        added.add_argument("--json", action="store_true", help="print JSON, for programs")
        return added

    def add_with_root(self, name: str, text: str) -> argparse.ArgumentParser:
        added = self.add(name, text)
        added.add_argument(
            "--root", type=Path, default=Path("/"), metavar="DIR", help="a root other than /"
        )
        return added


def parser(actions: Mapping[str, Action]) -> argparse.ArgumentParser:
    """The parser of ``cgw``; ``carry_out`` of what it parses is one of these actions."""
    commands = _Commands(actions)
    _add_what_looks(commands)
    _add_what_changes(commands)
    return commands.parser


def _add_what_looks(commands: _Commands) -> None:
    status = commands.add_with_json(
        "status",
        "Show what is published, and what is wrong. Each problem says what to do. No packet is "
        "sent, and nothing is changed.",
    )
    status.add_argument("guest", nargs="?", metavar="GUEST", help="only this guest")
    status.add_argument(
        "--graph", action="store_true", help="print a graph, for dot -Tsvg (Graphviz)"
    )
    check = commands.add(
        "check",
        "Validate the config, or what a guest would publish. A definition is read as the hook "
        "reads it, its ports are held against those of others. Nothing is changed.",
    )
    check.add_argument(
        "subject",
        nargs="?",
        metavar="FILE|GUEST",
        help="a file with domain XML or the annotation alone (- for standard input), a config file "
        "(.toml), or a guest's name: then its live definition, and the one that counts from its "
        "next start. Left out: this node's config",
    )
    commands.add("render", "Print the ruleset as nft -f takes it. Applies nothing.")


def _add_what_changes(commands: _Commands) -> None:
    sync = commands.add_with_json(
        "sync",
        "Make this node match the guests that run, once. Says what was published, withdrawn and "
        "repaired; changes nothing where nothing differs.",
    )
    sync.add_argument(
        "--settle",
        action="store_true",
        help="after a firewall was reloaded: once more, when others have put their rules back",
    )
    node = commands.add("node", "Configure this host as its guests' gateway, or undo that.")
    node.add_argument(
        "direction",
        choices=("up", "down"),
        metavar="up|down",
        help="set addresses on the guest bridges, kernel settings, SNAT and ARP filter, "
        "or give them back",
    )
    install = commands.add_with_root("install", "Put the hooks and units in place.")
    install.add_argument(
        "--xen", action="store_true", help="also the vif script and hook of xl, in /etc/xen/scripts"
    )
    commands.add_with_root("uninstall", "Take our hooks, units and rules away.")
    hook = commands.add(
        "hook",
        "What the hook scripts call. The guest's domain XML is read from standard input. See "
        "https://libvirt.org/hooks.html for the arguments.",
    )
    hook.add_argument(
        "DRIVER", help="libvirt's driver: qemu, lxc or libxl; xl for a plain xl guest"
    )
    hook.add_argument("GUEST", help="the guest's name")
    hook.add_argument("OPERATION", help="prepare, start, started, stopped, release, reconnect ...")
    hook.add_argument("SUBOPERATION", help="begin or end")
    hook.add_argument("EXTRA", help="why the guest stopped, at release (libvirt 10.5 on); or -")
