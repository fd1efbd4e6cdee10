"""Checks of the kernel's settings for packets that are forwarded."""

from __future__ import annotations

from cgw_hooks.core.finding import Finding, fail, warn
from cgw_hooks.core.problem import Problem
from cgw_hooks.core.rules import gateway_settings
from cgw_hooks.host import sysctl
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
    """Whether strict reverse path filtering drops clients of a host with several ways out."""
    strict = sorted({device for way in facts.ways for device in way.outer if _is_strict(device)})
    dropped = sysctl.reverse_path_drops() if strict else 0
    if not dropped:
        return
    devices = set(facts.outer_devices(4)[0].values()) - {way.device for way in facts.ways}
    settings = " ".join(f"net/ipv4/conf/{device}/rp_filter=2" for device in strict)
    message = (
        f"rp_filter of {', '.join(strict)} is strict (1), and the kernel has dropped {dropped} "
        "packets whose answers would take another way"
    )
    problem = Problem("forwarding", "node", message, f"run: sysctl -w {settings}")
    # With one way out, it is only packets with a forged source that are dropped.
    yield fail(problem) if len(devices) > 1 else warn(problem)


def _is_strict(device: str) -> bool:
    """Whether the filter is strict: the greater value counts (IN_DEV_RPFILTER)."""
    values = [sysctl.read(f"net/ipv4/conf/{name}/rp_filter") or "0" for name in ("all", device)]
    return max(values) == _STRICT
