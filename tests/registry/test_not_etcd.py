"""Answers that no etcd gives: an error, bounded in time and memory, and nothing else."""

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from cgw_hooks.core.etcd.values import Put
from cgw_hooks.core.node_config import Endpoint, Registry
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.client import Etcd
from tests.lab.namespace import namespace
from tests.registry.conftest import ClientMaker, FollowerMaker
from tests.registry.hostile_server import ADDRESS, PORT, hostile_server, ok

pytestmark = pytest.mark.registry

CONFIG = Registry((Endpoint(ADDRESS, PORT),))
HEADER = {"revision": "7", "cluster_id": "1"}
FOUND = ok(json.dumps({"header": HEADER}).encode())
OTHER_PORT = PORT + 1


@pytest.fixture(autouse=True)
def node() -> Iterator[None]:
    """The test runs in a namespace of its own."""
    with namespace("etcd-node-alone") as made, made.entered():
        yield


@pytest.fixture
def client(make_client: ClientMaker) -> Etcd:
    """A client of the hostile server."""
    return make_client(CONFIG)


def value(**content: object) -> bytes:
    return ok(json.dumps({"header": HEADER, "kvs": [content]}).encode())


WRONG: dict[str, Iterable[bytes]] = {
    "nothing": [],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.2p1\r\n"],
    "half a header": [b"HTTP/1.1 200 OK\r\nContent-"],
    "endless headers": itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"A: b\r\n")),
    "an endless header": itertools.chain([b"HTTP/1.1 200 OK\r\nA: "], itertools.repeat(b"b" * 99)),
    "half the content": [FOUND[:-5]],
    "no JSON": [ok(b"hello")],
    "no UTF-8": [ok(b'"\xff\xff')],
    "a list": [ok(b"[]")],
    "an empty object": [ok(b"{}")],
    "deep JSON": [ok(b"[" * 100_000)],
    "no revision": [ok(b'{"header": {"cluster_id": "1"}}')],
    "a revision that is a word": [ok(b'{"header": {"cluster_id": "1", "revision": "new"}}')],
    "a header that is a number": [ok(b'{"header": 5}')],
    "a value that is no object": [value().replace(b"{}", b"17")],
    "a value without a key": [value(mod_revision="1")],
    "a key that is not base64": [value(key="a", mod_revision="1")],
    "a value without a revision": [value(key="YQ==")],
    "an error that is no object": [ok(b'{"error": 5}')],
    "a status without content": [b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n"],
    "control characters": [b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\n\x1b[31mred\n\r"],
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_answer_that_is_not_of_etcd_is_an_error(client: Etcd, kind: str) -> None:
    with hostile_server(lambda _: WRONG[kind]) as asked:
        with pytest.raises(RegistryError) as refused:
            client.list("/cgw/a")
        assert [str(CONFIG.endpoints[0])] == [refused.value.subject]
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 500
        assert asked == ["/v3/kv/range"]


def test_what_a_broken_answer_says_of_a_write_is_unknown(client: Etcd) -> None:
    with hostile_server(lambda _: [ok(b"hello")]) as asked:
        with pytest.raises(RegistryError) as refused:
            client.commit([Put("/cgw/a", "1")])
        assert refused.value.is_unknown
        assert asked == ["/v3/kv/txn"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda etcd: etcd.list("/cgw/", seconds=600),
        lambda etcd: etcd.commit([Put("/cgw/a", "1")], seconds=600),
    ],
    ids=["list", "commit"],
)
def test_an_endless_answer_is_cut_off(client: Etcd, ask: Callable[[Etcd], object]) -> None:
    def endless() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        yield from itertools.repeat(b" " * 65536)

    with (
        hostile_server(lambda _: endless()),
        pytest.raises(RegistryError, match="its answer has over 16 MiB"),
    ):
        ask(client)


def test_the_deadline_holds_for_an_answer_that_trickles(client: Etcd) -> None:
    def trickle() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b" "
            time.sleep(0.05)

    started = time.monotonic()
    with hostile_server(lambda _: trickle()), pytest.raises(RegistryError, match="in time"):
        client.list("/cgw/a", seconds=0.5)
    assert time.monotonic() - started < 30


def test_a_token_cannot_become_another_header(make_client: ClientMaker, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o600)
    config = CONFIG._replace(user="cgw", password_file=str(tmp_path / "password"))
    token = ok(json.dumps({"token": "a\r\nHost: elsewhere"}).encode())
    with (
        hostile_server(lambda path: [token if "authenticate" in path else FOUND]) as asked,
        pytest.raises(RegistryError, match="a token that is no HTTP header"),
    ):
        make_client(config).list("/cgw/a")
    assert ["/v3/auth/authenticate"] == asked


def test_a_member_that_closes_the_connection_when_it_refuses_a_token_is_asked_over_a_new_one(
    make_client: ClientMaker, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o600)
    config = CONFIG._replace(user="cgw", password_file=str(tmp_path / "password"))
    content = b'{"code": 16, "message": "etcdserver: invalid auth token"}'
    refusal = ok(content).replace(b"200 OK", b"401 Unauthorized")
    token = ok(json.dumps({"token": "new"}).encode())
    last = [answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) for answer in (token, refusal)]
    answers = iter([*last, last[0], FOUND])
    with hostile_server(lambda _: [next(answers)]) as asked:
        assert 7 == make_client(config).list("/cgw/a").revision
        assert asked == ["/v3/auth/authenticate", "/v3/kv/range"] * 2


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(client: Etcd, status: int) -> None:
    place = f"http://{ADDRESS}:{OTHER_PORT}/v3/kv/range"
    redirect = f"HTTP/1.1 {status} There\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
    with (
        hostile_server(lambda _: [redirect]),
        hostile_server(lambda _: [FOUND], OTHER_PORT) as asked,
    ):
        with pytest.raises(RegistryError, match=f"HTTP status {status}"):
            client.list("/cgw/a")
        assert [] == asked


def test_a_proxy_of_the_environment_is_not_used(
    client: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://{ADDRESS}:{OTHER_PORT}")
    with (
        hostile_server(lambda _: [FOUND]),
        hostile_server(lambda _: [FOUND], OTHER_PORT) as asked,
    ):
        assert 7 == client.list("/cgw/a").revision
        assert [] == asked


WRONG_STREAMS: dict[str, Iterable[bytes]] = {
    "nothing": [],
    "no HTTP": [b"SSH-2.0\r\n\r\n"],
    "a refusal": [b"HTTP/1.1 404 Not Found\r\n\r\nNot Found\n"],
    "no JSON": [b"HTTP/1.1 200 OK\r\n\r\nhello\n"],
    "no result": [b"HTTP/1.1 200 OK\r\n\r\n{}\n"],
    "a cancellation without a reason": [b'HTTP/1.1 200 OK\r\n\r\n{"result": {"canceled": true}}\n'],
    "an event without a key": [b'HTTP/1.1 200 OK\r\n\r\n{"result": {"events": [{}]}}\n'],
    "an endless line": itertools.chain(
        [b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b" " * 65536)
    ),
}


@pytest.mark.parametrize("kind", WRONG_STREAMS)
def test_a_watch_ends_with_an_error_if_its_answer_is_not_of_etcd(
    follow: FollowerMaker, kind: str
) -> None:
    with hostile_server(lambda path: WRONG_STREAMS[kind] if "watch" in path else [FOUND]):
        error = follow(CONFIG, "/cgw/", 8).wait_for_end()
    assert str(CONFIG.endpoints[0]) == (error.subject if error else "")
