"""Where things are on this host, and the variables that say otherwise.

Runs for every guest of the host: ``os`` is loaded anyway, nothing else here.
"""

import os


def config_file() -> str:
    """The node's config: ``CGW_CONFIG``, else /etc/cgw/cgw.toml."""
    return os.environ.get("CGW_CONFIG") or "/etc/cgw/cgw.toml"


def guests_directory() -> str:
    """Annotations of guests, a file to each: ``guests.d`` beside the config."""
    return os.path.join(os.path.dirname(config_file()), "guests.d")


def runtime_directory() -> str:
    """Where the records are: ``CGW_RUNTIME_DIR``, else /run/cgw."""
    return os.environ.get("CGW_RUNTIME_DIR") or "/run/cgw"


def record_file(directory: str, key: str) -> str:
    """The record of a guest; the hook script knows this place too."""
    return os.path.join(directory, "guests", key.replace("/", "_") + ".json")
