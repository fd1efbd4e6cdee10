"""What went wrong between this node and etcd, as an error with a cure."""

from __future__ import annotations

import json
import ssl  # for the classes of its errors alone

from cgw_hooks.errors import RegistryError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cgw_hooks.core.node_config import Endpoint, Registry

#: What the parsing of an answer raises that is not one of etcd.
NOT_ETCD = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)
#: gRPC's status codes: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
PERMISSION_DENIED, FAILED_PRECONDITION, OUT_OF_RANGE, UNAUTHENTICATED = 7, 9, 11, 16
#: Cancelled, unknown, deadline exceeded, internal, unavailable.
_TRANSIENT = {1, 2, 4, 13, 14}
_USER_CURE = "set user and password-file in [registry]"
#: Parts of etcd's own texts (api/v3rpc/rpctypes/error.go, embed/serve.go), and what to do.
_CURES = {
    "no leader": "most members must run and reach each other; see: etcdctl endpoint status",
    "invalid user ID or password": "correct user and password-file in [registry]",
    "user name is empty": _USER_CURE,
    "CommonName": "give this node a certificate without a CN: etcd's gateway refuses others",
    "space exceeded": "run on a member: etcdctl compact, etcdctl defrag, etcdctl alarm disarm",
    "Not Found": "start etcd with --enable-grpc-gateway=true",
}
_TLS_CURE = "correct endpoints, ca, certificate and key in [registry]"
_DOWN_CURE = "start this member, or mend the network to it"
_TEXT_LIMIT = 200
#: The status of HTTP if etcd's gateway has carried the request out.
OK = 200


class AnswerTooLong(RegistryError):
    """A member sends more than is read of one answer."""


class Compacted(RegistryError):
    """What was asked for is no longer in etcd's history."""


class Refusal(Exception):
    """etcd's answer to a request that it refuses: gRPC's code (-1: none), and a text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code, self.text = code, text

    @classmethod
    def of(cls, status: int, content: bytes) -> Refusal:
        """Parse the answer: JSON, or a line of text where etcd's gateway was not asked.

        A stream has an object as its ``error``. 3.5 leaves ``error`` out for others.
        """
        try:
            answer: Any = json.loads(content)
            error = answer["error"] if isinstance(answer.get("error"), dict) else answer
            code = int(error.get("grpc_code") or error.get("code", -1))
            return cls(code, str(error["message"])[:_TEXT_LIMIT])
        except NOT_ETCD:
            text = content[:_TEXT_LIMIT].decode(errors="replace").strip()
            return cls(-1, f"{text} (HTTP status {status})")

    @property
    def is_transient(self) -> bool:
        """Whether another member may carry the request out."""
        return self.code in _TRANSIENT

    @property
    def is_certain(self) -> bool:
        """Whether the request was not carried out, and will not be."""
        return not self.is_transient or "no leader" in self.text

    def is_for_want_of_token(self, token: str) -> bool:
        """Whether a new token helps: it has expired, or the users have changed, or none was sent.

        What was sent without a token over TLS is of a user without a name, who may do nothing.
        """
        return (
            self.code == UNAUTHENTICATED
            or (self.code == PERMISSION_DENIED and not token)
            or any(part in self.text for part in ("user name is empty", "auth store is old"))
        )


def described(
    endpoint: Endpoint, error: Exception, config: Registry, *, is_sent: bool = False
) -> RegistryError:
    """Name the member, what it said or did not do, and the cure.

    ``is_sent``: what was sent to the member changes something, if it is carried out.
    """
    message, cure = _told(error, config)
    is_compacted = isinstance(error, Refusal) and error.code == OUT_OF_RANGE
    is_unknown = is_sent and not (isinstance(error, Refusal) and error.is_certain)
    kind = Compacted if is_compacted else RegistryError
    return kind(str(endpoint), printable(message), cure, is_unknown=is_unknown)


def _told(error: Exception, config: Registry) -> tuple[str, str]:
    if isinstance(error, Refusal):
        return f"etcd refuses: {error.text}", _cure(error.text, config)
    if isinstance(error, ssl.SSLCertVerificationError):
        authority = config.ca or "the host's certification authorities"
        return f"its certificate does not pass {authority}: {error.verify_message}", _TLS_CURE
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None)  # those that Python itself raises have none
        return f"TLS fails: {reason or error}", _TLS_CURE
    if isinstance(error, OSError):
        return _told_of_network(error)
    reason = f"{type(error).__name__} {error}"[:_TEXT_LIMIT]
    return f"its answer is not one of etcd: {reason}", "correct endpoints in [registry]"


def _told_of_network(error: OSError) -> tuple[str, str]:
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        cure = "see its log; if it has TLS, write https in endpoints"
        return "it closes the connection without an answer", cure
    if isinstance(error, TimeoutError):
        return "it does not answer in time", _DOWN_CURE
    return f"it cannot be reached: {error.strerror or error}", _DOWN_CURE


def _cure(text: str, config: Registry) -> str:
    if "permission denied" in text:
        if not config.user:
            return _USER_CURE
        return f"run: etcdctl role grant-permission --prefix=true ROLE readwrite {config.prefix}/"
    return next((cure for part, cure in _CURES.items() if part in text), "")


def joined(errors: list[RegistryError]) -> RegistryError:
    """Make one error of those of all endpoints, with the first one's cure."""
    first, *others = errors
    message = ", ".join([first.message, *(f"{e.subject}: {e.message}" for e in others)])
    return RegistryError(first.subject, message, first.cure)
