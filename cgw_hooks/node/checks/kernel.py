"""Checks of the kernel's settings for packets that are forwarded."""

from __future__ import annotations

from shlex import quote

from cgw_hooks.core.finding import Finding, fail, warn
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.rules import gateway_settings
from cgw_hooks.host import routes, sysctl
from cgw_hooks.node.forwarding import Forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgw_hooks.node.checks.facts import Facts

_UP = "run: cgw node up"
_STRICT = "1"


def forwarding(facts: Facts) -> Iterator[Finding]:
    """Whether the kernel forwards the packets of each published port."""
    look = Forwarding(facts.config)
    for way in facts.ways:
        problem = look.problem(way.port)
        if problem:
            yield fail(problem)


def gateway_sysctls(facts: Facts) -> Iterator[Finding]:
    """Whether the settings that ``cgw node up`` has made are still as it made them."""
    if not facts.config.guest_networks or not facts.publisher.state.gateway_changes():
        return
    for setting in gateway_settings.sysctls(facts.config):
        now = sysctl.read(setting.name)
        if now is None or now == setting.value or setting.instead_of not in {"", now}:
            continue
        message = f"{setting.name} is {now}, and a gateway needs {setting.value}"
        yield fail(Problem("forwarding", "node", message, _UP))


def reverse_path(facts: Facts) -> Iterator[Finding]:
    """Whether strict reverse path filtering drops clients whose answers take another way."""
    devices = {device for way in facts.ways if way.port.family == 4 for device in way.outer}  # noqa: PLR2004
    strict = sorted(filter(_is_strict, devices))
    if not strict:
        return
    others = routes.router_devices(4) - {way.device for way in facts.ways}
    dropped = sysctl.reverse_path_drops()
    is_likely = any(others - {device} for device in strict)
    if not dropped and not is_likely:
        return
    named = ", ".join(strict)
    message = (
        f"rp_filter of {named} is strict (1): a packet is dropped there if the answer would leave "
        f"by another device; {dropped} packets were dropped so far"
    )
    values = " ".join(quote(f"net/ipv4/conf/{device}/rp_filter=2") for device in strict)
    problem = Problem("forwarding", "node", message, f"run: sysctl -w {values}")
    # With one way out, the dropped packets had a forged source.
    yield fail(problem) if dropped and is_likely else warn(problem)


def _is_strict(device: str) -> bool:
    """Whether the filter is strict: the greater value counts (IN_DEV_RPFILTER)."""
    values = [sysctl.read(f"net/ipv4/conf/{name}/rp_filter") or "0" for name in ("all", device)]
    return max(values) == _STRICT
