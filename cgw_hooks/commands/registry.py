"""``cgw registry``: looks at the cluster's registry, and what only a person can decide about it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgw_hooks.agent import client
from cgw_hooks.core.guest import REGISTRY, GuestKey
from cgw_hooks.errors import InvalidConfig, RegistryError, printable
from cgw_hooks.host import paths, registry_snapshot
from cgw_hooks.node import cluster

if TYPE_CHECKING:
    from cgw_hooks.core.node_config import Registry
    from cgw_hooks.node.hook_answer import Answer
    from cgw_hooks.node.publisher import Publisher

#: The version of what ``export`` prints.
_VERSION = 1
#: The key of no guest: such a claim is admitted as soon as the agent comes to it.
_NOTHING = str(GuestKey(REGISTRY, ""))


def status(publisher: Publisher, *, as_json: bool) -> int:
    """Say whether this node is connected, and what is wrong. Return the exit code."""
    config = _config(publisher)
    # An agent that hangs has left a file that says how things were.
    _answered(client.ask_registry("claim", _NOTHING))
    found = publisher.state.registry_status()
    problems = cluster.problems(found)
    if as_json:
        shown = {
            "version": _VERSION,
            "connected": bool(found.get("connected")),
            "since": found.get("since"),
            "endpoints": [str(endpoint) for endpoint in config.endpoints],
            "nodes": sorted(found.get("nodes", {})),
            "pending": found.get("pending", {}),
            "problems": [problem.as_json() for problem in problems],
        }
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    else:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.get("since", 0)))
        word = "connected" if found.get("connected") else "not connected"
        sys.stdout.write(f"{word} since {since}\n")
        nodes = ", ".join(sorted(found.get("nodes", {}))) or "none"
        sys.stdout.write(printable(f"nodes: {nodes}") + "\n")
        waiting = sum(map(len, found.get("pending", {}).values()))
        if waiting:
            sys.stdout.write(f"ports that the registry has not confirmed: {waiting}\n")
        for problem in problems:
            sys.stderr.write(f"cgw: {printable(str(problem))}\n")
    return 0 if found.get("connected") and not problems else RegistryError.exit_code


def forget(publisher: Publisher, node: str, *, is_for_good: bool) -> int:
    """Take away what a node has published, and, if it is gone for good, its addresses.

    Raises ``RegistryError``, for example if another node stands in for one that is gone for good.
    """
    _config(publisher)
    if node == publisher.config.name:
        raise RegistryError(f"node {node}", "that is this node itself", "run this on another node")
    answer = _answered(client.ask_registry("forget-for-good" if is_for_good else "forget", node))
    sys.stdout.write(f"{printable(node)}: {answer.line}\n")
    return 0


def export(publisher: Publisher) -> int:
    """Print all guests of the registry as JSON, for ``import_``."""
    config = _config(publisher)
    _answered(client.ask_registry("save"))
    found = registry_snapshot.read(paths.state_directory(), config.prefix)
    entries = [
        {"key": key.removeprefix(f"{config.prefix}/"), "value": value}
        for key, value, _, _ in sorted(found.changes if found else ())
    ]
    sys.stdout.write(json.dumps({"version": _VERSION, "entries": entries}, indent=2) + "\n")
    return 0


def import_(publisher: Publisher, file: str) -> int:
    """Write what ``export`` printed, but not over what nodes have written since."""
    config = _config(publisher)
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    entries = _entries(file, text)
    given = json.dumps([[f"{config.prefix}/{key}", value] for key, value in entries])
    answer = _answered(client.ask_registry("import", given=given))
    sys.stdout.write(f"{answer.line} entries written\n")
    return 0


def _config(publisher: Publisher) -> Registry:
    config = publisher.config.registry
    if config is None:
        raise InvalidConfig(paths.config_file(), "it names no [registry]", "see: man cgw.toml")
    return config


def _entries(file: str, text: str) -> list[tuple[str, str]]:
    try:
        found: dict[str, Any] = json.loads(text)
        if found["version"] != _VERSION:
            raise ValueError(f"it is of version {found['version']}")
        return [(str(entry["key"]), str(entry["value"])) for entry in found["entries"]]
    except (ValueError, KeyError, TypeError) as error:
        cure = "give what cgw registry export has printed"
        raise InvalidConfig(file, f"it cannot be used: {error}", cure) from error


def _answered(answer: Answer) -> Answer:
    """Return the answer. Raises ``RegistryError`` if it is an error."""
    if answer.exit_code:
        raise RegistryError(*client.parts(answer.line))
    return answer
