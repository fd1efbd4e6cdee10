"""Guests, annotations and published ports, each in one readable line."""

from __future__ import annotations

import random
import re
from collections.abc import Collection
from ipaddress import ip_address, ip_network
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

from cgw_hooks.core.guest import Guest, GuestKey
from cgw_hooks.core.parse.annotation_schema import complaint
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.core.parse.domain_xml import parse_domain
from cgw_hooks.core.published_port import ANY_ADDRESS, Claim, ClientLimits, PublishedPort
from cgw_hooks.core.record import Contents
from cgw_hooks.core.rules.elements import elements
from cgw_hooks.errors import InvalidAnnotation, quoted
from cgw_hooks.sources.libvirt import key_of

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = (ROOT / "cgw_hooks/schemas/annotation.rng").read_bytes()
CGW = ROOT / ".venv/bin/cgw"
PYTHON = ROOT / ".venv/bin/python"
HOOK_SCRIPT = ROOT / "hooks/qemu.d/50-cgw"

UUID = "0e1f2a3b-4c5d-4e6f-8a9b-0c1d2e3f4a5b"
OTHER_UUID = "9e1f2a3b-4c5d-4e6f-8a9b-0c1d2e3f4a5b"
NAMESPACE = "urn:cgw-hooks:1"

#: The cluster of the issue: one guest network, this node 10.5.5.251.
CLUSTER = parse_config("""
[[guest-network]]
bridge = "guestbr0"
subnet = "10.5.5.0/24"
node-address = "10.5.5.251"
gateway-address = "10.5.5.254"
""")


def by_map(ports: Collection[PublishedPort]) -> dict[str, dict[str, str]]:
    """The elements that translate these ports, map -> key -> data."""
    return {name: found for (_, name), found in elements(CLUSTER, Contents(ports)).items()}


def publish(inner: str, **attributes: str) -> str:
    """Spell ``<cgw:publish>`` with its namespace, as libvirt stores it."""
    given = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items())
    return f'<cgw:publish xmlns:cgw="{NAMESPACE}"{given}>{inner}</cgw:publish>'


def forward(range_attributes: str, attributes: str = 'proto="tcp"') -> str:
    """One ``<portForward>`` with one ``<range>``."""
    return f"<cgw:portForward {attributes}><cgw:range {range_attributes}/></cgw:portForward>"


TCP_80 = forward('start="80"')


def domain(metadata: str, devices: str = "", name: str = "web1", uuid: str = UUID) -> bytes:
    """Domain XML as libvirt hands it to a hook."""
    return (
        f"<domain type='kvm'>\n  <name>{name}</name>\n  <uuid>{uuid}</uuid>\n"
        f"  <metadata>{metadata}</metadata>\n  <devices>{devices}</devices>\n</domain>\n"
    ).encode()


def interface(*addresses: str) -> str:
    """One interface that the definition gives these addresses."""
    return "<interface>" + "".join(f'<ip address="{a}"/>' for a in addresses) + "</interface>"


def annotated(name: str = "web1", uuid: str = UUID, start: int = 2202) -> bytes:
    """Domain XML of a guest that publishes one TCP port to its port 22."""
    inner = forward(f'start="{start}" to="22"')
    return domain(publish(inner, address="10.5.5.202"), name=name, uuid=uuid)


def guest_of(xml: bytes, name: str = "web1") -> Guest:
    """The guest that the XML publishes, where the XML alone says its address.

    Parser and schema must agree about each annotation that comes here.
    """
    try:
        annotation = parse_domain(key_of("qemu", xml), name, xml)
        assert annotation is not None
        guest = annotation.guest(annotation.addresses)
    except InvalidAnnotation as error:
        assert_schema_refuses(xml, error)
        raise
    assert complaint(name, xml, SCHEMA) == ""
    return guest


#: What the parser refuses and the schema accepts: the cures of these errors. No schema can
#: compare two values, and a pattern of all addresses of hosts would be no help to anybody.
BEYOND_THE_SCHEMA = re.compile(
    r"give an end of at least \d+"  # a range whose end is below its start
    r"|the range is \d+ ports long: end it at guest port 65535"
    r"|publish each listening port once"  # ranges that overlap
    r"|ask for \d+ at most[,;] .+"
    r"|give networks of the address's family"
    r"|give the guest an address of that family too"
    r"|give one address per IP family"
    r"|give the address that the guest has on its network"  # loopback, multicast, link-local ...
    r"|give an address of the node that others can reach"
    r"|give an IPv4 or IPv6 address"  # an IPv6 address of too many parts
    r"|give an IPv4 address or network, not one within an IPv6 one"
    r"|give networks as ADDRESS/LENGTH with no host bits set, separated by commas"
    r"|give a time in UTC: 2026-11-24T22:00:00Z"  # the 30th of February
)


