"""The ``cgw`` command: the entry point.

``cgw hook`` runs whenever a guest starts or stops, so it is recognised before anything else is
imported.
"""

import gc
import os
import sys


def main() -> int:
    """Run ``cgw`` with the process's arguments; return the exit code."""
    if sys.argv[1:2] == ["hook"] and sys.argv[2:3] not in (["-h"], ["--help"]):
        # A hook call makes little garbage, and ends soon. To look for it takes 2 ms.
        gc.disable()
        from cgw_hooks.commands import hook

        code = hook.main(sys.argv[2:])
        if sys.stderr:  # None if it is closed
            sys.stderr.flush()
        # libvirt waits for this process. The interpreter's normal end takes 6 ms and does
        # nothing that cgw needs.
        os._exit(code)

    from cgw_hooks.commands import terminal

    return terminal.main(sys.argv[1:])
