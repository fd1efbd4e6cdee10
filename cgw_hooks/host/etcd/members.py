"""Asks the members of the config one after the other, with a token, within one deadline."""

from __future__ import annotations

import json
import os
import stat
import time
from functools import partial

from cgw_hooks.core.etcd import questions
from cgw_hooks.core.etcd.faults import FAILED_PRECONDITION, OK, Refusal, described, joined
from cgw_hooks.errors import RegistryError
from cgw_hooks.host.etcd.connection import FAULTS, Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from cgw_hooks.core.etcd.questions import Question
    from cgw_hooks.core.node_config import Endpoint, Registry
    from cgw_hooks.host.etcd.connection import Deadline

    Value = TypeVar("Value")

#: Seconds for which an endpoint that failed is tried last.
_SHUN_SECONDS = 10.0
_LONGEST_PASSWORD = 4096

#: All threads share the token of a user and its file: etcd takes 80 to 300 ms to make one.
_tokens: dict[tuple[str, str], str] = {}


class Members:
    """The members that one thread asks, over one connection at a time."""

    def __init__(self, config: Registry) -> None:
        self._config = config
        self._user = config.user, config.password_file
        self._connection: Connection | None = None
        #: Endpoints that failed, and until when they are tried last.
        self._shunned: dict[Endpoint, float] = {}
        #: Whether a question was sent that must not be sent again.
        self._is_sent = False

    def close(self) -> None:
        """Close the connection; the next question opens another one."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def ask(self, question: Question[Value], deadline: Deadline) -> Value:
        """Return the first answer. Raises ``RegistryError``."""
        now = time.monotonic()
        order = sorted(self._config.endpoints, key=lambda e: self._shunned.get(e, now) > now)
        return self.first(partial(self.ask_one, question), order, deadline)

    def first(
        self,
        attempt: Callable[[Endpoint, Deadline], Value],
        endpoints: Sequence[Endpoint],
        deadline: Deadline,
    ) -> Value:
        """Try one endpoint after the other, each within its share of the time that is left.

        Raises ``RegistryError``: if all have failed, if one refuses, or if one may have written.
        """
        errors: list[RegistryError] = []
        for place, endpoint in enumerate(endpoints):
            try:
                return attempt(endpoint, deadline.share(len(endpoints) - place))
            except FAULTS as error:
                errors.append(described(endpoint, error, self._config, is_sent=self._is_sent))
                if isinstance(error, Refusal) and not error.is_transient:
                    raise errors[-1] from error
                self.close()
                self._shunned[endpoint] = time.monotonic() + _SHUN_SECONDS
                if errors[-1].is_unknown:
                    raise errors[-1] from error
        if len(errors) == len(self._config.endpoints):
            # No member refuses a token of before the restore of a backup: each waits for the
            # index in it (auth/simple_token.go), and so answers nothing.
            _tokens.pop(self._user, None)
        raise joined(errors)

    def ask_one(self, question: Question[Value], endpoint: Endpoint, deadline: Deadline) -> Value:
        """Ask one member. Raises what ``FAULTS`` names, and ``RegistryError`` for a file.

        For the answer to a write, which no other member can give, there is all the time.
        """
        self._is_sent = False
        self.connect(endpoint, deadline)
        # Another thread may change the token at any moment.
        token = _tokens.get(self._user)
        if token is None:
            token = self._authenticate(endpoint, deadline) if self._config.user else ""
        answered = deadline.whole if question.is_write else deadline
        try:
            return self._post(endpoint, question, answered, token)
        except Refusal as refusal:
            if not self._config.user or not refusal.is_for_want_of_token(token):
                raise
        token = self._authenticate(endpoint, answered)
        return self._post(endpoint, question, answered, token)

    def connect(self, endpoint: Endpoint, deadline: Deadline) -> Connection:
        """Return the connection to this endpoint, opened anew if it has to be."""
        found = self._connection
        if found is None or found.endpoint != endpoint or not found.is_usable():
            self.close()
            found = self._connection = Connection(endpoint, self._config, deadline)
        return found

    def headers(self) -> dict[str, str]:
        """Return what each request carries."""
        return questions.headers(_tokens.get(self._user, ""))

    def _post(
        self, endpoint: Endpoint, question: Question[Value], deadline: Deadline, token: str = ""
    ) -> Value:
        body = json.dumps(question.body).encode()
        connection = self.connect(endpoint, deadline)
        self._is_sent = question.is_write
        status, answer = connection.ask(question.path, body, questions.headers(token), deadline)
        found: Any = json.loads(answer) if status == OK else None
        if not isinstance(found, dict) or "error" in found:
            raise Refusal.of(status, answer)
        return question.read(found)

    def _authenticate(self, endpoint: Endpoint, deadline: Deadline) -> str:
        """Get a token, for all threads; empty if etcd knows no users."""
        question = questions.token(self._config.user, _password(self._config.password_file))
        try:
            token = self._post(endpoint, question, deadline)
        except Refusal as refusal:
            if refusal.code != FAILED_PRECONDITION:
                raise
            token = ""  # authentication is not enabled (yet)
        _tokens[self._user] = token
        return token


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
