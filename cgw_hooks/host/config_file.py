"""Reads config files, after a check that only root can write them."""

from __future__ import annotations

import os
import stat

from cgw_hooks.core.node_config import NodeConfig
from cgw_hooks.errors import InvalidConfig


def load_config(path: str, *, remote_guests: bool = True) -> NodeConfig:
    """Return the node's config, or the defaults if there is no file. Raises ``InvalidConfig``.

    Without ``remote_guests``, these are left out: see ``parse_config``.
    """
    text = read_config(path)
    if text is None or _has_only_comments(text):
        return NodeConfig()
    from cgw_hooks.core.parse.config_toml import parse_config  # imports tomllib

    try:
        return parse_config(text.decode("utf-8"), remote_guests=remote_guests)
    except InvalidConfig as error:
        raise InvalidConfig(f"{path}: {error.subject}", error.message, error.cure) from None
    except UnicodeDecodeError as error:
        raise InvalidConfig(path, str(error), "save the file as UTF-8") from None


def _has_only_comments(text: bytes) -> bool:
    """Whether a config sets nothing, like the one of the package: a hook then loads no parser."""
    return all(line.lstrip()[:1] in {b"", b"#"} for line in text.splitlines())


def read_config(path: str) -> bytes | None:
    """Return the content of a config file; None if there is no file.

    Raises ``InvalidConfig`` if the file cannot be read or is no regular file, or if another user
    than root can write it.
    """
    try:
        with open(path, "rb", opener=_at_once) as file:
            _refuse_unsafe(path, os.fstat(file.fileno()))
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidConfig(path, f"it cannot be read: {error.strerror}", "correct it") from error


def _at_once(path: str, flags: int) -> int:
    """Open a file without waiting: a pipe of this name would let the agent wait for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _refuse_unsafe(path: str, found: os.stat_result) -> None:
    """Refuse a file that other users can write: it becomes rules of this host."""
    if not stat.S_ISREG(found.st_mode):
        raise InvalidConfig(path, "it is not a regular file", "move it away")
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidConfig(
            path, "others than root can write to it", f"run: chown root {path}; chmod go-w {path}"
        )
