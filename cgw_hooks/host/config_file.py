"""Reads config files, after a check that only root can write them."""

from __future__ import annotations

import os
import stat

from cgw_hooks.core.node_config import NodeConfig
from cgw_hooks.errors import InvalidConfig


def load_config(path: str) -> NodeConfig:
    """Return the node's config, or the defaults if there is no file. Raises ``InvalidConfig``."""
    text = read_config(path)
    if text is None:
        return NodeConfig()
    from cgw_hooks.core.parse.config_toml import parse_config  # imports tomllib

    try:
        return parse_config(text.decode("utf-8"))
    except InvalidConfig as error:
        raise InvalidConfig(f"{path}: {error.subject}", error.message, error.cure) from None
    except UnicodeDecodeError as error:
        raise InvalidConfig(path, str(error), "save the file as UTF-8") from None


def read_config(path: str) -> bytes | None:
    """Return the content of a config file; None if there is no file.

    Raises ``InvalidConfig`` if the file cannot be read, or if another user than root can write
    it.
    """
    try:
        with open(path, "rb") as file:
            _refuse_unsafe(path, os.fstat(file.fileno()))
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidConfig(path, f"it cannot be read: {error.strerror}", "correct it") from error


def _refuse_unsafe(path: str, found: os.stat_result) -> None:
    """Refuse a file that other users can write: it becomes rules of this host."""
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidConfig(
            path, "others than root can write to it", f"run: chown root {path}; chmod go-w {path}"
        )
