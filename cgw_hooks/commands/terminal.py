"""The commands that people type: they read arguments and print tables and lines."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cgw_hooks.commands import standard_files
from cgw_hooks.commands.arguments import parser
from cgw_hooks.commands.this_node import publisher, publisher_of_gateway
from cgw_hooks.core.node_config import NodeConfig
from cgw_hooks.core.record import contents
from cgw_hooks.core.rules import table
from cgw_hooks.errors import CgwError, RecordError, printable
from cgw_hooks.host import paths
from cgw_hooks.host.config_file import load_config
from cgw_hooks.host.state.state import State
from cgw_hooks.node.publisher import Publisher
from cgw_hooks.sources import static

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgw_hooks.commands.arguments import Namespace


def main(arguments: list[str]) -> int:
    """Run one command; print each error as one line on stderr. Return the exit code."""
    # The garbage collector would look for cycles in the values of thousands of guests, in vain.
    gc.disable()
    standard_files.stand_in_for_closed()
    try:
        return _carry_out(arguments)
    except CgwError as error:
        sys.stderr.write(f"cgw: {printable(str(error))}\n")
        return error.exit_code
    except BrokenPipeError:  # the reader of the pipe has closed it
        standard_files.discard_stdout()
        return 0
    except PermissionError as error:
        sys.stderr.write(f"cgw: {error.filename}: {error.strerror}; run it as root\n")
        return CgwError.exit_code
    except OSError as error:
        if not error.filename:
            standard_files.discard_stdout()
        sys.stderr.write(f"cgw: {error.filename or 'standard output'}: {error.strerror}\n")
        return CgwError.exit_code
    except KeyboardInterrupt:
        return 130


def _carry_out(arguments: list[str]) -> int:
    try:
        chosen = parser(_ACTIONS).parse_args(arguments)
        carry_out: Callable[[Namespace], int] = chosen.carry_out
        return carry_out(chosen)
    finally:
        sys.stdout.flush()  # here, so that a failure is reported like any other


def _publish(arguments: Namespace) -> int:
    from cgw_hooks.commands import publish

    return publish.publish(publisher(), arguments)


def _unpublish(arguments: Namespace) -> int:
    from cgw_hooks.commands import publish

    return publish.unpublish(publisher(), arguments)


def _bans(arguments: Namespace) -> int:
    from cgw_hooks.commands import bans

    return bans.run(publisher(), arguments)


def _complete(arguments: Namespace) -> int:
    from cgw_hooks.commands import complete

    return complete.run(arguments.what, arguments.guest)


def _status(arguments: Namespace) -> int:
    from cgw_hooks.commands import show_status

    return show_status.run(arguments)


def _flows(arguments: Namespace) -> int:
    from cgw_hooks.commands import flows

    return flows.run(publisher(), arguments.guest, as_json=arguments.json)


def _log(arguments: Namespace) -> int:
    from cgw_hooks.commands import log

    return log.run(arguments.guest, arguments.since, arguments.lines, as_json=arguments.json)


def _doctor(arguments: Namespace) -> int:
    from cgw_hooks.commands import doctor

    return doctor.run(publisher, arguments)


def _registry(arguments: Namespace) -> int:
    from cgw_hooks.commands import registry

    if arguments.what == "status":
        return registry.status(publisher_of_gateway(), as_json=arguments.json)
    if arguments.what == "forget":
        return registry.forget(
            publisher_of_gateway(), arguments.subject, is_for_good=arguments.for_good
        )
    if arguments.what == "import":
        return registry.import_(publisher_of_gateway(), arguments.subject)
    return registry.export(publisher_of_gateway())


def _trace(arguments: Namespace) -> int:
    from cgw_hooks.commands import trace

    return trace.run(publisher(), arguments)


def _check(arguments: Namespace) -> int:
    from cgw_hooks.commands import check, schemas

    subject = arguments.subject
    if arguments.schema:
        sys.stdout.write(f"{schemas.ANNOTATION}\n")
    elif subject is None:
        config = load_config(paths.config_file())
        static.refuse_invalid(config)
        check.refuse_missing_library(config)
        shown = paths.config_file() if Path(paths.config_file()).exists() else "defaults (no file)"
        sys.stdout.write(f"{shown}: ok\n")
    elif check.is_config(subject):
        check.check_config_file(subject)
        sys.stdout.write(f"{subject}: ok\n")
    else:
        for line in check.check(publisher(), subject):
            sys.stdout.write(f"{printable(line)}\n")
    return 0


def _render(_arguments: Namespace) -> int:
    node = publisher()
    records, errors = node.state.all()
    sys.stdout.write(table.restore(node.config, contents(list(records.values()))))
    for error in errors.values():
        sys.stderr.write(f"cgw: {printable(str(error))}\n")
    return RecordError.exit_code if errors else 0


def _sync(arguments: Namespace) -> int:
    from cgw_hooks.commands import sync

    return sync.run(publisher(), json=arguments.json, settle=arguments.settle)


def _agent(_arguments: Namespace) -> int:
    from cgw_hooks.agent import service

    gc.enable()
    return service.run()


def _node(arguments: Namespace) -> int:
    from cgw_hooks.commands import node

    return node.run(publisher_of_gateway(), arguments)


def _install(arguments: Namespace) -> int:
    from cgw_hooks.commands import install

    for line in install.install(arguments.root, xen=arguments.xen):
        sys.stdout.write(f"{line}\n")
    for line in install.next_steps():
        sys.stdout.write(f"{line}\n")
    return 0


def _uninstall(arguments: Namespace) -> int:
    from cgw_hooks.commands import install

    for line in install.uninstall(arguments.root):
        sys.stdout.write(f"{line}\n")
    return _withdraw_all(arguments) if arguments.root == Path("/") else 0


def _withdraw_all(_arguments: Namespace) -> int:
    """Close all ports, and undo ``cgw node up``; the Debian package calls this when it is removed.

    An invalid config must not prevent this, so none is read.
    """
    from cgw_hooks.node import gateway

    for line in gateway.withdraw_all(Publisher(NodeConfig(), State(paths.runtime_directory()))):
        sys.stdout.write(f"{printable(line)}\n")
    return 0


def _hook_usage(_arguments: Namespace) -> int:
    raise AssertionError("cgw hook runs without this parser")


_ACTIONS = {
    "publish": _publish,
    "unpublish": _unpublish,
    "deny": _bans,
    "allow": _bans,
    "complete": _complete,
    "status": _status,
    "trace": _trace,
    "flows": _flows,
    "log": _log,
    "doctor": _doctor,
    "check": _check,
    "render": _render,
    "sync": _sync,
    "agent": _agent,
    "registry": _registry,
    "node": _node,
    "install": _install,
    "uninstall": _uninstall,
    "withdraw-all": _withdraw_all,
    "hook": _hook_usage,
}
