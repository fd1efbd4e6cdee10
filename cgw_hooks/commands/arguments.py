"""The command line of ``cgw``: each command with its options and their help texts."""

from __future__ import annotations

import argparse
from argparse import Namespace
from typing import TYPE_CHECKING

from cgw_hooks.commands import figures_arguments, trace_arguments
from cgw_hooks.commands.command_parser import Commands, Once, parsed_by
from cgw_hooks.core import bans
from cgw_hooks.core.parse import fields, port_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgw_hooks.commands.command_parser import Action
    from cgw_hooks.core.published_port import Address

__all__ = ["Namespace", "parser"]


def parser(actions: Mapping[str, Action]) -> argparse.ArgumentParser:
    """Return the parser of ``cgw``; it sets ``carry_out`` to the command's action."""
    commands = Commands(actions)
    _add_publish(commands)
    _add_unpublish(commands)
    _add_bans(commands)
    _add_what_looks(commands)
    _add_what_changes(commands)
    return commands.parser


def _add_publish(commands: Commands) -> None:
    publish = commands.add_for_guest(
        "publish",
        "Publish ports of a guest. Writes them into its definition (now, and for its next start) "
        "and opens them at once if the guest runs.",
    )
    publish.add_argument(
        "ports",
        nargs="+",
        type=parsed_by(port_spec.parse_wish),
        metavar="PORT",
        help="[ADDRESS:]PORT[-END]:GUEST-PORT[/PROTOCOL], for example 8080:80 or 5353:53/udp; "
        ":GUEST-PORT picks a free port and prints HOST:PORT",
    )
    publish.add_argument(
        "--source",
        action=Once,
        type=parsed_by(fields.parse_networks),
        default=(),
        metavar="NETWORK[,NETWORK]",
        help="only these clients may connect",
    )
    publish.add_argument(
        "--for",
        dest="seconds",
        type=parsed_by(port_spec.parse_duration),
        metavar="DURATION",
        help="take the ports back after this time: 90s, 30m, 2h, 1d",
    )
    _add_limits(publish)
    publish.add_argument(
        "--guest-address",
        action=Once,
        type=parsed_by(_guest_addresses),
        default=(),
        metavar="ADDRESS[,ADDRESS]",
        help="the guest's address, if libvirt does not know it (a static one on a plain bridge)",
    )


def _add_limits(publish: argparse.ArgumentParser) -> None:
    publish.add_argument(
        "--limit",
        action=Once,
        type=parsed_by(fields.parse_rate),
        default=(0, ""),
        metavar="NUMBER/UNIT",
        help="new connections of one client: 10/second, 30/minute, 100/hour",
    )
    publish.add_argument(
        "--max-connections",
        action=Once,
        type=parsed_by(fields.parse_connections),
        default=0,
        metavar="NUMBER",
        help="connections of one client at once",
    )


def _add_unpublish(commands: Commands) -> None:
    unpublish = commands.add_for_guest(
        "unpublish", "Withdraw ports of a guest, or all of them, and end their connections."
    )
    unpublish.add_argument(
        "ports",
        nargs="*",
        type=parsed_by(port_spec.parse_listen_ports),
        metavar="PORT",
        help="[ADDRESS:]PORT[-END][/PROTOCOL]; without it, all ports",
    )
    complete = commands.add_hidden("complete")
    complete.add_argument("what", choices=("names", "ports", "traceable"))
    complete.add_argument("guest", nargs="?", default="")


def _add_bans(commands: Commands) -> None:
    deny = commands.add(
        "deny",
        "Ban clients from all published ports of this node, and end their connections. The bans "
        "outlast a reload and a reboot. The node itself stays open to them.",
    )
    _add_clients(deny)
    deny.add_argument(
        "--for",
        dest="seconds",
        type=parsed_by(port_spec.parse_duration),
        metavar="DURATION",
        help="until then: 90s, 30m, 2h, 1d; without it, until cgw allow",
    )
    deny.add_argument(
        "--force", action="store_true", help="also this node's own addresses, or every client"
    )
    deny.add_argument("--list", action="store_true", help="print who is banned")
    deny.add_argument("--json", action="store_true", help="print JSON, for programs")
    allow = commands.add("allow", "Lift the bans of clients, and of all clients within a network.")
    _add_clients(allow)
    allow.add_argument("--all", action="store_true", help="lift the bans of all clients")


