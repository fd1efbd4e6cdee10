"""Tracked flows: which port a flow is meant for, and whether it goes there."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from cgw_hooks.core.flow import Flow, PortFinder, goes_to, misses
from cgw_hooks.core.published_port import PublishedPort
from tests.unit.builders import port

if TYPE_CHECKING:
    from cgw_hooks.core.published_port import Address

pytestmark = pytest.mark.unit

NODE, NODE_SECOND, NODE6 = "192.168.122.11", "192.168.122.12", "2001:db8::11"
GUEST, ELSEWHERE = "10.5.5.202", "10.5.5.203"


def flow(
    to: str = NODE, port: int = 123, answers: str = NODE, at: int = 123, protocol: str = "udp"
) -> Flow:
    """A client sends to an address and port; by default the node itself would answer."""
    return Flow(protocol, ip_address(to), port, ip_address(answers), at)


def is_local(address: Address) -> bool:
    return str(address) in {NODE, NODE_SECOND, NODE6}


NTP = port(123, protocol="udp")
NTP_AT = port(123, protocol="udp", at=NODE)
RANGE = port((8000, 8009), 80, protocol="udp")
NTP6 = port(123, protocol="udp", target="fd00::5")


@pytest.mark.parametrize(
    ("found", "published", "expected"),
    [
        pytest.param(flow(), NTP, True, id="untranslated, to any address of the node"),
        pytest.param(flow(), NTP_AT, True, id="untranslated, to the listening address"),
        pytest.param(flow(answers=ELSEWHERE), NTP, True, id="to the guest that had it before"),
        pytest.param(flow(answers=GUEST, at=124), NTP, True, id="to another port of the guest"),
        pytest.param(flow(answers=GUEST), NTP, False, id="goes where it should"),
        pytest.param(
            flow(port=8003, answers=GUEST, at=83), RANGE, False, id="goes there with the offset"
        ),
        pytest.param(
            flow(port=8003, answers=GUEST, at=80), RANGE, True, id="goes to the range's first port"
        ),
        pytest.param(
            flow(to="198.51.100.9", answers="198.51.100.9"), NTP, False, id="only passes through"
        ),
        pytest.param(flow(to=NODE6, answers=NODE6), NTP6, True, id="IPv6"),
        pytest.param(flow(to=NODE6, answers="fd00::5"), NTP6, False, id="IPv6, goes there"),
    ],
)
def test_a_flow_misses_the_port_that_it_is_meant_for(
    found: Flow, published: PublishedPort, expected: bool
) -> None:
    assert PortFinder([published]).port_of(found) is published
    assert expected == misses(found, published, is_local)


@pytest.mark.parametrize(
    ("found", "published"),
    [
        pytest.param(flow(protocol="sctp"), NTP, id="of another protocol"),
        pytest.param(flow(port=124), NTP, id="of another port"),
        pytest.param(flow(port=7999), RANGE, id="below the range"),
        pytest.param(flow(port=8010), RANGE, id="above the range"),
        pytest.param(flow(to=NODE_SECOND), NTP_AT, id="to another listening address"),
        pytest.param(flow(to=NODE6), NTP, id="of the other IP family"),
    ],
)
def test_a_flow_is_not_meant_for_a_port(found: Flow, published: PublishedPort) -> None:
    assert PortFinder([published]).port_of(found) is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (flow(port=8000), RANGE),
        (flow(port=8009), RANGE),
        (flow(port=8010), None),
        (flow(port=123), NTP),
        (flow(to=NODE6, port=123), NTP6),
        (flow(to=NODE6, port=8000), None),
    ],
)
def test_of_several_ports_the_one_that_the_flow_is_meant_for_is_found(
    found: Flow, expected: PublishedPort | None
) -> None:
    assert PortFinder([NTP, NTP6, RANGE]).port_of(found) is expected


def test_each_port_among_thousands_is_found() -> None:
    ports = [port(number, protocol="udp") for number in range(1000, 9000, 2)]
    finder = PortFinder(reversed(ports))
    assert ports == [finder.port_of(flow(port=number)) for number in range(1000, 9000, 2)]
    assert {None} == {finder.port_of(flow(port=number)) for number in range(1001, 9000, 2)}


@pytest.mark.parametrize("number", [8000, 8004, 8006, 8009, 8010])
def test_ranges_that_overlap_hide_no_port(number: int) -> None:
    """For example the ports of one record before and after a change."""
    whole, part = port((8000, 8009), 80, protocol="udp"), port(8005, protocol="udp")
    found = PortFinder([part, whole]).port_of(flow(port=number))
    assert (whole if number < 8010 else None) == found
    assert PortFinder([part, whole]).port_of(flow(port=8005)) in {part, whole}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (flow(answers=GUEST), True),
        (flow(answers=GUEST, at=124), False),
        (flow(answers=ELSEWHERE), False),
        (flow(), False),
    ],
)
def test_a_flow_goes_to_a_port(found: Flow, expected: bool) -> None:
    assert expected == goes_to(found, NTP)


def test_no_flow_goes_to_a_guest_of_unknown_address() -> None:
    assert not goes_to(flow(), port(123, protocol="udp", target=None))
