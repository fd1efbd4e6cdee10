"""The person who has typed a command."""

from __future__ import annotations

import os
import pwd

#: What /proc/self/loginuid says of a process that no login has started: (uid_t) -1.
_NOBODY = (1 << 32) - 1


def person() -> str:
    """Return the name of the user who has logged in; also after ``sudo`` or ``su``.

    For the log only: root can set all of this to something else.
    """
    name = os.environ.get("SUDO_USER", "")
    if name:
        return name
    try:
        with open("/proc/self/loginuid", encoding="ascii") as file:
            number = int(file.read())
    except (OSError, ValueError):
        number = _NOBODY
    return _name(os.getuid() if number == _NOBODY else number)


def _name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
