"""etcd's language: what a watch gives, how a list goes on, and what errors say."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest

from cgw_hooks.core.etcd import questions
from cgw_hooks.core.etcd.changes import batches, request
from cgw_hooks.core.etcd.faults import Compacted, Refusal, described, joined
from cgw_hooks.core.etcd.listing import Listing
from cgw_hooks.core.etcd.values import LONGEST_VALUE, Found, KeyValue, Put
from cgw_hooks.core.node_config import Endpoint, Registry
from cgw_hooks.errors import RegistryError
from tests.unit.builders import is_one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.unit

MEMBER = Endpoint("fd00::1", 2379, is_tls=True)
CONFIG = Registry((MEMBER,), user="cgw")
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


def event(key: str, revision: int) -> dict[str, Any]:
    """One change, as etcd writes it."""
    return {"kv": {"key": b64encode(key.encode()).decode(), "mod_revision": str(revision)}}


def answer(*results: dict[str, Any]) -> bytes:
    """An answer to a watch."""
    return HEAD + b"".join(json.dumps({"result": result}).encode() + b"\n" for result in results)


def revisions(pieces: Iterable[bytes]) -> list[tuple[int, list[int]]]:
    """The revision of each batch, and those of its changes."""
    return [(revision, [c.modified for c in changes]) for revision, changes in batches(pieces)]


def test_only_the_last_fragment_of_a_revision_completes_it() -> None:
    sent = answer(
        {"created": True},
        {"events": [event("a", 5), event("b", 6)], "fragment": True},
        {"events": [event("c", 6)], "fragment": True},
        {"events": [event("d", 6), event("a", 7)]},
        {"header": {"revision": "9"}},
    )
    assert revisions([sent]) == [(5, [5]), (7, [6, 6, 6, 7]), (9, [])]


def test_an_answer_may_be_cut_anywhere() -> None:
    sent = answer({"events": [event("a", 5)]}, {"events": [event("b", 6)]})
    whole = revisions([sent])
    assert whole == [(5, [5]), (6, [6])]
    for place in range(len(sent)):
        assert revisions([sent[:place], b"", sent[place:]]) == whole


def test_a_deleted_key_has_no_value() -> None:
    sent = answer({"events": [{**event("a", 5), "type": "DELETE"}]})
    assert list(batches([sent])) == [(5, [KeyValue("a", None, 0, 5)])]


def test_a_line_that_does_not_end_is_not_kept() -> None:
    taken = []

    def endless() -> Iterable[bytes]:
        yield HEAD
        while True:
            taken.append(1 << 20)
            yield b" " * (1 << 20)

    with pytest.raises(ValueError, match="too much"):
        list(batches(endless()))
    assert sum(taken) <= 20 << 20


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (HEAD.replace(b"200 OK", b"503 No"), "503"),
        (answer({"canceled": True, "compact_revision": "7"}), "compacted at 7"),
        (answer({"canceled": True, "cancel_reason": "permission denied"}), "permission denied"),
        (HEAD + b'{"error": {"grpc_code": 14, "message": "no leader"}}\n', "no leader"),
    ],
)
def test_a_watch_that_is_refused_says_why(sent: bytes, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        list(batches([sent]))


def test_a_watch_is_asked_for_in_http_1_0() -> None:
    head, body = request(MEMBER, questions.headers("secret"), "/cgw/", 8).split(b"\r\n\r\n")
    lines = head.decode().splitlines()
    assert lines[:2] == ["POST /v3/watch HTTP/1.0", "Host: [fd00::1]:2379"]
    assert {"Authorization: secret", f"Content-Length: {len(body)}"} <= set(lines)
    assert json.loads(body)["create_request"]["start_revision"] == "8"


def page(*sizes: int, revision: int = 7) -> Found:
    """Keys whose values have these sizes."""
    values = [KeyValue(f"/cgw/{n}", "x" * size, 1, 1) for n, size in enumerate(sizes)]
    return Found(revision, "1", values)


def test_each_page_follows_the_one_before_at_the_revision_of_the_first() -> None:
    listing = Listing("/cgw/")
    first = listing.next_page().body
    assert (first["limit"], first["revision"]) == (500, "0")
    listing.add(page(1, 1), is_more=True)
    second = listing.next_page().body
    assert second["key"] == b64encode(b"/cgw/1\0").decode()
    assert (second["range_end"], second["revision"]) == (first["range_end"], "7")
    listing.add(page(1, revision=9), is_more=False)
    assert listing.is_complete
    assert (listing.found.revision, len(listing.found.values)) == (7, 3)


def test_pages_are_shortened_for_huge_values_and_grow_again() -> None:
    listing = Listing("/cgw/")
    limits = []
    while listing.shorten():
        limits.append(listing.next_page().body["limit"])
    assert limits == [62, 7, 1]
    listing.add(page(1), is_more=True)
    assert listing.next_page().body["limit"] == 2


def test_a_list_whose_values_would_fill_the_memory_is_given_up() -> None:
    listing = Listing("/cgw/")
    full = page(*[LONGEST_VALUE] * 100)
    listing.add(full, is_more=True)
    listing.add(full, is_more=True)
    with pytest.raises(RegistryError, match="over 64 MiB"):
        listing.add(full, is_more=True)


def test_a_huge_value_is_cut() -> None:
    content = {"key": "YQ==", "mod_revision": "1", "value": b64encode(b"x" * (1 << 20)).decode()}
    assert len(KeyValue.of(content).value or "") == LONGEST_VALUE


UNAVAILABLE, COMPACTED = 14, 11


@pytest.mark.parametrize(
    ("error", "is_unknown"),
    [
        (TimeoutError("timed out"), True),
        (ConnectionResetError(), True),
        (ValueError("no JSON"), True),
        (Refusal(UNAVAILABLE, "request timed out"), True),
        (Refusal(UNAVAILABLE, "etcdserver: no leader"), False),
        (Refusal(3, "too many operations"), False),
    ],
    ids=repr,
)
def test_what_was_sent_is_unknown_unless_etcd_has_refused_it(
    error: Exception, *, is_unknown: bool
) -> None:
    assert described(MEMBER, error, CONFIG, is_sent=True).is_unknown is is_unknown
    assert not described(MEMBER, error, CONFIG).is_unknown


def test_what_is_compacted_is_an_error_of_its_own() -> None:
    assert isinstance(described(MEMBER, Refusal(COMPACTED, "compacted"), CONFIG), Compacted)
    assert not isinstance(described(MEMBER, Refusal(3, "compacted"), CONFIG), Compacted)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ConnectionRefusedError(111, "Connection refused"),
            "cannot be reached: Connection refused",
        ),
        (BrokenPipeError(), "write https in endpoints"),
        (TimeoutError(), "does not answer in time; start this member"),
        (ssl.SSLError(1, "[SSL] alert"), "TLS fails: "),
        (Refusal(7, "permission denied"), "--prefix=true ROLE readwrite /cgw/"),
        (KeyError("header"), "not one of etcd: KeyError 'header'; correct endpoints"),
        (Refusal.of(500, b"\x1b[31mred\n"), "(HTTP status 500)"),
    ],
    ids=repr,
)
def test_each_fault_names_the_member_and_the_cure_on_one_line(error: Exception, said: str) -> None:
    told = str(described(MEMBER, error, CONFIG))
    assert told.startswith("https://[fd00::1]:2379: ")
    assert said in told
    assert is_one_line(told)


def test_errors_of_all_members_are_one_with_the_cure_of_the_first() -> None:
    one = RegistryError("http://a:1", "it is down", "start it")
    told = joined([one, RegistryError("http://b:1", "it hangs", "kill it")])
    assert str(told) == "http://a:1: it is down, http://b:1: it hangs; start it"


def test_a_write_must_not_be_sent_twice_and_a_read_may() -> None:
    assert questions.commit([Put("a", "1")], [], []).is_write
    assert not Listing("a").next_page().is_write
    assert not questions.keep_alive(1).is_write


@pytest.mark.parametrize("token", ["a\r\nHost: elsewhere", "\u00e4"])
def test_a_token_cannot_become_another_header(token: str) -> None:
    with pytest.raises(ValueError, match="no HTTP header"):
        questions.token("cgw", "secret").read({"token": token})
