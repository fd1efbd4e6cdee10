"""[metrics] of cgw.toml: each error names the key, the value and the cure."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from cgw_hooks.core.node_config import Metrics
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.errors import InvalidConfig
from tests.unit.builders import is_one_line

pytestmark = pytest.mark.unit


def parsed(*lines: str) -> Metrics:
    """The table of a config with these lines in it."""
    metrics = parse_config("\n".join(["[metrics]", *lines])).metrics
    assert metrics is not None
    return metrics


def test_without_the_table_nothing_is_told() -> None:
    assert parse_config('[node]\nname = "node1"').metrics is None


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("127.0.0.1:9718", Metrics(ip_address("127.0.0.1"), 9718)),
        ("[::1]:9718", Metrics(ip_address("::1"), 9718)),
        ("/run/cgw-metrics/socket", Metrics(socket="/run/cgw-metrics/socket")),
    ],
)
def test_a_place_to_listen_at_is_read(given: str, found: Metrics) -> None:
    assert parsed(f'listen = "{given}"') == found
    assert found.listen == given


def test_every_key_is_read() -> None:
    found = parsed('textfile = "/srv/cgw.prom"', "per-port = false", "bytes = true")
    assert found == Metrics(textfile="/srv/cgw.prom", per_port=False, counts_bytes=True)


def test_bytes_may_be_counted_for_status_alone() -> None:
    found = parsed("bytes = true")
    assert (found.counts_bytes, found.is_told) == (True, False)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "metrics.listen: it is missing, and so are textfile and bytes"),
        ('listen = "192.0.2.1:9718"', "give a loopback address and a port"),
        ('listen = "0.0.0.0:9718"', "give a loopback address and a port"),
        ('listen = "9718"', "give a loopback address and a port"),
        ('listen = "127.0.0.1:0"', "metrics.listen"),
        ('listen = "localhost:9718"', "metrics.listen"),
        ('listen = "/run/"', "give the whole path of a file"),
        (f'listen = "/{"x" * 107}"', "give a path of at most 107 bytes"),
        ('textfile = "cgw.prom"', "give the whole path of a file"),
        ('textfile = "/srv/cgw.txt"', "give a file that ends in .prom"),
        ('textfile = "/srv/.prom"', "give a file that ends in .prom"),
        ('listen = "127.0.0.1:9718"\nper-port = "no"', "give true or false, without quotes"),
        ("port = 9718", "known here are: bytes, listen, per-port, textfile"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(line: str, words: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parsed(line)
    assert words in str(caught.value)
    assert is_one_line(str(caught.value))
