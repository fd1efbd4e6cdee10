"""Asks the members of the config one after the other, with a token, within one deadline."""

from __future__ import annotations

import json
import os
import stat
import time
from http.client import HTTPException

from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.connection import Connection
from cgw_hooks.host.etcd.faults import FAILED_PRECONDITION, NOT_ETCD, Refusal, described, joined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from cgw_hooks.core.node_config import Endpoint, Registry

    Value = TypeVar("Value")

#: Seconds for which an endpoint that failed is tried last.
_SHUN_SECONDS = 10.0
FAULTS = (OSError, HTTPException, Refusal, *NOT_ETCD)
_OK = 200
_LONGEST_PASSWORD = 4096

#: All threads share the token of a config: etcd takes 80 to 300 ms to make one.
_tokens: dict[Registry, str] = {}


class Requests:
    """For one thread. ``seconds`` is a deadline; all methods raise ``RegistryError``.

    A request that changes keys (``is_write``) is never sent twice: after a timeout it may still be
    carried out, and a second copy could be carried out after later changes.
    """

    def __init__(self, config: Registry) -> None:
        self.config = config
        self._connection: Connection | None = None
        #: Endpoints that failed, and until when they are tried last.
        self._shunned: dict[Endpoint, float] = {}
        #: Endpoints that did not answer in time, since the last answer of any.
        self._silent: set[Endpoint] = set()
        #: Whether the present request itself was sent.
        self._is_sent = False

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def ask(  # noqa: PLR0913 - two of them are options
        self,
        path: str,
        body: dict[str, Any],
        seconds: float,
        parse: Callable[[dict[str, Any]], Value],
        *,
        is_write: bool = False,
        unless: int | None = None,
    ) -> Value:
        """Return the first answer, parsed; that of nothing if etcd refuses with code ``unless``."""
        end = time.monotonic() + seconds
        errors = []
        order = self._in_order()
        for place, endpoint in enumerate(order):
            now = time.monotonic()
            # A dead endpoint must leave time for the others.
            share = now + (end - now) / (len(order) - place)
            try:
                return parse(self.ask_one(endpoint, path, body, share, end if is_write else share))
            except FAULTS as error:
                if isinstance(error, Refusal) and error.code == unless:
                    return parse({})
                errors.append(described(endpoint, error, self.config))
                if isinstance(error, Refusal) and not error.is_transient:
                    raise errors[-1] from error
                self._leave(endpoint)
                was_sent = error.is_unknown if isinstance(error, Refusal) else self._is_sent
                if is_write and was_sent:
                    errors[-1].is_unknown = True
                    raise errors[-1] from error
        raise joined(errors)

    def _in_order(self) -> list[Endpoint]:
        """Return the endpoints: those first that did not fail a moment ago."""
        now = time.monotonic()
        return sorted(self.config.endpoints, key=lambda e: self._shunned.get(e, now) > now)

    def _leave(self, endpoint: Endpoint) -> None:
        self.close()
        self._shunned[endpoint] = time.monotonic() + _SHUN_SECONDS

    def ask_one(
        self, endpoint: Endpoint, path: str, body: dict[str, Any], share: float, end: float
    ) -> dict[str, Any]:
        """Ask one member: until ``share`` it must be connected, until ``end`` it must answer.

        Raises what ``FAULTS`` names, and ``RegistryError`` for a file of the config.
        """
        self._is_sent = False
        connection = self.connect(endpoint, share)
        if self.config.user and self.config not in _tokens:
            self._authenticate(connection, share)
        token = _tokens.get(self.config, "")
        try:
            return self._post(connection, path, body, end)
        except Refusal as refusal:
            if not self.config.user or not refusal.is_for_want_of_token(token):
                raise
            self._is_sent = False
            self._authenticate(connection, end)
            return self._post(connection, path, body, end)

    def connect(self, endpoint: Endpoint, end: float) -> Connection:
        """Return the connection to this endpoint, opened anew if it has to be."""
        found = self._connection
        if found is None or found.endpoint != endpoint or not found.is_usable():
            self.close()
            found = self._connection = Connection(endpoint, self.config, end)
        return found

    def headers(self) -> dict[str, str]:
        """Return what each request carries."""
        headers = {
            "Content-Type": "application/json",
            # A member without a leader then refuses at once (rpctypes.MetadataRequireLeaderKey).
            "Grpc-Metadata-hasleader": "true",
        }
        token = _tokens.get(self.config)
        return {**headers, "Authorization": token} if token else headers

    def _post(
        self, connection: Connection, path: str, body: dict[str, Any], end: float
    ) -> dict[str, Any]:
        content = json.dumps(body).encode()
        self._is_sent = True
        try:
            status, answer = connection.ask(path, content, self.headers(), end)
        except TimeoutError:
            self._silent.add(connection.endpoint)
            if self._silent.issuperset(self.config.endpoints):
                # No member refuses a token of before the restore of a backup: each waits for the
                # index in it (auth/simple_token.go).
                _tokens.pop(self.config, None)
            raise
        self._silent.clear()
        found: Any = json.loads(answer) if status == _OK else None
        if not isinstance(found, dict) or "error" in found:
            raise Refusal.of(status, answer)
        return found

    def _authenticate(self, connection: Connection, end: float) -> None:
        _tokens.pop(self.config, None)
        body = {"name": self.config.user, "password": _password(self.config.password_file)}
        try:
            token = str(self._post(connection, "/v3/auth/authenticate", body, end)["token"])
            if not token.isascii() or not token.isprintable():
                raise ValueError("a token that is no HTTP header")
        except Refusal as refusal:
            if refusal.code != FAILED_PRECONDITION:
                raise
            token = ""  # authentication is not enabled (yet)
        finally:
            self._is_sent = False
        _tokens[self.config] = token


def _password(path: str) -> str:
    """Read a file that its owner alone can read. Raises ``RegistryError``."""
    try:
        with open(path, "rb", opener=lambda p, f: os.open(p, f | os.O_NONBLOCK)) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise RegistryError(path, "it is not a regular file", "write the password into one")
            if found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o077:
                cure = f"run: chown root {path}; chmod 600 {path}"
                raise RegistryError(path, "others than root can read the password", cure)
            return file.read(_LONGEST_PASSWORD).decode().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(path, f"it cannot be read: {error}", "correct it") from error
