"""Reads and writes the kernel's settings under /proc/sys."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/proc/sys")


def read(name: str) -> str | None:
    """Return the value of a setting; None if there is none, for example without the device."""
    try:
        return (_ROOT / name).read_text(encoding="ascii").strip()
    except OSError:
        return None


def changed_along(name: str) -> dict[str, str]:
    """Return the other settings that a change of this one changes too, with their values now.

    Source: inet_forward_change in net/ipv4/devinet.c, addrconf_fixup_forwarding in
    net/ipv6/addrconf.c.
    """
    if name == "net/ipv4/ip_forward":
        names = ["net/ipv4/conf/all/accept_redirects", *_of_devices("net/ipv4/conf")]
    elif name == "net/ipv6/conf/all/forwarding":
        names = _of_devices("net/ipv6/conf")
    else:
        names = []
    return {name: value for name in names if (value := read(name)) is not None}


def _of_devices(folder: str) -> list[str]:
    devices = sorted(path.name for path in (_ROOT / folder).iterdir())
    return [f"{folder}/{device}/forwarding" for device in devices if device != "all"]


def write(name: str, value: str) -> None:
    """Set a setting to a value. Raises ``OSError``."""
    (_ROOT / name).write_text(value, encoding="ascii")


def passes_bridged_packets(version: int) -> bool:
    """Whether br_netfilter passes bridged packets of an IP version to the rules of routed ones."""
    command = "iptables" if version == 4 else "ip6tables"  # noqa: PLR2004
    return read(f"net/bridge/bridge-nf-call-{command}") == "1"


def reverse_path_drops() -> int:
    """Return how many packets were dropped since their source should come by another device.

    br_netfilter routes translated packets itself, and does not count them in
    ``IPReversePathFilter`` (br_nf_pre_routing_finish in net/bridge/br_netfilter_hooks.c). Those
    are among the martian sources, which are counted for the whole kernel.
    """
    return max(_counter("net/netstat", "IPReversePathFilter"), _martian_sources())


def _counter(name: str, wanted: str) -> int:
    lines = _lines(f"/proc/thread-self/{name}")
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        found = dict(zip(names, values, strict=False))
        if wanted in found:
            return int(found[wanted])
    return 0


def _martian_sources() -> int:
    names, *rows = _lines("/proc/thread-self/net/stat/rt_cache") or [[]]
    place = names.index("in_martian_src") if "in_martian_src" in names else None
    return sum(int(row[place], 16) for row in rows) if place is not None else 0


def _lines(path: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(path).read_text(encoding="ascii").splitlines()]
    except OSError:
        return []
