"""The command line of ``cgw``: commands, options and their help texts."""

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
  1  there is a problem, which the output names (status, sync)
  2  the command line was not understood
  3  an annotation is invalid
  4  another guest, or the node itself, owns a port
  5  the configuration is invalid
  6  records, ruleset or files could not be changed
  7  libvirt or xenstore did not answer
  8  there is no such guest or file

files:
  /etc/cgw/cgw.toml   the node's configuration (or: $CGW_CONFIG)
  /run/cgw            what is published now (or: $CGW_RUNTIME_DIR)
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
            "--root", type=Path, default=Path("/"), metavar="DIR", help="another root than /"
        )
        return added


def parser(actions: Mapping[str, Action]) -> argparse.ArgumentParser:
    """Return the parser of ``cgw``; it sets ``carry_out`` to the command's action."""
    commands = _Commands(actions)
    _add_what_looks(commands)
    _add_what_changes(commands)
    return commands.parser


def _add_what_looks(commands: _Commands) -> None:
    status = commands.add_with_json(
        "status",
        "Show what is published, and what is wrong. Each problem names its cure. No packet is "
        "sent, and nothing is changed.",
    )
    status.add_argument("guest", nargs="?", metavar="GUEST", help="only this guest")
    status.add_argument(
        "--graph", action="store_true", help="print a graph, for dot -Tsvg (Graphviz)"
    )
    check = commands.add(
        "check",
        "Validate the config, or what a guest would publish. A definition is read as the hook "
        "reads it, and its ports are compared with those of other guests. Nothing is changed.",
    )
    check.add_argument(
        "subject",
        nargs="?",
        metavar="FILE|GUEST",
        help="a file with domain XML or only the annotation (- for standard input), a config file "
        "(.toml), or a guest's name: its live definition, and the one for its "
        "next start, are checked. Without it, this node's config is checked",
    )
    commands.add("render", "Print the ruleset as text for nft -f. Applies nothing.")


def _add_what_changes(commands: _Commands) -> None:
    sync = commands.add_with_json(
        "sync",
        "Make this node match the guests that run, once. Says what was published, withdrawn and "
        "repaired; changes nothing if nothing differs.",
    )
    sync.add_argument(
        "--settle",
        action="store_true",
        help="for firewall reloads: run again when other programs have restored their rules",
    )
    node = commands.add("node", "Configure this host as its guests' gateway, or undo that.")
    node.add_argument(
        "direction",
        choices=("up", "down"),
        metavar="up|down",
        help="up: set addresses on the guest bridges, kernel settings, SNAT and ARP filter; "
        "down: undo that",
    )
    install = commands.add_with_root("install", "Install the hooks and units.")
    install.add_argument(
        "--xen", action="store_true", help="also the vif script and hook of xl, in /etc/xen/scripts"
    )
    commands.add_with_root("uninstall", "Remove the hooks, units and rules of cgw.")
    hook = commands.add(
        "hook",
        "Used by the hook scripts. The guest's domain XML is read from standard input. See "
        "https://libvirt.org/hooks.html for the arguments.",
    )
    hook.add_argument(
        "DRIVER", help="libvirt's driver: qemu, lxc or libxl; xl for a plain xl guest"
    )
    hook.add_argument("GUEST", help="the guest's name")
    hook.add_argument("OPERATION", help="prepare, start, started, stopped, release, reconnect ...")
    hook.add_argument("SUBOPERATION", help="begin or end")
    hook.add_argument("EXTRA", help="why the guest stopped, at release (since libvirt 10.5); or -")
