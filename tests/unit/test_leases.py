"""A guest's address from the files that libvirt and its lease helper keep for dnsmasq."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cgw_hooks.core.guest import Interface
from cgw_hooks.host.libvirt_leases import addresses_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

MAC = "52:54:00:05:05:0b"
OTHER = "52:54:00:05:05:0c"
#: The time of every test, in seconds since 1970.
NOW = 1795000000.5
ON_DEFAULT = Interface(MAC, network="default", bridge="virbr0")
#: As `virsh net-dumpxml` has it before the guest runs: the bridge is not known yet.
DEFINED = Interface(MAC, network="default")


def found(folder: Path, *interfaces: Interface) -> list[str]:
    return [str(address) for address in addresses_of(interfaces, NOW, str(folder))]


def lease(address: str, mac: str = MAC, *, expiry: object = 1795003600) -> dict[str, object]:
    """One entry as libvirt_leaseshelper writes it."""
    return {"ip-address": address, "mac-address": mac, "expiry-time": expiry}


def leased(folder: Path, *leases: object, bridge: str = "virbr0") -> None:
    (folder / f"{bridge}.status").write_text(json.dumps(leases), encoding="utf-8")


def reserved(folder: Path, *lines: str, network: str = "default") -> None:
    text = "".join(f"{line}\n" for line in lines)
    (folder / f"{network}.hostsfile").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "address"),
    [
        (f"{MAC},192.168.122.11", "192.168.122.11"),
        (f"{MAC},192.168.122.11,web1", "192.168.122.11"),
        (f"{MAC},web1,192.168.122.11,infinite", "192.168.122.11"),
        (f"{MAC.upper()},192.168.122.11,web1", "192.168.122.11"),
        (f"{MAC},[fd00:122::11],web1", "fd00:122::11"),
    ],
)
def test_a_host_entry_is_the_guests_address(tmp_path: Path, line: str, address: str) -> None:
    reserved(tmp_path, f"{OTHER},192.168.122.12,web2", line)
    assert [address] == found(tmp_path, ON_DEFAULT)
    assert [address] == found(tmp_path, DEFINED)


def test_a_lease_is_the_guests_address_once_its_bridge_is_known(tmp_path: Path) -> None:
    leased(tmp_path, lease("192.168.122.12", OTHER), lease("192.168.122.11"))
    assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT)
    assert [] == found(tmp_path, DEFINED)


def test_the_newest_lease_counts(tmp_path: Path) -> None:
    leased(tmp_path, lease("192.168.122.11"), lease("192.168.122.77"))
    assert ["192.168.122.77"] == found(tmp_path, ON_DEFAULT)


@pytest.mark.parametrize("expiry", [1, 1794999999, 1795000000])
def test_an_expired_lease_gives_no_address(tmp_path: Path, expiry: int) -> None:
    leased(tmp_path, lease("192.168.122.11", expiry=expiry))
    assert [] == found(tmp_path, ON_DEFAULT)


@pytest.mark.parametrize("expiry", [0, 1795000001, 2**40])
def test_a_lease_counts_until_it_expires(tmp_path: Path, expiry: int) -> None:
    """0 is a lease for ever, as dnsmasq hands it to the lease helper."""
    leased(tmp_path, lease("192.168.122.11", expiry=expiry))
    assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT)


def test_a_lease_without_an_expiry_time_counts(tmp_path: Path) -> None:
    leased(tmp_path, {"ip-address": "192.168.122.11", "mac-address": MAC})
    assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT)


@pytest.mark.parametrize("expiry", ["soon", "1795003600", None, 1.5, [], {}])
def test_a_lease_whose_expiry_time_is_no_whole_number_counts_for_nothing(
    tmp_path: Path, expiry: object
) -> None:
    leased(tmp_path, lease("192.168.122.11"), lease("192.168.122.77", expiry=expiry))
    assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT)


def test_an_older_lease_counts_when_the_newest_has_expired(tmp_path: Path) -> None:
    leased(tmp_path, lease("192.168.122.11"), lease("192.168.122.77", expiry=7))
    assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT)


def test_an_address_that_another_guest_was_given_since_is_not_the_guests(tmp_path: Path) -> None:
    leased(tmp_path, lease("192.168.122.11"), lease("192.168.122.11", OTHER))
    assert [] == found(tmp_path, ON_DEFAULT)
    leased(tmp_path, lease("192.168.122.11", OTHER), lease("192.168.122.11"))
    assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT)


def test_an_older_address_counts_when_the_newest_was_given_away(tmp_path: Path) -> None:
    given_away = lease("192.168.122.77"), lease("192.168.122.77", OTHER)
    leased(tmp_path, lease("192.168.122.11"), *given_away)
    assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT)


def test_an_expired_lease_of_another_guest_takes_nothing_away(tmp_path: Path) -> None:
    leased(tmp_path, lease("192.168.122.11"), lease("192.168.122.11", OTHER, expiry=7))
    assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT)


def test_a_host_entry_does_not_count_while_another_guest_has_the_address(tmp_path: Path) -> None:
    """As dnsmasq does not give it out either: the guest has its old lease, or none."""
    reserved(tmp_path, f"{MAC},192.168.122.11")
    leased(tmp_path, lease("192.168.122.11", OTHER))
    assert [] == found(tmp_path, ON_DEFAULT)
    leased(tmp_path, lease("192.168.122.11", OTHER), lease("192.168.122.77"))
    assert ["192.168.122.77"] == found(tmp_path, ON_DEFAULT)


def test_an_address_of_the_guests_second_interface_is_still_the_guests(tmp_path: Path) -> None:
    second = Interface(OTHER, network="default", bridge="virbr0")
    leased(tmp_path, lease("192.168.122.11"), lease("192.168.122.11", OTHER))
    assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT, second)


def test_a_host_entry_counts_more_than_a_lease(tmp_path: Path) -> None:
    """The lease may be of the time before the entry was made; dnsmasq will give the entry's."""
    leased(tmp_path, lease("192.168.122.77"))
    reserved(tmp_path, f"{MAC},192.168.122.11")
    assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT)


