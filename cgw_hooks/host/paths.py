"""The places of cgw's files on this host, and the variables that change them.

This module runs for every guest of the host. It must import nothing but ``os``, which is always
loaded.
"""

import os

RUNTIME_DIRECTORY = "/run/cgw"


def config_file() -> str:
    """Return the path of the node's config: ``CGW_CONFIG``, else /etc/cgw/cgw.toml."""
    return os.environ.get("CGW_CONFIG") or "/etc/cgw/cgw.toml"


def guests_directory() -> str:
    """Return the folder of guests' annotation files: ``guests.d`` beside the config."""
    return os.path.join(os.path.dirname(config_file()), "guests.d")


def runtime_directory() -> str:
    """Return the folder of the records: ``CGW_RUNTIME_DIR``, else /run/cgw."""
    return os.environ.get("CGW_RUNTIME_DIR") or RUNTIME_DIRECTORY


def state_directory() -> str:
    """Return the folder of what outlives a reboot: ``CGW_STATE_DIR``, else /var/lib/cgw."""
    return os.environ.get("CGW_STATE_DIR") or "/var/lib/cgw"


def record_file(directory: str, key: str) -> str:
    """Return the path of a guest's record. The hook script knows this path too."""
    return f"{directory}/guests/{key.replace('/', '_')}.json"


def agent_socket(directory: str) -> str:
    """Return the path of the agent's socket. The hook script knows this path too."""
    return os.path.join(directory, "agent.sock")