def assert_schema_refuses(xml: bytes, error: InvalidAnnotation) -> None:
    """Assert that the schema refuses what the parser refused, if a schema can say why."""
    if BEYOND_THE_SCHEMA.fullmatch(error.cure):
        return
    try:
        why = complaint("", xml, SCHEMA)
    except InvalidAnnotation:
        return  # there is no annotation: the XML cannot be read, or has two of them
    assert why, f"the schema accepts what the parser refuses: {error}"


def refusal(xml: bytes, name: str = "web1") -> str:
    """The one line that refuses this definition."""
    with pytest.raises(InvalidAnnotation) as caught:
        guest_of(xml, name)
    line = str(caught.value)
    assert is_one_line(line)
    assert line.startswith(f"guest {quoted(name)}: ")
    return line


def published(metadata: str, devices: str = "") -> list[str]:
    """What a guest with this metadata publishes, as a person reads it."""
    return [str(port) for port in guest_of(domain(metadata, devices)).ports]


def port(  # noqa: PLR0913  (each says one thing that a test is about)
    listen: int | tuple[int, int] = 2202,
    to: int | None = None,
    *,
    protocol: str = "tcp",
    at: str = "",
    target: str | None = "10.5.5.202",
    sources: tuple[str, ...] = (),
    limits: ClientLimits | None = None,
) -> PublishedPort:
    """One published port; without ``at``, on any local address of the target's family."""
    start, end = (listen, listen) if isinstance(listen, int) else listen
    target_address = ip_address(target) if target else None
    family = target_address.version if target_address else 4
    return PublishedPort(
        protocol=protocol,
        listen_address=ip_address(at) if at else ANY_ADDRESS[family],
        start=start,
        end=end,
        to=start if to is None else to,
        target_address=target_address,
        sources=tuple(ip_network(source) for source in sources),
        limits=limits,
    )


def random_ports(seed: int) -> list[PublishedPort]:
    """Valid ports with a listening range each, so that no two want the same packet."""
    pick = random.Random(seed)  # noqa: S311  (the same ports in every run)
    ports = []
    for block in pick.sample(range(1, 600), 40):
        family, start = pick.choice((4, 6)), block * 100
        count = pick.randint(1, 100)
        to = pick.choice((start, pick.randint(1, 65535 - count + 1)))
        at = {4: ("", "192.0.2.1"), 6: ("", "2001:db8::1")}[family]
        sources = {4: ("10.0.0.0/8", "192.0.2.0/24"), 6: ("fd00::/8", "2001:db8::/32")}[family]
        ports.append(
            port(
                (start, start + count - 1),
                to,
                protocol=pick.choice(("tcp", "udp", "sctp")),
                at=pick.choice(at),
                target=str(ip_address(pick.getrandbits(32 if family == 4 else 128))),
                sources=sources[: pick.randint(0, 2)],
            )
        )
    return [p for p in ports if p.target_address and p.target_address.version == p.family]


def random_claims(seed: int, count: int, highest: int = 65535) -> list[Claim]:
    """Claims of few protocols and addresses, single ports to nearly all of them: many overlap."""
    pick = random.Random(seed)  # noqa: S311  (the same claims in every run)
    addresses = [ip_address(a) for a in ("0.0.0.0", "192.0.2.1", "192.0.2.2", "::", "2001:db8::1")]
    claims = []
    for _ in range(count):
        start = pick.randint(1, highest)
        length = pick.choice((1, 1, 2, 63, 64, 65, 66, 1000, 60000))
        end = min(start + length - 1, highest)
        claims.append(Claim(pick.choice(("tcp", "udp")), pick.choice(addresses), start, end))
    return claims


def guest(*ports: PublishedPort, name: str = "web1", uuid: str = UUID) -> Guest:
    """A guest of qemu that publishes these ports."""
    return Guest(GuestKey("qemu", uuid), name, ports, uuid)


def is_one_line(text: str) -> bool:
    """Whether a text is one line without anything that a terminal would obey."""
    return bool(text) and text.isprintable()
