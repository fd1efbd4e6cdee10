"""The places where numbers of the agent can be read: a listening socket, and a file.

The agent is root. So a path of the config is used only where nobody else can put something in its
place: the folder must belong to root, and only root may write to it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.node_config import Metrics

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WAITING = 16


def listen(config: Metrics) -> socket.socket:
    """Return a listening socket, which does not block. Raises ``OSError``, also if it is taken.

    Who may write to a Unix socket may read the numbers: root, and the group of its folder if that
    has the set-group-ID bit.
    """
    if config.address is None:
        return _listen_at_path(config.socket)
    family = socket.AF_INET if config.address.version == 4 else socket.AF_INET6  # noqa: PLR2004
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((str(config.address), config.port))
        made.listen(_WAITING)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def unlisten(config: Metrics) -> None:
    """Remove the socket from its folder, if it has a path."""
    if config.socket:
        _unlink_socket(config.socket)


def write_file(path: str, content: bytes) -> None:
    """Replace a file that all may read: its reader sees the former or the new one, never a part.

    Raises ``OSError``.
    """
    name = os.path.basename(path)
    folder = _open_folder(os.path.dirname(path))
    try:
        # node_exporter reads the files that end in .prom.
        temporary = f".{name}.new"
        _unlink(temporary, folder)  # a killed agent has left it
        file = os.open(temporary, _FILE, 0o600, dir_fd=folder)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(file, view) :]
            os.fchmod(file, 0o644)
        finally:
            os.close(file)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)


def remove_file(path: str) -> None:
    """Remove the file. Raises ``OSError``, but not if it is not there."""
    folder = _open_folder(os.path.dirname(path))
    try:
        _unlink(os.path.basename(path), folder)
    finally:
        os.close(folder)


def _open_folder(path: str) -> int:
    folder = os.open(path, _FOLDER)
    found = os.fstat(folder)
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(folder)
        raise PermissionError(errno.EPERM, "others than root can write to the folder", path)
    return folder


def _unlink(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _listen_at_path(path: str) -> socket.socket:
    os.close(_open_folder(os.path.dirname(path)))
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left(path):
            _unlink_socket(path)
        made.bind(path)
        os.chmod(path, 0o660)  # not by umask(2): the agent has other threads that make files
        made.listen(_WAITING)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def _is_left(path: str) -> bool:
    """Whether a socket is there that nobody serves."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.setblocking(False)
            client.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _unlink_socket(path: str) -> None:
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return
