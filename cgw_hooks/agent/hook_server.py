"""Serves the hook calls that hook scripts hand over, one after the other, in their order.

The protocol, of which client.pl is the other side:

    client: the length of what follows (4 bytes, big-endian), driver, guest, operation, suboperation
            and extra, each with a NUL at its end, then the guest's XML
    agent:  STILL_WAITING, any number of times, then the exit code as one byte, and a line of stderr

A client that hears nothing for a second gives its call up, and closes its connection. So those that
wait for the calls of others are told, between two calls, that the agent goes on.

Where the registry of the cluster must admit the ports of a guest that is about to start, its client
waits for that, while the calls of others are carried out.

This thread must never call libvirt or wait for the network: libvirt waits for the hook.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

from cgw_hooks.errors import RecordError
from cgw_hooks.host import paths
from cgw_hooks.host.state.directory import make_safe_directory
from cgw_hooks.node.hook_answer import Answer, HookCall

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Question(Protocol):
        """What a client waits for."""

        def answer(self) -> Answer | None:
            """Return the answer; None as long as it is not there."""


#: What the agent sends while it carries out the calls of others. No exit code is this.
STILL_WAITING = b"\xff"
#: Seconds within which a client must have sent its call.
_DEADLINE = 1.0
_LENGTH_BYTES = 4
_ARGUMENTS = 5
_WAITING_CALLS = 4096
#: Accepted connections; the kernel keeps the others. A service may have 1,024 open files.
_MOST_CLIENTS = 512
#: Seconds between two messages to a client that waits.
_TELL_SECONDS = 0.2
#: libvirt's definitions are at most a little longer than 4 MiB (REMOTE_STRING_MAX).
_LONGEST_REQUEST = 16 << 20
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))


class Abandoned(BaseException):
    """The client has given the call up, and carries it out itself.

    This is no ``Exception``: nothing between the check and the server must handle it.
    """


class HookServer:
    """The agent's socket. ``fileno()`` is readable when a call waits.

    Raises ``RecordError`` if another agent serves the same folder.
    """

    def __init__(self, directory: str) -> None:
        make_safe_directory(directory)
        self._path = paths.agent_socket(directory)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        #: The clients that wait, and when each of them was told so.
        self._waiting: deque[tuple[socket.socket, float]] = deque()
        #: The clients whose answer depends on another thread.
        self._asked: list[tuple[socket.socket, Question]] = []
        self._client: socket.socket | None = None
        self._thread = 0
        #: Whether the present call has got the lock: from then on it may have changed something.
        self._has_begun = False
        if _is_served(self._path):
            raise RecordError(
                self._path, "another agent serves hook calls here", "see: systemctl status cgw"
            )
        _remove(self._path)
        mask = os.umask(0o177)
        try:
            self._socket.bind(self._path)
        except OSError as error:
            raise RecordError(self._path, f"it cannot be made: {error.strerror}") from error
        finally:
            os.umask(mask)
        self._socket.listen(_WAITING_CALLS)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a call waits."""
        return self._socket.fileno()

    @property
    def has_asked(self) -> bool:
        """Whether clients wait for another thread."""
        return bool(self._asked)

    @property
    def has_calls(self) -> bool:
        """Whether clients wait whose connections are accepted already."""
        return bool(self._waiting)

    def is_reachable(self) -> bool:
        """Whether the socket is still in its folder."""
        return os.path.exists(self._path)

    def close(self) -> None:
        """Stop serving: from now on, hooks carry out their calls themselves."""
        _remove(self._path)
        self._socket.close()
        for client, _ in (*self._waiting, *self._asked):
            client.close()

    def serve_one(self, begin: Callable[[HookCall], Answer | Question]) -> bool:
        """Carry out the next call and answer it. Return False if it has ended in the middle.

        A client that has given a call up carries it out itself, once the lock is free. If the
        agent held the lock for too long for that, nobody has carried the call out to its end.
        """
        self._accept()
        self._tell_waiting()
        self._answer_asked()
        if not self._waiting:
            return True
        client, _ = self._waiting.popleft()
        self._client, self._thread = client, threading.get_ident()
        self._has_begun = False
        question = None
        try:
            question = self._serve(client, begin)
        except Abandoned:
            return not self._has_begun
        except OSError:  # the client has ended
            return True
        finally:
            self._client = None
            if question:
                self._asked.append((client, question))
            else:
                client.close()
        return True

    def _answer_asked(self) -> None:
        """Answer the clients whose question was answered, or whose time has passed."""
        asked, self._asked = self._asked, []
        for client, question in asked:
            with suppress(OSError):  # the client has ended
                done = None if _is_closed(client) else question.answer()
                if done:
                    client.sendall(_packed(done))
                elif not _is_closed(client):
                    client.sendall(STILL_WAITING)
                    self._asked.append((client, question))
                    continue
            client.close()

    def refuse_abandoned(self) -> None:
        """Raise ``Abandoned`` if the client of this thread's call has closed its connection.

        A call that its client has given up must not be carried out later.
        """
        if threading.get_ident() != self._thread:
            return
        if self._client and _is_closed(self._client):
            raise Abandoned
        self._has_begun = True

    def _accept(self) -> None:
        """Accept the connections that wait. What cannot be accepted now can be later."""
        while len(self._waiting) < _MOST_CLIENTS:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            client.setblocking(False)
            # It is told at once: it may have waited for the end of a long call.
            self._waiting.append((client, -inf))

    def _tell_waiting(self) -> None:
        """Tell clients that have heard nothing for a while that the agent goes on."""
        now = time.monotonic()
        for place, (client, told) in enumerate(self._waiting):
            if now - told >= _TELL_SECONDS:
                self._waiting[place] = (client, now)
                with suppress(OSError):  # the client has ended; its turn will show that
                    client.sendall(STILL_WAITING)

    def _serve(
        self, client: socket.socket, begin: Callable[[HookCall], Answer | Question]
    ) -> Question | None:
        """Carry out a call; return a question if its answer must wait for another thread."""
        if not _is_own_user(client):
            return None
        client.settimeout(_DEADLINE)
        call = _read_call(client)
        client.setblocking(False)  # the answer is short
        if call is None or _is_closed(client):
            return None
        done = begin(call)
        if not isinstance(done, Answer):
            return done
        client.sendall(_packed(done))
        return None


def _packed(done: Answer) -> bytes:
    return bytes([done.exit_code]) + done.line.encode("utf-8", "backslashreplace")


def _read_call(client: socket.socket) -> HookCall | None:
    """Return the call; None if it is not complete. Raises ``OSError``, also after a timeout."""
    length = int.from_bytes(_read(client, _LENGTH_BYTES), "big")
    if length > _LONGEST_REQUEST:
        return None
    body = _read(client, length)
    *words, given = body.split(b"\0", _ARGUMENTS)
    if len(body) < length or len(words) != _ARGUMENTS:
        return None
    driver, name, operation, suboperation, reason = (
        word.decode("utf-8", "surrogateescape") for word in words
    )
    return HookCall(driver, name, operation, suboperation, reason, given)


def _read(client: socket.socket, size: int) -> bytes:
    """Return so many bytes, fewer if the client closes the connection before."""
    parts: list[bytes] = []
    while size > 0:
        part = client.recv(min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _is_closed(client: socket.socket) -> bool:
    try:
        return not client.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _is_own_user(client: socket.socket) -> bool:
    """Whether the client runs as this process's user. The folder admits no other one anyway."""
    found = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1]) == os.geteuid()


def _is_served(path: str) -> bool:
    """Whether a process listens at the socket, even a hung one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_DEADLINE)
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:  # its queue is full
            return True
    return True


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
