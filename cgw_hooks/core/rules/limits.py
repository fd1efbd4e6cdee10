"""Limits for one client at one listening port, in the table ``inet cgw``.

The maps ``limited*`` lead the first packet of a flow to a chain, before `publish` translates it.
Each different limit has one chain, ``limit_10_second_20`` for example, whatever the number of ports
that have it. The chain counts by client, listening address, protocol and listening port, in sets
that the kernel fills, and drops what is over. So a client's TCP tries again after a second.

An IPv4 client is an address, an IPv6 client a network of 64 bits: a host has that many addresses.
If a set is full, the clients that it does not hold are not limited.

A chain is added with the first port that has its limit, and deleted after the last one. Nobody
counts them: the kernel refuses to delete a chain that an element leads to.
"""

from __future__ import annotations

from cgw_hooks.core.rules.commands import ADDRESS_TYPE, IP
from cgw_hooks.core.rules.names import LIMIT_CHAIN, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.published_port import ClientLimits, PublishedPort

_SIZE = 65536
#: A client that is silent for so long has all of its rate again: nothing has to be remembered.
_FORGOTTEN = {"second": "1m", "minute": "2m", "hour": "2h"}
_CLIENT = {4: "ip saddr", 6: "(ip6 saddr & ffff:ffff:ffff:ffff::)"}


def limits_of(ports: Iterable[PublishedPort]) -> list[ClientLimits]:
    """Return the different limits of ports."""
    return list(dict.fromkeys(port.limits for port in ports if port.limits))


def chain(limits: ClientLimits) -> str:
    """Return the name of a limit's chain."""
    rate = f"{limits.rate}_{limits.unit}" if limits.rate else ""
    at_once = str(limits.connections) if limits.connections else ""
    return LIMIT_CHAIN + "_".join(filter(None, (rate, at_once)))


def commands(limits: ClientLimits) -> list[str]:
    """Return commands that make a limit's chain and sets, or leave them as they are."""
    name = chain(limits)
    return [
        *(f"add set {TABLE} {text}" for text in _sets(limits)),
        f"add chain {TABLE} {name}",
        f"flush chain {TABLE} {name}",
        *(f"add rule {TABLE} {name} {rule}" for rule in _rules(limits)),
    ]


def rule_count(limits: ClientLimits) -> int:
    """Return the number of rules of a limit's chain."""
    return len(list(_rules(limits)))


def removal(limits: ClientLimits) -> str:
    """Return text that deletes a limit's chain and sets; refused as long as a port has it."""
    names = [text.partition(" ")[0] for text in _sets(limits)]
    return _removal([chain(limits)], names)


def removal_of_unused(
    ports: Iterable[PublishedPort], chains: Iterable[str], sets: Iterable[str]
) -> str:
    """Return text that deletes those of these chains and sets of the table that no port needs."""
    used = limits_of(ports)
    needed_chains = {chain(limits) for limits in used}
    needed_sets = {text.partition(" ")[0] for limits in used for text in _sets(limits)}
    return _removal(
        [name for name in chains if name.startswith(LIMIT_CHAIN) and name not in needed_chains],
        [name for name in sets if name.startswith(LIMIT_CHAIN) and name not in needed_sets],
    )


def _removal(chains: Iterable[str], sets: Iterable[str]) -> str:
    lines = [f"delete chain {TABLE} {name}" for name in chains]
    lines += [f"delete set {TABLE} {name}" for name in sets]
    return "".join(f"{line}\n" for line in lines)


def _sets(limits: ClientLimits) -> Iterator[str]:
    for family, address in ADDRESS_TYPE.items():
        key = f"{address} . {address} . inet_proto . inet_service"
        if limits.rate:
            yield (
                f"{chain(limits)}_rate{family} {{ type {key}; flags dynamic,timeout; "
                f"timeout {_FORGOTTEN[limits.unit]}; size {_SIZE}; }}"
            )
        if limits.connections:  # the kernel deletes an element without a connection
            yield (f"{chain(limits)}_count{family} {{ type {key}; flags dynamic; size {_SIZE}; }}")


def _rules(limits: ClientLimits) -> Iterator[str]:
    for family, ip in IP.items():
        key = f"{_CLIENT[family]} . {ip} daddr . meta l4proto . th dport"
        if limits.rate:
            over = f"limit rate over {limits.rate}/{limits.unit} burst {limits.rate} packets"
            yield f"update @{chain(limits)}_rate{family} {{ {key} {over} }} drop"
        if limits.connections:
            over = f"ct count over {limits.connections}"
            yield f"add @{chain(limits)}_count{family} {{ {key} {over} }} drop"