def _add_clients(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "clients",
        nargs="*",
        type=parsed_by(lambda text: [fields.parse_client(word) for word in fields.words(text)]),
        metavar="ADDRESS|NETWORK",
        help="for example 203.0.113.7 or 2001:db8::/64",
    )
    command.add_argument(
        "--file", metavar="FILE", help="also those of a file, one per line; - for standard input"
    )
    command.add_argument(
        "--by",
        dest="maker",
        type=parsed_by(bans.parse_maker),
        metavar="NAME",
        help="only the bans of this name: so several programs do not lift each other's bans",
    )


def _guest_addresses(text: str) -> tuple[Address, ...]:
    addresses = tuple(map(fields.parse_guest_address, fields.words(text)))
    if len({address.version for address in addresses}) < len(addresses):
        raise ValueError("give one address per IP family")
    return addresses


def _add_what_looks(commands: Commands) -> None:
    figures_arguments.add_status(commands)
    _add_doctor(commands)
    trace_arguments.add_to(commands)
    figures_arguments.add_flows(commands)
    figures_arguments.add_log(commands)
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
        "(.toml), or a guest's name or uuid: its live definition, and the one for "
        "its next start, are checked. Without it, this node's config is checked",
    )
    check.add_argument(
        "--schema", action="store_true", help="print the path of the annotation's RELAX NG schema"
    )
    commands.add("render", "Print the ruleset as text for nft -f. Applies nothing.")


def _add_doctor(commands: Commands) -> None:
    doctor = commands.add_with_json(
        "doctor",
        "Find out why clients cannot reach a guest. Checks all that status checks, the rules of "
        "other firewalls, the installation, and whether the guests answer. Each fault has its "
        "cure, and the first one is the nearest to the root. Packets are sent to the guests; "
        "nothing is changed.",
    )
    doctor.add_argument(
        "guest", nargs="?", metavar="GUEST", help="only this guest, by its name or uuid"
    )
    doctor.add_argument("--verbose", action="store_true", help="also list the checks that passed")
    doctor.add_argument(
        "--schema", action="store_true", help="print the path of the JSON Schema of --json"
    )


def _add_what_changes(commands: Commands) -> None:
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
    commands.add(
        "agent",
        "Serve hook calls and follow changes, until SIGTERM. systemd runs this as cgw.service. "
        "It follows leases, live changes of definitions, firewalls that are reloaded and the "
        "node's listeners. SIGHUP reads the config again.",
    )
    _add_what_administers(commands)


def _add_what_administers(commands: Commands) -> None:
    _add_node(commands)
    _add_registry(commands)
    install = commands.add_with_root("install", "Install the hooks and units.")
    install.add_argument(
        "--xen", action="store_true", help="also the vif script and hook of xl, in /etc/xen/scripts"
    )
    commands.add_with_root("uninstall", "Remove the hooks, units and rules of cgw.")
    commands.add_hidden("withdraw-all")
    _add_hook(commands)


def _add_node(commands: Commands) -> None:
    node = commands.add("node", "Configure this host as its guests' gateway, or undo that.")
    verbs = node.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="what")
    verbs.add_parser(
        "up", help="set addresses on the guest bridges, kernel settings, SNAT and ARP filter"
    )
    verbs.add_parser("down", help="undo that")
    for verb, text in (
        ("takeover", "carry a dead node's addresses and connections on"),
        ("handback", "give a node's addresses back"),
    ):
        verbs.add_parser(verb, help=text).add_argument(
            "subject", metavar="NODE", help="its name in [[remote-node]]"
        )


def _add_registry(commands: Commands) -> None:
    registry = commands.add(
        "registry",
        "Look at the cluster's registry, and decide what only a person can. The agent does the "
        "rest by itself.",
    )
    verbs = registry.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="what")
    status = verbs.add_parser("status", help="whether this node is connected, and what is wrong")
    status.add_argument("--json", action="store_true", help="print JSON, for programs")
    forget = verbs.add_parser(
        "forget", help="withdraw what a node publishes that will not come back as it was"
    )
    forget.add_argument("subject", metavar="NODE", help="the node's name")
    forget.add_argument(
        "--for-good", action="store_true", help="the node will not come back: forget its addresses"
    )
    verbs.add_parser("export", help="print all guests of the registry as JSON")
    write = verbs.add_parser("import", help="write the entries again that export has printed")
    write.add_argument("subject", metavar="FILE", help="- for standard input")


def _add_hook(commands: Commands) -> None:
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
