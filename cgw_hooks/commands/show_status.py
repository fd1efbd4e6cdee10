"""``cgw status``: chooses what is shown, of this node or of the cluster, and in which form."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cgw_hooks.commands.json_output import print_json
from cgw_hooks.commands.this_node import publisher, publisher_of_gateway
from cgw_hooks.core.problem import Problem
from cgw_hooks.errors import CgwError, NotFound, RegistryError, quoted

if TYPE_CHECKING:
    from cgw_hooks.commands.arguments import Namespace


def run(arguments: Namespace) -> int:
    """Print what the arguments ask for; return the exit code. Raises ``CgwError``."""
    if arguments.schema:
        from cgw_hooks.commands import schemas

        sys.stdout.write(f"{schemas.CLUSTER if arguments.cluster else schemas.STATUS}\n")
        return 0
    arguments.guest = arguments.guest or arguments.watched
    look = _cluster if arguments.cluster else _node
    if arguments.watch is None:
        return look(arguments)
    from cgw_hooks.commands.watching import watch

    return watch(
        lambda: look(arguments), arguments.watch, for_people=not (arguments.json or arguments.graph)
    )


def _node(arguments: Namespace) -> int:
    from cgw_hooks.node.diagnosis import diagnose

    node = publisher()
    absence = _absence_of_agent() if node.config.registry else []
    found = diagnose(node, arguments.guest, has_agent=not absence)
    found.problems.extend(absence)
    if arguments.guest and not found.rows:
        raise NotFound(
            quoted(arguments.guest), "no guest of this name is published", "see: cgw status"
        )
    figures = None
    if arguments.figures:
        from cgw_hooks.host.state.byte_totals import ByteTotals
        from cgw_hooks.node import figures as of_node

        ports = of_node.visible_ports([row.record for row in found.rows])
        figures = of_node.figures(ports, ByteTotals(node.state.directory).read())
    if arguments.json:
        from cgw_hooks.commands.status import as_json

        print_json(as_json(found, node.config.name, figures))
    elif arguments.graph:
        from cgw_hooks.commands.graph import graph

        sys.stdout.write(graph(found, node.config.name or "this node"))
    else:
        from cgw_hooks.commands.status_table import print_status

        print_status(found, figures)
    return 0 if found.is_well else CgwError.exit_code


def _absence_of_agent() -> list[Problem]:
    """Return the problem of a node of a cluster whose agent does not run."""
    from cgw_hooks.agent import client

    absence = client.absence()
    return [Problem.of(absence)] if absence else []


def _cluster(arguments: Namespace) -> int:
    from cgw_hooks.agent import client
    from cgw_hooks.commands import cluster_status
    from cgw_hooks.node import cluster

    node = publisher_of_gateway()  # also after `cgw node down`
    problems = []
    try:
        client.ask_registry("save")
    except RegistryError as error:  # what the agent has known last is shown
        problems.append(Problem.of(error))
    found = cluster.read(node, arguments.guest, has_agent=not problems)
    if arguments.guest and not found.rows:
        raise NotFound(
            quoted(arguments.guest), "no node publishes a guest of this name", "see: cgw status"
        )
    found.problems.extend(problems)
    if arguments.json:
        print_json(cluster_status.as_json(found))
    elif arguments.graph:
        sys.stdout.write(cluster_status.graph(found))
    else:
        cluster_status.print_cluster(found)
    return 0 if cluster_status.is_well(found) else CgwError.exit_code