def test_one_address_of_each_family_is_taken(tmp_path: Path) -> None:
    leased(tmp_path, lease("fd00:122::11"), lease("192.168.122.77"))
    reserved(tmp_path, f"{MAC},192.168.122.11")
    assert ["192.168.122.11", "fd00:122::11"] == found(tmp_path, ON_DEFAULT)


def test_the_first_interface_that_has_an_address_gives_it(tmp_path: Path) -> None:
    second = Interface(OTHER, network="inner", bridge="virbr1")
    leased(tmp_path, lease("192.168.123.12", OTHER), bridge="virbr1")
    assert ["192.168.123.12"] == found(tmp_path, ON_DEFAULT, second)
    reserved(tmp_path, f"{MAC},192.168.122.11")
    assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT, second)


def test_another_guests_or_networks_address_is_not_taken(tmp_path: Path) -> None:
    leased(tmp_path, lease("192.168.122.12", OTHER))
    reserved(tmp_path, f"{OTHER},192.168.122.12")
    leased(tmp_path, lease("192.168.123.11"), bridge="virbr1")
    reserved(tmp_path, f"{MAC},192.168.123.11", network="inner")
    assert [] == found(tmp_path, ON_DEFAULT)


@pytest.mark.parametrize("interfaces", [(), (Interface(MAC),), (ON_DEFAULT,)])
def test_without_files_there_is_none(tmp_path: Path, interfaces: tuple[Interface, ...]) -> None:
    assert [] == found(tmp_path, *interfaces)
    assert [] == found(tmp_path / "missing", *interfaces)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a\0b", "..", "x" * 300])
def test_a_networks_name_leads_to_no_other_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "dnsmasq"
    folder.mkdir()
    (tmp_path / "secret.hostsfile").write_text(f"{MAC},192.168.122.66\n", encoding="utf-8")
    (tmp_path / "secret.status").write_text(json.dumps([lease("192.168.122.66")]), encoding="utf-8")
    assert [] == found(folder, Interface(MAC, network=name, bridge=name))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b'[{"ip-address": "192.168.122.11", "mac',
        b"null",
        b"7",
        b'"text"',
        b'{"ip-address": "192.168.122.11"}',
        b"[null]",
        b"[[]]",
        b'[{"mac-address": null}]',
        b'[{"mac-address": 7, "ip-address": 7}]',
        b'[{"mac-address": "52:54:00:05:05:0b"}]',
        b'[{"mac-address": "52:54:00:05:05:0b", "ip-address": null}]',
        b'[{"mac-address": "52:54:00:05:05:0b", "ip-address": 7}]',
        b'[{"mac-address": "52:54:00:05:05:0b", "ip-address": [1]}]',
        b'[{"mac-address": "52:54:00:05:05:0b", "ip-address": "22; flush ruleset"}]',
        b'[{"mac-address": "52:54:00:05:05:0b", "ip-address": "0.0.0.0"}]',
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content[:70]),
)
def test_a_status_file_that_is_not_libvirts_gives_none(tmp_path: Path, content: bytes) -> None:
    """Also one that is being written at this moment. The host entries still count."""
    (tmp_path / "virbr0.status").write_bytes(content)
    assert [] == found(tmp_path, ON_DEFAULT)
    reserved(tmp_path, f"{MAC},192.168.122.11")
    assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT)


@pytest.mark.parametrize(
    "content",
    [b"", b",,,\n", b"\n\n", f"{MAC}\n".encode(), f"{MAC},\n".encode(), b"\xff\xfe",
     f"{MAC},not-an-address\n".encode(), f"{MAC},192.168.122.11/24\n".encode(),
     f"{MAC},fe80::1\n".encode(), f"{MAC},[fd00::1%eth0]\n".encode()],
    ids=lambda content: repr(content[:70]),
)  # fmt: skip
def test_a_hosts_file_that_is_not_libvirts_gives_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "default.hostsfile").write_bytes(content)
    assert [] == found(tmp_path, ON_DEFAULT)
    leased(tmp_path, lease("192.168.122.77"))
    assert ["192.168.122.77"] == found(tmp_path, ON_DEFAULT)


def test_one_bad_lease_hides_no_good_one(tmp_path: Path) -> None:
    bad_ones: list[object] = [None, 7, [], {"mac-address": 7}, {"mac-address": MAC}]
    for bad in (*bad_ones, lease("nonsense")):
        leased(tmp_path, lease("192.168.122.11"), bad)
        assert ["192.168.122.11"] == found(tmp_path, ON_DEFAULT)
