"""[registry] of cgw.toml: each error names the key, the value and the cure."""

from __future__ import annotations

import pytest

from cgw_hooks.core.node_config import Endpoint, Registry
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.errors import InvalidConfig
from tests.unit.builders import is_one_line

pytestmark = pytest.mark.unit

ENDPOINTS = 'endpoints = ["https://10.0.0.1:2379"]'


def parsed(*lines: str, node: str = '[node]\nname = "node1"') -> Registry:
    """The registry of a config with these lines in its table."""
    registry = parse_config("\n".join([node, "[registry]", *lines])).registry
    assert registry is not None
    return registry


def refusal(*lines: str, node: str = '[node]\nname = "node1"') -> str:
    with pytest.raises(InvalidConfig) as caught:
        parsed(*lines, node=node)
    assert is_one_line(str(caught.value))
    return str(caught.value)


def test_without_the_table_there_is_no_registry() -> None:
    assert parse_config('[node]\nname = "node1"').registry is None


def test_one_endpoint_is_enough() -> None:
    assert parsed(ENDPOINTS) == Registry((Endpoint("10.0.0.1", 2379, True),))
    assert parsed(ENDPOINTS).prefix == "/cgw"


def test_every_key_is_read() -> None:
    found = parsed(
        ENDPOINTS,
        'ca = "/etc/cgw/ca.pem"',
        'certificate = "/etc/cgw/client.pem"',
        'key = "/etc/cgw/key.pem"',
        'user = "cgw"',
        'password-file = "/etc/cgw/password"',
        'prefix = "/one/cluster"',
    )
    assert found._replace(endpoints=()) == Registry(
        (),
        ca="/etc/cgw/ca.pem",
        certificate="/etc/cgw/client.pem",
        key="/etc/cgw/key.pem",
        user="cgw",
        password_file="/etc/cgw/password",  # noqa: S106
        prefix="/one/cluster",
    )


@pytest.mark.parametrize(
    ("text", "host", "port", "is_tls"),
    [
        ("https://10.0.0.1:2379", "10.0.0.1", 2379, True),
        ("https://10.0.0.1", "10.0.0.1", 2379, True),
        ("http://etcd-1.example:4001/", "etcd-1.example", 4001, False),
        ("https://[fd00::1]:2379", "fd00::1", 2379, True),
        ("https://[fd00::1]", "fd00::1", 2379, True),
        ("http://localhost:2379", "localhost", 2379, False),
    ],
)
def test_an_endpoint_is_a_url(text: str, host: str, port: int, is_tls: bool) -> None:
    assert parsed(f'endpoints = "{text}"').endpoints == (Endpoint(host, port, is_tls),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1:2379",
        "ftp://10.0.0.1:2379",
        "https://",
        "https://:2379",
        "https://[fd00::1",
        "https://[fd00::1]2379",
        "https://[node1]:2379",
        "https://user:secret@10.0.0.1:2379",
        "https://10.0.0.1:2379/v3",
        "https://10.0.0.1:0",
        "https://10.0.0.1:65536",
        "https://10.0.0.1:port",
        "https://node 1:2379",
        "https://nöde1:2379",
        "https://node1?x:2379",
        "https://fd00::1",
    ],
)
def test_what_is_no_endpoint_is_refused_by_its_value(text: str) -> None:
    line = refusal(f'endpoints = ["https://10.0.0.1", "{text}"]')
    assert line.startswith(f'registry.endpoints: "{text}" cannot be used; give ')


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), "registry.endpoints: it is missing; name etcd's members, this node's first"),
        (("endpoints = []",), "registry.endpoints: it is missing; "),
        (("endpoints = [2379]",), 'registry.endpoints: "2379" cannot be used; give a string'),
        ((ENDPOINTS, 'ca = "ca.pem"'), 'registry.ca: "ca.pem" cannot be used; give an absolute'),
        (
            (ENDPOINTS, 'certificate = "c.pem"'),
            'registry.certificate: "c.pem" cannot be used; give an absolute path',
        ),
        (
            (ENDPOINTS, 'password-file = ""'),
            'registry.password-file: "" cannot be used; give an absolute path',
        ),
        (
            (ENDPOINTS, 'certificate = "/c.pem"'),
            "registry.key: it is missing; certificate needs it",
        ),
        ((ENDPOINTS, 'key = "/k.pem"'), "registry.certificate: it is missing; key needs it"),
        ((ENDPOINTS, 'user = "cgw"'), "registry.password-file: it is missing; user needs it"),
        (
            (ENDPOINTS, 'password-file = "/p"'),
            "registry.user: it is missing; password-file needs it",
        ),
        ((ENDPOINTS, "user = 7"), 'registry.user: "7" cannot be used; give a string'),
        ((ENDPOINTS, 'prefix = "cgw"'), 'registry.prefix: "cgw" cannot be used; begin it'),
        ((ENDPOINTS, 'prefix = "/cgw/"'), 'registry.prefix: "/cgw/" cannot be used; begin it'),
        ((ENDPOINTS, 'prefix = "/"'), 'registry.prefix: "/" cannot be used; begin it'),
        ((ENDPOINTS, 'prefix = ""'), 'registry.prefix: "" cannot be used; begin it'),
        (
            (ENDPOINTS, 'prefix = "/a\\nb"'),
            'registry.prefix: "/a\\nb" cannot be used; begin it',
        ),
        ((ENDPOINTS, 'password = "secret"'), 'registry."password": unknown key; known here are: '),
    ],
)
def test_an_error_names_key_value_and_cure(lines: tuple[str, ...], expected: str) -> None:
    assert refusal(*lines).startswith(expected)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("", "node.name: it is missing; add it"),
        ('[node]\nname = ""', 'node.name: "" cannot be used; give the node\'s name: printable'),
        ('[node]\nname = "a/b"', 'node.name: "a/b" cannot be used; give the node\'s name'),
        ('[node]\nname = "a\\tb"', 'node.name: "a\\tb" cannot be used; give the node\'s name'),
    ],
)
def test_a_node_of_a_registry_needs_a_name_that_can_be_part_of_a_key(
    node: str, expected: str
) -> None:
    assert refusal(ENDPOINTS, node=node).startswith(expected)
